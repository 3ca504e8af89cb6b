"""The sources folder: every YAML file in it, each entry judged by itself, with line numbers in errors.

A broken declaration is a :class:`Problem`; it never keeps the others from loading.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import ValidationError

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.core.secret import Credential
from identity_pipeline.core.spelling import suggestion
from identity_pipeline.declarations.source import Source, first_fault

_SETTLED = 2.0
"""Seconds after which a file that is changed again has another time."""
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Problem:
    """What is wrong with a declaration, and where."""

    file: str
    line: int
    name: str | None
    message: str

    def __str__(self) -> str:
        """``file:line: name: message``."""
        return f"{self.file}:{self.line}: {f'{self.name}: ' if self.name else ''}{self.message}"


@dataclass(frozen=True)
class Declarations:
    """All sources of a folder that are right, and the problems of the others."""

    sources: dict[str, Source]
    problems: list[Problem]
    files: dict[str, str] = field(default_factory=dict)
    """Of each source: the name of the file in which it stands."""

    def source(self, name: str) -> Source:
        """The source of that name.

        Raises:
            ConfigurationError: there is none, or its declaration is broken.
        """
        if name in self.sources:
            return self.sources[name]
        for problem in self.problems:
            if problem.name == name:
                raise ConfigurationError(str(problem))
        raise ConfigurationError(
            f"no source is called {name!r}; declared are {', '.join(self.sources) or 'none'}{suggestion(name, self.sources)}"
            + "".join(f"; it may be in {problem}" for problem in self.problems if problem.name is None)
        )

    def naming(self, credential: str) -> list[str]:
        """The sources that name this credential of the store."""
        return sorted(name for name, source in self.sources.items() if Credential(credential) in source.references.values())


@dataclass(frozen=True)
class _Found:
    """A source that is right by itself, and where it stands."""

    file: str
    line: int
    source: Source


def load(folder: Path) -> Declarations:
    """Read every ``*.yaml`` and ``*.yml`` of ``folder``.

    Of sources that share a name none is taken: which one is meant cannot be known.
    """
    named: dict[str, list[_Found]] = {}
    problems: list[Problem] = []
    for path in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))):
        for found in _file(path):
            if isinstance(found, Problem):
                problems.append(found)
            else:
                named.setdefault(found.source.name, []).append(found)
    for name, same in named.items():
        for one in same if len(same) > 1 else ():
            others = " and ".join(f"{other.file}:{other.line}" for other in same if other is not one)
            problems.append(Problem(one.file, one.line, name, f"name: stands in {others} too: rename or remove one of them"))
    alone = {name: same[0] for name, same in named.items() if len(same) == 1}
    return Declarations({name: one.source for name, one in alone.items()}, problems, {name: one.file for name, one in alone.items()})


def problems_in(file: str, text: str) -> list[Problem]:
    """What is wrong with the text of a file, judged by itself."""
    return [found for found in _entries(file, text) if isinstance(found, Problem)]


def _file(path: Path) -> Sequence[Problem | _Found]:
    """What the file holds. A web server asks at each request: what was judged stays so while the file does."""
    try:
        about = path.stat()
        if time.time() - about.st_mtime > _SETTLED:  # younger, it may be written twice within one tick of its clock
            return _judged(path, about.st_mtime_ns, about.st_size, about.st_ino)
        return tuple(_entries(path.name, path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        return (Problem(path.name, 1, None, f"cannot be read ({type(error).__name__}): fix or remove the file"),)


@lru_cache(4_096)
def _judged(path: Path, _modified: int, _size: int, _inode: int) -> Sequence[Problem | _Found]:
    return tuple(_entries(path.name, path.read_text("utf-8")))


def _entries(file: str, text: str) -> Iterator[Problem | _Found]:
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            repeated = [_repeated(node) for node in _entry_nodes(root)]  # now: construction merges what `<<` names into the nodes
            value = loader.construct_document(root) if root is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        yield Problem(file, mark.line + 1 if mark else 1, None, f"is not YAML: {error.problem or error.context}")
        return
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        yield Problem(file, 1, None, f"cannot be read ({type(error).__name__}): fix or remove the file")
        return
    if value is None:
        return
    entries = value.get("sources") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        yield Problem(file, 1, None, "sources: is missing: a file holds `sources:` and below it a list")
        return
    assert root is not None  # noqa: S101 - it gave the mapping above
    (_, nodes), *more = [pair for pair in root.value if pair[0].value == "sources"]
    if more:
        yield Problem(file, more[0][0].start_mark.line + 1, None, "sources: stands twice: put all sources below the first one")
        return
    for entry, node, twice in zip(entries, nodes.value, repeated, strict=True):
        yield _entry(file, entry, node, twice)


def _entry_nodes(root: yaml.Node | None) -> list[yaml.Node]:
    pairs = root.value if isinstance(root, yaml.MappingNode) else ()
    return next((value.value for key, value in pairs if key.value == "sources" and isinstance(value, yaml.SequenceNode)), [])


def _repeated(entry: yaml.Node) -> yaml.ScalarNode | None:
    """The first key of an entry that its mapping has already: YAML would take the last one without a word."""
    below, seen = [entry], {id(entry)}
    for node in below:
        keys: set[str] = set()
        for part in node.value if isinstance(node, yaml.CollectionNode) else ():
            key, value = part if isinstance(part, tuple) else (None, part)
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    return key
                keys.add(key.value)
            if id(value) not in seen:
                seen.add(id(value))
                below.append(value)
    return None


def _entry(file: str, entry: object, node: yaml.Node, repeated: yaml.ScalarNode | None) -> Problem | _Found:
    line = node.start_mark.line + 1
    if not isinstance(entry, dict):
        return Problem(file, line, None, "a source is a mapping with name, source_type and config")
    name = entry.get("name") if isinstance(entry.get("name"), str) else None
    if repeated is not None:
        return Problem(file, repeated.start_mark.line + 1, name, f"{repeated.value}: stands twice in one mapping: remove one of them")
    try:
        source = Source.model_validate(entry)
        source.check()
    except ValidationError as error:
        message = first_fault(error, Source)
    except ConfigurationError as error:
        message = str(error)
    else:
        return _Found(file, line, source)
    field = re.match(r"[\w.]+", message)
    return Problem(file, _line(node, field[0].split(".") if field else []), name, message)


def _line(node: yaml.Node, path: list[str]) -> int:
    """Line of the deepest part of ``path`` that stands in the file."""
    line = node.start_mark.line + 1
    for part in path:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        found = next(((key, value) for key, value in pairs if key.value == part), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
