"""The transformer recorded for its shapes, so that a stream does not pay Python and each layer's own checks at every hop.

What depends on the prompt goes in beside the codes, and a recording serves any number of sequences: streams of one model share
one, and another prompt needs none.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections import OrderedDict

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)
# Runs after which the recorded program is settled: the first ones are watched by torch and then rewritten.
_SETTLING = 3
# Recordings that are kept, each of about 20 MB for the shipped model; the one that was not asked for longest goes first.
_MOST = 8
# Largest distance of recorded from step-by-step logits, as a share of the largest logit: rounding, not another answer.
_NEAR = 0.05
# torch keeps what it traces in one place.
_TRACING = threading.RLock()


def flattened(modulations):
    """The tensors of nested tuples, and what puts them back."""
    flat: list[Tensor] = []

    def take(part):
        if isinstance(part, Tensor):
            flat.append(part)
            return len(flat) - 1
        return None if part is None else _like(part, [take(p) for p in part])

    plan = take(modulations)

    def rebuild(tensors, part=plan):
        if part is None or isinstance(part, int):
            return None if part is None else tensors[part]
        return _like(part, [rebuild(tensors, p) for p in part])

    return flat, rebuild


def _like(part: tuple, values: list):
    return type(part)(*values) if hasattr(part, "_fields") else tuple(values)


class _Open(nn.Module):
    """A transformer of tensors alone: codes, modulations as one tensor, placement."""

    def __init__(self, transformer: nn.Module, rebuild, last: int | None):
        super().__init__()
        self.transformer, self.rebuild, self.last = transformer, rebuild, last

    def forward(self, codes: Tensor, packed: Tensor, placement: Tensor | None = None) -> Tensor:
        modulations = self.rebuild(packed.unbind(0))
        return self.transformer(codes, None, None, modulations=modulations, placement=placement, last=self.last)


class Recorded:
    """Stands in for a transformer whose ``last`` and columns stay: codes [B, 2, S, N], `packed` modulations, placement as
    `describe_pair` or None. It answers what the transformer answers, and a hop takes a sixth less time on a CPU.

    RuntimeError where the recording answers anything else. ``any_rows`` says that B may be any, else it must stay.
    """

    def __init__(self, transformer: nn.Module, modulations, codes: Tensor, placement: Tensor | None, last: int | None):
        self.config = transformer.config
        plain = _Open(transformer, flattened(modulations)[1], last).eval()
        example = (codes, self.pack(modulations), *(() if placement is None else (placement,)))
        with _TRACING, warnings.catch_warnings(), torch.inference_mode():
            # Sizes are meant to be constants here. torch.compile, which torch recommends in its place, takes minutes to begin.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            self._run = torch.jit.freeze(torch.jit.trace(plain, example, check_trace=False))
            for _ in range(_SETTLING):
                self._run(*example)
            if not self._agrees(plain, _other(example, self.config.codes, 1)):
                raise RuntimeError("the recording depends on what it was made with")
            # A loop over the sequences, or a choice by their number, would have been recorded as it went then.
            self.any_rows = all(self._agrees(plain, _other(example, self.config.codes, times)) for times in (2, 3))

    @staticmethod
    def pack(modulations) -> Tensor:
        """Modulations as the one tensor [M, B, 1, D] that a recording takes."""
        return torch.stack(flattened(modulations)[0])

    def _agrees(self, plain: nn.Module, question: tuple[Tensor, ...]) -> bool:
        try:
            expected = plain(*question)
            return bool((self._run(*question) - expected).abs().max() <= _NEAR * expected.abs().max())
        except RuntimeError:
            return False

    def __call__(self, codes: Tensor, condition, lengths, *, modulations: Tensor, placement: Tensor | None,
                 last: int | None) -> Tensor:
        """As `InterMTransformer.forward` with `pack`ed modulations, for the columns and ``last`` that were recorded."""
        return self._run(codes, modulations) if placement is None else self._run(codes, modulations, placement)


def _other(example: tuple[Tensor, ...], codes: int, times: int) -> tuple[Tensor, ...]:
    """Another question of the same form with so many times the rows, all of them different."""
    ids, packed, *placement = example
    g = torch.Generator().manual_seed(times)
    rows = len(ids) * times
    new = torch.randint(codes, (rows, *ids.shape[1:]), generator=g)
    turned = packed.repeat(1, times, 1, 1)
    # Strong ones: the gates of an untrained model are shut.
    turned = turned + torch.randn(turned.shape, generator=g).to(turned.dtype)
    return new, turned, *[torch.randn(rows, *p.shape[1:], generator=g).to(p.dtype) for p in placement]


def recorded(transformer: nn.Module, modulations, codes: Tensor, placement: Tensor | None, last: int | None):
    """The transformer recorded for these shapes, or itself: on a GPU, where RTI_NO_GRAPH=1 says so, where its modulations are one
    tensor (it is one call already), where people alternate (it is asked for one at a time), or where recording fails."""
    if transformer.config.modelling == "alternating":
        return transformer
    if codes.device.type != "cpu" or os.environ.get("RTI_NO_GRAPH") == "1" or isinstance(modulations, Tensor):
        return transformer
    try:
        return Recorded(transformer, modulations, codes, placement, last)
    except RuntimeError as error:
        log.warning("the transformer could not be recorded and runs step by step: %s", error)
        return transformer


class Recordings:
    """What `recorded` answers for one transformer, by shape: made when first asked for, and shared. Safe from several threads;
    one that needs a recording which another makes waits for it."""

    def __init__(self, transformer: nn.Module, most: int = _MOST):
        self._transformer, self._most = transformer, most
        self._kept: OrderedDict[tuple, object] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self):
        return len(self._kept)

    def of(self, modulations, codes: Tensor, placement: Tensor | None, last: int | None):
        """The recording for codes [B, 2, S, N] of so many columns, whatever their values, or the transformer where none can be
        made."""
        shape = (tuple(codes.shape[1:]), placement is not None, last, os.environ.get("RTI_NO_GRAPH") == "1")
        found = self._find(shape, len(codes))
        if found is not None:
            return found
        with _TRACING:
            found = self._find(shape, len(codes))
            if found is None:
                found = recorded(self._transformer, modulations, codes, placement, last)
                self._keep((*shape, None if getattr(found, "any_rows", False) else len(codes)), found)
        return found

    def _find(self, shape: tuple, rows: int):
        with self._lock:
            for key in ((*shape, None), (*shape, rows)):
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
        return None

    def _keep(self, key: tuple, made) -> None:
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
