"""One hop of the shipped model, the figure a game feels: its p95 must stay under half a hop's period (66 ms) on two cores."""

import numpy as np
import pytest
from measured import note

import rtinteract
from rtinteract.cli.demo import bundled_scene
from rtinteract.stream import StreamConfig

WARM_UP = 20
TEXT = "two people shake hands"


@pytest.mark.parametrize("text", [None, TEXT], ids=["no text", "text"])
@pytest.mark.parametrize("iterations", sorted({1, StreamConfig().iterations, 12}))
def test_hop(benchmark, iterations, text):
    actor, start, _ = bundled_scene()
    model = rtinteract.load(device="cpu")
    stream = model.stream(text, iterations=iterations, start=start)
    hops = [actor[at:at + 4] for at in range(0, len(actor) - 3, 4)]
    for i in range(WARM_UP):
        stream.hop(hops[i % len(hops)])
    turn = iter(range(10_000))
    plan = benchmark.pedantic(lambda: stream.hop(hops[next(turn) % len(hops)]), rounds=60)
    assert len(plan.reactor) == 16 and np.isfinite(plan.reactor.positions).all()
    note(benchmark, model.pipeline.transformer.output.weight.dtype, iterations=iterations, text=text is not None)
