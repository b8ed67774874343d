"""Evaluation figures against the reference's and against cases with known answers."""

import numpy as np
import pytest
import torch
from rtinteract.training import metrics
from safetensors.numpy import load_file

from rtinteract.errors import ConfigError


@pytest.fixture(scope="module")
def oracle(shared):
    return load_file(shared / "oracles" / "metrics.safetensors")


def close(value, expected):
    np.testing.assert_allclose(value, np.squeeze(expected), rtol=1e-6)


def test_retrieval_matches_the_reference(oracle):
    text, motion = oracle["text_embeddings"], oracle["motion_embeddings"]
    np.testing.assert_allclose(metrics.r_precision(text, motion), oracle["r_precision"], rtol=0, atol=1e-12)
    close(metrics.mm_distance(text, motion), oracle["mm_dist"])
    close(metrics.mm_distance(torch.from_numpy(text), torch.from_numpy(motion)), oracle["matching_score"])


@pytest.mark.parametrize(("name", "setting"), [("scale6", metrics.INTERHUMAN), ("scale1", metrics.INTERX)])
def test_distributions_match_the_reference(oracle, name, setting):
    close(metrics.fid(oracle["gt_embeddings"], oracle["motion_embeddings"], scale=setting["scale"]), oracle[f"fid_{name}"])
    drawn = (oracle["diversity_idx1"], oracle["diversity_idx2"])
    close(metrics.diversity(oracle["motion_embeddings"], indices=drawn, **setting), oracle[f"diversity_{name}"])
    close(metrics.diversity(oracle["motion_embeddings"], times=48, seed=11, **setting), oracle[f"diversity_{name}"])
    drawn = (oracle["multimodality_idx1"], oracle["multimodality_idx2"])
    close(metrics.multimodality(oracle["mm_embeddings"], indices=drawn, **setting), oracle[f"multimodality_{name}"])
    close(metrics.multimodality(oracle["mm_embeddings"], times=12, seed=12, **setting), oracle[f"multimodality_{name}"])


def test_confidence_matches_the_reference(oracle):
    np.testing.assert_allclose(metrics.confidence(oracle["replications"]), oracle["replications_mean_ci"], rtol=1e-12)


def test_perfect_retrieval_and_chance():
    draw = np.random.default_rng(0)
    text = draw.normal(size=(200, 16))
    assert metrics.r_precision(text, text).tolist() == [1, 1, 1]
    chance = metrics.r_precision(text, draw.normal(size=(200, 16)))
    assert (chance < 0.15).all() and (np.diff(chance) >= 0).all()
    assert metrics.mm_distance(text, text + np.eye(16)[0] * 3) == pytest.approx(3.0)


def test_frechet_distance_of_known_gaussians():
    draw = np.random.default_rng(1)
    x = draw.normal(size=(500, 4))
    assert metrics.fid(x, x) == pytest.approx(0, abs=1e-9)
    assert metrics.fid(x, x + 2.0) == pytest.approx(16.0)
    assert metrics.fid(x, x, scale=6) == pytest.approx(0, abs=1e-7)
    # Twice the spread: trace(C + 4C - 2*2C) = trace C.
    centred = x - x.mean(0)
    assert metrics.fid(centred, 2 * centred) == pytest.approx(np.trace(np.cov(x, rowvar=False)))
    # Fewer samples than dimensions: singular covariances must stay finite.
    assert np.isfinite(metrics.fid(draw.normal(size=(5, 32)), draw.normal(size=(6, 32))))


def test_identical_samples_have_no_diversity():
    same = np.ones((40, 8))
    assert metrics.diversity(same, times=10) == 0
    assert metrics.multimodality(np.ones((3, 12, 8))) == 0


@pytest.mark.parametrize("call", [
    lambda: metrics.r_precision(np.zeros((10, 4)), np.zeros((10, 4))),
    lambda: metrics.mm_distance(np.zeros((10, 4)), np.zeros((9, 4))),
    lambda: metrics.fid(np.full((10, 4), np.nan), np.zeros((10, 4))),
    lambda: metrics.fid(np.zeros((1, 4)), np.zeros((10, 4))),
    lambda: metrics.diversity(np.zeros((10, 4))),
    lambda: metrics.multimodality(np.zeros((10, 4))),
    lambda: metrics.confidence([]),
])
def test_unusable_embeddings_are_named(call):
    with pytest.raises(ConfigError, match="expected"):
        call()
