"""The sources folder: every YAML file in it, each entry judged by itself, with line numbers in errors.

A broken declaration is a :class:`Problem`; it never keeps the others from loading.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from identity_pipeline.core.errors import ConfigurationError
from identity_pipeline.declarations.source import Source, first_fault

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
        raise ConfigurationError(f"no source is called {name!r}; declared are {', '.join(self.sources) or 'none'}")


def load(folder: Path) -> Declarations:
    """Read every ``*.yaml`` and ``*.yml`` of ``folder``."""
    sources: dict[str, Source] = {}
    problems: list[Problem] = []
    for path in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))):
        for found in _file(path):
            if isinstance(found, Problem):
                problems.append(found)
            elif found[1].name in sources:
                problems.append(Problem(path.name, found[0], found[1].name, "name: another source has it already: choose another name"))
            else:
                sources[found[1].name] = found[1]
    return Declarations(sources, problems)


def _file(path: Path) -> Iterator[Problem | tuple[int, Source]]:
    try:
        text = path.read_text("utf-8")
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            value = loader.construct_document(root) if root is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        yield Problem(path.name, mark.line + 1 if mark else 1, None, f"is not YAML: {error.problem or error.context}")
        return
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        yield Problem(path.name, 1, None, f"cannot be read ({type(error).__name__}): fix or remove the file")
        return
    if value is None:
        return
    entries = value.get("sources") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        yield Problem(path.name, 1, None, "sources: is missing: a file holds `sources:` and below it a list")
        return
    assert root is not None  # noqa: S101 - it gave the mapping above
    (_, nodes), *more = [pair for pair in root.value if pair[0].value == "sources"]
    if more:
        yield Problem(path.name, more[0][0].start_mark.line + 1, None, "sources: stands twice: put all sources below the first one")
        return
    for entry, node in zip(entries, nodes.value, strict=True):
        yield _entry(path.name, entry, node)


def _entry(file: str, entry: object, node: yaml.Node) -> Problem | tuple[int, Source]:
    line = node.start_mark.line + 1
    if not isinstance(entry, dict):
        return Problem(file, line, None, "a source is a mapping with name, source_type and config")
    name = entry.get("name") if isinstance(entry.get("name"), str) else None
    try:
        source = Source.model_validate(entry)
        source.check()
    except ValidationError as error:
        message = first_fault(error, Source)
    except ConfigurationError as error:
        message = str(error)
    else:
        return line, source
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
