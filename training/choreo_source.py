"""What real solo clips lend to composed pairs: walks cut at foot plants, quiet standing, gestures made while standing.

A clip is split into a base line that follows from its foot plants (locomotion.base_line) and a residual posture; composing
adds the residual to another base line. All lengths are kept in leg lengths, so they fit any body.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rtinteract.training.gestures import FPS, ramp, smooth
from rtinteract.training.ik import LEG, fk
from rtinteract.training.locomotion import TOE_AHEAD, Plant, base_line, foot_tracks, swing_ease, turned

from rtinteract import rotation as R
from rtinteract.skeleton import SMPL22, SMPL22_MIRROR

SWAY = 0.03
MIRROR = np.array(SMPL22_MIRROR)
IMAGE = " (mirrored)"


def leg_length(offsets):
    """Thigh plus shin in metres of rest offsets [22, 3] (mean of both legs)."""
    return float(np.mean([np.linalg.norm(offsets[k]) + np.linalg.norm(offsets[a]) for _, k, a, _ in LEG]))


def foot_to_hip(offsets):
    """Metres of standing height below the pelvis that are not thigh or shin: ankle above floor plus pelvis above hips."""
    return float(-offsets[[1, 2], 1].mean() - offsets[[10, 11], 1].mean() + 0.03 * leg_length(offsets))


@dataclass
class Posture:
    """Sampled posture over T frames, lengths in leg lengths.

    ``rotations`` [T, 22, 4] local (the root's: tilt from the heading); ``pelvis`` residual [T, 3] left, up, ahead (up is
    the height over foot_to_hip, near 1 when the legs are straight); ``toes`` residual [T, 2, 3]; ``feet`` turns [T, 2, 4]
    from each foot's yaw.
    """

    rotations: np.ndarray
    pelvis: np.ndarray
    toes: np.ndarray
    feet: np.ndarray

    def blended(self, other: Posture, weight, feet_weight):
        """This posture, over to ``other`` by weights [T]."""
        def mix(a, b, w):
            w = w.reshape(-1, *[1] * (a.ndim - 1))
            return a + w * (b - a)
        return Posture(nlerp(self.rotations, other.rotations, weight), mix(self.pelvis, other.pelvis, weight),
                       mix(self.toes, other.toes, feet_weight), nlerp(self.feet, other.feet, feet_weight))


def nlerp(a, b, weight):
    """Normalised linear blend of rotations [T, ..., 4] by weights [T], the short way round."""
    w = np.asarray(weight).reshape(-1, *[1] * (a.ndim - 1))
    sign = np.where((a * b).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    return R.normalize(a * (1 - w) + sign * b * w)


def plants_of(positions, leg, fps=FPS):
    """Foot plants of a clip from its toe joints [T, 22, 3]: low and slow; lists of Plant for left and right, in clip seconds."""
    plants = [[], []]
    for foot, (_, _, ankle, toe) in enumerate(LEG):
        place = positions[:, toe]
        speed = np.linalg.norm(np.gradient(smooth(place, 0.02), axis=0), axis=-1) * fps
        low = place[:, 1] < np.percentile(place[:, 1], 8) + 0.05
        planted = low & (speed < 0.45)
        for start, end in runs(planted, 3, 2):
            ahead = positions[start:end, toe] - positions[start:end, ankle]
            yaw = np.arctan2(ahead[:, 0].mean(), ahead[:, 2].mean())
            if plants[foot]:
                last = plants[foot][-1].yaw
                yaw = last + (yaw - last + np.pi) % (2 * np.pi) - np.pi
            plants[foot].append(Plant(start / fps, (end - 1) / fps, np.median(place[start:end][:, [0, 2]], 0), float(yaw)))
    if plants[0] and plants[1]:
        turn = plants[1][0].yaw - plants[0][0].yaw
        for plant in plants[1]:
            plant.yaw -= round(turn / (2 * np.pi)) * 2 * np.pi
    return plants


def runs(flags, shortest, closing=0):
    """(start, end) of the runs of true in flags [T] of at least ``shortest`` frames, gaps up to ``closing`` closed."""
    flags = np.concatenate([[0], np.asarray(flags, int), [0]])
    edges = np.flatnonzero(np.diff(flags)).reshape(-1, 2).tolist()
    merged = []
    for start, end in edges:
        if merged and start - merged[-1][1] <= closing:
            merged[-1][1] = end
        else:
            merged.append([start, end])
    return [(a, b) for a, b in merged if b - a >= shortest]


def stride_of(plants):
    """(foot, seconds, travel [2]) of a run's stride, from a foot that stands twice, or None where nobody runs.

    In a run a foot is in the air for longer than half a stride, and the other one stands once meanwhile.
    """
    for foot in (0, 1):
        for a, b in zip(plants[foot], plants[foot][1:], strict=False):
            seconds, travel = b.end - a.end, b.place - a.place
            between = [p for p in plants[1 - foot] if a.end < 0.5 * (p.start + p.end) < b.start]
            fast = np.linalg.norm(travel) > max(1.75, 2.2 * seconds)
            if 0.55 < seconds < 0.9 and fast and b.start - a.end > 0.5 * seconds and len(between) == 1:
                return foot, seconds, travel
    return None


def _go_on(plants, foot, seconds, travel, length):
    """Repeat a run's footfalls every stride, from before the clip to after it (changed in place)."""
    first = next(a for a, b in zip(plants[foot], plants[foot][1:], strict=False) if abs(b.end - a.end - seconds) < 1e-6)
    other = next(p for p in plants[1 - foot] if p.start > first.start)
    # A clip that begins or ends in a stance cuts it short; the whole one between is the model of all.
    for side, model in ((foot, first), (1 - foot, other)):
        laps = range(-int(model.end / seconds) - 2, int((length - model.start) / seconds) + 3)
        plants[side] = [Plant(model.start + k * seconds, model.end + k * seconds, model.place + k * travel, model.yaw)
                        for k in laps]


class Source:
    """A solo clip, analysed: its plants, base line and residual posture."""

    def __init__(self, clip, offsets, root, rotations, name, text, repeats=False):
        self.clip, self.name, self.text, self.offsets, self._image = clip, name, text, offsets, None
        self.root, self.local = root, rotations
        self.leg = leg_length(offsets)
        positions, world = fk(root, rotations, offsets)
        self.positions = positions
        times = np.arange(len(root)) / FPS
        self.seconds = times[-1]
        self.plants = plants_of(positions, self.leg)
        self.usable = bool(self.plants[0] and self.plants[1])
        self.stride = stride_of(self.plants) if repeats else None
        if self.stride:
            _go_on(self.plants, *self.stride, self.seconds)
        if self.usable:
            self._split(times, positions, world)

    def _split(self, times, positions, world):
        center, heading, onto = base_line(self.plants, times, self.leg)
        self.center, self.heading = center, heading
        back = R.yaw(-heading)
        local = R.continuous(self.local.copy())
        local[:, 0] = R.continuous(R.multiply(back, world[:, 0]))
        away = turned(-heading, positions[:, 0][:, [0, 2]] - center)
        up = positions[:, 0, 1] - foot_to_hip(self.offsets)
        pelvis = np.stack([away[:, 0] - SWAY * self.leg * onto, up, away[:, 1]], -1) / self.leg
        places, yaws, phase = foot_tracks(self.plants, times, ease=swing_ease)
        toes, feet = np.zeros((len(times), 2, 3)), np.zeros((len(times), 2, 4))
        for foot, (_, _, ankle, toe) in enumerate(LEG):
            swing = phase[:, foot] > 0
            off = turned(-yaws[:, foot], positions[:, toe][:, [0, 2]] - places[:, foot])
            rest = np.percentile(positions[:, toe, 1], 8)
            toes[:, foot] = np.stack([off[:, 0] * swing, positions[:, toe, 1] - rest, off[:, 1] * swing], -1) / self.leg
            turn = R.multiply(R.yaw(-yaws[:, foot]), world[:, ankle])
            flat = self._flat(turn, positions, foot)
            feet[:, foot] = R.multiply(turn, R.inverse(flat))
        self.posture = Posture(local, smooth(pelvis, 0.03), np.maximum(smooth(toes, 0.02), [-9, 0, -9]), feet)

    def _flat(self, turn, positions, foot):
        """The foot's turn while it stands flat: the subject's own zero, which differs from the T-pose's by some degrees."""
        _, _, ankle, toe = LEG[foot]
        height = positions[:, ankle, 1] - positions[:, toe, 1]
        still = height < np.percentile(height, 25) + 0.01
        reference = turn[still][0]
        mean = (turn[still] * np.sign((turn[still] * reference).sum(-1, keepdims=True))).mean(0)
        return np.broadcast_to(R.normalize(mean), turn.shape)

    def sample(self, seconds):
        """Posture at clip seconds [T] (clamped to the clip)."""
        x = np.clip(np.asarray(seconds) * FPS, 0, len(self.root) - 1.001)
        i = x.astype(int)
        w = x - i
        def mix(a):
            f = w.reshape(-1, *[1] * (a.ndim - 1))
            return a[i] * (1 - f) + a[i + 1] * f
        p = self.posture
        return Posture(nlerp(p.rotations[i], p.rotations[i + 1], w), mix(p.pelvis), mix(p.toes),
                       nlerp(p.feet[i], p.feet[i + 1], w))

    @property
    def source(self):
        """The clip itself: replayed as it is, it stands where a Gait else does."""
        return self

    def mirrored(self):
        """The clip's mirror image."""
        if self._image is None:
            flip = np.array([1.0, 1.0, -1.0, -1.0])
            across = np.array([-1.0, 1.0, 1.0])
            name = self.name[:-len(IMAGE)] if self.name.endswith(IMAGE) else self.name + IMAGE
            self._image = Source(self.clip, self.offsets[MIRROR] * across, self.root * across, self.local[:, MIRROR] * flip,
                                 name, self.text, self.stride is not None)
            self._image._image = self
        return self._image

    def repeated(self):
        """The clip of a run with its footfalls gone on with at both ends, or None where it holds no whole stride of a run."""
        if not self.usable or not stride_of(self.plants):
            return None
        return Source(self.clip, self.offsets, self.root, self.local, self.name, self.text, repeats=True)


@dataclass
class Swing:
    """One step of a real walk: clip seconds, and how far the toe travels in leg lengths."""

    foot: int
    lift: float
    strike: float
    length: float


class Gait:
    """A stretch of a real walk with alternating feet, repeated as often as a path needs."""

    def __init__(self, source, steps: list[Swing], half):
        self.source, self.steps, self.half_width = source, steps, half
        self.runs = steps[1].lift < steps[0].strike - 0.1
        loop = (len(steps) - 1) // 2 * 2
        self.loop, self.period = loop, steps[loop].lift - steps[0].lift
        self.step_legs = float(np.mean([s.length for s in steps])) / 2
        self.speed_legs = self.step_legs / (self.period / loop)

    def fitted(self, leg, rate):
        """A walker with legs of ``leg`` metres at ``rate`` times the clip's pace."""
        return FittedGait(self, leg, rate)

    def sample(self, seconds):
        """Posture at virtual clip seconds [T], which run on past the loop's end; loops are joined over 0.25 s."""
        posture = self.source.sample(seconds)
        for k in range(1, 1 + int(max(0.0, (np.max(seconds) - self.steps[0].lift)) / self.period)):
            weight = ramp(seconds, self.steps[0].lift + k * self.period - 0.12, 0.25)
            posture = posture.blended(self.source.sample(seconds - k * self.period), weight, weight)
        return posture


class FittedGait:
    """A Gait for one person: ``length`` of a step in metres, ``rate`` of time, ``half`` step width in leg lengths."""

    def __init__(self, gait, leg, rate):
        self.gait, self.source, self.rate = gait, gait, rate
        self.length, self.half, self.runs = gait.step_legs * leg, gait.half_width, gait.runs
        self.speed = self.length * gait.loop / gait.period * rate

    def swings(self, count):
        """The first ``count`` steps in virtual clip seconds."""
        out = []
        for k in range(count):
            laps, index = divmod(k, self.gait.loop)
            s = self.gait.steps[index]
            out.append(Swing(s.foot, s.lift + laps * self.gait.period, s.strike + laps * self.gait.period, s.length))
        return out


def gaits_of(source) -> list[Gait]:
    """Walks of at least three alternating steps found in a clip."""
    swings = []
    for foot in (0, 1):
        for a, b in zip(source.plants[foot], source.plants[foot][1:], strict=False):
            travel = np.linalg.norm(b.place - a.place) / source.leg
            turn = abs(b.yaw - a.yaw)
            if 0.2 < b.start - a.end < 0.75 and 0.9 < travel < 2.3 and turn < 0.45:
                swings.append(Swing(foot, a.end, b.start, travel))
    swings.sort(key=lambda s: s.lift)
    found, current = [], []
    for swing in swings:
        follows = current and swing.foot != current[-1].foot and 0.2 < swing.lift - current[-1].lift < 0.9
        # Double support tells a walk from a run.
        walks = follows and swing.lift > current[-1].strike - 0.1
        if not walks:
            found.append(current)
            current = []
        current.append(swing)
    found.append(current)
    half = _half_width(source)
    out = []
    for steps in found:
        if len(steps) >= 3:
            out.append(Gait(source, steps, half))
            if len(steps) >= 4:
                out.append(Gait(source, steps[1:], half))
    return out


def run_of(source):
    """The run of a clip, as a Gait of one stride, or None where nobody runs in it."""
    source = source.repeated()
    # Footfalls that were missed leave the body far from where the feet say it is.
    if source is None or np.abs(source.posture.pelvis[:, 2]).max() > 0.6:
        return None
    foot, seconds, travel = source.stride
    first = next(p for p in source.plants[foot] if p.end > 0.1)
    second = next(p for p in source.plants[1 - foot] if p.end > first.end)
    length = float(np.linalg.norm(travel)) / source.leg
    steps = [Swing(f, p.end, p.end + seconds - (p.end - p.start), length) for f, p in ((foot, first), (1 - foot, second))]
    steps.append(Swing(foot, first.end + seconds, steps[0].strike + seconds, length))
    return Gait(source, steps, _half_width(source))


def _half_width(source):
    places, yaws, _ = foot_tracks(source.plants, np.arange(len(source.root)) / FPS)
    ankles = places - turned(yaws, np.array([0.0, TOE_AHEAD * source.leg]))
    across = turned(-source.heading, ankles[:, 0] - ankles[:, 1])[:, 0]
    return float(np.clip(0.5 * np.median(across) / source.leg, 0.04, 0.16))


@dataclass
class Spell:
    """A stretch of clip seconds in which someone stands: quiet, or making a gesture."""

    source: Source
    start: float
    end: float

    def idle(self, times, rate, phase):
        """Posture over seconds [T]: the stretch played to and fro, slowing where it turns."""
        length = self.end - self.start
        x = 0.5 - 0.5 * np.cos(np.pi * (times * rate / max(length, 0.5) + phase))
        return self.source.sample(self.start + length * x)


def spells_of(source) -> tuple[list[Spell], list[Spell]]:
    """(quiet, gesture) stretches of a clip in which both feet stay planted: arms down and calm, or busy."""
    frames = len(source.root)
    times = np.arange(frames) / FPS
    _, _, phase = foot_tracks(source.plants, times)
    pos = source.positions
    speed = np.linalg.norm(np.gradient(smooth(pos[:, 0], 0.1), axis=0), axis=-1) * FPS
    low = pos[:, 0, 1] < 0.93 * np.percentile(pos[:, 0, 1], 90)
    spine = R.rotate(fk(source.root, source.local, source.offsets)[1][:, 9], np.array([0.0, 1.0, 0.0]))[:, 1]
    bent = np.abs(source.local[:, [3, 6, 9, 12, 15], 0]).min(1) < np.cos(0.8 / 2)
    standing = ~bent & (phase.max(1) == 0) & (speed < 0.3) & ~low & (spine > 0.93)
    hands = pos[:, [20, 21]]
    hand_speed = smooth(np.linalg.norm(np.gradient(hands, axis=0), axis=-1).max(1) * FPS, 0.1)
    hips = pos[:, 0, 1][:, None]
    hanging = (hands[..., 1] < hips + 0.02 * source.leg).all(1)
    out = np.linalg.norm((hands - pos[:, :1])[..., [0, 2]], axis=-1).max(1)
    hanging &= out < 0.42 * source.leg
    quiet = standing & hanging & (hand_speed < 0.35) & (speed < 0.12)
    calm = [Spell(source, a / FPS, (b - 1) / FPS) for a, b in runs(quiet, 18)]
    busy = []
    for a, b in runs(standing, 60):
        raised = (hands[a:b, :, 1] > hips[a:b] + 0.25 * source.leg).any(1).mean()
        if raised > 0.2 and hand_speed[a:b].mean() > 0.25:
            busy.append(Spell(source, a / FPS, (b - 1) / FPS))
    return calm, busy


def default_posture(frames):
    """A plain standing posture for when the clips have none: arms hanging, elbows a little bent."""
    rotations = R.identity((frames, 22))
    for sign, shoulder, elbow in ((1, 16, 18), (-1, 17, 19)):
        rotations[:, shoulder] = R.multiply(R.from_axis_angle(np.array([0, 0, -1.29 * sign])),
                                            R.from_axis_angle(np.array([0.25 * sign * sign, 0, 0])))
        rotations[:, elbow] = R.from_axis_angle(np.array([0, -0.3 * sign, 0]))
    pelvis = np.tile([0.0, 0.99, 0.02], (frames, 1))
    return Posture(rotations, pelvis, np.zeros((frames, 2, 3)), R.identity((frames, 2)))


class Library:
    """Everything one split of the solo clips lends, mirror images included: ``gaits``, ``quiet``, ``gestures``, ``bodies``,
    ``runs`` (gaits with flight) and ``dances`` (sources that step and move to be replayed as they are)."""

    def __init__(self, solo_clips, split="train"):
        self.split = split
        self.gaits, self.quiet, self.gestures, self.bodies, self.runs, self.dances = [], [], [], [], [], []
        for clip in solo_clips:
            if clip.split != split or len(clip.motion) < 20:
                continue
            m = clip.motion
            source = Source(clip, m.skeleton.offsets, m.root, m.rotations, clip.name, clip.text)
            if not source.usable:
                continue
            self.bodies.append(source.offsets)
            for one in (source, source.mirrored()):
                if one.usable:
                    self.gaits += [g for g in gaits_of(one) if 0.7 < g.speed_legs < 1.85]
                    calm, busy = spells_of(one)
                    self.quiet += calm
                    self.gestures += busy
                    run = run_of(one)
                    self.runs += [run] if run else []
                    if "danc" in one.text and one.seconds > 3.0:
                        self.dances.append(one)
        if not self.bodies:
            self.bodies.append(SMPL22.offsets)
