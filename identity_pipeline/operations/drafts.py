"""A declaration on its way to its file: judged, shown as a difference, written whole or not at all.

Comments, order and quotes of a file stay as they are; only what changed is written. A file that
somebody changed meanwhile is not overwritten.
"""

import hashlib
import io
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import unified_diff
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.declarations import folder as declared
from identity_pipeline.declarations.source import Source, first_fault

_TOKEN = re.compile(
    r"(sk|rk|pk)_(live|test)_\w{10,}|pat-?[\w.-]{20,}|shp(at|ss|ca)_\w{16,}|xox[abp]-|AKIA[A-Z0-9]{16}|ya29\.|gh[pousr]_\w{20,}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}|-----BEGIN|://[^/\s:@]+:[^/\s@]+@|[A-Fa-f0-9]{40,}|(?=\S*\d)(?=\S*[a-z])(?=\S*[A-Z])[A-Za-z0-9+_-]{36,}"
)
_ORDER = ("name", "description", "owners", "source_type", "config", "cursor_column", "cursor_type", "cursor_after", "cursor_overlap",
          "mapping", "default_region", "schedule", "full_refresh_schedule", "sensor")  # fmt: skip


def looks_secret(text: str) -> bool:
    """True for what has the shape of a token, a key or an address with a password in it."""
    return _TOKEN.search(text) is not None


@dataclass(frozen=True)
class Draft:
    """One entry as it is to stand in its file. ``typed``: secrets, by their settings, that are stored with it and not before."""

    entry: dict[str, Any]
    typed: Mapping[str, str] = field(default_factory=dict, repr=False)

    def source(self) -> Source:
        """The source that it declares.

        Raises:
            ConfigurationError: ``field: what is wrong with it``.
        """
        try:
            source = Source.model_validate(self.entry)
        except ValidationError as error:
            raise ConfigurationError(first_fault(error, Source)) from None
        source.check()
        return source


@dataclass(frozen=True)
class Change:
    """What writing a declaration does to one file. ``before`` None: there is no such file yet; ``after`` None: it goes."""

    path: Path
    before: str | None
    after: str | None

    @property
    def seen(self) -> str:
        """A short text that is another one as soon as the file is."""
        return "new" if self.before is None else _as_seen(self.before)

    @property
    def difference(self) -> list[str]:
        """The lines of a unified difference, without its head."""
        lines = unified_diff((self.before or "").splitlines(), (self.after or "").splitlines(), lineterm="", n=3)
        return [line for line in lines if not line.startswith(("---", "+++"))]

    def judge(self, seen: str) -> None:
        """Refuse what must not be written. ``seen`` is what the file was when its change was begun.

        Raises:
            ConfigurationError: it is another one by now, or the new text would be none.
        """
        if seen != self.seen:
            raise ConfigurationError(f"{self.path.name} was changed meanwhile: look at the difference again, then save")
        if self.after is not None and (problems := declared.problems_in(self.path.name, self.after)):
            raise ConfigurationError(f"{problems[0]}: correct it first")

    def write(self, seen: str) -> None:
        """Write the file, whole, if :meth:`judge` lets it.

        Raises:
            ConfigurationError: it does not, or the folder cannot be written.
        """
        self.judge(seen)
        try:
            if self.after is None:
                self.path.unlink()
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _replace(self.path, self.after)
        except OSError as error:
            raise ConfigurationError(
                f"{self.path} cannot be written (errno {error.errno}): download the YAML and put it where the sources folder comes from"
            ) from None


def text_of(entry: Mapping[str, Any]) -> str:
    """An entry as YAML, by itself."""
    return _dumped(_ordered(entry))


def writable(folder: Path) -> bool:
    """True if files of the folder can be written from here."""
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def change(folder: Path, entry: Mapping[str, Any], was: str | None = None) -> Change:
    """What declaring ``entry`` does: over the source ``was``, where that stands, else in a file of its own.

    Raises:
        ConfigurationError: the name is taken, or the file of ``was`` cannot be read.
    """
    known = declared.load(folder)
    name = str(entry["name"])
    taken = {*known.sources, *(problem.name for problem in known.problems)}
    if name != was and name in taken:
        raise ConfigurationError(f"name: {name} is the name of another source: choose another one")
    if was is not None:
        path = folder / _file_of(known, was)
        return Change(path, text := _read(path), _edited(text, was, entry))
    path = folder / f"{name}.yaml"
    if path.exists():
        raise ConfigurationError(f"name: {path.name} is there already, and holds another source: choose another name")
    return Change(path, None, _dumped({"sources": [_ordered(entry)]}))


def seen(folder: Path, name: str | None) -> str:
    """:attr:`Change.seen` of the file in which ``name`` stands now, for who begins to change it; None: of a file that is to be made."""
    return "new" if name is None else _as_seen(_read(folder / _file_of(declared.load(folder), name)))


def removal(folder: Path, name: str) -> Change:
    """What taking a source out of its file does; a file that held nothing else goes."""
    path = folder / _file_of(declared.load(folder), name)
    text = _read(path)
    return Change(path, text, _edited(text, name, None))


def _as_seen(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _file_of(known: declared.Declarations, name: str) -> str:
    for problem in known.problems:
        if problem.name == name:
            return problem.file
    known.source(name)
    return known.files[name]


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path.name} cannot be read ({type(error).__name__}): mend the file by hand") from None


def _yaml(offset: int = 2) -> YAML:
    """``offset``: by how much a list stands in from its key, as the file has it."""
    made = YAML()
    made.preserve_quotes = True
    made.width = 4_096
    made.indent(mapping=2, sequence=offset + 2, offset=offset)
    return made


def _dumped(document: Any, offset: int = 2) -> str:
    out = io.StringIO()
    _yaml(offset).dump(document, out)
    return out.getvalue()


def _edited(text: str, name: str, entry: Mapping[str, Any] | None) -> str | None:
    document, offset = _yaml().load(text), 2 if re.search(r"^ +- ", text, re.MULTILINE) else 0
    entries = document["sources"]
    at = next((number for number, each in enumerate(entries) if isinstance(each, dict) and each.get("name") == name), None)
    if at is None:
        raise ConfigurationError(f"{name}: is not found where it was declared: mend the file by hand")
    if entry is None:
        del entries[at]
        return _dumped(document, offset) if entries else None
    _bring(entries[at], entry)
    return _dumped(document, offset)


def _bring(present: Any, wanted: Mapping[str, Any]) -> None:
    """Make ``present`` say what is wanted, and touch nothing that does already."""
    for key in [key for key in present if key not in wanted]:
        del present[key]
    for key, value in wanted.items():
        old = present.get(key)
        if isinstance(old, CommentedMap) and isinstance(value, dict) and len(old) != 1 and len(value) != 1:
            _bring(old, value)
        elif old != value or type(old) is bool is not type(value):
            present[key] = _styled(value)


def _styled(value: Any) -> Any:
    """References and short lists on one line, as people write them."""
    if isinstance(value, Mapping):
        made = CommentedMap({key: _styled(each) for key, each in value.items()})
        if len(made) == 1 and next(iter(made)) in {"env", "credential"}:
            made.fa.set_flow_style()
        return made
    if isinstance(value, list):
        made = CommentedSeq([_styled(each) for each in value])
        made.fa.set_flow_style()
        return made
    if isinstance(value, str) and _reads_otherwise(value):
        return DoubleQuotedScalarString(value)
    return value


def _reads_otherwise(text: str) -> bool:
    """True for a text that YAML 1.1, in which declarations are read, takes for something else: NO is a boolean there."""
    try:
        return yaml.safe_load(text) != text
    except yaml.YAMLError:
        return True


def _ordered(entry: Mapping[str, Any]) -> Any:
    return _styled({key: entry[key] for key in (*_ORDER, *sorted(set(entry) - {*_ORDER})) if key in entry})


def _replace(path: Path, text: str) -> None:
    """All of the new text or all of the old one, whatever happens. The file's rights stay."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".", suffix=".tmp", delete=False) as file:
        made = Path(file.name)
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            made.chmod(mode)
            made.replace(path)
        except BaseException:
            with suppress(OSError):
                made.unlink()
            raise


def _umask() -> int:
    present = os.umask(0o077)
    os.umask(present)
    return present
