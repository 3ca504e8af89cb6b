"""The bucket of `make drop`, read as any other."""

import os
import time
from pathlib import Path

import pytest

from identity_pipeline.connectors.s3_csv import S3Csv
from identity_pipeline.core.errors import CredentialError
from identity_pipeline.core.window import Window
from identity_pipeline.demo import drop
from identity_pipeline.demo.bucket_api import BucketAPI
from identity_pipeline.demo.vendor_api import serve
from identity_pipeline_tests.connectors import reading
from identity_pipeline_tests.connectors.reading import secret


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")


def _source(api: BucketAPI, key: str = "demo") -> S3Csv:
    return S3Csv(bucket="drops", endpoint_url=api.url, access_key_id=key, secret_access_key=secret("canary-of-the-bucket"))


def test_every_drop_is_a_new_file_of_new_people_and_is_read_page_by_page(tmp_path: Path):
    folder = tmp_path / "bucket"
    folder.mkdir()
    names = [drop._put(folder) for _ in range(5)]
    assert len(set(names)) == 5
    with serve(BucketAPI(folder=folder, page_size=2)) as api:
        window = Window()
        found, _ = reading.read(_source(api), window)
        assert found["id"].nunique() == 5 * 5 + 1, "and of each file one with a cell too many, the same"
        assert set(window.context.files) == set(names)
        lists = [each for each in api.asked if each.query.get("list-type")]
        assert len(lists) == 3


def test_an_unchanged_file_is_left_out_and_a_rewritten_one_is_read_again(tmp_path: Path):
    folder = tmp_path / "bucket"
    folder.mkdir()
    first, second = drop._put(folder), drop._put(folder)
    with serve(BucketAPI(folder=folder)) as api:
        before = Window()
        reading.read(_source(api), before)
        (folder / second).write_text("id,email\n1,a@nordwind-demo.com\n")
        os.utime(folder / second, (time.time() + 60,) * 2)
        after = Window(files=before.context.files)
        found, _ = reading.read(_source(api), after)
        assert list(found["id"]) == ["1"]
        assert after.context.files_unchanged == 1
        assert first in before.context.files


def test_another_key_is_refused(tmp_path: Path):
    with serve(BucketAPI(folder=tmp_path)) as api, pytest.raises(CredentialError, match="InvalidAccessKeyId"):
        reading.read(_source(api, "somebody"), Window())
