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
from rtinteract.motion.files import PACKED, stem_and_suffix
from rtinteract.motion.retarget import flex_toes, on_floor

log = logging.getLogger(__name__)

VERSION = 1
# A capture's frames are 1/120 s apart: beyond these speeds a frame is a fault of the file, not a movement.
ROOT_SPEED = 7.0
JOINT_SPEED = 18.0
TURN_SPEED = 35.0
EDGE_FRAMES = 3
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
                    entries.append(_Entry(index.parent / row["file"], row["file"], row.get("text") or "", row.get("skeleton") or None))
    known = {e.path for e in entries}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".bvh", ".amc", *PACKED) and stem_and_suffix(path)[1] in (".bvh", ".amc") and path not in known:
            text = re.sub(r"[_\W]+", " ", stem_and_suffix(path)[0]).strip()
            entries.append(_Entry(path, path.relative_to(folder).as_posix(), text, None))
    if not entries:
        raise MotionError(f"{folder}: expected an index.csv, .bvh or .amc files in it or below, found none; check the path")
    return entries


def _read(entry: _Entry) -> Motion:
    stem, suffix = stem_and_suffix(entry.path)
    skeleton = entry.path.parents[len(Path(entry.name).parts) - 1] / entry.skeleton if entry.skeleton else None
    if suffix == ".amc" and skeleton is None:
        subject = stem.split("_")[0]
        folders = (entry.path.parent, entry.path.parent / "asf", entry.path.parent.parent / "asf")
        if not any(f.glob(f"{subject}.asf*") for f in folders if any(f.glob(f"{subject}.asf*"))):
            # Some CMU subjects' skeletons are not published with their trials; subject 02's stands in plausibly.
            skeleton = next((p for f in folders for p in f.glob("02.asf*")), None)
    motion = read_motion(entry.path, skeleton=skeleton)
    if skeleton is not None and suffix == ".amc" and not skeleton.name.startswith(stem.split("_")[0]):
        motion = motion.with_notes(f"skeleton of subject {skeleton.name.split('.')[0]} stands in")
    return motion


def glitches(motion: Motion) -> np.ndarray:
    """Whether frame t + 1 [T - 1] is a jump from frame t: the root, a joint or the body's turn is faster than people move."""
    if len(motion) < 2:
        return np.zeros(0, dtype=bool)
    step = np.linalg.norm(np.diff(motion.positions, axis=0), axis=-1) * motion.fps
    turn = R.angle(motion.rotations[:-1, 0], motion.rotations[1:, 0]) * motion.fps
    return (step[:, 0] > ROOT_SPEED) | (step.max(1) > JOINT_SPEED) | (turn > TURN_SPEED)


def clean_parts(motion: Motion) -> list[Motion]:
    """The clip cut at its glitches, a few frames around each left out, parts shorter than a second dropped."""
    bad = np.flatnonzero(glitches(motion))
    if len(bad) == 0:
        return [motion] if motion.seconds >= SHORTEST_S else []
    good = np.ones(len(motion), dtype=bool)
    for t in bad:
        good[max(0, t + 1 - EDGE_FRAMES):t + 1 + EDGE_FRAMES] = False
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
            models = [_settled(p) for p in parts]
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
    log.info("%d clips, %.1f min, %d files cut at glitches, %d of %d files skipped%s", len(clips),
             sum(c.motion.seconds for c in clips) / 60, cut, len(skipped), len(entries), f" ({', '.join(skipped)})" if skipped else "")
    if not clips:
        raise MotionError(f"{folder}: no file could be used ({len(skipped)} skipped: {', '.join(skipped[:10])}); see the log for why")
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        _save(kept, clips)
    return clips


def _settled(motion: Motion) -> Motion:
    return flex_toes(on_floor(to_model(motion)))


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
