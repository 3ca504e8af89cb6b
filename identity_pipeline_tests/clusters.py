"""Homes of embedded servers for tests: made where the server's account can pass, removed with all they hold."""

import json
import shutil
import tempfile
from pathlib import Path

from identity_pipeline.embedded import server as embedded


def place(prefix: str) -> Path:
    """A new folder; other accounts may pass through it, as through /var/lib or a project's folder."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o711)
    return folder


def remove(home: Path) -> None:
    """Stop the server of ``home`` and delete home and, where it lies elsewhere, the cluster."""
    embedded.stop(home)
    state = home / "postgres.json"
    if state.exists():
        shutil.rmtree(home / json.loads(state.read_text())["folder"], ignore_errors=True)  # another session may be at it too
    shutil.rmtree(home, ignore_errors=True)
