"""Files of a training run: the resumable state and the stage results, all written beside and then moved into place."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from rtinteract.training.model_stages import stage_of
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from rtinteract.checkpoint import FORMAT
from rtinteract.errors import CheckpointError

STAGE_VERSION = 1


def write_atomic(path: Path, data: bytes) -> None:
    """Write bytes so that ``path`` holds either the old or the new content, whenever the process or machine stops."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + f".{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Save a resumable state (tensors, numbers, text in dicts and lists); the previous one stays until this one is whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + f".{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Load what `save_state` wrote; CheckpointError if the file is damaged. Nothing but tensors and plain values is unpickled."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise CheckpointError(f"training state {path}: expected a state this trainer saved, got an unreadable file ({error}); "
                              "delete it to start again") from error


class Ema:
    """A running mean of a module's weights and statistics; codebooks and counts are copied, because they jump when codes restart.

    The decay warms up as (1 + step) / (10 + step), so that a short run is not the mean of its random start.
    """

    _COPIED = ("codebook", "code_sum", "code_count")

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def update(self, module: nn.Module, step: int) -> None:
        """Move toward the module's weights after optimiser step ``step`` (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            mean, now = [], []
            for name, value in module.state_dict().items():
                if value.is_floating_point() and not name.endswith(self._COPIED):
                    mean.append(self.weights[name])
                    now.append(value)
                else:
                    self.weights[name].copy_(value)
            torch._foreach_lerp_(mean, now, 1 - decay)


def save_stage(path: Path, kind: str, config: dict, modules: dict[str, dict[str, torch.Tensor]], card: dict,
               texts: dict[str, str] | None = None) -> None:
    """A stage's result as one .safetensors: prefixed tensors, and the JSON of config, card and texts in its metadata."""
    tensors = {f"{prefix}.{k}": v.detach().cpu().contiguous().clone()
               for prefix, state in modules.items() for k, v in state.items()}
    about = {"stage": kind, "stage_version": STAGE_VERSION, "config": config, "card": card, "texts": texts or {}}
    write_atomic(Path(path), to_bytes(tensors, {"rtinteract_stage": json.dumps(about)}))


def load_stage(path: Path, kind: str) -> tuple[dict, dict[str, dict[str, torch.Tensor]]]:
    """What `save_stage` wrote: its description and the tensors by prefix; CheckpointError if it is another kind of file.

    An assembled model is taken apart (`model_stages.stage_of`)."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{kind} file: expected a file at {path}, got none; train it first (rtinteract train {kind})")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") == FORMAT:
                return stage_of(path, kind)
            about = metadata.get("rtinteract_stage")
            tensors = {k: file.get_tensor(k) for k in file.keys()}
    except SafetensorError as error:
        raise CheckpointError(f"{kind} file {path}: expected a whole .safetensors file, got a damaged one ({error}); "
                              "train it again or restore a copy") from error
    about = json.loads(about) if about else {}
    if about.get("stage") != kind:
        raise CheckpointError(f"{path}: expected the result of training stage {kind!r}, got {about.get('stage')!r}; "
                              f"give the {kind}.safetensors that rtinteract train {kind} wrote")
    if about["stage_version"] > STAGE_VERSION:
        raise CheckpointError(f"{path}: expected stage format {STAGE_VERSION} or older, got {about['stage_version']}; "
                              "update rtinteract")
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        prefix, _, name = key.partition(".")
        parts.setdefault(prefix, {})[name] = value
    return about, parts
