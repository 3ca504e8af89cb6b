"""Packed files: recognised by their bytes, unpacked whole or not at all, in bounded memory. Whatever packs here is not ours."""

import bz2
import gzip
import io
import lzma
import resource
import struct
import zipfile
import zlib
from collections.abc import Callable

import pyarrow as pa
import pytest
from backports import zstd

from identity_pipeline.core.errors import LimitExceeded, PipelineError, SourceRejected, TruncatedBody
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.readers import files
from identity_pipeline.readers.files import archive
from identity_pipeline.readers.files.spool import spool
from identity_pipeline_tests.servers.shelf import Shelf

BODY = b"id,name\n" + b"".join(b"%d,Ann\n" % n for n in range(50))


class _Unseekable(io.RawIOBase):
    """A pipe, as a program writes to that has to say a member's length behind it."""

    def __init__(self) -> None:
        self.body = b""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.body += bytes(data)
        return len(data)


def zipped(
    *members: tuple[str, bytes],
    method: int = zipfile.ZIP_DEFLATED,
    unseekable: bool = False,
    zip64: bool = False,
    comment: bytes = b"",
) -> bytes:
    """An archive by Python's own library."""
    out = _Unseekable() if unseekable else io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:  # type: ignore[arg-type]
        for name, body in members:
            with made.open(zipfile.ZipInfo(name) if name.endswith("/") else _info(name, method), "w", force_zip64=zip64) as file:
                file.write(body)
        made.comment = comment
    return out.body if isinstance(out, _Unseekable) else out.getvalue()


def _info(name: str, method: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.compress_type = method
    return info


def _zstd(body: bytes) -> bytes:
    return zstd.compress(body, options={zstd.CompressionParameter.checksum_flag: 1})


STREAMS: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "gzip": (gzip.compress, 2),
    "bzip2": (bz2.compress, 10),
    "xz": (lzma.compress, 6),
    "xz with a shorter sum": (lambda body: lzma.compress(body, check=lzma.CHECK_CRC32), 6),
    "zstd": (_zstd, 4),
}
"""How to pack, and how many of the first bytes tell that it is so."""
ARCHIVES: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "zip": (lambda body: zipped(("f.csv", body)), 4),
    "zip, stored": (lambda body: zipped(("f.csv", body), method=zipfile.ZIP_STORED), 4),
    "zip, its length behind it": (lambda body: zipped(("f.csv", body), unseekable=True), 4),
    "zip64": (lambda body: zipped(("f.csv", body), zip64=True), 4),
    "zip64, stored": (lambda body: zipped(("f.csv", body), zip64=True, method=zipfile.ZIP_STORED), 4),
    "zip64, its length behind it": (lambda body: zipped(("f.csv", body), zip64=True, unseekable=True), 4),
    "zip with a comment": (lambda body: zipped(("f.csv", body), comment=b"of ours"), 4),
    "zip with a folder": (lambda body: zipped(("a/", b""), ("a/f.csv", body)), 4),
    "zip of a Mac": (
        lambda body: zipped(("f.csv", body), ("__MACOSX/", b""), ("__MACOSX/._f.csv", b"\0\5"), ("a/.DS_Store", b"x"), unseekable=True),
        4,
    ),
}
PACKINGS = STREAMS | ARCHIVES


def unpacked(*chunks: bytes, limit: int = 10_000) -> bytes:
    with spool(chunks, limit)[0] as file:
        return file.read()


def cut(packed: bytes, size: int) -> list[bytes]:
    return [packed[at : at + size] for at in range(0, len(packed), size)]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_a_file_is_unpacked_in_whatever_pieces_it_comes(packing: str, size: int) -> None:
    pack, _ = PACKINGS[packing]
    for body in (BODY, b"id\n1\n"):
        assert unpacked(*cut(pack(body), size)) == body


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_packed_file_may_be_larger_than_the_pieces_of_its_unpacking(packing: str) -> None:
    body = b"id,name\n" + b"".join(b"%d,%x\n" % (n, n * 2654435761 % 2**32) for n in range(30_000))
    assert unpacked(*cut(PACKINGS[packing][0](body), 65_536), limit=2 * len(body)) == body


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_packed_file_that_breaks_off_anywhere_is_an_error(packing: str) -> None:
    pack, known_by = PACKINGS[packing]
    whole = pack(BODY)
    for end in range(known_by, len(whole)):
        with pytest.raises(TruncatedBody, match=r"breaks off|damaged"):
            unpacked(whole[:end])


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_packed_file_in_which_any_bit_is_wrong_is_an_error_or_the_same_file(packing: str) -> None:
    pack, known_by = PACKINGS[packing]
    whole, refused = pack(BODY), 0
    for at in range(known_by, len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            try:
                assert unpacked(bytes(damaged)) == BODY
            except PipelineError:
                refused += 1
    assert refused > len(whole) * 3, "some of a ZIP archive's bytes, such as dates, do not matter"


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("tail", [b"garbage", b"\x1f\x8b", bytes(3) + b"x"])
def test_something_else_after_a_packed_file_is_an_error(packing: str, tail: bytes) -> None:
    with pytest.raises(TruncatedBody):
        unpacked(PACKINGS[packing][0](BODY) + tail)


@pytest.mark.parametrize("packing", PACKINGS)
def test_zeros_after_a_packed_file_are_padding(packing: str) -> None:
    assert unpacked(PACKINGS[packing][0](BODY) + bytes(512)) == BODY


@pytest.mark.parametrize("packing", STREAMS)
def test_streams_that_stand_one_after_the_other_are_one_file(packing: str) -> None:
    pack, _ = STREAMS[packing]
    for size in (1, 5, 64, 10_000):
        assert unpacked(*cut(pack(BODY[:100]) + pack(BODY[100:]), size)) == BODY
        assert unpacked(*cut(pack(b"") + pack(BODY) + bytes(8) + pack(b"x,Bob\n"), size)) == BODY + b"x,Bob\n"


@pytest.mark.parametrize("packing", [name for name in PACKINGS if "stored" not in name])
def test_a_file_at_the_limit_is_unpacked_and_one_byte_more_is_not(packing: str) -> None:
    packed = PACKINGS[packing][0](b"id\n" + b"1\n" * 10_000)
    assert len(unpacked(packed, limit=20_003)) == 20_003
    with pytest.raises(LimitExceeded):
        unpacked(packed, limit=20_002)


@pytest.mark.parametrize("packing", ["gzip", "bzip2", "xz", "zstd", "zip", "zip, its length behind it"])
def test_a_bomb_is_stopped_early(packing: str) -> None:
    packed = PACKINGS[packing][0](bytes(100_000_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LimitExceeded):
        unpacked(packed, limit=1_000_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_store_hands_out_packed_files(packing: str) -> None:
    context = ReadContext(sleep=lambda _: None, log=lambda _: None)
    shelf = Shelf(**{"f.csv": ("1", PACKINGS[packing][0](BODY))})
    tables = list(files.read_files(shelf, files.Reading(files.Dialect()), Window(context=context)))
    assert pa.concat_tables(tables)["id"].to_pylist() == [str(n) for n in range(50)]


def test_what_another_library_packs_is_unpacked_and_frames_to_be_skipped_are_skipped() -> None:
    skipped = b"\x52\x2a\x4d\x18" + struct.pack("<I", 4) + b"note"
    packed = pa.Codec("zstd").compress(BODY, asbytes=True)
    for whole in (packed, skipped + packed, packed + skipped, packed + skipped + packed):
        for size in (1, 9, 10_000):
            assert unpacked(*cut(whole, size)) in {BODY, BODY + BODY}


def test_zstd_that_wants_much_memory_or_a_dictionary_is_refused() -> None:
    far = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 28})
    with pytest.raises(SourceRejected, match="more memory to unpack than is allowed: pack it with less"):
        unpacked(far.compress(BODY) + far.flush())
    known = zstd.train_dict([b"id,name,%d" % n * 20 for n in range(1000)], 1000)
    with pytest.raises(SourceRejected, match="needs a dictionary"):
        unpacked(zstd.compress(BODY, zstd_dict=known))


def test_xz_that_wants_much_memory_is_refused() -> None:
    far = [{"id": lzma.FILTER_LZMA2, "dict_size": 512 * 2**20, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3}]
    header = lzma.compress(b"", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**20}])
    assert header.startswith(b"\xfd7zXZ")
    # making one takes the memory too: the block's header is written by hand
    block = b"\x02\x00\x21\x01" + bytes([_dictionary(far[0]["dict_size"])]) + bytes(3)
    with pytest.raises(SourceRejected, match="more memory to unpack than is allowed"):
        unpacked(lzma.compress(b"")[:12] + block + struct.pack("<I", zlib.crc32(block)) + bytes(100))


def _dictionary(size: int) -> int:
    return next(bits for bits in range(40) if (2 | bits & 1) << (bits // 2 + 11) >= size)


def changed(packed: bytes, at: int, value: int) -> bytes:
    """The archive with another 16 bits in the header of its first member, and in its entry of the directory."""
    made = bytearray(packed)
    struct.pack_into("<H", made, at, value)
    struct.pack_into("<H", made, packed.index(b"PK\1\2") + at + 2, value)
    return bytes(made)


ONE = zipped(("f.csv", BODY))


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (zipped(("a.csv", BODY), ("b.csv", BODY)), "holds several files: pack one file by itself"),
        (zipped(("a/", b""), ("a/b/", b"")), "holds no file"),
        (zipped(), "holds no file"),
        (zipped(("__MACOSX/._f.csv", b"x")), "holds no file"),
        (changed(ONE, 6, 1), "is encrypted: pack it without a password"),
        (changed(ONE, 8, 99), "is encrypted"),
        (changed(ONE, 8, 9), r"by a method that is not read \(9\): pack it with deflate"),
        (zipped(("f.csv", BODY), method=zipfile.ZIP_BZIP2), r"not read \(12\)"),
        (zipped(("f.csv", BODY), method=zipfile.ZIP_LZMA), r"not read \(14\)"),
        (zipped(("f.csv", BODY), method=zipfile.ZIP_STORED, unseekable=True), "without the length of the file before it"),
        (zipped(("[Content_Types].xml", b"<x/>"), ("xl/workbook.xml", b"<x/>")), "an Excel workbook or another document, not CSV"),
        (zipped(("mimetype", b"application/vnd.oasis.opendocument.spreadsheet")), "an Excel workbook or another document"),
        # deleted in place: the directory does not list what still stands in front
        (zipped(("f.csv", BODY))[: ONE.index(b"PK\1\2")] + zipped()[-22:], "other files than its directory lists"),
    ],
)
def test_an_archive_that_is_not_read_says_what_to_do(packed: bytes, message: str) -> None:
    context = ReadContext(sleep=lambda _: None, log=lambda _: None)
    with pytest.raises(SourceRejected, match=f"^crm/f.zip: it.*{message}"):
        list(files.read_files(Shelf(**{"crm/f.zip": ("1", packed)}), files.Reading(files.Dialect()), Window(context=context)))


@pytest.mark.parametrize("inner", [gzip.compress, _zstd, lambda body: zipped(("f.csv", body))])
def test_what_is_packed_twice_is_refused(inner: Callable[[bytes], bytes]) -> None:
    context = ReadContext(sleep=lambda _: None, log=lambda _: None)
    packed = zipped(("f.csv", inner(BODY)))
    with pytest.raises(SourceRejected, match=r"packed twice|a ZIP archive"):
        list(files.read_files(Shelf(f=("1", packed)), files.Reading(files.Dialect()), Window(context=context)))


def test_an_archive_may_hold_little_beside_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_SIDE", 1_000)
    monkeypatch.setattr(archive, "_MEMBERS", 10)
    with pytest.raises(SourceRejected, match="too much beside the file"):
        unpacked(zipped(("f.csv", BODY), ("__MACOSX/x", bytes(2_000))))
    with pytest.raises(SourceRejected, match="more than 10 entries"):
        unpacked(zipped(("f.csv", BODY), *((f"__MACOSX/{n}", b"") for n in range(20))))


def test_a_table_whose_header_begins_as_an_archive_is_none() -> None:
    for body in (b"PK,name\n1,Ann\n", b"PK\n1\n", b"P", b"BZh\n1\n"):
        assert unpacked(body) == body
