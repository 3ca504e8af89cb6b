"""A store of files: what every kind of it offers to the readers."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Entry:
    """One file as a store lists it.

    ``name`` is its address or path without anything secret: the key of its state, and its name in
    messages. ``version`` is another one whenever the content is (a generation, a version id, an
    entity tag); empty where only opening the file shows it.
    """

    name: str
    version: str = ""


@dataclass(frozen=True)
class Content:
    """One version of a file, opened: its bytes in pieces, as they are stored.

    ``version`` is that of these bytes; empty if it is the one of the entry, or the store has none.
    ``size`` is how many bytes the store says there are, ``charset`` what it says about their encoding.
    """

    chunks: Iterator[bytes]
    version: str = ""
    size: int | None = None
    charset: str | None = None


class Store(Protocol):
    """Where files are. It reports requests, bytes and its clock to the context that it was made with.

    Its errors are ours. It raises one that may pass and retries nothing: the reader does.
    """

    def list(self) -> Iterator[Entry]:
        """The files that the source is to read, in their order."""
        ...

    def stat(self, name: str) -> Entry:
        """The file of this name.

        Raises:
            ConfigurationError: there is none.
        """
        ...

    def open(self, entry: Entry, known: str) -> AbstractContextManager[Content | None]:
        """The bytes of one version of the file, never of two: of that in ``entry`` where the store still has it.

        ``known`` is the version that an earlier load read, empty if there is none. None stands for
        content that is still the same; where entries carry a version, the reader has compared it already.

        Raises:
            PipelineError: it cannot be read; or, while the bytes are taken, they broke off.
        """
        ...
