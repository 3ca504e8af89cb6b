"""Home: what is remembered of the embedded Postgres, and who may change it."""

import errno
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from identity_pipeline.core.errors import ConfigurationError, TargetUnavailable

USER = DATABASE = "identity"
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Cluster:
    """What ``postgres.json`` says. ``name`` tells its processes from others', ``ready``: it was started once."""

    folder: Path
    port: int
    password: str = field(repr=False)
    name: str
    ready: bool = False

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.folder / "server.log"

    @property
    def url(self) -> str:
        """Where the server listens, with the password."""
        return f"postgresql://{USER}:{quote(self.password, safe='')}@{HOST}:{self.port}/{DATABASE}"


def read(home: Path) -> Cluster | None:
    """What is remembered in ``home``; None where nothing was ever started.

    Raises:
        ConfigurationError: the file cannot be read, or holds something else.
    """
    path = home / "postgres.json"
    try:
        state = json.loads(path.read_text())
        return Cluster(home / state["folder"], int(state["port"]), state["password"], state["name"], state["ready"] is True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unusable(home, error) from None
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(
            f"{path} does not hold what the embedded Postgres wrote: delete it and run `identity-pipeline db start` "
            "(the data stay, the password is set again)"
        ) from None


def write(home: Path, cluster: Cluster) -> None:
    """Remember it: whole or not at all, whatever dies meanwhile."""
    inside = cluster.folder.is_relative_to(home)
    state = {
        "folder": str(cluster.folder.relative_to(home) if inside else cluster.folder),  # so that home can be moved
        "port": cluster.port,
        "password": cluster.password,
        "name": cluster.name,
        "ready": cluster.ready,
    }
    descriptor, draft = tempfile.mkstemp(prefix="postgres.json.", dir=home)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            _hand_over(file.fileno(), home)
            json.dump(state, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(home / "postgres.json")
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def make_home(home: Path) -> bool:
    """Make home for us alone; True when it was not there."""
    try:
        home.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        if not home.is_dir():
            raise ConfigurationError(
                f"IDENTITY_HOME {home} is not a folder: set IDENTITY_HOME to a folder that the pipeline may write to"
            ) from None
        return False
    return True


@contextmanager
def locked(home: Path, deadline: float) -> Iterator[None]:
    """One start or stop at a time; the lock goes with the process that holds it."""
    with os.fdopen(os.open(home / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w") as file:
        _hand_over(file.fileno(), home)
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TargetUnavailable(
                        f"another process has been starting or stopping the embedded Postgres in {home} all the time: try again"
                    ) from None
                time.sleep(0.05)
        yield


def _hand_over(descriptor: int, home: Path) -> None:
    """Give what root writes to home's owner, who could not start the database otherwise."""
    if os.geteuid() == 0 and os.fstat(descriptor).st_nlink == 1:  # a second name may be a file of root's
        owner = home.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def unusable(home: Path, error: OSError) -> ConfigurationError:
    """What to say of a folder that the system refuses us."""
    where = f"the embedded Postgres in {home} cannot be used: {error.strerror} ({error.filename or home})"
    if error.errno == errno.ENOSPC:
        return ConfigurationError(f"{where}: free some space on that disk, then start again")
    return ConfigurationError(
        f"{where}: give the user that runs the pipeline this folder, set IDENTITY_HOME to another one, "
        "or set IDENTITY_DATABASE_URL to a PostgreSQL of your own"
    )
