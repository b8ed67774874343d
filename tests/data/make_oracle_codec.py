"""Makes oracle-codec.safetensors: a tiny codec worked out in float64 by plain numpy loops over the formulas.

It shares no code with rtinteract; run it by hand (`python tests/data/make_oracle_codec.py`) only if the format changes.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

JOINTS, FEATURES, WIDTH, DIM, CODES, FRAMES = 10, 3, 8, 6, 12, 18
UP = ((2.5, 2), (2, 2))


def convolve(x, weight, bias, stride=(1, 1), pad=1, dilation=1):
    """x [C, H, W]; one output value at a time over the window that it sees."""
    out_channels, _, kh, kw = weight.shape
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    height = (x.shape[1] - dilation * (kh - 1) - 1) // stride[0] + 1
    width = (x.shape[2] - dilation * (kw - 1) - 1) // stride[1] + 1
    out = np.empty((out_channels, height, width))
    for i in range(height):
        for j in range(width):
            top, left = i * stride[0], j * stride[1]
            window = x[:, top:top + dilation * (kh - 1) + 1:dilation, left:left + dilation * (kw - 1) + 1:dilation]
            out[:, i, j] = (weight * window).sum((1, 2, 3)) + bias
    return out


def nearest(x, factors):
    rows, columns = (np.floor(np.arange(int(n * f)) / f).astype(int) for n, f in zip(x.shape[1:], factors, strict=True))
    return x[:, rows][:, :, columns]


class Weights:
    """Seeded weights, kept in float32 and used in float64."""

    def __init__(self, seed):
        self.random, self.kept = np.random.default_rng(seed), {}

    def conv(self, name, out, inside, kernel):
        scale = 1.4 / np.sqrt(inside * np.prod(kernel))
        weight = (self.random.standard_normal((out, inside, *kernel)) * scale).astype(np.float32)
        bias = (self.random.standard_normal(out) * 0.05).astype(np.float32)
        self.kept[f"{name}.weight"], self.kept[f"{name}.bias"] = weight, bias
        return weight.astype(np.float64), bias.astype(np.float64)


def relu(x):
    return np.maximum(x, 0)


def make_layers(w):
    shapes = {"encoder.stem": (WIDTH, FEATURES, (3, 3)), "encoder.head": (DIM, WIDTH, (3, 3)),
              "decoder.stem": (WIDTH, DIM, (3, 3)), "decoder.neck": (WIDTH, WIDTH, (3, 3)),
              "decoder.head": (FEATURES, WIDTH, (3, 3))}
    for i in range(2):
        shapes[f"encoder.down.{i}"], shapes[f"decoder.up.{i}"] = (WIDTH, WIDTH, (4, 4)), (WIDTH, WIDTH, (3, 3))
        for side in ("encoder", "decoder"):
            for j in range(2):
                shapes[f"{side}.blocks.{i}.{j}.dilated"] = (WIDTH, WIDTH, (3, 3))
                shapes[f"{side}.blocks.{i}.{j}.mix"] = (WIDTH, WIDTH, (1, 1))
    return {name: w.conv(name, *shape) for name, shape in shapes.items()}


def blocks(x, layers, name):
    for j, dilation in enumerate((3, 1)):
        inner = convolve(relu(x), *layers[f"{name}.{j}.dilated"], pad=dilation, dilation=dilation)
        x = x + convolve(relu(inner), *layers[f"{name}.{j}.mix"], pad=0)
    return x


def encode(image, layers):
    x = relu(convolve(image, *layers["encoder.stem"]))
    for i in range(2):
        x = blocks(convolve(x, *layers[f"encoder.down.{i}"], stride=(2, 2)), layers, f"encoder.blocks.{i}")
    return convolve(x, *layers["encoder.head"])


def decode(latent, layers):
    x = relu(convolve(latent, *layers["decoder.stem"]))
    for i in range(2):
        x = convolve(nearest(blocks(x, layers, f"decoder.blocks.{i}"), UP[i]), *layers[f"decoder.up.{i}"])
    return convolve(relu(convolve(x, *layers["decoder.neck"])), *layers["decoder.head"])


def main():
    w = Weights(20261120)
    layers = make_layers(w)
    features = w.random.standard_normal((2, FRAMES, JOINTS, FEATURES)).astype(np.float32)
    latent = np.stack([encode(f.astype(np.float64).transpose(2, 1, 0), layers) for f in features])
    rows = latent.transpose(0, 2, 3, 1).reshape(-1, DIM)
    # Codes near some of the latents, so that many are used and no choice is a close call.
    picked = rows[w.random.permutation(len(rows))[:CODES]]
    codebook = (picked + 0.05 * w.random.standard_normal(picked.shape)).astype(np.float32)
    distance = ((rows[:, None] - codebook.astype(np.float64)) ** 2).sum(-1)
    best = np.sort(distance, -1)
    assert (best[:, 1] - best[:, 0]).min() > 1e-3 and len(set(distance.argmin(-1))) > CODES // 2
    ids = w.random.integers(0, CODES, (2, *latent.shape[2:]))
    ids[1, :, -1] = -1
    vectors = np.concatenate([codebook, np.zeros((1, DIM))])[ids].astype(np.float64)
    decoded = np.stack([decode(v.transpose(2, 0, 1), layers).transpose(2, 1, 0) for v in vectors])
    w.kept |= {"quantizer.codebook": codebook, "quantizer.code_sum": codebook.copy(),
               "quantizer.code_count": np.ones(CODES, np.float32), "quantizer.initialised": np.array(True)}
    save_file({f"weight.{k}": np.ascontiguousarray(v) for k, v in w.kept.items()} | {
        "features": features, "latent": latent, "codes": distance.argmin(-1).reshape(ids.shape), "ids": ids,
        "decoded": np.ascontiguousarray(decoded)}, Path(__file__).with_name("oracle-codec.safetensors"))


if __name__ == "__main__":
    main()
