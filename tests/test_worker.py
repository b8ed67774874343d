"""The engine's planner: sessions over one model, asked as the session core asks."""

import numpy as np
import pytest
import torch
from synthetic import walker

from rtinteract import plan, worker
from rtinteract.worker import Host, threads_beside_an_engine


@pytest.fixture
def host(small_model_path):
    """A planner of the small model; the threads of whoever runs the tests come back after it."""
    threads = torch.get_num_threads()
    yield Host(str(small_model_path), device="cpu", threads=threads)
    torch.set_num_threads(threads)


def rows(start, count=4, speed=0.6):
    motion = walker(4.0, speed=speed)[start:start + count]
    return np.concatenate([motion.root, motion.rotations.reshape(count, 88)], 1).astype(np.float32)


def ask(number, k, fresh=False, prompt=None, contact=False):
    return number, rows(4 * k, speed=0.3 * number), None, fresh, prompt, contact


def test_sessions_that_are_due_at_once_get_what_each_would_alone(host):
    for number in (1, 2, 3, 4):
        assert host.open(number, seed=number % 2, window=8, horizon=8, iterations=2) == 4
    for k in range(4):
        both = host.hop([ask(1, k), ask(2, k)])
        # Sessions 3 and 4 hear the same, one after the other.
        alone = [host.hop([(3, *ask(1, k)[1:])])[0], host.hop([(4, *ask(2, k)[1:])])[0]]
        for a, b in zip(both, alone, strict=True):
            assert a.shape == (8, 91) and a.dtype == np.float32
            assert np.abs(a - b).max() < 1e-3


def test_a_prompt_changes_what_comes_and_records_nothing(host, monkeypatch):
    monkeypatch.setenv("RTI_NATIVE", "0")
    host.open(1, window=8, horizon=8, iterations=2)
    made = len(host.model.pipeline.recordings)
    host.hop([ask(1, 0)])
    answer = host.hop([ask(1, 1, prompt="two people shake hands")])[0]
    assert np.isfinite(answer).all() and host.sessions[1].prompt == "two people shake hands"
    host.open(2, window=8, horizon=8, iterations=2, prompt="two people shake hands")
    assert len(host.model.pipeline.recordings) == made


def test_one_bad_request_spares_the_others_and_begins_anew(host):
    for number in (1, 2):
        host.open(number, window=8, horizon=8, iterations=1)
    bad = (1, np.full((4, 91), np.nan, np.float32), None, False, None, False)
    answers = host.hop([bad, ask(2, 0)])
    assert "NaN" in answers[0] and answers[1].shape == (8, 91)
    assert host.hop([ask(1, 1)])[0].shape == (8, 91)
    host.close(1)
    host.close(99)
    assert list(host.sessions) == [2]


def test_contacts_are_closed_while_they_are_asked_for(host, monkeypatch):
    closed = []
    true = plan.Course.touching
    monkeypatch.setattr(plan.Course, "touching", lambda *args: closed.append(1) or true(*args))
    host.open(1, window=8, horizon=8, iterations=1, contact=True)
    host.open(2, window=8, horizon=8, iterations=1)
    assert closed
    counts = []
    for k, contact in enumerate([False, True, True, False]):
        closed.clear()
        answers = host.hop([ask(1, k, contact=contact), ask(2, k)])
        assert all(a.shape == (8, 91) and np.isfinite(a).all() for a in answers)
        counts.append(len(closed))
    assert counts == [0, 1, 1, 0]


@pytest.mark.parametrize("processors,expected", [(1, 1), (2, 1), (4, 2), (8, 4), (64, 4)])
def test_a_hop_leaves_half_of_the_processors_to_the_engine(monkeypatch, processors, expected):
    monkeypatch.setattr(worker.os, "sched_getaffinity", lambda _: set(range(processors)), raising=False)
    assert threads_beside_an_engine() == expected
