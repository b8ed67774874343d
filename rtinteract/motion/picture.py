"""Pictures of motions: a contact sheet (.png), an animation (.gif, .mp4), and sheets of many clips."""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from rtinteract.errors import MotionError, RtInteractError
from rtinteract.motion.atomic import replacing
from rtinteract.motion.draw import BACKGROUND, INK, PEOPLE, Scene, pillow, shade
from rtinteract.motion.types import Motion

PANELS = 10
_GIF_FPS = 20.0
_MP4_FPS = 30.0
_MOVIE = (640, 480)
_PANEL, _GAP = 300, 3
_SHEET_WIDTH = 2400
# Pillow holds every page of a GIF in memory, 0.3 MB each: a minute is what fits anywhere.
_GIF_PAGES = 1200


def _people(motions) -> list[Motion]:
    """A list of checked motions at one frame rate, whatever of them was given."""
    motions = [motions] if isinstance(motions, Motion) else list(motions)
    if not motions or not all(isinstance(m, Motion) for m in motions):
        got = ", ".join(type(m).__name__ for m in motions) or "none"
        raise MotionError(f"picture: expected one Motion or several, got {got}; read them with rtinteract.read_motion")
    # Rebuilding runs the checks again: arrays may have been written to since.
    motions = [replace(m) for m in motions]
    fps = motions[0].fps
    return [m if m.fps == fps else m.resampled(fps) for m in motions]


def _chosen(frames, total, default):
    """Frame indices: ``frames`` is None, a count of evenly spaced ones, or the indices themselves."""
    if frames is None or isinstance(frames, (int, np.integer)):
        count = default if frames is None else int(frames)
        if count < 1:
            raise MotionError(f"picture: expected at least one frame, got frames={frames}; leave it out for {default}")
        return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
    index = np.asarray(list(frames), dtype=int)
    if index.size == 0 or index.min() < 0 or index.max() >= total:
        raise MotionError(f"picture: expected frame indices from 0 to {total - 1}, got {index.tolist()}; "
                          f"the clip has {total} frames")
    return index


def write_picture(path, motions, *, title=None, frames=None, names=None) -> None:
    """Draw one Motion, or several in one scene, on a metre grid: .png, .gif or .mp4 by the suffix of ``path``.

    Each person has a colour, the right side a darker shade of it; the line on the floor is the root's path. .png is a
    contact sheet of ``frames`` evenly spaced panels (10); .gif and .mp4 play at the clip's own speed, a .gif at most a minute.
    ``frames`` may also list the frame indices to show. ``names`` label the people. Shorter clips hold their last frame;
    other frame rates are resampled to the first motion's. Raises MotionError on a suffix or motion that cannot be drawn or a
    path that cannot be written, and RtInteractError when Pillow (or, for .mp4, ffmpeg) is missing; no part of a file is left.
    """
    path = Path(path)
    kinds = {".png": _write_png, ".gif": _write_gif, ".mp4": _write_mp4}
    write = kinds.get(path.suffix.lower())
    if write is None:
        raise MotionError(f"picture: expected a file name that ends in .png, .gif or .mp4, got {path.name!r}; rename it")
    people = _people(motions)
    write(path, people, title, frames, _labels(names, len(people)))


def _labels(names, count):
    names = [] if names is None else [names] if isinstance(names, str) else list(names)
    if names and len(names) != count:
        raise MotionError(f"picture: expected {count} names, one for each person, got {len(names)}")
    return names


def _text(draw, place, text, size, fill=INK, anchor="la"):
    _, _, fonts = pillow()
    draw.text(place, text, font=fonts.load_default(size), fill=fill, anchor=anchor)


def _legend(draw, place, names, size):
    x, y = place
    _, _, fonts = pillow()
    font = fonts.load_default(size)
    for person, name in enumerate(names):
        draw.text((x, y), name, font=font, fill=shade(PEOPLE[person % len(PEOPLE)], 0.85), anchor="la")
        x += font.getlength(name) + size


def _panel(scene, size, frame, caption=None, sample=2):
    """An image of one frame, drawn ``sample`` times larger and reduced, which smooths every edge."""
    images, drawing, _ = pillow()
    image = images.new("RGB", (size[0] * sample, size[1] * sample), BACKGROUND)
    scene.draw(drawing.Draw(image), image.size, frame, line=sample * max(0.6, size[1] / 400))
    image = image.reduce(sample)
    if caption:
        _text(drawing.Draw(image), (8, 6), caption, max(11, size[1] // 24))
    return image


def _write_png(path, motions, title, frames, names):
    images, drawing, _ = pillow()
    scene = Scene(motions)
    size = (_PANEL, round(_PANEL / scene.aspect))
    wide, high = size[0] + _GAP, size[1] + _GAP
    index = _chosen(frames, scene.frames, PANELS)
    columns = min(len(index), 5 if len(index) > 4 else 4)
    rows = math.ceil(len(index) / columns)
    head = 34 if title or names else 0
    sheet = images.new("RGB", (columns * wide - _GAP, rows * high - _GAP + head), (255, 255, 255))
    for i, frame in enumerate(index):
        panel = _panel(scene, size, frame, f"{frame / motions[0].fps:.2f} s", sample=3)
        sheet.paste(panel, (i % columns * wide, i // columns * high + head))
    _heading(drawing.Draw(sheet), title, names, 18)
    with replacing(path) as beside:
        sheet.save(beside, format="PNG", optimize=False)


def _heading(draw, title, names, size):
    if title:
        _text(draw, (10, 8), title, size)
    start = 10
    if title:
        _, _, fonts = pillow()
        start += fonts.load_default(size).getlength(title) + 2 * size
    _legend(draw, (start, 8), names, size)


def _movie(motions, frames, fps):
    """A scene, the frame indices of an animation and the rate they play at: those nearest to ``fps``, or those asked for."""
    scene = Scene(motions, _MOVIE[0] / _MOVIE[1])
    if frames is None:
        count = max(1, round(scene.frames / motions[0].fps * fps))
        index = np.minimum((np.arange(count) * motions[0].fps / fps).round().astype(int), scene.frames - 1)
    else:
        index = _chosen(frames, scene.frames, scene.frames)
        fps = min(fps, len(index) / (scene.frames / motions[0].fps))
    return scene, index, fps


def _page(scene, frame, fps, title, names):
    _, drawing, _ = pillow()
    image = _panel(scene, _MOVIE, frame)
    draw = drawing.Draw(image)
    _heading(draw, title, names, 16)
    _text(draw, (_MOVIE[0] - 10, 8), f"{frame / fps:.2f} s", 16, anchor="ra")
    return image


def _write_gif(path, motions, title, frames, names):
    images, _, _ = pillow()
    scene, index, rate = _movie(motions, frames, _GIF_FPS)
    if len(index) > _GIF_PAGES:
        raise MotionError(f"picture: expected at most {_GIF_PAGES} pages in a GIF (a minute), got {len(index)}; cut the clip, "
                          "such as motion[:900], give fewer `frames`, or write a .mp4")
    pages, palette = [], None
    for frame in index:
        image = _page(scene, frame, motions[0].fps, title, names)
        if palette is None:
            # One palette for all: colours then do not flicker from page to page, and each page is coded faster.
            palette = image.quantize(128, method=images.Quantize.MEDIANCUT, dither=images.Dither.NONE)
        pages.append(image.quantize(palette=palette, dither=images.Dither.NONE))
    with replacing(path) as beside:
        pages[0].save(beside, format="GIF", save_all=True, append_images=pages[1:], duration=round(1000 / rate), loop=0)


def _ffmpeg() -> str:
    try:
        import imageio_ffmpeg
        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        found = shutil.which("ffmpeg")
    if found is None:
        raise RtInteractError("an .mp4 needs ffmpeg, which was not found; pip install imageio-ffmpeg, or write a .gif instead")
    return found


def _write_mp4(path, motions, title, frames, names):
    program = _ffmpeg()
    scene, index, rate = _movie(motions, frames, _MP4_FPS)
    with replacing(path) as beside:
        command = [program, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{_MOVIE[0]}x{_MOVIE[1]}",
                   "-r", f"{rate:g}", "-i", "-", "-an", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(beside)]
        # Pages go to ffmpeg as they are drawn: a long clip would not fit in memory.
        with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log) as coder:
            try:
                for frame in index:
                    coder.stdin.write(_page(scene, frame, motions[0].fps, title, names).tobytes())
            except BrokenPipeError:
                pass
            coder.communicate()
            log.seek(0)
            said = log.read().decode(errors="replace").strip()
        if coder.returncode:
            raise RtInteractError(f"ffmpeg could not write {path}: {said}; write a .gif instead")


def write_sheet(path, pairs, columns=5, titles=None, frames_per_pair=5) -> None:
    """A .png of many clips: each of ``pairs`` (a Motion or several) is a strip of frames in one cell of a grid.

    ``titles`` stand above the cells. Raises MotionError as `write_picture` does.
    """
    path, pairs = Path(path), list(pairs)
    if path.suffix.lower() != ".png":
        raise MotionError(f"sheet: expected a file name that ends in .png, got {path.name!r}; rename it")
    titles = [""] * len(pairs) if titles is None else [str(t) for t in titles]
    if not pairs or len(titles) != len(pairs):
        raise MotionError(f"sheet: expected at least one clip and a title for each, got {len(pairs)} clips and "
                          f"{len(titles)} titles")
    if columns < 1 or frames_per_pair < 1:
        raise MotionError(f"sheet: expected at least one column and one frame, got {columns} and {frames_per_pair}")
    images, drawing, _ = pillow()
    columns = min(columns, len(pairs))
    width = max(90, _SHEET_WIDTH // (columns * frames_per_pair))
    size, head, gap = (width, round(width * 1.15)), 18, 6
    cell = (width * frames_per_pair + gap, size[1] + head + gap)
    sheet = images.new("RGB", (columns * cell[0], math.ceil(len(pairs) / columns) * cell[1]), (255, 255, 255))
    draw = drawing.Draw(sheet)
    for i, (pair, title) in enumerate(zip(pairs, titles, strict=True)):
        scene = Scene(_people(pair), size[0] / size[1])
        x, y = i % columns * cell[0], i // columns * cell[1]
        for k, frame in enumerate(_chosen(frames_per_pair, scene.frames, frames_per_pair)):
            sheet.paste(_panel(scene, size, frame, sample=3), (x + k * width, y + head))
        _text(draw, (x + 3, y + 3), title, 12)
    with replacing(path) as beside:
        sheet.save(beside, format="PNG")
