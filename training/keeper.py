"""What one process does for all beside the steps: the bar, the curves, saving, validating and drawing when it is time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtinteract.training.board import Board, Feed, progress_bar

if TYPE_CHECKING:
    from rtinteract.training.trainer import Trainer


class Keeper:
    """Looks after a trainer's run; the first of several processes has one."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.board = Board(trainer.out)
        self.bar = progress_bar(trainer.loop.steps, trainer.step, trainer.progress)
        self.saved = self.validated = self.drawn = self.logged = trainer.spent_s
        self.waited_s = 0.0

    def after_step(self, values: dict[str, float] | None, feed: Feed) -> None:
        """Log, validate, draw and save what is due; ``values`` where this step is logged."""
        trainer, loop, bar = self.trainer, self.trainer.loop, self.bar
        if values is not None:
            values["rate"] = trainer.optimizer.param_groups[0]["lr"]
            values["waiting"] = (feed.waited_s - self.waited_s) / max(trainer.spent_s - self.logged, 1e-9)
            self.waited_s, self.logged = feed.waited_s, trainer.spent_s
            self.board.write(trainer.step, trainer.spent_s / 60, values, "train")
            if bar is not None:
                bar.set_postfix({"loss": f"{values['loss']:.4f}"} | {k: f"{v:.3g}" for k, v in trainer.metrics.items()})
        if bar is not None:
            bar.update(1)
        if self._due(loop.validate_steps, loop.validate_s, self.validated):
            self.validated = trainer.spent_s
            trainer.validate(self.board)
            trainer.export()
            if loop.samples and self._due(loop.sample_steps, loop.sample_s, self.drawn):
                self.drawn = trainer.spent_s
                trainer.draw(self.board)
        if trainer.spent_s - self.saved >= loop.save_s:
            self.saved = trainer.spent_s
            trainer.save_if_possible()

    def _due(self, steps: int | None, seconds: float, last_s: float) -> bool:
        return self.trainer.step % steps == 0 if steps else self.trainer.spent_s - last_s >= seconds

    def finish(self, reason: str) -> None:
        """Save, validate (unless a signal wants it quick) and export."""
        self.trainer.save()
        if reason != "signal":
            self.trainer.validate(self.board)
            self.trainer.save()
        self.trainer.export()

    def close(self) -> None:
        """Let go of the board and the bar."""
        self.board.close()
        if self.bar is not None:
            self.bar.close()
