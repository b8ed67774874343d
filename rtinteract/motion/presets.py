"""Skeletons and axes of game engines by name; C++ takes the same tables from the same file.

Bone names and rest poses: Unreal's Mannequins from their reference poses, Godot's from its humanoid profile, Mixamo's from its
stock characters; Unity and VRM prescribe names and a T-pose but no body, so theirs is the average one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from rtinteract import rotation as R
from rtinteract.errors import ConfigError, SkeletonError
from rtinteract.motion.restpose import calibrate
from rtinteract.skeleton import SMPL22, Skeleton

TABLES = json.loads((resources.files("rtinteract") / "assets" / "skeletons.json").read_text("utf-8"))
PRESETS = ("smpl22", *TABLES["presets"])
AXES = tuple(TABLES["axes"])


@cache
def preset(name: str) -> Skeleton:
    """The skeleton of an engine by name, one of `PRESETS`: its bone names, tree, rest pose and typical proportions.

    Translations and rotations are in our axes and metres; `axes` brings them to the engine's. Raises SkeletonError for
    another name.
    """
    if name not in PRESETS:
        raise SkeletonError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}; choose one, or give a Skeleton")
    if name == SMPL22.name:
        return SMPL22
    joints = TABLES["presets"][name]["joints"]
    names = tuple(j["name"] for j in joints)
    parents = tuple(-1 if j["parent"] is None else names.index(j["parent"]) for j in joints)
    offsets = np.array([j["translation"] for j in joints])
    rest = R.normalize(np.array([j["rotation"] for j in joints]))
    roles = {j["role"]: j["name"] for j in joints if j["role"]}
    tpose = calibrate(names, parents, offsets, {}, {role: names.index(joint) for role, joint in roles.items()}, rest)
    return Skeleton(name, names, parents, offsets, {}, tpose, roles)


@dataclass(frozen=True, eq=False)
class Axes:
    """An engine's axes and unit: ``to_model`` [3, 3] turns its vectors into +X left, +Y up, +Z forward, right-handed.

    ``to_model`` is orthonormal; its determinant is -1 for left-handed axes. ``metres_per_unit`` is 0.01 for centimetres.
    """

    to_model: np.ndarray
    metres_per_unit: float = 1.0

    def __post_init__(self):
        m = np.array(self.to_model, dtype=np.float64)
        if m.shape != (3, 3) or not np.abs(m @ m.T - np.eye(3)).max() < 1e-4:
            raise ConfigError(f"axes: expected to_model [3, 3] of three unit rows square to each other, got {m.tolist()}; "
                              "give the directions alone and the scale as metres_per_unit")
        if not (np.isfinite(self.metres_per_unit) and self.metres_per_unit > 0):
            raise ConfigError(f"axes: expected metres_per_unit above 0, got {self.metres_per_unit}; centimetres are 0.01")
        object.__setattr__(self, "to_model", m)

    def pose_to_model(self, places, rotations):
        """(places [..., 3] in metres, rotations [..., 4]) in our axes, of the engine's places and wxyz quaternions."""
        return np.asarray(places) @ self.to_model.T * self.metres_per_unit, self._turned(rotations, self.to_model)

    def pose_from_model(self, places, rotations):
        """The engine's places [..., 3] in its unit and rotations [..., 4], wxyz, of ours."""
        return np.asarray(places) @ self.to_model / self.metres_per_unit, self._turned(rotations, self.to_model.T)

    def _turned(self, rotations, m):
        # A mirrored frame sees every turn the other way round: the axis is a pseudovector.
        q = np.asarray(rotations, dtype=np.float64)
        return np.concatenate([q[..., :1], np.linalg.det(m).round() * (q[..., 1:] @ m.T)], -1)


@cache
def axes(name: str) -> Axes:
    """An engine's axes by name, one of `AXES`; ConfigError for another name."""
    if name not in AXES:
        raise ConfigError(f"axes: expected one of {', '.join(AXES)}, got {name!r}; choose one, or give Axes(to_model, metres)")
    table = TABLES["axes"][name]
    return Axes(np.array(table["to_model"], dtype=np.float64).reshape(3, 3), table["metres_per_unit"])
