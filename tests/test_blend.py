"""A new motion takes over from an old one without a pop, in place and in speed."""

import pytest
import torch

from rtinteract import rotation as R
from rtinteract.blend import take_over

FRAMES = 16


def walk(speed, turn, first, frames):
    """(root [T, 3], rotations [T, 1, 4]) of someone who goes and turns evenly, in metres and radians a frame."""
    t = torch.arange(first, first + frames, dtype=torch.float64)
    return t[:, None] * torch.tensor(speed, dtype=torch.float64), R.about("Y", t * turn)[:, None]


@pytest.mark.parametrize("length", [6, 10])
def test_place_goes_on_over_the_seam_and_speed_half_way(length):
    shown = walk([0.02, 0.0, 0.01], 0.05, -2, 2)
    root, rotations = walk([-0.01, 0.0, 0.03], -0.04, -2, FRAMES + 2)
    root = root + torch.tensor([0.05, 0.0, -0.02])
    moved, turned = take_over(root[2:], rotations[2:], root[:2], rotations[:2], *shown, length)
    way = torch.cat([shown[0], moved])
    angle = torch.cat([R.to_axis_angle(q)[:, 0, 1] for q in (shown[1], turned)])
    for x, before, after in ((way[:, 0], 0.02, -0.01), (way[:, 2], 0.01, 0.03), (angle, 0.05, -0.04)):
        # A pop would be the whole difference of both speeds at once.
        assert (x.diff()[1] - before).abs() < 0.7 * abs(after - before)
    assert torch.allclose(moved[length:], root[2:][length:], atol=1e-9)
    assert torch.allclose(turned[length:], rotations[2:][length:], atol=1e-9)


def test_all_of_the_speed_goes_on_where_it_is_asked_for():
    shown = walk([0.02, 0.0, 0.01], 0.05, -2, 2)
    root, rotations = walk([-0.01, 0.0, 0.03], -0.04, -2, FRAMES + 2)

    def turn_of_speed(carried):
        moved, turned = take_over(root[2:], rotations[2:], root[:2], rotations[:2], *shown, 10, carried)
        angle = torch.cat([R.to_axis_angle(q)[:, 0, 1] for q in (shown[1], turned)])
        return torch.cat([shown[0], moved])[:, 0].diff().diff()[0].abs(), angle.diff().diff()[0].abs()
    for none, half, whole in zip(*map(turn_of_speed, (0.0, 0.5, 1.0)), strict=True):
        assert whole < 0.15 * none and whole < half < none


def test_a_speed_out_of_measure_does_not_throw_the_body():
    shown = walk([3.0, 0.0, 0.0], 2.5, -2, 2)
    root, rotations = walk([0.0, 0.0, 0.0], 0.0, -2, FRAMES + 2)
    last = shown[0] - shown[0][-1], R.multiply(shown[1], R.inverse(shown[1][-1]))
    moved, turned = take_over(root[2:], rotations[2:], root[:2], rotations[:2], *last, 10)
    assert 0 < moved.abs().max() < 0.2 and R.to_axis_angle(turned).abs().max() < 1.0


def test_one_frame_tells_the_place_alone_and_no_length_takes_over_at_once():
    root, rotations = walk([0.0, 0.0, 0.02], 0.0, -1, FRAMES + 1)
    before = root[:1] + 0.1, rotations[:1]
    moved, _ = take_over(root[1:], rotations[1:], root[:1], rotations[:1], *before, 10)
    off = (moved - root[1:])[:, 0]
    assert 0.09 < off[0] < 0.1 and (off.diff() <= 0).all() and abs(off[10:]).max() < 1e-9
    assert take_over(root, rotations, root[:1], rotations[:1], *before, 0)[0] is root
