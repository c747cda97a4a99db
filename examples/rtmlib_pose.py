"""RTMO through rtmlib on a tuned session: python examples/rtmlib_pose.py MODEL.onnx CONFIG.yaml PICTURE.

Needs rtmlib. Its solutions have two sessions, of which `part` names one: adapt(body, config, part="pose_model").
"""

from __future__ import annotations

import sys

import cv2
from rtmlib import RTMO

import rtmo_optuna
from side_by_side import compare


def main(model: str, config: str, picture: str) -> None:
    """Say how many people are in the picture, on rtmlib's own session and on ours."""
    image = cv2.imread(picture)
    pose = RTMO(model, score_thr=0.3)
    pose.model_input_size = tuple(pose.session.get_inputs()[0].shape[2:])
    keypoints, scores = compare(lambda: pose(image), lambda: rtmo_optuna.adapt(pose, config))
    print(f"{len(keypoints)} people, keypoints {keypoints.shape}, best mean score {scores.mean(axis=1).max():.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
