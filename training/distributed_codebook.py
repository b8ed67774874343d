"""A codec's quantiser where a batch comes in parts: on every process as the undivided batch would leave it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from rtinteract.kernels.remask import gumbel_reference, token_streams
from rtinteract.training import distributed

from rtinteract.codec import Codec, VectorQuantizer


@contextlib.contextmanager
def divided_codebook(codec: Codec, images: Sequence[torch.Tensor]):
    """Around the training passes of a batch's parts, of which normalised ``images`` [B, T, J, F] are this process's.

    "vq": uses and sums of all parts move the codebook once, after the last pass; restarts take the batch's first rows, which
    are the first process's. "fsq": the statistics move first, by the moments of all parts, which costs an encoder pass.
    """
    quantizer = codec.quantizer
    _prepare(codec, images)
    quantizer.parts = []
    try:
        yield
        if isinstance(quantizer, VectorQuantizer):
            counts, sums = (distributed.summed(sum(part[i] for part in quantizer.parts)) for i in range(2))
            quantizer.absorb(counts, sums, torch.cat([part[2] for part in quantizer.parts])[:len(counts)])
            distributed.from_chief(quantizer.codebook)
    finally:
        quantizer.parts = None


@torch.no_grad()
def _prepare(codec: Codec, images: Sequence[torch.Tensor]) -> None:
    """What a quantiser takes of the whole batch before it quantises."""
    quantizer = codec.quantizer
    if not isinstance(quantizer, VectorQuantizer):
        moments = distributed.summed(sum(quantizer.moments(codec.rows(image)) for image in images))
        mean, square = (moments[1:] / moments[0]).chunk(2)
        quantizer.absorb(mean, (square - mean.square()).clamp(min=0))
    elif not quantizer.initialised:
        quantizer.start(codec.rows(images[0]))
        distributed.from_chief(quantizer.codebook)
        quantizer.code_sum.copy_(quantizer.codebook)


def code_noise(codec: Codec, seeds: torch.Tensor, columns: int) -> torch.Tensor:
    """Gumbel noise [B*S*N, K] of samples with ``seeds`` int64 [B]: each sample's own, however its batch is divided."""
    streams = token_streams(seeds, 1, codec.config.parts, columns)[0, :, 0]
    return gumbel_reference(streams, torch.arange(codec.config.codes, device=seeds.device)).flatten(0, -2)
