"""Which interaction does the evaluator see? Kinds ranked by how near their prompts lie to a motion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from rtinteract.errors import ConfigError


def prompts_by_kind(clips: Iterable) -> dict[str, list[str]]:
    """The distinct texts of each kind of clips, in a fixed order; kinds without texts are left out."""
    found: dict[str, set[str]] = {}
    for clip in clips:
        found.setdefault(clip.kind, set()).update(clip.texts)
    return {kind: sorted(found[kind]) for kind in sorted(found) if found[kind]}


def recognised(prompts: Mapping[str, np.ndarray], motion: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """Rank [samples] from 0 of each motion's own kind, by the Euclidean distance to each kind's nearest prompt.

    ``prompts``: embeddings [prompts, E] of each kind; ``motion`` [samples, E]; ``kinds`` their true ones. A tie counts for the
    true kind. ConfigError for a kind without prompts.
    """
    missing = sorted(set(kinds) - set(prompts))
    if missing:
        raise ConfigError(f"recognition: expected prompts of every kind, got none of {', '.join(missing)}; give clips with texts")
    names = list(prompts)
    distance = np.stack([np.linalg.norm(np.asarray(motion)[:, None] - np.asarray(prompts[k])[None], axis=-1).min(1)
                         for k in names], 1)
    own = distance[np.arange(len(kinds)), [names.index(k) for k in kinds]]
    return (distance < own[:, None]).sum(1)


def ceiling(groups: Sequence, pool: int, top_k: int = 3) -> np.ndarray:
    """R-precision [top_k] that a ruler reaches on average which tells events apart, but not two clips of one event.

    ``groups``: each sample's event (anything hashable), in the order of the pools. Within a pool, a text whose event m samples
    share finds its own among the first k with chance min(k, m) / m.
    """
    pools = max(len(groups) // pool, 1)
    hits = np.zeros(top_k)
    for i in range(pools):
        rows = list(groups[i * pool:(i + 1) * pool])
        for event in rows:
            same = rows.count(event)
            hits += [min(k, same) / same for k in range(1, top_k + 1)]
    return hits / (pools * min(pool, len(groups)))
