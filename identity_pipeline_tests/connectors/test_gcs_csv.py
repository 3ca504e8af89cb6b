"""Google Cloud Storage: lists in pages, generations that change while they are read, objects that are stored packed, who may ask."""

import gzip
import json
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from identity_pipeline.connectors.gcs_csv import GcsCsv
from identity_pipeline.core.errors import ConfigurationError, CredentialError, PermissionDenied, PipelineError, SourceUnavailable
from identity_pipeline.readers.files import gcs as reader
from identity_pipeline_tests.connectors.reading import read, secret, window
from identity_pipeline_tests.servers import gcs
from identity_pipeline_tests.servers.faults import Exchange, FaultProxy


class Place:
    """A prefix of its own in the bucket, behind a gate."""

    def __init__(self, gate: gcs.Gate) -> None:
        self.gate, self.server, self.prefix = gate, gcs.server(), f"{uuid4().hex}/"

    def put(self, name: str, *ids: str, **headers: str) -> None:
        """Write one file of these ids."""
        body = "".join(f"{line}\n" for line in ("id", *ids)).encode()
        self.server.put(self.prefix + name, gzip.compress(body) if headers else body, **headers)

    def source(self, **options) -> GcsCsv:
        """The source of all files of the prefix."""
        given = {"bucket": gcs.BUCKET, "prefix": self.prefix, "endpoint_url": self.gate.url, "service_account": secret(self.gate.account())}
        return GcsCsv(**given | options)

    def ids(self, source: GcsCsv | None = None, **options) -> list[str]:
        """The ids that a load reads."""
        source = source or self.source()
        return read(source, window(source, **options))[0]["id"].tolist()


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    with gcs.Gate() as gate:
        yield Place(gate)


def test_a_list_of_several_pages_is_read_to_its_end_and_only_what_changed_is_read_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "PAGE_SIZE", 2)
    for n in "12345":
        place.put(f"{n}.csv", n)
    source = place.source()
    first = window(source)
    assert read(source, first)[0]["id"].tolist() == ["1", "2", "3", "4", "5"]
    place.put("3.csv", "6", "7")
    second = window(source, files=first.context.files)
    assert read(source, second)[0]["id"].tolist() == ["6", "7"]
    assert (second.context.files_unchanged, second.context.requests) == (4, 4), "three pages, one object"


@pytest.mark.parametrize("name", ["a b.csv", "a+b.csv", "ä/ö.csv", "50%.csv", "a%2Fb.csv", "q?x=1&y.csv", "#.csv", "'\"<>.csv"])
def test_a_name_may_be_written_in_any_way(place: Place, name: str) -> None:
    place.put(name, "1")
    assert place.ids() == ["1"]
    assert place.ids(objects=(place.prefix + name,)) == ["1"]


def test_an_object_that_the_server_would_unpack_is_read_as_it_is_stored(place: Place) -> None:
    place.put("a.csv", "1", "2", **{"Content-Encoding": "gzip"})
    assert place.ids() == ["1", "2"]


def test_an_object_that_is_written_anew_or_removed_after_the_list_is_never_mixed(place: Place) -> None:
    def meanwhile(change: Callable[[], None]) -> Callable[[Exchange], None]:
        def fault(exchange: Exchange) -> None:
            change()
            true = exchange.forward()
            exchange.send(true.status, true.headers, true.body)

        return fault

    place.put("a.csv", "1", "2")
    with FaultProxy(place.gate.url) as proxy:
        source = place.source(endpoint_url=proxy.url)
        proxy.plan([None, meanwhile(lambda: place.put("a.csv", "3", "4"))])
        assert place.ids(source) == ["3", "4"]
        proxy.plan([None, meanwhile(lambda: place.server.delete(f"{place.prefix}a.csv"))])
        with pytest.raises(SourceUnavailable, match="removed after it was listed"):
            place.ids(source)


def without_key(place: Place) -> dict[str, object]:
    return {"service_account": None}


def another_kind(place: Place) -> dict[str, object]:
    return {"service_account": secret(json.dumps({"type": "external_account", "credential_source": {"url": "http://127.0.0.1/"}}))}


def no_json(place: Place) -> dict[str, object]:
    return {"service_account": secret("AIza-an-api-key")}


def deleted_key(place: Place) -> dict[str, object]:
    place.gate.known = False
    return {}


def no_role(place: Place) -> dict[str, object]:
    place.gate.allowed = False
    return {}


def no_bucket(place: Place) -> dict[str, object]:
    return {"bucket": "nobodys"}


@pytest.mark.parametrize(
    ("how", "error", "advice"),
    [
        (without_key, ConfigurationError, "ambient_credentials: true"),
        (another_kind, ConfigurationError, "expected the key of a service account"),
        (no_json, ConfigurationError, "expected the JSON"),
        (deleted_key, CredentialError, "make a new key"),
        (no_role, PermissionDenied, "Storage Object Viewer"),
        (no_bucket, ConfigurationError, "no such bucket"),
    ],
)
def test_what_is_refused_is_said_with_what_to_do(place: Place, how, error: type[PipelineError], advice: str) -> None:
    place.put("a.csv", "1")
    with pytest.raises(error, match=advice):
        place.ids(place.source(**how(place)))
