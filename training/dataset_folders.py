"""Folders of ordinary motion files, two to a pair.

Which two belong together is said by pairs.csv (columns first, second, and optionally text and split; several texts are divided
by "|"), else by names: walk.a.bvh and walk.b.bvh, hug_1 and hug_2, hug_p1 and hug_p2, hug_person1 and hug_person2, or the same
name below folders person1 and person2. Trials of CMU's two-person subjects (18 and 19, 20 and 21, 22 and 23, 33 and 34, 60 and
61) are known. A text file with the pair's name beside the first one holds its descriptions.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rtinteract.training.pairs import PairClip
from rtinteract.training.sources import (
    ONE_MISSING,
    SHORT,
    STRANGE,
    UNLISTED,
    Read,
    Source,
    Unusable,
    listed,
    texts_of,
)

from rtinteract.errors import MotionError
from rtinteract.motion import read_motion, to_model
from rtinteract.motion.files import stem_and_suffix

SUFFIXES = (".bvh", ".amc")
SHORTEST = 15
# Frames by which the lengths of two files may differ: captures are started and cut by hand.
APART = 15
_CMU = {"18": "19", "20": "21", "22": "23", "33": "34", "60": "61"}
_MARKS = re.compile(r"^(?P<name>.*?)(?P<mark>[._ -]?(?:person|p)[12]|\.[ab]|[_ -][12ab])$", re.I)


@dataclass(frozen=True)
class _Pair:
    first: Path
    second: Path
    split: str | None = None
    texts: tuple[str, ...] = ()


def _side(path: Path) -> tuple[str, int] | None:
    """(name of the pair, person 0 or 1) as a file's name tells, None when it does not."""
    stem = stem_and_suffix(path)[0]
    cmu = re.fullmatch(r"(\d\d)_(\d\d)", stem)
    if cmu:
        subject, trial = cmu.groups()
        if subject in _CMU:
            return f"{subject}_{trial}", 0
        first = next((a for a, b in _CMU.items() if b == subject), None)
        return (f"{first}_{trial}", 1) if first else None
    parts = list(path.parent.parts)
    for k in (0, 1):
        if f"person{k + 1}" in parts:
            at = parts.index(f"person{k + 1}")
            return "/".join([*parts[:at], *parts[at + 1:], stem]), k
    mark = _MARKS.match(stem)
    if not mark or not mark["name"]:
        return None
    return (path.parent / mark["name"]).as_posix(), int(mark["mark"][-1].lower() in "2b")


def _from_names(folder: Path) -> tuple[dict[str, _Pair], list[str], list[str]]:
    """Pairs, files without a partner, and pairs of which one file is there."""
    sides: dict[str, dict[int, Path]] = {}
    strange = []
    paths = [p for p in sorted(folder.rglob("*")) if stem_and_suffix(p)[1] in SUFFIXES and p.is_file()]
    # walk_1 and walk_2 are no two people where there is a walk_3: takes are numbered like that.
    takes = {(p.parent, stem_and_suffix(p)[0][:-1]) for p in paths if re.search(r"[_ -][03]$", stem_and_suffix(p)[0])}
    for path in paths:
        side = _side(path.relative_to(folder))
        stem = stem_and_suffix(path)[0]
        if side is None or (stem[-1] in "12" and (path.parent, stem[:-1]) in takes and not re.fullmatch(r"\d\d_\d\d", stem)):
            strange.append(path.relative_to(folder).as_posix())
        else:
            sides.setdefault(side[0], {})[side[1]] = path
    whole = {name: _Pair(s[0], s[1]) for name, s in sides.items() if len(s) == 2}
    return whole, strange, [name for name, s in sides.items() if len(s) == 1]


def _from_table(folder: Path) -> dict[str, _Pair]:
    pairs = {}
    with open(folder / "pairs.csv", newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            if not row.get("first") or not row.get("second"):
                raise MotionError(f"{folder / 'pairs.csv'}, line {number}: expected columns first and second, got {row}; mend it")
            texts = tuple(t.strip() for t in (row.get("text") or "").split("|") if t.strip())
            name = Path(row["first"]).with_suffix("").as_posix()
            pairs[name] = _Pair(folder / row["first"], folder / row["second"], row.get("split") or None, texts)
    return pairs


class FolderSource(Source):
    """See the module's text. Splits come from pairs.csv or split/*.txt (names of pairs); without either all is "train"."""

    kind = "pairs"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.strange: list[str] = []
        self.lonely: list[str] = []
        if (self.folder / "pairs.csv").is_file():
            self.pairs = _from_table(self.folder)
        else:
            self.pairs, self.strange, self.lonely = _from_names(self.folder)

    @staticmethod
    def found(folder: Path) -> bool:
        """Whether a folder holds two-person files: by its table, or because most of its motion files have a partner."""
        if (folder / "pairs.csv").is_file():
            return True
        pairs, strange, lonely = _from_names(folder)
        return 2 * len(pairs) > len(strange) + len(lonely)

    def splits(self, report=None):
        """Names by the table's column, else by split/*.txt, else all "train"."""
        named = {n: p.split for n, p in self.pairs.items() if p.split}
        if named:
            return {s: [n for n in self.pairs if named.get(n) == s] for s in sorted(set(named.values()))}
        return listed(self.folder / "split", self.pairs, report) or ({"train": list(self.pairs)} if self.pairs else {})

    def look(self, report):
        """Files without a partner, and pairs that no split names."""
        for name in self.strange:
            report.problem(STRANGE, name)
        for name in self.lonely:
            report.problem(ONE_MISSING, name)
        named = {n for names in self.splits(report).values() for n in names}
        for name in self.pairs:
            if name not in named:
                report.problem(UNLISTED, name)

    def _annotation(self, name: str) -> Path:
        # A trial's name may hold a dot, which with_suffix would cut.
        return self.pairs[name].first.parent / (Path(name).name + ".txt")

    def files(self, name):
        """Both motion files and the annotation."""
        pair = self.pairs[name]
        return [pair.first, pair.second, self._annotation(name)]

    def settings(self):
        """What the table says of texts."""
        return [[n, *p.texts] for n, p in self.pairs.items() if p.texts]

    def read(self, name):
        """One pair in the models' form, each person on the floor; cut to the shorter file."""
        pair = self.pairs[name]
        for path in (pair.first, pair.second):
            if not path.is_file():
                raise Unusable(ONE_MISSING, f"{name}: expected {path.name}, got no such file; mend pairs.csv")
        people = [to_model(read_motion(path)) for path in (pair.first, pair.second)]
        frames, longest = min(map(len, people)), max(map(len, people))
        if longest - frames > APART:
            raise Unusable("lengths differ", f"{name}: expected two files of one take, got {len(people[0])} and {len(people[1])} "
                           "frames; check that they belong together")
        if frames < SHORTEST:
            raise Unusable(SHORT, f"{name}: expected at least {SHORTEST} frames, got {frames}; leave it out")
        root, rotations, offsets = (np.stack(x).astype(np.float32) for x in zip(
            *((m.root[:frames], m.rotations[:frames], m.skeleton.offsets) for m in people), strict=True))
        texts, lacks = (pair.texts, None) if pair.texts else texts_of(self._annotation(name))
        return Read(name, PairClip(root, rotations, offsets, self.kind, texts, meta={"name": name}), lacks=lacks)
