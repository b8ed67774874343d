"""One hop of the shipped model, the figure a game feels: its p95 must stay under half a hop's period (66 ms) on two cores."""

import numpy as np
import pytest
from measured import note, peak_memory, seconds, transformer_flops

import rtinteract
from rtinteract.cli.demo import bundled_scene
from rtinteract.stream import StreamConfig, hop_together

WARM_UP = 20
TEXT = "two people shake hands"


@pytest.mark.parametrize("text", [None, TEXT], ids=["no text", "text"])
@pytest.mark.parametrize("iterations", sorted({1, StreamConfig().iterations, 12}))
def test_hop(benchmark, iterations, text, monkeypatch):
    actor, start, _ = bundled_scene()
    hops = [actor[at:at + 4] for at in range(0, len(actor) - 3, 4)]

    def warm(model):
        stream, turn = model.stream(text, iterations=iterations, start=start), iter(range(10_000))
        for i in range(WARM_UP):
            stream.hop(hops[i % len(hops)])
        return lambda: stream.hop(hops[next(turn) % len(hops)])
    model = rtinteract.load(device="cpu")
    hop = warm(model)
    peak = peak_memory(hop)
    plan = benchmark.pedantic(hop, rounds=60)
    assert len(plan.reactor) == 16 and np.isfinite(plan.reactor.positions).all()
    monkeypatch.setenv("RTI_BACKEND", "reference")
    monkeypatch.setenv("RTI_NO_GRAPH", "1")
    plain = seconds(warm(rtinteract.load(device="cpu", precision="float32")), 20)
    columns = (StreamConfig().window + StreamConfig().horizon) // 4
    note(benchmark, model.pipeline.transformer.output.weight.dtype, eager_s=plain, peak_bytes=peak, iterations=iterations,
         text=text is not None, flops=iterations * transformer_flops(model.config.transformer, 2 if text else 1, columns))


@pytest.mark.parametrize("sessions", [2, 8])
def test_sessions_that_hop_together(benchmark, sessions):
    """A batch of sessions against the same sessions one by one, in one run."""
    actor, start, _ = bundled_scene()
    model = rtinteract.load(device="cpu")
    together, apart = ([model.stream(TEXT, start=start, seed=i) for i in range(sessions)] for _ in range(2))
    hops = [actor[at:at + 4] for at in range(0, len(actor) - 3, 4)]
    turn = iter(range(10_000))

    def one_by_one():
        frames = hops[next(turn) % len(hops)]
        return [stream.hop(frames) for stream in apart]

    def at_once():
        return hop_together(together, [hops[next(turn) % len(hops)]] * sessions)

    for _ in range(WARM_UP):
        at_once(), one_by_one()
    alone = seconds(one_by_one, 20)
    plans = benchmark.pedantic(at_once, rounds=20)
    assert len(plans) == sessions and all(np.isfinite(p.reactor.positions).all() for p in plans)
    note(benchmark, model.pipeline.transformer.output.weight.dtype, sessions=sessions,
         ratio_to_one_by_one=alone / benchmark.stats.stats.median)
