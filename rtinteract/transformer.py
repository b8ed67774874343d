"""The Inter-M masked transformer over two people's motion tokens (InterMask section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtinteract.blocks import AdaLN, BlockModulation, InterMBlock, Linear, Modulation
from rtinteract.config import TransformerConfig
from rtinteract.errors import RtInteractError
from rtinteract.kernels.linear import linear_gelu, modulated_linear
from rtinteract.placement import WIDTH, PlacementPrior

_FIRST_COLUMNS = 80


class Modulations(NamedTuple):
    """Everything of a forward pass that depends on the condition alone; make it once a prompt with `modulate`."""

    blocks: tuple[BlockModulation, ...]
    output: Modulation


def sine_positions(parts: int, columns: int, width: int) -> Tensor:
    """2D sine positions [S, N, D] float32: the first half of the channels encodes the part, the second the column.

    Sine and cosine interleave; frequencies 10000^(-2i / h) with h the (even) channels of each half.
    """
    half = (width + 3) // 4 * 2
    frequency = 1.0 / 10000 ** (torch.arange(0, half, 2).float() / half)
    angle = torch.arange(max(parts, columns)).float()[:, None] * frequency
    table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
    part, column = table[:parts, None].expand(-1, columns, -1), table[None, :columns].expand(parts, -1, -1)
    return torch.cat([part, column], dim=-1)[..., :width].contiguous()


class InterMTransformer(nn.Module):
    """Logits of every motion token of two people, given the tokens known so far and a condition."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.token_embedding = nn.Embedding(config.codes + 3, config.code_dim)
        self.input = nn.Linear(config.code_dim, width)
        self.condition = nn.Linear(config.condition, width)
        self.blocks = nn.ModuleList(InterMBlock(width, config.heads, config.ff, config.dropout, config.attention)
                                    for _ in range(config.layers))
        self.output_dense = Linear(width, width)
        self.output_adaln = AdaLN(width, 2)
        self.output = Linear(width, config.codes)
        if config.placement:
            self.placement = nn.Linear(WIDTH, width)
            self.prior = PlacementPrior(config.condition)
        self.register_buffer("_positions", sine_positions(config.parts, _FIRST_COLUMNS, width), persistent=False)

    def positions(self, columns: int) -> Tensor:
        """2D sine positions [S, N, D]; the table grows when a longer sequence than any before arrives."""
        table = self._positions
        if columns > table.shape[1]:
            longer = sine_positions(self.config.parts, 2 * columns, self.config.width)
            self._positions = table = longer.to(device=table.device, dtype=table.dtype)
        return table[:, :columns]

    def modulate(self, condition: Tensor | None, batch: int = 1) -> Modulations:
        """Modulations of a condition [B, C]; a row of zeros, or None (then `batch` rows), means "no condition"."""
        if condition is None:
            condition = self.condition.weight.new_zeros(batch, self.config.condition)
        if condition.dim() != 2 or condition.shape[1] != self.config.condition:
            raise RtInteractError(f"condition: expected [B, {self.config.condition}], got {list(condition.shape)}; "
                                  "encode the text with this model's own text encoder")
        embedded = self.condition(condition.to(self.condition.weight.dtype))
        shift, scale = self.output_adaln(embedded).unbind(1)
        return Modulations(tuple(block.modulate(embedded) for block in self.blocks), Modulation(shift, 1 + scale, None))

    def forward(self, codes: Tensor, condition: Tensor | None, lengths: Tensor | None = None, *,
                modulations: Modulations | None = None, placement: Tensor | None = None, last: int | None = None,
                person: int | None = None) -> Tensor:
        """Logits [B, 2, S, N, K] of codes [B, 2, S, N] int64 (codes, MASK or PAD).

        `lengths` [B] are columns in [1, N] (whatever id stands past them is read as PAD); None says that nothing is padded,
        which spares the masks. `modulations` from `modulate` stand in for `condition` [B, C]; both None: no condition.
        `placement` [B, 2, N, WIDTH] says to a model of own frames where the two stand (`rtinteract.placement.describe_pair`);
        without it that is unknown.
        With ``last`` only the logits of so many columns at the end are computed, [B, 2, S, last, K]; with ``person`` only that
        person's, [B, 1, S, N or last, K].
        Logits at padded positions carry no meaning.
        """
        self.check(codes, lengths, placement)
        batch, _, parts, columns = codes.shape
        if modulations is None:
            modulations = self.modulate(condition, batch)
        if lengths is not None:
            lengths = lengths.to(codes.device)
            past = torch.arange(columns, device=codes.device) >= lengths[:, None, None, None]
            codes = codes.masked_fill(past, self.config.pad_id)
        x = self._updated(self.embed(codes, placement), modulations, parts, columns, lengths, person)
        people = x.shape[1]
        x = (x if last is None else x[..., columns - last:, :]).flatten(1, 3)
        dense, output, end = self.output_dense, self.output, modulations.output
        x = linear_gelu(x, dense.weight, dense.bias, dense.weight_scale)
        logits = modulated_linear(x, end.shift, end.scale, output.weight, output.bias, output.weight_scale)
        return logits.view(batch, people, parts, -1, self.config.codes)

    def _updated(self, x: Tensor, modulations: Modulations, parts: int, columns: int, lengths: Tensor | None,
                 person: int | None) -> Tensor:
        """Tokens [B, P, S, N, D] after all blocks of input tokens [B, 2*S*N + 1, D], of both people or of one ``person``."""
        each = slice(None) if person is None else slice(person, person + 1)
        if self.config.modelling == "together":
            for block, modulation in zip(self.blocks, modulations.blocks, strict=True):
                x = block(x, modulation, parts, columns, lengths)
            return x[:, :-1].unflatten(1, (2, parts, columns))[:, each]
        people = x[:, :-1].unflatten(1, (2, parts * columns))
        # Cross attention turns to the other one where it is given both.
        told = (people if person is None else people.flip(1)[:, each]).flatten(1, 2)
        x = people[:, each].flatten(1, 2)
        for block, modulation in zip(self.blocks, modulations.blocks, strict=True):
            x = block.one_at_a_time(x, told, modulation, parts, columns, lengths)
        return x.unflatten(1, (-1, parts, columns))

    def embed(self, codes: Tensor, placement: Tensor | None = None) -> Tensor:
        """Input tokens [B, 2*S*N + 1, D] of codes [B, 2, S, N]: embedded, positions added to all but the separator (last)."""
        batch, _, parts, columns = codes.shape
        people = self.input(self.token_embedding(codes)) + self.positions(columns)
        if placement is not None:
            people = people + self.placement(placement.to(self.placement.weight.dtype))[:, :, None]
        separator = self.input(self.token_embedding.weight[self.config.sep_id]).expand(batch, 1, -1)
        x = torch.cat([people.view(batch, 2 * parts * columns, -1), separator.to(people.dtype)], dim=1)
        return F.dropout(x, self.config.dropout, self.training)

    def check(self, codes: Tensor, lengths: Tensor | None, placement: Tensor | None) -> None:
        """RtInteractError unless the shapes are those that `forward` takes."""
        expected = f"[B, 2, {self.config.parts}, N] of integers with N >= 1"
        if codes.dim() != 4 or codes.shape[1:3] != (2, self.config.parts) or codes.shape[3] < 1 or codes.is_floating_point():
            raise RtInteractError(f"codes: expected {expected}, got {codes.dtype} {list(codes.shape)}")
        if lengths is not None and lengths.shape != codes.shape[:1]:
            raise RtInteractError(f"lengths: expected one a sample, [{codes.shape[0]}], got {list(lengths.shape)}")
        batch, columns = codes.shape[0], codes.shape[3]
        if placement is not None and (not self.config.placement or placement.shape != (batch, 2, columns, WIDTH)):
            own = f"[{batch}, 2, {columns}, {WIDTH}]"
            expected = own if self.config.placement else "none: this model's people share one frame"
            raise RtInteractError(f"placement: expected {expected}, got {list(placement.shape)}")
