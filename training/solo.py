"""The solo corpus: one person's clips from motion-capture folders, cleaned, on the floor, split by trial."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rtinteract import rotation as R
from rtinteract.errors import MotionError, RtInteractError
from rtinteract.motion import Motion, read_motion, to_model
from rtinteract.motion.archive import read_people, write_archive
from rtinteract.motion.files import stem_and_suffix
from rtinteract.motion.jointmaps import joint_map_of

log = logging.getLogger(__name__)

VERSION = 2
# Beyond these a frame is a fault of the file and not a movement (a hard kick: 14 m/s and 400 m/s2 at the ankle).
ROOT_SPEED = 7.0
JOINT_SPEED = 16.0
JOINT_ACCELERATION = 800.0
BODY_TURN = 20.0
JOINT_TURN = 80.0
# Seconds left out on each side of a fault: the frames around it already bend toward it.
EDGE_S = 0.05
SHORTEST_S = 1.0
# Trials that the corpus holds twice, in two formats, under the names of cmu-solo: both copies stay on one side.
SAME_TRIAL = {"walking/train_walking_1": "02_01", "soccer/test_soccer_1": "11_01", "walking_extra/train_walking_19": "12_01"}
# Held out beside the files named test_*: a few whole-body ones that no test_* file covers.
HELD_OUT = {"02_04", "02_09", "20_11", "49_20", "14_08"}
# Files named test_* that are too many of one kind to hold out; the others of that kind stay.
_WALK_TESTS_KEPT = 4


@dataclass(frozen=True, eq=False)
class SoloClip:
    """One clean clip: an SMPL-22 ``motion`` at 30 Hz on the floor, its ``text``, and where it comes from.

    ``name`` is the file's path in its corpus (with "#k" when a glitch cut it in parts), ``trial`` what must not be divided
    between the two sides of ``split`` ("train" or "test").
    """

    motion: Motion
    text: str
    name: str
    trial: str
    split: str


@dataclass(frozen=True)
class _Entry:
    path: Path
    name: str
    text: str
    skeleton: str | None


def _key(path: Path) -> str:
    """"walking/train_walking_1" or "02_01": a file's name without its endings, with its folder where the name needs it."""
    stem = stem_and_suffix(path)[0]
    return f"{path.parent.name}/{stem}" if stem_and_suffix(path)[1] == ".txt" else stem


def _entries(folder: Path) -> list[_Entry]:
    if not folder.is_dir():
        raise MotionError(f"{folder}: expected a folder of motion capture, found none; check the path")
    entries = []
    for index in sorted(folder.rglob("index.csv")):
        with open(index, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row.get("file"):
                    path, text = index.parent / row["file"], row.get("text") or ""
                    entries.append(_Entry(path, row["file"], text, row.get("skeleton") or None))
    known = {e.path for e in entries}
    for path in sorted(folder.rglob("*")):
        if stem_and_suffix(path)[1] in (".bvh", ".amc") and path not in known:
            text = re.sub(r"[_\W]+", " ", stem_and_suffix(path)[0]).strip()
            entries.append(_Entry(path, path.relative_to(folder).as_posix(), text, None))
    if not entries:
        raise MotionError(f"{folder}: expected an index.csv, .bvh or .amc files in it or below, found none; check the path")
    return entries


def _read(entry: _Entry) -> Motion:
    stem, suffix = stem_and_suffix(entry.path)
    skeleton = entry.path.parents[len(Path(entry.name).parts) - 1] / entry.skeleton if entry.skeleton else None
    if suffix == ".amc" and skeleton is None:
        folders = (entry.path.parent, entry.path.parent / "asf", entry.path.parent.parent / "asf")
        own = f"{stem.split('_')[0]}.asf*"
        if not any(list(f.glob(own)) for f in folders):
            # Some CMU subjects' skeletons are not published with their trials; subject 02's stands in plausibly.
            skeleton = next((p for f in folders for p in f.glob("02.asf*")), None)
    motion = read_motion(entry.path, skeleton=skeleton)
    if skeleton is not None and suffix == ".amc" and not skeleton.name.startswith(stem.split("_")[0]):
        motion = motion.with_notes(f"skeleton of subject {skeleton.name.split('.')[0]} stands in")
    return motion


def glitches(motion: Motion) -> np.ndarray:
    """Whether frame t + 1 [T - 1] is a jump from frame t: root, joint or body turn beyond what people do. Toes, thumbs and
    fingers do not count: captures are often wrong there and no model sees it.
    """
    if len(motion) < 2:
        return np.zeros(0, dtype=bool)
    roles = joint_map_of(motion.skeleton)
    joints = [j for role, j in roles.items() if not role.endswith("_foot")]
    step = np.diff(motion.positions[:, joints], axis=0) * motion.fps
    speed = np.linalg.norm(step, axis=-1)
    pull = np.linalg.norm(np.diff(step, axis=0), axis=-1).max(1) * motion.fps
    turn = R.angle(motion.rotations[:-1, joints], motion.rotations[1:, joints]) * motion.fps
    bad = (speed[:, joints.index(roles["pelvis"])] > ROOT_SPEED) | (speed.max(1) > JOINT_SPEED) | (turn.max(1) > JOINT_TURN)
    bad |= R.angle(motion.rotations[:-1, 0], motion.rotations[1:, 0]) * motion.fps > BODY_TURN
    bad[1:] |= pull > JOINT_ACCELERATION
    return bad


def clean_parts(motion: Motion) -> list[Motion]:
    """The clip cut at its glitches, a few frames around each left out, parts shorter than a second dropped."""
    bad = np.flatnonzero(glitches(motion))
    if len(bad) == 0:
        return [motion] if motion.seconds >= SHORTEST_S else []
    good, edge = np.ones(len(motion), dtype=bool), max(1, round(EDGE_S * motion.fps))
    for t in bad:
        good[max(0, t + 1 - edge):t + 1 + edge] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good.astype(int), [0]])))
    parts = [motion[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return [p for p in parts if p.seconds >= SHORTEST_S]


def splits(keys: list[str]) -> dict[str, str]:
    """key -> "train" or "test": whole trials, files named test_* (a few of a kind that has many) and some whole-body AMC."""
    side, walks = {}, 0
    for key in sorted(keys, key=lambda k: [int(w) if w.isdigit() else w for w in re.split(r"(\d+)", k)]):
        trial = SAME_TRIAL.get(key, key)
        held = trial in HELD_OUT
        if key.split("/")[-1].startswith("test_"):
            held = True
            if key.startswith("walking_extra/"):
                walks += 1
                held = walks <= _WALK_TESTS_KEPT
        if held or trial not in side:
            side[trial] = "test" if held else "train"
    return {key: side[SAME_TRIAL.get(key, key)] for key in keys}


def _signature(entries) -> str:
    stats = [(e.name, e.text, e.skeleton, e.path.stat().st_size if e.path.is_file() else -1) for e in entries]
    return hashlib.sha256(json.dumps([VERSION, stats]).encode()).hexdigest()[:16]


def load_corpus(folder, cache=None) -> list[SoloClip]:
    """Every usable clip below ``folder``: cmu-solo's index.csv where there is one, and any other .bvh and .amc (also packed).

    Clips are SMPL-22 at 30 Hz on the floor; T-pose frames are dropped, glitches cut out. Files that cannot be used are skipped,
    named and counted in the log. ``cache``: a folder in which the result is kept and found again as long as the files' names
    and sizes are the same. Raises MotionError when there is nothing to read.
    """
    folder = Path(folder)
    entries = _entries(folder)
    kept = Path(cache) / f"solo-{_signature(entries)}.npz" if cache is not None else None
    if kept is not None and kept.is_file():
        try:
            return _load(kept)
        except (RtInteractError, OSError, ValueError, KeyError) as error:
            log.warning("cache %s is damaged (%s); reading the corpus again", kept, error)
    side = splits([_key(e.path) for e in entries])
    clips, skipped, cut = [], [], 0
    for entry in tqdm(entries, desc="motion capture", unit="file", disable=None):
        try:
            motion = _read(entry)
            parts = clean_parts(motion)
            models = [to_model(p) for p in parts]
        except RtInteractError as error:
            skipped.append(entry.name)
            log.warning("skipped %s: %s", entry.name, error)
            continue
        if not parts:
            skipped.append(entry.name)
            log.warning("skipped %s: no part of %.1f s without glitches", entry.name, SHORTEST_S)
            continue
        key = _key(entry.path)
        if len(parts) > 1 or len(parts[0]) < len(motion):
            cut += 1
            log.info("%s: glitches cut out, %d part(s), %.2f of %.2f s kept", entry.name, len(parts),
                     sum(p.seconds for p in parts), motion.seconds)
        for k, model in enumerate(models):
            name = entry.name if len(models) == 1 else f"{entry.name}#{k}"
            clips.append(SoloClip(model, entry.text, name, SAME_TRIAL.get(key, key), side[key]))
    names = f" ({', '.join(skipped)})" if skipped else ""
    log.info("%d clips, %.1f min, %d files cut at glitches, %d of %d files skipped%s", len(clips),
             sum(c.motion.seconds for c in clips) / 60, cut, len(skipped), len(entries), names)
    if not clips:
        raise MotionError(f"{folder}: no file could be used, {len(skipped)} skipped{names[:400]}; see the log for why")
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        _save(kept, clips)
    return clips


def _save(path: Path, clips) -> None:
    table = [{"text": c.text, "name": c.name, "trial": c.trial, "split": c.split} for c in clips]
    # The table is written first: without its motions it is not looked for.
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    beside.write_text(json.dumps(table), encoding="utf-8")
    os.replace(beside, path.with_suffix(".json"))
    write_archive(path, [c.motion for c in clips])


def _load(path: Path) -> list[SoloClip]:
    table = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    motions = read_people(path.read_bytes(), str(path))
    return [SoloClip(m, t["text"], t["name"], t["trial"], t["split"]) for m, t in zip(motions, table, strict=True)]
