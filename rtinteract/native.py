"""The transformer as one C++ call a pass (csrc/cpu): in int8 or bfloat16 for CPUs with AVX-512 VNNI and BF16, in float32 for
others with AVX2.

Layer by layer, a CPU spends half of a pass outside the products: norms, roundings and sums of [tokens, D] that pass through
memory a dozen times a block. The C++ pass takes a few dozen rows at a time through as many layers as it can. Its numbers are
those of the module it stands in for: products of int8 rows summed in int32, or of bfloat16 ones in float32, and attention in
bfloat16; or float32 throughout.
"""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtinteract.kernels.backend import cpu_has_all, reference_only

try:
    from rtinteract import _cpu
except ImportError:
    # The package is pure Python where it was installed without a compiler, or on another kind of processor.
    _cpu = None

NARROW_FEATURES = ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq", "avx512_vnni", "avx512_bf16")
FLOAT32_FEATURES = ("avx2", "fma3")
_GROUP = 16


def lacking(dtype: torch.dtype) -> str | None:
    """What this processor lacks for the pass of a module in ``dtype`` (torch.int8 for its products); None if nothing."""
    if dtype == torch.float32:
        return None if cpu_has_all(FLOAT32_FEATURES) else "AVX2 or FMA"
    return None if cpu_has_all(NARROW_FEATURES) else "AVX-512 VNNI or BF16"


def why_not(device: torch.device, config, dtype: torch.dtype = torch.bfloat16) -> str | None:
    """Why the pass of a `TransformerConfig`'s module in ``dtype`` does not run in C++ there; None where it does.

    On a processor that has the narrow pass, float32 is what was asked for in its place, and runs layer by layer.
    """
    if device.type != "cpu":
        return "the device is not a CPU"
    if reference_only() or os.environ.get("RTI_NATIVE") == "0":
        return "the environment asks for the plain path"
    if _cpu is None:
        return "rtinteract._cpu was not built: install with a C++ compiler and pybind11"
    if lacking(dtype):
        return f"the processor lacks {lacking(dtype)}"
    if dtype == torch.float32 and lacking(torch.bfloat16) is None:
        return "float32 is the plain path where bfloat16 and int8 run in C++"
    if not config.published:
        return (f"attention {', '.join(config.attention)}, people {config.modelling}: expected the published block; an ablation "
                "runs layer by layer")
    head = config.width // config.heads
    if head % _GROUP or head > 64 or config.ff % _GROUP or config.parts > _GROUP:
        return (f"heads of {head} and a hidden width of {config.ff}: expected heads of 16, 32, 48 or 64 and a multiple of "
                f"{_GROUP}")
    return None


class NativeTransformer(nn.Module):
    """Stands in for an `InterMTransformer`, int8 (`rtinteract.quant.int8_transformer`), bfloat16 or float32. Passes with padding
    go to the module itself, and all do under RTI_BACKEND=reference.

    Its modulations are one tensor [B, 1, M, D] float32, M = 20 a block and the output's two.
    """

    def __init__(self, transformer: nn.Module):
        super().__init__()
        self.plain = transformer
        self.config = config = transformer.config
        kind = str(transformer.output.weight.dtype).removeprefix("torch.")
        given = [_linear(*layer) for block in transformer.blocks for layer in _layers(block)]
        given += [_linear(x.weight, x.bias, x.weight_scale) for x in (transformer.output_dense, transformer.output)]
        with torch.inference_mode():
            table = F.linear(transformer.token_embedding.weight.float(), transformer.input.weight.float(),
                             transformer.input.bias.float())
        self._pass = _cpu.Transformer(config.width, config.heads, config.ff, config.codes, config.parts, kind, given,
                                      table.numpy())
        self._positions: dict[int, Tensor] = {}
        self.train(transformer.training)

    @property
    def prior(self):
        """The module's own."""
        return self.plain.prior

    @property
    def output(self):
        """The module's last layer, whose weights say in which type it runs."""
        return self.plain.output

    def modulate(self, condition: Tensor | None, batch: int = 1) -> Tensor:
        """`InterMTransformer.modulate` as one tensor [B, 1, M, D]."""
        return _stacked(self.plain.modulate(condition, batch))

    def forward(self, codes: Tensor, condition: Tensor | None, lengths: Tensor | None = None, *, modulations=None,
                placement: Tensor | None = None, last: int | None = None, person: int | None = None) -> Tensor:
        """As `InterMTransformer.forward`; with ``person`` the logits [B, 1, S, N or last, K] of that person alone."""
        self.plain.check(codes, lengths, placement)
        batch, _, parts, columns = codes.shape
        if modulations is None:
            modulations = self.modulate(condition, batch)
        if lengths is not None or reference_only():
            return self.plain(codes, condition, lengths, modulations=_unstacked(modulations, self.plain), placement=placement,
                              last=last, person=person)
        positions = self._positions.get(columns)
        if positions is None:
            positions = self.plain.positions(columns).float().contiguous()
            self._positions = {columns: positions}
        if placement is not None:
            linear = self.plain.placement
            placement = linear(placement.to(linear.weight.dtype)).float().contiguous().numpy()
        logits = torch.empty(batch, 2 if person is None else 1, parts, columns if last is None else last, self.config.codes)
        self._pass.run(codes.contiguous().numpy(), modulations.expand(batch, -1, -1, -1)[:, 0].contiguous().numpy(),
                       positions.numpy(), placement, person or 0, logits.numpy(), torch.get_num_threads())
        return logits


def _layers(block: nn.Module):
    """(weight, bias, scale) of a block's products in the order of csrc/cpu/model.h."""
    def attention(a):
        yield a.in_proj_weight, a.in_proj_bias, a.in_proj_scale
        yield a.out_proj.weight, a.out_proj.bias, a.out_proj.weight_scale

    def feed_forward(f):
        yield f.up.weight, f.up.bias, f.up.weight_scale
        yield f.down.weight, f.down.bias, f.down.weight_scale

    yield from attention(block.attention)
    yield from feed_forward(block.ffn_combined)
    yield from attention(block.spatial)
    yield from attention(block.temporal)
    cross, width = block.cross, block.cross.out_proj.weight.shape[0]
    scale = cross.in_proj_scale
    for rows in (slice(None, width), slice(width, None)):
        yield cross.in_proj_weight[rows], cross.in_proj_bias[rows], None if scale is None else scale[rows]
    yield cross.out_proj.weight, cross.out_proj.bias, cross.out_proj.weight_scale
    yield from feed_forward(block.ffn_split)


def _linear(weight: Tensor, bias: Tensor, scale: Tensor | None) -> tuple:
    """As arrays: int8 with a scale for each output, or float32 and None."""
    weight = weight.detach() if scale is not None else weight.detach().float()
    return (weight.contiguous().numpy(), None if scale is None else scale.float().contiguous().numpy(),
            bias.detach().float().contiguous().numpy())


def _leaves(modulations):
    if isinstance(modulations, Tensor):
        return [modulations]
    return [] if modulations is None else [leaf for part in modulations for leaf in _leaves(part)]


def _stacked(modulations) -> Tensor:
    return torch.stack([leaf.float() for leaf in _leaves(modulations)], 2)


def _unstacked(stacked: Tensor, transformer: nn.Module):
    """The nested modulations of a stacked tensor."""
    parts = iter(stacked.to(transformer.condition.weight.dtype).unbind(2))

    def fill(part):
        if isinstance(part, Tensor):
            return next(parts)
        return None if part is None else type(part)(*map(fill, part)) if hasattr(part, "_fields") else tuple(map(fill, part))

    return fill(transformer.modulate(None, 1))
