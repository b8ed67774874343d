"""On a GPU machine: check every kernel against its reference, then tune block sizes into `kernels/blocks.py`.

    python benches/gpu.py

`rtinteract bench --gpu` runs this and then times everything and writes the history. Nothing is timed on a red check.
`--check` and `--tune` do one of the two.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pprint
import re
import subprocess
import sys
from pathlib import Path

import torch
from measured import seconds
from rtinteract.kernels import attention, blocks, linear
from rtinteract.kernels.convolution import convolution
from rtinteract.kernels.spatio_temporal import Branch, spatio_temporal, spatio_temporal_reference

from rtinteract.motion.atomic import replacing

ROOT = Path(__file__).resolve().parents[1]
CHOICES = {
    "linear": {"BLOCK_M": (32, 64, 128), "BLOCK_N": (64, 128), "BLOCK_K": (32, 64), "num_warps": (4, 8)},
    "attention": {"BLOCK_Q": (32, 64, 128), "BLOCK_K": (32, 64, 128), "num_warps": (4, 8)},
    "spatio_temporal": {"BLOCK_M": (32, 64, 128), "BLOCK_N": (64, 128), "BLOCK_K": (32, 64), "num_warps": (4, 8)},
    "convolution": {"BLOCK_M": (32, 64, 128), "BLOCK_N": (32, 64, 128), "BLOCK_K": (32, 64), "num_warps": (4, 8)},
}


def check() -> None:
    """The kernels' suites on this device; ends the program where one fails."""
    suites = sorted(str(p) for p in (ROOT / "tests").glob("test_*_kernel.py"))
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"RTI_BACKEND": "triton"}
    if subprocess.run([sys.executable, "-m", "pytest", "-q", *suites], cwd=ROOT, env=env).returncode:
        sys.exit("gpu.py: a kernel does not agree with its reference; nothing was tuned or timed")


def cases(device: torch.device) -> dict:
    """One run of each tuned operation at the published sizes."""
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g).to(device, torch.bfloat16)
    x, weight, bias, side = draw(2, 751, 384), draw(1152, 384), draw(1152), draw(2, 1, 384)
    q, k, v = (draw(2, 6, 751, 64) for _ in range(3))
    people, branch = x[:, :-1], Branch(side, side, side, weight, bias, draw(384, 384), draw(384))
    fused = spatio_temporal if device.type == "cuda" else spatio_temporal_reference
    image, window = draw(1, 512, 11, 150).to(memory_format=torch.channels_last), draw(512, 512, 3, 3)
    return {"linear": lambda: linear.modulated_linear(x, side, side, weight, bias),
            "attention": lambda: attention.attention(q, k, v),
            "spatio_temporal": lambda: fused(people, branch, branch, 6, 5, 75),
            "convolution": lambda: convolution(image, window, padding=(1, 1), relu_in=True)}


def fastest(operation: str, run, kind: str, measure=lambda run: seconds(run, 50)) -> dict[str, int]:
    """The choice of block sizes with which ``run`` takes least; one that does not fit the GPU is passed over."""
    grid, found = CHOICES[operation], {}
    before = blocks.TABLE.get(kind)
    for values in itertools.product(*grid.values()):
        blocks.TABLE[kind] = (before or {}) | {operation: dict(zip(grid, values, strict=True))}
        try:
            found[values] = measure(run)
        except RuntimeError as error:
            print(f"{operation} {values}: passed over ({str(error).splitlines()[0]})")
    if before is None:
        del blocks.TABLE[kind]
    else:
        blocks.TABLE[kind] = before
    return dict(zip(grid, min(found, key=found.get), strict=True))


def write_table(table: dict, path: Path = ROOT / "kernels" / "blocks.py") -> None:
    """Put a table of block sizes into the source in place of the one that is there."""
    source = path.read_text(encoding="utf-8")
    made = f"TABLE = {pprint.pformat(table, width=120)}\n"
    fresh, count = re.subn(r"^TABLE = \{.*?\}\n(?=\n)", lambda _: made, source, count=1, flags=re.MULTILINE | re.DOTALL)
    if count != 1:
        sys.exit(f"gpu.py: expected one TABLE in {path}, got none; the table was not written")
    with replacing(path) as place:
        place.write_text(fresh, encoding="utf-8")


def tune() -> None:
    """Measure every choice of block sizes on this GPU and write the best ones down."""
    os.environ["RTI_BACKEND"] = "triton"
    device = torch.device("cuda", 0)
    kind = blocks.gpu_kind(device)
    best = {operation: fastest(operation, run, kind) for operation, run in cases(device).items()}
    write_table(blocks.TABLE | {kind: best})
    print(f"{kind}: {best}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only check the kernels")
    parser.add_argument("--tune", action="store_true", help="only tune, on kernels that have been checked")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu.py: expected a GPU that torch can use, got none; run it on a machine with one")
    with torch.inference_mode():
        if not asked.tune:
            check()
        if not asked.check:
            tune()
