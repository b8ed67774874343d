"""Iterative filling of masked tokens (InterMask section 3.3): one path for generation, reaction and inpainting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rtinteract.errors import Cancelled, RtInteractError
from rtinteract.kernels import remask as ops

KEPT_SCORE = 1e5
OUTSIDE = -1


def masked_shares(iterations: int) -> list[float]:
    """Share of a sample's tokens that is masked when each iteration begins: cos(pi t / 2), t = linspace(0, 1, I)."""
    return [math.cos(math.pi / 2 * i / max(iterations - 1, 1)) for i in range(iterations)]


def sample_codes(transformer, codes: Tensor, condition: Tensor | None, lengths: Tensor, iterations: int = 12,
                 guidance: float = 2.0, top_k: float = 0.1, temperature: float = 1.0, seed: int | Sequence[int] | Tensor = 0,
                 noise: Tensor | None = None, progress: Callable[[int, int], bool | None] | None = None,
                 placement: Tensor | None = None, choice_temperature: float = 0.0) -> Tensor:
    """Fill every MASK of `codes` int64 [B, 2, S, N]; all other positions are kept. Returns int64 [B, 2, S, N].

    Positions past `lengths` [B] (columns) are ignored and come back as -1. Each sample's schedule counts its own masked
    tokens, so mixed lengths and mixed tasks share a batch. `condition` [B, C] (a row of zeros: no condition) or None.
    With `guidance` 1 or no condition the transformer runs once an iteration, else on a doubled batch.

    `top_k` in (0, 1] is the share of codes that may be drawn; `temperature` divides the logits, 0 takes the most likely
    code. Two people who are both masked everywhere have equal logits, so temperature 0 makes them equal. `seed` is an
    int (sample b uses a hash of (seed, b)) or B ints, one a sample; `noise` [I, B, 2, S, N, K] replaces the noise.

    `choice_temperature` above 0 retains tokens by chance too, as MaskGIT does (Chang et al. 2022): to the logarithm of scores
    comes Gumbel noise of so much times the share still masked. By the scores alone (0, as published) what is common is retained
    first, and what is rare, as beginning to walk, is drawn again until it is common. It needs noise from seeds.

    `placement` [B, 2, N, WIDTH] goes to a transformer of own frames. `progress(done, iterations)` is called after each
    iteration; answering False raises Cancelled. RtInteractError where an argument does not fit.
    """
    lengths = _check_tokens(transformer, codes, condition, lengths)
    check_options(iterations, guidance, top_k, temperature, choice_temperature)
    expected = (iterations, *codes.shape, transformer.config.codes)
    if noise is not None and tuple(noise.shape) != expected:
        raise RtInteractError(f"noise: expected [I, B, 2, S, N, K] = {list(expected)}, got {list(noise.shape)}")
    seeds = seeds_of(seed, codes.shape[0], codes.device)
    padded = bool((lengths < codes.shape[-1]).any())
    filled = fill_masked(transformer, codes, condition, lengths if padded else None, iterations=iterations, guidance=guidance,
                         top_k=top_k, temperature=temperature, seeds=seeds, noise=noise, progress=progress,
                         placement=placement, choice_temperature=choice_temperature)
    past = torch.arange(codes.shape[-1], device=codes.device) >= lengths[:, None, None, None]
    return filled.masked_fill(past, OUTSIDE)


@torch.no_grad()
def fill_masked(transformer, codes: Tensor, condition: Tensor | None, lengths: Tensor | None, *, iterations: int,
                guidance: float, top_k: float, temperature: float, seeds: Tensor, noise: Tensor | None = None,
                progress: Callable[[int, int], bool | None] | None = None, modulations=None,
                placement: Tensor | None = None, last: int | None = None, first: Tensor | None = None,
                choice_temperature: float = 0.0) -> Tensor:
    """`sample_codes` for arguments already checked: no host synchronisation. `lengths` None says that nothing is padded.

    `modulations` (from `guidance_modulations`, same guidance) spare the condition's part of the transformer; `last` says that
    all MASK stand in so many columns at the end, and spares the logits of the others. `first` [B] counts the columns before
    each sample's first one: windows that moved on draw a column they share by the same noise.

    Where people alternate, each one's tokens have a schedule of their own, and the next one sees of them what was retained
    (InterMask appendix G).
    """
    config = transformer.config
    batch, _, parts, columns = codes.shape
    guided = condition is not None and guidance != 1
    if modulations is None:
        modulations = guidance_modulations(transformer, condition, batch, guidance)
    if guided and placement is not None:
        placement = placement.repeat(2, 1, 1, 1)
    tail = slice(0 if last is None else columns - last, columns)
    codes = codes.clone()
    here = codes[..., tail]
    masked = here == config.mask_id
    # Asking which values a tensor holds is free on a CPU alone; on a GPU the batch's shape decides everything.
    person = _only_person(masked) if noise is None and codes.device.type == "cpu" else None
    if lengths is not None:
        masked &= torch.arange(columns, device=codes.device)[tail] < lengths[:, None, None, None]
    run_lengths = lengths.repeat(2) if guided and lengths is not None else lengths
    apart = (0, 1) if person is None and config.modelling == "alternating" else (person,)
    turns = [_Turn.of(here, masked, who) for who in apart]
    streams = None if noise is not None or temperature == 0 else ops.token_streams(seeds, iterations, parts, columns, first)
    count = ops.candidates(top_k, config.codes)
    shares = masked_shares(iterations)
    for i in range(iterations):
        for turn in turns:
            logits = transformer(codes.repeat(2, 1, 1, 1) if guided else codes, None, run_lengths, modulations=modulations,
                                 placement=placement, last=last, **({} if turn.person is None else {"person": turn.person}))
            own = None if streams is None else streams[i][:, turn.people, :, tail]
            scores = _drawn(logits, turn.masked, turn.here, guided, scale=guidance, count=count, temperature=temperature,
                            streams=own, noise=None if noise is None else noise[i][:, turn.people, :, tail])
            if i + 1 < iterations:
                if choice_temperature and own is not None:
                    scores = _by_chance(scores, own, config.codes, choice_temperature * shares[i + 1])
                turn.remask(scores, shares[i + 1], config.mask_id)
        if progress is not None and progress(i + 1, iterations) is False:
            raise Cancelled(f"sampling stopped by the progress callback after iteration {i + 1} of {iterations}")
    return codes


@dataclass
class _Turn:
    """Whose tokens one pass fills: both people's (``person`` None) or one person's; ``people`` is that part of their
    axis. ``here`` is the view of their ids [B, P, S, N], ``masked`` what is MASK in it, ``tokens`` [B] how many that were at
    first."""

    person: int | None
    people: slice
    here: Tensor
    masked: Tensor
    tokens: Tensor

    @classmethod
    def of(cls, here: Tensor, masked: Tensor, person: int | None) -> _Turn:
        """Of both people's ids and masks [B, 2, S, N]."""
        people = slice(None) if person is None else slice(person, person + 1)
        return cls(person, people, here[:, people], masked[:, people], masked[:, people].flatten(1).sum(1))

    def remask(self, scores: Tensor, share: float, mask_id: int) -> None:
        """MASK at the share of lowest scores [B, P, S, N], one token at least."""
        wanted = (self.tokens * share).round().long().clamp(min=1).minimum(self.tokens)
        self.masked = ops.remask(scores.flatten(1), wanted).view(self.here.shape)
        self.here.masked_fill_(self.masked, mask_id)


def _drawn(logits: Tensor, masked: Tensor, here: Tensor, guided: bool, *, streams: Tensor | None, noise: Tensor | None,
           **options) -> Tensor:
    """Draw the masked tokens of the view ``here`` in place; every token's score."""
    given = [*logits.chunk(2 if guided else 1), streams, noise]
    scores = torch.full(masked.shape, KEPT_SCORE, dtype=torch.float32, device=masked.device)
    # How many are masked is free to ask on a CPU alone.
    few = masked.device.type == "cpu"
    *rows, streams, noise = [x[masked] if few and x is not None else x for x in given]
    drawn, score = ops.draw(*rows, streams=streams, noise=noise, **options)
    if few:
        here[masked], scores[masked] = drawn, score
        return scores
    here.copy_(torch.where(masked, drawn, here))
    return torch.where(masked, score, scores)


def _by_chance(scores: Tensor, streams: Tensor, codes: int, spread: float) -> Tensor:
    """The logarithms of the scores of what was drawn, with Gumbel noise of that spread: a token's stream gives it to one code
    more than there are."""
    noise = ops.gumbel_reference(streams, torch.full((1,), codes, device=streams.device))[..., 0]
    return torch.where(scores == KEPT_SCORE, scores, scores.log() + spread * noise)


def _only_person(masked: Tensor) -> int | None:
    """The one person of masked [B, 2, S, N] who has anything to fill in, if only one has."""
    filled = masked.transpose(0, 1).flatten(1).any(1).tolist()
    return filled.index(True) if sum(filled) == 1 else None


def guidance_modulations(transformer, condition: Tensor | None, batch: int, guidance: float):
    """Modulations of a sampling run: conditioned rows, then (where guidance needs them) as many rows without condition."""
    if condition is not None and guidance != 1:
        condition = torch.cat([condition, torch.zeros_like(condition)])
    return transformer.modulate(condition, batch)


def together(modulations: Sequence):
    """Modulations of several runs of `fill_masked`, each of one sample, as one run's: every tensor [R, 1, D] becomes
    [R * B, 1, D], all conditioned rows before those without condition."""
    first = modulations[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.stack(list(modulations), 1).flatten(0, 1)
    parts = [together(p) for p in zip(*modulations, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)


def seeds_of(seed, batch: int, device) -> Tensor:
    """Seeds int64 [B] as `sample_codes` takes them from an int or one int a sample. RtInteractError for anything else."""
    if isinstance(seed, bool) or (not isinstance(seed, int | Tensor) and not isinstance(seed, Sequence)):
        raise RtInteractError(f"seed: expected an int, or one int a sample, got {type(seed).__name__}")
    if isinstance(seed, int):
        return ops.sample_seeds(seed, batch, device)
    values = seed.tolist() if isinstance(seed, Tensor) else list(seed)
    if not isinstance(values, list) or len(values) != batch or not all(type(v) is int for v in values):
        raise RtInteractError(f"seed: expected one int for each of the {batch} samples, got {seed!r}")
    wrapped = [(v + 2**63) % 2**64 - 2**63 for v in values]
    return torch.tensor(wrapped, dtype=torch.int64, device=device)


def check_options(iterations, guidance, top_k, temperature, choice_temperature=0.0) -> None:
    """RtInteractError for sampling options out of range."""
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise RtInteractError(f"iterations: expected an integer of at least 1, got {iterations!r}")
    if not math.isfinite(guidance):
        raise RtInteractError(f"guidance: expected a finite number (1 = off, 2 = the published value), got {guidance!r}")
    if not 0 < top_k <= 1:
        raise RtInteractError(f"top_k: expected a share of the codes in (0, 1], got {top_k!r}; 1 keeps them all")
    for name, value in (("temperature", temperature), ("choice_temperature", choice_temperature)):
        if not (value >= 0 and math.isfinite(value)):
            raise RtInteractError(f"{name}: expected a finite number of at least 0, got {value!r}")


def _check_tokens(transformer, codes: Tensor, condition: Tensor | None, lengths) -> Tensor:
    """Shapes and ranges; answers lengths int64 [B] on the device of the codes."""
    config = transformer.config
    if transformer.training:
        raise RtInteractError("transformer: it is in training mode, where dropout makes every draw random; call .eval() first")
    if codes.dim() != 4 or codes.shape[1:3] != (2, config.parts) or codes.dtype != torch.int64 or 0 in codes.shape:
        raise RtInteractError(f"codes: expected int64 [B, 2, {config.parts}, N], got {codes.dtype} {list(codes.shape)}")
    lengths = torch.as_tensor(lengths, device=codes.device)
    batch, columns = codes.shape[0], codes.shape[-1]
    if lengths.shape != (batch,) or lengths.is_floating_point():
        raise RtInteractError(f"lengths: expected {batch} integers, one a sample, got {lengths.dtype} {list(lengths.shape)}")
    if bool(((lengths < 1) | (lengths > columns)).any()):
        raise RtInteractError(f"lengths: expected columns in [1, {columns}], got {lengths.tolist()}")
    inside = torch.arange(columns, device=codes.device) < lengths[:, None, None, None]
    wrong = inside & ((codes < 0) | (codes > config.mask_id))
    if bool(wrong.any()):
        raise RtInteractError(f"codes: expected ids in [0, {config.codes}) or MASK = {config.mask_id} inside lengths, "
                              f"got {sorted(set(codes[wrong].tolist()))[:5]}")
    if condition is not None and tuple(condition.shape) != (batch, config.condition):
        raise RtInteractError(f"condition: expected [{batch}, {config.condition}], got {list(condition.shape)}")
    if condition is not None and not bool(torch.isfinite(condition).all()):
        raise RtInteractError("condition: expected finite numbers, got NaN or infinity; check the text embedding")
    return lengths.long()
