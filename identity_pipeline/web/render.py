"""How a page is made of a template and values, and the small parts that several pages show."""

import html
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from identity_pipeline.core.balance import COUNTS
from identity_pipeline.web import forms

HERE = Path(__file__).parent
_NOTHING = "\N{EN DASH}"


def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"moment": _moment, "number": _number, "when": lambda value: value.isoformat() if value else ""}
    made.globals |= {"COUNTS": COUNTS, "canonical": forms.CANONICAL_FIELDS}
    return made


def _moment(value: datetime | None) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if value else _NOTHING


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:,}"


_ENVIRONMENT = _templates()


def page(request: Request, template: str, /, *, status: int = 200, **values: Any) -> HTMLResponse:
    """One page, for the person who asks."""
    text = _ENVIRONMENT.get_template(f"{template}.html").render(person=request.state.person, path=request.url.path, **values)
    return HTMLResponse(text, status)


async def filled(request: Request) -> dict[str, str]:
    """The texts of a form that was sent."""
    form = await request.form()
    return {name: value for name, value in form.items() if isinstance(value, str)}


def step(outcome: str, name: str, message: str) -> str:
    """A step of a test, as an item of a list."""
    return f'<li class="step {outcome}"><b>{html.escape(name.replace("_", " "))}</b> {html.escape(message)}</li>\n'


def bars(sizes: list[int], width: int, height: int) -> list[tuple[float, float, float, float]]:
    """x, y, width and height of a bar for each number, the oldest first."""
    most, step = max([*sizes, 1]), width / max(len(sizes), 8)
    return [
        (
            round(n * step, 1),
            round(height - max(1.0, height * size / most), 1),
            round(step * 0.8, 1),
            round(max(1.0, height * size / most), 1),
        )
        for n, size in enumerate(sizes)
    ]
