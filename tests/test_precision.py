"""The number type that the networks run in: chosen, told, and near enough to float32."""

import numpy as np
import pytest
import torch
from synthetic import walker

import rtinteract
from rtinteract import precision
from rtinteract.errors import ConfigError
from rtinteract.stream import shown

CPU = torch.device("cpu")


def test_auto_takes_what_the_processor_is_fast_at(monkeypatch):
    for flags, dtype in (({}, torch.float32), ({"avx2": True}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16),
                         ({"amx_bf16": True}, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        assert precision.choose("auto", CPU)[0] == dtype
        assert precision.choose("float32", CPU)[0] == torch.float32
    with pytest.raises(ConfigError, match="bfloat16"):
        precision.choose("int4", CPU)


def test_a_wide_transformer_takes_int8_where_the_processor_sums_it(monkeypatch):
    for flags, dtype in (({}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16), ({"avx512_vnni": True}, torch.int8),
                         ({"avx512_bf16": True, "avx512_vnni": True}, torch.int8)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        assert precision.choose("auto", CPU, precision.INT8_WIDTH)[0] == dtype
        assert precision.choose("auto", CPU, 128)[0] != torch.int8
    assert precision.choose("int8", CPU)[0] == torch.int8
    monkeypatch.setenv("RTI_BACKEND", "reference")
    assert precision.choose("auto", CPU, precision.INT8_WIDTH)[0] == precision.beside_int8(CPU) == torch.float32


def test_the_environment_can_ask_for_the_plain_path(monkeypatch, small_model_path):
    monkeypatch.setenv("RTI_BACKEND", "reference")
    assert precision.choose("auto", CPU)[0] == torch.float32 and precision.choose("bfloat16", CPU)[0] == torch.bfloat16
    fused = []
    plain = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention",
                        lambda *a, **k: fused.append(1) or plain(*a, **k))
    model = rtinteract.load(small_model_path, device="cpu")
    asked = model.react(walker(1.0), iterations=2)
    assert fused
    monkeypatch.delenv("RTI_BACKEND")
    fast = rtinteract.load(small_model_path, device="cpu", precision="float32").react(walker(1.0), iterations=2)
    assert np.abs(asked.positions - fast.positions).max() < 1e-3


def test_a_narrowed_net_is_a_copy_with_what_is_kept_as_it_was():
    net = torch.nn.ModuleDict({"body": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 2)})
    assert precision.narrowed(net, torch.float32) is net
    narrow = precision.narrowed(net, torch.bfloat16)
    assert narrow["body"].weight.dtype == torch.bfloat16 and net["body"].weight.dtype == torch.float32


def test_bfloat16_reconstructs_streams_and_reacts_like_float32(small_model_path):
    full, narrow = (rtinteract.load(small_model_path, device="cpu", precision=p) for p in ("float32", "bfloat16"))
    actor = walker(3.0)
    pair = full.pipeline, narrow.pipeline
    assert [p.transformer.output.weight.dtype for p in pair] == [torch.float32, torch.bfloat16]
    assert narrow.transformer.output.weight.dtype == torch.float32
    codes = torch.randint(33, (2, 2, 5, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = [p.transformer(codes, None).float() for p in pair]
        images = [p.decode_image(codes[:, 0].clamp(max=31)) for p in pair]
    spread = logits[0].std()
    assert (logits[0] - logits[1]).abs().max() < 0.1 * spread and not torch.equal(*logits)
    assert (images[0] - images[1]).abs().max() < 0.01
    for model in (full, narrow):
        made = [shown(model.stream(iterations=2).push(actor), 4), model.react(actor, iterations=2)]
        assert all(np.isfinite(m.positions).all() for m in made)


def test_a_single_column_is_decoded_whole_in_bfloat16(small_model_path):
    pipeline = rtinteract.load(small_model_path, device="cpu", precision="bfloat16").pipeline
    for columns in (1, 2, 7, 8):
        assert torch.isfinite(pipeline.decode_image(torch.zeros(1, 5, columns, dtype=torch.int64))).all()
