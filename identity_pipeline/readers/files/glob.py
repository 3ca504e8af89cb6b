"""Patterns of file names: ``*`` and ``?`` within one folder, ``**`` through all, ``[abc]``.

What begins with an underscore or a dot is there for programs: marks of finished jobs, files that are
being sent. As in a shell, only a pattern means it that has the character itself at that place.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from identity_pipeline.core.errors import ConfigurationError

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]|.", re.DOTALL)
_HIDDEN = ("_", ".")
_SHOWN = r"(?!(?<![^/])[_.])"
"""Not at the beginning of a hidden name."""
_FOLDERS = f"(?:{_SHOWN}[^/]*/)*"
_MEANING = {"**/": _FOLDERS, "**": f"{_FOLDERS}{_SHOWN}[^/]*", "*": f"{_SHOWN}[^/]*", "?": f"{_SHOWN}[^/]"}


@dataclass(frozen=True)
class Glob:
    """Names that begin with ``prefix`` and go on as ``pattern`` says.

    Raises:
        ConfigurationError: the pattern is no pattern.
    """

    prefix: str = ""
    pattern: str = "**"

    def __post_init__(self) -> None:
        try:
            self._expression  # noqa: B018 - to be judged before anything is asked
        except re.error:
            raise ConfigurationError("glob: use *, ?, ** and [abc] only, such as contacts-*.csv or **/*.csv.gz") from None

    @property
    def beginning(self) -> str:
        """What every name begins with: all that a store has to list."""
        return self.prefix + re.split(r"[*?\[]", self.pattern, maxsplit=1)[0]

    def matches(self, name: str) -> bool:
        """True for a file that is meant. Folders, whose names end in a slash, never are."""
        return not name.endswith("/") and self._expression.fullmatch(name) is not None

    def hides(self, folder: str) -> bool:
        """True for a hidden folder behind the prefix if the pattern names nothing that begins so."""
        own = folder.rpartition("/")[2]
        named = len(folder) - len(own) < len(self.prefix) or any(part.startswith(own[:1]) for part in self.pattern.split("/"))
        return own.startswith(_HIDDEN) and not named

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.prefix) + "".join(map(_translated, _TOKEN.findall(self.pattern))), re.DOTALL)


def _translated(token: str) -> str:
    if token in _MEANING:
        return _MEANING[token]
    if len(token) > 1:  # a set of characters
        return _SHOWN + re.sub(r"^\[!", "[^/", token.replace("\\", "\\\\"))
    return re.escape(token)
