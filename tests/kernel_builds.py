"""Compile every kernel for GPUs that are not here, and tell what each build takes: `python kernel_builds.py` prints JSON.

Runs in a process of its own: the suite interprets kernels, and a kernel that is interpreted cannot be compiled.
"""

import json
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import triton
from rtinteract.kernels import attention, convolution, linear, nearest_code, remask, spatio_temporal
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

TARGETS = {f"sm_{arch}": GPUTarget("cuda", arch, 32) for arch in (80, 89, 90, 100)} | {"gfx942": GPUTarget("hip", "gfx942", 64)}


def _draw(**options):
    flags = {"GUIDED": True, "NOISE": True, "GIVEN": False, "FILTER": True, "BLOCK": 1024} | options
    types = dict(p_cond="*fp32", p_uncond="*fp32", p_streams="*i64", p_noise="*fp32", p_codes="*i64", p_scores="*fp32",
                 codes="i32", count="i32", scale="fp32", temperature="fp32", stride_cond="i32", stride_uncond="i32",
                 stride_noise="i32")
    return remask._draw_kernel, types, flags, 4 if flags["BLOCK"] <= 1024 else 8


def _remask(block):
    types = dict(p_scores="*fp32", p_count="*i64", p_mask="*i1", tokens="i32", stride_scores="i32", stride_mask="i32")
    return remask._remask_kernel, types, {"BLOCK": block}, 4


def _nearest(noise):
    types = dict(p_x="*fp32", p_codes="*fp32", p_noise="*fp32", p_ids="*i64", rows="i32", codes="i32", dim="i32", stride_x="i32",
                 stride_codes="i32", stride_noise="i32", over_temperature="fp32")
    return nearest_code._nearest_code_kernel, types, {"NOISE": noise, "BLOCK_R": 32, "BLOCK_K": 32, "BLOCK_D": 16}, 8


def _attention(head, block_q, block_k, dtype="bf16", padded=True):
    strides = [f"{t}_{axis}" for t in "qkvo" for axis in "bhl"]
    types = dict(p_q=f"*{dtype}", p_k=f"*{dtype}", p_v=f"*{dtype}", p_out=f"*{dtype}", p_lengths="*i64", queries="i32",
                 keys="i32", columns="i32", always="i32", scale="fp32") | dict.fromkeys(strides, "i32") | {"heads": "i32"}
    wide = max(16, triton.next_power_of_2(head))
    return attention._attention_kernel, types, {"HEAD": head, "PADDED": padded, "BLOCK_D": wide, "BLOCK_Q": block_q,
                                                "BLOCK_K": block_k}, 4


def _linear(dtype="bf16", int8=False, **options):
    flags = dict(MODULATE=False, BIAS=True, INT8=int8, GELU=False, RESIDUAL=False) | options
    sides = dict.fromkeys(("p_shift", "p_scale", "p_gate", "p_residual", "p_out"), f"*{dtype}")
    sizes = ("rows", "dim", "outputs", "length")
    strides = [f"stride_{s}" for s in ("x", "w", "side", "gate", "residual", "out")]
    types = dict(p_x=f"*{dtype}", p_weight="*i8" if int8 else f"*{dtype}", p_bias=f"*{dtype}", p_weight_scale="*fp32") | sides
    types |= dict.fromkeys(sizes, "i32") | {"eps": "fp32"} | dict.fromkeys(strides, "i32")
    return linear._linear_kernel, types, flags | {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32}, 8


def _convolution(kernel, dtype="bf16", int8=False, **options):
    flags = dict(STRIDE_H=1, STRIDE_W=1, PAD_H=1, PAD_W=1, DILATION_H=1, DILATION_W=1, KERNEL_H=kernel, KERNEL_W=kernel,
                 RELU_IN=True, RELU_OUT=True, BIAS=True, RESIDUAL=False, INT8=int8, BLOCK_M=64, BLOCK_N=32, BLOCK_K=32) | options
    types = dict(p_x=f"*{dtype}", p_weight="*i8" if int8 else f"*{dtype}", p_bias=f"*{dtype}", p_x_scale="*fp32",
                 p_weight_scale="*fp32", p_residual=f"*{dtype}", p_out=f"*{dtype}")
    sizes = ["pixels", "channels", "outputs", "height", "width", "out_height", "out_width"]
    strides = [f"{t}_{axis}" for t, axes in (("x", "bchw"), ("w", "ocij"), ("r", "bchw"), ("o", "bchw")) for axis in axes]
    return convolution._convolution_kernel, types | dict.fromkeys(sizes + strides, "i32"), flags, 4


def _spatio_temporal(step, width=384, head=64, block=32, dtype="bf16"):
    value, sizes = f"*{dtype}", {"rows": "i32", "tokens": "i32", "stride_b": "i32", "stride_l": "i32"}
    layers = [f"p_{name}_{branch}" for branch in "st" for name in ("shift", "scale", "w", "b")]
    blocks = {"WIDTH": width, "BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32}
    if step == "project":
        types = dict.fromkeys(["p_x", *layers, "p_out"], value) | sizes | {"stride_side": "i32", "eps": "fp32"}
        return spatio_temporal._project_kernel, types, blocks, 8
    if step == "close":
        layers = [f"p_{name}_{branch}" for branch in "st" for name in ("gate", "w", "b")]
        return spatio_temporal._close_kernel, dict.fromkeys(["p_mixed", "p_x", *layers, "p_out"], value) | sizes | {
            "stride_gate": "i32"}, blocks, 8
    types = dict(p_qkv=value, p_lengths="*i64", p_out=value, columns="i32", temporal_programs="i32", blocks="i32", scale="fp32")
    return spatio_temporal._mix_kernel, types, {"WIDTH": width, "HEAD": head, "PARTS": 5, "PADDED": True, "BLOCK_D": head,
                                                "BLOCK_Q": block, "BLOCK_K": block}, 4


BUILDS = {
    "draw guided": _draw(),
    "draw guided 2048": _draw(BLOCK=2048),
    "draw given noise": _draw(GUIDED=False, GIVEN=True),
    "draw unfiltered": _draw(FILTER=False),
    "draw greedy": _draw(GUIDED=False, NOISE=False, FILTER=False),
    "remask 256": _remask(256),
    "remask 1024": _remask(1024),
    "attention 64": _attention(64, 64, 64),
    "attention 64 unpadded": _attention(64, 64, 64, padded=False),
    "attention 32": _attention(32, 64, 64),
    "attention 48": _attention(48, 64, 64),
    "attention 64 columns": _attention(64, 32, 32),
    "attention 64 float32": _attention(64, 32, 32, "fp32"),
    "modulated linear": _linear(MODULATE=True),
    "modulated linear int8": _linear(int8=True, MODULATE=True),
    "modulated linear float32": _linear("fp32", MODULATE=True),
    "linear gelu": _linear(GELU=True),
    "linear gelu int8": _linear(int8=True, GELU=True),
    "linear residual": _linear(RESIDUAL=True),
    "linear residual int8": _linear(int8=True, RESIDUAL=True),
    "spatio-temporal project": _spatio_temporal("project"),
    "spatio-temporal mix": _spatio_temporal("mix"),
    "spatio-temporal mix 128/32": _spatio_temporal("mix", 128, 32),
    "spatio-temporal close": _spatio_temporal("close"),
    "convolution 3x3": _convolution(3),
    "convolution 3x3 dilated": _convolution(3, PAD_H=3, PAD_W=3, DILATION_H=3, DILATION_W=3),
    "convolution 4x4 down": _convolution(4, STRIDE_H=2, STRIDE_W=2, RELU_IN=False, RELU_OUT=False),
    "convolution 1x1 residual": _convolution(1, PAD_H=0, PAD_W=0, RELU_IN=False, RELU_OUT=False, RESIDUAL=True),
    "convolution 3x3 int8": _convolution(3, int8=True),
    "convolution 3x3 float32": _convolution(3, "fp32", BLOCK_K=16),
    "nearest code": _nearest(False),
    "nearest code drawn": _nearest(True),
}


def _spills(kernel) -> int:
    """Bytes (CUDA) or vector registers (ROCm) that did not fit the register file."""
    if "amdgcn" in kernel.asm:
        return sum(int(n) for n in re.findall(r"\.vgpr_spill_count:\s+(\d+)", kernel.asm["amdgcn"]))
    arch = re.search(r"\.target (sm_\w+)", kernel.asm["ptx"])[1]
    tool = get_ptxas(int(re.search(r"\d+", arch)[0])).path
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(kernel.asm["ptx"])
        told = subprocess.run([tool, "-v", f"--gpu-name={arch}", source, "-o", Path(folder) / "kernel.cubin"], check=True,
                              capture_output=True, text=True)
    stores, loads = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", told.stderr + told.stdout).groups()
    return int(stores) + int(loads)


def build(name: str, target: str) -> dict:
    """Shared memory in bytes and spills of one build."""
    function, types, constants, warps = BUILDS[name]
    signature = types | dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=function, signature=signature, constexprs=constants)
    kernel = triton.compile(source, target=TARGETS[target], options={"num_warps": warps})
    return {"shared": kernel.metadata.shared, "spills": _spills(kernel)}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    json.dump({"triton": triton.__version__, "builds": {name: {t: build(name, t) for t in TARGETS} for name in BUILDS}},
              sys.stdout, indent=1)
