"""The API, asked as programs ask it: the real server with its daemon."""

import re
import threading
from html.parser import HTMLParser

import httpx
import hypothesis
import psycopg
import pytest
import schemathesis
import yaml

from identity_pipeline.store import tokens
from identity_pipeline_tests.web.conftest import HUBSPOT_TOKEN, Served

API = "/api/v1"


@pytest.fixture
def client(served: Served):
    with served.client() as client:
        yield client


def problem(answer: httpx.Response, status: int) -> str:
    """The detail of an error, which is a problem as RFC 9457 has it."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    return answer.json()["detail"]


def paged(client: httpx.Client, address: str) -> list[list[dict]]:
    """All pages, as the answers lead from one to the next."""
    found = []
    while address:
        answer = client.get(address).raise_for_status()
        found.append(answer.json())
        address = answer.links.get("next", {}).get("url", "")
    return found


def test_from_a_declaration_to_rows_and_back_to_nothing(served: Served, client: httpx.Client):
    declared = served.csv("people", cursor_column="updated_at", cursor_type="timestamp")
    assert client.put(f"{API}/sources/people", json=declared).raise_for_status().json()["difference"]
    assert yaml.safe_load((served.folder / "project/sources/people.yaml").read_text()) == {"sources": [declared]}
    assert client.put(f"{API}/sources/people", json=declared).raise_for_status().json()["difference"] == []

    steps = client.post(f"{API}/sources/people/check").raise_for_status().json()
    assert {step["outcome"] for step in steps} == {"ok"}
    shown = client.post(f"{API}/sources/people/preview?limit=2").raise_for_status().json()
    assert [each["canonical"]["email"] for each in shown] == ["p1@nordwind-demo.com", "p2@nordwind-demo.com"]

    started = client.post(f"{API}/sources/people/ingest")
    assert started.status_code == 202
    run = served.awaited(client, "people", started.json()["run_id"])
    assert (run["status"], run["load"]["inserted"], run["load"]["records_read"]) == ("SUCCESS", 5, 5)
    assert client.get(started.json()["status"]).json()["done"]
    again = served.awaited(client, "people", client.post(f"{API}/sources/people/ingest", json={"full_refresh": True}).json()["run_id"])
    assert (again["load"]["unchanged"], again["load"]["full_refresh"]) == (5, True)

    (row,) = [row for row in client.get(f"{API}/sources").json() if row["source_name"] == "people"]
    assert (row["row_count"], row["last_status"]) == (5, "committed")
    for query in ("3", "P3@nordwind-demo.com"):
        (found,) = client.get(f"{API}/sources/people/records", params={"query": query}).json()
        assert (found["external_id"], found["raw"]["name"]) == ("3", "Person 3")
    assert [load["full_refresh"] for load in client.get(f"{API}/sources/people/loads").json()] == [True, False]
    pages = paged(client, f"{API}/sources/people/loads?limit=1")
    assert [[load["full_refresh"] for load in page] for page in pages] == [[True], [False], []]

    client.delete(f"{API}/sources/people").raise_for_status()
    assert not (served.folder / "project/sources/people.yaml").exists()
    assert problem(client.get(f"{API}/sources/people"), 404) == "no source is called people"
    with psycopg.connect(served.url) as connection:  # what was loaded stays
        assert connection.execute("select count(*) from identity.records where source_name = 'people'").fetchone() == (5,)


def test_a_record_in_quarantine_is_seen_replayed_and_discarded(served: Served, client: httpx.Client):
    served.files.files["/torn.csv"] = type(served.files.files["/people.csv"])(
        b"id,email\n,nobody@nordwind-demo.com\n1,a@nordwind-demo.com\n,b@nordwind-demo.com\n,c@nordwind-demo.com\n"
    )
    client.put(f"{API}/sources/torn", json=served.csv("torn") | {"config": {"url": f"{served.files.url}/torn.csv"}}).raise_for_status()
    run = served.awaited(client, "torn", client.post(f"{API}/sources/torn/ingest").json()["run_id"])
    assert (run["load"]["quarantined"], run["load"]["inserted"]) == (3, 1)
    rows = client.get(f"{API}/quarantine", params={"source_name": "torn"}).json()
    assert {row["reason"] for row in rows} == {"missing_id"}
    pages = paged(client, f"{API}/quarantine?source_name=torn&limit=2")
    assert [[row["quarantine_id"] for row in page] for page in pages] == [
        [row["quarantine_id"] for row in rows[:2]],
        [rows[2]["quarantine_id"]],
    ]
    assert client.post(f"{API}/sources/torn/quarantine/replay").json()["still_open"] == 3
    ids = [row["quarantine_id"] for row in client.get(f"{API}/quarantine", params={"source_name": "torn"}).json()]
    assert client.post(f"{API}/quarantine/discard", json={"ids": ids}).json() == {"discarded": 3}
    assert client.get(f"{API}/quarantine", params={"source_name": "torn"}).json() == []


def test_a_secret_goes_into_the_store_and_never_comes_out(served: Served, client: httpx.Client):
    assert client.put(f"{API}/credentials/hub", json={"secret": HUBSPOT_TOKEN}).status_code == 204
    declared = {
        "name": "hub",
        "source_type": "hubspot_contacts",
        "config": {"access_token": {"credential": "hub"}, "base_url": served.hubspot_url},
    }
    client.put(f"{API}/sources/hub", json=declared).raise_for_status()
    assert {step["outcome"] for step in client.post(f"{API}/sources/hub/check").json()} == {"ok"}
    assert "hub" in problem(client.delete(f"{API}/credentials/hub"), 422)  # a source names it
    for path in ("/credentials", "/sources/hub", "/sources", "/source-types"):
        assert HUBSPOT_TOKEN not in client.get(f"{API}{path}").raise_for_status().text
    refused = client.put(f"{API}/sources/hub", json=declared | {"config": {"access_token": HUBSPOT_TOKEN}})
    assert "must not stand here" in problem(refused, 422)
    assert HUBSPOT_TOKEN not in refused.text
    client.delete(f"{API}/sources/hub").raise_for_status()
    assert client.delete(f"{API}/credentials/hub").status_code == 204
    assert HUBSPOT_TOKEN not in (served.folder / "server.log").read_text("utf-8", "replace")


def test_what_is_wrong_is_said_by_field_and_nothing_is_written(served: Served, client: httpx.Client):
    files = sorted((served.folder / "project/sources").iterdir())
    for wrong, said in (
        ({"config": {}}, "config.url: is missing"),
        ({"source_type": "fax"}, "'fax' is unknown"),
        ({"cursor_column": "x"}, "cursor_type: is missing"),
        ({"surprise": 1}, "surprise: is not a setting"),
        ({"name": "other"}, "the address says"),
    ):
        assert said in problem(client.put(f"{API}/sources/wrong", json=served.csv("wrong") | wrong), 422)
    assert sorted((served.folder / "project/sources").iterdir()) == files
    assert problem(client.get(f"{API}/sources/no-such-name"), 422).startswith("path.name")
    assert "records" not in problem(client.post(f"{API}/sources/nowhere/ingest"), 404)


def test_a_file_that_was_changed_by_hand_meanwhile_is_not_overwritten(served: Served, client: httpx.Client):
    client.put(f"{API}/sources/edited", json=served.csv("edited")).raise_for_status()
    seen = client.get(f"{API}/sources/edited").json()["seen"]
    path = served.folder / "project/sources/edited.yaml"
    path.write_text("# mine\n" + path.read_text())
    refused = client.put(f"{API}/sources/edited", params={"seen": seen}, json=served.csv("edited", schedule="@daily"))
    assert "changed meanwhile" in problem(refused, 422)
    assert path.read_text().startswith("# mine\n")
    client.put(f"{API}/sources/edited", json=served.csv("edited", schedule="@daily")).raise_for_status()
    assert path.read_text().startswith("# mine\n")
    path.write_text("sources:\n  - name: edited\n    source_type: csv_url\n")
    (row,) = [row for row in client.get(f"{API}/sources").json() if row["source_name"] == "edited"]
    assert (row["declared"], "edited.yaml:1" in row["error"] or "edited.yaml:2" in row["error"]) == ("broken", True)
    client.delete(f"{API}/sources/edited").raise_for_status()


class _Form(HTMLParser):
    """The fields that a browser would send."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in one tag."""
        given = dict(attrs)
        if tag in {"select", "textarea"}:
            self._open = given.get("name") or ""
        elif tag == "option" and "selected" in given and self._open:
            self.fields[self._open] = given.get("value") or ""
        elif tag == "input" and given.get("name") and (given.get("type") not in {"checkbox", "radio"} or "checked" in given):
            self.fields[given["name"]] = given.get("value") or ""


def form(client: httpx.Client, path: str, **changed: str) -> dict[str, str]:
    """The fields of a form as a browser sends them, some changed."""
    parser = _Form()
    parser.feed(client.get(path, headers={"Accept": "text/html"}).raise_for_status().text)
    return parser.fields | changed


def test_who_saves_a_form_that_somebody_overtook_is_told_and_nothing_of_it_is_kept(served: Served, client: httpx.Client):
    client.put(f"{API}/credentials/overtaken_access_token", json={"secret": "pat-first"}).raise_for_status()
    declared = {"source_type": "hubspot_contacts", "config": {"access_token": {"credential": "overtaken_access_token"}}}
    client.put(f"{API}/sources/overtaken", json=declared).raise_for_status()
    mine = form(client, "/sources/overtaken/edit", name="overtaken", **{"config.access_token": "pat-mine"})
    client.put(f"{API}/sources/overtaken", json=declared | {"schedule": "@daily"}).raise_for_status()
    before = client.get(f"{API}/credentials").json()
    refused = client.post("/sources/draft-save", data=mine)
    assert (refused.status_code, "pat-mine" in refused.text) == (422, False)
    assert re.findall(r"role=.alert.>([^<]*)", refused.text) == [
        "overtaken.yaml was changed meanwhile: look at the difference again, then save"
    ]
    assert client.get(f"{API}/sources/overtaken").json()["declaration"]["schedule"] == "@daily"
    assert [row["version"] for row in client.get(f"{API}/credentials").json()] == [row["version"] for row in before]
    again = form(client, "/sources/overtaken/edit", name="overtaken", **{"config.access_token": "pat-mine", "schedule": "@daily"})
    assert client.post("/sources/draft-save", data=again).status_code == 303
    client.delete(f"{API}/sources/overtaken").raise_for_status()


def test_a_secret_of_a_form_that_was_refused_is_typed_again_and_named_nowhere(served: Served, client: httpx.Client):
    filled = form(client, "/sources/new-source/hubspot_contacts", name="Wrong Name", **{"config.access_token": "pat-typed"})
    refused = client.post("/sources/draft-save", data=filled)
    assert (refused.status_code, "use lower-case letters" in refused.text) == (422, True)
    assert 'value="Wrong Name"' in refused.text
    assert "pat-typed" not in refused.text
    assert "Wrong Name_access_token" not in refused.text, "nothing is stored under that name"


def test_a_sensor_is_offered_where_a_store_lists_its_files(served: Served, client: httpx.Client):
    for source_type, offered in (("s3_csv", True), ("sftp_csv", True), ("csv_url", False), ("hubspot_contacts", False)):
        text = client.get(f"/sources/new-source/{source_type}", headers={"Accept": "text/html"}).text
        assert ('name="sensor"' in text) == offered, source_type


def test_a_viewer_changes_nothing_not_even_through_dagsters_graphql(served: Served):
    token = tokens.create(served.url, "looker", "viewer", 1)
    launch = {"query": "mutation { reloadWorkspace { __typename ... on UnauthorizedError { message } } }"}
    with served.client(token) as viewer, served.client() as operator:
        assert viewer.get(f"{API}/sources").status_code == 200
        assert problem(viewer.put(f"{API}/sources/x", json=served.csv("x")), 403).startswith("looker may look")
        assert viewer.post("/report_asset_materialization/x", json={}).status_code == 403
        assert viewer.post("/graphql", json={"query": "{ version }"}).json()["data"]["version"]
        assert viewer.post("/graphql", json=launch).json()["data"]["reloadWorkspace"]["__typename"] == "UnauthorizedError"
        assert operator.post("/graphql", json=launch).json()["data"]["reloadWorkspace"]["__typename"] == "Workspace"


def test_two_who_declare_at_once_are_both_heard(served: Served):
    def declare(name: str) -> None:
        with served.client() as client:
            client.put(f"{API}/sources/{name}", json=served.csv(name)).raise_for_status()

    threads = [threading.Thread(target=declare, args=(f"at_once_{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with served.client() as client:
        names = {row["source_name"] for row in client.get(f"{API}/sources").json()}
        for n in range(3):
            assert f"at_once_{n}" in names
            client.delete(f"{API}/sources/at_once_{n}").raise_for_status()


@pytest.mark.filterwarnings("ignore")
def test_no_request_that_the_document_allows_or_forbids_is_answered_by_a_fault_of_ours(served: Served, client: httpx.Client):
    schema = schemathesis.openapi.from_dict(client.get(f"{API}/openapi.json").raise_for_status().json())
    failed, asked = [], []

    def ask(case: schemathesis.Case) -> None:
        answer = case.call(base_url=served.base, headers={"Authorization": f"Bearer {served.key}"}, timeout=60)
        asked.append(answer.status_code)
        if answer.status_code >= 500 and answer.status_code != 503:
            failed.append((case.method, case.path, answer.status_code, answer.text[:300]))

    few = hypothesis.settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))
    for result in schema.get_all_operations():
        few(hypothesis.given(case=result.ok().as_strategy())(ask))()
    assert not failed
    assert len(asked) > 100
