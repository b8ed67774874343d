"""Two-person data by folder, whatever its layout: `load_two_person`, and `inspect_folder` for what is missing or broken."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from rtinteract.training.dataset_folders import FolderSource
from rtinteract.training.dataset_interhuman import InterHumanSource
from rtinteract.training.dataset_interx import NO_BODY, InterXSource
from rtinteract.training.pairs import PairClip, load_pairs
from rtinteract.training.shards import StoredPairs, built
from rtinteract.training.sources import Report, Source

from rtinteract.errors import ConfigError, MotionError
from rtinteract.motion.files import stem_and_suffix

log = logging.getLogger(__name__)

KINDS = ("interhuman", "interx", "pairs", "composed")
# Held-out clips, the first of these that a data set has.
HELD_OUT = ("val", "test")


def detect(folder) -> str:
    """"composed", "interhuman", "interx", "pairs", or "solo" for a folder of single people; MotionError for none of them."""
    folder = Path(folder)
    if not folder.is_dir():
        raise MotionError(f"{folder}: expected a folder, found none; check the path")
    if (folder / "index.json").is_file():
        return "composed"
    if InterHumanSource.found(folder):
        return "interhuman"
    if InterXSource.found(folder):
        return "interx"
    if not (folder / "index.csv").is_file() and FolderSource.found(folder):
        return "pairs"
    if (folder / "index.csv").is_file() or any(stem_and_suffix(p)[1] in (".bvh", ".amc") for p in folder.rglob("*")):
        return "solo"
    raise MotionError(f"{folder}: expected InterHuman (motions_processed/), Inter-X (motions/ with .h5, .npz or .npy), composed "
                      "pairs (index.json), or .bvh or .amc files, found none of them; check the path, and unpack the archives")


def source_of(folder, kind: str = "auto", smplx=None) -> Source:
    """The reader of a folder that is not composed; ``smplx`` is an SMPL-X model file or folder for Inter-X."""
    kind = detect(folder) if kind == "auto" else kind
    if kind == "interhuman":
        return InterHumanSource(folder)
    if kind == "interx":
        return InterXSource(folder, smplx)
    if kind == "pairs":
        return FolderSource(folder)
    if kind == "solo":
        raise MotionError(f"{folder}: expected two people, got a folder of single ones; name the files of a pair alike "
                          "(walk.a.bvh and walk.b.bvh), write a pairs.csv, or compose pairs: rtinteract data compose")
    raise ConfigError(f"kind: expected one of auto, {', '.join(KINDS)}, got {kind!r}")


def load_two_person(folder, kind: str = "auto", split: str = "train", cache=None, smplx=None) -> Sequence[PairClip]:
    """The clips of one split of a two-person data set, +Y up, metres, 30 frames a second.

    ``kind`` is "interhuman", "interx", "pairs" (motion files two by two), "composed" (which has no splits: all clips), or "auto".
    Clips that cannot be used are skipped, named and counted in the log; a clip without texts is kept, without texts. ``cache``
    is a folder in which the clips are kept as memory-mapped arrays, found again while the data set is the same; without it they
    are held in memory. Raises MotionError when a split is empty, when nothing in it can be used, or when the cache is damaged.
    """
    if kind == "composed" or (kind == "auto" and detect(folder) == "composed"):
        return load_pairs(folder)
    source = source_of(folder, kind, smplx)
    names = _named(source, split)
    if isinstance(source, InterXSource) and source.bodies is None:
        log.warning("%s: %s", folder, NO_BODY)
    if cache is None:
        skipped: dict[str, list[str]] = {}
        stored = StoredPairs.gathered(list(source.reads(names, skipped)), skipped, source.joints)
    else:
        place = hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:8]
        stored = built(Path(cache) / f"{source.kind}-{split}-{place}", source, split, names)
    wrong = _by_problem(stored.problems)
    for what, which in wrong.problems.items():
        log.warning("%s, %s: %d (%s)", folder, what, len(which), "; ".join(which[:20]))
    if not len(stored):
        raise MotionError(f"{folder}: no clip of split {split!r} can be used; {'; '.join(wrong.lines()[1:])}")
    log.info("%s: %d pairs of split %s (%.1f min), %d of %d skipped", folder, len(stored), split, sum(stored.lengths) / 1800,
             len(names) - len(stored), len(names))
    return stored


def load_held_out(folder, kind: str = "auto", cache=None, smplx=None) -> Sequence[PairClip] | None:
    """The validation (else the test) split; None when the data set has neither."""
    if kind == "composed" or (kind == "auto" and detect(folder) == "composed"):
        return None
    splits = source_of(folder, kind, smplx).splits()
    split = next((s for s in HELD_OUT if splits.get(s)), None)
    return None if split is None else load_two_person(folder, kind, split, cache, smplx)


def _named(source: Source, split: str) -> list[str]:
    splits = source.splits()
    if not splits.get(split):
        found = ", ".join(f"{s} ({len(n)} clips)" for s, n in splits.items()) or "no split lists"
        raise MotionError(f"{source.folder}: expected clips in split {split!r}, got none; it has {found}; ask for another split, "
                          "or see what is missing: rtinteract data inspect")
    return splits[split]


def _by_problem(problems: dict[str, list[str]]) -> Report:
    report = Report("skipped", "")
    for name, (what, why) in sorted(problems.items()):
        report.problem(what, name if why == what else why if why.startswith(f"{name}:") else f"{name}: {why}")
    return report


def inspect_folder(folder, kind: str = "auto", smplx=None) -> Report:
    """What a two-person data set holds, every clip of every split read once: counts, minutes, and each thing that is missing or
    broken by name."""
    source = source_of(folder, kind, smplx)
    report = Report(source.kind, str(folder))
    source.look(report)
    for split, names in source.splits().items():
        problems: dict[str, list[str]] = {}
        report.count(split, 0, 0)
        for read in source.reads(names, problems):
            report.count(split, 1, len(read.clip))
            if read.lacks:
                problems[read.name] = [read.lacks, read.lacks]
        for what, which in _by_problem(problems).problems.items():
            for one in which:
                report.problem(what, one)
    return report
