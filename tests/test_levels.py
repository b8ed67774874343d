"""Codes that share digits: what is shared, and that the folded weights are the same network."""

import torch
from rtinteract.training.levels import digit_rows, folded, share_levels

from rtinteract.codec import FiniteScalarQuantizer
from rtinteract.config import TransformerConfig
from rtinteract.transformer import InterMTransformer

LEVELS = (4, 3, 2)
CONFIG = TransformerConfig(codes=24, code_dim=8, width=16, heads=2, layers=1, ff=16, condition=8)


def test_codes_share_the_digits_that_their_quantiser_gives_them():
    rows = digit_rows(LEVELS, 27)
    assert rows.shape == (27, 9) and (rows[24:] == 0).all()
    grid = FiniteScalarQuantizer(LEVELS, 8).grid
    for channel, (begin, count) in enumerate(((0, 4), (4, 3), (7, 2))):
        digit = rows[:24, begin:begin + count].argmax(1)
        # Equal digits are equal places on the quantiser's grid, and the next digit lies above.
        assert len({(int(d), float(g)) for d, g in zip(digit, grid[:, channel], strict=True)}) == count
    # Neighbouring codes are more alike than far ones.
    alike = rows[:24] @ rows[:24].T
    assert alike[0, 0] > alike[0, 1] > alike[0, 3]


def test_folded_weights_are_the_same_network():
    torch.manual_seed(0)
    shared = InterMTransformer(CONFIG).eval()
    share_levels(shared, LEVELS)
    with torch.no_grad():
        for layer in (shared.token_embedding, shared.output):
            layer.parametrizations.weight[0].shared.normal_()
    plain = InterMTransformer(CONFIG).eval()
    plain.load_state_dict(folded(shared.state_dict()))
    codes = torch.randint(25, (2, 2, 5, 3), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(shared(codes, None), plain(codes, None), atol=1e-5)


def test_what_one_code_learns_its_neighbours_learn_in_part():
    torch.manual_seed(0)
    net = InterMTransformer(CONFIG)
    share_levels(net, LEVELS)
    before = folded(net.state_dict())["output.weight"].clone()
    codes = torch.zeros(1, 2, 5, 2, dtype=torch.int64)
    loss = torch.nn.functional.cross_entropy(net(codes, None).flatten(0, -2), torch.full((20,), 7))
    loss.backward()
    with torch.no_grad():
        for p in net.parameters():
            if p.grad is not None:
                p -= 0.1 * p.grad
    moved = (folded(net.state_dict())["output.weight"] - before).norm(dim=1)
    # Code 7 is digits (3, 1, 0): 6 differs in one channel by one, 20 = (0, 2, 1) in all of them.
    assert moved[7] > moved[6] > 0
