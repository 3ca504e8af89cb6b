"""What ops hand each other: small typed values as JSON beside the landing. Nothing is ever pickled."""

import shutil
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import TypeAdapter

from identity_pipeline.core import settings
from identity_pipeline.store.landing import Landing, make_folder

_RUNS = ".runs"
_KEEP_SECONDS = 30 * 86_400


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


class JsonIOManager(dg.IOManager):
    """Keeps op outputs as ``<landing>/.runs/<run>/<step>/<output>.json`` and reads them as the type of their output.

    None is not written.
    """

    def _path(self, identifier: list[str]) -> tuple[Any, str]:
        return Landing(settings.landing_url()).at(_RUNS, *(part.replace("/", "_") for part in identifier))

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write one output."""
        if obj is None:
            return
        system, path = self._path(list(context.get_identifier()))
        make_folder(system, path.rpartition("/")[0])
        with system.open_output_stream(f"{path}.json") as stream:
            stream.write(_adapter(type(obj)).dump_json(obj))

    def load_input(self, context: dg.InputContext) -> Any:
        """Read the output that an input comes from; None if nothing was written."""
        output = context.upstream_output
        if output is None:
            return None
        system, path = self._path(list(output.get_identifier()))
        try:
            with system.open_input_stream(f"{path}.json") as stream:
                return _adapter(output.dagster_type.typing_type).validate_json(stream.read())
        except FileNotFoundError:
            return None


def purge() -> None:
    """Delete the values of runs older than 30 days (a local landing only)."""
    url = settings.landing_url()
    if "://" in url:
        return
    folder = Path(url) / _RUNS
    for run in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError):  # another process deletes them too
            if time.time() - run.stat().st_mtime > _KEEP_SECONDS:
                shutil.rmtree(run, ignore_errors=True)
