"""Pairs from sentences by the shipped model, batches of 1 to 256: against the plain float32 path in the same run.

A CPU times the small batches; a GPU all of them.
"""

import numpy as np
import pytest
from measured import DEVICE, note, peak_memory, seconds, synced, transformer_flops

import rtinteract

TEXT, SECONDS, ITERATIONS = "two people shake hands", 2.0, 4
BATCHES = (1, 4) if DEVICE.type == "cpu" else (1, 4, 16, 64, 256)


@pytest.mark.parametrize("batch", BATCHES)
def test_generate(benchmark, batch, monkeypatch):
    def maker(model):
        return lambda: model.generate([TEXT] * batch, SECONDS, iterations=ITERATIONS, feet=False)
    model = rtinteract.load(device=DEVICE.type)
    make = maker(model)
    pairs = make()
    assert len(pairs) == batch and all(len(m) == 60 and np.isfinite(m.positions).all() for pair in pairs for m in pair)
    peak = peak_memory(make)
    benchmark.pedantic(synced(make), rounds=5, warmup_rounds=1)
    dtype = model.pipeline.transformer.output.weight.dtype
    monkeypatch.setenv("RTI_BACKEND", "reference")
    plain = seconds(maker(rtinteract.load(device=DEVICE.type, precision="float32")), 2)
    note(benchmark, dtype, eager_s=plain, peak_bytes=peak, batch=batch, iterations=ITERATIONS,
         flops=ITERATIONS * transformer_flops(model.config.transformer, 2 * batch, 15),
         pairs_s=batch / benchmark.stats.stats.median)
