"""What a representation is, and the named choices of it."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod

from rtinteract.errors import ConfigError


class Representation(ABC):
    """Poses of SMPL-22 to and from the image of joints x features that a codec sees.

    Poses are given in a canonical frame (`rtinteract.features.canonical`), metres, 30 frames a second.
    """

    name: str
    joints: int
    features: int
    #: Frames an encoded clip is shorter than its poses (a velocity to the next frame needs one).
    frames_lost: int = 0
    #: Joints whose rotations `encode` can take: SMPL-22's, or 55 with SMPL-X's jaw, eyes and fingers after them.
    turned: int = 22

    @abstractmethod
    def encode(self, positions, rotations):
        """positions [..., T, 22, 3], local rotations [..., T, 22 to `turned`, 4] -> image [..., T - frames_lost, J, F]."""

    @abstractmethod
    def read(self, image, anchor=None):
        """image [..., T, J, F] -> positions [..., T, 22, 3] and local rotations [..., T, 22, 4] as the rows say them.

        Bones are not yet rigid; `decode` makes them so. ``anchor`` is as in `decode`.
        """

    @abstractmethod
    def decode(self, image, offsets=None, anchor=None):
        """image [..., T, J, F] -> (positions [..., T, 22, 3], local rotations [..., T, 22, 4]) of one rigid body.

        ``offsets`` [..., 22, 3] are that body's rest offsets; without them they are fitted to the image. ``anchor`` (an int, or
        int64 [...]) is the frame whose pose the canonical frame was taken from, where it is the body's own: a representation
        may use that the body stands at the origin there.
        """

    def rows(self, frames: int) -> int:
        """Image rows that a clip of so many frames gives."""
        return frames - self.frames_lost


_WHERE = {
    "hybrid": ("rtinteract.features.hybrid", "Hybrid"),
    "interhuman": ("rtinteract.features.interhuman", "InterHuman"),
    "interx": ("rtinteract.features.interx", "InterX"),
}


def get(name: str) -> Representation:
    """The representation of that name; ConfigError lists the names there are."""
    if name not in _WHERE:
        raise ConfigError(f"representation: expected one of {', '.join(sorted(_WHERE))}, got {name!r}; mend the configuration")
    module, cls = _WHERE[name]
    return getattr(importlib.import_module(module), cls)()
