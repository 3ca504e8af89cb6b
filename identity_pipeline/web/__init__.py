"""The web server: the Sources page, the Sources API, and Dagster's own UI behind one login.

Belongs here: HTTP, HTML, who may come in. Does not belong here: what is done with a source
(``operations``), SQL (``store``), what a command prints (``cli``).
"""
