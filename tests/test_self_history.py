"""Streaming samples whose past the model made itself, horizons that end early, and whole clips of their own lengths."""

from dataclasses import replace

import pytest
import torch
from rtinteract.training.distributed import WHOLE, Part
from rtinteract.training.masks import IGNORED
from rtinteract.training.self_history import BACK, Person, led
from rtinteract.training.shares import RANDOM, STREAMING, Shares
from rtinteract.training.transformer import TransformerStage
from test_data import walk
from test_train_transformer import CONFIG, codec_file, pairs, tokens  # noqa: F401

from rtinteract.errors import ConfigError
from rtinteract.skeleton import SMPL22, forward_kinematics

STREAMS = Shares(interaction=0.0, streaming=1.0, cold=0.0, whole=1.0, history_noise=0.0, self_history=1.0)


@pytest.fixture(scope="module")
def stage(codec_file, pairs):  # noqa: F811
    return TransformerStage(replace(CONFIG, shares=STREAMS), codec_file, pairs, None, None)


def person(seed):
    root, rotations, offsets = (torch.tensor(x, dtype=torch.float32) for x in walk(60, seed))
    return Person(forward_kinematics(SMPL22, root, rotations, offsets=offsets)[None], rotations[None], offsets[None])


def test_someone_is_led_from_one_way_to_another_without_a_jump():
    clip, before = person(1), person(1)
    before = before._replace(positions=before.positions + torch.tensor([0.4, 0.0, 0.3]))
    out = led(clip, before, 20)
    assert torch.equal(out.positions[:, :20], before.positions[:, :20])
    assert torch.allclose(out.positions[:, 20 + BACK:], clip.positions[:, 20 + BACK:], atol=1e-5)
    usual = clip.positions.diff(dim=1).norm(dim=-1).max()
    assert out.positions.diff(dim=1).norm(dim=-1).max() < usual + 0.5 * 2 / BACK
    bones = (out.positions[:, :, 4] - out.positions[:, :, 1]).norm(dim=-1)
    assert torch.allclose(bones, bones[:, :1].expand_as(bones), atol=1e-4)


def own(stage, step, part=WHOLE):
    batch = stage.batch(step, part)
    made = stage.with_own_past(batch, stage.model["transformer"], stage.condition(batch.texts).detach())
    return batch, made


def test_the_model_makes_the_second_persons_past_and_nothing_else(stage):
    changed = 0
    for step in range(4):
        batch, made = own(stage, step)
        if batch.history is None:
            continue
        now, then = batch.history.streams.now, batch.history.streams.then
        assert 1 <= then < now <= batch.inputs.shape[-1]
        assert torch.equal(batch.labels == IGNORED, made.labels == IGNORED), "what is hidden stays"
        assert torch.equal(batch.inputs[:, 0], made.inputs[:, 0]) and torch.equal(batch.labels[:, 0], made.labels[:, 0])
        assert torch.equal(made.placement[:, 0, :now, -1], batch.placement[:, 0, :now, -1])
        changed += int((batch.inputs[:, 1, :, :now] != made.inputs[:, 1, :, :now]).sum())
        again = own(stage, step)[1]
        assert torch.equal(made.inputs, again.inputs) and torch.equal(made.placement, again.placement)
    assert changed > 0 and stage.model["transformer"].training


def test_a_past_of_the_models_own_does_not_depend_on_the_parts(stage):
    whole, parts = own(stage, 1)[1], [own(stage, 1, Part(k, 2))[1] for k in range(2)]
    assert torch.equal(whole.inputs, torch.cat([p.inputs for p in parts]))
    assert torch.allclose(whole.placement, torch.cat([p.placement for p in parts]), atol=1e-4)


def test_it_learns_from_it_and_draws_it_in_its_share_of_the_batches(stage):
    loss, terms = stage.loss(stage.batch(1), 1)
    loss.backward()
    assert torch.isfinite(loss) and any(p.grad is not None for p in stage.model["transformer"].parameters())
    was, stage.config = stage.config, replace(stage.config, shares=replace(STREAMS, self_history=0.4))
    try:
        asked = [stage.batch(step).history is not None for step in range(12)]
    finally:
        stage.config = was
    assert any(asked) and not all(asked)
    with pytest.raises(ConfigError, match="own_frames"):
        replace(CONFIG, own_frames=False, shares=STREAMS)


def test_dropped_horizons_end_early(stage):
    shares = replace(STREAMS, self_history=0.0, horizon_dropped=1.0, near=0.0)
    t = tokens(stage, [STREAMING] * 16 + [RANDOM] * 4, frames=48, shares=shares, seed=3)
    stage.config = replace(CONFIG, shares=STREAMS)
    assert (t.lengths[16:] == 12).all() and t.lengths.min() < 12
    labelled = (t.labels != IGNORED).flatten(1, 2).any(1)
    for row, length in zip(labelled[:16], t.lengths[:16].tolist(), strict=True):
        assert row[length - 1] and not row[length:].any()


def test_whole_clips_keep_their_lengths_and_their_codes(codec_file, pairs):  # noqa: F811
    short = [replace(p, root=p.root[:, :n], rotations=p.rotations[:, :n])
             for p, n in zip(pairs, (100, 61, 40, 33, 100, 50), strict=True)]
    config = replace(CONFIG, whole=True, most=80, shares=Shares(interaction=0.2, streaming=0.0),
                     augmentation=replace(CONFIG.augmentation, warp=(1.0, 1.0)))
    stage = TransformerStage(config, codec_file, short, short[:2], None)
    t = stage.batch(0)
    assert len(t.inputs) == config.loop.batch and set(t.lengths.tolist()) <= {20, 15, 10, 8, 12}
    past = torch.arange(t.inputs.shape[-1]) >= t.lengths[:, None]
    assert not (t.labels != IGNORED).flatten(1, 2).any(1)[past].any()
    loss, _ = stage.loss(t, 0)
    assert torch.isfinite(loss) and set(stage.validate(stage.model.state_dict())) == {
        "random_loss", "random_accuracy", "interaction_loss", "interaction_accuracy", "loss"}
    with pytest.raises(ConfigError, match="streaming"):
        replace(config, shares=Shares())
