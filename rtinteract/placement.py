"""Where two people stand to each other, apart from how each of them moves.

A codec of a few codes a column cannot carry a pose and a place at once: with one shared frame the partner comes back decimetres
off. So each person is encoded in a canonical frame of their own, and what is known exactly is told to the transformer beside
the tokens: how the two frames lie to each other, and for each column of a known pose where that person stands in the partner's
frame (InterSyn's relative coordination, with the coordinates given instead of refined afterwards).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtinteract import rotation as R

_WAVES_M = (8.0, 4.0, 2.0, 1.0, 0.5)
_SEEN = 2 + 4 * len(_WAVES_M) + 5
#: Numbers told with each column of a person's tokens: the partner's frame, the person's own place in it, whether that is known.
WIDTH = 2 * _SEEN + 1
_COMPONENTS = 8
# Draws stay nearer to a component's middle than the data: a stray place is worse than a usual one.
_CALM = 0.7


def relative(yaw: Tensor, origin: Tensor, partner_yaw: Tensor, partner_origin: Tensor) -> Tensor:
    """A partner's frame seen from one's own: [..., 3] = x and z in metres and yaw in radians.

    ``yaw`` [...] and ``origin`` [..., 3] are a frame on the floor (`rtinteract.features.canonical.Frame`).
    """
    away = R.rotate(R.yaw(-yaw), partner_origin - origin)
    return torch.stack([away[..., 0], away[..., 2], partner_yaw - yaw], -1)


def compose(yaw: Tensor, origin: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """The partner's (yaw, origin) in the world from one's own frame and `relative`'s answer [..., 3]."""
    away = torch.stack([seen[..., 0], torch.zeros_like(seen[..., 0]), seen[..., 1]], -1)
    return yaw + seen[..., 2], origin + R.rotate(R.yaw(yaw), away)


def describe(seen: Tensor) -> Tensor:
    """Features [..., 27] of `relative`'s answer [..., 3]: coarse and fine waves of the place, bearing, distance, yaw."""
    place, yaw = seen[..., :2], seen[..., 2]
    turns = torch.cat([place * (2 * math.pi / length) for length in _WAVES_M], -1)
    distance = place.square().sum(-1).add(1e-8).sqrt()
    bearing = place / distance.clamp(min=0.05)[..., None]
    return torch.cat([place / 2, turns.sin(), turns.cos(), bearing, torch.stack([distance / 2, yaw.sin(), yaw.cos()], -1)], -1)


def describe_pair(yaw: Tensor, origin: Tensor, step_yaw: Tensor, step_origin: Tensor, known: Tensor) -> Tensor:
    """What two people's tokens are told, [..., 2, N, WIDTH].

    ``yaw`` [..., 2] and ``origin`` [..., 2, 3] are their canonical frames in one world; ``step_yaw`` [..., 2, N] and
    ``step_origin`` [..., 2, N, 3] the frames of their bodies at the last pose of each column, of which only those count that
    are ``known`` (bool [..., 2, N]).
    """
    partner_yaw, partner_origin = yaw.flip(-1), origin.flip(-2)
    still = describe(relative(yaw, origin, partner_yaw, partner_origin))[..., None, :]
    way = describe(relative(partner_yaw[..., None], partner_origin[..., None, :], step_yaw, step_origin))
    way = torch.where(known[..., None], way, 0.0)
    return torch.cat([still.expand(way.shape), way, known[..., None].to(way.dtype)], -1)


class PlacementPrior(nn.Module):
    """A mixture over where the second person's first frame lies, given the text condition [B, C] (zeros: no text)."""

    def __init__(self, condition: int):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(condition, 64), nn.GELU(), nn.Linear(64, _COMPONENTS * 8))
        # Components begin spread in front of the person, as partners are.
        spread = torch.zeros(_COMPONENTS, 8)
        spread[:, 1] = torch.linspace(-0.6, 0.6, _COMPONENTS)
        spread[:, 2] = torch.linspace(0.6, 3.0, _COMPONENTS)
        spread[:, 5] = -1.0
        with torch.no_grad():
            self.net[2].bias.copy_(spread.flatten())

    def _mixture(self, condition: Tensor):
        out = self.net(condition).float().unflatten(-1, (_COMPONENTS, 8))
        facing = F.normalize(out[..., 5:7], dim=-1, eps=1e-4)
        return (out[..., 0].log_softmax(-1), out[..., 1:3], out[..., 3:5].clamp(-3.5, 1.5).exp(),
                torch.atan2(facing[..., 1], facing[..., 0]), out[..., 7].clamp(-3, 4.5).exp())

    def loss(self, condition: Tensor, seen: Tensor) -> Tensor:
        """Mean negative log likelihood of `relative`'s answers [B, 3]."""
        weight, mean, scale, yaw, sharp = self._mixture(condition)
        place = -0.5 * ((seen[:, None, :2] - mean) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)
        # Von Mises; i0e is scaled by exp(-sharp), which the cosine's -1 takes up.
        turn = sharp * (torch.cos(seen[:, None, 2] - yaw) - 1) - torch.log(2 * math.pi * torch.special.i0e(sharp))
        return -torch.logsumexp(weight + place.sum(-1) + turn, -1).mean()

    @torch.no_grad()
    def draw(self, condition: Tensor, seed: int) -> Tensor:
        """One place [3] for a condition [C]; the same seed gives the same place on every device."""
        weight, mean, scale, yaw, sharp = (x[0].cpu() for x in self._mixture(condition[None]))
        g = torch.Generator().manual_seed(seed % 2**63)
        k = int(torch.multinomial(weight.exp(), 1, generator=g))
        noise = torch.randn(3, generator=g) * _CALM
        return torch.cat([mean[k] + scale[k] * noise[:2], (yaw[k] + noise[2] / sharp[k].sqrt())[None]]).to(condition.device)
