"""Codes of a finite scalar quantiser share what they have in common while a transformer learns them.

A code is a digit in each of a few channels, and codes of near digits decode to near poses. So each row of the token
embedding and of the output layer is learned as its own values plus one row for each of its digits, which many codes share;
afterwards the sum is folded back, and the transformer that is saved knows nothing of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rtinteract.config import TransformerConfig
from rtinteract.transformer import InterMTransformer

# Share of a digit's row that its two neighbours on the scale see too.
_NEAR = 0.5
_SCALE = 0.5


def digit_rows(levels: tuple[int, ...], rows: int) -> Tensor:
    """Memberships [rows, sum of levels]: 1 at the digits of each code (the first channel varies fastest), `_NEAR` beside them;
    zeros for the ids past the codes (mask, padding, separator)."""
    basis = torch.cumprod(torch.tensor((1, *levels[:-1])), 0)
    digits = torch.arange(math.prod(levels))[:, None] // basis % torch.tensor(levels)
    blocks = []
    for channel, count in enumerate(levels):
        apart = (digits[:, channel, None] - torch.arange(count)).abs()
        blocks.append((apart == 0).float() + _NEAR * (apart == 1).float())
    known = torch.cat(blocks, 1)
    return torch.cat([known, known.new_zeros(rows - len(known), known.shape[1])])


class SharedRows(nn.Module):
    """weight [R, D] -> weight + members [R, L] @ shared [L, D]."""

    def __init__(self, members: Tensor, width: int, scale: float):
        super().__init__()
        self.register_buffer("members", members)
        self.shared = nn.Parameter(torch.randn(members.shape[1], width) * scale)

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return torch.addmm(weight, self.members, self.shared)


def share_levels(transformer: InterMTransformer, levels: tuple[int, ...], *, trained: bool = False) -> None:
    """Let the transformer's embedding and output rows share by the digits of ``levels`` from here on; what a ``trained`` one
    computes stays as it is."""
    for layer, scale in ((transformer.token_embedding, 0.0 if trained else _SCALE), (transformer.output, 0.0)):
        rows, width = layer.weight.shape
        if scale:
            with torch.no_grad():
                layer.weight[:math.prod(levels)].mul_(_SCALE)
        parametrize.register_parametrization(layer, "weight", SharedRows(digit_rows(levels, rows), width, scale))


def with_other_codes(transformer: InterMTransformer, config: TransformerConfig) -> InterMTransformer:
    """A transformer of ``config`` with the weights of one that differs in its codes alone: fresh embedding and output rows for
    the codes, the rest (mask, padding and separator among it) as learned; with another code width the input map is fresh too."""
    made, learned = InterMTransformer(config), transformer.state_dict()
    own = made.state_dict()
    new = {"token_embedding.weight", "output.weight", "output.bias"}
    if config.code_dim != transformer.config.code_dim:
        new.add("input.weight")
    else:
        special = own["token_embedding.weight"].clone()
        special[config.codes:] = learned["token_embedding.weight"][transformer.config.codes:]
        own["token_embedding.weight"] = special
    made.load_state_dict({name: own[name] if name in new else learned[name] for name in own})
    return made


def folded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in which every shared weight stands as the plain sum."""
    plain = {k: v for k, v in weights.items() if ".parametrizations." not in k}
    for key, own in weights.items():
        layer, found, rest = key.partition(".parametrizations.weight.")
        if found and rest == "original":
            at = f"{layer}{found}0."
            plain[f"{layer}.weight"] = torch.addmm(own, weights[at + "members"], weights[at + "shared"])
    return plain
