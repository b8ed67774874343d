"""Showing and watching: pointing something out, and applause."""

from __future__ import annotations

import numpy as np
from rtinteract.training import ik
from rtinteract.training.choreo_follow import fit, smooth_rotations
from rtinteract.training.choreo_meet import SIDE, arrive, drawn_hand, finish
from rtinteract.training.choreo_stage import Scene
from rtinteract.training.gestures import noise, pulse, ramp
from rtinteract.training.locomotion import Path, turned

from rtinteract import rotation as R


def point(scene: Scene):
    """One points at something; the other looks there, goes there, or does not care."""
    rng, t = scene.rng, scene.times
    gap = rng.uniform(0.9, 1.9)
    there, _ = arrive(scene, gap, rng.uniform(-0.2, 0.2), far=(1.0, 2.2))
    outcome = str(rng.choice(["look", "go", "refused"], p=[0.58, 0.24, 0.18]))
    side = rng.choice([-1.0, 1.0])
    bearing = side * rng.uniform(0.45, 2.3)
    far = rng.uniform(2.6, 7.0) if outcome != "go" else rng.uniform(1.6, 2.8)
    spot = scene.spot(-gap / 2) + turned(scene.yaw + bearing, np.array([0.0, far]))
    height = rng.uniform(0.0, 2.6) if outcome != "go" else 0.0
    target = np.array([spot[0], height, spot[1]])
    hand = (0 if side > 0 else 1) if rng.uniform() < 0.8 or abs(bearing) > 1.2 else drawn_hand(rng)
    start = max(0.35, there + rng.uniform(-0.5, 0.4))
    rise, hold = rng.uniform(0.5, 0.85), rng.uniform(0.9, 2.4)
    delay = rng.uniform(0.35, 0.7)
    a, b = scene.plans
    if abs(bearing) > 1.1:
        a.turn(start - 0.1, scene.yaw + side * (abs(bearing) - rng.uniform(0.5, 0.8)))
    seen = scene.facing(1) + _bearing(b, spot)
    notice = start + delay
    ends = [start + rise + hold + 0.9]
    if outcome == "go":
        ends.append(_go_there(scene, spot, notice))
    elif outcome == "look" and abs(_bearing(b, spot)) > rng.uniform(0.9, 1.3):
        ends.append(b.turn(notice + 0.25, b.yaw + np.sign(_bearing(b, spot)) * (abs(_bearing(b, spot)) - rng.uniform(0.2, 0.7))))
    if max(ends) > t[-1] - 0.5:
        scene.reject("too long")
    scene.perform()
    scene.build()
    _eyes(scene, target, outcome, start, rise, hold, notice)
    pointing = pulse(t, start, rise, hold, rng.uniform(0.6, 0.95))
    person = scene.people[0]
    lead = np.interp(t + 0.12, t, pointing)
    person.bend(yaw=(1 if hand == 0 else -1) * 0.08 * lead, roll=(1 if hand == 1 else -1) * 0.03 * lead)
    for one in scene.people:
        one.refresh()
    _aim(scene, hand, target, pointing, start + rise, hold)
    scene.timing(start, notice, outcome == "refused", bearing_deg=float(np.degrees(seen - scene.facing(1))))
    return finish(scene, "point", outcome == "refused", (SIDE[hand], None), [], start, max(ends) + rng.uniform(0.2, 0.7), outcome)


def _bearing(plan, spot):
    """The angle to a floor place from a plan's facing, positive to the left."""
    away = turned(-plan.yaw, spot - plan.center)
    return float(np.arctan2(away[0], away[1]))


def _go_there(scene, spot, notice):
    """Person 1 walks to the place pointed at; returns the time of arrival."""
    rng, plan = scene.rng, scene.plans[1]
    angle = _bearing(plan, spot)
    when = notice + rng.uniform(0.15, 0.5)
    if abs(angle) > 0.5:
        when = plan.turn(when, plan.yaw + angle * rng.uniform(0.75, 1.0)) + rng.uniform(0.02, 0.1)
    toward = plan.yaw + _bearing(plan, spot)
    away = spot - plan.center
    stop = plan.center + away * (1 - 0.3 / max(np.linalg.norm(away), 0.6))
    return plan.walk(when, Path(plan.center.copy(), plan.yaw, stop, toward), scene.gait(1))


def _eyes(scene, target, outcome, start, rise, hold, notice):
    """Person 0 looks there first and back at the other; person 1 follows the finger, or does not."""
    rng, t = scene.rng, scene.times
    a, b = scene.people
    place = np.repeat(target[None], len(t), 0)
    there = pulse(t, start - rng.uniform(0.05, 0.3), 0.35, rise + rng.uniform(0.1, 0.9), 0.4)
    a.look(place, there * rng.uniform(0.8, 1.0), 0.0)
    scene.watch(0, scene.attention() * (1 - there))
    if outcome == "refused":
        level = scene.attention(rng.uniform(-1, notice), 99.0 if rng.uniform() < 0.5 else notice + rng.uniform(0.3, 1.2))
        scene.watch(1, level)
        return
    long = hold + rng.uniform(0.2, 1.2) if outcome == "look" else 9.0
    looking = pulse(t, notice - 0.05, rng.uniform(0.35, 0.55), long, 0.6)
    before = ramp(t, rng.uniform(-1.0, start), 0.4)
    scene.watch(1, scene.attention() * before * (1 - looking))
    b.look(place, rng.uniform(0.85, 1.0) * looking, 0.0)


def _aim(scene, hand, target, weight, up, hold):
    """The straight arm from the shoulder at the target, with a small shake of emphasis now and then."""
    rng, t = scene.rng, scene.times
    person = scene.people[0]
    shoulder = person.places[:, ik.ARM[hand][1]]
    direction = ik.unit(target - shoulder)
    flat = np.hypot(direction[:, 0], direction[:, 2])[:, None]
    # Nobody points at the floor before the own feet: the arm stays above.
    direction = ik.unit(direction * [1, 0, 1] + ik.UP * np.maximum(direction[:, 1:2], -0.75 * flat))
    shake = 0.05 * np.sin(2 * np.pi * rng.uniform(1.5, 2.5) * t) * (rng.uniform() < 0.35)
    shake = shake * pulse(t, up, 0.2, max(0.1, hold - 0.4), 0.2)
    direction = ik.unit(direction + ik.UP * shake[:, None] + 0.02 * noise(rng, (len(t), 3), 0.4))
    palm = person.places[:, ik.ARM[hand][1]] + direction * (rng.uniform(0.90, 0.975) * person.arm + 0.08)
    inward = np.cross(ik.UP, direction) * (1 if hand == 1 else -1)
    turn = ik.hand_turn(hand, direction, ik.unit(rng.uniform(0.3, 1.0) * inward - rng.uniform(0.3, 1.0) * ik.UP))
    person.reach(hand, weight, palm, turn, person.pole(hand, out=0.7, down=1.0, back=0.1))


def applaud(scene: Scene):
    """One shows something or bows and the other applauds; both clap; or there is no applause."""
    rng, t = scene.rng, scene.times
    outcome = str(rng.choice(["answered", "together", "refused"], p=[0.56, 0.24, 0.20]))
    there, _ = arrive(scene, rng.uniform(1.2, 2.8), rng.uniform(-0.15, 0.15), far=(1.0, 2.2))
    begin = max(0.3, there + rng.uniform(-0.3, 0.4))
    if outcome == "together":
        return _both_clap(scene, begin)
    scene.perform()
    gestures = [g for g in scene.library.gestures if g.end - g.start > 2.2]
    acts = bool(gestures) and rng.uniform() < 0.65
    long = rng.uniform(1.8, 3.4) if acts else 0.0
    if acts:
        long = _act(scene, gestures[rng.integers(len(gestures))], begin, long)
    scene.build()
    bows = not acts or rng.uniform() < 0.45
    bow = begin + long + rng.uniform(0.0, 0.5)
    done = begin + long
    if bows:
        down, stay, up = rng.uniform(0.6, 0.9), rng.uniform(0.2, 0.7), rng.uniform(0.7, 1.0)
        curve = pulse(t, bow, down, stay, up)
        angle = np.radians(rng.uniform(15, 42)) * curve
        scene.people[0].bend(pitch=angle, hips=0.55)
        scene.people[0].shift(ahead=-0.16 * scene.people[0].leg * np.sin(angle))
        done = bow + down + stay + up
        scene.watch(0, scene.attention() * (1 - 0.9 * np.interp(t + 0.1, t, curve)))
    else:
        scene.watch(0, scene.attention())
    scene.watch(1, scene.attention(-1, 99 if outcome == "answered" or rng.uniform() < 0.5 else done))
    claps = (begin + long * rng.uniform(0.75, 1.05) if acts else bow) + rng.uniform(0.3, 0.8)
    seconds = rng.uniform(1.5, 3.6)
    for person in scene.people:
        person.refresh()
    if outcome == "answered":
        clap(scene, 1, claps, seconds)
    scene.timing(begin, claps, outcome == "refused", act="gesture" if acts else "bow")
    end = max(done, claps + seconds if outcome == "answered" else 0) + rng.uniform(0.6, 1.0)
    variant = outcome if acts else outcome + "_bow"
    return fit(scene, "applaud", variant, max(0.0, begin - rng.uniform(0.2, 1.2)), end)


def _act(scene, spell, begin, long):
    """Person 0 makes a real gesture for about ``long`` seconds; returns how long it is."""
    rng, t = scene.rng, scene.times
    long = min(long, spell.end - spell.start - 0.1)
    offset = spell.start + rng.uniform(0, max(0.0, spell.end - spell.start - long))
    posture = spell.source.sample(offset + t - begin)
    posture.rotations = smooth_rotations(posture.rotations, 0.03)
    scene.people[0].overlay(spell.source, posture, ramp(t, begin, 0.6) * (1 - ramp(t, begin + long - 0.5, 0.7)))
    return long


def _both_clap(scene, begin):
    """Both applaud, one a little after the other."""
    rng = scene.rng
    delay = rng.uniform(0.25, 0.8)
    scene.perform()
    scene.build()
    for p in range(2):
        scene.watch(p, scene.attention())
        scene.people[p].refresh()
    seconds = [rng.uniform(1.6, 3.8) for _ in range(2)]
    for p in range(2):
        clap(scene, p, begin + p * delay, seconds[p])
    scene.timing(begin, begin + delay)
    end = max(begin + seconds[0], begin + delay + seconds[1]) + rng.uniform(0.6, 1.1)
    return fit(scene, "applaud", "together", max(0.0, begin - rng.uniform(0.3, 1.2)), end)


def clap(scene, p, begin, seconds):
    """A person claps before the chest, two to four times a second: one hand rests more, the other strikes."""
    rng, t = scene.rng, scene.times
    person = scene.people[p]
    rate = rng.uniform(2.0, 3.8)
    width = rng.uniform(0.09, 0.17) * min(1.0, 2.8 / rate)
    rise = rng.uniform(0.45, 0.65)
    weight = pulse(t, begin, rise, seconds, rng.uniform(0.6, 0.9))
    # Palms meet at the low points of a raised cosine, which is never negative.
    tempo = t + 0.06 * noise(rng, (len(t),), 0.8)
    wide = 0.5 - 0.5 * np.cos(2 * np.pi * rate * (tempo - begin - rise))
    open_hands = 0.014 + width * wide
    open_hands = open_hands + 0.10 * (1 - ramp(t, begin + 0.5 * rise, 0.5 * rise)) + 0.14 * ramp(t, begin + rise + seconds, 0.5)
    resting = rng.uniform(0.2, 0.8)
    level = np.array([rng.uniform(-0.03, 0.03), rng.uniform(-0.06, 0.16), rng.uniform(0.30, 0.40)])
    tilt = rng.uniform(0.25, 0.9)
    chest = person.turns[:, 9]
    middle = person.places[:, 9] + R.rotate(chest, level * person.leg / 0.82)
    shares = (resting, 1 - resting) if rng.uniform() < 0.5 else (1 - resting, resting)
    for side in (0, 1):
        out = np.array([1.0 if side == 0 else -1.0, 0.0, 0.0])
        palm = middle + R.rotate(chest, out) * (shares[side] * open_hands)[:, None]
        fingers = R.rotate(chest, ik.unit(np.array([-0.15 * out[0], tilt, 1.0 - 0.5 * tilt])))
        turn = ik.hand_turn(side, fingers, R.rotate(chest, -out))
        person.reach(side, weight, palm, turn, person.pole(side, out=0.75, down=1.0, back=0.1))
