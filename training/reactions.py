"""Composed pairs whose second person a model made: what the network that tells touches learns a model's own errors from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rtinteract.training.evaluate_figures import START
from rtinteract.training.pairs import PairClip, read_shard, shards_of, write_index, write_shard
from tqdm import tqdm

from rtinteract.config import to_dict
from rtinteract.errors import ConfigError
from rtinteract.model import Model
from rtinteract.motion import Motion
from rtinteract.motion.atomic import replacing

# Clips sampled at once, which is also a shard.
BATCH = 32
# Share of reactions made with their text.
WITH_TEXT = 0.8
_BEGUN = "begun.json"


def chosen(folder: Path, count: int, kinds: Sequence[str] | None = None, seed: int = 0) -> list[PairClip]:
    """``count`` clips of a folder of composed pairs by chance, only of ``kinds`` if given; all there are if fewer.

    ConfigError where none is of these kinds.
    """
    shards = shards_of(folder)
    found: list[PairClip] = []
    for i in np.random.default_rng(seed).permutation(len(shards)):
        found += [c for c in read_shard(shards[i]) if kinds is None or c.kind in kinds]
        if len(found) >= count:
            break
    if not found:
        raise ConfigError(f"{folder}: expected pairs of {', '.join(kinds or ['any kind'])}, got none; compose them")
    return found[:count]


def remade(model: Model, clips: Sequence[PairClip], seed: int) -> list[PairClip]:
    """The clips with the model's reaction in place of the second person, who keeps body and first frames; contacts stay those of
    the clip."""
    rng = np.random.default_rng(seed)
    people = [c.motions() for c in clips]
    texts = [str(rng.choice(c.texts)) if c.texts and rng.random() < WITH_TEXT else "" for c in clips]
    made = model.react([a for a, _ in people], texts, start=[b[:START] for _, b in people], seed=seed)
    return [_with(clip, motion) for clip, motion in zip(clips, made, strict=True)]


def _with(clip: PairClip, reactor: Motion) -> PairClip:
    root, rotations = clip.root.copy(), clip.rotations.copy()
    root[1], rotations[1] = reactor.positions[:, 0], reactor.rotations
    return replace(clip, root=root, rotations=rotations, meta={**clip.meta, "made": True})


def write_reactions(model: Model, folder: Path, out: Path, count: int, kinds: Sequence[str] | None = None, seed: int = 0,
                    progress: bool = True) -> int:
    """Write ``count`` clips of ``folder`` with the model's reactions to the folder ``out``, as pairs; returns how many.

    Stopped and called again the same way, it goes on with what is missing. ConfigError as `chosen`, and for a folder that was
    begun another way.
    """
    clips = chosen(folder, count, kinds, seed)
    _begin(out, {"model": _digest(model), "pairs": [len(clips), clips[0].seed, clips[-1].seed], "kinds": sorted(kinds or []),
                 "seed": seed})
    names = []
    for first in tqdm(range(0, len(clips), BATCH), desc="reactions", unit="batch", disable=not progress):
        name = f"pairs-{first // BATCH:05d}.npz"
        if not (out / name).exists():
            write_shard(out / name, remade(model, clips[first:first + BATCH], seed * 1_000_003 + first))
        names.append(name)
    write_index(out, names, {"clips": len(clips), "reactor": model.config.name})
    return len(clips)


def _digest(model: Model) -> str:
    """Tells one model's weights from another's."""
    digest = hashlib.sha256(json.dumps(to_dict(model.config), sort_keys=True).encode())
    for _, module in sorted(model.parts.modules().items()):
        for _, value in sorted(module.state_dict().items()):
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _begin(out: Path, about: dict) -> None:
    """Note what a folder's reactions are made of; ConfigError where it was begun otherwise."""
    begun = out / _BEGUN
    if begun.is_file():
        try:
            there = dict(json.loads(begun.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{begun}: expected what the reactions are made of, got a file that cannot be read ({error}); give "
                              "another folder") from error
        if there != about:
            other = sorted(k for k in about if there.get(k) != about[k])
            raise ConfigError(f"{out}: expected reactions begun the same way, got others ({', '.join(other)} differ); give "
                              "another folder")
        return
    with replacing(begun) as beside:
        beside.write_text(json.dumps(about), encoding="utf-8")
