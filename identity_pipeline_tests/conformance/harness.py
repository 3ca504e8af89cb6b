"""A harness: one source type as it stands on this machine, and how contacts get into it.

To add one, write ``harnesses/<source_type>.py`` with one subclass of :class:`Harness`::

    class MyContactsHarness(Harness):
        cursor_column = "updated"
        traits: ClassVar = TRAITS.keys() - {"nul"}
        lacking: ClassVar = {"nul": "the API refuses U+0000"}
        old_configs: ClassVar = ({"token": {"env": "TOKEN"}},)

        def start(self):
            token = self.canary("token")
            self.api = self.enter(my_server(token))
            return {"token": self.env("TOKEN", token), "base_url": self.behind_faults(self.api.url)}

        def show(self, contacts):
            self.api.contacts = [{"id": c.id, "updated": instant(c.at), …} for c in contacts]

        def shrink_pages(self):
            self.api.page_size = 3

The server speaks the vendor's wire and is written from the published contract, not from the reader.
A harness is new for each test. Everything else has a default that fits a JSON API.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar

import pytest

from identity_pipeline.connectors import connector
from identity_pipeline.connectors.base import Connector
from identity_pipeline.core.cursor import CursorType
from identity_pipeline_tests.conformance import harnesses as _package
from identity_pipeline_tests.servers.faults import Fault, FaultProxy, status
from identity_pipeline_tests.servers.files import Authority
from identity_pipeline_tests.servers.relay import Relay

T = TypeVar("T")

PERSONAL = ("canary.person", "5550199", "Canariana")
"""Parts of every contact's e-mail address, phone number and name: they may stand in records only."""

TRAITS = {
    "cursor": "it can be read incrementally",
    "null_cursor": "a record may have no cursor value",
    "future_cursor": "a record may be dated in the future",
    "repeated_id": "two records may carry the same id",
    "text_ids": "ids are free text, told apart by every character",
    "deletion": "it says itself which records were deleted",
    "restoring": "a deleted record may come back",
    "merging": "it says itself which records were merged into which",
    "pages": "it is read in pages that name the next one",
    "nested": "the fields of a record stand in an object inside it, which has to be there",
    "counted": "a page of changes says how many records there are in all",
    "credential": "it wants a credential",
    "permission": "it may refuse to show the records to a valid credential",
    "framed": "a body that breaks off shows it, also where its length agrees",
    "nul": "a value may hold U+0000",
    "surrogate": "a value may hold a lone surrogate",
    "line_breaks": "a value may hold line breaks",
    "megabyte": "a value may hold a million characters",
}
"""What a source type may have. A harness states which it has and why it lacks the others; a promise names those it needs."""

_FIRST = (datetime.now(UTC) - timedelta(days=30)).replace(second=0, microsecond=0)
LONG = 40
"""More exchanges than any connector tries again."""


def minute(number: float) -> datetime:
    """An instant of the suite: so many minutes after its first, which was a month ago."""
    return _FIRST + timedelta(minutes=number)


def instant(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC with milliseconds, as most vendors write it."""
    return moment and moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


@dataclass(frozen=True)
class Contact:
    """A contact as the suite speaks of it. A harness writes it in its source's way.

    ``at`` is its cursor value, None if it has none. ``note`` is a free text that has to arrive as it
    is. ``deleted`` and ``absorbed`` (ids of those merged into it) are the source's own signals.
    """

    id: str
    at: datetime | None
    first_name: str = "Canariana"
    email: str = "canary.person@nordwind-demo.com"
    phone: str = "+49 30 5550199"
    note: str | None = None
    deleted: bool = False
    absorbed: tuple[str, ...] = ()

    def but(self, **changes: Any) -> "Contact":
        """This contact, changed."""
        return replace(self, **changes)


def contacts(number: int) -> list[Contact]:
    """Contacts 1, 2, … a minute apart."""
    return [Contact(str(n), minute(n)) for n in range(1, number + 1)]


class Faults(FaultProxy):
    """A fault proxy whose plan can be dropped."""

    def forget(self) -> None:
        """Spoil nothing more; count requests anew."""
        self._plan.clear()
        self.requests.clear()


@dataclass(frozen=True)
class Tools:
    """What a harness may use: a PostgreSQL database of its own, a certificate authority that is trusted, patches."""

    postgres_url: str
    authority: Authority
    monkeypatch: pytest.MonkeyPatch
    stack: ExitStack = field(default_factory=ExitStack)


class Harness:
    """Base of all harnesses. The class values say what the source is like, the methods play it."""

    cursor_column: ClassVar[str | None]
    """Field that holds ``Contact.at``; None if no cursor is offered (then ``cursor`` is lacking)."""
    cursor_type: ClassVar[CursorType] = "timestamp"
    note: ClassVar[str] = "note"
    """Field that holds ``Contact.note``, as it is called in ``raw``."""
    wire: ClassVar[str] = "http"
    """``http``: start with :meth:`behind_faults`; ``tcp``: start with :meth:`behind_relay`."""
    trailing: ClassVar[int] = 1_500
    """Bytes before the end of all that comes over a ``tcp`` wire at which a cut is sure to lose something of the records."""
    traits: ClassVar[AbstractSet[str]] = frozenset()
    """Those of :data:`TRAITS` that this source type has."""
    lacking: ClassVar[Mapping[str, str]] = {}
    """Each other trait → why this source type does not have it."""
    dialect: ClassVar[Mapping[str, Fault]] = {}
    """Name of a fault in ``test_faults.BROKEN`` → how this vendor words it, where the plain status does not do."""
    requests_before_pages: ClassVar[int] = 0
    """Requests of a read before the one for the first page of contacts."""
    next_page: ClassVar[str] = ""
    """Key of a page's body under which it names the next one, for ``counted``."""
    by_events: ClassVar[bool] = False
    """True if changes come as events: each holds a version of a record inside it, and all of them are told."""
    same_ids: ClassVar[Mapping[str, str]] = {}
    """An id → the one that it is read as, where two spellings are one id on purpose."""
    second_batch_at: ClassVar[int] = 5_001
    """So many contacts do not fit into one frame."""
    old_configs: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """``config:`` of sources as users have written them since the first release: they stay valid."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.environment: dict[str, str] = {}
        self.canaries: list[str] = []
        self.proxy: Faults | None = None
        self.relay: Relay | None = None
        self.config = self.start()
        self.show([])

    # to write

    def start(self) -> dict[str, Any]:
        """Start the source and give its ``config:``, secrets by :meth:`env`."""
        raise NotImplementedError

    def show(self, contacts: Sequence[Contact]) -> None:
        """Let the source hold exactly these contacts from now on."""
        raise NotImplementedError

    def shrink_pages(self) -> None:
        """Let a page, or a batch where there are no pages, hold three contacts from now on."""
        raise NotImplementedError

    # to write where the default does not fit

    def external_id(self, contact_id: str) -> str:
        """The external id of a contact that the suite calls ``contact_id`` (``1``, ``2``, …)."""
        return contact_id

    def cursor_text(self, moment: datetime) -> str:
        """The cursor value of a contact that is ``at`` this instant, as ``cursor_after`` takes it."""
        return instant(moment) or ""

    def without_id(self, item: dict[str, Any]) -> dict[str, Any]:
        """An item of a page, without what identifies its record."""
        return {name: value for name, value in item.items() if name not in self.connector().field_map.external_id}

    def refuse_credential(self) -> None:
        """Refuse the credential from now on."""
        self.faults.plan([status(401)] * LONG)

    def refuse_permission(self) -> None:
        """Accept the credential, but refuse to show the contacts from now on."""
        self.faults.plan([status(403)] * LONG)

    # for use in them

    def canary(self, name: str) -> str:
        """A secret that may be shown nowhere."""
        self.canaries.append(f"canary-{name}-7d41c09e")
        return self.canaries[-1]

    def env(self, name: str, value: str) -> dict[str, str]:
        """``{env: NAME}`` for a setting whose value is ``value``."""
        self.environment[f"HARNESS_{name}"] = value
        self.tools.monkeypatch.setenv(f"HARNESS_{name}", value)
        return {"env": f"HARNESS_{name}"}

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Enter a context until the end of the test."""
        return self.tools.stack.enter_context(context)

    def behind_faults(self, url: str, *, tls: bool = False) -> str:
        """The address of a proxy before ``url``, by which the suite spoils answers."""
        self.proxy = self.enter(Faults(url, tls=self.tools.authority.context() if tls else None))
        return self.proxy.url

    def behind_relay(self, host: str, port: int) -> int:
        """The port of a relay to ``host:port``, by which the suite cuts connections."""
        self.relay = self.enter(Relay(host, port))
        return self.relay.port

    # for the suite

    @property
    def faults(self) -> Faults:
        """The proxy before the source."""
        assert self.proxy is not None, "start() has to put the source behind_faults()"
        return self.proxy

    def go_down(self) -> None:
        """Let nothing answer any more."""
        ears = self.proxy if self.wire == "http" else self.relay
        assert ears is not None, "start() has to put the source behind_faults() or behind_relay()"
        ears.close()

    @classmethod
    def source_type(cls) -> str:
        """The source type: the name of the module."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def connector(cls) -> type[Connector]:
        """The connector that is held to its promises."""
        return connector(cls.source_type())

    @classmethod
    def has(cls, trait: str) -> bool:
        """True if the source type has the trait, or is of that wire."""
        return trait == cls.wire if trait in {"http", "tcp"} else trait in cls.traits


def harness_classes() -> dict[str, type[Harness]]:
    """Source type → harness, for all that are there."""
    found: dict[str, type[Harness]] = {}
    for module in pkgutil.iter_modules(_package.__path__):
        held = importlib.import_module(f"{_package.__name__}.{module.name}")
        classes = [v for v in vars(held).values() if isinstance(v, type) and issubclass(v, Harness) and v.__module__ == held.__name__]
        assert len(classes) == 1, f"harnesses/{module.name}.py: expected one subclass of Harness, found {len(classes)}"
        found[module.name] = classes[0]
    return found
