"""What every benchmark notes beside its times: percentiles, machine, number type, commit."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


def note(benchmark, dtype: torch.dtype, **more) -> None:
    """Percentiles of a benchmark that has run, and where and on what it ran, into its ``extra_info``."""
    times = np.array(benchmark.stats.stats.data) * 1e3
    benchmark.extra_info.update({f"p{p}_ms": float(np.percentile(times, p)) for p in (50, 95, 99)})
    benchmark.extra_info.update(device=device_name(), threads=torch.get_num_threads(), torch=torch.__version__,
                                dtype=str(dtype).removeprefix("torch."), commit=commit(), **more)


def device_name() -> str:
    """The GPU's name, or the processor's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpu = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")] \
        if cpu.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """The checkout's commit, or "unknown" outside one."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"


def seconds(f: Callable[[], object], rounds: int) -> float:
    """Median seconds of ``f`` over some rounds, after one that warms up."""
    f()
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        f()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return float(np.median(found))
