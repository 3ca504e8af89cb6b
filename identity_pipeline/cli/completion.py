"""Names that the shell completes."""

from contextlib import suppress

import click
import yaml

from identity_pipeline.core import settings
from identity_pipeline.core.errors import PipelineError


def source_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of declared sources that begin so; of the files that can be read.

    They are taken from the YAML as it stands: the connectors, which judge it, take a second to import.
    """
    names: set[str] = set()
    with suppress(PipelineError, OSError):
        for path in settings.sources_folder().glob("*.y*ml"):
            with suppress(yaml.YAMLError, UnicodeError, TypeError, KeyError):
                names |= {str(entry["name"]) for entry in yaml.safe_load(path.read_text("utf-8"))["sources"]}
    return sorted(name for name in names if name.startswith(incomplete))
