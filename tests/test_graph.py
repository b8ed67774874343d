"""A stream's recorded transformer answers what the transformer answers."""

import numpy as np
import pytest
import torch
from synthetic import meeting

import rtinteract
from rtinteract.graph import Recorded, recorded


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("text", [None, "two people shake hands"])
def test_recorded_and_step_by_step_streams_are_one(small_model_path, monkeypatch, precision, text):
    model = rtinteract.load(small_model_path, device="cpu", precision=precision)
    actor, other = meeting(3.0)
    settings = dict(iterations=2, window=16, start=other[:4])
    fast = model.stream(text, **settings)
    assert isinstance(fast._steady, Recorded)
    monkeypatch.setenv("RTI_NO_GRAPH", "1")
    slow = model.stream(text, **settings)
    assert slow._steady is model.pipeline.transformer
    for _ in range(2):
        for a, b in zip(fast.push(actor), slow.push(actor), strict=True):
            assert np.abs(a.reactor.positions - b.reactor.positions).max() < 1e-3
        fast.reset()
        slow.reset()


def test_what_cannot_be_recorded_runs_step_by_step(caplog):
    class Odd(torch.nn.Module):
        config = None

        def forward(self, *args, **kwargs):
            raise RuntimeError("no")

    odd = Odd()
    assert recorded(odd, None, torch.zeros(1, 2, 5, 3, dtype=torch.int64), None, 1) is odd
    assert "step by step" in caplog.text
