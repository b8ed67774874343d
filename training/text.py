"""Train the text encoder of models without CLIP: a tokenizer, then an encoder that brings the phrasings of an event together."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from rtinteract.training.state import load_stage, save_stage
from rtinteract.training.trainer import LoopConfig, Result, Stage, Trainer, borrowed, generator, with_limits
from torch import nn

from rtinteract.clip import ClipTower
from rtinteract.config import TextConfig, from_dict, to_dict
from rtinteract.errors import ConfigError
from rtinteract.text import TextEncoder, TextTokenizer, train_tokenizer

log = logging.getLogger(__name__)

_SIDES = {"left": "right", "right": "left", "clockwise": "counterclockwise", "counterclockwise": "clockwise",
          "anticlockwise": "clockwise", "counter-clockwise": "clockwise"}
# "Left hanging" and "right away" name no side.
_NO_SIDE = (r"(?!\s+(?:hanging|unanswered|alone|standing|waiting|behind|without|empty|away|after|before|then|in front|next|at|"
            r"up to|past|through|back|into|on time)\b)")
_WORD = re.compile(r"(?<![\w-])(counter-?clockwise|anticlockwise|clockwise|left|right)(?![a-z])" + _NO_SIDE, re.IGNORECASE)


def swap_sides(text: str) -> str:
    """The text of the mirrored motion: left and right, clockwise and counterclockwise change places, once each."""
    def other(match):
        word = match.group(1)
        swapped = _SIDES[word.lower()]
        return swapped.capitalize() if word[0].isupper() else swapped
    return _WORD.sub(other, text)


def small_text() -> TextConfig:
    """The text encoder of the shipped model; the vocabulary is cut to what the tokenizer learns."""
    return TextConfig(kind="bpe", width=128, layers=2, heads=4, ff=256, vocabulary=1024, max_tokens=48)


@dataclass(frozen=True)
class TextTraining:
    """Everything that decides a text training. ``temperature`` divides the cosine similarities of the contrastive loss."""

    text: TextConfig = field(default_factory=small_text)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1500, batch=64, learning_rate=5e-4, warmup=100,
                                                                precision="float32"))
    temperature: float = 0.1


def groups_of(clips: Iterable) -> list[tuple[str, ...]]:
    """A tuple of phrasings for each distinct event of the clips, and for its mirror image, in a fixed order."""
    found = {tuple(sorted(set(clip.texts))) for clip in clips if clip.texts}
    found |= {tuple(sorted({swap_sides(t) for t in group})) for group in found}
    return sorted(found)


class Vocabulary:
    """Every text once, as token ids: ``ids`` [U, L], ``lengths`` [U]."""

    def __init__(self, tokenizer_json: str, texts: Sequence[str], max_tokens: int):
        self.texts = list(dict.fromkeys(texts))
        self.index = {text: i for i, text in enumerate(self.texts)}
        self.ids, self.lengths = TextTokenizer(tokenizer_json).encode(self.texts, max_tokens)

    def of(self, which: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids [B, L], no longer than needed, and lengths [B] of the texts with indices ``which`` [B]."""
        lengths = self.lengths[which]
        return self.ids[which, :int(lengths.max())].to(device), lengths.to(device)


class ClipVocabulary:
    """Every text once, read by CLIP's frozen tower when it is first asked for; the features of `_KEPT` texts stay in memory."""

    _KEPT = 16384

    def __init__(self, folder: Path, config: TextConfig, texts: Sequence[str], device: torch.device):
        self.texts = list(dict.fromkeys(texts))
        self.index = {text: i for i, text in enumerate(self.texts)}
        self.tower = ClipTower(folder, config, device)
        self._known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def of(self, which: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [B, 77, C] and end-of-text positions [B] of the texts with indices ``which`` [B]."""
        rows = which.tolist()
        unknown = [i for i in rows if i not in self._known]
        fresh = {}
        if unknown:
            features, ends = self.tower([self.texts[i] for i in unknown])
            # Halves: what the head sees of them is rounded far more by bfloat16.
            fresh = {i: (f.half().cpu(), e.cpu()) for i, f, e in zip(unknown, features, ends, strict=True)}
        both = [fresh.get(i) or self._known[i] for i in rows]
        if len(self._known) < self._KEPT:
            self._known |= fresh
        return torch.stack([f for f, _ in both]).float().to(device), torch.stack([e for _, e in both]).to(device)


def fit_tokenizer(groups: Sequence[tuple[str, ...]], config: TextConfig, extra: Sequence[str] = ()) -> tuple[str, TextConfig]:
    """A tokenizer's JSON trained on the texts (and ``extra`` prompts), and the configuration with the vocabulary it reached."""
    if not groups:
        raise ConfigError("text training: expected clips with texts, got none; compose pairs first")
    tokenizer = train_tokenizer([t for group in groups for t in group] + list(extra), config.vocabulary)
    return tokenizer, replace(config, vocabulary=TextTokenizer(tokenizer).vocabulary)


def load_text(path: Path) -> tuple[TextEncoder, str, TextConfig]:
    """A trained text encoder from `train_text`'s file: (encoder in evaluation mode, tokenizer JSON, configuration)."""
    about, parts = load_stage(path, "text")
    config = from_dict(TextConfig, about["config"]["text"])
    encoder = TextEncoder(config)
    encoder.load_state_dict(parts["text"])
    return encoder.eval(), about["texts"]["tokenizer"], config


class TextStage(Stage):
    """Pairs of phrasings in, an InfoNCE loss out: each phrasing must find its partner among the batch's other events, so the
    batch is not divisible; the encoder is small enough for every process to see it whole."""

    best = "+nearest"

    def __init__(self, config: TextTraining, groups: list[tuple[str, ...]], extra: Sequence[str]):
        self.config, self.groups = config, groups
        self.device = torch.device(config.loop.device)
        self.tokenizer, self.text = fit_tokenizer(groups, config.text, extra)
        self.words = Vocabulary(self.tokenizer, [t for group in groups for t in group], self.text.max_tokens)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.loop.seed)
            self.model: nn.Module = TextEncoder(self.text).to(self.device)

    def batch(self, step: int):
        """Texts [2, B] (indices of two phrasings of each event) and their events [B]."""
        g = generator(self.config.loop.seed, step, "text")
        events = torch.randint(len(self.groups), (self.config.loop.batch,), generator=g)
        picks = torch.rand(2, len(events), generator=g)
        chosen = [[(self.groups[e], p) for e, p in zip(events.tolist(), row, strict=True)] for row in picks.tolist()]
        texts = [[self.words.index[group[int(p * len(group))]] for group, p in row] for row in chosen]
        return torch.tensor(texts), events

    def loss(self, batch, step: int):
        """Cross entropy of finding the partner, both ways; other phrasings of the same event are no negatives."""
        texts, events = batch
        a, b = (F.normalize(self.model(*self.words.of(row, self.device)).float(), dim=-1) for row in texts)
        logits = a @ b.T / self.config.temperature
        n = len(events)
        same = ((events[:, None] == events) | (texts[0][:, None] == texts[1])) & ~torch.eye(n, dtype=torch.bool)
        logits = logits.masked_fill(same.to(self.device), float("-inf"))
        target = torch.arange(n, device=self.device)
        found = (logits.argmax(1) == target).float().mean()
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2, {"found": found}

    @torch.no_grad()
    def validate(self, weights):
        """Share of phrasings whose nearest other phrasing belongs to an event that has both, over all texts."""
        with borrowed(self.model, weights) as encoder:
            rows = F.normalize(encoder(*self.words.of(torch.arange(len(self.words.texts)), self.device)).float(), dim=-1)
        near = (rows @ rows.T).fill_diagonal_(-2).argmax(1).tolist()
        events = [{i for i, group in enumerate(self.groups) if text in group} for text in self.words.texts]
        return {"nearest": sum(bool(events[i] & events[j]) for i, j in enumerate(near)) / max(len(near), 1)}

    def export(self, path, weights, card):
        """Encoder and tokenizer."""
        save_stage(path, "text", {"text": to_dict(self.text)}, {"text": weights}, card, {"tokenizer": self.tokenizer})


def train_text(config: TextTraining, pairs: list, *, out: Path, prompts: Sequence[str] = (), steps: int | None = None,
               minutes: float | None = None, threads: int | None = None, device: str | None = None, progress: bool = True,
               resume: bool = True) -> Result:
    """Train tokenizer and text encoder on the texts of pairs into ``out``/text.safetensors; ``prompts`` feed the tokenizer."""
    config = replace(config, loop=with_limits(config.loop, steps=steps, minutes=minutes, threads=threads, device=device))
    stage = TextStage(config, groups_of(pairs), prompts)
    return Trainer(stage, config.loop, config, Path(out), name="text", progress=progress, resume=resume).run()
