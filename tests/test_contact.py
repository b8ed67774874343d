"""Touches are told from movements, and hands close what is missing to them without a pop."""

import numpy as np
import pytest
import torch
from rtinteract.training.contact import ContactConfig, Sight, train_contact, write_net

import rtinteract
from rtinteract import metrics, plan
from rtinteract import rotation as R
from rtinteract.closing import close
from rtinteract.contact import (
    CHANNELS,
    PALM_M,
    Touch,
    features,
    likelihoods,
    mirrored,
    mirrored_channels,
    read_net,
    seen_of,
    touches,
)
from rtinteract.errors import CheckpointError, ConfigError
from rtinteract.skeleton import SMPL22, forward_kinematics
from rtinteract.stream import shown

FRAMES = 90
RIGHT = 21


def person(arm, away=0.0, facing=0.0):
    """(root, rotations) of someone who stands ``away`` metres along +Z; the right arm hangs where ``arm`` [T] is 0 and is
    stretched out ahead where it is 1."""
    rotations = R.identity((FRAMES, 22))
    root = np.tile([0.0, 0.93, away], (FRAMES, 1))
    rotations[:, 0] = R.yaw(np.full(FRAMES, facing))
    for leg in (1, 2):
        rotations[:, leg] = R.about("X", np.full(FRAMES, -0.15))
        rotations[:, leg + 3] = R.about("X", np.full(FRAMES, 0.3))
    rotations[:, 16] = R.about("Z", np.full(FRAMES, -1.4))
    down = R.about("Z", np.full(FRAMES, 1.4))
    ahead = R.multiply(R.about("Y", np.full(FRAMES, 1.5)), R.about("X", np.full(FRAMES, 0.2)))
    rotations[:, 17] = R.slerp(down, ahead, np.asarray(arm, dtype=float))
    rotations[:, 19] = R.about("Y", 0.25 + 0.4 * (1 - np.asarray(arm, dtype=float)))
    return root, rotations


def posed(root, rotations):
    return forward_kinematics(SMPL22, root, rotations, offsets=SMPL22.offsets, with_rotations=True)


def palm(places, turns, hand=RIGHT):
    return places[:, hand] + PALM_M * R.rotate(turns[:, hand], np.array([-1.0 if hand == RIGHT else 1.0, 0.0, 0.0]))


def offer():
    """An arm that rises, stays out and sinks."""
    def step(u):
        return np.clip(u, 0, 1) ** 2 * (3 - 2 * np.clip(u, 0, 1))

    t = np.arange(FRAMES)
    return step((t - 15) / 20) * step((85 - t) / 20)


def meeting(apart=1.1, arm=0.6):
    """An actor who offers the right hand, and a reactor whose own comes up only part of the way."""
    actor = posed(*person(offer()))
    return actor, person(arm * offer(), apart, np.pi)


SHAKE = Touch(RIGHT, RIGHT, 38, 62, 0.015, 1.0)


def test_a_hand_that_comes_short_meets_the_other_while_they_touch():
    actor, reactor = meeting()
    before, after = posed(*reactor), posed(*close(*reactor, SMPL22.offsets, actor, [SHAKE]))
    there = palm(*actor)
    assert np.linalg.norm(palm(*before) - there, axis=-1)[38:62].min() > 0.1
    assert np.abs(np.linalg.norm(palm(*after) - there, axis=-1)[38:62] - 0.015).max() < 2e-3
    # What has nothing to do with it stays: long before, the other arm and the feet.
    assert np.allclose(after[0][:8], before[0][:8], atol=1e-6)
    assert np.abs(after[0][:, [7, 8, 10, 11]] - before[0][:, [7, 8, 10, 11]]).max() < 1e-3


def test_a_correction_does_not_pop():
    actor, reactor = meeting()
    moved = posed(*close(*reactor, SMPL22.offsets, actor, [SHAKE]))[0] - posed(*reactor)[0]
    speed = np.linalg.norm(np.diff(moved, axis=0), axis=-1) * 30
    acceleration = np.linalg.norm(np.diff(moved, n=2, axis=0), axis=-1) * 900
    assert 0.1 < speed.max() < 2.5 and acceleration.max() < 25


def test_an_elbow_bends_forward():
    actor, reactor = meeting(apart=0.75)
    places, turns = posed(*close(*reactor, SMPL22.offsets, actor, [SHAKE]))
    upper, lower = places[:, 19] - places[:, 17], places[:, 21] - places[:, 19]
    axis = np.cross(upper, lower)
    # The upper arm's own vertical is its hinge: right forearms go about +Y of it.
    hinge = R.rotate(turns[:, 17], np.broadcast_to([0.0, 1.0, 0.0], upper.shape))
    assert (axis * hinge).sum(-1).min() > -1e-6


def test_out_of_reach_the_trunk_follows_and_the_feet_stay():
    actor, reactor = meeting(apart=1.3)
    before, after = posed(*reactor), posed(*close(*reactor, SMPL22.offsets, actor, [SHAKE], steps=False))
    missing = np.linalg.norm(palm(*after) - palm(*actor), axis=-1)[40:60]
    assert missing.max() < 0.05
    assert (after[0][50, 9] - before[0][50, 9]) @ [0, 0, -1.0] > 0.02
    assert np.abs(after[0][:, [10, 11]] - before[0][:, [10, 11]]).max() < 2e-3
    assert abs(after[0][50, 0] - before[0][50, 0]).max() < 0.12


def test_who_stands_too_far_steps_up_before_they_touch():
    actor, reactor = meeting(apart=1.5)
    before, after = posed(*reactor), posed(*close(*reactor, SMPL22.offsets, actor, [SHAKE]))
    assert np.linalg.norm(palm(*after) - palm(*actor), axis=-1)[40:60].max() < 0.02
    moved = before[0][:, 0] - after[0][:, 0]
    assert moved[5, 2] == 0 and 0.1 < moved[60, 2] < 0.4 and np.abs(moved[62:] - moved[62]).max() < 0.06
    # One foot after the other, lifted while it goes, and both stand while the hands meet.
    for foot in (10, 11):
        ground = after[0][:, foot] - before[0][:, foot]
        swings = np.linalg.norm(np.diff(ground[:, [0, 2]], axis=0), axis=-1) > 1e-3
        assert swings[:SHAKE.start].any() and not swings[SHAKE.start:].any()
        assert ground[:-1][swings, 1].max() > 0.03
    steps = np.linalg.norm(np.diff(after[0][:, [10, 11]][..., [0, 2]], axis=0), axis=-1)
    assert np.minimum(steps[:, 0], steps[:, 1]).max() < 2e-3


def test_chests_meet_though_the_arms_reach_from_afar():
    actor, reactor = meeting(apart=0.75, arm=1.0)
    arms = [Touch(9, RIGHT, 45, 65, 0.15, 1.0), Touch(RIGHT, 9, 45, 65, 0.15, 1.0)]
    chests = Touch(9, 9, 45, 65, 0.30, 1.0)

    def apart(touches):
        places, _ = posed(*close(*reactor, SMPL22.offsets, actor, touches))
        return np.linalg.norm((places[:, 9] - actor[0][:, 9])[48:62] * [1, 0, 1], axis=-1)
    assert np.abs(apart([*arms, chests]) - 0.30).max() < 0.04 < np.abs(apart(arms) - 0.30).min()


def test_a_push_is_met_by_the_body():
    actor, reactor = meeting(apart=0.72, arm=0.0)
    touch = Touch(RIGHT, 16, 40, 60, 0.10, 1.0)
    before, after = posed(*reactor), posed(*close(*reactor, SMPL22.offsets, actor, [touch]))

    def off(made):
        level = (made[0][:, 16] - palm(*actor))[45:55]
        return np.abs(np.linalg.norm(level, axis=-1) - 0.10).max()
    assert off(after) < off(before)
    assert np.abs(after[0][:, [10, 11]] - before[0][:, [10, 11]]).max() < 2e-3
    # Nobody steps up to be pushed.
    far = meeting(apart=0.95, arm=0.0)[1]
    before, after = posed(*far), posed(*close(*far, SMPL22.offsets, actor, [touch]))
    assert np.abs(after[0][:, [10, 11]] - before[0][:, [10, 11]]).max() < 2e-3


def test_what_was_shown_stays_and_what_is_far_is_left_alone():
    actor, reactor = meeting()
    root, rotations = close(*reactor, SMPL22.offsets, actor, [SHAKE], fixed=30)
    assert np.array_equal(rotations[:30], reactor[1][:30]) and np.array_equal(root[:30], reactor[0][:30])
    for apart, steps in ((1.5, False), (1.9, True), (3.0, True)):
        actor, reactor = meeting(apart=apart)
        assert close(*reactor, SMPL22.offsets, actor, [SHAKE], steps=steps)[1] is reactor[1]


def test_touches_are_intervals_that_somewhere_are_sure():
    likely = np.zeros((50, len(CHANNELS)))
    likely[10:20, 3], likely[14, 3] = 0.5, 0.9
    likely[23:26, 3] = 0.3
    likely[40:45, 3] = 0.3
    found = touches(likely, np.full_like(likely, 0.02))
    assert [(t.a, t.b, t.start, t.end) for t in found] == [(21, 21, 10, 26)]
    assert found[0].gap == pytest.approx(0.02) and found[0].likely == 0.9


def test_the_mirror_image_is_seen_as_one():
    actor, reactor = meeting()
    seen = torch.as_tensor(np.stack([seen_of(*actor), seen_of(*posed(*reactor))], 1), dtype=torch.float32)
    plain, image = features(seen), features(mirrored(seen))
    count = len(CHANNELS)
    assert torch.allclose(image[:, -count:], plain[:, -count:][:, mirrored_channels()], atol=1e-5)
    assert torch.allclose(image[:, -count - 1], plain[:, -count - 1], atol=1e-5)
    assert not torch.allclose(image[:, :-count - 1], plain[:, :-count - 1], atol=1e-2)
    assert torch.allclose(mirrored(mirrored(seen)), seen)


def sights():
    made = []
    for meets in (True, False) * 3:
        actor, reactor = meeting(apart=1.1 if meets else 2.0, arm=0.9 if meets else 0.0)
        seen = torch.as_tensor(np.stack([seen_of(*actor), seen_of(*posed(*reactor))], 1), dtype=torch.float32)
        touch = torch.zeros(FRAMES, len(CHANNELS), dtype=torch.bool)
        touch[38:62, CHANNELS.index((RIGHT, RIGHT))] = meets
        made.append(Sight(seen, touch, torch.full(touch.shape, 0.015), torch.ones(touch.shape), "meets" if meets else "passes"))
    return made


def test_a_network_learns_who_meets_and_a_file_keeps_it(tmp_path):
    config = ContactConfig(steps=40, batch=6, width=16, strangers=0.0, seed=1)
    write_net(train_contact(sights(), config, progress=False), tmp_path / "contact.safetensors", config, 6)
    net, told = read_net(tmp_path / "contact.safetensors"), []
    for meets in (True, False):
        actor, reactor = meeting(apart=1.15 if meets else 1.9, arm=0.85 if meets else 0.0)
        reactor = posed(*reactor)
        likely, _ = likelihoods(net, (actor[0], reactor[0]), (actor[1], reactor[1]))
        told.append(likely[45:55].mean(0))
    channel = CHANNELS.index((RIGHT, RIGHT))
    assert told[0][channel] > told[1][channel] + 0.2
    assert told[0].argmax() == channel


def test_training_follows_its_seed():
    def weights(seed):
        net = train_contact(sights(), ContactConfig(steps=3, batch=4, width=8, seed=seed), progress=False)
        return torch.cat([p.flatten() for p in net.parameters()])
    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))


def test_mistakes_are_told(tmp_path):
    nothing = [Sight(s.seen, torch.zeros_like(s.touch), s.gap, s.weight, s.kind) for s in sights()]
    with pytest.raises(ConfigError, match="contacts"):
        train_contact(nothing, ContactConfig(steps=1), progress=False)
    from rtinteract.container import write_container
    write_container(tmp_path / "other.safetensors", {"weight": torch.zeros(2)}, {})
    with pytest.raises(CheckpointError, match="train contact"):
        read_net(tmp_path / "other.safetensors")


@pytest.fixture(scope="module")
def model():
    return rtinteract.load()


@pytest.fixture(scope="module")
def scene():
    from rtinteract.cli.demo import bundled_scene
    return bundled_scene()


def test_react_closes_the_bundled_handshake_and_keeps_its_start(model, scene):
    actor, start, about = scene
    plain, closed = (model.react(actor, about["text"], start=start, iterations=4, contact=on) for on in (False, True))
    apart = [np.linalg.norm(palm_of(actor, RIGHT) - palm_of(m, RIGHT), axis=-1) for m in (plain, closed)]
    contact = about["contacts"][0]
    middle = (contact["start"] + contact["end"]) // 2
    assert apart[1][middle] < 0.05 < apart[0][middle]
    begun = len(start)
    assert np.array_equal(plain.rotations[:begun], closed.rotations[:begun])
    assert metrics.foot_slide(closed) < metrics.foot_slide(plain) + 0.2
    assert metrics.jitter(closed) < 1.2 * metrics.jitter(plain)


def palm_of(motion, hand):
    return metrics.touching_point(motion, hand)


def test_a_stream_that_closes_has_no_seams_and_leaves_who_is_far_alone(model, scene):
    actor, start, about = scene
    plain, closed = (shown(model.stream(about["text"], start=start, contact=on).push(actor), 4) for on in (False, True))
    assert not np.allclose(plain.rotations, closed.rotations)
    speed = np.linalg.norm(np.diff(closed.positions, axis=0), axis=-1) * 30
    assert speed.max() < 4.5
    contact = about["contacts"][0]
    held = slice(contact["start"] + 10, contact["end"] - 10)
    plain, closed = (np.linalg.norm(palm_of(actor, RIGHT)[4:] - palm_of(m, RIGHT)[:len(actor) - 4], axis=-1)[held]
                     for m in (plain, closed))
    assert np.median(closed) < 0.05 < np.median(plain)
    away = start.moved(translation=(4.0, 0.0, 4.0))
    plain, closed = (shown(model.stream(about["text"], start=away, contact=on, guidance=2.0).push(actor[:24]), 4)
                     for on in (False, True))
    assert np.array_equal(plain.rotations, closed.rotations)


def test_only_a_stream_that_closes_carries_more_speed_and_only_near(model, scene, monkeypatch):
    actor, start, about = scene
    taken = []
    plain = plan.take_over

    def take_over(*given):
        taken.append(float(given[-1]))
        return plain(*given)
    monkeypatch.setattr(plan, "take_over", take_over)

    def carried(start, contact):
        taken.clear()
        model.stream(about["text"], start=start, contact=contact).push(actor[:24])
        return set(taken)
    far, near = start.moved(translation=(4.0, 0.0, 4.0)), start.moved(translation=actor.root[0] - start.root[0] + [0.0, 0.0, 1.0])
    usual = carried(near, False)
    assert usual == carried(far, True) == carried(far, False) and len(usual) == 1
    assert max(carried(near, True)) > max(usual)
