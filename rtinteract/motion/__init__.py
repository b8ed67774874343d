"""Motion files in and out, resampling, retargeting, pictures."""

from rtinteract.motion.types import MODEL_FPS, Motion

__all__ = ["MODEL_FPS", "Motion"]
