"""Text-to-motion evaluation figures over embeddings of an evaluator network (InterMask section 4; Guo et al. 2022).

Every function takes numpy arrays or torch tensors and computes in float64. ``scale`` multiplies embeddings first and
``divide`` divides the result: InterHuman's published figures use FID, Diversity and MultiModality at scale 6, the last
two divided by 2; Inter-X uses 1 and 1.
"""

from __future__ import annotations

import numpy as np

from rtinteract.errors import ConfigError

POOL = 96
INTERHUMAN = {"scale": 6.0, "divide": 2.0}
INTERX = {"scale": 1.0, "divide": 1.0}


def _embeddings(what, x, ndim=2):
    x = np.asarray(x.detach().cpu() if hasattr(x, "detach") else x, dtype=np.float64)
    if x.ndim != ndim or 0 in x.shape:
        shape = "[samples, D]" if ndim == 2 else "[texts, repeats, D]"
        raise ConfigError(f"{what}: expected non-empty embeddings {shape}, got shape {x.shape}; stack the evaluator's outputs")
    if not np.isfinite(x).all():
        raise ConfigError(f"{what}: expected finite embeddings, got NaN or infinity; check the motions and the evaluator")
    return x


def _matched(text, motion):
    text, motion = _embeddings("text", text), _embeddings("motion", motion)
    if text.shape != motion.shape:
        raise ConfigError(f"text and motion: expected one row for each in the same order, got {text.shape} and {motion.shape}")
    return text, motion


def _distances(a, b):
    """Euclidean distances [A, B] between rows of a [A, D] and b [B, D]."""
    return np.sqrt(np.maximum((a * a).sum(-1)[:, None] + (b * b).sum(-1) - 2 * a @ b.T, 0.0))


def r_precision(text, motion, *, top_k=3, pool=POOL):
    """Share [top_k] of texts whose own motion is among the 1..top_k nearest of its pool (ties count for the text).

    ``text`` and ``motion`` [samples, D] are cut into consecutive pools of ``pool`` rows, so shuffle them beforehand;
    rows past the last whole pool are left out, as in the published evaluation.
    """
    text, motion = _matched(text, motion)
    pools = len(text) // pool
    if pools == 0:
        raise ConfigError(f"r_precision: expected at least one pool of {pool} samples, "
                          f"got {len(text)}; give more, or a smaller pool")
    hits = np.zeros(top_k)
    for i in range(pools):
        rows = slice(i * pool, (i + 1) * pool)
        distance = _distances(text[rows], motion[rows])
        rank = (distance < np.diagonal(distance)[:, None]).sum(-1)
        hits += [(rank < k).sum() for k in range(1, top_k + 1)]
    return hits / (pools * pool)


def mm_distance(text, motion) -> float:
    """Mean Euclidean distance of matching text and motion embeddings [samples, D]."""
    text, motion = _matched(text, motion)
    return float(np.linalg.norm(text - motion, axis=-1).mean())


def fid(true, generated, *, scale=1.0) -> float:
    """Frechet distance between Gaussians fitted to two sets of embeddings [samples, D] (Heusel et al. 2017)."""
    true, generated = scale * _embeddings("true", true), scale * _embeddings("generated", generated)
    if true.shape[1] != generated.shape[1] or min(len(true), len(generated)) < 2:
        raise ConfigError(f"fid: expected two sets of at least 2 embeddings of one width, got {true.shape} and {generated.shape}")
    a, b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (true, generated))
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    # trace sqrt(AB) over a symmetric matrix of the same eigenvalues: no complex residue, and singular A is fine.
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b @ root), 0.0)).sum()
    shift = true.mean(0) - generated.mean(0)
    # Never below zero but for rounding.
    return float(max(shift @ shift + np.trace(a) + np.trace(b) - 2 * cross, 0.0))


def _two_draws(n, times, seed, what):
    if n < times:
        raise ConfigError(f"{what}: expected at least {times} to draw from, got {n}; generate more or lower `times`")
    draw = np.random.RandomState(seed)
    return draw.choice(n, times, replace=False), draw.choice(n, times, replace=False)


def diversity(motion, *, times=300, seed=0, scale=1.0, divide=1.0, indices=None) -> float:
    """Mean distance of ``times`` random pairs among embeddings [samples, D]; ``indices`` gives the two draws instead."""
    motion = scale * _embeddings("motion", motion)
    first, second = _two_draws(len(motion), times, seed, "diversity") if indices is None else indices
    return float(np.linalg.norm(motion[first] - motion[second], axis=-1).mean() / divide)


def multimodality(motion, *, times=10, seed=0, scale=1.0, divide=1.0, indices=None) -> float:
    """Mean distance of ``times`` random pairs among repeats of one text, over texts: embeddings [texts, repeats, D].

    ``indices`` gives the two draws of repeats instead; every text uses the same draws.
    """
    motion = scale * _embeddings("motion", motion, ndim=3)
    first, second = _two_draws(motion.shape[1], times, seed, "multimodality") if indices is None else indices
    return float(np.linalg.norm(motion[:, first] - motion[:, second], axis=-1).mean() / divide)


def confidence(values) -> tuple[float, float]:
    """Mean and half width of the 95 % interval of replications [n]: 1.96 population standard deviations over sqrt(n)."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ConfigError(f"confidence: expected a list of replications, got shape {values.shape}")
    return float(values.mean()), float(1.96 * values.std() / np.sqrt(len(values)))
