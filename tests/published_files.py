"""Files as the published trainers write them, of a tiny model; test support."""

import torch

from rtinteract.checkpoint import build
from rtinteract.config import CodecConfig, ModelConfig, TextConfig, TransformerConfig
from rtinteract.importer import codec_keys, transformer_keys

HEADS = 2
CONFIG = ModelConfig(
    codec=CodecConfig(width=8, code_dim=4, codes=16), text=TextConfig(width=32, layers=1, ff=16), window=300, name="intermask",
    transformer=TransformerConfig(codes=16, code_dim=8, width=16, heads=HEADS, layers=2, ff=24, condition=32))


def published(tmp_path, config=CONFIG, change_codec=None, change_transformer=None):
    """Files as the published trainers write them, with random weights; returns the paths and the weights."""
    torch.manual_seed(0)
    parts = build(config)
    codec = {theirs: parts.codec.state_dict()[ours] for theirs, ours in codec_keys(config.codec).items()}
    codec["quantizer.layers.0.codebook"] = parts.codec.quantizer.codebook
    trans = {theirs: parts.transformer.state_dict()[ours] for theirs, ours in transformer_keys(parts.transformer).items()}
    width = config.transformer.width
    trans["position_enc.positional_encoding.inv_freq"] = 1 / 10000 ** (torch.arange(0, width // 2, 2) / (width // 2))
    for ours, tensor in parts.text.state_dict().items():
        first, rest = ours.split(".", 1)
        trans[{"encoder": "clipTrans.", "norm": "clipln."}[first] + rest] = tensor
    for state, change in ((codec, change_codec), (trans, change_transformer)):
        if change:
            change(state)
    paths = tmp_path / "codec.tar", tmp_path / "transformer.tar"
    torch.save({"vq_model": codec, "opt_vq_model": {}, "ep": 3, "total_it": 9}, paths[0])
    torch.save({"t2m_transformer": trans, "scheduler": {"milestones": [1]}, "ep": 3}, paths[1])
    return paths, parts
