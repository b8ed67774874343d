"""Nearest code of each latent row.

    id[r] = argmax_k  -|x[r] - c[k]|^2 / temperature + noise[r, k]        (without noise: argmin_k |x[r] - c[k]|^2)

Ties go to the smallest k. Gumbel noise makes it a draw from softmax(-distance / temperature), the training draw of the
published InterMask codec (temperature 0.5).
"""

from __future__ import annotations

import torch


def nearest_code_reference(x, codebook, noise=None, temperature: float = 0.5):
    """Ids int64 [R] of x [R, D] in codebook [K, D]; float32 or wider arithmetic. ``noise`` [R, K] is standard Gumbel noise."""
    kind = torch.promote_types(x.dtype, torch.float32)
    x, codebook = x.to(kind), codebook.to(kind)
    # |x|^2 is left out: it is equal for every code of a row.
    distance = torch.addmm((codebook * codebook).sum(-1), x, codebook.t(), alpha=-2)
    if noise is None:
        return distance.argmin(-1)
    return (noise.to(kind) - distance / temperature).argmax(-1)


def nearest_code(x, codebook, noise=None, temperature: float = 0.5, out=None):
    """Ids int64 [R] of x [R, D] in codebook [K, D] by squared distance, drawn with ``noise`` [R, K] where it is given.

    ``out`` int64 [R] receives the ids. ValueError where shapes, devices or the temperature do not fit.
    """
    if x.ndim != 2 or codebook.ndim != 2 or x.shape[1] != codebook.shape[1] or codebook.shape[0] == 0:
        raise ValueError(f"nearest_code: expected x [R, D] and codebook [K, D] with K >= 1, got {tuple(x.shape)} and "
                         f"{tuple(codebook.shape)}")
    if x.device != codebook.device:
        raise ValueError(f"nearest_code: expected x and codebook on one device, got {x.device} and {codebook.device}")
    if noise is not None and noise.shape != (x.shape[0], codebook.shape[0]):
        raise ValueError(f"nearest_code: expected noise [R, K] = {(x.shape[0], codebook.shape[0])}, got {tuple(noise.shape)}")
    if noise is not None and not temperature > 0:
        raise ValueError(f"nearest_code: expected a temperature above 0, got {temperature}")
    if out is not None and (out.shape != x.shape[:1] or out.dtype != torch.int64):
        raise ValueError(f"nearest_code: expected out int64 [{x.shape[0]}], got {out.dtype} {tuple(out.shape)}")
    ids = nearest_code_reference(x, codebook, noise, temperature)
    return ids if out is None else out.copy_(ids)
