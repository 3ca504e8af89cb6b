"""`identity-pipeline init`: a project folder, for a package that was installed without its clone."""

from pathlib import Path

import click

from identity_pipeline.cli import output
from identity_pipeline.core import settings
from identity_pipeline.core.errors import ConfigurationError

_EXAMPLE = """\
# One source; remove the first two characters of each line below and fill it in, or have a file written:
# identity-pipeline sources new SOURCE_TYPE NAME
#
# sources:
#   - name: my_contacts
#     source_type: csv_url
#     config:
#       url: https://example.com/contacts.csv
#     # Without a cursor every load reads everything:
#     cursor_column: updated_at
#     cursor_type: timestamp
#     schedule: "*/30 * * * *"
#     # Canonical field: source field, over the connector's own map:
#     mapping: {email: work_email}
#     # Country of phone numbers that name none:
#     default_region: DE
"""
_IGNORED = ".identity/\n.env\n.logs_queue/\n/storage/\n/history/\n/schedules/\n/logs/\n.telemetry/\n.nux/\n"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def init(folder: Path) -> None:
    """Make a project folder: Dagster's two files, sources/ with an example, a .gitignore.

    Every command that is run in it or below uses its sources, and keeps the embedded database and the
    key file in its .identity/. A file that is there is never overwritten.
    """
    contents = {name: _bundled(name) for name in settings.PROJECT_FILES}
    contents |= {"sources/example.yaml": _EXAMPLE, ".gitignore": _IGNORED}
    try:
        for name, text in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(text)
            except FileExistsError:
                output.say(f"{path} is there already and was not changed")
            else:
                click.echo(str(path))
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written (errno {error.errno}): make it writable, or choose another folder") from None
    output.say(f"then, in {folder}: identity-pipeline sources new csv_url my_contacts; identity-pipeline ingest my_contacts")


def _bundled(name: str) -> str:
    """The text of a file of the project: the wheel has a copy, a clone the file itself."""
    copy = settings.PACKAGE / "project" / name
    return (copy if copy.is_file() else settings.PACKAGE.parent / name).read_text("utf-8")
