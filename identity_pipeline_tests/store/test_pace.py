"""One limit for all that share an account, in whichever process they run."""

import threading
import time

import psycopg
import pytest

from identity_pipeline.core.pace import LocalPace, Pace
from identity_pipeline.store.pace import SharedPace


@pytest.mark.parametrize("shared", [True, False])
def test_requests_take_turns(database_url: str, shared: bool):
    pace: Pace = SharedPace(database_url) if shared else LocalPace()
    waits = [pace.turn("account", 10.0) for _ in range(3)]
    assert waits == [pytest.approx(at, abs=1.0) for at in (0, 10, 20)]
    assert pace.turn("another", 10.0) == 0
    pace.rest("another", 60.0)
    assert pace.turn("another", 10.0) == pytest.approx(60, abs=1.0)


def test_processes_take_turns_with_each_other(database_url: str):
    sent: list[float] = []

    def ask() -> None:
        with SharedPace(database_url) as pace:
            for _ in range(10):
                time.sleep(pace.turn("account", 0.02))
                sent.append(time.monotonic())

    threads = [threading.Thread(target=ask) for _ in range(3)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(sent) - began >= 29 * 0.02, "thirty requests, none earlier than allowed"


def test_a_refusal_holds_the_others_back(database_url: str):
    with SharedPace(database_url) as one, SharedPace(database_url) as other:
        one.refused("account", 30.0)
        assert other.turn("account", 0.1) == pytest.approx(30, abs=1.0)


def test_nothing_of_a_secret_is_stored(database_url: str):
    with SharedPace(database_url) as pace:
        pace.turn("canary-secret", 1.0)
    with psycopg.connect(database_url) as connection:
        [(digest,)] = connection.execute("select digest from identity.paces").fetchall()
    assert (len(digest), b"canary" in digest) == (16, False)
