"""What every reader hands over before units, axes and rest pose are settled."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class RawClip:
    """A clip as its file has it: file units and axes.

    ``offsets`` [J, 3], ``root`` [T, 3], ``rotations`` [T, J, 4] wxyz local; ``metres`` is the length of one unit where the
    format fixes it (None: to be found from the body's height).
    """

    name: str
    joints: list[str]
    parents: list[int]
    offsets: np.ndarray
    end_sites: dict[int, np.ndarray]
    root: np.ndarray
    rotations: np.ndarray
    fps: float
    metres: float | None = None
    unit: str = ""
    notes: list[str] = field(default_factory=list)
