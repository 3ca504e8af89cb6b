"""The floor under everything that speaks HTTP.

Belongs here: which hosts may be reached (``guard``), connections that keep to it and to a deadline
(``session``), one exchange through its redirects and what its failures mean (``exchange``), the
bytes of a body, whole and bounded (``body``), trying again (``retry``), and what every vendor has in
the same form: where tokens are handed out (``endpoint``). Does not belong here:
what a body means (``rest``, ``files``) and what one vendor does (``connectors``).
"""
