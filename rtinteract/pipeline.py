"""Poses to codes and back: what the offline calls and the stream share.

A clip becomes whole token columns; both people are seen from one canonical frame; the answer returns to the world.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rtinteract.capture import Graphs
from rtinteract.checkpoint import ModelParts
from rtinteract.closing import close
from rtinteract.codec import Codec
from rtinteract.contact import LATE, STREAM, likelihoods, shipped_net, touches
from rtinteract.errors import MotionError
from rtinteract.features import base
from rtinteract.features.body import fit_offsets
from rtinteract.features.canonical import Frame, frame_of, from_frame, to_frame
from rtinteract.feet import plant_feet
from rtinteract.graph import Recordings
from rtinteract.motion import MODEL_FPS, Motion
from rtinteract.native import NativeTransformer, why_not
from rtinteract.packed import packed
from rtinteract.placement import compose, describe_pair
from rtinteract.precision import beside_int8, narrowed
from rtinteract.quant import int8_transformer
from rtinteract.refine import refine
from rtinteract.skeleton import SMPL22, forward_kinematics, smpl22_with, world_rotations

# Columns from which on the codec may run in its narrow type.
_WIDE = 8


@dataclass(frozen=True, eq=False)
class Poses:
    """SMPL-22 poses as tensors: ``positions`` [..., T, 22, 3] metres and local ``rotations`` [..., T, 22, 4] wxyz."""

    positions: torch.Tensor
    rotations: torch.Tensor

    def __len__(self):
        return self.positions.shape[-3]

    def __getitem__(self, frames: slice) -> Poses:
        return Poses(self.positions[..., frames, :, :], self.rotations[..., frames, :, :])

    def to(self, device) -> Poses:
        """The same poses on a device."""
        return Poses(self.positions.to(device), self.rotations.to(device))

    @staticmethod
    def join(parts: list[Poses]) -> Poses:
        """One clip after the other."""
        return Poses(torch.cat([p.positions for p in parts], -3), torch.cat([p.rotations for p in parts], -3))

    def repeated_last(self, extra: int) -> Poses:
        """With the last pose held for ``extra`` further frames."""
        if extra <= 0:
            return self
        return Poses.join([self] + [self[len(self) - 1:]] * extra)

    @staticmethod
    def stack(people: list[Poses]) -> Poses:
        """Clips of one length side by side in a new leading axis."""
        return Poses(torch.stack([p.positions for p in people]), torch.stack([p.rotations for p in people]))

    @classmethod
    def of(cls, motion: Motion, device="cpu") -> Poses:
        """Of a Motion in the model's form (SMPL-22 at 30 Hz); MotionError for any other."""
        if not motion.skeleton.same_tree(SMPL22) or abs(motion.fps - MODEL_FPS) > 1e-6:
            raise MotionError(f"expected a motion of SMPL-22 at {MODEL_FPS:g} fps, got skeleton {motion.skeleton.name!r} at "
                              f"{motion.fps:g} fps; call motion.to_model() first")
        return cls(torch.tensor(motion.positions, dtype=torch.float32, device=device),
                   torch.tensor(motion.rotations, dtype=torch.float32, device=device))

    def motion(self, offsets: torch.Tensor, notes=()) -> Motion:
        """As a Motion of the body with rest ``offsets`` [22, 3]."""
        skeleton = smpl22_with(offsets.double().cpu().numpy())
        return Motion.from_rotations(skeleton, self.positions[:, 0].double().cpu().numpy(),
                                     self.rotations.double().cpu().numpy(), MODEL_FPS, notes)


class Pipeline:
    """A model at work on a device: poses in the canonical frame to codes and back, and the transformer that fills codes.

    The networks run in ``dtype``; ``parts`` keep theirs. torch.int8 means the transformer's products, the codec stays in a float
    type: its convolutions are faster there.
    """

    def __init__(self, parts: ModelParts, device: torch.device, dtype: torch.dtype = torch.float32):
        self.parts = parts
        self.device = device
        self.representation = base.get(parts.config.representation)
        int8 = dtype == torch.int8
        codec = narrowed(parts.codec, beside_int8(device) if int8 else dtype, ("quantizer",))
        self.codec = codec if codec is parts.codec else packed(codec)
        self.normalizer = parts.normalizer
        transformer = int8_transformer(parts.transformer) if int8 else narrowed(parts.transformer, dtype, ("prior",))
        in_one_call = why_not(device, transformer.config, dtype) is None
        self.transformer = NativeTransformer(transformer) if in_one_call else transformer
        self.stride = parts.config.codec.frames_per_column
        self.own_frames = parts.config.transformer.placement
        self.graphs = Graphs()
        self.recordings = Recordings(self.transformer)

    def frames(self, anchors: list[torch.Tensor | None], condition: torch.Tensor | None, seed: int) -> Frame:
        """Both people's canonical frames (yaw [2], origin [2, 3]) from their positions [22, 3] at the anchor, None if unknown.

        With shared frames both have the first known person's. A person of unknown place stands where the model's prior for the
        prompt ``condition`` [C] (None: no text) puts a partner; two unknown people begin at the world's origin.
        """
        known = [None if a is None else frame_of(a) for a in anchors]
        origin = Frame(torch.zeros((), device=self.device), torch.zeros(3, device=self.device))
        first = next((f for f in known if f is not None), origin)
        if not self.own_frames:
            known = [first, first]
        elif None in known:
            width = self.parts.config.transformer.condition
            prompt = torch.zeros(width, device=self.device) if condition is None else condition
            partner = Frame(*compose(first.yaw, first.origin, self.parts.transformer.prior.draw(prompt, seed)))
            known = [first, partner] if known[1] is None else [partner, first]
        return Frame(torch.stack([f.yaw for f in known]), torch.stack([f.origin for f in known]))

    def placement(self, frames: Frame, people: Sequence[Poses | None], known: torch.Tensor) -> torch.Tensor | None:
        """What both people's tokens are told of where they stand, [..., 2, N, WIDTH]; None for a model of shared frames.

        ``frames`` [..., 2] are both people's, ``people`` their world poses [..., T] from the first column on (None: nothing
        known), ``known`` bool [2, N] the columns of which the poses are.
        """
        if not self.own_frames:
            return None
        pairs, columns = frames.yaw.shape[:-1], known.shape[1]
        ends = torch.arange(1, columns + 1, device=self.device) * self.stride - 1
        nowhere = torch.zeros(*pairs, columns, 3, device=self.device)
        steps = [Frame(nowhere[..., 0], nowhere) if p is None else frame_of(p.positions[..., ends.clamp(max=len(p) - 1), :, :])
                 for p in people]
        return describe_pair(frames.yaw, frames.origin, torch.stack([s.yaw for s in steps], -2),
                             torch.stack([s.origin for s in steps], -3), known.expand(*pairs, 2, columns))

    def codec_for(self, columns: int) -> Codec:
        """The codec for clips of so many columns: torch's CPU convolution in bfloat16 answers NaN where a dilated kernel is far
        wider than the image (seen at one column)."""
        return self.codec if columns >= _WIDE else self.parts.codec

    def columns(self, frames: int) -> int:
        """Token columns that hold so many frames."""
        return math.ceil(frames / self.stride)

    def _in_columns(self, poses: Poses, frame: Frame) -> tuple[torch.Tensor, torch.Tensor]:
        """World poses [B, T] in their canonical frames, the last one held to fill the last column."""
        rows = self.columns(len(poses)) * self.stride
        poses = poses.repeated_last(rows + self.representation.frames_lost - len(poses))
        return to_frame(frame, poses.positions, poses.rotations)

    @torch.inference_mode()
    def encode(self, poses: Poses, frame: Frame) -> torch.Tensor:
        """World poses [B, T] -> codes [B, S, ceil(T / 4)]; the last pose is held to fill the last column."""
        image = self.representation.encode(*self._in_columns(poses, frame))
        return self.codec_for(image.shape[-3] // self.stride).encode(self.normalizer(image))

    def refined(self, codes: torch.Tensor, poses: Poses, frame: Frame, offsets: torch.Tensor, steps: int,
                anchor: int | None = None) -> torch.Tensor:
        """Codes [B, S, N] of world poses [B, T], as `encode` gave them, brought nearer to these by `refine`."""
        return refine(self.parts.codec, self.normalizer, self.representation, codes, *self._in_columns(poses, frame), steps=steps,
                      anchor=anchor if self.own_frames else None, offsets=offsets)

    @torch.inference_mode()
    def decode_image(self, codes: torch.Tensor, last: int | None = None) -> torch.Tensor:
        """Codes [B, S, N] -> image [B, 4 N, J, F] in the representation's own units; with ``last`` so many frames at its end."""
        return self.normalizer.inverse(self.codec_for(codes.shape[-1]).decode(codes, last))

    @torch.inference_mode()
    def pose(self, image: torch.Tensor, frame: Frame, offsets: torch.Tensor | None = None, anchor: int | None = None) -> Poses:
        """Image [B, T, J, F] -> world poses [B, T] of rigid bodies with rest ``offsets`` [B, 22, 3] (fitted without).

        ``anchor`` is the frame whose poses the canonical frames were taken from, where each is the body's own.
        """
        return Poses(*from_frame(frame, *self.representation.decode(image, offsets, anchor if self.own_frames else None)))


def only(frames: Frame, person: int) -> Frame:
    """One person's frame (yaw [1], origin [1, 3]) of both people's."""
    return Frame(frames.yaw[person:person + 1], frames.origin[person:person + 1])


def with_planted_feet(poses: Poses, offsets: torch.Tensor, fixed: int = 0) -> Poses:
    """Poses [T] of the body with rest ``offsets`` [22, 3], planted feet held still; the first ``fixed`` frames stay."""
    held = plant_feet(poses.positions[:, 0].double().cpu().numpy(), poses.rotations.double().cpu().numpy(),
                      offsets.double().cpu().numpy(), fixed)
    rotations = torch.as_tensor(held, dtype=torch.float32, device=poses.rotations.device)
    return Poses(forward_kinematics(SMPL22, poses.positions[:, 0], rotations, offsets=offsets), rotations)


def with_contacts(poses: Poses, offsets: torch.Tensor, actor: Poses, fixed: int = 0, streamed: bool = False) -> Poses:
    """Person 1's poses [T] of the body with rest ``offsets`` [22, 3] that meet the ``actor``'s [T] where the two are told to
    touch (`rtinteract.contact`, `rtinteract.closing`); the first ``fixed`` frames stay. The same object where nothing touches."""
    turned = [p.rotations.double().cpu().numpy() for p in (actor, poses)]
    places = [p.positions.double().cpu().numpy() for p in (actor, poses)]
    turns = [world_rotations(SMPL22, r) for r in turned]
    told = likelihoods(shipped_net(), places, turns)
    found = touches(*told, STREAM, LATE) if streamed else touches(*told)
    if not found:
        return poses
    root, rotations = (torch.as_tensor(x, dtype=torch.float32, device=poses.rotations.device) for x in
                       close(places[1][:, 0], turned[1], offsets.double().cpu().numpy(), (places[0], turns[0]), found, fixed,
                        steps=not streamed))
    return Poses(forward_kinematics(SMPL22, root, rotations, offsets=offsets), rotations)


def body_of(motion: Motion, device="cpu") -> torch.Tensor:
    """Rest offsets [22, 3] of the body of a Motion in the model's form."""
    return torch.tensor(motion.skeleton.offsets, dtype=torch.float32, device=device)


def offsets_of(poses: Poses) -> torch.Tensor:
    """Rest offsets [..., 22, 3] of the rigid body that poses [..., T] show."""
    return fit_offsets(poses.positions, poses.rotations)
