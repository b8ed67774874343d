"""The SMPL-X body (Pavlakos et al. 2019) from the user's own model file: rest joints and forward kinematics, no mesh.

The model file is licensed and never part of this project. Read of it: v_template [V, 3], J_regressor [55, V], kintree_table
[2, 55], and shapedirs [V, 3, S] where a body's shape is asked for.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rtinteract.errors import MotionError
from rtinteract.skeleton import SMPL22_JOINTS, SMPL22_MIRROR, SMPL22_PARENTS, Skeleton

JOINTS = 55
_FINGERS = ("index", "middle", "pinky", "ring", "thumb")
NAMES = (*SMPL22_JOINTS, "jaw", "left_eye", "right_eye",
         *(f"{side}_{finger}{k}" for side in ("left", "right") for finger in _FINGERS for k in (1, 2, 3)))
# Each joint's counterpart on the other side.
MIRROR = (*SMPL22_MIRROR, 22, 24, 23, *range(40, 55), *range(25, 40))
GENDERS = ("NEUTRAL", "MALE", "FEMALE")


@dataclass(frozen=True, eq=False)
class SmplxBody:
    """Rest joints of a model file: ``joints`` [55, 3] m of the mean shape, ``shapes`` [55, 3, S] their change with each shape
    number (None without shapedirs), ``parents`` of each joint."""

    joints: np.ndarray
    parents: tuple[int, ...]
    shapes: np.ndarray | None

    def rest(self, betas=None) -> np.ndarray:
        """Rest joints [55, 3] m in the model's own frame, of shape numbers [S'] or of the mean shape."""
        if betas is None or self.shapes is None:
            return self.joints
        betas = np.asarray(betas, np.float64).reshape(-1)[:self.shapes.shape[-1]]
        return self.joints + self.shapes[..., :len(betas)] @ betas

    def skeleton(self, betas=None) -> Skeleton:
        """The 55 joints as a skeleton for `rtinteract.skeleton.forward_kinematics`; a root place is ``trans`` + ``rest()[0]``."""
        rest = self.rest(betas)
        offsets = np.concatenate([np.zeros((1, 3)), rest[1:] - rest[list(self.parents[1:])]])
        return Skeleton("smplx", NAMES, self.parents, offsets)


def read_body(path) -> SmplxBody:
    """The body of an SMPL-X model file (.npz); MotionError for a file that is none."""
    path = Path(path)
    if not path.is_file():
        raise MotionError(f"{path}: expected an SMPL-X model file (.npz), got none; check the path")
    try:
        # The file also holds pickled objects; an entry that is not asked for is not read.
        with np.load(path, allow_pickle=False) as data:
            template, regressor = (np.asarray(data[k], np.float64) for k in ("v_template", "J_regressor"))
            tree = np.asarray(data["kintree_table"])
            shapes = np.asarray(data["shapedirs"], np.float64) if "shapedirs" in data else None
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise MotionError(f"{path}: expected an SMPL-X .npz with v_template, J_regressor and kintree_table, got {error}; give "
                          "the model file of the SMPL-X download, such as SMPLX_NEUTRAL.npz") from None
    if tree.shape != (2, JOINTS) or regressor.shape != (JOINTS, len(template)) or template.shape[1:] != (3,):
        raise MotionError(f"{path}: expected kintree_table [2, 55], J_regressor [55, V] and v_template [V, 3], got {tree.shape}, "
                          f"{regressor.shape} and {template.shape}; give an SMPL-X file, not SMPL's or SMPL-H's")
    parents = (-1, *(int(p) for p in tree[0, 1:]))
    if parents[:22] != SMPL22_PARENTS:
        raise MotionError(f"{path}: expected SMPL-X's kinematic tree, got parents {parents[:22]}; give an SMPL-X file")
    return SmplxBody(regressor @ template, parents, None if shapes is None else np.einsum("jv,vcs->jcs", regressor, shapes))


class Bodies:
    """Model files given by a user: one for everybody (mean shape, as published), or a folder with SMPLX_NEUTRAL, SMPLX_MALE and
    SMPLX_FEMALE.npz (then each person's gender and shape are used where the data tells them)."""

    def __init__(self, path):
        self.path = Path(path)
        files = {g: self.path / f"SMPLX_{g}.npz" for g in GENDERS} if self.path.is_dir() else {"NEUTRAL": self.path}
        self.files = {g: f for g, f in files.items() if f.is_file()}
        if not self.files:
            raise MotionError(f"{self.path}: expected an SMPL-X model file or a folder with SMPLX_NEUTRAL.npz, got neither; "
                              "check the path")
        self.bodies = {g: read_body(f) for g, f in self.files.items()}

    def mean(self) -> Skeleton:
        """The neutral body of mean shape (of the first file there is without a neutral one)."""
        return self._of(None).skeleton()

    def _of(self, gender: str | None) -> SmplxBody:
        return self.bodies.get((gender or "").upper(), self.bodies.get("NEUTRAL", next(iter(self.bodies.values()))))

    def rest(self, gender: str | None = None, betas=None) -> np.ndarray:
        """Rest joints [55, 3] m of a person."""
        own = len(self.bodies) > 1 and (gender or "").upper() in self.bodies
        return self._of(gender).rest(betas if own else None)
