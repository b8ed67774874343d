"""Dancing face to face: real dance steps and their mirror image, steps in time with each other, and hands held."""

from __future__ import annotations

import numpy as np
from rtinteract.training import ik
from rtinteract.training.choreo_follow import fit
from rtinteract.training.choreo_stage import Scene
from rtinteract.training.gestures import FPS, pulse, ramp, smooth
from rtinteract.training.locomotion import turned

from rtinteract import rotation as R


def dance(scene: Scene):
    """Two people dance facing each other, apart or hand in hand; or one dances and the other only watches."""
    rng = scene.rng
    if scene.library.dances and rng.uniform() < 0.45:
        return _replayed(scene)
    return _in_time(scene)


def _replayed(scene):
    """Steps of a real dance; the other dances their mirror image a little later."""
    rng, t = scene.rng, scene.times
    sources = scene.library.dances
    source = sources[rng.integers(len(sources))]
    alone = rng.uniform() < 0.2
    rate = rng.uniform(0.88, 1.12)
    length = rng.uniform(4.0, 8.0)
    start = rng.uniform(0.3, max(0.4, source.seconds - length * rate - 0.3))
    planted = [s for s in np.arange(start, min(start + 2.0, source.seconds - 1.0), 1 / 30) if _stands(source, s)]
    if not planted:
        scene.reject("no stance")
    start = planted[0]
    end = min(start + length * rate, source.seconds - 0.1)
    begin, delay = rng.uniform(0.2, 0.9), rng.uniform(0.06, 0.4)
    advance = _advance(source, start, end) * max(scene.legs) / source.leg
    gap = max(rng.uniform(1.3, 2.1), 2 * advance + rng.uniform(0.8, 1.2))
    if gap > 3.2:
        scene.reject("too far")
    done = begin
    for p in range(2):
        plan = scene.stand(p, scene.spot((-gap / 2, gap / 2)[p]), scene.facing(p) + rng.normal(0, 0.06))
        if p == 1 and alone:
            continue
        one = source if p == 0 else source.mirrored()
        done = plan.replay(one, start, end, begin + p * delay, rate)
    scene.perform()
    scene.build()
    for p in range(2):
        scene.watch(p, (0.9 if alone and p else 0.5) * scene.attention())
        scene.people[p].refresh()
    scene.timing(begin, begin + delay, alone, real=True)
    first = rng.uniform(0.0, begin) if rng.uniform() < 0.6 else begin + rng.uniform(0.2, 1.2)
    return fit(scene, "dance", "alone" if alone else "apart", first, min(done + rng.uniform(-0.5, 0.6), t[-1]), brisk=True)


def _advance(source, begin, end):
    """How far forward a dance goes between two clip seconds, in metres along the facing it begins with."""
    window = slice(int(begin * FPS), int(end * FPS) + 1)
    away = turned(-source.heading[window][0], source.center[window] - source.center[window][0])
    return float(max(0.0, away[:, 1].max()))


def _stands(source, when):
    """Whether both feet of a clip stand at a time."""
    return all(any(p.start <= when <= p.end for p in source.plants[foot]) for foot in (0, 1))


def _in_time(scene):
    """Side steps or steps to and fro on a common beat, hips and knees with it; arms swing, or hands are held."""
    rng, t = scene.rng, scene.times
    held = rng.uniform() < 0.45
    alone = not held and rng.uniform() < 0.22
    size = np.mean(scene.legs)
    gap = rng.uniform(0.88, 1.0) * min(size, 1.05 * min(scene.legs)) if held else rng.uniform(1.0, 1.9)
    beat = rng.uniform(0.46, 0.68)
    begin, delay = rng.uniform(0.5, 1.1), rng.uniform(0.02, 0.12) if held else rng.uniform(0.08, 0.4)
    far = gap + rng.uniform(0.25, 0.6) if held else gap
    for p in range(2):
        scene.stand(p, scene.spot((-far / 2, far / 2)[p], rng.normal(0, 0.05)), scene.facing(p) + rng.normal(0, 0.07))
    joined = begin + 0.2
    if held:
        for p in range(2):
            spot = scene.spot((-gap / 2, gap / 2)[p])
            gone = scene.plans[p].step_pair(begin + rng.uniform(0, 0.25), spot, scene.facing(p), 0.4)
            joined = max(joined, gone + 0.15)
    bars = int(rng.integers(3, 8))
    pattern = str(rng.choice(["side", "sway", "rock"]))
    ends = _steps(scene, pattern, gap, joined, delay, beat, bars, alone)
    scene.perform()
    scene.build()
    dances = [ramp(t, joined + p * delay - 0.3, 0.6) * (1 - ramp(t, ends[p], 0.6)) for p in range(2)]
    if alone:
        dances[1] = 0 * t
    for p, person in enumerate(scene.people):
        phase = np.pi * (t - joined - p * delay) / beat
        # Face to face, the same side of the stage is the other one's left.
        swing = np.sin(phase) * (1 if p == 0 else -1)
        person.bend(roll=rng.uniform(0.02, 0.06) * swing * dances[p], yaw=rng.uniform(0.05, 0.16) * swing * dances[p])
        person.shift(left=-rng.uniform(0.015, 0.04) * swing * dances[p],
                     up=-(0.5 - 0.5 * np.cos(2 * phase)) * rng.uniform(0.012, 0.03) * dances[p] - 0.012 * dances[p])
        scene.watch(p, scene.attention())
        person.refresh()
    if held:
        contacts = _hands(scene, joined, max(ends) + 0.2, beat)
    else:
        contacts = []
        for p in range(1 if alone else 2):
            _swing_arms(scene, p, joined + p * delay, beat, dances[p])
    scene.timing(joined, joined + delay, alone, real=False, steps=pattern)
    start = max(0.0, begin - rng.uniform(0.1, 0.5))
    finish = max(ends) + rng.uniform(0.2, 0.9)
    variant = "hands" if held else "alone" if alone else "apart"
    return fit(scene, "dance", variant, start, min(finish, start + 8.0), contacts=contacts)


def _steps(scene, pattern, gap, begin, delay, beat, bars, alone):
    """Footprints of both on the beat, as in a mirror; returns the times at which they end."""
    rng = scene.rng
    wide = rng.uniform(0.16, 0.30)
    ends = [begin + bars * 2 * beat] * 2
    if pattern == "sway":
        return ends
    way = rng.choice([-1, 1])
    for p in range(1 if alone else 2):
        plan, when = scene.plans[p], begin + p * delay
        place = np.zeros(2)
        for k in range(bars):
            move = way * wide * (1 if k % 2 == 0 else -1)
            if pattern == "side":
                place = place + np.array([0.0, move])
            else:
                place = place + np.array([move, 0.0])
            base = -gap / 2 if p == 0 else gap / 2
            # One rocks forward as the other rocks back.
            ahead, left = base + place[0], place[1]
            plan.step_pair(when, scene.spot(ahead, left), scene.facing(p), 0.72 * beat, gap=0.28 * beat)
            when += 2 * beat
        ends[p] = when
    return ends


def _swing_arms(scene, p, begin, beat, weight):
    """Bent arms that swing with the beat, now and then one raised."""
    rng, t = scene.rng, scene.times
    person = scene.people[p]
    phase = np.pi * (t - begin) / beat
    raised = int(rng.integers(0, 3))
    lift = pulse(t, begin + rng.uniform(0.8, 3.0), 0.7, rng.uniform(0.5, 1.6), 0.8)
    for side in (0, 1):
        across = np.array([1.0 if side == 0 else -1.0, 1.0, 1.0])
        spot = np.array([rng.uniform(0.1, 0.35), rng.uniform(-0.55, -0.3), rng.uniform(0.35, 0.6)])
        sway = np.stack([0.10 * np.sin(phase + side * np.pi), 0.08 * np.sin(2 * phase), 0.13 * np.sin(phase + side * np.pi)], -1)
        goal = spot + rng.uniform(0.5, 1.2) * sway
        if raised == side:
            goal = goal + lift[:, None] * np.array([0.15, 0.95, 0.05])
        place = person.places[:, ik.ARM[side][1]] + R.rotate(person.turns[:, 9], goal * across * person.arm)
        person.reach(side, rng.uniform(0.8, 1.0) * weight, place, None, person.pole(side, out=0.7, down=1.0, back=0.3))


def _hands(scene, joined, ends, beat):
    """Both pairs of hands held between the two at belly to chest height, swung with the beat; returns the contacts."""
    rng, t = scene.rng, scene.times
    a, b = scene.people
    rise, contacts = rng.uniform(0.6, 0.8), []
    touch, let_go = joined + rng.uniform(0.2, 0.5), ends
    phase = np.pi * (t - joined) / beat
    height = rng.uniform(1.12, 1.42) * np.mean(scene.legs)
    half = rng.uniform(0.20, 0.34)
    middle = smooth(0.25 * sum(p.places[:, 16] + p.places[:, 17] for p in (a, b)), 0.06)
    middle[:, 1] = height
    line = smooth((b.places[:, 9] - a.places[:, 9]) * np.array([1.0, 0.0, 1.0]), 0.1)
    line = ik.unit(line)
    aside = np.cross(ik.UP, line)
    pump = rng.uniform(0.0, 0.05), rng.uniform(0.0, 0.05)
    middle = middle + ik.UP * (pump[0] * np.sin(phase))[:, None] + aside * (pump[1] * np.sin(phase))[:, None]
    starts = touch - rise + np.array([0.0, rng.uniform(0.0, 0.1)])
    falls = rng.uniform(0.6, 0.9, 2)
    for p, person in enumerate((a, b)):
        ahead = line if p == 0 else -line
        weight = pulse(t, starts[p], touch - starts[p], let_go - touch, falls[p])
        for side in (0, 1):
            left_of_stage = 1.0 if (side == 0) == (p == 0) else -1.0
            # One gives the palms from below, the other lays theirs on top.
            apart = 0.022 * ik.UP * (-1 if p == 0 else 1) - 0.020 * ahead
            place = middle + aside * (left_of_stage * half) + apart
            fingers = ik.unit(ahead - 0.15 * ik.UP)
            turn = ik.hand_turn(side, fingers, (ik.UP if p == 0 else -ik.UP) + 0 * ahead)
            person.reach(side, weight, place, turn, person.pole(side, out=0.6, down=1.0, back=0.4))
    for side in (0, 1):
        contacts.append((20 + side, 21 - side, touch, let_go, 2 * float(np.hypot(0.022, 0.020))))
    return contacts
