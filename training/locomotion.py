"""Footprints first: where and when each foot stands, curved paths, and the body's base line that follows from the feet.

A person's plan is a list of plants for each foot (left 0, right 1). Everything else (pelvis, heading, swings) is a base line
computed from the plants plus a residual taken from a real clip against the same base line, so a plan that equals the clip
gives the clip back, and a bent path or another timing keeps every planted foot exactly where it stands.
Plan coordinates are (x, z) on the floor in metres, yaw in radians (positive turns +Z toward +X, that is to the left).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from rtinteract.training.gestures import smooth

# Toe joint ahead of the ankle at rest, in leg lengths (SMPL-22: 0.125 of 0.82 m).
TOE_AHEAD = 0.152
BASE_SMOOTH_S = 0.12


@dataclass
class Plant:
    """One stance of one foot: seconds, the toe joint's place (x, z) in metres and the foot's yaw."""

    start: float
    end: float
    place: np.ndarray
    yaw: float


@dataclass
class Stride:
    """A stretch of a real walk to lay over plan seconds: clip seconds = ``clip_start`` + (t - ``start``) * ``rate``.

    ``free``: the second from which both feet stood before it.
    """

    source: object
    start: float
    end: float
    clip_start: float
    rate: float
    gains: list[tuple[float, int, float]] = field(default_factory=list)
    free: float = -1e3


def turned(yaw, xz):
    """(x, z) vectors [..., 2] turned by yaw [...]."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.stack([xz[..., 0] * c + xz[..., 1] * s, -xz[..., 0] * s + xz[..., 1] * c], -1)


class Path:
    """A smooth path on the floor from (place, heading) to (place, heading), by arc length; straight on past its ends."""

    def __init__(self, start, start_yaw, end, end_yaw, bend=0.38):
        start, end = np.asarray(start, float), np.asarray(end, float)
        reach = bend * np.linalg.norm(end - start)
        p1 = start + reach * turned(start_yaw, np.array([0.0, 1.0]))
        p2 = end - reach * turned(end_yaw, np.array([0.0, 1.0]))
        u = np.linspace(0, 1, 121)[:, None]
        self._trace((1 - u)**3 * start + 3 * (1 - u)**2 * u * p1 + 3 * (1 - u) * u**2 * p2 + u**3 * end)

    @classmethod
    def through(cls, points):
        """The path along points [N, 2] that lie near together."""
        path = cls.__new__(cls)
        path._trace(np.asarray(points, float))
        return path

    def _trace(self, points):
        self.points = points
        steps = np.diff(self.points, axis=0)
        self.s = np.concatenate([[0], np.cumsum(np.linalg.norm(steps, axis=-1))])
        yaw = np.unwrap(np.arctan2(steps[:, 0], steps[:, 1]))
        self.yaws = np.interp(self.s, 0.5 * (self.s[1:] + self.s[:-1]), yaw)
        self.length = float(self.s[-1])

    def at(self, s: float):
        """Place (x, z) and yaw at arc length s."""
        yaw = float(np.interp(s, self.s, self.yaws))
        place = np.array([np.interp(s, self.s, self.points[:, 0]), np.interp(s, self.s, self.points[:, 1])])
        return place + turned(yaw, np.array([0.0, 1.0])) * (min(s, 0.0) + max(s - self.length, 0.0)), yaw


@dataclass
class Stance:
    """How a person stands: half width, splay of the toes and fore-aft stagger (metres, radians)."""

    half: float
    splay: float
    stagger: float

    @classmethod
    def drawn(cls, rng, leg):
        """A stance drawn for a leg length in metres."""
        return cls(leg * rng.uniform(0.10, 0.155), rng.uniform(0.02, 0.22), leg * rng.normal(0, 0.025))


class Plan:
    """Builds a person's footprints in order of time; ``leg`` is the leg length in metres."""

    def __init__(self, rng, leg, center, yaw):
        self.rng, self.leg = rng, leg
        self.stance = Stance.drawn(rng, leg)
        self.center, self.yaw = np.asarray(center, float), float(yaw)
        self.plants = [[], []]
        self.strides: list[Stride] = []
        self.swings: list[tuple[float, float, int]] = []
        for foot in (0, 1):
            place, foot_yaw = self.foot_at(foot, self.center, self.yaw)
            self.plants[foot].append(Plant(-1e3, 1e3, place, foot_yaw))

    def foot_at(self, foot, center, yaw, half=None, stagger=None):
        """Toe place and yaw of a foot that stands around a centre (below the pelvis)."""
        side = 1.0 if foot == 0 else -1.0
        half = self.stance.half if half is None else half
        stagger = self.stance.stagger if stagger is None else stagger
        foot_yaw = yaw + side * self.stance.splay
        ankle = np.asarray(center) + turned(yaw, np.array([side * half, side * stagger]))
        return ankle + turned(foot_yaw, np.array([0.0, TOE_AHEAD * self.leg])), foot_yaw

    def put(self, foot, lift, strike, place, yaw):
        """One step: the foot leaves at ``lift`` seconds and stands at ``place`` from ``strike`` on."""
        last = self.plants[foot][-1]
        last.end = lift
        yaw = last.yaw + (yaw - last.yaw + np.pi) % (2 * np.pi) - np.pi
        self.plants[foot].append(Plant(strike, 1e3, np.asarray(place, float), yaw))
        self.swings.append((lift, strike, foot))

    def ready(self, start):
        """``start``, or a moment after the last step where that ends later: nobody lifts a foot that still swings."""
        return max(start, max((strike for _, strike, _ in self.swings), default=-1e3) + 0.02)

    def step_pair(self, start, center, yaw, seconds=0.36, first=None, gap=0.06):
        """Both feet, one after the other, to a stance around a new centre; returns the time of the last strike."""
        about = (yaw - self.yaw + np.pi) % (2 * np.pi) - np.pi
        if first is None:
            # In a turn the inner foot opens the way, else the legs would cross.
            first = (0 if about > 0 else 1) if abs(about) > 0.4 else self.nearer(center)
        start = self.ready(start)
        for foot in (first, 1 - first):
            place, foot_yaw = self.foot_at(foot, center, yaw)
            self.put(foot, start, start + seconds, place, foot_yaw)
            start += seconds + gap
        self.center, self.yaw = np.asarray(center, float), yaw
        return start - gap

    def nearer(self, center):
        """The foot on the side of a new centre, which steps first."""
        across = turned(-self.yaw, np.asarray(center, float) - self.center)[0]
        return (0 if across > 0 else 1) if abs(across) > 0.02 else int(self.rng.integers(2))

    def turn(self, start, yaw, speed=1.9):
        """Turn on the spot to ``yaw`` with small steps at about ``speed`` rad/s; returns the time of the last strike."""
        delta = (yaw - self.yaw + np.pi) % (2 * np.pi) - np.pi
        if abs(delta) < 0.2:
            return start
        count = max(2, int(np.ceil(abs(delta) / 0.75)) + 1)
        period = np.clip(abs(delta) / speed / count, 0.34, 0.55)
        begin, start = self.yaw, self.ready(start)
        for k in range(count):
            foot = (k + (0 if delta > 0 else 1)) % 2
            now = begin + delta * min(1.0, (k + 1) / (count - 1))
            place, foot_yaw = self.foot_at(foot, self.center, now)
            self.put(foot, start, start + 0.82 * period, place, foot_yaw)
            start += period
        self.yaw = begin + delta
        return start - 0.18 * period

    @staticmethod
    def paces(path, gait):
        """Arc lengths [count] reached by the steps of a walk along ``path``; a run begins and ends with shorter steps."""
        spare = 1.5 if gait.runs else 0.0
        count = max(1, int(round(path.length / gait.length + spare)))
        shares = np.ones(count)
        if gait.runs and count >= 4:
            shares[[0, 1, -2, -1]] = 0.6, 0.9, 0.8, 0.6
        return path.length * np.cumsum(shares) / shares.sum()

    @classmethod
    def walking_time(cls, path, gait):
        """Seconds that `walk` takes for a path."""
        swings = gait.swings(len(cls.paces(path, gait)) + 1)
        return (swings[-1].strike - swings[0].lift) / gait.rate

    def walk(self, start, path, gait):
        """Walk along ``path`` from standing at its start, in the timing and step length of a real ``gait``.

        ``gait`` is a choreo_source.FittedGait; ends standing at the path's end. Returns the time of the last strike.
        """
        free = self.ready(-1e3)
        start = max(start, free)
        reached = self.paces(path, gait)
        count = len(reached)
        swings = gait.swings(count + 1)
        rate = gait.rate
        zero = swings[0].lift
        half = 0.5 * self.stance.half + 0.5 * gait.half * self.leg
        stride = Stride(gait.source, start, start, zero, rate, free=free)
        for k, swing in enumerate(swings):
            travelled = reached[min(k, count - 1)]
            center, yaw = path.at(travelled)
            ends = k >= count - 1
            place, foot_yaw = self.foot_at(swing.foot, center, yaw, half=self.stance.half if ends else half,
                                           stagger=None if ends else 0.0)
            if not ends:
                foot_yaw += (0.05 - self.stance.splay) * (1 if swing.foot == 0 else -1)
            lift, strike = (start + (x - zero) / rate for x in (swing.lift, swing.strike))
            before = self.plants[swing.foot][-1].place
            self.put(swing.foot, lift, strike, place, foot_yaw)
            gain = np.clip(np.linalg.norm(place - before) / (swing.length * self.leg + 1e-6), 0.25, 1.25)
            stride.gains.append((0.5 * (lift + strike), swing.foot, float(gain)))
            stride.end = strike
        if gait.source is not None:
            self.strides.append(stride)
        self.center, self.yaw = path.at(path.length)
        return stride.end

    def replay(self, source, begin, end, start, rate=1.0):
        """Step as a real clip does from ``begin`` to ``end`` clip seconds, beginning at ``start`` plan seconds, from this
        plan's centre and facing; the person stands in the clip's own footprints before and after. Returns the last second.

        ``source`` is a choreo_source.Source. To be called before any other step is planned.
        """
        at = int(round(begin * 30))
        zero, heading, size = source.center[at], source.heading[at], self.leg / source.leg
        turn = self.yaw - heading
        for foot in (0, 1):
            inside = [p for p in source.plants[foot] if p.end > begin and p.start < end]
            for k, plant in enumerate(inside):
                place = self.center + turned(turn, (plant.place - zero) * size)
                if k == 0:
                    self.plants[foot][0].place, self.plants[foot][0].yaw = place, plant.yaw + turn
                else:
                    lift, strike = (start + (x - begin) / rate for x in (inside[k - 1].end, plant.start))
                    self.put(foot, lift, strike, place, plant.yaw + turn)
        self.swings.sort()
        stop = start + (end - begin) / rate
        self.strides.append(Stride(source, start, stop, begin, rate))
        last = min(len(source.center) - 1, int(round(end * 30)))
        self.center = self.center + turned(turn, (source.center[last] - zero) * size)
        self.yaw = self.yaw + source.heading[last] - heading
        return stop


def swing_ease(u):
    """Progress of a swing by its phase; a real toe peaks at about 1.5 times its mean speed."""
    return u * u * (3 - 2 * u)


def foot_tracks(plants, times, ease=None):
    """Toe places [T, 2, 2], yaws [T, 2] and swing phase [T, 2] (0 while planted) between plants; ``ease`` bends the phase."""
    places, yaws, phase = np.zeros((len(times), 2, 2)), np.zeros((len(times), 2)), np.zeros((len(times), 2))
    for foot in (0, 1):
        stances = plants[foot]
        place = np.repeat(stances[0].place[None], len(times), 0)
        yaw = np.full(len(times), stances[0].yaw)
        for a, b in zip(stances, stances[1:], strict=False):
            u = np.clip((times - a.end) / max(b.start - a.end, 1e-3), 0, 1)
            phase[:, foot] += np.where(u < 1, u, 0)
            u = ease(u) if ease is not None else u
            place = place + u[:, None] * (b.place - a.place)
            yaw = yaw + u * (b.yaw - a.yaw)
        places[:, foot], yaws[:, foot] = place, yaw
    return places, yaws, phase


def base_line(plants, times, leg, fps=30.0):
    """Where the body is from its feet: centre [T, 2], heading [T] and how much it leans onto the left foot [T] in -1..1.

    The centre is the smoothed middle of both ankles, the heading their smoothed mean yaw. Computed alike for a real clip
    and for a plan.
    """
    places, yaws, phase = foot_tracks(plants, times)
    ankles = places - turned(yaws, np.array([0.0, TOE_AHEAD * leg]))
    swinging = (phase > 0).astype(float)
    onto = smooth(swinging[:, 1] - swinging[:, 0], 0.10, fps)
    return smooth(ankles.mean(1), BASE_SMOOTH_S, fps), smooth(yaws.mean(1), BASE_SMOOTH_S, fps), onto
