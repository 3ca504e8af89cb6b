"""What a file is by its bytes, where it is no table of text: a document, a picture, a database, an archive.

Servers name such things ``text/csv`` too: an error is answered as JSON with status 200, a page of
a login takes the file's place, an export comes as a workbook.
"""

import codecs
import re

from identity_pipeline.core.errors import SourceRejected

HEAD = 65_536
"""Bytes of the beginning that decide."""
TAIL = 1_024
"""Bytes of the end that decide."""

_EXPORT = "export it as CSV"
_UNPACK = "pack it with gzip, bzip2, xz, Zstandard or zip, or leave it unpacked"
# A header may begin with letters that begin a binary file too (ORCID, MZ_id): they count only where bytes follow that no text has.
_NUL = rb"(?=.{0,1000}\x00)"
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (rb"PK\x03\x04|PK\x05\x06", "a ZIP archive or an Excel workbook", _EXPORT),
    (rb"PK\x07\x08PK", "a part of a split ZIP archive", "pack it in one"),
    (rb"\xd0\xcf\x11\xe0", "an Excel workbook", _EXPORT),
    (rb"%PDF-\d", "a PDF document", _EXPORT),
    (rb"\{\\rtf\d", "an RTF document", _EXPORT),
    (rb"(?:PAR1|ORC|ARROW1|FEA1)" + _NUL + rb"|Obj\x01|\x89HDF", "a column file (Parquet, ORC, Avro, Arrow or HDF5)", _EXPORT),
    (rb"SQLite format 3\x00|\x00\x01\x00\x00Standard (?:Jet|ACE) DB|PGDMP" + _NUL, "a database", _EXPORT),
    (rb"\x03.{3}(?=.{8}\x00{16})", "a dBase table", _EXPORT),
    (
        rb"\x89PNG\r|\xff\xd8\xff|II\*\x00|MM\x00\*|BM.{4}\x00{4}|\x00.{3}ftyp|RIFF.{3}\x00WEBP|GIF8[79]a" + _NUL,
        "a picture or a film",
        "give the address of the table",
    ),
    (rb"\x1f\x8b|BZh[1-9]1AY&SY|\xfd7zXZ\x00|\x28\xb5\x2f\xfd", "packed twice", "pack it once"),
    (rb"\x04\x22\x4d\x18", "packed with LZ4", _UNPACK),
    (rb"7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|\x1f\x9d|.{257}ustar" + _NUL, "an archive", _UNPACK),
    (rb"\x7fELF|\xca\xfe\xba\xbe|MZ" + _NUL, "a program", "correct the address"),
    (rb"BEGIN:VC(?:ARD|ALENDAR)\r?\n", "a vCard or calendar file", _EXPORT),
)
_BINARY = re.compile(r"[\x01-\x08\x0e-\x19\x1c-\x1f]")
# nothing is given back: a file of many comments must not take for ever
_ABOVE = rb"\s*+(?>(?:<!--.*?-->|<\?.*?\?>)\s*)*+"
_HTML = re.compile(
    _ABOVE + rb"<(?:!doctype\s+html|html|head|body|title|meta|link|script|style|div|p|h1|center|table|form|iframe|pre|br)\b(?!>\s*[,;\t|])",
    re.IGNORECASE | re.DOTALL,
)
_XML = re.compile(rb"\s*<\?xml\b|\s*<!doctype\b", re.IGNORECASE)
_ELEMENT = re.compile(_ABOVE + rb"<([A-Za-z][\w:.-]*)(?:\s[^<>]*)?(/?)>", re.DOTALL)
_JSON = re.compile(rb'\s*(?:\{\s*["}]|\[\s*[\[\]{"])')


def demand_text(head: bytes, tail: bytes, name: str) -> None:
    """Refuse a file that begins with ``head`` and ends with ``tail`` if it is no table of text.

    Raises:
        SourceRejected: what it is instead, and what to do.
    """
    for signature, what, advice in _SIGNATURES:
        if re.match(signature, head, re.DOTALL):
            raise SourceRejected(f"{name} is {what}, not CSV: {advice}")
    text, end = _narrow(head), _narrow(tail, head)
    if _HTML.match(text):
        raise SourceRejected(
            f"{name} is a web page instead of a file: it needs a login, or the address is that of a page with a link to the file"
        )
    for kind, found in (("XML", _is_xml(text, end)), ("JSON", _JSON.match(text))):
        if found:
            raise SourceRejected(
                f"{name} is a {kind} document instead of a file, which may be a message of an error: open the address and look"
            )


def demand_printable(head: str, name: str) -> None:
    """Refuse a file whose beginning, decoded, is full of control characters.

    Raises:
        SourceRejected: it holds no text.
    """
    if len(_BINARY.findall(head)) > max(16, len(head) // 20):
        raise SourceRejected(f"{name} holds no text: {_EXPORT}, or correct the setting encoding")


def _narrow(part: bytes, head: bytes | None = None) -> bytes:
    """Text with one byte for each ASCII character, without its byte order mark."""
    if (head or part).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or (head or part)[1:2] == b"\0":
        part = part.replace(b"\0", b"").removeprefix(codecs.BOM_UTF16_LE).removeprefix(codecs.BOM_UTF16_BE)
    return part.removeprefix(codecs.BOM_UTF8)


def _is_xml(text: bytes, end: bytes) -> bool:
    """True for an XML declaration, and for a first element that ends: some headers stand in angle brackets too."""
    if _XML.match(text):
        return True
    element = _ELEMENT.match(text)
    return bool(element) and (bool(element[2]) or b"</" + element[1] in text + end)
