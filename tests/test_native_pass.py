"""The transformer's pass in C++ against the modules it stands in for."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import native_lanes
import numpy as np
import pytest
import torch
from synthetic import walker

import rtinteract
from rtinteract import native
from rtinteract.config import TransformerConfig
from rtinteract.precision import narrowed
from rtinteract.quant import int8_transformer
from rtinteract.transformer import InterMTransformer

CPU = torch.device("cpu")
REASON = native.why_not(CPU, TransformerConfig())
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"the C++ pass does not run here: {REASON}")


def seeded(width=128, heads=4, layers=2, codes=33, ff=96, placement=False):
    """A transformer whose modulations are not the zeros that training begins with."""
    torch.manual_seed(0)
    net = InterMTransformer(TransformerConfig(codes=codes, code_dim=24, width=width, heads=heads, layers=layers, ff=ff,
                                              condition=20, placement=placement))
    for name, weight in net.named_parameters():
        if "adaln" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return net.eval().requires_grad_(False)


def narrow(net, kind):
    return int8_transformer(net) if kind == "int8" else narrowed(net, torch.bfloat16)


def question(net, batch, columns):
    g = torch.Generator().manual_seed(batch * 100 + columns)
    codes = torch.randint(net.config.mask_id + 1, (batch, 2, 5, columns), generator=g)
    return codes, torch.randn(batch, net.config.condition, generator=g)


@pytest.fixture(scope="module", params=["int8", "bfloat16"])
def pair(request):
    net = seeded()
    return net, native.NativeTransformer(narrow(net, request.param))


@pytest.mark.parametrize("kind", ["int8", "bfloat16"])
@pytest.mark.parametrize("width, heads", [(64, 4), (128, 4), (96, 2), (192, 3)])
@pytest.mark.parametrize("batch, columns", [(1, 1), (2, 7), (1, 14), (3, 33)])
def test_it_is_as_near_to_float32_as_the_module_in_its_type(kind, width, heads, batch, columns):
    net = seeded(width, heads)
    plain = narrow(net, kind)
    codes, condition = question(net, batch, columns)
    with torch.inference_mode():
        true = net(codes, condition)
        module = plain(codes, condition.to(plain.condition.weight.dtype)).float()
        made = native.NativeTransformer(plain)(codes, condition)
    assert made.dtype == torch.float32 and made.shape == true.shape
    error = (made - true).pow(2).mean().sqrt()
    assert 0 < error <= 1.3 * (module - true).pow(2).mean().sqrt()


def test_wanted_logits_are_those_of_the_whole(pair):
    net, fast = pair
    codes, condition = question(net, 2, 12)
    whole = fast(codes, condition)
    for last, person in ((None, 0), (None, 1), (4, None), (1, 1), (12, 0)):
        some = fast(codes, condition, last=last, person=person)
        rows = whole if person is None else whole[:, person:person + 1]
        assert torch.equal(some, rows if last is None else rows[..., 12 - last:, :])


def test_rows_do_not_depend_on_threads_or_on_each_other(pair):
    net, fast = pair
    codes, condition = question(net, 40, 9)
    before = torch.get_num_threads()
    try:
        answers = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            answers.append(fast(codes, condition))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(answers[0], a) for a in answers[1:])
    for row in (0, 17, 39):
        modulations = fast.modulate(condition)[row:row + 1]
        assert torch.equal(fast(codes[row:row + 1], None, modulations=modulations), answers[0][row:row + 1])


def test_other_shapes_in_between_leave_nothing_behind(pair):
    net, fast = pair
    asked = [question(net, batch, columns) for batch, columns in ((1, 20), (2, 3), (1, 21), (3, 3))]
    first = [fast(*q) for q in asked]
    assert all(torch.isfinite(a).all() for a in first)
    again = [fast(*q) for q in reversed(asked)][::-1]
    assert all(map(torch.equal, first, again))


def test_padded_passes_are_the_modules_own(pair):
    net, fast = pair
    codes, condition = question(net, 2, 8)
    lengths = torch.tensor([8, 5])
    inner = condition.to(fast.plain.condition.weight.dtype)
    made, plain = fast(codes, condition, lengths), fast.plain(codes, inner, lengths)
    assert (made - plain).abs().max() <= 0.02 * plain.abs().max()


def test_placement_is_seen():
    net = seeded(placement=True)
    fast = native.NativeTransformer(narrow(net, "bfloat16"))
    codes, condition = question(net, 1, 6)
    from rtinteract.placement import WIDTH
    placement = torch.randn(1, 2, 6, WIDTH, generator=torch.Generator().manual_seed(3))
    true, made = net(codes, condition, placement=placement), fast(codes, condition, placement=placement)
    assert (made - true).abs().max() < 0.05 * true.abs().max()
    assert (made - fast(codes, condition)).abs().max() > 0.1 * true.abs().max()


def test_what_does_not_fit_is_refused(pair):
    net, fast = pair
    codes, condition = question(net, 1, 4)
    with pytest.raises(rtinteract.RtInteractError, match="codes"):
        fast(codes[:, :, :3], condition)
    with pytest.raises(ValueError, match="tokens"):
        fast(codes + 1000, condition)
    with pytest.raises(rtinteract.RtInteractError, match="condition"):
        fast(codes, condition[:, :3])
    config = TransformerConfig(width=72, heads=6, ff=96)
    assert "heads of 12" in native.why_not(CPU, config) and native.why_not(torch.device("cuda"), TransformerConfig())


def test_two_threads_at_once_get_their_own_answers(pair):
    net, fast = pair
    asked = [question(net, 2, columns) for columns in (5, 11)]
    expected = [fast(*q) for q in asked]

    def work(which):
        return all(torch.equal(fast(*asked[which]), expected[which]) for _ in range(15))

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, (0, 1, 0, 1)))


FORKED = """
import os, sys, torch
sys.path.insert(0, sys.argv[1])
from test_native_pass import narrow, question, seeded
from rtinteract import native
torch.set_num_threads(2)
net = seeded()
fast = native.NativeTransformer(narrow(net, "int8"))
codes, condition = question(net, 8, 12)
modulations = fast.modulate(condition)
expected = fast(codes, None, modulations=modulations)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(fast(codes, None, modulations=modulations), expected) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_has_threads_of_its_own():
    done = subprocess.run([sys.executable, "-c", FORKED, os.path.dirname(__file__)], timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_models_run_through_it_unless_told_otherwise(monkeypatch):
    kinds = {}
    for name, value in (("RTI_NATIVE", "1"), ("RTI_NATIVE", "0"), ("RTI_BACKEND", "reference")):
        monkeypatch.setenv(name, value)
        model = rtinteract.load(device="cpu", precision="bfloat16")
        kinds[name, value] = isinstance(model.pipeline.transformer, native.NativeTransformer)
        monkeypatch.delenv(name)
    assert list(kinds.values()) == [True, False, False]
    assert not isinstance(rtinteract.load(device="cpu", precision="float32").pipeline.transformer, native.NativeTransformer)


def test_the_shipped_model_reacts_alike(monkeypatch):
    actor = walker(3.0)
    fast = rtinteract.load(device="cpu", precision="bfloat16")
    monkeypatch.setenv("RTI_NATIVE", "0")
    slow = rtinteract.load(device="cpu", precision="float32")
    made = [m.react(actor, text="two people shake hands", iterations=1, temperature=0.0) for m in (fast, slow)]
    assert np.abs(made[0].positions - made[1].positions).mean() < 0.05
    codes = torch.randint(1000, (2, 2, 5, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = [m.pipeline.transformer(codes, None).float() for m in (fast, slow)]
    assert (logits[0].argmax(-1) == logits[1].argmax(-1)).float().mean() > 0.95


LONG = pytest.mark.skipif(os.environ.get("RTI_LONG_TESTS") != "1", reason="compiles for a minute; set RTI_LONG_TESTS=1")


@pytest.mark.parametrize("lane", [pytest.param("address", marks=LONG), "thread"])
def test_it_is_clean_under_sanitizers(lane):
    sources = sorted(p for p in (native_lanes.CSRC / "cpu").glob("*.cpp") if p.name != "bindings.cpp")
    program = native_lanes.linked(lane, "pass", [*sources, native_lanes.NATIVE / "pass.cpp"])
    assert native_lanes.run(program).strip() == "ok"
