"""Train an InterCLIP evaluator on two-person clips with texts (see `rtinteract.training.interclip`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rtinteract.training import metrics
from rtinteract.training.data import Pool, mirrored, uniform
from rtinteract.training.interclip import InterClip, InterClipConfig, Words, rows_of, save_evaluator
from rtinteract.training.recognition import recognised
from rtinteract.training.text import fit_tokenizer, groups_of, swap_sides
from rtinteract.training.trainer import LoopConfig, Result, Stage, Trainer, borrowed, generator, with_limits
from torch import Tensor

from rtinteract.clip import TOKENIZER, ClipTower
from rtinteract.errors import ConfigError
from rtinteract.skeleton import SMPL22, forward_kinematics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluatorTraining:
    """Everything that decides an evaluator's training. Clips are seen whole (up to ``interclip.most`` frames, from a drawn first
    one), mirrored with share ``mirror`` (their texts too) and with the two people exchanged with share ``swap``: nothing says
    who comes first in what is evaluated. ``scale`` and ``warp`` are the ranges of body size and of speed, the latter in share
    ``warped`` of the batches. A batch holds clips of like lengths, neighbours among ``bucket`` times as many
    drawn ones: that costs less padding, and leaves the length as no clue."""

    interclip: InterClipConfig = field(default_factory=InterClipConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=3000, batch=64, learning_rate=5e-4, warmup=100,
                                                                weight_decay=1e-4, ema=0.998))
    mirror: float = 0.5
    swap: float = 0.5
    scale: tuple[float, float] = (0.9, 1.1)
    warp: tuple[float, float] = (0.9, 1.1)
    warped: float = 0.5
    bucket: int = 4


class Batch(NamedTuple):
    """Rows [B, T, 2, 258], lengths [B], indices of the texts [B], and [B, B] whether text i is also true of clip j (i != j)."""

    rows: Tensor
    lengths: Tensor
    texts: Tensor
    also: Tensor


class _Side:
    """Clips with texts: their frames, and the indices of their texts, plain and mirrored."""

    def __init__(self, clips: Sequence, index: dict[str, int]):
        self.clips = clips
        self.pool = Pool.of_pairs(clips)
        self.texts = [[[index[f(t)] for t in c.texts] for f in (str, swap_sides)] for c in clips]

    def __len__(self):
        return len(self.clips)


class EvaluatorStage(Stage):
    """Clips and their texts in, a symmetric cross entropy out. Each clip is told from the batch's others, so the batch is not
    divisible."""

    best = "+r_precision_3"

    def __init__(self, config: EvaluatorTraining, pairs: Sequence, held_out: Sequence | None, clip: Path | None = None):
        pairs, held_out = ([c for c in side or () if c.texts] for side in (pairs, held_out))
        if not held_out:
            pairs, held_out = pairs[:-max(1, len(pairs) // 20)], pairs[-max(1, len(pairs) // 20):]
        if len(pairs) < 2:
            raise ConfigError(f"train evaluator: expected at least 3 clips with texts, got {len(pairs) + len(held_out)}; compose "
                              "pairs, or give a data set with annotations")
        self.config, self.device, self.epoch = config, torch.device(config.loop.device), len(pairs)
        tower = self._words(pairs, clip)
        texts = list(dict.fromkeys(f(t) for side in (pairs, held_out) for c in side for t in c.texts for f in (str, swap_sides)))
        self.ids, self.ends = self.words(texts)
        index = {t: i for i, t in enumerate(texts)}
        self.sides = tuple(_Side(side, index) for side in (pairs, held_out))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.loop.seed)
            self.model = InterClip(self.interclip).to(self.device)
        if tower is not None:
            embeddings = tower.module.embeddings
            self.model.text.embedding.weight.data.copy_(embeddings["token_embedding"].weight)
            self.model.text.positions.data.copy_(embeddings["position_embedding"].weight)
        self._statistics()
        log.info("evaluator: %d parameters, %d texts, %d clips, %d held out", sum(p.numel() for p in self.model.parameters()),
                 len(texts), len(pairs), len(held_out))

    def _words(self, pairs: Sequence, clip: Path | None) -> ClipTower | None:
        text = self.config.interclip.text
        if (text.kind == "clip") != (clip is not None):
            raise ConfigError("train evaluator: expected a CLIP folder with interclip.text.kind 'clip' and none with 'bpe', got "
                              f"{text.kind!r} {'with' if clip else 'without'} one; mend the configuration")
        if clip is None:
            self.tokenizer, text = fit_tokenizer(groups_of(pairs), text)
            tower = None
        else:
            tower = ClipTower(clip, text)
            self.tokenizer = (Path(clip) / TOKENIZER).read_text(encoding="utf-8")
            text = replace(text, vocabulary=tower.config.vocabulary)
        self.interclip = replace(self.config.interclip, text=text)
        self.words = Words(self.tokenizer, text)
        return tower

    @torch.no_grad()
    def _statistics(self) -> None:
        """Mean and std of the rows, one std for positions, one for velocities, one for rotations."""
        g = generator(self.config.loop.seed, 0, "statistics")
        clips = torch.randint(len(self.sides[0]), (min(256, len(self.sides[0])),), generator=g)
        batch = self._gather(0, clips, g)
        seen = torch.arange(batch.rows.shape[1]) < batch.lengths[:, None]
        rows = batch.rows[seen].flatten(0, 1)
        variance = rows.var(0)
        for part in (slice(0, 66), slice(66, 132), slice(132, 258)):
            variance[part] = variance[part].mean()
        self.model.motion.mean.copy_(rows.mean(0))
        self.model.motion.std.copy_(variance.sqrt().clamp(min=1e-3))

    def _gather(self, side: int, clips: Tensor, g: torch.Generator, plain: bool = False) -> Batch:
        """Clips as a batch, augmented unless ``plain``; a drawn text each."""
        config, it, batch = self.config, self.sides[side], len(clips)
        scale, warp = ((1.0, 1.0), (1.0, 1.0)) if plain else (config.scale, config.warp)
        draws = torch.rand(4, batch, generator=g)
        mirror, swap = (draws[0] < config.mirror) & (not plain), (draws[1] < config.swap) & (not plain)
        speed = uniform(g, (batch,), *(warp if float(torch.rand((), generator=g)) < config.warped else (1.0, 1.0)))
        frames = ((it.pool.lengths[clips] - 1) / speed).floor().long() + 1
        first = draws[2] * (0 if plain else 1) * (frames - self.interclip.most).clamp(min=0)
        frames = frames.clamp(max=self.interclip.most)
        times = (first.floor()[:, None] + torch.arange(int(frames.max()))) * speed[:, None]
        root, rotations = it.pool.poses(clips, times)
        root, rotations, offsets = mirrored(root, rotations, it.pool.offsets[clips], mirror)
        size = uniform(g, (batch, 1, 1, 1), *scale)
        positions = forward_kinematics(SMPL22, root * size, rotations, offsets=(offsets * size)[:, :, None])
        order = torch.stack([swap.long(), 1 - swap.long()], 1)
        rows = torch.arange(batch)[:, None]
        said = [it.texts[c][int(m)] for c, m in zip(clips.tolist(), mirror, strict=True)]
        texts = [one[int(d * len(one))] for one, d in zip(said, draws[3].tolist(), strict=True)]
        also = torch.tensor([[i != j and t in those for j, those in enumerate(map(set, said))] for i, t in enumerate(texts)])
        return Batch(rows_of(positions[rows, order], rotations[rows, order]), frames - 1, torch.tensor(texts), also)

    def batch(self, step: int) -> Batch:
        """Drawn clips, each as likely as another."""
        g, batch = generator(self.config.loop.seed, step, "evaluator"), self.config.loop.batch
        drawn = torch.randint(len(self.sides[0]), (batch * self.config.bucket,), generator=g)
        drawn = drawn[self.sides[0].pool.lengths[drawn].argsort(stable=True)]
        first = int(torch.randint(len(drawn) - batch + 1, (), generator=g))
        return self._gather(0, drawn[first:first + batch], g)

    def _text(self, which: Tensor) -> Tensor:
        ids, ends = self.ids[which], self.ends[which]
        if self.interclip.text.kind == "bpe":
            ids = ids[:, :int(ends.max())]
        return self.model.embed_text(ids.to(self.device), ends.to(self.device))

    def loss(self, batch: Batch, step: int):
        """Cross entropy of finding the clip of a text and the text of a clip. A text that is also true of another clip is no
        reason to tell the two apart, so such a pair is left out of both."""
        motion = self.model.embed_motion(batch.rows.to(self.device), batch.lengths)
        logits = (self._text(batch.texts) @ motion.T).masked_fill(batch.also.to(self.device), float("-inf"))
        target = torch.arange(len(motion), device=self.device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return loss, {"found": (logits.argmax(1) == target).float().mean(), "scale": self.model.scale.detach()[0]}

    @torch.no_grad()
    def validate(self, weights):
        """R-precision 1 to 3 on held-out clips, plain, in pools of 96 (or of all where there are fewer), each with a drawn text,
        and the share whose kind is among the first one and three by its texts, where there are kinds."""
        side, g = self.sides[1], generator(self.config.loop.seed, 0, "validation")
        order = torch.randperm(len(side), generator=g)[:960]
        with borrowed(self.model, weights):
            batches = [self._gather(1, some, g, plain=True) for some in order.split(64)]
            motion = torch.cat([self.model.embed_motion(b.rows.to(self.device), b.lengths).cpu() for b in batches])
            text = torch.cat([self._text(b.texts).cpu() for b in batches])
            pool = min(metrics.POOL, len(order))
            found = dict(zip(("r_precision_1", "r_precision_2", "r_precision_3"),
                             metrics.r_precision(text, motion, pool=pool).tolist(), strict=True))
            texts = {c.kind: [] for c in side.clips}
            for c, said in zip(side.clips, side.texts, strict=True):
                texts[c.kind] += said[0]
            prompts = {kind: self._text(torch.tensor(sorted(set(ids)))).cpu().numpy() for kind, ids in texts.items()}
        if len(prompts) > 3:
            ranks = recognised(prompts, motion.numpy(), [side.clips[i].kind for i in order.tolist()])
            found |= {"kind_1": float((ranks < 1).mean()), "kind_3": float((ranks < 3).mean())}
        return found

    def export(self, path, weights, card):
        """The network and its tokenizer."""
        save_evaluator(path, self.interclip, weights, self.tokenizer, card)


def train_evaluator(config: EvaluatorTraining, pairs: Sequence, *, out: Path, held_out: Sequence | None = None,
                    clip: Path | None = None, steps: int | None = None, minutes: float | None = None, threads: int | None = None,
                    device: str | None = None, progress: bool = True, resume: bool = True) -> Result:
    """Train an evaluator on pairs with texts into ``out``/evaluator.safetensors; ``held_out`` (else a twentieth of the pairs) is
    what it is validated on. ``clip`` is a CLIP folder for text of kind "clip"."""
    config = replace(config, loop=with_limits(config.loop, steps=steps, minutes=minutes, threads=threads, device=device))
    stage = EvaluatorStage(config, pairs, held_out, clip)
    return Trainer(stage, config.loop, config, Path(out), name="evaluator", progress=progress, resume=resume).run()
