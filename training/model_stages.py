"""The stages of an assembled model, so that a training may go on from a model file, the shipped one too."""

from __future__ import annotations

from pathlib import Path

import torch

from rtinteract.checkpoint import load_model
from rtinteract.config import to_dict
from rtinteract.errors import CheckpointError

STAGES = ("codec", "text", "transformer")


def stage_of(path: Path, kind: str) -> tuple[dict, dict[str, dict[str, torch.Tensor]]]:
    """What `state.load_stage` gives for stage "codec", "text" or "transformer", from a model of `rtinteract train assemble`.

    Weights are float32, however the file holds them. CheckpointError where the model lacks that stage.
    """
    if kind not in STAGES:
        raise CheckpointError(f"{path}: expected the result of training stage {kind!r}, got a model, which holds "
                              f"{', '.join(STAGES)}; give the {kind}.safetensors that rtinteract train {kind} wrote")
    parts = load_model(path)
    if kind != "codec" and parts.text is None:
        raise CheckpointError(f"{path}: expected a model that reads text, got one without a text encoder; give another one")
    modules = {"codec": ("codec", "normalizer"), "text": ("text",), "transformer": ("transformer", "text")}[kind]
    config = {"codec": to_dict(parts.config.codec), "representation": parts.config.representation,
              "text": to_dict(parts.config.text), "transformer": to_dict(parts.config.transformer)}
    card = parts.card.get(kind, {})
    about = {"stage": kind, "config": config, "card": card if isinstance(card, dict) else {"about": card},
             "texts": {"tokenizer": parts.tokenizer or ""}}
    return about, {name: dict(parts.modules()[name].state_dict()) for name in modules}
