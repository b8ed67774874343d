"""Block sizes of the kernels that are worth tuning, by GPU; `benches/gpu.py` measures and writes the table."""

from __future__ import annotations

import functools

import torch

# "any": the largest blocks whose registers suffice on every GPU of tests/data/kernel-builds.json.
TABLE = {
    "any": {
        "attention": {"BLOCK_Q": 64, "BLOCK_K": 64, "num_warps": 4},
        "convolution": {"BLOCK_M": 64, "BLOCK_N": 32, "BLOCK_K": 32, "num_warps": 4},
        "linear": {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32, "num_warps": 8},
        "spatio_temporal": {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32, "num_warps": 8},
    },
}


@functools.cache
def gpu_kind(device: torch.device) -> str:
    """The name under which a GPU's own sizes stand, such as "sm_90" or "gfx942"; "any" for a CPU."""
    if device.type != "cuda":
        return "any"
    properties = torch.cuda.get_device_properties(device)
    return properties.gcnArchName.split(":")[0] if torch.version.hip else f"sm_{properties.major}{properties.minor}"


def blocks_of(operation: str, device: torch.device) -> dict[str, int]:
    """Block sizes and warps of an operation on a device: its kind's own, else those that fit every GPU."""
    return TABLE.get(gpu_kind(device), {}).get(operation, TABLE["any"][operation])
