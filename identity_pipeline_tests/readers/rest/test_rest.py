"""Reading HTTP APIs: no page is lost or halved, no wait or body is without end, no secret is shown."""

import base64
import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pyarrow as pa
import pytest
import trustme

from identity_pipeline.core.errors import (
    ConfigurationError,
    ContractBroken,
    CredentialError,
    LimitExceeded,
    PermissionDenied,
    PipelineError,
    RateLimited,
    SourceRejected,
    SourceUnavailable,
    TruncatedBody,
)
from identity_pipeline.core.fieldmap import REJECTED
from identity_pipeline.core.secret import StoredToken
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.readers import rest
from identity_pipeline_tests.servers import faults
from identity_pipeline_tests.servers.faults import Fault, FaultProxy, status

SECRET = "pat-eu1-canary-7f3a9c2e"
NOBODY = "http://127.0.0.1:1"
PAGE = {"results": [{"id": "1"}]}


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for bundle in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):  # this machine's own authorities are not tested, and slow to read
        monkeypatch.delenv(bundle, raising=False)
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1,localhost")


@pytest.fixture
def upstream() -> Iterator[FaultProxy]:
    """A server that answers one page to whatever is asked."""
    with FaultProxy(NOBODY) as server:
        server.plan([status(200, PAGE)] * 50)
        yield server


@pytest.fixture
def proxy(upstream: FaultProxy) -> Iterator[FaultProxy]:
    """A proxy before it whose plan a test fills."""
    with FaultProxy(upstream.url) as server:
        yield server


@pytest.fixture
def naps() -> list[float]:
    """How long the client slept, without sleeping."""
    return []


class Tokens:
    """A provider of these tokens: each refresh takes the next, as long as there is one."""

    def __init__(self, *tokens: str) -> None:
        self._tokens = list(tokens)
        self.refreshed = 0

    def token(self) -> str:
        """The first."""
        return self._tokens[0]

    def refresh(self) -> str | None:
        """The next."""
        self.refreshed += 1
        if len(self._tokens) == 1:
            return None
        self._tokens.pop(0)
        return self._tokens[0]


def client(server: FaultProxy | str, naps: list[float], **options: Any) -> rest.Client:
    url = server if isinstance(server, str) else server.url
    given: dict[str, Any] = {"auth": rest.BearerAuth(Tokens(SECRET)), "random": lambda: 1.0} | options
    context = given.pop("context", None) or ReadContext(sleep=naps.append)
    return rest.Client(url, context=context, **given)


def refusal(server: FaultProxy | str, naps: list[float], **options: Any) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        client(server, naps, **options).send(rest.Request("/people"))
    assert SECRET not in str(caught.value)
    return caught.value


def scripted(*bodies: Any) -> FaultProxy:
    return FaultProxy(NOBODY).plan([status(200, body) for body in bodies])


# What a response means


@pytest.mark.parametrize(
    ("code", "error"),
    [(401, CredentialError), (403, PermissionDenied), (400, SourceRejected), (404, SourceRejected), (422, SourceRejected)],
)
def test_a_refusal_that_a_person_must_fix_is_not_repeated(proxy, naps, code, error):
    proxy.plan([status(code, {"message": "no"})])
    found = refusal(proxy, naps)
    assert type(found) is error
    assert f"GET {proxy.url}/people answered {code}" in str(found)
    assert len(proxy.requests) == 1
    assert not naps


@pytest.mark.parametrize("code", [408, 423, 425, 429, 477, 500, 502, 503, 504, 521, 522, 523, 530])
def test_a_passing_trouble_is_waited_out(proxy, naps, code):
    proxy.plan([status(code), status(code)])
    assert client(proxy, naps).send(rest.Request("/people")).body == PAGE
    assert len(naps) == 2


@pytest.mark.parametrize(
    ("fault", "error"), [(status(503), SourceUnavailable), (status(429), RateLimited), (faults.reset, SourceUnavailable)]
)
def test_the_budget_of_attempts_is_bounded(proxy, naps, fault, error):
    proxy.plan([fault] * 100)
    assert type(refusal(proxy, naps)) is error
    assert len(proxy.requests) == 8


def test_waits_double_up_to_a_minute_and_end_with_the_budget(proxy, naps):
    proxy.plan([status(503)] * 100)
    refusal(proxy, naps, attempts=100)
    assert naps == [2, 4, 8, 16, 32, 60, 60, 60]
    assert sum(naps) <= rest.RETRY_BUDGET


def test_jitter_may_shorten_a_wait_of_our_own_but_not_one_that_was_asked_for(proxy, naps):
    proxy.plan([status(503), status(429, Retry_After="7")])
    client(proxy, naps, random=lambda: 0.25).send(rest.Request("/people"))
    assert naps == [0.5, 7]


def test_retry_after_as_a_date_counts_from_the_clock_of_the_source(proxy, naps):
    ahead = datetime.now(UTC) + timedelta(days=3)  # a source whose clock is wrong
    server_now, until = format_datetime(ahead, usegmt=True), format_datetime(ahead + timedelta(seconds=90), usegmt=True)
    head = f"HTTP/1.1 429 Slow\r\nDate: {server_now}\r\nRetry-After: {until}\r\nContent-Length: 0\r\n\r\n"
    proxy.plan([lambda exchange: exchange.raw(head.encode())])
    client(proxy, naps).send(rest.Request("/people"))
    assert naps == [90]


@pytest.mark.parametrize("text", ["", "-5", "0", "soon", "nan", "inf", "1e9", "Mon, 99 Foo 2026", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_retry_after_that_says_nothing_gives_way_to_our_own_backoff(proxy, naps, text):
    proxy.plan([status(429, Retry_After=text)])
    client(proxy, naps).send(rest.Request("/people"))
    assert naps == [2]


@pytest.mark.parametrize(("text", "shown"), [("86400", "24 hours"), ("315360000", "3,650 days"), ("301", "5 minutes"), ("9" * 30, "days")])
def test_a_wait_beyond_the_budget_ends_at_once_and_says_how_long(proxy, naps, text, shown):
    proxy.plan([status(429, Retry_After=text)])
    found = refusal(proxy, naps)
    assert type(found) is RateLimited
    assert shown in str(found)
    assert not naps


def test_waits_are_logged_and_metered(proxy, naps):
    logged: list[str] = []
    context = ReadContext(sleep=naps.append, log=logged.append)
    proxy.plan([status(429, Retry_After="10")])
    client(proxy, naps, context=context).send(rest.Request("/people"))
    assert logged == [f"waiting 10 s: GET {proxy.url}/people answered 429: the source asks us to slow down: try again later"]
    assert (context.throttled_seconds, context.requests) == (10, 2)
    assert context.bytes_read >= len(json.dumps(PAGE))


def test_the_vendor_can_say_that_waiting_is_useless(proxy, naps):
    errors = rest.ErrorBody(("policy",), ("message",), {"DAILY": rest.VendorError(advice="come back tomorrow", wait=rest.GIVE_UP)})
    proxy.plan([status(429, {"policy": "DAILY", "message": "used up"})])
    found = refusal(proxy, naps, errors=errors)
    assert type(found) is RateLimited
    assert str(found).endswith("answered 429 DAILY: come back tomorrow")
    assert not naps


def test_a_known_code_is_a_fault_with_status_200_too(proxy, naps):
    errors = rest.ErrorBody(("errors.0.extensions.code",), (), {"THROTTLED": rest.VendorError(error=RateLimited, wait=3)})
    proxy.plan([status(200, {"errors": [{"extensions": {"code": "THROTTLED"}}], "data": None})])
    assert client(proxy, naps, errors=errors).send(rest.Request("/people")).body == PAGE
    assert naps == [3]


def test_a_gateway_that_refuses_in_html_is_no_missing_permission(proxy, naps):
    proxy.plan([faults.html(403)])
    assert client(proxy, naps).send(rest.Request("/people")).body == PAGE
    proxy.plan([faults.html(403)] * 100)
    assert type(refusal(proxy, naps)) is RateLimited


PERSON = f"Jane Doe, 12 Harbour Street, jane.doe@nordwind-demo.com, +49 30 1234567, told us: {SECRET}"


@pytest.mark.parametrize("code", [400, 401, 403, 404, 422, 429, 500, 200])
@pytest.mark.parametrize(
    "body", [{"code": "BAD_THING", "message": PERSON}, {"code": PERSON, "message": PERSON}, {"code": [PERSON], PERSON: 1}]
)
def test_of_what_a_vendor_says_only_the_code_and_known_phrases_are_shown(proxy, naps, code, body):
    proxy.plan([status(code, body)] * 9)
    with pytest.raises(PipelineError) as caught:
        client(proxy, naps, errors=rest.ErrorBody(("code",), ("message",))).send(rest.Request("/people")).records("results")
    text = str(caught.value)
    assert not any(hidden in text for hidden in (SECRET, "Jane", "jane", "Doe", "Harbour", "nordwind", "1234567", "told us"))
    assert f"answered {code} BAD_THING" in text or "BAD_THING" not in str(body)


def test_the_scopes_in_a_message_are_shown_and_nothing_around_them(proxy, naps):
    said = {"code": "NO", "message": "Jane Doe needs `read_people`, read_people and write_people"}
    proxy.plan([status(403, said)])
    found = refusal(proxy, naps, errors=rest.ErrorBody(("code",), ("message",), phrases=r"\b(?:read|write)_[a-z]+\b"))
    assert "answered 403 NO (read_people, write_people): the credential works" in str(found)


@pytest.mark.parametrize("kind", ["text/Jane Doe", "Jane Doe", "text/html; charset=Jane"])
def test_a_content_type_is_named_only_if_it_can_be_one(proxy, naps, kind):
    proxy.plan([lambda exchange: exchange.send(200, {"Content-Type": kind}, b"x")] * 9)
    assert "jane" not in str(refusal(proxy, naps)).lower()


def test_a_query_is_never_shown(proxy, naps):
    proxy.plan([status(404)])
    with pytest.raises(SourceRejected) as caught:
        client(proxy, naps).send(rest.Request("/people", {"email": "jane@nordwind-demo.com"}))
    assert "jane" not in str(caught.value)


# Whole bodies


@pytest.mark.parametrize(
    "fault",
    [
        faults.short_body,
        faults.cut_json,
        faults.cut_json_unframed,
        faults.cut_gzip,
        faults.reset_in_body,
        status(200),
        faults.html(),
        pytest.param(faults.open_chunks, id="open_chunks"),
    ],
)
def test_a_damaged_page_is_read_again(proxy, naps, fault):
    proxy.plan([fault])
    assert client(proxy, naps).send(rest.Request("/people")).body == PAGE
    assert len(proxy.requests) == 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.short_body, TruncatedBody),
        (faults.cut_json, TruncatedBody),
        (faults.cut_json_unframed, TruncatedBody),
        (faults.cut_gzip, TruncatedBody),
        (faults.open_chunks, TruncatedBody),
        (status(200), TruncatedBody),
        (faults.html(), ContractBroken),
        (status(200, PAGE, Content_Type="text/csv"), ContractBroken),
        (status(200, PAGE, Content_Encoding="br"), ContractBroken),
    ],
)
def test_a_page_that_stays_damaged_is_an_error_and_never_zero_records(proxy, naps, fault, error):
    proxy.plan([fault] * 100)
    assert type(refusal(proxy, naps)) is error


def test_every_cut_of_a_page_is_noticed(naps):
    body = json.dumps(PAGE).encode()

    def cut(at: int) -> Fault:
        return lambda exchange: exchange.send(200, {"Content-Type": "application/json"}, body[:at])

    with FaultProxy(NOBODY) as server:
        server.plan(cut(at) for at in range(len(body)))
        asked = client(server, naps, attempts=1)
        for _ in range(len(body)):
            with pytest.raises(TruncatedBody):
                asked.send(rest.Request("/people"))


def test_a_body_that_unpacks_beyond_the_limit_ends_the_read(proxy, naps):
    proxy.plan([faults.bomb(megabytes=3)])
    found = refusal(proxy, naps, max_bytes=2**20)
    assert type(found) is LimitExceeded
    assert len(proxy.requests) == 1


def test_a_body_of_the_limit_is_read(proxy, naps):
    size = len(json.dumps(PAGE))
    assert client(proxy, naps, max_bytes=size).send(rest.Request("/people")).body == PAGE
    assert type(refusal(proxy, naps, max_bytes=size - 1)) is LimitExceeded


def test_an_unreadable_body_does_not_hide_a_refusal(proxy, naps):
    proxy.plan([faults.html(404)])
    assert type(refusal(proxy, naps)) is SourceRejected


def test_numbers_keep_their_digits(naps):
    with FaultProxy(NOBODY) as server:
        body = b'{"results": [{"id": 9007199254740993, "score": 1.10}]}'
        server.plan([lambda exchange: exchange.send(200, {"Content-Type": "application/json"}, body)])
        assert client(server, naps).send(rest.Request("/people")).records("results") == [{"id": "9007199254740993", "score": "1.10"}]


# Deadlines and connections


@pytest.mark.parametrize(
    "head", ["HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", ""]
)
def test_a_server_that_drips_ends_at_the_deadline(proxy, naps, head):
    proxy.plan([faults.drip(head)])
    started = time.monotonic()
    found = refusal(proxy, naps, deadline=0.3, attempts=1)
    assert type(found) is SourceUnavailable
    assert "within 0.3 s" in str(found)
    assert time.monotonic() - started < 30


def test_a_kept_connection_is_bounded_as_a_new_one(proxy, naps):
    asked = client(proxy, naps, deadline=2, attempts=1)
    asked.send(rest.Request("/people"))
    proxy.plan([faults.drip()])
    started = time.monotonic()
    with pytest.raises(SourceUnavailable, match="within 2 s"):
        asked.send(rest.Request("/people"))
    assert time.monotonic() - started < 30


def test_a_tls_handshake_that_drips_ends_at_the_deadline(naps):
    def drip(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            peer.sendall(b"\x16\x03\x03\x3f\xff\x02")  # a long record, of which one byte comes now and then
            while True:
                peer.sendall(b"\x00")
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: drip(server.accept()[0]))
        thread.start()
        started = time.monotonic()
        found = refusal(f"https://127.0.0.1:{server.getsockname()[1]}", naps, deadline=0.3, attempts=1)
        assert time.monotonic() - started < 30
        thread.join()
    assert type(found) is SourceUnavailable


def test_stalls_use_up_the_budget_too(proxy, naps):
    proxy.plan([faults.drip()] * 9)
    refusal(proxy, naps, deadline=0.2, retry_budget=0.5, attempts=9, random=lambda: 0.0)
    assert len(proxy.requests) <= 3, "each takes a fifth of a second at least, and more on a busy machine"


def test_after_a_missed_deadline_the_next_try_gets_its_own(proxy, naps):
    proxy.plan([faults.drip()])
    assert client(proxy, naps, deadline=0.3).send(rest.Request("/people")).body == PAGE


def test_a_closed_port_is_unavailable(naps):
    found = refusal(NOBODY, naps)
    assert type(found) is SourceUnavailable
    assert "refused" in str(found)


def test_a_name_that_does_not_resolve_is_unavailable(naps, monkeypatch):
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "nowhere.invalid")
    assert "does not resolve" in str(refusal("http://nowhere.invalid", naps))


def test_a_certificate_that_is_not_trusted_is_for_the_operator_and_not_repeated(naps):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with FaultProxy(NOBODY, tls=context) as server:
        found = refusal(server, naps)
    assert type(found) is ConfigurationError
    assert "certificate" in str(found)
    assert not naps


def test_a_private_base_url_is_refused_before_anything_is_sent(naps):
    with pytest.raises(ConfigurationError, match="base_url"):
        client("https://10.0.0.1", naps)


def test_the_clock_of_the_source_is_that_of_the_first_response(proxy, naps):
    first = "HTTP/1.1 200 OK\r\nDate: Mon, 02 Mar 2026 10:00:00 GMT\r\nContent-Length: 2\r\n\r\n{}"
    proxy.plan([lambda exchange: exchange.raw(first.encode())])
    context = ReadContext(sleep=naps.append)
    asked = client(proxy, naps, context=context)
    asked.send(rest.Request("/people"))
    asked.send(rest.Request("/people"))
    assert context.source_time == datetime(2026, 3, 2, 10, tzinfo=UTC)


def test_a_response_without_a_date_takes_our_clock(proxy, naps):
    proxy.plan([lambda exchange: exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")])
    context = ReadContext(sleep=naps.append)
    client(proxy, naps, context=context).send(rest.Request("/people"))
    assert context.source_time is not None
    assert abs(context.source_time - datetime.now(UTC)) < timedelta(seconds=5)


LIMITS = (rest.RateHeaders("X-Left", "X-Reset"), rest.RateHeaders("X-Left-Today"))


def test_a_limit_that_is_used_up_is_kept_before_the_source_refuses(proxy, naps):
    proxy.plan([status(200, PAGE, X_Left="1", X_Reset="9"), status(200, PAGE, X_Left="0", X_Reset="9"), status(200, PAGE, X_Left="5")])
    asking = client(proxy, naps, limits=LIMITS)
    for _ in range(3):
        asking.send(rest.Request("/contacts"))
    assert [round(nap) for nap in naps] == [9]


@pytest.mark.parametrize(("reset", "least", "most"), [("7", 7, 7), ("in 31", 28, 32), ("0", 0, 0), ("soon", 0, 60), ("", 0, 60)])
def test_a_refusal_is_waited_out_until_there_are_new_requests(proxy, naps, reset, least, most):
    reset = f"{time.time() + 31:.0f}" if reset == "in 31" else reset
    proxy.plan([status(429, X_Left="3", X_Reset=reset)])
    client(proxy, naps, limits=LIMITS).send(rest.Request("/contacts"))
    assert least <= sum(naps) <= most


def test_retry_after_and_what_a_code_says_count_more_than_a_reset(proxy, naps):
    known = rest.ErrorBody(("code",), known={"SLOW": rest.VendorError(wait=4)})
    proxy.plan([status(429, Retry_After="3", X_Reset="9"), status(429, {"code": "SLOW"}, X_Reset="9")])
    client(proxy, naps, limits=LIMITS, errors=known).send(rest.Request("/contacts"))
    assert naps == [3, 4]


def test_a_limit_that_begins_anew_after_a_known_time_is_kept_for_that_long(proxy, naps):
    proxy.plan([status(200, PAGE, X_Left="0"), status(429, X_Left="0"), status(429, X_Left="2")])
    asking = client(proxy, naps, limits=(rest.RateHeaders("X-Left", period=4),))
    for _ in range(2):
        asking.send(rest.Request("/people"))
    assert [round(nap) for nap in naps][:2] == [4, 4]


def test_a_limit_of_which_nobody_knows_when_it_begins_anew_ends_the_read(proxy, naps):
    proxy.plan([status(200, PAGE, X_Left_Today="0"), status(429, X_Left_Today="0")])
    asking = client(proxy, naps, limits=LIMITS)
    asking.send(rest.Request("/contacts"))
    with pytest.raises(RateLimited) as caught:
        asking.send(rest.Request("/contacts"))
    assert (caught.value.wait, naps) == (float("inf"), [])


def test_a_status_stands_for_a_refusal_without_a_code(proxy, naps):
    errors = rest.ErrorBody(("code",), known={"402": rest.VendorError(advice="pay the bill")})
    proxy.plan([status(402), status(402, {"code": "LATE"})])
    for shown in ("answered 402: pay the bill", "answered 402 LATE: pay the bill"):
        with pytest.raises(SourceRejected, match=shown):
            client(proxy, naps, errors=errors).send(rest.Request("/contacts"))


def test_requests_keep_the_interval(proxy, naps):
    asked = client(proxy, naps, interval=100)
    for _ in range(3):
        asked.send(rest.Request("/people"))
    assert [round(nap) for nap in naps] == [100, 200]  # nobody really slept in between


# Redirects and links


def test_a_redirect_on_the_same_origin_is_followed_with_the_credential(proxy, naps):
    proxy.plan([faults.redirect("/people/")])
    assert client(proxy, naps).send(rest.Request("/people")).body == PAGE
    assert [path for _, path in proxy.requests] == ["/people", "/people/"]


@pytest.mark.parametrize(
    "to", ["http://localhost:{port}/x", "https://127.0.0.1:{port}/x", "//elsewhere.com/x", "file:///etc/passwd", "http://[", ""]
)
def test_a_redirect_elsewhere_is_refused_and_nothing_is_sent_there(proxy, upstream, naps, to):
    proxy.plan([faults.redirect(to.format(port=proxy.url.rpartition(":")[2]))] * 9)
    found = refusal(proxy, naps)
    assert isinstance(found, ConfigurationError | SourceRejected)
    assert not upstream.requests


def test_redirects_end(proxy, naps):
    proxy.plan([faults.redirect("/people")] * 50)
    assert type(refusal(proxy, naps)) is SourceRejected
    assert len(proxy.requests) < 10


def test_a_post_is_not_turned_into_a_get(proxy, naps):
    proxy.plan([faults.redirect("/people")])
    with pytest.raises(ContractBroken, match="POST"):
        client(proxy, naps).send(rest.Request("/people", body={}))
    proxy.plan([faults.redirect("/there", code=307)])
    client(proxy, naps).send(rest.Request("/people", body={"a": 1}))
    assert proxy.requests[-1] == ("POST", "/there")


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.com/p2",
        "http://127.0.0.1:1/p2",
        "http://user@127.0.0.1:{port}/p2",
        "http://127.0.0.1:{port}\\@evil.com/",
        "@evil.com/p2",
        ".evil.com/p2",
    ],
)
def test_the_next_link_stays_on_the_origin(proxy, naps, link):
    proxy.plan([status(200, {"results": [], "next": link.format(port=proxy.url.rpartition(":")[2])})])
    with pytest.raises(ContractBroken, match="leads away"):
        list(client(proxy, naps).pages(rest.Request("/people"), rest.LinkPaginator("next")))
    assert len(proxy.requests) == 1


# Credentials


def test_each_way_to_authenticate_sends_its_header_and_hides_its_secret():
    def stored(secret: str) -> StoredToken:
        return StoredToken(lambda: secret)

    ways: list[tuple[rest.Auth, str, str]] = [
        (rest.BearerAuth(stored(SECRET)), "Authorization", f"Bearer {SECRET}"),
        (rest.ApiKeyAuth(stored(SECRET), "x-api-token"), "x-api-token", SECRET),
        (rest.ApiKeyAuth(stored(SECRET), "Authorization", "Klaviyo-API-Key "), "Authorization", f"Klaviyo-API-Key {SECRET}"),
        (rest.BasicAuth("any", stored(SECRET)), "Authorization", f"Basic {base64.b64encode(f'any:{SECRET}'.encode()).decode()}"),
    ]
    for auth, name, value in ways:
        assert dict(auth.headers()) == {name: value}
        assert SECRET not in repr(auth)


def test_a_pasted_line_end_is_taken_off():
    assert rest.BearerAuth(Tokens(f" {SECRET}\n")).headers() == {"Authorization": f"Bearer {SECRET}"}


@pytest.mark.parametrize("token", ["", "  ", "two\nlines", "tökén", "a b", "x\x00"])
def test_a_credential_that_no_header_can_carry_is_refused_without_showing_it(naps, token):
    with pytest.raises(ConfigurationError) as caught:
        client(NOBODY, naps, auth=rest.BearerAuth(Tokens(token))).send(rest.Request("/people"))
    assert not token.strip() or token not in str(caught.value)


def each_way(*tokens: str) -> Iterator[tuple[rest.Auth, Tokens]]:
    """Every way to authenticate, with a provider of its own."""
    for way in (rest.BearerAuth, lambda key: rest.ApiKeyAuth(key, "x-api-token"), lambda password: rest.BasicAuth("any", password)):
        provider = Tokens(*tokens)
        yield way(provider), provider


def test_a_refused_token_is_refreshed_once_whichever_way_it_goes(proxy, naps):
    for auth, provider in each_way("old", "new", "newer"):
        proxy.plan([status(401), status(503)])
        assert client(proxy, naps, auth=auth).send(rest.Request("/people")).body == PAGE
        assert (provider.token(), provider.refreshed) == ("new", 1)


def test_a_source_that_refuses_every_new_token_is_asked_twice(proxy, naps):
    proxy.plan([status(401)] * 50)
    assert type(refusal(proxy, naps, auth=rest.BearerAuth(Tokens(*map(str, range(100)))))) is CredentialError
    assert len(proxy.requests) == 2


@pytest.mark.parametrize("tokens", [["only"], ["same", "same"]])
def test_a_token_that_cannot_be_refreshed_is_refused_at_once(proxy, naps, tokens):
    proxy.plan([status(401), status(401)])
    assert type(refusal(proxy, naps, auth=rest.BearerAuth(Tokens(*tokens)))) is CredentialError
    assert len(proxy.requests) == 1


# Pages


def pages(server: FaultProxy, request: rest.Request, paginator: rest.Paginator) -> list[str]:
    found = [r["id"] for response in client(server, []).pages(request, paginator) for r in response.records("results")]
    server.close()
    return found


def asked_of(server: FaultProxy) -> list[str]:
    return [path for _, path in server.requests]


def test_a_token_of_the_response_goes_into_the_query_until_there_is_none():
    server = scripted(
        {"results": [{"id": "1"}], "paging": {"next": {"after": "A"}}},
        {"results": [], "paging": {"next": {"after": "B"}}},  # an empty page is not the end
        {"results": [{"id": "2"}], "paging": {"next": {"after": ""}}},
    )
    request = rest.Request("/p", {"limit": 1, "archived": False})
    assert pages(server, request, rest.CursorPaginator("paging.next.after", "query.after")) == ["1", "2"]
    assert asked_of(server) == [f"/p?limit=1&archived=false{after}" for after in ("", "&after=A", "&after=B")]


def test_a_token_goes_into_the_body_and_a_number_is_a_token(naps):
    server = FaultProxy(NOBODY).plan([status(200, {"results": [], "next": 7}), status(200, {"results": [], "next": None})])
    request = rest.Request("/p", body={"pagination": {"per_page": 5}})
    responses = client(server, naps).pages(request, rest.CursorPaginator("next", "body.pagination.after"))
    bodies = [response.request.body for response in responses]
    server.close()
    assert bodies == [{"pagination": {"per_page": 5}}, {"pagination": {"per_page": 5, "after": "7"}}]


def test_the_last_id_is_a_token_and_a_flag_says_whether_there_is_more():
    server = scripted(
        {"results": [{"id": "a"}, {"id": "b"}], "has_more": True},
        {"results": [{"id": "c"}], "has_more": False},
    )
    paginator = rest.CursorPaginator("results.-1.id", "query.starting_after", lambda page: page.flag("has_more"))
    assert pages(server, rest.Request("/p"), paginator) == ["a", "b", "c"]
    assert asked_of(server)[1] == "/p?starting_after=b"


@pytest.mark.parametrize("body", [{"results": [], "has_more": True}, {"results": [{"id": "1"}]}, {"results": [], "has_more": "false"}])
def test_more_without_a_token_and_a_missing_flag_are_no_end(body):
    paginator = rest.CursorPaginator("results.-1.id", "query.starting_after", lambda page: page.flag("has_more"))
    with pytest.raises(ContractBroken):
        pages(scripted(body), rest.Request("/p"), paginator)


def test_a_link_is_followed_as_it_stands():
    with FaultProxy(NOBODY) as server:
        link = f"{server.url}/p?page%5Bcursor%5D=x%2By"
        server.plan([status(200, {"results": [{"id": "1"}], "@odata.nextLink": link}), status(200, {"results": [{"id": "2"}]})])
        found = pages(server, rest.Request("/p", {"page[size]": 1}), rest.LinkPaginator("@odata.nextLink"))
    assert found == ["1", "2"]
    assert asked_of(server)[1] == "/p?page%5Bcursor%5D=x%2By"


def test_an_offset_grows_by_what_was_read_up_to_the_total():
    server = scripted(
        {"results": [{"id": "1"}, {"id": "2"}], "total": 3},
        {"results": [{"id": "3"}], "total": 3},
    )
    assert pages(server, rest.Request("/p", {"offset": 0}), rest.OffsetPaginator("results", "total")) == ["1", "2", "3"]
    assert asked_of(server)[1] == "/p?offset=2"
    with pytest.raises(ContractBroken, match="total"):
        pages(scripted({"results": [{"id": "1"}]}), rest.Request("/p"), rest.OffsetPaginator("results", "total"))


def keyset() -> rest.KeysetPaginator:
    tokens = rest.CursorPaginator("token", "body.after")
    return rest.KeysetPaginator("results", "id", "body.filters.0.value", lambda page: page.at("more") is True, tokens)


def test_a_keyset_asks_for_what_lies_above_the_last_id():
    server = FaultProxy(NOBODY).plan(
        [status(200, {"results": [{"id": "9"}, {"id": "10"}], "more": True}), status(200, {"results": [{"id": "11"}]})]
    )
    sent = [a.request.body for a in client(server, []).pages(rest.Request("/p", body={"filters": [{"value": "0"}]}), keyset())]
    server.close()
    assert sent == [{"filters": [{"value": "0"}]}, {"filters": [{"value": "10"}]}]


@pytest.mark.parametrize("without", [[], [{"id": "x"}]])
def test_a_keyset_goes_past_a_page_without_ids_by_its_token_and_on_by_id(without):
    answers = [
        {"results": [{"id": "9"}], "more": True, "token": "1"},
        {"results": without, "more": True, "token": "2"},
        {"results": without, "more": True, "token": "3"},
        {"results": [{"id": "11"}], "more": True, "token": "4"},
        {"results": [{"id": "12"}]},
    ]
    paged = client(scripted(*answers), []).pages(rest.Request("/p", body={"filters": [{"value": "0"}]}), keyset())
    assert [((sent := page.request.body or {})["filters"][0]["value"], sent.get("after", "-")) for page in paged] == [
        ("0", "-"), ("9", "-"), ("9", "2"), ("9", "3"), ("11", "-"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "ids", [["11", "10", "9"], ["9", "12", "10", "11"], ["2", "1", "4", "3"], ["1", "1"], ["1", "x", "1"], ["0"], ["x"], []]
)
def test_a_keyset_refuses_ids_out_of_order_or_below_the_bound_and_a_page_without_any(ids):
    with pytest.raises(ContractBroken):
        pages(
            scripted({"results": [{"id": i} for i in ids], "more": True}), rest.Request("/p", body={"filters": [{"value": "0"}]}), keyset()
        )


@pytest.mark.parametrize("ids", [["10", "9"], ["8", "10", "9"], ["9", "8", "10"]])
def test_two_neighbours_that_changed_places_cost_nothing(ids):
    answers = {"results": [{"id": i} for i in ids], "more": True}, {"results": [{"id": "11"}]}
    paged = list(client(scripted(*answers), []).pages(rest.Request("/p", body={"filters": [{"value": "0"}]}), keyset()))
    assert [(page.request.body or {})["filters"] for page in paged] == [[{"value": "0"}], [{"value": "10"}]]


@pytest.mark.parametrize("circle", [["A", "A"], ["A", "B", "A"]])
def test_paging_in_a_circle_is_an_error(circle):
    server = FaultProxy(NOBODY).plan(status(200, {"results": [], "next": token}) for token in circle * 5)
    with pytest.raises(ContractBroken, match="circle"):
        pages(server, rest.Request("/p"), rest.CursorPaginator("next", "query.after"))
    assert len(server.requests) <= len(circle) + 1


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ({}, "an empty object"),
        ({"results": None}, "an object of results"),
        ({"results": {"id": "1"}}, "an object of results"),
        ({"status": "error", "message": "no", "Jane": 1}, "an object of message, status"),
        ([], "a list"),
        ("text", "a single value"),
    ],
)
def test_a_page_without_a_list_of_records_is_an_error_that_says_what_it_was(body, shape):
    with pytest.raises(ContractBroken, match=rf"answered 200 with {shape}, without a list of records at 'results': run it again"):
        pages(scripted(body), rest.Request("/p"), rest.CursorPaginator("next", "query.after"))


def test_a_fault_in_the_middle_costs_no_record_and_doubles_none(proxy, upstream, naps):
    upstream._plan.clear()
    upstream.plan(status(200, {"results": [{"id": str(i)}], "next": str(i + 1) if i < 5 else None}) for i in range(6))
    proxy.plan([None, status(503), None, faults.reset, None, faults.html(), status(429, Retry_After="2"), None])
    found = [
        r["id"]
        for response in client(proxy, naps).pages(rest.Request("/p"), rest.CursorPaginator("next", "query.after"))
        for r in response.records("results")
    ]
    assert found == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize("code", [400, 404, 410, 422])
def test_a_token_that_is_no_longer_accepted_is_a_broken_contract_and_a_first_refusal_is_not(code):
    server = scripted({"results": [{"id": "1"}], "next": "A"}).plan([status(code, {"code": "EXPIRED"})])
    asked = client(server, [], errors=rest.ErrorBody(("code",)))
    with pytest.raises(ContractBroken, match=f"answered {code} EXPIRED: the page before led here"):
        list(asked.pages(rest.Request("/p"), rest.CursorPaginator("next", "query.after")))
    server.plan([status(code)])
    with pytest.raises(SourceRejected):
        list(asked.pages(rest.Request("/p"), rest.CursorPaginator("next", "query.after")))
    server.close()


def test_a_request_is_encoded_once_however_often_it_is_sent(proxy, naps, monkeypatch):
    dumped: list[Any] = []
    dumps = json.dumps
    monkeypatch.setattr(json, "dumps", lambda body, **options: dumped.append(body) or dumps(body, **options))
    proxy.plan([status(503), status(503)])
    list(client(proxy, naps).pages(rest.Request("/p", body={"names": ["a"]}), rest.CursorPaginator("next", "body.after")))
    assert len(proxy.requests) == 3
    assert dumped.count({"names": ["a"]}) == 1


# An early end


TOTAL = rest.Total("total", "results")


def read_with_total(server: FaultProxy) -> tuple[int, ReadContext]:
    context = ReadContext(sleep=lambda _: None)
    asked = client(server, [], context=context).pages(rest.Request("/p"), rest.CursorPaginator("next", "query.after"), TOTAL)
    try:
        return sum(len(page.records("results")) for page in asked), context
    finally:
        server.close()


def test_an_end_before_the_total_is_an_error_if_the_source_still_says_so():
    with pytest.raises(ContractBroken, match="says that there are 600 records, but its pages held 2"):
        read_with_total(scripted({"results": [{"id": "1"}, {"id": "2"}], "total": 600}, {"results": [], "total": 600}))


def test_records_that_went_meanwhile_are_no_early_end():
    server = scripted(
        {"results": [{"id": "1"}], "total": 3, "next": "A"}, {"results": [{"id": "3"}], "total": 1}, {"results": [], "total": 2}
    )
    read, context = read_with_total(server)
    assert (read, context.source_count, len(server.requests)) == (2, 2, 3)


def test_a_total_that_is_reached_costs_no_request_and_is_the_count_of_the_source():
    server = scripted({"results": [{"id": "1"}, {"id": "2"}], "total": 3, "next": "A"}, {"results": [{"id": "3"}, None], "total": 2})
    read, context = read_with_total(server)
    assert (read, context.source_count, len(server.requests)) == (4, 3, 2)


@pytest.mark.parametrize(
    "body", [{"results": []}, {"results": [], "total": None}, {"results": [], "total": -1}, {"results": [], "total": "many"}]
)
def test_a_total_that_is_missing_is_an_error(body):
    with pytest.raises(ContractBroken, match="a number at 'total'"):
        read_with_total(scripted(body))


def test_an_empty_page_before_the_total_of_an_offset_is_an_error():
    with pytest.raises(ContractBroken, match="says that there are 3 records, but gives none after 2"):
        pages(
            scripted({"results": [{"id": "1"}, {"id": "2"}], "total": 3}, {"results": [], "total": 3}),
            rest.Request("/p", {"offset": 0}),
            rest.OffsetPaginator("results", "total"),
        )


# A page that is too large


def test_a_page_that_is_too_large_is_asked_for_in_a_smaller_size():
    wide = {"results": [{"id": str(i), "note": "x" * 1000} for i in range(8)]}
    server = scripted(wide, {"results": wide["results"][:4]}, {"results": wide["results"][:2], "next": "A"}, {"results": [{"id": "9"}]})
    asked = client(server, [], max_bytes=3000)
    request = rest.Request("/p", {"limit": 100}, size="query.limit")
    found = [r["id"] for page in asked.pages(request, rest.CursorPaginator("next", "query.after")) for r in page.records("results")]
    server.close()
    assert found == ["0", "1", "9"]
    assert asked_of(server) == ["/p?limit=100", "/p?limit=50", "/p?limit=25", "/p?limit=25&after=A"]


def test_a_single_record_that_is_too_large_and_a_request_without_a_size_are_final(proxy, naps):
    for request, asked in ((rest.Request("/p", body={"page": {"size": 5}}, size="body.page.size"), 3), (rest.Request("/p"), 1)):
        proxy.plan([status(200, {"results": ["x" * 2000]})] * asked)
        proxy.requests.clear()
        with pytest.raises(LimitExceeded, match="no smaller page"):
            list(client(proxy, naps, max_bytes=1000).pages(request, rest.CursorPaginator("next", "query.after")))
        assert len(proxy.requests) == asked


# Bad items


def response(body: Any) -> rest.Response:
    return rest.Response(rest.Request("/p"), "GET /p", 200, {}, body)


def test_lifted_fields_keep_clear_of_the_records_own():
    found = response({"data": [{"id": "1", "fields": {"id": "x", "a": "b"}}, {"id": "2", "fields": {}}]}).records("data", lift="fields")
    assert found == [{"id": "1", "fields.id": "x", "a": "b"}, {"id": "2"}]


@pytest.mark.parametrize("item", [None, "text", 7, ["a"], {"id": "2"}, {"id": "2", "fields": None}, {"id": "2", "fields": "text"}])
def test_an_item_that_is_no_record_is_one_that_says_so_and_keeps_what_it_was(item):
    first, bad, last = response({"data": [{"id": "1", "fields": {"a": "b"}}, item, {"id": "3", "fields": {}}]}).records(
        "data", lift="fields"
    )
    assert (first, last) == ({"id": "1", "a": "b"}, {"id": "3"})
    assert bad.pop(REJECTED).startswith("malformed: item 2 of the page ")
    assert bad == (item if isinstance(item, dict) else {rest.ITEM: json.dumps(item)})


def test_a_page_of_nothing_but_bad_items_is_a_broken_contract():
    with pytest.raises(ContractBroken, match="without a list of objects"):
        response({"data": ["1", "2"]}).records("data")
    assert REJECTED in response({"data": ["1"]}).records("data")[0]


@pytest.mark.parametrize("bad", [None, "text", {"name": "no id"}, {"id": None}, {"id": "x"}, {"id": {"a": 1}}])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_paging_goes_on_past_a_bad_item(bad, place):
    items = [{"id": "1"}, {"id": "2"}]
    items.insert(place, bad)
    server = scripted({"results": items, "more": True}, {"results": [{"id": "3"}]})
    paged = list(client(server, []).pages(rest.Request("/p", body={"filters": [{"value": "0"}]}), keyset()))
    server.close()
    assert [page.request.body["filters"][0]["value"] for page in paged if page.request.body] == ["0", "2"]


@pytest.mark.parametrize("bad", [None, "text", {"name": "no id"}, {"id": None}])
def test_a_bad_last_item_gives_no_token_and_the_one_before_does(bad):
    server = scripted({"results": [{"id": "a"}, bad], "has_more": True}, {"results": [{"id": "b"}], "has_more": False})
    paginator = rest.CursorPaginator("results.-1.id", "query.starting_after", lambda page: page.flag("has_more"))
    assert len(list(client(server, []).pages(rest.Request("/p"), paginator))) == 2
    server.close()
    assert asked_of(server)[1] == "/p?starting_after=a"


@pytest.mark.parametrize("body", [{}, {"results": []}, {"results": [{"label": "x"}]}, {"results": [{"name": 1}]}, {"results": ["email"]}])
def test_a_schema_without_names_is_a_broken_contract(body):
    with pytest.raises(ContractBroken, match="without a list of objects with 'name' at 'results'"):
        response(body).texts("results", "name")


# Records that are listed in one place and read in another


BATCH = rest.Request("/batch", {"archived": False}, {"fields": ["a"]})


def looked_up(server: FaultProxy, **options: Any) -> list[rest.Record]:
    asked = client(server, [], **options)
    try:
        return [r for page in asked.pages(rest.Request("/p"), rest.LinkPaginator("next")) for r in asked.lookup(page, "results", BATCH)]
    finally:
        server.close()


def test_what_a_page_lists_is_read_in_one_request_and_all_of_it():
    server = scripted({"results": [{"id": "1"}, {"id": "2"}]}, {"results": [{"id": "2", "a": "y"}, {"id": "1", "a": "x"}]})
    assert looked_up(server) == [{"id": "2", "a": "y"}, {"id": "1", "a": "x"}]
    assert server.requests == [("GET", "/p"), ("POST", "/batch?archived=false")]


def test_a_record_that_went_between_the_two_requests_is_no_error():
    both, one = {"results": [{"id": "1"}, {"id": "2"}]}, {"results": [{"id": "2"}]}
    assert looked_up(scripted(both, one, one, one)) == [{"id": "2"}]


def test_a_record_that_is_listed_and_never_given_is_a_broken_contract():
    both, one = {"results": [{"id": "1"}, {"id": "2"}]}, {"results": [{"id": "2"}]}
    with pytest.raises(ContractBroken, match="lists records that /batch does not give"):
        looked_up(scripted(*[both, one] * 3))


def test_a_bad_item_in_either_request_is_a_record_of_its_own():
    listed, given = {"results": [{"id": "1"}, None, {"id": "3"}]}, {"results": [{"id": "1"}, "text"]}
    assert [REJECTED in record for record in looked_up(scripted(listed, given))] == [False, True, True]


def test_a_batch_that_is_too_large_is_asked_for_in_halves():
    wide = [{"id": str(i), "note": "x" * 700} for i in range(4)]
    server = scripted({"results": [{"id": str(i)} for i in range(4)]}, {"results": wide}, {"results": wide[:2]}, {"results": wide[2:]})
    assert looked_up(server, max_bytes=2000) == wide


@pytest.mark.parametrize("code", [413, 414])
def test_a_batch_that_is_more_than_the_source_takes_is_asked_for_in_halves(code):
    both = [{"id": "1"}, {"id": "2"}]
    server = scripted({"results": both}).plan([status(code), status(200, {"results": both[:1]}), status(200, {"results": both[1:]})])
    assert looked_up(server) == both


@pytest.mark.parametrize(("names", "fits"), [(["a"], True), (["n" * 900] * 4, True), (["n" * 900] * 5, False), (["имя"] * 400, False)])
def test_names_are_measured_as_they_stand_in_an_address(names, fits):
    assert rest.fits(names) is fits


def test_pages_are_gathered_and_no_more_are_asked_for_than_wanted():
    asked: list[int] = []

    def source() -> Iterator[list[rest.Record]]:
        for page in range(200):
            asked.append(page)
            yield [{"id": f"{page}-{i}"} for i in range(100)]

    sizes = [batch.num_rows for batch in rest.batches(source(), Window())]
    assert (sum(sizes), max(sizes)) == (20_000, 5_000)
    asked.clear()
    assert sum(batch.num_rows for batch in rest.batches(source(), Window(limit=150))) == 200
    assert asked == [0, 1]


def sized(*pages: list[rest.Record]) -> list[pa.Table]:
    """The batches of pages that came as JSON."""
    received = rest.Received()

    def source() -> Iterator[list[rest.Record]]:
        for page in pages:
            received.size += len(json.dumps(page))
            yield page

    return list(rest.batches(source(), Window(), received))


def test_long_texts_make_short_batches():
    pages = [[{"id": f"{page}-{i}", "notes": [{"text": "n" * 200_000}]} for i in range(50)] for page in range(6)]
    found = sized([{"id": str(i)} for i in range(400)], *pages)
    assert sum(batch.num_rows for batch in found) == 700
    assert max(batch.nbytes for batch in found) < 20_000_000
    assert [batch.num_rows for batch in rest.batches([pages[0] * 4], Window())] == [50] * 4, "whether or not it is told what came"


def test_fields_that_each_record_has_of_its_own_make_short_batches():
    records = [{"id": str(i), "metadata": {"orders": {f"order_{i}_{k}": "x" for k in range(4)}}} for i in range(3_000)]
    found = sized(*(records[start : start + 100] for start in range(0, 3_000, 100)))
    assert max(batch.num_rows * batch.num_columns for batch in found) <= 1_000_000
    rows = [{name: value for name, value in row.items() if value is not None} for batch in found for row in batch.to_pylist()]
    assert rows == [{"id": str(i)} | {f"metadata.orders.order_{i}_{k}": "x" for k in range(4)} for i in range(3_000)]


def test_one_record_of_many_fields_passes_among_others():
    wide = {"id": "wide"} | {f"field_{n}": "x" for n in range(20_000)}
    found = sized([{"id": str(i)} for i in range(600)] + [wide] + [{"id": str(i)} for i in range(601, 1_000)])
    assert max(batch.num_rows * batch.num_columns for batch in found) <= 1_000_000
    names = [row["id"] for batch in found for row in batch.select(["id"]).to_pylist()]
    assert names == [*map(str, range(600)), "wide", *map(str, range(601, 1_000))]


def test_a_page_of_any_length_is_read_in_batches():
    assert [batch.num_rows for batch in rest.batches([[{"id": "x"}] * 12_000], Window())] == [5_000, 5_000, 2_000]


def test_what_an_answer_holds_is_counted_as_it_is_unpacked(proxy, naps):
    asked = client(proxy, naps)
    asked.send(rest.Request("/p"))
    assert asked.received.size > 0


# The connection test


@pytest.mark.parametrize(
    ("fault", "failed"),
    [
        (faults.reset, "reach"),
        (faults.html(), "reach"),
        (status(401), "authenticate"),
        (status(403), "permission"),
        (status(404), "sample"),
        (None, ""),
    ],
)
def test_a_connection_test_names_the_step_that_failed(proxy, naps, fault, failed):
    proxy.plan([fault] * 20)
    steps = list(rest.check(lambda: client(proxy, naps).send(rest.Request("/people")).records("results")))
    names = ["reach", "authenticate", "permission", "sample"]
    assert [step.name for step in steps] == names[: names.index(failed) + 1 if failed else 4]
    assert [step.name for step in steps if not step.ok] == [failed][: bool(failed)]
    assert all(step.message for step in steps)
