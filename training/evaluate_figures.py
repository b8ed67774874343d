"""Figures of reactors against the truth: one pair, many pairs, and one contender against another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rtinteract import metrics
from rtinteract import rotation as R
from rtinteract.features.canonical import frame_of
from rtinteract.motion import Motion

# Every contender is given so many of the true reactor's first frames (one token column); they are not measured.
START = 4
NEAR_CM = (5, 10, 20)
_BOOTSTRAPS = 2000


@dataclass(frozen=True, eq=False)
class Case:
    """One held-out pair in the model's form: ``contacts`` as `rtinteract.metrics.contact_error` takes them, a one joint first."""

    actor: Motion
    truth: Motion
    contacts: tuple
    kind: str
    text: str
    seed: int

    @property
    def start(self) -> Motion:
        """What every contender knows of the reactor."""
        return self.truth[:START]


def still(case: Case) -> Motion:
    """A reactor who keeps the true one's first pose."""
    first, frames = case.truth, np.zeros(len(case.truth), dtype=int)
    return Motion(first.positions[frames], first.rotations[frames], first.skeleton, first.fps)


def stand_in(case: Case, other: Motion) -> Motion:
    """Another clip's reactor, moved to where the true one begins and facing as it does; its last pose held at the end."""
    there, here = frame_of(other.positions[0]), frame_of(case.truth.positions[0])
    turn = float(here.yaw - there.yaw)
    moved = other.moved(turn, here.origin - R.rotate(R.yaw(np.float64(turn)), there.origin))
    frames = np.minimum(np.arange(len(case.truth)), len(moved) - 1)
    return Motion(moved.positions[frames], moved.rotations[frames], moved.skeleton, moved.fps)


def headings(motion: Motion) -> np.ndarray:
    """Yaw [T] in radians of the facing, from hips and shoulders."""
    p = motion.positions
    return R.heading((p[:, 1] - p[:, 2]) + (p[:, 16] - p[:, 17]))


def heading_difference(motion: Motion, truth: Motion) -> np.ndarray:
    """Degrees [T] between two people's facings."""
    return np.degrees(np.abs((headings(motion) - headings(truth) + np.pi) % (2 * np.pi) - np.pi))


def measure(case: Case, reactor: Motion) -> dict:
    """Figures of one reactor in one pair, from frame `START` on (see `summary` for units)."""
    actor, reactor, truth = case.actor[START:], reactor[START:], case.truth[START:]
    contacts = [(c.joint_a, c.joint_b, c.start - START, c.end - START, c.gap) for c in case.contacts if c.end > START]
    depth, clearance = metrics.penetration(actor, reactor), metrics.floor_clearance(reactor)
    return {
        "contacts_cm": metrics.contact_error(actor, reactor, contacts).tolist(),
        "distance_m": metrics.mpjpe(reactor, truth) / 1000, "aligned_m": metrics.mpjpe(reactor, truth, align="root") / 1000,
        "heading_off_deg": float(heading_difference(reactor, truth).mean()),
        "facing_deg": float(metrics.facing_error(reactor, actor).mean()),
        "apart_off_m": float(np.abs(metrics.pelvis_distance(actor, reactor) - metrics.pelvis_distance(actor, truth)).mean()),
        "foot_slide_mm": metrics.foot_slide(reactor), "float_cm": float(100 * np.maximum(clearance, 0).mean()),
        "sink_cm": float(100 * np.maximum(-clearance, 0).mean()), "jitter": metrics.jitter(reactor),
        "truth_jitter": metrics.jitter(truth), "penetration_median_cm": float(np.median(depth)),
        "penetration_max_cm": float(depth.max()),
    }


def contact_summary(rows: Sequence[dict]) -> dict:
    """Contact errors in cm over all contacts of measured pairs; None where there is no contact."""
    errors = np.array([e for row in rows for e in row["contacts_cm"]])
    found = {"contacts": len(errors), "contact_mean_cm": None, "contact_median_cm": None}
    found |= {f"contact_within_{near}_cm": None for near in NEAR_CM}
    if len(errors):
        found |= {"contact_mean_cm": float(errors.mean()), "contact_median_cm": float(np.median(errors))}
        found |= {f"contact_within_{near}_cm": float((errors <= near).mean()) for near in NEAR_CM}
    return found


def summary(rows: Sequence[dict]) -> dict:
    """Figures over measured pairs, each pair weighing the same.

    Contact errors: see `contact_summary`. distance_m: mean joint distance to the true reactor; aligned_m: with each frame's
    pelvis on the true one's; heading_off_deg: between both facings; facing_deg: between facing and the actor; apart_off_m:
    of the distance between the two people; foot_slide_mm a 30 Hz frame; float_cm, sink_cm: mean height of the lowest foot
    point above and below standing; jitter_ratio: mean jerk over the true reactors'; penetration_median_cm: the mean over
    pairs of each one's median over frames, penetration_deepest_cm the mean of each one's deepest, penetration_max_cm over all.
    """
    def mean(name):
        return float(np.mean([row[name] for row in rows]))

    means = ("distance_m", "aligned_m", "heading_off_deg", "facing_deg", "apart_off_m", "foot_slide_mm", "float_cm", "sink_cm")
    return {
        "pairs": len(rows), **contact_summary(rows), **{name: mean(name) for name in means},
        "jitter_ratio": mean("jitter") / max(mean("truth_jitter"), 1e-9),
        "penetration_median_cm": mean("penetration_median_cm"), "penetration_deepest_cm": mean("penetration_max_cm"),
        "penetration_max_cm": float(max(row["penetration_max_cm"] for row in rows)),
    }


def versus(rows: Sequence[dict], baseline: Sequence[dict], seed: int = 0) -> dict:
    """One contender against another on the same pairs, on distance_m and on each pair's mean contact error.

    ``gain`` is the baseline's mean error less the contender's (positive: the contender is closer), ``low`` and ``high`` its
    95 % bootstrap interval over pairs, ``won`` the share of pairs in which the contender is closer; ``beats`` says that the
    whole interval lies above zero. None where no pair has a contact.
    """
    found: dict = {}
    for name, value in (("distance_m", lambda row: row["distance_m"]),
                        ("contact_cm", lambda row: float(np.mean(row["contacts_cm"])) if row["contacts_cm"] else None)):
        both = [(value(a), value(b)) for a, b in zip(rows, baseline, strict=True)]
        gains = np.array([b - a for a, b in both if a is not None and b is not None])
        if not len(gains):
            found[name] = None
            continue
        draws = np.random.default_rng(seed).integers(len(gains), size=(_BOOTSTRAPS, len(gains)))
        low, high = np.percentile(gains[draws].mean(1), [2.5, 97.5])
        found[name] = {"gain": float(gains.mean()), "low": float(low), "high": float(high), "won": float((gains > 0).mean()),
                       "pairs": len(gains), "beats": bool(low > 0)}
    return found
