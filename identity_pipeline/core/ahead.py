"""Work of two kinds at once: the next item is made while the present one is used."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Generator[T]:
    """``items`` in their order, each made by a thread while the one before it is used.

    Nothing is gained unless one of the two waits for something else than Python: a server, or Arrow.
    An error of ``items`` is raised where its item would have come. Who stops early waits for the item
    that is being made.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc] - what is not the end is an item
