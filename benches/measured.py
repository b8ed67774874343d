"""What every benchmark notes beside its times: percentiles, what was reached of the machine, memory, number type, commit."""

from __future__ import annotations

import functools
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def note(benchmark, dtype: torch.dtype, *, eager_s: float | None = None, flops: float | None = None, moved: float | None = None,
         peak_bytes: int | None = None, **more) -> None:
    """Percentiles of a benchmark that has run, and where and on what it ran, into its ``extra_info``.

    ``eager_s`` are the seconds of the plain float32 path in the same run, ``flops`` and ``moved`` the operations and bytes of one
    run: with them stand the ratio to eager, the rates reached, and the ratio to the arithmetic floor, which is the time that this
    machine's own matrix product of the type takes for as many operations.
    """
    times = np.array(benchmark.stats.stats.data)
    info, p50 = benchmark.extra_info, float(np.percentile(times, 50))
    info.update({f"p{p}_ms": 1e3 * float(np.percentile(times, p)) for p in (50, 95, 99)})
    info.update(device=device_name(), threads=torch.get_num_threads(), torch=torch.__version__,
                dtype=str(dtype).removeprefix("torch."), commit=commit(), **more)
    if eager_s is not None:
        info.update(eager_ms=1e3 * eager_s, ratio=eager_s / p50)
    if flops is not None:
        info.update(flops=flops, gflops=flops / p50 / 1e9, over_floor=p50 / (flops / peak_rate(dtype)))
    if moved is not None:
        info.update(bytes=moved, gbytes=moved / p50 / 1e9)
    if peak_bytes is not None:
        info.update(peak_mb=peak_bytes / 2**20)


@functools.cache
def peak_rate(dtype: torch.dtype, size: int = 1536) -> float:
    """Operations a second of a square matrix product of the type, the fastest of a few."""
    if dtype == torch.int8:
        a = torch.ones(size, size, dtype=dtype, device=DEVICE)
        found = [_timed(lambda: torch._int_mm(a, a)) for _ in range(5)]
    else:
        a = torch.randn(size, size, device=DEVICE).to(dtype)
        found = [_timed(lambda: a @ a) for _ in range(5)]
    return 2 * size**3 / min(found)


def peak_memory(f: Callable[[], object]) -> int | None:
    """Bytes that ``f`` takes at most beyond what was there before; None where the system does not tell."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        f()
        return torch.cuda.max_memory_allocated() - before
    try:
        _CLEAR.write_text("5")
        before = _resident("VmRSS")
        f()
        return max(0, _resident("VmHWM") - before)
    except OSError:
        return None


def _resident(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def transformer_flops(config, rows: int, columns: int) -> float:
    """Operations of one pass of an Inter-M transformer over ``rows`` sequences of two people of so many columns."""
    tokens, width = 2 * config.parts * columns + 1, config.width
    layers = 16 * width**2 + 4 * width * config.ff
    mixed = 2 * width * (tokens + config.parts + columns + config.parts * columns)
    head = width**2 + width * config.codes + config.code_dim * width
    return 2.0 * rows * tokens * (config.layers * (layers + mixed) + head)


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


def _timed(f: Callable[[], object]) -> float:
    began = time.perf_counter()
    f()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def seconds(f: Callable[[], object], rounds: int) -> float:
    """Median seconds of ``f`` over some rounds, after one that warms up."""
    f()
    return float(np.median([_timed(f) for _ in range(rounds)]))


def synced(f: Callable[[], object]) -> Callable[[], object]:
    """``f`` that ends when the GPU has."""
    def run():
        answer = f()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return answer
    return run
