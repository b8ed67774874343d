"""Solo clips varied beyond what is in them: reproducible, whole, in their own frames, and as the shares say."""

import dataclasses
import math

import pytest
import torch
from rtinteract.training.data import Augmentation
from rtinteract.training.variety import Variety, varied_crops
from test_data import g, solo_pool

from rtinteract import rotation as R
from rtinteract.features.hybrid import heading_of
from rtinteract.skeleton import SMPL22_PARENTS

PLAIN = Augmentation.none()
NONE = Variety(joined=0, reversed=0, limbs=0, legs=0, pose=0, curve=0, stretch=0)


def only(**kw):
    return dataclasses.replace(NONE, **kw)


def test_the_same_seed_gives_the_same_batch_and_rows_are_the_same_rows():
    pool, a, v = solo_pool(), Augmentation(warp=(0.8, 1.25)), Variety()
    one, again, other = (varied_crops(pool, 12, 48, a, v, g(s)) for s in (3, 3, 4))
    assert torch.equal(one.positions, again.positions) and not torch.equal(one.positions, other.positions)
    some = varied_crops(pool, 12, 48, a, v, g(3), slice(4, 7))
    assert torch.equal(some.positions, one.positions[4:7]) and torch.equal(some.anchor, one.anchor[4:7])


def test_without_variety_a_crop_is_of_its_clip():
    pool = solo_pool((90,))
    c = varied_crops(pool, 6, 48, PLAIN, NONE, g())
    _, whole = pool.poses(torch.zeros(1, dtype=torch.int64), torch.arange(90)[None].float())
    for turns in c.rotations[:, 0, :, 1:]:
        gap = [(turns - whole[0, 0, s:s + 48, 1:]).abs().max() for s in range(43)]
        assert min(gap) < 1e-5


@pytest.mark.parametrize("v", [NONE, Variety()])
def test_short_clips_fill_a_crop_that_goes_on_without_a_jump(v):
    pool = solo_pool((30, 34, 200))
    c = varied_crops(pool, 64, 96, PLAIN, v, g(1))
    short = pool.lengths[c.clip] < 96
    assert 0 < int(short.sum()) < 64 and torch.isfinite(c.positions).all()
    step = c.positions[:, 0].diff(dim=1).norm(dim=-1) * 30
    assert step.max() < 12
    turned = R.multiply(R.inverse(c.rotations[:, :, :-1]), c.rotations[:, :, 1:])[..., 0].abs()
    assert 2 * math.acos(float(turned.min())) * 30 < 25
    # Another clip moves on where the first has ended: nobody stands frozen.
    assert (step[short][:, 60:].amax((1, 2)) > 0.1).all()


def test_bones_keep_their_lengths():
    c = varied_crops(solo_pool(), 16, 48, Augmentation(), Variety(), g(2))
    bones = (c.positions[..., 1:, :] - c.positions[..., list(SMPL22_PARENTS[1:]), :]).norm(dim=-1)
    assert (bones - c.offsets[:, :, None, 1:].norm(dim=-1)).abs().max() < 1e-4


def test_the_canonical_frame_is_the_person_s_own_in_the_drawn_frame():
    c = varied_crops(solo_pool(), 16, 48, Augmentation(anchor_first=0.3), Variety(), g(5))
    rows = torch.arange(16)
    at = c.positions[rows, 0, c.anchor]
    assert at[:, 0, [0, 2]].abs().max() < 1e-4 and len(c.anchor.unique()) > 4
    across = at[:, 1] - at[:, 2]
    assert torch.atan2(-across[:, 2], across[:, 0]).abs().max() < 1e-3


def test_backward_and_stretched_ways():
    pool = solo_pool((200,))
    there, back = (varied_crops(pool, 8, 48, PLAIN, only(reversed=share), g(7)) for share in (0.0, 1.0))

    def ahead(c):
        step = R.rotate(R.yaw(-heading_of(c.rotations[:, 0, 1:, 0])), c.positions[:, 0, :, 0].diff(dim=1))
        return step[..., 2].mean() * 30
    assert ahead(there) > 0.4 and ahead(back) == pytest.approx(-float(ahead(there)), rel=0.1)
    far = varied_crops(pool, 8, 48, PLAIN, only(stretch=1.0, stretches=(1.5, 1.5)), g(7))
    assert ahead(far) == pytest.approx(1.5 * float(ahead(there)), rel=1e-3)


def test_limbs_come_from_others_and_joints_swing_only_where_asked():
    pool = solo_pool((200, 180))
    plain = varied_crops(pool, 32, 32, PLAIN, NONE, g(9)).rotations
    limbs = varied_crops(pool, 32, 32, PLAIN, only(limbs=1.0), g(9)).rotations
    legs = [1, 2, 4, 5, 7, 8, 10, 11]
    assert torch.allclose(limbs[..., legs, :], plain[..., legs, :], atol=1e-5)
    assert ((limbs - plain)[..., 18, :].abs().amax((1, 2, 3)) > 1e-3).float().mean() > 0.5
    posed = varied_crops(pool, 32, 32, PLAIN, only(pose=1.0), g(9)).rotations
    turned = 2 * torch.acos((posed * plain).sum(-1).abs().clamp(max=1)).mean((0, 1, 2))
    assert turned[[18, 19]].min() > 1.5 * turned[[4, 5]].max() > 0
