"""One item is made while another is used, and nothing else changes."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from identity_pipeline.core.ahead import ahead


def test_items_come_in_their_order_and_all():
    assert list(ahead(iter(range(100)))) == list(range(100))
    assert list(ahead(iter(()))) == []
    assert list(ahead(iter([None, 0, None]))) == [None, 0, None]


def test_the_next_item_is_made_while_this_one_is_used():
    used, made = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 1
        assert used.wait(60)
        made.set()
        yield 2

    for item in ahead(items()):
        if item == 1:
            used.set()
            assert made.wait(60)


def test_an_error_comes_where_its_item_would_have():
    def items() -> Iterator[int]:
        yield from (1, 2)
        raise ValueError("three")

    coming = ahead(items())
    assert [next(coming), next(coming)] == [1, 2]
    with pytest.raises(ValueError, match="three"):
        next(coming)


def test_who_stops_early_has_one_item_made_in_vain_and_leaves_no_thread():
    made = []
    with closing(ahead(made.append(n) or n for n in range(100))) as coming:
        assert next(coming) == 0
    assert made == [0, 1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
