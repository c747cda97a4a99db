"""Pictures as a pose model sees them: found, read, letterboxed, drawn. The only importer of Pillow, where used."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rtmo_optuna.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt
    from PIL import Image

    from rtmo_optuna.types.request import TensorSpec

    Pixels = npt.NDArray[np.uint8]

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
_DTYPES = ("tensor(float16)", "tensor(float)", "tensor(double)", "tensor(uint8)")
_MODES = {1: "L", 3: "RGB"}
_MOST = 32
_PADDING = 114
_SHAPES = 40
_NOISE = 4.0


@dataclass(frozen=True, slots=True)
class Layout:
    """How an input of rank 4 holds a batch of pictures: its 1 or 3 channels, and the axis that they are on."""

    channels: int
    channel_axis: int

    @property
    def plane(self) -> tuple[int, int]:
        """The axes of height and width."""
        return (2, 3) if self.channel_axis == 1 else (1, 2)


def layout_of(spec: TensorSpec) -> Layout | None:
    """Return how `spec` holds pictures (NCHW or NHWC, floats or uint8), or None where it does not look like that."""
    if len(spec.shape) == 4 and spec.dtype in _DTYPES:  # noqa: PLR2004 - batch, channels, height, width
        for axis in (1, 3):
            channels = spec.shape[axis]
            if isinstance(channels, int) and channels in _MODES:
                return Layout(channels, axis)
    return None


def read(source: Path, shape: Sequence[int], layout: Layout) -> tuple[Pixels, str]:
    """Return the letterboxed pictures of a file or folder, [n, height, width, channels], and what they are in words.

    Of a folder the first 32 by name are taken. They are repeated until n is a multiple of the batch of `shape`. Raises
    UsageError where there are none, or one cannot be read.
    """
    found = _find(source)
    chosen = found[:_MOST]
    batch, height, width = shape[0], *(shape[axis] for axis in layout.plane)
    pictures = np.stack([letterboxed(path, height, width, layout.channels) for path in chosen])
    total = math.ceil(len(chosen) / batch) * batch
    number = f"the first {len(chosen)} of {len(found)}" if len(found) > len(chosen) else f"all {len(found)}"
    what = f"{source} ({number} pictures)" if source.is_dir() else f"{source}"
    repeated = f", repeated to fill batches of {batch}" if total > len(chosen) else ""
    return pictures[np.arange(total) % len(chosen)], f"{what}, letterboxed to {width}x{height}{repeated}"


def letterboxed(path: Path, height: int, width: int, channels: int) -> Pixels:
    """Return the picture as RTMO wants it, [height, width, channels], 0 to 255.

    Upright by its EXIF orientation, scaled to fit with its proportions kept, at the top left, the rest 114, colours in
    the order blue, green, red; transparent parts show the padding's grey. Raises UsageError where the file cannot be
    read.
    """
    from PIL.Image import Resampling  # noqa: PLC0415 - benchmarks never need it

    image = _read(path, _MODES[channels])
    across, down = image.size
    wide = across * height > width * down
    fitted = (width, max(1, down * width // across)) if wide else (max(1, across * height // down), height)
    canvas = np.full((height, width, channels), _PADDING, np.uint8)
    pixels = np.asarray(image.resize(fitted, Resampling.BILINEAR)).reshape(fitted[1], fitted[0], channels)
    canvas[: fitted[1], : fitted[0]] = pixels[..., ::-1]
    return canvas


def drawn(shape: Sequence[int], layout: Layout, rng: np.random.Generator) -> Pixels:
    """Return a drawn picture for each place of the batch of `shape`, [n, height, width, channels], 0 to 255.

    Shaded ground, ellipses, boxes and a sensor's noise; each picture is the one before it, moved sideways.
    """
    batch, height, width = shape[0], *(shape[axis] for axis in layout.plane)
    longest = max(height, width)
    y, x = (axis.astype(np.float32) / longest for axis in np.ogrid[:height, :width])
    across, down, phase = rng.uniform(-9, 9, (3, layout.channels)).astype(np.float32)
    picture = 128 + 60 * np.sin(x[..., None] * across + y[..., None] * down + phase)
    for ellipse in rng.random(_SHAPES) < 0.5:  # noqa: PLR2004 - a coin
        centre_y, centre_x, size = rng.uniform((0, 0, 0.03), (height / longest, width / longest, 0.15))
        offsets = np.abs(y - centre_y) / (2 * size), np.abs(x - centre_x) / size
        distance = np.hypot(*offsets) if ellipse else np.maximum(*offsets)
        picture[distance < 1] = rng.uniform(20, 235, layout.channels)
    picture += _NOISE * rng.standard_normal(picture.shape, np.float32)
    pixels: Pixels = picture.clip(0, 255).round().astype(np.uint8)
    return np.stack([np.roll(pixels, n * width // batch, axis=1) for n in range(batch)])


def as_tensor(pixels: Pixels, layout: Layout, dtype: np.dtype[np.generic], scale: float) -> npt.NDArray[np.generic]:
    """Return pixels [n, height, width, channels] times `scale`, in the input's own layout and type.

    Raises UsageError where `scale` is not positive, or the type cannot hold the scaled values.
    """
    with np.errstate(over="ignore"):
        levels = (np.arange(256) * scale).astype(dtype) if 0 < scale < math.inf else np.array([])
    fault = (
        "is not a positive number" if not levels.size
        else "is for floating-point inputs, and this model takes pixels as uint8" if dtype.kind == "u" and scale != 1
        else f"takes pixels beyond what {dtype.name} holds" if not np.isfinite(levels).all()
        else ""
    )  # fmt: skip
    if fault:
        message = f"--input-scale {scale:g} {fault}: leave it out to keep pixels at 0 to 255."
        raise UsageError(message)
    return np.ascontiguousarray(np.moveaxis(levels[pixels], 3, layout.channel_axis))


def _find(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    found = [p for p in source.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")]
    if not found:
        message = f"The folder {source} holds no pictures: name one with {', '.join(SUFFIXES)} files."
        raise UsageError(message)
    return sorted(found, key=lambda path: path.name)


def _read(path: Path, mode: str) -> Image.Image:
    from PIL import Image, ImageOps  # noqa: PLC0415

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken EXIF data does not matter
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                return _plain(ImageOps.exif_transpose(image), mode)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        message = f"{path} has more than the {Image.MAX_IMAGE_PIXELS} pixels that Pillow deems safe: scale it down."
        raise UsageError(message) from error
    except Exception as error:  # a decoder may raise anything on a broken file
        message = f"{path} cannot be read as a picture ({error}): replace it or leave it out."
        raise UsageError(message) from error


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """Return `image` in `mode`: 16 bits scaled to 8, transparency laid over the padding's grey."""
    from PIL import Image  # noqa: PLC0415

    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, (_PADDING, _PADDING, _PADDING, 255))
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return image.convert(mode)
