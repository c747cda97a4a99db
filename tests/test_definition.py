"""Study definitions: the files that ship, friendly spellings, and a complaint with a place for everything else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rtmo_optuna.errors import UsageError
from rtmo_optuna.space import definition
from rtmo_optuna.space.knobs import dimension_table, knob_table
from rtmo_optuna.space.values import parse_value, shown
from rtmo_optuna.types.measurement import GateMode, GateRules
from rtmo_optuna.types.request import Limits, Measuring
from rtmo_optuna.types.subject import StudyDefinition

SAMPLERS = ("auto", "gp", "tpe", "random", "exhaustive")
CUDA = "provider: cuda\nknobs: "
START = f"{CUDA}{{prefer_nhwc: all}}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a test's definition is to be."""
    return tmp_path / "my.yaml"


def load(path: Path, text: str) -> StudyDefinition:
    """Return the definition that `text` stands for."""
    path.write_bytes(text.encode())
    return definition.load(path, SAMPLERS)


def test_everything_that_can_be_said(path: Path) -> None:
    """Each key of the format arrives in its field, and what is not said is the default."""
    text = """
provider: CUDA
knobs:
  cudnn_conv_algo_search: ALL
  gpu_mem_limit_gb: [none, 4, 2.5, 90%]
  tunable_op: [off, on, on+tuning]
fixed: &fixed
  use_tf32: on
  arena_extend_strategy: ksameasrequested
objective: p99
sampler: random
budget: {trials: 12, timeout_s: 90.5}
pruning: {ratio: 2}
measuring: {warmup_s: 0, warmup_calls: 0, warmup_exact: true, windows_min: 3, windows_max: 3, runs: 50}
limits: {build_s: 30}
"""
    assert load(path, text) == StudyDefinition(
        name="my",
        provider="cuda",
        knobs={
            "cudnn_conv_algo_search": None,
            "gpu_mem_limit_gb": (None, 4, 2.5, "90%"),
            "tunable_op": ("off", "on", "on+tuning"),
        },
        fixed={"use_tf32": True, "arena_extend_strategy": "kSameAsRequested"},
        objective="p99",
        sampler="random",
        trials=12,
        timeout_s=90.5,
        prune_ratio=2.0,
        measuring=Measuring(warmup_s=0, warmup_calls=0, warmup_exact=True, windows_min=3, windows_max=3, runs=50),
        limits=Limits(build_s=30),
    )
    assert load(path, "\ufeff" + START + "fixed:\nbudget:\n") == StudyDefinition("my", "cuda", {"prefer_nhwc": None})


_SPELLINGS: Mapping[tuple[str, str], Mapping[Any, tuple[object, ...]]] = {
    ("cuda", "prefer_nhwc"): {
        True: (True, "true", "True", "YES", "on", 1, "1"),
        False: (False, "false", "No", "off", 0, "0"),
    },
    ("cuda", "graph_optimization_level"): {
        "ORT_ENABLE_ALL": ("all", "ALL", "enable_all", "ort_enable_all"),
        "ORT_DISABLE_ALL": ("disable_all", "ORT_DISABLE_ALL"),
        "ORT_ENABLE_BASIC": (" basic ",),
    },
    ("cuda", "gpu_mem_limit_gb"): {
        None: (None, "none", "null", 0, "0", 0.0, "0.0"),
        4: (4, "4", 4.0, "4.0"),
        "90%": ("90%",),
        6.5: (6.5, "6.5"),
        24: (24, "24"),
    },
    ("cpu", "execution_mode"): {"ORT_PARALLEL": ("parallel", "Ort_Parallel")},
    ("cpu", "intra_op_num_threads"): {0: (0, "0", "00"), 3: (3, "3", 3.0), 32: ("32",)},
}


@pytest.mark.parametrize(("provider", "name"), list(_SPELLINGS))
def test_friendly_spellings(provider: str, name: str) -> None:
    """A value and its texts are one, of the type that the table has."""
    for value, spellings in _SPELLINGS[provider, name].items():
        for spelling in spellings:
            parsed = parse_value(knob_table(provider)[name], spelling)
            assert (parsed, type(parsed)) == (value, type(value)), spelling


@pytest.mark.parametrize(("provider", "name", "raw", "words"), [
    ("cuda", "prefer_nhwc", "maybe", r"prefer_nhwc cannot be 'maybe'\. Known: false, true\.$"),
    ("cuda", "prefer_nhwc", None, "prefer_nhwc cannot be 'none'"),
    ("cuda", "cudnn_conv_algo_search", "heuristics", r"'heuristics'\. Did you mean 'HEURISTIC'\?$"),
    ("cuda", "graph_optimization_level", "bassic", r"Did you mean 'ORT_ENABLE_BASIC'\?$"),
    ("cuda", "gpu_mem_limit_gb", -1, "cannot be '-1'"),
    ("cuda", "gpu_mem_limit_gb", "much", r"Known: none, 4, 8, 16, 90%, or another number\.$"),
    ("cuda", "gpu_mem_limit_gb", "80%", r"Did you mean '90%'\?$"),
    ("cuda", "gpu_mem_limit_gb", float("inf"), "cannot be 'inf'"),
    ("cuda", "gpu_mem_limit_gb", "9" * 5000, "cannot be '9"),
    ("cpu", "intra_op_num_threads", 2.5, r"Known: 0, 1, 2, 4, 8, 16, 32, or another whole number\.$"),
    ("cpu", "intra_op_num_threads", True, "cannot be 'true'"),
])  # fmt: skip
def test_other_values_are_refused_with_the_nearest(provider: str, name: str, raw: object, words: str) -> None:
    """The sentence names the knob, what was given, and what could have been meant."""
    with pytest.raises(UsageError, match=words):
        parse_value(knob_table(provider)[name], raw)


_COMPLAINTS = {
    "an empty file": ("", "line 1, column 1: the file is empty"),
    "comments only": ("# a\n\n", "line 1, column 1: the file is empty"),
    "no mapping": ("- 1\n", "line 1, column 1: this must be a mapping of keys, not a list"),
    "no YAML": ("a: b: c\n", r"line 1, column 5: this is not YAML: mapping values are not allowed here\.$"),
    "a control character": ("a: 1\nb: \x07", "line 2, column 4: this is not YAML: special characters are not allowed"),
    "an impossible escape": ('a: "\\UFFFFFFFF"', "line 1, column 1: this is not YAML: an escape stands for no"),
    "depth": ("[" * 9000, "line 1, column [0-9]+: this is nested too deeply"),
    "two documents": (START + "---\na: 1\n", "line 3, column 1: this is not YAML: expected a single document"),
    "an unknown alias": ("provider: *a\n", "line 1, column 11: this is not YAML: found undefined alias 'a'"),
    "a tag of Python": ("provider: !!python/name:os.system\n", "line 1, column 11: the tag !!python/name:os.system"),
    "a tag deep down": (START + "fixed: {use_tf32: !mine on}\n", "line 3, column 19: the tag !mine has no meaning"),
    "a key that is a list": ("? [a]\n: 1\n", "line 1, column 3: a key must be a name, not a list"),
    "a key twice": (START + "provider: cpu\n", "line 3, column 1: the key 'provider' is here a second time"),
    "a knob twice": ("provider: cpu\nknobs:\n  execution: all\n  execution: all\n", "line 4, column 3: the key 'exec"),
    "an unknown key": (
        START + "objektive: latency\n",
        r"line 3, column 1: unknown key 'objektive'\. .+ 'objective'\?$",
    ),
    "no provider": ("knobs: {}\n", "line 1, column 1: the key 'provider' is missing"),
    "no knobs": ("provider: cpu\n", "line 1, column 1: the key 'knobs' is missing"),
    "an empty mapping of knobs": ("provider: cpu\nknobs:\n", "line 2, column 7: there is no knob to search here"),
    "a list of knobs": ("provider: cpu\nknobs: [execution]\n", "line 2, column 8: this must be a mapping of knobs"),
    "an unknown provider": (
        "provider: vulkan\nknobs: {}\n",
        r"line 1, column 11: .*'vulkan'\. Known: cuda, cpu, openvino, host, tensorrt_rtx\.$",
    ),
    "a provider that is a list": ("provider: [cpu]\nknobs: {}\n", "line 1, column 11: this must be a single value"),
    "an unknown knob": (
        "provider: cuda\nknobs:\n  prefer_nwhc: all\n",
        r"line 3, column 3: unknown knob 'prefer_nwhc'\. Did you mean 'prefer_nhwc'\?$",
    ),
    "another provider's knob": (f"{CUDA}{{execution: all}}\n", "line 2, column 9: unknown knob 'execution'"),
    "a part of a combined dimension": (
        "provider: cuda\nknobs: {tunable_op_enable: all}\n",
        "line 2, column 9: 'tunable_op_enable' is searched as a part of 'tunable_op': name that instead",
    ),
    "an unknown choice": (
        "provider: cuda\nknobs:\n  cudnn_conv_algo_search: [DEFAULT, HEURISTICS]\n",
        r"line 3, column 37: cudnn_conv_algo_search cannot be 'HEURISTICS'\. Did you mean 'HEURISTIC'\?$",
    ),
    "an unknown choice of several knobs": (
        "provider: cuda\nknobs: {tunable_op: [off, on_tuning]}\n",
        r"line 2, column 27: tunable_op cannot be 'on_tuning'\. Did you mean 'on\+tuning'\?$",
    ),
    "a choice that is a list": (f"{CUDA}{{use_tf32: [[on]]}}\n", "line 2, column 20: this must be a single"),
    "a choice twice": (f"{CUDA}{{use_tf32: [on, 1]}}\n", "line 2, column 24: the choice true is named twice"),
    "no choice": (f"{CUDA}{{use_tf32: []}}\n", "line 2, column 19: there is nothing to choose between"),
    "one choice": (f"{CUDA}{{use_tf32: [on]}}\n", "line 2, column 19: there is nothing to choose between"),
    "a value for a list": (f"{CUDA}{{use_tf32: on}}\n", "line 2, column 19: this must be 'all' or a list of"),
    "searched and fixed": (START + "fixed: {prefer_nhwc: on}\n", "line 3, column 22: 'prefer_nhwc' is both fixed and"),
    "searched among others and fixed": (
        "provider: cpu\nknobs: {execution: all}\nfixed: {inter_op_num_threads: 2}\n",
        "line 3, column 31: 'inter_op_num_threads' is both fixed and searched",
    ),
    "an unknown fixed knob": (START + "fixed: {use_tf23: on}\n", r"line 3, column 9: unknown knob .+ 'use_tf32'\?$"),
    "a fixed list": (START + "fixed: {use_tf32: [on]}\n", "line 3, column 19: this must be a single value, not a list"),
    "fixed without meaning": (
        START + "fixed: {tunable_op_tuning_enable: on}\n",
        "line 3, column 35: 'tunable_op_tuning_enable' means nothing unless 'tunable_op_enable' is fixed at true",
    ),
    "an unknown objective": (START + "objective: latencies\n", r"line 3, column 12: .*'latencies'\. .*'latency'\?$"),
    "an unknown sampler": (
        START + "sampler: grid\n",
        r"line 3, column 10: .*'grid'\. Known: auto, gp, tpe, random, exhaustive\.$",
    ),
    "an unknown key in a section": (START + "budget: {trails: 4}\n", r"line 3, column 10: unknown key .+ 'trials'\?$"),
    "windows at odds": (START + "measuring: {windows_max: 2}\n", "line 3, column 12: windows_min is 4, more than"),
}


@pytest.mark.parametrize("case", list(_COMPLAINTS))
def test_complaints_name_file_line_and_column(case: str, path: Path) -> None:
    """One sentence that begins with the place."""
    text, words = _COMPLAINTS[case]
    with pytest.raises(UsageError, match=words) as raised:
        load(path, text)
    assert str(raised.value).startswith(f"{path}, line ")


@pytest.mark.parametrize(("section", "name", "bad"), [
    ("budget", "trials", ["many", "0", "-1", "2.5", "true", "~", "[1]", "9" * 5000, "10000000000"]),
    ("budget", "timeout_s", ["soon", "0", "-1", ".nan", ".inf", "1e400"]),
    ("pruning", "ratio", ["1", "0.5", "x"]),
    ("measuring", "warmup_s", ["-0.1"]),
    ("measuring", "warmup_calls", ["-1", "1.5"]),
    ("measuring", "warmup_exact", ["1", "maybe", "~"]),
    ("measuring", "window_calls", ["0"]),
    ("measuring", "window_s", ["0"]),
    ("measuring", "precision", ["0", "1"]),
    ("measuring", "runs", ["0", "few"]),
    ("limits", "build_s", ["0", "long"]),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(section: str, name: str, bad: list[str], path: Path) -> None:
    """Each at its own place, by its name."""
    column = len(f"{section}: {{{name}: ") + 1
    for text in bad:
        with pytest.raises(UsageError, match=f"line 3, column {column}: ({name} must be|this must be a single value)"):
            load(path, f"{START}{section}: {{{name}: {text}}}\n")


def test_aliases_are_fine(path: Path) -> None:
    """One list may serve two knobs; a mapping inside itself is answered, not followed."""
    study = load(path, "provider: cuda\nknobs:\n  prefer_nhwc: &both [on, off]\n  use_tf32: *both\n")
    assert study.knobs == {"prefer_nhwc": (True, False), "use_tf32": (True, False)}
    with pytest.raises(UsageError, match="line 2, column 8: this must be 'all' or a list of choices"):
        load(path, "provider: cuda\nknobs: &k {use_tf32: *k}\n")


def test_no_runs_may_be_said_in_words(path: Path) -> None:
    """`none` and null both mean that the precision decides."""
    for text in ("none", "~", "null", "None"):
        assert load(path, f"{START}measuring: {{runs: {text}}}\n").measuring.runs is None


def test_what_cannot_be_read_is_refused(path: Path) -> None:
    """A missing file, a folder, and bytes that are not UTF-8."""
    with pytest.raises(UsageError, match=r"my\.yaml cannot be read: No such file"):
        definition.load(path, SAMPLERS)
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        definition.load(path.parent, SAMPLERS)
    path.write_bytes(b"provider: cpu\nknobs: \xff\n")
    with pytest.raises(UsageError, match=r"my\.yaml, line 2, column 8: byte 0xff is not UTF-8"):
        definition.load(path, SAMPLERS)


def test_a_definition_is_found_by_name_or_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of those that ship win over files of the folder one is in; paths are taken as they are."""
    monkeypatch.chdir(path.parent)
    Path("cuda").mkdir()
    assert definition.find("cuda") in definition.shipped()
    path.touch()
    assert definition.find("my.yaml") == Path("my.yaml")
    assert definition.find(str(path)) == path


SHIPPED = {
    **{name: name for name in ("cpu", "cuda", "host", "openvino", "tensorrt_rtx")},
    **dict.fromkeys(("cuda-full", "guide-grid", "half", "realtime", "shortlived", "throughput"), "cuda"),
}
"""What ships, and for which provider."""


@pytest.mark.parametrize(
    ("name", "end"), [("cud", r"\. Did you mean 'cuda'\?"), ("zzz.yaml", r"\."), ("a" * 999, r"\.")]
)
def test_unknown_names_are_answered_with_those_that_ship(name: str, end: str) -> None:
    """All of them, and the nearest where one is near."""
    with pytest.raises(UsageError, match=f"'{name}': .* are {', '.join(sorted(SHIPPED))}{end}$"):
        definition.find(name)


def test_all_that_ship_can_be_loaded() -> None:
    """Each is valid, and named as its file."""
    loaded = {path.stem: definition.load(path, SAMPLERS) for path in definition.shipped()}
    assert {name: study.provider for name, study in loaded.items()} == SHIPPED
    assert [study.name for study in loaded.values()] == list(loaded)
    rates = {name: study.measuring.rate_hz for name, study in loaded.items() if study.measuring.rate_hz}
    assert rates == {"realtime": 30}


UNTOLD = {"unequal", "reported"}  # whole numbers are equal or not, and what is only warned of is no threshold


def test_the_documented_defaults_are_the_defaults() -> None:
    """The head of cuda.yaml tells the values that hold where nothing is said."""
    text = definition.find("cuda").read_text(encoding="utf-8").partition("provider: cuda")[0]
    default = StudyDefinition("", "cuda", {})
    gate = {name: getattr(default.gate, name) for name in type(default.gate).__slots__ if name not in UNTOLD}
    records = [{name: getattr(r, name) for name in type(r).__slots__} for r in (default.measuring, default.limits)]
    for record in (*records, gate):
        for name, value in record.items():
            written = shown(int(value) if isinstance(value, float) and value.is_integer() else value)
            assert f"{name}: {written}" in " ".join(text.split()), name
    assert f"trials: {default.trials}, timeout_s: {default.timeout_s:g}" in text
    assert f"ratio: {default.prune_ratio:g}" in text


def test_cuda_full_searches_every_dimension() -> None:
    """A knob that is added to the table is searched by the definition that promises all."""
    searched = {path.stem: definition.load(path, SAMPLERS).knobs.keys() for path in definition.shipped()}
    assert searched["cuda-full"] == dimension_table("cuda").keys()


def test_batch_constraints_and_gate_are_read(path: Path) -> None:
    """Each goes where it belongs, and what is not said keeps its default."""
    more = "batch: 8\nconstraints: {max_memory_gb: 2.5}\ngate: {mode: Elementwise, keypoint_px: 3}\n"
    study = load(path, START + more)
    assert (study.batch, study.max_memory_gb) == (8, 2.5)
    assert study.gate == GateRules(mode=GateMode.ELEMENTWISE, keypoint_px=3.0)


@pytest.mark.parametrize(("provider", "line", "told"), [
    ("cuda", "batch: 0", "batch must be a whole number of at least 1, not '0'"),
    ("cuda", "gate: {mode: strict}", "mode must be one of auto, off, elementwise, detections, not 'strict'"),
    ("cuda", "gate: {overlap: 2}", "overlap must be a share between 0 and 1, not '2'"),
    ("cuda", "constraints: {max_memory: 2}", "unknown key 'max_memory'. Did you mean 'max_memory_gb'?"),
    ("cpu", "constraints: {max_memory_gb: 2}", "max_memory_gb is the GPU's memory, so it needs the provider cuda"),
])  # fmt: skip
def test_wrong_batch_constraints_and_gate_are_told(path: Path, provider: str, line: str, told: str) -> None:
    """With the place."""
    with pytest.raises(UsageError, match=f"my.yaml, line 3.*{re.escape(told)}"):
        load(path, f"provider: {provider}\nknobs: {{graph_optimization_level: all}}\n{line}\n")
