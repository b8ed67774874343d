"""BVH out: hierarchy, end sites, and Euler angles that stay continuous from frame to frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from rtinteract import rotation as R
from rtinteract.errors import MotionError
from rtinteract.motion.atomic import replacing
from rtinteract.motion.types import Motion

_UNITS = {"cm": 100.0, "m": 1.0}
_ORDER = "ZYX"
_CHANNELS = " ".join(f"{axis}rotation" for axis in _ORDER)


def _continuous_euler(rotations):
    """ZYX Euler angles [T, J, 3] in radians, of each frame's equal readings the one nearest to the frame before."""
    angles = R.to_euler(rotations, _ORDER)
    # The same rotation read the other way round: half a turn more on the outer axes, the middle one mirrored.
    other = angles * [1, -1, 1] + np.pi
    for t in range(1, len(angles)):
        readings = np.stack([angles[t], other[t]])
        step = readings - angles[t - 1]
        readings -= 2 * np.pi * np.round(step / (2 * np.pi))
        far = np.abs(readings - angles[t - 1]).sum(-1)
        angles[t] = np.where((far[1] < far[0])[:, None], readings[1], readings[0])
    return angles


def _vector(v):
    return " ".join(f"{x:.8f}" for x in v)


def _name(joint):
    """A joint's name as one word: parsers split lines at white space."""
    return "_".join(joint.split()) or "joint"


def _hierarchy(skeleton, scale):
    """Lines of the HIERARCHY section, and the joints in the order in which their channels follow."""
    children = [[c for c, p in enumerate(skeleton.parents) if p == j] for j in range(len(skeleton))]
    lines, order = ["HIERARCHY"], []

    def end_site(tip, depth):
        pad = "  " * depth
        lines.extend([f"{pad}End Site", pad + "{", f"{pad}  OFFSET {_vector(np.asarray(tip) * scale)}", pad + "}"])

    # A stack, not recursion: a chain of a thousand joints is a valid file.
    stack = [(0, 0, False)]
    while stack:
        joint, depth, close = stack.pop()
        pad = "  " * depth
        if close:
            lines.append(pad + "}")
            continue
        order.append(joint)
        offset = skeleton.offsets[joint] * scale
        lines += [f"{pad}{'JOINT' if joint else 'ROOT'} {_name(skeleton.joints[joint])}", pad + "{",
                  f"{pad}  OFFSET {_vector(offset if joint else np.zeros(3))}",
                  f"{pad}  CHANNELS 3 {_CHANNELS}" if joint else
                  f"{pad}  CHANNELS 6 Xposition Yposition Zposition {_CHANNELS}"]
        if joint in skeleton.end_sites:
            end_site(skeleton.end_sites[joint], depth + 1)
        elif not children[joint]:
            # The format asks for an end at every leaf.
            end_site(np.zeros(3), depth + 1)
        stack.append((joint, depth, True))
        stack += [(c, depth + 1, False) for c in reversed(children[joint])]
    return lines, order


def write_bvh(path, motion, units="cm") -> None:
    """Write one Motion as BVH: root 6 channels, joints 3 in ZYX order, degrees, lengths in centimetres or metres.

    Centimetres are what most tools take a BVH to be in; our reader tells the unit from the body's height. Joint names
    keep no white space. Raises MotionError for a motion that cannot be written or a path that cannot be; nothing
    half-written is left.
    """
    path = Path(path)
    if units not in _UNITS:
        raise MotionError(f"BVH: expected units 'cm' or 'm', got {units!r}; choose one of these")
    if not isinstance(motion, Motion):
        raise MotionError(f"BVH: expected one Motion, got {type(motion).__name__}; the format holds one person a file")
    # Rebuilding runs the checks again: arrays may have been written to since.
    motion = replace(motion)
    scale = _UNITS[units]
    lines, order = _hierarchy(motion.skeleton, scale)
    angles = np.degrees(_continuous_euler(motion.rotations))[:, order].reshape(len(motion), -1)
    lines += ["MOTION", f"Frames: {len(motion)}", f"Frame Time: {1 / float(motion.fps)!r}"]
    rows = np.concatenate([motion.root * scale, angles], 1)
    row = " ".join(["%.6f"] * rows.shape[1])
    lines += [row % tuple(values) for values in rows]
    with replacing(path) as beside:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
