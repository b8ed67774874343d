"""Which joint of a skeleton plays which SMPL-22 joint: tables for known skeletons, guesses for others."""

from __future__ import annotations

import re
from functools import cache

from rtinteract.errors import SkeletonError
from rtinteract.motion.presets import TABLES
from rtinteract.skeleton import SMPL22_JOINTS, Skeleton


def _bare(joint: str) -> str:
    """A joint's name without its namespace."""
    return re.split(r"[:|]", joint)[-1]


_ALIASES = TABLES["aliases"]


@cache
def families() -> dict[str, dict[str, str]]:
    """Known skeletons, {name: {SMPL-22 joint: joint without its namespace}}."""
    presets = {name: {j["role"]: _bare(j["name"]) for j in table["joints"] if j["role"]}
               for name, table in TABLES["presets"].items()}
    return {"smpl22": {j: j for j in SMPL22_JOINTS}, **TABLES["families"], **presets}


# Without these a body cannot be posed; the others are filled from their neighbours.
REQUIRED = ("pelvis", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "left_shoulder",
            "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "head")
_SHORT_SIDE = re.compile(rf"^[lr]({'|'.join(_ALIASES['short_sided'])})$")
_SPINE = re.compile(rf"^({'|'.join(_ALIASES['spine'])})\d*$")


def _plain(name: str) -> tuple[str, str]:
    """(side "left" | "right" | "", the name without its side, namespace and punctuation)."""
    word = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", _bare(name))
    parts = [p for p in re.split(r"[^A-Za-z0-9]+", word.lower()) if p and p not in _ALIASES["noise"]]
    side = ""
    for mark, which in (("left", "left"), ("right", "right"), ("l", "left"), ("r", "right")):
        if not side and mark in parts and len(parts) > 1:
            parts.remove(mark)
            side = which
    plain = "".join(parts)
    for mark in ("left", "right"):
        if not side and plain.startswith(mark) and plain != mark:
            plain, side = plain[len(mark):], mark
    if not side and _SHORT_SIDE.match(plain):
        plain, side = plain[1:], {"l": "left", "r": "right"}[plain[0]]
    return side, plain


def _guess(skeleton: Skeleton) -> dict[str, str]:
    plain: dict[tuple[str, str], str] = {}
    for joint in skeleton.joints:
        plain.setdefault(_plain(joint), joint)
    found: dict[str, str] = {}
    for smpl, aliases in _ALIASES["midline"].items():
        name = next((plain["", a] for a in aliases if ("", a) in plain), None)
        if name:
            found[smpl] = name
    for side in ("left", "right"):
        for smpl, aliases in _ALIASES["sided"].items():
            taken = set(found.values())
            name = next((plain[side, a] for a in aliases if (side, a) in plain and plain[side, a] not in taken), None)
            if name:
                found[f"{side}_{smpl}"] = name
        # "shoulder" names the collar of one family and the upper arm of another; without an arm it is the upper arm.
        if f"{side}_shoulder" not in found and f"{side}_collar" in found:
            found[f"{side}_shoulder"] = found.pop(f"{side}_collar")
    spine = [j for j in skeleton.joints if _SPINE.match(_plain(j)[1]) and not _plain(j)[0]]
    spread = {1: ("spine3",), 2: ("spine1", "spine3")}.get(len(spine), ("spine1", "spine2", "spine3"))
    picks = spine if len(spine) < 4 else [spine[0], spine[len(spine) // 2], spine[-1]]
    found.update(zip(spread, picks, strict=False))
    return found


def _family(skeleton: Skeleton) -> dict[str, str] | None:
    joints = {_bare(j): j for j in skeleton.joints}
    for table in families().values():
        if set(table.values()) <= set(joints):
            return {smpl: joints[j] for smpl, j in table.items()}
    return None


def joint_map_of(skeleton: Skeleton, joint_map: dict[str, str] | None = None) -> dict[str, int]:
    """SMPL-22 joint -> index in ``skeleton``: the given map, the skeleton's own, a known table, or a guess by names.

    SkeletonError lists what is unknown in a given map, or what could not be matched.
    """
    if joint_map is None:
        joint_map = skeleton.joint_map
    if joint_map is not None:
        wrong = sorted(k for k in joint_map if k not in SMPL22_JOINTS)
        absent = sorted(str(v) for v in joint_map.values() if v not in skeleton.joints)
        if wrong or absent:
            raise SkeletonError(f"joint_map: expected SMPL-22 joints -> joints of skeleton {skeleton.name!r}, got "
                                f"unknown SMPL-22 joints {wrong} and unknown source joints {absent}; SMPL-22 has "
                                f"{', '.join(SMPL22_JOINTS)}; the skeleton has {', '.join(skeleton.joints)}")
        found = dict(joint_map)
    else:
        found = _family(skeleton) or _guess(skeleton)
    missing = [j for j in REQUIRED if j not in found]
    if not any(f"spine{k}" in found for k in (1, 2, 3)):
        missing.append("spine3")
    if missing:
        raise SkeletonError(f"skeleton {skeleton.name!r}: could not match {', '.join(missing)}; it has "
                            f"{', '.join(skeleton.joints)}; give "
                            "joint_map={'SMPL-22 joint': 'joint of the file', ...} for these")
    return {smpl: skeleton.index(found[smpl]) for smpl in SMPL22_JOINTS if smpl in found}
