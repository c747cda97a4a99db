"""Opening the database that studies live in."""

import logging
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from optuna.artifacts import FileSystemArtifactStore
from optuna.exceptions import ExperimentalWarning
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, NoSuchModuleError, OperationalError, ProgrammingError, SQLAlchemyError

from rtmo_optuna.display import without_password, without_secrets
from rtmo_optuna.errors import LostError, UsageError
from rtmo_optuna.space.values import advice, nearest
from rtmo_optuna.study.retries import Patience, PatientStorage
from rtmo_optuna.types.study import DEFAULT_STORAGE

HEARTBEAT_S = 60
GRACE_S = 1800
_DATABASES = ("sqlite", "postgresql", "mysql", "mariadb")
_BUSY_MS = 5_000
"""How long SQLite waits by itself, deaf to Ctrl-C; `patience` goes on from there."""
_PAUSES_S = (0.2, 0.5, 1.0)
_LOCKED = "database is locked"
"""What SQLite says where another program keeps it waiting for too long."""


@contextmanager
def quietly() -> Iterator[None]:
    """Keep Optuna from warning that what we use is experimental or, like heartbeats under ask and tell, unusual."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ExperimentalWarning)
        warnings.filterwarnings("ignore", category=FutureWarning, module="optuna")
        warnings.filterwarnings("ignore", message="Heartbeat of storage")
        yield


def url_of(storage: str) -> str:
    """Return `storage` as a database URL; what is no URL is the path of an SQLite file.

    Raises UsageError for an empty one, and for what is nearly a URL: a file of that name is not what was meant.
    """
    scheme, colon, _ = storage.partition(":")
    if "://" in storage:
        return storage
    if not storage.strip() or (colon and nearest(scheme, _DATABASES)):
        raise _no_url(storage)
    return f"sqlite:///{storage}"


def sqlite_file(url: str) -> Path | None:
    """Return the file behind an SQLite URL, None for another database.

    Raises UsageError for what is no URL, names no database that is known, or keeps studies in memory only.
    """
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError) as error:
        raise _no_url(url) from error
    try:
        parsed.get_dialect()
    except NoSuchModuleError as error:
        kind = parsed.drivername
        message = f"--storage cannot be {without_password(url)!r}: {kind!r} is no database. {advice(kind, _DATABASES)}"
        raise UsageError(message) from error
    if parsed.get_backend_name() != "sqlite":
        return None
    if parsed.database in {None, "", ":memory:"}:
        raise UsageError(
            f"--storage cannot be {without_password(url)!r}, which names no file: give one, as in {DEFAULT_STORAGE}."
        )
    return Path(str(parsed.database).removeprefix("file:"))


def _no_url(storage: str) -> UsageError:
    return UsageError(
        f"--storage cannot be {without_password(storage)!r}, which is no database URL: give one like "
        f"{DEFAULT_STORAGE} or postgresql://user@host/name, or the path of an SQLite file."
    )


def open_storage(storage: str, *, create: bool) -> PatientStorage:
    """Return the open database, made when it is missing and `create` allows; raises UsageError where it does not open.

    SQLite transactions begin with a write lock, since two processes would otherwise take the same trial from the
    queue; a write-ahead log lets the dashboard read meanwhile.
    """
    url = url_of(storage)
    file = sqlite_file(url)
    shown = without_password(storage)
    if file and not file.exists():
        if not create:
            where = without_password(str(file))
            message = f"There are no studies in {where}: the file does not exist. Run a tune first, or name --storage."
            raise UsageError(message)
        _make_folder(file.parent, storage)
    try:
        opened = _opened(url)
        if file:
            _lock_early(opened)
        opened.patience = Patience(shown, file)
    except LostError as error:
        raise UsageError(f"{error} Check --storage.") from error
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None) or "for its database"
        message = f"The storage {shown} needs the Python package {missing}, which is not installed; pip install it."
        raise UsageError(message) from error
    except (SQLAlchemyError, sqlite3.Error, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split("(Background on this error")[0].split())
        if _LOCKED in reason:
            reason = f"another program has locked it: end that ({reason})"
        message = f"The storage {shown} does not open: {without_secrets(reason, storage)}"
        raise UsageError(message.rstrip(". ?") + ". Check --storage.") from error
    return opened


def _opened(url: str) -> PatientStorage:
    """Return Optuna's storage; its tables may be made by another driver at this very moment, so try again."""
    with quietly():
        for pause_s in _PAUSES_S:
            try:
                return PatientStorage(url, heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S)
            except (IntegrityError, OperationalError, ProgrammingError) as error:
                if _LOCKED in str(error):
                    logging.getLogger(__name__).warning("The database is locked by another program: trying again.")
            time.sleep(pause_s)
        return PatientStorage(url, heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S)


def _make_folder(folder: Path, storage: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"The storage {without_password(storage)} cannot be created: {error.strerror} ({folder})."
        raise UsageError(message) from error


def _lock_early(storage: PatientStorage) -> None:
    def on_connect(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    def on_begin(connection: Any) -> None:  # noqa: ANN401 - an SQLAlchemy connection
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(storage.engine, "connect", on_connect)
    event.listen(storage.engine, "begin", on_begin)
    storage.engine.dispose()


def artifacts_folder(storage: str) -> Path:
    """Return where a storage's artifacts lie: beside an SQLite file, else in `studies/`."""
    file = sqlite_file(url_of(storage))
    return (file.parent if file else Path("studies")) / "artifacts"


def artifact_store(storage: str) -> FileSystemArtifactStore:
    """Return the store of the studies' artifacts; its folder is made when it is missing."""
    folder = artifacts_folder(storage)
    _make_folder(folder, storage)
    return _ArtifactStore(folder)


class _ArtifactStore(FileSystemArtifactStore):
    """A folder that somebody may have cleared away since it was made."""

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        Path(self._base_path).mkdir(parents=True, exist_ok=True)
        super().write(artifact_id, content_body)
