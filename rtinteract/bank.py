"""Prompt banks: encoded prompts in a file, so that a model that reads CLIP runs without its tower."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from rtinteract.config import to_dict
from rtinteract.container import read_container, write_container
from rtinteract.errors import CheckpointError, ConfigError
from rtinteract.text import PromptEncoder, prompt_key

FORMAT, FORMAT_VERSION = "rtinteract-prompts", 1
_OTHERWISE = "make a bank with `rtinteract prompts export`"
# How far the answers of two text modules to the same probe may be apart for one's bank to serve the other, as a share of the
# largest number: int8 weights were seen to move an answer by 0.012, another model's by 1.4.
_SAME = 0.1


def write_bank(path: str | Path, prompts: PromptEncoder, texts: Sequence[str], name: str = "") -> int:
    """Encode texts and write them to ``path``, whole or not at all; returns how many, spellings of one prompt counted once.

    ``name`` is the model's. The encoder needs whatever its prompts need, such as a tower. ConfigError without texts.
    """
    unique: dict[str, str] = {}
    for text in texts:
        if text.strip():
            unique.setdefault(prompt_key(text), text.strip())
    if not unique:
        raise ConfigError("prompts: expected at least one text, got none; give some")
    tensors = {"conditions": prompts.encode(list(unique.values())).cpu(), "probe": prompts.probe().cpu()}
    write_container(Path(path), tensors, {
        "format": FORMAT, "format_version": str(FORMAT_VERSION), "model": name, "texts": json.dumps(list(unique.values())),
        "text_config": json.dumps(to_dict(prompts.config))})
    return len(unique)


def read_bank(path: str | Path, prompts: PromptEncoder) -> list[str]:
    """Give an encoder the prompts of a bank; returns them.

    CheckpointError for a missing or damaged file, or one that was made with another model's text module.
    """
    path = Path(path)
    metadata, tensors = read_container(path, _OTHERWISE)
    texts, config = _told(path, metadata)
    _check_model(path, metadata.get("model") or "a model without a name", config, tensors, prompts)
    conditions = tensors["conditions"]
    if conditions.shape != (len(texts), prompts.config.width) or not bool(conditions.isfinite().all()):
        raise CheckpointError(f"{path}: expected {len(texts)} finite conditions of {prompts.config.width}, got shape "
                              f"{list(conditions.shape)} or values that are not finite; export it again")
    for text, condition in zip(texts, conditions, strict=True):
        prompts.put(text, condition)
    return texts


def _told(path: Path, metadata: dict[str, str]) -> tuple[list[str], dict]:
    """(texts, text configuration) of a bank's metadata."""
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected a prompt bank, got a .safetensors file of another kind; {_OTHERWISE}")
    try:
        version, texts = int(metadata["format_version"]), json.loads(metadata["texts"])
        config = json.loads(metadata["text_config"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a whole prompt bank, got an error ({error!r}); export it again") from error
    if version > FORMAT_VERSION:
        raise CheckpointError(f"{path}: expected format {FORMAT_VERSION} or older, got {version}: it is from a newer rtinteract; "
                              "update the package")
    return texts, config


def _check_model(path: Path, made_with: str, config: dict, tensors: dict[str, torch.Tensor], prompts: PromptEncoder) -> None:
    ours = to_dict(prompts.config)
    other = [f"text.{k} {config.get(k)!r} for {v!r}" for k, v in ours.items() if config.get(k) != v]
    again = "take the bank that was exported with this model, or export one"
    if other:
        raise CheckpointError(f"{path}: expected a bank of this model, got one of {made_with} ({', '.join(other)}); {again}")
    if set(tensors) != {"conditions", "probe"} or tensors["probe"].shape != (prompts.config.width,):
        raise CheckpointError(f"{path}: expected conditions and a probe, got {', '.join(sorted(tensors)) or 'nothing'}; export "
                              "it again")
    answer = prompts.probe().cpu()
    if not (answer - tensors["probe"]).abs().max() <= _SAME * answer.abs().max():
        raise CheckpointError(f"{path}: expected a bank of this model, got one made with other text weights ({made_with}); "
                              f"{again}")
