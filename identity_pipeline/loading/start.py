"""Where a load starts: the lower of the published mark and the ledger's, and what it may do to it."""

from collections.abc import Callable
from dataclasses import dataclass

from identity_pipeline.core import cursor as cursors
from identity_pipeline.core.cursor import Cursor, Mark
from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.load_spec import LoadSpec
from identity_pipeline.loading.spec import RunOptions
from identity_pipeline.store.ledger import SourceState


@dataclass(frozen=True)
class Start:
    """The lower bound of the window and the mark it comes from.

    ``may_fall`` says that the mark becomes what this load sees, even if that is lower. ``leaps`` says
    that the load begins beyond the mark: what lies between would be lost if the mark followed.
    ``by_mark`` says that ``lower`` follows from the mark. ``state`` is what the source handed out with
    this very mark, None where it is not valid.
    """

    lower: str | None = None
    mark: Mark | None = None
    may_fall: bool = False
    leaps: bool = False
    by_mark: bool = False
    state: str | None = None


def start_of(spec: LoadSpec, stored: SourceState, published: Mark | None, options: RunOptions, warn: Callable[[str], None]) -> Start:
    """Choose the start of a load.

    ``published`` is the mark that Dagster's metadata show. It can only take the ledger's mark back:
    a lower one, or none (the asset was wiped), reads more.

    Raises:
        ConfigurationError: the run's ``cursor_after`` is not a value of the cursor's type.
    """
    cursor = spec.cursor
    if cursor is None:
        if options.cursor_after:
            raise ConfigurationError(f"{spec.source_name}: cursor_after was given, but the source has no cursor_column")
        return Start(may_fall=options.full_refresh)
    held = _readable(spec.source_name, cursor, stored.mark, warn)
    claimed = _readable(spec.source_name, cursor, published, warn)
    mark = None
    if held and claimed:
        mark = Mark(cursor.column, cursor.type, cursors.lower_of(cursor.type, held.after, claimed.after) or "")
    if options.full_refresh:
        return Start(None, mark, may_fall=True)
    if options.cursor_after:
        lower = cursors.canonical(cursor.type, options.cursor_after)
        leaps = mark is not None and mark.after != lower and cursors.lower_of(cursor.type, mark.after, lower) == mark.after
        return Start(lower, mark, may_fall=not leaps, leaps=leaps)
    if mark is None or stored.reads_other(spec.settings):
        if mark is not None:
            warn(
                "the settings changed, so that there may be older records that no load has read: this one does not begin at the mark, it "
                "reads everything"
            )
        first = None if spec.first is None else cursors.canonical(cursor.type, spec.first)
        return Start(first, mark, may_fall=True)
    lower = cursors.subtract_overlap(cursor.type, mark.after, spec.overlap)
    same = mark == held and stored.settings == spec.settings
    return Start(lower, mark, by_mark=True, state=stored.state if same else None)


def _readable(source_name: str, cursor: Cursor, mark: Mark | None, warn: Callable[[str], None]) -> Mark | None:
    """``mark`` if it is one of this cursor. One that cannot be read counts as none."""
    if mark is None or not mark.belongs_to(cursor):
        return None
    if cursors.scalar(cursor.type, mark.after) is None:
        warn(f"{source_name}: the stored mark is not a {cursor.type} and counts as none: this load reads everything and sets it again")
        return None
    return mark
