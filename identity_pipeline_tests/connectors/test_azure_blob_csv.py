"""Containers of Azure: every way to sign in, lists in pages, folders that are blobs, versions that change while they are read."""

import gzip
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pytest
from azure.storage.blob import ContentSettings, StandardBlobTier
from backports import zstd

from identity_pipeline.connectors.azure_blob_csv import AzureBlobCsv
from identity_pipeline.connectors.base import Secret
from identity_pipeline.core.errors import (
    ConfigurationError,
    ContractBroken,
    CredentialError,
    PermissionDenied,
    PipelineError,
    RateLimited,
    SourceUnavailable,
)
from identity_pipeline.core.redaction import Redactor
from identity_pipeline.core.secret import Env, StoredToken
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.files import azure, azure_access
from identity_pipeline.readers.files.azure_access import AzureAccess
from identity_pipeline_tests.connectors.reading import read, secret, window
from identity_pipeline_tests.servers import azurite
from identity_pipeline_tests.servers.azurite import ACCOUNT, CONTAINER, KEY
from identity_pipeline_tests.servers.faults import Exchange, Fault, FaultProxy
from identity_pipeline_tests.servers.oauth_server import OAuthServer, serve

BY_KEY = {"account": ACCOUNT, "account_key": secret(KEY)}


class Place:
    """A prefix of its own in the container."""

    def __init__(self) -> None:
        self.server, self.prefix = azurite.server(tls=True), f"{uuid4().hex}/"

    def put(self, name: str, *ids: str, **options: Any) -> None:
        """Write one file of these ids."""
        self.write(name, "".join(f"{line}\n" for line in ("id", *ids)).encode(), **options)

    def write(self, name: str, body: bytes, **options: Any) -> None:
        """Write one file."""
        self.server.put(self.prefix + name, body, **options)

    def blob(self, name: str) -> Any:
        """Microsoft's client of one file."""
        return self.server.container().get_blob_client(self.prefix + name)

    def source(self, **options: Any) -> AzureBlobCsv:
        """The source of all files of the prefix, by the account's key unless ``options`` say another way."""
        ways = AzureBlobCsv.model_fields.keys() & {"account_key", "sas_token", "connection_string", "client_id", "ambient_credentials"}
        given = {"container": CONTAINER, "prefix": self.prefix, "endpoint_url": self.server.url}
        return AzureBlobCsv(**given | (BY_KEY if not ways & options.keys() else {}) | options)

    def ids(self, source: AzureBlobCsv | None = None, **options: Any) -> list[str]:
        """The ids that a load reads."""
        source = source or self.source()
        return read(source, window(source, **options))[0]["id"].tolist()


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place()
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(made.server.bundle))
    return made


@pytest.fixture
def proxy(place: Place) -> Iterator[FaultProxy]:
    with FaultProxy(place.server.url) as made:
        yield made


def spoiled(*changes: tuple[bytes, bytes]) -> Fault:
    """The true answer with other bytes in it."""

    def fault(exchange: Exchange) -> None:
        true = exchange.forward()
        body = true.body
        for old, new in changes:
            assert old in body
            body = body.replace(old, new)
        exchange.send(true.status, true.headers, body)

    return fault


def refusing(status: int, code: str, message: str = "No.") -> Fault:
    """An error as Azure writes it."""
    body = f'\ufeff<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
    return lambda exchange: exchange.send(status, {"Content-Type": "application/xml"}, body)


def test_a_list_of_several_pages_is_read_to_its_end_and_only_what_changed_is_read_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure, "PAGE_SIZE", 2)
    for n in "12345":
        place.put(f"{n}.csv", n)
    source = place.source()
    first = window(source)
    assert sorted(read(source, first)[0]["id"]) == ["1", "2", "3", "4", "5"]
    place.put("5.csv", "6", "7")
    second = window(source, "id", cursor_type="text", files=first.context.files)
    assert read(source, second)[0]["id"].tolist() == ["6", "7"]
    assert (second.context.files_unchanged, second.context.requests) == (4, 4), "three pages, one blob"


def test_a_page_without_blobs_may_still_lead_on(place: Place, proxy: FaultProxy) -> None:
    place.put("a.csv", "1")
    empty = b'<?xml version="1.0"?><EnumerationResults><Blobs/><NextMarker>%s</NextMarker></EnumerationResults>' % place.prefix.encode()
    blank = lambda exchange: exchange.send(200, {"Content-Type": "application/xml"}, empty)  # noqa: E731
    source = place.source(endpoint_url=f"{proxy.url}/{ACCOUNT}")
    proxy.plan([blank])
    assert place.ids(source) == ["1"]
    proxy.plan([blank])
    assert place.ids(source, objects=(f"{place.prefix}a.csv",)) == ["1"]


def test_a_list_that_does_not_say_whether_it_goes_on_is_not_believed(place: Place, proxy: FaultProxy) -> None:
    place.put("a.csv", "1")
    proxy.plan([spoiled((b"<NextMarker/>", b""))])
    with pytest.raises(ContractBroken, match="whether it goes on"):
        place.ids(place.source(endpoint_url=f"{proxy.url}/{ACCOUNT}"))


@pytest.mark.parametrize(
    "name", ["a b.csv", "a+b.csv", "ä/ö.csv", "50%.csv", "a%2Fb.csv", "q?x=1&y.csv", "#.csv", "a../b..csv", "'\"<>.csv", " a.csv"]
)
def test_a_name_may_be_written_in_any_way(place: Place, name: str) -> None:
    place.put(name, "1")
    assert place.ids() == ["1"]
    assert place.ids(objects=(place.prefix + name,)) == ["1"]


def test_a_name_that_xml_cannot_hold_comes_encoded(place: Place, proxy: FaultProxy) -> None:
    place.put("a%.csv", "1")
    source = place.source(endpoint_url=f"{proxy.url}/{ACCOUNT}")
    proxy.plan([spoiled((b"<Name>", b'<Name Encoded="true">'), (b"a%.csv", b"a%25.csv"))])
    assert place.ids(source) == ["1"]


def test_folders_and_empty_blobs_are_no_files(place: Place, proxy: FaultProxy) -> None:
    place.write("a.csv", b"", metadata={"hdi_isfolder": "true"})
    place.write("empty.csv", b"")
    place.put("a.csv/1.csv", "1")
    place.put("b.csv", "2")
    assert sorted(place.ids()) == ["1", "2"]
    with pytest.raises(ConfigurationError, match="has no file"):
        place.ids(objects=(f"{place.prefix}a.csv",))
    # as an account with a hierarchical namespace lists a folder; no emulator has one
    folder = (f"<Name>{place.prefix}b.csv</Name><Properties>".encode(), f"<Name>{place.prefix}b.csv</Name><Properties>".encode())
    proxy.plan([spoiled((folder[0], folder[1] + b"<ResourceType>directory</ResourceType>"))])
    assert place.ids(place.source(endpoint_url=f"{proxy.url}/{ACCOUNT}")) == ["1"]


@pytest.mark.parametrize("said", [None, "gzip", "zstd", "utf-8"])
def test_a_blob_is_unpacked_by_its_bytes_whatever_its_writer_said(place: Place, said: str | None) -> None:
    packed = (lambda body: body, gzip.compress, zstd.compress)
    for n, pack in enumerate(packed):
        place.write(f"{n}.csv", pack(b"id\n%d\n" % n), content_settings=ContentSettings(content_encoding=said))
    assert sorted(place.ids()) == ["0", "1", "2"]


def test_a_snapshot_is_no_file_of_its_own(place: Place) -> None:
    place.put("a.csv", "1")
    place.blob("a.csv").create_snapshot()
    place.put("a.csv", "2")
    assert place.ids() == ["2"]


def test_a_blob_that_is_written_anew_or_removed_after_the_list_is_never_mixed(place: Place, proxy: FaultProxy) -> None:
    def meanwhile(change: Callable[[], object]) -> Fault:
        def fault(exchange: Exchange) -> None:
            change()
            true = exchange.forward()
            exchange.send(true.status, true.headers, true.body)

        return fault

    place.put("a.csv", "1", "2")
    source = place.source(endpoint_url=f"{proxy.url}/{ACCOUNT}")
    proxy.plan([None, meanwhile(lambda: place.put("a.csv", "3", "4"))])
    assert place.ids(source) == ["3", "4"]
    proxy.plan([None, meanwhile(place.blob("a.csv").delete_blob)])
    with pytest.raises(SourceUnavailable, match="removed after it was listed"):
        place.ids(source)


def test_a_store_that_ignores_the_condition_is_not_believed(place: Place, proxy: FaultProxy) -> None:
    def another(exchange: Exchange) -> None:
        true = exchange.forward()
        exchange.send(true.status, {**{k: v for k, v in true.headers.items() if k.lower() != "etag"}, "ETag": '"0xOTHER"'}, true.body)

    place.put("a.csv", "1")
    proxy.plan([None, another])
    source = place.source(endpoint_url=f"{proxy.url}/{ACCOUNT}")
    asked = window(source)
    assert read(source, asked)[0]["id"].tolist() == ["1"]
    assert asked.context.requests == 4, "list, another version, what is there now, the blob"


def test_a_blob_in_the_archive_is_named(place: Place) -> None:
    place.put("a.csv", "1")
    place.put("old.csv", "2")
    place.blob("old.csv").set_standard_blob_tier(StandardBlobTier.ARCHIVE)
    with pytest.raises(PermissionDenied, match=r"old.csv answered 409 BlobArchived: .* rehydrate it, or leave it out"):
        place.ids()
    assert place.ids(place.source(glob="a*")) == ["1"]


def connection(place: Place, *more: str) -> dict[str, object]:
    return {"connection_string": secret(";".join((f"BlobEndpoint={place.server.url}", *more, ""))), "endpoint_url": ""}


WAYS: dict[str, Callable[[Place], dict[str, object]]] = {
    "key": lambda _: BY_KEY,
    "SAS": lambda _: {"sas_token": secret(azurite.sas())},
    "SAS with its question mark": lambda _: {"sas_token": secret(f"?{azurite.sas()}\n")},
    "connection string with a key": lambda place: connection(place, f"AccountName={ACCOUNT}", f"AccountKey={KEY}"),
    "connection string with a SAS": lambda place: connection(place, f"SharedAccessSignature={azurite.sas()}"),
    "connection string and an address": lambda place: {
        "connection_string": secret(
            f"DefaultEndpointsProtocol=https;AccountName={ACCOUNT};AccountKey={KEY};EndpointSuffix=core.windows.net"
        )
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_there_are_several_ways_to_sign_in(place: Place, way: str) -> None:
    place.put("a.csv", "1")
    assert place.ids(place.source(**WAYS[way](place))) == ["1"]


@pytest.mark.parametrize(
    ("access", "address"),
    [
        (AzureAccess(ACCOUNT, sas=secret("sig=x")), f"https://{ACCOUNT}.blob.core.windows.net"),
        (AzureAccess(ACCOUNT, "https://b.example.org/", sas=secret("sig=x")), "https://b.example.org"),
        (AzureAccess(connection=secret(f"AccountName={ACCOUNT};AccountKey={KEY}")), f"https://{ACCOUNT}.blob.core.windows.net"),
        (
            AzureAccess(connection=secret(f" AccountKey={KEY};AccountName={ACCOUNT};EndpointSuffix=core.usgovcloudapi.net; ")),
            f"https://{ACCOUNT}.blob.core.usgovcloudapi.net",
        ),
        (AzureAccess(connection=secret("BlobEndpoint=https://b.example.org;SharedAccessSignature=?sv=1&sig=x")), "https://b.example.org"),
    ],
)
def test_the_address_follows_from_the_account_unless_it_is_said(access: AzureAccess, address: str) -> None:
    assert access.opened(CONTAINER, ReadContext())[0] == address


def entra(server: OAuthServer, **options: object) -> dict[str, Any]:
    return {
        "tenant_id": "directory", "client_id": server.client_id, "client_secret": secret(server.client_secret),
        "token_url": f"{server.url}/token?for={{tenant_id}}",
    } | options  # fmt: skip


def test_an_app_of_entra_signs_in_by_its_secret_and_again_before_its_token_ends(place: Place) -> None:
    for n in "123":
        place.put(f"{n}.csv", n)
    with serve(OAuthServer(extra={"access_token": azurite.token()})) as server:
        assert sorted(place.ids(place.source(**entra(server)))) == ["1", "2", "3"]
        [asked] = server.asked
        assert asked == {
            "grant_type": "client_credentials", "client_id": server.client_id, "client_secret": server.client_secret,
            "scope": "https://storage.azure.com/.default",
        }  # fmt: skip
        server.ttl = 200
        place.ids(place.source(**entra(server)))
        assert len(server.asked) == 1 + 4, "for the list and each blob"
        server.extra = {"access_token": azurite.token(audience="https://graph.microsoft.com")}
        with pytest.raises(CredentialError, match="answered 403 AuthenticationFailed"):
            place.ids(place.source(**entra(server)))
        server.spoiled.append((503, {}, "application/json", {}))
        server.extra = {"access_token": azurite.token()}
        assert len(place.ids(place.source(**entra(server)))) == 3, "what passes is waited for"


@pytest.mark.parametrize(
    ("codes", "advice"),
    [
        ([7000215], "client_secret is wrong: give the value of the secret, not its id"),
        ([7000222], "the client secret has expired"),
        ([700016], "check client_id and tenant_id"),
        ([90002], "there is no such directory"),
        ([1], "check tenant_id, client_id and client_secret"),
        ("nonsense", "check tenant_id, client_id and client_secret"),
    ],
)
def test_what_entra_refuses_is_said_with_what_to_do(place: Place, codes: object, advice: str) -> None:
    with serve(OAuthServer()) as server:
        body = {"error": "invalid_client", "error_description": "AADSTS: for ada@nordwind-demo.com", "error_codes": codes}
        server.spoiled.append((401, body, "application/json", {}))
        with pytest.raises(CredentialError, match=advice) as caught:
            place.ids(place.source(**entra(server)))
    assert "ada" not in str(caught.value)


def test_an_answer_of_entra_without_a_token_is_not_believed(place: Place) -> None:
    with serve(OAuthServer()) as server:
        server.spoiled.append((200, {"token_type": "Bearer"}, "application/json", {}))
        with pytest.raises(ContractBroken, match="without a token"):
            place.ids(place.source(**entra(server)))


class _Machine(BaseHTTPRequestHandler):
    """The endpoint by which an app service hands out its identity's tokens."""

    def do_GET(self) -> None:
        good = self.headers.get("X-IDENTITY-HEADER") == "machine" and "storage.azure.com" in self.path
        body = b'{"access_token": "%s", "expires_on": "4102444800"}' % azurite.token().encode() if good else b"{}"
        self.send_response(200 if good else 400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_the_machines_own_identity_is_used_only_where_that_is_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("a.csv", "1")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Machine) as machine:
        threading.Thread(target=machine.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{machine.server_port}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "machine")
        with pytest.raises(ConfigurationError, match="ambient_credentials: true"):
            place.ids(place.source(account_key=None))
        assert place.ids(place.source(ambient_credentials=True)) == ["1"]
        monkeypatch.setenv("IDENTITY_HEADER", "nobody")
        with pytest.raises(CredentialError, match="no identity for Azure"):
            place.ids(place.source(ambient_credentials=True))
        machine.shutdown()


@pytest.mark.parametrize(
    ("options", "error", "advice"),
    [
        ({"account_key": None}, ConfigurationError, "set one way to sign in"),
        (BY_KEY | {"sas_token": secret(azurite.sas())}, ConfigurationError, "set one way to sign in"),
        (BY_KEY | {"ambient_credentials": True}, ConfigurationError, "set one way to sign in"),
        ({"client_id": "app"}, ConfigurationError, "belong together"),
        (BY_KEY | {"account": ""}, ConfigurationError, "3 to 24 small letters"),
        (BY_KEY | {"account": "acme.example/x", "endpoint_url": ""}, ConfigurationError, "3 to 24 small letters"),
        (BY_KEY | {"account_key": secret("no key")}, ConfigurationError, "copy it whole"),
        (BY_KEY | {"account_key": secret("b3RoZXI=")}, CredentialError, "the key does not belong to the account"),
        (BY_KEY | {"container": "nobodys"}, ConfigurationError, "there is no such container"),
        (BY_KEY | {"endpoint_url": "http://10.1.2.3"}, ConfigurationError, "endpoint_url"),
        (BY_KEY | {"glob": "[z-a]*"}, ConfigurationError, "glob: use"),
        ({"sas_token": secret("https://a.blob.core.windows.net/c?sig=x")}, ConfigurationError, "the token alone"),
        ({"sas_token": secret("sv=2026&se=1")}, ConfigurationError, "the token alone"),
        ({"sas_token": secret(azurite.sas(key="b3RoZXI="))}, CredentialError, "the SAS is not accepted"),
        ({"sas_token": secret(azurite.sas(container="other"))}, CredentialError, "another account or container"),
        ({"sas_token": secret(azurite.sas(begins=-3, ends=-2))}, CredentialError, r"the SAS has expired \(20"),
        ({"sas_token": secret(azurite.sas(begins=2, ends=3))}, CredentialError, "does not hold before"),
        ({"sas_token": secret(azurite.sas().replace("sr=c", "sr=b"))}, CredentialError, "for one blob"),
        ({"sas_token": secret(azurite.sas("r"))}, PermissionDenied, r"read and list \(sp=rl\) and has sp=r: make another"),
        ({"sas_token": secret(azurite.sas("l"))}, PermissionDenied, "and has sp=l"),
        ({"connection_string": secret("UseDevelopmentStorage=true")}, ConfigurationError, "for an emulator too, with its BlobEndpoint"),
        ({"connection_string": secret(KEY)}, ConfigurationError, "expected AccountName and AccountKey"),
        (
            {"connection_string": secret(f"AccountName=another;AccountKey={KEY}"), "account": ACCOUNT},
            ConfigurationError,
            "for another account",
        ),
        (
            {"connection_string": secret(f"AccountName=a;AccountKey={KEY};BlobEndpoint=http://169.254.169.254/"), "endpoint_url": ""},
            ConfigurationError,
            "connection_string",
        ),
    ],
)
def test_what_is_refused_is_said_with_what_to_do(place: Place, options, error: type[PipelineError], advice: str) -> None:
    place.put("a.csv", "1")
    with pytest.raises(error, match=advice) as caught:
        place.ids(place.source(**options))
    assert "sig=" not in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "error", "advice"),
    [
        (403, "AuthorizationFailure", PermissionDenied, "a firewall of the account"),
        (403, "AuthorizationPermissionMismatch", PermissionDenied, "let the credential read and list"),
        (403, "KeyBasedAuthenticationNotPermitted", PermissionDenied, "sign in by Entra"),
        (403, "AuthorizationSourceIPMismatch", PermissionDenied, "other addresses"),
        (409, "ContainerBeingDeleted", ConfigurationError, "is being deleted"),
        (400, "InvalidResourceName", ConfigurationError, "check container"),
    ],
)
def test_what_no_emulator_refuses_is_said_too(
    place: Place, proxy: FaultProxy, status: int, code: str, error: type[PipelineError], advice: str
) -> None:
    proxy.plan([refusing(status, code)])
    with pytest.raises(error, match=f"answered {status} {code}: .*{advice}"):
        place.ids(place.source(endpoint_url=f"{proxy.url}/{ACCOUNT}"))


def test_the_role_that_an_app_lacks_is_named(place: Place, proxy: FaultProxy) -> None:
    proxy.plan([refusing(403, "AuthorizationPermissionMismatch")])
    with serve(OAuthServer(extra={"access_token": azurite.token()})) as server, pytest.raises(PermissionDenied, match="Blob Data Reader"):
        place.ids(place.source(**entra(server), endpoint_url=f"{proxy.url}/{ACCOUNT}"))


def test_a_busy_account_is_asked_again_and_given_up_at_last(place: Place, proxy: FaultProxy) -> None:
    place.put("a.csv", "1")
    source = place.source(endpoint_url=f"{proxy.url}/{ACCOUNT}")
    proxy.plan([refusing(503, "ServerBusy")] * 2)
    assert place.ids(source) == ["1"]
    proxy.plan([refusing(503, "ServerBusy")] * 20)
    with pytest.raises(RateLimited, match="answered 503 ServerBusy"):
        place.ids(source)


@pytest.mark.parametrize(("hours", "said"), [(2, "120 minutes fast"), (-2, "120 minutes slow")])
def test_a_clock_that_is_wrong_is_told_by_how_much(place: Place, monkeypatch: pytest.MonkeyPatch, hours: int, said: str) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + timedelta(hours=hours)

    place.put("a.csv", "1")
    monkeypatch.setattr(azure_access, "datetime", Wrong)
    with pytest.raises(CredentialError, match=f"the clock of this machine is {said}: set it"):
        place.ids()


def test_a_signature_that_ends_soon_is_a_warning(place: Place) -> None:
    place.put("a.csv", "1")
    for ends, warned in ((24, ["sas_ends"]), (24 * 30, [])):
        source = place.source(sas_token=secret(azurite.sas(ends=ends)))
        asked = window(source)
        assert read(source, asked)[0]["id"].tolist() == ["1"]
        assert [warning.partition(":")[0] for warning in asked.context.warnings] == warned


def test_the_redactor_knows_what_is_inside_a_secret_and_what_is_made_of_it(place: Place, proxy: FaultProxy) -> None:
    place.put("a.csv", "1")
    redactor, text = Redactor(), f"BlobEndpoint={proxy.url}/{ACCOUNT};AccountName={ACCOUNT};AccountKey={KEY}"
    held = Secret.bound(Env("CONNECTION"), StoredToken(lambda: text, redactor))
    assert place.ids(place.source(connection_string=held, endpoint_url="")) == ["1"]
    assert KEY not in redactor.redact(f"key {KEY}")
    for _, path in proxy.requests:
        made = path.partition("sig=")[2]
        assert made
        assert made not in redactor.redact(f"GET {path}")


def test_without_the_extra_a_message_says_which_to_install(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("a.csv", "1")
    for name in ("azure.storage.blob", "azure.identity"):
        monkeypatch.setitem(sys.modules, name, None)
    for options in (BY_KEY, {"ambient_credentials": True}):
        with pytest.raises(ConfigurationError, match=r"identity-pipeline\[azure\]"):
            place.ids(place.source(**options))
    assert place.ids(place.source(sas_token=secret(azurite.sas()))) == ["1"], "a SAS needs no library"
