"""One hop of the shipped model, the figure a game feels: its p95 must stay under half a hop's period (66 ms) on two cores."""

import numpy as np
import pytest
from measured import note, seconds

import rtinteract
from rtinteract.cli.demo import bundled_scene
from rtinteract.stream import StreamConfig, hop_together

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
