"""From what a reader found to a Motion: faults mended, axes, units and T-pose settled."""

from __future__ import annotations

import logging

import numpy as np

from rtinteract import rotation as R
from rtinteract.errors import MotionError, SkeletonError
from rtinteract.motion import cmu, units
from rtinteract.motion.jointmaps import joint_map_of
from rtinteract.motion.raw import RawClip
from rtinteract.motion.restpose import calibrate, nearest_quarter_turn
from rtinteract.motion.types import Motion
from rtinteract.skeleton import Skeleton, forward_kinematics

log = logging.getLogger(__name__)


def settle(clip: RawClip, *, length_unit=None, drop_first=None, joint_map=None) -> Motion:
    """A Motion in metres, +Y up, with its T-pose measured; `Motion.notes` says what was assumed.

    A skeleton whose joints cannot be matched is kept as it is (only `to_model` and `retarget` need the match), unless a
    given ``joint_map`` is wrong, which raises SkeletonError.
    """
    clip = cmu.restore(clip)
    notes = list(clip.notes)
    skeleton = _skeleton(clip, None, joint_map)
    try:
        roles = joint_map_of(skeleton)
    except SkeletonError as error:
        if joint_map is not None:
            raise
        roles = None
        notes.append(f"skeleton not recognised: {error}")
        log.info("%s: skeleton not recognised", clip.name)
    if roles is not None:
        tpose = calibrate(clip.joints, clip.parents, clip.offsets, clip.end_sites, roles)
        skeleton = _skeleton(clip, _head_up(clip, tpose, roles), joint_map)
    scale, note = _scale(clip, skeleton, length_unit)
    notes.append(note)
    skeleton = skeleton.scaled(scale)
    root, rotations = clip.root * scale, clip.rotations
    if roles is not None:
        root, rotations, turned = _upright(skeleton, root, rotations, roles)
        if turned:
            notes.append("axes: +Z was up, turned to +Y up")
            log.info("%s: +Z up, turned to +Y up", clip.name)
    start = 1 if drop_first or (drop_first is None and roles is not None and _starts_in_tpose(skeleton, rotations, roles)) else 0
    if start:
        if len(rotations) < 2:
            raise MotionError(f"{clip.name}: drop_first leaves no frame, the clip has one; read it with drop_first=False")
        notes.append("first frame dropped" + (": a T-pose" if drop_first is None else ""))
    return Motion.from_rotations(skeleton, root[start:], rotations[start:], clip.fps, tuple(notes))


def _head_up(clip, tpose, roles):
    """The T-pose with the head righted by whole quarter turns when the clip holds it on its side throughout.

    Some exporters give the head a tip that does not point along the skull.
    """
    head = roles["head"]
    local = R.multiply(np.broadcast_to(R.inverse(tpose[head]), clip.rotations[:, head].shape), clip.rotations[:, head])
    mean = R.normalize(np.linalg.eigh(local.T @ local)[1][:, -1])
    if R.angle(mean, R.identity(())) < np.pi / 3:
        return tpose
    tpose = tpose.copy()
    tpose[head] = R.multiply(tpose[head], nearest_quarter_turn(mean))
    return tpose


def _skeleton(clip, tpose, joint_map):
    return Skeleton(clip.name, tuple(clip.joints), tuple(clip.parents), clip.offsets, clip.end_sites, tpose, joint_map)


def _scale(clip, skeleton, length_unit):
    if length_unit is not None:
        metres = units.metres_of(length_unit, clip.name)
        return metres, f"units: {length_unit} as given, the body is {skeleton.height * metres:.2f} m tall"
    if clip.metres is not None:
        metres = clip.metres
        if 0.5 < skeleton.height * metres < 3.0:
            return metres, f"units: {metres * 100:.4g} cm {clip.unit}, the body is {skeleton.height * metres:.2f} m tall"
    return units.detect(skeleton.height, clip.name)


def _upright(skeleton, root, rotations, roles):
    step = max(1, len(root) // 200)
    places = forward_kinematics(skeleton, root[::step], rotations[::step])
    feet = 0.5 * (places[:, roles["left_ankle"]] + places[:, roles["right_ankle"]])
    if units.up_axis(np.median(places[:, roles["head"]] - feet, axis=0)) == "Y":
        return root, rotations, False
    turn = R.about("X", np.float64(-np.pi / 2))
    rotations = rotations.copy()
    rotations[:, 0] = R.multiply(np.broadcast_to(turn, rotations[:, 0].shape), rotations[:, 0])
    return R.rotate(turn, root), rotations, True


def _starts_in_tpose(skeleton, rotations, roles) -> bool:
    """Whether frame 0 is a T-pose that the next frame leaves at a bound: a calibration frame, not a slow start."""
    if len(rotations) < 2:
        return False
    places, turns = forward_kinematics(skeleton, np.zeros((2, 3)), rotations[:2], with_rotations=True)
    rest, rest_turns = forward_kinematics(skeleton, np.zeros((1, 3)), skeleton.tpose[None], with_rotations=True)
    pelvis = R.multiply(turns[:, roles["pelvis"]], R.inverse(rest_turns[0, roles["pelvis"]])[None])
    off = []
    for top, bottom in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")):
        for side in ("left", "right"):
            a, b = roles[f"{side}_{top}"], roles[f"{side}_{bottom}"]
            wanted = R.rotate(pelvis, (rest[0, b] - rest[0, a])[None])
            off.append(R.angle(R.between(wanted, places[:, b] - places[:, a]), R.identity((2,))))
    off = np.stack(off)
    return bool(off[:, 0].max() < 0.3 and (off[:, 1] - off[:, 0]).max() > 0.3)
