"""The model as a user holds it: react, generate, inpaint, reconstruct, stream."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import torch

from rtinteract.bank import read_bank, write_bank
from rtinteract.checkpoint import ModelParts, load_model
from rtinteract.clip import ClipTower
from rtinteract.codec import Codec
from rtinteract.config import ModelConfig
from rtinteract.errors import CheckpointError, ConfigError, MotionError
from rtinteract.features.canonical import frame_of
from rtinteract.motion import MODEL_FPS, Motion
from rtinteract.pipeline import Pipeline, Poses, body_of
from rtinteract.precision import choose
from rtinteract.refine import check_steps
from rtinteract.rollout import Sampling, Scene, roll_out
from rtinteract.skeleton import SMPL22
from rtinteract.stream import ReactionStream, StreamConfig
from rtinteract.text import PromptEncoder
from rtinteract.transformer import InterMTransformer

Progress = Callable[[int, int], object]
SHIPPED = "model.safetensors"
# Windows that pass the codec at once: bounds the memory for a motion of any length.
_TOGETHER = 32


def load(path: str | Path | None = None, device: str = "auto", precision: str = "auto", *,
         clip: str | Path | None = None, bank: str | Path | None = None) -> Model:
    """A model from a .safetensors file; without a path, the one that ships with the package.

    ``device`` is "auto" (a GPU if torch sees one), or a torch device. ``precision`` is "float32", "bfloat16", "int8", or
    "auto": what this processor is fastest at with a model of this width, else float32 (`rtinteract doctor` says which and why).
    Any file runs in any precision.

    A published model reads its prompts through CLIP: ``clip`` is the folder of ViT-L/14@336px (model.safetensors,
    tokenizer.json, config.json), ``bank`` a file of `rtinteract prompts export`, whose prompts need no CLIP. Without them the
    environment's RTI_CLIP and RTI_BANK are taken for such a model; without any it works without text.
    Raises CheckpointError on a missing, damaged or unfit file, ConfigError on an unknown device or precision, or a CLIP folder
    for a model that reads none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device: {device!r} cannot be used ({error}); give 'auto', 'cpu' or an existing GPU") from error
    # A wrong name is told before the file is read.
    choose(precision, where)
    if path is None:
        shipped = resources.files("rtinteract") / "assets" / SHIPPED
        if not shipped.is_file():
            raise CheckpointError(f"the shipped model {shipped} is missing; reinstall the package or give a path to load()")
        path = Path(str(shipped))
    parts = load_model(path)
    dtype, _ = choose(precision, where, parts.config.transformer.width)
    model = Model(parts, where, dtype)
    _give_text(model, clip, bank)
    return model


def _give_text(model: Model, clip: str | Path | None, bank: str | Path | None) -> None:
    """Give a model its CLIP folder and its prompt bank, those of the call or of the environment."""
    kind = model.config.text.kind
    if kind == "clip":
        clip, bank = clip or os.environ.get("RTI_CLIP"), bank or os.environ.get("RTI_BANK")
    elif clip is not None:
        raise ConfigError(f"clip: expected a model that reads CLIP (text.kind 'clip'), got text.kind {kind!r}; leave the folder "
                          "out")
    if bank:
        read_bank(bank, model.prompts)
    if clip:
        model.prompts.tower = ClipTower(clip, model.config.text, model.device)


def _in_place(start: Motion) -> Motion:
    """A start in the model's form. One that is there already keeps its height: its few frames do not tell where the floor is."""
    return start if start.skeleton.same_tree(SMPL22) and start.fps == MODEL_FPS else start.to_model()


class Model:
    """Codec, transformer and text encoder of one checkpoint on one device. Immutable: share it between streams.

    What it makes is computed in ``dtype``; `codec` and `transformer` are the float32 networks themselves.
    """

    def __init__(self, parts: ModelParts, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32):
        self.device = torch.device(device)
        for module in (parts.codec, parts.normalizer, parts.transformer, parts.text):
            if module is not None:
                module.to(self.device).eval().requires_grad_(False)
        self.parts = parts
        self.pipeline = Pipeline(parts, self.device, dtype)
        self.prompts = PromptEncoder(parts.config.text, parts.text, parts.tokenizer)

    @property
    def config(self) -> ModelConfig:
        """The checkpoint's configuration."""
        return self.parts.config

    @property
    def codec(self) -> Codec:
        """encode(features [B, T, J, F] normalised) -> codes [B, S, N]; decode(codes) -> features."""
        return self.parts.codec

    @property
    def transformer(self) -> InterMTransformer:
        """(codes [B, 2, S, N], condition [B, C] or None, lengths [B]) -> logits [B, 2, S, N, K]."""
        return self.parts.transformer

    @property
    def card(self) -> dict:
        """The model card that travels in the checkpoint."""
        return self.parts.card

    def export_prompts(self, path: str | Path, texts: Sequence[str]) -> int:
        """Write texts, encoded for this model, as a prompt bank for `load`'s ``bank``; returns how many, each counted once.

        The bank serves this model in any precision. RtInteractError for a text that cannot be encoded here.
        """
        return write_bank(path, self.prompts, texts, self.config.name)

    def reconstruct(self, motion: Motion, refine: int = 0) -> Motion:
        """The motion through the codec and back, in its own place in the world; SMPL-22 at 30 Hz, as long as before.

        With ``refine`` so many steps are spent on codes that decode nearer to the motion than the encoder's
        (`rtinteract.refine`): 100 take away a third to a half of the error and cost about a second for a second of motion
        on one CPU core. ConfigError where it is under 0.
        """
        check_steps(refine)
        poses, offsets = self._known(motion)
        window = self.config.window
        pieces = [poses[start:start + window] for start in range(0, len(poses), window)]
        whole = len(poses) // window
        made: list[Poses] = []
        for group in [*(pieces[i:min(i + _TOGETHER, whole)] for i in range(0, whole, _TOGETHER)), pieces[whole:]]:
            made += self._reconstructed(group, offsets, refine) if group else []
        return Poses.join(made).motion(offsets)

    def _reconstructed(self, pieces: Sequence[Poses], offsets: torch.Tensor, steps: int) -> list[Poses]:
        """Pieces of one length and one body through the codec, each anchored at its first pose."""
        poses, bodies = Poses.stack(list(pieces)), offsets.expand(len(pieces), -1, -1)
        frame = frame_of(poses.positions[:, 0])
        codes = self.pipeline.encode(poses, frame)
        codes = self.pipeline.refined(codes, poses, frame, bodies, steps, anchor=0)
        out = self.pipeline.pose(self.pipeline.decode_image(codes), frame, bodies, anchor=0)
        return [Poses(x, q)[:len(poses)] for x, q in zip(out.positions, out.rotations, strict=True)]

    def react(self, actor: Motion | Sequence[Motion], text: str | Sequence[str] | None = None, *, iterations: int = 12,
              guidance: float = 2.0, temperature: float = 1.0, top_k: float = 0.1, seed: int = 0, feet: bool = True,
              contact: bool = False, start: Motion | Sequence[Motion] | None = None, progress: Progress | None = None,
              choice_temperature: float | None = None):
        """The other person's motion for an actor's, in the actor's world; SMPL-22 at 30 Hz, as long as the actor's clip.

        A list of actors (and of texts) is sampled as one batch and gives a list. ``start`` is how the other person
        begins, one for all or one an actor: its frames are kept. ``contact`` closes what is missing to a touch where hands are
        about to meet (`rtinteract.contact`), with a step where the body stands too far off; ``feet`` holds planted feet still.
        ``progress(done, total)`` is called each iteration; answering False raises Cancelled. ``choice_temperature`` (None: the
        model's own) is `rtinteract.sampler.sample_codes`'.
        """
        actors = [actor] if isinstance(actor, Motion) else list(actor)
        if not actors:
            raise MotionError("react: expected at least one actor, got an empty list")
        conditions = self._conditions(text, len(actors))
        starts = [start] * len(actors) if start is None or isinstance(start, Motion) else list(start)
        if len(starts) != len(actors):
            raise MotionError(f"react: expected one start for each of {len(actors)} actors, got {len(starts)}")
        scenes = []
        for motion, condition, first in zip(actors, conditions, starts, strict=True):
            known, body = self._known(motion)
            scene = Scene(len(known), [known, None], self._keep(len(known), actor=True), condition, offsets=[body, None])
            if first is not None:
                first = _in_place(first)
                begin, scene.offsets[1] = Poses.of(first, self.device)[:len(known)], body_of(first, self.device)
                scene.source[1] = begin.repeated_last(len(known) - len(begin))
                scene.keep[1, :len(begin)] = True
            scenes.append(scene)
        roll_out(self.pipeline, scenes, Sampling(iterations, guidance, top_k, temperature, seed, feet, contact, progress,
                                                 choice_temperature))
        made = [s.made[1].motion(s.offsets[1]) for s in scenes]
        return made[0] if isinstance(actor, Motion) else made

    def generate(self, texts: str | Sequence[str], seconds: float | Sequence[float] = 4.0, *, iterations: int = 12,
                 guidance: float = 2.0, temperature: float = 1.0, top_k: float = 0.1, seed: int = 0, feet: bool = True,
                 contact: bool = False, progress: Progress | None = None,
                 choice_temperature: float | None = None) -> list[tuple[Motion, Motion]]:
        """Pairs from sentences, one a text, each of its own length in seconds, sampled as one batch.

        ``contact`` as in `react`: the second person's hands go to the first one's; ``choice_temperature`` as there.
        """
        prompts = [texts] if isinstance(texts, str) else list(texts)
        if not prompts:
            raise ConfigError("generate: expected at least one text, got an empty list")
        durations = [float(seconds)] * len(prompts) if isinstance(seconds, int | float) else [float(s) for s in seconds]
        if len(durations) != len(prompts):
            raise ConfigError(f"generate: expected one length a text ({len(prompts)}), got {len(durations)}")
        for value in durations:
            if not 0.1 <= value <= 600:
                raise ConfigError(f"generate: expected 0.1 to 600 seconds, got {value}")
        scenes = [Scene(round(s * MODEL_FPS), [None, None], self._keep(round(s * MODEL_FPS)), c)
                  for s, c in zip(durations, self._conditions(prompts, len(prompts)), strict=True)]
        roll_out(self.pipeline, scenes, Sampling(iterations, guidance, top_k, temperature, seed, feet, contact, progress,
                                                 choice_temperature))
        return [tuple(s.made[p].motion(s.offsets[p]) for p in range(2)) for s in scenes]

    def inpaint(self, pair: tuple[Motion, Motion], mask, text: str | None = None, *, iterations: int = 12,
                guidance: float = 2.0, temperature: float = 1.0, top_k: float = 0.1, seed: int = 0, feet: bool = True,
                progress: Progress | None = None, choice_temperature: float | None = None) -> tuple[Motion, Motion]:
        """Fill the masked part of a pair and keep the rest exactly.

        ``mask`` is boolean, True where to fill: [2] persons, [2, T] frames at 30 Hz, or [2, T, 22] joints of SMPL-22.
        """
        known, bodies = zip(*[self._known(m) for m in pair], strict=True)
        if len(known) != 2 or len(known[0]) != len(known[1]):
            raise MotionError(f"inpaint: expected two motions of one length, got {[len(k) for k in known]} frames at 30 Hz")
        frames = len(known[0])
        fill = torch.as_tensor(mask, dtype=torch.bool, device=self.device)
        if fill.shape not in ((2,), (2, frames), (2, frames, 22)):
            raise MotionError(f"inpaint: expected a mask [2], [2, {frames}] or [2, {frames}, 22], got {list(fill.shape)}")
        fill = fill.reshape(*fill.shape, *([1] * (3 - fill.ndim))).expand(2, frames, 22)
        scene = Scene(frames, list(known), ~fill, self._conditions(text, 1)[0], offsets=list(bodies))
        roll_out(self.pipeline, [scene], Sampling(iterations, guidance, top_k, temperature, seed, feet, progress=progress,
                                                   choice_temperature=choice_temperature))
        return tuple(scene.made[p].motion(scene.offsets[p]) for p in range(2))

    def stream(self, text: str | None = None, *, start: Motion | None = None, **settings) -> ReactionStream:
        """A reaction in real time; ``settings`` are `StreamConfig`'s (window, horizon, hop, iterations, guidance, seed, ...).

        ``start`` stands the other person in the world; without it the model places the person.
        """
        unknown = sorted(set(settings) - set(StreamConfig.__dataclass_fields__))
        if unknown:
            known = ", ".join(StreamConfig.__dataclass_fields__)
            raise ConfigError(f"stream: unknown setting {', '.join(unknown)}; it knows {known}")
        condition = self._conditions(text, 1)[0]
        return ReactionStream(self.pipeline, StreamConfig(**settings), None if condition is None else condition[None],
                              None if start is None else _in_place(start))

    def _known(self, motion: Motion) -> tuple[Poses, torch.Tensor]:
        """A motion's poses in the model's form, and its body."""
        motion = motion.to_model()
        return Poses.of(motion, self.device), body_of(motion, self.device)

    def _keep(self, frames: int, actor: bool = False) -> torch.Tensor:
        keep = torch.zeros(2, frames, 22, dtype=torch.bool, device=self.device)
        keep[0] = actor
        return keep

    def _conditions(self, texts: str | Sequence[str] | None, count: int) -> list[torch.Tensor | None]:
        """One encoded prompt [C] for each sample; None where there is no text."""
        prompts = [texts] * count if texts is None or isinstance(texts, str) else list(texts)
        if len(prompts) != count:
            raise ConfigError(f"text: expected one text for each of {count} motions, got {len(prompts)}")
        asked = [p for p in prompts if p]
        if not asked:
            return [None] * count
        encoded = iter(self.prompts.encode(asked).to(self.device))
        return [next(encoded) if p else None for p in prompts]
