"""A database that fails for a while is waited for; what fails for good ends in one sentence."""

import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import InterfaceError, OperationalError, PendingRollbackError, SQLAlchemyError

from rtmo_optuna.errors import LostError

P = ParamSpec("P")
R = TypeVar("R")

FIRST_S, MOST_S = 0.1, 3.0
"""The pause before the second try, and the longest one; each is twice the one before."""
_OPENING_S = 60.0
_BUSY = ("locked", "busy")
_WAITED_FOR = (OperationalError, InterfaceError, PendingRollbackError)


def _file_id(file: Path | None) -> tuple[int, int] | None:
    try:
        facts = file.stat() if file else None
    except OSError:
        return None
    return (facts.st_dev, facts.st_ino) if facts else None


@dataclass
class Patience:
    """How long a database is waited for: until the monotonic second `until`; `tell` gets a sentence about it, once.

    `shown` is its URL without a password, `file` an SQLite database's file.
    """

    shown: str
    file: Path | None = None
    until: float = field(default_factory=lambda: time.monotonic() + _OPENING_S)
    tell: Callable[[str], None] = logging.getLogger(__name__).warning
    _file_id: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Remember which file it is: one that is removed can still be written, for nobody."""
        self._file_id = _file_id(self.file)

    def shorten(self, seconds: float) -> None:
        """Wait no longer than so many seconds from now on."""
        self.until = min(self.until, time.monotonic() + seconds)

    def call(self, attempt: Callable[[], R], forget: Callable[[], None]) -> R:
        """Return what `attempt` does, tried again as long as the database may come back.

        `forget` drops the connection before another try: one that broke in a transaction is of no use.

        Raises LostError where it does not, or where the study is gone.
        """
        pause_s, told = FIRST_S, False
        while True:
            if self._file_id != _file_id(self.file):
                raise LostError(f"The database {self.file} was removed or replaced while it was in use.")
            try:
                return attempt()
            except KeyError as error:
                raise LostError(f"The study was deleted from {self.shown} while it was in use.") from error
            except (StorageInternalError, SQLAlchemyError) as error:
                cause = error.__cause__ if isinstance(error, StorageInternalError) else error
                said = str(getattr(cause, "orig", None) or cause).split("(Background on this error")[0]
                reason = " ".join(said.split()).rstrip(".?")
                if not self._passes(cause, reason):
                    raise LostError(f"The database {self.shown} cannot be used any more: {reason}.") from error
                if time.monotonic() + pause_s > self.until:
                    raise LostError(f"The database {self.shown} did not come back in time: {reason}.") from error
            if not told:
                self.tell(f"Waiting for the database, up to {self.until - time.monotonic():.0f} s: {reason}.")
            told = True
            time.sleep(pause_s)
            forget()
            pause_s = min(2 * pause_s, MOST_S)

    def _passes(self, cause: BaseException | None, reason: str) -> bool:
        """Whether this may pass: an SQLite file that another program has locked, a server that is started anew."""
        return isinstance(cause, _WAITED_FOR) and (self.file is None or any(word in reason for word in _BUSY))


def patient(
    plain: Callable[Concatenate[RDBStorage, P], R],
) -> Callable[Concatenate[RDBStorage, P], R]:
    """Return `plain`, whose first argument is a storage, with that storage's patience."""

    @functools.wraps(plain)
    def held(opened: RDBStorage, /, *arguments: P.args, **more: P.kwargs) -> R:
        patience: Patience | None = getattr(opened, "patience", None)
        attempt = functools.partial(plain, opened, *arguments, **more)
        return patience.call(attempt, opened.remove_session) if patience else attempt()

    return held


class PatientStorage(RDBStorage):
    """Optuna's database with patience: None while it is opened."""

    patience: Patience | None = None


_CALLS = (
    "_create_new_trial",
    "_get_stale_trial_ids",
    "_get_trials",
    "create_new_study",
    "create_new_trial",
    "get_all_studies",
    "get_study_directions",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_system_attrs",
    "get_study_user_attrs",
    "get_trial",
    "record_heartbeat",
    "set_study_system_attr",
    "set_study_user_attr",
    "set_trial_intermediate_value",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_system_attr",
    "set_trial_user_attr",
)
"""All that a study asks of its database."""
for _name in _CALLS:
    setattr(PatientStorage, _name, patient(getattr(RDBStorage, _name)))


def patience_of(opened: Any) -> Patience:  # noqa: ANN401 - a storage, which may be cached
    """Return the patience of an open storage; one without is waited for by nobody."""
    held = getattr(opened, "patience", None) or getattr(getattr(opened, "_backend", None), "patience", None)
    return held or Patience("")
