"""Motion files in and out, resampling, retargeting, pictures."""

from rtinteract.motion.files import read_motion, write_motion
from rtinteract.motion.resample import resample
from rtinteract.motion.retarget import mirror, retarget, to_model
from rtinteract.motion.types import MODEL_FPS, Motion

__all__ = ["MODEL_FPS", "Motion", "mirror", "read_motion", "resample", "retarget", "to_model", "write_motion"]
