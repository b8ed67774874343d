"""bench: run the benchmarks of a checkout, print one table, keep one history a machine kind."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import typer

import rtinteract
from rtinteract.errors import ConfigError, RtInteractError
from rtinteract.motion.atomic import replacing

BENCHES = Path(rtinteract.__file__).resolve().parents[1] / "benches"
# A ratio that is worse by this share than the one of the history is a regression: two runs on one quiet machine differ by less.
TOLERANCE = 0.2
_COLUMNS = (("p50_ms", "p50 ms"), ("p95_ms", "p95 ms"), ("p99_ms", "p99 ms"), ("ratio", "x eager"), ("over_floor", "x floor"),
            ("gflops", "GFLOP/s"), ("gbytes", "GB/s"), ("peak_mb", "peak MB"), ("dtype", "type"))


def machine_kind(device: str, threads: int) -> str:
    """A file's name for machines alike: processor or GPU, and the threads of a CPU."""
    return f"{re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')}-{threads}"


def figures_of(results: dict) -> dict[str, dict]:
    """What pytest-benchmark's JSON notes of each benchmark, by name. RtInteractError where a benchmark noted nothing."""
    found = {}
    for bench in results["benchmarks"]:
        info = bench["extra_info"]
        if "p50_ms" not in info:
            raise RtInteractError(f"bench: expected {bench['fullname']} to note its percentiles, got {sorted(info)}; call "
                                  "measured.note in it")
        found[bench["fullname"].split("/")[-1]] = info
    return found


def regressions(now: dict[str, dict], before: dict[str, dict], tolerance: float = TOLERANCE) -> list[str]:
    """A line for each benchmark whose ratio to eager, or to the floor where it has no eager path, got worse than tolerated."""
    lines = []
    for name in sorted(now.keys() & before.keys()):
        for key, better in (("ratio", 1), ("over_floor", -1)):
            if key in now[name] and key in before[name]:
                change = (now[name][key] / before[name][key]) ** better
                if change < 1 - tolerance:
                    lines.append(f"{name}: {key} {before[name][key]:.2f} -> {now[name][key]:.2f}, at {before[name]['commit']}")
                break
    return lines


def table(figures: dict[str, dict]) -> str:
    """One line a benchmark, columns aligned; a figure that a benchmark has not is a dash."""
    def cell(value) -> str:
        return "-" if value is None else value if isinstance(value, str) else f"{value:.3g}" if value < 100 else f"{value:.0f}"
    rows = [["benchmark", *(head for _, head in _COLUMNS)]]
    rows += [[name, *(cell(info.get(key)) for key, _ in _COLUMNS)] for name, info in figures.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
                     for row in rows)


def _run(chosen: list[str], threads: int | None) -> dict:
    """pytest-benchmark's JSON of the chosen files, all of them without."""
    if importlib.util.find_spec("pytest_benchmark") is None:
        raise RtInteractError("bench: expected pytest-benchmark, which is not installed; run pip install 'rtinteract[test]'")
    if not (BENCHES / "measured.py").is_file():
        raise RtInteractError(f"bench: expected the benchmarks in {BENCHES}, got nothing there; they come with the source, so "
                              "run it in a checkout that is installed with pip install -e")
    known = sorted(p.stem.removeprefix("test_") for p in BENCHES.glob("test_*.py"))
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise ConfigError(f"bench: expected names of {', '.join(known)}, got {', '.join(unknown)}")
    env = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--benchmark-json={results}",
                               *(str(BENCHES / f"test_{name}.py") for name in chosen or known)], env=env, cwd=BENCHES.parent,
                              capture_output=True, text=True)
        if done.returncode:
            told = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR", "E  "))]
            raise RtInteractError(f"bench: the benchmarks failed: {'; '.join(told[:3]) or done.stderr[-500:]}")
        return json.loads(results.read_text(encoding="utf-8"))


def bench(names: list[str] = typer.Argument(None, help="Which: kernels, hop, react, generate, cold_start; all without."),
          threads: int = typer.Option(None, min=1, help="Threads of torch; its own choice without."),
          save: bool = typer.Option(False, "--save", help="Put the figures into benches/history, one file a machine kind."),
          compare: bool = typer.Option(False, "--compare", help="End with an error where a ratio is worse than the history's."),
          gpu: bool = typer.Option(False, "--gpu", help="On a GPU: check the kernels, tune them, then time and save.")) -> None:
    """Time everything and print one table: milliseconds, the ratio to the plain float32 path, and to the arithmetic floor.

    Ratios are taken in one run and compare between runs; times do not.

    Example: rtinteract bench hop react --compare
    """
    if gpu:
        done = subprocess.run([sys.executable, str(BENCHES / "gpu.py")], cwd=BENCHES.parent)
        if done.returncode:
            raise RtInteractError("bench: benches/gpu.py ended with an error, told above")
        save = True
    figures = figures_of(_run(list(names or []), threads))
    typer.echo(table(figures))
    some = next(iter(figures.values()))
    path = BENCHES / "history" / f"{machine_kind(some['device'], some['threads'])}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if compare:
        if not before:
            raise ConfigError(f"--compare: expected a history of this machine kind, {path}, got none; run with --save first")
        worse = regressions(figures, before)
        if worse:
            raise RtInteractError(f"bench: slower than before: {'; '.join(worse)}")
        typer.echo(f"no ratio is worse than in {path.name} by more than {TOLERANCE:.0%}")
    if save:
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as place:
            place.write_text(json.dumps(before | figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        typer.echo(f"wrote {path}")
