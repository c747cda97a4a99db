"""Files that are small and mean much, or claim what they do not hold: refused at once, in little memory."""

from __future__ import annotations

import io
import json
import re
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
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
PROGRAM = """
import json, re, sys, time
from pathlib import Path
from rtmo_optuna.engine.inputs.inputs import prepare
from rtmo_optuna.errors import UsageError
from rtmo_optuna.space import configfile, definition
from rtmo_optuna.types.request import TensorSpec
path = Path(sys.argv[2])
begun, said = time.process_time(), "accepted"
try:
    if sys.argv[1] == "definition":
        definition.load(path, samplers=["gp"])
    elif sys.argv[1] == "configuration":
        configfile.read(path, "cpu")
        configfile.read_info(path)
    else:
        prepare([TensorSpec("x", "tensor(float)", ("n", 4))], source=path, shapes={}, scale=1.0, target=Path("out.npz"))
except UsageError as error:
    said = str(error)
spent_s = time.process_time() - begun
most = int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text()).group(1))  # of this program alone
print(json.dumps([spent_s, most >> 10, said]))
"""
_HARMLESS = {"a long key above many", "aliases"}  # of which a configuration uses nothing


def read(folder: Path, kind: str, name: str) -> str:
    """Return what is said of the file, which takes at most a second of one core (arrays: two) and 200 MB."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, name],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)),
    )
    spent_s, megabytes, said = json.loads(ended.stdout or "[]") or pytest.fail(ended.stderr)
    assert spent_s < (2 if kind == "arrays" else 1), said
    assert megabytes < 200
    return str(said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "case"), [*(("definition", d) for d in DEFINITIONS), *(("configuration", c) for c in CONFIGURATIONS)]
)
def test_a_bomb_is_refused_at_once(kind: str, case: str, tmp_path: Path) -> None:
    """With the place where there is one."""
    text = (DEFINITIONS if kind == "definition" else CONFIGURATIONS)[case]
    (tmp_path / "bomb.yaml").write_text(text, encoding="utf-8")
    said = read(tmp_path, kind, "bomb.yaml")
    if case not in _HARMLESS:
        assert said.startswith("bomb.yaml")


MEGABYTE = bytes(2**20)


def _header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": descr, "fortran_order": False, "shape": shape})
    return head.getvalue()


def _zipped(path: Path, head: bytes, megabytes: int = 0, members: int = 1, kind: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", kind, compresslevel=1) as archive:
        for number in range(members):
            with archive.open(f"x{number or ''}.npy", "w", force_zip64=True) as member:
                member.write(head)
                for _ in range(megabytes):
                    member.write(MEGABYTE)


def _sparse(path: Path, head: bytes, gigabytes: int) -> None:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + gigabytes * 2**30)


def _pickled(path: Path) -> None:
    np.savez(path, x=np.array([{"a": 1}], dtype=object))


_LONG_HEADER = b"\x93NUMPY\x02\x00" + (600 * 2**20).to_bytes(4, "little")
CASES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "zeros without end": ("b.npz", lambda p: _zipped(p, _header((1100 * 2**16, 4)), 1100), "1.1 GB, and may take 1"),
    "zeros in many": ("b.npz", lambda p: _zipped(p, _header((100 * 2**16, 4)), 100, 11), "1.1 GB, and may take 1"),
    "members without end": ("b.npz", lambda p: _zipped(p, _header((0, 4)), 0, 1100), "1100 members"),
    "a shape that is not there": ("b.npz", lambda p: _zipped(p, _header((2**40, 4))), "holds 0"),
    "a shape without a number": ("b.npz", lambda p: _zipped(p, _header((10**30, 4)), 1), "holds 1048576"),
    "less than nothing": ("b.npz", lambda p: _zipped(p, _header((-1, 4)), 1), r"\[-1, 4\]"),
    "an endless header": ("b.npz", lambda p: _zipped(p, _LONG_HEADER, 600), "EOF"),
    "packed otherwise": ("b.npz", lambda p: _zipped(p, _header((2**16, 4)), 1, 1, zipfile.ZIP_BZIP2), "packed as"),
    "objects": ("b.npz", _pickled, "holds Python objects"),
    "a sparse file": ("b.npy", lambda p: _sparse(p, _header((2**34, 4)), 256), "256.0 GB, and may take 1"),
    "a sparse header": ("b.npy", lambda p: _sparse(p, _LONG_HEADER, 2), "EOF"),
    "objects alone": ("b.npy", lambda p: np.save(p, np.array([{}], dtype=object)), "holds Python objects"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_arrays_are_refused_at_once(case: str, tmp_path: Path) -> None:
    """With the file and the reason."""
    name, write, why = CASES[case]
    write(tmp_path / name)
    said = read(tmp_path, "arrays", name)
    assert said.startswith(f"{name} cannot be read (")
    assert re.search(why, said), said
    assert len(said) < 500


def test_what_follows_an_array_in_its_file_is_passed_over(tmp_path: Path) -> None:
    """As NumPy does: several arrays may have been saved into one."""
    with (tmp_path / "two.npy").open("wb") as file:
        np.save(file, np.ones((2, 4), np.float32))
        np.save(file, np.zeros(3))
    assert read(tmp_path, "arrays", "two.npy") == "accepted"
