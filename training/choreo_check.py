"""What makes a composed clip unfit for training; the first fault found is the reason of its rejection."""

from __future__ import annotations

import numpy as np
from rtinteract.training.gestures import FPS
from rtinteract.training.pairs import PALM_M, touching_point

from rtinteract import rotation as R
from rtinteract.skeleton import SMPL22

MAX_SLIDE_M = 0.003
MAX_SPEED = 6.0
MAX_ACCELERATION = 80.0
# Whoever runs: real runs of the solo clips reach 7.6 m/s at the foot and 84 m/s^2.
MAX_BRISK_SPEED = 8.0
MAX_BRISK_ACCELERATION = 110.0
BRISK_ANKLE = 1.6
MAX_MISS_M = 0.02
MAX_OVERLAP_M = 0.03
# More than that for the arm of a hand that touches: flesh and sleeves give.
ARM_GIVE_M = 0.02
# Largest turn from the T-pose in radians; a shoulder or hip is judged by what hangs on it.
LIMITS = {3: 0.9, 6: 0.9, 9: 0.9, 12: 1.1, 15: 1.1, 13: 0.9, 14: 0.9, 4: 2.6, 5: 2.6, 18: 2.75, 19: 2.75, 20: 1.9, 21: 1.9,
          7: 1.3, 8: 1.3, 1: 2.3, 2: 2.3, 16: 2.9, 17: 2.9}
# (from joint, to joint, radius in leg lengths); 20 and 21 to themselves stand for the hands.
CAPSULES = ((0, 3, 0.135), (3, 9, 0.135), (12, 15, 0.075), (15, 15, 0.115), (16, 18, 0.052), (17, 19, 0.052), (18, 20, 0.042),
            (13, 16, 0.070), (14, 17, 0.070),
            (19, 21, 0.042), (1, 4, 0.080), (2, 5, 0.080), (4, 7, 0.055), (5, 8, 0.055), (7, 10, 0.040), (8, 11, 0.040))
ARM_CHAIN = {20: (16, 18, 20), 21: (17, 19, 21)}


class Rejected(Exception):  # noqa: N818 - the name is the public contract
    """A composed clip fails a check; ``reason`` is a short word that reports count by."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


def _limits(person, frames, brisk):
    angles = 2 * np.arccos(np.clip(np.abs(person.rotations[frames][..., 0]), 0, 1))
    for joint, most in LIMITS.items():
        worst = angles[:, joint].max()
        most = BRISK_ANKLE if brisk and joint in (7, 8) else most
        if worst > most:
            raise Rejected("joint limit", f"{SMPL22.joints[joint]} {worst:.2f} rad of {most}")


def _speeds(person, frames, brisk):
    places = person.places[frames]
    hands = np.stack([touching_point(j, places, person.turns[frames]) for j in (20, 21)], 1)
    points = np.concatenate([places, hands], 1)
    speed = np.linalg.norm(np.diff(points, axis=0), axis=-1) * FPS
    if speed.max() > (MAX_BRISK_SPEED if brisk else MAX_SPEED):
        raise Rejected("speed", f"joint {speed.max(0).argmax()} {speed.max():.1f} m/s")
    push = np.linalg.norm(np.diff(points, 2, axis=0), axis=-1) * FPS**2
    if push.max() > (MAX_BRISK_ACCELERATION if brisk else MAX_ACCELERATION):
        raise Rejected("acceleration", f"joint {push.max(0).argmax()} {push.max():.0f} m/s^2 at {push.max(1).argmax()}")


def _feet(person, frames):
    toes = person.places[frames][:, [10, 11]]
    both = person.planted[frames][1:] & person.planted[frames][:-1]
    slide = np.linalg.norm(np.diff(toes, axis=0), axis=-1) * both
    if slide.max() > MAX_SLIDE_M:
        raise Rejected("foot slide", f"{slide.max() * 1000:.1f} mm a frame")
    if toes[..., 1].min() < -0.02 or person.places[frames][..., 1].min() < -0.03:
        raise Rejected("below the floor", f"{person.places[frames][..., 1].min():.3f} m")


def _pelvis(person, frames, lowest):
    standing = person.leg + abs(person.offsets[1, 1]) + 0.095 * person.leg
    share = person.places[frames][:, 0, 1] / standing
    if share.min() < lowest or share.max() > 1.1:
        raise Rejected("pelvis height", f"{share.min():.2f} to {share.max():.2f} of standing")


def segment_gaps(a0, a1, b0, b1):
    """Distances [...] between segments a and b, given by their ends [..., 3]."""
    u, v, w = a1 - a0, b1 - b0, a0 - b0
    uu, uv, vv = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    uw, vw = (u * w).sum(-1), (v * w).sum(-1)
    det = uu * vv - uv * uv
    s = np.clip(np.where(det > 1e-9, (uv * vw - vv * uw) / np.maximum(det, 1e-9), 0), 0, 1)
    t = np.clip((uv * s + vw) / np.maximum(vv, 1e-9), 0, 1)
    s = np.clip((uv * t - uw) / np.maximum(uu, 1e-9), 0, 1)
    return np.linalg.norm(w + s[..., None] * u - t[..., None] * v, axis=-1)


def _capsules(person, frames):
    places, turns = person.places[frames], person.turns[frames]
    starts = places[:, [c[0] for c in CAPSULES]].copy()
    ends = places[:, [c[1] for c in CAPSULES]].copy()
    for k, (a, b, _) in enumerate(CAPSULES):
        if a == b:
            starts[:, k] = places[:, a] + R.rotate(turns[:, a], np.array([0.0, 0.02, 0.01]))
            ends[:, k] = places[:, a] + R.rotate(turns[:, a], np.array([0.0, 0.09, 0.02]))
        elif b in (20, 21):
            ends[:, k] = places[:, b] + PALM_M * R.rotate(turns[:, b], np.array([1.0 if b == 20 else -1.0, 0, 0]))
    return starts, ends, np.array([c[2] for c in CAPSULES]) * person.leg


def overlap(people, frames, contacts, margin=16):
    """Deepest overlap [T] in metres of the two bodies' capsules; around a contact, without what touches and less of its arm."""
    (a0, a1, ra), (b0, b1, rb) = (_capsules(p, frames) for p in people)
    near = np.linalg.norm(people[0].places[frames][:, 0] - people[1].places[frames][:, 0], axis=-1) < 2.4
    depth = np.full((len(near), len(CAPSULES), len(CAPSULES)), -1.0)
    gaps = segment_gaps(a0[near][:, :, None], a1[near][:, :, None], b0[near][:, None], b1[near][:, None])
    depth[near] = ra[:, None] + rb - gaps
    for contact in contacts:
        span = slice(max(0, contact.start - margin), contact.end + margin)
        for axis, joint in ((1, contact.joint_a), (2, contact.joint_b)):
            for k, (_, end, _) in enumerate(CAPSULES):
                part = depth[span, k] if axis == 1 else depth[span, :, k]
                if end == joint:
                    np.minimum(part, 0.0, out=part)
                elif end in ARM_CHAIN.get(joint, ()):
                    part -= ARM_GIVE_M
    return depth.max((1, 2))


def check(people, frames, contacts, clip, lowest_pelvis=0.5, brisk=False):
    """Raise Rejected for the first fault of two Performers within ``frames`` (a slice); ``contacts`` count from its start.

    ``brisk`` raises the limits of speed to those of runs and leaps.
    """
    for person in people:
        if not (np.isfinite(person.places).all() and np.isfinite(person.rotations).all()):
            raise Rejected("not finite")
        _feet(person, frames)
        _limits(person, frames, brisk)
        _speeds(person, frames, brisk)
        _pelvis(person, frames, lowest_pelvis)
    for contact in contacts:
        miss = clip.contact_error(contact)
        if len(miss) == 0 or miss.max() > MAX_MISS_M:
            raise Rejected("contact miss", f"{miss.max() if len(miss) else 9:.3f} m")
    deep = overlap(people, frames, contacts)
    if deep.max() > MAX_OVERLAP_M:
        raise Rejected("overlap", f"{deep.max():.3f} m at frame {deep.argmax()}")
