"""The InterHuman data set (Liang et al. 2024) as published: motions_processed/person1|2/*.npy, annots/*.txt, split/*.txt.

30 frames a second. A file holds joint places and the local rotations of 21 joints; the pelvis has none, and no body. Both are
found again here so that forward kinematics gives the file's places with the file's own rotations.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rtinteract.training.pairs import PairClip
from rtinteract.training.sources import (
    BROKEN,
    IGNORED,
    NO_TEXT,
    ONE_MISSING,
    SHORT,
    UNLISTED,
    Read,
    Source,
    Unusable,
    lines_of,
    listed,
    load_array,
    texts_of,
)

from rtinteract import rotation as R
from rtinteract.errors import MotionError
from rtinteract.features.interhuman import load_rows, read_poses
from rtinteract.skeleton import SMPL22, SMPL22_PARENTS, forward_kinematics, world_rotations

# As the published loader: shorter clips are left out.
SHORTEST = 15
# Metres by which a body may miss the file's places in the mean, before places and rotations are not of one body.
MISS_M = 0.03
_PARENTS = list(SMPL22_PARENTS[1:])


def fit_root(positions: np.ndarray, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rotations [T, 22, 4], rest offsets [22, 3] m) of the one body that has these places [T, 22, 3] with these local rotations.

    The root's rotation is taken to be right up to one constant turn, because it was read from hips and spine whose rest
    directions differ from body to body. With the right turn every bone is constant in its parent's frame: Gauss-Newton
    steps take away what still varies.
    """
    root, free = rotations[:, 0], rotations.copy()
    free[:, 0] = R.identity((len(root),))
    parents = world_rotations(SMPL22, free)[:, _PARENTS]
    bones = R.rotate(R.inverse(root)[:, None], positions[:, 1:] - positions[:, _PARENTS])
    turn = R.identity(())
    for _ in range(20):
        seen = R.rotate(R.inverse(turn), bones)
        rest = R.rotate(R.inverse(parents), seen)
        slope = np.stack([R.rotate(R.inverse(parents), np.cross(seen, axis)) for axis in np.eye(3)], -1)
        varies, slope = (x - x.mean(0) for x in (rest, slope))
        square = np.einsum("tkai,tkaj->ij", slope, slope)
        # Where nothing moves, nothing tells the turn: the small ridge then leaves it as it was.
        step = -np.linalg.solve(square + 1e-7 * varies.size * np.eye(3), np.einsum("tkai,tka->i", slope, varies))
        turn = R.normalize(R.multiply(turn, R.from_axis_angle(step)))
        if np.abs(step).max() < 1e-9:
            break
    offsets = np.concatenate([np.zeros((1, 3)), R.rotate(R.inverse(parents), R.rotate(R.inverse(turn), bones)).mean(0)])
    rotations = rotations.copy()
    rotations[:, 0] = R.multiply(root, np.broadcast_to(turn, root.shape))
    return R.normalize(rotations), offsets


def read_person(array: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Root places [T, 3] m, local rotations [T, 22, 4] and rest offsets [22, 3] of one person's file [T, 492].

    +Y up, the clip's lowest joint at height 0, as published. MotionError for another shape, values that are not finite, or
    places that are not those of a body with these rotations.
    """
    positions, rotations = (x.double().numpy() for x in read_poses(load_rows(array)))
    positions[..., 1] -= positions[..., 1].min()
    rotations, offsets = fit_root(positions, rotations)
    miss = np.linalg.norm(forward_kinematics(SMPL22, positions[:, 0], rotations, offsets=offsets) - positions, axis=-1).mean()
    if miss > MISS_M:
        raise Unusable("places and rotations disagree",
                       f"InterHuman clip: expected places of a body with the file's rotations, got places {100 * miss:.1f} cm "
                       f"off in the mean (at most {100 * MISS_M:.0f}); leave this file out")
    return positions[:, 0], rotations, offsets


class InterHumanSource(Source):
    """See the module's text. The ignore list is split/ignore_list.txt or ignore_list.txt."""

    kind = "interhuman"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.motions = self.folder / "motions_processed"
        self.people = [{p.stem: p for p in sorted((self.motions / f"person{k}").rglob("*.npy"))} for k in (1, 2)]
        lists = [self.folder / "split" / "ignore_list.txt", self.folder / "ignore_list.txt"]
        self.ignored = {name for path in lists if path.is_file() for name in lines_of(path)}

    @staticmethod
    def found(folder: Path) -> bool:
        """Whether a folder is laid out like this."""
        return (folder / "motions_processed").is_dir()

    def splits(self, report=None):
        """Names by split/*.txt, without those on the ignore list."""
        known = self.people[0].keys() | self.people[1].keys()
        found = listed(self.folder / "split", known, report)
        return {split: [n for n in names if n not in self.ignored] for split, names in found.items()}

    def look(self, report):
        """Ignored clips, and clips that no split names."""
        named = {n for names in self.splits(report).values() for n in names}
        for name in sorted(self.people[0].keys() | self.people[1].keys()):
            if name in self.ignored:
                report.problem(IGNORED, name)
            elif name not in named:
                report.problem(UNLISTED, name)
        if not (self.folder / "annots").is_dir():
            report.problem(NO_TEXT, f"{self.folder / 'annots'} is no folder")

    def files(self, name):
        """Both people's arrays and the annotation."""
        own = [self.motions / f"person{k}" / f"{name}.npy" for k in (1, 2)]
        return [people.get(name, path) for people, path in zip(self.people, own, strict=True)] + [self._annotation(name)]

    def _annotation(self, name: str) -> Path:
        return self.folder / "annots" / f"{name}.txt"

    def read(self, name):
        """One clip; both people are cut to the shorter one's length."""
        for k, people in enumerate(self.people, 1):
            if name not in people:
                raise Unusable(ONE_MISSING, f"{name}: expected person1/{name}.npy and person2/{name}.npy, got no person{k}'s; "
                               "fetch it or leave the clip out")
        arrays = [load_array(people[name]) for people in self.people]
        frames = min(len(a) if a.ndim else 0 for a in arrays)
        if frames < SHORTEST:
            raise Unusable(SHORT, f"{name}: expected at least {SHORTEST} frames of both people, got {frames}; leave it out")
        people = []
        for k, array in enumerate(arrays, 1):
            try:
                people.append(read_person(array[:frames]))
            except MotionError as error:
                what = error.what if isinstance(error, Unusable) else BROKEN
                raise Unusable(what, f"{name}: person {k}: {error}") from None
        root, rotations, offsets = (np.stack(x).astype(np.float32) for x in zip(*people, strict=True))
        texts, lacks = texts_of(self._annotation(name))
        return Read(name, PairClip(root, rotations, offsets, self.kind, texts, meta={"name": name}), lacks=lacks)
