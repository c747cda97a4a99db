"""config.yaml in and out, on real files: what is found, what changes, and that nothing else does."""

from __future__ import annotations

import os
import re
import resource
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from program import there
from rtmo_optuna.errors import UsageError
from rtmo_optuna.space import configfile
from rtmo_optuna.space.values import as_yaml
from rtmo_optuna.types.request import Settings

GUIDE = """\
# The project's settings
models:
  pose_estimation:
    path: "models/rtmo-s.onnx"   # quoted
    sizes: [640,  640]
    onnx:
      # how cuDNN chooses
      cudnn_conv_algo_search: 'EXHAUSTIVE'   # slow start
      gpu_mem_limit_gb: 8
      do_copy_in_default_stream: 1
      execution_mode: ORT_SEQUENTIAL
      benchmark_info:
        gpu_name: "Tesla T4"
        by: me
        optimized_fps: 0   # frames
      # the end of onnx

logging:
    text: >-
      long
      text
"""
COPY = "do_copy_in_default_stream"
SETTINGS = {"cudnn_conv_algo_search": "HEURISTIC", "gpu_mem_limit_gb": None, COPY: True, "prefer_nhwc": True}
INFO = {"gpu_name": "NVIDIA H200", "optimized_fps": 251.3}
GUIDE_AFTER = (
    GUIDE.replace("'EXHAUSTIVE'", "'HEURISTIC'")
    .replace("gb: 8", "gb: null")
    .replace('"Tesla T4"', '"NVIDIA H200"')
    .replace("fps: 0", "fps: 251.3")
    .replace("      # the end", "      prefer_nhwc: true\n      # the end")
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a test's configuration file is to be."""
    return tmp_path / "config.yaml"


def save(path: Path, text: str) -> Path:
    """Write `text` byte for byte."""
    path.write_bytes(text.encode())
    return path


def rewrite(path: Path, text: str, settings: dict[str, Any], info: dict[str, Any], config_path: str = "") -> str:
    """Return what becomes of `text`."""
    found = configfile.read(save(path, text), "cuda", config_path)
    configfile.write(found, settings, info)
    return path.read_bytes().decode()


def test_the_guides_file_is_changed_in_place(path: Path) -> None:
    """Four values and one new key; every other byte stays, and the old file is kept."""
    found = configfile.read(save(path, GUIDE), "cuda")
    assert found.target == "models.pose_estimation.onnx"
    held = {"cudnn_conv_algo_search": "EXHAUSTIVE", "gpu_mem_limit_gb": 8, COPY: True}
    assert found.held == {**held, "execution_mode": "ORT_SEQUENTIAL"}
    assert found.settings == Settings.of({"gpu_mem_limit_gb": 8})
    backup = configfile.write(found, SETTINGS, INFO)
    assert path.read_text(encoding="utf-8") == GUIDE_AFTER
    backup = there(backup)
    assert re.fullmatch(r"config\.yaml\.bak-\d{8}-\d{6}", backup.name)
    assert backup.read_text(encoding="utf-8") == GUIDE
    assert sorted(path.parent.iterdir()) == [path, backup]


def test_what_was_written_is_read_back(path: Path) -> None:
    """Reading gives the settings that were written, defaults among them, and writing them again changes nothing."""
    rewrite(path, GUIDE, SETTINGS, INFO)
    again = configfile.read(path, "cuda")
    assert again.held == {**SETTINGS, "execution_mode": "ORT_SEQUENTIAL"}
    assert again.settings == Settings.of({"cudnn_conv_algo_search": "HEURISTIC", "prefer_nhwc": True})
    before = path.stat()
    assert configfile.write(again, SETTINGS, INFO) is None
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_line_endings_and_a_byte_order_mark_stay(path: Path) -> None:
    """The same change in a file from Windows: only what is new differs, and new lines end alike."""
    text = "\ufeff" + GUIDE.replace("\n", "\r\n")
    assert rewrite(path, text, SETTINGS, INFO) == "\ufeff" + GUIDE_AFTER.replace("\n", "\r\n")


_INFO = "  benchmark_info:\n    gpu: x\n"
_NEW = "  prefer_nhwc: true\n" + _INFO
_CASES = {
    "an empty file": ("", f"onnx:\n{_NEW}"),
    "comments only": ("# mine\n", f"# mine\nonnx:\n{_NEW}"),
    "document markers": ("---\n# mine\n...\n", f"---\n# mine\nonnx:\n{_NEW}...\n"),
    "an empty flow mapping on top": ("{}", f"\nonnx:\n{_NEW}".removesuffix("\n")),
    "no target, and an indentation of four": (
        "a:\n    b: 1",
        "a:\n    b: 1\nonnx:\n    prefer_nhwc: true\n    benchmark_info:\n        gpu: x",
    ),
    "a target that is empty": ("onnx:  # here\n\na: 1\n", f"onnx:  # here\n{_NEW}\na: 1\n"),
    "a target that is null": ("onnx: ~ # here\n", f"onnx: # here\n{_NEW}"),
    "a target that is an empty flow mapping": ("onnx: {}\na: 1\n", f"onnx:\n{_NEW}a: 1\n"),
    "knobs at the top": (
        "prefer_nhwc: off # why\n# end\n", "prefer_nhwc: true # why\nbenchmark_info:\n  gpu: x\n# end\n",
    ),
    "a flow mapping": (
        "onnx: { prefer_nhwc: false, a: [1] } # c\n",
        "onnx: { prefer_nhwc: true, a: [1], benchmark_info: {gpu: x} } # c\n",
    ),
    "flow mappings inside each other": (
        "onnx: {prefer_nhwc: 1, benchmark_info: {}, a: }\n", "onnx: {prefer_nhwc: 1, benchmark_info: {gpu: x}, a: }\n",
    ),
    "null inside a flow mapping": (
        "onnx: {prefer_nhwc: 1, benchmark_info: }\n", "onnx: {prefer_nhwc: 1, benchmark_info: {gpu: x} }\n",
    ),
    "a flow mapping over several lines": (
        "onnx: {\n  a: 1,  # one\n  prefer_nhwc: no,\n}\n",
        "onnx: {\n  a: 1,  # one\n  prefer_nhwc: true, benchmark_info: {gpu: x},\n}\n",
    ),
    "quotes": (
        "onnx:\n  prefer_nhwc: \"0\"\n  benchmark_info: {gpu: 'y'}\n",
        "onnx:\n  prefer_nhwc: \"true\"\n  benchmark_info: {gpu: 'x'}\n",
    ),
    "a value over several lines": (
        "onnx:\n  prefer_nhwc: no\n  benchmark_info:\n    gpu: |\n      a\n      b\n  z: 1\n",
        "onnx:\n  prefer_nhwc: true\n  benchmark_info:\n    gpu: x\n  z: 1\n",
    ),
    "a mapping where a value goes": (
        "onnx:\n  prefer_nhwc: on\n  benchmark_info:\n    gpu:\n      name: a\n    b: 2\n",
        "onnx:\n  prefer_nhwc: on\n  benchmark_info:\n    gpu: x\n    b: 2\n",
    ),
    "a list without indentation where a value goes": (
        f"onnx:\n  prefer_nhwc: on\n{_INFO}".replace(" x", "\n    - a\n    - b"), f"onnx:\n  prefer_nhwc: on\n{_INFO}",
    ),
    "a block of text at the end": (
        "onnx:\n  prefer_nhwc: on\n  a: |\n    t\nz: 1\n", f"onnx:\n  prefer_nhwc: on\n  a: |\n    t\n{_INFO}z: 1\n",
    ),
    "a member of a list": (
        "models:\n- name: a\n- onnx:\n    prefer_nhwc: off\n",
        "models:\n- name: a\n- onnx:\n    prefer_nhwc: true\n    benchmark_info:\n      gpu: x\n",
    ),
    "a knob merged from elsewhere": (
        "base: &b\n  prefer_nhwc: false\nonnx:\n  <<: *b\n  a: 1\n",
        "base: &b\n  prefer_nhwc: false\nonnx:\n  <<: *b\n  a: 1\n  prefer_nhwc: true\n  benchmark_info:\n    gpu: x\n",
    ),
    "a value that is an alias": ("a: &v off\nonnx:\n  prefer_nhwc: *v\n", f"a: &v off\nonnx:\n{_NEW}"),
    "a value with an anchor": (
        "onnx:\n  prefer_nhwc: &v off\nb: *v\nc: *v\n", f"onnx:\n{_NEW}b: &v off\nc: *v\n",
    ),
    "an empty mapping with an anchor": (
        "onnx: &o {}\na: *o\n", "onnx: &o {prefer_nhwc: true, benchmark_info: {gpu: x}}\na: *o\n",
    ),
    "other scalars and long lines": (
        "# é😀\na: 0x1F\nb: 1e3\nc: ~\nd: 'it''s'\ne: yes\nf: 2020-01-01\ng: !mine x\nh: " + "word " * 60 + "\n"
        "onnx: {prefer_nhwc: on, benchmark_info: {gpu: x}}\n",
    )
    * 2,
}  # fmt: skip


@pytest.mark.parametrize("case", list(_CASES))
def test_only_what_must_change_does(case: str, path: Path) -> None:
    """`prefer_nhwc: true` and `gpu: x` are written into files of many layouts, compared character by character."""
    before, after = _CASES[case]
    assert rewrite(path, before, {"prefer_nhwc": True}, {"gpu": "x"}) == after


def test_null_is_never_quoted(path: Path) -> None:
    """Quotes stay around another value, not around none: it would become a text."""
    text = "onnx:\n  gpu_mem_limit_gb: '8'\n  benchmark_info: {g: 1}\n"
    assert rewrite(path, text, {"gpu_mem_limit_gb": 16}, {"g": 1}) == text.replace("8", "16")
    assert rewrite(path, text, {"gpu_mem_limit_gb": None}, {"g": 1}) == text.replace("'8'", "null")


def test_values_are_written_so_that_yaml_reads_them_back(path: Path) -> None:
    """Texts that look like something else are quoted, for readers of YAML 1.1 too; small floats stay floats."""
    info = {
        "date": "2026-01-02",
        "version": "1.31.1",
        "words": ["on", "no", "null", "y", "12e5", "0x1f", "a: b", "a #b", "", " x", "[", "é😀", "a\nb", "90%"],
        "floats": [1e-05, 1e16, -2.5e-07, 3.25],
        "shapes": {"images": "1x3x640x640", "on": None},
        "flag": False,
        "cpu": "Intel(R) Xeon(R) CPU @ 2.20GHz",
    }
    held = yaml.safe_load(rewrite(path, "", {"gpu_mem_limit_gb": "90%"}, info))
    assert held == {"onnx": {"gpu_mem_limit_gb": "90%", "benchmark_info": info}}
    assert as_yaml("HEURISTIC") == "HEURISTIC"
    assert as_yaml("90%") == "90%"


def test_a_target_is_created_where_the_path_says(path: Path) -> None:
    """Below the part of the path that is there, whether its keys have dots or not."""
    text = "models:\n  v1.0:\n    a: 1\nb: 2\n"
    after = "models:\n  v1.0:\n    a: 1\n    x:\n      onnx:\n        prefer_nhwc: true\n        benchmark_info:\n"
    found = rewrite(path, text, {"prefer_nhwc": True}, {"g": 1}, "models.v1.0.x.onnx")
    assert found == after + "          g: 1\nb: 2\n"


def test_the_path_of_a_found_target_leads_back_to_it(path: Path) -> None:
    """Keys with dots and members of lists are no trouble."""
    text = "a: 1\na.b:\n  - c\n  - d.e: {prefer_nhwc: on}\n"
    found = configfile.read(save(path, text), "cuda")
    assert found.target == "a.b.1.d.e"
    assert configfile.read(path, "cuda", found.target).held == {"prefer_nhwc": True}


def test_the_first_mapping_with_a_knob_of_any_provider_is_the_target(path: Path) -> None:
    """In the document's order, depth first; other providers' knobs lead there and are not read."""
    text = "x: {y: {inter_op_num_threads: nonsense, use_tf32: no}, prefer_nhwc: on}\nz: {prefer_nhwc: on}\n"
    found = configfile.read(save(path, text), "cuda")
    assert (found.target, found.held) == ("x", {"prefer_nhwc": True})
    found = configfile.read(save(path, text.replace(", prefer_nhwc: on}\n", "}\n")), "cuda")
    assert (found.target, found.held) == ("x.y", {"use_tf32": False})


def test_merged_knobs_are_held_the_nearest_first(path: Path) -> None:
    """Own keys before merged ones, the first merged mapping before the second, and templates are no targets."""
    text = (
        "a: &a {use_tf32: off, prefer_nhwc: on}\nb: &b\n  <<: {gpu_mem_limit_gb: 4}\n  use_tf32: on\n"
        "onnx:\n  <<: [*a, *b]\n  prefer_nhwc: off\n"
    )
    found = configfile.read(save(path, text), "cuda")
    assert found.target == "onnx"
    assert found.held == {"prefer_nhwc": False, "use_tf32": False, "gpu_mem_limit_gb": 4}


def test_an_alias_stands_for_the_last_anchor_of_its_name(path: Path) -> None:
    """Anchors may be used again; what comes later does not count."""
    text = "a: &v off\nb: &v on\nonnx: {prefer_nhwc: *v}\nc: &v off\n"
    assert configfile.read(save(path, text), "cuda").held == {"prefer_nhwc": True}


def test_two_knobs_that_share_an_anchor_change_apart(path: Path) -> None:
    """The anchor moves past an alias that is written over itself."""
    text = "onnx:\n  prefer_nhwc: &v off\n  use_tf32: *v\n  other: *v\n  benchmark_info: {g: 1}\n"
    after = "onnx:\n  prefer_nhwc: true\n  use_tf32: true\n  other: &v off\n  benchmark_info: {g: 1}\n"
    assert rewrite(path, text, {"prefer_nhwc": True, "use_tf32": True}, {"g": 1}) == after


def test_a_layout_beyond_us_is_left_alone(path: Path) -> None:
    """The new text is read before it replaces the old one; where it would not do, the user gets the settings."""
    found = configfile.read(save(path, "? onnx\n"), "cuda")
    with pytest.raises(UsageError, match=r"config\.yaml is left alone: .* \{prefer_nhwc: true\}"):
        configfile.write(found, {"prefer_nhwc": True}, INFO)
    assert path.read_text(encoding="utf-8") == "? onnx\n"
    assert list(path.parent.iterdir()) == [path]


_MERGED = "line 2, column 7: only other mappings can be merged"
_COMPLAINTS = {
    "no YAML": ("a: [1\nb: }", "", "line 2, column 2: this is not YAML: .+ but got ':'"),
    "tabs": ("a:\n\tb: 1\n", "", r"line 2, column 1: this is not YAML: .*'\\t'"),
    "control characters": ("a: 1\nb: \x00\n", "", "line 2, column 4: this is not YAML: special characters"),
    "an impossible escape": ('a: "\\UFFFFFFFF"\n', "", "line 1, column 1: this is not YAML: an escape stands for no"),
    "depth": ("\n".join(" " * n + "a:" for n in range(1200)), "", "this is nested too deeply"),
    "an unknown alias": ("a: 1\nb: *c\n", "", "line 2, column 4: there is no anchor &c before this"),
    "several documents": ("a: 1\n---\nb: 2\n", "", "line 2, column 1: a second document begins here"),
    "a key twice": ("a:\n  b: 1\n  b: 2\n", "", "line 3, column 3: the key 'b' is here a second time"),
    "a list on top": ("- 1\n", "", "line 1, column 1: the top level must be a mapping"),
    "a scalar on top": ("text\n", "", "line 1, column 1: the top level must be a mapping"),
    "a target that is a list": ("a:\n  onnx: [1]\n", "a.onnx", r"line 2, column 9: a\.onnx must be a mapping"),
    "a target that is a scalar": ("onnx: 1\n", "", "line 1, column 7: onnx must be a mapping"),
    "a target that is an alias": (
        "a: &a {b: 1}\nonnx: *a\n",
        "",
        "line 2, column 7: onnx must be a mapping of its own",
    ),
    "a target below a scalar": ("a: 1\n", "a.onnx", "line 1, column 4: a must be a mapping"),
    "a path of nothing": ("a: 1\n", "a..b", r"'a\.\.b' is no path in .*config\.yaml: give keys with single dots"),
    "an unknown choice": (
        "onnx:\n  cudnn_conv_algo_search: HEURISTICS\n",
        "",
        r"line 2, column 27: cudnn_conv_algo_search cannot be 'HEURISTICS'\. Did you mean 'HEURISTIC'\?$",
    ),
    "an alias of no choice": ("a: &a 7\nonnx: {use_tf32: *a}\n", "", "line 2, column 18: use_tf32 cannot be '7'"),
    "a list for a knob": ("onnx: {use_tf32: [1]}\n", "", r"line 1, column 18: use_tf32 cannot be '\[1\]'"),
    "a knob without a value": ("onnx:\n  use_tf32: # yes?\n", "", "line 2, column 3: use_tf32 cannot be 'none'"),
    "a tag on a knob": ("onnx: {use_tf32: !env 1}\n", "", "line 1, column 18: use_tf32 cannot be '!env 1'"),
    "a merge of no mapping": ("onnx:\n  <<: 1\n  use_tf32: 1\n", "", _MERGED),
    "a merge of itself": ("onnx: &o\n  <<: *o\n", "", _MERGED),
    "benchmark_info that is none": (
        "onnx: {use_tf32: 1, benchmark_info: [1]}\n",
        "",
        "column 37: benchmark_info must be",
    ),
}


@pytest.mark.parametrize("case", list(_COMPLAINTS))
def test_complaints_name_the_place(case: str, path: Path) -> None:
    """One sentence, with the file and, where there is one, line and column; the file is as it was."""
    text, config_path, words = _COMPLAINTS[case]
    with pytest.raises(UsageError, match=words) as raised:
        configfile.read(save(path, text), "cuda", config_path)
    assert str(path) in str(raised.value)
    assert path.read_bytes().decode() == text


def test_a_file_that_is_not_utf8_is_refused_with_the_place(path: Path) -> None:
    """The byte that does not fit, by line and column."""
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(UsageError, match="line 2, column 7: byte 0xe9 is not UTF-8"):
        configfile.read(path, "cuda")


def test_what_is_no_file_is_refused(path: Path) -> None:
    """A folder, a pipe that would never answer, a link to itself, and a file where a folder should be."""
    with pytest.raises(UsageError, match="is not a file"):
        configfile.read(path.parent, "cuda")
    os.mkfifo(path.parent / "pipe")
    with pytest.raises(UsageError, match="is not a file"):
        configfile.read(path.parent / "pipe", "cuda")
    path.symlink_to(path)
    with pytest.raises(UsageError, match="cannot be read: Too many levels"):
        configfile.read(path, "cuda")
    with pytest.raises(UsageError, match="cannot be read: Not a directory"):
        configfile.read(save(path.parent / "file", "") / "config.yaml", "cuda")


def test_a_missing_file_is_created(path: Path) -> None:
    """Nothing is held, there is no backup, and the file gets the usual permissions."""
    found = configfile.read(path, "cpu")
    assert (found.exists, found.target, found.held, found.settings) == (False, "onnx", {}, Settings())
    assert configfile.write(found, {"intra_op_num_threads": 3}, {"g": 1}) is None
    assert path.read_text(encoding="utf-8") == "onnx:\n  intra_op_num_threads: 3\n  benchmark_info:\n    g: 1\n"
    path.with_name("other").touch()
    assert path.stat().st_mode == path.with_name("other").stat().st_mode
    assert configfile.read(path, "cpu").exists


def test_backups_are_never_overwritten(path: Path) -> None:
    """Writes within one second keep a copy each."""
    save(path, GUIDE)
    kept = [
        there(configfile.write(configfile.read(path, "cuda"), SETTINGS, {"gpu_name": str(number)}))
        for number in range(4)
    ]
    assert len(set(kept)) == 4
    names = [re.search(r'gpu_name: "(.*)"', backup.read_text(encoding="utf-8")) for backup in kept]
    assert [name and name[1] for name in names] == ["Tesla T4", "0", "1", "2"]


def test_permissions_stay_and_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    """The file behind the link is replaced, in its own folder, and the backup is as private as it was."""
    real = tmp_path / "etc" / "real.yaml"
    real.parent.mkdir()
    save(real, GUIDE).chmod(0o640)
    path.symlink_to(Path("etc") / "real.yaml")
    backup = there(configfile.write(configfile.read(path, "cuda"), SETTINGS, INFO))
    assert path.is_symlink()
    assert real.read_text(encoding="utf-8") == GUIDE_AFTER
    assert backup.parent == real.parent
    assert [stat.S_IMODE(file.stat().st_mode) for file in (real, backup)] == [0o640, 0o640]


def test_the_file_is_read_anew_before_it_is_written(path: Path) -> None:
    """What the user changed since `read` is kept."""
    found = configfile.read(save(path, GUIDE), "cuda")
    save(path, GUIDE.replace("by: me", "by: you"))
    configfile.write(found, SETTINGS, INFO)
    assert path.read_text(encoding="utf-8") == GUIDE_AFTER.replace("by: me", "by: you")


@pytest.mark.parametrize("old_gpu", ["T4", "a name longer than all that takes its place " * 20])
def test_a_full_disk_costs_nothing(old_gpu: str, path: Path) -> None:
    """Whether the new file or the copy of the old one does not fit: the old one is as it was, and nothing is left."""
    text = GUIDE.replace("Tesla T4", old_gpu)
    found = configfile.read(save(path, text), "cuda")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(GUIDE) + (50 if len(text) > len(GUIDE) else 0), before[1]))
    try:
        with pytest.raises(UsageError, match=r"config\.yaml cannot be written: File too large"):
            configfile.write(found, SETTINGS, INFO)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text(encoding="utf-8") == text
    assert list(path.parent.iterdir()) == [path]


def test_whether_a_file_can_be_written_is_known_early(path: Path) -> None:
    """`check_writable` leaves nothing behind, and refuses what `write` could not do either."""
    configfile.check_writable(path)
    configfile.check_writable(save(path, GUIDE))
    assert list(path.parent.iterdir()) == [path]
    for nowhere in (path.parent / "none" / "config.yaml", Path("/proc/config.yaml"), path / "config.yaml"):
        with pytest.raises(UsageError, match=f"{nowhere} cannot be written: "):
            configfile.check_writable(nowhere)
    found = configfile.read(path.parent / "none" / "config.yaml", "cuda")
    with pytest.raises(UsageError, match="cannot be written: No such file or directory"):
        configfile.write(found, SETTINGS, INFO)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_read_only_file_is_respected(path: Path) -> None:
    """Its folder would let it be replaced, but its owner has said no."""
    save(path, GUIDE).chmod(0o444)
    with pytest.raises(UsageError, match="is read-only"):
        configfile.check_writable(path)


def test_fixed_knobs_come_before_held_ones() -> None:
    """`merged` drops what then is a default or has no meaning."""
    held = Settings.of({"tunable_op_enable": True, "tunable_op_tuning_enable": True, "prefer_nhwc": True})
    fixed = {"tunable_op_enable": False, "use_tf32": False}
    assert configfile.merged("cuda", held, fixed.items()) == Settings.of({"prefer_nhwc": True, "use_tf32": False})
