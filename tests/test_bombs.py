"""YAML that is small and means much: refused at once, in little memory."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

_HEAD = "provider: cpu\nknobs: "
_LAUGHS = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]\n" for n in range(40))
_MERGES = "".join(f"m{n}: &m{n} {{<<: [{f'*m{n - 1}, *m{n - 1}' if n else '&k {a: 1}'}]}}\n" for n in range(60))
_WIDE = f"m: &m {{{', '.join(f'k{n}: 1' for n in range(3000))}}}\n" + "".join(
    f"n{n}: {{<<: *m}}\n" for n in range(1500)
)
_CHAIN = "m0: &m0 {a: 1}\n" + "".join(f"m{n}: &m{n} {{<<: *m{n - 1}}}\n" for n in range(1, 1500))
_LONG = "? " + "k" * 200_000 + "\n:\n" + "".join(f"  k{n}: {{a: 1}}\n" for n in range(1500))

DEFINITIONS = {
    "aliases in a knob": f"{_LAUGHS}provider: cpu\nknobs: *a39\n",
    "aliases in aliases": f"x: &x {{y: &y [1, 2]}}\n{_LAUGHS}{_HEAD}{{enable_mem_pattern: *a39}}\nbudget: *a39\n",
    "aliases in the first key": f"provider: {{a: &a [1]}}\n{_LAUGHS}",
    "aliases in a section": "provider: &a0 [x]\n"
    + "".join(f"k{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    + "budget: *a29\n",
    "itself": f"{_HEAD}&k {{enable_mem_pattern: *k}}\nbudget: *k\n",
    "ten megabytes": _HEAD + "{a: 1}\n" + "#" * 10_000_000,
    "many values": f"{_HEAD}[{'1, ' * 300_000}]",
    "deep": "[" * 100_000,
    "deep blocks": "- " * 400_000,
}
CONFIGURATIONS = {
    "merges of merges": _MERGES,
    "merges of merges of a knob": "k: &k {enable_mem_pattern: true}\n" + _MERGES.replace("&k {a: 1}", "*k"),
    "one wide mapping, merged everywhere": _WIDE,
    "a chain of merges": _CHAIN,
    "a long key above many": _LONG,
    "aliases": _LAUGHS,
    "anchors and aliases": "".join(f"- &a{n} 1\n- *a{n}\n" for n in range(30_000)),
    "many values": f"a: [{'1, ' * 300_000}]",
    "deep": "[" * 100_000,
    "ten megabytes": "a: 1\n" + "#" * 10_000_000,
}
_PROGRAM = """
import re, sys, time
from pathlib import Path
from rtmo_optuna.errors import UsageError
from rtmo_optuna.space import configfile, definition
begun, said = time.process_time(), "accepted"
try:
    if sys.argv[1] == "definition":
        definition.load(Path("bomb.yaml"), samplers=["gp"])
    else:
        configfile.read(Path("bomb.yaml"), "cpu")
        configfile.read_info(Path("bomb.yaml"))
except UsageError as error:
    said = str(error)[:300]
spent = time.process_time() - begun
most = int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text()).group(1))  # of this program alone
print(f"{spent:.2f} {most >> 10} {said}")
"""
_HARMLESS = {"a long key above many", "aliases"}  # of which a configuration uses nothing


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "case"), [*(("definition", d) for d in DEFINITIONS), *(("configuration", c) for c in CONFIGURATIONS)]
)
def test_a_bomb_is_refused_at_once(kind: str, case: str, tmp_path: Path) -> None:
    """In a second of one core and 200 MB, with the place where there is one."""
    text = (DEFINITIONS if kind == "definition" else CONFIGURATIONS)[case]
    (tmp_path / "bomb.yaml").write_text(text, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, kind],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)),
    )
    spent, megabytes, said = ended.stdout.split(maxsplit=2)
    assert float(spent) < 1, said
    assert int(megabytes) < 200
    if case not in _HARMLESS:
        assert said.startswith("bomb.yaml")
