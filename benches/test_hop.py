"""One hop of the shipped model, the figure a game feels: its p95 must stay under half a hop's period (66 ms) on two cores."""

import numpy as np
import pytest

import rtinteract
from rtinteract.cli.demo import bundled_scene

WARM_UP = 20


@pytest.mark.parametrize("iterations", [1, 4, 6, 12])
def test_hop(benchmark, iterations):
    actor, start, _ = bundled_scene()
    stream = rtinteract.load(device="cpu").stream(iterations=iterations, start=start)
    hops = [actor[at:at + 4] for at in range(0, len(actor) - 3, 4)]
    for i in range(WARM_UP):
        stream.hop(hops[i % len(hops)])
    turn = iter(range(10_000))
    plan = benchmark.pedantic(lambda: stream.hop(hops[next(turn) % len(hops)]), rounds=60)
    assert len(plan.reactor) == 16 and np.isfinite(plan.reactor.positions).all()
    times = np.array(benchmark.stats.stats.data) * 1e3
    for q in (50, 95, 99):
        benchmark.extra_info[f"p{q}_ms"] = round(float(np.percentile(times, q)), 2)
