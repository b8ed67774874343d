"""What a run shows and when it is told to stop: curves, pictures, the progress bar, signals, and batches made ahead."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

log = logging.getLogger(__name__)


class Stop:
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


class Board:
    """Scalars and pictures to TensorBoard (if it is installed), scalars to metrics.jsonl (always)."""

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

    def picture(self, step: int, path: Path) -> None:
        """A picture that lies in the run's folder."""
        if self._writer is not None:
            from PIL import Image

            with Image.open(path) as image:
                self._writer.add_image(f"samples/{path.stem}", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Flush both."""
        self._lines.close()
        if self._writer is not None:
            self._writer.close()


def progress_bar(total: int | None, start: int, progress: bool):
    """A bar of steps; None where tqdm is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        log.warning("tqdm is not installed, so there is no progress bar; pip install 'rtinteract[train]' adds it")
        return None
    return tqdm(total=total, initial=start, disable=not progress, dynamic_ncols=True, unit="step", mininterval=1.0)


def idle_beside(device: torch.device) -> bool:
    """Whether a processor is left to make batches while a step runs: on another device, or on cores that torch does not use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return device.type != "cpu" or cores > torch.get_num_threads()


class Feed:
    """The batches of ``make(step)``, one step after the other; with ``ahead`` the next one is made in a thread meanwhile.

    ``waited_s`` adds up how long batches were waited for.
    """

    def __init__(self, make: Callable[[int], Any], ahead: bool):
        self._make, self._next = make, None
        self._worker = ThreadPoolExecutor(1, "batches") if ahead else None
        self.waited_s = 0.0

    def take(self, step: int) -> Any:
        """The batch of a step."""
        began = time.monotonic()
        if self._worker is None:
            batch = self._make(step)
        else:
            ready: tuple[int, Future] | None = self._next
            future = ready[1] if ready and ready[0] == step else self._worker.submit(self._make, step)
            batch = future.result()
            self._next = step + 1, self._worker.submit(self._make, step + 1)
        self.waited_s += time.monotonic() - began
        return batch

    def close(self) -> None:
        """Let the thread end."""
        if self._worker is not None:
            self._worker.shutdown(wait=True, cancel_futures=True)
