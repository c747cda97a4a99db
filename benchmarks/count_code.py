"""What the package is made of: the figures of docs/design.md, "Before and after", for the working tree and for commits.

    make count
    make count ARGS='603e12a HEAD'

A room is a folder of the package, or a module beside them; an arrow leads from one room to another that it imports. The
floors are as many as rooms of the longest chain of arrows. Imports for types alone count, as they do for import-linter.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tarfile
from collections import Counter
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[1]
PACKAGE = "rtmo_optuna"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Figures:
    """What is told of one revision; `lines` are all of them, and a function's begin with its `def`."""

    modules: int
    lines: int
    lines_of_tests: int
    rooms: int
    floors: int
    arrows_between_rooms: int
    modules_with_one_importer: int
    longest_modules: str
    longest_functions: str
    most_parameters: str


def sources(revision: str | None, folder: str) -> dict[str, str]:
    """Return the text of each Python file in `folder` by its path, of a commit or, for None, of the working tree."""
    if revision is None:
        return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in sorted((ROOT / folder).rglob("*.py"))}
    archive = subprocess.check_output(["git", "archive", revision, folder], cwd=ROOT)  # noqa: S603, S607 - by hand
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = (member for member in tar if member.name.endswith(".py"))
        return {member.name: file.read().decode() for member in members if (file := tar.extractfile(member))}


def module_of(path: str) -> str:
    """Return the dotted name of the module in the file `path`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(tree: ast.Module, modules: frozenset[str]) -> Iterator[str]:
    """Yield which of `modules` a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else node.module for name in below]
        else:
            continue
        yield from (name for name in names if name in modules)


def floors_of(arrows: Mapping[str, set[str]]) -> int:
    """Return how many rooms the longest chain of arrows has. Raises RecursionError where they go round in a circle."""

    @cache
    def height(room: str) -> int:
        return 1 + max((height(other) for other in arrows.get(room, ())), default=0)

    return max(height(room) for room in arrows)


def count(revision: str | None) -> Figures:
    """Return the figures of a commit or, for None, of the working tree."""
    texts = sources(revision, PACKAGE)
    trees = {module_of(path): ast.parse(text) for path, text in texts.items()}
    modules = frozenset(trees)
    uses = {name: set(imported(tree, modules)) - {name, PACKAGE} for name, tree in trees.items() if name != PACKAGE}
    room = {name: name.split(".")[1] for name in uses}
    arrows: dict[str, set[str]] = {one: set() for one in room.values()}
    for name, others in uses.items():
        arrows[room[name]] |= {room[other] for other in others} - {room[name]}
    importers = Counter(other for others in uses.values() for other in others)
    found = [(name, node) for name, tree in trees.items() for node in ast.walk(tree) if isinstance(node, Function)]
    length = {f"{name}.{node.name}": (node.end_lineno or 0) - node.lineno + 1 for name, node in found}
    takes = {f"{name}.{node.name}": len(node.args.args) + len(node.args.kwonlyargs) for name, node in found}
    lines = {module_of(path): text.count("\n") for path, text in texts.items()}
    return Figures(
        modules=len(modules),
        lines=sum(lines.values()),
        lines_of_tests=sum(text.count("\n") for text in sources(revision, "tests").values()),
        rooms=len(arrows),
        floors=floors_of(arrows),
        arrows_between_rooms=sum(map(len, arrows.values())),
        modules_with_one_importer=sum(number == 1 for number in importers.values()),
        longest_modules=_most(lines),
        longest_functions=_most(length),
        most_parameters=_most(takes),
    )


def _most(figures: Mapping[str, int]) -> str:
    first = sorted(figures, key=figures.__getitem__, reverse=True)[:2]
    return ", ".join(f"{figures[name]} ({name.removeprefix(f'{PACKAGE}.')})" for name in first)


def main() -> None:
    """Print a Markdown table: a row for each figure, a column for each commit and, first, for the working tree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs="*", metavar="COMMIT", help="commits to count beside what lies here")
    wanted = [*parser.parse_args().commits, None]
    told = [count(revision) for revision in wanted]
    print("|", *(f"| {revision or 'here'}" for revision in wanted), "|")
    print("|---" * (len(wanted) + 1) + "|")
    for field in fields(Figures):
        print("|", field.name.replace("_", " "), *(f"| {getattr(figures, field.name)}" for figures in told), "|")


if __name__ == "__main__":
    main()
