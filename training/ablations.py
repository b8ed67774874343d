"""InterMask's ablations of the transformer (Tables 3 and 4) as configurations of any recipe, and the run that trains them all.

An ablation changes one thing; everything else stays as the recipe has it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rtinteract.training.assemble import assemble
from rtinteract.training.transformer import TransformerTraining, train_transformer

from rtinteract.config import ATTENTION
from rtinteract.errors import ConfigError

log = logging.getLogger(__name__)
Change = Callable[[TransformerTraining], TransformerTraining]


def _without(kind: str) -> Change:
    def change(config: TransformerTraining) -> TransformerTraining:
        return replace(config, sizes=replace(config.sizes, attention=tuple(k for k in ATTENTION if k != kind)))
    return change


def _alternating(config: TransformerTraining) -> TransformerTraining:
    return replace(config, sizes=replace(config.sizes, modelling="alternating"))


def _plainly_masked(config: TransformerTraining) -> TransformerTraining:
    return replace(config, unroll=0.0, shares=replace(config.shares, interaction=0.0))


def _random_share(share: float) -> Change:
    """p_r of the samples that are not a stream's."""
    def change(config: TransformerTraining) -> TransformerTraining:
        return replace(config, shares=replace(config.shares, interaction=round((1 - share) * (1 - config.shares.streaming), 6)))
    return change


ABLATIONS: dict[str, Change] = {
    "alternating": _alternating,
    "no-self": _without("self"),
    "no-cross": _without("cross"),
    "no-spatio-temporal": _without("spatio-temporal"),
    "no-unroll-interaction": _plainly_masked,
    "p_r-0.7": _random_share(0.7),
    "p_r-0.8": _random_share(0.8),
    "p_r-0.9": _random_share(0.9),
}


def ablated(config: TransformerTraining, name: str) -> TransformerTraining:
    """A configuration with the named ablation; ConfigError lists the names there are."""
    if name not in ABLATIONS:
        raise ConfigError(f"ablation: expected one of {', '.join(ABLATIONS)}, got {name!r}")
    return ABLATIONS[name](config)


def train_ablations(config: TransformerTraining, codec: Path, pairs, held_out, *, out: Path, names=tuple(ABLATIONS),
                    **limits) -> dict[str, Path]:
    """Train each ablation into ``out``/NAME and assemble its model; the models by name. One that was assembled is passed over,
    one that was stopped goes on. ``limits`` as `train_transformer` takes them (steps, minutes, threads, device, progress)."""
    models = {}
    for name in names:
        model = out / name / "model.safetensors"
        if not model.is_file():
            log.info("ablation %s", name)
            train_transformer(ablated(config, name), codec, pairs, out=out / name, held_out=held_out, **limits)
            assemble(codec, out / name / "transformer.safetensors", model)
        models[name] = model
    return models
