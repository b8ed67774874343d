"""A stream's recorded transformer answers what the transformer answers, and is made once."""

import threading
import time

import numpy as np
import pytest
import torch
from synthetic import meeting, walker

import rtinteract
from rtinteract import graph
from rtinteract.graph import Recorded, Recordings, recorded
from rtinteract.stream import hop_together

SHORT = dict(iterations=2, window=8, horizon=8)


@pytest.fixture
def made(monkeypatch):
    """The transformer as torch runs it, and a list that grows with every recording."""
    monkeypatch.setenv("RTI_NATIVE", "0")
    calls, trace = [], torch.jit.trace
    monkeypatch.setattr(torch.jit, "trace", lambda *a, **k: calls.append(1) or trace(*a, **k))
    return calls


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("text", [None, "two people shake hands"])
def test_recorded_and_step_by_step_streams_are_one(small_model_path, made, monkeypatch, precision, text):
    model = rtinteract.load(small_model_path, device="cpu", precision=precision)
    actor, other = meeting(3.0)
    settings = dict(iterations=2, window=16, start=other[:4])
    fast = model.stream(text, **settings)
    monkeypatch.setenv("RTI_NO_GRAPH", "1")
    slow = model.stream(text, **settings)
    assert len(made) == 1
    for _ in range(2):
        for a, b in zip(fast.push(actor), slow.push(actor), strict=True):
            assert np.abs(a.reactor.positions - b.reactor.positions).max() < 1e-3
        fast.reset()
        slow.reset()


def test_another_prompt_and_a_second_stream_need_no_recording(small_model_path, made):
    model = rtinteract.load(small_model_path, device="cpu", precision="float32")
    prompts = model.prompts.encode(["two people shake hands", "one person waves"])
    told = model.stream("two people shake hands", **SHORT)
    fresh = model.stream("one person waves", **SHORT)
    told.push(walker(1.0))
    began = time.thread_time()
    told.tell(prompts[1:])
    assert time.thread_time() - began < 0.1
    told.reset()
    for a, b in zip(told.push(walker(1.0)), fresh.push(walker(1.0)), strict=True):
        assert np.array_equal(a.reactor.positions, b.reactor.positions)
    told.tell(None)
    assert len(made) == 1


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_streams_that_hop_together_share_the_recording(small_model_path, made, monkeypatch, guidance):
    model = rtinteract.load(small_model_path, device="cpu", precision="float32")
    texts = ["two people shake hands", "one person waves", "two people shake hands"]

    def plans():
        streams = [model.stream(t, **SHORT, guidance=guidance, seed=i) for i, t in enumerate(texts)]
        return [hop_together(streams, [walker(1.0)[4 * k:4 * k + 4]] * 3) for k in range(5)][-1]

    fast = plans()
    assert len(made) == 1
    monkeypatch.setenv("RTI_NO_GRAPH", "1")
    for a, b in zip(fast, plans(), strict=True):
        assert np.abs(a.reactor.positions - b.reactor.positions).max() < 1e-3


def test_threads_that_ask_at_once_share_one_recording(small_model_path, made):
    model = rtinteract.load(small_model_path, device="cpu", precision="float32")
    found = {}

    def hop(i):
        stream = model.stream(**SHORT)
        found[i] = stream.push(walker(1.0))[-1].reactor.positions

    threads = [threading.Thread(target=hop, args=(i,)) for i in range(3)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert len(made) == 1 and len(found) == 3
    assert all(np.array_equal(found[i], found[0]) for i in found)


class Counting(torch.nn.Module):
    """Stands for a transformer: answers in the shape of one, and may do what a recording gets wrong."""

    class config:
        modelling = "together"
        codes = 7

    def __init__(self, fault=None):
        super().__init__()
        self.fault = fault

    def forward(self, codes, condition, lengths, *, modulations, placement, last):
        x = codes[..., None].float() + modulations[0][:, None, None]
        if self.fault == "values":
            return x + float(codes.sum())
        return torch.stack([x[i] for i in range(len(x))]) if self.fault == "rows" else x


def question(columns=3, rows=1):
    return (torch.ones(rows, 1, 4),), torch.zeros(rows, 2, 5, columns, dtype=torch.int64)


def test_recordings_are_bounded_and_the_oldest_goes(made):
    recordings = Recordings(Counting(), most=2)
    for columns in (3, 4, 3, 5, 3, 4):
        modulations, codes = question(columns)
        recordings.of(modulations, codes, None, None)
        assert len(recordings) <= 2
    assert len(made) == 4


def test_one_recording_serves_every_batch_only_where_it_is_right_for_it(made):
    whole, loop = Recordings(Counting()), Recordings(Counting("rows"))
    for rows in (1, 2, 3):
        modulations, codes = question(rows=rows)
        assert whole.of(modulations, codes, None, None).any_rows
        one = loop.of(modulations, codes, None, None)
        assert not one.any_rows
        answer = one(codes, None, None, modulations=Recorded.pack(modulations), placement=None, last=None)
        assert torch.equal(answer, Counting()(codes, None, None, modulations=modulations, placement=None, last=None))
    assert len(whole) == 1 and len(loop) == 3 and len(made) == 4


def test_a_recording_that_answers_something_else_is_not_used(caplog):
    odd = Counting("values")
    modulations, codes = question()
    assert recorded(odd, modulations, codes, None, None) is odd
    assert "depends on what it was made with" in caplog.text


def test_what_cannot_be_recorded_runs_step_by_step_and_is_tried_once(caplog):
    class Odd(Counting):
        def forward(self, *args, **kwargs):
            raise RuntimeError("no")

    odd = Odd()
    recordings = Recordings(odd)
    for _ in range(3):
        assert recordings.of(*question(), None, 1) is odd
    assert len(caplog.records) == 1 and "step by step" in caplog.text


def test_what_is_one_call_already_is_not_recorded(made):
    plain = Counting()
    assert graph.recorded(plain, torch.ones(1, 1, 1, 4), question()[1], None, None) is plain and not made
