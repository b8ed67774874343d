"""Masked codes in, filled codes and their decoded image out: the part of a reaction that a GPU runs as one graph."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rtinteract.capture import Graphs, asked_for
from rtinteract.graph import flattened
from rtinteract.pipeline import Pipeline
from rtinteract.sampler import fill_masked

# Batches are filled up to the next of these, so that few graphs serve all; a larger batch is cut.
BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Draw(NamedTuple):
    """How masked codes are drawn: constant in a graph."""

    iterations: int
    guidance: float
    top_k: float
    temperature: float
    choice_temperature: float = 0.0


def bucket_of(batch: int) -> int:
    """The smallest of `BUCKETS` that holds so many rows (at most the largest)."""
    return next(b for b in BUCKETS if b >= batch)


def fill_and_decode(pipeline: Pipeline, codes: Tensor, condition: Tensor | None, modulations, draw: Draw, seeds: Tensor, *,
                    placement: Tensor | None = None, last: int | None = None, begin: int = 0, person: int | None = None,
                    frames: int | None = None, transformer=None, graphs: Graphs | None = None,
                    first: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`rtinteract.sampler.fill_masked` of codes [B, 2, S, N] without padding, then the image [B, P, 4 (N - begin), J, F] of the
    columns from ``begin`` on: of both people, or of one ``person`` (P = 1); with ``frames`` so many frames at its end.

    ``condition`` [B, C] or None, its ``modulations`` and ``first`` [B] or None as there; ``transformer`` stands in for the
    pipeline's. On a GPU that `rtinteract.capture.asked_for` both are one graph for each bucket of batches, number of columns and
    `Draw`, kept in ``graphs`` (the pipeline's own if None); a row's answer does not depend on the rows beside it.
    """
    transformer = pipeline.transformer if transformer is None else transformer
    guided = condition is not None and draw.guidance != 1

    def run(codes, seeds, placement, condition, first, modulations):
        filled = fill_masked(transformer, codes, condition, None, **draw._asdict(), seeds=seeds, placement=placement, last=last,
                             modulations=modulations, first=first)
        seen = filled if person is None else filled[:, person:person + 1]
        image = pipeline.decode_image(seen[..., begin:].flatten(0, 1), frames)
        return filled, image.unflatten(0, seen.shape[:2])

    if graphs is None and not asked_for(codes.device):
        return run(codes, seeds, placement, condition, first, modulations)
    graphs = pipeline.graphs if graphs is None else graphs
    flat, rebuild = flattened(modulations)
    given = (codes, seeds, placement, condition, first)
    present = [x is not None for x in given]

    def step(*tensors):
        rest = list(tensors)
        parts = [rest.pop(0) if there else None for there in present]
        return run(*parts, rebuild(rest))

    answers = []
    for start in range(0, len(codes), BUCKETS[-1]):
        rows = slice(start, min(start + BUCKETS[-1], len(codes)))
        count = rows.stop - rows.start
        bucket = bucket_of(count)
        tensors = [_padded(x[rows], bucket) for x in given if x is not None]
        tensors += [_rows_of(x, rows, len(codes), bucket) for x in flat]
        key = (bucket, *codes.shape[1:], draw, guided, *present, last, begin, person, frames)
        answers.append([x[:count] for x in graphs.run(key, step, tensors)])
    return tuple(torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*answers, strict=True))


def _padded(x: Tensor, rows: int) -> Tensor:
    """x [b, ...] with its last row repeated up to ``rows``."""
    return x if len(x) == rows else torch.cat([x, x[-1:].expand(rows - len(x), *x.shape[1:])])


def _rows_of(x: Tensor, rows: slice, batch: int, bucket: int) -> Tensor:
    """The rows of a modulation [B or 2 B, 1, D] (those without condition follow the others), padded to a bucket."""
    return torch.cat([_padded(half[rows], bucket) for half in x.split(batch)])
