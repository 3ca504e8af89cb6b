"""What people do with sources, written once for the command line, the pages and the API.

Belongs here: the rows of listings, the steps of a connection test, a declaration from a form to its
file, starting a run and following it. Does not belong here: what is printed (``cli``), HTML and HTTP
(``web``), how a load works (``loading``).
"""
