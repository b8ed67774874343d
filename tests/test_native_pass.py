"""The transformer's pass in C++ against the modules it stands in for."""

import itertools
import os
import re
import shutil
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
NARROW = [kind for kind in ("int8", "bfloat16") if native.lacking(getattr(torch, kind)) is None]
KINDS = NARROW + ["float32"] * (native.lacking(torch.float32) is None)
pytestmark = pytest.mark.skipif(native._cpu is None or native.reference_only() or not KINDS,
                                reason="the C++ pass was not built, is not asked for, or the processor lacks AVX2")
needs_narrow = pytest.mark.skipif(not NARROW, reason=f"the processor lacks {native.lacking(torch.bfloat16)}")
needs_float32 = pytest.mark.skipif("float32" not in KINDS, reason=f"the processor lacks {native.lacking(torch.float32)}")
SHAPES = [(1, 1), (2, 7), (1, 14), (3, 33)]
WIDTHS = [(64, 4), (128, 4), (96, 2), (192, 3)]


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
    return int8_transformer(net) if kind == "int8" else narrowed(net, getattr(torch, kind))


def question(net, batch, columns):
    g = torch.Generator().manual_seed(batch * 100 + columns)
    codes = torch.randint(net.config.mask_id + 1, (batch, 2, 5, columns), generator=g)
    return codes, torch.randn(batch, net.config.condition, generator=g)


@pytest.fixture(scope="module", params=KINDS)
def pair(request):
    net = seeded()
    return net, native.NativeTransformer(narrow(net, request.param))


@needs_narrow
@pytest.mark.parametrize("kind", ["int8", "bfloat16"])
@pytest.mark.parametrize("width, heads", WIDTHS)
@pytest.mark.parametrize("batch, columns", SHAPES)
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


@needs_float32
@pytest.mark.parametrize("width, heads", WIDTHS)
@pytest.mark.parametrize("batch, columns", SHAPES)
def test_in_float32_it_answers_what_the_module_answers(width, heads, batch, columns):
    net = seeded(width, heads)
    codes, condition = question(net, batch, columns)
    with torch.inference_mode():
        true, made = net(codes, condition), native.NativeTransformer(net)(codes, condition)
    assert made.shape == true.shape and (made - true).abs().max() <= 1e-5 * true.abs().max()


@needs_float32
def test_in_float32_the_shipped_model_answers_alike(monkeypatch):
    monkeypatch.setenv("RTI_NATIVE", "0")
    net = rtinteract.load(device="cpu", precision="float32").pipeline.transformer
    fast = native.NativeTransformer(net)
    codes, condition = question(net, 2, 14)
    from rtinteract.placement import WIDTH
    placement = torch.randn(2, 2, 14, WIDTH, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        for given in ({}, {"placement": placement}, {"last": 4, "person": 1}):
            assert (fast(codes, condition, **given) - net(codes, condition, **given)).abs().max() < 1e-4


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


@pytest.mark.parametrize("kind", KINDS)
def test_placement_is_seen(kind):
    net = seeded(placement=True)
    fast = native.NativeTransformer(narrow(net, kind))
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
    dtype = torch.bfloat16 if NARROW else torch.float32
    assert "heads of 12" in native.why_not(CPU, TransformerConfig(width=72, heads=6, ff=96), dtype)
    assert native.why_not(torch.device("cuda"), TransformerConfig(), dtype)


def test_each_type_runs_where_its_instructions_are(monkeypatch):
    expected = {native.NARROW_FEATURES: ("bfloat16", "int8"), native.FLOAT32_FEATURES: ("float32",), (): (),
                native.NARROW_FEATURES + native.FLOAT32_FEATURES: ("bfloat16", "int8")}
    for features, kinds in expected.items():
        monkeypatch.setattr(native, "cpu_has_all", lambda names, features=features: set(names) <= set(features))
        assert kinds == tuple(kind for kind in ("bfloat16", "int8", "float32")
                              if native.why_not(CPU, TransformerConfig(), getattr(torch, kind)) is None)


def test_an_int8_model_runs_whatever_the_processor_has():
    fast = rtinteract.load(device="cpu", precision="int8").pipeline.transformer
    assert isinstance(fast, native.NativeTransformer) == bool(NARROW)
    true = rtinteract.load(device="cpu", precision="float32").transformer
    codes, condition = question(true, 1, 12)
    with torch.inference_mode():
        made, logits = fast(codes, condition), true(codes, condition)
    assert (made - logits).pow(2).mean().sqrt() < 0.1 * logits.std()


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
fast = native.NativeTransformer(narrow(net, sys.argv[2]))
codes, condition = question(net, 8, 12)
modulations = fast.modulate(condition)
expected = fast(codes, None, modulations=modulations)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(fast(codes, None, modulations=modulations), expected) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_has_threads_of_its_own():
    command = [sys.executable, "-c", FORKED, os.path.dirname(__file__), KINDS[0]]
    done = subprocess.run(command, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_models_run_through_it_unless_told_otherwise(monkeypatch):
    widest = NARROW[-1] if NARROW else "float32"
    kinds = {}
    for name, value in (("RTI_NATIVE", "1"), ("RTI_NATIVE", "0"), ("RTI_BACKEND", "reference")):
        monkeypatch.setenv(name, value)
        model = rtinteract.load(device="cpu", precision=widest)
        kinds[name, value] = isinstance(model.pipeline.transformer, native.NativeTransformer)
        monkeypatch.delenv(name)
    assert list(kinds.values()) == [True, False, False]
    apart = rtinteract.load(device="cpu", precision="float32").pipeline.transformer
    assert isinstance(apart, native.NativeTransformer) == (not NARROW)


def test_the_shipped_model_reacts_alike(monkeypatch):
    actor = walker(3.0)
    fast = rtinteract.load(device="cpu", precision=NARROW[-1] if NARROW else "float32")
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
def test_it_is_clean_under_sanitizers(lane, tmp_path):
    sources = sorted(p for p in (native_lanes.CSRC / "cpu").glob("*.cpp") if p.name != "bindings.cpp")
    program = (native_lanes.NATIVE / "pass.cpp").read_text().replace("../../csrc", str(native_lanes.CSRC))
    asked = "Weights::kInt8, Weights::kBfloat16"
    assert asked in program
    kinds = ", ".join(f"Weights::k{kind.capitalize()}" for kind in KINDS)
    (tmp_path / "pass.cpp").write_text(program.replace(asked, kinds))
    program = native_lanes.linked(lane, "pass", [*sources, tmp_path / "pass.cpp"])
    assert native_lanes.run(program).strip() == "ok"


@pytest.mark.skipif(not shutil.which("objdump"), reason="needs objdump")
def test_what_files_share_is_compiled_for_any_processor():
    wide = {}
    for name in ("avx2", "avx512", "transformer"):
        whole = native_lanes.linked("thread", f"{name}-alone", [native_lanes.CSRC / f"cpu/{name}.cpp"], "-r", "-nostdlib")
        listing = native_lanes.run("objdump", "-d", "--no-show-raw-insn", whole)
        functions = re.findall(r"section \.text\.(_Z\w+):\n(.*?)(?=\nDisassembly|\Z)", listing, re.S)
        wide[name] = {symbol: bool(re.search(r"\tv[a-z]", code)) for symbol, code in functions}
    assert any(wide["avx2"].values()) and any(wide["avx512"].values())
    for one, other in itertools.permutations(wide.values(), 2):
        assert not [symbol for symbol in one.keys() & other.keys() if one[symbol]]
