"""What commands print: listings on standard output, everything else on standard error.

A listing is a table on a terminal, one line for each row elsewhere, and a list of objects with ``--json``:
the same columns each time, and in JSON the long texts that a line has no room for. Values come from
sources, so control characters, text that changes direction and other invisible things are shown as
escapes and never reach the terminal.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

Row = Mapping[str, Any]
as_json_option = click.option("--json", "as_json", is_flag=True, help="A list of objects, keyed by the column names.")

_STYLES = {
    "failed": "bold red",
    "broken": "bold red",
    "open": "yellow",
    "running": "cyan",
    "warning": "yellow",
    "ok": "green",
    "committed": "green",
}
_NOTHING = "-"
_WRAPPED = {"description", "help", "error", "message", "detail", "cursor_columns"}
"""Columns of long texts, which may take several lines."""
_WRAPPED_WIDTH = 30
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def visible(text: str) -> str:
    """``text`` on one line, with everything that does not print as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    return short or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def say(message: str) -> None:
    """A line on standard error."""
    click.echo(visible(message), err=True)


def cell(value: Any) -> str:
    """A value as it stands in a table; nothing is ``-``."""
    if value is None or value in ("", [], {}):
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, Mapping):
        return visible(json.dumps(value, ensure_ascii=False, default=_plain))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return visible(", ".join(map(str, value)))
    return visible(str(value))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def to_json(value: Any) -> str:
    """``value`` as JSON that a terminal may show; parsing gives back every character."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=_plain)
    return _UNSAFE_IN_JSON.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def show(rows: Iterable[Row], columns: Sequence[str], *, as_json: bool = False, expendable: Sequence[str] = ()) -> None:
    """Print a listing of ``columns``; what else a row has is left out.

    A terminal that is too narrow does without the ``expendable`` columns, the first of them first.
    """
    kept = [{name: row.get(name) for name in columns} for row in rows]
    if as_json:
        click.echo(to_json(kept))
    elif sys.stdout.isatty():
        _on_terminal(kept, columns, expendable)
    else:
        for line in _aligned(kept, columns):
            click.echo(line)


def _aligned(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    cells = [list(columns), *([cell(row[name]) for name in columns] for row in rows)]
    widths = [max(len(line[n]) for line in cells) for n in range(len(columns))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _fitting(rows: Sequence[Row], columns: Sequence[str], expendable: Sequence[str], width: int) -> list[str]:
    """The columns of a table that is no wider than ``width``; none if no choice of them is."""
    widths = {name: max([len(name), *(len(cell(row[name])) for row in rows)]) for name in columns}
    widths |= {name: min(widths[name], _WRAPPED_WIDTH) for name in _WRAPPED & set(columns)}
    left = list(columns)
    for name in (*expendable, None):
        if sum(widths[each] + 2 for each in left) - 2 <= width:
            return left
        left = [each for each in left if each != name]
    return []


def _on_terminal(rows: Sequence[Row], columns: Sequence[str], expendable: Sequence[str]) -> None:
    """A table where it fits, long texts wrapped; else one block for each row, without what is empty."""
    from rich.console import Console  # noqa: PLC0415 - a fifth of a second, only on a terminal
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, width=shutil.get_terminal_size().columns)

    def styled(name: str, row: Row) -> Text:
        text = cell(row[name])
        return Text(text, style=_STYLES.get(text, "") if name in {"status", "declared", "last_status", "outcome"} else "")

    if fitting := _fitting(rows, columns, expendable, console.width):
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in fitting:
            table.add_column(name, overflow="fold", no_wrap=name not in _WRAPPED)
        for row in rows:
            table.add_row(*(styled(name, row) for name in fitting))
        console.print(table)
        if left_out := [name for name in columns if name not in fitting]:
            say(f"this terminal is too narrow for {', '.join(left_out)}: widen it, or use --json")
        return
    for row in rows:
        block = Table.grid(padding=(0, 2))
        block.add_column(no_wrap=True)
        block.add_column(overflow="fold")
        for name in columns:
            if cell(row[name]) != _NOTHING:
                block.add_row(Text(name, style="bold"), styled(name, row))
        console.print(block, "")
