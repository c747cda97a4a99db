"""The arrays a model is run on: made, or the user's own; and the sentences for those that do not fit."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from program import lacking, python
from rtmo_optuna.engine.inputs.inputs import load, prepare
from rtmo_optuna.engine.inputs.shapes import parse_shape, parse_shapes
from rtmo_optuna.errors import LostError, UsageError
from rtmo_optuna.types.request import TensorSpec
from rtmo_optuna.types.subject import InputFacts

_RTMO = (TensorSpec("input", "tensor(float)", ("batch", 3, 640, 640)),)
_SMALL = (TensorSpec("input", "tensor(float)", (1, 3, 32, 48)),)
_VECTOR = (TensorSpec("x", "tensor(float)", ("n", 4)),)
_TOKENS = (
    TensorSpec("ids", "tensor(int64)", ("batch", "length")),
    TensorSpec("mask", "tensor(bool)", ("batch", "length")),
)


class Prepared:
    """Calls `prepare` with a target in `folder`."""

    def __init__(self, folder: Path) -> None:
        """Write to `folder`/target.npz."""
        self.target = folder / "target.npz"

    def __call__(
        self,
        specs: Sequence[TensorSpec],
        source: Path | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        scale: float = 1.0,
    ) -> tuple[InputFacts, list[dict[str, np.ndarray[Any, Any]]]]:
        """Return the facts, and the samples that a child would load."""
        facts = prepare(specs, source=source, shapes=shapes or {}, scale=scale, target=self.target)
        return facts, load(facts.path)


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """Return `prepare` and `load` in one call."""
    return Prepared(tmp_path)


@pytest.mark.parametrize(("text", "expected"), [
    ("input=1x3x640x640", ("input", (1, 3, 640, 640))),
    ("1x3x640x640", ("", (1, 3, 640, 640))),
    ("a=b:0=7", ("a=b:0", (7,))),
    ("x=2X3", ("x", (2, 3))),
])  # fmt: skip
def test_shapes_are_parsed(text: str, expected: tuple[str, tuple[int, ...]]) -> None:
    """The name is what stands before the last `=`, and may be left out."""
    assert parse_shape(text) == expected


@pytest.mark.parametrize(
    "text", ["", "input", "input=", "x=1x", "x=1x-3", "x=00x3", "x=1,3", "x=1x3.5", "x=1 x 3", "x=\u0661"]
)
def test_what_is_no_shape_is_refused(text: str) -> None:
    """The sentence holds what was given and how it is written."""
    with pytest.raises(UsageError, match="not a shape of whole numbers: write name=1x3x640x640") as caught:
        parse_shape(text)
    assert repr(text) in str(caught.value)


def test_shape_options_are_collected_by_input() -> None:
    """A name may be left out only where the model has one input, and each input has one shape."""
    assert parse_shapes(["1x3x8x8"], _RTMO) == {"input": (1, 3, 8, 8)}
    assert parse_shapes(["mask=1x8", "ids=1x8"], _TOKENS) == {"mask": (1, 8), "ids": (1, 8)}
    assert parse_shapes([], _TOKENS) == {}
    with pytest.raises(UsageError, match="does not say which input it is for, out of 'ids', 'mask'"):
        parse_shapes(["1x8"], _TOKENS)
    with pytest.raises(UsageError, match="given twice for the input 'input'"):
        parse_shapes(["1x3x8x8", "input=2x3x8x8"], _RTMO)


@pytest.mark.parametrize(("specs", "shapes", "words"), [
    (_RTMO, {"imput": (1, 3, 8, 8)}, ["'imput' (did you mean 'input'?)", "takes 'input'"]),
    (_RTMO, {"input": (3, 640, 640)}, ["[3, 640, 640]", "[batch, 3, 640, 640]", "rank"]),
    (_RTMO, {"input": (1, 3, 320, 320)}, ["[1, 3, 320, 320]", "fixed sizes"]),
    (_RTMO, {"input": (-1, 3, 640, 640)}, ["[-1, 3, 640, 640]"]),
    (_TOKENS, {"ids": (1, 8), "mask": (1, 9)}, ["'length' both 8 and 9"]),
    (_VECTOR, {"x": (10**12, 4)}, ["GB", "--shape"]),
])  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(
    prepared: Prepared, specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]], words: Sequence[str]
) -> None:
    """The sentence names what was asked for and what the model takes."""
    with pytest.raises(UsageError) as caught:
        prepared(specs, shapes=shapes)
    assert not lacking(str(caught.value), *words)


@pytest.mark.parametrize(("spec", "words"), [
    *((TensorSpec("text", dtype, (1,)), [f"'text' ({dtype} [1])", "tensor(float16)", "tensor(bool)"])
      for dtype in ("tensor(string)", "tensor(bfloat16)", "tensor(float8e4m3fn)", "seq(tensor(float))",
                    "map(int64,tensor(float))", "optional(tensor(float))")),
])  # fmt: skip
@pytest.mark.parametrize("source", [None, "some.npz"])
def test_inputs_that_cannot_be_fed_are_refused(
    prepared: Prepared, tmp_path: Path, spec: TensorSpec, words: Sequence[str], source: str | None
) -> None:
    """The sentence names the input, its type, and the types that can be used; it comes before the source is read."""
    with pytest.raises(UsageError) as caught:
        prepared([spec], tmp_path / source if source else None)
    assert not lacking(str(caught.value), *words)


@pytest.mark.parametrize(("shape", "expected", "note"), [
    ((None, 3, None, None), (1, 3, 640, 640), "; dynamic dimensions: batch=1, height=640, width=640"),
    (("N", "h", "w", 3), (1, 640, 640, 3), "; dynamic dimensions: N=1, h=640, w=640"),
    ((2, 1, None, 32), (2, 1, 640, 32), "; dynamic dimensions: height=640"),
    ((1, 3, None, 3), (1, 3, 640, 3), "; dynamic dimensions: height=640"),
    ((1, 4, None, 4), (1, 4, 64, 4), "; dynamic dimensions: x[2]=64"),
    (("batch", "length"), (1, 64), "; dynamic dimensions: batch=1, length=64"),
    ((None, None), (1, 64), "; dynamic dimensions: batch=1, x[1]=64"),
    (("n", "n"), (1, 1), "; dynamic dimensions: n=1"),
    ((2, 3), (2, 3), ""),
    ((), (), ""),
])  # fmt: skip
def test_dynamic_dimensions_have_stated_defaults(
    prepared: Prepared, shape: tuple[int | str | None, ...], expected: tuple[int, ...], note: str
) -> None:
    """The shapes are the documented ones, and the source says what was chosen."""
    facts, samples = prepared([TensorSpec("x", "tensor(float)", shape)])
    assert (facts.shapes, facts.samples, facts.real) == ({"x": expected}, 1, False)
    assert facts.source == f"made from the signature{note}"
    assert [sample["x"].shape for sample in samples] == [expected]


def test_a_shared_dimension_has_one_size(prepared: Prepared) -> None:
    """A size given for one input holds wherever the dimension's name stands, and is no default any more."""
    facts, _ = prepared(_TOKENS, shapes={"mask": (2, 7)})
    assert (facts.shapes, facts.source) == ({"ids": (2, 7), "mask": (2, 7)}, "made from the signature")


_TYPES = {
    "float16": "float16", "float": "float32", "double": "float64", "bool": "bool",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
    "complex64": "complex64", "complex128": "complex128",
}  # fmt: skip


@pytest.mark.parametrize(("dtype", "expected"), _TYPES.items())
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_every_numpy_type_is_made(prepared: Prepared, dtype: str, expected: str, shape: tuple[int, ...]) -> None:
    """Integers are ones, booleans alternate, floats are finite and all different; ranks down to 0 survive the file."""
    _, ((sample),) = prepared([TensorSpec("x", f"tensor({dtype})", shape)])
    array = sample["x"]
    assert (array.dtype.name, array.shape, array.flags["C_CONTIGUOUS"]) == (expected, shape, True)
    flat = array.ravel()
    if expected == "bool":
        assert flat.tolist() == [n % 2 == 0 for n in range(flat.size)]
    elif "int" in expected:
        assert flat.tolist() == [1] * flat.size
    else:
        assert np.isfinite(flat).all()
        assert len(set(flat.tolist())) == flat.size


@pytest.mark.parametrize("shape", [(2, 3, 64, 48), (2, 64, 48, 3), (2, 1, 64, 48), (2, 64, 48, 1)])
@pytest.mark.parametrize("dtype", ["float16", "float", "double", "uint8"])
def test_inputs_that_look_like_pictures_get_one(prepared: Prepared, shape: tuple[int, ...], dtype: str) -> None:
    """The drawn picture uses the range of 0 to 255, is smooth as pictures are, and differs within a batch."""
    _, (sample,) = prepared([TensorSpec("x", f"tensor({dtype})", shape)])
    picture = sample["x"].astype(np.float64)
    height_axis = shape.index(64)
    assert picture.shape == shape
    assert (picture == picture.round()).all()
    assert 0 <= picture.min() < 60
    assert 200 < picture.max() <= 255
    assert np.abs(np.diff(picture, axis=height_axis)).mean() < picture.std() / 2
    assert (picture[0] != picture[1]).mean() > 0.5


def test_made_inputs_are_the_same_each_time(prepared: Prepared) -> None:
    """Equal signatures give equal hashes, a scale another one."""
    assert prepared(_SMALL)[0] == prepared(_SMALL)[0]
    plain, scaled = prepared(_SMALL), prepared(_SMALL, scale=1 / 255)
    assert plain[0].sha256 != scaled[0].sha256
    np.testing.assert_allclose(plain[1][0]["input"] / 255, scaled[1][0]["input"], rtol=1e-6)


def test_the_hash_is_of_the_arrays(prepared: Prepared, tmp_path: Path) -> None:
    """Names, types, shapes and values change it; the container, the order and the source do not."""
    base = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.savez(tmp_path / "plain.npz", x=base)
    np.savez_compressed(tmp_path / "small.npz", x=np.asfortranarray(base))
    np.savez(tmp_path / "swapped.npz", x=base.astype(">f4"))
    np.save(tmp_path / "single.npy", base)
    same = {prepared(_VECTOR, tmp_path / n)[0].sha256 for n in ("plain.npz", "small.npz", "swapped.npz", "single.npy")}
    others = [("x", base + 1), ("y", base), ("x", base.reshape(4, 2)), ("x", base.view(np.int32))]
    hashes = set()
    for name, array in others:  # another value, name, shape; the same bits as another type
        _save(tmp_path / "other.npz", **{name: array})
        dtype = "tensor(int32)" if array.dtype == np.int32 else "tensor(float)"
        hashes.add(prepared([TensorSpec(name, dtype, (None, None))], tmp_path / "other.npz")[0].sha256)
    assert (len(same), len(hashes), same & hashes) == (1, len(others), set())
    ids, mask = _TOKENS
    assert prepared([ids, mask])[0].sha256 == prepared([mask, ids])[0].sha256


def test_what_is_made_runs(prepared: Prepared, tmp_path: Path) -> None:
    """ONNX Runtime takes what is made for its own signature: a scalar, indices, a mask and odd names."""
    spots: list[tuple[str, int, list[int | str]]] = [
        ("file", TensorProto.FLOAT, ["n", 4]),
        ("a/b:0", TensorProto.INT64, ["k"]),
        ("s", TensorProto.FLOAT, []),
    ]
    inputs = [helper.make_tensor_value_info(*spot) for spot in spots]
    nodes = [helper.make_node("Gather", ["file", "a/b:0"], ["g"], axis=1), helper.make_node("Mul", ["g", "s"], ["y"])]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    specs = [TensorSpec(one.name, one.type, tuple(one.shape)) for one in session.get_inputs()]
    _, (sample,) = prepared(specs)
    (output,) = session.run(None, sample)
    np.testing.assert_array_equal(output, sample["file"][:, [1]] * sample["s"])


def test_a_model_without_inputs_has_one_empty_sample(prepared: Prepared) -> None:
    """There is nothing to feed, once."""
    facts, samples = prepared([])
    assert (facts.shapes, facts.samples, samples) == ({}, 1, [{}])


def test_the_users_arrays_are_used_as_they_are(prepared: Prepared, tmp_path: Path) -> None:
    """An .npz file's arrays come back unchanged, in the model's order, as one sample of real input."""
    arrays = {"mask": np.eye(3, dtype=np.bool_), "ids": np.arange(9).reshape(3, 3)}
    source = tmp_path / "mine.npz"
    _save(source, **arrays)
    facts, (sample,) = prepared(_TOKENS, source, shapes={"ids": (3, 3)})
    assert (facts.real, facts.samples, facts.source) == (True, 1, str(source))
    assert list(sample) == ["ids", "mask"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(sample[name], array, strict=True)


def test_arrays_with_one_more_axis_hold_samples(prepared: Prepared, tmp_path: Path) -> None:
    """As many of each input, 32 at most; each is checked as a single one is."""
    source = tmp_path / "mine.npz"
    ids, mask = np.arange(27).reshape(3, 3, 3), np.ones((3, 3, 3), np.bool_)
    _save(source, ids=ids, mask=mask)
    facts, samples = prepared(_TOKENS, source, shapes={"ids": (3, 3)})
    assert (facts.samples, facts.source) == (3, f"{source} (3 samples)")
    assert facts.shapes["ids"] == (3, 3)
    np.testing.assert_array_equal(samples[2]["ids"], ids[2])
    for wrong, why in ((mask[:2], "3 of 'ids', 2 of 'mask'"), (mask[:, :2], r"holds 'mask' as bool \[2, 3\]")):
        _save(source, ids=ids, mask=wrong)
        with pytest.raises(UsageError, match=why):
            prepared(_TOKENS, source, shapes={"ids": (3, 3)})


def test_the_target_is_replaced_whole(prepared: Prepared, tmp_path: Path) -> None:
    """A refused input leaves the former target as it was; a new one takes its name, and is not written into it."""
    former = tmp_path / "former.npz"
    prepared(_SMALL)
    before = prepared.target.read_bytes()
    with pytest.raises(UsageError):
        prepared(_SMALL, scale=float("nan"))
    assert prepared.target.read_bytes() == before
    former.hardlink_to(prepared.target)
    prepared(_VECTOR)
    assert former.read_bytes() == before
    assert prepared.target.read_bytes() != before
    assert {path.name for path in tmp_path.iterdir()} == {"former.npz", "target.npz"}


def test_a_target_that_cannot_be_written_is_no_fault_of_the_input(tmp_path: Path) -> None:
    """A folder that does not exist, or is in the way, is named, and nothing is left behind."""
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "gone" / "target.npz", tmp_path / "folder"):
        with pytest.raises(LostError, match=f"cannot be written to {target}"):
            prepare(_SMALL, source=None, shapes={}, scale=1.0, target=target)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def _zip(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _save(path: Path, **arrays: object) -> None:
    plain: Any = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez(path, **plain)


def _truncated(path: Path, keep: int) -> None:
    _save(path, x=np.zeros((100, 4), np.float32))
    path.write_bytes(path.read_bytes()[:keep])


def _flipped(path: Path) -> None:
    _save(path, x=np.zeros((100, 4), np.float32))
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)


_F32 = np.float32
_FAULTS: Mapping[str, tuple[str, Sequence[TensorSpec], Callable[[Path], object], Sequence[str]]] = {
    "missing": ("a.npz", _VECTOR, lambda _: None, ["does not exist", ".npz", "a folder"]),
    "unknown kind": ("a.txt", _VECTOR, lambda p: p.write_text("1 2"), ["cannot be used as input", ".npy", ".jpg"]),
    "misnamed": ("a.npz", _TOKENS, lambda p: _save(p, ids=[[1]], masc=[[True]]),
                 ["'ids', 'masc'", "takes 'ids', 'mask'", "'mask' is missing", "'masc' is none", "mean 'mask'?"]),
    "one too many": ("a.npz", _VECTOR, lambda p: _save(p, x=np.zeros((1, 4), _F32), extra=1), ["'extra' is none"]),
    "one too few": ("a.npz", _TOKENS, lambda p: _save(p, ids=[[1]]), ["'mask' is missing"]),
    "double": ("a.npz", _VECTOR, lambda p: _save(p, x=np.zeros((1, 4))), ["'x' as float64 [1, 4]", "float32 [n, 4]"]),
    "text array": ("a.npz", _VECTOR, lambda p: _save(p, x=[["a"] * 4]), ["'x' as str", "float32"]),
    "rank": ("a.npz", _VECTOR, lambda p: _save(p, x=np.zeros(4, _F32)), ["float32 [4]", "float32 [n, 4]"]),
    "fixed size": ("a.npz", _VECTOR, lambda p: _save(p, x=np.zeros((1, 5), _F32)), ["[1, 5]", "[n, 4]"]),
    "objects": ("a.npz", _VECTOR, lambda p: _save(p, x=np.array([{}])), ["cannot be read", "Python objects"]),
    "not a zip": ("a.npz", _VECTOR, lambda p: p.write_text("hello"), ["cannot be read (File is not a zip file)"]),
    "no array": ("a.npz", _VECTOR, lambda p: _zip(p, x=b"hello, this is text"), ["cannot be read", "numpy.savez"]),
    "empty": ("a.npz", _VECTOR, lambda p: p.touch(), ["cannot be read"]),
    "cut": ("a.npz", _VECTOR, lambda p: _truncated(p, 1000), ["cannot be read"]),
    "damaged": ("a.npz", _VECTOR, _flipped, ["cannot be read", "CRC"]),
    "npy cut": ("a.npy", _VECTOR, lambda p: p.write_bytes(b"\x93NUMPY\x01\x00"), ["cannot be read"]),
    "npy of text": ("a.npy", _VECTOR, lambda p: p.write_text("this is text"), ["cannot be read", "magic string"]),
    "npy objects": ("a.npy", _VECTOR, lambda p: np.save(p, np.array([{}])), ["cannot be read", "objects"]),
    "npy for two": ("a.npy", _TOKENS, lambda p: np.save(p, np.ones(3)), ["one array", "'ids', 'mask'", ".npz"]),
    "npy double": ("a.npy", _VECTOR, lambda p: np.save(p, np.zeros((1, 4))), ["float64", "float32"]),
    "picture for a vector": ("a.png", _VECTOR, lambda p: Image.new("L", (4, 4)).save(p),
                             ["Pictures", "'x' (tensor(float) [n, 4])", ".npz"]),
    "picture for two": ("a.png", [*_SMALL, *_VECTOR], lambda p: Image.new("L", (4, 4)).save(p), ["'input'", "'x'"]),
    "no picture": ("a.jpg", _SMALL, lambda p: p.write_text("hello"), ["a.jpg cannot be read as a picture"]),
    "another format": ("a.png", _SMALL, lambda p: Image.new("L", (4, 4)).save(p, "GIF"), ["cannot be read as"]),
    "empty picture": ("a.webp", _SMALL, lambda p: p.touch(), ["a.webp cannot be read as a picture"]),
    "bomb": ("a.png", _SMALL, lambda p: Image.new("1", (10000, 10000)).save(p), ["pixels", "scale it down"]),
    "empty folder": ("pictures", _SMALL, lambda p: p.mkdir(), ["holds no pictures", ".png"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", _FAULTS)
def test_sources_that_do_not_fit_are_refused(prepared: Prepared, tmp_path: Path, fault: str) -> None:
    """The sentence names the file, what is wrong with it and what is wanted."""
    name, specs, make, words = _FAULTS[fault]
    make(tmp_path / name)
    with pytest.raises(UsageError) as caught:
        prepared(specs, tmp_path / name)
    assert not lacking(str(caught.value), str(tmp_path / name), *words)
    assert not prepared.target.exists()


def test_an_array_has_to_agree_with_the_shape_option(prepared: Prepared, tmp_path: Path) -> None:
    """An array that fits the model, but not --shape, is refused."""
    np.save(tmp_path / "a.npy", np.zeros((2, 4), np.float32))
    with pytest.raises(UsageError, match=r"\[2, 4\], but the model or --shape wants float32 \[3, 4\]"):
        prepared(_VECTOR, tmp_path / "a.npy", shapes={"x": (3, 4)})
    assert prepared(_VECTOR, tmp_path / "a.npy", shapes={"x": (2, 4)})[0].shapes == {"x": (2, 4)}


def _picture(path: Path, size: tuple[int, int] = (48, 32), colour: tuple[int, int, int] = (10, 20, 30)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.mark.parametrize(("size", "filled"), [
    ((96, 32), (16, 48)), ((30, 60), (32, 16)), ((48, 32), (32, 48)), ((6, 4), (32, 48)), ((1000, 1), (1, 48)),
])  # fmt: skip
def test_pictures_are_letterboxed(
    prepared: Prepared, tmp_path: Path, size: tuple[int, int], filled: tuple[int, int]
) -> None:
    """Scaled to fit, at the top left, in blue, green, red, and the rest is 114."""
    facts, (sample,) = prepared(_SMALL, _picture(tmp_path / "a.png", size))
    expected = np.full((1, 3, 32, 48), 114, np.float32)
    expected[0, :, : filled[0], : filled[1]] = np.array([30, 20, 10])[:, None, None]
    np.testing.assert_array_equal(sample["input"], expected, strict=True)
    assert (facts.real, facts.source) == (True, f"{tmp_path / 'a.png'}, letterboxed to 48x32")


@pytest.mark.parametrize("dtype", ["float16", "float", "double", "uint8"])
@pytest.mark.parametrize(
    ("shape", "axes"), [((1, 3, 8, 12), (2, 0, 1)), ((1, 8, 12, 3), (0, 1, 2)), ((None, 3, None, 12), None)]
)
def test_pictures_take_the_models_layout_and_type(
    prepared: Prepared, tmp_path: Path, dtype: str, shape: tuple[int | None, ...], axes: tuple[int, ...] | None
) -> None:
    """Pixels that need no scaling arrive unchanged in NCHW and NHWC; open sizes are filled from --shape."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    shapes = {"x": (1, 3, 8, 12)} if axes is None else {}
    _, (sample,) = prepared([TensorSpec("x", f"tensor({dtype})", shape)], tmp_path / "a.png", shapes=shapes)
    expected = pixels[..., ::-1].transpose(axes or (2, 0, 1))[np.newaxis]
    np.testing.assert_array_equal(sample["x"], expected.astype(_TYPES[dtype]), strict=True)


def test_pixels_are_scaled(prepared: Prepared, tmp_path: Path) -> None:
    """--input-scale multiplies the padding as well."""
    _, (sample,) = prepared(_SMALL, _picture(tmp_path / "a.png", (48, 16)), scale=1 / 255)
    assert sample["input"].dtype == np.float32
    np.testing.assert_allclose(sample["input"][0, :, [0, -1], 0], np.array([[30, 20, 10], [114] * 3]) / 255, rtol=1e-6)


@pytest.mark.parametrize(("given", "words"), [
    (([TensorSpec("x", "tensor(uint8)", (1, 3, 8, 8))], "a.png", 0.5), "is for floating-point inputs"),
    (([TensorSpec("x", "tensor(uint8)", (1, 3, 8, 8))], None, 0.5), "is for floating-point inputs"),
    (([TensorSpec("x", "tensor(float16)", (1, 3, 8, 8))], "a.png", 1000.0), "beyond what float16 holds"),
    ((_SMALL, "a.png", 0.0), "not a positive number"),
    ((_SMALL, None, -1.0), "not a positive number"),
    ((_SMALL, None, float("inf")), "not a positive number"),
    ((_VECTOR, None, 0.5), "no input of the model takes pictures"),
    ((_VECTOR, "a.npy", 0.5), "are used as they are"),
])  # fmt: skip
def test_a_scale_that_cannot_be_applied_is_refused(
    prepared: Prepared, tmp_path: Path, given: tuple[Sequence[TensorSpec], str | None, float], words: str
) -> None:
    """A scale is never ignored without a word."""
    specs, name, scale = given
    _picture(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.zeros((1, 4), np.float32))
    source = tmp_path / name if name else None
    with pytest.raises(UsageError, match=f"--input-scale {scale:g} .*{words}"):
        prepared(specs, source, scale=scale)


def _saved(image: Image.Image, **options: Any) -> Callable[[Path], None]:  # noqa: ANN401 - each format has its own
    return lambda path: image.save(path, **options)


def _rotated() -> Callable[[Path], None]:
    image = Image.new("RGB", (32, 48), (0, 0, 200))
    image.paste((200, 0, 0), (0, 0, 32, 24))
    exif = Image.Exif()
    exif[0x0112] = 8  # what is at the top when stored belongs to the left
    return _saved(image, exif=exif, quality=95)


_HALVES = Image.new("RGBA", (48, 32), (0, 0, 0, 0))
_HALVES.paste((200, 0, 0, 255), (0, 0, 24, 32))
_GREY16 = np.repeat([[0, 20_000, 65_535]], 16, axis=1).repeat(32, axis=0).astype(np.uint16)
_PALETTE = Image.new("P", (48, 32), 1)
_PALETTE.putpalette([9, 9, 9, 10, 20, 30])


@pytest.mark.parametrize(("name", "save", "ends"), [
    pytest.param("a.jpg", _rotated(), ((0, 0, 200), (200, 0, 0)), id="EXIF orientation"),
    pytest.param("a.png", _saved(_HALVES), ((0, 0, 200), (114, 114, 114)), id="transparency"),
    pytest.param("a.webp", _saved(_HALVES, lossless=True), ((0, 0, 200), (114, 114, 114)), id="WebP transparency"),
    pytest.param("a.png", _saved(Image.new("L", (48, 32), 77)), ((77,) * 3, (77,) * 3), id="grey"),
    pytest.param("a.png", _saved(Image.new("LA", (48, 32), (9, 0))), ((114,) * 3, (114,) * 3), id="grey and alpha"),
    pytest.param("a.png", _saved(_PALETTE), ((30, 20, 10), (30, 20, 10)), id="palette"),
    pytest.param("a.png", _saved(_PALETTE, transparency=1), ((114,) * 3, (114,) * 3), id="clear palette"),
    pytest.param("a.png", _saved(Image.fromarray(_GREY16)), ((0,) * 3, (255,) * 3), id="16 bits"),
    pytest.param("a.png", _saved(Image.new("1", (48, 32), 1)), ((255,) * 3, (255,) * 3), id="1 bit"),
    pytest.param("a.bmp", _saved(Image.new("RGB", (48, 32), (1, 2, 3))), ((3, 2, 1), (3, 2, 1)), id="BMP"),
    pytest.param(
        "A.JPEG",
        _saved(Image.new("CMYK", (48, 32), (255, 0, 0, 0)), quality=95),
        ((255, 255, 0), (255, 255, 0)),
        id="CMYK",
    ),
    pytest.param(
        "a.png", _saved(Image.new("RGB", (48, 32), (1, 2, 3)), format="BMP"), ((3, 2, 1), (3, 2, 1)), id="misnamed"
    ),
])  # fmt: skip
def test_all_kinds_of_pictures_are_converted(
    prepared: Prepared,
    tmp_path: Path,
    name: str,
    save: Callable[[Path], None],
    ends: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    """Every kind arrives upright as 8 bits of blue, green and red."""
    save(tmp_path / name)
    _, (sample,) = prepared(_SMALL, tmp_path / name)
    np.testing.assert_allclose(sample["input"][0, :, 16, [4, 43]], ends, atol=3)


def test_16_bits_are_scaled_and_not_cut(prepared: Prepared, tmp_path: Path) -> None:
    """A model of one channel gets the grey of a 16-bit picture in proportion."""
    Image.fromarray(_GREY16).save(tmp_path / "a.png")
    _, (sample,) = prepared([TensorSpec("x", "tensor(float)", (1, 1, 32, 48))], tmp_path / "a.png")
    np.testing.assert_array_equal(np.unique(sample["x"]), [0, 20_000 // 257, 255])


def test_a_folder_gives_its_first_pictures_by_name(prepared: Prepared, tmp_path: Path) -> None:
    """32 at most, of which 16 are timed, in order of name; other files, hidden ones and folders do not count."""
    folder = tmp_path / "pictures"
    (folder / "z.png").mkdir(parents=True)
    for name in ("notes.txt", ".hidden.png"):
        (folder / name).write_text("no picture")
    for n in reversed(range(40)):
        _picture(folder / f"{n:02}.PNG", colour=(n, n, n))
    facts, samples = prepared(_SMALL, folder)
    assert (facts.samples, facts.timed, facts.shapes) == (32, 16, {"input": (1, 3, 32, 48)})
    assert facts.source == f"{folder} (the first 32 of 40 pictures), letterboxed to 48x32"
    assert [sample["input"].max() for sample in samples] == list(range(32))
    assert all(sample["input"].flags["C_CONTIGUOUS"] for sample in samples)


@pytest.mark.parametrize(("batch", "expected", "repeated"), [
    (2, [[0, 1], [2, 0]], ", repeated to fill batches of 2"),
    (5, [[0, 1, 2, 0, 1]], ", repeated to fill batches of 5"),
    (1, [[0], [1], [2]], ""),
])  # fmt: skip
def test_pictures_fill_the_batch(
    prepared: Prepared, tmp_path: Path, batch: int, expected: list[list[int]], repeated: str
) -> None:
    """Pictures go into batches in turn, from the start again where they do not fill the last one."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(3):
        _picture(folder / f"{n}.png", colour=(n, n, n))
    spec = TensorSpec("x", "tensor(float)", (batch, 3, 32, 48))
    facts, samples = prepared([spec], folder)
    assert [sample["x"][:, 0, 0, 0].tolist() for sample in samples] == expected
    assert facts.source == f"{folder} (all 3 pictures), letterboxed to 48x32{repeated}"


def test_open_sizes_are_told_with_pictures(prepared: Prepared, tmp_path: Path) -> None:
    """A model of open height and width gets 640x640, and the source says so."""
    facts, _ = prepared([TensorSpec("x", "tensor(uint8)", (None, 3, None, None))], _picture(tmp_path / "a.png"))
    assert facts.shapes == {"x": (1, 3, 640, 640)}
    assert facts.source.endswith(", letterboxed to 640x640; dynamic dimensions: batch=1, height=640, width=640")


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "webp", "npz", "npy"])
def test_damaged_files_raise_nothing_but_usage_errors(prepared: Prepared, tmp_path: Path, kind: str) -> None:
    """Files cut short or changed at random are either used or refused with a sentence that names them."""
    chance, source, refused = np.random.default_rng(0), tmp_path / f"a.{kind}", 0
    pixels = chance.integers(0, 256, (12, 16, 3), np.uint8)
    saves: Mapping[str, Callable[[], object]] = {
        "npz": lambda: np.savez(source, input=pixels),
        "npy": lambda: np.save(source, pixels),
    }
    saves.get(kind, lambda: Image.fromarray(pixels).save(source))()
    shape = (12, 16, 3) if kind in saves else (1, 8, 8, 3)
    content = source.read_bytes()
    for n in range(60):
        damaged = bytearray(content[: chance.integers(1, len(content))] if n % 2 else content)
        for place in chance.integers(min(200, len(damaged)), size=3):
            damaged[place] = chance.integers(256)
        source.write_bytes(damaged)
        try:
            prepared([TensorSpec("input", "tensor(uint8)", shape)], source)
        except UsageError as error:
            refused += 1
            assert str(source) in str(error)  # noqa: PT017 - only some are refused
    assert refused >= 20


def test_loading_stays_light() -> None:
    """The child's start does not pay for Pillow, onnx, or what only the parent needs."""
    code = "import sys; from rtmo_optuna.engine.inputs.inputs import load; print(*sys.modules)"
    assert {"PIL", "onnx", "hashlib", "difflib", "zipfile"} & set(python(code).split()) == set()


def test_a_question_mark_names_no_dimension(prepared: Prepared) -> None:
    """Exporters that call every unknown dimension `?` do not mean that all have one size."""
    unknown = (TensorSpec("x", "tensor(float)", ("?", 3, "?", "?")),)
    facts, _ = prepared(unknown, shapes={"x": (1, 3, 48, 192)})
    assert facts.shapes == {"x": (1, 3, 48, 192)}


def test_a_batch_fills_open_leading_dimensions(tmp_path: Path) -> None:
    """The study's batch is the size of what the model leaves open, and one item is repeated to fill it."""
    spec = TensorSpec("x", "tensor(float)", ("batch", 2))
    np.savez(tmp_path / "one.npz", x=np.array([[3, 4]], np.float32))
    for source in (None, tmp_path / "one.npz"):
        facts = prepare([spec], source=source, shapes={}, scale=1.0, target=tmp_path / "in.npz", batch=3)
        assert (facts.shapes, facts.free_dimensions) == ({"x": (3, 2)}, {"batch": 3})
        assert facts.fixed
    assert load(tmp_path / "in.npz")[0]["x"].tolist() == [[3.0, 4.0]] * 3


def test_a_batch_that_a_model_does_not_take_is_told(tmp_path: Path) -> None:
    """A fixed leading dimension stays what it is."""
    spec = TensorSpec("x", "tensor(float)", (1, 2))
    with pytest.raises(UsageError, match=r"The study wants a batch of 8, but the model takes .*: export it with"):
        prepare([spec], source=None, shapes={}, scale=1.0, target=tmp_path / "in.npz", batch=8)


def test_a_name_for_several_sizes_is_no_dimension(tmp_path: Path) -> None:
    """Some exporters call every open dimension `?`: such a name cannot be fixed, one for one size can."""
    specs = [TensorSpec("x", "tensor(float)", ("batch", "?", "?"))]
    facts = prepare(specs, source=None, shapes={"x": (2, 3, 4)}, scale=1.0, target=tmp_path / "in.npz")
    assert facts.free_dimensions == {"batch": 2}
    assert facts.fixed
