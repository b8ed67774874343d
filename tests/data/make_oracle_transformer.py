"""Makes oracle-transformer.safetensors: a tiny Inter-M transformer and a sampling run in float64, token by token in numpy.

It shares no code with rtinteract, keeps the published token order (separator in the middle) and attends one query at a
time over the keys that it may see. Run it by hand (`python tests/data/make_oracle_transformer.py`) only if the format changes.
"""

import math
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

CODES, DIM, WIDTH, HEADS, LAYERS, FF, COND, PARTS, COLUMNS = 20, 6, 8, 2, 2, 12, 5, 3, 4
MASK, PAD, SEP = CODES, CODES + 1, CODES + 2
LENGTHS, ITERATIONS, GUIDANCE, TOP_K, TEMPERATURE = (4, 3), 5, 2.0, 0.25, 0.7


def make_weights(random):
    shapes = {"token_embedding.weight": (CODES + 3, DIM), "input": (WIDTH, DIM), "condition": (WIDTH, COND),
              "output_dense": (WIDTH, WIDTH), "output_adaln.linear": (2 * WIDTH, WIDTH), "output": (CODES, WIDTH)}
    for i in range(LAYERS):
        block = {"adaln_combined.linear": (6 * WIDTH, WIDTH), "adaln_split.linear": (14 * WIDTH, WIDTH)}
        for name in ("ffn_combined", "ffn_split"):
            block |= {f"{name}.up": (FF, WIDTH), f"{name}.down": (WIDTH, FF)}
        for name in ("attention", "spatial", "temporal", "cross"):
            block |= {f"{name}.in_proj": (3 * WIDTH, WIDTH), f"{name}.out_proj": (WIDTH, WIDTH)}
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    weights = {}
    for name, shape in shapes.items():
        value = (random.standard_normal(shape) / math.sqrt(shape[1])).astype(np.float32)
        if name == "token_embedding.weight":
            weights[name] = value
            continue
        join = "_" if name.endswith("in_proj") else "."
        weights[f"{name}{join}weight"] = value
        weights[f"{name}{join}bias"] = (0.1 * random.standard_normal(shape[0])).astype(np.float32)
    return weights


class Model:
    """The forward pass of one sample; `w` are float64 weights."""

    def __init__(self, weights):
        self.w = {k: v.astype(np.float64) for k, v in weights.items()}

    def linear(self, name, x, rows=slice(None), join="."):
        return self.w[f"{name}{join}weight"][rows] @ x + self.w[f"{name}{join}bias"][rows]

    def modulation(self, name, condition, count):
        return self.linear(name, condition / (1 + np.exp(-condition))).reshape(count, WIDTH)

    def ffn(self, name, x):
        hidden = self.linear(f"{name}.up", x)
        gelu = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in hidden])
        return self.linear(f"{name}.down", gelu)

    def attend(self, name, query, keys):
        """One query vector over a list of key vectors."""
        third = [slice(i * WIDTH, (i + 1) * WIDTH) for i in range(3)]
        q = self.linear(f"{name}.in_proj", query, third[0], "_")
        k = [self.linear(f"{name}.in_proj", x, third[1], "_") for x in keys]
        v = [self.linear(f"{name}.in_proj", x, third[2], "_") for x in keys]
        out, size = np.empty(WIDTH), WIDTH // HEADS
        for h in range(HEADS):
            part = slice(h * size, (h + 1) * size)
            weight = np.exp([q[part] @ x[part] / math.sqrt(size) for x in k])
            out[part] = sum(a * x[part] for a, x in zip(weight / weight.sum(), v, strict=True))
        return self.linear(f"{name}.out_proj", out)

    def block(self, i, x, condition, length):
        """x: dict of (person, part, column) or "sep" to a vector; only tokens within `length` are there."""
        b = f"blocks.{i}."
        m = self.modulation(b + "adaln_combined.linear", condition, 6)
        seen = {t: modulated(v, m[0], m[1]) for t, v in x.items()}
        x = {t: v + m[2] * self.attend(b + "attention", seen[t], list(seen.values())) for t, v in x.items()}
        x = {t: v + m[5] * self.ffn(b + "ffn_combined", modulated(v, m[3], m[4])) for t, v in x.items()}
        m = self.modulation(b + "adaln_split.linear", condition, 14)
        out = {"sep": x["sep"]}
        for t in x:
            if t == "sep":
                continue
            person, part, column = t
            rows = [modulated(x[person, s, column], m[0], m[1]) for s in range(PARTS)]
            line = [modulated(x[person, part, n], m[3], m[4]) for n in range(length)]
            mixed = (x[t] + m[2] * self.attend(b + "spatial", rows[part], rows)
                     + x[t] + m[5] * self.attend(b + "temporal", line[column], line))
            other = [modulated(x[1 - person, s, n], m[8], m[9]) for s in range(PARTS) for n in range(length)]
            mixed = mixed + m[10] * self.attend(b + "cross", modulated(mixed, m[6], m[7]), other)
            out[t] = mixed + m[13] * self.ffn(b + "ffn_split", modulated(mixed, m[11], m[12]))
        return out

    def logits(self, codes, condition, length):
        """codes [2, S, N] -> logits [2, S, N, K], zero past `length`."""
        condition = self.linear("condition", condition)
        table = self.w["token_embedding.weight"]
        x = {"sep": self.linear("input", table[SEP])}
        for t in np.ndindex(2, PARTS, length):
            x[t] = self.linear("input", table[codes[t]]) + position(t[1], t[2])
        for i in range(LAYERS):
            x = self.block(i, x, condition, length)
        shift, scale = self.modulation("output_adaln.linear", condition, 2)
        out = np.zeros((2, PARTS, COLUMNS, CODES))
        for t in np.ndindex(2, PARTS, length):
            dense = self.linear("output_dense", x[t])
            gelu = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in dense])
            out[t] = self.linear("output", modulated(gelu, shift, scale))
        return out


def modulated(x, shift, scale):
    return (x - x.mean()) / math.sqrt(x.var() + 1e-6) * (1 + scale) + shift


def position(part, column):
    half = WIDTH // 2
    out = []
    for index in (part, column):
        for i in range(0, half, 2):
            angle = index / 10000 ** (i / half)
            out += [math.sin(angle), math.cos(angle)]
    return np.array(out)


def sample(model, codes, condition, length, noise):
    """The filled codes [2, S, N] and the smallest margin of any choice on the way."""
    places = [t for t in np.ndindex(2, PARTS, length) if codes[t] == MASK]
    codes, score, margin = codes.copy(), {t: 0.0 for t in places}, np.inf
    for i in range(ITERATIONS):
        count = max(1, round(math.cos(math.pi / 2 * i / (ITERATIONS - 1)) * len(places)))
        order = sorted(places, key=lambda t: (score[t], t))
        if i and count < len(places):
            margin = min(margin, score[order[count]] - score[order[count - 1]])
        for t in order[:count]:
            codes[t] = MASK
        plain = model.logits(codes, np.zeros(COND), length)
        logits = plain + GUIDANCE * (model.logits(codes, condition, length) - plain)
        for t in places:
            score[t] = score[t] if t in order[:count] else 1e5
        for t in order[:count]:
            kept = np.argsort(-logits[t])[: math.ceil(TOP_K * CODES)]
            ranked = np.sort(logits[t][kept] / TEMPERATURE + noise[i][t][kept])
            codes[t] = kept[np.argmax(logits[t][kept] / TEMPERATURE + noise[i][t][kept])]
            margin = min(margin, ranked[-1] - ranked[-2])
            score[t] = np.exp(logits[t][codes[t]]) / np.exp(logits[t]).sum()
    return codes, margin


def main():
    random = np.random.default_rng(7)
    weights = make_weights(random)
    model = Model(weights)
    shape = (2, 2, PARTS, COLUMNS)
    codes = random.integers(0, CODES, shape)
    codes[random.random(shape) < 0.5] = MASK
    condition = random.standard_normal((2, COND)).astype(np.float32)
    start = random.integers(0, CODES, shape)
    # Some tokens known: from nothing the two people's scores tie, and rounding would choose.
    start[0][random.random(shape[1:]) < 0.8] = MASK
    start[1, 1] = MASK
    noise = random.gumbel(size=(ITERATIONS, *shape, CODES)).astype(np.float32)
    filled = np.full(shape, -1)
    for b, length in enumerate(LENGTHS):
        done, margin = sample(model, start[b], condition[b], length, noise[:, b])
        filled[b, :, :, :length] = done[:, :, :length]
        assert margin > 1e-4, f"sample {b}: a choice hangs on {margin:.1e}; take another seed"
    logits = np.stack([model.logits(codes[b], condition[b], n) for b, n in enumerate(LENGTHS)])
    bare = np.stack([model.logits(codes[b], np.zeros(COND), n) for b, n in enumerate(LENGTHS)])
    tensors = {f"weights.{k}": v for k, v in weights.items()} | {
        "codes": codes, "condition": condition, "lengths": np.array(LENGTHS), "logits": logits, "logits_unconditioned": bare,
        "start": start, "noise": noise, "filled": filled}
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()},
              Path(__file__).with_name("oracle-transformer.safetensors"))


if __name__ == "__main__":
    main()
