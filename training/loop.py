"""A training loop's settings, its learning rate, and the seeds of its steps."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from rtinteract.training import distributed

from rtinteract.errors import ConfigError


@dataclass(frozen=True)
class LoopConfig:
    """The loop's settings. A run ends at ``steps``, ``epochs`` or ``minutes`` (time spent in this run, earlier parts included),
    whichever is first. The learning rate follows the share of the run that is done: by steps if given, else by time. Only a run
    without ``minutes`` repeats to the bit. An epoch is as many samples as the stage says that its data hold.

    ``batch`` is what one step sees, on however many processes and in however many parts: ``accumulate`` parts a process have
    their gradients gathered one after the other; ``recompute`` computes activations again in the backward pass in place of
    keeping them. Both spare memory and change nothing else but the draws of dropout.
    ``schedule``: "cosine" to ``final_rate`` of the rate, "step" (``milestones`` as shares, each times ``factor``) or "constant";
    before it a linear rise over ``warmup`` steps, or ``warmup_epochs`` where that is more than 0.
    Gradients are clipped to the norm ``gradient_norm``, not at all with 0; ``ema`` is the decay of the averaged weights, which
    with 0 are the last ones. ``precision``: "auto" is bfloat16 autocast where the processor has matrix units for it, else
    float32. ``device``: "auto" is a GPU if there is one; "cuda" is each process's own.
    ``best`` names the validation metric by which the best result is kept beside the latest: lower is better, higher with a "+"
    before the name; "auto" is the stage's own choice, "" keeps none. After a validation, ``samples`` held-out clips are drawn
    when ``sample_s`` seconds (or ``sample_steps`` steps) have passed since the last time; 0 samples draw none.
    ``prefetch``: "on" makes the next step's batch beside this step's work, "auto" does so where a processor is left for it: on
    another device than the CPU, or with fewer ``threads`` than cores.
    """

    seed: int = 0
    batch: int = 96
    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    learning_rate: float = 8e-4
    betas: tuple[float, ...] = (0.9, 0.99)
    weight_decay: float = 1e-5
    warmup: int = 200
    warmup_epochs: float = 0.0
    schedule: str = "cosine"
    final_rate: float = 0.02
    milestones: tuple[float, ...] = (0.7, 0.85)
    factor: float = 0.1
    gradient_norm: float = 1.0
    ema: float = 0.999
    precision: str = "auto"
    accumulate: int = 1
    recompute: bool = False
    device: str = "cpu"
    threads: int | None = None
    prefetch: str = "auto"
    save_s: float = 120.0
    validate_s: float = 120.0
    validate_steps: int | None = None
    best: str = "auto"
    samples: int = 4
    sample_s: float = 600.0
    sample_steps: int | None = None
    log_steps: int = 20

    def __post_init__(self):
        def check(good, what, expected, got):
            if not good:
                raise ConfigError(f"loop.{what}: expected {expected}, got {got!r}; mend the configuration")
        limits = (self.steps, self.epochs, self.minutes)
        check(any(limit is not None for limit in limits), "steps", "a limit in steps, epochs or minutes", None)
        check(self.steps is None or self.steps >= 1, "steps", "at least 1", self.steps)
        check(self.epochs is None or self.epochs > 0, "epochs", "more than 0", self.epochs)
        check(self.minutes is None or self.minutes > 0, "minutes", "more than 0", self.minutes)
        check(self.batch >= 1, "batch", "at least 1", self.batch)
        check(self.accumulate >= 1, "accumulate", "at least 1", self.accumulate)
        check(self.learning_rate > 0, "learning_rate", "more than 0", self.learning_rate)
        check(self.schedule in ("cosine", "step", "constant"), "schedule", "'cosine', 'step' or 'constant'", self.schedule)
        check(self.precision in ("auto", "float32", "bfloat16"), "precision", "'auto', 'float32' or 'bfloat16'", self.precision)
        check(self.prefetch in ("auto", "on", "off"), "prefetch", "'auto', 'on' or 'off'", self.prefetch)
        check(self.gradient_norm >= 0, "gradient_norm", "at least 0", self.gradient_norm)
        check(0 <= self.ema < 1, "ema", "a decay in [0, 1)", self.ema)
        check(self.samples >= 0, "samples", "at least 0", self.samples)
        check(len(self.betas) == 2, "betas", "two numbers", self.betas)


# What may differ between the parts of one run: limits and habits, not what is computed at a step (beside rounding and dropout).
FREE = ("steps", "epochs", "minutes", "threads", "save_s", "validate_s", "validate_steps", "log_steps", "accumulate",
        "recompute", "device", "prefetch", "best", "samples", "sample_s", "sample_steps")


def resolved(loop: LoopConfig, epoch: int | None) -> LoopConfig:
    """The loop with its epochs as steps, where an epoch holds ``epoch`` samples. ConfigError where the data have none."""
    if loop.epochs is None and not loop.warmup_epochs:
        return loop
    if not epoch:
        raise ConfigError("loop.epochs: expected data that are counted in epochs, got a stage that draws without an end; give "
                          "loop.steps or loop.minutes")
    a_pass = math.ceil(epoch / loop.batch)
    if loop.warmup_epochs:
        loop = replace(loop, warmup=max(1, round(loop.warmup_epochs * a_pass)))
    if loop.epochs is not None:
        steps = math.ceil(loop.epochs * a_pass)
        loop = replace(loop, steps=steps if loop.steps is None else min(steps, loop.steps))
    return loop


def rate(config: LoopConfig, step: int, done: float) -> float:
    """Learning rate at step ``step`` (from 0) when the share ``done`` in [0, 1] of the run is behind."""
    warm = min(1.0, (step + 1) / max(config.warmup, 1))
    if config.schedule == "cosine":
        shape = config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    elif config.schedule == "step":
        shape = config.factor ** sum(done >= m for m in config.milestones)
    else:
        shape = 1.0
    return config.learning_rate * warm * shape


def step_seed(seed: int, step: int, what: str = "") -> int:
    """A 63-bit seed of its own for each (seed, step, purpose); neighbouring steps share nothing."""
    digest = hashlib.blake2b(f"{seed}/{step}/{what}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, step: int, what: str = "") -> torch.Generator:
    """A CPU generator seeded by `step_seed`."""
    return torch.Generator().manual_seed(step_seed(seed, step, what))


def with_limits(loop: LoopConfig, *, steps: int | None, minutes: float | None, **other) -> LoopConfig:
    """The loop with a command line's limits in place of its own (if any is given) and other given settings, its device chosen."""
    if steps is not None or minutes is not None:
        loop = replace(loop, steps=steps, minutes=minutes, epochs=None)
    loop = replace(loop, **{k: v for k, v in other.items() if v is not None})
    return replace(loop, device=distributed.device_of(loop.device))
