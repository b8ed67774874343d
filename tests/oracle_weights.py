"""Models with the oracle's weights (weights_recipe in oracles.json); test support."""

import json
import zlib

import numpy as np
import torch

from rtinteract.config import TransformerConfig
from rtinteract.importer import transformer_keys
from rtinteract.transformer import InterMTransformer

TINY = TransformerConfig(codes=64, code_dim=64, width=48, heads=4, layers=2, ff=96)
TINY_SEED, FULL_SEED = 0, 10


def recipe(key: str, shape, seed: int) -> torch.Tensor:
    """The random tensor that the recipe makes of a published key."""
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


def transformer_of(config: TransformerConfig, seed: int) -> InterMTransformer:
    """A transformer with the recipe's weights, in evaluation mode."""
    model = InterMTransformer(config).eval()
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    model.load_state_dict({ours: recipe(theirs, shapes[ours], seed) for theirs, ours in transformer_keys(model).items()})
    return model


def oracle_index(shared) -> dict:
    """The oracles' description."""
    return json.loads((shared / "oracles/oracles.json").read_text())
