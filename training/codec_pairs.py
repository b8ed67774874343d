"""The codec of two people together (InterMask, Table 2): both people's images as one, in training and beside it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rtinteract.training.codec import CodecStage, CodecTraining, Windows, load_codec
from rtinteract.training.data import Pool
from rtinteract.training.trainer import WHOLE, Part, borrowed

from rtinteract import metrics
from rtinteract.codec import Codec, CodecOutput
from rtinteract.errors import ConfigError, MotionError
from rtinteract.features import base
from rtinteract.features.base import Representation
from rtinteract.features.canonical import Frame, frame_of, from_frame, to_frame
from rtinteract.features.normalize import Normalizer
from rtinteract.motion import Motion
from rtinteract.motion.picture import write_sheet
from rtinteract.pipeline import Poses, body_of
from rtinteract.skeleton import Skeleton

log = logging.getLogger(__name__)


def stacked(image: torch.Tensor, people: int) -> torch.Tensor:
    """Images [B * P, T, J, F], a sample's people one after the other, as those a codec of P people takes: [B, T, P * J, F]."""
    return image.unflatten(0, (-1, people)).transpose(1, 2).flatten(2, 3)


def apart(image: torch.Tensor, people: int) -> torch.Tensor:
    """Inverse of `stacked`."""
    return image.unflatten(2, (people, -1)).transpose(1, 2).flatten(0, 1)


def stage_of(config: CodecTraining) -> type[CodecStage]:
    """What trains a configuration's codec."""
    return CodecStage if config.codec.people == 1 else PairCodecStage


@dataclass(frozen=True, eq=False)
class LoneCodec:
    """A codec without a transformer. ``own_frames``: each person is seen from a canonical frame of their own, else two people
    from the first one's. Clips pass in windows of ``window`` frames, each from the frame of its first pose; None: whole."""

    codec: Codec
    normalizer: Normalizer
    representation: Representation
    own_frames: bool
    window: int | None = None

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu", window: int | None = None) -> LoneCodec:
        """From `train_codec`'s file."""
        codec, normalizer, name, card = load_codec(path)
        own = card.get("training", {}).get("own_frames", True)
        return cls(codec.to(device), normalizer.to(device), base.get(name), own, window)

    @torch.no_grad()
    def reconstruct(self, people: Sequence[Motion]) -> list[Motion]:
        """The motions of as many people as the codec takes, of one length, through it and back, in their place in the world;
        SMPL-22 at 30 Hz. MotionError for another number or unequal lengths."""
        people = [m.to_model() for m in people]
        if len(people) != self.codec.config.people or len({len(m) for m in people}) != 1:
            raise MotionError(f"reconstruct: expected {self.codec.config.people} motions of one length, got lengths "
                              f"{[len(m) for m in people]}; give each the same frames")
        device = self.normalizer.mean.device
        poses = Poses.stack([Poses.of(m, device) for m in people])
        bodies = torch.stack([body_of(m, device) for m in people])
        size = self.window or len(poses)
        made = Poses.join([self._window(poses[at:at + size], bodies) for at in range(0, len(poses), size)])
        return [Poses(*one).motion(body) for *one, body in zip(made.positions, made.rotations, bodies, strict=True)]

    def _window(self, poses: Poses, bodies: torch.Tensor) -> Poses:
        """World poses [P, T] of one window."""
        config, lost = self.codec.config, self.representation.frames_lost
        frame = frame_of(poses.positions[:, 0])
        if not self.own_frames:
            frame = Frame(frame.yaw[:1].expand_as(frame.yaw), frame.origin[:1].expand_as(frame.origin))
        rows = math.ceil(len(poses) / config.frames_per_column) * config.frames_per_column
        held = poses.repeated_last(rows + lost - len(poses))
        image = self.normalizer(self.representation.encode(*to_frame(frame, held.positions, held.rotations)))
        back = apart(self.codec.decode(self.codec.encode(stacked(image, config.people))).float(), config.people)
        decoded = self.representation.decode(self.normalizer.inverse(back), bodies, 0 if self.own_frames else None)
        return Poses(*from_frame(frame, *decoded))[:len(poses)]


class PairCodecStage(CodecStage):
    """Windows of two people in, both back. A batch holds as many people as one of single people; statistics are a person's."""

    def __init__(self, config: CodecTraining, solo: list, pairs: Sequence | None, start: Path | None = None,
                 held_out: Sequence | None = None, body: Skeleton | None = None):
        if not pairs:
            raise ConfigError("train codec: expected pairs to train a codec of two people on, got none; give --pairs, or set "
                              "codec.people to 1")
        if solo:
            log.warning("codec: %d solo clips are left out: a codec of two people learns from pairs alone", len(solo))
        super().__init__(config, [], pairs, start, held_out, body)
        self.pools = [Pool.of_pairs(pairs, self.representation.turned)]
        people = [clip.motion for clip in self.held_out]
        self.held_pairs = list(zip(people[::2], people[1::2], strict=True))

    def batch(self, step: int, part: Part = WHOLE) -> Windows:
        """As there; a pair's people stand one after the other."""
        windows = super().batch(step, part)
        return windows if windows.anchor is None else windows._replace(anchor=windows.anchor.repeat_interleave(2))

    def _together(self, windows: Windows) -> Windows:
        """Windows as the codec sees them."""
        return windows._replace(image=stacked(windows.image, 2), seeds=windows.seeds[::2])

    def divided(self, batches):
        """As there, of both people's images."""
        return super().divided([self._together(b) for b in batches])

    def _through(self, batch: Windows) -> CodecOutput:
        out = super()._through(self._together(batch))
        return out._replace(reconstruction=apart(out.reconstruction, 2))

    def _lone(self, codec: Codec) -> LoneCodec:
        return LoneCodec(codec, self.normalizer, self.representation, self.config.own_frames)

    def validate(self, weights):
        """Frame-weighted mean joint error in mm over both people of whole held-out pairs, and with the pelvis on the true one."""
        if not self.held_pairs:
            return {}
        found = []
        with borrowed(self.model, weights) as codec:
            for pair in self.held_pairs:
                for truth, back in zip(pair, self._lone(codec).reconstruct(pair), strict=True):
                    found.append((metrics.mpjpe(back, truth), metrics.mpjpe(back, truth, align="root"), len(truth)))
        mpjpe, aligned, frames = zip(*found, strict=True)
        return {"mpjpe": float(np.average(mpjpe, weights=frames)), "aligned": float(np.average(aligned, weights=frames))}

    def pictures(self, weights, folder, count):
        """Held-out pairs, and beside each what the codec makes of it."""
        count = min(count, len(self.held_pairs))
        if not count:
            return []
        scenes = []
        with borrowed(self.model, weights) as codec:
            for pair in (self.held_pairs[i * len(self.held_pairs) // count] for i in range(count)):
                scenes += [pair, tuple(self._lone(codec).reconstruct(pair))]
        folder.mkdir(parents=True, exist_ok=True)
        write_sheet(folder / "decoded.png", scenes, columns=2, titles=["a pair", "decoded"] * count)
        return [folder / "decoded.png"]
