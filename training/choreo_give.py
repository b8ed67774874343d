"""Handing something over: carried at the belly, offered or asked for, taken and kept, or not taken."""

from __future__ import annotations

import numpy as np
from rtinteract.training import ik
from rtinteract.training.choreo_meet import SIDE, arrive, drawn_hand, finish, hand_axis
from rtinteract.training.choreo_stage import Scene
from rtinteract.training.gestures import ramp, smooth

from rtinteract import rotation as R


def handover(scene: Scene):
    """One gives the other a thing, small in one hand or a box in both; sometimes on asking, sometimes it is not taken."""
    rng, t = scene.rng, scene.times
    size = min(np.mean(scene.legs), 1.04 * min(scene.legs))
    box = rng.uniform() < 0.4
    there, _ = arrive(scene, rng.uniform(0.98, 1.2) * size + (0.04 if box else 0.0), rng.uniform(0.0, 0.05))
    asked = rng.uniform() < 0.3
    refused = not asked and rng.uniform() < 0.22
    giver = 1 if asked else 0
    offer = there + rng.uniform(-0.4, 0.5)
    rises = rng.uniform(0.75, 1.15), rng.uniform(0.6, 0.95)
    if asked:
        begins = {1 - giver: offer, giver: offer + rng.uniform(0.35, 0.9)}
    else:
        begins = {giver: offer, 1 - giver: offer + rng.uniform(0.2, 0.6)}
    touch = max(begins[giver] + rises[0], begins[1 - giver] + rises[1], there + 0.1)
    hold = rng.uniform(0.8, 1.5) if refused else rng.uniform(0.17, 0.5)
    backs = refused and rng.uniform() < 0.45
    if backs:
        back = scene.spot(0.6 * size + rng.uniform(0.2, 0.4))
        scene.plans[1].step_pair(begins[1] + rng.uniform(0.0, 0.2), back, scene.facing(1), 0.42)
    scene.perform()
    scene.build()
    falls = rng.uniform(0.6, 0.95, 2)
    weights = {}
    for p in range(2):
        rise = touch - begins[p] if p == giver or asked else rises[1]
        fall = falls[0] if p == giver else falls[1]
        begin = begins[p] if asked else touch - rise
        weights[p] = ramp(t, begin, min(rise, 1.3)) * (1 - ramp(t, touch + hold, fall))
        scene.watch(p, scene.attention())
    if refused:
        weights[1] = 0 * t
    for p, person in enumerate(scene.people):
        lead = np.interp(t + 0.12, t, weights[p])
        _glance_at_hands(person, weights[p], rng.uniform(0.0, 0.28))
        person.bend(pitch=rng.uniform(0.05, 0.14) * lead, hips=0.2)
        person.shift(ahead=0.03 * lead)
        person.refresh()
    hand = drawn_hand(rng)
    kept = {giver: 1 - ramp(t, touch + hold - 0.05, 0.5) if not refused else 1 + 0 * t,
            1 - giver: 0 * t if refused else ramp(t, touch + 0.5 * hold, 0.7)}
    deal = _box if box else _small
    contacts = deal(scene, giver, hand, weights, kept, touch, hold, refused)
    answer = begins[1]
    roles = ["giver", "receiver"] if giver == 0 else ["receiver", "giver"]
    scene.timing(offer, answer, refused, touch_at_s=float(touch), roles=roles, object="box" if box else "small")
    end = touch + hold + max(falls) + rng.uniform(0.3, 1.0)
    variant = "refused" if refused else "asked" if asked else "given"
    hands = ("both", "both") if box else (SIDE[hand], SIDE[hand])
    return finish(scene, "handover", refused, hands, contacts, offer, end, variant)


def _glance_at_hands(person, weight, angle):
    """The eyes go down to the hands while something passes between them."""
    left, _ = person.axes()
    ik.turn_spine(person.rotations, {12: 0.5, 15: 0.5}, left * (angle * smooth(weight**3, 0.1))[:, None])


def _carry(person, side, spot, weight, fingers, palm):
    """A hand kept at a place in the chest's frame (arm lengths from the shoulder) while it holds something."""
    across = np.array([1.0 if side == 0 else -1.0, 1.0, 1.0])
    chest = person.turns[:, 9]
    goal = person.places[:, ik.ARM[side][1]] + R.rotate(chest, spot * across * person.arm)
    turn = ik.hand_turn(side, R.rotate(chest, fingers * across), R.rotate(chest, palm * across))
    person.reach(side, weight, goal, turn, person.pole(side, out=0.4, down=1.0, back=0.5))


def _middle(scene, hands, rng):
    """The place [T, 3] between both people where the thing passes, and the direction from person 0 to person 1."""
    a, b = scene.people
    line = hand_axis(a, b, *hands)
    middle = smooth(0.5 * (a.places[:, ik.ARM[hands[0]][1]] + b.places[:, ik.ARM[hands[1]][1]]), 0.08)
    middle[:, 1] = np.mean(scene.legs) * rng.uniform(1.20, 1.42)
    return middle + rng.uniform(-0.03, 0.03) * line, line


def _small(scene, giver, hand, weights, kept, touch, hold, refused):
    """One hand of each: the giver's below with the palm up or aside, the receiver's above it."""
    rng = scene.rng
    middle, line = _middle(scene, (hand, hand), rng)
    gap = rng.uniform(0.05, 0.09)
    across = 1 if hand == 1 else -1
    flat = rng.uniform() < 0.5
    for p, person in enumerate(scene.people):
        ahead = line if p == 0 else -line
        _carry(person, hand, np.array([0.0, -0.52, 0.50]) + rng.normal(0, 0.04, 3), kept[p],
               np.array([-0.3, 0.25, 0.9]), np.array([-0.9, 0.45, -0.1]) if not flat else np.array([-0.1, 1.0, -0.2]))
        lower = p == giver
        inward = np.cross(ik.UP, ahead) * across
        palm = (ik.UP if lower else -ik.UP) + 0 * line if flat else inward + (0.2 if lower else -0.2) * ik.UP
        fingers = ik.unit(ahead + (0.05 if lower else 0.15) * ik.UP)
        place = middle + ik.UP * (-gap / 2 if lower else gap / 2)
        if refused:
            shoulder = person.places[:, ik.ARM[hand][1]]
            reach = place - shoulder
            far = np.linalg.norm(reach, axis=-1, keepdims=True)
            place = shoulder + reach * np.minimum(1.0, 0.85 * person.arm / np.maximum(far, 0.1))
        person.reach(hand, weights[p], place, ik.hand_turn(hand, fingers, palm), person.pole(hand, out=0.35, down=1.0, back=0.5))
    return [] if refused else [(20 + hand, 20 + hand, touch, touch + hold, float(gap))]


def _box(scene, giver, hand, weights, kept, touch, hold, refused):
    """Both hands of each on the sides of a box, the giver's on the rear half, the receiver's on the front half."""
    rng = scene.rng
    half, deep = rng.uniform(0.09, 0.17), rng.uniform(0.07, 0.11)
    contacts = []
    middles = [_middle(scene, hands, rng) for hands in ((0, 1), (1, 0))]
    line = ik.unit(middles[0][1] + middles[1][1])
    middle = 0.5 * (middles[0][0] + middles[1][0])
    middle[:, 1] = middles[0][0][:, 1]
    for p, person in enumerate(scene.people):
        ahead = line if p == 0 else -line
        aside = np.cross(ik.UP, ahead)
        shoulders = 0.5 * np.linalg.norm(person.places[:, 16] - person.places[:, 17], axis=-1).mean() / person.arm
        for side in (0, 1):
            out = 1.0 if side == 0 else -1.0
            carry = np.array([half / person.arm - shoulders, -0.50, 0.52])
            _carry(person, side, carry, kept[p], np.array([-0.12, 0.15, 1.0]), np.array([-1.0, 0.1, 0.0]))
            place = middle - ahead * (deep / 2) + aside * (out * half)
            if refused:
                place = place - ahead * 0.08
            turn = ik.hand_turn(side, ik.unit(ahead + 0.1 * ik.UP), -out * aside)
            person.reach(side, weights[p], place, turn, person.pole(side, out=0.45, down=1.0, back=0.4))
            if p == 0 and not refused:
                contacts.append((20 + side, 21 - side, touch, touch + hold, float(deep)))
    return contacts
