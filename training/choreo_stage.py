"""The stage two people share: bodies, places, walks, gaze; and the cut that turns a scene into a checked PairClip."""

from __future__ import annotations

import numpy as np
from rtinteract.training.choreo_body import Performer, drawn_body
from rtinteract.training.choreo_check import Rejected, check
from rtinteract.training.choreo_source import leg_length
from rtinteract.training.gestures import FPS, ramp
from rtinteract.training.locomotion import Path, Plan, turned
from rtinteract.training.pairs import Contact, PairClip
from rtinteract.training.prompts import texts_for

from rtinteract import rotation as R


class PlainGait:
    """Steps without a real clip behind them, for when the solo clips have no walk."""

    source, runs = None, False

    def __init__(self, rng, leg):
        self.length, self.half = leg * rng.uniform(0.68, 0.85), 0.08
        self.period, self.rate = rng.uniform(0.5, 0.6), 1.0
        self.first = int(rng.integers(2))
        self.speed = self.length / self.period

    def swings(self, count):
        """As choreo_source.FittedGait.swings."""
        from rtinteract.training.choreo_source import Swing
        return [Swing((self.first + k) % 2, k * self.period, (k + 0.8) * self.period, 1.5) for k in range(count)]


class Scene:
    """``times`` [T] of a scene long enough to be cut, a random placement on the floor, two people's plans and performers."""

    def __init__(self, library, rng, seconds):
        self.library, self.rng = library, rng
        self.times = np.arange(int(round(seconds * FPS))) / FPS
        self.yaw, self.middle = rng.uniform(-np.pi, np.pi), rng.uniform(-1.5, 1.5, 2)
        self.bodies = [drawn_body(rng, library.bodies) for _ in range(2)]
        self.legs = [leg_length(b) for b in self.bodies]
        self.plans: list[Plan] = [None, None]
        self.people: list[Performer] = [None, None]
        self.meta: dict = {}

    def spot(self, ahead=0.0, left=0.0):
        """A floor place (x, z) by metres ahead and left of the stage's middle, seen by person 0."""
        return self.middle + turned(self.yaw, np.array([left, ahead]))

    def facing(self, person):
        """The yaw with which a person faces the other across the stage."""
        return self.yaw + np.pi * person

    def stand(self, person, place, yaw):
        """Begin a person's plan standing at a place (x, z)."""
        self.plans[person] = Plan(self.rng, self.legs[person], place, yaw)
        return self.plans[person]

    def gait(self, person, pace=None):
        """A walk drawn from the real ones, its pace within 20 % (``pace`` metres a second picks the rate)."""
        gaits, rng = self.library.gaits, self.rng
        if not gaits:
            return PlainGait(rng, self.legs[person])
        gait = gaits[rng.integers(len(gaits))]
        rate = rng.uniform(0.88, 1.12)
        rate *= min(1.0, 1.5 / gait.fitted(self.legs[person], rate).speed)
        if pace is not None:
            rate = np.clip(pace / gait.fitted(self.legs[person], 1.0).speed, 0.8, 1.2)
        return gait.fitted(self.legs[person], float(rate))

    def run(self, person, haste=1.0):
        """A run drawn from the real ones at a pace people keep in a room, or a fast walk where the clips have none."""
        runs, rng = self.library.runs, self.rng
        if not runs:
            gait = self.gait(person)
            gait.rate *= 1.2 * haste
            gait.speed *= 1.2 * haste
            return gait
        return runs[rng.integers(len(runs))].fitted(self.legs[person], float(haste * rng.uniform(0.80, 0.94)))

    def walk_in(self, person, start, place, yaw, distance, angle=0.0, gait=None):
        """A person who walks ``distance`` metres to a place and ends with a facing; returns the arrival's time."""
        rng = self.rng
        away = turned(yaw + np.pi + angle, np.array([0.0, distance]))
        begin = np.asarray(place) + away
        toward = np.arctan2(-away[0], -away[1])
        plan = self.stand(person, begin, toward + rng.normal(0, 0.12))
        path = Path(begin, plan.yaw, place, yaw)
        return plan.walk(start, path, gait or self.gait(person))

    def perform(self):
        """Build both performers from their plans (posture overlays come before `Performer.build`)."""
        for p in range(2):
            self.people[p] = Performer(self.library, self.rng, self.times, self.bodies[p], self.plans[p])
        return self.people

    def build(self):
        """Base poses of both."""
        for person in self.people:
            person.build()
            person.refresh()

    def timing(self, offer, answer, refused=False, **more):
        """Note when person 0 begins and person 1 answers, in stage seconds (the cut turns *_at_s into clip seconds)."""
        self.meta.update(refused=bool(refused), delay_s=float(answer - offer), offer_at_s=float(offer),
                         answer_at_s=float(answer), **more)

    def watch(self, person, weight, delay=None):
        """A person looks at the other's face by ``weight`` [T], late as people are."""
        delay = self.rng.uniform(0.1, 0.2) if delay is None else delay
        me, other = self.people[person], self.people[1 - person]
        me.look(other.eyes.copy(), weight, delay)

    def attention(self, start=-9.0, end=99.0):
        """How much someone attends [T] between two times, rarely fully."""
        level = self.rng.uniform(0.75, 1.0)
        return level * ramp(self.times, start, 0.5) * (1 - ramp(self.times, end, 0.7))

    def cut(self, kind, variant, sides, contacts, start, end, lowest_pelvis=0.5, brisk=False):
        """Check the scene between two times and make the PairClip; contacts are (joint a, joint b, from s, to s, gap).

        ``brisk``: they run or leap, which is faster than other limits allow.
        """
        first = int(np.clip(round(start * FPS), 0, len(self.times) - 90))
        last = int(np.clip(round(end * FPS), first + 90, min(len(self.times), first + 240)))
        frames = slice(first, last)
        touched = []
        for a, b, begin, until, gap in contacts:
            i, j = int(np.ceil(begin * FPS - 1e-6)) - first, int(np.floor(until * FPS + 1e-6)) + 1 - first
            i, j = max(i, 0), min(j, last - first)
            if j > i:
                touched.append(Contact(a, b, i, j, float(gap)))
        root = np.stack([p.root[frames] for p in self.people])
        rotations = np.stack([R.continuous(p.rotations[frames]) for p in self.people])
        walked = {s.source.source.name for p in self.plans for s in p.strides}
        sources = sorted(walked.union(*(p.lent for p in self.people)))
        meta = {"variant": variant, "sides": list(sides), "start_s": first / FPS, "sources": sources, **self.meta}
        for key, value in list(meta.items()):
            if key.endswith("_at_s"):
                meta[key] = float(value) - first / FPS
        moved = np.linalg.norm(root[:, -1] - root[:, 0], axis=-1).max() > 0.8
        clip = PairClip(root.astype(np.float32), rotations.astype(np.float32),
                        np.stack([p.offsets for p in self.people]).astype(np.float32), kind,
                        texts_for(self.rng, kind, variant, sides, moved), tuple(touched), FPS, 0, meta)
        check(self.people, frames, touched, clip, lowest_pelvis, brisk)
        return clip

    def reject(self, reason, detail=""):
        """Give this draw up."""
        raise Rejected(reason, detail)
