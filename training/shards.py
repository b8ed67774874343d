"""Two-person clips on disk as the trainers read them: a few large arrays, mapped into memory, and an index.

A folder holds index.json, root.f32 [F, 2, 3], rotations.f32 [F, 2, J, 4] and offsets.f32 [N, 2, 22, 3] (little-endian, the
frames of all clips one after the other). It is built once, clip by clip, into a folder beside it with a journal, so that a
build that is killed goes on where it was; it takes its name when whole. Each clip has a checksum.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rtinteract.training.pairs import PairClip
from rtinteract.training.sources import Read, Source

from rtinteract.errors import MotionError
from rtinteract.motion.atomic import replacing

log = logging.getLogger(__name__)

FORMAT, VERSION = "rtinteract-shards", 1


class StoredPairs(Sequence):
    """Clips over shared arrays: ``root`` [F, 2, 3], ``rotations`` [F, 2, J, 4] (J 22, or 55 with jaw, eyes and fingers),
    ``offsets`` [N, 2, 22, 3], and ``facts`` of each clip. An index gives a `PairClip`, a slice other StoredPairs; nothing is
    copied. ``problems`` {name: [what, why]} are the clips that could not be used or lack something."""

    def __init__(self, root, rotations, offsets, facts: list[dict], problems: dict[str, list[str]]):
        self.root, self.rotations, self.offsets = root, rotations, offsets
        self.facts, self.problems = facts, problems
        self.lengths = [f["frames"] for f in facts]
        self.starts = np.cumsum([0, *self.lengths]).tolist()

    @classmethod
    def gathered(cls, reads: list[Read], skipped: dict[str, list[str]], joints: int) -> StoredPairs:
        """In memory, from clips as a source reads them."""
        arrays = [_frames(r, joints) for r in reads]
        root, rotations = (np.concatenate(x) if arrays else np.zeros(()) for x in (
            [a for a, _ in arrays], [b for _, b in arrays]))
        offsets = np.stack([r.clip.offsets for r in reads]) if reads else np.zeros((0, 2, 22, 3), np.float32)
        return cls(root, rotations, offsets, [_facts(r) for r in reads], _problems(reads, skipped))

    def __len__(self):
        return len(self.facts)

    def __getitem__(self, index):
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError(f"stored pairs: expected a slice of step 1, got {step}; take every clip between two")
            stop = max(start, stop)
            frames = slice(self.starts[start], self.starts[stop])
            return StoredPairs(self.root[frames], self.rotations[frames], self.offsets[start:stop], self.facts[start:stop],
                               self.problems)
        index = range(len(self))[index]
        frames, fact = slice(self.starts[index], self.starts[index + 1]), self.facts[index]
        return PairClip(self.root[frames].swapaxes(0, 1), self.rotations[frames, :, :22].swapaxes(0, 1), self.offsets[index],
                        fact["kind"], tuple(fact["texts"]), fps=fact["fps"], meta=fact["meta"])


def _frames(read: Read, joints: int) -> tuple[np.ndarray, np.ndarray]:
    """A clip's root [T, 2, 3] and rotations [T, 2, joints, 4]."""
    turns = read.clip.rotations if joints == 22 else np.concatenate([read.clip.rotations, read.hands], 2)
    return tuple(np.ascontiguousarray(x.swapaxes(0, 1), "<f4") for x in (read.clip.root, turns))


def _facts(read: Read) -> dict:
    c = read.clip
    return {"name": read.name, "frames": len(c), "kind": c.kind, "texts": list(c.texts), "fps": c.fps, "meta": c.meta,
            "lacks": read.lacks}


def _problems(reads, skipped: dict[str, list[str]]) -> dict[str, list[str]]:
    return skipped | {r.name: [r.lacks, r.lacks] for r in reads if r.lacks}


def signature(source: Source, split: str, names: list[str]) -> str:
    """What a build depends on: the names, and name, size and time of change of every file they are read from."""
    digest = hashlib.sha256(json.dumps([VERSION, source.kind, source.joints, split, source.settings()]).encode())
    stats: dict[Path, list] = {}
    for name in names:
        for path in source.files(name):
            if path not in stats:
                about = path.stat() if path.is_file() else None
                stats[path] = [] if about is None else [about.st_size, about.st_mtime_ns]
            digest.update(json.dumps([name, os.path.relpath(path, source.folder), *stats[path]]).encode())
    return digest.hexdigest()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time: the ranks of a training all ask for the same cache."""
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _Build:
    """A build under way: arrays that grow, and a journal with one line for each name that is done with."""

    def __init__(self, folder: Path, mark: str, joints: int):
        self.folder, self.joints = folder, joints
        folder.mkdir(parents=True, exist_ok=True)
        self.lines = self._resume(mark)
        self.files = {name: open(folder / f"{name}.f32", "ab") for name in ("root", "rotations", "offsets")}
        self.journal = open(folder / "journal.jsonl", "a", encoding="utf-8")
        if not self.lines:
            self._note({"signature": mark})

    def _resume(self, mark: str) -> list[dict]:
        """The journal's lines so far, what was written after the last of them cut off; [] for another build's."""
        journal, lines = self.folder / "journal.jsonl", []
        if journal.is_file():
            # A kill may have cut the last line short; what it stood for is read again.
            whole = journal.read_bytes().rpartition(b"\n")[0]
            try:
                lines = [json.loads(line) for line in whole.splitlines()]
            except ValueError:
                lines = []
        if not lines or lines[0].get("signature") != mark:
            lines = []
            for path in self.folder.iterdir():
                path.unlink()
            return lines
        journal.write_bytes(whole + b"\n")
        kept = [line["fact"] for line in lines if "fact" in line]
        frames = sum(f["frames"] for f in kept)
        for name, size in (("root", frames * 24), ("rotations", frames * self.joints * 32), ("offsets", len(kept) * 528)):
            path = self.folder / f"{name}.f32"
            path.touch()
            if path.stat().st_size < size:
                raise MotionError(f"{path}: expected at least {size} bytes of an unfinished cache, got {path.stat().st_size}; "
                                  f"delete the folder {self.folder} and start again")
            os.truncate(path, size)
        return lines

    def _note(self, line: dict) -> None:
        self.journal.write(json.dumps(line) + "\n")
        self.journal.flush()
        self.lines.append(line)

    def add(self, read: Read) -> None:
        """Append a clip; the journal speaks of it only once its frames are with the system."""
        root, turns = _frames(read, self.joints)
        offsets = np.ascontiguousarray(read.clip.offsets, "<f4")
        for name, array in (("root", root), ("rotations", turns), ("offsets", offsets)):
            self.files[name].write(array.tobytes())
            self.files[name].flush()
        self._note({"fact": _facts(read) | {"checksum": _checksum(root, turns, offsets)}})

    def skip(self, name: str, why: list[str]) -> None:
        """Note a name of which nothing can be used."""
        self._note({"skipped": [name, why]})

    def close(self) -> None:
        """Let go of the files."""
        for file in (*self.files.values(), self.journal):
            file.close()


def _checksum(root, turns, offsets) -> int:
    return zlib.crc32(offsets, zlib.crc32(turns, zlib.crc32(root)))


def _fill(build: _Build, source: Source, names: list[str]) -> None:
    done = {line["fact"]["name"] if "fact" in line else line["skipped"][0] for line in build.lines[1:]}
    if done:
        log.info("%s: an unfinished cache holds %d of %d clips; going on", build.folder, len(done), len(names))
    skipped: dict[str, list[str]] = {}
    for read in source.reads([n for n in names if n not in done], skipped):
        while skipped:
            build.skip(*skipped.popitem())
        build.add(read)
    while skipped:
        build.skip(*skipped.popitem())


def built(folder: Path, source: Source, split: str, names: list[str]) -> StoredPairs:
    """The clips of ``names`` out of the cache ``folder``, which is built when it is not there or the data set has changed.

    Shows progress; a build that was killed goes on. MotionError when the cache is damaged, or cannot be written.
    """
    folder = Path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder.with_name(f".{folder.name}.lock")):
            mark = signature(source, split, names)
            if folder.is_dir() and _index(folder).get("signature") == mark:
                return opened(folder)
            _rebuild(folder, source, names, mark)
        return opened(folder)
    except OSError as error:
        raise MotionError(f"{folder}: the cache cannot be written ({error.strerror or error}); free the disk or choose another "
                          "--cache") from error


def _rebuild(folder: Path, source: Source, names: list[str], mark: str) -> None:
    if folder.is_dir():
        log.warning("%s: the data set has changed since this cache was built; building it again", folder)
    part = folder.with_name(f"{folder.name}.part")
    build = _Build(part, mark, source.joints)
    try:
        _fill(build, source, names)
    finally:
        build.close()
    facts = [line["fact"] for line in build.lines if "fact" in line]
    # A resumed build has read what was left, in the same order: the clips stand as if it had never stopped.
    problems = dict(line["skipped"] for line in build.lines if "skipped" in line)
    problems |= {f["name"]: [f["lacks"], f["lacks"]] for f in facts if f["lacks"]}
    with replacing(part / "index.json") as beside:
        beside.write_text(json.dumps({"format": FORMAT, "version": VERSION, "signature": mark, "kind": source.kind,
                                      "joints": source.joints, "clips": facts, "problems": problems}), encoding="utf-8")
    (part / "journal.jsonl").unlink()
    if folder.is_dir():
        shutil.rmtree(folder)
    os.replace(part, folder)


def _index(folder: Path) -> dict:
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MotionError(f"{folder}: expected a cache with a readable index.json, got {error}; delete the folder, it is built "
                          "again") from None
    if index.get("format") != FORMAT:
        raise MotionError(f"{folder}: expected a cache of two-person clips, got another index.json; choose another --cache")
    return index if index.get("version") == VERSION else {}


def opened(folder: Path) -> StoredPairs:
    """A built cache, mapped into memory; MotionError names the damaged clip where a checksum does not fit."""
    index = _index(folder)
    facts, joints = index["clips"], index["joints"]
    frames = sum(f["frames"] for f in facts)
    shapes = {"root": (frames, 2, 3), "rotations": (frames, 2, joints, 4), "offsets": (len(facts), 2, 22, 3)}
    arrays = {}
    for name, shape in shapes.items():
        path, size = folder / f"{name}.f32", 4 * int(np.prod(shape))
        held = path.stat().st_size if path.is_file() else 0
        if held != size:
            raise MotionError(f"{path}: expected {size} bytes, got {held}; the cache is damaged: delete the "
                              f"folder {folder}, it is built again")
        # Copy on write: torch wants arrays that may be written, and the file must stay as it is.
        arrays[name] = np.memmap(path, "<f4", "c", shape=shape) if size else np.zeros(shape, np.float32)
    stored = StoredPairs(arrays["root"], arrays["rotations"], arrays["offsets"], facts, index["problems"])
    for i, fact in enumerate(facts):
        part = slice(stored.starts[i], stored.starts[i + 1])
        if _checksum(stored.root[part], stored.rotations[part], stored.offsets[i]) != fact["checksum"]:
            raise MotionError(f"{folder}: expected clip {fact['name']} with checksum {fact['checksum']}, got other frames; "
                              "the cache is damaged: delete the folder, it is built again")
    return stored
