"""Text to condition: the published head over CLIP features, a small BPE encoder of our own, and the prompt cache."""

from __future__ import annotations

import difflib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn

from rtinteract.blocks import Attention, FeedForward
from rtinteract.config import TextConfig
from rtinteract.errors import CheckpointError, ConfigError, RtInteractError

log = logging.getLogger(__name__)

PAD, BOS, EOS, UNKNOWN = range(4)
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
MAX_CHARACTERS = 2000
_BYTES = 256

Tower = Callable[[list[str]], tuple[Tensor, Tensor]]


class TextHead(nn.Module):
    """The trained head over frozen CLIP text features: post-norm transformer layers, layer norm, the end-of-text row."""

    def __init__(self, config: TextConfig):
        super().__init__()
        layer = nn.TransformerEncoderLayer(config.width, config.heads, config.ff, config.dropout, activation="gelu",
                                           batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, features: Tensor, eot_index: Tensor) -> Tensor:
        """Condition [B, C] of token features [B, L, C] (after CLIP's final norm, before its projection).

        `eot_index` [B] is the position of the end-of-text token. All L positions attend, as in the published model.
        """
        rows = torch.arange(features.shape[0], device=features.device)
        return self.norm(self.encoder(features)[rows, eot_index])


class TextEncoderLayer(nn.Module):
    """Pre-norm self-attention and feed-forward."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads)
        self.norm_ff = nn.LayerNorm(config.width)
        self.ff = FeedForward(config.width, config.ff, config.dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = x + self.attention(self.norm_attention(x), lengths)
        return x + self.ff(self.norm_ff(x))


class TextEncoder(nn.Module):
    """A small encoder of our own: BPE ids, learned positions, pre-norm layers, the mean over the tokens."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(config.max_tokens, config.width))
        self.layers = nn.ModuleList(TextEncoderLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Condition [B, C] of ids int64 [B, L] with `lengths` [B] tokens in [1, L]; L is at most the configured max_tokens."""
        if ids.dim() != 2 or ids.shape[1] > self.config.max_tokens or lengths.shape != ids.shape[:1]:
            raise RtInteractError(f"ids: expected [B, L <= {self.config.max_tokens}] and lengths [B], "
                                  f"got {list(ids.shape)} and {list(lengths.shape)}")
        lengths = lengths.to(ids.device)
        seen = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        x = F.dropout(self.embedding(ids) + self.positions[: ids.shape[1]], self.config.dropout, self.training)
        for layer in self.layers:
            x = layer(x, lengths)
        x = self.norm(x) * seen[..., None]
        return x.sum(1) / lengths.to(x.dtype)[:, None]


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> str:
    """The JSON of a byte-level BPE tokenizer (lower case, NFKC) of at most `vocabulary` entries trained on `texts`.

    All 256 bytes are in it, so no text is unknown; a small corpus gives fewer entries (see TextTokenizer.vocabulary).
    """
    if vocabulary < _BYTES + len(SPECIALS):
        raise ConfigError(f"vocabulary: expected at least {_BYTES + len(SPECIALS)} (bytes and specials), got {vocabulary}")
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIALS[UNKNOWN]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(),
                                                 normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    # Sorted: the trainer then sees one order whatever order the corpus was read in.
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(SPECIALS), show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(sorted(texts), trainer)
    return tokenizer.to_str()


class TextTokenizer:
    """A trained tokenizer; <bos> and <eos> surround each text."""

    def __init__(self, tokenizer_json: str):
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json)
        except Exception as error:  # the library raises bare Exception for every fault of the JSON
            raise CheckpointError(f"tokenizer: expected the JSON of a trained tokenizer, got one that fails: {error}") from error
        found = [self._tokenizer.token_to_id(name) for name in SPECIALS]
        if found != list(range(len(SPECIALS))):
            raise CheckpointError(f"tokenizer: expected ids 0-3 for {', '.join(SPECIALS)}, got {found}; "
                                  "train it with train_tokenizer")
        self._tokenizer.encode_special_tokens = True

    @property
    def vocabulary(self) -> int:
        """Entries, specials included."""
        return self._tokenizer.get_vocab_size()

    def encode(self, texts: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
        """Ids int64 [B, L], padded, and lengths [B]; a text over `max_tokens` is cut with a logged warning."""
        rows = []
        for text, encoding in zip(texts, self._tokenizer.encode_batch(list(texts)), strict=True):
            ids = encoding.ids
            if len(ids) > max_tokens - 2:
                log.warning("text of %d tokens cut to the model's %d: %.40r...", len(ids), max_tokens - 2, text)
            rows.append([BOS, *ids[: max_tokens - 2], EOS])
        longest = max((len(row) for row in rows), default=0)
        padded = [row + [PAD] * (longest - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64).view(len(rows), longest), torch.tensor([len(row) for row in rows])


class PromptEncoder:
    """Prompts to conditions [B, C], each encoded once: the last `capacity` prompts are kept.

    Kind "clip" needs `tower`, a callable list[str] -> (features [B, 77, 768] of the CLIP ViT-L/14@336px text tower after
    its final norm, eot_index [B]) such as `rtinteract.clip.ClipTower`, or conditions given with `put` or from a prompt bank
    (`rtinteract.bank`). Thread-safe.
    """

    def __init__(self, config: TextConfig, module: TextHead | TextEncoder | None, tokenizer: str | None = None, *,
                 tower: Tower | None = None, capacity: int = 256):
        if config.kind != "none" and module is None:
            raise ConfigError(f"text: expected the trained module of kind {config.kind!r}, got none; load a whole checkpoint")
        if config.kind == "bpe" and tokenizer is None:
            raise ConfigError("text: kind 'bpe' needs its tokenizer, got none; load a whole checkpoint")
        if capacity < 1:
            raise ConfigError(f"capacity: expected at least 1 prompt, got {capacity}")
        self.config, self.module, self.tower, self.capacity = config, module, tower, capacity
        self.tokenizer = TextTokenizer(tokenizer) if config.kind == "bpe" else None
        if self.tokenizer is not None and self.tokenizer.vocabulary > config.vocabulary:
            raise ConfigError(f"text.vocabulary: expected the tokenizer's {self.tokenizer.vocabulary} entries, got "
                              f"{config.vocabulary}; tokenizer and encoder are of different models")
        self._given: dict[str, Tensor] = {}
        self._cache: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, text: str, condition: Tensor) -> None:
        """Give the condition [C] of a prompt by hand (the head's output); it is kept for good.

        A prompt given is found again in any case and with any white space: no encoder here tells those apart.
        """
        condition = torch.as_tensor(condition, dtype=torch.float32)
        if condition.shape != (self.config.width,) or not bool(condition.isfinite().all()):
            raise RtInteractError(f"condition: expected {self.config.width} finite numbers, got shape {list(condition.shape)}")
        with self._lock:
            self._given[prompt_key(self._clean(text))] = condition.detach().clone()

    @property
    def given(self) -> list[str]:
        """The prompts given, by hand or from a bank, in lower case."""
        return list(self._given)

    def clear(self) -> None:
        """Forget the encoded prompts (after the encoder's weights changed); those given by hand stay."""
        with self._lock:
            self._cache.clear()

    @property
    def device(self) -> torch.device:
        """Where the module is, and the conditions are made."""
        return next(self.module.parameters()).device if self.module is not None else torch.device("cpu")

    @torch.no_grad()
    def probe(self) -> Tensor:
        """The module's answer [C] to an input that is always the same: two modules that answer alike encode alike.

        It tells models apart where a checksum of their weights would also tell a model from its float16 or int8 self.
        """
        if self.module is None:
            raise RtInteractError("text: this model takes no text; load a model with text")
        if self.tokenizer is not None:
            return self._answer(self.tokenizer.encode(["two people greet each other"], self.config.max_tokens), self.device)[0]
        length = self.config.max_tokens
        wave = torch.arange(length * self.config.width, dtype=torch.float64).mul(0.7).sin().float()
        return self._answer((wave.view(1, length, -1), torch.tensor([length // 2])), self.device)[0]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Conditions float32 [B, C] on the module's device; an empty text gives a row of zeros, which means no condition."""
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise RtInteractError(f"texts: expected a list of strings, got {type(texts).__name__}; wrap one text in a list")
        clean = [self._clean(text) for text in texts]
        device = self.device
        with self._lock:
            given = {t: self._given[prompt_key(t)] for t in clean if prompt_key(t) in self._given}
            unknown = [t for t in dict.fromkeys(clean) if t and t not in given and t not in self._cache]
            fresh = dict(zip(unknown, self._run(unknown, device), strict=True)) if unknown else {}
            known = {**self._cache, **given, **fresh, "": torch.zeros(self.config.width)}
            rows = [known[text].to(device) for text in clean]
            for text in clean:
                if text in fresh or text in self._cache:
                    self._cache[text] = known[text]
                    self._cache.move_to_end(text)
            while len(self._cache) > self.capacity:
                self._cache.popitem(last=False)
        return torch.stack(rows) if rows else torch.zeros(0, self.config.width, device=device)

    def _clean(self, text: str) -> str:
        if not isinstance(text, str):
            raise RtInteractError(f"text: expected a string, got {type(text).__name__} {text!r:.60}")
        text = text.strip()
        if len(text) > MAX_CHARACTERS:
            log.warning("text of %d characters cut to %d: %.40r...", len(text), MAX_CHARACTERS, text)
            text = text[:MAX_CHARACTERS]
        return text

    @torch.no_grad()
    def _run(self, texts: list[str], device: torch.device) -> list[Tensor]:
        """Conditions of texts, one row each; they go one by one, so that a row does not depend on its neighbours."""
        if self.config.kind == "none":
            raise RtInteractError(f"text: this model takes no text, got {texts[0]!r:.60}; leave it out or load a model with text")
        if self.tokenizer is not None:
            return [self._answer(self.tokenizer.encode([text], self.config.max_tokens), device)[0] for text in texts]
        if self.tower is None:
            raise RtInteractError(self._no_tower(texts[0]))
        return [self._answer(self.tower([text]), device)[0] for text in texts]

    def _answer(self, inputs: tuple[Tensor, Tensor], device: torch.device) -> Tensor:
        """Conditions [B, C] float32 of the module's inputs, in evaluation mode."""
        training = self.module.training
        self.module.eval()
        try:
            return self.module(*(t.to(device) for t in inputs)).float()
        finally:
            self.module.train(training)

    def _no_tower(self, text: str) -> str:
        """What to say of a prompt that only a tower could encode."""
        if self._given:
            near = difflib.get_close_matches(prompt_key(text), self._given, n=3, cutoff=0.4)
            nearest = f"; the nearest there are {', '.join(map(repr, near))}" if near else ""
            return (f"text: {text!r:.60} is not among the {len(self._given)} prompts given{nearest}; use one of them, add it "
                    "with `rtinteract prompts export`, or give a CLIP folder")
        return (f"text: this model reads CLIP ViT-L/14@336px features, which {text!r:.60} needs and nothing gives. Put "
                "model.safetensors, tokenizer.json and config.json of openai/clip-vit-large-patch14-336 in a folder (of a "
                "pytorch_model.bin, `rtinteract import-clip` makes one) and give it (load(..., clip=FOLDER), --clip FOLDER, "
                "RTI_CLIP=FOLDER), give a prompt bank that holds the prompt (bank=FILE, "
                "--bank FILE, RTI_BANK=FILE), give its condition with put(), or leave the text out")


def prompt_key(text: str) -> str:
    """What two spellings of one prompt have in common."""
    return " ".join(text.lower().split())
