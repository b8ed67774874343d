"""Following, mirroring and ignoring."""

from __future__ import annotations

import numpy as np
from rtinteract.training import ik
from rtinteract.training.choreo_source import Spell
from rtinteract.training.choreo_stage import Scene
from rtinteract.training.gestures import FPS, lagged, noise, pulse, ramp, smooth
from rtinteract.training.locomotion import Path, turned

from rtinteract import rotation as R


def follow(scene: Scene):
    """One walks and the other follows at a distance, or one advances and the other backs off."""
    return _retreat(scene) if scene.rng.uniform() < 0.25 else _behind(scene)


def _behind(scene):
    rng = scene.rng
    gap = rng.uniform(0.95, 2.0)
    length = rng.uniform(2.0, 5.0)
    bend = rng.normal(0, 0.5)
    a_start, b_start = scene.spot(0.0), scene.spot(-gap)
    a_plan = scene.stand(0, a_start, scene.yaw + rng.normal(0, 0.1))
    b_plan = scene.stand(1, b_start, scene.yaw + rng.normal(0, 0.15))
    end_yaw = scene.yaw + 1.6 * bend
    end = a_start + turned(scene.yaw + 0.8 * bend, np.array([0.0, length]))
    begin = rng.uniform(0.2, 0.8)
    delay = rng.uniform(0.2, 0.6)
    lead = scene.gait(0)
    a_path = Path(a_start, a_plan.yaw, end, end_yaw)
    a_done = a_plan.walk(begin, a_path, lead)
    rest = end - turned(end_yaw, np.array([0.0, gap * rng.uniform(0.8, 1.15)]))
    b_path = Path(b_start, b_plan.yaw, rest, end_yaw)
    chase = scene.gait(1, pace=lead.speed * b_path.length / max(a_path.length, 0.5))
    b_done = b_plan.walk(begin + delay, b_path, chase)
    if not 0.0 < b_done - a_done < 1.3:
        scene.reject("pace", f"{b_done - a_done:.2f} s behind")
    late = rng.uniform() < 0.35
    turn_back = a_done + rng.uniform(0.3, 0.8)
    turns = rng.uniform() < 0.35
    if turns:
        a_done = a_plan.turn(turn_back, end_yaw + np.pi * rng.choice([-1, 1]) * rng.uniform(0.9, 1.0))
    scene.perform()
    scene.build()
    scene.watch(1, scene.attention())
    if turns:
        scene.watch(0, scene.attention(turn_back))
    _refresh(scene)
    finish = max(a_done, b_done) + rng.uniform(0.4, 1.0)
    start = begin + rng.uniform(0.3, 1.5) if late else max(0.0, begin - rng.uniform(0.1, 0.6))
    scene.timing(begin, begin + delay, gap_m=float(gap))
    return fit(scene, "follow", "behind", start, finish)


def _retreat(scene):
    rng = scene.rng
    gap = rng.uniform(0.9, 1.5)
    a_plan = scene.stand(0, scene.spot(-gap / 2), scene.facing(0) + rng.normal(0, 0.06))
    b_plan = scene.stand(1, scene.spot(gap / 2), scene.facing(1) + rng.normal(0, 0.06))
    begin, delay = rng.uniform(0.4, 0.9), rng.uniform(0.25, 0.6)
    steps = int(rng.integers(2, 5))
    moved, when = 0.0, begin
    for _ in range(steps):
        stride = rng.uniform(0.28, 0.5)
        moved += stride
        seconds = rng.uniform(0.36, 0.46)
        a_plan.step_pair(when, scene.spot(moved - gap / 2), scene.facing(0), seconds)
        late = when + delay + rng.normal(0, 0.03)
        back = 0.0 if not b_plan.swings else b_plan.swings[-1][1] + 0.05
        b_plan.step_pair(max(late, back), scene.spot(moved + gap / 2 + rng.normal(0, 0.04)), scene.facing(1), seconds)
        when = a_plan.swings[-1][1] + rng.uniform(0.08, 0.9 if rng.uniform() < 0.4 else 0.15)
    finish = b_plan.swings[-1][1] + rng.uniform(0.4, 0.9)
    if finish > scene.times[-1]:
        scene.reject("too long")
    scene.perform()
    scene.build()
    moving = smooth(ramp(scene.times, begin + delay - 0.1, 0.4) * (1 - ramp(scene.times, finish - 0.8, 0.5)), 0.1)
    scene.people[1].bend(pitch=-0.07 * moving)
    for p in range(2):
        scene.watch(p, scene.attention())
    _refresh(scene)
    scene.timing(begin, begin + delay, gap_m=float(gap))
    return fit(scene, "follow", "retreat", max(0.0, begin - rng.uniform(0.2, 0.9)), finish)


def _refresh(scene):
    for person in scene.people:
        person.refresh()


def fit(scene, kind, variant, start, finish, sides=(None, None), contacts=(), brisk=False):
    """Cut 3 to 8 s between two times, a drawn part of it when there is more; contacts are kept inside."""
    finish = min(finish, scene.times[-1])
    if finish - start > 8.0:
        start += (finish - start - 8.0) * (1.0 if contacts else scene.rng.uniform())
    start = max(0.0, min(start, finish - 3.0))
    return scene.cut(kind, variant, sides, contacts, start, min(max(finish, start + 3.0), start + 8.0), brisk=brisk)


def mirror(scene: Scene):
    """One gestures, the other imitates as in a mirror, a little late and not quite alike."""
    rng = scene.rng
    gap = rng.uniform(1.2, 2.2)
    plans = [scene.stand(p, scene.spot((-gap / 2, gap / 2)[p]), scene.facing(p)) for p in range(2)]
    delay = rng.uniform(0.18, 0.45)
    length = rng.uniform(3.5, 7.5)
    begin = rng.uniform(-1.5, 0.9)
    steps = rng.uniform() < 0.35
    if steps:
        when = max(begin, 0.0) + rng.uniform(0.4, 1.2)
        side = rng.choice([-1, 1]) * rng.uniform(0.2, 0.4)
        for place in (side, side * rng.uniform(-0.3, 0.3)):
            for p, plan in enumerate(plans):
                center = scene.spot((-gap / 2, gap / 2)[p], place)
                plan.step_pair(when + p * delay, center, scene.facing(p), rng.uniform(0.36, 0.44))
            when += rng.uniform(1.2, 2.0)
    scene.perform()
    gestures = [g for g in scene.library.gestures if g.end - g.start > 2.4]
    real = bool(gestures) and rng.uniform() < 0.72
    if real:
        _overlay_gesture(scene, gestures[rng.integers(len(gestures))], begin, delay, length)
    scene.build()
    for p in range(2):
        scene.watch(p, (0.85 if p else 0.6) * scene.attention())
    _refresh(scene)
    if not real:
        _moves(scene, max(begin, -0.3), delay, length)
    scene.timing(begin, begin + delay, real=real)
    end = max(begin, 0.0) + length + delay + rng.uniform(0.7, 1.1)
    return fit(scene, "mirror", "gesture", 0.0, end)


def _overlay_gesture(scene, spell, begin, delay, length):
    rng, t = scene.rng, scene.times
    rate = rng.uniform(0.85, 1.1)
    length = min(length, (spell.end - spell.start) / rate - 0.1)
    offset = spell.start + rng.uniform(0, max(0.0, spell.end - spell.start - length * rate))
    image = Spell(spell.source.mirrored(), spell.start, spell.end)
    for p, one in enumerate((spell, image)):
        late = p * delay
        posture = one.source.sample(offset + (t - begin - late) * rate + (0.03 * noise(rng, (len(t),), 0.8) if p else 0.0))
        weight = ramp(t, begin + late, 0.6) * (1 - ramp(t, begin + late + length - 0.6, 0.8))
        weight = weight * (rng.uniform(0.86, 0.98) if p else 1.0)
        posture.rotations = smooth_rotations(posture.rotations, 0.05 if p else 0.02)
        scene.people[p].overlay(one.source, posture, weight)


def smooth_rotations(rotations, seconds):
    """Rotations [T, ..., 4] softened over time (signs are already continuous)."""
    return R.normalize(smooth(R.continuous(rotations), seconds))


def _moves(scene, begin, delay, length):
    """A few drawn arm moves through targets around the chest; the other's are their mirror image, later."""
    rng, t = scene.rng, scene.times
    when = max(begin, 0.0) + rng.uniform(0.1, 0.5)
    tracks = [[], []]
    while when < begin + length - 1.2:
        both = rng.uniform() < 0.5
        arms = (0, 1) if both else (int(rng.integers(2)),)
        rise, hold, fall = rng.uniform(0.55, 1.0), rng.uniform(0.1, 0.8), rng.uniform(0.55, 1.0)
        target = np.array([rng.uniform(0.2, 0.85), rng.uniform(-0.25, 0.75), rng.uniform(0.25, 0.7)])
        target *= min(1.0, 0.93 / np.linalg.norm(target))
        for arm in arms:
            tracks[arm].append((when, rise, hold, fall, target))
        when += rise + hold + fall + rng.uniform(0.0, 0.4)
    if not any(tracks):
        scene.reject("too short")
    for p, person in enumerate(scene.people):
        for arm in (0, 1):
            for when, rise, hold, fall, target in tracks[arm]:
                side = arm if p == 0 else 1 - arm
                weight = pulse(t, when + p * delay, rise, hold, fall) * (rng.uniform(0.88, 1.0) if p else 1.0)
                _raise(person, side, weight, target * (rng.uniform(0.95, 1.0) if p else 1.0))


def _raise(person, side, weight, target):
    across = 1.0 if side == 0 else -1.0
    shoulder = person.places[:, ik.ARM[side][1]]
    goal = shoulder + R.rotate(person.turns[:, 9], target * np.array([across, 1.0, 1.0]) * person.arm)
    person.reach(side, weight, goal, None, person.pole(side, out=0.8, down=0.9, back=0.3), pronation=0.0)


def ignore(scene: Scene):
    """Two people who do their own things near each other: stand, gesture, walk past; nobody reacts."""
    rng, t = scene.rng, scene.times
    gap = rng.uniform(1.1, 2.6)
    tasks = [str(rng.choice(["walk", "gesture", "stand"], p=[0.45, 0.3, 0.25])) for _ in range(2)]
    if tasks == ["stand", "stand"]:
        tasks[int(rng.integers(2))] = "walk"
    for p in range(2):
        side = (-0.5, 0.5)[p] * gap
        if tasks[p] == "walk":
            distance = rng.uniform(2.0, 4.5)
            yaw = scene.yaw + rng.choice([0.0, np.pi]) + rng.normal(0, 0.15)
            middle = scene.spot(rng.uniform(-0.5, 0.5), side)
            begin = middle - turned(yaw, np.array([0.0, distance / 2]))
            plan = scene.stand(p, begin, yaw)
            after = yaw + rng.normal(0, 0.25)
            end = begin + turned(0.5 * (yaw + after), np.array([0.0, distance]))
            plan.walk(rng.uniform(-1.2, 1.2), Path(begin, yaw, end, after), scene.gait(p))
        else:
            plan = scene.stand(p, scene.spot(rng.uniform(-0.4, 0.4), side), rng.uniform(-np.pi, np.pi))
            if rng.uniform() < 0.4:
                plan.turn(rng.uniform(0.5, 3.0), plan.yaw + rng.choice([-1, 1]) * rng.uniform(0.5, 1.6))
    scene.perform()
    for p in range(2):
        gestures = [g for g in scene.library.gestures if g.end - g.start > 2.0]
        if tasks[p] == "gesture" and gestures:
            spell = gestures[rng.integers(len(gestures))]
            length = min(rng.uniform(2.5, 8.0), spell.end - spell.start)
            offset = rng.uniform(spell.start, spell.end - length)
            begin = rng.uniform(-0.8, 1.5)
            posture = spell.source.sample(offset + t - begin)
            scene.people[p].overlay(spell.source, posture, ramp(t, begin, 0.6) * (1 - ramp(t, begin + length - 0.7, 0.7)))
    scene.build()
    for p in range(2):
        _glance(scene, p)
    _refresh(scene)
    scene.meta.update(refused=True, delay_s=0.0, tasks=tasks)
    return fit(scene, "ignore", "apart", rng.uniform(0.0, 0.8), rng.uniform(4.0, 8.5))


def _glance(scene, p):
    """Look about at places that are not the other person."""
    rng, t = scene.rng, scene.times
    person = scene.people[p]
    turn = smooth(np.repeat(rng.normal(0, 0.5, len(t) // 45 + 1), 45)[:len(t)], 0.18)
    left, ahead = person.axes()
    eyes = person.eyes
    target = eyes + 4.0 * (ahead * np.cos(turn)[:, None] + left * np.sin(turn)[:, None])
    target[:, 1] -= rng.uniform(0.2, 1.5)
    target = lagged(target, t, 0.0, 1.0 / FPS)
    person.look(target, np.full(len(t), rng.uniform(0.4, 0.8)), 0.0)
