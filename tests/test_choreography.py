"""Composed pairs: coupling, contacts, feet, variety, determinism. Solo clips are made here; one suite uses ../shared."""

from collections import Counter
from copy import copy
from types import SimpleNamespace

import numpy as np
import pytest
from rtinteract.training import choreography
from rtinteract.training.choreo_body import Performer
from rtinteract.training.choreo_source import Library
from rtinteract.training.choreo_stage import PlainGait, Scene
from rtinteract.training.choreography import KINDS, Rejected, compose, compose_many
from rtinteract.training.locomotion import Path, Plan
from rtinteract.training.pairs import load_pairs
from rtinteract.training.prompts import TEXTS

from rtinteract import metrics
from rtinteract import rotation as R
from rtinteract.errors import ConfigError
from rtinteract.motion.files import read_motion
from rtinteract.motion.types import Motion
from rtinteract.skeleton import SMPL22, smpl22_with

ADDED = ("handover", "circle", "hug", "side_by_side", "point", "applaud", "comfort", "chase", "dance")
# Whoever runs or dances real steps is faster than others may be.
BRISK = ("chase", "dance")
EMPTY = SimpleNamespace(split="train", quiet=[], gaits=[], gestures=[], bodies=[SMPL22.offsets])


def solo(name, split, seed, walks):
    """A made solo clip: plain steps along a path, or standing with an arm that goes up and down."""
    rng = np.random.default_rng(seed)
    times = np.arange(150) / 30
    plan = Plan(rng, 0.82, (0.0, 0.0), 0.3)
    if walks:
        plan.walk(0.3, Path((0.0, 0.0), 0.3, (1.6, 3.6), 0.6), PlainGait(rng, 0.82))
    person = Performer(EMPTY, rng, times, SMPL22.offsets * (1 + 0.02 * seed), plan)
    person.build()
    person.refresh()
    if not walks:
        lift = np.clip(np.sin(times * 2.5), 0, 1)
        target = person.places[:, 17] + R.rotate(person.turns[:, 9], np.array([-0.2, 0.1, 0.35]))
        person.reach(1, lift, target)
    motion = Motion.from_rotations(smpl22_with(person.offsets), person.root, person.rotations, 30)
    return SimpleNamespace(motion=motion, text="", name=name, trial=name, split=split)


@pytest.fixture(scope="module")
def solos():
    clips = [solo(f"{split}-{i}", split, i + 10 * (split == "test"), i % 2 == 0) for split in ("train", "test") for i in range(4)]
    return clips


@pytest.fixture(scope="module")
def library(solos):
    return Library(solos, "train")


@pytest.fixture(scope="module")
def clips(library):
    """A few clips of every kind, and how often each reason rejected a draw."""
    made, rejected = {}, Counter()
    for kind in KINDS:
        made[kind] = []
        for seed in range(40):
            try:
                made[kind].append(compose(kind, library, seed))
            except Rejected as fault:
                rejected[fault.reason] += 1
            if len(made[kind]) == 4:
                break
    return made, rejected


def test_made_solo_clips_lend_walks_standing_and_gestures(library):
    assert library.gaits and library.gestures and library.quiet
    assert all(0.3 < g.step_legs < 1.2 for g in library.gaits)


def test_people_to_train_on_carry_themselves_otherwise_and_held_out_ones_as_captured(library):
    as_captured = copy(library)
    as_captured.split = "test"

    def standing(lent, seed):
        scene = Scene(lent, np.random.default_rng(seed), 2.0)
        for person in range(2):
            scene.stand(person, (0.0, float(person)), 0.0)
        return [p for p in scene.perform() if not p.build()]

    moved = 0
    for seed in range(6):
        for own, plain in zip(standing(library, seed), standing(as_captured, seed), strict=True):
            away = R.angle(own.rotations, plain.rotations)
            assert away[:, [1, 2, 4, 5]].max() < 1e-6 and away.max() < 1.5
            moved += away[:, [16, 17]].mean() > 0.02
    assert moved >= 6


def test_every_kind_composes_finite_human_clips(clips):
    made, rejected = clips
    for kind, ones in made.items():
        assert len(ones) == 4, (kind, rejected)
        for clip in ones:
            assert 3.0 <= len(clip) / clip.fps <= 8.05
            assert clip.root.dtype == np.float32 and np.isfinite(clip.rotations).all()
            for motion in clip.motions():
                speed = np.linalg.norm(np.diff(motion.positions, axis=0), axis=-1) * 30
                assert speed.max() < (8.2 if kind in BRISK else 6.2)
                assert motion.positions[..., 1].min() > -0.03
                # Nobody is a statue: head and hands always move a little.
                assert np.linalg.norm(motion.positions[:, 15].std(0)) > 1e-3
    assert sum(rejected.values()) < 0.45 * (4 * len(KINDS) + sum(rejected.values()))


def test_hands_meet_for_the_whole_contact(clips):
    made, _ = clips
    touched = [(kind, clip, c) for kind, ones in made.items() for clip in ones for c in clip.contacts]
    assert {kind for kind, _, _ in touched} >= {"handshake", "high_five", "push", "handover", "hug", "comfort"}
    for kind, clip, contact in touched:
        assert clip.contact_error(contact).max() <= 0.02
        seconds = (contact.end - contact.start) / clip.fps
        if kind == "high_five":
            assert seconds < 0.25


def test_hands_have_a_way_to_go_before_they_meet(clips):
    made, _ = clips
    for ones in made.values():
        for clip in ones:
            for contact in clip.contacts:
                assert contact.start >= 9
                a, b = clip.touching_points(contact)
                assert np.linalg.norm(a[0] - b[0]) - contact.gap > 0.08


def test_bodies_do_not_pass_through_each_other(clips):
    made, _ = clips
    for kind, ones in made.items():
        for clip in ones:
            depth = metrics.penetration(*clip.motions())  # centimetres
            assert np.median(depth) <= 2.0, kind
            touching = [depth[c.start:c.end] for c in clip.contacts]
            assert not touching or np.median(np.concatenate(touching)) <= 6.0, kind


def test_the_kinds_compose_again_to_the_bit_and_keep_to_their_split(clips, library, solos):
    made, _ = clips
    held_out = Library(solos, "test")
    for kind in ADDED:
        first = made[kind][0]
        again = compose(kind, library, first.seed)
        assert (again.root == first.root).all() and (again.rotations == first.rotations).all() and again.texts == first.texts
        for seed in range(12):
            try:
                other = compose(kind, held_out, seed, split="test")
                break
            except Rejected:
                continue
        assert other.meta["sources"] and all(name.startswith("test") for name in other.meta["sources"])
        assert all(name.startswith("train") for clip in made[kind] for name in clip.meta["sources"])


def test_a_hug_comes_near_and_who_steps_back_from_it_goes_away(library):
    found = {}
    for seed in range(40):
        try:
            clip = compose("hug", library, seed)
        except Rejected:
            continue
        found.setdefault(clip.meta["variant"], clip)
        if len(found) == 2:
            break
    apart = {name: np.linalg.norm((c.root[0] - c.root[1])[:, [0, 2]], axis=-1) for name, c in found.items()}
    hug = found["answered"]
    held = slice(hug.contacts[0].start, hug.contacts[0].end)
    assert apart["answered"][held].max() < 0.6 < apart["answered"][0]
    # Palms lie on the far side of the other's trunk.
    for contact in hug.contacts:
        if contact.joint_a in (20, 21):
            palm, _ = hug.touching_points(contact)
            line = (hug.root[1] - hug.root[0])[held][:, [0, 2]]
            beyond = ((palm - hug.root[1])[held][:, [0, 2]] * line).sum(-1)
            assert (beyond > 0).all()
    assert "hug" in " ".join(hug.texts) and "steps back" not in " ".join(hug.texts)
    assert not found["refused"].contacts and "steps back" in " ".join(found["refused"].texts)
    assert apart["refused"][-1] > apart["refused"].min() + 0.15


def test_every_outcome_has_texts_of_its_own():
    for kind in KINDS:
        outcomes = {variant: set(lines) for (one, variant), lines in TEXTS.items() if one == kind}
        assert outcomes and all(len(lines) >= 5 for lines in outcomes.values())
        others = {line for (one, _), lines in TEXTS.items() if one != kind for line in lines}
        for variant, lines in outcomes.items():
            assert not lines & others
            if variant.startswith(("refused", "stays", "alone", "still")):
                assert not any(lines & rest for name, rest in outcomes.items() if name != variant)


def test_who_turns_on_the_spot_moves_head_and_hips_before_the_feet(library):
    scene = Scene(library, np.random.default_rng(4), 5.0)
    for p in range(2):
        scene.stand(p, (0.0, float(p)), 0.0).turn(1.5, 1.5)
    scene.perform()
    scene.build()
    person = scene.people[0]

    def halfway(turns):
        ahead = R.rotate(turns, np.array([0.0, 0.0, 1.0]))
        yaw = np.unwrap(np.arctan2(ahead[:, 0], ahead[:, 2]))
        return scene.times[np.argmax(yaw - yaw[:30].mean() > 0.75)]

    person.update()
    feet = scene.times[np.argmax(person.foot_yaws.mean(1) > 0.75 + person.foot_yaws[0].mean())]
    assert halfway(person.turns[:, 15]) < halfway(person.turns[:, 0]) < feet


def test_planted_feet_do_not_slide(clips):
    made, _ = clips
    for ones in made.values():
        for clip in ones:
            for motion in clip.motions():
                toes = motion.positions[:, [10, 11]]
                floor = np.percentile(toes[..., 1], 5)
                still = toes[..., 1] < floor + 0.0005
                both = still[1:] & still[:-1]
                slide = np.linalg.norm(np.diff(toes, axis=0)[..., [0, 2]], axis=-1)[both]
                assert slide.max() < 0.003


def test_the_mirror_follows_by_the_drawn_delay(clips):
    made, _ = clips
    for clip in made["mirror"]:
        a, b = (m.positions[..., 1] - m.positions[:, :1, 1] for m in clip.motions())
        lags = range(0, 27)
        fits = [np.corrcoef(a[:len(a) - k, [20, 21]].ravel(), b[k:, [21, 20]].ravel())[0, 1] for k in lags]
        assert max(fits) > 0.8
        assert abs(int(np.argmax(fits)) / 30 - clip.meta["delay_s"]) <= 0.11


def test_the_answer_comes_after_the_offer(clips):
    made, _ = clips
    for kind in ("handshake", "wave", "bow"):
        for clip in made[kind]:
            assert 0.0 <= clip.meta["delay_s"] <= 1.0
            assert clip.meta["answer_at_s"] >= clip.meta["offer_at_s"]


def test_bodies_and_texts_vary(clips):
    made, _ = clips
    bodies = [c.offsets[p] for ones in made.values() for c in ones for p in (0, 1)]
    legs = [np.linalg.norm(b[4]) + np.linalg.norm(b[7]) for b in bodies]
    assert np.std(legs) > 0.02 and 0.65 < min(legs) and max(legs) < 1.0
    for kind, ones in made.items():
        for clip in ones:
            assert len(clip.texts) >= 5 and len(set(clip.texts)) == len(clip.texts)
            assert not any("{" in text for text in clip.texts)
            assert clip.kind == kind
    assert any("right hand" in t or "left hand" in t for ones in made.values() for c in ones for t in c.texts)


def test_refusals_have_texts_of_their_own(library):
    answered, refused = set(), set()
    for seed in range(60):
        try:
            clip = compose("handshake", library, seed)
        except Rejected:
            continue
        (refused if clip.meta["refused"] else answered).update(clip.texts)
        if clip.meta["refused"]:
            assert not clip.contacts
        if answered and refused:
            break
    assert answered and refused and not answered & refused


def test_same_seed_same_clip_other_seed_other_clip(solos, library):
    first = compose("bow", library, 5)
    again = compose("bow", list(solos), 5)
    assert (first.root == again.root).all() and (first.rotations == again.rotations).all() and first.texts == again.texts
    other = compose("bow", library, 6)
    assert other.root.shape != first.root.shape or not (other.root == first.root).all()


def test_the_split_is_kept(solos):
    clip = compose("wave", solos, 1, split="test")
    assert all(name.startswith("test") for name in clip.meta["sources"])
    with pytest.raises(ConfigError, match="unknown kind"):
        compose("tango", solos, 1)


def test_compose_many_goes_on_after_a_kill(tmp_path, library, monkeypatch):
    monkeypatch.setattr(choreography, "SHARD", 2)
    kinds = ("bow", "ignore", "punch")
    whole = compose_many(tmp_path / "whole", library, 6, 3, progress=False, kinds=kinds)
    assert sum(whole["kinds"].values()) == 6
    assert 0 < whole["acceptance"] <= 1 and all(": " in reason for reason in whole["rejected"])
    real, done = choreography.write_shard, []

    def killed(path, clips):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(path)
        real(path, clips)

    monkeypatch.setattr(choreography, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        compose_many(tmp_path / "cut", library, 6, 3, progress=False, kinds=kinds)
    monkeypatch.setattr(choreography, "write_shard", real)
    stamp = done[0].stat().st_mtime_ns
    report = compose_many(tmp_path / "cut", library, 6, 3, progress=False, kinds=kinds)
    assert report == whole and done[0].stat().st_mtime_ns == stamp
    for a, b in zip(load_pairs(tmp_path / "whole"), load_pairs(tmp_path / "cut"), strict=True):
        assert (a.rotations == b.rotations).all() and a.texts == b.texts


def test_real_solo_clips_lend_walks_and_pass_the_checks(shared):
    folder = shared / "mocap" / "cmu-solo" / "expmap"
    names = [f"walking/train_walking_{i}" for i in (1, 2, 3)] + [f"walking_extra/train_walking_{i}" for i in (31, 36, 40)]
    names += ["basketball_signal/train_basketball_signal_3", "directing_traffic/train_directing_traffic_4"]
    names += ["running/train_running_2"]
    clips = [SimpleNamespace(motion=read_motion(folder / f"{name}.txt.xz").to_model()[2:], text="", name=name, trial=name,
                             split="train") for name in names]
    library = Library(clips, "train")
    assert len(library.gaits) > 5 and library.quiet and library.gestures
    assert len(library.runs) == 2 and all(run.runs and 2.5 < run.speed_legs < 4.5 for run in library.runs)
    passed = 0
    for kind in KINDS:
        for seed in range(3):
            try:
                compose(kind, library, seed)
                passed += 1
            except Rejected:
                pass
    assert passed > 0.65 * 3 * len(KINDS)
