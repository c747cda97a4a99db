"""RapidOCR on tuned sessions: python examples/rapidocr_text.py PICTURE text_det=DET.yaml [text_rec=REC.yaml ...].

Needs rapidocr. It has three models, each tuned by itself; parts that are not named keep their own session.
"""

from __future__ import annotations

import sys

from rapidocr import RapidOCR

import rtmo_optuna
from side_by_side import compare


def main(picture: str, *configs: str) -> None:
    """Print the text in the picture, read on RapidOCR's own sessions and on ours."""
    ocr = RapidOCR(params={"Global.log_level": "warning"})

    def read() -> list[object]:
        found = ocr(picture)
        return [found.boxes, found.txts, found.scores]

    def adapt() -> None:
        for part, _, config in (given.partition("=") for given in configs):
            rtmo_optuna.adapt(ocr, config, part=part)

    _, lines, _ = compare(read, adapt)
    print(*lines, sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
