"""Who else works on a study: drivers on other GPUs and hosts, and which of them does what only one may do."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from rtmo_optuna.search.trials import driver, is_dead

if TYPE_CHECKING:
    import optuna

LEASE_S = 900.0
"""A driver that was not heard of for so long is gone: longer than any process is silent by the default limits."""
_SETTLED_S = _POLL_S = 1.0


class Crew:
    """The drivers of one study, as its attributes tell, and this one among them.

    Each has an entry that it renews while it works and takes back at its end. A part that only one may run (preflight,
    screening, race and confirmation) is led by the driver whose name stands for it, while that one is there.
    """

    def __init__(self, study: optuna.Study) -> None:
        """Look at `study`; nobody is told before `join`."""
        self._study = study
        self._id = uuid.uuid4().hex[:12]
        self._until = 0.0

    def join(self) -> None:
        """Tell the others that this driver works on the study."""
        self._until = time.time() + LEASE_S
        self._study.set_user_attr(f"driver {self._id}", {**driver(), "until": self._until})

    def renew(self) -> None:
        """Tell it again, where that was long ago; nothing is told by a driver that has not joined."""
        if self._until and time.time() > self._until - LEASE_S / 2:
            self.join()

    def leave(self) -> None:
        """Take the entry back."""
        if self._until:
            self._until = 0.0
            self._study.set_user_attr(f"driver {self._id}", None)

    def others(self) -> tuple[str, ...]:
        """Return the other drivers that are at work, as `process N on HOST`."""
        entries = self._entries()
        return tuple(
            f"process {entry['pid']} on {entry['host'].split()[0]}" for one, entry in entries.items() if one != self._id
        )

    def wait(self) -> None:
        """Let a second pass before looking again at what another one does."""
        time.sleep(_POLL_S)

    def leads(self, part: str) -> bool:
        """Return whether this driver leads `part` of the study, which it does from now on where no other one does."""
        name = f"lead {part}"
        held = self._study.user_attrs.get(name)
        if held != self._id:
            entries = self._entries()
            if held in entries:
                return False
            self._study.set_user_attr(name, self._id)
            if entries.keys() - {self._id}:
                # Another one may have written its name at the same time: the last one's stands.
                time.sleep(_SETTLED_S)
                held = self._study.user_attrs.get(name)
                return bool(held == self._id)
        return True

    def is_last(self) -> bool:
        """Leave, and return whether no other driver is left; then this one is back, and leads the study's end.

        Who leaves first and looks then cannot wait for another one that does the same.
        """
        self.leave()
        if self.others():
            return False
        self.join()
        return self.leads("finals")

    def _entries(self) -> dict[str, dict[str, Any]]:
        """Return the entries of the drivers that are at work, by name."""
        held = self._study.user_attrs.items()
        told = {name.removeprefix("driver "): entry for name, entry in held if name.startswith("driver ") and entry}
        return {one: entry for one, entry in told.items() if entry["until"] > time.time() and not is_dead(entry)}
