"""What every trainer shares: the loop, the schedule, the averaged weights, resuming, and stopping.

A run is a pure function of its configuration and the step number: every batch and every random draw of a step comes from a
generator seeded by (seed, step). A killed run therefore continues exactly where its last saved state was, with no data order
to restore, and a background thread could not change what is trained on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import signal
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rtinteract.training.state import Ema, load_state, save_state, write_atomic
from torch import nn

from rtinteract.config import to_dict
from rtinteract.errors import ConfigError, RtInteractError
from rtinteract.precision import has_fast_bfloat16

log = logging.getLogger(__name__)


class Diverged(RtInteractError):
    """A loss or gradient stopped being finite; the last saved state is from before that."""


@dataclass(frozen=True)
class LoopConfig:
    """The loop's settings. A run ends at ``steps`` or ``minutes`` (time spent in this run, earlier parts included), whichever is
    first. The learning rate follows the share of the run that is done: by steps if given, else by time. Only a run without
    ``minutes`` repeats to the bit.

    ``schedule``: "cosine" to ``final_rate`` of the rate, "step" (``milestones`` as shares, each times ``factor``) or "constant".
    ``precision``: "auto" is bfloat16 autocast where the processor has matrix units for it, else float32.
    """

    seed: int = 0
    batch: int = 96
    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 8e-4
    betas: tuple[float, ...] = (0.9, 0.99)
    weight_decay: float = 1e-5
    warmup: int = 200
    schedule: str = "cosine"
    final_rate: float = 0.02
    milestones: tuple[float, ...] = (0.7, 0.85)
    factor: float = 0.1
    gradient_norm: float = 1.0
    ema: float = 0.999
    precision: str = "auto"
    device: str = "cpu"
    threads: int | None = None
    save_s: float = 120.0
    validate_s: float = 120.0
    validate_steps: int | None = None
    log_steps: int = 20

    def __post_init__(self):
        def check(good, what, expected, got):
            if not good:
                raise ConfigError(f"loop.{what}: expected {expected}, got {got!r}; mend the configuration")
        check(self.steps is not None or self.minutes is not None, "steps", "a limit in steps or minutes", None)
        check(self.steps is None or self.steps >= 1, "steps", "at least 1", self.steps)
        check(self.minutes is None or self.minutes > 0, "minutes", "more than 0", self.minutes)
        check(self.batch >= 1, "batch", "at least 1", self.batch)
        check(self.learning_rate > 0, "learning_rate", "more than 0", self.learning_rate)
        check(self.schedule in ("cosine", "step", "constant"), "schedule", "'cosine', 'step' or 'constant'", self.schedule)
        check(self.precision in ("auto", "float32", "bfloat16"), "precision", "'auto', 'float32' or 'bfloat16'", self.precision)
        check(0 <= self.ema < 1, "ema", "a decay in [0, 1)", self.ema)
        check(len(self.betas) == 2, "betas", "two numbers", self.betas)


# What may differ between the parts of one run: limits and habits, not what is computed at a step.
_FREE = ("steps", "minutes", "threads", "save_s", "validate_s", "validate_steps", "log_steps")


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


class Stage(ABC):
    """One thing to train. ``model`` is the module whose weights are optimised, averaged, saved and resumed."""

    model: nn.Module

    @abstractmethod
    def batch(self, step: int) -> Any:
        """The batch of step ``step``: a pure function of the step, on the stage's device."""

    @abstractmethod
    def loss(self, batch: Any, step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Scalar loss and the terms to log."""

    @abstractmethod
    def validate(self, weights: dict[str, torch.Tensor]) -> dict[str, float]:
        """Held-out metrics with these (averaged) weights; leaves ``model`` as it was."""

    @abstractmethod
    def export(self, path: Path, weights: dict[str, torch.Tensor], card: dict) -> None:
        """Write the stage's result atomically."""


@contextlib.contextmanager
def borrowed(module: nn.Module, weights: dict[str, torch.Tensor]):
    """The module in evaluation mode with other weights; its own weights and mode come back."""
    own = {k: v.detach().clone() for k, v in module.state_dict().items()}
    training = module.training
    module.load_state_dict(weights)
    module.eval()
    try:
        yield module
    finally:
        module.load_state_dict(own)
        module.train(training)


@dataclass
class Result:
    """How a run ended: ``reason`` is "steps", "minutes" or "signal"; ``metrics`` are the last validation's."""

    steps: int
    minutes: float
    reason: str
    file: Path
    metrics: dict[str, float] = field(default_factory=dict)


class _Stop:
    """SIGTERM and SIGINT ask the loop to save and end; the previous handlers come back afterwards."""

    def __init__(self):
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number, frame):
        self.asked = True

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _Board:
    """Scalars to TensorBoard (if it is installed) and to metrics.jsonl (always)."""

    def __init__(self, folder: Path):
        self._lines = open(folder / "metrics.jsonl", "a", encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.warning("TensorBoard is not installed: curves go to metrics.jsonl only; pip install 'rtinteract[train]' adds it")
            self._writer = None
        else:
            self._writer = SummaryWriter(folder / "tensorboard")

    def write(self, step: int, minutes: float, values: dict[str, float], kind: str) -> None:
        """One line of metrics at a step."""
        self._lines.write(json.dumps({"step": step, "minutes": round(minutes, 3), "kind": kind, **values}) + "\n")
        self._lines.flush()
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush both."""
        self._lines.close()
        if self._writer is not None:
            self._writer.close()


def _bar(total, start, progress: bool):
    try:
        from tqdm import tqdm
    except ImportError:
        log.warning("tqdm is not installed, so there is no progress bar; pip install 'rtinteract[train]' adds it")
        return None
    return tqdm(total=total, initial=start, disable=not progress, dynamic_ncols=True, unit="step", mininterval=1.0)


class Trainer:
    """Runs a stage. ``config`` is the stage's whole configuration (stored, and compared on resume), ``loop`` its loop part."""

    def __init__(self, stage: Stage, loop: LoopConfig, config: Any, out: Path, *, name: str, progress: bool = True,
                 resume: bool = True):
        self.stage, self.loop, self.out, self.name, self.progress = stage, loop, Path(out), name, progress
        self.device = torch.device(loop.device)
        self.config = to_dict(config)
        self.out.mkdir(parents=True, exist_ok=True)
        if loop.threads:
            torch.set_num_threads(loop.threads)
        fast = has_fast_bfloat16(self.device) if loop.precision == "auto" else loop.precision == "bfloat16"
        self.autocast = torch.bfloat16 if fast else None
        self.parameters = [p for p in stage.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=loop.learning_rate, betas=tuple(loop.betas),
                                           weight_decay=loop.weight_decay)
        self.ema = Ema(stage.model, loop.ema)
        self.step, self.spent_s = 0, 0.0
        self.metrics: dict[str, float] = {}
        self.state_file, self.result_file = self.out / "state.pt", self.out / f"{name}.safetensors"
        if resume and self.state_file.exists():
            self._resume()
        write_atomic(self.out / "config.json", json.dumps(self.config, indent=1).encode())

    def _comparable(self, config: dict) -> dict:
        config = json.loads(json.dumps(config))
        config["loop"] = {k: v for k, v in config["loop"].items() if k not in _FREE}
        return config

    def _resume(self) -> None:
        state = load_state(self.state_file, self.device)
        then, now = self._comparable(json.loads(state["config"])), self._comparable(self.config)
        if then != now:
            def flat(d, at=""):
                items = d.items() if isinstance(d, dict) else ()
                return {p: v for k, x in items for p, v in (flat(x, f"{at}{k}.") if isinstance(x, dict) else {at + k: x}).items()}
            a, b = flat(then), flat(now)
            differ = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
            raise ConfigError(f"resume: expected the configuration that {self.state_file} was trained with, got another "
                              f"{', '.join(differ)}; restore it, or train into a new folder")
        self.stage.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.weights = state["ema"]
        self.step, self.spent_s, self.metrics = state["step"], state["spent_s"], state["metrics"]
        log.info("resumed %s at step %d after %.1f min", self.name, self.step, self.spent_s / 60)

    def save(self) -> None:
        """Save everything a later run needs to continue from this step."""
        save_state(self.state_file, {
            "model": self.stage.model.state_dict(), "ema": self.ema.weights, "optimizer": self.optimizer.state_dict(),
            "step": self.step, "spent_s": self.spent_s, "metrics": self.metrics, "config": json.dumps(self.config)})

    def export(self) -> None:
        """Write the stage's result with the averaged weights."""
        card = {"stage": self.name, "steps": self.step, "minutes": round(self.spent_s / 60, 2), "seed": self.loop.seed,
                "metrics": self.metrics, "training": self.config}
        self.stage.export(self.result_file, self.ema.weights, card)

    def _done(self) -> float:
        by_steps = self.step / self.loop.steps if self.loop.steps else 0.0
        by_time = self.spent_s / (60 * self.loop.minutes) if self.loop.minutes else 0.0
        return max(by_steps, by_time)

    def _advance(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        torch.manual_seed(step_seed(self.loop.seed, self.step, "model"))
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.loop, self.step, self._done())
        batch = self.stage.batch(self.step)
        with torch.autocast(self.device.type, dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            loss, terms = self.stage.loss(batch, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.loop.gradient_norm)
        if not math.isfinite(float(norm)) or not math.isfinite(float(loss.detach())):
            raise Diverged(f"{self.name}: expected a finite loss at step {self.step}, got loss {float(loss.detach())} with "
                           f"gradient norm {float(norm)}; the saved state is from before it: lower the learning rate and start "
                           "again, or look for broken clips")
        self.optimizer.step()
        self.step += 1
        self.ema.update(self.stage.model, self.step)
        return loss.detach(), {k: v.detach() for k, v in terms.items()} | {"gradient_norm": norm.detach()}

    def validate(self, board: _Board) -> None:
        """Held-out metrics with the averaged weights, logged and kept for the result's card."""
        began = time.monotonic()
        self.metrics = self.stage.validate(self.ema.weights)
        board.write(self.step, self.spent_s / 60, self.metrics, "validation")
        log.info("%s step %d (%.1f min): %s [%.1f s]", self.name, self.step, self.spent_s / 60,
                 ", ".join(f"{k} {v:.4g}" for k, v in self.metrics.items()), time.monotonic() - began)

    def _reason(self, stop: _Stop) -> str | None:
        if stop.asked:
            return "signal"
        if self.loop.steps is not None and self.step >= self.loop.steps:
            return "steps"
        if self.loop.minutes is not None and self.spent_s >= 60 * self.loop.minutes:
            return "minutes"
        return None

    def run(self) -> Result:
        """Train until a limit or a signal, then save, validate (unless a signal wants it quick) and export."""
        self.stage.model.train()
        board, bar = _Board(self.out), _bar(self.loop.steps, self.step, self.progress)
        saved = validated = self.spent_s
        try:
            with torch.random.fork_rng(devices=[]), _Stop() as stop:
                while (reason := self._reason(stop)) is None:
                    began = time.monotonic()
                    loss, terms = self._advance()
                    if self.step % self.loop.log_steps == 0:
                        values = {"loss": float(loss), **{k: float(v) for k, v in terms.items()}}
                        values["rate"] = self.optimizer.param_groups[0]["lr"]
                        board.write(self.step, self.spent_s / 60, values, "train")
                        if bar is not None:
                            bar.set_postfix({"loss": f"{values['loss']:.4f}"} | {k: f"{v:.3g}" for k, v in self.metrics.items()})
                    self.spent_s += time.monotonic() - began
                    if bar is not None:
                        bar.update(1)
                    by_steps = self.loop.validate_steps
                    if (self.step % by_steps == 0) if by_steps else (self.spent_s - validated >= self.loop.validate_s):
                        validated = self.spent_s
                        self.validate(board)
                        self.export()
                    if self.spent_s - saved >= self.loop.save_s:
                        saved = self.spent_s
                        self.save()
                self.save()
                if reason != "signal":
                    self.validate(board)
                    self.save()
                self.export()
        finally:
            board.close()
            if bar is not None:
                bar.close()
        return Result(self.step, self.spent_s / 60, reason, self.result_file, dict(self.metrics))


def with_limits(loop: LoopConfig, *, steps: int | None, minutes: float | None, **other) -> LoopConfig:
    """The loop with a command line's limits in place of its own (if any is given) and other given settings."""
    if steps is not None or minutes is not None:
        loop = replace(loop, steps=steps, minutes=minutes)
    return replace(loop, **{k: v for k, v in other.items() if v is not None})
