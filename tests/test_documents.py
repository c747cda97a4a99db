"""The documents are true where a program can tell: every module has its place, and what is cited exists."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from rtmo_optuna.providers.table import PROVIDERS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rtmo_optuna"
TEXTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "docs/**/*.md")
CODE = ("rtmo_optuna/**/*.py", "scripts/**/*.py", "benchmarks/*.*", "examples/*.py", "tests/*.py", "studies/*.yaml")

ROOMS = "|".join(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
FILE = re.compile(
    rf"(?<![\w/.<])((?:{ROOMS}|rtmo_optuna|docs|benchmarks|scripts|tests|examples|studies)/[\w./*?-]*\w"
    r"\.(?:py|md|sh|yaml|json|png|txt))(?:, ([A-Z][^).;:]*))?"
)
MODULE = re.compile(rf"`((?:{ROOMS})/\w[\w/]*)(?:\.\w+)?`")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
HEADING = re.compile(r"^(?:#+ |\*\*)(.+?)(?:\.?\*\*|$)", re.MULTILINE)

THEIRS = {"docs/OperatorKernels.md"}
"""Cited of ONNX Runtime's repository, and said so there."""


@cache
def headings(document: Path) -> tuple[str, ...]:
    """Return the headings of a Markdown document, and what stands in bold at the beginning of a line."""
    return tuple(HEADING.findall(document.read_text("utf-8")))


def missing(path: Path) -> Iterator[str]:
    """Yield what the file cites and is not there.

    Cited are files by their paths in the project or in the package, headings after them ("docs/design.md, Measuring"),
    modules in backticks by their paths in the package, and the targets of links.
    """
    text = re.sub(r"\n[#\s]*", " ", path.read_text("utf-8"))
    for name, heading in FILE.findall(text):
        found = [file for folder in (ROOT, PACKAGE) for file in folder.glob(name)]
        if not found and name not in THEIRS:
            yield name
        if found and heading and found[0].suffix == ".md" and not heading.startswith(headings(found[0])):
            yield f"{name}, {heading}"
    for name in MODULE.findall(text):
        if not (PACKAGE / name).is_dir() and not (PACKAGE / f"{name}.py").exists():
            yield name
    if path.suffix == ".md":
        yield from (link for link in LINK.findall(text) if "://" not in link and not (path.parent / link).exists())


def test_what_is_cited_exists() -> None:
    """In the documents, and in the docstrings and comments of all code."""
    files = [file for pattern in (*TEXTS, *CODE) for file in ROOT.glob(pattern)]
    assert len(files) > len(TEXTS) + len(CODE)
    cited = {str(file.relative_to(ROOT)): list(missing(file)) for file in files}
    assert {name: gone for name, gone in cited.items() if gone} == {}


def test_the_table_of_floors_names_every_module_on_its_floor() -> None:
    """Rows are: floor, room, modules (`*`: the others of the room), duty. Floors are the layers of import-linter."""
    section = (ROOT / "docs/design.md").read_text("utf-8").split("\n## Floors\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d) \|(.*?)\| `(.*?)` \|", section, re.MULTILINE)
    named = {
        f"{room.strip(' `')}/{module}".strip("/"): int(floor)
        for floor, room, modules in rows
        for module in modules.split("`, `")
    }
    modules = (path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == ["rtmo_optuna"])
    floors = {room: floor for floor, layer in enumerate(reversed(layers)) for room in layer.split(" | ")}
    wanted = {name: floors[name.split("/")[0]] for name in modules if not name.endswith("__init__")}
    rest = {name: floor for name, floor in wanted.items() if f"{Path(name).parent}/*" in named and name not in named}
    assert {name: floor for name, floor in named.items() if not name.endswith("*")} | rest == wanted


@pytest.mark.parametrize("page", ["docs/guide/knobs.md", "docs/ko/knobs.md"])
def test_the_guide_has_a_paragraph_on_every_knob(page: str) -> None:
    """And on none that is not there."""
    told = re.findall(r"^### (.*)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    assert sorted(told) == sorted({knob.name for one in PROVIDERS for knob in PROVIDERS[one].knobs})


def test_every_page_of_the_guide_is_in_korean_too() -> None:
    """Under the same name, with as many headings of each depth."""
    for page in (ROOT / "docs/guide").glob("*.md"):
        twin = ROOT / "docs/ko" / page.name
        outline = [re.findall(r"^(#+) ", text.read_text("utf-8"), re.MULTILINE) for text in (page, twin)]
        assert outline[0] == outline[1], page.name
