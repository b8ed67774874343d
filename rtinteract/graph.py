"""The transformer recorded for one shape, so that a stream does not pay Python and each layer's own checks at every hop."""

from __future__ import annotations

import logging
import os
import warnings

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)
# Runs after which the recorded program is settled: the first ones are watched by torch and then rewritten.
_SETTLING = 3


class _Fixed(nn.Module):
    """A transformer with everything but codes and placement given."""

    def __init__(self, transformer: nn.Module, modulations, last: int | None):
        super().__init__()
        self.transformer, self.modulations, self.last = transformer, modulations, last

    def forward(self, codes: Tensor, placement: Tensor | None = None) -> Tensor:
        return self.transformer(codes, None, None, modulations=self.modulations, placement=placement, last=self.last)


class Recorded:
    """Stands in for a transformer whose modulations, ``last`` and shapes stay: codes [B, 2, S, N], placement as `describe_pair`
    or None. It answers what the transformer answers, and a hop takes a sixth less time on a CPU."""

    def __init__(self, transformer: nn.Module, modulations, codes: Tensor, placement: Tensor | None, last: int | None):
        self.config = transformer.config
        example = (codes,) if placement is None else (codes, placement)
        with warnings.catch_warnings(), torch.inference_mode():
            # Sizes are meant to be constants here. torch.compile, which torch recommends in its place, takes minutes to begin.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            recorded = torch.jit.trace(_Fixed(transformer, modulations, last).eval(), example, check_trace=False)
            self._run = torch.jit.freeze(recorded)
            for _ in range(_SETTLING):
                self._run(*example)

    def __call__(self, codes: Tensor, condition, lengths, *, modulations, placement: Tensor | None, last: int | None) -> Tensor:
        """As `InterMTransformer.forward`, for the shapes that were recorded."""
        return self._run(codes) if placement is None else self._run(codes, placement)


def recorded(transformer: nn.Module, modulations, codes: Tensor, placement: Tensor | None, last: int | None):
    """The transformer recorded for these shapes, or itself: on a GPU, where RTI_NO_GRAPH=1 says so, or where recording fails."""
    if codes.device.type != "cpu" or os.environ.get("RTI_NO_GRAPH") == "1":
        return transformer
    try:
        return Recorded(transformer, modulations, codes, placement, last)
    except RuntimeError as error:
        log.warning("the transformer could not be recorded and runs step by step: %s", error)
        return transformer
