"""The .safetensors container: written whole or not at all, and read with a word on what is wrong with a bad one."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rtinteract.errors import CheckpointError


def check_container(path: Path, otherwise: str) -> None:
    """CheckpointError for a file that is missing, cut short, or of another kind, before its tensors are read.

    `otherwise` is what to do with a file of another kind.
    """
    if not path.is_file():
        there = "a folder" if path.is_dir() else "nothing"
        raise CheckpointError(f"{path}: expected a .safetensors file, got {there} there; check the path")
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        start = file.read(1)
        if size < 9 or start != b"{" or length > 100_000_000:
            raise CheckpointError(f"{path}: expected a .safetensors file, got another kind of file; {otherwise}")
        header = start + file.read(length - 1)
    if len(header) == length:
        try:
            entries = json.loads(header)
            length += 8 + max((v["data_offsets"][1] for k, v in entries.items() if k != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: the .safetensors header is damaged ({error}); fetch it again") from error
    if size < length:
        raise CheckpointError(f"{path}: expected {length} bytes or more, got {size}: the file was cut short; fetch it again")


def read_container(path: Path, otherwise: str) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """(metadata, tensors) of a file; CheckpointError as `check_container` has it."""
    check_container(path, otherwise)
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); fetch it again") from error


def write_container(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write a file whole or not at all; CheckpointError when the folder or the disk does not let it."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        # save_file makes files that only their owner may read.
        beside.touch()
        mode = beside.stat().st_mode
        save_file(tensors, beside, metadata=metadata)
        beside.chmod(mode)
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be written ({error}); check the folder and the free space") from error
    finally:
        beside.unlink(missing_ok=True)
