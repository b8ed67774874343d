"""npz in and out: one or more motions, exactly as they are in memory."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from rtinteract.errors import MotionError
from rtinteract.motion.types import Motion
from rtinteract.skeleton import Skeleton

VERSION = 1


def write_archive(path, motions) -> None:
    """Write motions (float64, nothing lost) to ``path``; the file appears whole or not at all."""
    path, arrays, people = Path(path), {}, []
    for i, motion in enumerate(motions):
        s = motion.skeleton
        people.append({"fps": motion.fps, "notes": list(motion.notes), "name": s.name, "joints": list(s.joints),
                       "parents": list(s.parents), "ends": [int(j) for j in s.end_sites], "joint_map": s.joint_map})
        arrays |= {f"root{i}": motion.root, f"rotations{i}": motion.rotations, f"offsets{i}": s.offsets, f"tpose{i}": s.tpose,
                   f"tips{i}": np.array(list(s.end_sites.values()), dtype=np.float64).reshape(-1, 3)}
    header = json.dumps({"format": "rtinteract-motion", "version": VERSION, "people": people})
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            np.savez_compressed(file, header=np.array(header), **arrays)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_people(data: bytes, what: str) -> list[Motion]:
    """Every motion of an npz's bytes; MotionError when it is damaged or another program's."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            header = json.loads(str(arrays["header"]))
            if header.get("format") != "rtinteract-motion":
                raise KeyError("format")
            if header["version"] > VERSION:
                raise MotionError(f"{what}: expected npz format {VERSION} or older, got {header['version']}; update rtinteract")
            people = []
            for i, p in enumerate(header["people"]):
                ends = dict(zip(p["ends"], arrays[f"tips{i}"], strict=True))
                skeleton = Skeleton(p["name"], tuple(p["joints"]), tuple(p["parents"]), arrays[f"offsets{i}"], ends,
                                    arrays[f"tpose{i}"], p.get("joint_map"))
                people.append(Motion.from_rotations(skeleton, arrays[f"root{i}"], arrays[f"rotations{i}"], p["fps"], p["notes"]))
            return people
    except MotionError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise MotionError(f"{what}: expected an npz written by rtinteract, got {error!r}; the file is cut short, damaged, or "
                          "another program's") from None


def read_archive(data: bytes, what: str) -> Motion:
    """The one motion of an npz's bytes; MotionError for a pair (read it with `read_people`)."""
    people = read_people(data, what)
    if len(people) != 1:
        raise MotionError(f"{what}: expected one person, got {len(people)}; read them with rtinteract.motion.archive.read_people")
    return people[0]
