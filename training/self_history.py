"""A past that the model made itself (self-history): what a stream feeds it, where training has clips alone.

After a few hops a stream's reactor has moved as the model made it, a little off what people do, and the model has to go on from
there. So for some streaming samples the current model first fills the last columns of the second person's past, without a
gradient; that person's true motion then leads from there back to the clip, and is what is to be predicted. (Idea: Self Forcing,
arXiv 2506.08009, and ARMFlow's contextual encoding, arXiv 2512.16234; here a masked model fills, and learns by cross entropy.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from rtinteract import rotation as R
from rtinteract.features.canonical import Frame, frame_of, from_frame, to_frame
from rtinteract.sampler import fill_masked
from rtinteract.skeleton import SMPL22, forward_kinematics

# Frames in which someone is back where the clip has them.
BACK = 16
# How the past is filled: as a stream does by default, in fewer rounds.
ITERATIONS, TOP_K = 2, 0.1


class Streams(NamedTuple):
    """Streaming samples in their clip's world: ``positions`` [B, 2, T, 22, 3] and ``rotations`` [B, 2, T, 22, 4], the second
    person being the one who reacts, and bodies' ``offsets`` [B, 2, 22, 3]; ``now`` and ``then`` are the first column to be
    predicted and the first that the model makes; ``seeds`` int64 [B] of its draws."""

    positions: torch.Tensor
    rotations: torch.Tensor
    offsets: torch.Tensor
    now: int
    then: int
    seeds: torch.Tensor


class Tools(NamedTuple):
    """What filling takes: ``codes(positions, rotations)`` of crops in their frames, ``decode(codes, offsets, anchor)`` to the
    poses of one person, ``placed(frame, ends, known)`` as `token_batches.placed`."""

    codes: Callable
    decode: Callable
    placed: Callable
    stride: int


@torch.no_grad()
def own_past(transformer, condition: torch.Tensor, streams: Streams, tools: Tools) -> Streams:
    """The same samples, the second person moving as the model makes it from column ``then`` to ``now`` and from there back to
    the clip. The transformer answers as it is; put it in evaluation mode. ``condition`` [B, C]."""
    now, then, stride = streams.now, streams.then, tools.stride
    cut, end, device = then * stride, now * stride, condition.device
    frame = frame_of(streams.positions[:, :, cut - 1])
    positions, rotations = to_frame(frame, streams.positions[:, :, :end], streams.rotations[:, :, :end])
    past = tools.codes(positions[:, :, :cut], rotations[:, :, :cut])
    known = (torch.arange(now) < then).expand(len(past), 2, -1)
    codes = torch.nn.functional.pad(past, (0, now - then), value=transformer.config.mask_id)
    placement, _ = tools.placed(frame, positions[:, :, stride - 1::stride], known)
    filled = fill_masked(transformer, codes.to(device), condition, None, iterations=ITERATIONS, guidance=1.0, top_k=TOP_K,
                         temperature=1.0, seeds=streams.seeds.to(device), placement=placement.to(device), last=now - then)
    made = tools.decode(filled[:, 1], streams.offsets[:, 1], cut - 1)
    made = from_frame(Frame(frame.yaw[:, 1], frame.origin[:, 1]), *made)
    person = Person(streams.positions[:, 1], streams.rotations[:, 1], streams.offsets[:, 1])
    own = led(Person(*made, person.offsets), person, cut)
    whole = led(person, Person(own.positions, own.rotations, person.offsets), end)
    return streams._replace(positions=torch.stack([streams.positions[:, 0], whole.positions], 1),
                            rotations=torch.stack([streams.rotations[:, 0], whole.rotations], 1))


class Person(NamedTuple):
    """Poses [B, T, 22, 3] and [B, T, 22, 4] of bodies [B, 22, 3]."""

    positions: torch.Tensor
    rotations: torch.Tensor
    offsets: torch.Tensor


def led(person: Person, before: Person, cut: int) -> Person:
    """The frames of ``before`` up to ``cut``, then those of ``person``, led smoothly to where they are over `BACK` frames."""
    frames = person.positions.shape[1]
    u = ((torch.arange(cut, frames, device=person.positions.device) - (cut - 1)) / BACK).clamp(max=1.0)
    share = (1 - u ** 3 * (10 - 15 * u + 6 * u * u))[:, None]
    last = slice(cut - 1, cut)
    turn = R.to_axis_angle(R.multiply(before.rotations[:, last], R.inverse(person.rotations[:, last])))
    move = before.positions[:, last, 0] - person.positions[:, last, 0]
    rotations = R.normalize(R.multiply(R.from_axis_angle(turn * share[..., None]), person.rotations[:, cut:]))
    root = person.positions[:, cut:, 0] + move * share
    positions = forward_kinematics(SMPL22, root, rotations, offsets=person.offsets[:, None])
    return Person(torch.cat([before.positions[:, :cut], positions], 1), torch.cat([before.rotations[:, :cut], rotations], 1),
                  person.offsets)
