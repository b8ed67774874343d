"""Train the Inter-M transformer, its text encoder with it, on pairs seen through a frozen codec."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from rtinteract.training import masks
from rtinteract.training.codec import load_codec
from rtinteract.training.data import Augmentation, Pool
from rtinteract.training.levels import folded, share_levels, with_other_codes
from rtinteract.training.memory import recompute
from rtinteract.training.shares import MODES, STREAMING, Shares
from rtinteract.training.state import load_stage, save_stage
from rtinteract.training.text import ClipVocabulary, Vocabulary, fit_tokenizer, groups_of, load_text, small_text, swap_sides
from rtinteract.training.token_batches import TokenBatches, Tokens, placed
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

from rtinteract.checkpoint import ModelParts
from rtinteract.config import ATTENTION, CodecConfig, ModelConfig, TextConfig, TransformerConfig, from_dict, to_dict
from rtinteract.errors import ConfigError
from rtinteract.features import base
from rtinteract.model import Model
from rtinteract.motion import Motion
from rtinteract.motion.picture import write_sheet
from rtinteract.precision import has_fast_bfloat16
from rtinteract.text import TextEncoder, TextHead
from rtinteract.transformer import InterMTransformer

__all__ = ["Sizes", "Tokens", "Trained", "TransformerStage", "TransformerTraining", "load_transformer", "placed",
           "train_transformer"]

log = logging.getLogger(__name__)

# Frames of the second person's true motion that a drawn sample begins with.
_BEGUN = 4


@dataclass(frozen=True)
class Sizes:
    """The transformer's own sizes; codes, code width and body parts come from the codec, the condition from the text encoder.

    ``attention`` and ``modelling`` are the published model's unless an ablation changes them (`TransformerConfig`)."""

    width: int = 128
    heads: int = 4
    layers: int = 4
    ff: int = 384
    dropout: float = 0.0
    attention: tuple[str, ...] = ATTENTION
    modelling: str = "together"


@dataclass(frozen=True)
class TransformerTraining:
    """Everything that decides a transformer training.

    A batch's crops have one length: ``shortest`` to ``longest`` frames, with share ``long`` up to ``most``, with share ``young``
    `YOUNG` at most, as a stream that has just begun; the batch shrinks as crops grow, so that a step costs about the same. The
    step-unroll loss has weight ``unroll`` and is taken in ``unroll_share`` of the steps: it doubles a step's cost. With
    ``own_frames`` each person is seen from its own canonical frame, as the codec's training must have had it. A frame lies where
    sampling puts it: at the first pose of a clip, at the newest pose of a stream. ``prior`` weighs the likelihood of where
    partners begin.

    With ``whole`` a batch is ``loop.batch`` clips of at least ``shortest`` frames, whole or ``most`` frames of them, each as long
    as it is, as published.
    ``unroll_over`` says which tokens the step unroll's schedule counts: those "hidden" from the sample, as ours sample, or
    "all", as published.
    A batch's crops serve ``echo`` steps, each time masked anew and `APART` steps apart (data echoing, Choi et al. 2019): where no
    processor is free to make the next batch, encoding one otherwise takes a sixth of a small step. 1 where one is free."""

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
    whole: bool = False
    unroll_over: str = "hidden"
    echo: int = 4
    validation_batches: int = 4

    def __post_init__(self):
        def check(good, what, expected, got):
            if not good:
                raise ConfigError(f"{what}: expected {expected}, got {got!r}; mend the configuration")
        check(self.unroll_over in ("hidden", "all"), "unroll_over", "'hidden' or 'all'", self.unroll_over)
        check(self.echo >= 1, "echo", "at least 1", self.echo)
        check(not self.whole or self.shares.streaming == 0, "shares.streaming", "0 for whole clips", self.shares.streaming)
        check(not self.whole or self.augmentation.warp == (1.0, 1.0), "augmentation.warp", "(1, 1) for whole clips",
              self.augmentation.warp)
        check(not self.shares.self_history or self.own_frames, "shares.self_history", "0 without own_frames",
              self.shares.self_history)


class TransformerStage(TokenBatches, Stage):
    """Pairs in, masked tokens out."""

    divisible = True
    sometimes_unused = True
    best = "loss"

    def __init__(self, config: TransformerTraining, codec_file: Path, pairs: list, held_out: list | None, text_file: Path | None,
                 start: Path | None = None, clip: Path | None = None):
        self.config, loop, self._echoed = config, config.loop, {}
        self.device = torch.device(loop.device)
        self.codec, normalizer, self.name, self.codec_card = load_codec(codec_file)
        if self.codec.config.people > 1:
            raise ConfigError(f"codec: expected one of single people, got one of two together in {codec_file}: its tokens are of "
                              "nobody alone, so there is nothing for attention between people; give another codec")
        self.codec.to(self.device).requires_grad_(False)
        self.normalizer = normalizer.to(self.device)
        self.representation = base.get(self.name)
        if not held_out:
            pairs, held_out = pairs[:-max(1, len(pairs) // 20)], pairs[-max(1, len(pairs) // 20):]
        self.epoch = len(pairs) * (2 if config.augmentation.mirror else 1)
        self.clip = clip
        self.clips, self.pools = (pairs, held_out), tuple(
            Pool.of_pairs(side, self.representation.turned) for side in (pairs, held_out))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(loop.seed)
            encoder, transformer, known = (*self._fresh(text_file), False) if start is None else self._begun(start)
            if self.codec.config.quantizer == "fsq":
                share_levels(transformer, self.codec.config.levels, trained=known)
            self.model = nn.ModuleDict({"transformer": transformer, "text": encoder}).to(self.device)
        if loop.recompute:
            recompute(transformer.blocks)
        self._index_texts()
        self.bfloat16 = has_fast_bfloat16(self.device) and loop.precision != "float32"
        log.info("transformer: %d parameters, text %d (%d texts), %d pairs (%.1f min), %d held out",
                 *(sum(p.numel() for p in m.parameters()) for m in (self.model["transformer"], encoder)), len(self.words.texts),
                 len(pairs), sum(map(len, pairs)) / 1800, len(held_out))

    def _fresh(self, text_file: Path | None) -> tuple[nn.Module, InterMTransformer]:
        encoder = self._text(text_file)
        self.shape = self._sized()
        return encoder, InterMTransformer(self.shape)

    def _sized(self) -> TransformerConfig:
        c = self.codec.config
        # A code of few channels is still a word of its own here.
        wide = self.config.sizes.width // 2 if c.form == "sequence" else c.code_dim
        return TransformerConfig(codes=c.codes, code_dim=wide, parts=c.parts, condition=self.text.width,
                                 placement=self.config.own_frames, **to_dict(self.config.sizes))

    def _begun(self, start: Path) -> tuple[nn.Module, InterMTransformer, bool]:
        """The weights and the words of a transformer file of the same sizes, and whether its codes are this codec's: of another
        codec's transformer all is kept but what it knew of codes."""
        found, c = load_transformer(start), self.codec.config
        sizes = {name: getattr(found.transformer.config, name) for name in to_dict(self.config.sizes)}
        grid = {"parts": c.parts, "frames a column": c.frames_per_column}
        for what, expected, got in (
                ("token map", grid, {"parts": found.codec.parts, "frames a column": found.codec.frames_per_column}),
                ("sizes", to_dict(self.config.sizes), sizes),
                ("own_frames", self.config.own_frames, found.transformer.config.placement)):
            if expected != got:
                raise ConfigError(f"start: expected a transformer of this run's {what} ({expected}), got another ({got}) in "
                                  f"{start}; train with its configuration, or start afresh")
        self.tokenizer, self.text = found.tokenizer or "", found.text_config
        known = c == found.codec
        self.shape = found.transformer.config if known else self._sized()
        transformer = found.transformer if known else with_other_codes(found.transformer, self.shape)
        return found.text.train(), transformer.train(), known

    def _text(self, text_file: Path | None) -> nn.Module:
        if self.config.text.kind == "clip":
            self.tokenizer, self.text = "", self.config.text
            return TextHead(self.text)
        if text_file is not None:
            encoder, self.tokenizer, self.text = load_text(text_file)
            return encoder.train()
        self.tokenizer, self.text = fit_tokenizer(groups_of(self.clips[0]), self.config.text)
        return TextEncoder(self.text)

    def _index_texts(self) -> None:
        """Indices of each clip's texts, as they are and mirrored."""
        clips = [c for side in self.clips for c in side]
        texts = [f(t) for c in clips for t in c.texts for f in (str, swap_sides)]
        if (self.text.kind == "clip") != (self.clip is not None):
            raise ConfigError("train transformer: expected a CLIP folder (--clip) with text.kind 'clip' and none with 'bpe', got "
                              f"{self.text.kind!r} {'with' if self.clip else 'without'} one; mend the configuration")
        self.words = (Vocabulary(self.tokenizer, texts, self.text.max_tokens) if self.clip is None
                      else ClipVocabulary(self.clip, self.text, texts, self.device))
        self.phrasings = tuple([[[self.words.index[f(t)] for t in c.texts] for f in (str, swap_sides)] for c in side]
                               for side in self.clips)

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
        """The sum of `terms`."""
        parts, seen = self.terms(batch, step)
        return sum(parts.values()), seen

    def counts(self, batch: Tokens):
        """Labelled tokens of both passes, and samples that tell where partners begin."""
        first, second = masks.labelled(batch.inputs, batch.labels, batch.schedule, self.codec.config.codes)
        return {"": len(batch.inputs), "cross_entropy": first, "accuracy": first, "unroll_cross_entropy": second,
                "prior": (batch.modes != STREAMING).sum()}

    def terms(self, batch: Tokens, step: int):
        """Masked cross entropy, of both passes where the step is unrolled, and the likelihood of where partners begin."""
        config, transformer, condition = self.config, self.model["transformer"], self.condition(batch.texts)
        unrolled = float(torch.rand((), generator=generator(config.loop.seed, step, "unroll"))) < config.unroll_share
        batch = self.with_own_past(batch, transformer, condition.detach())

        def here(x):
            return None if x is None else x.to(self.device)
        out = masks.transformer_loss(
            transformer, here(batch.inputs), here(batch.labels), condition, here(batch.lengths),
            unroll=config.unroll if unrolled else 0.0, schedule_tokens=here(batch.schedule), placement=here(batch.placement))
        parts, seen = {"cross_entropy": out.first}, {"accuracy": out.accuracy}
        if unrolled and config.unroll:
            parts["unroll_cross_entropy"] = config.unroll * out.second
        seen["unroll_cross_entropy"] = out.unroll_cross_entropy
        # Partners begin at the first poses of a clip; a stream's frames lie at its newest.
        first = (batch.modes != STREAMING).to(self.device)
        if config.own_frames and bool(first.any()):
            seen["prior"] = transformer.prior.loss(condition[first], here(batch.seen)[first])
            parts["prior"] = config.prior * seen["prior"]
        return parts, seen

    @torch.no_grad()
    def validate(self, weights):
        """Masked cross entropy and accuracy on held-out pairs, mode by mode, always the same crops and masks."""
        found: dict[str, float] = {}
        plain, shares = Augmentation.none(), self.config.shares
        frames = self.config.most if self.config.whole else self.pools[1].longest_crop(64, 1.0)
        asked = (1.0, shares.interaction, shares.streaming)
        modes = [(mode, name) for mode, name in enumerate(MODES) if asked[mode]]

        def here(x):
            return None if x is None else x.to(self.device)
        with borrowed(self.model, weights):
            for mode, name in modes:
                sums = torch.zeros(2)
                for i in range(self.config.validation_batches):
                    g = generator(0, i, f"validation/{name}")
                    batch = self.tokens(1, g, plain, frames, 32, torch.full((32,), mode))
                    with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
                        logits = self.model["transformer"](here(batch.inputs), self.condition(batch.texts), here(batch.lengths),
                                                           placement=here(batch.placement))
                    sums += torch.stack(masks.masked_cross_entropy(logits, here(batch.labels))).cpu()
                found[f"{name}_loss"], found[f"{name}_accuracy"] = (sums / self.config.validation_batches).tolist()
        return found | {"loss": sum(found[f"{name}_loss"] for _, name in modes) / len(modes)}

    def _parted(self, weights) -> dict[str, dict[str, torch.Tensor]]:
        parts: dict[str, dict[str, torch.Tensor]] = {"transformer": {}, "text": {}}
        for key, value in folded(weights).items():
            prefix, _, name = key.partition(".")
            parts[prefix][name] = value
        return parts

    def pictures(self, weights, folder, count):
        """Held-out pairs as they are, beside the same actors with the second person made by the model from its first frames."""
        parts, clips = self._parted(weights), self.clips[1]
        transformer, text = InterMTransformer(self.shape), _encoder_of(self.text)
        transformer.load_state_dict(parts["transformer"])
        text.load_state_dict(parts["text"])
        config = ModelConfig(representation=self.name, codec=self.codec.config, transformer=self.shape, text=self.text,
                             window=self.config.most // 4 * 4)
        model = Model(ModelParts(config, self.codec, self.normalizer, transformer, text, self.tokenizer or None, {}), self.device)
        model.prompts.tower = getattr(self.words, "tower", None)
        chosen = [clips[i * len(clips) // count] for i in range(min(count, len(clips)))]
        people = [tuple(m.to_model() for m in clip.motions()) for clip in chosen]
        texts = [clip.texts[0] if clip.texts else "" for clip in chosen]
        made = model.react([a for a, _ in people], texts, start=[b[:_BEGUN] for _, b in people], seed=0)
        pairs: list[tuple[Motion, Motion]] = [p for (a, b), c in zip(people, made, strict=True) for p in ((a, b), (a, c))]
        folder.mkdir(parents=True, exist_ok=True)
        write_sheet(folder / "reactions.png", pairs, columns=2, titles=[t for text in texts for t in (text or "-", "made")])
        return [folder / "reactions.png"]

    def export(self, path, weights, card):
        """Transformer, text encoder and tokenizer."""
        parts = self._parted(weights)
        config = {"transformer": to_dict(self.shape), "text": to_dict(self.text), "representation": self.name,
                  "codec": to_dict(self.codec.config)}
        save_stage(path, "transformer", config, parts, card | {"codec": self.codec_card}, {"tokenizer": self.tokenizer})


def _encoder_of(config: TextConfig) -> nn.Module:
    return TextHead(config) if config.kind == "clip" else TextEncoder(config)


class Trained(NamedTuple):
    """What a transformer file holds."""

    transformer: InterMTransformer
    text: nn.Module
    text_config: TextConfig
    tokenizer: str | None
    representation: str
    codec: CodecConfig
    card: dict


def load_transformer(path: Path) -> Trained:
    """A trained transformer and text encoder (evaluation mode) from `train_transformer`'s file."""
    about, parts = load_stage(path, "transformer")
    config = about["config"]
    transformer = InterMTransformer(from_dict(TransformerConfig, config["transformer"]))
    transformer.load_state_dict(parts["transformer"])
    text_config = from_dict(TextConfig, config["text"])
    text = _encoder_of(text_config)
    text.load_state_dict(parts["text"])
    return Trained(transformer.eval(), text.eval(), text_config, about["texts"]["tokenizer"] or None, config["representation"],
                   from_dict(CodecConfig, config["codec"]), about["card"])


def train_transformer(config: TransformerTraining, codec_file: Path, pairs: list, *, out: Path, held_out: list | None = None,
                      text_file: Path | None = None, start: Path | None = None, clip: Path | None = None,
                      steps: int | None = None, minutes: float | None = None, threads: int | None = None,
                      device: str | None = None, progress: bool = True, resume: bool = True) -> Result:
    """Train on pair clips with the frozen codec of ``codec_file`` into ``out``/transformer.safetensors; continues a run it finds.

    ``held_out`` pairs are only validated on (without them, the last twentieth of ``pairs``); ``text_file`` is `train_text`'s
    result to start from; ``start`` is a transformer file whose weights, text encoder and words a new run begins with; ``clip`` is
    a CLIP folder, for text of kind "clip". ``steps``/``minutes``/``threads``/``device`` replace the loop's.
    """
    if start is not None and text_file is not None:
        raise ConfigError(f"start: expected no text encoder beside it, got {text_file}; {start} holds one")
    config = replace(config, loop=with_limits(config.loop, steps=steps, minutes=minutes, threads=threads, device=device))
    if config.loop.threads:
        torch.set_num_threads(config.loop.threads)
    stage = TransformerStage(config, Path(codec_file), pairs, held_out, text_file, start, clip)
    return Trainer(stage, config.loop, config, Path(out), name="transformer", progress=progress, resume=resume).run()
