"""Clips in memory and augmented batches of them, whole batches at a time in torch.

Every draw comes from the generator the caller gives, so a batch is a pure function of its seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from rtinteract.training.shards import StoredPairs
from rtinteract.training.smplx import MIRROR

from rtinteract import rotation as R
from rtinteract.errors import ConfigError, MotionError
from rtinteract.features.base import Representation
from rtinteract.features.canonical import Frame, frame_of, to_frame
from rtinteract.features.normalize import Normalizer
from rtinteract.skeleton import SMPL22, SMPL22_MIRROR, forward_kinematics

FRAMES_PER_COLUMN = 4
FPS = 30.0
# Joints above the hips.
UPPER = (3, 6, 9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21)


@dataclass(frozen=True)
class Augmentation:
    """How much a crop is varied. Shares are probabilities; ranges are uniform.

    ``scale`` is the body's size, ``warp`` the playing speed. The canonical frame lies at the pose of the crop's first frame
    (share ``anchor_first``), else at that of any frame: a clip's lies at its first, a stream's at its newest known one. With
    ``anchor_clip`` it lies at the first frame of the clip that the crop is from, as in the published codec's training.

    Little motion capture holds few of the ways in which people move, so more are made of it: with share ``mix`` a person gets
    another crop's upper body, with share ``pose`` the joints of the upper body are turned by about ``pose_rad`` radians all
    along, with share ``curve`` the way bends by up to ``curve_rad_s`` radians a second. With people in one shared frame a
    solo person stands elsewhere, up to ``elsewhere_m`` metres away and turned at will, with share ``elsewhere``: so a second
    person looks to the codec.

    Nobody in a clip misses the moment, so a model that once did would not know how to go on: with share ``late`` the second
    person of a pair is behind by ``late_s`` seconds (ahead where negative) up to a given frame, and makes it good from there on
    by moving ``catch_up`` faster (slower).
    """

    mirror: float = 0.5
    scale: tuple[float, float] = (0.9, 1.1)
    warp: tuple[float, float] = (0.9, 1.1)
    anchor_first: float = 0.4
    anchor_clip: bool = False
    mix: float = 0.0
    pose: float = 0.0
    pose_rad: float = 0.2
    curve: float = 0.0
    curve_rad_s: float = 1.5
    elsewhere: float = 0.5
    elsewhere_m: float = 3.0
    late: float = 0.0
    late_s: tuple[float, float] = (-0.3, 1.3)
    catch_up: tuple[float, float] = (0.3, 0.7)

    @classmethod
    def none(cls) -> Augmentation:
        """Plain crops, each in the frame of its own first pose."""
        return cls(mirror=0.0, scale=(1.0, 1.0), warp=(1.0, 1.0), anchor_first=1.0, elsewhere=0.0)


@dataclass(frozen=True, eq=False)
class Crops:
    """A batch of crops in their canonical frames: ``positions`` [B, P, T, 22, 3] m, ``rotations`` [B, P, T, 22, 4],
    ``offsets`` [B, P, 22, 3] of the (scaled, mirrored) bodies, ``clip`` [B] indices, ``mirrored`` [B] bool, ``anchor`` [B],
    the frames whose poses the canonical frames were taken from, and ``frame`` [B, P or 1], those as they lay in the clip's
    world."""

    positions: torch.Tensor
    rotations: torch.Tensor
    offsets: torch.Tensor
    clip: torch.Tensor
    mirrored: torch.Tensor
    anchor: torch.Tensor
    frame: Frame


def between_frames(a: torch.Tensor, b: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """Rotations [..., 4] between a and b by ``part`` [...] in [0, 1], the short way round: along the chord, which for frames next
    to each other is as good as the arc and takes a fifth of the time."""
    near = torch.where((a * b).sum(-1, keepdim=True) < 0, -b, b)
    return R.normalize(torch.lerp(a, near, part[..., None]))


class Pool:
    """Clips of P people, one after the other.

    ``root`` [frames, P', 3], ``rotations`` [frames, P', J, 4], ``offsets`` [clips, P, 22, 3], ``lengths`` and ``starts`` [clips].
    A clip's people are those from ``first`` [clips] on among the P' of its frames. J is 22, or 55 with SMPL-X's jaw, eyes and
    fingers.
    """

    def __init__(self, clips: list[tuple[np.ndarray, np.ndarray, np.ndarray]]):
        if not clips:
            raise MotionError("training data: expected at least one clip, got none; give a folder with motion files")
        self.lengths = torch.tensor([len(root) for root, _, _ in clips])
        self.starts = torch.cumsum(self.lengths, 0) - self.lengths
        self.root = torch.from_numpy(np.concatenate([c[0] for c in clips]).astype(np.float32))
        rotations = torch.from_numpy(np.concatenate([c[1] for c in clips]).astype(np.float32))
        self.rotations = R.normalize(rotations)
        self.offsets = torch.from_numpy(np.stack([c[2] for c in clips]).astype(np.float32))
        self.people = self.root.shape[1]
        self.first = torch.zeros_like(self.lengths)

    @classmethod
    def of_stored(cls, stored: StoredPairs, joints: int, apart: bool) -> Pool:
        """Over the stored clips' own arrays, nothing copied; with ``apart`` every person as a clip of its own."""
        pool = cls.__new__(cls)
        pool.root, pool.rotations = torch.from_numpy(stored.root), torch.from_numpy(stored.rotations[:, :, :joints])
        pool.lengths, pool.starts = torch.tensor(stored.lengths), torch.tensor(stored.starts[:-1])
        pool.offsets, pool.people = torch.from_numpy(np.array(stored.offsets)), 2
        pool.first = torch.zeros_like(pool.lengths)
        if apart:
            pool.first = torch.arange(2).repeat(len(stored))
            pool.lengths, pool.starts = pool.lengths.repeat_interleave(2), pool.starts.repeat_interleave(2)
            pool.offsets, pool.people = pool.offsets.flatten(0, 1)[:, None], 1
        return pool

    @classmethod
    def of_solo(cls, clips) -> Pool:
        """From solo clips: one person each."""
        return cls([(c.motion.root[:, None], c.motion.rotations[:, None], c.motion.skeleton.offsets[None]) for c in clips])

    @classmethod
    def of_pairs(cls, clips, joints: int = 22) -> Pool:
        """From pair clips: person 0, then person 1. ``joints`` at most, where more are stored."""
        if isinstance(clips, StoredPairs):
            return cls.of_stored(clips, joints, apart=False)
        return cls([(c.root.transpose(1, 0, 2), c.rotations.transpose(1, 0, 2, 3), c.offsets) for c in clips])

    @classmethod
    def of_people(cls, clips, joints: int = 22) -> Pool:
        """From pair clips: every person as a clip of its own. ``joints`` at most, where more are stored."""
        if isinstance(clips, StoredPairs):
            return cls.of_stored(clips, joints, apart=True)
        return cls([(c.root[p, :, None], c.rotations[p, :, None], c.offsets[p, None]) for c in clips for p in range(2)])

    def __len__(self):
        return len(self.lengths)

    def choose(self, batch: int, frames: int, g: torch.Generator) -> torch.Tensor:
        """Clip indices [batch], likelier the more crops of ``frames`` frames a clip has; ConfigError if none is long enough."""
        room = (self.lengths - frames + 1).clamp(min=0).double()
        if room.sum() == 0:
            raise ConfigError(f"training data: expected clips of at least {frames} frames, got "
                              f"{int(self.lengths.max())} at most; shorten the crops or add longer clips")
        # Capped, so that a few long recordings do not crowd out the short clips.
        return torch.multinomial(room.clamp(max=600), batch, replacement=True, generator=g)

    def longest_crop(self, frames: int, warp: float) -> int:
        """``frames`` or fewer, as the longest clip allows at playing speed ``warp``, in whole columns."""
        most = int((int(self.lengths.max()) - 2) / warp)
        return max(FRAMES_PER_COLUMN, min(frames, most // FRAMES_PER_COLUMN * FRAMES_PER_COLUMN))

    def poses(self, clip: torch.Tensor, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Roots [B, P, T, 3] and rotations [B, P, T, 22, 4] at frame times [B, T] or [B, P, T] of clips [B]."""
        times = times if times.dim() == 3 else times[:, None].expand(-1, self.people, -1)
        last = (self.lengths[clip] - 1)[:, None, None]
        times = torch.minimum(times.clamp(min=0), last.to(times.dtype))
        low = times.floor().long()
        part = (times - low)[..., None]
        high = torch.minimum(low + 1, last)
        person = self.first[clip][:, None, None] + torch.arange(self.people)[:, None]
        first = self.starts[clip][:, None, None]
        root = torch.lerp(self.root[first + low, person], self.root[first + high, person], part)
        rotations = self.rotations[first + low, person]
        if bool((part > 0).any()):
            rotations = between_frames(rotations, self.rotations[first + high, person], part)
        return root, rotations


def uniform(g: torch.Generator, shape, low: float, high: float) -> torch.Tensor:
    """Uniform draws in [low, high) on the CPU."""
    return torch.rand(shape, generator=g) * (high - low) + low


def mirrored(root: torch.Tensor, rotations: torch.Tensor, offsets: torch.Tensor, which: torch.Tensor):
    """Left and right swapped (x flipped) where ``which`` [B]: roots [B, P, T, 3], rotations [B, P, T, J, 4], offsets."""
    swap = list(SMPL22_MIRROR)
    turned = list(MIRROR)[:rotations.shape[-2]]
    flip = torch.tensor([-1.0, 1.0, 1.0])
    turn = torch.tensor([1.0, 1.0, -1.0, -1.0])
    w = which[:, None, None]
    return (torch.where(w[..., None], root * flip, root),
            torch.where(w[..., None, None], rotations[..., turned, :] * turn, rotations),
            torch.where(w[..., None], offsets[..., swap, :] * flip, offsets))


class _Variation(NamedTuple):
    """Draws of `varied` for a batch: whose upper body each sample gets [B] (its own number: nobody's), turns of its joints
    [B, P, 1, U, 3] in radians and of its way [B] in radians a second; None where there is no such draw."""

    other: torch.Tensor | None
    turn: torch.Tensor | None
    curve: torch.Tensor | None

    @classmethod
    def drawn(cls, batch: int, people: int, a: Augmentation, g: torch.Generator) -> _Variation:
        """As ``a`` has it."""
        def chosen(share):
            return torch.rand(batch, generator=g) < share
        other = turn = curve = None
        if a.mix:
            others = torch.randperm(batch, generator=g)
            other = torch.where(chosen(a.mix), others, torch.arange(batch))
        if a.pose:
            turn = torch.randn(batch, people, 1, len(UPPER), 3, generator=g) * a.pose_rad
            turn = turn * chosen(a.pose)[:, None, None, None, None]
        if a.curve:
            curve = uniform(g, (batch,), -a.curve_rad_s, a.curve_rad_s) * chosen(a.curve)
        return cls(other, turn, curve)

    def of(self, rows: torch.Tensor) -> _Variation:
        """Those of some samples."""
        return _Variation(*(None if x is None else x[rows] for x in self))


def varied(root: torch.Tensor, rotations: torch.Tensor, others: torch.Tensor | None, v: _Variation):
    """Roots [B, P, T, 3] and rotations [B, P, T, J, 4] of people who move as nobody in the clips does, see `Augmentation`;
    ``others`` [B, P, T, J, 4] are the rotations of whose upper bodies they get."""
    frames = root.shape[2]
    if others is not None:
        upper = torch.zeros(rotations.shape[-2], dtype=torch.bool)
        upper[list(UPPER)] = True
        upper[22:] = True
        rotations = torch.where(upper[:, None], others, rotations)
    if v.turn is not None:
        rotations = rotations.clone()
        rotations[..., list(UPPER), :] = R.multiply(rotations[..., list(UPPER), :], R.from_axis_angle(v.turn))
    if v.curve is not None:
        turn = R.yaw(v.curve[:, None, None] * torch.arange(frames) / FPS)
        steps = R.rotate(turn[:, :, 1:], root.diff(dim=2) * torch.tensor([1.0, 0.0, 1.0]))
        path = torch.cat([root[:, :, :1], root[:, :, :1] + steps.cumsum(2)], 2)
        root = torch.stack([path[..., 0], root[..., 1], path[..., 2]], -1)
        rotations = torch.cat([R.multiply(turn[..., None, :].expand(rotations[..., :1, :].shape), rotations[..., :1, :]),
                               rotations[..., 1:, :]], -2)
    return root, rotations


def lateness(chosen: torch.Tensor, frames: int, now: int, a: Augmentation, g: torch.Generator) -> torch.Tensor:
    """Frames [B, 2, T] by which each person is late, see `Augmentation`: the second one up to frame ``now``, where ``chosen`` [B]
    and the draw says so."""
    batch = len(chosen)
    behind = uniform(g, (batch,), *a.late_s) * FPS * (chosen & (torch.rand(batch, generator=g) < a.late))
    good = uniform(g, (batch, 1), *a.catch_up) * (torch.arange(frames) - now).clamp(min=0)
    second = behind.sign()[:, None] * (behind.abs()[:, None] - good).clamp(min=0)
    return torch.stack([torch.zeros_like(second), second], 1)


class _Away(NamedTuple):
    """Imagined partners: whether there is one, the frame's yaw and its step from the person's own, [B] and [B, 3]."""

    away: torch.Tensor
    yaw: torch.Tensor
    step: torch.Tensor

    def moved(self, frame: Frame, rows: torch.Tensor) -> Frame:
        """The partner's frame where there is one: the person then stands away from its origin."""
        away, yaw, step = (x[rows] for x in self)
        return Frame(torch.where(away, yaw, frame.yaw), torch.where(away[:, None], frame.origin + step, frame.origin))


def _elsewhere(batch: int, a: Augmentation, g: torch.Generator) -> _Away:
    away = torch.rand(batch, generator=g) < a.elsewhere
    bearing, yaw = uniform(g, (batch,), -math.pi, math.pi), uniform(g, (batch,), -math.pi, math.pi)
    distance = uniform(g, (batch,), 0.2, max(a.elsewhere_m, 0.2))
    step = torch.stack([torch.sin(bearing) * distance, torch.zeros(batch), torch.cos(bearing) * distance], -1)
    return _Away(away, yaw, step)


class Picked(NamedTuple):
    """Whole clips: indices [B], first frames [B], and how many frames [B] each has."""

    clip: torch.Tensor
    start: torch.Tensor
    frames: torch.Tensor


def pick_whole(pool: Pool, batch: int, least: int, most: int, g: torch.Generator) -> Picked:
    """Clips of at least ``least`` frames, each as likely as another, whole or ``most`` frames of a longer one."""
    fit = (pool.lengths >= least).nonzero()[:, 0]
    if len(fit) == 0:
        raise ConfigError(f"training data: expected clips of at least {least} frames, got {int(pool.lengths.max())} at most; add "
                          "longer clips")
    clip = fit[torch.randint(len(fit), (batch,), generator=g)]
    frames = pool.lengths[clip].clamp(max=most)
    return Picked(clip, (torch.rand(batch, generator=g) * (pool.lengths[clip] - frames + 1)).floor(), frames)


def crops(pool: Pool, batch: int, frames: int, a: Augmentation, g: torch.Generator, actor: torch.Tensor | None = None,
          anchor: torch.Tensor | None = None, own: bool = False, late: torch.Tensor | None = None,
          rows: slice = slice(None), picked: Picked | None = None) -> Crops:
    """A batch of crops of ``frames`` frames, augmented; each person ``late`` [B, P, T] frames behind (see `lateness`).

    The canonical frame is the ``actor``'s [B] (person index; drawn if not given), or with ``own`` each person's own, as they
    are in frame ``anchor`` [B] of each crop (drawn if not given). Of the batch only ``rows`` are made: the same whatever is
    made beside them. ``picked`` are clips to take, else `Pool.choose` finds some.
    """
    speed = uniform(g, (batch,), *a.warp)
    if picked is None:
        span = math.ceil((frames - 1) * a.warp[1]) + 1
        clip = pool.choose(batch, span, g)
        start = (torch.rand(batch, generator=g) * (pool.lengths[clip] - span + 1)).floor()
    else:
        clip, start = picked.clip, picked.start
    if anchor is None:
        first = torch.rand(batch, generator=g) < a.anchor_first
        anchor = (torch.rand(batch, generator=g) * frames).long().masked_fill(first, 0)
    times = start[:, None] + torch.arange(frames) * speed[:, None]
    times = times[:, None].expand(-1, pool.people, -1) if late is None else times[:, None] - late
    variation = _Variation.drawn(batch, pool.people, a, g)
    which = torch.rand(batch, generator=g) < a.mirror
    scale = uniform(g, (batch, 1, 1, 1), *a.scale)
    if not own and actor is None:
        actor = torch.randint(pool.people, (batch,), generator=g)
    away = _elsewhere(batch, a, g) if not own and pool.people == 1 else None
    made, variation = torch.arange(batch)[rows], variation.of(rows)
    root, rotations = pool.poses(clip[made], times[made])
    others = None
    if variation.other is not None:
        whole_batch = len(made) == batch
        others = rotations[variation.other] if whole_batch else pool.poses(clip[variation.other], times[variation.other])[1]
    root, rotations = varied(root, rotations, others, variation)
    root, rotations, offsets = mirrored(root, rotations, pool.offsets[clip[made]], which[made])
    offsets, root = offsets * scale[made], root * scale[made]
    positions = forward_kinematics(SMPL22, root, rotations, offsets=offsets[:, :, None])
    if a.anchor_clip:
        start, turned = pool.poses(clip[made], torch.zeros(len(made), 1))
        start, turned, _ = mirrored(start, turned, pool.offsets[clip[made]], which[made])
        first = forward_kinematics(SMPL22, start * scale[made], turned, offsets=offsets[:, :, None])[:, :, 0]
    else:
        first = positions[torch.arange(len(made)), :, anchor[made]]
    frame = frame_of(first)
    if not own:
        here = torch.arange(len(made)), actor[made]
        frame = Frame(frame.yaw[here], frame.origin[here])
        frame = frame if away is None else away.moved(frame, made)
        frame = Frame(frame.yaw[:, None], frame.origin[:, None])
    return Crops(*to_frame(frame, positions, rotations), offsets, clip[made], which[made], anchor[made], frame)


def whole(representation: Representation, positions: torch.Tensor, rotations: torch.Tensor):
    """A whole clip ([T, 22, 3], [T, 22, 4], world) in its own first frame, cut to whole columns: positions, rotations, image."""
    rows = representation.rows(len(positions)) // FRAMES_PER_COLUMN * FRAMES_PER_COLUMN
    frames = rows + representation.frames_lost
    positions, rotations = to_frame(frame_of(positions[0]), positions[:frames], rotations[:frames])
    return positions, rotations, representation.encode(positions, rotations)


# The smallest std, for what hardly moves: of metres and of the numbers of a rotation; of metres and radians a second.
_FLOOR, _FLOOR_A_SECOND = 0.02, 0.1
_ROTATION = (6, 7, 8, 9, 10, 11)


def _groups(representation: Representation, row: int) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Channels of a row that share one std, with the smallest there may be: metres with metres, the numbers of a rotation."""
    # InterHuman's and Inter-X's velocities are metres a frame.
    moving = _FLOOR_A_SECOND if representation.name == "hybrid" else _FLOOR_A_SECOND / FPS
    if representation.name == "interx" and row < representation.joints - 1:
        return (((0, 1, 2, 3, 4, 5), _FLOOR),)
    if representation.name == "hybrid" and row == 0:
        return ((0, 2), _FLOOR), ((1,), _FLOOR), ((3, 5), moving), ((4,), moving), (_ROTATION, _FLOOR)
    either = ((0, 1, 2), _FLOOR), ((3, 4, 5), moving)
    return either if representation.name == "interx" else (*either, (_ROTATION, _FLOOR))


def statistics(representation: Representation, pools: list[Pool], a: Augmentation, frames: int, *,
               seed_generator: torch.Generator, own: bool = False, batches: int = 40, batch: int = 64,
               make: Callable[..., Crops] = crops) -> Normalizer:
    """A normaliser from augmented crops: the mean of each channel, a std for each row and group of like channels.

    ``own`` is as `crops` takes it, ``make`` what makes them. One std for a group keeps directions comparable.
    """
    count, total, square = 0, 0.0, 0.0
    for i in range(batches):
        pool = pools[i % len(pools)]
        length = pool.longest_crop(frames, a.warp[1]) + representation.frames_lost
        c = make(pool, batch, length, a, seed_generator, own=own)
        image = representation.encode(c.positions, c.rotations).flatten(0, 2).double()
        count += len(image)
        total, square = total + image.sum(0), square + (image * image).sum(0)
    mean = total / count
    variance = (square / count - mean * mean).clamp(min=0)
    std = torch.ones_like(variance)
    for row in range(representation.joints):
        for channels, floor in _groups(representation, row):
            shared = variance[row, (group := list(channels))].mean().sqrt()
            # A channel that never changes (the zero rotation of the InterHuman root) carries nothing: leave it as it is.
            std[row, group] = 1.0 if shared < 1e-6 else shared.clamp(min=floor)
    return Normalizer(mean.float(), std.float())
