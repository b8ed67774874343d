"""Known faults of the CMU database's conversions, mended without being asked."""

from __future__ import annotations

import re

import numpy as np

from rtinteract.motion.raw import RawClip

_MARKS = {"LHipJoint", "RHipJoint", "LowerBack", "LeftFingerBase", "RightFingerBase"}
_AT_THORAX = ("Neck", "LeftShoulder", "RightShoulder")
# The CMU index gives 60 Hz for the salsa subjects, 120 Hz for the others; an AMC file does not say.
_SLOW = re.compile(r"^6[01]_\d+$")


def trial_rate(stem: str) -> float:
    """Frame rate in Hz of the CMU trial named like "60_01"."""
    return 60.0 if _SLOW.match(stem) else 120.0


def is_cmu(joints) -> bool:
    """Whether these are the joints of the cgspeed conversion (BVH or rotation vectors)."""
    return _MARKS <= set(joints)


def restore(clip: RawClip) -> RawClip:
    """Give back the thorax and wrist segments that the cgspeed conversion dropped.

    Neck and shoulders stand at the start of the thorax there, and hands half a radius short of the wrist; both faults go
    together, so a file that was mended before is left alone.
    """
    if not is_cmu(clip.joints) or "Spine1" not in clip.joints:
        return clip
    at = {name: clip.joints.index(name) for name in (*_AT_THORAX, "Spine1", "LeftHand", "RightHand") if name in clip.joints}
    if len(at) < 6 or any(np.abs(clip.offsets[at[name]]).max() > 1e-6 for name in _AT_THORAX):
        return clip
    length = float(np.linalg.norm(clip.offsets[at["Spine1"]]))
    for name in _AT_THORAX:
        clip.offsets[at[name]] = (0.0, length, 0.0)
    for side in ("Left", "Right"):
        clip.offsets[at[f"{side}Hand"]] *= 1.5
    clip.notes.append("CMU conversion: thorax segment restored, forearms lengthened by half")
    return clip
