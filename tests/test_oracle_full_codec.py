"""The full-size codec (41 M parameters, weights by recipe) against the published implementation."""

import torch
from oracle_weights import recipe
from safetensors.torch import load_file

from rtinteract.codec import Codec
from rtinteract.config import CodecConfig
from rtinteract.features.interhuman import row_to_image
from rtinteract.importer import codec_keys

SEED = 10


@torch.no_grad()
def test_full_codec(shared):
    o = load_file(shared / "oracles" / "full.safetensors")
    codec = Codec(CodecConfig.interhuman()).eval()
    state = codec.state_dict()
    for theirs, ours in codec_keys(codec.config).items():
        state[ours].copy_(recipe(theirs, tuple(state[ours].shape), SEED))
    book = torch.Size((1024, 512))
    # The recipe's factor for a codebook is 1, not that of a matrix.
    codec.quantizer.codebook.copy_(recipe("quantizer.layers.0.codebook", book, SEED) * book[1] ** 0.5)
    image = row_to_image(o["motion"])
    latent = codec.latent(image)
    assert (latent - o["enc_out"]).abs().max() < 1e-5 * o["enc_out"].abs().max()
    assert torch.equal(codec.encode(image).flatten(1), o["code_idx"])
    decoded, want = codec.decode(o["dec_ids"].view(1, 5, 16)), row_to_image(o["dec_out"])
    decoded[..., 0, 6:] = 0
    assert (decoded - want).abs().max() < 1e-5 * want.abs().max()
