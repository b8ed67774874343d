"""From nothing to the first reaction, in a process of its own: import, load, first react.

The floor is what importing torch alone takes in the same process: no program that uses it can begin sooner.
"""

import json
import subprocess
import sys

import torch
from measured import note

CODE = """
import json, time
marks = [time.perf_counter()]
import torch
marks.append(time.perf_counter())
import rtinteract
marks.append(time.perf_counter())
model = rtinteract.load(device="cpu")
marks.append(time.perf_counter())
from rtinteract.cli.demo import bundled_scene
actor, start, _ = bundled_scene()
made = model.react(actor[:64], start=start)
marks.append(time.perf_counter())
import resource
print(json.dumps({"marks": marks, "frames": len(made), "dtype": str(model.pipeline.transformer.output.weight.dtype),
                  "peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""
PHASES = ("torch_ms", "import_ms", "load_ms", "react_ms")


def test_cold_start(benchmark):
    found = []

    def begin():
        done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))

    benchmark.pedantic(begin, rounds=3, warmup_rounds=1)
    assert all(f["frames"] == 64 for f in found)
    middle = sorted(found, key=lambda f: f["marks"][-1] - f["marks"][0])[len(found) // 2]
    phases = {name: 1e3 * (b - a) for name, a, b in zip(PHASES, middle["marks"], middle["marks"][1:], strict=False)}
    note(benchmark, getattr(torch, middle["dtype"].removeprefix("torch.")), peak_bytes=middle["peak_kb"] * 1024, **phases,
         over_floor=benchmark.stats.stats.median * 1e3 / phases["torch_ms"])
