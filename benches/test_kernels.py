"""Each operation of `rtinteract.kernels` at the published sizes: against its plain reference, and against torch's best.

On a GPU the Triton kernels are timed; on a CPU, what takes their place there. What is timed is first compared with the reference.
"""

import pytest
import torch
import torch.nn.functional as F
from measured import DEVICE, note, peak_memory, seconds, synced
from rtinteract.kernels import attention, convolution, linear, nearest_code, remask, spatio_temporal

ROWS, COLUMNS, WIDTH, HIDDEN, HEADS, CODES = 2, 75, 384, 1024, 6, 1024
TOKENS = 10 * COLUMNS + 1
ROUNDS = 10


def draw(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(DEVICE, dtype)


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """On a GPU the kernels are taken; a CPU needs no word."""
    if DEVICE.type == "cuda":
        monkeypatch.setenv("RTI_BACKEND", "triton")


def timed(benchmark, dtype, ours, reference, best, *, flops, moved, within):
    """Compare, time, note: ``within`` is the largest difference from the reference, as a share of its spread."""
    with torch.inference_mode():
        true = reference()
        assert (ours().float() - true.float()).abs().max() <= within * true.float().std()
        peak = peak_memory(ours)
        benchmark.pedantic(synced(ours), rounds=ROUNDS, warmup_rounds=2)
        note(benchmark, dtype, eager_s=seconds(reference, 3), flops=flops, moved=moved, peak_bytes=peak,
             best_ms=1e3 * seconds(best, ROUNDS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("kind", ["modulated", "gelu", "residual"])
def test_linear(benchmark, kind, dtype):
    inward, outward = {"modulated": (WIDTH, 3 * WIDTH), "gelu": (WIDTH, HIDDEN), "residual": (HIDDEN, WIDTH)}[kind]
    values = torch.float32 if dtype == torch.int8 else dtype
    x, bias = draw(ROWS, TOKENS, inward, dtype=values), draw(outward, dtype=values)
    plain = draw(outward, inward) / inward ** 0.5
    shift, scale, gate = (draw(ROWS, 1, n, dtype=values) for n in (inward, inward, outward))
    residual = draw(ROWS, TOKENS, outward, dtype=values)
    weight, step = plain.to(values), None
    if dtype == torch.int8:
        weight, step = linear.quantize_rows(plain)
        step = step[:, 0]
    run = {"modulated": lambda f: f(x, shift, scale, weight, bias, step), "gelu": lambda f: f(x, weight, bias, step),
           "residual": lambda f: f(x, gate, residual, weight, bias, step)}[kind]
    ours, reference = {"modulated": (linear.modulated_linear, linear.modulated_reference),
                       "gelu": (linear.linear_gelu, linear.gelu_reference),
                       "residual": (linear.linear_residual, linear.residual_reference)}[kind]
    # torch's best has no int8 beside it: the bare product in bfloat16.
    bare = x.bfloat16(), plain.bfloat16(), bias.bfloat16()
    size = torch.finfo(values).bits // 8
    timed(benchmark, dtype, lambda: run(ours), lambda: run(reference), lambda: F.linear(*bare),
          flops=2.0 * ROWS * TOKENS * inward * outward, within=0.1 if dtype == torch.bfloat16 else 0.05,
          moved=ROWS * TOKENS * (inward + outward) * size + plain.numel() * (1 if dtype == torch.int8 else size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("keys", [TOKENS, 5 * COLUMNS, COLUMNS])
def test_attention(benchmark, keys, dtype):
    """All tokens of a pair, one person's, one part's: as many tokens in each case."""
    batch = ROWS * (TOKENS // keys)
    q, k, v = (draw(batch, keys, HEADS, WIDTH // HEADS, dtype=dtype).transpose(1, 2) for _ in range(3))
    timed(benchmark, dtype, lambda: attention.attention(q, k, v), lambda: attention.attention_reference(q, k, v),
          lambda: F.scaled_dot_product_attention(q, k, v), flops=4.0 * batch * keys * keys * WIDTH,
          moved=4 * batch * keys * WIDTH * q.element_size(), within=0.1 if dtype == torch.bfloat16 else 1e-3)


def test_nearest_code(benchmark):
    x, codebook = draw(2 * 5 * COLUMNS, 512), draw(CODES, 512)
    with torch.inference_mode():
        true = nearest_code.nearest_code_reference(x, codebook)
        assert (nearest_code.nearest_code(x, codebook) == true).float().mean() > 0.999
        benchmark.pedantic(synced(lambda: nearest_code.nearest_code(x, codebook)), rounds=ROUNDS, warmup_rounds=2)
        note(benchmark, torch.float32, eager_s=seconds(lambda: nearest_code.nearest_code_reference(x, codebook), ROUNDS),
             flops=2.0 * len(x) * CODES * 512, moved=4 * (x.numel() + codebook.numel()),
             best_ms=1e3 * seconds(lambda: torch.cdist(x, codebook).argmin(-1), ROUNDS))


def test_draw_and_remask(benchmark):
    cond, uncond = draw(1, 2, 5, COLUMNS, CODES), draw(1, 2, 5, COLUMNS, CODES) / 2
    streams = remask.token_streams(torch.tensor([3], device=DEVICE), 1, 5, COLUMNS)[0]
    count = torch.tensor([5 * COLUMNS], device=DEVICE)

    def ours():
        codes, scores = remask.draw(cond, uncond, scale=2.0, count=102, temperature=1.0, streams=streams)
        return codes, scores, remask.remask(scores.flatten(1), count)

    with torch.inference_mode():
        codes, scores, mask = ours()
        assert int(mask.sum()) == int(count) and 0 <= int(codes.min()) and int(codes.max()) < CODES
        guided = (uncond + 2.0 * (cond - uncond)).softmax(-1).gather(-1, codes[..., None])[..., 0]
        torch.testing.assert_close(scores, guided, rtol=1e-3, atol=1e-5)
        benchmark.pedantic(synced(ours), rounds=ROUNDS, warmup_rounds=2)
        best = seconds(lambda: torch.multinomial((2 * cond - uncond).flatten(0, -2).softmax(-1), 1), ROUNDS)
        note(benchmark, torch.float32, moved=8 * cond.numel(), best_ms=1e3 * best)


@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a GPU: on a CPU the branches run layer by layer (test_linear, "
                    "test_attention)")
def test_spatio_temporal(benchmark):
    dtype = torch.bfloat16
    x = draw(ROWS, TOKENS - 1, WIDTH, dtype=dtype)
    layers = (draw(3 * WIDTH, WIDTH, dtype=dtype) / WIDTH ** 0.5, draw(3 * WIDTH, dtype=dtype),
              draw(WIDTH, WIDTH, dtype=dtype) / WIDTH ** 0.5, draw(WIDTH, dtype=dtype))
    branch = spatio_temporal.Branch(*(draw(ROWS, 1, WIDTH, dtype=dtype) for _ in range(3)), *layers)
    given = x, branch, branch, HEADS, 5, COLUMNS
    timed(benchmark, dtype, lambda: spatio_temporal.spatio_temporal(*given),
          lambda: spatio_temporal.spatio_temporal_reference(*given),
          lambda: spatio_temporal.spatio_temporal_reference(*given), within=0.1,
          flops=2.0 * x.shape[0] * x.shape[1] * WIDTH * (8 * WIDTH + 2 * (5 + COLUMNS)), moved=19 * x.numel() * 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=["float32", "bfloat16", "int8"])
def test_convolution(benchmark, dtype):
    """The codec's widest layer at its middle resolution: 11 rows of 512 channels, 300 frames at half the rate."""
    if dtype == torch.int8 and DEVICE.type != "cuda":
        pytest.skip("on a CPU the codec's convolutions run in a float type")
    values = torch.bfloat16 if dtype == torch.int8 else dtype
    x = draw(1, 512, 11, 2 * COLUMNS, dtype=values).to(memory_format=torch.channels_last)
    plain, bias = draw(512, 512, 3, 3) / 512 ** 0.5, draw(512, dtype=values)
    weight, step = (convolution.quantize_kernels(plain) if dtype == torch.int8 else (plain.to(values), None))
    weight = weight.contiguous(memory_format=torch.channels_last)
    bare = plain.to(values).contiguous(memory_format=torch.channels_last)
    given = {"padding": (1, 1), "relu_in": True, "weight_scale": step}
    timed(benchmark, dtype, lambda: convolution.convolution(x, weight, bias, **given),
          lambda: convolution.convolution_reference(x, weight, bias, **given),
          lambda: F.conv2d(F.relu(x), bare, bias, padding=1), within=0.1 if values == torch.bfloat16 else 1e-3,
          flops=2.0 * 11 * 2 * COLUMNS * 512 * 512 * 9,
          moved=2 * x.numel() * x.element_size() + weight.numel() * weight.element_size())
