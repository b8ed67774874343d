"""Normalisation of feature images by statistics that travel in the checkpoint."""

from __future__ import annotations

import torch
from torch import nn

from rtinteract.errors import ConfigError


class Normalizer(nn.Module):
    """(image - mean) / std with buffers ``mean`` and ``std`` [J, F]; ConfigError if they are not finite and std positive."""

    def __init__(self, mean: torch.Tensor, std: torch.Tensor):
        super().__init__()
        if mean.shape != std.shape or mean.ndim != 2:
            raise ConfigError("normaliser: expected mean and std of one shape [J, F], got "
                              f"{tuple(mean.shape)} and {tuple(std.shape)}; give one value for each joint and feature")
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise ConfigError("normaliser: expected finite statistics with a positive std, got others; recompute them")
        self.register_buffer("mean", mean.float().clone())
        self.register_buffer("std", std.float().clone())

    @classmethod
    def identity(cls, joints: int, features: int) -> Normalizer:
        """The normaliser that changes nothing."""
        return cls(torch.zeros(joints, features), torch.ones(joints, features))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """image [..., J, F] -> normalised image."""
        return (image - self.mean) / self.std

    def inverse(self, image: torch.Tensor) -> torch.Tensor:
        """Normalised image [..., J, F] -> image."""
        return image * self.std + self.mean
