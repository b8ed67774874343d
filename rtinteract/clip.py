"""The text tower of CLIP from a local folder: what a published InterMask model reads its prompts through."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn

from rtinteract.checkpoint import fill, some
from rtinteract.config import TextConfig
from rtinteract.container import check_container
from rtinteract.errors import CheckpointError

log = logging.getLogger(__name__)

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
WANTED = f"a folder of CLIP ViT-L/14@336px (openai/clip-vit-large-patch14-336) with {WEIGHTS}, {TOKENIZER} and {CONFIG}"
_TOKEN_EMBEDDING = "embeddings.token_embedding.weight"
_POSITION_EMBEDDING = "embeddings.position_embedding.weight"
# An index that old files hold beside the weights.
_INDEX = "embeddings.position_ids"
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"
# The published models were trained on prompts padded with this id, and their head attends to the padding: CLIP's usual
# padding (the end token) would give other conditions.
PAD = 0
_HEAD_WIDTH = 64
_PIXELS = 336


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's own approximation of GELU: x * sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


_ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": F.gelu}


@dataclass(frozen=True)
class TowerConfig:
    """The sizes of a text tower; the defaults are those of ViT-L/14@336px."""

    vocabulary: int = 49408
    positions: int = 77
    width: int = 768
    heads: int = 12
    layers: int = 12
    ff: int = 3072
    activation: str = "quick_gelu"
    epsilon: float = 1e-5


class ClipAttention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.heads = config.heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(config.width, config.width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class ClipLayer(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.activation = _ACTIVATIONS[config.activation]
        self.layer_norm1 = nn.LayerNorm(config.width, config.epsilon)
        self.self_attn = ClipAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.width, config.epsilon)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(config.width, config.ff), "fc2": nn.Linear(config.ff, config.width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp["fc2"](self.activation(self.mlp["fc1"](self.layer_norm2(x))))


class ClipText(nn.Module):
    """CLIP's text transformer. Its tensors are named as `transformers` names them, so that a file loads to the letter."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        self.embeddings = nn.ModuleDict({"token_embedding": nn.Embedding(config.vocabulary, config.width),
                                         "position_embedding": nn.Embedding(config.positions, config.width)})
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(ClipLayer(config) for _ in range(config.layers))})
        self.final_layer_norm = nn.LayerNorm(config.width, config.epsilon)

    def forward(self, ids: Tensor) -> Tensor:
        """Features [B, L, D] after the final norm, before any projection, of ids int64 [B, L], L at most the positions."""
        x = self.embeddings["token_embedding"](ids) + self.embeddings["position_embedding"].weight[:ids.shape[1]]
        for layer in self.encoder["layers"]:
            x = layer(x)
        return self.final_layer_norm(x)


class ClipTokenizer:
    """CLIP's byte-pair tokenizer from a `tokenizer.json`."""

    def __init__(self, path: Path):
        if not path.is_file():
            raise CheckpointError(f"{path}: expected CLIP's tokenizer, got nothing there; give {WANTED}")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for every fault of the file
            raise CheckpointError(f"{path}: expected CLIP's tokenizer, got a file that cannot be read ({error}); fetch it "
                                  "again") from error
        self.bos, self.eos = (self._tokenizer.token_to_id(name) for name in (_BOS, _EOS))
        if self.bos is None or self.eos is None:
            raise CheckpointError(f"{path}: expected CLIP's tokenizer with {_BOS} and {_EOS}, got one without; take CLIP's own")
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # A prompt that spells a special token means its letters.
        self._tokenizer.encode_special_tokens = True

    @property
    def vocabulary(self) -> int:
        """Entries, special ones included."""
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str, length: int) -> tuple[list[int], int]:
        """(`length` ids, index of the end token). A text too long is cut, its end token kept, with a logged warning."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) > length - 2:
            log.warning("text of %d tokens cut to the %d that CLIP reads: %.40r...", len(ids), length - 2, text)
        ids = [self.bos, *ids[:length - 2], self.eos]
        return ids + [PAD] * (length - len(ids)), len(ids) - 1


class ClipTower:
    """list[str] -> (features [B, 77, 768], index of the end token [B]), of a Hugging Face-style folder.

    The folder's files are checked at once, the weights are read at the first prompt. CheckpointError for a missing, damaged
    or unfit file.
    """

    def __init__(self, folder: str | Path, text: TextConfig, device: torch.device | str = "cpu"):
        self.folder, self.device = Path(folder), torch.device(device)
        self._file = _weights_of(self.folder)
        shapes, self._prefix = _shapes(self._file)
        self.config = _config(self.folder, shapes)
        _check(self._file, self.config, shapes, text)
        self.tokenizer = ClipTokenizer(self.folder / TOKENIZER)
        if self.tokenizer.vocabulary > self.config.vocabulary:
            raise CheckpointError(f"{self.folder / TOKENIZER}: expected at most the {self.config.vocabulary} entries that "
                                  f"{WEIGHTS} knows, got {self.tokenizer.vocabulary}; both must be of one model")

    @cached_property
    def module(self) -> ClipText:
        """The tower itself, float32 on the device, in evaluation mode."""
        with torch.device("meta"):
            module = ClipText(self.config)
        with safe_open(self._file, "pt") as file:
            tensors = {name: file.get_tensor(self._prefix + name) for name in module.state_dict()}
        module = module.to_empty(device=self.device).requires_grad_(False).eval()
        fill(module, tensors, str(self._file))
        return module

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        rows = [self.tokenizer.encode(text, self.config.positions) for text in texts]
        ids = torch.tensor([row for row, _ in rows], device=self.device)
        return self.module(ids), torch.tensor([end for _, end in rows], device=self.device)


def _weights_of(folder: Path) -> Path:
    if not folder.is_dir():
        there = "a file" if folder.exists() else "nothing"
        raise CheckpointError(f"{folder}: expected {WANTED}, got {there} there; check the path")
    file = folder / WEIGHTS
    if not file.is_file() and (folder / "pytorch_model.bin").is_file():
        raise CheckpointError(f"{file}: expected the weights, got only pytorch_model.bin; turn it into a folder that can be read "
                              f"with `rtinteract import-clip {folder} --out FOLDER`")
    if not file.is_file():
        raise CheckpointError(f"{file}: expected the weights, got nothing there; give {WANTED}")
    check_container(file, f"take {WANTED}")
    return file


def text_keys(names, file: Path) -> tuple[set[str], str]:
    """(names of a CLIP model's text tower, without what comes before them; what comes before them), of the names in a file."""
    found = [name for name in names if name.endswith(_TOKEN_EMBEDDING)]
    if len(found) != 1:
        raise CheckpointError(f"{file}: expected the text tower of a CLIP model ({_TOKEN_EMBEDDING}), got "
                              f"{some(names) or 'no tensors'}; take {WANTED}")
    prefix = found[0].removesuffix(_TOKEN_EMBEDDING)
    known = ("embeddings.", "encoder.", "final_layer_norm.")
    return {name.removeprefix(prefix) for name in names
            if name.startswith(tuple(prefix + k for k in known))} - {_INDEX}, prefix


def _shapes(file: Path) -> tuple[dict[str, tuple[int, ...]], str]:
    """(shapes of the text tower's tensors, what stands before their names); nothing but the header is read."""
    with safe_open(file, "pt") as opened:
        names, prefix = text_keys(opened.keys(), file)
        slices = {name: opened.get_slice(prefix + name) for name in names}
        kinds = {s.get_dtype() for s in slices.values()} - {"F16", "BF16", "F32"}
        if kinds:
            raise CheckpointError(f"{file}: expected float weights, got {', '.join(sorted(kinds))}; take the unquantised file")
        return {name: tuple(s.get_shape()) for name, s in slices.items()}, prefix


def _config(folder: Path, shapes: dict[str, tuple[int, ...]]) -> TowerConfig:
    """Sizes from the shapes; what shapes do not say from config.json, or as every published CLIP has it."""
    told = _told(folder / CONFIG)
    fc1 = shapes.get("encoder.layers.0.mlp.fc1.weight")
    positions = shapes.get(_POSITION_EMBEDDING)
    if fc1 is None or positions is None:
        raise CheckpointError(f"{folder / WEIGHTS}: expected a CLIP text tower with {_POSITION_EMBEDDING} and layers, got "
                              f"{some(shapes)}; take {WANTED}")
    vocabulary, width = shapes[_TOKEN_EMBEDDING]
    layers = 1 + max(int(name.split(".")[2]) for name in shapes if name.startswith("encoder.layers."))
    default = TowerConfig()
    # A configuration without the number of heads means what `transformers` takes then.
    heads = told.get("num_attention_heads", 8 if told else width // _HEAD_WIDTH)
    activation, epsilon = told.get("hidden_act", default.activation), told.get("layer_norm_eps", default.epsilon)
    if activation not in _ACTIVATIONS:
        raise CheckpointError(f"{folder / CONFIG}: expected hidden_act {' or '.join(_ACTIVATIONS)}, got {activation!r}; take "
                              f"{WANTED}")
    if not isinstance(heads, int) or heads < 1 or width % heads or not isinstance(epsilon, float):
        raise CheckpointError(f"{folder / CONFIG}: expected num_attention_heads that divides the width {width} and a "
                              f"layer_norm_eps, got {heads!r} and {epsilon!r}; take the file that belongs to {WEIGHTS}")
    return TowerConfig(vocabulary, positions[0], width, heads, layers, fc1[0], activation, epsilon)


def _told(path: Path) -> dict:
    """The text part of a config.json; {} where there is no file."""
    if not path.is_file():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        pixels = told.get("vision_config", {}).get("image_size", _PIXELS)
        text = told.get("text_config", told)
        text.keys()
    except (ValueError, OSError, AttributeError) as error:
        raise CheckpointError(f"{path}: expected the JSON configuration of a CLIP model, got one that cannot be read ({error}); "
                              "fetch it again") from error
    if pixels != _PIXELS:
        log.warning("%s: a CLIP for pictures of %s pixels; published InterMask models read ViT-L/14@%dpx, whose text weights are "
                    "others", path, pixels, _PIXELS)
    return text


def _check(file: Path, config: TowerConfig, shapes: dict[str, tuple[int, ...]], text: TextConfig) -> None:
    """CheckpointError unless the file holds the tower, whole, that the model's head was trained on."""
    if (config.width, config.positions) != (text.width, text.max_tokens):
        raise CheckpointError(f"{file}: expected a text tower {text.width} wide with {text.max_tokens} positions, as the model "
                              f"was trained on, got {config.width} wide with {config.positions}; published models take {WANTED}")
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in ClipText(config).state_dict().items()}
    wrong = [name for name in wanted.keys() | shapes.keys() if wanted.get(name) != shapes.get(name)]
    if wrong:
        name = min(wrong)
        raise CheckpointError(f"{file}: expected the {len(wanted)} tensors of a CLIP text tower, but {len(wrong)} are missing, "
                              f"unexpected or of another shape ({some(wrong)}; {name}: expected {wanted.get(name, 'none')}, got "
                              f"{shapes.get(name, 'none')}); fetch it again")
