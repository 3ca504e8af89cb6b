"""Files that are taken ahead of their turn: in their order, each failure at its file, nothing left behind."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from identity_pipeline.core.errors import CredentialError, PermissionDenied, RateLimited, SourceUnavailable
from identity_pipeline.core.window import ReadContext, Window
from identity_pipeline.readers import files
from identity_pipeline.readers.files import Content, Dialect, Entry, Reading, read, taking
from identity_pipeline.readers.http.retry import Transient
from identity_pipeline_tests.connectors import reading as connectors
from identity_pipeline_tests.connectors.test_s3_csv import Bucket
from identity_pipeline_tests.servers import faults
from identity_pipeline_tests.servers.faults import FaultProxy
from identity_pipeline_tests.servers.shelf import Shelf


@pytest.fixture(autouse=True)
def _file_by_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file's rows are handed on before the next file is read."""
    monkeypatch.setattr(read, "GATHERED_ROWS", 1)


NAMES = [f"f{number:02}" for number in range(20)]


class Busy(Shelf):
    """A store that four threads may ask at the same time. ``failing`` raises for a file, ``most`` is how many were open at once."""

    at_once = 4

    def __init__(self, size: int = 0) -> None:
        body = b" " * size
        super().__init__(**{name: ("1", f"id,name\n{name},".encode() + body + b"\n") for name in NAMES})
        self.failing: dict[str, list[Exception]] = {}
        self.open_now = self.most = 0
        self.lock = threading.Lock()

    @contextmanager
    def open(self, entry: Entry, known: str) -> Iterator[Content]:
        """Its bytes, after a moment."""
        with self.lock:
            self.open_now += 1
            self.most = max(self.most, self.open_now)
        try:
            time.sleep(0.01)
            if raised := self.failing.get(entry.name):
                raise raised.pop(0)
            with super().open(entry, known) as content:
                yield content
        finally:
            with self.lock:
                self.open_now -= 1


def window(**options) -> Window:
    context = ReadContext(sleep=options.pop("sleep", lambda _: None), log=lambda _: None)
    return Window(context=context, **options)


def ids(shelf: Shelf, asked: Window) -> Iterator[str]:
    for table in files.read_files(shelf, Reading(Dialect()), asked):
        yield from table["id"].to_pylist()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("files")]


def test_several_files_are_taken_at_the_same_time_and_read_in_their_order():
    shelf, asked = Busy(), window()
    assert list(ids(shelf, asked)) == NAMES
    assert 1 < shelf.most <= 4
    assert sorted(name for name, _ in shelf.opened) == NAMES, "each once"
    assert list(asked.context.files) == NAMES
    assert threads() == []


def test_a_sample_takes_no_file_that_it_does_not_show():
    shelf = Busy()
    found = ids(shelf, window(limit=1))
    assert next(found) == "f00"
    assert [name for name, _ in shelf.opened] == ["f00"]


def test_a_failure_is_told_at_its_file_and_ends_all_the_others():
    shelf, asked, found = Busy(), window(), []
    shelf.failing = {"f03": [CredentialError("no")]}
    with pytest.raises(CredentialError, match="no"):
        found.extend(ids(shelf, asked))
    assert list(asked.context.files) == ["f00", "f01", "f02"], "those before it count"
    assert threads() == []


def test_a_failure_that_may_pass_costs_a_wait_counted_from_then_and_nothing_else():
    waits: list[float] = []
    shelf, asked = Busy(), window(sleep=waits.append)
    shelf.failing = {"f05": [Transient(RateLimited("slowly"), 7.0)], "f06": [SourceUnavailable("lost"), SourceUnavailable("lost")]}
    assert list(ids(shelf, asked)) == NAMES
    assert len(waits) == 3
    assert 6.0 < waits[0] < 7.0, "some of it is over when it is the file's turn"
    assert sorted(name for name, _ in shelf.opened) == NAMES, "no attempt more than it takes"


def test_a_read_that_is_given_up_closes_what_was_taken_for_nothing():
    shelf, closed = Busy(), []
    found = files.read_files(shelf, Reading(Dialect()), window())
    next(found)
    with pytest.MonkeyPatch.context() as patch:
        let_go = taking.Taking.let_go
        patch.setattr(taking.Taking, "let_go", lambda self: (closed.append(self.entry.name), let_go(self)))
        found.close()
    assert closed == NAMES, "all that was begun, the first one too"
    assert threads() == []


@pytest.mark.parametrize(("size", "begun"), [(2**10, 20), (2**21, 4), (2**24, 1)])
def test_what_is_taken_ahead_has_a_limit_in_bytes(size: int, begun: int):
    shelf = Busy(size)
    found = ids(shelf, window())
    next(found)
    time.sleep(0.2)
    # a cell above the limit is rejected, and read all the same
    assert len(shelf.opened) <= begun
    found.close()


def test_a_failure_shuts_the_connections_on_which_the_other_files_come(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDENTITY_ALLOW_PRIVATE_HOSTS", "127.0.0.1")
    bucket, stuck = Bucket(), threading.Event()
    bucket.put(a="1", b="2", c="3", d="4")

    class Proxy(FaultProxy):
        def serve(self, handler) -> None:
            if "/b.csv" in handler.path:
                stuck.set()
                faults.drip()(faults.Exchange(handler, lambda: None))
            elif "/a.csv" in handler.path:
                stuck.wait(20)
                faults.status(403, "<Error><Code>AccessDenied</Code></Error>")(faults.Exchange(handler, lambda: None))
            else:
                super().serve(handler)

    with Proxy(bucket.server.url) as proxy:
        source = bucket.source(endpoint_url=proxy.url)
        began = time.monotonic()
        with pytest.raises(PermissionDenied, match="answered 403"):
            connectors.read(source, connectors.window(source))
        assert time.monotonic() - began < 20, "the drip would last for hours"
        assert threads() == []
