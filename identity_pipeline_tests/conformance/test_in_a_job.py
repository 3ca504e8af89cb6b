"""Sources in Dagster's job: API-key vendors with 2,500 people, many ties, and what happens to them there.

The table is what the source has.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partialmethod
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import psycopg
import pytest
import requests
import yaml
from psycopg.rows import dict_row

from identity_pipeline.core import settings
from identity_pipeline.core.settings import PACKAGE
from identity_pipeline.core.window import ReadContext
from identity_pipeline.credentials import flow, grant, vault
from identity_pipeline.credentials.vendors import vendor_of
from identity_pipeline.demo.vendor_api import VendorAPI
from identity_pipeline.orchestration.assets import JOB, definitions, run_config
from identity_pipeline_tests.conformance.harness import Contact, Harness, Tools, harness_classes, minute
from identity_pipeline_tests.servers.files import Authority
from identity_pipeline_tests.servers.oauth_server import OAuthServer, serve

VENDORS = [cls for cls in harness_classes().values() if cls.connector().group in {"api", "oauth"}]
OAUTH = [cls for cls in VENDORS if cls.connector().group == "oauth"]
PEOPLE = 2_500
STORM = 5

Row = tuple[str | None, bool, str | None]
"""Note, deleted, merged into."""


@dataclass
class Place:
    """One source of a vendor, declared, and Dagster's job that loads it. ``naps`` are waits, which take no time."""

    harness: Harness
    name: str
    declared: dict[str, Any]
    job: dg.JobDefinition
    instance: dg.DagsterInstance
    database: psycopg.Connection
    held: dict[str, Contact] = field(default_factory=dict)
    losers: dict[str, str] = field(default_factory=dict)
    naps: list[float] = field(default_factory=list)

    @property
    def api(self) -> VendorAPI:
        """The vendor's server."""
        return self.harness.api  # type: ignore[attr-defined]

    def declare(self, **config: Any) -> None:
        """Change settings of the source."""
        self.declared["config"] |= config
        (settings.sources_folder() / "sources.yaml").write_text(yaml.safe_dump({"sources": [self.declared]}))
        self.job = definitions().resolve_job_def(JOB)

    def show(self, *contacts: Contact) -> None:
        """Let the vendor have these too; who is merged into one of them is gone there."""
        self.held |= {c.id: c for c in contacts}
        self.losers |= {loser: c.id for c in contacts for loser in c.absorbed}
        told = {self.harness.external_id(name) for name in self.held}
        self.held = {name: c for name, c in self.held.items() if self.harness.external_id(name) not in {*self.losers} & told}
        self.harness.show(list(self.held.values()))

    def run(self, **choices: Any) -> dg.ExecuteInProcessResult:
        """One run of the job, in this process."""
        return self.job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey([self.name])],
            run_config=run_config(self.name, **choices),
            raise_on_error=False,
        )

    def truth(self, gone: tuple[str, ...] = ()) -> dict[str, Row]:
        """What the vendor has, by external id; ``gone`` is what vanished there."""
        external = self.harness.external_id
        rows: dict[str, Row] = {external(c.id): (c.note, c.deleted or c.id in gone, None) for c in self.held.values()}
        return rows | {loser: (f"note {loser.rpartition(':')[2]}", True, external(into)) for loser, into in self.losers.items()}

    def last_load(self) -> dict[str, Any]:
        """The newest row of the ledger."""
        with self.database.cursor(row_factory=dict_row) as cursor:
            found = cursor.execute(
                "select * from identity.loads where source_name = %s order by load_id desc limit 1", (self.name,)
            ).fetchone()
        assert found is not None
        return found

    def table(self) -> dict[str, Row]:
        """What the identity table has. A loser counts as deleted, whether or not its row says when."""
        found = self.database.execute(
            "select external_id, raw ->> %s, deleted_at is not null or merged_into is not null, merged_into from identity.records "
            "where source_name = %s",
            (self.harness.note, self.name),
        ).fetchall()
        return {external_id: (note, deleted, into) for external_id, note, deleted, into in found}


@pytest.fixture
def place(harness_class: type[Harness], identity_database: str, postgres_url: str, authority: Authority, tmp_path: Path) -> Iterator[Place]:
    name = f"crm_{uuid4().hex[:8]}"
    shutil.copy(PACKAGE.parent / "dagster.yaml", tmp_path)
    folder = tmp_path / "sources"
    folder.mkdir()
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for variable, value in {
            "IDENTITY_DATABASE_URL": identity_database, "IDENTITY_HOME": str(tmp_path), "IDENTITY_SOURCES": str(folder),
            "IDENTITY_ALLOW_PRIVATE_HOSTS": "127.0.0.1", "SSL_CERT_FILE": str(authority.bundle),
        }.items():  # fmt: skip
            patch.setenv(variable, value)
        harness = harness_class(Tools(postgres_url, authority, patch, stack))
        cursor = {"cursor_column": harness.cursor_column, "cursor_type": harness.cursor_type}
        declared = {"name": name, "source_type": harness.source_type(), "config": harness.config, **cursor}
        (folder / "sources.yaml").write_text(yaml.safe_dump({"sources": [declared]}))
        instance = stack.enter_context(dg.DagsterInstance.ephemeral())
        database = stack.enter_context(psycopg.connect(identity_database, autocommit=True))
        made = Place(harness, name, declared, definitions().resolve_job_def(JOB), instance, database)
        patch.setattr(ReadContext, "__init__", partialmethod(ReadContext.__init__, sleep=made.naps.append))
        yield made


def after(api: VendorAPI, requests: int, then: Callable[[], None]) -> None:
    """Do ``then`` once ``api`` has answered so many requests more."""
    answer, left = api.answer, [requests]

    def answering(asked: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            then()
        return answer(asked)

    api.answer = answering  # type: ignore[method-assign]


@pytest.mark.parametrize("harness_class", VENDORS, ids=[cls.source_type() for cls in VENDORS])
def test_the_table_is_what_the_vendor_has(place: Place) -> None:
    harness, api = place.harness, place.api
    place.show(*(Contact(str(n), minute(90 * (n // 400)), note=f"note {n}") for n in range(1, PEOPLE + 1)))
    assert place.run().success
    assert place.table() == place.truth(), "after the first load"

    place.show(place.held["7"].but(note="changed", at=minute(700)), Contact(str(PEOPLE + 1), minute(700), note="new"))
    if harness.has("deletion"):
        place.show(place.held["8"].but(deleted=True, at=minute(701)))
    if harness.has("merging"):
        place.show(Contact(str(PEOPLE + 2), minute(702), note="both", absorbed=(harness.external_id("9"), harness.external_id("10"))))
    assert place.run().success
    assert place.table() == place.truth(), "after an update, a new one, a deletion and a merge"
    load = place.last_load()
    columns = harness.connector().cursor_columns
    if (columns.get(harness.cursor_column or "") or columns["*"]).filtered_by == "source":
        assert load["records_read"] - load["filtered"] < PEOPLE / 2, "no more than changed, and what the overlap holds"

    place.show(place.held["11"].but(note="changed too", at=minute(710)), place.held["2400"].but(note="changed too", at=minute(710)))
    place.naps.clear()
    after(api, harness.requests_before_pages + 1, lambda: setattr(api, "storm", STORM))
    assert place.run(full_refresh=True).success
    assert (api.storm, len(place.naps) >= STORM) == (0, True), "the storm came, and was waited out"
    assert place.table() == place.truth(), "after a full refresh through a storm of refusals"

    before = place.table()
    place.show(place.held["12"].but(note="changed at last", at=minute(720)))
    api.dies_after = harness.requests_before_pages + 2
    assert not place.run(full_refresh=True).success
    assert place.last_load()["error_code"] == "credential"
    assert place.table() == before, "a read whose credential died in the middle changes nothing"
    api.dies_after = None
    assert place.run().success
    assert place.table() == place.truth(), "after the credential is back"


def connected(url: str, source_type: str, name: str, server: OAuthServer) -> None:
    """Have the server's user agree."""
    of = vendor_of(source_type)
    grant.store_app(url, of.name, flow.App(server.client_id, server.client_secret, server.authorize_url, server.token_url))
    begun = grant.begin(url, source_type, name, tenant="acme.my.salesforce.com" if of.name == "salesforce" else "")
    grant.finish(url, requests.get(begun.address, allow_redirects=False, timeout=20).headers["Location"])


@pytest.mark.parametrize("harness_class", OAUTH, ids=[cls.source_type() for cls in OAUTH])
def test_a_connected_account_is_read_past_the_end_of_a_token_until_its_grant_is_revoked(place: Place, identity_database: str) -> None:
    source_type, api, name = place.harness.source_type(), place.api, f"{place.name}_grant"
    with serve(OAuthServer()) as server:
        server.extra = {"id": f"{server.url}/id/00D1/0051"}  # where Salesforce tells who agreed
        connected(identity_database, source_type, name, server)
        refuse = api.authenticate

        def authenticate(asked: Any, *, dead: bool) -> None:
            token = asked.headers.get("Authorization", "").removeprefix("Bearer ")
            api.token = token if server.accepts(token) else "another"  # type: ignore[attr-defined]
            refuse(asked, dead=dead)

        api.authenticate = authenticate  # type: ignore[method-assign]
        place.declare(access_token={"credential": name})
        place.show(*(Contact(str(n), minute(90 * (n // 400)), note=f"note {n}") for n in range(1, PEOPLE + 1)))
        after(api, place.harness.requests_before_pages + 1, server.expire)
        runs = [place.run()]
        assert runs[0].success
        assert (place.table(), server.refreshed) == (place.truth(), 1), "the token ended in the middle: one was got, nothing was lost"

        place.show(place.held["7"].but(note="changed", at=minute(700)))
        server.revoke()
        runs += [place.run(), place.run()]
        assert [run.success for run in runs] == [True, False, False]
        assert (len(server.asked), server.refused) == (3, 1), "the vendor was asked once for what it refuses"
        for run in runs[1:]:
            [failure] = [event for event in run.all_events if event.event_type_value == "STEP_FAILURE"]
            told = failure.step_failure_data.error.message + str(failure.step_failure_data.user_failure_data)
            for part in (name, "ada@nordwind-demo.com", "invalid_grant", f"credentials connect {source_type} {name}"):
                assert part in told
            assert not [event for event in run.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
        [row] = [each for each in vault.listing(identity_database) if each["name"] == name]
        assert row["status"] == "needs_reconnect"

        connected(identity_database, source_type, name, server)
        runs.append(place.run())
        assert runs[-1].success
        assert place.table() == place.truth()
        known = [text for each in server.tokens for text in (each.access_token, each.refresh_token) if text] + [server.client_secret]
        shown = " ".join(repr(event) for run in runs for event in run.all_events)
        stored = place.database.execute("select string_agg(l::text, ' ') || (select string_agg(c::text, ' ') from identity.credentials c) "
                                        "from identity.loads l").fetchone()  # fmt: skip
        assert not [each for each in known if each in shown or each in str(stored)]


@pytest.mark.parametrize(
    "harness_class", [cls for cls in VENDORS if not cls.has("deletion")], ids=[c.source_type() for c in VENDORS if not c.has("deletion")]
)
def test_who_vanished_there_is_gone_after_two_full_refreshes(place: Place) -> None:
    """For vendors that do not tell of deletions."""
    place.show(*(Contact(str(n), minute(n // 40), note=f"note {n}") for n in range(1, 201)))
    assert place.run().success
    place.harness.show([c for c in place.held.values() if c.id != "13"])
    for gone in ((), ("13",)):
        assert place.run(full_refresh=True).success
        assert place.table() == place.truth(gone)
