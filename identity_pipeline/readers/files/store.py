"""A store of files: what every kind of it offers to the readers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Protocol

from identity_pipeline.core.errors import SourceUnavailable


class Replaced(SourceUnavailable):
    """The version of a file that was listed is not there any more: it was written anew, or removed."""


@dataclass(frozen=True)
class Entry:
    """One file as a store lists it.

    ``name`` is its address or path without anything secret: the key of its state, and its name in
    messages. ``version`` is another one whenever the content is (a generation, a version id, an
    entity tag); empty where only opening the file shows it. ``size`` is in bytes, ``modified`` in the
    store's own time; None where the store does not list them.
    """

    name: str
    version: str = ""
    size: int | None = None
    modified: datetime | None = None


@dataclass(frozen=True)
class Page:
    """A part of a store's list, and the token that leads to the next part; empty after the last."""

    entries: Sequence[Entry]
    following: str = ""


@dataclass(frozen=True)
class Content:
    """One version of a file, opened: its bytes in pieces, as they are stored.

    ``version`` is that of these bytes; empty if it is the one of the entry, or the store has none.
    ``size`` is how many bytes the store says there are, ``charset`` what it says about their encoding.
    ``headers`` are those of the answer, where there is one.
    """

    chunks: Iterator[bytes]
    version: str = ""
    size: int | None = None
    charset: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Store(Protocol):
    """Where files are. It reports requests, bytes and its clock to the context that it was made with.

    Its errors are ours. It raises one that may pass and retries nothing: the reader does. ``at_once`` is
    how many threads may open files at the same time, which are not the one that listed them.
    """

    at_once: ClassVar[int]

    def page(self, token: str) -> Page:
        """A part of the list of files that the source is to read, in any order: the first for an empty token.

        Raises:
            PipelineError: it cannot be had.
        """
        ...

    def stat(self, name: str) -> Entry | None:
        """The file of this name, None if there is none that the source is to read."""
        ...

    def open(self, entry: Entry, known: str) -> AbstractContextManager[Content | None]:
        """The bytes of the version of the file that stands in ``entry``, never of two.

        ``known`` is the version that an earlier load read, empty if there is none. None stands for
        content that is still the same; where entries carry a version, the reader has compared it already.

        Raises:
            Replaced: that version is not there any more.
            PipelineError: it cannot be read; or, while the bytes are taken, they broke off.
        """
        ...

    def close(self) -> None:
        """End the connections, after the last question."""
        ...
