"""Losses in metres on what a codec decodes, for representations that can be read as poses (the project's own).

Normalised features weigh a wrist's centimetre less than a hip's and say nothing of where the integrated root ends; these
terms do. Positions are per frame, so differences over time are multiplied by the frame rate where a speed is meant.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from rtinteract.skeleton import SMPL22_FEET, SMPL22_PARENTS, chained, tree_levels

FPS = 30.0


@dataclass(frozen=True)
class MetricWeights:
    """Weights of the terms; ``feature_beta`` (normalised) and ``metre_beta`` are where a loss turns from square to absolute.

    ``root_row`` weighs the first row of the image against each other one: it alone says where a person is and faces. Of the
    other rows' features, velocities weigh ``row_velocity`` and rotations ``row_rotation`` of what a position does: nothing
    reads the ones, and the others tell little but twist. ``kinematics`` is taken on frames 0, ``every``, 2 ``every``, ...
    """

    feature: float = 1.0
    root_row: float = 4.0
    row_velocity: float = 0.1
    row_rotation: float = 0.3
    position: float = 4.0
    root: float = 2.0
    kinematics: float = 1.5
    velocity: float = 0.1
    slide: float = 0.05
    acceleration: float = 0.0
    commitment: float = 0.02
    feature_beta: float = 0.05
    metre_beta: float = 0.02
    every: int = 1


def kinematics(root: torch.Tensor, rotations: torch.Tensor, offsets: torch.Tensor,
               parents: tuple[int, ...] = SMPL22_PARENTS) -> torch.Tensor:
    """Positions [..., J, 3] from roots [..., 3], matrices [..., J, 3, 3] and offsets [..., J, 3], a tree level at a time."""
    turns, order = [rotations[..., :1, :, :]], [0]
    for level, above in tree_levels(parents):
        turns.append(turns[-1][..., list(above), :, :] @ rotations[..., list(level), :, :])
        order += level
    world = torch.cat(turns, -3)[..., [order.index(p) for p in parents[1:]], :, :]
    return chained(parents, root, (world * offsets[..., 1:, None, :]).sum(-1))


def planted(positions: torch.Tensor) -> torch.Tensor:
    """Which feet [..., T - 1, 4] stand still from a frame to the next: slower than 0.15 m/s and near the floor.

    InterMask's heights are 0.12 m for an ankle and 0.05 m for a toe; real captures wear shoes, so 0.03 m are added.
    """
    feet = positions[..., list(SMPL22_FEET), :]
    speed = (feet[..., 1:, :, :] - feet[..., :-1, :, :]).norm(dim=-1) * FPS
    height = torch.tensor([0.15, 0.08, 0.15, 0.08], device=positions.device)
    return (speed < 0.15) & (feet[..., :-1, :, 1] < height)


def feature_weights(rows: int, features: int, w: MetricWeights) -> torch.Tensor:
    """Weights [rows, features] of an image's features, 1 in the mean."""
    weights = torch.ones(rows, features)
    weights[1:, 3:6] = w.row_velocity
    weights[1:, 6:] = w.row_rotation
    weights[0] = w.root_row
    return weights / weights.mean()


def feature_loss(prediction: torch.Tensor, target: torch.Tensor, w: MetricWeights) -> torch.Tensor:
    """Smooth-L1 of normalised images [B, T, J, F], weighted by `feature_weights`."""
    loss = F.smooth_l1_loss(prediction, target, beta=w.feature_beta, reduction="none").mean((0, 1))
    return (loss * feature_weights(*loss.shape, w).to(loss)).mean()


def terms(read: tuple[torch.Tensor, torch.Tensor], truth: torch.Tensor, offsets: torch.Tensor,
          w: MetricWeights) -> dict[str, torch.Tensor]:
    """Weighted terms of decoded (positions [B, T, 22, 3], matrices [B, T / every, 22, 3, 3]) against true positions; bodies
    [B, 22, 3].

    position: every joint in the canonical frame; root: the pelvis alone (it carries all others); kinematics: joints by the
    decoded rotations on the true body; velocity: m/s of every joint; slide: m/s of a foot where the true one is planted;
    acceleration: m/s^2 of every joint.
    """
    positions, rotations = read
    out = {"position": w.position * F.smooth_l1_loss(positions, truth, beta=w.metre_beta),
           "root": w.root * F.smooth_l1_loss(positions[..., 0, :], truth[..., 0, :], beta=w.metre_beta)}
    if w.kinematics:
        some = truth[..., ::w.every, :, :]
        by_turns = kinematics(some[..., 0, :], rotations, offsets[..., None, :, :])
        out["kinematics"] = w.kinematics * F.smooth_l1_loss(by_turns, some, beta=w.metre_beta)
    speed = (positions[..., 1:, :, :] - positions[..., :-1, :, :]) * FPS
    true_speed = (truth[..., 1:, :, :] - truth[..., :-1, :, :]) * FPS
    out["velocity"] = w.velocity * F.smooth_l1_loss(speed, true_speed, beta=0.1)
    if w.acceleration:
        change = FPS * (speed - true_speed).diff(dim=-3)
        out["acceleration"] = w.acceleration * F.smooth_l1_loss(change, torch.zeros_like(change), beta=1.0)
    still = planted(truth).to(speed.dtype)
    feet = speed[..., list(SMPL22_FEET), :].square().sum(-1).add(1e-6).sqrt()
    out["slide"] = w.slide * (feet * still).sum() / still.sum().clamp(min=1)
    return out
