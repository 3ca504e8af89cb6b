"""What a connector is: settings, strategies as class values, a field map and ``read``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import dagster as dg
import pandas as pd
from pydantic import ConfigDict, Field

from identity_pipeline.core.cursor import CursorReading
from identity_pipeline.core.fieldmap import FieldMap
from identity_pipeline.core.window import CursorType, Window


@dataclass(frozen=True)
class CursorColumn:
    """A field that can be the cursor.

    ``overlap`` is taken off the mark before each read: seconds for ``timestamp``, steps for
    ``int``. ``type`` None leaves it to the source's ``cursor_type``. ``filtered_by`` says who
    leaves out older records: ``source`` (asked for the window) or ``us`` (reads all, keeps some).
    """

    type: CursorType | None
    overlap: float = 0
    filtered_by: str = "source"


@dataclass(frozen=True)
class CheckStep:
    """One step of a connection test: ``reach``, ``authenticate``, ``permission`` or ``sample``."""

    name: str
    ok: bool
    message: str


def secret(description: str, **options: Any) -> Any:
    """A setting that is a secret: given only as ``{env: NAME}`` or ``{credential: NAME}``, masked everywhere."""
    return Field(description=description, json_schema_extra={"dagster__is_secret": True}, repr=False, **options)


def setting(description: str, **options: Any) -> Any:
    """A setting; ``options`` are pydantic's (``default``, ``ge``, ``pattern``, …)."""
    return Field(description=description, **options)


class Connector(dg.ConfigurableResource):
    """Base of all connectors. A subclass declares settings as fields and the values below.

    ``cursor_columns`` maps a field to how it works as a cursor; ``"*"`` stands for any field.
    """

    # A value that comes from the environment is validated when a run starts: its error must not quote it.
    model_config = ConfigDict(hide_input_in_errors=True)

    group: ClassVar[str]
    """Asset group: ``sql``, ``files``, ``oauth`` or ``api``."""
    vendor: ClassVar[str]
    """Kind shown in the UI, lower case."""
    field_map: ClassVar[FieldMap]
    cursor_columns: ClassVar[Mapping[str, CursorColumn]] = {}

    def read(self, window: Window) -> Iterator[pd.DataFrame]:
        """Yield batches of the records that ``window`` asks for, each column text.

        Bounded memory: a batch is at most some 50,000 rows or 64 MB. A record that cannot be
        read carries its reason under ``fieldmap.REJECTED``; it is never left out.

        Raises:
            PipelineError: the read as a whole failed; what was yielded is then not committed.
        """
        raise NotImplementedError

    def check(self) -> Iterator[CheckStep]:
        """Test the connection, one step at a time; stops after the first step that fails."""
        raise NotImplementedError

    def cursor_reading(self) -> CursorReading:
        """How the source writes timestamps. Override only if it is not ISO 8601 or not in UTC."""
        return CursorReading()

    def secrets(self) -> tuple[str, ...]:
        """The values that must never be shown."""
        return tuple(
            value
            for name, info in type(self).model_fields.items()
            if (info.json_schema_extra or {}).get("dagster__is_secret")  # type: ignore[union-attr]
            and isinstance(value := getattr(self, name), str)
            and value
        )

    def __repr__(self) -> str:
        """Name only: the generated one would print resolved secrets."""
        return f"{type(self).__name__}(…)"

    __str__ = __repr__

    @classmethod
    def source_type(cls) -> str:
        """The source type: the name of the module."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def form(cls) -> list[dict[str, Any]]:
        """The settings as a form: name, type, help, required, default, secret. For any UI."""
        schema = cls.model_json_schema()
        required = set(schema.get("required", ()))
        return [
            {
                "name": name,
                "type": _type_of(body),
                "help": body.get("description", ""),
                "required": name in required,
                "default": body.get("default"),
                "secret": bool(body.get("dagster__is_secret")),
            }
            for name, body in schema["properties"].items()
        ]


def _type_of(body: Mapping[str, Any]) -> str:
    if "enum" in body:
        return " | ".join(map(str, body["enum"]))
    if "anyOf" in body:
        return " | ".join(_type_of(option) for option in body["anyOf"] if option.get("type") != "null")
    if body.get("type") == "array":
        return f"list of {_type_of(body.get('items', {}))}"
    return str(body.get("type", "object"))
