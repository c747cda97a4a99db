"""What this program keeps with a study for itself, by name."""

from collections.abc import Iterable
from typing import Any

from optuna.storages import RDBStorage

from rtmo_optuna.codec import encode
from rtmo_optuna.study import transaction


class Attributes:
    """The attributes of one study; each call reads or writes the database."""

    def __init__(self, opened: RDBStorage, study_id: int) -> None:
        """Look after those of the study `study_id` in the database `opened`."""
        self._opened = opened
        self._study_id = study_id

    def all(self) -> dict[str, Any]:
        """Return all of them, encoded."""
        return transaction.attributes(self._opened, self._study_id)

    def put(self, name: str, value: object) -> None:
        """Keep `value`."""
        transaction.keep(self._opened, self._study_id, {name: encode(value)})

    def remove(self, names: Iterable[str]) -> None:
        """Forget those called `names`."""
        transaction.forget(self._opened, self._study_id, names)
