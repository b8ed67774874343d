"""The published InterCLIP evaluator, a Lightning checkpoint, to ours. Nothing is unpickled but tensors and plain values."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from rtinteract.training.interclip import FEATURES, InterClip, InterClipConfig, Words, save_evaluator, sines

from rtinteract.checkpoint import fill, some
from rtinteract.clip import TOKENIZER
from rtinteract.config import TextConfig
from rtinteract.errors import CheckpointError

# No tensor tells the number of attention heads.
HEADS = 8
# Published prefix to ours.
_NAMES = {
    "motion_encoder.query_token": "motion.query", "motion_encoder.embed_motion": "motion.embed",
    "motion_encoder.transformer": "motion.transformer", "motion_encoder.out_ln": "motion.norm",
    "motion_encoder.out": "motion.out", "token_embedding": "text.embedding", "positional_embedding": "text.positions",
    "textTransEncoder": "text.head.encoder", "text_ln": "text.head.norm", "out": "text_out", "latent_scale": "scale",
}
_POSITIONS = "motion_encoder.sequence_pos_encoder.pe"


def _state(path: Path) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors, float32, without the name that training put before each."""
    if not path.is_file():
        raise CheckpointError(f"{path}: expected the published interclip.ckpt, got nothing there; check the path")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        # Only the first sentence: torch goes on to advise unpickling, which is never right here.
        reason = re.split(r"\.\s|\n", str(error))[0]
        raise CheckpointError(f"{path}: expected a torch checkpoint of tensors, but it cannot be read ({reason}); fetch it "
                              "again") from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointError(f"{path}: expected an entry 'state_dict' of tensors, got another file; take the published "
                              "interclip.ckpt")
    return {k.removeprefix("model."): v.float() for k, v in state.items()}


def _config(state: dict[str, torch.Tensor], path: Path) -> InterClipConfig:
    """Sizes from the shapes."""
    def shape(key: str) -> torch.Size:
        if key not in state:
            raise CheckpointError(f"{path}: expected a tensor {key}, got {some(state)}; take the published interclip.ckpt")
        return state[key].shape

    def layers(prefix: str) -> int:
        found = [int(m.group(1)) for m in map(re.compile(prefix + r"\.layers\.(\d+)\.").match, state) if m]
        return 1 + max(found, default=0)

    width, columns = shape("motion_encoder.embed_motion.weight")
    if columns != 2 * FEATURES:
        raise CheckpointError(f"{path}: expected an evaluator of {2 * FEATURES} features (two people of {FEATURES}), got "
                              f"{columns}; take the published one of InterHuman")
    vocabulary, text_width = shape("token_embedding.weight")
    return InterClipConfig(
        patch=1, width=width, layers=layers(r"motion_encoder\.transformer"), heads=HEADS,
        ff=shape("motion_encoder.transformer.layers.0.linear1.weight")[0], embedding=shape("motion_encoder.out.weight")[0],
        text=TextConfig(kind="clip", width=text_width, layers=layers("textTransEncoder"), heads=HEADS,
                        ff=shape("textTransEncoder.layers.0.linear1.weight")[0], vocabulary=vocabulary,
                        max_tokens=shape("positional_embedding")[0]))


def _ours(name: str) -> str:
    for theirs, prefix in _NAMES.items():
        if name == theirs or name.startswith(theirs + "."):
            return prefix + name[len(theirs):]
    return name


def import_evaluator(checkpoint: str | Path, tokenizer: str | Path, out: str | Path) -> InterClipConfig:
    """Write the published evaluator as ``out``; returns its sizes. ``tokenizer`` is CLIP's tokenizer.json, or its folder.

    The checkpoint brings CLIP's token embeddings along, so CLIP itself is not needed. Its motions are not normalised. Every
    tensor must be there and known: CheckpointError otherwise.
    """
    checkpoint, tokenizer = Path(checkpoint), Path(tokenizer)
    state = _state(checkpoint)
    config = _config(state, checkpoint)
    positions = state.pop(_POSITIONS, None)
    if positions is not None and not torch.allclose(positions, sines(*positions.shape), atol=1e-4):
        raise CheckpointError(f"{checkpoint}: expected sine positions, got others; this is another model")
    module = InterClip(config)
    own = module.state_dict()
    tensors = {_ours(name): tensor for name, tensor in state.items()}
    fill(module, tensors | {name: own[name] for name in ("motion.mean", "motion.std")}, str(checkpoint))
    tokenizer = tokenizer / TOKENIZER if tokenizer.is_dir() else tokenizer
    if not tokenizer.is_file():
        raise CheckpointError(f"{tokenizer}: expected CLIP's tokenizer.json, got nothing there; check the path")
    words = tokenizer.read_text(encoding="utf-8")
    Words(words, config.text)(["two people meet"])
    save_evaluator(Path(out), config, module.state_dict(), words, {"source": "imported from the published InterCLIP evaluator",
                                                                   "file": checkpoint.name})
    return config
