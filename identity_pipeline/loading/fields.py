"""Which fields a source has to have, so that a load overwrites nothing with nothing and renumbers nobody."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from identity_pipeline.core.cursor_filter import CursorCounts
from identity_pipeline.core.errors import ConfigurationError, PermissionDenied, SchemaChanged
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.core.spelling import suggestion
from identity_pipeline.core.window import Window

_KINDS = {"int": "a whole number", "timestamp": "a timestamp", "text": "a text"}


@dataclass
class Fields:
    """The fields of a source as a read shows them, against those ``before`` it.

    ``accepted`` says that a field may go: somebody asked for a full refresh.
    """

    spec: LoadSpec
    before: tuple[str, ...]
    accepted: bool
    _seen: set[frozenset[str]] = field(default_factory=set)

    def batch(self, names: Iterable[str], window: Window) -> None:
        """Judge the fields of a batch, which may be another file's than the batches before it.

        Raises:
            SchemaChanged: the id is none or another, or a mapped field went.
        """
        known = frozenset(names)
        if not self.spec.whole or known in self._seen:
            return
        self._seen.add(known)
        self._check(known, window)
        every = frozenset().union(*self._seen)
        mapped = [name for name in self.spec.field_map.source_fields() if name in every]
        if lacking := [name for name in mapped if not all(name in each for each in self._seen)]:
            window.context.warn(
                f"not every file has the field {lacking[0]!r}: it is empty in the records of the others. Files with other columns are "
                "better a source of their own"
            )

    def end(self, written: Iterable[str], window: Window) -> None:
        """Judge all fields of a read that ended.

        Raises:
            SchemaChanged: as :meth:`batch`.
            ConfigurationError: the user's own mapping names a field that the source never had.
            PermissionDenied: it withholds a field that earlier loads had, also where a full refresh was asked for.
        """
        for name in self.spec.field_map.source_fields():
            if name in self.before and (advice := window.context.withheld.get(name)):
                raise PermissionDenied(
                    f"{self.spec.source_name}: the source does not show {name!r} any more, which earlier loads have read: nothing was "
                    f"merged, since that would overwrite it with nothing; {advice}"
                )
        known = {*written, *window.context.fields}
        if not known or not (self.spec.whole or window.context.fields):
            return
        self._check(known, window)
        unknown = unknown_fields(self.spec, known)
        if never := [name for name in unknown if name not in self.before]:
            raise ConfigurationError(
                f"{self.spec.source_name}: the mapped field {never[0]!r} is not in the source, which has {_listed(known)}: nothing was "
                f"merged; correct `mapping:`{suggestion(never[0], known)}"
            )
        self._check_gone(unknown, known)

    def _check(self, known: Collection[str], window: Window) -> None:
        if self.spec.whole:
            check_id(self.spec, known, window.context.key)
            _check_same_id(self.spec, known, self.before)
        self._check_gone([name for name in self.spec.field_map.source_fields() if name in self.before and name not in known], known)

    def _check_gone(self, gone: list[str], known: Collection[str]) -> None:
        if gone and not self.accepted:
            raise SchemaChanged(
                f"{self.spec.source_name}: the mapped field {gone[0]!r} is not in the source any more, which has {_listed(known)}: nothing "
                "was merged; fix the source or its `mapping:`, or accept the loss with one full refresh by hand"
            )


def _listed(known: Collection[str]) -> str:
    return ", ".join(sorted(known)[:30])


def check_cursor(spec: LoadSpec, counts: CursorCounts) -> None:
    """Refuse a cursor of which no value that came can be read.

    Raises:
        ConfigurationError: there is none.
    """
    if counts.unreadable and counts.unreadable == counts.seen and spec.cursor:
        raise ConfigurationError(
            f"{spec.source_name}: none of {counts.unreadable:,} values of {spec.cursor.column!r} is {_KINDS[spec.cursor.type]}: nothing "
            "was merged; correct cursor_type, or say how they are written (cursor_format)"
        )


def unknown_fields(spec: LoadSpec, known: Collection[str]) -> list[str]:
    """The source fields of the user's own mapping that are not among those the source has, where none of their group is."""
    return [name for group in spec.mapped if not set(group) & set(known) for name in group]


def check_id(spec: LoadSpec, known: Collection[str], key: tuple[str, ...]) -> None:
    """Refuse a source in whose fields ``known`` is none that can be the external id; ``key`` is the source's own key.

    Raises:
        SchemaChanged: there is none.
    """
    if {*spec.field_map.external_id} & {*known}:
        return
    fix = f"its primary key is {key[0]!r}: set id_column to it" if len(key) == 1 else "set `mapping: {external_id: …}` of the source"
    raise SchemaChanged(
        f"{spec.source_name}: no field can be the external id: looked for {', '.join(spec.field_map.external_id[:10])}; the source "
        f"has {', '.join(sorted(known)[:30])}: {fix}"
    )


def _check_same_id(spec: LoadSpec, known: Collection[str], before: Collection[str]) -> None:
    """Refuse a source in whose fields ``known`` the external id is another than it was among those ``before``.

    Everybody would get a second row.

    Raises:
        SchemaChanged: it is.
    """
    was, now = (next((name for name in spec.field_map.external_id if name in fields), None) for fields in (before, known))
    if was and now and was != now and was in known:
        raise SchemaChanged(
            f"{spec.source_name}: the source has a new field {now!r}, which would be the external id from now on, and {was!r} was it: "
            f"nothing was merged; keep the id by `mapping: {{external_id: {was}}}`, or change it by `mapping: {{external_id: {now}}}`: "
            "everybody is inserted anew then, and a full refresh marks the old rows as deleted"
        )
