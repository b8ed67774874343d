"""Two-person clips for training: the record, its contacts, and the folder format (npz shards and an index.json)."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from rtinteract import rotation as R
from rtinteract.errors import MotionError
from rtinteract.motion.types import Motion
from rtinteract.skeleton import SMPL22, forward_kinematics, smpl22_with

PALM_M = 0.08
FORMAT_VERSION = 1
# Unit directions of the fingers in the wrists' own frames (left wrist 20, right wrist 21).
FINGERS = {20: np.array([1.0, 0.0, 0.0]), 21: np.array([-1.0, 0.0, 0.0])}


@dataclass(frozen=True)
class Contact:
    """Touch of ``joint_a`` of person 0 and ``joint_b`` of person 1 in frames ``start`` <= t < ``end``.

    The touching point of a wrist joint (20, 21) is the palm: the wrist plus PALM_M (0.08 m) along the hand's fingers, that
    is +X (left) or -X (right) of the wrist's world frame. Any other joint touches at its own centre. ``gap`` is the
    distance in metres of the two points while they touch (0 for two palms; the flesh in between for a palm on a chest).
    """

    joint_a: int
    joint_b: int
    start: int
    end: int
    gap: float = 0.0


@dataclass(frozen=True, eq=False)
class PairClip:
    """One composed clip of two people; person 0 is the one who starts, person 1 answers.

    ``root`` f32 [2, T, 3] in metres, ``rotations`` f32 [2, T, 22, 4] local wxyz, ``offsets`` f32 [2, 22, 3] the rest offsets
    of each body, ``texts`` several phrasings of the same event, ``meta`` JSON-able facts (refused, delay_s, sources, ...).
    """

    root: np.ndarray
    rotations: np.ndarray
    offsets: np.ndarray
    kind: str
    texts: tuple[str, ...]
    contacts: tuple[Contact, ...] = ()
    fps: float = 30.0
    seed: int = 0
    meta: dict = field(default_factory=dict)

    def __post_init__(self):
        t = self.root.shape[1] if self.root.ndim == 3 else -1
        if self.root.shape != (2, t, 3) or self.rotations.shape != (2, t, 22, 4) or self.offsets.shape != (2, 22, 3):
            raise MotionError(f"pair clip: expected root [2, T, 3], rotations [2, T, 22, 4] and offsets [2, 22, 3], got "
                              f"{self.root.shape}, {self.rotations.shape} and {self.offsets.shape}; give both people's")

    def __len__(self):
        return self.root.shape[1]

    def motions(self) -> tuple[Motion, Motion]:
        """Both people as Motions: SMPL-22 with each body's own offsets."""
        return tuple(
            Motion.from_rotations(smpl22_with(self.offsets[p]), self.root[p], self.rotations[p], self.fps) for p in range(2))

    def touching_points(self, contact: Contact) -> tuple[np.ndarray, np.ndarray]:
        """World places [T, 3] of both touching points of a contact over the whole clip."""
        points = []
        for p, joint in enumerate((contact.joint_a, contact.joint_b)):
            places, turns = forward_kinematics(
                SMPL22, self.root[p].astype(np.float64), R.normalize(self.rotations[p].astype(np.float64)),
                offsets=self.offsets[p].astype(np.float64), with_rotations=True)
            points.append(touching_point(joint, places, turns))
        return points[0], points[1]

    def contact_error(self, contact: Contact) -> np.ndarray:
        """Metres [end - start] by which the touching points miss their ``gap``."""
        a, b = self.touching_points(contact)
        distance = np.linalg.norm(a - b, axis=-1)[contact.start:contact.end]
        return np.abs(distance - contact.gap)


def touching_point(joint: int, places, turns):
    """The point [T, 3] with which a joint touches (see Contact), from world places [T, 22, 3] and rotations [T, 22, 4]."""
    if joint in FINGERS:
        return places[:, joint] + PALM_M * R.rotate(turns[:, joint], FINGERS[joint])
    return places[:, joint]


def _atomic(path: Path, write) -> None:
    # A kill during the write must leave either the old file or the new one.
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(beside, "wb") as handle:
        write(handle)
    os.replace(beside, path)


def _facts(clip: PairClip) -> dict:
    return {"kind": clip.kind, "texts": list(clip.texts), "contacts": [asdict(c) for c in clip.contacts], "fps": clip.fps,
            "seed": int(clip.seed), "frames": len(clip), "meta": clip.meta}


def write_shard(path, clips: list[PairClip]) -> None:
    """Write clips to one npz file, atomically: frames of all clips one after the other, facts as JSON."""
    arrays = {
        "root": np.concatenate([c.root for c in clips], 1).astype(np.float32),
        "rotations": np.concatenate([c.rotations for c in clips], 1).astype(np.float32),
        "offsets": np.stack([c.offsets for c in clips]).astype(np.float32),
        "facts": np.array(json.dumps([_facts(c) for c in clips])),
    }
    _atomic(Path(path), lambda handle: np.savez(handle, **arrays))


def read_shard(path) -> list[PairClip]:
    """The clips of one npz file; MotionError when it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as data:
            root, rotations, offsets = data["root"], data["rotations"], data["offsets"]
            facts = json.loads(str(data["facts"]))
    except (OSError, KeyError, ValueError) as error:
        raise MotionError(f"pair shard {path}: expected an npz with root, rotations, offsets and facts, got {error}; "
                          "delete the file and compose again") from error
    clips, start = [], 0
    for i, fact in enumerate(facts):
        end = start + fact["frames"]
        clips.append(PairClip(
            root[:, start:end], rotations[:, start:end], offsets[i], fact["kind"], tuple(fact["texts"]),
            tuple(Contact(**c) for c in fact["contacts"]), fact["fps"], fact["seed"], fact["meta"]))
        start = end
    return clips


def write_index(folder, shards: list[str], report: dict) -> None:
    """Write index.json, atomically: the shards in order and what composing them reported."""
    text = json.dumps({"format_version": FORMAT_VERSION, "shards": shards, **report}, indent=1)
    _atomic(Path(folder) / "index.json", lambda handle: handle.write(text.encode()))


def save_pairs(folder, clips: list[PairClip], shard_size: int = 64) -> None:
    """Write clips as npz shards and an index.json into ``folder`` (made when absent); each file appears whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for start in range(0, len(clips), shard_size):
        name = f"pairs-{start // shard_size:05d}.npz"
        write_shard(folder / name, clips[start:start + shard_size])
        shards.append(name)
    write_index(folder, shards, {"clips": len(clips)})


def shards_of(folder) -> list[Path]:
    """The shards of a folder in order; MotionError without a readable index.json of a known format."""
    path = Path(folder) / "index.json"
    try:
        index = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MotionError(f"pairs folder {folder}: expected an index.json, got {error}; compose the pairs first") from error
    if index.get("format_version") != FORMAT_VERSION:
        raise MotionError(f"pairs folder {folder}: expected format_version {FORMAT_VERSION}, got "
                          f"{index.get('format_version')}; compose the pairs again with this version")
    return [Path(folder) / name for name in index["shards"]]


def load_pairs(folder) -> list[PairClip]:
    """All clips of a folder in order; MotionError without a readable index.json of a known format."""
    return [clip for shard in shards_of(folder) for clip in read_shard(shard)]
