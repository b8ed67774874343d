"""Planted feet stay planted, and feet that walk farther do not slide: a last pass over decoded poses.

A codec's frames are right to a centimetre or two, and a foot that should stand wanders by that much. Where a toe is slow and
low it is taken as planted, held where it stood, and the leg follows by two-bone inverse kinematics; the correction fades
in and out around the plant. The paper names sliding feet as a failure of the model (InterMask, limitations).
"""

from __future__ import annotations

import numpy as np

from rtinteract import rotation as R
from rtinteract.skeleton import SMPL22, SMPL22_PARENTS, forward_kinematics

FPS = 30.0
# A toe slower than this at a height under this is planted; a plant lasts at least so many frames. Speeds are of decoded feet,
# which tremble, so the limit lies above a standing person's and below the slowest swing's.
SLOW_M_S = 0.35
LOW_M = 0.07
SHORTEST = 3
# Frames over which a correction comes and goes.
EASE = 5
# Share of the leg's length that a held foot may stretch it to; a fully straight knee snaps.
REACH = 0.998
_LEGS = ((1, 4, 7, 10), (2, 5, 8, 11))
# Share by which steps are lengthened or shortened at most, and the frames over which the pelvis evens out what the two feet do.
STRETCH = 0.5
_EVEN = 9
# Frames of a step that is added and metres by which its foot is lifted; how far it goes in them, and how far at most in more.
STEP, LIFT_M, STEP_M, LONGEST_M = 11, 0.05, 0.45, 0.65
# Metres: who swung no foot farther stands.
_STOOD_M = 0.03


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """(first, end) of each run of True in flags [T]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return list(zip(edges[::2], edges[1::2], strict=True))


def plants(toe: np.ndarray) -> list[tuple[int, int]]:
    """Intervals (first, end) of frames in which a toe with places [T, 3] metres is planted."""
    if len(toe) < 2:
        return []
    speed = np.linalg.norm(np.gradient(toe, axis=0)[:, [0, 2]], axis=-1) * FPS
    speed = np.convolve(np.pad(speed, 1, mode="edge"), np.full(3, 1 / 3), mode="valid")
    still = (speed < SLOW_M_S) & (toe[:, 1] < LOW_M)
    return [(a, b) for a, b in _runs(still) if b - a >= SHORTEST]


def _ease(distance: np.ndarray) -> np.ndarray:
    u = np.clip(distance / (EASE + 1), 0, 1)
    return 1 - u * u * (3 - 2 * u)


def corrections(toe: np.ndarray, fixed: int = 0) -> np.ndarray:
    """Moves [T, 3] in metres that hold a toe with places [T, 3] still wherever it is planted.

    The first ``fixed`` frames were shown already: they do not move, and a plant that began among them is held where the
    last of them left it.
    """
    frames = np.arange(len(toe))
    total, weight = np.zeros_like(toe), np.zeros(len(toe))
    for first, end in plants(toe):
        if end <= fixed:
            continue
        held = toe[fixed - 1] if first < fixed else np.median(toe[first:end], axis=0)
        move = (held - toe) * [1.0, 0.0, 1.0]
        inside = np.clip(frames, first, end - 1)
        share = _ease(np.abs(frames - inside).astype(np.float64))
        total += move[inside] * share[:, None]
        weight += share
    moves = total / np.maximum(weight, 1.0)[:, None]
    moves[:fixed] = 0
    return moves


def _bend(world, places, leg, target) -> None:
    """Turn hip and knee of world rotations [T, 22, 4] in place: the ankle goes to ``target`` [T, 3], the knee keeps its side."""
    hip, knee, ankle, _ = leg
    a, b, c = places[:, hip], places[:, knee], places[:, ankle]
    thigh = np.linalg.norm(b - a, axis=-1, keepdims=True)
    shin = np.linalg.norm(c - b, axis=-1, keepdims=True)
    line = target - a
    length = np.linalg.norm(line, axis=-1, keepdims=True)
    axis = line / np.maximum(length, 1e-9)
    reach = np.clip(length, np.abs(thigh - shin) + 1e-6, REACH * (thigh + shin))
    # An ankle that is not moved keeps its reach, however straight the leg.
    reach = np.where(np.linalg.norm(target - c, axis=-1, keepdims=True) < 1e-6, length, reach)
    along = (thigh ** 2 - shin ** 2 + reach ** 2) / (2 * reach)
    height = np.sqrt(np.maximum(thigh ** 2 - along ** 2, 0))
    out = R.rotate(R.between(c - a, line), b - a)
    out = out - (out * axis).sum(-1, keepdims=True) * axis
    out = out / np.maximum(np.linalg.norm(out, axis=-1, keepdims=True), 1e-9)
    bent = a + axis * along + out * height
    world[:, hip] = R.multiply(R.between(b - a, bent - a), world[:, hip])
    world[:, knee] = R.multiply(R.between(c - b, a + axis * reach - bent), world[:, knee])


def plant_feet(root: np.ndarray, rotations: np.ndarray, offsets: np.ndarray, fixed: int = 0) -> np.ndarray:
    """Local rotations [T, 22, 4] with planted feet held still; ``root`` [T, 3] and ``offsets`` [22, 3] in metres stay.

    Feet keep their world rotation. ``fixed`` frames at the start stay as they are (they were shown).
    """
    places, world = forward_kinematics(SMPL22, root, rotations, offsets=offsets, with_rotations=True)
    world = world.copy()
    for leg in _LEGS:
        moves = corrections(places[:, leg[3]], fixed)
        if np.abs(moves).max(initial=0.0) > 1e-6:
            _bend(world, places, leg, places[:, leg[2]] + moves)
    local = _local(world, rotations)
    local[:fixed] = rotations[:fixed]
    return local


def _local(world: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Local rotations [T, 22, 4] of world ones; the root's are those of ``rotations``."""
    local = rotations.copy()
    local[:, 1:] = R.multiply(R.inverse(world[:, list(SMPL22_PARENTS[1:])]), world[:, 1:])
    return R.normalize(local)


def bend_legs(root: np.ndarray, rotations: np.ndarray, offsets: np.ndarray, ankles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root [T, 3] and local rotations [T, 22, 4] with both ankles at ``ankles`` [T, 2, 3] (left, right) in metres; the root
    comes down where a leg would be too short. Feet keep their world rotation."""
    places, world = forward_kinematics(SMPL22, root, rotations, offsets=offsets, with_rotations=True)
    drop = np.zeros(len(root))
    for i, (hip, knee, ankle, _) in enumerate(_LEGS):
        leg = REACH * (np.linalg.norm(offsets[knee]) + np.linalg.norm(offsets[ankle]))
        over = places[:, hip] - ankles[:, i]
        # A leg that was straight before may stay so.
        stretched = np.maximum(leg, np.linalg.norm(places[:, hip] - places[:, ankle], axis=-1))
        level = (over[:, [0, 2]] ** 2).sum(-1)
        drop = np.maximum(drop, over[:, 1] - np.sqrt(np.maximum(stretched ** 2 - level, 0.0)))
    root = root - drop[:, None] * [0.0, 1.0, 0.0]
    places, world = places - drop[:, None, None] * [0.0, 1.0, 0.0], world.copy()
    for i, leg in enumerate(_LEGS):
        _bend(world, places, leg, ankles[:, i])
    return root, _local(world, rotations)


def _walked(toe: np.ndarray) -> np.ndarray:
    """Metres [T] that a toe with places [T, 3] has swung over the floor; what is slower than `SLOW_M_S` stands."""
    step = np.linalg.norm(np.diff(toe[:, [0, 2]], axis=0, prepend=toe[:1, [0, 2]]), axis=-1)
    return np.cumsum(np.maximum(step - SLOW_M_S / FPS, 0.0))


def _carried(root, rotations, offsets, places, parts, way, lift=0.0):
    """Root and local rotations of someone whose feet go ``parts`` [T, 2] of a ``way``, lifted by ``lift`` [T, 2] metres."""
    window = np.hanning(_EVEN + 2)[1:-1]
    middle = np.convolve(np.pad(parts.mean(-1), _EVEN // 2, mode="edge"), window / window.sum(), "valid")
    # Nothing moves before a foot does.
    middle = np.minimum(middle, parts.max(-1))
    ankles = places[:, [leg[2] for leg in _LEGS]] + parts[..., None] * way
    ankles[..., 1] += lift
    return bend_legs(root + middle[:, None] * way, rotations, offsets, ankles)


def walk_farther(root: np.ndarray, rotations: np.ndarray, offsets: np.ndarray, way: np.ndarray, begin: int,
                 arrive: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Root [T, 3] and local rotations [T, 22, 4] of someone who from frame ``arrive`` on stands ``way`` [3] metres (of which the
    height counts nothing) away from before, and the share of it that was to be done after frame ``begin``.

    Who walks takes longer or shorter steps, each foot by its part while it swings, so that none slides; who stands takes a step,
    and the other foot follows.
    """
    places = forward_kinematics(SMPL22, root, rotations, offsets=offsets)
    way = np.asarray(way) * [1.0, 0.0, 1.0]
    far = max(float(np.linalg.norm(way)), 1e-9)
    walked = np.stack([_walked(places[:, leg[3]]) for leg in _LEGS], -1)
    step = max(STEP, round(STEP * far / STEP_M))
    lately = walked[arrive] - walked[max(begin, arrive - 2 * step)]
    walked = walked[np.clip(np.arange(len(root)), begin, arrive)] - walked[begin]
    share = min(1.0, STRETCH * float(walked[-1].min()) / far)
    if share < 1 and arrive - begin >= 2 * step and lately.max() < _STOOD_M and far < LONGEST_M:
        # First the foot that stands on the side of the way.
        ahead = places[arrive, [leg[3] for leg in _LEGS]] @ way
        starts = arrive - step * np.where(np.arange(len(_LEGS)) == ahead.argmax(), 2, 1)
        u = np.clip((np.arange(len(root))[:, None] - starts) / step, 0, 1)
        return *_carried(root, rotations, offsets, places, u * u * (3 - 2 * u), way, LIFT_M * np.sin(np.pi * u) ** 2), 1.0
    if share < 1e-2:
        return root, rotations, 0.0
    return *_carried(root, rotations, offsets, places, share * walked / walked[-1], way), share
