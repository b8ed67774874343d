"""Train the Inter-M transformer, its text encoder with it, on pairs seen through a frozen codec."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from rtinteract.training import masks
from rtinteract.training.codec import load_codec
from rtinteract.training.data import Augmentation, Pool, crops, lateness
from rtinteract.training.levels import folded, share_levels
from rtinteract.training.shares import MODES, RANDOM, STREAMING, Shares
from rtinteract.training.state import load_stage, save_stage
from rtinteract.training.text import Vocabulary, fit_tokenizer, groups_of, load_text, small_text, swap_sides
from rtinteract.training.trainer import (
    LoopConfig,
    Result,
    Stage,
    Trainer,
    borrowed,
    generator,
    with_limits,
)
from torch import nn

from rtinteract import rotation as R
from rtinteract.config import CodecConfig, TextConfig, TransformerConfig, from_dict, to_dict
from rtinteract.errors import ConfigError
from rtinteract.features import base
from rtinteract.features.canonical import Frame, frame_of
from rtinteract.placement import describe_pair, relative
from rtinteract.precision import has_fast_bfloat16
from rtinteract.text import TextEncoder
from rtinteract.transformer import InterMTransformer

log = logging.getLogger(__name__)

SHORT = 32
YOUNG = 36


@dataclass(frozen=True)
class Sizes:
    """The transformer's own sizes; codes, code width and body parts come from the codec, the condition from the text encoder."""

    width: int = 128
    heads: int = 4
    layers: int = 4
    ff: int = 384
    dropout: float = 0.0


@dataclass(frozen=True)
class TransformerTraining:
    """Everything that decides a transformer training.

    A batch's crops have one length: ``shortest`` to ``longest`` frames, with share ``long`` up to ``most``, with share ``young``
    `YOUNG` at most, as a stream that has just begun; the batch shrinks as crops grow, so that a step costs about the same. The
    step-unroll loss has weight ``unroll`` and is taken in ``unroll_share`` of the steps: it doubles a step's cost. With
    ``own_frames`` each person is seen from its own canonical frame, as the codec's training must have had it. A frame lies where
    sampling puts it: at the first pose of a clip, at the newest pose of a stream. ``prior`` weighs the likelihood of where
    partners begin."""

    sizes: Sizes = field(default_factory=Sizes)
    text: TextConfig = field(default_factory=small_text)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(minutes=60.0, batch=32, learning_rate=4e-4, warmup=200))
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(late=0.4))
    own_frames: bool = True
    prior: float = 0.1
    shares: Shares = field(default_factory=Shares)
    unroll: float = 1.0
    unroll_share: float = 1.0
    shortest: int = 12
    longest: int = 96
    long: float = 0.15
    young: float = 0.15
    most: int = 128
    validation_batches: int = 4


class Tokens(NamedTuple):
    """A batch: input ids and labels [B, 2, S, N], tokens that each sample's schedule counts [B], text indices [B] (-1: no text),
    modes [B]; what the transformer is told of where they stand [B, 2, N, WIDTH]; the second frame seen from the first [B, 3]."""

    inputs: torch.Tensor
    labels: torch.Tensor
    schedule: torch.Tensor
    texts: torch.Tensor
    modes: torch.Tensor
    placement: torch.Tensor | None
    seen: torch.Tensor


class TransformerStage(Stage):
    """Pairs in, masked tokens out."""

    def __init__(self, config: TransformerTraining, codec_file: Path, pairs: list, held_out: list | None, text_file: Path | None,
                 start: Path | None = None):
        self.config, loop = config, config.loop
        self.device = torch.device(loop.device)
        self.codec, normalizer, self.name, self.codec_card = load_codec(codec_file)
        self.codec.to(self.device).requires_grad_(False)
        self.normalizer = normalizer.to(self.device)
        self.representation = base.get(self.name)
        if not held_out:
            pairs, held_out = pairs[:-max(1, len(pairs) // 20)], pairs[-max(1, len(pairs) // 20):]
        self.clips, self.pools = (pairs, held_out), tuple(
            Pool.of_pairs(side, self.representation.turned) for side in (pairs, held_out))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(loop.seed)
            encoder, transformer = self._fresh(text_file) if start is None else self._begun(start)
            if self.codec.config.quantizer == "fsq":
                share_levels(transformer, self.codec.config.levels, trained=start is not None)
            self.model = nn.ModuleDict({"transformer": transformer, "text": encoder}).to(self.device)
        self._index_texts()
        self.bfloat16 = has_fast_bfloat16(self.device) and loop.precision != "float32"
        log.info("transformer: %d parameters, text %d (%d texts), %d pairs (%.1f min), %d held out",
                 *(sum(p.numel() for p in m.parameters()) for m in (self.model["transformer"], encoder)), len(self.words.texts),
                 len(pairs), sum(map(len, pairs)) / 1800, len(held_out))

    def _fresh(self, text_file: Path | None) -> tuple[TextEncoder, InterMTransformer]:
        encoder, c = self._text(text_file), self.codec.config
        self.shape = TransformerConfig(codes=c.codes, code_dim=c.code_dim, parts=c.parts, condition=self.text.width,
                                       placement=self.config.own_frames, **to_dict(self.config.sizes))
        return encoder, InterMTransformer(self.shape)

    def _begun(self, start: Path) -> tuple[TextEncoder, InterMTransformer]:
        """The weights and the words of a transformer file of the same sizes, trained on the same codec."""
        found = load_transformer(start)
        sizes = {name: getattr(found.transformer.config, name) for name in to_dict(self.config.sizes)}
        for what, expected, got in (("codec", self.codec.config, found.codec), ("sizes", to_dict(self.config.sizes), sizes),
                                    ("own_frames", self.config.own_frames, found.transformer.config.placement)):
            if expected != got:
                raise ConfigError(f"start: expected a transformer of this run's {what} ({expected}), got another ({got}) in "
                                  f"{start}; train with its configuration, or start afresh")
        self.tokenizer, self.text, self.shape = found.tokenizer, found.text.config, found.transformer.config
        return found.text.train(), found.transformer.train()

    def _text(self, text_file: Path | None) -> TextEncoder:
        if text_file is not None:
            encoder, self.tokenizer, self.text = load_text(text_file)
            return encoder.train()
        self.tokenizer, self.text = fit_tokenizer(groups_of(self.clips[0]), self.config.text)
        return TextEncoder(self.text)

    def _index_texts(self) -> None:
        """Indices of each clip's texts, as they are and mirrored."""
        clips = [c for side in self.clips for c in side]
        texts = [f(t) for c in clips for t in c.texts for f in (str, swap_sides)]
        self.words = Vocabulary(self.tokenizer, texts, self.text.max_tokens)
        self.phrasings = tuple([[[self.words.index[f(t)] for t in c.texts] for f in (str, swap_sides)] for c in side]
                               for side in self.clips)

    def _frames(self, pool: Pool, g: torch.Generator) -> int:
        config = self.config
        low, high = config.shortest, config.longest
        kind = float(torch.rand((), generator=g))
        if kind < config.long:
            low, high = config.longest, config.most
        elif kind < config.long + config.young:
            high = max(low, min(high, YOUNG))
        frames = int(torch.randint(low // 4, high // 4 + 1, (), generator=g)) * 4
        return pool.longest_crop(frames, config.augmentation.warp[1])

    @torch.no_grad()
    def codes(self, positions: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
        """Codes [B, 2, S, N] (on the CPU) of crops [B, 2, T, 22, 3] and [B, 2, T, 22, 4] in their canonical frames."""
        image = self.representation.encode(positions.flatten(0, 1).to(self.device), rotations.flatten(0, 1).to(self.device))
        # torch's CPU convolution in bfloat16 answers NaN where a dilated kernel is far wider than the image (seen at 4 frames).
        fast = self.bfloat16 and image.shape[1] >= SHORT
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=fast):
            codes = self.codec.encode(self.normalizer(image))
        return codes.cpu().unflatten(0, (-1, 2))

    def _texts(self, side: int, clip, mirrored, modes, g: torch.Generator) -> torch.Tensor:
        pick = torch.rand(len(clip), generator=g).tolist()
        found = []
        for i, (c, m) in enumerate(zip(clip.tolist(), mirrored.tolist(), strict=True)):
            texts = self.phrasings[side][c][int(m)]
            found.append(texts[int(pick[i] * len(texts))] if texts else -1)
        s = self.config.shares
        dropped = torch.where(modes == RANDOM, s.text_dropped, s.reaction_text_dropped)
        return torch.tensor(found).masked_fill(torch.rand(len(clip), generator=g) < dropped, -1)

    def tokens(self, side: int, g: torch.Generator, a: Augmentation, frames: int, batch: int, modes: torch.Tensor) -> Tokens:
        """Crops of training (side 0) or held-out (side 1) clips as a batch of masked tokens with the given modes [B]."""
        s, k = self.config.shares, self.codec.config.codes
        actor = (torch.rand(batch, generator=g) >= s.starter).long()
        own, stride = self.config.own_frames, self.codec.config.frames_per_column
        now = s.now(frames // stride, g)
        anchor = torch.where(modes == STREAMING, now * stride - 1, 0)
        length = frames + self.representation.frames_lost
        late = lateness((modes == STREAMING) & (actor == 0), length, now * stride, a, g)
        c = crops(self.pools[side], batch, length, a, g, actor=actor, anchor=anchor, own=own, late=late)
        # The owner of the canonical frame comes first, as the actor does when the model reacts.
        order = torch.stack([actor, 1 - actor], 1)
        rows = torch.arange(batch)[:, None]
        positions, rotations = c.positions[rows, order], c.rotations[rows, order]
        codes = self.codes(positions, rotations)
        parts, columns = codes.shape[2:]
        region, known = s.region(modes, parts, columns, now, g)
        share = masks.cosine_share(torch.rand(batch, generator=g))
        whole = (torch.rand(batch, generator=g) < s.whole) & (modes != RANDOM)
        mask = masks.random_subset(region, torch.where(whole, 1.0, share), g)
        inputs = masks.draw_corruption(codes, mask, k, g)
        inputs = self._with_history(inputs, positions, rotations, modes == STREAMING, now, mask, g)
        texts = self._texts(side, c.clip, c.mirrored, modes, g)
        placement, seen = None, torch.zeros(batch, 3)
        if own:
            frames_of = Frame(c.frame.yaw[rows, order], c.frame.origin[rows, order])
            placement, seen = placed(frames_of, positions[:, :, stride - 1::stride][:, :, :columns], known)
        return Tokens(inputs, masks.labels_of(codes, mask), region.flatten(1).sum(1), texts, modes, placement, seen)

    def _with_history(self, inputs, positions, rotations, streaming, now: int, mask, g: torch.Generator) -> torch.Tensor:
        """The past of streaming samples as a stream sees it: encoded from a clip that ends now, with a few wrong tokens."""
        noise = torch.rand(inputs.shape, generator=g) < self.config.shares.history_noise
        wrong = torch.randint(self.codec.config.codes, inputs.shape, generator=g)
        if not bool(streaming.any()):
            return inputs
        frames = now * self.codec.config.frames_per_column + self.representation.frames_lost
        past = self.codes(positions[streaming][:, :, :frames], rotations[streaming][:, :, :frames])
        past = torch.where(noise[streaming][..., :now], wrong[streaming][..., :now], past)
        rows = inputs[streaming]
        rows[..., :now] = torch.where(mask[streaming][..., :now], rows[..., :now], past)
        inputs = inputs.clone()
        inputs[streaming] = rows
        return inputs

    def batch(self, step: int) -> Tokens:
        """The tokens of a step."""
        config, g = self.config, generator(self.config.loop.seed, step, "transformer")
        frames = self._frames(self.pools[0], g)
        batch = max(1, config.loop.batch * 64 // frames)
        return self.tokens(0, g, config.augmentation, frames, batch, config.shares.modes(batch, g))

    def condition(self, texts: torch.Tensor) -> torch.Tensor:
        """Conditions [B, C] of text indices [B]; zeros where there is no text."""
        out = torch.zeros(len(texts), self.text.width, device=self.device)
        known = texts >= 0
        if bool(known.any()):
            different, back = texts[known].unique(return_inverse=True)
            rows = self.model["text"](*self.words.of(different, self.device))
            out = out.index_put((known.nonzero()[:, 0].to(self.device),), rows.float()[back.to(self.device)])
        return out

    def loss(self, batch: Tokens, step: int):
        """Masked cross entropy, of both passes where the step is unrolled."""
        config = self.config
        unrolled = float(torch.rand((), generator=generator(config.loop.seed, step, "unroll"))) < config.unroll_share
        transformer, condition = self.model["transformer"], self.condition(batch.texts)
        placement = None if batch.placement is None else batch.placement.to(self.device)
        out = masks.transformer_loss(
            transformer, batch.inputs.to(self.device), batch.labels.to(self.device), condition,
            None, unroll=config.unroll if unrolled else 0.0, schedule_tokens=batch.schedule.to(self.device), placement=placement)
        terms = {"cross_entropy": out.cross_entropy, "accuracy": out.accuracy, "unroll_cross_entropy": out.unroll_cross_entropy}
        # Partners begin at the first poses of a clip; a stream's frames lie at its newest.
        first = (batch.modes != STREAMING).to(self.device)
        if not (config.own_frames and bool(first.any())):
            return out.loss, terms
        terms["prior"] = transformer.prior.loss(condition[first], batch.seen.to(self.device)[first])
        return out.loss + config.prior * terms["prior"], terms

    @torch.no_grad()
    def validate(self, weights):
        """Masked cross entropy and accuracy on held-out pairs, mode by mode, always the same crops and masks."""
        found: dict[str, float] = {}
        plain = Augmentation.none()
        frames = self.pools[1].longest_crop(64, 1.0)
        with borrowed(self.model, weights):
            for mode, name in enumerate(MODES):
                sums = torch.zeros(2)
                for i in range(self.config.validation_batches):
                    g = generator(0, i, f"validation/{name}")
                    batch = self.tokens(1, g, plain, frames, 32, torch.full((32,), mode))
                    labels = batch.labels.to(self.device)
                    with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
                        logits = self.model["transformer"](
                            batch.inputs.to(self.device), self.condition(batch.texts), None,
                            placement=None if batch.placement is None else batch.placement.to(self.device))
                    sums += torch.stack(masks.masked_cross_entropy(logits, labels)).cpu()
                found[f"{name}_loss"], found[f"{name}_accuracy"] = (sums / self.config.validation_batches).tolist()
        return found

    def export(self, path, weights, card):
        """Transformer, text encoder and tokenizer."""
        parts: dict[str, dict[str, torch.Tensor]] = {"transformer": {}, "text": {}}
        for key, value in folded(weights).items():
            prefix, _, name = key.partition(".")
            parts[prefix][name] = value
        config = {"transformer": to_dict(self.shape), "text": to_dict(self.text), "representation": self.name,
                  "codec": to_dict(self.codec.config)}
        save_stage(path, "transformer", config, parts, card | {"codec": self.codec_card}, {"tokenizer": self.tokenizer})


def placed(frame: Frame, ends: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What tokens are told of where two people stand, [B, 2, N, WIDTH], and the second frame seen from the first [B, 3].

    ``frame`` [B, 2] are their canonical frames, ``ends`` [B, 2, N, 22, 3] the last pose of each column, each person's in its
    own frame, ``known`` [B, 2, N] the columns of which they are told.
    """
    step = frame_of(ends)
    yaw, origin = frame.yaw, frame.origin
    place = origin[..., None, :] + R.rotate(R.yaw(yaw)[..., None, :], step.origin)
    told = describe_pair(yaw, origin, yaw[..., None] + step.yaw, place, known)
    return told, relative(yaw, origin, yaw.flip(1), origin.flip(1))[:, 0]


class Trained(NamedTuple):
    """What a transformer file holds."""

    transformer: InterMTransformer
    text: TextEncoder
    tokenizer: str
    representation: str
    codec: CodecConfig
    card: dict


def load_transformer(path: Path) -> Trained:
    """A trained transformer and text encoder (evaluation mode) from `train_transformer`'s file."""
    about, parts = load_stage(path, "transformer")
    config = about["config"]
    transformer = InterMTransformer(from_dict(TransformerConfig, config["transformer"]))
    transformer.load_state_dict(parts["transformer"])
    text = TextEncoder(from_dict(TextConfig, config["text"]))
    text.load_state_dict(parts["text"])
    return Trained(transformer.eval(), text.eval(), about["texts"]["tokenizer"], config["representation"],
                   from_dict(CodecConfig, config["codec"]), about["card"])


def train_transformer(config: TransformerTraining, codec_file: Path, pairs: list, *, out: Path, held_out: list | None = None,
                      text_file: Path | None = None, start: Path | None = None, steps: int | None = None,
                      minutes: float | None = None, threads: int | None = None, progress: bool = True,
                      resume: bool = True) -> Result:
    """Train on pair clips with the frozen codec of ``codec_file`` into ``out``/transformer.safetensors; continues a run it finds.

    ``held_out`` pairs are only validated on (without them, the last twentieth of ``pairs``); ``text_file`` is `train_text`'s
    result to start from; ``start`` is a transformer file whose weights, text encoder and words a new run begins with.
    """
    if start is not None and text_file is not None:
        raise ConfigError(f"start: expected no text encoder beside it, got {text_file}; {start} holds one")
    config = replace(config, loop=with_limits(config.loop, steps=steps, minutes=minutes, threads=threads))
    if config.loop.threads:
        torch.set_num_threads(config.loop.threads)
    stage = TransformerStage(config, Path(codec_file), pairs, held_out, text_file, start)
    return Trainer(stage, config.loop, config, Path(out), name="transformer", progress=progress, resume=resume).run()
