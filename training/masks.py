"""Masks and loss of transformer training (InterMask section 3.2, appendix D), and the masks that train streaming.

Draws (seeded by a torch.Generator on the CPU) are apart from the deterministic core, so that every part can be given.
A mask is bool [B, 2, S, N], True where a token is to be predicted; it never covers padding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rtinteract.errors import ConfigError

IGNORED = -100
WRONG_SHARE, MASK_SHARE = 0.1, 0.88
UNROLL_STEP = 1 / 21


@dataclass(frozen=True)
class MaskConfig:
    """How often each kind of mask is drawn, a sample at a time; what remains of 1 is random masking.

    `streaming` hides every column from a drawn "now" on; `cold` of those samples hide the reactor's past too, as at the
    first hop of a stream. `first_pass` of the streaming samples hide all of their region, as a sampler's first iteration
    does; the rest show a part of it by the cosine schedule. `future` bounds the hidden columns (0: up to the end), as a
    stream asks for its horizon only.
    """

    interaction: float = 0.2
    streaming: float = 0.0
    cold: float = 0.2
    first_pass: float = 0.3
    future: int = 0

    def __post_init__(self):
        shares = (self.interaction, self.streaming, self.cold, self.first_pass)
        if not all(0 <= share <= 1 for share in shares) or self.interaction + self.streaming > 1 or self.future < 0:
            raise ConfigError(f"masks: expected shares in [0, 1] with interaction + streaming <= 1 and future >= 0, got {self}")


class Drawn(NamedTuple):
    """Masks bool [B, 2, S, N] and the columns int64 [B] that each sample now has (a streaming sample may end earlier)."""

    mask: Tensor
    lengths: Tensor


class LossOutput(NamedTuple):
    """Loss (scalar with gradient) and what it is made of: cross entropies and accuracies (detached scalars), and both passes'
    cross entropies with their gradients."""

    loss: Tensor
    cross_entropy: Tensor
    accuracy: Tensor
    unroll_cross_entropy: Tensor
    unroll_accuracy: Tensor
    first: Tensor
    second: Tensor


def inside(lengths: Tensor, parts: int, columns: int) -> Tensor:
    """Bool [B, 2, S, N]: the tokens within lengths [B] columns."""
    seen = torch.arange(columns, device=lengths.device) < lengths[:, None]
    return seen[:, None, None].expand(-1, 2, parts, -1)


def random_subset(region: Tensor, share: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """A random `share` [B] of the tokens of `region` bool [B, 2, S, N], rounded, at least one where there is one."""
    flat = region.flatten(1)
    tokens = flat.sum(1)
    keep = (share * tokens).round().long().clamp(min=1).minimum(tokens)
    noise = torch.rand(flat.shape, generator=generator).masked_fill(~flat, 2.0)
    rank = noise.argsort(1).argsort(1)
    return (rank < keep[:, None]).view(region.shape)


def cosine_share(tau: Tensor) -> Tensor:
    """Masked share cos(pi tau / 2) at time tau of the schedule."""
    return torch.cos(tau * (math.pi / 2))


def interaction_region(lengths: Tensor, person: Tensor, parts: int, columns: int) -> Tensor:
    """All tokens of one person [B] of each sample; the other stays visible."""
    own = torch.arange(2) == person[:, None]
    return inside(lengths, parts, columns) & own[:, :, None, None]


def streaming_region(lengths: Tensor, now: Tensor, cold: Tensor, reactor: Tensor, parts: int, columns: int) -> Tensor:
    """Both people's columns from `now` [B] on; where `cold` bool [B], all of person `reactor` [B] too."""
    future = torch.arange(columns) >= now[:, None]
    hidden = future[:, None, None] | (cold[:, None] & (torch.arange(2) == reactor[:, None]))[:, :, None, None]
    return inside(lengths, parts, columns) & hidden


def draw_masks(lengths: Tensor, parts: int, columns: int, config: MaskConfig, generator: torch.Generator | None = None) -> Drawn:
    """Masks of a batch with lengths [B] (CPU); the kind, the time and the roles are drawn for each sample."""
    batch = lengths.shape[0]

    def draw(*shape):
        return torch.rand(*shape, generator=generator)

    kind, tau, person = draw(batch), draw(batch), (draw(batch) < 0.5).long()
    interaction = kind < config.interaction
    streaming = ~interaction & (kind < config.interaction + config.streaming)
    now = 1 + (draw(batch) * (lengths - 1)).long().minimum((lengths - 2).clamp(min=0))
    cold, first = draw(batch) < config.cold, draw(batch) < config.first_pass
    if config.future:
        lengths = torch.where(streaming, torch.minimum(lengths, now + config.future), lengths)
    # One column has no future: such a sample is left to the cold region.
    cold = cold | (now >= lengths)
    region = inside(lengths, parts, columns).clone()
    pick = interaction[:, None, None, None]
    region = torch.where(pick, interaction_region(lengths, person, parts, columns), region)
    stream = streaming_region(lengths, now, cold, person, parts, columns)
    region = torch.where(streaming[:, None, None, None], stream, region)
    share = torch.where(interaction | (streaming & first), torch.ones(batch), cosine_share(tau))
    return Drawn(random_subset(region, share, generator), lengths)


def corrupt(codes: Tensor, mask: Tensor, wrong: Tensor, blank: Tensor, random_codes: Tensor, mask_id: int) -> Tensor:
    """Input ids: at masked tokens a random code where `wrong`, else MASK where `blank`, else the true code."""
    out = torch.where(mask & wrong, random_codes, codes)
    return out.masked_fill(mask & ~wrong & blank, mask_id)


class Corruption(NamedTuple):
    """Draws of a batch of tokens [B, 2, S, N]: which get a wrong code, which MASK, and how far off a wrong code is."""

    wrong: Tensor
    blank: Tensor
    shift: Tensor

    @classmethod
    def drawn(cls, shape, codes_count: int, generator: torch.Generator | None = None) -> Corruption:
        """10 % wrong, 88 % of the rest MASK; a wrong code is never the true one."""
        wrong = torch.rand(shape, generator=generator) < WRONG_SHARE
        blank = torch.rand(shape, generator=generator) < MASK_SHARE
        return cls(wrong, blank, torch.randint(1, max(codes_count, 2), shape, generator=generator))

    def of(self, rows) -> Corruption:
        """Those of some samples."""
        return Corruption(*(x[rows] for x in self))

    def apply(self, codes: Tensor, mask: Tensor, codes_count: int) -> Tensor:
        """Input ids of codes int64 [B, 2, S, N] under a mask."""
        return corrupt(codes, mask, self.wrong, self.blank, (codes.clamp(min=0) + self.shift) % codes_count, codes_count)


def draw_corruption(codes: Tensor, mask: Tensor, codes_count: int, generator: torch.Generator | None = None) -> Tensor:
    """`corrupt` with drawn choices, see `Corruption`. `codes` int64 [B, 2, S, N] on the CPU, `mask` as drawn."""
    return Corruption.drawn(mask.shape, codes_count, generator).apply(codes, mask, codes_count)


def labels_of(codes: Tensor, mask: Tensor) -> Tensor:
    """Targets: the true code at masked tokens, IGNORED elsewhere."""
    return codes.masked_fill(~mask, IGNORED)


def _remaining(inputs: Tensor, labels: Tensor, tokens: Tensor, mask_id: int) -> tuple[Tensor, Tensor]:
    """Which tokens [B, 2*S*N] are MASK and labelled, and how many [B] of them the second pass still hides."""
    blank = ((inputs == mask_id) & (labels != IGNORED)).flatten(1)
    count = blank.sum(1)
    tau = torch.acos((count / tokens).clamp(max=1.0)) * (2 / math.pi)
    return blank, (cosine_share((tau + UNROLL_STEP).clamp(max=1.0)) * tokens).round().long().minimum(count)


def labelled(inputs: Tensor, labels: Tensor, tokens: Tensor, mask_id: int) -> tuple[Tensor, Tensor]:
    """Tokens that the first and the second pass's cross entropies of a batch are means over, before either is computed."""
    blank, remaining = _remaining(inputs, labels, tokens, mask_id)
    first = (labels != IGNORED).sum()
    return first, first - (blank.sum(1) - remaining).sum()


def unroll_inputs(logits: Tensor, inputs: Tensor, labels: Tensor, tokens: Tensor, mask_id: int) -> tuple[Tensor, Tensor]:
    """Inputs and labels of the second pass (step unroll): the most confident predictions at MASK tokens are kept.

    The share of MASK among `tokens` [B] says how far the schedule is; one step of 1/21 later fewer remain. Logits
    [B, 2, S, N, K], inputs and labels [B, 2, S, N]. Only MASK tokens are filled: wrong and true codes in the input stay.
    """
    shape, batch = inputs.shape, inputs.shape[0]
    blank, remaining = _remaining(inputs, labels, tokens, mask_id)
    best, predicted = logits.detach().float().max(-1)
    confidence = torch.exp(best - logits.detach().float().logsumexp(-1)).view(batch, -1).masked_fill(~blank, 2.0)
    order = confidence.argsort(dim=1, stable=True)
    lowest = torch.arange(order.shape[1], device=order.device) < remaining[:, None]
    kept = (blank & ~torch.zeros_like(blank).scatter(1, order, lowest)).view(shape)
    return torch.where(kept, predicted, inputs), labels.masked_fill(kept, IGNORED)


def masked_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross entropy and accuracy over labelled tokens, float32; both 0 where there is none."""
    flat, target = logits.float().flatten(0, -2), labels.flatten()
    labelled = target != IGNORED
    count = labelled.sum().clamp(min=1)
    loss = F.cross_entropy(flat, target, ignore_index=IGNORED, reduction="sum") / count
    return loss, ((flat.detach().argmax(-1) == target) & labelled).sum() / count


def transformer_loss(transformer, inputs: Tensor, labels: Tensor, condition: Tensor | None, lengths: Tensor | None, *,
                     unroll: float = 1.0, schedule_tokens: Tensor | None = None, placement: Tensor | None = None) -> LossOutput:
    """Loss of one batch: masked cross entropy, and `unroll` times that of the second pass (0: no second pass).

    `inputs` int64 [B, 2, S, N] from draw_corruption, `labels` from labels_of, `condition` [B, C] (drop a row by zeroing
    it), `lengths` [B] or None where nothing is padded. `schedule_tokens` [B] is the count that the unroll schedule refers
    to: each sample's own tokens by default, so that a loss does not depend on padding (the published one counts padding).
    `placement` [B, 2, N, WIDTH] goes to a transformer of own frames.
    """
    mask_id = transformer.config.mask_id
    modulations = transformer.modulate(condition, inputs.shape[0])
    logits = transformer(inputs, None, lengths, modulations=modulations, placement=placement)
    first, accuracy = masked_cross_entropy(logits, labels)
    if unroll == 0:
        none = torch.zeros_like(accuracy)
        return LossOutput(first, first.detach(), accuracy, none, none, first, none)
    if schedule_tokens is None:
        columns = lengths if lengths is not None else inputs.new_full(inputs.shape[:1], inputs.shape[-1])
        schedule_tokens = columns.to(inputs.device) * (2 * inputs.shape[2])
    again, again_labels = unroll_inputs(logits, inputs, labels, schedule_tokens, mask_id)
    again_logits = transformer(again, None, lengths, modulations=modulations, placement=placement)
    second, second_accuracy = masked_cross_entropy(again_logits, again_labels)
    return LossOutput(first + unroll * second, first.detach(), accuracy, second.detach(), second_accuracy, first, second)
