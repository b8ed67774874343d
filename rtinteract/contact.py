"""Where hands are about to meet: a small network tells touches of two people from their movements alone.

Each frame, it says for every pair of points that may touch (`CHANNELS`) how likely they do, and how far apart they then are.
`touches` turns that into intervals, for `rtinteract.closing` to act upon. Trained by `rtinteract train contact` on composed
pairs whose reactor errs as a model does, and on a model's own reactions to them (the shipped network on the shipped model's).
It reads no text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rtinteract import rotation as R
from rtinteract.container import read_container
from rtinteract.errors import CheckpointError

WEIGHTS = "contact.safetensors"
HANDS = (20, 21)
# Shoulders, upper and lower back: what a hand is laid upon.
BODY = (16, 17, 9, 6)
# (joint of person 0, joint of person 1): hand and hand, a hand on the other's body both ways, chests.
CHANNELS = (tuple((a, b) for a in HANDS for b in HANDS) + tuple((a, b) for a in HANDS for b in BODY)
            + tuple((b, a) for a in HANDS for b in BODY) + ((9, 9),))
PALM_M = 0.08
FINGERS = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
PALM = np.array([0.0, -1.0, 0.0])
# What the network sees of each person: palms, elbows, shoulders, upper and lower back, head, pelvis; then four directions.
_JOINTS = (18, 19, 16, 17, 9, 6, 15, 0)
POINTS = 2 + len(_JOINTS)
_DIRECTIONS = 5
_POINT_OF = {20: 0, 21: 1, 16: 4, 17: 5, 9: 6, 6: 7}
_SWAPPED = (1, 0, 3, 2, 5, 4, 6, 7, 8, 9, 11, 10, 13, 12, 14)
FEATURES = 2 * (3 * (POINTS + _DIRECTIONS)) + 1 + len(CHANNELS)
# Frames that a movement lasts of which nothing more is known.
_LASTS = 4.0
_DILATIONS = (1, 2, 4, 8, 16)


def seen_of(places, turns):
    """What is looked at of one person, [..., T, 15, 3] in world axes, from joint places [..., T, 22, 3] and world rotations
    [..., T, 22, 4]; numpy or torch. Points in metres, then unit directions: fingers and palms of both hands, the facing."""
    xp = R._ns(places)
    fingers, palm = (xp.asarray(v, dtype=places.dtype) for v in (FINGERS, PALM))
    hands = turns[..., list(HANDS), :]
    out = R.rotate(hands, fingers)
    palms = places[..., list(HANDS), :] + PALM_M * out
    across = (places[..., 1, :] - places[..., 2, :]) + (places[..., 16, :] - places[..., 17, :])
    # Square to left over the floor, as forward is.
    facing = xp.stack([-across[..., 2], 0 * across[..., 1], across[..., 0]], -1)
    facing = facing / (((facing * facing).sum(-1) ** 0.5)[..., None] + 1e-6)
    return xp.concatenate([palms, places[..., list(_JOINTS), :], out, R.rotate(hands, palm + 0 * out), facing[..., None, :]], -2)


def mirrored(seen: torch.Tensor) -> torch.Tensor:
    """`seen_of` of the mirror image."""
    return seen[..., list(_SWAPPED), :] * seen.new_tensor([-1.0, 1.0, 1.0])


def mirrored_channels() -> list[int]:
    """Where each channel goes in the mirror image."""
    swap = {20: 21, 21: 20, 16: 17, 17: 16}
    return [CHANNELS.index((swap.get(a, a), swap.get(b, b))) for a, b in CHANNELS]


def features(seen: torch.Tensor) -> torch.Tensor:
    """Network input [..., T, FEATURES] of both people [..., T, 2, 15, 3]: each person from below the own pelvis, looking at the
    other one; and how far everything that may touch is apart."""
    pelvis = seen[..., POINTS - 1, :]
    across = (pelvis[..., 1, :] - pelvis[..., 0, :]) * seen.new_tensor([1.0, 0.0, 1.0])
    apart = across.norm(dim=-1, keepdim=True)
    ahead = across / apart.clamp(min=1e-3)
    ahead = torch.stack([ahead, -ahead], -2)[..., None, :]
    left = torch.stack([ahead[..., 2], torch.zeros_like(ahead[..., 0]), -ahead[..., 0]], -1)
    points, turns = seen[..., :POINTS, :], seen[..., POINTS:, :]
    floor = (pelvis * seen.new_tensor([1.0, 0.0, 1.0]))[..., None, :]
    both = torch.cat([points - floor, turns], -2)
    own = torch.stack([(both * left).sum(-1), both[..., 1], (both * ahead).sum(-1)], -1)
    first = points[..., 0, [_POINT_OF[a] for a, _ in CHANNELS], :]
    second = points[..., 1, [_POINT_OF[b] for _, b in CHANNELS], :]
    gaps = torch.log((first - second).norm(dim=-1) + 0.05)
    return torch.cat([own.flatten(-3), apart, gaps], -1)


def run_out(frames):
    """Frames' worth of the last speed by which a movement goes on in so many ``frames`` when it dies out: what is guessed of
    someone of whom nothing more is known."""
    return _LASTS * (1 - R._ns(frames).exp(-frames / _LASTS))


class ContactNet(nn.Module):
    """Dilated convolutions over time: features [B, T, FEATURES] -> (logits [B, T, C], gaps [B, T, C] in metres), one a channel.

    A frame sees about a second before and after it.
    """

    def __init__(self, width: int = 40):
        super().__init__()
        self.width = width
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("scale", torch.ones(FEATURES))
        self.enter = nn.Linear(FEATURES, width)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 3, dilation=d) for d in _DILATIONS)
        self.leave = nn.Linear(width, 2 * len(CHANNELS))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See the class."""
        x = self.enter((x - self.mean) * self.scale).transpose(1, 2)
        for layer, dilation in zip(self.layers, _DILATIONS, strict=True):
            x = x + layer(F.pad(F.gelu(x), (dilation, dilation), mode="replicate"))
        logits, gaps = self.leave(F.gelu(x.transpose(1, 2))).chunk(2, -1)
        return logits, F.softplus(gaps)


def read_net(path: Path) -> ContactNet:
    """The network of a file of `rtinteract train contact`; CheckpointError where it is not one."""
    about, tensors = read_container(path, "make one with rtinteract train contact")
    try:
        net = ContactNet(int(about["contact_width"]))
        net.load_state_dict({k: v.float() for k, v in tensors.items()})
    except (RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: expected the weights of a contact network, got other ones ({error}); make one with "
                              "rtinteract train contact") from error
    return net.eval().requires_grad_(False)


@cache
def shipped_net() -> ContactNet:
    """The network that ships with the package."""
    return read_net(Path(str(resources.files("rtinteract") / "assets" / WEIGHTS)))


@dataclass(frozen=True)
class Touch:
    """Person 1's joint ``b`` is to be ``gap`` metres from person 0's joint ``a`` in frames ``start`` <= t < ``end``; ``likely``
    is how sure the network is where it is most so."""

    a: int
    b: int
    start: int
    end: int
    gap: float
    likely: float


# A touch begins and ends where its likelihood passes the first share, and counts where it reaches the second: of whole clips, and
# in a stream, where waiting to be sure means to come late.
CLIP, STREAM = (0.2, 0.45), (0.12, 0.3)
# Frames by which a stream, which sees the first person's hand come only as it comes, is late to tell.
LATE = 3
# Frames of doubt that a touch bridges.
BRIDGED = 5


@torch.inference_mode()
def likelihoods(net: ContactNet, places: tuple, turns: tuple) -> tuple[np.ndarray, np.ndarray]:
    """(likelihood [T, C], gap [T, C] metres) of every channel, from both people's joint places [T, 22, 3] and world rotations
    [T, 22, 4]."""
    seen = np.stack([seen_of(np.asarray(p), np.asarray(q)) for p, q in zip(places, turns, strict=True)], 1)
    logits, gaps = net(features(torch.as_tensor(seen, dtype=torch.float32))[None])
    return torch.sigmoid(logits[0]).numpy().astype(np.float64), gaps[0].numpy().astype(np.float64)


def _bridged(starts, ends) -> list[tuple[int, int]]:
    """Intervals, those with at most BRIDGED frames in between as one."""
    found: list[tuple[int, int]] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if found and start - found[-1][1] <= BRIDGED:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def touches(likely: np.ndarray, gaps: np.ndarray, shares: tuple[float, float] = CLIP, late: int = 0) -> list[Touch]:
    """The touches told by `likelihoods`, with the ``shares`` that CLIP or STREAM are; they begin ``late`` frames before they are
    told."""
    found = []
    for channel, (a, b) in enumerate(CHANNELS):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], likely[:, channel] > shares[0], [0]]).astype(np.int8)))
        for start, end in _bridged(edges[::2], edges[1::2]):
            sure = float(likely[start:end, channel].max())
            if sure >= shares[1]:
                gap = float(np.average(gaps[start:end, channel], weights=likely[start:end, channel]))
                found.append(Touch(a, b, max(0, start - late), end, gap, sure))
    return found
