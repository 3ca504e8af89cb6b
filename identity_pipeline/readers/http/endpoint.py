"""An endpoint that hands out tokens or tells about itself: a form is posted, JSON comes back, and nothing is followed or shown."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from identity_pipeline.core.errors import ContractBroken, LimitExceeded, TruncatedBody
from identity_pipeline.core.window import ReadContext
from identity_pipeline.readers.http import body
from identity_pipeline.readers.http.exchange import Call, content_type, exchange
from identity_pipeline.readers.http.session import session

DEADLINE = 20.0
"""Seconds that an answer may take."""
_MOST_BYTES = 2**18


@dataclass(frozen=True)
class Answer:
    """What a vendor answered: ``body`` is empty where it is no JSON object. ``tried`` is for messages."""

    tried: str
    status: int
    kind: str
    headers: Mapping[str, str] = field(repr=False)
    body: Mapping[str, Any] = field(repr=False)

    def text(self, name: str) -> str:
        """The text under ``name``, empty where there is none."""
        found = self.body.get(name)
        return found if isinstance(found, str) else ""

    def seconds(self, name: str) -> float | None:
        """The number of seconds under ``name``, None where there is none."""
        try:
            found = float(self.body[name])
        except (KeyError, TypeError, ValueError):
            return None
        return found if 0 < found < 10**10 else None


def ask(
    url: str,
    form: Mapping[str, str],
    context: ReadContext | None = None,
    *,
    authorization: str = "",
    setting: str = "the token address",
) -> Answer:
    """Post ``form`` to ``url``: one exchange, to that address and no other. ``setting``: where the address comes from, for messages.

    Raises:
        SourceUnavailable: no answer, or the connection was lost.
        TruncatedBody: the body broke off.
        SourceRejected: it redirects.
        ConfigurationError: the address is none that may be asked, or its certificate is not accepted.
    """
    given = {name: value for name, value in form.items() if value}
    headers = {"Content-Type": "application/x-www-form-urlencoded"} | ({"Authorization": authorization} if authorization else {})
    return _exchanged(Call("POST", url, headers, urlencode(given).encode(), setting=setting, redirects=0), context)


def look(url: str, token: str = "", *, setting: str = "the address") -> Answer:
    """What ``url`` shows, to the bearer of ``token`` if there is one; the errors are those of :func:`ask`."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return _exchanged(Call("GET", url, headers, setting=setting, redirects=0), None)


def _exchanged(call: Call, context: ReadContext | None) -> Answer:
    common = {"Accept": "application/json", "User-Agent": "identity-pipeline", "Accept-Encoding": "gzip"}
    call = Call(call.method, call.url, {**common, **call.headers}, call.body, setting=call.setting, redirects=call.redirects)
    told = context or ReadContext()
    with session() as connections, exchange(connections, call, told, DEADLINE) as answered:
        try:
            found = json.loads(b"".join(body.bounded(body.stream(answered, told), _MOST_BYTES)))
        except TruncatedBody:
            raise
        except (ValueError, RecursionError, LimitExceeded, ContractBroken):
            found = None
        return Answer(
            call.tried,
            answered.status_code,
            content_type(answered.headers),
            answered.headers,
            found if isinstance(found, dict) else {},
        )
