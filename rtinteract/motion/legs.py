"""Two-bone limbs: legs that keep their ankles on a body of other proportions, arms that reach for a place."""

from __future__ import annotations

import numpy as np

from rtinteract import rotation as R


def _unit(v):
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)


def bend_of(upper, lower):
    """(hinge axis [T, 3], bend [T] in radians, 0 when straight) of a limb's two bones [T, 3]."""
    across = np.cross(upper, lower)
    return _unit(across), np.arctan2(np.linalg.norm(across, axis=-1), (upper * lower).sum(-1))


def lean_of(bend, upper, lower):
    """Angle [T] between the upper bone and the line from the limb's first joint to its last, from the bones' lengths."""
    return np.arctan2(lower * np.sin(bend), upper + lower * np.cos(bend))


def hold_feet(turns: dict, positions, roles, source_rest, target_rest, target_roles) -> None:
    """Turn hips and knees (in place) so that hip-to-ankle is the source's, scaled with that leg's length.

    The leg stays in its plane and the foot keeps its world rotation. By the law of cosines the ankle's distance fixes
    (sin(bend / 2))^2 times both lengths, whatever their proportion: a straight leg stays straight, going back undoes it
    exactly, and what the source can reach, the target can.
    """
    for side in ("left", "right"):
        places = [positions[:, roles[f"{side}_{j}"]] for j in ("hip", "knee", "ankle")]
        rest = [target_rest[target_roles[f"{side}_{j}"]] for j in ("hip", "knee", "ankle")]
        own = [source_rest[roles[f"{side}_{j}"]] for j in ("hip", "knee", "ankle")]
        thigh, shin = (np.linalg.norm(rest[k + 1] - rest[k]) for k in (0, 1))
        own_thigh, own_shin = (np.linalg.norm(own[k + 1] - own[k]) for k in (0, 1))
        scale = (thigh + shin) / (own_thigh + own_shin)
        hinge, bend = bend_of(places[1] - places[0], places[2] - places[1])
        new = 2 * np.arcsin(np.minimum(scale * np.sqrt(own_thigh * own_shin / (thigh * shin)) * np.sin(bend / 2), 1.0))
        lean = lean_of(bend, own_thigh, own_shin) - lean_of(new, thigh, shin)
        for joint, angle in (("hip", lean), ("knee", lean + new - bend)):
            turns[f"{side}_{joint}"] = R.multiply(R.from_axis_angle(hinge * angle[:, None]), turns[f"{side}_{joint}"])


def reach(upper, lower, target, hinge_at_rest):
    """Turns ([T, 4], [T, 4]) of a limb's two bones [T, 3] that bring its end to ``target`` [T, 3], measured from its start.

    A target out of reach is approached along its line. ``hinge_at_rest`` [T, 3] is the axis about which a straight limb bends.
    """
    first, second = np.linalg.norm(upper, axis=-1), np.linalg.norm(lower, axis=-1)
    hinge, bend = bend_of(upper, lower)
    line = upper + lower
    fallback = _unit(hinge_at_rest - (hinge_at_rest * _unit(line)).sum(-1, keepdims=True) * _unit(line))
    hinge = np.where((np.sin(bend) < 1e-2)[:, None], fallback, hinge)
    distance = np.clip(np.linalg.norm(target, axis=-1), np.abs(first - second), first + second)
    cosine = (distance ** 2 - first ** 2 - second ** 2) / (2 * first * second)
    new = np.arccos(np.clip(cosine, -1.0, 1.0))
    aim = R.between(line, target)
    lean = lean_of(bend, first, second) - lean_of(new, first, second)
    return tuple(R.multiply(aim, R.from_axis_angle(hinge * angle[:, None])) for angle in (lean, lean + new - bend))
