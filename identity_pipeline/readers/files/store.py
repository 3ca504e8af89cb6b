"""A store of files: what every kind of it offers to the readers."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from identity_pipeline.core.window import ReadContext


@dataclass(frozen=True)
class Entry:
    """One file as a store lists it.

    ``name`` is its address or path without anything secret: the key of its state, and its name in
    messages. ``version`` is another one whenever the content is (a generation, a version id, an
    entity tag); empty where only opening the file tells.
    """

    name: str
    version: str = ""


@dataclass(frozen=True)
class Content:
    """A file that was opened: its bytes in pieces, as they are stored.

    ``version`` is that of these bytes, empty where the store has none. ``size`` is how many bytes the
    store says there are, ``charset`` what it says about their encoding.
    """

    chunks: Iterator[bytes]
    version: str = ""
    size: int | None = None
    charset: str | None = None


class Store(Protocol):
    """Where files are. Its errors are ours; one that may pass is raised, not retried: the reader does that.

    ``context`` counts requests and bytes, and gets the store's clock.
    """

    def list(self, context: ReadContext) -> Iterator[Entry]:
        """The files that the source is to read, in their order."""
        ...

    def stat(self, name: str, context: ReadContext) -> Entry:
        """The file of this name.

        Raises:
            ConfigurationError: there is none.
        """
        ...

    def open(self, entry: Entry, known: str, context: ReadContext) -> AbstractContextManager[Content | None]:
        """The bytes of one version of the file: of that in ``entry`` where it names one.

        ``known`` is the version of an earlier load, empty if there is none. None stands for content
        that is still the same; a store that lists versions need not answer it, the reader compares those.

        Raises:
            PipelineError: it cannot be read; or, while the bytes are taken, they broke off.
        """
        ...
