"""Buckets: lists in pages, odd keys, versions that change while they are read, who may ask."""

import bz2
import gzip
from collections.abc import Callable
from urllib.parse import quote_plus
from uuid import uuid4

import pytest
from backports import zstd

from identity_pipeline.connectors.s3_csv import S3Csv
from identity_pipeline.core.errors import ConfigurationError, CredentialError, PermissionDenied, PipelineError, SourceUnavailable
from identity_pipeline.readers.files import s3
from identity_pipeline_tests.connectors.reading import read, secret, window
from identity_pipeline_tests.servers import faults, seaweedfs
from identity_pipeline_tests.servers.faults import FaultProxy

KEY, SECRET = seaweedfs.ADMINISTRATOR


class Bucket:
    """A prefix of its own in the bucket."""

    def __init__(self) -> None:
        self.server, self.prefix = seaweedfs.server(), f"{uuid4().hex}/"

    def put(self, **files: str | bytes) -> None:
        """Write files by name, without their ending, each with these ids of one character."""
        for name, ids in files.items():
            self.write(f"{name}.csv", ids)

    def write(self, name: str, ids: str | bytes) -> None:
        """Write one file."""
        body = ids if isinstance(ids, bytes) else "".join(f"{line}\n" for line in ["id", *ids]).encode()
        self.server.put(self.prefix + name, body)

    def source(self, **options) -> S3Csv:
        """The source of all files of the prefix."""
        given = {
            "bucket": seaweedfs.BUCKET, "prefix": self.prefix, "endpoint_url": self.server.url,
            "access_key_id": KEY, "secret_access_key": secret(SECRET),
        }  # fmt: skip
        return S3Csv(**given | options)

    def ids(self, source: S3Csv | None = None, **options) -> list[str]:
        """The ids that a load reads."""
        source = source or self.source()
        return read(source, window(source, **options))[0]["id"].tolist()

    def after(self):
        """What a first load has read of each file."""
        source = self.source()
        asked = window(source)
        read(source, asked)
        return asked.context.files


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    return Bucket()


def test_a_list_of_several_pages_is_read_to_its_end_and_only_what_changed_is_read_again(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PAGE_SIZE", 2)
    bucket.put(a="1", b="2", c="3", d="4", e="5")
    assert sorted(bucket.ids()) == ["1", "2", "3", "4", "5"]
    seen = bucket.after()
    bucket.put(e="67")
    source = bucket.source()
    asked = window(source, "id", cursor_type="text", files=seen)
    assert read(source, asked)[0]["id"].tolist() == ["6", "7"]
    assert (asked.context.files_unchanged, list(asked.context.files)) == (4, [f"{bucket.prefix}e.csv"])
    assert asked.context.requests == 3 + 1, "three pages, one object"


@pytest.mark.parametrize(
    "name", ["a b.csv", "a+b.csv", "ä/ö.csv", "50%.csv", "a%2Fb.csv", "q?x=1&y.csv", "#.csv", "a../b..csv", "'\"<>.csv"]
)
def test_a_key_may_be_written_in_any_way(bucket: Bucket, name: str) -> None:
    bucket.write(name, "1")
    assert bucket.ids() == ["1"]
    assert list(bucket.after()) == [bucket.prefix + name]
    assert bucket.ids(objects=(bucket.prefix + name,)) == ["1"]


@pytest.mark.parametrize("name", ["a+b 100%25.csv", " a .csv"])
@pytest.mark.parametrize("encoded", [True, False])
def test_a_key_is_decoded_only_where_the_store_says_that_it_encodes(bucket: Bucket, name: str, encoded: bool) -> None:
    key = bucket.prefix + name
    listed = (
        f"<ListBucketResult>{'<EncodingType>url</EncodingType>' if encoded else ''}<IsTruncated>false</IsTruncated><Contents>"
        f'<Key>{quote_plus(key, safe="/") if encoded else key}</Key><ETag>"e"</ETag><Size>5</Size>'
        "<LastModified>2026-04-01T00:00:00.000Z</LastModified></Contents></ListBucketResult>"
    )
    with FaultProxy(bucket.server.url) as proxy:
        proxy.plan([lambda exchange: exchange.send(200, {"Content-Type": "application/xml"}, listed.encode())])
        source = bucket.source(endpoint_url=proxy.url)
        assert [entry.name for entry in source.unread(window(source))] == [key]


def test_folders_and_empty_objects_are_no_files_and_what_is_packed_is_unpacked(bucket: Bucket) -> None:
    bucket.write("folder/", b"")
    bucket.write("empty.csv", b"")
    bucket.write("folder/1.csv", gzip.compress(b"id\n1\n"))
    bucket.write("2.csv", bz2.compress(b"id\n2\n"))
    # some clients leave behind how they sent it
    bucket.server.client().put_object(
        Bucket=seaweedfs.BUCKET, Key=f"{bucket.prefix}3.csv", Body=zstd.compress(b"id\n3\n"), ContentEncoding="aws-chunked"
    )
    assert sorted(bucket.ids()) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("glob", "found"),
    [("**", "1234"), ("*.csv", "1"), ("**/*.csv", "123"), ("2026/*.csv", "2"), ("2026/**", "23"), ("[!a-m]?.*", "4"), ("none/*", "")],
)
def test_a_pattern_chooses_among_the_names_behind_the_prefix(bucket: Bucket, glob: str, found: str) -> None:
    for name, number in {"a.csv": "1", "2026/b.csv": "2", "2026/01/c.csv": "3", "zz.txt": "4"}.items():
        bucket.write(name, number)
    assert "".join(sorted(bucket.ids(bucket.source(glob=glob)))) == found


def test_an_object_that_is_written_anew_or_removed_after_the_list_is_never_mixed(bucket: Bucket) -> None:
    bucket.put(a="12")

    def meanwhile(change: Callable[[], object]) -> faults.Fault:
        def fault(exchange: faults.Exchange) -> None:
            change()
            true = exchange.forward()
            exchange.send(true.status, true.headers, true.body)

        return fault

    with FaultProxy(bucket.server.url) as proxy:
        source = bucket.source(endpoint_url=proxy.url)
        proxy.plan([None, meanwhile(lambda: bucket.put(a="34"))])
        assert bucket.ids(source) == ["3", "4"]
        proxy.plan([None, meanwhile(lambda: bucket.server.client().delete_object(Bucket=seaweedfs.BUCKET, Key=f"{bucket.prefix}a.csv"))])
        with pytest.raises(SourceUnavailable, match="removed after it was listed"):
            bucket.ids(source)


@pytest.mark.parametrize(
    ("options", "error", "advice"),
    [
        ({"bucket": "another"}, PermissionDenied, "s3:ListBucket"),
        ({"secret_access_key": None}, ConfigurationError, "ambient_credentials"),
        ({"access_key_id": ""}, ConfigurationError, "ambient_credentials"),
        ({"access_key_id": "", "secret_access_key": None}, ConfigurationError, "ambient_credentials"),
        ({"ambient_credentials": True}, ConfigurationError, "and neither"),
        ({"access_key_id": "AKIAUNKNOWN"}, CredentialError, "does not exist there"),
        ({"secret_access_key": secret("wrong")}, CredentialError, "does not belong"),
        ({"bucket": "No Bucket!"}, ConfigurationError, "check bucket"),
        ({"endpoint_url": "http://10.1.2.3"}, ConfigurationError, "endpoint_url"),
        ({"glob": "[z-a]*"}, ConfigurationError, "glob: use"),
    ],
)
def test_what_is_refused_is_said_with_what_to_do(bucket: Bucket, options, error: type[PipelineError], advice: str) -> None:
    if options.get("bucket") == "another":
        options = options | dict(
            zip(("access_key_id", "secret_access_key"), (seaweedfs.NOBODY[0], secret(seaweedfs.NOBODY[1])), strict=True)
        )
    bucket.put(a="1")
    with pytest.raises(error, match=advice) as caught:
        bucket.ids(bucket.source(**options))
    assert "X-Amz" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_region_that_the_bucket_is_in_is_told(bucket: Bucket) -> None:
    body = b"<Error><Code>AuthorizationQueryParametersError</Code><Region>eu-central-1</Region></Error>"
    with FaultProxy(bucket.server.url) as proxy:
        proxy.plan([lambda exchange: exchange.send(400, {"Content-Type": "application/xml"}, body)])
        with pytest.raises(ConfigurationError, match="set region: eu-central-1"):
            bucket.ids(bucket.source(endpoint_url=proxy.url))


def test_the_machines_own_credential_is_used_only_where_that_is_said(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put(a="1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(ConfigurationError, match="ambient_credentials: true"):
        bucket.ids(bucket.source(access_key_id="", secret_access_key=None))
    assert bucket.ids(bucket.source(access_key_id="", secret_access_key=None, ambient_credentials=True)) == ["1"]


def test_each_record_says_where_it_stands_where_that_is_asked_for(bucket: Bucket) -> None:
    bucket.write("a.csv", b"id,_file\n1,theirs\n")
    source = bucket.source(file_fields=True)
    [row] = read(source, window(source))[0].to_dict("records")
    [version] = bucket.after().values()
    assert (row["_file"], row["_file_2"], row["_file_version"]) == (f"{bucket.prefix}a.csv", "theirs", version.version)
    assert row["_file_modified"][:19] == version.modified.isoformat()[:19]
