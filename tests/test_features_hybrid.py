"""The hybrid representation, canonical frames and the rigid body fit."""

import numpy as np
import pytest
import torch

from rtinteract import rotation as R
from rtinteract.errors import ConfigError
from rtinteract.features.base import get
from rtinteract.features.body import fit_offsets
from rtinteract.features.canonical import frame_of, from_frame, to_frame
from rtinteract.features.normalize import Normalizer
from rtinteract.skeleton import SMPL22, forward_kinematics

FRAMES = 60


@pytest.fixture
def clip():
    """Two bodies that walk a curve, turn more than once around and swing every joint."""
    gen = torch.Generator().manual_seed(1)
    t = torch.linspace(0, 3, FRAMES)[None]
    rates = 4 * torch.rand(2, 1, 22, 3, generator=gen)
    swing = 0.3 * torch.randn(2, 1, 22, 3, generator=gen) + 0.4 * torch.sin(t[..., None, None] * rates)
    swing[:, :, 0] = torch.tensor([0.1, 0, 0.05]) * torch.randn(2, 1, 3, generator=gen)
    rotations = R.from_axis_angle(swing)
    rotations[:, :, 0] = R.multiply(R.yaw(torch.linspace(2, 10, FRAMES)).expand(2, -1, -1), rotations[:, :, 0])
    root = torch.stack([2 + t.expand(2, -1), 0.95 + 0.05 * torch.sin(t).expand(2, -1), torch.sin(t).expand(2, -1) - 1], -1)
    offsets = torch.tensor(SMPL22.offsets, dtype=torch.float32) * torch.tensor([0.92, 1.07])[:, None, None]
    return forward_kinematics(SMPL22, root, rotations, offsets=offsets[:, None]), rotations, offsets


def test_canonical_frame_puts_the_body_at_the_origin_facing_z_and_comes_back(clip):
    positions, rotations, _ = clip
    frame = frame_of(positions[:, 10])
    places, turns = to_frame(frame, positions, rotations)
    assert torch.allclose(places[:, 10, 0, [0, 2]], torch.zeros(2, 2), atol=1e-5)
    across = places[:, 10, 1] - places[:, 10, 2]
    assert (across[:, 0] > 0).all() and torch.allclose(across[:, 2], torch.zeros(2), atol=1e-5)
    assert torch.allclose(places[..., 1], positions[..., 1], atol=1e-5)
    back, turned = from_frame(frame, places, turns)
    assert torch.allclose(back, positions, atol=1e-5) and float(R.angle(turned, rotations).max()) < 1e-3


def test_round_trip_is_exact_and_no_frame_is_lost(clip):
    positions, rotations, _ = clip
    hybrid = get("hybrid")
    image = hybrid.encode(positions, rotations)
    assert image.shape == (2, FRAMES, 22, 12)
    read, turned = hybrid.read(image)
    assert float((read - positions).abs().max()) < 1e-4 and float(R.angle(turned, rotations).max()) < 1e-3
    decoded, local = hybrid.decode(image)
    assert float((decoded - positions).abs().max()) < 1e-3 and float(R.angle(local, rotations).max()) < 1e-2


def test_pose_rows_do_not_depend_on_where_the_body_stands(clip):
    positions, rotations, _ = clip
    hybrid = get("hybrid")
    image = hybrid.encode(positions, rotations)
    moved = hybrid.encode(*to_frame(frame_of(positions[:, 30]), positions, rotations))
    assert torch.allclose(image[..., 1:, :], moved[..., 1:, :], atol=1e-3)
    assert not torch.allclose(image[..., 0, :3], moved[..., 0, :3], atol=0.1)


def test_rows_do_not_look_ahead(clip):
    positions, rotations, _ = clip
    hybrid = get("hybrid")
    whole = hybrid.encode(positions, rotations)
    cut = hybrid.encode(positions[:, :20], rotations[:, :20])
    assert torch.allclose(whole[:, :20], cut, atol=1e-5)


def test_a_single_frame_works(clip):
    positions, rotations, _ = clip
    decoded, _ = get("hybrid").decode(get("hybrid").encode(positions[:, :1], rotations[:, :1]))
    assert float((decoded - positions[:, :1]).abs().max()) < 1e-3


def test_decoding_noise_gives_a_rigid_body_near_the_rows(clip):
    positions, rotations, offsets = clip
    hybrid = get("hybrid")
    noisy = hybrid.encode(positions, rotations)
    noisy = noisy + 0.02 * torch.randn(noisy.shape, generator=torch.Generator().manual_seed(2))
    decoded, local = hybrid.decode(noisy)
    lengths = (decoded[..., 1:, :] - decoded[..., list(SMPL22.parents[1:]), :]).norm(dim=-1)
    assert float(lengths.std(dim=1).max()) < 1e-5
    assert float((local.norm(dim=-1) - 1).abs().max()) < 1e-5
    assert float((decoded - positions).norm(dim=-1).mean()) < 0.06
    fitted = fit_offsets(*hybrid.read(noisy)).norm(dim=-1)
    assert float((fitted - offsets.norm(dim=-1)).abs().max()) < 0.02


def test_given_offsets_are_obeyed(clip):
    positions, rotations, offsets = clip
    hybrid = get("hybrid")
    decoded, local = hybrid.decode(hybrid.encode(positions, rotations), offsets * 1.1)
    expected = forward_kinematics(SMPL22, decoded[..., 0, :], local, offsets=(offsets * 1.1)[:, None])
    assert torch.allclose(decoded, expected, atol=1e-4)


def test_losses_can_reach_the_image(clip):
    positions, rotations, _ = clip
    hybrid = get("hybrid")
    image = hybrid.encode(positions, rotations).requires_grad_()
    hybrid.read(image)[0].square().mean().backward()
    assert torch.isfinite(image.grad).all() and float(image.grad.abs().max()) > 0


def test_normaliser_inverts_and_refuses_bad_statistics():
    mean, std = torch.randn(22, 12), torch.rand(22, 12) + 0.1
    normalizer = Normalizer(mean, std)
    image = torch.randn(3, 5, 22, 12)
    assert torch.allclose(normalizer.inverse(normalizer(image)), image, atol=1e-5)
    with pytest.raises(ConfigError, match="positive std"):
        Normalizer(mean, torch.zeros(22, 12))
    with pytest.raises(ConfigError, match="one shape"):
        Normalizer(mean, torch.ones(12))


def test_unknown_representation_lists_the_known():
    with pytest.raises(ConfigError, match="hybrid, interhuman, interx"):
        get("smplx")


def test_skeleton_height_is_human():
    assert 1.6 < SMPL22.height < 1.85
    assert np.allclose(SMPL22.offsets[[1, 4, 7, 10, 13, 16, 18, 20]], SMPL22.offsets[[2, 5, 8, 11, 14, 17, 19, 21]] * [-1, 1, 1])


@pytest.mark.parametrize("anchor", [0, 25, FRAMES - 1, (10, 40)])
def test_an_anchored_body_stands_at_the_origin_there_whatever_the_absolute_values_say(clip, anchor):
    positions, rotations, _ = clip
    hybrid = get("hybrid")
    at = torch.tensor([anchor] * 2 if isinstance(anchor, int) else anchor)
    places, turns = to_frame(frame_of(positions[[0, 1], at]), positions, rotations)
    image = hybrid.encode(places, turns)
    exact, _ = hybrid.read(image, at if isinstance(anchor, tuple) else anchor)
    assert float((exact - places).abs().max()) < 1e-3
    # A codec's absolute place and heading are decimetres and degrees off, its steps are not.
    wrong = image.clone()
    wrong[..., 0, [0, 2]] += 0.3
    wrong[..., 0, 6:] = R.to_6d(R.multiply(R.yaw(torch.full((2, FRAMES), 0.3)), turns[..., 0, :]))
    read, _ = hybrid.read(wrong, at if isinstance(anchor, tuple) else anchor)
    error = (read - places)[..., 0, :].norm(dim=-1)
    assert float(error[[0, 1], at].max()) < 1e-3
    assert float((hybrid.read(wrong)[0] - places)[..., 0, :].norm(dim=-1).min()) > 0.3
    near = (torch.arange(FRAMES) - at[:, None]).abs() <= 8
    assert float(error[near].max()) < 0.02 < float(error.max()) < 0.45
