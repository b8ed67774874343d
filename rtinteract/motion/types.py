"""Motion: one person's clip."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rtinteract import rotation as R
from rtinteract.errors import MotionError
from rtinteract.skeleton import Skeleton, forward_kinematics

MODEL_FPS = 30.0


@dataclass(frozen=True, eq=False)
class Motion:
    """One person's clip: world, +Y up, right-handed, metres.

    ``positions`` [T, J, 3]; ``rotations`` [T, J, 4] wxyz local to the parent (the root's is in the world);
    ``fps`` frames a second; ``notes`` says what a reader mended or assumed (units, dropped frames, restored segments).
    Build one with `Motion.from_rotations`; positions then agree with the skeleton by construction.
    """

    positions: np.ndarray
    rotations: np.ndarray
    skeleton: Skeleton
    fps: float
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        t, j = len(self.rotations), len(self.skeleton)
        if self.positions.shape != (t, j, 3) or self.rotations.shape != (t, j, 4):
            raise MotionError(f"motion: expected positions [T, {j}, 3] and rotations [T, {j}, 4] for skeleton "
                              f"{self.skeleton.name!r}, got {self.positions.shape} and {self.rotations.shape}")
        if t == 0:
            raise MotionError("motion: expected at least one frame, got none; check that the file is not empty")
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise MotionError(f"motion: expected a positive frame rate, got {self.fps} fps; give the true one, such as 30")
        for what, array in (("positions", self.positions), ("rotations", self.rotations)):
            bad = ~np.isfinite(array).all(axis=(1, 2))
            if bad.any():
                raise MotionError(f"motion: {what} hold NaN or infinity in {int(bad.sum())} of {t} frames, the first at frame "
                                  f"{int(bad.argmax())}; cut or repair those frames")

    @classmethod
    def from_rotations(cls, skeleton: Skeleton, root, rotations, fps: float, notes: tuple[str, ...] = ()) -> Motion:
        """From root places [T, 3] in metres and local rotations [T, J, 4] (normalised here)."""
        rotations = R.normalize(np.asarray(rotations, dtype=np.float64))
        root = np.asarray(root, dtype=np.float64)
        return cls(forward_kinematics(skeleton, root, rotations), rotations, skeleton, float(fps), tuple(notes))

    def __len__(self):
        return len(self.rotations)

    def __getitem__(self, frames: slice) -> Motion:
        """The clip of a slice of frames (a slice, never a single index: a Motion keeps its time axis)."""
        if not isinstance(frames, slice):
            raise TypeError(f"motion: index with a slice, such as motion[{frames!r}:{frames!r}+1]")
        return replace(self, positions=self.positions[frames], rotations=self.rotations[frames])

    @property
    def seconds(self) -> float:
        """Duration in seconds: frames over the frame rate."""
        return len(self) / self.fps

    @property
    def root(self) -> np.ndarray:
        """Root places [T, 3] in metres."""
        return self.positions[:, 0]

    def moved(self, yaw: float = 0.0, translation=(0.0, 0.0, 0.0)) -> Motion:
        """Turned by ``yaw`` radians about the world's +Y axis through the origin, then translated by metres [3]."""
        q = R.yaw(np.float64(yaw))
        rotations = self.rotations.copy()
        rotations[:, 0] = R.multiply(np.broadcast_to(q, rotations[:, 0].shape), rotations[:, 0])
        positions = R.rotate(q, self.positions) + np.asarray(translation, dtype=np.float64)
        return replace(self, positions=positions, rotations=rotations)

    @classmethod
    def join(cls, parts) -> Motion:
        """Clips of one body and frame rate, one after the other; MotionError where they differ."""
        first = parts[0]
        for part in parts[1:]:
            if not part.skeleton.same_tree(first.skeleton) or part.fps != first.fps:
                raise MotionError(f"motion: expected clips of skeleton {first.skeleton.name!r} at {first.fps:g} fps, got "
                                  f"{part.skeleton.name!r} at {part.fps:g} fps; retarget or resample first")
        return replace(first, positions=np.concatenate([p.positions for p in parts]),
                       rotations=np.concatenate([p.rotations for p in parts]))

    def with_notes(self, *notes: str) -> Motion:
        """The same clip with further notes."""
        return replace(self, notes=self.notes + notes)

    def resampled(self, fps: float) -> Motion:
        """At another frame rate: slerp for rotations, linear for the root; the duration is kept."""
        from rtinteract.motion.resample import resample
        return resample(self, fps)

    def to_model(self) -> Motion:
        """SMPL-22 at 30 Hz with this body's own proportions, feet on the floor: what the models take."""
        from rtinteract.motion.retarget import to_model
        return to_model(self)
