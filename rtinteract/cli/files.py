"""What the commands share: reading an actor, and checking what will be written before the work begins."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path

import typer

from rtinteract.errors import ConfigError, MotionError, RtInteractError
from rtinteract.motion import Motion, read_motion, write_motion
from rtinteract.motion.files import WRITABLE, stem_and_suffix

SKELETON = typer.Option(None, help="The .asf of an .amc file (or the .json of rotation-vector text), if it does not lie "
                        "beside it.")
UNITS = typer.Option(None, help="Length unit of the file: m, cm, mm, inch, cmu, or the metres in one unit; without it, "
                     "the body's height tells.")
JOINT_MAP = typer.Option(None, help="JSON {SMPL-22 joint: joint of the file}, for a skeleton that is not recognised.")
_NEEDS = {".glb": ("pygltflib", "demo"), ".png": ("PIL", "view"), ".gif": ("PIL", "view"), ".mp4": ("PIL", "view")}


def check_folder(path: Path) -> None:
    """RtInteractError unless a file can be made at ``path``."""
    if path.is_dir():
        raise RtInteractError(f"{path}: expected a file to write, got a folder; add a file name")
    if not path.parent.is_dir():
        raise RtInteractError(f"{path}: expected an existing folder, but there is no {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise RtInteractError(f"{path}: the folder {path.parent} cannot be written to; choose another or mend its rights")


def check_outputs(paths: Sequence[Path], *inputs: Path) -> None:
    """RtInteractError for an output that could not be written, so that nothing is computed in vain or written in part."""
    for path in paths:
        suffix = path.suffix.lower()
        if suffix not in WRITABLE:
            raise MotionError(f"{path}: expected one of {', '.join(WRITABLE)}, got {suffix or 'no suffix'!r}; rename it")
        check_folder(path)
        if any(path.resolve() == given.resolve() for given in inputs):
            raise MotionError(f"{path}: this is the file that is read; write to another one")
        library, extra = _NEEDS.get(suffix, (None, None))
        if library and importlib.util.find_spec(library) is None:
            raise RtInteractError(f"{path}: {suffix} needs {library}, which is not installed; run pip install "
                                  f"'rtinteract[{extra}]'")


def make_folder(path: Path) -> None:
    """A folder for results, made if it is not there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RtInteractError(f"{path}: cannot be made a folder ({error.strerror}); choose another --out") from error
    check_folder(path / "file")


def json_of(path: Path) -> dict:
    """The JSON object of a file; ConfigError for anything else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path}: expected a JSON file, got {error}; mend it or check the path") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a JSON object, got {type(values).__name__}; mend it")
    return values


def texts_of(path: Path) -> list[str]:
    """The texts of a file, one a line; blank lines are left out, and a file without text is a ConfigError."""
    try:
        texts = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a UTF-8 text file, one text a line, got {error}; mend it or check the "
                          "path") from error
    if not texts:
        raise ConfigError(f"{path}: expected one text a line, got no text; write some")
    return texts


def units_of(text: str | None) -> str | float | None:
    """A unit's name, or the metres in one unit."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def read_actor(path: Path, skeleton: Path | None, units: str | None, joint_map: Path | None) -> Motion:
    """A motion file in the model's form; what its reader assumed is told."""
    names = None if joint_map is None else json_of(joint_map)
    actor = read_motion(path, skeleton=skeleton, units=units_of(units), joint_map=names)
    typer.echo(f"{path.name}: {len(actor)} frames at {actor.fps:g} fps, skeleton {actor.skeleton.name} of "
               f"{len(actor.skeleton)} joints")
    for note in actor.notes:
        typer.echo(f"  {note}")
    return actor.to_model()


def stem_of(path: Path) -> str:
    """A motion file's name without its folder and endings."""
    return stem_and_suffix(path)[0]


def write_all(paths: Sequence[Path], motions: Motion | tuple[Motion, Motion]) -> None:
    """Write to every path, and say so."""
    for path in paths:
        write_motion(path, motions)
        written = [path]
        if path.suffix.lower() == ".bvh" and not isinstance(motions, Motion):
            written = [path.with_name(f"{path.stem}.{letter}.bvh") for letter in "ab"]
        typer.echo(f"wrote {' and '.join(map(str, written))}")


def check_model(path: Path | None) -> None:
    """ConfigError when the path given as a model is a motion file: the two are easily swapped."""
    if path is not None and stem_and_suffix(path)[1] in (".bvh", ".amc", ".npz"):
        raise ConfigError(f"--model: expected a .safetensors file, got {path}, a motion file; give it without --model")
