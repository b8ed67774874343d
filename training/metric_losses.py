"""Losses in metres on what a codec decodes, for representations that can be read as poses (the project's own).

Normalised features weigh a wrist's centimetre less than a hip's and say nothing of where the integrated root ends; these
terms do. Positions are per frame, so differences over time are multiplied by the frame rate where a speed is meant.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from rtinteract.features.body import _levels
from rtinteract.skeleton import SMPL22_FEET, SMPL22_PARENTS

FPS = 30.0


@dataclass(frozen=True)
class MetricWeights:
    """Weights of the terms; ``feature_beta`` (normalised) and ``metre_beta`` are where a loss turns from square to absolute."""

    feature: float = 1.0
    position: float = 0.2
    root: float = 0.1
    kinematics: float = 1.0
    velocity: float = 0.05
    slide: float = 0.05
    commitment: float = 0.02
    feature_beta: float = 0.05
    metre_beta: float = 0.02


def kinematics(root: torch.Tensor, rotations: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Positions [..., 22, 3] from roots [..., 3], matrices [..., 22, 3, 3] and offsets [..., 22, 3], a tree level at a time."""
    places, turns = [root] + [None] * 21, [rotations[..., 0, :, :]] + [None] * 21
    for level in _levels():
        joints = list(level)
        parents = torch.stack([turns[SMPL22_PARENTS[j]] for j in level], -3)
        at = torch.stack([places[SMPL22_PARENTS[j]] for j in level], -2)
        here = at + (parents * offsets[..., joints, None, :]).sum(-1)
        turned = parents @ rotations[..., joints, :, :]
        for i, j in enumerate(level):
            places[j], turns[j] = here[..., i, :], turned[..., i, :, :]
    return torch.stack(places, -2)


def planted(positions: torch.Tensor) -> torch.Tensor:
    """Which feet [..., T - 1, 4] stand still from a frame to the next: slower than 0.15 m/s and near the floor.

    InterMask's heights are 0.12 m for an ankle and 0.05 m for a toe; real captures wear shoes, so 0.03 m are added.
    """
    feet = positions[..., list(SMPL22_FEET), :]
    speed = (feet[..., 1:, :, :] - feet[..., :-1, :, :]).norm(dim=-1) * FPS
    height = torch.tensor([0.15, 0.08, 0.15, 0.08], device=positions.device)
    return (speed < 0.15) & (feet[..., :-1, :, 1] < height)


def terms(read: tuple[torch.Tensor, torch.Tensor], truth: torch.Tensor, offsets: torch.Tensor,
          w: MetricWeights) -> dict[str, torch.Tensor]:
    """Weighted terms of decoded (positions [B, T, 22, 3], matrices [B, T, 22, 3, 3]) against true positions; bodies [B, 22, 3].

    position: every joint in the canonical frame; root: the pelvis alone (it carries all others); kinematics: joints by the
    decoded rotations on the true body; velocity: m/s of every joint; slide: m/s of a foot where the true one is planted.
    """
    positions, rotations = read
    out = {"position": w.position * F.smooth_l1_loss(positions, truth, beta=w.metre_beta),
           "root": w.root * F.smooth_l1_loss(positions[..., 0, :], truth[..., 0, :], beta=w.metre_beta)}
    if w.kinematics:
        by_turns = kinematics(truth[..., 0, :], rotations, offsets[..., None, :, :])
        out["kinematics"] = w.kinematics * F.smooth_l1_loss(by_turns, truth, beta=w.metre_beta)
    speed = (positions[..., 1:, :, :] - positions[..., :-1, :, :]) * FPS
    true_speed = (truth[..., 1:, :, :] - truth[..., :-1, :, :]) * FPS
    out["velocity"] = w.velocity * F.smooth_l1_loss(speed, true_speed, beta=0.1)
    still = planted(truth).to(speed.dtype)
    feet = speed[..., list(SMPL22_FEET), :].square().sum(-1).add(1e-6).sqrt()
    out["slide"] = w.slide * (feet * still).sum() / still.sum().clamp(min=1)
    return out
