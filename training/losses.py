"""Losses of the codec (InterMask section 3.1.1, appendix C, and its implementation) and of two people together.

The geometric terms of the published system are taken on *normalised* features, only foot contact in metres; so are ours.
Frames that are all zero (padding) add nothing that is not finite, to the values or to the gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rtinteract.training.metric_losses import kinematics

from rtinteract import rotation as R
from rtinteract.features.interhuman import CONTACT_DISPLACEMENT, CONTACT_HEIGHTS
from rtinteract.features.interx import ROOT_ROW
from rtinteract.skeleton import SMPL22_FEET, SMPL22_PARENTS, Skeleton

_PARENTS, _FEET = list(SMPL22_PARENTS[1:]), list(SMPL22_FEET)
# Distances (m) under which two joints count as near, and as touching, in the distance map.
NEAR, TOUCHING = 1.0, 0.1


@dataclass(frozen=True)
class CodecLossWeights:
    """Weights of the codec's terms beside the reconstruction; the published values."""

    explicit: float = 1.0
    velocity: float = 100.0
    bone: float = 5.0
    geodesic: float = 0.01
    foot: float = 500.0
    commitment: float = 0.02

    @classmethod
    def interx(cls) -> CodecLossWeights:
        """Those for Inter-X (InterMask, appendix E)."""
        return cls(foot=100.0)


class GeometricLosses(NamedTuple):
    """Scalars; see `geometric_losses`."""

    reconstruction: torch.Tensor
    explicit: torch.Tensor
    velocity: torch.Tensor
    bone: torch.Tensor
    geodesic: torch.Tensor
    foot: torch.Tensor

    def total(self, commitment=0.0, weights: CodecLossWeights | None = None):
        """The weighted sum, commitment included."""
        w = weights or CodecLossWeights()
        return (self.reconstruction + w.explicit * self.explicit + w.velocity * self.velocity + w.bone * self.bone
                + w.geodesic * self.geodesic + w.foot * self.foot + w.commitment * commitment)


def geodesic_loss(prediction, target):
    """Mean angle (rad) between the rotations of 6D values [..., 6]; rows where either is zero are left out."""
    zero = ((prediction * prediction).sum(-1) < 1e-12) | ((target * target).sum(-1) < 1e-12)
    one = torch.tensor([1, 0, 0, 0, 1, 0], dtype=prediction.dtype, device=prediction.device)
    a, b = (R.matrix_from_6d(torch.where(zero[..., None], one, x)) for x in (prediction, target))
    cosine = ((a * b).sum((-1, -2)) - 1) / 2
    angle = torch.acos(cosine.clamp(-1 + 1e-7, 1 - 1e-7))
    return torch.where(zero, torch.zeros_like(angle), angle).sum() / (~zero).sum().clamp(min=1)


def bone_lengths(positions):
    """Lengths [..., 21] of the bones of positions [..., 22, 3]."""
    return (positions[..., 1:, :] - positions[..., _PARENTS, :]).norm(dim=-1)


def planted_feet(target):
    """Which feet [B, T - 1, 4] of positions [B, T, 22, 3] (m) stand, as the published data define contact."""
    true = target[..., _FEET, :]
    heights = torch.tensor(CONTACT_HEIGHTS, dtype=target.dtype, device=target.device)
    return ((true.diff(dim=1) ** 2).sum(-1) < CONTACT_DISPLACEMENT) & (true[:, :-1, :, 1] < heights)


def foot_loss(prediction, target):
    """Motion of the predicted feet where the true ones stand; positions [B, T, 22, 3] in metres.

    Smooth-L1 of the displacement a frame (m), over the planted feet; 0 where none is planted.
    """
    planted = planted_feet(target)
    moved = prediction[..., _FEET, :].diff(dim=1)
    loss = F.smooth_l1_loss(moved, torch.zeros_like(moved), reduction="none").sum(-1)
    return (loss * planted).sum() / (3 * planted.sum()).clamp(min=1)


def geometric_losses(prediction, target, mean, std) -> GeometricLosses:
    """Terms of the codec loss for "interhuman" images [B, T, 22, 12], normalised by ``mean`` and ``std`` [22, 12].

    Smooth-L1 of features, positions, position differences and bone lengths, and the mean geodesic angle, all as
    normalised; the foot term in metres. As published, the geodesic term reads 6D as two columns in sequence.
    """
    sl1 = F.smooth_l1_loss
    p, q = prediction[..., :3], target[..., :3]
    # The root has no rotation in the data: its zeros are not part of the mean.
    turns, true_turns = prediction[..., 1:, 6:], target[..., 1:, 6:]
    rows = [torch.cat([x[..., :6].flatten(-2), y.flatten(-2)], -1) for x, y in ((prediction, turns), (target, true_turns))]
    metres = [x * std[..., :3] + mean[..., :3] for x in (p, q)]
    return GeometricLosses(
        reconstruction=sl1(*rows),
        explicit=sl1(p, q),
        velocity=sl1(p.diff(dim=1), q.diff(dim=1)),
        bone=sl1(bone_lengths(p), bone_lengths(q)),
        geodesic=geodesic_loss(turns, true_turns),
        foot=foot_loss(*metres))


def interx_places(image, mean, std, body: Skeleton, offsets):
    """Positions [B, T, 55, 3] in metres of a normalised "interx" image [B, T, 56, 6] on ``body``, see `interx_losses`."""
    rest = torch.tensor(body.offsets, dtype=image.dtype, device=image.device)
    grown = offsets[:, 20].norm(dim=-1) / rest[20].norm()
    rest = torch.cat([offsets, rest[22:] * grown[:, None, None]], 1)[:, None]
    image = image * std + mean
    turns = R.matrix_from_6d(image[..., :ROOT_ROW, :]).transpose(-1, -2)
    return kinematics(image[..., ROOT_ROW, :3], turns, rest, body.parents)


def interx_losses(prediction, target, mean, std, body: Skeleton, offsets) -> GeometricLosses:
    """Terms of the codec loss for "interx" images [B, T, 56, 6], normalised by ``mean`` and ``std`` [56, 6].

    The places of all 55 joints come from forward kinematics of ``body`` (`training.smplx`) with each sample's own rest
    ``offsets`` [B, 22, 3] m for SMPL-22's joints; the hands grow with the forearm. The feature term is taken as normalised, the
    others in metres and radians, as published. Lengths of bones cannot differ here, so their term is 0.
    """
    sl1 = F.smooth_l1_loss
    p, q = (interx_places(image, mean, std, body, offsets) for image in (prediction, target))
    turns, true_turns = ((image * std + mean)[..., :ROOT_ROW, :] for image in (prediction, target))
    return GeometricLosses(
        reconstruction=sl1(prediction, target), explicit=sl1(p, q), velocity=sl1(p.diff(dim=1), q.diff(dim=1)),
        bone=torch.zeros_like(p[0, 0, 0, 0]), geodesic=geodesic_loss(turns, true_turns), foot=foot_loss(p, q))


def _facing(positions):
    """Facing [..., 3] on the floor from the hips of positions [..., 22, 3]; +Z for a body of zeros."""
    across = positions[..., 1, :] - positions[..., 2, :]
    flat = torch.stack([-across[..., 2], torch.zeros_like(across[..., 0]), across[..., 0]], -1)
    ahead = torch.tensor([0, 0, 1], dtype=flat.dtype, device=flat.device)
    return torch.where((flat * flat).sum(-1, keepdim=True) < 1e-12, ahead, flat)


def distance_map_loss(prediction, target):
    """Distances between all joints of two people; positions [B, 2, T, 22, 3] in metres.

    Smooth-L1 of the distances over the pairs that the prediction has nearer than NEAR, plus that of the predicted distance
    itself over the pairs that truly touch (nearer than TOUCHING).
    """
    here, true = ((x[:, 0, :, :, None] - x[:, 1, :, None]).norm(dim=-1) for x in (prediction, target))
    near, touching = here < NEAR, true < TOUCHING
    apart = F.smooth_l1_loss(here, true, reduction="none")
    reach = F.smooth_l1_loss(here, torch.zeros_like(here), reduction="none")
    return (apart * near).sum() / near.sum().clamp(min=1) + (reach * touching).sum() / touching.sum().clamp(min=1)


def relative_orientation_loss(prediction, target):
    """Smooth-L1 of the turn (w and y of its quaternion) from one person's facing to the other's; [B, 2, T, 22, 3] m."""
    turns = [R.between(_facing(x[:, 0]), _facing(x[:, 1]))[..., [0, 2]] for x in (prediction, target)]
    return F.smooth_l1_loss(*turns)
