"""How near a quantised model is to the float32 model it came from: codes, reconstruction, reactions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rtinteract.errors import ConfigError
from rtinteract.metrics import mpjpe, pelvis_distance, touching_point
from rtinteract.model import Model
from rtinteract.motion import Motion
from rtinteract.pipeline import Poses, only

#: What an int8 model promises (DESIGN, budgets): top-1 agreement of codes, and millimetres of reconstruction.
LEAST_TOP1, MOST_MM = 0.97, 2.0
_SHARES = (0.3, 0.7, 1.0)
_WRISTS = (20, 21)


def _windows(pair: tuple[Motion, Motion], size: int, least: int):
    """The pair's poses, a model's window at a time."""
    people = [Poses.of(motion) for motion in pair]
    for start in range(0, len(people[0]) - least + 1, size):
        yield [p[start:start + size] for p in people]


@torch.inference_mode()
def codes_agreement(full: Model, narrow: Model, pairs: Sequence[tuple[Motion, Motion]], seed: int = 0) -> dict:
    """Teacher-forced: of the reactor's codes three shares are masked in turn, the rest and the actor are true. Answers the share
    of masked tokens whose likeliest code is the same (``top1``), the mean KL divergence from ``full`` in nats (``kl``), and how
    many ``tokens`` these were.

    ``pairs`` are motions in the model's form; text is left out.
    """
    pipeline = full.pipeline
    mask_id = full.config.transformer.mask_id
    generator = torch.Generator().manual_seed(seed)
    same, tokens, divergence = 0, 0, 0.0
    for people in (w for pair in pairs for w in _windows(pair, full.config.window, pipeline.stride)):
        frames = pipeline.frames([p.positions[0] for p in people], None, seed)
        codes = torch.cat([pipeline.encode(Poses.stack([p]), only(frames, i)) for i, p in enumerate(people)])
        known = torch.tensor([[True], [False]]).expand(2, codes.shape[-1])
        placement = pipeline.placement(frames, people, known)
        for share in _SHARES:
            hidden = torch.rand(codes.shape[1:], generator=generator) < share
            if not hidden.any():
                continue
            asked = codes.clone()
            asked[1][hidden] = mask_id
            true, near = (m.pipeline.transformer(asked[None], None, placement=None if placement is None else placement[None])
                          [0, 1][hidden].float().log_softmax(-1) for m in (full, narrow))
            same += int((true.argmax(-1) == near.argmax(-1)).sum())
            tokens += len(true)
            divergence += float((true.exp() * (true - near)).sum())
    if not tokens:
        raise ConfigError(f"clips: expected at least one of {pipeline.stride} frames, got shorter ones; give longer clips")
    return {"top1": same / tokens, "kl": divergence / tokens, "tokens": tokens}


def reconstruction_agreement(full: Model, narrow: Model, motions: Sequence[Motion]) -> dict:
    """Millimetres, the mean over motions: each model's error (MPJPE), and how far the second's mean error is from the first's."""
    errors = np.array([[mpjpe(m.reconstruct(motion), motion) for m in (full, narrow)] for motion in motions]).mean(0)
    return {"full_mm": float(errors[0]), "int8_mm": float(errors[1]), "difference_mm": float(abs(errors[1] - errors[0]))}


def _closest_hands(a: Motion, b: Motion) -> float:
    """Centimetres between the nearest two palms of two people at the moment when they are nearest."""
    hands = [[touching_point(m, joint) for joint in _WRISTS] for m in (a, b)]
    return 100 * min(float(np.linalg.norm(x - y, axis=-1).min()) for x in hands[0] for y in hands[1])


def reaction_agreement(full: Model, narrow: Model, pairs: Sequence[tuple[Motion, Motion]], seed: int = 0) -> dict:
    """Whole reactions with one seed, from the partner's first pose: the mean distance of the two people (m) and how near their
    palms come (cm), of each model's, and by how much the means differ.

    A single code drawn otherwise makes another motion, so motions are compared by these figures and not frame by frame.
    """
    figures = []
    for model in (full, narrow):
        made = [model.react(actor, start=partner[:1], seed=seed) for actor, partner in pairs]
        figures.append(np.mean([[pelvis_distance(actor, m).mean(), _closest_hands(actor, m)]
                                for (actor, _), m in zip(pairs, made, strict=True)], 0))
    first, second = figures
    return {"full_distance_m": float(first[0]), "int8_distance_m": float(second[0]),
            "distance_difference_m": float(abs(second[0] - first[0])), "full_hands_cm": float(first[1]),
            "int8_hands_cm": float(second[1]), "hands_difference_cm": float(abs(second[1] - first[1]))}


def agreement(full: Model, narrow: Model, pairs: Sequence[tuple[Motion, Motion]], seed: int = 0) -> dict:
    """All of the above for pairs of motions in the model's form, and whether what is promised holds (``faithful``).

    ConfigError without pairs, or where all of them are shorter than a token column.
    """
    if not pairs:
        raise ConfigError("agreement: expected at least one pair, got none; give clips")
    report = {"pairs": len(pairs), "seed": seed, "codes": codes_agreement(full, narrow, pairs, seed),
              "reconstruction": reconstruction_agreement(full, narrow, [m for pair in pairs for m in pair]),
              "reaction": reaction_agreement(full, narrow, pairs, seed)}
    faithful = report["codes"]["top1"] >= LEAST_TOP1 and report["reconstruction"]["difference_mm"] <= MOST_MM
    return report | {"faithful": bool(faithful)}
