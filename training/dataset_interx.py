"""The Inter-X data set (Xu et al. 2024) in its published layouts.

Processed, 30 frames a second: motions/train|val|test.h5 (or inter-x.h5, or one <clip>.npy each), a clip [T, 56, 6]: rotation
vectors of 55 SMPL-X joints and one row of places, person 1's three numbers, then person 2's.
Raw, 120 frames a second: motions/<clip>/P1.npz and P2.npz with SMPL-X parameters.
Texts in texts_processed/ or texts/, splits in splits/. annots/interaction_order.pkl says of each clip who acts (0: P1, 1: P2);
that person comes first here, and the one who reacts second. Rotations alone give no place: bodies come from the user's own SMPL-X
model file, and without one from this project's average body.
"""

from __future__ import annotations

import pickle
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
from rtinteract.training.pairs import PairClip
from rtinteract.training.smplx import Bodies
from rtinteract.training.sources import (
    BROKEN,
    NO_TEXT,
    ONE_MISSING,
    SHORT,
    UNLISTED,
    Read,
    Source,
    Unusable,
    listed,
    load_array,
    texts_of,
)

from rtinteract import rotation as R
from rtinteract.errors import MotionError, RtInteractError
from rtinteract.skeleton import SMPL22, forward_kinematics

# As the published loader: shorter clips are left out.
SHORTEST = 24
RAW_STEP = 4
SPLITS = ("train", "val", "test")
_PARTS = {"root_orient": 1, "pose_body": 21, "pose_lhand": 15, "pose_rhand": 15}
NO_BODY = ("no SMPL-X model file: joint places and floor come from the average body, so that hands miss each other by "
           "centimetres, and the codec's geometric losses on Inter-X are left out; give --smplx SMPLX_NEUTRAL.npz")


def _h5(path: Path):
    try:
        import h5py
    except ModuleNotFoundError:
        raise RtInteractError(f"{path}: reading .h5 needs h5py, which is not installed; run pip install "
                              "'rtinteract[train]'") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise MotionError(f"{path}: expected an HDF5 file, got {error}; the file is cut short or damaged") from None


def raw_person(path: Path) -> tuple[np.ndarray, dict]:
    """Rotation vectors and places [T, 56, 3] at 30 frames a second of one person's parameter file, and gender and betas."""
    try:
        with np.load(path, allow_pickle=False) as data:
            frames = len(data["trans"])
            turns = {k: np.asarray(data[k], np.float64).reshape(frames, n, 3) for k, n in _PARTS.items()}
            place, betas = np.asarray(data["trans"], np.float64).reshape(frames, 1, 3), data["betas"] if "betas" in data else None
            gender = str(data["gender"]) if "gender" in data else None
    except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise MotionError(f"{path}: expected an .npz with trans and {', '.join(_PARTS)}, got {error}; the file is cut short or "
                          "damaged") from None
    # Jaw and eyes are not captured: the published preprocessing leaves them at rest.
    still = np.zeros((frames, 3, 3))
    rows = np.concatenate([turns["root_orient"], turns["pose_body"], still, turns["pose_lhand"], turns["pose_rhand"], place], 1)
    return rows[::RAW_STEP], {"gender": gender, "betas": betas}


ORDER = "interaction_order.pkl"
_PLAIN = {("numpy", "dtype"), ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")}


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, texts, lists and dictionaries; of classes and functions only what a numpy number is made with."""

    def find_class(self, module: str, name: str):
        if (module, name) not in _PLAIN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def interaction_order(path: Path) -> dict[str, int]:
    """Who acts in each clip, 0 (P1) or 1 (P2), of an interaction_order.pkl. Nothing in the file is executed; MotionError for one
    that holds anything else."""
    try:
        with open(path, "rb") as file:
            found = _PlainUnpickler(file).load()
    # A damaged pickle can end in almost any exception.
    except Exception as error:
        raise MotionError(f"{path}: expected a pickled dictionary of clip names and 0 or 1, got something else ({error}); fetch "
                          "it again, or take it away to leave the two people as they are") from None
    wrong = None if isinstance(found, dict) else type(found).__name__
    for name, who in found.items() if wrong is None else ():
        if not isinstance(name, str) or not isinstance(who, int | np.integer | float | np.floating) or who not in (0, 1):
            wrong = f"{name!r}: {who!r}"
            break
    if wrong is not None:
        raise MotionError(f"{path}: expected a dictionary of clip names and 0 (P1 acts) or 1 (P2 acts), got {wrong}; fetch it "
                          "again, or take it away to leave the two people as they are")
    return {name: int(who) for name, who in found.items()}


class InterXSource(Source):
    """See the module's text. ``smplx`` is a model file or a folder of them."""

    kind = "interx"
    joints = 55

    def __init__(self, folder: Path, smplx=None):
        super().__init__(folder)
        self.motions = self.folder / "motions" if (self.folder / "motions").is_dir() else self.folder
        self.bodies = Bodies(smplx) if smplx is not None else None
        self.where: dict[str, tuple[Path, str | None]] = {}
        self._in_file: dict[str, list[str]] = {}
        for path in sorted(self.motions.glob("*.h5")):
            # The published implementation keeps joint places beside the parameters, in files of their own.
            if not path.stem.endswith("_global"):
                with _h5(path) as file:
                    self._in_file[path.stem] = list(file)
                self.where |= {name: (path, name) for name in self._in_file[path.stem]}
        self.where |= {p.stem: (p, None) for p in sorted(self.motions.glob("G*.npy"))}
        self.where |= {p.name: (p, None) for p in sorted(self.motions.glob("G*")) if p.is_dir()}
        orders = (self.folder / part / ORDER for part in ("annots", "."))
        self.order_file = next((path for path in orders if path.is_file()), None)
        self.order = {} if self.order_file is None else interaction_order(self.order_file)
        self.texts = next((self.folder / t for t in ("texts_processed", "texts") if (self.folder / t).is_dir()), None)

    @staticmethod
    def found(folder: Path) -> bool:
        """Whether a folder is laid out like this."""
        motions = folder / "motions" if (folder / "motions").is_dir() else folder
        return any(motions.glob("*.h5")) or any(motions.glob("G*/P1.npz")) or any(motions.glob("G[0-9]*.npy"))

    def splits(self, report=None):
        """Names by splits/*.txt, else by the names of the .h5 files."""
        folder = next((self.folder / s for s in ("splits", "split", "datasets") if (self.folder / s).is_dir()), self.folder)
        return listed(folder, self.where, report) or {s: self._in_file[s] for s in SPLITS if s in self._in_file}

    def look(self, report):
        """Clips that no split names, texts that are not there, and what lacks without a body."""
        named = {n for names in self.splits(report).values() for n in names}
        for name in sorted(self.where.keys() - named):
            report.problem(UNLISTED, name)
        if self.texts is None:
            report.problem(NO_TEXT, f"{self.folder}: neither texts_processed nor texts is a folder")
        if self.bodies is None:
            report.notes.append(NO_BODY)
        unsaid = len(self.where.keys() - self.order.keys())
        if self.order_file is None:
            report.notes.append(f"no annots/{ORDER}: P1 is taken for the one who acts")
        elif unsaid:
            report.notes.append(f"{self.order_file.name} does not name {unsaid} of {len(self.where)} clips: there P1 is taken "
                                "for the one who acts")

    def settings(self):
        """The model files, which decide the places, and the order of the two people."""
        files = [*(self.bodies.files.values() if self.bodies else ()), *([self.order_file] if self.order_file else [])]
        return [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]

    def files(self, name):
        """The motion and the annotation."""
        path, _ = self.where[name]
        motion = [path / "P1.npz", path / "P2.npz"] if path.is_dir() else [path]
        return motion + ([self.texts / f"{name}.txt"] if self.texts else [])

    def rows(self, name: str) -> tuple[np.ndarray, list[dict]]:
        """Rotation vectors and places [2, T, 56, 3] of both people at 30 frames a second, and what is known of each."""
        path, key = self.where[name]
        if path.is_dir():
            for person in ("P1", "P2"):
                if not (path / f"{person}.npz").is_file():
                    raise Unusable(ONE_MISSING, f"{name}: expected P1.npz and P2.npz, got no {person}.npz; fetch it or leave the "
                                   "clip out")
            people = [raw_person(path / f"{person}.npz") for person in ("P1", "P2")]
            frames = min(len(rows) for rows, _ in people)
            return np.stack([rows[:frames] for rows, _ in people]), [about for _, about in people]
        if key is None:
            clip = load_array(path)
        else:
            with _h5(path) as file:
                clip = np.asarray(file[key][()], np.float64)
        if clip.ndim != 3 or clip.shape[1:] != (56, 6):
            what = ONE_MISSING if clip.ndim == 3 and clip.shape[1:] == (56, 3) else BROKEN
            raise Unusable(what, f"{name}: expected an array [T, 56, 6] of two people, got {clip.shape}; leave the clip out")
        return np.stack([clip[..., :3], clip[..., 3:]]).astype(np.float64), [{}, {}]

    def read(self, name):
        """One clip; the lowest joint of each person is at height 0, as published."""
        rows, about = self.rows(name)
        if rows.shape[1] < SHORTEST:
            raise Unusable(SHORT, f"{name}: expected at least {SHORTEST} frames, got {rows.shape[1]}; leave it out")
        if not np.isfinite(rows).all():
            raise Unusable(BROKEN, f"{name}: expected finite values, got NaN or infinity; leave it out")
        turns = R.normalize(R.from_axis_angle(rows[:, :, :55]))
        root, offsets = rows[:, :, 55].copy(), np.stack([SMPL22.offsets] * 2)
        for p in range(2):
            if self.bodies is not None:
                rest = self.bodies.rest(about[p].get("gender"), about[p].get("betas"))
                root[p] += rest[0]
                offsets[p, 1:] = rest[1:22] - rest[list(SMPL22.parents[1:])]
            root[p, :, 1] -= forward_kinematics(SMPL22, root[p], turns[p, :, :22], offsets=offsets[p])[..., 1].min()
        if self.order.get(name, 0) == 1:
            root, turns, offsets = root[::-1], turns[::-1], offsets[::-1]
        texts, lacks = texts_of(self.texts / f"{name}.txt") if self.texts else ((), NO_TEXT)
        action = re.search(r"A(\d{3})", name)
        clip = PairClip(root.astype(np.float32), turns[:, :, :22].astype(np.float32), offsets.astype(np.float32),
                        f"action {action.group(1)}" if action else self.kind, texts, meta={"name": name})
        return Read(name, clip, turns[:, :, 22:].astype(np.float32), lacks)
