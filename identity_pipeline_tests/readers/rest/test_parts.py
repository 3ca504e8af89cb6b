"""The parts that a connector puts together: pages by time, budgets in bodies, tokens for a client, batches of keys, folded connections."""

from dataclasses import replace
from functools import partialmethod
from typing import Any

import pytest

from identity_pipeline.core.cursor import Cursor
from identity_pipeline.core.errors import ContractBroken, CredentialError, SourceUnavailable
from identity_pipeline.core.redaction import Redactor
from identity_pipeline.core.secret import StoredToken
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.demo.vendor_api import Asked, Refusal, VendorAPI, serve
from identity_pipeline.readers import rest

BY_TIME = rest.TimePaginator("items", "total", "at", "since")


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for bundle in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(bundle, raising=False)
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    monkeypatch.setattr(ReadContext, "__init__", partialmethod(ReadContext.__init__, sleep=lambda _: None))


def response(body: Any, request: rest.Request | None = None) -> rest.Response:
    return rest.Response(request or rest.Request("/", {}), "GET https://api.example.com/", 200, {}, body)


def page(*records: tuple[str, int], total: int = 100, request: rest.Request | None = None) -> rest.Response:
    """A page of records: id, second."""
    items = [{"id": name, "at": f"2026-04-13T08:00:{second:02}+00:00"} for name, second in records]
    return response({"items": items, "total": total}, request)


def after(*records: tuple[str, int]) -> dict[str, list[str]]:
    """What a page is to begin with that follows these records."""
    items = page(*records).body["items"]
    return {name: [each[name] for each in items] for name in ("id", "at")}


# pages by time


def test_the_next_page_begins_with_the_last_record_at_its_own_time():
    following = BY_TIME.next(page(("a", 1), ("b", 2), ("c", 2)))
    assert following is not None
    assert (following.query, following.follows) == ({"since": "2026-04-13T08:00:01Z", "offset": 1}, after(("c", 2)))


def test_that_record_is_no_record_of_the_page_and_another_one_is():
    request = rest.Request("/", {"since": "2026-04-13T08:00:01Z", "offset": 1}, follows=after(("c", 2)))
    whole, shifted = page(("c", 2), ("d", 3), request=request), page(("d", 3), request=request)
    assert [each["id"] for each in whole.records("items")] == ["d"]
    assert [each["id"] for each in shifted.records("items")] == ["d"]
    again = BY_TIME.next(shifted)
    assert again is not None
    assert (again.query["offset"], again.query["since"], again.follows, again.again) == (None, "2026-04-13T08:00:01Z", {}, 1)
    with pytest.raises(ContractBroken, match="no page that follows the one before, 100 times"):
        BY_TIME.next(replace(shifted, request=replace(request, again=100)))


def test_inside_one_time_pages_go_by_offset():
    following = BY_TIME.next(page(("a", 1), ("b", 1), ("c", 1), request=rest.Request("/", {"offset": 4}, follows=after(("a", 1)))))
    assert following is not None
    assert (following.query, following.follows) == ({"offset": 6}, after(("c", 1)))


def test_a_tenth_of_a_page_is_read_again_so_that_a_few_who_leave_shift_nothing():
    names = [f"n{number:02}" for number in range(30)]
    following = BY_TIME.next(page(*((name, 1) for name in names)))
    assert following is not None
    assert (following.query, following.follows["id"]) == ({"offset": 27}, names[-3:])
    two_left = page(("n29", 1), ("n30", 1), request=following)
    assert [each["id"] for each in two_left.records("items")] == ["n30"]
    assert (BY_TIME.next(two_left) or following).again == 0


def test_a_page_that_begins_before_what_it_follows_leaves_nothing_out():
    request = rest.Request("/", {"since": "2026-04-13T08:00:01Z", "offset": 1}, follows=after(("c", 2)))
    with pytest.raises(ContractBroken, match="below the bound of 'at'"):  # a page that comes again
        BY_TIME.next(page(("a", 0), ("c", 2), ("d", 2), request=request))
    early = page(("a", 1), ("b", 2), ("c", 2), ("d", 2), request=request)
    assert [each["id"] for each in early.records("items")] == ["a", "b", "c", "d"]
    following = BY_TIME.next(early)
    assert following is not None
    assert (following.query, following.again) == ({"since": "2026-04-13T08:00:01Z", "offset": 4}, 0), "the bound includes what equals it"


def test_it_ends_where_all_are_read_and_not_before():
    assert BY_TIME.next(page(("a", 1), ("b", 2), total=2)) is None
    assert BY_TIME.next(page(total=0)) is None
    with pytest.raises(ContractBroken, match="there are 3 records, but gives none after 0"):
        BY_TIME.next(page(total=3))


def test_a_record_without_time_or_id_is_nothing_to_go_on_from():
    for last in (None, "text", {"id": "c"}, {"at": "2026-04-13T08:00:03+00:00"}):
        body = {"items": [{"id": "a", "at": "2026-04-13T08:00:01+00:00"}, last], "total": 9}
        following = BY_TIME.next(response(body))
        assert following is not None
        assert (following.query, following.follows) == ({"offset": 2}, {})


def test_records_that_are_not_in_order_are_a_broken_contract():
    with pytest.raises(ContractBroken, match="not in order of 'at'"):
        BY_TIME.next(page(("a", 2), ("b", 1)))


# budgets


@pytest.mark.parametrize(
    ("cost", "left", "rate", "wait"),
    [
        (402, 102.0, 100.0, 3.0),
        (402, 402, 100, None),
        (402, 0, 0, None),
        (None, 0, 100, None),
        ("402", "2", "100", 4.0),
        (402, None, 100, None),
    ],
)
def test_a_request_waits_until_it_can_be_paid_for(cost, left, rate, wait):
    assert rest.CostBudget("cost", "left", "rate").wait(response({"cost": cost, "left": left, "rate": rate})) == wait


def test_what_stands_where_errors_stand_is_an_error_whatever_its_code():
    errors = rest.ErrorBody(code=("errors.0.code",), failed="errors")
    assert errors(response({"data": {}, "errors": [{"code": "NEW"}]})) == rest.VendorError(code="NEW")
    assert errors(response({"data": {}, "errors": []})) is None
    assert rest.ErrorBody(code=("errors.0.code",))(response({"errors": [{"code": "NEW"}]})) is None


# tokens for a client, and what is asked of the API with them


class Granting(VendorAPI):
    """An API that knows one client, and the last token that it gave."""

    def authenticate(self, asked: Asked, *, dead: bool) -> None:
        """By the last token, at most ``dies_after`` times."""
        if asked.path != "/token" and (dead or asked.headers.get("Authorization") != f"Bearer {self.token}"):
            raise Refusal(401, {})

    def answer(self, asked: Asked) -> Any:
        """A token, or what was asked for."""
        if asked.path != "/token":
            return {"items": [{"id": each} for each in asked.query.get("ids", "").split(",")]}
        if asked.body.get("client_secret") != "right":
            raise Refusal(401, {"error": "invalid_client"})
        self.given = getattr(self, "given", 0) + 1
        self.token = f"granted-{self.given}-51fe8a"
        return {"access_token": self.token, "expires_in": self.lives}

    token, lives = "", 3600


def provider(api: VendorAPI, secret: str = "right", redactor: Redactor | None = None) -> rest.ClientCredentials:
    return rest.ClientCredentials(f"{api.url}/token", "client", StoredToken(lambda: secret, redactor or Redactor()), "read")


def test_a_token_is_got_once_kept_until_it_ends_and_known_to_the_redactor():
    redactor = Redactor()
    with serve(Granting()) as api:
        tokens = provider(api, redactor=redactor)
        assert tokens.token() == tokens.token() == "granted-1-51fe8a"
        assert api.asked[0].body == {"grant_type": "client_credentials", "client_id": "client", "client_secret": "right", "scope": "read"}
        assert redactor.redact("it was granted-1-51fe8a") == "it was ***"
        api.lives = 30  # less than what a token is replaced before
        assert [tokens.refresh(), tokens.token()] == ["granted-2-51fe8a", "granted-3-51fe8a"]
    assert "granted" not in repr(tokens)


def test_a_refused_token_is_replaced_and_a_refused_client_is_a_matter_of_the_credential():
    with serve(Granting()) as api:
        client = rest.Client(api.url, rest.BearerAuth(provider(api)), ReadContext())
        client.send(rest.Request("/items"))
        api.token = "revoked"
        client.send(rest.Request("/items"))
        assert [each.path for each in api.asked] == ["/token", "/items", "/items", "/token", "/items"]
        with pytest.raises(CredentialError, match=r"/token answered 401 invalid_client, asked for a token: check client_id") as caught:
            provider(api, "wrong-secret-77").token()
        assert "wrong-secret-77" not in str(caught.value)
    with pytest.raises(SourceUnavailable):
        provider(api).token()


def test_an_answer_without_a_token_is_a_broken_contract(monkeypatch):
    with serve(Granting()) as api:
        monkeypatch.setattr(api, "answer", lambda _: {"token": "x"})
        with pytest.raises(ContractBroken, match="without a token at 'access_token'"):
            provider(api).token()


def test_keys_are_asked_for_so_many_at_a_time_and_at_a_pace_of_their_own():
    naps: list[float] = []
    with serve(Granting()) as api:
        client = rest.Client(api.url, rest.BearerAuth(provider(api)), ReadContext(sleep=naps.append), interval=60.0)
        asked = rest.Request("/items", interval=0.5)
        client.send(rest.Request("/items"))
        found = [each["id"] for answer in client.batched(asked, "query.ids", list("abcde"), 2) for each in answer.records("items")]
        assert found == list("abcde")
        assert 0 < max(naps) <= 1.5, "such requests do not wait for the others"
        client.send(rest.Request("/items"))
        assert max(naps) > 50
        assert list(client.batched(asked, "query.ids", [], 2)) == []


def test_where_the_next_load_goes_on_follows_the_pages_that_were_taken():
    class Paged(Granting):
        def answer(self, asked: Asked) -> Any:
            number = int(asked.query.get("after", 0))
            return super().answer(asked) if asked.path == "/token" else {"items": [], "after": str(number + 1), "end": number == 2}

    with serve(Paged()) as api:
        context = ReadContext()
        client = rest.Client(api.url, rest.BearerAuth(provider(api)), context)
        paginator = rest.CursorPaginator("after", "query.after", more=lambda page: not page.flag("end"), instead_of="query.since")
        states = [context.state for _ in client.pages(rest.Request("/items", {"since": "1"}), paginator, state="after")]
        assert (states, context.state) == ([None, "1", "2"], "3")
    assert [dict(each.query) for each in api.asked if each.path == "/items"] == [{"since": "1"}, {"after": "1"}, {"after": "2"}]


# records


def test_objects_are_found_by_a_key_and_grouped_and_what_is_none_is_left_out():
    body = {"items": [{"id": 1, "owner": 7, "kind": "a", "v": "x"}, {"id": 2, "owner": 7, "kind": "a", "v": "y"}, None, {"owner": 8}]}
    assert {key: item["v"] for key, item in response(body).keyed("items", "id").items()} == {"1": "x", "2": "y"}
    assert response({}).keyed("items", "id") == {}
    assert response(body).grouped("items", "owner", "kind", "v")["7"] == {"a": ["x", "y"]}
    with pytest.raises(ContractBroken):
        response({}).grouped("items", "owner", "kind", "v")


def test_a_connection_of_keys_and_values_becomes_an_object():
    record = {"fields": {"nodes": [{"n": "crm", "k": "tier", "v": "gold"}, None], "pageInfo": {"hasNextPage": True}}}
    assert rest.folded(record, "fields", ("n", "k"), "v") is True
    assert record == {"fields": {"crm.tier": "gold"}}
    for other in ({}, {"fields": None}, {"fields": "text"}, {"fields": {"nodes": None}}):
        before = dict(other)
        assert rest.folded(other, "fields", ("n", "k"), "v") is False
        assert other == before


@pytest.mark.parametrize(
    ("pages", "told"),
    [
        ([["2026-04-01T00:00:00Z", "2026-04-13T00:00:00Z"]], "1 of the first 2 records"),
        ([["2026-04-12T12:00:00Z", "2026-04-13T00:00:00Z"]], ""),  # a filter that rounds to days
        ([["2026-04-13T00:00:00Z"], ["2020-01-01T00:00:00Z"]], ""),  # what comes later may be another list
        ([[None, "text"]], ""),
        ([[]], ""),
    ],
)
def test_a_source_that_did_not_filter_as_it_was_asked_is_told_by_its_first_page(pages, told):
    for cursor, below in ((Cursor("at", "timestamp"), False), (Cursor("at", "timestamp"), True), (None, False)):
        window = Window(cursor, cursor and "2026-04-13T00:00:00Z", context=ReadContext(log=lambda _: None, asked_below=below))
        given = [[{"at": each} for each in page] for page in pages]
        assert list(rest.filtered(iter(given), window)) == given
        warned = " ".join(window.context.warnings)
        assert warned.startswith(told) if told and cursor and not below else warned == ""
