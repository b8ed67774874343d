"""Offline sampling of two people: react, generate and inpaint are one operation with different tokens kept.

A clip longer than the model's window is filled window after window; each begins with the end of the one before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from rtinteract import rotation as R
from rtinteract.errors import Cancelled
from rtinteract.fill import Draw, fill_and_decode
from rtinteract.pipeline import Pipeline, Poses, offsets_of, only, with_contacts, with_planted_feet
from rtinteract.sampler import check_options, guidance_modulations, sample_codes, seeds_of
from rtinteract.skeleton import SMPL22, forward_kinematics

# Frames of the past that a further window begins with, and frames over which corrections at a kept frame fade.
OVERLAP = 32
FADE = 12


def overlap_of(window: int) -> int:
    """Frames of the past that a further window of so many frames begins with: `OVERLAP`, or half of a short window."""
    return min(OVERLAP, window // 2)


@dataclass(frozen=True)
class Sampling:
    """How the masked tokens are filled (InterMask section 3.3); ``feet`` holds planted feet still afterwards,
    ``contact`` brings the second person's hands to where the two are about to touch. A ``choice_temperature`` of None is the
    model's own."""

    iterations: int = 12
    guidance: float = 2.0
    top_k: float = 0.1
    temperature: float = 1.0
    seed: int = 0
    feet: bool = True
    contact: bool = False
    progress: Callable[[int, int], object] | None = None
    choice_temperature: float | None = None

    def draw(self, own: float) -> Draw:
        """As `fill_and_decode` takes it, for a model whose choice temperature is ``own``."""
        choice = own if self.choice_temperature is None else self.choice_temperature
        return Draw(self.iterations, self.guidance, self.top_k, self.temperature, choice)


@dataclass(eq=False)
class Scene:
    """One pair in the making: ``frames`` long.

    ``source`` holds each person's known poses [frames] or None, ``offsets`` [22, 3] the body of whoever is known; ``keep``
    [2, frames, 22] says which poses stay. ``condition`` [C] is the encoded prompt, None for none.
    """

    frames: int
    source: list[Poses | None]
    keep: torch.Tensor
    condition: torch.Tensor | None = None
    made: list[Poses | None] = field(default_factory=lambda: [None, None])
    offsets: list[torch.Tensor | None] = field(default_factory=lambda: [None, None])

    @property
    def done(self) -> int:
        """Frames made so far."""
        return 0 if self.made[0] is None else len(self.made[0])

    def plant(self) -> None:
        """Hold the planted feet of whoever was made, unless kept poses lie in between: those must stay as they are."""
        for person in range(2):
            kept = self.keep[person].any(-1)
            begun = int(kept.long().cumprod(0).sum())
            if not kept[begun:].any() and begun < self.frames:
                self.made[person] = with_planted_feet(self.made[person], self.offsets[person], begun)

    def touch(self) -> None:
        """Close what is missing to the touches of the second person, unless kept poses lie in between."""
        kept = self.keep[1].any(-1)
        begun = int(kept.long().cumprod(0).sum())
        if not kept[begun:].any() and begun < self.frames:
            self.made[1] = with_contacts(self.made[1], self.offsets[1], self.made[0], begun)

    def given(self, person: int) -> bool:
        """Whether every pose of a person is known and stays."""
        return self.source[person] is not None and bool(self.keep[person].all())


class _WindowOf:
    """One scene's next window: where it lies, what is known in it, and both people's canonical frames."""

    def __init__(self, scene: Scene, pipeline: Pipeline, size: int, seed: int):
        self.scene, self.pipeline, self.seed = scene, pipeline, seed
        self.start = max(0, scene.done - overlap_of(size)) if scene.done else 0
        self.past = scene.done - self.start
        self.length = min(size, scene.frames - self.start)
        self.columns = pipeline.columns(self.length)
        span = slice(self.start, self.start + self.length)
        self.keep = scene.keep[:, span].clone()
        self.known: list[Poses | None] = []
        for person in range(2):
            source = None if scene.source[person] is None else scene.source[person][span]
            if self.past and not scene.given(person):
                history = scene.made[person][self.start:]
                rest = history.repeated_last(self.length - self.past)[self.past:] if source is None else source[self.past:]
                source = Poses.join([history, rest])
                self.keep[person, :self.past] = True
            self.known.append(source)
        anchors = [p.positions[0] if p is not None and bool(k[0].any()) else None
                   for p, k in zip(self.known, self.keep, strict=True)]
        self.frames = pipeline.frames(anchors, scene.condition, seed)

    def tokens(self, mask_id: int) -> torch.Tensor:
        """Ids [2, S, N]: the codes of all that is kept, MASK elsewhere."""
        config = self.pipeline.parts.config.codec
        codes = torch.full((2, config.parts, self.columns), mask_id, device=self.pipeline.device)
        for person, poses in enumerate(self.known):
            if poses is None or not self.keep[person].any():
                continue
            # What is kept is encoded as it ends, not with what a stand-in would add after it.
            whole = int(self.keep[person].any(1).nonzero()[-1]) + 1
            seen = self.pipeline.encode(Poses.stack([poses[:whole]]), only(self.frames, person))[0]
            kept = self._kept_tokens(self.keep[person])[:, :seen.shape[-1]]
            codes[person, :, :seen.shape[-1]] = torch.where(kept, seen, mask_id)
        return codes

    def _kept_tokens(self, keep: torch.Tensor) -> torch.Tensor:
        """A token [S, N] stays when all that it stands for stays: its rows of joints and its frames."""
        config, rows = self.pipeline.parts.config.codec, 1
        for step, _ in config.strides:
            rows *= step
        columns = self._whole_columns(keep)
        part = torch.arange(columns.shape[1], device=keep.device).div(rows, rounding_mode="floor").clamp(max=config.parts - 1)
        return torch.stack([columns[:, part == s].all(1) for s in range(config.parts)])

    def _whole_columns(self, keep: torch.Tensor) -> torch.Tensor:
        """Where keep [T, J] holds in all frames of a column, [N, J]; the last frame stands for those that are missing."""
        padded = torch.cat([keep, keep[-1:].expand(self.columns * self.pipeline.stride - len(keep), -1)])
        return padded.reshape(self.columns, self.pipeline.stride, -1).all(1)

    def placement(self, columns: int) -> torch.Tensor | None:
        """What the tokens are told of where the two stand, [2, N, WIDTH], for so many columns (padding included)."""
        keep = self.keep[..., 0]
        known = keep.new_zeros(2, columns)
        for person, poses in enumerate(self.known):
            if poses is not None:
                known[person, :self.columns] = self._whole_columns(keep[person, :, None])[:, 0]
        return self.pipeline.placement(self.frames, self.known, known)

    def take(self, images: dict[int, torch.Tensor]) -> None:
        """Read the decoded image [1, 4 N, J, F] of each person who is not given into the scene."""
        scene = self.scene
        for person in range(2):
            if scene.given(person):
                made = scene.source[person][self.start:self.start + self.length]
            else:
                made = self._decoded(images[person], person)
            fresh = made[self.past:]
            scene.made[person] = fresh if scene.made[person] is None else Poses.join([scene.made[person], fresh])

    def _decoded(self, image: torch.Tensor, person: int) -> Poses:
        scene = self.scene
        if scene.offsets[person] is None:
            scene.offsets[person] = offsets_of(Poses(*self.pipeline.representation.read(image[0])))
        offsets = scene.offsets[person]
        posed = self.pipeline.pose(image, only(self.frames, person), offsets[None], anchor=0)
        decoded = Poses(posed.positions[0], posed.rotations[0])[:self.length]
        if self.known[person] is None or not self.keep[person].any():
            return decoded
        return tie(decoded, self.known[person], self.keep[person], offsets)


def _offset_shares(keep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each frame and joint of keep [T, J]: the last kept frame before it and the next one after, and their shares."""
    count = torch.arange(len(keep), device=keep.device)[:, None].expand(keep.shape)
    before = torch.where(keep, count, -1).cummax(0).values
    after = torch.where(keep, count, len(keep) * 2).flip(0).cummin(0).values.flip(0)

    def share(distance):
        u = (distance.float() / FADE).clamp(0, 1)
        return 1 - u ** 3 * (10 - 15 * u + 6 * u * u)

    left = torch.where(before >= 0, share(count - before), 0.0)
    right = torch.where((after < len(keep)) & ~keep, share(after - count), 0.0)
    total = (left + right).clamp(min=1.0)
    return before.clamp(min=0), after.clamp(max=len(keep) - 1), left / total, right / total


def tie(decoded: Poses, source: Poses, keep: torch.Tensor, offsets: torch.Tensor) -> Poses:
    """Decoded poses [T] that equal the source wherever ``keep`` [T, 22] says so, and lead smoothly to and from it.

    The correction at a kept frame fades over `FADE` frames on either side, for each joint's local rotation, and for the
    root's place where the pelvis is kept.
    """
    before, after, left, right = _offset_shares(keep)
    turn = R.to_axis_angle(R.multiply(source.rotations, R.inverse(decoded.rotations)))
    move = source.positions[:, 0] - decoded.positions[:, 0]

    def spread(values, j):
        return values[before[:, j]] * left[:, j, None] + values[after[:, j]] * right[:, j, None]

    turns = torch.stack([spread(turn[:, j], j) for j in range(turn.shape[1])], 1)
    rotations = R.normalize(R.multiply(R.from_axis_angle(turns), decoded.rotations))
    root = decoded.positions[:, 0] + spread(move, 0)
    return Poses(forward_kinematics(SMPL22, root, rotations, offsets=offsets), rotations)


@torch.inference_mode()
def roll_out(pipeline: Pipeline, scenes: list[Scene], sampling: Sampling) -> None:
    """Fill every scene in place, all of them in one batch a window. Raises Cancelled when ``progress`` answers False."""
    config = pipeline.parts.config
    conditions = [s.condition for s in scenes]
    condition = None if all(c is None for c in conditions) else torch.stack(
        [torch.zeros(config.transformer.condition, device=pipeline.device) if c is None else c for c in conditions])
    longest = max(s.frames for s in scenes)
    rounds = 1 + max(0, -(-(longest - config.window) // (config.window - overlap_of(config.window))))
    for turn in range(rounds):
        active = [i for i, s in enumerate(scenes) if s.done < s.frames]
        windows = [_WindowOf(scenes[i], pipeline, config.window, (sampling.seed * 1_000_003 + turn) * 65_537 + i) for i in active]
        lengths = torch.tensor([w.columns for w in windows], device=pipeline.device)
        codes = torch.full((len(windows), 2, config.codec.parts, int(lengths.max())), config.transformer.pad_id,
                           device=pipeline.device)
        for row, window in enumerate(windows):
            codes[row, :, :, :window.columns] = window.tokens(config.transformer.mask_id)
        placement = torch.stack([w.placement(codes.shape[-1]) for w in windows]) if pipeline.own_frames else None
        _fill(pipeline, windows, codes, None if condition is None else condition[active], lengths, placement, sampling,
              _stage(sampling, turn, rounds))
    if sampling.feet:
        for scene in scenes:
            scene.plant()
    if sampling.contact:
        for scene in scenes:
            scene.touch()


def _stage(sampling: Sampling, turn: int, rounds: int):
    """The caller's progress over all windows, from one window's."""
    if sampling.progress is None:
        return None

    def report(step: int, steps: int):
        if sampling.progress(turn * steps + step, rounds * steps) is False:
            raise Cancelled(f"cancelled at iteration {turn * steps + step} of {rounds * steps}")

    return report


def _fill(pipeline: Pipeline, windows: list[_WindowOf], codes: torch.Tensor, condition: torch.Tensor | None,
          lengths: torch.Tensor, placement: torch.Tensor | None, sampling: Sampling, progress) -> None:
    """Fill and decode codes [B, 2, S, N] of windows, at once where they are of one length and nobody looks on."""
    draw = sampling.draw(pipeline.parts.config.choice_temperature)
    seeds = [w.seed for w in windows]
    if progress is None and all(w.columns == codes.shape[-1] for w in windows):
        check_options(**draw._asdict())
        alone = _alone(windows)
        images = fill_and_decode(pipeline, codes, condition,
                                 guidance_modulations(pipeline.transformer, condition, len(codes), draw.guidance), draw,
                                 seeds_of(seeds, len(codes), codes.device), placement=placement, person=alone)[1]
        for window, image in zip(windows, images, strict=True):
            window.take(_by_person(image, alone))
        return
    filled = sample_codes(pipeline.transformer, codes, condition, lengths, **draw._asdict(), seed=seeds, placement=placement,
                          progress=progress)
    _decode_all(pipeline, windows, filled)


def _alone(windows: list[_WindowOf]) -> int | None:
    """The one person who is to be decoded in all windows, None where it is both."""
    made = {person for w in windows for person in range(2) if not w.scene.given(person)}
    return made.pop() if len(made) == 1 else None


def _by_person(image: torch.Tensor, alone: int | None) -> dict[int, torch.Tensor]:
    """An image [P, T, J, F] of both people, or of one who is ``alone``, as one [1, T, J, F] each."""
    return dict(enumerate(image[:, None])) if alone is None else {alone: image}


def _decode_all(pipeline: Pipeline, windows: list[_WindowOf], filled: torch.Tensor) -> None:
    """Decode windows of one length together: padding would reach into the last frames through the convolutions."""
    for columns in sorted({w.columns for w in windows}):
        rows = [i for i, w in enumerate(windows) if w.columns == columns]
        alone = _alone([windows[i] for i in rows])
        people = filled[rows][..., :columns] if alone is None else filled[rows][:, alone:alone + 1, :, :columns]
        image = pipeline.decode_image(people.flatten(0, 1))
        for row, pair in zip(rows, image.unflatten(0, people.shape[:2]), strict=True):
            windows[row].take(_by_person(pair, alone))
