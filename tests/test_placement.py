"""Where partners stand: described, composed back, and drawn."""

import math

import pytest
import torch

from rtinteract.config import TransformerConfig
from rtinteract.errors import RtInteractError
from rtinteract.placement import WIDTH, PlacementPrior, compose, describe, describe_pair, relative
from rtinteract.transformer import InterMTransformer


def frames(count, seed=0):
    g = torch.Generator().manual_seed(seed)
    yaw = (torch.rand(count, generator=g) - 0.5) * 6
    return yaw, torch.randn(count, 3, generator=g) * torch.tensor([2.0, 0.0, 2.0])


def test_a_partner_straight_ahead_who_faces_back():
    seen = relative(torch.tensor(0.0), torch.zeros(3), torch.tensor(math.pi), torch.tensor([0.0, 0.0, 1.5]))
    assert torch.allclose(seen, torch.tensor([0.0, 1.5, math.pi]))


def test_the_relation_does_not_depend_on_the_world_and_leads_back():
    (yaw, origin), (other_yaw, other) = frames(20), frames(20, 1)
    seen = relative(yaw, origin, other_yaw, other)
    turn = torch.tensor(0.8)
    from rtinteract import rotation as R
    spun = [R.rotate(R.yaw(turn).expand(20, 4), x) + torch.tensor([3.0, 0.0, -1.0]) for x in (origin, other)]
    assert torch.allclose(relative(yaw + turn, spun[0], other_yaw + turn, spun[1]), seen, atol=1e-4)
    back_yaw, back = compose(yaw, origin, seen)
    assert torch.allclose(back, other, atol=1e-4) and torch.allclose(back_yaw, other_yaw, atol=1e-5)


def test_descriptions_tell_centimetres_apart_and_full_turns_not():
    here, near, turned = torch.tensor([[0.3, 1.2, 3.0], [0.33, 1.2, 3.0], [0.3, 1.2, 3.0 - 2 * math.pi]])
    assert describe(here).shape == ((WIDTH - 1) // 2,)
    assert float((describe(here) - describe(near)).abs().max()) > 0.1
    assert torch.allclose(describe(here), describe(turned), atol=1e-4)
    assert torch.isfinite(describe(torch.zeros(3))).all()


def two_who_walk():
    """Two who face each other 2 m apart; the first walks 0.1 m a column toward the second, whose way is not known."""
    yaw, origin = torch.tensor([0.0, math.pi]), torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 3.0]])
    steps = origin[:, None].repeat(1, 4, 1)
    steps[0, :, 2] += 0.1 * torch.arange(4)
    known = torch.tensor([[True] * 4, [False] * 4])
    steps[1] = float("nan")
    return yaw, origin, yaw[:, None].expand(2, 4), steps, known


def test_a_known_way_is_told_in_the_partners_frame_and_an_unknown_one_not_at_all():
    told = describe_pair(*two_who_walk())
    half = (WIDTH - 1) // 2
    assert told.shape == (2, 4, WIDTH) and torch.isfinite(told).all()
    # Half metres come first: the partner's frame is 2 m ahead of both, the walker comes nearer in the partner's.
    assert torch.allclose(told[:, :, :2], torch.tensor([0.0, 1.0]).expand(2, 4, 2), atol=1e-5)
    assert torch.allclose(told[0, :, half + 1] * 2, 2 - 0.1 * torch.arange(4), atol=1e-5)
    assert (told[0, :, -1] == 1).all() and (told[1, :, half:] == 0).all()


def test_the_prior_learns_where_partners_stand():
    torch.manual_seed(0)
    prior = PlacementPrior(8)
    condition = torch.zeros(256, 8)
    condition[128:, 0] = 1
    places = torch.where(condition[:, :1] > 0, torch.tensor([0.0, 0.8, math.pi]), torch.tensor([1.0, 2.5, 0.0]))
    places = places + 0.05 * torch.randn(256, 3)
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    first = float(prior.loss(condition, places).detach())
    for _ in range(150):
        optimizer.zero_grad()
        loss = prior.loss(condition, places)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < first - 2
    for text, place in ((0.0, [1.0, 2.5]), (1.0, [0.0, 0.8])):
        asked = torch.zeros(8)
        asked[0] = text
        draws = torch.stack([prior.draw(asked, seed) for seed in range(20)])
        assert float((draws[:, :2] - torch.tensor(place)).norm(dim=-1).median()) < 0.2
    assert torch.equal(prior.draw(asked, 3), prior.draw(asked, 3)) and not torch.equal(prior.draw(asked, 3), prior.draw(asked, 4))


def test_the_transformer_listens_to_placement_and_checks_it():
    torch.manual_seed(0)
    config = TransformerConfig(codes=16, code_dim=8, width=16, heads=2, layers=1, ff=16, condition=8, placement=True)
    model = InterMTransformer(config).eval()
    codes = torch.randint(16, (2, 2, 5, 4))
    near = describe_pair(*two_who_walk())[None].expand(2, 2, 4, WIDTH)
    with torch.no_grad():
        plain, told = model(codes, None), model(codes, None, placement=near)
    assert not torch.allclose(plain, told)
    with pytest.raises(RtInteractError, match="placement"):
        model(codes, None, placement=near[:1])
    shared = InterMTransformer(TransformerConfig(codes=16, code_dim=8, width=16, heads=2, layers=1, ff=16, condition=8)).eval()
    with pytest.raises(RtInteractError, match="share one frame"):
        shared(codes, None, placement=near)
