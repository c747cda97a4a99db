"""Arrays in files that are small and mean much, or claim what they do not hold: refused at once, in little memory."""

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

MEGABYTE = bytes(2**20)
_PROGRAM = """
import json, re, sys, time
from pathlib import Path
from rtmo_optuna.engine.inputs.inputs import prepare
from rtmo_optuna.errors import UsageError
from rtmo_optuna.types.request import TensorSpec
begun, said = time.process_time(), "accepted"
try:
    prepare([TensorSpec("x", "tensor(float)", ("n", 4))], source=Path(sys.argv[1]), shapes={}, scale=1.0,
            target=Path("out.npz"))
except UsageError as error:
    said = str(error)
most = int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text()).group(1))
print(json.dumps([time.process_time() - begun, most >> 10, said]))
"""


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
def test_a_bomb_is_refused_at_once(case: str, tmp_path: Path) -> None:
    """In two seconds of one core and 200 MB, with the file and the reason."""
    name, write, why = CASES[case]
    write(tmp_path / name)
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30)),
    )
    spent_s, megabytes, said = json.loads(ended.stdout or "[]") or pytest.fail(ended.stderr)
    assert said.startswith(f"{name} cannot be read (")
    assert re.search(why, said), said
    assert len(said) < 500
    assert spent_s < 2
    assert megabytes < 200


def test_what_follows_an_array_in_its_file_is_passed_over(tmp_path: Path) -> None:
    """As NumPy does: several arrays may have been saved into one."""
    with (tmp_path / "two.npy").open("wb") as file:
        np.save(file, np.ones((2, 4), np.float32))
        np.save(file, np.zeros(3))
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, "two.npy"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(ended.stdout)[2] == "accepted"
