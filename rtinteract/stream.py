"""Streaming reactions: the actor's frames go in as they happen, a plan for the other person comes out each hop.

One hop takes the frames of one token column or more, re-encodes both windows, fills the columns past "now" for both
people, and decodes the reactor's; the plan reaches ``horizon`` frames past "now", so that one late or failed hop is
covered by the plan before it. Memory is bounded: two windows of poses, one plan.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from rtinteract import rotation as R
from rtinteract.blend import CARRIED
from rtinteract.errors import ConfigError, MotionError
from rtinteract.features.canonical import Frame
from rtinteract.fill import Draw, fill_and_decode
from rtinteract.graph import Recorded
from rtinteract.kernels.remask import sample_seeds
from rtinteract.motion import MODEL_FPS, Motion
from rtinteract.pipeline import Pipeline, Poses, body_of, offsets_of
from rtinteract.placement import WIDTH
from rtinteract.plan import APART_M, SETTLED, Course, Foreseen, Plan, read_course, shown
from rtinteract.sampler import check_options, guidance_modulations, together
from rtinteract.skeleton import SMPL22, forward_kinematics

# Metres of an average pelvis over the floor.
_STANDING = 0.96
# Past columns that a decoded frame depends on: the reach of the decoder's convolutions.
_CONTEXT = 9
# Shown frames that tell which feet are planted when a plan begins.
_FOOTING = 8
# Share of the speed that is carried over a seam where hands may be brought to touches: they do not come late by it.
_CARRIED_TO_TOUCHES = 0.75
# How strongly the text steers. Guided hands jerk more, and where they are brought to touches as many meet without.
_GUIDANCE, _GUIDANCE_TO_TOUCHES = 2.0, 1.0


@dataclass(frozen=True)
class StreamConfig:
    """Frames are the model's (30 a second). ``window``, ``horizon`` and ``hop`` are whole token columns.

    ``blend`` is how long a new plan takes over from the old one; ``feet`` holds planted feet still,
    ``contact`` brings the reactor's hands to where the two are about to touch, and the model goes on from there; a hop in which
    they are near each other then takes about a fifth longer. ``guidance`` above 1 steers by the text, where there is one, and
    runs the transformer on a doubled batch: a hop takes about a fifth longer, and streams are then nearly as true to the text as
    whole clips are. None takes 2, and 1 with ``contact``, whose hands jerk when guided. A ``choice_temperature`` of None is the
    model's own.
    """

    window: int = 40
    horizon: int = 16
    hop: int = 4
    iterations: int = 3
    guidance: float | None = None
    temperature: float = 1.0
    top_k: float = 0.1
    choice_temperature: float | None = None
    blend: int = 10
    feet: bool = True
    contact: bool = False
    seed: int = 0

    def __post_init__(self):
        if self.guidance is None:
            object.__setattr__(self, "guidance", _GUIDANCE_TO_TOUCHES if self.contact else _GUIDANCE)

    def check(self, stride: int) -> None:
        """ConfigError unless the lengths are whole columns of ``stride`` frames and fit each other."""
        for name in ("window", "horizon", "hop"):
            value = getattr(self, name)
            if value < stride or value % stride:
                raise ConfigError(f"stream.{name}: expected a multiple of {stride} frames, got {value}; one token column is "
                                  f"{stride} frames")
        if self.hop > self.horizon or self.hop > self.window:
            raise ConfigError(f"stream.hop: expected at most the horizon {self.horizon} and the window {self.window}, got "
                              f"{self.hop}; a plan must last until the next one")
        if self.blend < 0:
            raise ConfigError(f"stream.blend: expected 0 or more frames, got {self.blend}")


def play(stream: ReactionStream, actor: Motion) -> Motion:
    """A whole clip through a fresh stream, as fast as it goes; the reactor as `shown`, its frame 0 at the actor's ``hop``.

    MotionError for a clip that is shorter than one hop.
    """
    plans = stream.push(actor)
    if not plans:
        raise MotionError(f"stream: expected at least {stream.config.hop} frames, got {len(actor)}; give a longer clip")
    return shown(plans, stream.config.hop)


class _Window:
    """The newest ``size`` poses of one person, written in place."""

    def __init__(self, size: int, device):
        self.positions = torch.zeros(size, 22, 3, device=device)
        self.rotations = R.identity((size, 22), like=self.positions)
        self.size, self.filled = size, 0

    def push(self, poses: Poses) -> None:
        poses = poses[max(0, len(poses) - self.size):]
        n = len(poses)
        for kept, new in ((self.positions, poses.positions), (self.rotations, poses.rotations)):
            kept[:self.size - n] = kept[n:].clone()
            kept[self.size - n:] = new
        self.filled = min(self.size, self.filled + n)

    def poses(self) -> Poses:
        return Poses(self.positions, self.rotations)[self.size - self.filled:]

    def last(self) -> Poses:
        """The newest two poses, a copy: where the body is and how fast it goes."""
        newest = self.poses()[-2:]
        return Poses(newest.positions.clone(), newest.rotations.clone())

    def bridge(self, gap: int, to: Poses, offsets: torch.Tensor) -> None:
        """Replace the newest ``gap`` poses of the body by a straight way from the one before them to the first of ``to``."""
        gap = min(gap, self.size - 1)
        before = self.size - gap - 1
        t = torch.arange(1, gap + 1, device=self.positions.device) / (gap + 1)
        a_root, b_root = self.positions[before, 0], to.positions[0, 0]
        root = a_root + (b_root - a_root) * t[:, None]
        turns = R.slerp(self.rotations[before].expand(gap, 22, 4), to.rotations[0].expand(gap, 22, 4), t[:, None].expand(gap, 22))
        self.positions[before + 1:] = forward_kinematics(SMPL22, root, turns, offsets=offsets)
        self.rotations[before + 1:] = turns


class ReactionStream:
    """One pair in real time. Not thread-safe: one thread hops. The first one of a model with a window, a horizon and a CPU takes
    about half a second to make: the transformer is recorded for them.

    ``condition`` [1, C] is the encoded prompt or None. ``reactor`` starts the other person: a Motion in the model's form
    whose last pose stands where the reaction begins; without it the model places the person.
    """

    def __init__(self, pipeline: Pipeline, config: StreamConfig, condition=None, reactor: Motion | None = None):
        self.pipeline, self.device = pipeline, pipeline.device
        config.check(self.pipeline.stride)
        if self.pipeline.representation.frames_lost:
            raise ConfigError(f"stream: representation {pipeline.representation.name!r} needs the next frame for each row, so it "
                              "cannot end at now; use a model of the 'hybrid' representation, or react() on whole clips")
        self.config = config
        choice = config.choice_temperature
        choice = pipeline.parts.config.choice_temperature if choice is None else choice
        self._draw = Draw(config.iterations, config.guidance, config.top_k, config.temperature, choice)
        check_options(**self._draw._asdict())
        self._seeds = sample_seeds(config.seed, 1, self.device)
        self.tell(condition)
        self.stand(reactor)

    def tell(self, condition: torch.Tensor | None) -> None:
        """Another prompt's ``condition`` [1, C], or None, from the next hop on; both people stay where they are."""
        self.condition = condition
        with torch.inference_mode():
            # They depend on the prompt alone, so every hop shares them.
            self._modulations = guidance_modulations(self.pipeline.transformer, condition, 1, self.config.guidance)
            self._steady = self._recorded()
            self._packed = Recorded.pack(self._modulations) if isinstance(self._steady, Recorded) else None

    def stand(self, reactor: Motion | None, body: torch.Tensor | None = None) -> None:
        """Begin a new scene with the other person as ``reactor`` (None: the model places one, of the bones ``body`` [22, 3])."""
        self._start = None if reactor is None else Poses.of(reactor, self.device)
        self._body = body if reactor is None else body_of(reactor, self.device)
        self.reset()

    def _recorded(self):
        """The transformer as it is asked at every hop once the windows are full."""
        parts, stride = self.pipeline.parts.config.transformer.parts, self.pipeline.stride
        ahead, rows = self.config.horizon // stride, 2 if self.condition is not None and self.config.guidance != 1 else 1
        codes = torch.zeros(rows, 2, parts, self.config.window // stride + ahead, dtype=torch.int64, device=self.device)
        placement = torch.zeros(rows, 2, codes.shape[-1], WIDTH, device=self.device) if self.pipeline.own_frames else None
        return self.pipeline.recordings.of(self._modulations, codes, placement, ahead)

    def reset(self) -> None:
        """Forget both people; the next hop begins a new scene. Settings and prompt stay."""
        size = self.config.window
        self._actor, self._reactor = _Window(size, self.device), _Window(size, self.device)
        self._pending: list[Motion] = []
        self._plan: Plan | None = None
        self._next: Poses | None = None
        self._missing = 0
        self._heard = 0
        self._offsets = self._body
        self._actor_offsets: torch.Tensor | None = None
        self.hop_seconds: deque[float] = deque(maxlen=4096)

    def _near(self) -> bool:
        """Whether the two are shown near enough to touch within a plan."""
        actor, reactor = (w.last().positions[-1, 0, [0, 2]] for w in (self._actor, self._reactor))
        return float((actor - reactor).norm()) <= APART_M

    def warm_up(self) -> None:
        """Hop through a whole window of someone who stands still, then forget it: the first hop of each length prepares what
        later ones use, which a host does before a scene begins."""
        hop = self.config.hop
        still = Motion.from_rotations(SMPL22, np.tile([0.0, _STANDING, 0.0], (hop, 1)), R.identity((hop, 22)), MODEL_FPS)
        for _ in range(self.config.window // hop + 1):
            self.hop(still)
        self.reset()

    def hop(self, actor_frames: Motion | None) -> Plan:
        """Take ``hop`` frames of the actor (model form; None when they did not arrive) and plan the reaction.

        A missing actor goes on as foreseen, then stands; on return the gap is bridged. Raises MotionError on a wrong
        number of frames, skeleton or frame rate.
        """
        return hop_together([self], [actor_frames])[0]

    def _poses(self, actor_frames: Motion | None) -> Poses:
        """The next ``hop`` poses of the actor, checked; nothing has changed yet."""
        if actor_frames is None:
            return self._foreseen()
        if len(actor_frames) != self.config.hop:
            raise MotionError(f"stream.hop: expected {self.config.hop} frames, got {len(actor_frames)}; use stream.push() for "
                              "any number")
        return Poses.of(actor_frames, self.device)

    def _take(self, actor_frames: Motion | None, poses: Poses) -> None:
        """Let both windows go on by one hop."""
        hop = self.config.hop
        if actor_frames is None:
            self._missing += hop
        else:
            if self._missing and self._actor.filled > self._missing:
                self._actor.bridge(self._missing, poses, self._actor_offsets)
            self._missing = 0
            if self._actor_offsets is None:
                self._actor_offsets = body_of(actor_frames, self.device)
        self._actor.push(poses)
        if self._next is not None:
            self._reactor.push(self._next)
        elif self._start is not None:
            self._reactor.push(self._start[max(0, len(self._start) - hop):].repeated_last(hop - len(self._start)))
        self._heard += hop

    def _planned(self, course: Course, next_poses: Poses, foreseen: Foreseen, began: float) -> Plan:
        """The plan of a hop that began at ``began``: where the reactor goes, and their poses until the next hop."""
        self._next = next_poses
        self._plan = Plan(self._heard, time.perf_counter() - began, course, foreseen)
        self.hop_seconds.append(self._plan.seconds)
        return self._plan

    def push(self, actor_frames: Motion) -> list[Plan]:
        """Any number of the actor's frames; a plan for every hop they complete. Chunks of any size give the same plans."""
        self._pending.append(actor_frames)
        waiting = Motion.join(self._pending)
        hop = self.config.hop
        whole = len(waiting) // hop * hop
        self._pending = [waiting[whole:]] if whole < len(waiting) else []
        return [self.hop(waiting[at:at + hop]) for at in range(0, whole, hop)]

    def _foreseen(self) -> Poses:
        """The actor's next frames when none arrived: as the last plan has them within its horizon, then the last pose."""
        if self._plan is None:
            raise MotionError("stream.hop: expected frames at the first hop, got None; only later ones may go missing")
        hop = self.config.hop
        if self._missing < self.config.horizon:
            return self._plan.foreseen.course.poses(hop)
        last = self._actor.poses()
        return last[len(last) - 1:].repeated_last(hop - 1)

    def _anchor(self, actor: Poses, reactor: Poses | None) -> Frame:
        """Both canonical frames, taken at the newest poses: how the two stand to each other now is then told exactly, and only
        the way from here on is left to the codes."""
        return self.pipeline.frames([None if p is None else p.positions[-1] for p in (actor, reactor)],
                                    None if self.condition is None else self.condition[0], self.config.seed)

    def _alike(self) -> tuple:
        """What streams must have in common to hop together."""
        return (id(self.pipeline), replace(self.config, seed=0), self._actor.filled, self._reactor.filled > 0,
                self.condition is not None)


@torch.inference_mode()
def hop_together(streams: Sequence[ReactionStream], actor_frames: Sequence[Motion | None]) -> list[Plan]:
    """`ReactionStream.hop` of several streams, those that are alike as one batch: of one model, with the same settings (seeds
    and prompts may differ) and windows as full.

    A batch costs less than its streams one by one; each plan is what its stream alone would have made, up to the rounding of
    the matrix products. Raises MotionError before anything has changed where one of the ``actor_frames`` does not fit, and
    ConfigError unless there is one for each of different streams.
    """
    if len(streams) != len(actor_frames) or len({id(s) for s in streams}) != len(streams):
        raise ConfigError(f"hop_together: expected frames for each of different streams, got {len(streams)} streams and "
                          f"{len(actor_frames)} lots of frames; a stream hops once at a time")
    began = time.perf_counter()
    poses = [s._poses(frames) for s, frames in zip(streams, actor_frames, strict=True)]
    groups: dict[tuple, list[int]] = {}
    for i, (stream, frames) in enumerate(zip(streams, actor_frames, strict=True)):
        stream._take(frames, poses[i])
        groups.setdefault(stream._alike(), []).append(i)
    plans: dict[int, Plan] = {}
    for rows in groups.values():
        plans |= zip(rows, _plan_alike([streams[i] for i in rows], began), strict=True)
    return [plans[i] for i in range(len(streams))]


def _plan_alike(streams: list[ReactionStream], began: float) -> list[Plan]:
    """Fill the columns past now of streams that are alike, and read off where their reactors go."""
    one = streams[0]
    pipeline, config = one.pipeline, one.config
    known = [[w.poses() for w in (s._actor, s._reactor) if w.filled] for s in streams]
    people = len(known[0])
    frames = [s._anchor(*k, *[None] * (2 - people)) for s, k in zip(streams, known, strict=True)]
    yaw, origin = torch.stack([f.yaw for f in frames]), torch.stack([f.origin for f in frames])
    poses = Poses.stack([p for k in known for p in k])
    seen = pipeline.encode(poses, Frame(yaw[:, :people].flatten(), origin[:, :people].flatten(0, 1)))
    parts, now = seen.shape[1:]
    ahead = config.horizon // pipeline.stride
    codes = torch.full((len(streams), 2, parts, now + ahead), pipeline.parts.config.transformer.mask_id, device=one.device)
    codes[:, :people, :, :now] = seen.unflatten(0, (len(streams), people))
    heard = torch.arange(now + ahead, device=one.device) < now
    pairs = [Poses(poses.positions[i::people], poses.rotations[i::people]) for i in range(people)] + [None] * (2 - people)
    placement = pipeline.placement(Frame(yaw, origin), pairs, torch.stack([heard, heard & (people == 2)]))
    # A first plan is read together with what it says was before.
    begin = max(0, now - _CONTEXT) if people == 2 else 0
    before = min(SETTLED, (now - begin) * pipeline.stride) if people == 2 else now * pipeline.stride
    filled, images = _fill(streams, codes, placement, ahead if people == 2 else None, begin, before + config.horizon)
    courses, following = _read(streams, images[:, 0], Frame(yaw[:, 1], origin[:, 1]), before)
    foreseen = [Foreseen(pipeline, filled[i, 0, :, begin:], Frame(yaw[i, 0], origin[i, 0]), s._actor_offsets,
                         min(SETTLED, before) + config.horizon, min(SETTLED, before), s._actor.last(), config.blend)
                for i, s in enumerate(streams)]
    return [s._planned(*made, began) for s, *made in zip(streams, courses, following, foreseen, strict=True)]


def _read(streams: list[ReactionStream], images: torch.Tensor, frames: Frame, now: int) -> tuple[list[Course], list[Poses]]:
    """Where the reactors go after frame ``now`` of their images [B, T, J, F], and their poses of the first hop of it."""
    one = streams[0]
    pipeline, config = one.pipeline, one.config
    for stream, image in zip(streams, images, strict=True):
        if stream._offsets is None:
            stream._offsets = offsets_of(Poses(*pipeline.representation.read(image)))
    known = one._reactor.filled > 0
    carried = CARRIED if not (config.contact and known) else torch.tensor(
        [_CARRIED_TO_TOUCHES if s._near() else CARRIED for s in streams], device=one.device)
    course, past = read_course(pipeline, images, frames, torch.stack([s._offsets for s in streams]), now,
                               Poses.stack([s._reactor.last() for s in streams]) if known else None, config.blend,
                               carried)
    courses = [course[i] for i in range(len(streams))]
    if not known:
        for i, stream in enumerate(streams):
            stream._reactor.push(Poses(past.positions[i], past.rotations[i]))
    if config.feet:
        courses = [c.on_its_feet(s._reactor.poses()[-_FOOTING:]) for s, c in zip(streams, courses, strict=True)]
    if config.contact and known:
        courses = [c.touching(s._reactor.poses(), s._actor.poses(), s._actor_offsets)
                   for s, c in zip(streams, courses, strict=True)]
    course = Course(torch.stack([c.root for c in courses]), torch.stack([c.rotations for c in courses]), course.offsets)
    following = course.poses(config.hop)
    return courses, [Poses(p, r) for p, r in zip(following.positions, following.rotations, strict=True)]


def _fill(streams: list[ReactionStream], codes: torch.Tensor, placement: torch.Tensor | None, last: int | None,
          begin: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [B, 2, S, N] with the columns past now filled, and the last ``frames`` of the reactors' image [B, 1, frames, J, F],
    decoded from column ``begin`` on."""
    one = streams[0]
    config, alone = one.config, len(streams) == 1
    full = last is not None and codes.shape[-1] * one.pipeline.stride == config.window + config.horizon
    steady = one._steady if full and isinstance(one._steady, Recorded) and (alone or one._steady.any_rows) else None
    told = [s._modulations if steady is None else s._packed for s in streams]
    if not alone:
        told = [together(told) if steady is None else torch.stack(told, 2).flatten(1, 2)]
    return fill_and_decode(
        one.pipeline, codes, None if one.condition is None else torch.cat([s.condition for s in streams]), told[0],
        one._draw, torch.cat([s._seeds for s in streams]), placement=placement, last=last,
        begin=begin, person=1, frames=frames, transformer=steady,
        # A hop draws the columns it shares with the hop before by the same noise, so that it seldom changes its mind.
        first=torch.tensor([(s._heard + config.horizon) // one.pipeline.stride - codes.shape[-1] for s in streams],
                           device=one.device))
