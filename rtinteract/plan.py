"""What a hop answers: one person's decoded image past now, carried on from what was shown, as poses of a rigid body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from rtinteract import rotation as R
from rtinteract.blend import CARRIED, take_over
from rtinteract.closing import frames_of, minimum_jerk
from rtinteract.contact import run_out
from rtinteract.features.canonical import Frame
from rtinteract.feet import plant_feet
from rtinteract.motion import MODEL_FPS, Motion
from rtinteract.pipeline import Pipeline, Poses, with_contacts
from rtinteract.skeleton import SMPL22, forward_kinematics, smpl22_with

_HANDS, _TRUNK = [20, 21], [0, 9, 16, 17]
# Frames over which a correction follows at the quickest.
_SEAM = 3
# Metres between two people's pelvises beyond which nothing touches within a plan.
APART_M = 2.2
# Frames before now that the read poses depend on: half the window in which their root's drift is averaged, and some.
SETTLED = 8


@dataclass(frozen=True, eq=False)
class Course:
    """Where bodies go: ``root`` [..., T, 3] metres and local ``rotations`` [..., T, 22, 4] of bodies with rest ``offsets``
    [..., 22, 3], whose joints are found when they are asked for."""

    root: torch.Tensor
    rotations: torch.Tensor
    offsets: torch.Tensor

    def __getitem__(self, i: int) -> Course:
        """One of several bodies."""
        return Course(self.root[i], self.rotations[i], self.offsets[i])

    def poses(self, frames: int) -> Poses:
        """The first so many frames."""
        root, rotations = self.root[..., :frames, :], self.rotations[..., :frames, :, :]
        return Poses(forward_kinematics(SMPL22, root, rotations, offsets=self.offsets[..., None, :, :]), rotations)

    def motion(self) -> Motion:
        """As a Motion of the body (one body only)."""
        body = smpl22_with(_numbers(self.offsets))
        return Motion.from_rotations(body, _numbers(self.root), _numbers(self.rotations), MODEL_FPS)

    def on_its_feet(self, past: Poses) -> Course:
        """With planted feet held still, those that stood in the ``past`` poses [P] where they stood (one body only)."""
        root = torch.cat([past.positions[:, 0], self.root])
        rotations = torch.cat([past.rotations, self.rotations])
        held = plant_feet(_numbers(root), _numbers(rotations), _numbers(self.offsets), len(past))[len(past):]
        return Course(self.root, torch.as_tensor(held, dtype=torch.float32, device=self.root.device), self.offsets)

    def touching(self, past: Poses, actor: Poses, actor_offsets: torch.Tensor) -> Course:
        """The same way with hands that meet the actor's (one body only); itself where nothing touches.

        ``past`` [P] and the ``actor`` [Q] of the body ``actor_offsets`` [22, 3] are what went before. What is corrected comes in
        from where the past ends, as quickly as its way allows.
        """
        known, frames = min(len(past), len(actor)), len(self.root)
        level = (self.root[:, [0, 2]] - actor.positions[-1, 0, [0, 2]]).norm(dim=-1)
        if known == 0 or float(level.min()) > APART_M:
            return self
        own = Poses.join([past[len(past) - known:], self.poses(frames)])
        closed = with_contacts(own, self.offsets, run_on(actor[len(actor) - known:], actor_offsets, frames), streamed=True)
        if closed is own:
            return self
        own, closed = own[known:], closed[known:]
        moved = (closed.positions - own.positions)[:_SEAM].norm(dim=-1)
        # A trunk is half as quick as a hand.
        way = max(float(moved[:, _HANDS].max()), 2 * float(moved[:, _TRUNK].max()))
        ahead = torch.arange(1, frames + 1, dtype=self.root.dtype, device=self.root.device)
        share = minimum_jerk(ahead / frames_of(way, _SEAM))
        root = own.positions[:, 0] + share[:, None] * (closed.positions - own.positions)[:, 0]
        return Course(root, R.normalize(R.slerp(own.rotations, closed.rotations, share[:, None])), self.offsets)


def run_on(poses: Poses, offsets: torch.Tensor, frames: int) -> Poses:
    """Poses [T] of the body with rest ``offsets`` [22, 3] and ``frames`` more, in which the last movement runs out."""
    share = run_out(torch.arange(1, frames + 1, dtype=poses.rotations.dtype, device=poses.rotations.device))
    before = max(0, len(poses) - 2)
    (a, b), (p, q) = ((x[before], x[-1]) for x in (poses.positions[:, 0], poses.rotations))
    root = b + share[:, None] * (b - a)
    turn = R.to_axis_angle(R.multiply(q, R.inverse(p)))
    rotations = R.normalize(R.multiply(R.from_axis_angle(share[:, None, None] * turn), q))
    return Poses.join([poses, Poses(forward_kinematics(SMPL22, root, rotations, offsets=offsets), rotations)])


def _numbers(x: torch.Tensor) -> np.ndarray:
    return x.double().cpu().numpy()


def read_course(pipeline: Pipeline, images: torch.Tensor, frames: Frame, offsets: torch.Tensor, now: int, shown: Poses | None,
                blend: int, carried: float | torch.Tensor = CARRIED) -> tuple[Course, Poses]:
    """Where several people go after frame ``now`` of their images [B, T, J, F], taking over for ``blend`` frames from their poses
    that were ``shown`` [B] last (None: none yet); and their decoded poses before it.

    ``frames`` [B] are their canonical frames, ``offsets`` [B, 22, 3] their bodies, ``carried`` is `take_over`'s.
    """
    poses = pipeline.pose(images, frames, offsets, anchor=now - 1)
    root, rotations = poses.positions[..., 0, :], poses.rotations
    past = poses[:now]
    last = past if shown is None else shown
    seam = slice(max(now - 2, now - len(last)), now)
    root, rotations = take_over(root[:, now:], rotations[:, now:], root[:, seam], rotations[:, seam],
                                last.positions[:, seam.start - now:, 0], last.rotations[:, seam.start - now:], blend, carried)
    return Course(root, rotations, offsets), past


class Foreseen:
    """One person as a hop foresaw them, decoded when somebody asks: of the image of ``codes`` [S, N] the last ``frames`` are
    read, of which ``now`` were heard. The other arguments are `read_course`'s for one person."""

    def __init__(self, pipeline: Pipeline, codes: torch.Tensor, frame: Frame, offsets: torch.Tensor, frames: int, now: int,
                 shown: Poses, blend: int):
        self._given = pipeline, codes, frame, offsets, frames, now, shown, blend

    @cached_property
    def course(self) -> Course:
        """Where the person goes."""
        pipeline, codes, frame, offsets, frames, now, shown, blend = self._given
        with torch.inference_mode():
            return read_course(pipeline, pipeline.decode_image(codes[None], frames), Frame(frame.yaw[None], frame.origin[None]),
                               offsets[None], now, Poses.stack([shown]), blend)[0][0]


@dataclass(frozen=True, eq=False)
class Plan:
    """What one hop gives: the reactor from frame ``start`` on (world, ``horizon`` frames), and the actor as foreseen.

    ``start`` counts the model's frames since the stream began: the first frame not yet heard of the actor. ``seconds`` is what
    the hop took. The actor is decoded when asked for.
    """

    start: int
    seconds: float
    course: Course
    foreseen: Foreseen

    @cached_property
    def reactor(self) -> Motion:
        """The other person, SMPL-22 at 30 Hz."""
        return self.course.motion()

    @cached_property
    def actor(self) -> Motion:
        """The actor as foreseen, SMPL-22 at 30 Hz."""
        return self.foreseen.course.motion()

    def rows(self) -> np.ndarray:
        """The reactor as float32 rows [horizon, 91]: root [3] in metres and 22 local rotations wxyz."""
        return torch.cat([self.course.root, self.course.rotations.flatten(1)], 1).float().cpu().numpy()


def shown(plans: Sequence[Plan], hop: int) -> Motion:
    """What a viewer saw of the reactor: ``hop`` frames of each plan; frame 0 is the stream's frame ``hop``."""
    return Motion.join([plan.reactor[:hop] for plan in plans])
