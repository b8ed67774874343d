"""Drawing people: a perspective camera and a painter of capsules, floor, shadows and trails on a PIL image.

matplotlib redraws a 3D axis in about 0.1 s; this takes a tenth of that, which makes a GIF of a clip a matter of seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rtinteract.errors import RtInteractError
from rtinteract.motion.capsules import bones, capsules
from rtinteract.skeleton import world_rotations

BACKGROUND = (250, 250, 248)
FLOOR = (238, 238, 234)
GRID = (212, 212, 208)
SHADOW = (206, 206, 204)
INK = (60, 60, 64)
# A colour for each person's midline and left; the right side is a darker shade of it.
PEOPLE = ((235, 124, 52), (58, 124, 205), (92, 168, 92), (160, 100, 180))
# Figures are drawn slimmer than the body, so that limbs in front of it stay legible.
_SLIM = 0.78
_TILE = 0.5
_FLOOR_RADIUS = 4.0


def pillow():
    """The PIL modules (Image, ImageDraw, ImageFont), or an error that says how to get them."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise RtInteractError("pictures need Pillow, which is not installed; pip install rtinteract[view]") from error
    return Image, ImageDraw, ImageFont


def shade(colour, factor, towards=(0, 0, 0)):
    """``colour`` mixed with ``towards``: 1 keeps it, 0 replaces it."""
    return tuple(int(round(c * factor + t * (1 - factor))) for c, t in zip(colour, towards, strict=True))


@dataclass(frozen=True)
class Camera:
    """A pinhole: ``axes`` [3, 3] rows right, up, toward the viewer; ``target`` [3] and ``distance`` in metres.

    ``focal`` and ``centre`` [2] are shares of the image's height and of (width, height).
    """

    axes: np.ndarray
    target: np.ndarray
    distance: float
    focal: float
    centre: tuple[float, float]

    def project(self, points, size, shift=0.0):
        """Pixels [..., 2], depth [...] in metres and pixels a metre there [...] of points [..., 3]."""
        local = (points - self.target - shift) @ self.axes.T
        depth = np.maximum(self.distance - local[..., 2], 0.2)
        scale = self.focal * size[1] / depth
        xy = np.stack([self.centre[0] * size[0] + local[..., 0] * scale, self.centre[1] * size[1] - local[..., 1] * scale], -1)
        return xy, depth, scale


def _axes(azimuth, elevation):
    back = np.array([math.cos(elevation) * math.sin(azimuth), math.sin(elevation), math.cos(elevation) * math.cos(azimuth)])
    right = np.array([math.cos(azimuth), 0.0, -math.sin(azimuth)])
    return np.stack([right, np.cross(back, right), back])


def viewpoint(roots, forward) -> float:
    """Azimuth in radians: from the side of the line between two people, the first at the left; else from one's front.

    ``roots`` [P, T, 3]; ``forward`` [3] is the first person's mean facing.
    """
    line = (roots[1] - roots[0]).mean(0) if len(roots) > 1 else np.zeros(3)
    if math.hypot(line[0], line[2]) > 0.15:
        # Right of the image along the line; a quarter turn short of the exact side shows depth.
        return math.atan2(-line[2], line[0]) + math.radians(22)
    return math.atan2(forward[0], forward[2]) + math.radians(35)


def frame_camera(points, azimuth, aspect, elevation=0.3, margin=0.06, top=0.06) -> Camera:
    """The nearest camera from ``azimuth`` that holds points [N, 3] of a picture of ``aspect`` (width over height)."""
    low, high = points.min(0), points.max(0)
    target, focal = 0.5 * (low + high), 1.9
    near, far = 0.5, 400.0
    for _ in range(40):
        distance = math.sqrt(near * far)
        camera = Camera(_axes(azimuth, elevation), target, distance, focal, (0.5, 0.5))
        xy, _, _ = camera.project(points, (aspect, 1.0))
        span = xy.max(0) - xy.min(0)
        fits = span[0] <= aspect * (1 - 2 * margin) and span[1] <= 1 - 2 * margin - top
        near, far = (near, distance) if fits else (distance, far)
    camera = Camera(_axes(azimuth, elevation), target, far, focal, (0.5, 0.5))
    xy, _, _ = camera.project(points, (aspect, 1.0))
    middle = 0.5 * (xy.max(0) + xy.min(0))
    return Camera(camera.axes, target, far, focal, (1 - middle[0] / aspect, 1 - middle[1] + top / 2))


def _outlines(a, b, ra, rb, steps=7):
    """Polygons [N, 2 * steps, 2] around circles at a and b [N, 2] of radii ra and rb [N] and all between them."""
    d = b - a
    length = np.hypot(d[:, 0], d[:, 1])
    along = np.arctan2(d[:, 1], d[:, 0])
    tangent = np.arccos(np.clip((ra - rb) / np.maximum(length, 1e-6), -1, 1))
    t = np.linspace(-1, 1, steps)
    angle_b = along[:, None] + tangent[:, None] * t
    angle_a = along[:, None] + np.pi + (np.pi - tangent)[:, None] * t
    end_b = b[:, None] + rb[:, None, None] * np.stack([np.cos(angle_b), np.sin(angle_b)], -1)
    end_a = a[:, None] + ra[:, None, None] * np.stack([np.cos(angle_a), np.sin(angle_a)], -1)
    return np.concatenate([end_b, end_a], 1)


class Scene:
    """The people of a clip, ready to be drawn at any frame: world capsules, root trails and a camera.

    ``motions`` share a frame rate; a shorter one holds its last frame. ``aspect`` is the picture's width over height; None
    takes the clip's own, within limits.
    """

    def __init__(self, motions, aspect=None):
        self.frames = max(len(m) for m in motions)
        self.start, self.end, self.ra, self.rb, self.fill = [], [], [], [], []
        for person, motion in enumerate(motions):
            body = bones(motion.skeleton)
            index = np.minimum(np.arange(self.frames), len(motion) - 1)
            start, end = capsules(body, motion.positions, world_rotations(motion.skeleton, motion.rotations))
            self.start.append(start[index])
            self.end.append(end[index])
            self.ra += [b.radii[0] * _SLIM for b in body]
            self.rb += [b.radii[1] * _SLIM for b in body]
            colour = PEOPLE[person % len(PEOPLE)]
            self.fill += [shade(colour, 0.55 if b.side < 0 else 1.0) for b in body]
        self.start, self.end = np.concatenate(self.start, 1), np.concatenate(self.end, 1)
        self.ra, self.rb = np.array(self.ra), np.array(self.rb)
        self.roots = np.stack([m.root[np.minimum(np.arange(self.frames), len(m) - 1)] for m in motions])
        self.floor = min(0.0, float(np.quantile(self.end[..., 1].min(1), 0.05)) - 0.03) if self._sunk() else 0.0
        turns = world_rotations(motions[0].skeleton, motions[0].rotations)[:, 0]
        forward = np.stack([2 * (turns[:, 1] * turns[:, 3] + turns[:, 0] * turns[:, 2]), np.zeros(len(turns)),
                            1 - 2 * (turns[:, 1] ** 2 + turns[:, 2] ** 2)], -1).mean(0)
        self._aim(viewpoint(self.roots, forward), aspect)

    def _sunk(self):
        """Whether the floor is plainly not at height 0 (a clip that was never put on it)."""
        return float(self.end[..., 1].min()) < -0.5

    def _aim(self, azimuth, aspect):
        points = np.concatenate([self.start, self.end], 1)
        centres = 0.5 * (points.min(1) + points.max(1))
        centres[:, 1] = 0.0
        extent = (points.max(1) - points.min(1))[:, [0, 2]].max()
        travel = np.ptp(centres, axis=0).max()
        self.shift = np.zeros_like(centres)
        if travel > 1.3 * max(extent, 1.5):
            # Too far a walk to show from one place: the camera goes along, smoothly.
            width = min(self.frames, 31)
            padded = np.pad(centres, ((width // 2, width - 1 - width // 2), (0, 0)), mode="edge")
            self.shift = np.stack([np.convolve(padded[:, i], np.ones(width) / width, "valid") for i in range(3)], -1)
            points = points - self.shift[:, None]
        every = max(1, self.frames // 60)
        radius = np.concatenate([self.ra, self.rb]).max() * np.array([1, 0.6, 1])
        cloud = points[::every].reshape(-1, 3)
        feet = cloud * [1, 0, 1] + [0, self.floor, 0]
        cloud = np.concatenate([cloud + radius, cloud - radius * [1, 0, 1], feet])
        if aspect is None:
            xy, _, _ = frame_camera(cloud, azimuth, 1.0).project(cloud, (1.0, 1.0))
            span = np.ptp(xy, axis=0)
            aspect = float(np.clip(span[0] / (span[1] + 0.1), 0.8, 1.6))
        self.aspect = aspect
        self.camera = frame_camera(cloud, azimuth, aspect)

    def draw(self, draw, size, frame, offset=(0, 0), trail=True, line=1.0):
        """Draw one frame into the rectangle ``size`` at ``offset`` (pixels) of a PIL draw; ``line`` pixels for hairlines."""
        shift = self.shift[frame]
        self._floor(draw, size, shift, offset, line)
        if trail:
            self._trails(draw, size, frame, shift, offset, line)
        a, b = self.start[frame], self.end[frame]
        self._shadows(draw, size, a, b, shift, offset)
        pa, da, sa = self.camera.project(a, size, shift)
        pb, db, sb = self.camera.project(b, size, shift)
        pa, pb = pa + offset, pb + offset
        ra, rb = self.ra * sa, self.rb * sb
        edge = _outlines(pa, pb, ra + line, rb + line)
        body = _outlines(pa, pb, ra, rb)
        lift = np.array([-0.28, -0.34])
        shine = _outlines(pa + lift * ra[:, None], pb + lift * rb[:, None], 0.42 * ra, 0.42 * rb, 5)
        for i in np.argsort(-(da + db)):
            draw.polygon(edge[i].ravel().tolist(), fill=shade(self.fill[i], 0.55))
            draw.polygon(body[i].ravel().tolist(), fill=self.fill[i])
            draw.polygon(shine[i].ravel().tolist(), fill=shade(self.fill[i], 0.78, (255, 255, 255)))

    def _floor(self, draw, size, shift, offset, line):
        around = np.array([self.camera.target[0], 0, self.camera.target[2]]) + shift
        angle = np.linspace(0, 2 * np.pi, 49)[:-1]
        rim = around + _FLOOR_RADIUS * np.stack([np.cos(angle), 0 * angle, np.sin(angle)], -1)
        rim[:, 1] = self.floor
        xy, _, _ = self.camera.project(rim, size, shift)
        draw.polygon((xy + offset).ravel().tolist(), fill=FLOOR)
        n = int(_FLOOR_RADIUS / _TILE)
        steps = np.arange(-n, n + 1)
        for axis in (0, 2):
            across = (np.round(around[axis] / _TILE) + steps) * _TILE
            half = np.sqrt(np.maximum(_FLOOR_RADIUS**2 - (across - around[axis]) ** 2, 0))
            ends = np.zeros((len(across), 2, 3))
            ends[..., axis] = across[:, None]
            ends[..., 2 - axis] = around[2 - axis] + np.stack([-half, half], -1)
            ends[..., 1] = self.floor
            xy, _, _ = self.camera.project(ends, size, shift)
            for place, segment in zip(across, xy + offset, strict=True):
                whole = abs(place - round(place)) < 1e-6
                draw.line(segment.ravel().tolist(), fill=GRID if whole else shade(GRID, 0.45, FLOOR), width=max(1, round(line)))

    def _shadows(self, draw, size, a, b, shift, offset):
        flat = np.array([1, 0, 1])
        pa, _, sa = self.camera.project(a * flat + [0, self.floor, 0], size, shift)
        pb, _, sb = self.camera.project(b * flat + [0, self.floor, 0], size, shift)
        for outline in _outlines(pa + offset, pb + offset, 0.6 * self.ra * sa, 0.6 * self.rb * sb):
            draw.polygon(outline.ravel().tolist(), fill=SHADOW)

    def _trails(self, draw, size, frame, shift, offset, line):
        for person, roots in enumerate(self.roots):
            path = roots * [1, 0, 1] + [0, self.floor, 0]
            xy, _, _ = self.camera.project(path, size, shift)
            xy = xy + offset
            colour = PEOPLE[person % len(PEOPLE)]
            if self.frames > 1:
                draw.line(xy.ravel().tolist(), fill=shade(colour, 0.3, FLOOR), width=max(1, round(line)))
            if frame > 0:
                walked = xy[:frame + 1].ravel().tolist()
                draw.line(walked, fill=shade(colour, 0.75, FLOOR), width=max(1, round(2 * line)), joint="curve")
