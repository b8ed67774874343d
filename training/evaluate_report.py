"""The readable side of an evaluation: report.md and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rtinteract.errors import RtInteractError
from rtinteract.motion.picture import write_picture, write_sheet

# (heading, figure, digits, factor)
Column = tuple[str, str, int, float]
_PAIR: tuple[Column, ...] = (
    ("contact mean cm", "contact_mean_cm", 1, 1), ("median cm", "contact_median_cm", 1, 1),
    ("≤ 5 cm %", "contact_within_5_cm", 0, 100), ("≤ 10 cm %", "contact_within_10_cm", 0, 100),
    ("≤ 20 cm %", "contact_within_20_cm", 0, 100), ("to truth m", "distance_m", 3, 1),
    ("root-aligned m", "aligned_m", 3, 1), ("facing partner °", "facing_deg", 1, 1), ("heading off °", "heading_off_deg", 1, 1),
    ("apart off m", "apart_off_m", 3, 1), ("slide mm/frame", "foot_slide_mm", 2, 1), ("float cm", "float_cm", 1, 1),
    ("sink cm", "sink_cm", 1, 1), ("jitter ratio", "jitter_ratio", 2, 1),
    ("penetration median cm", "penetration_median_cm", 1, 1),
    ("deepest, mean cm", "penetration_deepest_cm", 1, 1), ("max cm", "penetration_max_cm", 1, 1))
_REAL: tuple[Column, ...] = (
    ("distance off m", "distance_off_m", 3, 1), ("closest m", "closest_m", 2, 1), ("at the end m", "last_m", 2, 1),
    ("facing partner °", "facing_deg", 1, 1), ("heading off °", "heading_off_deg", 1, 1),
    ("hands at contact cm", "hand_at_contact_cm", 1, 1), ("nearest ± 0.5 s cm", "hand_nearest_cm", 1, 1),
    ("joints to real m", "joint_distance_m", 3, 1), ("slide mm/frame", "foot_slide_mm", 2, 1),
    ("jitter ratio", "jitter_ratio", 2, 1), ("penetration max cm", "penetration_max_cm", 1, 1))
_LATENCY: tuple[Column, ...] = (
    ("hops", "hops", 0, 1), ("p50 ms", "hop_p50_ms", 1, 1), ("p95 ms", "hop_p95_ms", 1, 1), ("p99 ms", "hop_p99_ms", 1, 1),
    ("period ms", "hop_period_ms", 1, 1), ("over the period %", "over_period", 2, 100), ("iterations", "iterations", 0, 1))
_SHOWN = 12


def _cell(value, digits: int, factor: float = 1.0) -> str:
    return "–" if value is None else f"{value * factor:.{digits}f}"


def table(rows: dict[str, dict], columns: Sequence[Column], first: str = "") -> list[str]:
    """Lines of a Markdown table: one row a contender."""
    lines = [f"| {first} | " + " | ".join(c[0] for c in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return lines + [f"| {name} | " + " | ".join(_cell(row[key], digits, factor) for _, key, digits, factor in columns) + " |"
                    for name, row in rows.items()]


def markdown(report: dict) -> str:
    """The report as Markdown."""
    about = report["model"]
    lines = ["# Evaluation", "", f"Model `{about['name']}`, {about['parameters'] / 1e6:.2f} M parameters, representation "
             f"{about['representation']}; {about['device']}, {about['threads']} threads, torch {about['torch']}. "
             f"Seed {report['seed']}."]
    for section, write in (("codec", _codec), ("reactions", _reactions), ("streaming", _streaming), ("real", _real)):
        if report.get(section):
            lines += ["", *write(report[section])]
    if report["left_out"]:
        lines += ["", "## Left out", "", *(f"- {what}" for what in report["left_out"])]
    if report["pictures"]:
        lines += ["", "## Pictures", "", *(f"![{name}]({name})" for name in report["pictures"])]
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in report["seconds"].items())
    return "\n".join([*lines, "", f"Took: {took}.", ""])


def _codec(found: dict) -> list[str]:
    whole = found["whole"]
    again = [(name, found[key]) for name, key in (
        ("Model.reconstruct, windows re-anchored", "reconstruct"),
        (f"the same, codes refined by {found['refine_steps']} steps", "refined"))]
    return ["## Codec", "", f"{found['clips']} real clips never trained on, {found['frames']} frames of one weight each. "
            "Aim: at most 55 mm global, 32 mm root-aligned.", "",
            "| | global mm | root-aligned mm | slide mm/frame (data) | jitter ratio |", "|---|---|---|---|---|",
            f"| whole clip, one canonical frame | {whole['mpjpe_mm']:.1f} | {whole['aligned_mm']:.1f} | – | – |",
            *(f"| {name} | {row['mpjpe_mm']:.1f} | {row['aligned_mm']:.1f} | "
              f"{row['foot_slide_mm']:.2f} ({row['true_foot_slide_mm']:.2f}) | {row['jitter_ratio']:.2f} |"
              for name, row in again), "",
            f"{found['codes_used']:.0%} of {found['codes']} codes used, perplexity {found['perplexity']:.0f}.", "",
            "Worst clips: " + ", ".join(f"{row['name']} {row['mpjpe_mm']:.0f} mm" for row in
                                        sorted(found["each"], key=lambda row: -row["mpjpe_mm"])[:5]) + "."]


def _reactions(found: dict) -> list[str]:
    lines = ["## Reactions to held-out composed pairs", "", f"{found['pairs']} pairs, {found['with_contacts']} with contacts. "
             "All but \"no start\" begin with the true reactor's first 4 frames (or pose), which are not measured. Contact: by "
             "how much touching points miss each other at the true time.", ""]
    lines += table(found["contenders"], _PAIR)
    lines += ["", "Against the baselines: how much closer (95 % interval over pairs; share of pairs won).", "",
              "| | distance to truth m | contact cm |", "|---|---|---|"]
    for name, others in found["against"].items():
        for other, both in others.items():
            lines.append(f"| {name} – {other} | {_versus(both['distance_m'], 3)} | {_versus(both['contact_cm'], 1)} |")
    names = list(found["contenders"])
    for key, digits, title in (("contact_mean_cm", 1, "Contact error, mean cm"), ("distance_m", 3, "Distance to truth, m")):
        lines += ["", f"{title}, by kind:", "", "| kind | pairs | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
        lines += [f"| {kind} | {row['pairs']} | " + " | ".join(_cell(row[n][key], digits) for n in names) + " |"
                  for kind, row in found["kinds"].items()]
    return lines


def _versus(found: dict | None, digits: int) -> str:
    if found is None:
        return "–"
    word = "beats it" if found["beats"] else "does not beat it" if found["high"] > 0 else "is worse"
    return f"{found['gain']:+.{digits}f} ({found['low']:+.{digits}f} to {found['high']:+.{digits}f}; {found['won']:.0%}): {word}"


def _streaming(found: dict) -> list[str]:
    lines = ["## Streaming against offline", "", f"{found['pairs']} of these pairs, begun by the true reactor's first 4 "
             "frames.", ""]
    lines += table(found["contenders"], _PAIR) + ["", "Time of a hop, warm-up left out:", ""] + table(found["latency"], _LATENCY)
    lines += ["", "Streaming against offline (positive: streaming is closer):", "", "| | distance to truth m | contact cm |",
              "|---|---|---|"]
    for name, gap in found["gaps"].items():
        cells = ["–" if g is None else f"{g['gain']:+.{d}f} ({g['low']:+.{d}f} to {g['high']:+.{d}f})"
                 for g, d in ((gap["distance_m"], 3), (gap["contact_cm"], 1))]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return lines


def _real(found: dict) -> list[str]:
    return ["## The real pair", "", f"{found['frames']} frames, never trained on; text: \"{found['text']}\". The model's rows "
            f"are means over {found['samples']} samples. The real right hands are closest at "
            f"{found['moment_of_contact_s']:.2f} s.", "",
            *table(found["contenders"], _REAL)]


def write_pictures(out: Path, scenes: dict, report: dict, left_out: list[str]) -> list[str]:
    """Draw pairs and the real pair; names of the files. Without Pillow there are none, and ``left_out`` says so."""
    written: list[str] = []
    try:
        if "pairs" in scenes:
            _pair_sheet(out / "reactions.png", *scenes["pairs"])
            written.append("reactions.png")
        if "real" in scenes:
            actor, made = scenes["real"]
            for name, reactor in made.items():
                file = f"real-{name.replace(',', '').replace(' ', '-').lower()}.png"
                write_picture(out / file, (actor, reactor), title=f"A and {name}", names=("A", name))
                written.append(file)
    except RtInteractError as error:
        left_out.append(f"pictures: {error}")
    return written


def _pair_sheet(path: Path, cases: Sequence, made: dict) -> None:
    """A row a pair, as many kinds as there are first: the truth, and the model offline and streaming with all it is given."""
    columns = ["truth"] + [next(n for n in (f"{base} + text", base) if n in made) for base in ("react", "stream") if base in made]
    # Fewer pairs may have been streamed than reacted to.
    cases = cases[:min(len(made[name]) for name in columns)]
    first = list({case.kind: i for i, case in reversed(list(enumerate(cases)))}.values())[::-1]
    rows = (first + [i for i in range(len(cases)) if i not in first])[:_SHOWN]
    clips = [(cases[i].actor, made[name][i]) for i in rows for name in columns]
    titles = [f"{cases[i].kind}: {name}" for i in rows for name in columns]
    write_sheet(path, clips, columns=len(columns), titles=titles)
