"""InterCLIP, the evaluator: text and two-person motion embedded in one space, in which fitting ones lie close.

InterGen (Liang et al. 2024), as InterMask section 4 uses it. A transformer reads both people's features frame by frame behind
a query token, whose row is the motion's embedding; a transformer reads the text. Both embeddings are scaled to one learned
length, whose square is the temperature of the contrastive loss. The published network reads CLIP's token embeddings (not its
tower); where there is no CLIP, ours reads byte-pair tokens and groups a few frames a step, so that it trains in minutes.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rtinteract.training.state import load_stage, save_stage
from torch import Tensor, nn

from rtinteract.clip import ClipTokenizer
from rtinteract.config import TextConfig, from_dict, to_dict
from rtinteract.errors import CheckpointError, ConfigError, MotionError
from rtinteract.features.canonical import frame_of, to_frame
from rtinteract.features.interhuman import InterHuman
from rtinteract.motion import Motion
from rtinteract.text import TextEncoder, TextHead, TextTokenizer

# A person's row of 262 without the four contact labels.
FEATURES = 258
STAGE = "evaluator"


@dataclass(frozen=True)
class InterClipConfig:
    """Sizes of an evaluator. ``patch`` frames are one step of the motion's transformer, which sees ``most`` frames at most;
    ``embedding`` is the width of the common space and ``scale`` the length of its vectors before training. ``text`` is of kind
    "clip" (token embeddings of CLIP, frozen, under trained layers) or "bpe"."""

    patch: int = 4
    width: int = 192
    layers: int = 4
    heads: int = 4
    ff: int = 512
    dropout: float = 0.1
    embedding: int = 128
    most: int = 300
    scale: float = 3.0
    text: TextConfig = field(default_factory=lambda: TextConfig(kind="bpe", width=128, layers=2, heads=4, ff=256, vocabulary=1024,
                                                                max_tokens=48))

    def __post_init__(self):
        for name in ("patch", "width", "layers", "heads", "ff", "embedding", "most"):
            if getattr(self, name) < 1:
                raise ConfigError(f"interclip.{name}: expected at least 1, got {getattr(self, name)}; mend the configuration")
        if self.width % self.heads or self.width % 2:
            raise ConfigError(f"interclip.width: expected an even multiple of heads = {self.heads}, got {self.width}; mend the "
                              "configuration")
        if self.text.kind not in ("clip", "bpe"):
            raise ConfigError(f"interclip.text.kind: expected 'clip' or 'bpe', got {self.text.kind!r}; mend the configuration")

    @classmethod
    def published(cls) -> InterClipConfig:
        """The sizes of the published InterHuman evaluator."""
        return cls(patch=1, width=1024, layers=8, heads=8, ff=2048, embedding=512, scale=1.0,
                   text=TextConfig(kind="clip", width=768, layers=8, heads=8, ff=2048, vocabulary=49408, max_tokens=77))


def sines(count: int, width: int) -> Tensor:
    """Sine positions [count, width]: sine and cosine by turns (Vaswani et al. 2017)."""
    angle = torch.arange(count)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


class MotionEncoder(nn.Module):
    """Two people's rows to one embedding."""

    def __init__(self, config: InterClipConfig):
        super().__init__()
        self.patch = config.patch
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("std", torch.ones(FEATURES))
        self.query = nn.Parameter(torch.randn(1, config.width))
        self.embed = nn.Linear(2 * FEATURES * config.patch, config.width)
        layer = nn.TransformerEncoderLayer(config.width, config.heads, config.ff, config.dropout, "gelu", batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, config.embedding)

    def forward(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """Embeddings [B, E] of rows [B, T, 2, 258] in metres, of which the first ``lengths`` [B] count."""
        steps = math.ceil(rows.shape[1] / self.patch)
        lengths = lengths.to(rows.device)
        seen = torch.arange(rows.shape[1], device=rows.device) < lengths[:, None]
        x = (rows - self.mean) / self.std * seen[..., None, None]
        x = F.pad(x.flatten(2), (0, 0, 0, steps * self.patch - rows.shape[1])).unflatten(1, (steps, self.patch))
        x = torch.cat([self.query.expand(len(rows), 1, -1), self.embed(x.flatten(2))], 1)
        x = self.dropout(x + sines(steps + 1, x.shape[-1]).to(x))
        past = torch.arange(steps, device=rows.device) >= torch.ceil(lengths / self.patch)[:, None]
        x = self.transformer(x, src_key_padding_mask=F.pad(past, (1, 0), value=False))
        return self.out(self.norm(x[:, 0]))


class ClipWords(nn.Module):
    """CLIP's token and position embeddings, frozen, under trained post-norm layers; the end-of-text row."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.width).requires_grad_(False)
        self.positions = nn.Parameter(torch.zeros(config.max_tokens, config.width), requires_grad=False)
        self.head = TextHead(config)

    def forward(self, ids: Tensor, end: Tensor) -> Tensor:
        """[B, C] of ids [B, L] and the place of the end token [B]; the padding is attended to, as published."""
        return self.head(self.embedding(ids) + self.positions[:ids.shape[1]], end)


class InterClip(nn.Module):
    """Both encoders and the learned length ``scale`` of the embeddings."""

    def __init__(self, config: InterClipConfig):
        super().__init__()
        self.config = config
        self.motion = MotionEncoder(config)
        self.text = ClipWords(config.text) if config.text.kind == "clip" else TextEncoder(config.text)
        self.text_out = nn.Linear(config.text.width, config.embedding)
        self.scale = nn.Parameter(torch.tensor([config.scale]))

    def embed_motion(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """[B, E] of length ``scale``, of rows as `MotionEncoder` takes them."""
        return F.normalize(self.motion(rows, lengths).float(), dim=-1) * self.scale

    def embed_text(self, ids: Tensor, ends: Tensor) -> Tensor:
        """[B, E] of length ``scale``, of token ids [B, L]; ``ends`` [B] as `Words` gives them."""
        return F.normalize(self.text_out(self.text(ids, ends)).float(), dim=-1) * self.scale


class Words:
    """Texts to token ids, of the configuration's kind. ``tokenizer`` is the JSON of either kind's tokenizer."""

    def __init__(self, tokenizer: str, config: TextConfig):
        self.config = config
        if config.kind == "bpe":
            self._bpe = TextTokenizer(tokenizer)
        else:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "tokenizer.json"
                path.write_text(tokenizer, encoding="utf-8")
                self._clip = ClipTokenizer(path)

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids [B, L], and lengths [B] ("bpe") or the place of the end token [B] ("clip")."""
        if self.config.kind == "bpe":
            return self._bpe.encode(texts, self.config.max_tokens)
        rows = [self._clip.encode(text, self.config.max_tokens) for text in texts]
        return torch.tensor([ids for ids, _ in rows]), torch.tensor([end for _, end in rows])


def rows_of(positions: Tensor, rotations: Tensor) -> Tensor:
    """Rows [..., T - 1, 2, 258] of two people's positions [..., 2, T, 22, 3] m and local rotations [..., 2, T, 22, 4].

    As the InterHuman preprocessing has them: each person's lowest joint at height 0, both in the first one's canonical frame.
    """
    positions = positions - F.pad(positions[..., 1].flatten(-2).amin(-1)[..., None], (1, 1))[..., None, None, :]
    frame = frame_of(positions[..., 0, 0, :, :])
    wide = type(frame)(frame.yaw[..., None], frame.origin[..., None, :])
    image = InterHuman().encode(*to_frame(wide, positions, rotations)).movedim(-4, -3)
    return torch.cat([image[..., :3].flatten(-2), image[..., 3:6].flatten(-2), image[..., 1:, 6:].flatten(-2)], -1)


class Evaluator:
    """A trained InterCLIP: texts and pairs to embeddings [samples, E] for `rtinteract.training.metrics`."""

    def __init__(self, module: InterClip, tokenizer: str, card: dict | None = None, device: torch.device | str = "cpu"):
        self.module, self.card, self.device = module.eval().requires_grad_(False).to(device), card or {}, torch.device(device)
        self.words = Words(tokenizer, module.config.text)
        self._known: dict[str, np.ndarray] = {}

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> Evaluator:
        """From the file that `rtinteract train evaluator` or `rtinteract import-evaluator` wrote; CheckpointError for another."""
        about, parts = load_stage(path, STAGE)
        module = InterClip(from_dict(InterClipConfig, about["config"]["interclip"]))
        try:
            module.load_state_dict(parts["interclip"])
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"{path}: expected the tensors of its configuration, got others ({error}); train it "
                                  "again") from error
        return cls(module, about["texts"]["tokenizer"], about["card"], device)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings [texts, E]; each text is encoded once."""
        new = [t for t in dict.fromkeys(texts) if t not in self._known]
        for at in range(0, len(new), 64):
            some = new[at:at + 64]
            found = self.module.embed_text(*(x.to(self.device) for x in self.words(some))).cpu().double().numpy()
            self._known |= dict(zip(some, found, strict=True))
        return np.stack([self._known[t] for t in texts])

    @torch.inference_mode()
    def pairs(self, pairs: Sequence[tuple[Motion, Motion]], batch: int = 32) -> np.ndarray:
        """Embeddings [pairs, E] of two people each, SMPL-22 at 30 Hz and of one length; frames past the configuration's ``most``
        are left out. MotionError for a clip under 2 frames or two of different lengths."""
        rows = []
        for a, b in pairs:
            if len(a) != len(b) or len(a) < 2:
                raise MotionError(f"evaluator: expected two motions of one length, at least 2 frames, got {len(a)} and {len(b)}")
            cut = slice(0, self.module.config.most)
            rows.append(rows_of(*(torch.tensor(np.stack([getattr(m, name)[cut] for m in (a, b)]), dtype=torch.float32)
                                  for name in ("positions", "rotations"))))
        out = np.zeros((len(rows), self.module.config.embedding))
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for at in range(0, len(order), batch):
            some = order[at:at + batch]
            padded = nn.utils.rnn.pad_sequence([rows[i] for i in some], batch_first=True).to(self.device)
            out[some] = self.module.embed_motion(padded, torch.tensor([len(rows[i]) for i in some])).cpu().double().numpy()
        return out


def save_evaluator(path: Path, config: InterClipConfig, weights: dict[str, Tensor], tokenizer: str, card: dict) -> None:
    """One .safetensors with the network, its configuration and its tokenizer."""
    save_stage(path, STAGE, {"interclip": to_dict(config)}, {"interclip": weights}, card, {"tokenizer": tokenizer})
