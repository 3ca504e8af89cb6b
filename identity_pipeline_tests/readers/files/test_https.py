"""A file over https: whole, bounded, unpacked, and only when it is not the same as before."""

import gzip
import resource
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from identity_pipeline.core.cursor import Cursor
from identity_pipeline.core.errors import (
    ConfigurationError,
    ContractBroken,
    CredentialError,
    LimitExceeded,
    PermissionDenied,
    RateLimited,
    SourceRejected,
    SourceUnavailable,
    TruncatedBody,
)
from identity_pipeline.core.file_version import FileVersion
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.readers.files.csv import Dialect
from identity_pipeline.readers.files.https import DEADLINE, HttpsStore, is_signed
from identity_pipeline.readers.files.read import Reading, changed_files, read_files
from identity_pipeline_tests.servers import faults
from identity_pipeline_tests.servers.faults import FaultProxy
from identity_pipeline_tests.servers.files import Authority, FileServer

BODY = b"id,name\n" + b"".join(b"%d,Ann\n" % n for n in range(50))


@pytest.fixture
def proxy(server: FileServer, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A server whose answers are spoiled as planned; the true ones are ``BODY``."""
    # the proxy forwards in plain HTTP
    with FileServer(None) as plain:
        plain.put("/f.csv", BODY)
        with FaultProxy(plain.url, tls=authority.context()) as proxy:
            yield proxy


def context() -> ReadContext:
    return ReadContext(sleep=lambda _: None, log=lambda _: None)


def fetch(url: str, window: Window | None = None, deadline: float = DEADLINE, **options: Any) -> bytes | None:
    """The content, None if the file is left out as unchanged."""
    window = window or Window(context=context())
    found = [each.file.read() for each in changed_files(HttpsStore(url, window.context, deadline), Reading(Dialect(), **options), window)]
    assert len(found) <= 1
    return found[0] if found else None


def after(url: str, window: Window | None = None, **options: Any) -> dict[str, FileVersion]:
    """The states that a load leaves behind."""
    window = window or Window(context=context())
    fetch(url, window, **options)
    return window.context.files


def again(states: dict[str, FileVersion], **options: Any) -> Window:
    return Window(files=states, context=context(), **options)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_file_arrives_as_it_is_however_it_is_sent(server: FileServer, framing: str, packed: bool) -> None:
    url = server.put("/f.csv", BODY, framing=framing, packed=packed)
    window = Window(context=context())
    assert fetch(url, window) == BODY
    assert window.context.requests == 1
    assert 0 < window.context.bytes_read < len(BODY) + (1 if not packed else 0)
    assert window.context.warnings == []
    assert abs((datetime.now(UTC) - (window.context.source_time or datetime.min.replace(tzinfo=UTC))).total_seconds()) < 10


def test_a_file_of_unknown_length_is_read_with_a_warning(server: FileServer) -> None:
    window = Window(context=context())
    assert fetch(server.put("/f.csv", BODY, framing="none"), window) == BODY
    assert "length_not_verified" in window.context.warnings[0]


GZIPPED = gzip.compress(BODY)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "body",
    [GZIPPED, gzip.compress(BODY[:100]) + gzip.compress(BODY[100:]), GZIPPED + bytes(512), gzip.compress(b"") + GZIPPED],
    ids=["one member", "two members", "padded", "empty member first"],
)
def test_a_gzip_file_is_unpacked_whatever_its_name(server: FileServer, body: bytes, packed: bool) -> None:
    assert fetch(server.put("/f.csv", body, packed=packed, content_type="application/octet-stream")) == BODY


def test_a_file_at_the_limit_is_read_and_one_byte_more_is_not(server: FileServer) -> None:
    for options in ({}, {"framing": "chunked"}, {"packed": True}):
        url = server.put("/f.csv", BODY, **options)
        assert fetch(url, max_bytes=len(BODY)) == BODY
        with pytest.raises(LimitExceeded, match="raise max_bytes"):
            fetch(url, max_bytes=len(BODY) - 1)


def test_a_length_above_the_limit_is_refused_before_the_body_is_read(server: FileServer) -> None:
    window = Window(context=context())
    with pytest.raises(LimitExceeded):
        fetch(server.put("/f.csv", bytes(1_000_000)), window, max_bytes=999_999)
    assert window.context.bytes_read == 0


def bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([*(packer.compress(bytes(2**20)) for _ in range(megabytes)), packer.flush()])


@pytest.mark.parametrize("packed", [False, True])
def test_a_bomb_is_stopped_early_in_little_memory(server: FileServer, packed: bool) -> None:
    url = server.put("/f.csv", bomb(100), packed=packed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LimitExceeded):
        fetch(url, max_bytes=2_000_000_000)
    with pytest.raises(LimitExceeded):
        fetch(url)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


# --- states ---------------------------------------------------------------------------------


OLD, NEW = "Mon, 13 Apr 2026 10:00:00 GMT", "Mon, 13 Apr 2026 10:00:01 GMT"


@pytest.mark.parametrize("how", [{"etag": '"1"'}, {"modified": OLD}, {"etag": 'W/"1"', "modified": OLD}, {"etag": '"1"', "modified": OLD}])
def test_an_unchanged_file_is_not_read_again(server: FileServer, how: dict[str, str]) -> None:
    url = server.put("/f.csv", BODY, **how)
    said: list[str] = []
    states = after(url)
    window = Window(files=states, context=ReadContext(log=said.append))
    assert fetch(url, window) is None
    assert window.context.bytes_read == 0
    assert (window.context.files, window.context.files_unchanged) == ({}, 1)
    assert any("/f.csv: unchanged, left out" in line for line in said)
    server.put("/f.csv", BODY + b"50,Bob\n", **{name: {OLD: NEW}.get(value, '"2"') for name, value in how.items()})
    assert fetch(url, again(states)) == BODY + b"50,Bob\n"


@pytest.mark.parametrize(
    "how",
    [
        {"modified": OLD, "headers": {"Date": OLD}},
        {"modified": "yesterday"},
        {"etag": 'W/"1"'},
        {"etag": '"1"', "modified": OLD, "headers": {"Date": OLD}},
    ],
)
def test_a_file_without_proof_that_it_is_the_same_is_compared_by_its_bytes(server: FileServer, how: dict[str, Any]) -> None:
    """A date within a minute of the answer, or a weak tag, may stand for two contents."""
    url = server.put("/f.csv", BODY, **how)
    states = after(url)
    window = again(states)
    assert fetch(url, window) is None
    assert window.context.bytes_read == len(BODY)
    changed = BODY[:-2] + b"b\n"
    server.put("/f.csv", changed, **how)
    assert fetch(url, again(states)) == changed


@pytest.mark.parametrize(
    ("body", "modified"), [(BODY[:-5], OLD), (BODY[:-2] + b"b\n", "Mon, 13 Apr 2026 09:00:00 GMT")], ids=["another length", "put back"]
)
def test_a_date_counts_only_with_the_same_length_and_no_older_one(server: FileServer, body: bytes, modified: str) -> None:
    """A server answers 304 to If-Modified-Since for a file that was put back with an older date: so we never send it."""
    states = after(server.put("/f.csv", BODY, modified=OLD))
    url = server.put("/f.csv", body, modified=modified)
    assert fetch(url, again(states)) == body
    assert "If-Modified-Since" not in server.requests[-1][1]


@pytest.mark.parametrize(
    ("headers", "proof"),
    [
        ({"Last-Modified": OLD, "Date": "Mon, 13 Apr 2026 10:01:00 GMT", "Content-Length": "7"}, f"Last-Modified 7 {OLD}"),
        ({"Last-Modified": OLD, "Date": "Mon, 13 Apr 2026 10:00:59 GMT"}, ""),
        ({"Last-Modified": OLD, "Date": "Mon, 13 Apr 2026 09:59:00 GMT"}, ""),
        ({"Last-Modified": OLD}, ""),
        ({"Last-Modified": OLD, "Date": "Mon, 13 Apr 2026 10:00:30 GMT", "ETag": '"1"'}, ""),
        ({"Last-Modified": OLD, "Date": "Mon, 13 Apr 2026 10:01:00 GMT", "ETag": '"1"'}, 'ETag "1"'),
        ({"Last-Modified": OLD, "Date": "Mon, 13 Apr 2026 10:01:00 GMT", "ETag": 'W/"1"'}, f"Last-Modified - {OLD}"),
        ({"ETag": 'W/"1"'}, ""),
        ({}, ""),
    ],
)
def test_only_a_settled_date_or_a_strong_tag_proves_the_same_bytes(headers: dict[str, str], proof: str) -> None:
    found = HttpsStore("https://example.org/f.csv", context())._version(headers)
    assert found.partition(" ")[2] == proof


def test_a_tag_that_comes_back_weak_proves_nothing(server: FileServer) -> None:
    states = after(server.put("/f.csv", BODY, etag='"1"'))
    with FileServer(None) as weak:
        assert fetch(weak.put("/f.csv", BODY), again(states)) == BODY, "another address"
    server.put("/f.csv", BODY[:-5], etag='"1"', headers={"ETag": 'W/"1"'})
    with pytest.raises(ContractBroken, match="304"):
        fetch(server.url + "/f.csv", again(states))


@pytest.mark.parametrize(
    ("url", "signed"),
    [
        ("https://x.blob.core.windows.net/c/f.csv?sv=2024&se=2027-01-01&sr=b&sp=r&sig=abc%3D", True),
        ("https://b.s3.amazonaws.com/f.csv?X-Amz-Algorithm=A&X-Amz-Signature=00", True),
        ("https://b.s3.amazonaws.com/f.csv?AWSAccessKeyId=A&Signature=x&Expires=1", True),
        ("https://storage.googleapis.com/b/f.csv?X-Goog-Signature=00", True),
        ("https://x.org/f.csv?token=abc", True),
        ("https://x.org/f.csv?access_token=abc", True),
        ("https://x.org/f.csv?a=1&api_key=abc", True),
        ("https://x.org/f.csv?apikey=abc", True),
        ("https://x.org/f.csv?auth=eyJhbGciOi", True),
        ("https://x.org/f.csv?q=eyJhbGciOi", True),
        ("https://x.org/f.csv?PASSWORD=abc", True),
        ("https://ann:secret@x.org/f.csv", True),
        ("https://x.org/f.csv#access_token=abc", True),
        ("https://x.org/f.csv", False),
        ("https://x.org/signature/f.csv?list=1&design=2&author=ann", False),
        ("https://www.dropbox.com/scl/fi/x/f.csv?rlkey=k&dl=0", False),
        ("https://docs.google.com/spreadsheets/d/a/edit?gid=7#gid=7", False),
        ("https://x.org/f.csv?token=", False),
        ("https://[x/?sig=1", False),
    ],
)
def test_a_signed_address_is_known_by_its_query(url: str, signed: bool) -> None:
    assert is_signed(url) == signed


def test_the_same_content_under_another_tag_is_unchanged(server: FileServer) -> None:
    states = after(server.put("/f.csv", BODY, etag='"1"'))
    url = server.put("/f.csv", BODY, etag='"2"', packed=True)
    window = again(states)
    assert fetch(url, window) is None
    assert fetch(url, again(window.context.files)) is None
    assert server.requests[-1][1]["If-None-Match"] == '"2"'


def test_a_file_without_tag_and_date_is_compared_by_content(server: FileServer) -> None:
    url = server.put("/f.csv", BODY)
    states = after(url)
    assert fetch(url, again(states)) is None
    server.put("/f.csv", BODY[:-1])
    assert fetch(url, again(states)) == BODY[:-1]


def test_an_unchanged_file_is_read_again_where_more_is_asked_for(server: FileServer) -> None:
    url = server.put("/f.csv", BODY, etag='"1"')
    early, late = ({"cursor": Cursor("at", "timestamp"), "lower": f"2026-0{m}-01T00:00:00Z"} for m in (1, 2))
    whole = after(url, rules="a")
    part = after(url, again({}, **late), rules="a")
    name = next(iter(whole))
    for states, options, rules, same in (
        (whole, {}, "a", True),
        (whole, early, "a", True),
        (whole, {}, "b", False),
        (whole, {"full_refresh": True}, "a", False),
        (whole, {"objects": (name,)}, "a", False),
        (part, late, "a", True),
        (part, early, "a", False),
        (part, late | {"cursor": Cursor("other", "timestamp")}, "a", False),
        (part, {}, "a", False),
        (part, late | {"by_mark": True}, "a", True),
        (whole, {"by_mark": True, **early}, "a", True),
        ({name: FileVersion()}, {}, "a", False),
    ):
        assert (fetch(url, again(states, **options), rules=rules) is None) == same, (states, options, rules)


def test_another_query_is_not_asked_for_by_the_old_tag(server: FileServer) -> None:
    url = server.put("/f.csv", BODY, etag='"1"')
    states = after(url + "?list=1")
    assert fetch(url + "?list=2", again(states)) is None, "the content says so, not the tag"
    assert "If-None-Match" not in server.requests[-1][1]


def test_a_state_is_noted_only_when_the_file_was_read_to_the_end(server: FileServer) -> None:
    window = Window(context=context())
    reading = changed_files(HttpsStore(server.put("/f.csv", BODY), window.context), Reading(Dialect()), window)
    next(reading)
    reading.close()
    assert window.context.files == {}


def test_neither_name_nor_state_holds_the_query(server: FileServer) -> None:
    states = after(server.put("/f.csv", BODY, etag='"1"') + "?signature=SECRET")
    assert list(states) == [server.url + "/f.csv"]
    assert "SECRET" not in str(states)


def test_a_store_shows_no_query(server: FileServer) -> None:
    assert "SECRET" not in repr(HttpsStore(server.url + "/f.csv?signature=SECRET", context()))


def test_a_name_that_is_not_this_file_is_refused(server: FileServer) -> None:
    with pytest.raises(ConfigurationError, match="no file"):
        fetch(server.put("/f.csv", BODY), again({}, objects=("other.csv",)))


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(500),
        faults.status(503, Retry_After="2"),
        faults.status(429, Retry_After="1"),
        faults.reset,
        faults.reset_in_body,
        faults.short_body,
        faults.open_chunks,
        faults.cut_gzip,
    ],
    ids=["500", "503", "429", "reset", "reset in body", "short body", "open chunks", "cut gzip"],
)
def test_a_passing_fault_is_passed_by(proxy: FaultProxy, fault: faults.Fault) -> None:
    window = Window(context=context())
    proxy.plan([fault, fault])
    assert fetch(proxy.url + "/f.csv", window) == BODY
    assert window.context.requests == 3


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.status(500), SourceUnavailable),
        (faults.status(429), RateLimited),
        (faults.reset, SourceUnavailable),
        # Whether the reset overtakes the end of what was sent is the network's choice.
        (faults.reset_in_body, (SourceUnavailable, TruncatedBody)),
        (faults.short_body, TruncatedBody),
        (faults.open_chunks, TruncatedBody),
        (faults.cut_gzip, TruncatedBody),
    ],
)
def test_a_fault_that_stays_ends_the_read_after_five_times(
    proxy: FaultProxy, fault: faults.Fault, error: type[Exception] | tuple[type[Exception], ...]
) -> None:
    with pytest.raises(error, match="asked 5 times") as caught:
        fetch(proxy.plan([fault] * 5).url + "/f.csv?key=SECRET")
    assert len(proxy.requests) == 5
    assert "SECRET" not in str(caught.value)
    assert "/f.csv" in str(caught.value)


def test_a_connection_that_is_reset_in_the_body_was_lost_not_cut_short(server: FileServer) -> None:
    with FileServer(None) as plain:
        plain.put("/f.csv", BODY)
        with FaultProxy(plain.url).plan([faults.reset_in_body] * 5) as proxy, pytest.raises(SourceUnavailable, match="connection was lost"):
            fetch(proxy.url + "/f.csv")


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (401, CredentialError, "login"),
        (403, PermissionDenied, "expired"),
        (404, SourceRejected, "correct the address"),
        (410, SourceRejected, "gone"),
        (206, ContractBroken, "answered 206"),
        (304, ContractBroken, "answered 304"),
    ],
)
def test_a_refusal_is_reported_at_once_with_advice(proxy: FaultProxy, status: int, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fetch(proxy.plan([faults.status(status)]).url + "/f.csv")
    assert len(proxy.requests) == 1


def test_the_wait_that_the_server_asks_for_is_kept(proxy: FaultProxy) -> None:
    waits: list[float] = []
    window = Window(context=ReadContext(sleep=waits.append, log=lambda _: None))
    fetch(proxy.plan([faults.status(503, Retry_After="7"), faults.status(429, Retry_After="11")]).url + "/f.csv", window)
    assert waits == [7, 11]
    assert window.context.throttled_seconds == 18
    with pytest.raises(RateLimited, match="asks us to wait 24 hours"):
        fetch(proxy.plan([faults.status(429, Retry_After="86400")]).url + "/f.csv")


@pytest.mark.parametrize("target", ["https://[x/", "https://x:99999/", "//[", "https://\x00/"])
def test_a_redirect_that_cannot_be_read_is_the_operators_to_fix(proxy: FaultProxy, target: str) -> None:
    with pytest.raises(ConfigurationError):
        fetch(proxy.plan([faults.redirect(target)]).url + "/f.csv")


def test_a_web_page_is_no_file(server: FileServer) -> None:
    page = b"<!DOCTYPE html><html><body>Sign in</body></html>"
    for kind in ("text/html; charset=utf-8", "text/csv"):
        with pytest.raises(SourceRejected, match="web page instead of a file"):
            list(read_files(HttpsStore(server.put("/f.csv", page, content_type=kind), context()), Reading(Dialect()), Window()))


def test_a_slow_server_is_given_up_at_the_deadline(proxy: FaultProxy) -> None:
    started = datetime.now(UTC)
    with pytest.raises(SourceUnavailable, match=r"within 0\.5 s"):
        fetch(proxy.plan([faults.drip("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")]).url + "/f.csv", deadline=0.5, retry_budget=0)
    assert (datetime.now(UTC) - started).total_seconds() < 3


def test_a_packing_that_was_not_asked_for_is_refused(server: FileServer) -> None:
    with pytest.raises(ContractBroken, match=r"packed as '?br"):
        fetch(server.put("/f.csv", BODY, headers={"Content-Encoding": "br"}))


def test_an_untrusted_certificate_is_the_operators_to_fix(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.put("/f.csv", BODY) + "?key=SECRET"
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ConfigurationError, match="certificate") as caught:
        fetch(url)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_server_that_is_not_there_may_be_tried_later(server: FileServer) -> None:
    with pytest.raises(SourceUnavailable, match="asked 5 times") as caught:
        fetch("https://127.0.0.1:1/f.csv?key=SECRET")
    assert "SECRET" not in str(caught.value)


def test_a_redirect_to_a_forbidden_host_is_not_tried_again(proxy: FaultProxy) -> None:
    with pytest.raises(ConfigurationError):
        fetch(proxy.plan([faults.redirect("https://169.254.169.254/")]).url + "/f.csv")
    assert len(proxy.requests) == 1
