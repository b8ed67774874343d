"""Published InterMask transformer keys on our names, and the oracle's weight recipe; test support."""

import zlib

import numpy as np
import torch

HEAD = {
    "input_process.poseEmbedding": "input", "cond_emb": "condition", "token_emb": "token_embedding",
    "output_process.dense": "output_dense", "output_process.adaLN_mod.model.1": "output_adaln.linear",
    "output_process.poseFinal": "output",
}
BLOCK = {
    "adaLN_mod_combined.model.1": "adaln_combined.linear", "adaLN_mod_split.model.1": "adaln_split.linear",
    "self_attn.attention": "attention", "spa_temp_attn.spatial_attention": "spatial",
    "spa_temp_attn.temporal_attention": "temporal", "local_inter_attn.interaction_attention": "cross",
    "ffn_combined.model.0": "ffn_combined.up", "ffn_combined.model.3": "ffn_combined.down",
    "ffn_split.model.0": "ffn_split.up", "ffn_split.model.3": "ffn_split.down",
}


def our_key(key: str) -> str | None:
    """Our name of a published transformer key; None for the text head and the computed positions."""
    if key.startswith(("clip", "position_enc.")):
        return None
    prefix, names = "", HEAD
    if key.startswith("Transformer.blocks."):
        _, _, index, key = key.split(".", 3)
        prefix, names = f"blocks.{index}.", BLOCK
    old = next(name for name in names if key.startswith(name + "."))
    return prefix + names[old] + key[len(old):]


def recipe(key: str, shape, seed: int) -> torch.Tensor:
    """A random tensor of the oracle's recipe (weights_recipe in oracles.json)."""
    noise = np.random.RandomState(zlib.crc32(f"{seed}:{key}".encode())).standard_normal(shape)
    if key == "token_emb.weight":
        noise = 0.5 * noise
    elif ("norm" in key or key.startswith("clipln")) and key.endswith("weight"):
        noise = 1 + 0.05 * noise
    elif len(shape) >= 2:
        noise = noise * (1.4 if len(shape) == 4 else 1.0) / np.sqrt(np.prod(shape[1:]))
    else:
        noise = 0.05 * noise
    value = torch.from_numpy(np.asarray(noise, dtype=np.float32))
    return value.half().float() if key.startswith("clipTrans") else value
