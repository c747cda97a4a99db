"""RapidOCR 1 on tuned sessions: python examples/rapidocr_onnxruntime_text.py PICTURE text_det=DET.yaml [...].

Needs rapidocr-onnxruntime, the older package; otherwise as rapidocr_text.py.
"""

from __future__ import annotations

import sys

from rapidocr_onnxruntime import RapidOCR

import rtmo_optuna
from side_by_side import compare


def main(picture: str, *configs: str) -> None:
    """Print the text in the picture, read on RapidOCR's own sessions and on ours."""
    ocr = RapidOCR()

    def adapt() -> None:
        for part, _, config in (given.partition("=") for given in configs):
            rtmo_optuna.adapt(ocr, config, part=part)

    lines = compare(lambda: ocr(picture)[0], adapt)
    print(*(text for _, text, _ in lines), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
