"""What a data set of two people is to its loader: named clips in splits, read one at a time, and a report of what is wrong."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rtinteract.training.pairs import PairClip
from tqdm import tqdm

from rtinteract.errors import MotionError, RtInteractError

BROKEN, ONE_MISSING, SHORT = "broken", "one person missing", "too short"
NO_TEXT, EMPTY_TEXT, ABSENT = "no annotation", "annotation without lines", "listed but absent"
IGNORED, UNLISTED, STRANGE = "on the ignore list", "in no split", "without a partner"
NAMED = 8


class Unusable(MotionError):
    """A clip that cannot be used, and ``what`` is wrong with it in a few words, under which a report counts it."""

    def __init__(self, what: str, message: str):
        super().__init__(message)
        self.what = what


class Read(NamedTuple):
    """A clip, its ``name``, and where known ``hands`` f32 [2, T, 33, 4], local rotations of SMPL-X's jaw, eyes and fingers
    (joints 22 to 54); ``lacks`` says what is wrong with a clip that can be used."""

    name: str
    clip: PairClip
    hands: np.ndarray | None = None
    lacks: str | None = None


@dataclass
class Report:
    """What a folder holds: ``clips`` and ``frames`` (30 a second) of each split, and ``problems``, {what: [which, ...]}."""

    kind: str
    folder: str
    clips: dict[str, int] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def problem(self, what: str, which: str) -> None:
        """Count one more clip or file with that problem."""
        self.problems.setdefault(what, []).append(which)

    def count(self, split: str, clips: int, frames: int) -> None:
        """Add clips to a split."""
        self.clips[split] = self.clips.get(split, 0) + clips
        self.frames[split] = self.frames.get(split, 0) + frames

    def lines(self) -> list[str]:
        """For people: what there is, then each problem with its count and the first names."""
        out = [f"{self.kind}: {sum(self.clips.values())} pairs, {sum(self.frames.values()) / 1800:.1f} min"]
        out += [f"  {split:6} {n:6} clips {self.frames[split] / 1800:8.1f} min" for split, n in self.clips.items()]
        for what, which in self.problems.items():
            more = f" and {len(which) - NAMED} more" if len(which) > NAMED else ""
            out.append(f"  {what}: {len(which)} ({'; '.join(which[:NAMED])}{more})")
        return out + [f"  {note}" for note in self.notes]

    def to_dict(self) -> dict:
        """As plain JSON types, every name included."""
        return asdict(self)


class Source(ABC):
    """A data set in its own layout. Subclasses find files; nothing is read before `read`."""

    kind: str
    joints = 22

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    @abstractmethod
    def splits(self, report: Report | None = None) -> dict[str, list[str]]:
        """Names of clips by split, in a fixed order; names that no file stands for are left out, and added to the report."""

    @abstractmethod
    def files(self, name: str) -> list[Path]:
        """The files a clip is read from; some may be absent."""

    @abstractmethod
    def read(self, name: str) -> Read:
        """One clip at 30 frames a second, +Y up, on the floor; `Unusable` or another MotionError when it cannot be used."""

    @abstractmethod
    def look(self, report: Report) -> None:
        """Add what is wrong with the folder as a whole, clips not read."""

    def settings(self) -> list:
        """What besides the files decides what is read, as plain JSON types."""
        return []

    def reads(self, names: list[str], skipped: dict[str, list[str]], progress: bool = True) -> Iterator[Read]:
        """The usable clips among ``names``; the others are put into ``skipped``, {name: [what, why]}."""
        for name in tqdm(names, desc=f"{self.kind} clips", unit="clip", disable=None if progress else True):
            try:
                yield self.read(name)
            except Unusable as error:
                skipped[name] = [error.what, str(error)]
            except RtInteractError as error:
                skipped[name] = [BROKEN, str(error)]


def lines_of(path: Path) -> list[str]:
    """Lines of a text file that hold anything, stripped; MotionError when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise MotionError(f"{path}: expected a text file, got {error.strerror or error}; check the data set") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def texts_of(path: Path) -> tuple[tuple[str, ...], str | None]:
    """The descriptions of an annotation file, one a line, and what is wrong with it. What follows a "#" (part-of-speech tags and
    times of preprocessed files) is left out."""
    if not path.is_file():
        return (), NO_TEXT
    texts = tuple(dict.fromkeys(t for line in lines_of(path) if (t := line.split("#")[0].strip())))
    return texts, None if texts else EMPTY_TEXT


def listed(folder: Path, known, report: Report | None = None) -> dict[str, list[str]]:
    """Splits from ``folder``/train.txt, val.txt and test.txt that name ``known`` clips; {} without these files."""
    found = {}
    for split in ("train", "val", "test"):
        path = folder / f"{split}.txt"
        if path.is_file():
            names = list(dict.fromkeys(lines_of(path)))
            found[split] = [n for n in names if n in known]
            for name in names:
                if report is not None and name not in known:
                    report.problem(ABSENT, f"{name} ({split})")
    return found


def load_array(path: Path) -> np.ndarray:
    """A .npy file's array; MotionError when it is damaged or holds objects."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        # numpy's own message proposes to unpickle the file.
        raise MotionError(f"{path}: expected a .npy array of numbers, got something else; the file is cut "
                          "short or damaged") from None
