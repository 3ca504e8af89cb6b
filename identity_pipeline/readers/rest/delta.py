"""Lists of which a source tells what changed since a token that it handed out, instead of filtering by time."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from identity_pipeline.core.fieldmap import GONE
from identity_pipeline.core.window import Window
from identity_pipeline.readers.rest.client import Client
from identity_pipeline.readers.rest.message import Request, Response
from identity_pipeline.readers.rest.paginator import Paginator
from identity_pipeline.readers.rest.record import Pages, Record


@dataclass(frozen=True)
class Deltas:
    """The last page of a list holds its token at ``token``; the next load sends it ``into`` its request, or asks it where it is an address.

    The tokens of all lists are the state beside the mark. ``changed`` is the field of a record that says
    when it changed: without a token a list is read whole, and what is older than the mark is left out.
    A ``paginator`` leads from page to page.
    """

    token: str
    paginator: Paginator
    changed: str
    into: str = ""

    @staticmethod
    def known(window: Window) -> dict[str, str]:
        """The tokens of the load before, by the names of their lists."""
        return json.loads(window.state or "{}")

    def pages(
        self, client: Client, window: Window, lists: Iterable[tuple[str, Request]], records: Callable[[str, Response], Sequence[Record]]
    ) -> Pages:
        """Yield the ``records`` of each list's pages that changed, or all; last those that went from a list and are in no other.

        One that a list shows and then tells to be gone is yielded twice: its end comes last.

        Raises:
            ContractBroken: a token is no longer accepted, which a read without one mends, or a list ends without one.
            PipelineError: as :meth:`Client.pages`.
        """
        known, tokens = self.known(window), dict[str, str]()
        gone, alive = dict[object, Record](), set[object]()
        for name, every in lists:
            token, last = known.get(name), dict[object, Record | None]()
            for page in client.pages(self._since(every, token), self.paginator, resumed=token is not None):
                found = records(name, page)
                last |= {each.get("id"): each if each.get(GONE) else None for each in found}  # what a list says last of a record counts
                here = [each for each in found if not each.get(GONE)]
                yield [each for each in here if window.state or window.asks_for(each.get(self.changed))]
                if isinstance(given := page.at(self.token), str) and given:
                    tokens[name] = given
                elif self.paginator.next(page) is None:
                    raise page.broken(f"a token of the next page, or of the next load at {self.token!r}")
            gone |= {key: each for key, each in last.items() if each is not None}
            alive |= {key for key, each in last.items() if each is None}
        yield [each for key, each in gone.items() if key not in alive]  # a move is told as a departure, too
        window.context.state = json.dumps(tokens)

    def _since(self, every: Request, token: str | None) -> Request:
        if token is None:
            return every
        return every.put(self.into, token) if self.into else replace(every, path=token, query={})
