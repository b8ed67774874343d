"""What every trainer shares: the loop, the averaged weights, resuming, stopping, and one batch on several processes.

A run is a pure function of its configuration and the step number: every batch and every random draw of a step comes from a
generator seeded by (seed, step). A killed run therefore continues exactly where its last saved state was, with no data order
to restore, a background thread cannot change what is trained on, and any number of processes sees the same samples.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rtinteract.training import distributed
from rtinteract.training.board import Board, Feed, Stop, idle_beside
from rtinteract.training.distributed import WHOLE, Part
from rtinteract.training.keeper import Keeper
from rtinteract.training.loop import FREE, LoopConfig, generator, rate, resolved, step_seed, with_limits
from rtinteract.training.state import Ema, load_state, save_state, write_atomic
from torch import nn

from rtinteract.config import from_dict, to_dict
from rtinteract.errors import ConfigError, RtInteractError
from rtinteract.precision import has_fast_bfloat16

__all__ = ["Diverged", "LoopConfig", "Part", "Result", "Stage", "Trainer", "WHOLE", "borrowed", "generator", "rate", "step_seed",
           "with_limits"]

log = logging.getLogger(__name__)

# The file of a run's folder that it goes on from.
STATE = "state.pt"

Terms = dict[str, torch.Tensor]


class Diverged(RtInteractError):
    """A loss or gradient stopped being finite; the last saved state is from before that."""


class Stage(ABC):
    """One thing to train. ``model`` is the module whose weights are optimised, averaged, saved and resumed.

    A ``divisible`` stage makes parts of a batch (``batch`` then takes a `Part`) and says in `counts` what its terms are means
    over; any other is computed whole by every process. ``sometimes_unused`` says that a step may leave parameters without a
    gradient, ``best`` names the validation metric that matters most (with a "+" where higher is better), ``epoch`` the samples
    in one pass over the data, where that can be said.
    """

    model: nn.Module
    divisible = False
    sometimes_unused = False
    best = ""
    epoch: int | None = None

    @abstractmethod
    def batch(self, step: int) -> Any:
        """The batch of step ``step`` (of a divisible stage: a part of it): a pure function of the step, on the stage's device."""

    @abstractmethod
    def loss(self, batch: Any, step: int) -> tuple[torch.Tensor, Terms]:
        """Scalar loss and the terms to log."""

    def terms(self, batch: Any, step: int) -> tuple[Terms, Terms]:
        """The terms whose sum is the loss, and others to log."""
        loss, seen = self.loss(batch, step)
        return {"loss": loss}, seen

    def counts(self, batch: Any) -> dict[str, float | torch.Tensor]:
        """What each term of this part is the mean over (samples, tokens), by the term's name; "" stands for all others."""
        return {"": 1.0}

    @contextlib.contextmanager
    def divided(self, batches: Sequence):
        """Around the passes of a step whose batch comes in parts, of which ``batches`` are this process's."""
        yield

    @abstractmethod
    def validate(self, weights: dict[str, torch.Tensor]) -> dict[str, float]:
        """Held-out metrics with these (averaged) weights; leaves ``model`` as it was."""

    @abstractmethod
    def export(self, path: Path, weights: dict[str, torch.Tensor], card: dict) -> None:
        """Write the stage's result atomically."""

    def pictures(self, weights: dict[str, torch.Tensor], folder: Path, count: int) -> list[Path]:
        """Pictures (.png) in ``folder`` of what these weights make of ``count`` held-out clips, the truth beside it."""
        return []


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


class _Terms(nn.Module):
    """A stage's terms as a module's forward pass, as data parallelism wants it."""

    def __init__(self, stage: Stage):
        super().__init__()
        self.model, self._stage = stage.model, stage

    def forward(self, batch: Any, step: int) -> tuple[Terms, Terms]:
        return self._stage.terms(batch, step)


class Trainer:
    """Runs a stage. ``config`` is the stage's whole configuration (stored, and compared on resume), ``loop`` its loop part.

    Under torchrun every process runs the same trainer: the batch of a step is divided among them, the first one writes.
    """

    def __init__(self, stage: Stage, loop: LoopConfig, config: Any, out: Path, *, name: str, progress: bool = True,
                 resume: bool = True):
        self.world = distributed.world()
        self.stage, self.out, self.name, self.progress = stage, Path(out), name, progress and self.world.chief
        self.loop, self.kind, self.config = resolved(loop, stage.epoch), type(config), to_dict(config)
        self.device = torch.device(loop.device)
        self.out.mkdir(parents=True, exist_ok=True)
        if loop.threads:
            torch.set_num_threads(loop.threads)
        if loop.accumulate > 1 and not stage.divisible:
            raise ConfigError(f"loop.accumulate: expected 1 for the stage {name!r}, whose loss compares a whole batch, got "
                              f"{loop.accumulate}; lower loop.batch instead")
        first, count = self.world.rank * loop.accumulate, self.world.size * loop.accumulate
        self.parts = [Part(first + i, count) for i in range(loop.accumulate)] if stage.divisible else [WHOLE]
        fast = has_fast_bfloat16(self.device) if loop.precision == "auto" else loop.precision == "bfloat16"
        self.autocast = torch.bfloat16 if fast else None
        self.parameters = [p for p in stage.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=loop.learning_rate, betas=tuple(loop.betas),
                                           weight_decay=loop.weight_decay)
        self.ema = Ema(stage.model, loop.ema)
        self.step, self.spent_s = 0, 0.0
        self.metrics: dict[str, float] = {}
        self.best: dict[str, Any] = {}
        self.state_file, self.result_file = self.out / STATE, self.out / f"{name}.safetensors"
        self.best_file = self.out / f"{name}-best.safetensors"
        if resume and self.state_file.exists():
            self._resume()
        self._begin_together()
        if self.world.chief:
            write_atomic(self.out / "config.json", json.dumps(self.config, indent=1).encode())

    def _begin_together(self) -> None:
        """Make sure that all processes stand at one step, and let their gradients be averaged."""
        self.forward: nn.Module = _Terms(self.stage)
        if self.world.size == 1:
            return
        if distributed.agreed([self.step])[0] != self.step * self.world.size:
            raise ConfigError(f"resume: expected every process to find the same state in {self.out}, got step {self.step} in "
                              f"process {self.world.rank} and another elsewhere; give a folder that all machines share")
        self.forward = distributed.data_parallel(self.forward, self.stage.sometimes_unused)

    def _comparable(self, config: dict) -> dict:
        """A configuration as it decides what is trained: settings that older runs did not know have their defaults."""
        with contextlib.suppress(RtInteractError, TypeError):
            config = to_dict(from_dict(self.kind, config))
        config = json.loads(json.dumps(config))
        config["loop"] = {k: v for k, v in config["loop"].items() if k not in FREE}
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
        self.best = state.get("best", {})
        log.info("resumed %s at step %d after %.1f min", self.name, self.step, self.spent_s / 60)

    def save(self) -> None:
        """Save everything a later run needs to continue from this step."""
        save_state(self.state_file, {
            "model": self.stage.model.state_dict(), "ema": self.ema.weights, "optimizer": self.optimizer.state_dict(),
            "step": self.step, "spent_s": self.spent_s, "metrics": self.metrics, "best": self.best,
            "config": json.dumps(self.config)})

    def save_if_possible(self) -> None:
        """Save; a full disk leaves the state before as it was and is told, but does not end the run."""
        try:
            self.save()
        except OSError as error:
            log.error("%s: the state of step %d could not be saved (%s); the one before is kept and training goes on: free the "
                      "disk", self.name, self.step, error.strerror or error)

    def export(self, path: Path | None = None) -> None:
        """Write the stage's result with the averaged weights."""
        card = {"stage": self.name, "steps": self.step, "minutes": round(self.spent_s / 60, 2), "seed": self.loop.seed,
                "metrics": self.metrics, "training": self.config}
        self.stage.export(path or self.result_file, self.ema.weights, card)

    def _done(self) -> float:
        by_steps = self.step / self.loop.steps if self.loop.steps else 0.0
        by_time = self.spent_s / (60 * self.loop.minutes) if self.loop.minutes else 0.0
        return max(by_steps, by_time)

    def batches(self, step: int) -> list:
        """This process's parts of a step's batch."""
        return [self.stage.batch(step, part) for part in self.parts] if self.stage.divisible else [self.stage.batch(step)]

    def _shares(self, batches: list) -> list[dict[str, float]]:
        """For each part, how much of the whole batch's mean of each term is this part's."""
        if len(self.parts) * self.world.size == 1 or not self.stage.divisible:
            return [{"": 1.0}]
        counts = [{k: float(v) for k, v in self.stage.counts(b).items()} for b in batches]
        names = sorted(counts[0])
        totals = distributed.agreed([sum(c[name] for c in counts) for name in names])
        return [{name: c[name] / max(total, 1.0) for name, total in zip(names, totals, strict=True)} for c in counts]

    def backward(self, batch: Any, part: Part, share: dict[str, float], last: bool) -> Terms:
        """One part's gradients, added to what is there; what it has of the loss and of all terms."""
        what = "model" if part.count == 1 else f"model/{part.index}/{part.count}"
        torch.manual_seed(step_seed(self.loop.seed, self.step, what))
        together = self.world.size > 1 and not last
        with self.forward.no_sync() if together else contextlib.nullcontext():
            with torch.autocast(self.device.type, dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None):
                objective, seen = self.forward(batch, self.step)
            weighted = {k: v if share.get(k, share[""]) == 1 else v * share.get(k, share[""]) for k, v in objective.items()}
            loss = sum(weighted.values())
            # Processes' gradients are averaged, and a part's terms are shares of the whole batch's.
            (loss * self.world.size if part.count > 1 else loss).backward()
        found = {k: v.detach() * share.get(k, share[""]) for k, v in seen.items()}
        return {"loss": loss.detach()} | {k: v.detach() for k, v in weighted.items() if k != "loss"} | found

    def advance(self, batches: list) -> Terms:
        """One optimiser step on this process's parts of a batch; its loss and terms."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.loop, self.step, self._done())
        shares = self._shares(batches)
        self.optimizer.zero_grad(set_to_none=True)
        found: list[Terms] = []
        with self.stage.divided(batches) if self.parts[0].count > 1 else contextlib.nullcontext():
            for i, (batch, part, share) in enumerate(zip(batches, self.parts, shares, strict=True)):
                found.append(self.backward(batch, part, share, last=i == len(batches) - 1))
        terms = {k: sum(f[k] for f in found) for k in found[0]}
        norm = nn.utils.clip_grad_norm_(self.parameters, self.loop.gradient_norm or math.inf)
        if not math.isfinite(float(norm)) or not math.isfinite(float(terms["loss"])):
            raise Diverged(f"{self.name}: expected a finite loss at step {self.step}, got loss {float(terms['loss'])} with "
                           f"gradient norm {float(norm)}; the saved state is from before it: lower the learning rate and start "
                           "again, or look for broken clips")
        self.optimizer.step()
        self.step += 1
        self.ema.update(self.stage.model, self.step)
        return terms | {"gradient_norm": norm.detach()}

    def _values(self, terms: Terms) -> dict[str, float]:
        """Numbers to log, of the whole batch."""
        values = {k: float(v) for k, v in terms.items()}
        if self.world.size > 1:
            divided = [k for k in values if k != "gradient_norm"]
            scale = 1 if self.parts[0].count > 1 else 1 / self.world.size
            sums = distributed.agreed([values[k] * scale for k in divided])
            values |= dict(zip(divided, sums, strict=True))
        return values

    def validate(self, board: Board) -> None:
        """Held-out metrics with the averaged weights, logged and kept for the result's card; the best result so far is kept."""
        began = time.monotonic()
        self.metrics = self.stage.validate(self.ema.weights)
        board.write(self.step, self.spent_s / 60, self.metrics, "validation")
        log.info("%s step %d (%.1f min): %s [%.1f s]", self.name, self.step, self.spent_s / 60,
                 ", ".join(f"{k} {v:.4g}" for k, v in self.metrics.items()), time.monotonic() - began)
        name = self.stage.best if self.loop.best == "auto" else self.loop.best
        if not name or not self.metrics:
            return
        if name.lstrip("+") not in self.metrics:
            raise ConfigError(f"loop.best: expected one of {', '.join(self.metrics)} (with a + where higher is better), got "
                              f"{name!r}; mend the configuration")
        value, sign = self.metrics[name.lstrip("+")], -1 if name.startswith("+") else 1
        if self.best.get("metric") != name or sign * value < sign * self.best["value"]:
            self.best = {"metric": name, "value": value, "step": self.step}
            self.export(self.best_file)

    def draw(self, board: Board) -> None:
        """Pictures of held-out clips, in the run's folder and on the board."""
        try:
            paths = self.stage.pictures(self.ema.weights, self.out / "samples" / f"{self.step:08d}", self.loop.samples)
        except ModuleNotFoundError as error:
            log.warning("no pictures: %s is not installed; pip install 'rtinteract[view]' adds it", error.name)
            return
        for path in paths:
            board.picture(self.step, path)

    def _reason(self, stop: Stop) -> str | None:
        """Why to end now, the same for all processes: their clocks and signals differ."""
        asked, spent_s = distributed.agreed([stop.asked, self.spent_s if self.world.chief else 0.0])
        self.spent_s = spent_s
        if asked:
            return "signal"
        if self.loop.steps is not None and self.step >= self.loop.steps:
            return "steps"
        if self.loop.minutes is not None and self.spent_s >= 60 * self.loop.minutes:
            return "minutes"
        return None

    def run(self) -> Result:
        """Train until a limit or a signal, then save, validate (unless a signal wants it quick) and export."""
        self.stage.model.train()
        feed = Feed(self.batches, self.loop.prefetch == "on" or (self.loop.prefetch == "auto" and idle_beside(self.device)))
        keeper = Keeper(self) if self.world.chief else None
        try:
            with torch.random.fork_rng(devices=[]), Stop() as stop:
                began = time.monotonic()
                while (reason := self._reason(stop)) is None:
                    terms = self.advance(feed.take(self.step))
                    values = self._values(terms) if self.step % self.loop.log_steps == 0 else None
                    self.spent_s += time.monotonic() - began
                    if keeper is not None:
                        keeper.after_step(values, feed)
                    began = time.monotonic()
                if keeper is not None:
                    keeper.finish(reason)
                distributed.wait()
        finally:
            feed.close()
            if keeper is not None:
                keeper.close()
        return Result(self.step, self.spent_s / 60, reason, self.result_file, dict(self.metrics))
