"""Who else works on a study: drivers on other GPUs and hosts, and which of them does what only one may do."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from rtmo_optuna.study.attributes import Attributes
from rtmo_optuna.study.trials import driver, is_dead, is_doubtful
from rtmo_optuna.types.subject import StudyDefinition

LEASE_S = 900.0
"""A driver that was not heard of for so long is gone; see `lease_s`."""
_RENEW_S = 30.0
_WANTS, _LEADS = "wants", "leads"


def lease_s(definition: StudyDefinition) -> float:
    """Return after how many seconds of silence a driver is gone: more than it is silent within the study's limits.

    A sign is given at each window that counts. Between two of them there may be the end of one process, the start of
    the next and windows that are dropped; a sign that was just renewed is not renewed again, and there is some work
    between processes.
    """
    limits, dropped = definition.limits, definition.measuring.windows_max // 2
    start_s = limits.start_s + limits.build_s + 2 * limits.first_run_s + limits.window_s
    return max(LEASE_S, limits.exit_s + start_s + (dropped + 1) * limits.window_s + 2 * _RENEW_S)


class Crew:
    """The drivers of one study, as its attributes tell, and this one among them.

    Each has an entry, which nobody else writes, that it renews while it works and takes back at its end. A part that
    only one may run (preflight, screening, race and confirmation) is led by the driver whose entry says so, as long as
    that one is there.

    Attributes:
        doubt_s: After how many seconds of silence a driver in another container of this host's name (itself before it
            was started again?) is gone.
        wanting_s: How long another one that wants to lead is waited for.
        poll_s: How much time passes between two looks at the others.
    """

    doubt_s = 120.0
    wanting_s = 60.0
    poll_s = 1.0

    def __init__(self, attributes: Attributes, lease_s: float = LEASE_S) -> None:
        """Look at a study's `attributes`; nobody is told before `join`.

        This driver is gone after `lease_s` without a sign.
        """
        self._attributes = attributes
        self._lease_s = lease_s
        self._id = uuid.uuid4().hex[:12]
        self._until = 0.0
        self._parts: dict[str, str] = {}
        self._found = {one: entry["until"] for one, entry in self._entries().items() if is_doubtful(entry)}

    def join(self) -> None:
        """Tell the others that this driver works on the study; what it led is others' where they took it for gone."""
        if time.time() > self._until:
            self._parts.clear()
            self._sweep()
        self._say()

    def _sweep(self) -> None:
        """Remove the entries of drivers that are gone: of those that were there before it is seen who is at work."""
        there = [name for name in self._attributes.all() if name.startswith("driver ")]
        kept = {f"driver {one}" for one in (*self._entries(), self._id)}
        gone = [name for name in there if name not in kept]
        if gone:
            self._attributes.remove(gone)

    def renew(self) -> None:
        """Tell it again, where that was a while ago; nothing is told by a driver that has not joined."""
        if self._until and time.time() > self._until - self._lease_s + _RENEW_S:
            self.join()

    def leave(self) -> None:
        """Take the entry back."""
        if self._until:
            self._until = 0.0
            self._attributes.remove([f"driver {self._id}"])

    def others(self) -> tuple[str, ...]:
        """Return the other drivers that are at work, as `process N on HOST`."""
        return tuple(f"process {entry['pid']} on {entry['host'].split()[0]}" for entry in self._entries().values())

    def doubtful(self) -> tuple[str, ...]:
        """Return those of `others` that may be gone: found here at the start, and not heard of since."""
        found = {one: entry for one, entry in self._entries().items() if self._found.get(one) == entry["until"]}
        return tuple(f"process {entry['pid']} on {entry['host'].split()[0]}" for entry in found.values())

    def has_gone(self, driver: Mapping[str, Any]) -> bool:
        """Return whether a trial's `driver` is known to be dead, or nothing was heard of it for too long."""
        if not is_doubtful(driver):
            return is_dead(driver)
        who = {"host", "pid", "started"}
        return not any(all(entry.get(name) == driver.get(name) for name in who) for entry in self._entries().values())

    def wait(self) -> None:
        """Let some time pass before looking again at what another one does; this one is still there."""
        time.sleep(self.poll_s)
        self.renew()

    def leads(self, part: str) -> bool:
        """Return whether this driver leads `part` of the study, which it does from now on where no other one does.

        Who wants to says so before looking at the others, so that of two that want to at once one sees the other at
        least: the one with the greater name gives way, and the other waits until it has, or leads, for a minute at
        most.
        """
        self.renew()
        if self._parts.get(part) == _LEADS:
            return True
        if _LEADS in self._rivals(part).values():
            return False
        self._say(part, _WANTS)
        end = time.monotonic() + self.wanting_s
        while (rivals := self._rivals(part)) and time.monotonic() < end:
            if _LEADS in rivals.values() or min(rivals) < self._id:
                self._parts.pop(part)
                self._say()
                return False
            self.wait()
        self._say(part, _LEADS)
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

    def _say(self, *claim: str) -> None:
        """Write the entry, with `claim` (a part, and what this driver has to do with it) in it."""
        if claim:
            part, what = claim
            self._parts[part] = what
        self._until = time.time() + self._lease_s
        entry = {**driver(), "until": self._until, "parts": dict(self._parts)}
        self._attributes.put(f"driver {self._id}", entry)

    def _rivals(self, part: str) -> dict[str, str]:
        """Return what the others that are at work and have to do with `part` have, by name."""
        told = {one: entry.get("parts", {}) for one, entry in self._entries().items()}
        return {one: parts[part] for one, parts in told.items() if part in parts}

    def _entries(self) -> dict[str, dict[str, Any]]:
        """Return the entries of the other drivers that are at work, by name."""
        held = self._attributes.all().items()
        told = {name.removeprefix("driver "): entry for name, entry in held if name.startswith("driver ") and entry}
        told.pop(self._id, None)
        now = time.time()
        return {one: entry for one, entry in told.items() if self._until_of(entry) > now and not is_dead(entry)}

    def _until_of(self, entry: Mapping[str, Any]) -> float:
        """Return when the driver of `entry` is gone, if nothing is heard of it."""
        early = self._lease_s - self.doubt_s if is_doubtful(entry) else 0.0
        return float(entry["until"]) - max(0.0, early)
