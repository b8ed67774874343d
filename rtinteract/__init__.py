"""rtinteract: an embeddable real-time runtime for two-person motion.

    model = rtinteract.load()                       # the shipped model
    actor = rtinteract.read_motion("actor.bvh")
    reactor = model.react(actor)
    rtinteract.write_motion("out.glb", (actor, reactor))
"""

from rtinteract import errors, sampler
from rtinteract.errors import RtInteractError
from rtinteract.model import Model, load
from rtinteract.motion import Motion, read_motion, write_motion
from rtinteract.stream import ReactionStream, StreamConfig

__version__ = "0.1.0"

__all__ = [
    "Model", "Motion", "ReactionStream", "RtInteractError", "StreamConfig", "errors", "load", "read_motion", "sampler",
    "write_motion",
]
