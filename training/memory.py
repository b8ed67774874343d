"""Activations computed again in the backward pass, where memory is short."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(modules: Iterable[nn.Module]) -> None:
    """From now on these modules keep their inputs alone until the backward pass and run twice; dropout draws the same."""
    for module in modules:
        module.forward = functools.partial(checkpoint, module.forward, use_reentrant=False)
