"""The dashboard while a tune goes on, and the report's page, in a browser: nothing fails, nothing asks the network."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rtmo_optuna.show.report import write
from rtmo_optuna.study.library import load_study
from rtmo_optuna.types.measurement import Outcome
from scripted import defined, write_script
from test_show_charts import contested, realistic

PATIENCE_MS = 600_000
"""However busy the machine is."""
MINE = ("http://127.0.0.1:", "file:", "data:", "blob:")
TUNE = "tune script.json --engine scripted --study small.yaml --study-name s --provider cpu --quick --timeout 30m"
CUT = """() => [...document.querySelectorAll("svg")].filter(svg => svg.clientWidth).flatMap(svg => {
  const whole = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < whole.left - 1 || box.right > whole.right + 1 || box.top < whole.top - 1 ||
      box.bottom > whole.bottom + 1;
  }).map(text => text.textContent);
})"""


@contextmanager
def opened(browser: Any, width: int = 1280, scheme: str = "light") -> Iterator[Any]:  # noqa: ANN401 - Playwright's
    """Open an empty page; at the end nothing was wrong with what it showed, and nothing came from elsewhere."""
    page, wrong = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme), []
    page.set_default_timeout(PATIENCE_MS)
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(MINE) else wrong.append(request.url))
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
    assert not wrong


def port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program in `folder`; it is ended at the end."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
    with (folder / f"{arguments[0]}.txt").open("wb") as told:
        command = [sys.executable, "-m", "rtmo_optuna", *arguments]
        with subprocess.Popen(command, cwd=folder, env=environment, stdout=told, stderr=told) as process:
            yield process
            process.terminate()


@pytest.mark.slow
def test_the_dashboard_follows_a_tune(browser: Any, tmp_path: Path) -> None:  # noqa: ANN401 - Playwright's
    """Trials appear by themselves, each with values, a note and files; at last the verdict, our plots, the report."""
    write_script(
        tmp_path,
        base_ms=2.0,
        effects={"enable_cpu_mem_arena=False": 0.5},
        faults=[{"when": {"enable_mem_pattern": False}, "fault": "refuse"}],
    )
    (tmp_path / "small.yaml").write_text(defined("enable_cpu_mem_arena", "enable_mem_pattern"), encoding="utf-8")
    at = f"http://127.0.0.1:{(number := port())}"
    with running(tmp_path, *TUNE.split()) as tune, opened(browser) as page:
        until = time.monotonic() + PATIENCE_MS / 1e3
        while not (tmp_path / "studies" / "studies.db").exists() and time.monotonic() < until:
            time.sleep(0.1)
        with running(tmp_path, "dashboard", "--port", str(number)):
            while b"Listening" not in (tmp_path / "dashboard.txt").read_bytes() and time.monotonic() < until:
                time.sleep(0.1)
            page.goto(f"{at}/dashboard/studies/1/trials", wait_until="commit")
            page.evaluate("window.loaded = 1")
            page.wait_for_selector("text=Trial 0")
            page.wait_for_selector("text=Trial 3")
            assert page.evaluate("window.loaded") == 1
            assert tune.wait(PATIENCE_MS / 1e3) in {0, 4}
            tried = load_study(f"sqlite:///{tmp_path}/studies/studies.db", "s").trials
            failed = next(one.number for one in tried if one.measurement.outcome is Outcome.FAILED)
            for trial, told in ((0, "Measured: "), (failed, "Failed in session build.")):
                page.goto(f"{at}/dashboard/studies/1/trials?numbers={trial}", wait_until="commit")
                page.wait_for_selector(f"text={told}")
                page.wait_for_selector("text=samples.json")
                assert page.evaluate("document.documentElement.scrollWidth") <= 1280
                assert "{" not in page.inner_text("body")
            page.goto(f"{at}/dashboard/studies/1", wait_until="commit")
            page.wait_for_selector("text=Race of")
            page.wait_for_selector("text=report.html")
            assert len(page.query_selector_all(".js-plotly-plot .scatterlayer .trace path.point")) >= 3
            page.goto(f"{at}/dashboard/studies/1/note", wait_until="commit")
            page.wait_for_selector("text=The dashboard's best trial is number")
            page.goto(at + page.get_attribute("text=The report", "href"), wait_until="commit")
            page.wait_for_selector("h2:has-text('Confirmation')")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a long study with everything in it."""
    return write(contested(realistic()), tmp_path_factory.mktemp("report") / "report.md")[1]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_report_fits_its_screen(browser: Any, report: Path, width: int, scheme: str) -> None:  # noqa: ANN401
    """No text of a plot is cut, and what is wider than the screen scrolls in its own place."""
    with opened(browser, width, scheme) as page:
        page.goto(report.as_uri())
        assert page.evaluate(CUT) == []
        shown = page.evaluate("[...document.querySelectorAll('svg')].filter(svg => svg.clientWidth).length")
        assert shown == len(re.findall(r"<svg ", report.read_text(encoding="utf-8"))) / 2
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}[scheme]
