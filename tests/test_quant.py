"""int8: weights in the file and at work, products of the CPU, and how near the quantised model is."""

import numpy as np
import pytest
import torch
from rtinteract.kernels import attention, backend
from rtinteract.kernels import linear as ops
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from synthetic import meeting, walker

import rtinteract
from rtinteract import agreement, quant
from rtinteract.checkpoint import load_model, save_model
from rtinteract.errors import CheckpointError, ConfigError

CPU = torch.device("cpu")
needs_int8 = pytest.mark.skipif(not backend.cpu_has(backend.INT8_FEATURES), reason="needs a CPU that sums int8 products in int32")


@pytest.fixture(scope="module")
def int8_path(small_model_path, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "model.safetensors"
    save_model(path, load_model(small_model_path), dtype=torch.int8)
    return path


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (6, 4, 3, 3)])
def test_restored_weights_quantise_to_the_same_integers(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    whole, step = quant.quantized(weight)
    back = quant.restored(whole, step)
    assert whole.dtype == torch.int8 and step.shape == shape[:1]
    assert ((back - weight).abs() <= 0.5001 * step.view(-1, *[1] * (len(shape) - 1))).all()
    again, same_step = quant.quantized(back)
    assert torch.equal(again, whole)
    torch.testing.assert_close(same_step, step, rtol=1e-6, atol=0)


@needs_int8
@pytest.mark.parametrize("batch,length,inward,outward", [(1, 1, 1, 1), (2, 7, 33, 5), (1, 64, 128, 96), (2, 31, 1024, 40),
                                                         (2, 27, 16, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_of_the_cpu_are_the_references(batch, length, inward, outward, bias, monkeypatch):
    g = torch.Generator().manual_seed(inward)

    def draw(*shape):
        return torch.randn(*shape, generator=g)
    x, weight, b = draw(batch, length, inward), draw(outward, inward), draw(outward) if bias else None
    x[0, 0] = 0
    whole, step = quant.quantized(weight)
    shift, scale, gate = draw(batch, 1, inward), 1 + draw(batch, 1, inward), draw(batch, 1, outward)
    residual = draw(batch, length, outward)
    # The last shape goes a block of rows at a time, the last block shorter.
    monkeypatch.setattr(ops, "_CACHED_ROWS", 10 if length == 27 else 400)
    taken = []
    product = torch._int_mm
    monkeypatch.setattr(torch, "_int_mm", lambda *a: taken.append(1) or product(*a))

    def all_three():
        return (ops.modulated_linear(x, shift, scale, whole, b, step), ops.linear_gelu(x, whole, b, step, shift, scale),
                ops.linear_gelu(x, whole, b, step), ops.linear_residual(x, gate, residual, whole, b, step))
    fast = all_three()
    assert len(taken) == 4 * (6 if length == 27 else 1)
    monkeypatch.setenv("RTI_BACKEND", "reference")
    for near, true in zip(fast, all_three(), strict=True):
        # What may differ is a value that rounds to the next integer.
        assert ((near - true).abs() > 1e-4 * true.abs().max() + 1e-6).float().mean() < 0.02
        assert (near - true).abs().max() <= true.abs().max() * inward ** 0.5 / 100 + 1e-5
    assert len(taken) == 4 * (6 if length == 27 else 1)


def test_a_processor_without_int8_sums_takes_the_reference(monkeypatch):
    whole, step = quant.quantized(torch.randn(4, 8))
    x = torch.randn(1, 3, 8)
    monkeypatch.setattr(backend, "_sums_int8", lambda: False)
    monkeypatch.setattr(torch, "_int_mm", None)
    zeros = torch.zeros(1, 1, 8)
    torch.testing.assert_close(ops.modulated_linear(x, zeros, zeros + 1, whole, None, step),
                               ops.modulated_reference(x, zeros, zeros + 1, whole, None, step))


@pytest.mark.parametrize("padded", [False, True])
def test_attention_a_head_at_a_time_is_attention(padded, monkeypatch):
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 20, 8, generator=g).transpose(1, 2).contiguous().transpose(1, 2) for _ in range(3))
    lengths = torch.tensor([20, 7]) if padded else None
    with torch.inference_mode():
        whole = attention.attention(q, k, v, lengths)
        monkeypatch.setattr(attention, "_IN_CACHE", 500)
        calls, products = [], attention._products
        monkeypatch.setattr(attention, "_products", lambda *a: calls.append(1) or products(*a))
        torch.testing.assert_close(attention.attention(q, k, v, lengths), whole)
    assert len(calls) == 6


def test_the_file_is_a_quarter_says_so_and_loads_in_every_precision(small_model_path, int8_path):
    full, small = load_model(small_model_path), load_model(int8_path)
    assert (full.config.precision, small.config.precision) == ("float32", "int8")
    for name, module in full.modules().items():
        for key, tensor in module.state_dict().items():
            near = small.modules()[name].state_dict()[key]
            exact = name == "normalizer" or key.startswith("quantizer.") or tensor.dim() < 2
            assert torch.equal(near, tensor) if exact else (near - tensor).abs().max() <= tensor.abs().max() / 250, (name, key)
    for precision in ("float32", "bfloat16", "int8"):
        model = rtinteract.load(int8_path, device="cpu", precision=precision)
        assert model.pipeline.transformer.output.weight.dtype == rtinteract.precision.PRECISIONS[precision]
        assert np.isfinite(model.react(walker(1.0), iterations=2).positions).all()


def test_large_weights_take_less_than_a_third():
    from rtinteract.checkpoint import _tensors, build
    from rtinteract.config import ModelConfig, TextConfig, TransformerConfig
    parts = build(ModelConfig(text=TextConfig(kind="bpe", vocabulary=800), transformer=TransformerConfig(layers=2)))
    sizes = [sum(t.numel() * t.element_size() for t in _tensors(parts, dtype).values()) for dtype in (None, torch.int8)]
    assert sizes[1] <= 0.30 * sizes[0]


@pytest.mark.parametrize("change, message", [
    (lambda t, key: {k: v for k, v in t.items() if k != key + ".step"}, "got none"),
    (lambda t, key: t | {key + ".step": t[key + ".step"][:2].clone()}, r"float32 \[2\]"),
    (lambda t, key: t | {key + ".step": t[key + ".step"].double()}, "float64"),
    (lambda t, key: t | {key + ".step": t[key + ".step"] * float("nan")}, "NaN"),
    (lambda t, key: t | {"transformer.output.bias.step": torch.ones(32)}, "unexpected 1"),
])
def test_steps_that_do_not_fit_are_told(int8_path, tmp_path, change, message):
    tensors = load_file(int8_path)
    with safe_open(int8_path, "pt") as file:
        metadata = file.metadata()
    save_file(change(tensors, "transformer.output.weight"), tmp_path / "bad.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "bad.safetensors")


def test_int8_and_float_answer_alike_whatever_the_path(small_model_path, monkeypatch):
    full = rtinteract.load(small_model_path, device="cpu", precision="float32")
    small = rtinteract.load(small_model_path, device="cpu", precision="int8")
    codes = torch.randint(33, (2, 2, 5, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        true = full.pipeline.transformer(codes, None)
        near = small.pipeline.transformer(codes, None)
        monkeypatch.setenv("RTI_BACKEND", "reference")
        plain = small.pipeline.transformer(codes, None)
    spread = true.std()
    assert 0 < (near - true).abs().max() < 0.1 * spread and (plain - true).abs().max() < 0.1 * spread
    assert full.transformer.output.weight.dtype == small.transformer.output.weight.dtype == torch.float32


def test_streams_run_in_int8_recorded_or_not(int8_path, monkeypatch):
    made = []
    for flag in ("0", "1"):
        monkeypatch.setenv("RTI_NO_GRAPH", flag)
        stream = rtinteract.load(int8_path, device="cpu", precision="int8").stream(iterations=2, window=16, start=walker(0.2))
        made.append(stream.push(walker(2.0))[-1].reactor.positions)
    assert np.isfinite(made).all() and np.abs(made[0] - made[1]).max() < 0.05


def test_a_model_agrees_with_itself_and_less_with_another(small_model_path):
    full = rtinteract.load(small_model_path, device="cpu", precision="float32")
    pairs = [meeting(1.0)]
    own = agreement.agreement(full, full, pairs)
    assert own["codes"]["top1"] == 1 and abs(own["codes"]["kl"]) < 1e-6 and own["faithful"]
    assert own["reconstruction"]["difference_mm"] == own["reaction"]["distance_difference_m"] == 0
    parts = load_model(small_model_path)
    torch.nn.init.normal_(parts.transformer.output.weight)
    other = rtinteract.model.Model(parts)
    found = agreement.agreement(full, other, pairs)
    assert found["codes"]["top1"] < 0.9 and found["codes"]["kl"] > 0.01 and not found["faithful"]
    with pytest.raises(ConfigError, match="at least one pair"):
        agreement.agreement(full, full, [])
    with pytest.raises(ConfigError, match="longer clips"):
        agreement.agreement(full, full, [tuple(m[:2] for m in meeting(1.0))])
