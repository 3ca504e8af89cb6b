"""Links: the address of a page that shows a file, as a browser has it, and that of the file itself."""

import re
from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode

_Query = list[tuple[str, str]]


def _without(*names: str, then: str = "") -> Callable[[_Query], _Query]:
    """Leaves these parameters out, and adds ``then`` (``name=value``) at the end."""
    return lambda query: [pair for pair in query if pair[0] not in names] + parse_qsl(then)


def _only(*names: str) -> Callable[[_Query], _Query]:
    return lambda query: [(name, dict(query)[name]) for name in names if dict(query).get(name)]


_USER = r"(?:u/\d+/|a/[\w.-]+/)?"
_NONE = _only()
_LINKS: tuple[tuple[str, str, Callable[[_Query], _Query]], ...] = (
    # Google: sheets as published, sheets, files
    (
        rf"docs\.google\.com/{_USER}spreadsheets/{_USER}d/e/([\w-]+)/pub(?:html)?",
        r"docs.google.com/spreadsheets/d/e/\1/pub?output=csv",
        _only("gid", "single"),
    ),
    (
        rf"docs\.google\.com/{_USER}spreadsheets/{_USER}d/(?!e/)([\w-]+)(?:/(?!gviz)[^/]*)*",
        r"docs.google.com/spreadsheets/d/\1/export?format=csv",
        _only("gid", "resourcekey"),
    ),
    (
        rf"drive\.google\.com/{_USER}file/{_USER}d/([\w-]+)(?:/\w*)?",
        r"drive.google.com/uc?export=download&id=\1",
        _only("resourcekey"),
    ),
    (
        rf"(?:drive|docs)\.google\.com/{_USER}(?:open|uc|thumbnail)",
        r"drive.google.com/uc?export=download",
        _only("id", "resourcekey"),
    ),
    (r"storage\.cloud\.google\.com/(.+)", r"storage.googleapis.com/\1", _NONE),
    (r"console\.cloud\.google\.com/storage/browser/_details/([^;]+)(?:;.*)?", r"storage.googleapis.com/\1", _NONE),
    # Dropbox, Box, OneDrive, SharePoint, Nextcloud and ownCloud
    (r"((?:www\.)?dropbox\.com/(?:s|scl/fi|sh|scl/fo|t)/.+)", r"\1", _without("dl", "raw", then="dl=1")),
    (r"((?:[\w-]+\.)?(?:app\.)?box\.com)/s/(\w{16,})(?:/file/\d+)?/?", r"\1/shared/static/\2.csv", _NONE),
    (r"onedrive\.live\.com/(?:redir|embed|view|edit|view\.aspx|edit\.aspx|download\.aspx)", r"onedrive.live.com/download", _without()),
    (r"([\w-]+\.sharepoint\.com/:\w:/.+)", r"\1", _without("web", "download", then="download=1")),
    (r"([^/]+(?:/[\w-]+)*?(?:/index\.php)?/s/[A-Za-z0-9]{15})/?", r"\1/download", _NONE),
    # code and data
    (r"github\.com/([\w.-]+/[\w.-]+)/(?:blob|blame|edit)/(.+)", r"raw.githubusercontent.com/\1/\2", _NONE),
    (r"gist\.github\.com/([\w-]+/[0-9a-f]{20,})/?", r"gist.githubusercontent.com/\1/raw", _NONE),
    (r"([^/]+/.+/-)/(?:blob|blame|edit)/(.+)", r"\1/raw/\2", _NONE),
    (r"(bitbucket\.org/[\w.-]+/[\w.-]+)/src/(.+)", r"\1/raw/\2", _NONE),
    (r"([^/]+/[\w.-]+/[\w.-]+)/src/((?:branch|tag|commit)/.+)", r"\1/raw/\2", _NONE),
    (r"(huggingface\.co/.+)/blob/(.+)", r"\1/resolve/\2", _NONE),
    (r"(zenodo\.org/records?/\d+)/preview/(.+)", r"\1/files/\2?download=1", _NONE),
    (r"pastebin\.com/(\w{8})", r"pastebin.com/raw/\1", _NONE),
)
"""Host and path of a page that shows a file → those of the file itself, and what becomes of the query."""
_CONSOLE = re.compile(r"https://(?:s3|[\w-]+)\.console\.aws\.amazon\.com/s3/object/([\w.-]+)\?(.*)")


def file_address(url: str) -> str:
    """The address of the file behind a page that shows it, on Google, Dropbox, SharePoint, GitHub and the like; else ``url``."""
    if (console := _CONSOLE.fullmatch(url)) and {"region", "prefix"} <= (named := dict(parse_qsl(console[2]))).keys():
        return f"https://{console[1]}.s3.{named['region']}.amazonaws.com/{named['prefix']}"
    whole = re.fullmatch(r"https://([^?#\s]+)(?:\?([^#\s]*))?(?:#(\S*))?", url)
    if whole is None:
        return url
    place, query, fragment = whole[1], parse_qsl(whole[2] or "", keep_blank_values=True), parse_qsl(whole[3] or "")
    for page, file, kept in _LINKS:
        if found := re.fullmatch(page, place):
            sheet = [pair for pair in fragment if pair[0] == "gid" and "gid" not in dict(query)]
            more = urlencode(kept(query + sheet), safe="!~")
            target = found.expand(file)
            return f"https://{target}{('&' if '?' in target else '?') + more if more else ''}"
    return url
