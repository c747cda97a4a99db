"""RTMO through rtmo-ort on a tuned session: python examples/rtmo_ort_pose.py MODEL.onnx CONFIG.yaml PICTURE.

Needs rtmo-ort.
"""

from __future__ import annotations

import sys

import cv2
from rtmo_ort import PoseEstimatorORT

import rtmo_optuna
from side_by_side import compare


def main(model: str, config: str, picture: str) -> None:
    """Say how many people are in the picture, on rtmo-ort's own session and on ours."""
    image = cv2.imread(picture)
    estimator = PoseEstimatorORT(model)
    boxes, keypoints, scores = compare(lambda: estimator.infer(image), lambda: rtmo_optuna.adapt(estimator, config))
    print(f"{len(boxes)} people, keypoints {keypoints.shape}, best score {scores.max():.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
