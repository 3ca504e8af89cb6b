"""Patterns of file names: ``*`` and ``?`` within one folder, ``**`` through all, ``[abc]``."""

import re
from dataclasses import dataclass
from functools import cached_property

from identity_pipeline.core.errors import ConfigurationError

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]|.", re.DOTALL)
_MEANING = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


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
        rest = name.removeprefix(self.prefix)
        return name.startswith(self.prefix) and not name.endswith("/") and self._expression.fullmatch(rest) is not None

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return re.compile("".join(map(_translated, _TOKEN.findall(self.pattern))), re.DOTALL)


def _translated(token: str) -> str:
    if token in _MEANING:
        return _MEANING[token]
    if len(token) > 1:  # a set of characters
        return re.sub(r"^\[!", "[^/", token.replace("\\", "\\\\"))
    return re.escape(token)
