"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from rtinteract.errors import MotionError


@contextmanager
def replacing(path):
    """A temporary path beside ``path``, with its suffix, that takes its place once the block has ended well.

    MotionError when the folder is missing or cannot be written; whatever goes wrong, ``path`` stays as it was.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise MotionError(f"cannot write {path}: expected an existing folder, got {path.parent}, which is none; make it first")
    if path.is_dir():
        raise MotionError(f"cannot write {path}: expected a file name, got a folder; add a name to it")
    try:
        handle, name = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise MotionError(f"cannot write {path}: {error.strerror}; choose a folder that you may write to") from error
    beside = Path(name)
    try:
        yield beside
        # mkstemp makes files that only their owner may read.
        mask = os.umask(0)
        os.umask(mask)
        beside.chmod(0o666 & ~mask)
        os.replace(beside, path)
    except OSError as error:
        raise MotionError(f"cannot write {path}: {error.strerror or error}; check the disk and the folder's rights") from error
    finally:
        beside.unlink(missing_ok=True)
