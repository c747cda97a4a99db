"""Sessions on the CPU that are called as those on a GPU are: buffers that stay, a model cut in parts, no graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from rtmo_optuna.engine import ort
from rtmo_optuna.engine.assembly import Assembly, assemble
from rtmo_optuna.providers.table import PROVIDERS
from rtmo_optuna.types.request import Pixels, Scope, SessionSpec, Settings, Value

_KNOBS = ("io_binding", "enable_cuda_graph", "split_capture", "split_on_host")
_SPLIT: dict[str, Value] = dict.fromkeys(_KNOBS[:3], True)
CALLED: Mapping[str, dict[str, Value]] = {
    "plain": {},
    "bound": {"io_binding": True},
    "split": _SPLIT,
    "split+host": {**_SPLIT, "split_on_host": True},
}
"""Ways of calling, by the name of the choice."""


def at_once(work: Callable[[int], object], numbers: Iterable[int]) -> None:
    """Call `work` with each of `numbers` in a thread of its own; return when all have ended."""
    threads = [threading.Thread(target=work, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def assembled(
    path: str | Path,
    how: str,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    level: str = "ORT_ENABLE_ALL",
    pixels: Pixels | None = None,
) -> Assembly:
    """Return what runs the model at `path`, called as CALLED says, on the CPU with a provider that takes such knobs."""
    known = {knob.name: knob for knob in PROVIDERS["cuda"].knobs}
    ways = [replace(known[name], scope=Scope.CALL, needs=None) for name in _KNOBS]
    loaded = ort.load("cpu")
    runtime = replace(loaded, provider=replace(loaded.provider, knobs=(*loaded.provider.knobs, *ways)))
    settings = Settings.of({**CALLED[how], "graph_optimization_level": level})
    return assemble(runtime, SessionSpec(str(path), "cpu", settings, shapes=shapes or {}, pixels=pixels))
