"""A certified OpenID provider, written by others (oidc-provider): its accounts are whoever signs in."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import requests

from identity_pipeline_tests import node

CLIENT_ID, CLIENT_SECRET = "client-1", "canary-openid-secret-83ad"
_SCRIPT = Path(node.__file__).parent / "openid.mjs"


@dataclass(frozen=True)
class OpenIDProvider:
    """Where it is."""

    issuer: str

    def agreed(self, address: str, account: str, redirect: str) -> str:
        """Sign in as ``account`` and agree, as a person does on its pages: the address to which it leads back."""
        with requests.Session() as browser:
            answer = browser.get(address, allow_redirects=False, timeout=30)
            for _ in range(12):
                if where := answer.headers.get("Location"):
                    where = urljoin(answer.url, where)
                    if where.startswith(redirect):
                        return where
                    answer = browser.get(where, allow_redirects=False, timeout=30)
                    continue
                prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
                action = re.search(r'action="([^"]+)"', answer.text)
                assert prompt, answer.text[:2000]
                assert action, answer.text[:2000]
                form = {"prompt": prompt[1]} | ({"login": account, "password": "any"} if prompt[1] == "login" else {})
                answer = browser.post(urljoin(answer.url, action[1]), form, allow_redirects=False, timeout=30)
        raise AssertionError(answer.text[:2000])


@contextmanager
def serve(
    redirects: list[str], groups: dict[str, list[str]] | None = None, *, scopes: tuple[str, ...] = (), ttl: int = 3600
) -> Iterator[OpenIDProvider]:
    """Run it; ``groups``: account → its groups; ``scopes``: those of an API; ``ttl``: seconds that an access token lives."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {"redirects": redirects, "groups": groups or {}, "scopes": scopes, "ttl": ttl}
    said = json.dumps({"port": port, "secret": CLIENT_SECRET, **options})
    script = _SCRIPT.read_text("utf-8")
    command = [node.NODE, "--input-type=module", "--eval", script, said]  # so it finds the packages of the folder it runs in
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=node.modules().parent)
    try:
        assert process.stdout
        for line in process.stdout:
            if line.strip() == "ready":
                break
        else:
            raise AssertionError("the provider did not start")
        yield OpenIDProvider(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.communicate()
