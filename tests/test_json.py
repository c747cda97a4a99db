"""What verbs answer machines: real outputs, read back by the records that docs/json.md lists field by field."""

import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from program import ROOT, Program
from rtmo_optuna.codec import decode
from rtmo_optuna.verbs.answers import Planned, Studies, Tuned
from rtmo_optuna.verbs.comparison import Bench
from rtmo_optuna.verbs.doctor import Examination
from rtmo_optuna.verbs.envelope import SCHEMA, answer
from rtmo_optuna.verbs.monitor import Health
from scripted import write_script

KINDS: dict[str, type] = {
    "tune": Tuned,
    "report": Tuned,
    "studies": Studies,
    "plan": Planned,
    "bench": Bench,
    "doctor": Examination,
    "monitor": Health,
}
DEFINITION = """
provider: cpu
knobs: {enable_cpu_mem_arena: all, enable_mem_pattern: all}
measuring: {warmup_s: 0.005, warmup_calls: 2, window_s: 0.01, window_calls: 3, windows_min: 3, windows_max: 4}
"""


def read(printed: str, kind: str) -> Any:  # noqa: ANN401 - a record of that kind
    """Return what was printed as one JSON object; every field of it is one of the record's, and of its type."""
    plain = json.loads(printed)
    envelope = {name: plain.pop(name) for name in answer(kind)}
    assert (envelope["schema"], envelope["kind"]) == (SCHEMA, kind)
    return decode(KINDS[kind], plain)


def records(kind: object) -> set[type]:
    """Return the records that a type is made of."""
    inner = set[type]().union(*map(records, get_args(kind)))
    if isinstance(kind, type) and is_dataclass(kind) and not hasattr(kind, "to_plain"):
        return inner.union({kind}, *(records(hint) for hint in get_type_hints(kind).values()))
    return inner


def test_every_field_is_documented() -> None:
    """Each record has a heading, and below it a row for each field; there is nothing else in the rows."""
    text = (ROOT / "docs/json.md").read_text(encoding="utf-8")
    wanted = {
        record.__name__: [one.name for one in fields(record)] for kind in KINDS.values() for record in records(kind)
    }
    sections = re.findall(r"^## `(\w+)`.*?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert {name: re.findall(r"^\| `(\w+)`", rows, re.MULTILINE) for name, rows in sections} == wanted
    assert all(f"`{kind}`" in text.split("\n## ")[0] for kind in KINDS)


@pytest.mark.slow
def test_verbs_answer_in_one_envelope(tmp_path: Path, program: Program) -> None:
    """A dry run, a tune that has no time for a verdict, its report, the list: each alone on standard output."""
    write_script(tmp_path)
    (tmp_path / "small.yaml").write_text(DEFINITION, encoding="utf-8")
    words = ["tune", "script.json", "--engine", "scripted", "--study", "small.yaml", "--json"]
    assert program(*words, "--dry-run") == 0
    plan = read(program.out, "plan")
    assert (plan.combinations, plan.knobs["enable_mem_pattern"]) == (4, (True, False))
    assert program(*words, "--search-only") == 0
    told = read(program.out, "tune")
    assert (told.study, told.trials, told.config) == (plan.study, 4, None)
    assert Path(told.report).exists()
    assert "search 4/4  measured" in program.err
    assert program("report", told.study, "--json") == 0
    assert read(program.out, "report").benchmark == told.benchmark
    assert program("studies", "--json") == 0
    assert [line.name for line in read(program.out, "studies").studies] == [told.study]


def test_where_a_verb_fails_there_is_no_answer(program: Program) -> None:
    """Standard output is empty, the sentence on standard error, the exit code says what it is."""
    assert program("studies", "--json") == 2
    assert program.out == ""
    assert program.err.startswith("error: There are no studies")


def test_every_verb_shows_examples_and_what_is_installed(program: Program) -> None:
    """Within 80 columns; -h is --help, completion is there, the studies that ship are named."""
    assert program("-h") == 0
    verbs = re.findall(r"^  (\w+) {2,}[A-Z]", program.out.split("Commands:")[1], re.MULTILINE)
    assert "--install-completion" in program.out
    assert len(verbs) >= len({"tune", "bench", "report", "studies", "dashboard"})
    for verb in verbs:
        assert program(verb, "-h") == 0
        assert max(map(len, program.out.splitlines())) <= 80, verb
        assert f"  Examples:\n    rtmo-optuna {verb}" in program.out
        assert verb != "tune" or "cuda-full, guide-grid" in " ".join(program.out.split())
    assert program("--version") == 0
    assert re.match(r"rtmo-optuna  \d+\.\d+\.\d+\nONNX Runtime onnxruntime\S* \d.*\nCUDA +\S+\nGPU +\S", program.out)
