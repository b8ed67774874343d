"""One model file from the stages' results."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from rtinteract.training.codec import load_codec
from rtinteract.training.pairs import PairClip
from rtinteract.training.transformer import Trained, load_transformer

from rtinteract.checkpoint import ModelParts, save_model
from rtinteract.config import ModelConfig
from rtinteract.errors import CheckpointError
from rtinteract.motion import write_motion


def assemble(codec_file: Path, transformer_file: Path, out: Path, *, name: str = "rtinteract-small", window: int = 64,
             half: bool = True, card: dict | None = None, mean_with: Path | None = None,
             choice_temperature: float = 0.0) -> ModelParts:
    """Write ``out``, one model of codec, transformer, text encoder and tokenizer; ``half`` stores the weights as float16.

    ``card`` adds to the stages' own cards. ``mean_with`` is a transformer that one of the two runs began with: the mean of both
    one's weights often does what either does better (Wortsman et al. 2022). ``choice_temperature`` is what the model samples with
    unless told otherwise (`rtinteract.sampler.sample_codes`). CheckpointError if the transformer was trained on another codec, or
    the two differ in form.
    """
    codec, normalizer, representation, codec_card = load_codec(codec_file)
    trained = load_transformer(transformer_file)
    if mean_with is not None:
        card = {"mean_with": _mean(trained, transformer_file, mean_with)} | (card or {})
    if trained.codec != codec.config or trained.representation != representation:
        raise CheckpointError(f"{transformer_file}: expected a transformer of the codec in {codec_file}, got one of another "
                              "configuration or representation; give the codec file it was trained with")
    config = ModelConfig(representation=representation, codec=codec.config, transformer=trained.transformer.config,
                         text=trained.text_config, window=window, name=name, choice_temperature=choice_temperature)
    about = {"codec": codec_card, "transformer": {k: v for k, v in trained.card.items() if k != "codec"}, **(card or {})}
    parts = ModelParts(config, codec, normalizer, trained.transformer, trained.text, trained.tokenizer, about)
    save_model(out, parts, dtype=torch.float16 if half else None)
    return parts


def _mean(trained: Trained, file: Path, other_file: Path) -> dict:
    """Move the weights of ``trained`` to the mean of its own and the other file's, whose card this returns."""
    other = load_transformer(other_file)
    forms = [(t.transformer.config, t.text_config, t.tokenizer, t.codec, t.representation) for t in (trained, other)]
    if forms[0] != forms[1]:
        raise CheckpointError(f"{other_file}: expected a transformer of the same codec, sizes and words as {file}, got one that "
                              "differs; give one whose run --start began from the other")
    for module, second in ((trained.transformer, other.transformer), (trained.text, other.text)):
        own, values = module.state_dict(), second.state_dict()
        module.load_state_dict({k: v.lerp(values[k], 0.5) if v.is_floating_point() else v for k, v in own.items()})
    return {k: v for k, v in other.card.items() if k != "codec"}


def bundle_scene(clip: PairClip, folder: Path, start_frames: int = 4) -> None:
    """Write the demo's scene from a pair: the actor (person 0), how the other person stands at first, texts and contacts."""
    folder = Path(folder)
    actor, reactor = clip.motions()
    write_motion(folder / "actor.npz", actor)
    write_motion(folder / "start.npz", reactor[:start_frames])
    about = {"text": clip.texts[0], "kind": clip.kind, "seed": clip.seed, "contacts": [asdict(c) for c in clip.contacts]}
    (folder / "scene.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
