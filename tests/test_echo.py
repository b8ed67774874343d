"""Crops that serve several steps: masked anew, far enough apart, and the same whoever makes them and when."""

from dataclasses import replace

import pytest
import torch
from rtinteract.training.distributed import Part
from rtinteract.training.masks import IGNORED
from rtinteract.training.shares import Shares
from rtinteract.training.state import load_stage
from rtinteract.training.token_batches import APART
from rtinteract.training.transformer import TransformerStage, train_transformer
from test_train_transformer import CONFIG, codec_file, pairs  # noqa: F401

from rtinteract.errors import ConfigError

ECHO = replace(CONFIG, echo=3, shares=Shares(self_history=0.3))
VISITS = [5, 5 + APART, 5 + 2 * APART]


@pytest.fixture(scope="module")
def stage(codec_file, pairs):  # noqa: F811
    return TransformerStage(ECHO, codec_file, pairs, None, None)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True) if isinstance(x, torch.Tensor))


def test_visits_see_the_same_crops_under_other_masks(stage):
    batches = [stage.batch(s) for s in VISITS]
    for a, b in zip(batches, batches[1:], strict=False):
        both = (a.labels != IGNORED) & (b.labels != IGNORED)
        assert both.any() and torch.equal(a.labels[both], b.labels[both])
        assert not torch.equal(a.labels != IGNORED, b.labels != IGNORED)
        assert torch.equal(a.modes, b.modes)
    following = stage.batch(VISITS[-1] + APART)
    assert following.labels.shape != batches[0].labels.shape or not torch.equal(following.modes, batches[0].modes)


def test_a_step_is_the_same_alone_after_others_and_in_parts(stage, codec_file, pairs):  # noqa: F811
    for step in (0, 1, *VISITS, 3 * APART):
        stage.batch(step)
    fresh = TransformerStage(ECHO, codec_file, pairs, None, None)
    for step in VISITS:
        found = stage.batch(step)
        assert same(found, fresh.batch(step))
        parts = [stage.batch(step, Part(k, 2)) for k in range(2)]
        assert torch.equal(found.labels, torch.cat([p.labels for p in parts]))
        assert torch.equal(found.inputs, torch.cat([p.inputs for p in parts]))


def test_only_first_visits_encode_and_nothing_is_kept_for_long(stage, monkeypatch):
    calls = []
    plain = stage.codes
    monkeypatch.setattr(stage, "codes", lambda *a: calls.append(1) or plain(*a))
    stage._echoed.clear()
    for step in range(9 * APART):
        before = len(calls)
        stage.batch(step)
        assert (len(calls) > before) == (step // APART % 3 == 0)
        assert len(stage._echoed) <= APART


def test_it_trains_and_resumes_to_the_bit(tmp_path, codec_file, pairs):  # noqa: F811
    for name, parts in (("one", (20,)), ("two", (18, 20))):
        for steps in parts:
            train_transformer(ECHO, codec_file, pairs, out=tmp_path / name, steps=steps, progress=False)
    one, two = (load_stage(tmp_path / name / "transformer.safetensors", "transformer")[1] for name in ("one", "two"))
    assert one.keys() == two.keys() and all(torch.equal(one[k][n], two[k][n]) for k in one for n in one[k])


def test_no_visits_are_refused():
    with pytest.raises(ConfigError, match="echo: expected at least 1, got 0"):
        replace(CONFIG, echo=0)
