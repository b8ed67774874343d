"""Another frame rate: slerp for rotations, linear for the root, the duration kept."""

from __future__ import annotations

import numpy as np

from rtinteract import rotation as R
from rtinteract.errors import MotionError
from rtinteract.motion.types import Motion


def resample(motion: Motion, fps: float) -> Motion:
    """The clip at ``fps`` frames a second: from its first frame on, as many frames as fit up to its last one."""
    if not (np.isfinite(fps) and fps > 0):
        raise MotionError(f"resample: expected a positive frame rate, got {fps}; give one such as 30")
    if fps == motion.fps:
        return motion
    # A frame time read from text is rounded (0.008333), so the last frame may stand a hair before a whole step.
    ratio = fps / motion.fps
    count = int(np.floor((len(motion) - 1) * ratio + 0.01 * min(1.0, ratio))) + 1
    at = np.minimum(np.arange(count) * (motion.fps / fps), len(motion) - 1)
    low = np.minimum(at.astype(int), max(len(motion) - 2, 0))
    high = np.minimum(low + 1, len(motion) - 1)
    share = at - low
    root = motion.root[low] * (1 - share)[:, None] + motion.root[high] * share[:, None]
    rotations = R.slerp(motion.rotations[low], motion.rotations[high], share[:, None])
    return Motion.from_rotations(motion.skeleton, root, rotations, fps, motion.notes)
