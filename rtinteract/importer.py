"""Published files that are pickles, to ours: InterMask checkpoints and CLIP. Nothing is unpickled but tensors."""

from __future__ import annotations

import logging
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import torch

from rtinteract.checkpoint import ModelParts, fill, some, text_module
from rtinteract.clip import CONFIG, TOKENIZER, WANTED, WEIGHTS, text_keys
from rtinteract.codec import Codec, VectorQuantizer
from rtinteract.config import CodecConfig, ModelConfig, TextConfig, TransformerConfig
from rtinteract.container import write_container
from rtinteract.errors import CheckpointError
from rtinteract.features.interhuman import ROW, statistics_image
from rtinteract.features.normalize import Normalizer
from rtinteract.motion.atomic import replacing
from rtinteract.transformer import InterMTransformer

log = logging.getLogger(__name__)

# A published file has no running statistics. This many uses a code (what 256 windows of 64 frames give each of 1024 codes
# in a step) keep a codebook in place when training goes on, where a count of 1 would restart every code not in the next batch.
REBUILT_COUNT = 20.0
# Frames of the longest clips that the published models were trained on.
LONGEST = 300
_HEAD_WIDTH = 64
_TRANSFORMER = {
    "input_process.poseEmbedding": "input", "cond_emb": "condition", "token_emb": "token_embedding",
    "output_process.dense": "output_dense", "output_process.adaLN_mod.model.1": "output_adaln.linear",
    "output_process.poseFinal": "output",
}
_BLOCK = {
    "adaLN_mod_combined.model.1": "adaln_combined.linear", "adaLN_mod_split.model.1": "adaln_split.linear",
    "self_attn.attention": "attention", "spa_temp_attn.spatial_attention": "spatial",
    "spa_temp_attn.temporal_attention": "temporal", "local_inter_attn.interaction_attention": "cross",
    "ffn_combined.model.0": "ffn_combined.up", "ffn_combined.model.3": "ffn_combined.down",
    "ffn_split.model.0": "ffn_split.up", "ffn_split.model.3": "ffn_split.down",
}
_TEXT = {"clipTrans": "encoder", "clipln": "norm"}
_FREQUENCIES = "position_enc.positional_encoding.inv_freq"


def _unpickle(path: Path, what: str):
    """The content of a torch file: tensors, and plain containers of them."""
    if not path.is_file():
        raise CheckpointError(f"{path}: expected {what}, got nothing there; check the path")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        # Only the first sentence: torch goes on to advise unpickling, which is never right here.
        reason = re.split(r"\.\s|\n", str(error))[0]
        raise CheckpointError(f"{path}: expected a torch checkpoint of tensors, but it cannot be read ({reason}); fetch it "
                              "again") from error


def _read(path: Path, key: str) -> tuple[dict[str, torch.Tensor], dict]:
    """(state dict under ``key`` in float32, the rest) of a .tar file."""
    content = _unpickle(path, "a published InterMask checkpoint")
    state = content.get(key) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        there = some(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path}: expected an entry {key!r} of tensors, got {there}; give the codec as --codec and the "
                              "transformer as --transformer")
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    return state, {k: v for k, v in content.items() if k != key}


def _count(state, pattern: str) -> int:
    """One more than the largest number that ``pattern``'s group finds in the keys."""
    found = [int(m.group(1)) for m in map(re.compile(pattern).match, state) if m]
    return max(found, default=-1) + 1


def _shape(state, key: str, path: Path) -> torch.Size:
    if key not in state:
        raise CheckpointError(f"{path}: expected a tensor {key}, got {some(state)}; take a published InterMask checkpoint")
    return state[key].shape


def _codec_config(state, path: Path) -> tuple[CodecConfig, str]:
    """(configuration, representation) from the shapes; what shapes do not say is as published."""
    width, features = _shape(state, "encoder.model.0.weight", path)[:2]
    codes, dim = _shape(state, "quantizer.layers.0.codebook", path)
    published = {12: (CodecConfig.interhuman(), "interhuman"), 6: (CodecConfig.interx(), "interx")}
    if features not in published:
        raise CheckpointError(f"{path}: expected 12 (InterHuman) or 6 (Inter-X) features a joint, got {features}; take a "
                              "published codec")
    base, name = published[features]
    return CodecConfig(joints=base.joints, features=features, width=width, code_dim=dim, codes=codes,
                       depth=_count(state, r"encoder\.model\.2\.1\.model\.(\d+)\."), kernels=base.kernels, strides=base.strides,
                       upsample=base.upsample), name


def codec_keys(config: CodecConfig) -> dict[str, str]:
    """Published name to ours, of every convolution of the codec."""
    n = len(config.strides)
    names = {"encoder.model.0": "encoder.stem", f"encoder.model.{n + 2}": "encoder.head", "decoder.model.0": "decoder.stem",
             f"decoder.model.{n + 2}": "decoder.neck", f"decoder.model.{n + 4}": "decoder.head"}
    for i in range(n):
        names[f"encoder.model.{i + 2}.0"] = f"encoder.down.{i}"
        names[f"decoder.model.{i + 2}.2"] = f"decoder.up.{i}"
        for side, place in (("encoder", 1), ("decoder", 0)):
            for j in range(config.depth):
                theirs, ours = f"{side}.model.{i + 2}.{place}.model.{j}", f"{side}.blocks.{i}.{j}"
                names[f"{theirs}.conv1"], names[f"{theirs}.conv2"] = f"{ours}.dilated", f"{ours}.mix"
    return {f"{a}.{x}": f"{b}.{x}" for a, b in names.items() for x in ("weight", "bias")}


def _rename(state, names: dict[str, str], path: Path) -> dict[str, torch.Tensor]:
    """The state dict under our names; CheckpointError on a key too many or too few."""
    missing, extra = names.keys() - state.keys(), state.keys() - names.keys()
    if missing or extra:
        told = [f"{word} {len(keys)} ({some(keys)})" for word, keys in (("missing", missing), ("unexpected", extra)) if keys]
        raise CheckpointError(f"{path}: expected the {len(names)} keys of a published checkpoint, got {' and '.join(told)}; take "
                              "an unchanged one")
    return {names[k]: v for k, v in state.items()}


def load_codec(path) -> Codec:
    """The codec of a published ``{'vq_model': ...}`` file, InterHuman or Inter-X, of any width; evaluation mode."""
    return _load_codec(Path(path))[0]


def _load_codec(path: Path) -> tuple[Codec, str, dict]:
    state, rest = _read(path, "vq_model")
    config, name = _codec_config(state, path)
    tensors = _rename(state, codec_keys(config) | {"quantizer.layers.0.codebook": "quantizer.codebook"}, path)
    codec = Codec(config).eval()
    assert isinstance(codec.quantizer, VectorQuantizer)
    book = tensors["quantizer.codebook"]
    tensors |= {"quantizer.code_sum": book * REBUILT_COUNT, "quantizer.code_count": torch.full(book.shape[:1], REBUILT_COUNT),
                "quantizer.initialised": torch.tensor(True)}
    fill(codec, tensors, str(path))
    return codec, name, rest


def _transformer_config(state, path: Path, parts: int, heads: int | None) -> TransformerConfig:
    width, dim = _shape(state, "input_process.poseEmbedding.weight", path)
    if heads is None:
        if width % _HEAD_WIDTH:
            raise CheckpointError(f"{path}: expected a width that is a multiple of {_HEAD_WIDTH}, got {width}; give `heads`, the "
                                  "number of attention heads, which no tensor tells")
        heads = width // _HEAD_WIDTH
    return TransformerConfig(
        codes=_shape(state, "output_process.poseFinal.weight", path)[0], code_dim=dim, parts=parts, width=width, heads=heads,
        layers=_count(state, r"Transformer\.blocks\.(\d+)\."),
        ff=_shape(state, "Transformer.blocks.0.ffn_combined.model.0.weight", path)[0],
        condition=_shape(state, "cond_emb.weight", path)[1])


def _published_name(ours: str, table: dict[str, str]) -> str:
    """Our tensor's name under the published one; `table` maps published prefixes to ours."""
    for theirs, prefix in table.items():
        if ours.startswith(prefix + "."):
            return theirs + ours[len(prefix):]
    raise AssertionError(f"no published name for {ours}")


def transformer_keys(transformer: InterMTransformer) -> dict[str, str]:
    """Published name to ours, of every tensor of the transformer."""
    names = {}
    for ours in transformer.state_dict():
        if ours.startswith("blocks."):
            _, index, tail = ours.split(".", 2)
            names[f"Transformer.blocks.{index}." + _published_name(tail, _BLOCK)] = ours
        else:
            names[_published_name(ours, _TRANSFORMER)] = ours
    return names


def _check_frequencies(state, path: Path) -> None:
    """The one published tensor we compute ourselves: it must be what we compute."""
    found = state.pop(_FREQUENCIES, None)
    if found is None:
        raise CheckpointError(f"{path}: missing {_FREQUENCIES}; take an unchanged published checkpoint")
    step = 2 * torch.arange(len(found)) / (2 * len(found))
    if not torch.allclose(found, 10000.0 ** -step, rtol=1e-4):
        raise CheckpointError(f"{path}: expected the sine frequencies 10000^(-2i/d), got others; this is another model")


def _load_transformer(path: Path, parts: int, heads: int | None):
    state, _ = _read(path, "t2m_transformer")
    config = _transformer_config(state, path, parts, heads)
    _check_frequencies(state, path)
    text = TextConfig(width=config.condition, layers=_count(state, r"clipTrans\.layers\.(\d+)\."),
                      ff=_shape(state, "clipTrans.layers.0.linear1.weight", path)[0])
    transformer, head = InterMTransformer(config).eval(), text_module(text).eval()
    names = {k: f"transformer.{v}" for k, v in transformer_keys(transformer).items()}
    names |= {_published_name(ours, _TEXT): f"text.{ours}" for ours in head.state_dict()}
    tensors = _rename(state, names, path)
    for prefix, module in (("transformer.", transformer), ("text.", head)):
        fill(module, {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}, str(path))
    return transformer, text, head


def _load_statistics(path, joints: int, features: int):
    """A float array [262] or [J, F] of an .npy file."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: expected an .npy array of statistics, but it cannot be read ({error})") from error
    good = values.shape == (joints, features) or (values.shape == (ROW,) and (joints, features) == (22, 12))
    if not good or not np.isfinite(values).all():
        raise CheckpointError(f"{path}: expected finite statistics [{joints}, {features}]"
                              f"{f' or [{ROW}]' if features == 12 else ''}, got shape {list(values.shape)} or values that are "
                              "not finite; take the data set's global_mean.npy and global_std.npy")
    return torch.as_tensor(values, dtype=torch.float32)


def _normalizer(mean, std, joints: int, features: int) -> Normalizer:
    if mean is None and std is None:
        log.warning("no statistics given: features will not be normalised, and a published model expects them to be; give the "
                    "data set's global_mean.npy and global_std.npy")
        return Normalizer.identity(joints, features)
    if mean is None or std is None:
        raise CheckpointError("import: expected both the mean and the std, or neither, got one; give both files")
    mean, std = (_load_statistics(p, joints, features) for p in (mean, std))
    if mean.shape != std.shape:
        raise CheckpointError(f"import: expected mean and std of one shape, got {list(mean.shape)} and {list(std.shape)}")
    return Normalizer(*(statistics_image(mean, std) if mean.ndim == 1 else (mean, std)))


def import_intermask(codec, transformer, mean=None, std=None, *, heads: int | None = None) -> ModelParts:
    """A model from published files: ``codec`` and ``transformer`` .tar, ``mean`` and ``std`` .npy ([262], contacts left out).

    Without statistics the normaliser changes nothing, with a warning. ``heads`` is told only for a transformer whose width
    is no multiple of 64. Every key must be there and known: CheckpointError otherwise.
    """
    ours, name, rest = _load_codec(Path(codec))
    trained, text, head = _load_transformer(Path(transformer), ours.config.parts, heads)
    config = ModelConfig(representation=name, codec=ours.config, transformer=trained.config, text=text, window=LONGEST,
                         name="intermask")
    card = {"source": "imported from published InterMask checkpoints", "files": [Path(codec).name, Path(transformer).name]}
    if isinstance(rest.get("ep"), int):
        card["codec_epoch"] = rest["ep"]
    return ModelParts(config, ours, _normalizer(mean, std, ours.config.joints, ours.config.features), trained, head, None, card)


def import_clip(folder: str | Path, out: str | Path) -> Path:
    """Write the text tower of a CLIP folder with a ``pytorch_model.bin`` to the folder ``out`` as `ClipTower` takes it.

    ``tokenizer.json`` and ``config.json`` are copied. Returns the written model.safetensors. CheckpointError for a missing,
    damaged or unfit file.
    """
    folder, out = Path(folder), Path(out)
    path = folder / "pytorch_model.bin"
    state = _unpickle(path, f"{WANTED} or a pytorch_model.bin")
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointError(f"{path}: expected a state dict of tensors, got {type(state).__name__}; take {WANTED}")
    names, prefix = text_keys(state, path)
    beside = {name: folder / name for name in (TOKENIZER, CONFIG)}
    for file in beside.values():
        if not file.is_file():
            raise CheckpointError(f"{file}: expected it beside {path.name}, got nothing there; fetch it too")
    write_container(out / WEIGHTS, {name: state[prefix + name].contiguous() for name in names}, {"format": "pt"})
    for name, file in beside.items():
        if file.resolve() != (out / name).resolve():
            with replacing(out / name) as copy:
                shutil.copyfile(file, copy)
    return out / WEIGHTS
