"""What each training sample of the transformer hides: which mode, which person, which columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from rtinteract.training import masks

from rtinteract.config import to_dict
from rtinteract.errors import ConfigError

RANDOM, INTERACTION, STREAMING = range(3)
# Columns that a further window of a long clip begins with, at most.
BEGUN = 8
MODES = ("random", "interaction", "streaming")


@dataclass(frozen=True)
class Shares:
    """What a sample trains. The rest of 1 is random masking.

    ``interaction`` hides one person whole (``reactor`` of them the second, whose partner owns the canonical frame);
    ``streaming`` hides both people from "now" on and shows the past as a clip that ends there; ``cold`` of those hide the
    second person's past too. ``whole`` of both start from everything hidden, as a sampler does; the others show a part.
    The first person is the one of the two who starts the interaction with share ``starter``: who reacts seldom starts.
    ``begun`` of the interaction samples (half as many of the random ones) show the first columns of who is hidden, as a given
    start and a further window of a long clip do.
    ``horizon`` columns at most are hidden in ``near`` of the streaming batches, any number in the others.
    ``text_dropped`` of random samples lose their text; ``reaction_text_dropped`` of the others, because reacting usually
    has none. ``history_noise`` of the past's tokens are wrong, as a model's own past is.
    In ``self_history`` of the batches the streaming samples' second person has lately moved as the model itself does, see
    `rtinteract.training.self_history`. ``horizon_dropped`` of the streaming samples end before the others, at any hidden column.
    """

    interaction: float = 0.3
    reactor: float = 0.8
    streaming: float = 0.4
    cold: float = 0.1
    whole: float = 0.3
    begun: float = 0.6
    horizon: int = 6
    near: float = 0.7
    starter: float = 0.7
    text_dropped: float = 0.1
    reaction_text_dropped: float = 0.4
    history_noise: float = 0.02
    self_history: float = 0.0
    horizon_dropped: float = 0.0

    def __post_init__(self):
        for name, value in to_dict(self).items():
            if name != "horizon" and not 0 <= value <= 1:
                raise ConfigError(f"shares.{name}: expected a share in [0, 1], got {value}; mend the configuration")
        if self.interaction + self.streaming > 1:
            raise ConfigError(f"shares: expected interaction + streaming of at most 1, got {self.interaction + self.streaming}")

    def modes(self, batch: int, g: torch.Generator) -> torch.Tensor:
        """Drawn modes [batch]."""
        kind = torch.rand(batch, generator=g)
        rest = torch.where(kind < self.interaction + self.streaming, STREAMING, RANDOM)
        return torch.where(kind < self.interaction, INTERACTION, rest)

    def now(self, columns: int, g: torch.Generator) -> int:
        """The first hidden column of a batch's streaming samples; at least one column is past and one is to come."""
        near = float(torch.rand((), generator=g)) < self.near
        hidden = 1 + int(float(torch.rand((), generator=g)) * (min(self.horizon, columns - 1) if near else columns - 1))
        return columns - hidden

    def ends(self, modes: torch.Tensor, columns: int, now: int, g: torch.Generator) -> torch.Tensor:
        """The columns [B] after which each sample of a batch ends; nothing is drawn where no horizon is dropped."""
        ends = torch.full((len(modes),), columns)
        if not self.horizon_dropped:
            return ends
        dropped = (torch.rand(len(modes), generator=g) < self.horizon_dropped) & (modes == STREAMING)
        return torch.where(dropped, torch.randint(now + 1, columns + 1, (len(modes),), generator=g), ends)

    def region(self, modes: torch.Tensor, parts: int, columns: int, now: int, g: torch.Generator,
               lengths: torch.Tensor | None = None):
        """Tokens that a sampler would have to fill, bool [B, 2, S, N], and the columns whose poses it would know [B, 2, N].
        ``lengths`` [B] are the samples' columns, ``columns`` without."""
        batch = len(modes)
        lengths = torch.full((batch,), columns) if lengths is None else lengths
        person = (torch.rand(batch, generator=g) < self.reactor).long()
        cold = torch.rand(batch, generator=g) < self.cold
        begun = torch.rand(batch, generator=g) < torch.where(modes == RANDOM, self.begun / 2, self.begun)
        first = (torch.randint(1, BEGUN + 1, (batch,), generator=g) * begun).minimum(lengths - 1)
        region = masks.inside(lengths, parts, columns).clone()
        region[modes == INTERACTION] = masks.interaction_region(lengths, person, parts, columns)[modes == INTERACTION]
        region &= torch.arange(columns) >= first[:, None, None, None]
        hidden = masks.streaming_region(lengths, torch.full((batch,), now), cold, torch.ones_like(person), parts, columns)
        region[modes == STREAMING] = hidden[modes == STREAMING]
        return region, ~region.any(2)
