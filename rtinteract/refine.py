"""Codes nearer to a motion than its codec's encoder finds: analysis by synthesis.

An encoder says in one pass which codes to take, and on motion unlike what it learned from it errs more than its decoder must.
Here the decoder judges: codes are relaxed to free vectors, which are rounded on the way in and moved by the gradient of what is
decoded, and the best ones seen are kept. It costs ``steps`` passes through the decoder, forward and back.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from rtinteract.codec import Codec
from rtinteract.errors import ConfigError
from rtinteract.features.base import Representation
from rtinteract.features.normalize import Normalizer

FPS = 30.0
# Free codes move by about so much a step at first and at last, in units of what lies between two codes.
_RATE, _LAST_RATE = 0.15, 0.01
# Steps between two looks at what rounded codes decode to.
_LOOK = 5


def refine(codec: Codec, normalizer: Normalizer, representation: Representation, codes: torch.Tensor, positions: torch.Tensor,
           rotations: torch.Tensor, *, steps: int = 100, anchor: int | None = None,
           offsets: torch.Tensor | None = None) -> torch.Tensor:
    """Codes [B, S, N] that decode nearer to a motion than ``codes`` [B, S, N], or the same ones where none were found.

    ``positions`` [B, T, 22, 3] (m) and local ``rotations`` [B, T, 22, 4] are the motion in its canonical frame, from which
    ``codes`` were encoded; ``anchor`` and body ``offsets`` [B, 22, 3] as `Representation.decode` takes them. Near means the mean
    distance of joints in that frame plus the one with the pelvis moved onto the true one. Frames past the last whole column are
    not seen. ConfigError for ``steps`` under 0.
    """
    check_steps(steps)
    if steps == 0:
        return codes
    # What is made in inference mode cannot be differentiated through.
    with torch.inference_mode(False), torch.enable_grad():
        codes, positions, rotations = codes.clone(), positions.clone(), rotations.clone()
        rows = codes.shape[2] * codec.config.frames_per_column
        image = normalizer(representation.encode(positions, rotations)).float()[:, :rows]
        search = _Search(codec, normalizer, representation, image, positions[:, :rows].float(), anchor, offsets)
        return search.run(codes, steps)


def check_steps(steps: int) -> None:
    """ConfigError unless ``steps`` is a whole number of at least 0."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ConfigError(f"refine: expected a whole number of steps, 0 or more, got {steps!r}")


class _Search:
    """One motion's search; ``image`` [B, T, J, F] and ``truth`` [B, T, 22, 3] are what to come near."""

    def __init__(self, codec: Codec, normalizer: Normalizer, representation: Representation, image, truth, anchor, offsets):
        self.codec, self.normalizer, self.representation = codec, normalizer, representation
        self.image, self.truth, self.anchor, self.offsets = image, truth, anchor, offsets

    def run(self, codes: torch.Tensor, steps: int) -> torch.Tensor:
        """The best codes of ``steps`` steps."""
        quantizer = self.codec.quantizer
        free = quantizer.relaxed(codes).requires_grad_()
        optimizer = torch.optim.Adam([free], lr=_RATE, betas=(0.9, 0.99))
        best, found = codes, self.distance(codes)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = _LAST_RATE + (_RATE - _LAST_RATE) * (1 - step / steps)
            rows, _ = quantizer.snapped(free)
            loss = self.loss(self.codec.decode_vectors(rows)) * len(codes)
            free.grad, = torch.autograd.grad(loss, free)
            optimizer.step()
            if (step + 1) % _LOOK == 0 or step + 1 == steps:
                with torch.no_grad():
                    tried = quantizer.snapped(free)[1]
                    distance = self.distance(tried)
                better = distance < found
                best = torch.where(better[:, None, None], tried, best)
                found = torch.where(better, distance, found)
        return best

    def loss(self, made: torch.Tensor) -> torch.Tensor:
        """What a step goes down on: joints in the canonical frame and by the pelvis, their speed and acceleration, the image."""
        places, _ = self.representation.read(self.normalizer.inverse(made), self.anchor)
        off = places - self.truth
        speed = off.diff(dim=1) * FPS
        change = speed.diff(dim=1) * FPS
        return (2 * _near(off, 0.02) + 6 * _near(off - off[:, :, :1], 0.02) + 0.2 * _near(speed, 0.1)
                + 0.06 * _near(change, 1.0) + 0.3 * _near(made - self.image, 0.05))

    @torch.no_grad()
    def distance(self, codes: torch.Tensor) -> torch.Tensor:
        """Metres [B] of codes [B, S, N], as `refine` tells; infinite where a decoded pose is not finite."""
        image = self.normalizer.inverse(self.codec.decode(codes).float())
        made, _ = self.representation.decode(image, self.offsets, self.anchor)
        off = made - self.truth
        metres = off.norm(dim=-1).mean((1, 2)) + (off - off[:, :, :1]).norm(dim=-1).mean((1, 2))
        return metres.nan_to_num(torch.inf)


def _near(x: torch.Tensor, beta: float) -> torch.Tensor:
    return F.smooth_l1_loss(x, torch.zeros_like(x), beta=beta)
