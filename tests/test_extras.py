"""ONNX Runtime's options that are no knobs: what the configuration says of them is what is measured and opened."""

from __future__ import annotations

from pathlib import Path

import pytest

import models
import rtmo_optuna
from rtmo_optuna.engine import ort
from rtmo_optuna.engine.assembly import open_on_host
from rtmo_optuna.engine.session import OnnxRuntimeEngine
from rtmo_optuna.errors import UsageError
from rtmo_optuna.space import configfile
from rtmo_optuna.space.extras import EXTRAS, entries_in, installed_entries
from rtmo_optuna.types.request import Scope
from rtmo_optuna.verbs.prepare import Plan, TuneOptions, plan


def _config(folder: Path, *lines: str) -> Path:
    path = folder / "config.yaml"
    path.write_text("onnx:\n" + "".join(f"  {line}\n" for line in lines), encoding="utf-8")
    return path


def _planned(folder: Path) -> Plan:
    model = models.dense(folder / "m.onnx")
    return plan(TuneOptions(model=model, config=folder / "config.yaml", provider="cpu", output=folder), folder)


def test_they_are_given_to_the_sessions_of_applications(tmp_path: Path) -> None:
    """An attribute, an entry and a text, beside a knob; alone they are settings, too."""
    config = _config(
        tmp_path, "enable_mem_reuse: false", "session.dynamic_block_base: 4", "session.disable_prepacking: true"
    )
    options = rtmo_optuna.session_options(config, provider="cpu")
    assert options.enable_mem_reuse is False
    assert options.get_session_config_entry("session.dynamic_block_base") == "4"
    assert options.get_session_config_entry("session.disable_prepacking") == "1"
    rtmo_optuna.open_session(models.dense(tmp_path / "m.onnx"), config, provider="cpu")


def test_they_are_given_to_trials_and_told(tmp_path: Path) -> None:
    """Every session of a study has them, a warning says so, and they belong to its identity."""
    _config(tmp_path, "enable_mem_pattern: false", "enable_mem_reuse: false", "session.inter_op.allow_spinning: 0")
    planned = _planned(tmp_path)
    assert planned.session.extras == {"enable_mem_reuse": False, "session.inter_op.allow_spinning": False}
    assert "enable_mem_reuse" in planned.identity["other options"]
    assert any("enable_mem_reuse=False" in warning for warning in planned.about.warnings)
    engine = OnnxRuntimeEngine(planned.session)
    assert engine.session.get_session_options().enable_mem_reuse is False


def test_without_them_an_identity_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is added where nothing is held; a variable that ONNX Runtime reads is."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    _config(tmp_path, "enable_mem_pattern: false")
    before = _planned(tmp_path).identity
    monkeypatch.setenv("ORT_INTRA_OP_NUM_THREADS", "3")
    after = _planned(tmp_path).identity
    assert "other options" not in before
    assert dict(after.items() - before.items()) == {"ORT_INTRA_OP_NUM_THREADS": "3"}


@pytest.mark.parametrize(("line", "words"), [
    ("enable_mem_reuse: perhaps", "enable_mem_reuse cannot be 'perhaps': it must be true or false"),
    ("session.dynamic_block_base: many", "session.dynamic_block_base cannot be 'many': it must be a whole number"),
    ("session.dynamic_blok_base: 4", "did you mean session.dynamic_block_base?"),
    ("session.intra_op.allow_spining: 0", "did you mean session.intra_op.allow_spinning?"),
])  # fmt: skip
def test_mistakes_are_told_with_their_place(tmp_path: Path, line: str, words: str) -> None:
    """The value or the name, and the line."""
    with pytest.raises(UsageError) as caught:
        configfile.read(_config(tmp_path, "enable_mem_pattern: false", line), "cpu")
    assert words in str(caught.value)


@pytest.mark.parametrize(("line", "words"), [
    ("session.frobnicate: 1", "'session.frobnicate': did you mean session."),
    ("session.intra_op.pause_after: 1", "session.intra_op.spin"),
    ("ep.cuda.always_fast: 1", "ep.cuda."),
    ("mlas.whatever: 1", "mlas."),
    ("session.execution_mode: 1", "did you mean execution_mode?"),
])  # fmt: skip
def test_what_can_only_be_an_option_and_is_none_is_refused(tmp_path: Path, line: str, words: str) -> None:
    """However far it is from all names, with the nearest ones."""
    with pytest.raises(UsageError, match="line 3, column 3") as caught:
        configfile.read(_config(tmp_path, "enable_mem_pattern: false", line), "cpu")
    assert words in str(caught.value)


def test_keys_that_only_the_installed_version_knows_are_given_on(tmp_path: Path) -> None:
    """As they are written, but for the words for true and false; CUDA's to CUDA alone."""
    (name, other) = ("session.max_shape_override", "session.strict_workspace_verification")
    assert not {name, other} & EXTRAS.keys()
    config = _config(tmp_path, f"{name}: x:1", f"{other}: yes", "ep.cuda.fpa_intb_gemm: 1")
    options = rtmo_optuna.session_options(config, provider="cpu")
    assert options.get_session_config_entry(name) == "x:1"
    assert options.get_session_config_entry(other) == "1"
    assert set(configfile.read(config, "cpu").extras) == {name, other}
    assert "ep.cuda.fpa_intb_gemm" in configfile.read(config, "cuda").extras


def test_keys_that_no_session_is_given_are_told(tmp_path: Path) -> None:
    """Those that write files or log: the file may hold them for others, and a warning says that they are left out."""
    _config(tmp_path, "enable_mem_pattern: false", "session.log_severity_level: 1", "ep.context_enable: 0")
    planned = _planned(tmp_path)
    assert not planned.session.extras
    told = next(warning for warning in planned.about.warnings if "No session here has these" in warning)
    assert told.endswith("session.log_severity_level, ep.context_enable.")


def test_what_the_library_holds_is_read_without_loading_it(tmp_path: Path) -> None:
    """Whole strings only; where there is no library, or an empty one, nothing is known of it."""
    library = tmp_path / "capi" / "onnxruntime_pybind11_state.so"
    library.parent.mkdir()
    assert entries_in([tmp_path, tmp_path / "gone"]) == frozenset()
    library.write_bytes(b"")
    assert entries_in([tmp_path]) == frozenset()
    library.write_bytes(b"\0session.alone\0session.other\0obsession.three\0ep.conteH3\x89session.\0")
    assert entries_in([tmp_path]) == {"session.alone", "session.other"}


def test_the_installed_library_tells_its_keys() -> None:
    """Nearly all of the table; one is built from pieces."""
    known = {name for name, extra in EXTRAS.items() if extra.scope is Scope.ENTRY}
    assert len(known & installed_entries()) >= 0.9 * len(known)


def test_the_part_on_the_host_has_those_of_the_session(tmp_path: Path) -> None:
    """One thread still, and nothing of another provider's."""
    config = _config(
        tmp_path, "enable_mem_reuse: false", "session.intra_op_thread_affinities: 1;2", "gpu_mem_limit: 1000"
    )
    extras = configfile.read(config, "cuda").extras
    session = open_on_host(str(models.dense(tmp_path / "m.onnx")), extras)
    options = session.get_session_options()
    assert options.enable_mem_reuse is False
    assert options.get_session_config_entry("session.intra_op_thread_affinities") == "1;2"
    assert options.intra_op_num_threads == 1
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_a_value_that_the_runtime_refuses_ends_the_plan(tmp_path: Path) -> None:
    """The first look opens a session with them, before anything is measured."""
    _config(tmp_path, "session.intra_op_thread_affinities: nonsense", "intra_op_num_threads: 2")
    with pytest.raises(UsageError, match=r"(?i)affinit"):
        _planned(tmp_path)


def test_those_of_the_gpu_stay_out_of_the_cpu(tmp_path: Path) -> None:
    """A provider's options go to that provider alone."""
    config = _config(tmp_path, "gpu_mem_limit: 8589934592", "enable_mem_reuse: false")
    assert configfile.read(config, "cuda").extras == {"gpu_mem_limit": 8589934592, "enable_mem_reuse": False}
    assert configfile.read(config, "cpu").extras == {"enable_mem_reuse": False}


@pytest.mark.parametrize(("line", "expected"), [
    ("graph_optimization_level: 99", {}),
    ("graph_optimization_level: 1", {"graph_optimization_level": "ORT_ENABLE_BASIC"}),
    ("graph_optimization_level: 3", {"graph_optimization_level": "ORT_ENABLE_LAYOUT"}),
    ("graph_optimization_level: ORT_ENABLE_LAYOUT", {"graph_optimization_level": "ORT_ENABLE_LAYOUT"}),
    ("execution_mode: 0", {}),
    ("execution_mode: 1", {"execution_mode": "ORT_PARALLEL"}),
])  # fmt: skip
def test_enumerations_may_be_numbers(tmp_path: Path, line: str, expected: dict[str, str]) -> None:
    """As ONNX Runtime's own enumerations count; the level between is taken though it is not searched."""
    config = _config(tmp_path, line)
    assert configfile.read(config, "cpu").settings.to_plain() == expected
    rtmo_optuna.open_session(models.dense(tmp_path / "m.onnx"), config, provider="cpu")


def test_every_attribute_of_the_table_exists() -> None:
    """SessionOptions of the installed ONNX Runtime has what the table sets."""
    options = ort.load("cpu").ort.SessionOptions()
    assert all(hasattr(options, name) for name, extra in EXTRAS.items() if extra.scope is Scope.SESSION)
