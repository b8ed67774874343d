"""The one real pair, never trained on: what the model makes of person A, beside what person B really did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rtinteract.training.evaluate_figures import START, Case, heading_difference, still

from rtinteract import metrics
from rtinteract.errors import ConfigError, MotionError
from rtinteract.model import Model
from rtinteract.motion import Motion, read_motion
from rtinteract.stream import play

TEXT = "two people walk up to each other and shake hands"
# The pair is short and sampling is random: figures are means over so many samples.
SAMPLES = 4
RIGHT_HAND = 21
NEAR_S = 0.5


def read_pair(actor: Path, reactor: Path) -> Case:
    """Both files in the model's form, cut to one length; MotionError when they are shorter than a second."""
    people = [read_motion(path).to_model() for path in (actor, reactor)]
    frames = min(len(m) for m in people)
    if frames < 30:
        raise MotionError(f"real pair: expected at least 30 frames at 30 fps, got {frames} in {actor.name} and {reactor.name}; "
                          "give longer clips")
    return Case(people[0][:frames], people[1][:frames], (), "real", TEXT, 0)


def hand_gap(actor: Motion, reactor: Motion) -> np.ndarray:
    """Centimetres [T] between the palms of both right hands."""
    return 100 * np.linalg.norm(
        metrics.touching_point(actor, RIGHT_HAND) - metrics.touching_point(reactor, RIGHT_HAND), axis=-1)


def compare(case: Case, reactor: Motion, moment: int) -> dict:
    """Figures of one reactor beside the real one; ``moment`` is the frame at which the real right hands are closest.

    Distances over time and facings are compared from frame `START` on.
    """
    actor, truth, fps = case.actor, case.truth, case.actor.fps
    gap, reach = hand_gap(actor, reactor), round(NEAR_S * fps)
    near = gap[max(0, moment - reach):moment + reach + 1]
    apart, real = metrics.pelvis_distance(actor, reactor), metrics.pelvis_distance(actor, truth)
    return {
        "distance_off_m": float(np.abs(apart - real)[START:].mean()), "closest_m": float(apart.min()),
        "last_m": float(apart[-1]), "facing_deg": float(metrics.facing_error(reactor, actor)[START:].mean()),
        "heading_off_deg": float(heading_difference(reactor, truth)[START:].mean()),
        "hand_at_contact_cm": float(gap[moment]), "hand_nearest_cm": float(near.min()),
        "joint_distance_m": metrics.mpjpe(reactor[START:], truth[START:]) / 1000,
        "foot_slide_mm": metrics.foot_slide(reactor), "jitter_ratio": metrics.jitter(reactor) / max(metrics.jitter(truth), 1e-9),
        "penetration_max_cm": float(metrics.penetration(actor, reactor).max()),
    }


def _mean(rows: list[dict]) -> dict:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _streamed(model: Model, case: Case, text: str | None, seed: int) -> list[Motion]:
    made = []
    for sample in range(SAMPLES):
        stream = model.stream(text, start=case.start, seed=seed + sample)
        made.append(Motion.join([case.start, play(stream, case.actor)])[:len(case.actor)])
    return made


def real_section(model: Model, case: Case, *, text: bool, seed: int, left_out: list[str], step=None) -> tuple[dict, dict]:
    """(report of the real pair, one reactor a contender for pictures). ``step(label)`` is called before each contender."""
    moment = int(hand_gap(case.actor, case.truth).argmin())
    made: dict[str, list[Motion]] = {"the real B": [case.truth], "standing still": [still(case)]}
    for prompt in [None, case.text] if text else [None]:
        words = " with text" if prompt else ""
        for start, how in ((case.start, "with start"), (None, "without start")):
            if step is not None:
                step(f"offline{words}, {how}")
            made[f"offline{words}, {how}"] = model.react([case.actor] * SAMPLES, prompt, start=start, seed=seed)
        if step is not None:
            step(f"streaming{words}")
        try:
            made[f"streaming{words}, with start"] = _streamed(model, case, prompt, seed)
        except ConfigError as error:
            left_out.append(f"real pair, streaming{words}: {error}")
    rows = {name: [compare(case, reactor, moment) for reactor in reactors] for name, reactors in made.items()}
    apart = {name: metrics.pelvis_distance(case.actor, reactors[0]).round(3).tolist() for name, reactors in made.items()}
    report = {"frames": len(case.actor), "text": case.text, "samples": SAMPLES, "moment_of_contact_s": moment / case.actor.fps,
              "contenders": {name: _mean(found) for name, found in rows.items()},
              "each": {name: found for name, found in rows.items() if len(found) > 1}, "distance_over_time_m": apart}
    return report, {name: reactors[0] for name, reactors in made.items()}
