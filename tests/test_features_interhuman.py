"""InterHuman and Inter-X features against the published preprocessing, and there and back."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rtinteract import rotation as R
from rtinteract.errors import MotionError
from rtinteract.features import base, interx
from rtinteract.features import interhuman as H
from rtinteract.features.canonical import frame_of, from_frame, to_frame
from rtinteract.features.normalize import Normalizer
from rtinteract.skeleton import SMPL22, SMPL22_MIRROR, forward_kinematics


@pytest.fixture(scope="module")
def oracle(shared):
    return {k: v.numpy() for k, v in load_file(shared / "oracles" / "features.safetensors").items()}


def close(got, want, tolerance=1e-5):
    return np.abs(np.asarray(got, float) - want).max() <= tolerance * max(np.abs(want).max(), 1e-9)


def turns(frames=12, seed=0):
    """Smooth local rotations [T, 22, 4] and root places [T, 3] of a body that moves and turns."""
    random = np.random.default_rng(seed)
    t = np.linspace(0, 1, frames)[:, None, None]
    vectors = 0.4 * np.sin(3 * t + random.uniform(0, 6, (1, 22, 3)))
    vectors[:, 0] *= [0.2, 1, 0.2]
    q = R.from_axis_angle(vectors)
    q[:, 0] = R.multiply(np.broadcast_to(R.yaw(np.float64(1.1)), (frames, 4)), q[:, 0])
    root = np.concatenate([0.8 + t[:, 0], 0.95 + 0 * t[:, 0], 2 - 0.5 * t[:, 0]], -1)
    return torch.as_tensor(root, dtype=torch.float32), torch.as_tensor(q, dtype=torch.float32)


def poses(frames=12, seed=0):
    root, q = turns(frames, seed)
    return forward_kinematics(SMPL22, root, q), q


def file_clip(positions, rotations):
    """A clip [T, 492] as the data set stores it, Z up."""
    clip = np.zeros((len(positions), 492))
    p = positions.double().numpy()
    clip[:, :66] = np.stack([p[..., 0], -p[..., 2], p[..., 1]], -1).reshape(-1, 66)
    clip[:, 186:312] = R.to_matrix(rotations.double().numpy())[:, 1:, :, :2].reshape(-1, 126)
    return clip


def test_published_loading_and_mirroring(oracle):
    for i in "12":
        rows = H.load_rows(oracle[f"raw{i}"])
        assert np.array_equal(rows, oracle[f"loaded{i}"])
        assert np.array_equal(H.mirror_rows(rows), oracle[f"swap{i}"])


@pytest.mark.parametrize("side", ["", "swap_"])
def test_published_canonical_frames(oracle, side):
    first, second = (oracle[f"swap{i}" if side else f"loaded{i}"] for i in "12")
    frames = []
    for rows, name, i in ((first, "proc1", "1"), (second, "proc2_own", "2")):
        processed, frame = H.process(rows)
        assert close(processed, oracle[side + name])
        assert close(R.yaw(-frame.yaw), oracle[f"{side}root_quat{i}"][0])
        assert close(frame.origin, oracle[f"{side}root_pos{i}"][0])
        frames.append(frame)
    assert close(H.relative(*frames), oracle[side + "relative"])
    assert close(H.place_rows(oracle[side + "relative"], oracle[side + "proc2_own"]), oracle[side + "proc2"])
    both = H.process_pair(first, second)
    assert close(both[0], oracle[side + "proc1"]) and close(both[1], oracle[side + "proc2"])


def test_published_contacts_and_normalisation(oracle):
    for i in "12":
        rows = oracle[f"proc{i}"]
        image = H.row_to_image(rows)
        assert np.array_equal(H.contacts(image[..., :3], image[..., 3:6]), rows[:, H.CONTACTS])
        assert np.array_equal(H.image_to_row(image), rows)
        normalise = Normalizer(*H.statistics_image(oracle["mean"], oracle["std"]))
        got = normalise(torch.as_tensor(image))
        assert close(got, H.row_to_image(oracle[f"norm{i}"]))
        assert close(normalise.inverse(got), image)


def test_published_rotation_helpers(oracle):
    assert close(R.matrix_from_6d(oracle["cont6d"]), oracle["cont6d_matrix"])
    rows = R.to_matrix(interx.rows_to_rotations(oracle["cont6d"]))
    assert close(rows, oracle["rot6d_matrix_rows"])
    # Near a half turn float32 matrices fix the angle to about 1e-4 only, so compare rotations, not vectors.
    assert R.angle(interx.rows_to_rotations(oracle["cont6d"].astype(float)), R.from_axis_angle(
        oracle["rot6d_axis_angle"].astype(float))).max() < 2e-4
    assert close(R.between(oracle["qb_from"], oracle["qb_to"]), oracle["qb"])


def test_a_file_clip_gives_its_poses_back():
    positions, rotations = poses()
    got_positions, got_rotations = H.read_poses(H.load_rows(file_clip(positions, rotations)))
    torch.testing.assert_close(got_positions, positions, rtol=0, atol=1e-5)
    assert R.angle(got_rotations, rotations).max() < 1e-3


def test_image_of_poses_is_the_image_of_the_file():
    positions, rotations = poses()
    positions[..., 1] -= positions[..., 1].min()
    rows, _ = H.process(H.load_rows(file_clip(positions, rotations)))
    frame = frame_of(positions[0])
    image = base.get("interhuman").encode(*to_frame(frame, positions, rotations))
    assert image.shape == (11, 22, 12)
    assert close(image, H.row_to_image(rows), 2e-5)


@pytest.mark.parametrize("name", ["interhuman", "interx"])
def test_decoding_gives_the_body_back_in_the_world(name):
    kind = base.get(name)
    positions, rotations = poses(seed=3)
    frame = frame_of(positions[0])
    image = kind.encode(*to_frame(frame, positions, rotations))
    assert image.shape == (kind.rows(len(positions)), kind.joints, kind.features)
    n = len(image)
    offsets = torch.tensor(SMPL22.offsets, dtype=torch.float32)
    for got in (kind.decode(image), kind.decode(image, offsets)):
        got_positions, got_rotations = from_frame(frame, *got)
        torch.testing.assert_close(got_positions, positions[:n], rtol=0, atol=2e-4)
        assert R.angle(got_rotations, rotations[:n]).max() < 2e-3
    batch = kind.decode(torch.stack([image, image]), torch.stack([offsets, offsets]))
    torch.testing.assert_close(batch[0][1], kind.decode(image, offsets)[0])


def test_mirrored_file_is_the_mirrored_body():
    positions, rotations = poses(seed=5)
    got_positions, got_rotations = H.read_poses(H.mirror_rows(H.load_rows(file_clip(positions, rotations))))
    order = list(SMPL22_MIRROR)
    torch.testing.assert_close(got_positions, positions[:, order] * torch.tensor([-1.0, 1, 1]), rtol=0, atol=1e-5)
    want = rotations[:, order] * torch.tensor([1.0, 1, -1, -1])
    assert R.angle(got_rotations, want).max() < 2e-3


@pytest.mark.parametrize("text, mirrored", [
    ("raises the left hand", "raises the right hand"),
    ("Turns Clockwise, then counterclockwise", "Turns Counterclockwise, then clockwise"),
    ("turns counter-clockwise or anticlockwise", "turns clockwise or clockwise"),
    ("a right-handed, rightward LEFT", "a left-handed, leftward RIGHT"),
    ("leftover bright righteous cleft", "leftover bright righteous cleft"),
    ("", ""),
])
def test_mirrored_text(text, mirrored):
    assert H.mirror_text(text) == mirrored


def test_mirroring_a_text_twice_gives_it_back():
    text = "the right one turns counterclockwise to the left, then clockwise"
    assert H.mirror_text(H.mirror_text(text)) == text


def test_contacts_need_a_low_and_still_foot():
    positions = torch.zeros(1, 22, 3)
    positions[..., 1] = 0.1
    still, moving = torch.zeros(1, 22, 3), torch.full((1, 22, 3), 0.02)
    assert H.contacts(positions, still).tolist() == [[1, 0, 1, 0]], "an ankle may be as high as 12 cm, a foot 5 cm"
    assert H.contacts(positions, moving).tolist() == [[0, 0, 0, 0]]


def test_relative_holds_half_the_angle():
    first, second = H.Frame(np.float64(0.3), np.zeros(3)), H.Frame(np.float64(0.3 - math.pi / 2), np.array([0, 0, 1.0]))
    angle, x, z = H.relative(first, second)
    assert angle == pytest.approx(math.pi / 4)
    assert math.hypot(x, z) == pytest.approx(1)


def test_clips_that_do_not_fit():
    for bad in (np.zeros((5, 262)), np.zeros((1, 492)), np.full((4, 492), np.nan)):
        with pytest.raises(MotionError, match="InterHuman clip"):
            H.load_rows(bad)
    with pytest.raises(MotionError, match="at least 2 frames"):
        base.get("interhuman").encode(*poses(1))


@pytest.mark.parametrize("name", ["hybrid", "interhuman", "interx"])
def test_what_is_read_of_an_image_is_what_was_encoded(name):
    """What a body's bones are fitted to, before anything is made rigid."""
    representation = base.get(name)
    positions, rotations = poses(frames=40)
    frame = frame_of(positions[0])
    positions, rotations = to_frame(frame, positions, rotations)
    image = representation.encode(positions, rotations)
    places, read = representation.read(image)
    assert close(places, positions[:len(image)].numpy(), 1e-4)
    assert ((read * rotations[:len(image)]).sum(-1).abs() > 1 - 1e-4).all()
