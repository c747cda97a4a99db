"""The process that calls a model at a pace: sessions, and rounds of calls with a way of waiting between them."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from answers import FAST, HOST, feed_of, spec_of
from rtmo_optuna.engine.dropin import Session
from rtmo_optuna.machine.canary import QuietCore
from waiting import WAYS, choose_sync, tools_for

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray

    from waiting import Tools, Wait

SESSIONS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "cuda": {"default": {}, "cut, tuned": {**FAST, **HOST}, "cut, tuned, page-locked input": {**FAST, **HOST}},
    "cpu": {"default": {}, "one thread": {"intra_op_num_threads": 1}},
}
PARTS = {
    "copy": ("_inputs._main", "fill"),
    "head": ("_head", "run"),
    "select": ("_selection", "run"),
    "finish": ("_finish", "run"),
}
"""What a cut model's call consists of: who does it, and by which method."""
LOCKED = "page-locked input"
SETTLING = 2


@dataclass(frozen=True, slots=True)
class Combination:
    """What a row of the table stands for; `rate_hz` is 0 where calls follow back to back."""

    session: str
    way: str
    rate_hz: float


@dataclass(slots=True)
class Taken:
    """What one round took, in ns by call: latencies, how late each began, the parts of a cut model's call.

    `mhz`, `watts` and `core_mhz` are of the GPU and of the calling core, sampled meanwhile.
    """

    latency_ns: list[int] = field(default_factory=list)
    late_ns: list[int] = field(default_factory=list)
    parts_ns: dict[str, list[int]] = field(default_factory=dict)
    mhz: list[float] = field(default_factory=list)
    watts: list[float] = field(default_factory=list)
    core_mhz: list[float] = field(default_factory=list)


class TimedPart:
    """A part of a call, which notes how long it takes; everything else of it is as it was."""

    def __init__(self, part: Any, method: str, spent_ns: list[int]) -> None:  # noqa: ANN401 - whatever is called
        """Time `method` of `part` into `spent_ns`."""
        self._part, self._spent_ns = part, spent_ns
        setattr(self, method, partial(self._timed, getattr(part, method)))

    def _timed(self, run: Callable[..., Any], *args: Any, **named: Any) -> Any:  # noqa: ANN401
        start = time.perf_counter_ns()
        found = run(*args, **named)
        self._spent_ns.append(time.perf_counter_ns() - start)
        return found

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Return what the part has."""
        return getattr(self._part, name)


def timed_parts(session: Session) -> dict[str, list[int]]:
    """Have a cut model's session note what its parts take, and return where; nothing for any other session."""
    call = session._engine._call  # noqa: SLF001 - nobody else wants to know
    found: dict[str, list[int]] = {}
    for name, (attribute, method) in PARTS.items():
        owner, _, last = attribute.rpartition(".")
        held = attrgetter(owner)(call) if owner and hasattr(call, "_head") else call
        if hasattr(getattr(held, last, None), method) and hasattr(call, "_head"):
            found[name] = []
            setattr(held, last, TimedPart(getattr(held, last), method, found[name]))
    return found


def locked(session: Session, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the same arrays in page-locked memory."""
    buffers = {name: session.input_buffer(name, array.shape) for name, array in feed.items()}
    for name, array in feed.items():
        buffers[name][...] = array
    return buffers


class Caller:
    """Has the sessions open, and carries out rounds."""

    def __init__(self, args: argparse.Namespace, sync: str) -> None:
        """Open all sessions, in a process whose host waits for the GPU in the way `sync`."""
        if args.provider == "cuda":
            choose_sync(sync)
        feed = feed_of(args.input, 1)
        shapes = {name: array.shape for name, array in feed.items()}
        self._calls: dict[str, Callable[[], object]] = {}
        self._parts: dict[str, dict[str, list[int]]] = {}
        self._tools: dict[str, Tools] = {}
        self._best_ns = 0
        for name in args.sessions:
            session = Session(spec_of(args.model, SESSIONS[args.provider][name], args.provider, shapes))
            fed = locked(session, feed) if name.endswith(LOCKED) else feed
            call = self._calls[name] = partial(session.run, None, fed)
            for _ in range(20):
                call()
            self._parts[name] = timed_parts(session)
            self._tools[name] = tools_for(call, args.provider)

    def round(self, one: Combination, seconds: float) -> Taken:
        """Return what a round of `one` takes, of about `seconds`; raises OSError where its way is not allowed."""
        core = QuietCore(self._best_ns)
        core.before()
        self._best_ns = core.best_ns
        gc.collect()
        gc.disable()
        try:
            with WAYS[one.way].enter(self._tools[one.session]) as wait:
                taken = self._round(one, seconds, wait)
        finally:
            gc.enable()
            core.close()
        return taken

    def _round(self, one: Combination, seconds: float, wait: Wait) -> Taken:
        now, call, parts = time.perf_counter_ns, self._calls[one.session], self._parts[one.session]
        period_ns = round(1e9 / one.rate_hz) if one.rate_hz else 0
        taken = Taken()
        due = begun = now()
        while due < begun + seconds * 1e9 or len(taken.latency_ns) <= SETTLING:
            wait(due)
            for spent in parts.values():
                spent.clear()
            start = now()
            call()
            end = now()
            taken.latency_ns.append(end - start)
            taken.late_ns.append(start - due)
            for name, spent in parts.items():
                taken.parts_ns.setdefault(name, []).append(sum(spent))
            due = due + period_ns * max(1, -(-(end - due) // period_ns)) if period_ns else end
        return taken


def serve(args: argparse.Namespace, sync: str, orders: Connection) -> None:
    """Answer the parent's orders for rounds; a sentence stands for what cannot be had."""
    try:
        caller = Caller(args, sync)
    except OSError as error:
        orders.send(f"{error.strerror or error}")
        return
    orders.send("")
    while (order := orders.recv()) is not None:
        try:
            orders.send(caller.round(*order))
        except OSError as error:
            orders.send(f"{error.strerror or error}")
