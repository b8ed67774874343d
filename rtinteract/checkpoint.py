"""One model, one .safetensors file: tensors, and in its metadata the JSON configuration, tokenizer and card."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from rtinteract.codec import Codec
from rtinteract.config import FORMAT_VERSION, ModelConfig, TextConfig, from_dict, to_dict
from rtinteract.container import read_container, write_container
from rtinteract.errors import CheckpointError, ConfigError
from rtinteract.features.base import get
from rtinteract.features.normalize import Normalizer
from rtinteract.quant import quantized, restored
from rtinteract.text import TextEncoder, TextHead
from rtinteract.transformer import InterMTransformer

FORMAT = "rtinteract"
_OTHERWISE = "published .tar checkpoints go through `rtinteract import-intermask`"
# Ids, and the statistics and code vectors that decide them, keep full precision whatever the file's dtype.
_FULL_PRECISION = ("normalizer.", "codec.quantizer.")
# Beside each int8 tensor of a file lies the step of each of its outputs, under this name.
_STEP = ".step"


@dataclass
class ModelParts:
    """Everything a checkpoint holds. ``text`` is None for a model that takes no text; ``tokenizer`` is its JSON or None."""

    config: ModelConfig
    codec: Codec
    normalizer: Normalizer
    transformer: InterMTransformer
    text: TextHead | TextEncoder | None = None
    tokenizer: str | None = None
    card: dict = field(default_factory=dict)

    def modules(self) -> dict[str, nn.Module]:
        """The modules there are, by the prefix of their tensors."""
        parts = {"codec": self.codec, "normalizer": self.normalizer, "transformer": self.transformer, "text": self.text}
        return {name: module for name, module in parts.items() if module is not None}


def text_module(config: TextConfig) -> TextHead | TextEncoder | None:
    """The untrained text module of a configuration; None for kind "none"."""
    if config.kind == "none":
        return None
    return TextHead(config) if config.kind == "clip" else TextEncoder(config)


def build(config: ModelConfig) -> ModelParts:
    """An untrained model of a configuration, with the normaliser that changes nothing. The global random state is kept."""
    shape = get(config.representation)
    if (shape.joints, shape.features) != (config.codec.joints, config.codec.features):
        raise ConfigError(f"codec.joints/features: expected {shape.joints} x {shape.features} of representation "
                          f"{config.representation!r}, got {config.codec.joints} x {config.codec.features}; mend one of them")
    with torch.random.fork_rng(devices=[]):
        return ModelParts(config, Codec(config.codec), Normalizer.identity(config.codec.joints, config.codec.features),
                          InterMTransformer(config.transformer), text_module(config.text))


def some(names) -> str:
    """A few of many names, for a message."""
    names = sorted(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def fill(module: nn.Module, tensors: dict[str, torch.Tensor], what: str) -> None:
    """Copy tensors into a module, one for each of its own; CheckpointError on a missing, extra, misshapen or non-finite one."""
    own = module.state_dict()
    missing, extra = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    if missing or extra:
        told = [f"{word} {len(keys)} ({some(keys)})" for word, keys in (("missing", missing), ("unexpected", extra)) if keys]
        raise CheckpointError(f"{what}: expected its {len(own)} tensors, got {' and '.join(told)}; take the file that belongs "
                              "to this configuration")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(f"{what}: expected {name} of shape {list(own[name].shape)}, got {list(tensor.shape)}; take the "
                                  "file that belongs to this configuration")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"{what}: expected finite values, got NaN or infinity in {name}; take an earlier checkpoint")
    module.load_state_dict(tensors)


def _tensors(parts: ModelParts, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    out = {}
    for prefix, module in parts.modules().items():
        for name, tensor in module.state_dict().items():
            key, tensor = f"{prefix}.{name}", tensor.detach().cpu().contiguous()
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise CheckpointError(f"save_model: expected finite values, got NaN or infinity in {key}; nothing was written")
            if dtype is not None and tensor.is_floating_point() and not key.startswith(_FULL_PRECISION):
                if dtype != torch.int8:
                    tensor = tensor.to(dtype)
                elif tensor.dim() > 1:
                    tensor, out[key + _STEP] = quantized(tensor)
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    raise CheckpointError(f"save_model: expected values that {dtype} holds, got larger ones in {key}; nothing "
                                          "was written")
            out[key] = tensor
    return out


def _restored(tensors: dict[str, torch.Tensor], what: str) -> dict[str, torch.Tensor]:
    """A file's tensors with those in int8 as float32; CheckpointError where int8 and its steps do not go together."""
    narrow = {key for key, tensor in tensors.items() if tensor.dtype == torch.int8}
    out = {key: tensor for key, tensor in tensors.items() if key.removesuffix(_STEP) not in narrow}
    for key in sorted(narrow):
        weight, step = tensors[key], tensors.get(key + _STEP)
        if step is None or step.dtype != torch.float32 or step.shape != weight.shape[:1]:
            got = "none" if step is None else f"{step.dtype} {list(step.shape)}"
            raise CheckpointError(f"{what}: expected steps float32 {list(weight.shape[:1])} beside int8 {key}, got {got}; "
                                  "quantise the model again")
        out[key] = restored(weight, step)
    return out


def save_model(path, parts: ModelParts, *, dtype: torch.dtype | None = None, card: dict | None = None) -> None:
    """Write a model to ``path``, whole or not at all. ``dtype`` (torch.float16, torch.bfloat16 or torch.int8) shrinks the
    weights; ``card`` replaces the parts' own. CheckpointError if the parts do not fit their configuration or are not finite."""
    c = parts.config
    if parts.codec.config != c.codec or parts.transformer.config != c.transformer:
        raise CheckpointError("save_model: expected codec and transformer of parts.config, got modules of other "
                              "configurations; build the configuration from the modules")
    if (parts.text is None) != (c.text.kind == "none"):
        raise CheckpointError(f"save_model: text.kind is {c.text.kind!r} but the text module is "
                              f"{'missing' if parts.text is None else 'there'}; make them agree")
    kept = "float32" if dtype is None else str(dtype).removeprefix("torch.")
    metadata = {"format": FORMAT, "format_version": str(FORMAT_VERSION),
                "config": json.dumps(to_dict(replace(c, precision=kept))),
                "card": json.dumps(parts.card if card is None else card)}
    if parts.tokenizer is not None:
        metadata["tokenizer"] = parts.tokenizer
    write_container(Path(path), _tensors(parts, dtype), metadata)


def _config_of(path: Path, metadata: dict) -> ModelConfig:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected a model of rtinteract, got a .safetensors file of another program; published "
                              "checkpoints go through `rtinteract import-intermask`")
    try:
        version = int(metadata["format_version"])
    except (KeyError, ValueError):
        got = metadata.get("format_version")
        raise CheckpointError(f"{path}: expected a format_version, got {got!r}; fetch it again") from None
    if version > FORMAT_VERSION:
        raise CheckpointError(f"{path}: expected format {FORMAT_VERSION} or older, got {version}: it is from a newer rtinteract; "
                              "update the package")
    try:
        return from_dict(ModelConfig, json.loads(metadata["config"]))
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: expected a valid configuration, got an error ({error}); fetch it again") from error


def load_model(path) -> ModelParts:
    """The model of a .safetensors file, in evaluation mode, on the CPU, float32. CheckpointError says what is wrong with it."""
    path = Path(path)
    metadata, tensors = read_container(path, _OTHERWISE)
    config = _config_of(path, metadata)
    try:
        parts = build(config)
        parts.card = json.loads(metadata.get("card", "{}"))
    except ValueError as error:
        raise CheckpointError(f"{path}: expected a configuration that can be built, got an error ({error})") from error
    parts.tokenizer = metadata.get("tokenizer")
    tensors, modules = _restored(tensors, str(path)), parts.modules()
    strange = [k for k in tensors if k.split(".", 1)[0] not in modules]
    if strange:
        raise CheckpointError(f"{path}: unexpected {len(strange)} tensors ({some(strange)}); expected only those of "
                              f"{', '.join(modules)}")
    for prefix, module in modules.items():
        own = {k[len(prefix) + 1:]: v for k, v in tensors.items() if k.startswith(prefix + ".")}
        fill(module.eval(), own, f"{path}: {prefix}")
    return parts
