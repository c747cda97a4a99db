"""How often `monitor` finds a planted slow-down, and how often it claims one where there is none.

    python benchmarks/bench_monitor.py --slow 10 --fine 20 --output monitor.json

Whole checks in real child processes of the scripted engine, whose latency is the promised one, or `--factor` times as
much, with a planted spread between processes (`--between`) and between calls.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rtmo_optuna.machine.host import host
from rtmo_optuna.types.request import EngineKind
from rtmo_optuna.verbs.monitor import Health, check
from rtmo_optuna.verbs.prepare import TuneOptions

PROMISED_MS = 4.0


def checked(factor: float, between: float) -> Health:
    """Return what a check says of a model that takes `factor` times what was promised."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = {"base_ms": PROMISED_MS * factor, "between": between, "within": 0.02}
        (folder / "script.json").write_text(json.dumps(script), encoding="utf-8")
        info = f"{{provider: cpu, latency_ms: {PROMISED_MS}}}"
        text = f"onnx:\n  enable_mem_pattern: false\n  benchmark_info: {info}\n"
        (folder / "config.yaml").write_text(text, encoding="utf-8")
        options = TuneOptions(folder / "script.json", folder / "config.yaml", engine=EngineKind.SCRIPTED)
        return check(options, lambda _event: None)


def main() -> None:
    """Run the checks and print what they said."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slow", type=int, default=10, help="checks of a slower model; default: %(default)s")
    parser.add_argument("--fine", type=int, default=20, help="checks of one that is not; default: %(default)s")
    parser.add_argument("--factor", type=float, default=1.15, help="default: %(default)s")
    parser.add_argument("--between", type=float, default=0.02, help="spread between processes; default: %(default)s")
    parser.add_argument("--output", type=Path, help="JSON file")
    args = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for name, factor, count in (("slow", args.factor, args.slow), ("fine", 1.0, args.fine)):
        found[name] = []
        for _ in range(count):
            told = checked(factor, args.between)
            kept = {"slower": told.slower, "ratio": told.ratio, "low": told.low, "high": told.high}
            found[name].append({**kept, "processes_ms": told.processes_ms})
            print(f"{name}: {kept}, {len(told.processes_ms)} processes", flush=True)
        claimed = sum(one["slower"] for one in found[name])
        print(f"{name}, {factor:g} times what was promised: slower in {claimed} of {count}")
    if args.output:
        about = {"cpu": host().cpu, "cores": host().cores, "factor": args.factor, "between": args.between}
        args.output.write_text(json.dumps({**about, **found}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
