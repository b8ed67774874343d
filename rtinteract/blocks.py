"""Modules of the Inter-M transformer: adaptive layer norm, attention, feed-forward, and the block of two people.

Token layout: person 0's S*N tokens (part-major), person 1's, and the separator LAST. The published sequence has the
separator in the middle; attention does not see the order (positions are embedded), and with the separator at the end
both people are one contiguous view [B, 2, S, N, D].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtinteract.config import ATTENTION
from rtinteract.kernels.attention import attention
from rtinteract.kernels.backend import BF16_FEATURES, cpu_has, reference_only, use_triton
from rtinteract.kernels.linear import linear_gelu, linear_residual, modulated_linear
from rtinteract.kernels.spatio_temporal import Branch, spatio_temporal

COMBINED, SPLIT = 6, 14


class Modulation(NamedTuple):
    """Shift, scale and gate of one sublayer, each [B, 1, D]; scale already holds the 1 it is added to."""

    shift: Tensor
    scale: Tensor
    gate: Tensor | None


class BlockModulation(NamedTuple):
    """The modulations of one block, which depend on the condition alone."""

    attention: Modulation
    ffn_combined: Modulation
    spatial: Modulation
    temporal: Modulation
    cross_query: Modulation
    cross_key: Modulation
    ffn_split: Modulation


def attention_split(fused: Tensor, heads: int, count: int) -> tuple[Tensor, ...]:
    """Projected [B, L, count*D] as `count` tensors [B, heads, L, D / heads] without a copy."""
    batch, length, width = fused.shape
    return fused.view(batch, length, count, heads, width // (count * heads)).permute(2, 0, 3, 1, 4).unbind(0)


class AdaLN(nn.Module):
    """SiLU, then the linear that makes `count` modulation vectors of the condition: [B, D] -> [B, count, 1, D].

    Starts at zero (InterMask section 3.2.2), so that every residual branch begins as the identity.
    """

    def __init__(self, width: int, count: int):
        super().__init__()
        self.count = count
        self.linear = nn.Linear(width, count * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, condition: Tensor) -> Tensor:
        return self.linear(F.silu(condition)).unflatten(-1, (self.count, 1, -1))


class Linear(nn.Linear):
    """A linear layer that may be int8: then ``weight_scale`` float32 [outputs] says what a step of each output's weights is.

    Only the fused operations of `rtinteract.kernels.linear` take int8 weights; calling the layer itself does not.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.register_buffer("weight_scale", None)


class Attention(nn.Module):
    """Multi-head attention with fused input projections; scale 1/sqrt(D / heads)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.register_buffer("in_proj_scale", None)
        self.out_proj = Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def mix(self, fused: Tensor, lengths: Tensor | None = None, columns: int | None = None, always: int | None = None) -> Tensor:
        """Projected [B, L, 3D] -> [B, L, D] before the output projection; lengths [B] hide padding as
        `rtinteract.kernels.attention` has it."""
        return attention(*attention_split(fused, self.heads, 3), lengths, columns, always).transpose(1, 2).flatten(2)

    def mixed_type(self, x: Tensor) -> torch.dtype | None:
        """The type in which an int8 layer's projections of x are mixed: bfloat16 on a CPU that is faster at it; None: x's."""
        quick = self.in_proj_scale is not None and x.device.type == "cpu" and cpu_has(BF16_FEATURES) and not reference_only()
        return torch.bfloat16 if quick else None

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Self-attention: x [B, L, D] -> [B, L, D]."""
        return self.out_proj(self.mix(F.linear(x, self.in_proj_weight, self.in_proj_bias), lengths))

    def modulated(self, x: Tensor, m: Modulation) -> Tensor:
        """Queries, keys and values [B, L, 3D] of modulated x [B, L, D]."""
        return modulated_linear(x, m.shift, m.scale, self.in_proj_weight, self.in_proj_bias, self.in_proj_scale,
                                self.mixed_type(x))

    def branch(self, m: Modulation) -> Branch:
        """What `rtinteract.kernels.spatio_temporal` takes of this layer."""
        return Branch(m.shift, m.scale, m.gate, self.in_proj_weight, self.in_proj_bias, self.out_proj.weight, self.out_proj.bias)

    def close(self, mixed: Tensor, gate: Tensor, residual: Tensor) -> Tensor:
        """The output projection of mixed [B, L, D], gated, on the residual [B, L, D]."""
        out = self.out_proj
        return linear_residual(mixed, gate, residual, out.weight, out.bias, out.weight_scale)


class FeedForward(nn.Module):
    """Linear, GELU, dropout, linear: [..., D] -> [..., D]."""

    def __init__(self, width: int, hidden: int, dropout: float):
        super().__init__()
        self.up = Linear(width, hidden)
        self.down = Linear(hidden, width)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.dropout(F.gelu(self.up(x)), self.dropout, self.training))

    def modulated(self, x: Tensor, m: Modulation) -> Tensor:
        """x [B, L, D] plus the gated answer to modulated x."""
        up, down = self.up, self.down
        hidden = linear_gelu(x, up.weight, up.bias, up.weight_scale, shift=m.shift, scale=m.scale)
        hidden = F.dropout(hidden, self.dropout, self.training)
        return linear_residual(hidden, m.gate, x, down.weight, down.bias, down.weight_scale)


class InterMBlock(nn.Module):
    """One block (InterMask section 3.2.2): all tokens together, then each person apart with a look at the other.

    Dropout sits in the feed-forwards only: dropout on attention weights would leave the fused attention kernels.

    ``kinds`` of attention as `TransformerConfig.attention`; a kind that is left out has no weights but those of its modulation.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, kinds: tuple[str, ...] = ATTENTION):
        super().__init__()

        def attends(kind: str) -> Attention | None:
            return Attention(width, heads) if kind in kinds else None
        self.adaln_combined = AdaLN(width, COMBINED)
        self.attention = attends("self")
        self.ffn_combined = FeedForward(width, hidden, dropout)
        self.adaln_split = AdaLN(width, SPLIT)
        self.spatial = attends("spatio-temporal")
        self.temporal = attends("spatio-temporal")
        self.cross = attends("cross")
        self.ffn_split = FeedForward(width, hidden, dropout)

    def modulate(self, condition: Tensor) -> BlockModulation:
        """All modulations of the block from the embedded condition [B, D]."""
        a, b = self.adaln_combined(condition).unbind(1), self.adaln_split(condition).unbind(1)
        return BlockModulation(
            attention=Modulation(a[0], 1 + a[1], a[2]),
            ffn_combined=Modulation(a[3], 1 + a[4], a[5]),
            spatial=Modulation(b[0], 1 + b[1], b[2]),
            temporal=Modulation(b[3], 1 + b[4], b[5]),
            cross_query=Modulation(b[6], 1 + b[7], b[10]),
            cross_key=Modulation(b[8], 1 + b[9], None),
            ffn_split=Modulation(b[11], 1 + b[12], b[13]),
        )

    def forward(self, x: Tensor, modulation: BlockModulation, parts: int, columns: int, lengths: Tensor | None = None) -> Tensor:
        """x [B, 2*S*N + 1, D], separator last -> the same shape. `lengths` [B] columns, None where nothing is padded."""
        m = modulation
        if self.attention is not None:
            fused = self.attention.modulated(x, m.attention)
            x = self.attention.close(self.attention.mix(fused, lengths, columns, 2 * parts * columns), m.attention.gate, x)
        x = self.ffn_combined.modulated(x, m.ffn_combined)
        people, separator = x[:, :-1], x[:, -1:]
        mixed = people if self.spatial is None else self.spatio_temporal(people, m, parts, columns, lengths)
        if self.cross is not None:
            mixed = self.exchange(mixed, people, m, columns, lengths)
        return torch.cat([self.ffn_split.modulated(mixed, m.ffn_split), separator], dim=1)

    def one_at_a_time(self, x: Tensor, told: Tensor, modulation: BlockModulation, parts: int, columns: int,
                      lengths: Tensor | None = None) -> Tensor:
        """`forward` where the tokens of one person are updated while the other's stay as they came in (InterMask appendix G).

        x [B, P*S*N, D] -> the same shape: of both people (P = 2, each updated as if alone) or of one. ``told`` [B, P*S*N, D] are
        input tokens: both people's, or those of the other one.
        """
        m, tokens = modulation, parts * columns
        count = x.shape[1] // tokens
        each = None if lengths is None else lengths.repeat_interleave(count)
        if self.attention is not None:
            fused = self.attention.modulated(x, m.attention)
            mixed = self.attention.mix(fused.view(-1, tokens, fused.shape[-1]), each, columns)
            x = self.attention.close(mixed.reshape(x.shape), m.attention.gate, x)
        x = self.ffn_combined.modulated(x, m.ffn_combined)
        mixed = x if self.spatial is None else self.spatio_temporal(x, m, parts, columns, lengths)
        return self.ffn_split.modulated(self.exchange(mixed, told, m, columns, lengths, count), m.ffn_split)

    def spatio_temporal(self, people: Tensor, m: BlockModulation, parts: int, columns: int, lengths: Tensor | None) -> Tensor:
        """Each column over its parts and each part over its columns, from the same input; the residual counts twice.

        The parts of one column are padded together, and nothing else reads a padded column: they need no mask.
        """
        batch, tokens, width = people.shape
        if use_triton(people) and self.spatial.in_proj_scale is None and tokens == 2 * parts * columns:
            return spatio_temporal(people, self.spatial.branch(m.spatial), self.temporal.branch(m.temporal), self.spatial.heads,
                                   parts, columns, lengths)
        by_column = people.unflatten(1, (-1, parts, columns)).transpose(2, 3).reshape(batch, tokens, width)
        spatial = self.spatial.mix(self.spatial.modulated(by_column, m.spatial).view(-1, parts, 3 * width))
        spatial = self.spatial.close(spatial.view(batch, tokens, width), m.spatial.gate, 2 * by_column)
        spatial = spatial.view(-1, columns, parts, width).transpose(1, 2).reshape(batch, tokens, width)
        each = None if lengths is None else lengths.repeat_interleave(tokens // columns)
        temporal = self.temporal.mix(self.temporal.modulated(people, m.temporal).view(-1, columns, 3 * width), each)
        return self.temporal.close(temporal.view(batch, tokens, width), m.temporal.gate, spatial)

    def exchange(self, mixed: Tensor, people: Tensor, m: BlockModulation, columns: int, lengths: Tensor | None,
                 count: int = 2) -> Tensor:
        """Cross attention: queries from `mixed`, keys and values from the other person's tokens in `people`; with a ``count`` of
        one `mixed` holds one person's tokens and `people` the other's."""
        batch, tokens, width = people.shape
        weight, bias, steps, heads = (self.cross.in_proj_weight, self.cross.in_proj_bias, self.cross.in_proj_scale,
                                      self.cross.heads)
        ours, theirs = (None, None) if steps is None else (steps[:width], steps[width:])
        asked, told = m.cross_query, m.cross_key
        query = modulated_linear(mixed, asked.shift, asked.scale, weight[:width], bias[:width], ours,
                                 self.cross.mixed_type(mixed)).view(batch * count, -1, width)
        memory = modulated_linear(people, told.shift, told.scale, weight[width:], bias[width:], theirs,
                                  self.cross.mixed_type(people))
        memory = memory.view(batch, count, -1, 2 * width).flip(1).view(batch * count, -1, 2 * width)
        key, value = attention_split(memory, heads, 2)
        each = None if lengths is None else lengths.repeat_interleave(count)
        attended = attention(attention_split(query, heads, 1)[0], key, value, each, columns).transpose(1, 2)
        return self.cross.close(attended.reshape(batch, tokens, width), asked.gate, mixed)
