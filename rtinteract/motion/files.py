"""Motion files by suffix: `read_motion` and `write_motion`."""

from __future__ import annotations

import gzip
import lzma
import zlib
from pathlib import Path

from rtinteract.errors import MotionError, SkeletonError
from rtinteract.motion import cmu
from rtinteract.motion.acclaim import read_amc, read_asf
from rtinteract.motion.archive import read_archive, write_archive
from rtinteract.motion.bvh import read_bvh
from rtinteract.motion.contacts import retarget_pair
from rtinteract.motion.expmap import read_expmap
from rtinteract.motion.presets import preset
from rtinteract.motion.retarget import retarget
from rtinteract.motion.settle import settle
from rtinteract.motion.types import Motion
from rtinteract.skeleton import upright

PACKED = (".xz", ".gz")
READABLE = (".bvh", ".amc", ".txt", ".npz")
WRITABLE = (".bvh", ".glb", ".npz", ".png", ".gif", ".mp4")


def stem_and_suffix(path) -> tuple[str, str]:
    """("01_01", ".amc") of "amc/01_01.amc.xz": the name and the format below any compression, the suffix in lower case."""
    path = Path(path)
    if path.suffix.lower() in PACKED:
        path = Path(path.stem)
    return path.stem, path.suffix.lower()


def read_bytes(path) -> bytes:
    """The file's bytes, unpacked when it ends in .xz or .gz; MotionError when it is missing or damaged."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MotionError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise MotionError(f"{path}: expected a readable file, got {error.strerror or error}; check the path") from None
    packing = path.suffix.lower()
    try:
        return lzma.decompress(data) if packing == ".xz" else gzip.decompress(data) if packing == ".gz" else data
    except (lzma.LZMAError, OSError, EOFError, zlib.error) as error:
        raise MotionError(f"{path}: expected {packing} data, got {error}; the file is cut short or damaged") from None


def read_text(path) -> str:
    """The file's text (UTF-8 or Latin-1); MotionError when it is binary."""
    data = read_bytes(path)
    if b"\0" in data[:100_000]:
        raise MotionError(f"{path}: expected a text file, got binary data; check the file's type")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_motion(path, *, skeleton=None, units=None, drop_first=None, joint_map=None) -> Motion:
    """One person's clip from a .bvh, .amc, rotation-vector .txt or .npz file, also packed as .xz or .gz.

    ``skeleton``: path of the .asf of an .amc (else `<subject>.asf` beside it or in `../asf`), or of the skeleton JSON of a .txt.
    ``units``: "m", "cm", "mm", "inch", "cmu" or the metres in one unit; found from the body's height when None.
    ``drop_first``: drop frame 0; None drops it when it is a T-pose that the clip leaves at a bound.
    ``joint_map``: {SMPL-22 joint: joint of the file} for skeletons that are not recognised by name.
    Raises MotionError or SkeletonError; `Motion.notes` says what was assumed or mended.
    """
    what = str(path)
    stem, suffix = stem_and_suffix(path)
    if suffix == ".npz":
        motion = read_archive(read_bytes(path), what)
        return motion[1:] if drop_first else motion
    if suffix == ".bvh":
        clip = read_bvh(read_text(path), what)
    elif suffix == ".amc":
        asf = _find_asf(Path(path), stem) if skeleton is None else Path(skeleton)
        clip = read_amc(read_text(path), read_asf(read_text(asf), str(asf)), what, cmu.trial_rate(stem))
        clip.notes.append(f"skeleton {asf.name}; {clip.fps:g} Hz (the format does not say)")
    elif suffix == ".txt":
        clip = read_expmap(read_text(path), read_text(_find_json(Path(path)) if skeleton is None else skeleton), what)
    else:
        raise MotionError(f"{what}: expected one of {', '.join(READABLE)} (also .xz or .gz), got {suffix or 'no suffix'!r}; "
                          "convert the file")
    clip.name = stem
    try:
        return settle(clip, length_unit=units, drop_first=drop_first, joint_map=joint_map)
    except (MotionError, SkeletonError) as error:
        raise type(error)(f"{what}: {error}") from None


def _find_asf(path: Path, stem: str) -> Path:
    subject = stem.split("_")[0]
    for folder in (path.parent, path.parent / "asf", path.parent.parent / "asf"):
        for name in (f"{subject}.asf", f"{stem}.asf"):
            for packing in ("", *PACKED):
                if (folder / (name + packing)).is_file():
                    return folder / (name + packing)
    raise SkeletonError(f"{path}: an AMC needs its skeleton, and there is no {subject}.asf beside it or in an asf/ folder; give "
                        "skeleton=PATH of the .asf")


def _find_json(path: Path) -> Path:
    for folder in (path.parent, path.parent.parent):
        if (folder / "skeleton.json").is_file():
            return folder / "skeleton.json"
    raise SkeletonError(f"{path}: rotation-vector text needs its skeleton, and there is no skeleton.json beside it or above; "
                        "give skeleton=PATH of the JSON")


def write_motion(path, motion, *, skeleton=None, **options) -> None:
    """Write one Motion or a pair (actor, reactor) by suffix: .bvh, .glb, .npz, or a picture .png, .gif, .mp4.

    ``skeleton``: the bones to write them on, an engine's by name ("ue5", see `rtinteract.motion.PRESETS`) or a Skeleton; a
    pair's hands still meet. A pair as .bvh becomes two files, `stem.a.bvh` and `stem.b.bvh`. ``options`` go to the format's
    writer. Files appear whole or not at all. Raises MotionError for another suffix.
    """
    path = Path(path)
    motions = (motion,) if isinstance(motion, Motion) else tuple(motion)
    if not motions or not all(isinstance(m, Motion) for m in motions):
        raise MotionError(f"{path}: expected a Motion or a pair of them, got {type(motion).__name__}")
    suffix = path.suffix.lower()
    if skeleton is not None:
        motions = _on_bones(motions, skeleton, suffix)
    if suffix == ".bvh":
        from rtinteract.motion.write_bvh import write_bvh
        if len(motions) == 1:
            write_bvh(path, motions[0], **options)
        else:
            for letter, one in zip("abcdefgh", motions, strict=False):
                write_bvh(path.with_name(f"{path.stem}.{letter}.bvh"), one, **options)
    elif suffix == ".glb":
        from rtinteract.motion.gltf import write_gltf
        write_gltf(path, motions, **options)
    elif suffix == ".npz":
        write_archive(path, motions, **options)
    elif suffix in (".png", ".gif", ".mp4"):
        from rtinteract.motion.picture import write_picture
        write_picture(path, motions, **options)
    else:
        raise MotionError(f"{path}: expected one of {', '.join(WRITABLE)}, got {suffix or 'no suffix'!r}; choose one of these")


def _on_bones(motions, skeleton, suffix):
    """The same people on ``skeleton``, a preset's name or a Skeleton."""
    skeleton = preset(skeleton) if isinstance(skeleton, str) else skeleton
    if suffix == ".bvh":
        # The format has no rest rotations: every reader takes the pose of zeros for the rest pose.
        skeleton = upright(skeleton)
    if len(motions) == 2:
        return retarget_pair(motions, (skeleton, skeleton))
    return tuple(retarget(m, skeleton) for m in motions)
