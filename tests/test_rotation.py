"""Rotations against scipy, in numpy and in torch."""

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from rtinteract import rotation as R

RNG = np.random.default_rng(3)
# Half turns and the identity are where naive conversions break.
QUATS = np.concatenate([R.normalize(RNG.normal(size=(200, 4))), np.eye(4), R.normalize(RNG.normal(size=(20, 4)) * [0, 1, 1, 1])])


def scipy_of(q):
    return Rotation.from_quat(np.asarray(q)[..., [1, 2, 3, 0]])


@pytest.fixture(params=["numpy", "torch"])
def make(request):
    return (lambda x: torch.tensor(np.asarray(x))) if request.param == "torch" else (lambda x: np.asarray(x))


def same(a, b, tolerance=1e-9):
    assert float(np.max(np.asarray(R.angle(np.asarray(a), np.asarray(b))))) < tolerance


def test_matrices_and_vectors_agree_with_scipy(make):
    assert np.allclose(R.to_matrix(make(QUATS)), scipy_of(QUATS).as_matrix())
    same(R.from_matrix(R.to_matrix(make(QUATS))), QUATS, 1e-7)
    same(R.from_axis_angle(R.to_axis_angle(make(QUATS))), QUATS, 1e-7)
    v = RNG.normal(size=(len(QUATS), 3))
    assert np.allclose(R.rotate(make(QUATS), make(v)), scipy_of(QUATS).apply(v))


@pytest.mark.parametrize("order", ["".join(o) for o in itertools.permutations("XYZ")])
def test_euler_orders_are_intrinsic(make, order):
    q = QUATS[:200]
    angles = R.to_euler(make(q), order)
    assert np.allclose(angles, scipy_of(q).as_euler(order))
    same(R.from_euler(angles, order), q, 1e-7)


def test_euler_at_gimbal_lock_still_gives_the_rotation(make):
    q = R.from_euler(np.array([[0.4, np.pi / 2, 0.3], [0.4, -np.pi / 2, 0.3]]), "ZYX")
    same(R.from_euler(R.to_euler(make(q), "ZYX"), "ZYX"), q, 1e-6)


def test_composition_order(make):
    a, b, v = make(QUATS[:50]), make(QUATS[50:100]), make(RNG.normal(size=(50, 3)))
    assert np.allclose(R.rotate(R.multiply(a, b), v), R.rotate(a, R.rotate(b, v)))
    same(R.multiply(a, R.inverse(a)), np.broadcast_to([1.0, 0, 0, 0], (50, 4)))


def test_6d_is_the_first_two_columns_and_survives_zeros(make):
    d = R.to_6d(make(QUATS))
    m = scipy_of(QUATS).as_matrix()
    assert np.allclose(d[:, :3], m[:, :, 0]) and np.allclose(d[:, 3:], m[:, :, 1])
    same(R.from_6d(d), QUATS, 1e-7)
    assert np.isfinite(np.asarray(R.from_6d(make(np.zeros((2, 6)))))).all()


def test_between_turns_one_direction_into_the_other_even_when_opposite(make):
    a, b = RNG.normal(size=(50, 3)), RNG.normal(size=(50, 3))
    b[:10] = -2 * a[:10]
    turned = R.rotate(R.between(make(a), make(b)), make(a))
    unit = np.asarray(turned) / np.linalg.norm(turned, axis=-1, keepdims=True)
    assert np.allclose(unit, b / np.linalg.norm(b, axis=-1, keepdims=True), atol=1e-7)


def test_slerp_is_even_and_short(make):
    a, b = QUATS[:50], -QUATS[50:100]
    half = R.slerp(make(a), make(b), make(np.full(50, 0.5)))
    assert np.allclose(R.angle(np.asarray(half), a), R.angle(a, b) / 2, atol=1e-7)


def test_swing_twist_splits_exactly(make):
    axis = np.broadcast_to([1.0, 0.0, 0.0], (len(QUATS), 3))
    swing, twist = R.swing_twist(make(QUATS), make(axis))
    same(R.multiply(swing, twist), QUATS, 1e-7)
    assert np.allclose(np.asarray(twist)[:, 2:], 0) and np.allclose((np.asarray(swing)[:, 1:] * axis).sum(-1), 0, atol=1e-9)


def test_heading_and_yaw_agree(make):
    angles = make(np.linspace(-3, 3, 13))
    left = R.rotate(R.yaw(angles), make(np.broadcast_to([1.0, 0, 0], (13, 3)).copy()))
    assert np.allclose(R.heading(left), angles)


def test_continuous_keeps_rotations_and_hemisphere(make):
    path = R.from_axis_angle(np.linspace(0, 12, 60)[:, None] * np.array([[0.2, 1.0, 0.1]]))
    flipped = path * np.where(np.arange(60) % 3 == 0, -1, 1)[:, None]
    smooth = np.asarray(R.continuous(make(flipped)))
    assert ((smooth[1:] * smooth[:-1]).sum(-1) > 0).all()
    same(smooth, path, 1e-7)


def test_many_products_are_those_of_few():
    g = torch.Generator().manual_seed(0)
    a, b = (R.normalize(torch.randn(*shape, 4, generator=g)) for shape in ((40, 1, 70), (3, 70)))
    a.requires_grad_()
    many = R.multiply(a, b)
    few = torch.stack([R.multiply(row, b) for row in a])
    assert many.shape == few.shape == (40, 3, 70, 4) and torch.allclose(many, few, atol=1e-6)
    weight = torch.randn(many.shape, generator=g)
    for x, y in zip(*(torch.autograd.grad((q * weight).sum(), a) for q in (many, few)), strict=True):
        assert torch.allclose(x, y, atol=1e-4)
    half = R.multiply(a.detach().bfloat16(), b.bfloat16())
    assert half.dtype == torch.bfloat16 and torch.allclose(half.float(), many, atol=0.05)
