"""Meetings: handshake, high-five, wave and bow."""

from __future__ import annotations

import numpy as np
from rtinteract.training import ik
from rtinteract.training.choreo_stage import Scene
from rtinteract.training.gestures import minjerk, oscillation, pulse, ramp, smooth

from rtinteract import rotation as R

SIDE = ("left", "right")
# Seconds of a clip before its first contact: whoever stands still then misses it.
LEAST_TRAVEL_S = 0.4


def drawn_hand(rng, left=0.12):
    """0 (left) or 1 (right); people are mostly right-handed."""
    return 0 if rng.uniform() < left else 1


def arrive(scene: Scene, gap, shift=0.0, far=(1.2, 3.2)):
    """Bring both people to a distance ``gap`` in metres, face to face: standing already, one walking up, or both.

    ``shift`` moves each to the own left. Returns the time at which both are there and the two arrival times.
    """
    rng = scene.rng
    spots = [scene.spot(-gap / 2, shift), scene.spot(gap / 2, -shift)]
    mode = rng.choice(["stand", "step", "first", "second", "both"], p=[0.12, 0.18, 0.35, 0.15, 0.2])
    begin = rng.uniform(0.2, 0.5)
    times = [0.3, 0.3]
    for p in range(2):
        yaw = scene.facing(p)
        walks = mode == "both" or (mode == "first" and p == 0) or (mode == "second" and p == 1)
        if mode == "step":
            # They stand apart and come nearer by a step or two, one later than the other, or one alone.
            plan = scene.stand(p, scene.spot(*_off(rng, p, gap, shift)), yaw + rng.normal(0, 0.1))
            times[p] = plan.step_pair(begin + rng.uniform(0.1, 0.6), spots[p], yaw, rng.uniform(0.38, 0.48))
        elif walks:
            start = begin + (rng.uniform(0.0, 0.4) if p else 0.0)
            times[p] = scene.walk_in(p, start, spots[p], yaw, rng.uniform(*far), rng.normal(0, 0.3))
        elif mode != "stand" and rng.uniform() < 0.4:
            # Notices the other coming and turns.
            off = rng.uniform(0.4, 1.1) * rng.choice([-1, 1])
            plan = scene.stand(p, spots[p], yaw + off)
            times[p] = plan.turn(begin + rng.uniform(0.35, 0.9), yaw)
        else:
            scene.stand(p, spots[p], yaw + rng.normal(0, 0.08))
    scene.meta["arrival"] = str(mode)
    return max(times), times


def _off(rng, person, gap, shift):
    """A place (ahead, left) within a step of where a person is to meet the other, seldom nearer than that."""
    back = gap / 2 + rng.uniform(-0.05, 0.5)
    aside = shift + rng.normal(0, 0.12)
    return (-back, aside) if person == 0 else (back, -aside)


def hand_axis(a, b, side_a, side_b):
    """Horizontal direction [T, 3] from person a's shoulder to person b's."""
    line = b.places[:, ik.ARM[side_b][1]] - a.places[:, ik.ARM[side_a][1]]
    line = line * np.array([1.0, 0.0, 1.0])
    return ik.unit(smooth(line, 0.1))


def handshake(scene: Scene):
    """Approach and shake hands; sometimes the offered hand is not taken."""
    rng = scene.rng
    size = np.mean(scene.legs)
    there, _ = arrive(scene, rng.uniform(0.92, 1.12) * size, rng.uniform(0.02, 0.08))
    hand = drawn_hand(rng, 0.08)
    refused = rng.uniform() < 0.15
    offer = there + rng.uniform(-0.35, 0.4)
    rises = rng.uniform(0.55, 0.85, 2)
    delay = rng.uniform(0.0, 0.2) if rng.uniform() < 0.6 else rng.uniform(0.3, 0.6)
    touch = max(offer + rises[0], offer + delay + rises[1], there + 0.05)
    rises = np.array([touch - offer, touch - offer - delay])
    rises = np.minimum(rises, 1.1)
    starts = touch - rises
    hold = rng.uniform(0.9, 1.6) if refused else rng.uniform(1.0, 2.5)
    falls = rng.uniform(0.5, 0.8, 2)
    end = touch + hold + falls.max() + rng.uniform(0.3, 0.9)
    a, b = scene.perform()
    scene.build()
    t = scene.times
    weights = [pulse(t, starts[p], rises[p], hold, falls[p]) for p in range(2)]
    if refused:
        weights[1] = np.zeros(len(t))
        scene.watch(1, scene.attention(0.2, offer + rng.uniform(0.4, 1.2)))
    else:
        scene.watch(1, scene.attention(rng.uniform(-1, 0.6)))
    scene.watch(0, scene.attention())
    lead = [np.interp(t + 0.12, t, w) for w in weights]
    twist = rng.uniform(0.15, 0.4, 2)
    for p, person in enumerate(scene.people):
        person.bend(pitch=rng.uniform(0.03, 0.12) * lead[p], yaw=(1 if hand == 1 else -1) * twist[p] * lead[p], hips=0.15)
        person.shift(ahead=0.03 * lead[p])
        person.refresh()
    _clasp(scene, hand, weights, touch, hold, refused)
    contacts = [] if refused else [(20 + hand, 20 + hand, touch, touch + hold, 0.036)]
    scene.timing(starts[0], starts[1], refused, touch_at_s=float(touch))
    return finish(scene, "handshake", refused, (SIDE[hand], SIDE[hand]), contacts, offer, end)


def _clasp(scene, hand, weights, touch, hold, refused):
    """Both arms to the common grip, shaken up and down."""
    rng, t = scene.rng, scene.times
    a, b = scene.people
    line = hand_axis(a, b, hand, hand)
    shoulders = [p.places[:, ik.ARM[hand][1]] for p in (a, b)]
    height = np.mean([p.leg for p in (a, b)]) * rng.uniform(1.22, 1.36)
    middle = smooth(0.5 * (shoulders[0] + shoulders[1]), 0.08)
    middle[:, 1] = height
    shakes = int(rng.integers(2, 6))
    rate = min(3.0, max(2.0, shakes / max(hold - 0.2, 0.5)))
    shakes = min(shakes, int((hold - 0.1) * rate))
    swing = 0.0 if refused else rng.uniform(0.02, 0.04)
    middle[:, 1] += swing * oscillation(t, touch + 0.08, max(shakes, 1), rate)
    for sign, person, weight, p in ((1, a, weights[0], 0), (-1, b, weights[1], 1)):
        fingers = ik.unit(sign * line + np.array([0.0, rng.uniform(-0.12, 0.12), 0.0]))
        palm_side = np.cross(ik.UP, fingers) * (1 if hand == 1 else -1)
        turn = ik.hand_turn(hand, fingers, ik.unit(palm_side))
        thickness = 0.018 * ik.unit(np.cross(ik.UP, sign * line)) * (1 if hand == 1 else -1)
        ahead = 0.0
        if refused:
            # Nobody meets the hand: it stops where the own arm is comfortable.
            reach = middle - shoulders[p]
            far = np.linalg.norm(reach, axis=-1, keepdims=True)
            ahead = reach * (np.minimum(1.0, 0.85 * person.arm / np.maximum(far, 0.1)) - 1)
        person.reach(hand, weight, middle - thickness + ahead, turn, person.pole(hand, out=0.35, down=1.0, back=0.5))


def finish(scene, kind, refused, sides, contacts, focus, end, variant=None):
    """Cut so that the event lies inside: from well before it, or as it begins, hands still on their way."""
    rng = scene.rng
    end = min(end, scene.times[-1])
    late = rng.uniform() < 0.22 and contacts
    start = min(focus + rng.uniform(0.0, 0.4), contacts[0][2] - LEAST_TRAVEL_S) if late else focus - rng.uniform(0.4, 2.6)
    start = max(0.0, min(start, end - 3.0))
    start = max(start, end - 8.0)
    if contacts and min(c[2] for c in contacts) - start < LEAST_TRAVEL_S:
        scene.reject("begins in contact")
    variant = variant or ("refused" if refused else "answered")
    return scene.cut(kind, variant, sides, contacts, start, max(end, start + 3.0))


def high_five(scene: Scene):
    """Raise hands and clap them at head height; sometimes one is left hanging."""
    rng = scene.rng
    size = np.mean(scene.legs)
    there, _ = arrive(scene, rng.uniform(0.92, 1.15) * size, rng.uniform(0.0, 0.06))
    hand = drawn_hand(rng)
    refused = rng.uniform() < 0.15
    offer = there + rng.uniform(-0.5, 0.2)
    wait = rng.uniform(0.05, 0.5)
    rise = rng.uniform(0.5, 0.75)
    delay = rng.uniform(0.1, 0.5)
    touch = max(offer + rise + wait, offer + delay + 0.55, there)
    hold = rng.uniform(0.07, 0.15)
    fall = rng.uniform(0.6, 0.9, 2)
    t = scene.times
    scene.perform()
    scene.build()
    linger = rng.uniform(0.7, 1.4) if refused else rng.uniform(0.12, 0.3)
    weights = [pulse(t, offer, rise, touch - offer - rise + linger, fall[0]),
               pulse(t, offer + delay, touch - 0.04 - offer - delay, linger, fall[1])]
    if refused:
        weights[1] = np.zeros(len(t))
    scene.watch(0, scene.attention())
    scene.watch(1, scene.attention(rng.uniform(-1, 0.5), touch + rng.uniform(0.2, 1.0) if refused else 99))
    lean = rng.uniform(0.05, 0.3, 2)
    for p, person in enumerate(scene.people):
        lead = np.interp(t + 0.1, t, weights[p])
        person.bend(pitch=0.05 * lead, yaw=(1 if hand == 1 else -1) * lean[p] * lead, hips=0.1)
        person.refresh()
    _clap(scene, hand, weights, touch, hold, refused)
    contacts = [] if refused else [(20 + hand, 20 + hand, touch, touch + hold, 0.02)]
    scene.timing(offer, offer + delay, refused, touch_at_s=float(touch))
    end = touch + hold + linger + fall.max() + rng.uniform(0.2, 0.9)
    return finish(scene, "high_five", refused, (SIDE[hand], SIDE[hand]), contacts, offer, end)


def _clap(scene, hand, weights, touch, hold, refused):
    rng, t = scene.rng, scene.times
    a, b = scene.people
    line = hand_axis(a, b, hand, hand)
    shoulders = [p.places[:, ik.ARM[hand][1]] for p in (a, b)]
    middle = smooth(0.5 * (shoulders[0] + shoulders[1]), 0.08)
    tops = [p.eyes[:, 1].mean() for p in (a, b)]
    middle[:, 1] = min(np.mean(tops) + rng.uniform(-0.08, 0.10), min(tops) + 0.14)
    # Hands start apart, meet flat, stay together for the contact and recoil.
    apart = 1 - ramp(t, touch - 0.28, 0.28) + ramp(t, touch + hold, 0.22)
    depths = rng.uniform(0.05, 0.10), rng.uniform(0.12, 0.22)
    for sign, person, weight, depth in ((1, a, weights[0], depths[0]), (-1, b, weights[1], depths[1])):
        face = sign * line
        tilt = 0.25 * minjerk(np.clip(apart, 0, 1))[:, None]
        fingers = ik.unit(ik.UP + face * (0.15 - tilt))
        turn = ik.hand_turn(hand, fingers, face + 0 * fingers)
        back = -face * ((depth * np.clip(apart, 0, 1)) if not refused else 0.10 + 0 * t)[:, None]
        goal = middle - face * 0.010 + back
        person.reach(hand, weight, goal, turn, person.pole(hand, out=0.8, down=1.0, back=-0.1))


def wave(scene: Scene):
    """One waves, the other waves back after a human delay, or does not."""
    rng = scene.rng
    there, _ = arrive(scene, rng.uniform(1.3, 3.4), 0.0, far=(1.0, 2.5))
    hands = [drawn_hand(rng, 0.25), drawn_hand(rng, 0.25)]
    refused = rng.uniform() < 0.18
    start = max(0.4, there - rng.uniform(0.0, 1.2))
    delay = rng.uniform(0.35, 0.9)
    scene.perform()
    scene.build()
    scene.watch(0, scene.attention())
    scene.watch(1, scene.attention(min(start + rng.uniform(0.1, 0.3), start + delay)))
    ends = []
    for p, begin in ((0, start), (1, start + delay)):
        if p == 1 and refused:
            continue
        ends.append(wave_arm(scene, p, hands[p], begin))
    scene.timing(start, start + delay, refused)
    end = max(ends) + rng.uniform(0.2, 0.8)
    return finish(scene, "wave", refused, (SIDE[hands[0]], SIDE[hands[1]]), [], start, end)


def wave_arm(scene, p, hand, begin):
    """Swing a raised hand 3-6 times at shoulder to head height; returns the time the arm is down again."""
    rng, t = scene.rng, scene.times
    person = scene.people[p]
    rise, fall = rng.uniform(0.5, 0.8), rng.uniform(0.6, 0.9)
    cycles, rate = int(rng.integers(3, 7)), rng.uniform(1.8, 2.8)
    span = cycles / rate
    weight = pulse(t, begin, rise, span, fall)
    out = 1.0 if hand == 0 else -1.0
    person.bend(roll=out * -0.04 * weight, yaw=-out * 0.05 * weight)
    person.refresh()
    chest = person.turns[:, 9]
    level = rng.uniform(0.0, 0.32) * person.arm
    swing = rng.uniform(0.25, 0.5) * oscillation(t, begin + rise - 0.1, cycles, rate)
    elbow_out = rng.uniform(0.45, 0.7)
    center = person.places[:, ik.ARM[hand][1]] + R.rotate(chest, np.array([out * elbow_out, 0.0, 0.42]) * person.arm)
    center = center + ik.UP * level
    left, ahead = person.axes()
    tilt = swing[:, None]
    fingers = ik.unit(ik.UP * np.cos(tilt) + out * left * np.sin(tilt) + 0.15 * ahead)
    goal = center + out * left * (0.22 * person.arm * swing[:, None]) + ik.UP * (0.1 * person.arm)
    turn = ik.hand_turn(hand, fingers, ahead + 0 * fingers)
    person.reach(hand, weight, goal, turn, person.pole(hand, out=0.9, down=1.0, back=0.1))
    return begin + rise + span + fall


def bow(scene: Scene):
    """Bow to each other, the lower-status one deeper and later; or the bow is not returned."""
    rng, t = scene.rng, scene.times
    there, _ = arrive(scene, rng.uniform(1.25, 2.0), 0.0, far=(1.0, 2.5))
    refused = rng.uniform() < 0.15
    start = there + rng.uniform(0.0, 0.5)
    delay = rng.uniform(0.15, 0.7)
    deep = np.sort(np.radians(rng.uniform(15, 48, 2)))
    if rng.uniform() < 0.3:
        deep = deep[::-1]
    scene.perform()
    scene.build()
    ends, curves = [], []
    for p, begin in ((0, start), (1, start + delay)):
        down, hold, up = rng.uniform(0.65, 1.05), rng.uniform(0.3, 1.0), rng.uniform(0.7, 1.1)
        curves.append(pulse(t, begin, down, hold, up) * (0 if p and refused else 1))
        ends.append(begin + down + hold + up)
    for p, person in enumerate(scene.people):
        gaze = scene.attention() * (1 - 0.9 * np.interp(t + 0.1, t, curves[p]))
        scene.watch(p, gaze)
        angle = deep[p] * curves[p]
        person.bend(pitch=angle, hips=0.55)
        person.shift(ahead=-0.16 * person.leg * np.sin(angle))
        person.refresh()
    scene.timing(start, start + delay, refused)
    end = (ends[0] if refused else max(ends)) + rng.uniform(0.2, 0.8)
    return finish(scene, "bow", refused, (None, None), [], start, end)
