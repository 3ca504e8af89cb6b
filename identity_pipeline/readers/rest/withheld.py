"""Pages that show nobody: are the records so, or does the source keep from us who they are?"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from identity_pipeline.core.errors import PermissionDenied
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.rest.message import Response

_TOO_FEW = 2
"""So many records without anything may well be all that there are."""


@dataclass(frozen=True)
class Withheld:
    """Fields that a source shows as null to whom it does not trust with them, with no error.

    ``records`` is where a page has its records, ``names`` are what people are known by, ``told`` says what such
    records are and what to do about it.
    """

    records: str
    names: tuple[str, ...]
    told: str

    def guarded(self, pages: Iterable[Response], some: Callable[[], Response], context: ReadContext) -> Iterator[Response]:
        """``pages`` as they are, unless one shows nobody, and a page of ``some`` of all records shows nobody either.

        A few records that changed may all be without a name; that everybody is, is a missing right. Where
        there are too few to tell, a warning does.

        Raises:
            PermissionDenied: the source withholds who its records are.
        """
        for page in pages:
            if self._blank(page) and self._blank(other := some()):
                count = len(other.records(self.records))
                said = f"{other.tried} shows {count} of {count} {self.told}"
                if count > _TOO_FEW:
                    raise PermissionDenied(f"{said}, then run it again")
                context.warn(f"{said}, if they have any")
            yield page

    def _blank(self, page: Response) -> bool:
        found = page.records(self.records)
        return bool(found) and not any(each.get(name) for each in found for name in self.names)
