"""Inter-X's published layouts, SMPL-X bodies from a model file, and what a codec of its representation learns from them."""

import logging
import os
import pickle
import sys

import numpy as np
import pytest
import torch
from dataset_files import interx_array, interx_names, smplx_file, write_interx_h5, write_interx_raw
from rtinteract.training.codec import CodecStage, CodecTraining
from rtinteract.training.data import Augmentation, Pool, crops, mirrored
from rtinteract.training.datasets import detect, inspect_folder, load_two_person
from rtinteract.training.losses import interx_losses
from rtinteract.training.smplx import MIRROR, NAMES, Bodies, read_body
from rtinteract.training.trainer import LoopConfig

from rtinteract import rotation as R
from rtinteract.config import CodecConfig
from rtinteract.errors import MotionError, RtInteractError
from rtinteract.features import base
from rtinteract.skeleton import SMPL22, forward_kinematics

NAMES_OF_CLIPS = interx_names(5)


@pytest.fixture
def body_file(tmp_path):
    smplx_file(tmp_path / "SMPLX_NEUTRAL.npz")
    return tmp_path / "SMPLX_NEUTRAL.npz"


def test_a_body_is_what_its_regressor_says(tmp_path):
    rest = smplx_file(tmp_path / "m.npz")
    body = read_body(tmp_path / "m.npz")
    assert np.abs(body.rest() - rest).max() < 1e-9
    with np.load(tmp_path / "m.npz") as data:
        shaped = data["J_regressor"] @ (data["v_template"] + data["shapedirs"][..., :3] @ np.array([1.0, -2.0, 0.5]))
    assert np.abs(body.rest([1.0, -2.0, 0.5]) - shaped).max() < 1e-9 and np.abs(shaped - rest).max() > 1e-3
    skeleton = body.skeleton()
    places = forward_kinematics(skeleton, rest[0], R.identity((55,)))
    assert np.abs(places - rest).max() < 1e-9
    # Turning the right wrist moves the right hand's fingers and nothing else.
    turned = R.identity((55,))
    turned[21] = R.about("Y", np.float64(0.5))
    moved = np.linalg.norm(forward_kinematics(skeleton, rest[0], turned) - rest, axis=-1) > 1e-6
    assert [NAMES[j] for j in np.flatnonzero(moved)] == list(NAMES[40:])


@pytest.mark.parametrize("wrong,says", [
    ({"J_regressor": np.zeros((24, 200))}, "SMPL's or SMPL-H's"), ({"kintree_table": None}, "kintree_table"),
    ({"kintree_table": np.zeros((2, 55))}, "kinematic tree")])
def test_other_model_files_are_refused(tmp_path, wrong, says):
    smplx_file(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as data:
        arrays = {k: data[k] for k in ("v_template", "J_regressor", "kintree_table")} | wrong
    np.savez(tmp_path / "m.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(MotionError, match=says):
        read_body(tmp_path / "m.npz")
    with pytest.raises(MotionError, match="check the path"):
        Bodies(tmp_path / "none.npz")


def true_places(array, person, rest):
    """What SMPL-X's own kinematics give for a clip's person: [T, 55, 3], lowest body joint at height 0."""
    rows = array[..., 3 * person:3 * person + 3].astype(np.float64)
    from scipy.spatial.transform import Rotation
    turns = Rotation.from_rotvec(rows[:, :55].reshape(-1, 3)).as_matrix().reshape(-1, 55, 3, 3)
    from dataset_files import SMPLX_PARENTS
    world, places = [turns[:, 0]], [rest[0] + rows[:, 55]]
    for j in range(1, 55):
        p = SMPLX_PARENTS[j]
        places.append(places[p] + world[p] @ (rest[j] - rest[p]))
        world.append(world[p] @ turns[:, j])
    places = np.stack(places, 1)
    places[..., 1] -= places[:, :22, 1].min()
    return places


@pytest.mark.parametrize("layout", ["h5", "npy", "raw"])
def test_clips_stand_where_smplx_puts_them(tmp_path, body_file, layout):
    folder = tmp_path / "data"
    if layout == "raw":
        write_interx_raw(folder, NAMES_OF_CLIPS)
    else:
        write_interx_h5(folder, NAMES_OF_CLIPS)
    if layout == "npy":
        for path in (folder / "motions").glob("*.h5"):
            path.unlink()
        for i, name in enumerate(NAMES_OF_CLIPS):
            np.save(folder / "motions" / f"{name}.npy", interx_array(80, i))
    assert detect(folder) == "interx"
    clips = load_two_person(folder, smplx=body_file)
    assert len(clips) == (5 if layout == "raw" else 3) and clips[0].kind == "action 000"
    assert clips[0].texts == (("Two people meet.",) if layout == "raw" else ("They meet on the left.", "They walk."))
    rest = read_body(body_file).rest()
    for i, clip in enumerate(clips):
        for p, motion in enumerate(clip.motions()):
            assert np.abs(motion.positions - true_places(interx_array(80, i), p, rest)[:, :22]).max() < 1e-5
    # Fingers are kept beside the body's joints.
    fingers = R.to_axis_angle(clips.rotations[clips.starts[1]:clips.starts[2], 1, 25:55])
    assert np.abs(fingers - interx_array(80, 1)[:, 25:55, 3:]).max() < 1e-5


def test_each_persons_own_body_where_all_model_files_are_given(tmp_path):
    write_interx_raw(tmp_path / "data", NAMES_OF_CLIPS[:1])
    for i, gender in enumerate(("NEUTRAL", "MALE", "FEMALE")):
        smplx_file(tmp_path / f"SMPLX_{gender}.npz", seed=i)
    clip = load_two_person(tmp_path / "data", smplx=tmp_path)[0]
    for p, (gender, beta) in enumerate((("MALE", -0.5), ("FEMALE", 0.5))):
        rest = read_body(tmp_path / f"SMPLX_{gender}.npz").rest(np.full(10, beta))
        assert np.abs(clip.offsets[p, 1:] - (rest[1:22] - rest[list(SMPL22.parents[1:])])).max() < 1e-6


def test_without_a_model_file_the_average_body_stands_in_and_it_is_said(tmp_path, caplog):
    write_interx_h5(tmp_path, NAMES_OF_CLIPS)
    clips = load_two_person(tmp_path)
    assert "no SMPL-X model file" in caplog.text
    assert np.abs(clips[0].offsets - SMPL22.offsets).max() < 1e-6
    assert min(m.positions[..., 1].min() for m in clips[0].motions()) == pytest.approx(0, abs=1e-5)
    assert any("no SMPL-X" in line for line in inspect_folder(tmp_path).lines())


def write_order(folder, order):
    (folder / "annots").mkdir(exist_ok=True)
    (folder / "annots" / "interaction_order.pkl").write_bytes(order if isinstance(order, bytes) else pickle.dumps(order))


@pytest.mark.parametrize("layout", ["h5", "raw"])
def test_who_acts_comes_first(tmp_path, layout):
    (write_interx_h5 if layout == "h5" else write_interx_raw)(tmp_path, NAMES_OF_CLIPS)
    assert any("interaction_order.pkl" in line for line in inspect_folder(tmp_path).lines())
    before = load_two_person(tmp_path, cache=tmp_path / "cache")
    write_order(tmp_path, {name: np.int64(i) if i else 0 for i, name in enumerate(NAMES_OF_CLIPS[:2])})
    after = load_two_person(tmp_path, cache=tmp_path / "cache")
    for i, other in enumerate((False, True, False)):
        turn = slice(None, None, -1) if other else slice(None)
        for name in ("root", "rotations", "offsets"):
            assert np.array_equal(getattr(after[i], name), getattr(before[i], name)[turn]), (i, name)
    hands = [clips.rotations[clips.starts[1]:clips.starts[2], :, 25:] for clips in (before, after)]
    assert np.array_equal(hands[1], hands[0][:, ::-1]) and not np.array_equal(hands[1], hands[0])
    assert any("does not name 3 of 5 clips" in line for line in inspect_folder(tmp_path).lines())


class Evil:
    """What runs a command when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("made",)


@pytest.mark.parametrize("order, says", [
    (Evil(), "mkdir"), ({"G001T000A000R000": Evil()}, "mkdir"), (b"no pickle", "something else"),
    (pickle.dumps({"a": 1})[:-3], "something else"), ([0, 1], "got list"), ({"a": 2}, "'a': 2"), ({1: 0}, "1: 0"),
    ({"a": "0"}, "'a': '0'"), ({"a": None}, "'a': None")])
def test_an_order_that_holds_anything_else_is_refused_and_nothing_is_run(tmp_path, monkeypatch, order, says):
    monkeypatch.chdir(tmp_path)
    write_interx_raw(tmp_path, NAMES_OF_CLIPS[:1])
    write_order(tmp_path, order)
    with pytest.raises(MotionError, match=says) as error:
        load_two_person(tmp_path)
    assert "interaction_order.pkl: expected" in str(error.value) and not (tmp_path / "made").exists()


def test_faults_are_skipped_named_and_counted(tmp_path):
    import h5py

    names = interx_names(9)
    write_interx_h5(tmp_path, names)
    with h5py.File(tmp_path / "motions" / "train.h5", "a") as file:
        file[names[1]][3, 4, 5] = np.nan
        for name, data in ((names[2], np.zeros((80, 56, 3))), (names[3], np.zeros((5, 56, 6))), (names[4], np.zeros((80, 100)))):
            del file[name]
            file.create_dataset(name, data=data)
    (tmp_path / "texts_processed" / f"{names[5]}.txt").write_text("#x/NOUN#0.0#0.0\n")
    (tmp_path / "texts_processed" / f"{names[6]}.txt").unlink()
    with open(tmp_path / "splits" / "train.txt", "a") as file:
        file.write("G999T000A000R000\n")
    report = inspect_folder(tmp_path)
    assert {w: [x.split(":")[0] for x in which] for w, which in report.problems.items()} == {
        "listed but absent": ["G999T000A000R000 (train)"], "broken": [names[1], names[4]], "one person missing": [names[2]],
        "too short": [names[3]], "annotation without lines": [names[5]], "no annotation": [names[6]]}
    assert report.clips == {"train": 3, "val": 1, "test": 1}
    (tmp_path / "motions" / "val.h5").write_bytes(b"no hdf5")
    with pytest.raises(MotionError, match="val.h5: expected an HDF5 file"):
        load_two_person(tmp_path)


def test_raw_clips_with_one_person_or_damage_are_named(tmp_path):
    write_interx_raw(tmp_path, NAMES_OF_CLIPS)
    (tmp_path / "motions" / NAMES_OF_CLIPS[0] / "P2.npz").unlink()
    (tmp_path / "motions" / NAMES_OF_CLIPS[1] / "P1.npz").write_bytes(b"cut short")
    problems = inspect_folder(tmp_path).problems
    assert [x.split(":")[0] for x in problems["one person missing"]] == [NAMES_OF_CLIPS[0]]
    assert len(problems["broken"]) == 1 and problems["broken"][0].startswith(NAMES_OF_CLIPS[1])


def test_h5_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    write_interx_h5(tmp_path, NAMES_OF_CLIPS)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(RtInteractError, match=r"rtinteract\[train\]"):
        load_two_person(tmp_path)


def test_images_hold_the_fingers_and_mirroring_swaps_the_hands(tmp_path, body_file):
    write_interx_h5(tmp_path, NAMES_OF_CLIPS)
    clips = load_two_person(tmp_path, smplx=body_file, cache=tmp_path / "cache")
    representation = base.get("interx")
    pool = Pool.of_people(clips, representation.turned)
    made = crops(pool, 3, 16, Augmentation.none(), torch.Generator().manual_seed(0), own=True)
    image = representation.encode(made.positions, made.rotations)
    assert image.shape == (3, 1, 16, 56, 6)
    assert torch.abs(image[..., 25:55, :] - torch.tensor([1.0, 0, 0, 0, 1, 0])).max() > 0.05
    assert crops(Pool.of_people(clips), 2, 16, Augmentation.none(), torch.Generator(), own=True).rotations.shape[-2] == 22
    # A mirrored body of 55 joints stands at the mirror image of where it stood.
    skeleton = read_body(body_file).skeleton()
    flat = torch.tensor((skeleton.offsets + skeleton.offsets[list(MIRROR)] * [-1, 1, 1]) / 2, dtype=torch.float32)
    root, turns = pool.poses(torch.tensor([1]), torch.arange(16.0)[None])
    other, turned, _ = mirrored(root, turns, pool.offsets[:1], torch.tensor([True]))
    here = forward_kinematics(skeleton, root, turns, offsets=flat)
    there = forward_kinematics(skeleton, other, turned, offsets=flat)
    assert torch.abs(there[..., list(MIRROR), :] * torch.tensor([-1.0, 1, 1]) - here).max() < 1e-5


def test_geometric_losses_are_zero_for_the_truth_and_know_metres(body_file):
    body = read_body(body_file).skeleton()
    image = torch.randn(2, 8, 56, 6, generator=torch.Generator().manual_seed(0))
    mean, std = torch.zeros(56, 6), torch.ones(56, 6)
    offsets = torch.tensor(np.stack([body.offsets[:22]] * 2), dtype=torch.float32)
    same = interx_losses(image, image, mean, std, body, offsets)
    assert all(float(x) < 1e-3 for x in same)
    moved = image.clone()
    moved[..., 55, 0] += 0.5
    assert float(interx_losses(moved, image, mean, std, body, offsets).explicit) == pytest.approx(0.5 * 0.25 / 3, rel=1e-3)
    turned = image.clone()
    turned[..., 40, :] = torch.tensor([0.0, 1, 0, -1, 0, 0])
    found = interx_losses(turned.requires_grad_(), image, mean, std, body, offsets)
    assert found.explicit > 0 and found.geodesic > 0
    found.explicit.backward()
    assert turned.grad[..., 40, :].abs().max() > 0 and turned.grad[..., 30, :].abs().max() == 0


def small(representation):
    codec = CodecConfig(joints=56, features=6, width=16, code_dim=8, codes=64, depth=1, quantizer="fsq", levels=(4, 4, 4),
                        kernels=((6, 4), (6, 4)), strides=((3, 2), (3, 2)), upsample=((3.5, 2.0), (3.3, 2.0)))
    return CodecTraining(representation=representation, codec=codec, loop=LoopConfig(steps=1, batch=2, precision="float32"),
                         frames=32, shortest=32, longest=32)


def test_a_codec_trains_on_inter_x_alone_with_its_geometry(tmp_path, body_file, caplog):
    write_interx_h5(tmp_path, NAMES_OF_CLIPS)
    clips = load_two_person(tmp_path, smplx=body_file)
    with_body = CodecStage(small("interx"), [], clips, held_out=clips[:1], body=Bodies(body_file).mean())
    total, terms = with_body.loss(with_body.batch(0), 0)
    assert {"feature", "explicit", "velocity", "geodesic", "foot"} < set(terms) and torch.isfinite(total)
    weights = with_body.model.state_dict()
    assert with_body.validate(weights)["mpjpe"] > 0
    with caplog.at_level(logging.WARNING):
        without = CodecStage(small("interx"), [], clips)
    assert "geometric losses on Inter-X are left out" in caplog.text
    assert set(without.loss(without.batch(0), 0)[1]) == {"feature", "perplexity"} and without.validate(weights) == {}
