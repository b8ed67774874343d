"""Motion files in and out, resampling, retargeting, engines' skeletons and axes, pictures."""

from rtinteract.motion.contacts import retarget_pair
from rtinteract.motion.files import read_motion, write_motion
from rtinteract.motion.presets import AXES, PRESETS, Axes, axes, preset
from rtinteract.motion.resample import resample
from rtinteract.motion.retarget import mirror, retarget, to_model
from rtinteract.motion.types import MODEL_FPS, Motion

__all__ = ["AXES", "Axes", "MODEL_FPS", "Motion", "PRESETS", "axes", "mirror", "preset", "read_motion", "resample", "retarget",
           "retarget_pair", "to_model", "write_motion"]
