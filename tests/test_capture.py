"""Captured steps: buffers, buckets, keys and fallbacks with a stand-in for the GPU's capture; on a GPU the graphs themselves."""

import logging

import numpy as np
import pytest
import torch
from synthetic import walker

import rtinteract
from rtinteract.capture import GraphedStep, Graphs, asked_for
from rtinteract.fill import BUCKETS, Draw, bucket_of, fill_and_decode
from rtinteract.sampler import guidance_modulations, seeds_of
from rtinteract.stream import hop_together

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def replayed(run, pool):
    """What a GPU's capture does, in words of the CPU: the outputs have fixed memory, and a replay writes it anew."""
    outputs = [x.clone() for x in run()]

    def replay():
        for mine, fresh in zip(outputs, run(), strict=True):
            mine.copy_(fresh)

    return replay, outputs


@pytest.fixture(scope="module")
def model(small_model_path):
    return rtinteract.load(small_model_path, device="cpu", precision="float32")


def question(model, batch, columns=6, guided=True):
    """Half-masked codes, condition, modulations and seeds of a batch."""
    config, g = model.config.transformer, torch.Generator().manual_seed(3)
    codes = torch.randint(config.codes, (batch, 2, config.parts, columns), generator=g)
    codes[:, 1, :, 2:] = config.mask_id
    condition = torch.randn(batch, config.condition, generator=g) if guided else None
    draw = Draw(3, 2.0, 0.5, 1.0)
    modulations = guidance_modulations(model.pipeline.transformer, condition, batch, draw.guidance)
    return codes, condition, modulations, draw, seeds_of(list(range(batch)), batch, "cpu")


def test_outputs_of_a_step_outlive_its_next_replay():
    step = GraphedStep(lambda a, b: (a + b,), [torch.zeros(3), torch.zeros(3)], capture=replayed)
    first = step(torch.ones(3), torch.ones(3))[0]
    second = step(torch.full((3,), 5.0), torch.ones(3))[0]
    assert first.tolist() == [2.0] * 3 and second.tolist() == [6.0] * 3


def test_a_step_refuses_other_shapes_and_types():
    step = GraphedStep(lambda a: (a,), [torch.zeros(3)], capture=replayed)
    with pytest.raises(ValueError, match=r"expected torch.float32 \(3,\), got torch.float32 \(4,\)"):
        step(torch.zeros(4))
    with pytest.raises(ValueError, match="got torch.float64"):
        step(torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("error", [RuntimeError("operation not permitted when stream is capturing"),
                                   torch.OutOfMemoryError("CUDA out of memory")])
def test_what_cannot_be_captured_runs_eagerly_and_is_said_once(caplog, error):
    def fails(run, pool):
        raise error

    graphs = Graphs(fails)
    with caplog.at_level(logging.WARNING):
        answers = [graphs.run("key", lambda a: (a * 2,), [torch.ones(2)])[0] for _ in range(3)]
    assert all(a.tolist() == [2.0, 2.0] for a in answers) and len(graphs) == 0
    assert len(caplog.records) == 1 and str(error) in caplog.text


def test_graphs_are_made_once_a_key_and_the_oldest_goes():
    made = []

    def counting(run, pool):
        made.append(1)
        return replayed(run, pool)

    graphs = Graphs(counting, most=2)
    for key in ("a", "b", "a", "c", "a", "b"):
        graphs.run(key, lambda a: (a,), [torch.ones(1)])
    assert len(made) == 4 and len(graphs) == 2


def test_buckets_hold_every_batch():
    assert [bucket_of(b) for b in (1, 2, 3, 5, 64, 65, 256)] == [1, 2, 4, 8, 64, 128, 256]


@pytest.mark.parametrize("batch,guided", [(1, True), (3, True), (5, False)])
def test_captured_answers_what_eager_answers(model, batch, guided):
    codes, condition, modulations, draw, seeds = question(model, batch, guided=guided)
    eager = fill_and_decode(model.pipeline, codes, condition, modulations, draw, seeds, begin=1)
    graphs = Graphs(replayed)
    for _ in range(2):
        captured = fill_and_decode(model.pipeline, codes, condition, modulations, draw, seeds, begin=1, graphs=graphs)
        assert torch.equal(captured[0], eager[0])
        assert torch.allclose(captured[1], eager[1], atol=1e-4)
    assert len(graphs) == 1


def test_one_graph_serves_a_bucket_and_other_settings_take_another(model):
    graphs = Graphs(replayed)
    for batch in (3, 4):
        codes, condition, modulations, draw, seeds = question(model, batch)
        fill_and_decode(model.pipeline, codes, condition, modulations, draw, seeds, graphs=graphs)
    assert len(graphs) == 1
    fill_and_decode(model.pipeline, codes, condition, modulations, draw._replace(iterations=2), seeds, graphs=graphs)
    assert len(graphs) == 2


def test_a_batch_over_the_largest_bucket_is_cut(model, monkeypatch):
    monkeypatch.setattr("rtinteract.fill.BUCKETS", BUCKETS[:2])
    codes, condition, modulations, draw, seeds = question(model, 5)
    eager = fill_and_decode(model.pipeline, codes, condition, modulations, draw, seeds)
    cut = fill_and_decode(model.pipeline, codes, condition, modulations, draw, seeds, graphs=Graphs(replayed))
    assert torch.equal(cut[0], eager[0]) and cut[1].shape == eager[1].shape


def test_capture_is_for_gpus_and_asked_for(monkeypatch):
    monkeypatch.setenv("RTI_CUDA_GRAPH", "1")
    assert not asked_for(torch.device("cpu")) and asked_for(torch.device("cuda"))
    monkeypatch.delenv("RTI_CUDA_GRAPH")
    assert not asked_for(torch.device("cuda"))


@pytest.mark.gpu
@needs_gpu
def test_graphs_on_a_gpu_equal_eager_to_the_bit(small_model_path, monkeypatch):
    eager = rtinteract.load(small_model_path, device="cuda")
    plain = eager.react(walker(3.0), iterations=4, seed=5)
    monkeypatch.setenv("RTI_CUDA_GRAPH", "1")
    captured = rtinteract.load(small_model_path, device="cuda")
    for _ in range(2):
        assert np.array_equal(captured.react(walker(3.0), iterations=4, seed=5).positions, plain.positions)
    assert len(captured.pipeline.graphs) == 1


@pytest.mark.gpu
@needs_gpu
def test_several_sessions_share_one_replay_on_a_hosts_stream(small_model_path, monkeypatch):
    monkeypatch.setenv("RTI_CUDA_GRAPH", "1")
    model = rtinteract.load(small_model_path, device="cuda")
    with torch.cuda.stream(torch.cuda.Stream()):
        streams = [model.stream(iterations=2, window=8, seed=i) for i in range(3)]
        for k in range(6):
            plans = hop_together(streams, [walker(2.0)[4 * k:4 * k + 4]] * 3)
    assert all(np.isfinite(p.reactor.positions).all() for p in plans)
    assert 1 <= len(model.pipeline.graphs) <= 3
