"""How good is dH as an uncertainty: which frames are new, and where potentials err. Ours and other ways.

    python benchmarks/uq.py                       # all parts; writes benchmarks/results/uq.json and uq.md, and the
                                                  # figures docs/figures/uq_*.png
    python benchmarks/uq.py --only frames scan    # some parts; the others stay as they were
    python benchmarks/uq.py --quick               # every tenth frame, to see that it runs; nothing is written

Data sets are found through the environment variable QUESTS_ZENN_DATA. The parts `hamiltonian` and `universal` need the
packages tblite and chgnet, which no extra brings; where one is not installed, its part stays as it was. No time is
measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from _uq_errors import part_coverage, part_errors, part_universal
from _uq_figures import figures
from _uq_frames import (
    Size,
    part_alarms,
    part_frames,
    part_grid,
    part_hamiltonian,
    part_limit,
    part_scan,
)
from density import machine, show, table, timed

HERE = Path(__file__).resolve().parent

PARTS: dict[str, Callable[[Size], dict[str, Any] | None]] = {
    "frames": part_frames,
    "grid": part_grid,
    "scan": part_scan,
    "limit": part_limit,
    "hamiltonian": part_hamiltonian,
    "alarms": part_alarms,
    "errors": part_errors,
    "coverage": part_coverage,
    "universal": part_universal,
}

GROUPS = ("600 K", "above 60°", "30-60°", "below 30°")
STATISTICS = ("mean", "quarter", "max")

Row = dict[str, Any]

warnings.filterwarnings("ignore")  # rivals warn


# --- tables -----------------------------------------------------------------------------------------------------------


def markdown(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["# Uncertainty: which frames are new, and where potentials err", ""]
    lines.append("k = 32, cutoff 5 Å unless told; h in 1/Å; dH in nats.")
    writers = (write_frames, write_scan, write_grid, write_alarms, write_errors, write_coverage, write_universal)
    for write in writers:
        name = write.__name__.removeprefix("write_")
        if name in results:
            lines += ["", f"## {write.__doc__}".rstrip("."), *write(results)]
    return "\n".join(lines) + "\n"


def triple(group: str) -> Callable[[Row], str]:
    """A column: AUROC with each statistic."""
    return lambda row: ", ".join(f"{row['auroc'][name][group]:.3f}" for name in STATISTICS)


def write_frames(results: dict[str, Any]) -> list[str]:
    """Which frames are out of distribution?"""
    part = results["frames"]
    lines = table(
        "Acetylacetone. Known: 500 frames at 300 K. AUROC of groups of frames against 650 other frames at 300 K, with "
        "the mean over the atoms of a frame, the mean over its largest quarter, and the largest. All that a method "
        "needs to be told is found from the training file; h is that of the largest leave-one-frame-out likelihood. "
        f"Standard error at 600 K: {part['standard_error']:.3f}.",
        part["rows"],
        {
            "method": show("method"),
            "species": show("species"),
            "h": show("bandwidth", ".4f"),
            **{group: triple(group) for group in GROUPS},
        },
    )
    if "limit" not in results:
        return lines
    limits = [
        {"what": "DFT energy of the frame", **results["limit"]["dft"]},
        {"what": "classifier shown dH of each atom at both temperatures", "600 K": results["limit"]["supervised"]},
    ]
    if "hamiltonian" in results:
        limits.insert(
            0, {"what": "GFN2-xTB energy of the frame: the best possible at 600 K", **results["hamiltonian"]["auroc"]}
        )
        energy, harmonic = results["hamiltonian"]["energy"], results["hamiltonian"]["harmonic"]
        told = [f"{energy[t]:.3f} eV at {t[:-1]} K (39 kT/2 = {harmonic[t]:.3f} eV)" for t in ("300K", "600K")]
        note = (
            " The frames come from dynamics with xTB; GFN2-xTB is taken for it, as its mean energy above the minimum "
            f"is what equipartition asks for: {' and '.join(told)}."
        )
    else:
        note = ""
    return lines + table(
        "What is possible. No function of the positions tells two temperatures apart better than the energy that drove "
        f"them (lemma of Neyman and Pearson).{note} The classifier (logistic, tenfold cross-validation) has seen "
        "frames of both kinds.",
        limits,
        {"ordered by": show("what"), **{group: show(group, ".3f") for group in GROUPS}},
    )


def write_scan(results: dict[str, Any]) -> list[str]:
    """Are 30 to 60 degrees known?"""
    part = results["scan"]
    median, q95, most = part["training_angle"]
    low, middle, high = part["training_energy"]
    lines = [
        "",
        f"The angle in the training file: median {median:.1f}°, 95 % below {q95:.1f}°, largest {most:.1f}°. Energies "
        f"there: {low:.2f} to {high:.2f} eV above the minimum, median {middle:.2f} eV. A usual frame (300 K test) has "
        f"{part['usual_outside'][0]:.2f} of its 105 interatomic distances outside what the training file holds, and "
        f"{100 * part['usual_outside'][1]:.0f} % of them have one. AUROC of 30-60° against frames of the same scan "
        f"below 30°: {part['within_scan']:.3f}.",
    ]
    lines += table(
        "The scan. Every other coordinate is relaxed. Outside: distances outside what the training file holds. Above: "
        "share of the 300 K test frames with a smaller mean dH.",
        [row for row in part["rows"] if row["angle"] < 80][::2],
        {
            "angle": show("angle", ".0f"),
            "energy, eV": show("energy", ".2f"),
            "outside": show("outside"),
            "mean dH": show("mean", ".2f"),
            "largest dH": show("max", ".2f"),
            "above": show("above", ".2f"),
        },
    )
    turned = [row for row in part["turned"] if row["angle"] <= 60 and row["angle"] % 10 == 0]
    lines += table(
        f"Frames at 300 K ({turned[0]['n']} of the test) turned to an angle, all else as it was: AUROC against the "
        "300 K test.",
        [{"statistic": name} | {row["angle"]: row[name] for row in turned} for name in STATISTICS],
        {"statistic": show("statistic"), **{f"{row['angle']}°": show(row["angle"], ".3f") for row in turned}},
    )
    path, training = part["oxygens"]
    return lines + table(
        "H transfer, half of the path: distance to one oxygen atom less that to the other. 5, 50 and 95 % of the mean "
        f"dH of the 300 K test: {', '.join(f'{q:.2f}' for q in part['usual']['mean'])}; of the largest: "
        f"{', '.join(f'{q:.2f}' for q in part['usual']['max'])}. {part['training_near']} of 500 training frames come "
        f"within 0.1 Å of the middle; the oxygen atoms are {path[0]:.2f} to {path[1]:.2f} Å apart on the path and "
        f"{training[0]:.2f} to {training[1]:.2f} Å in the training file.",
        part["path"][: len(part["path"]) // 2 + 1],
        {
            "shift, Å": lambda row: f"{abs(row['shift']):.2f}",
            "mean dH": show("mean", ".2f"),
            "largest dH": show("max", ".2f"),
        },
    )


def write_grid(results: dict[str, Any]) -> list[str]:
    """Every setting."""
    return table(
        "AUROC with mean, largest quarter, largest, as above. Rows marked with * have the bandwidth of the rule.",
        results["grid"]["rows"],
        {
            "species": show("species"),
            "k": show("k"),
            "cutoff": show("cutoff", ".0f"),
            "h": lambda row: f"{row['bandwidth']:.4f}{'*' if row['rule'] else ''}",
            **{group: triple(group) for group in GROUPS},
        },
    )


def write_alarms(results: dict[str, Any]) -> list[str]:
    """False alarms."""

    def share(key: str) -> Callable[[Row], str]:
        return lambda row: f"{100 * row['shares'][key]:.1f} %"

    return table(
        "Share of what is called novel at `Reference.threshold(rate, of=...)`, the threshold for a stated rate of "
        "false alarms, found from the training file; of atoms, or of frames by their mean or largest dH. Test "
        "structures that copy a training one are left out.",
        results["alarms"]["rows"],
        {
            "set": show("set"),
            "of": show("of"),
            "threshold": show("threshold", ".2f"),
            "stated": lambda row: f"{100 * row['rate']:.0f} %",
            "test": share("test"),
            "of so many": show("n", ","),
            "copies left out": show("copies"),
            **{f"acac, {key}": share(key) for key in ("600 K", "above 60°", "30-60°")},
        },
    )


def frame_columns() -> dict[str, Callable[[Row], str]]:
    """Columns of correlations."""
    return {
        "set": show("set"),
        "asked": show("split"),
        "known, asked": lambda row: f"{row['known']}, {row['asked']}",
        "rms error": show("rmse", ".3f"),
    }


def best_of(row: Row) -> str:
    """The largest correlation over statistics of frames."""
    name = max(row["frame"], key=row["frame"].get)
    return f"{row['frame'][name]:.2f} ({name})"


def correlation_tables(rows: list[Row], title: str) -> list[str]:
    """One table of correlations per atom and one per frame: a column for each method."""
    cases = {(row["set"], row["split"]): row for row in rows}
    methods = list(dict.fromkeys(row["method"] for row in rows))
    by_key = {(row["set"], row["split"], row["method"]): row for row in rows}

    def column(method: str, cell: Callable[[Row], str]) -> Callable[[Row], str]:
        return lambda row: cell(by_key[row["set"], row["split"], method])

    lines = table(
        f"{title} Spearman correlation over atoms.",
        list(cases.values()),
        frame_columns() | {m: column(m, lambda row: f"{row['atom']:.2f}") for m in methods},
    )
    return lines + table(
        "The same over frames (root mean square of the errors), with the statistic that turned out best, which "
        "flatters all of them alike; of dH also with the mean.",
        list(cases.values()),
        {"set": show("set"), "asked": show("split")}
        | {"dH, mean": column("dH", lambda row: f"{row['frame']['mean']:.2f}")}
        | {m: column(m, best_of) for m in methods},
    )


def write_errors(results: dict[str, Any]) -> list[str]:
    """Errors of SNAP against dH."""
    return correlation_tables(
        results["errors"]["rows"],
        "Linear SNAP potentials (30 bispectrum components, LAMMPS; ridge regression, its penalty from "
        "cross-validation), fitted on the known structures, asked about others; errors of the force on an atom, eV/Å. "
        "Structures in which symmetry forbids forces, and copies of known ones, are not asked about.",
    )


def coverage_table(title: str, rows: list[Row]) -> list[str]:
    """Coverage over random splits."""

    def quarters(key: str) -> Callable[[Row], str]:
        return lambda row: " ".join(f"{100 * value:.0f}" for value in row[key])

    return table(
        title,
        rows,
        {
            "set": show("set"),
            "covered": show("coverage"),
            "level": lambda row: f"{100 * row['level']:.0f} %",
            "mean coverage": lambda row: f"{100 * row['mean']:.1f} %",
            "expected": lambda row: "-".join(f"{100 * end:.1f}" for end in dict.fromkeys(row["expected"])) + " %",
            "splits in their band": lambda row: f"{100 * row['inside']:.0f} %",
            "mean width": show("width", ".3f"),
            "constant bound": show("constant", ".3f"),
            "by quarters of dH, %": quarters("by_dh"),
            "constant bound, %": quarters("by_dh_constant"),
            "groups": lambda row: " + ".join(map(str, row["groups"])),
        },
    )


def write_coverage(results: dict[str, Any]) -> list[str]:
    """Coverage of the calibrated bound."""
    part = results["coverage"]
    splits = part["rows"][0]["splits"] if part["rows"] else 0
    lines = coverage_table(
        "SNAP fitted on 30 % of the structures, drawn at random, which are the reference, too; the others calibrate "
        f"the bound and test it, {splits} random splits of whole structures (groups: for the width, to calibrate, to "
        "test). Covered: a random atom of a structure, or all atoms of a frame. Expected: what the numbers of groups "
        "promise. Widths in eV/Å.",
        part["rows"],
    )
    return lines + table(
        "Where the promise does not hold: a bound that is calibrated on kinds of structures that the potential knows, "
        "asked about kinds that it does not. Extrapolated: share of atoms whose dH lies beyond all that calibrated it, "
        "which the bound says.",
        part["shifted"],
        {
            "set": show("set"),
            "known": show("known"),
            "level": lambda row: f"{100 * row['level']:.0f} %",
            "atoms covered": lambda row: f"{100 * row['atom']:.1f} %",
            "extrapolated": lambda row: f"{100 * row['extrapolated']:.1f} %",
            "mean width": show("width", ".3f"),
            "constant bound": show("constant", ".3f"),
            "structures": show("n"),
        },
    )


def write_universal(results: dict[str, Any]) -> list[str]:
    """A pretrained universal potential."""
    part = results["universal"]
    lines = correlation_tables(
        part["rows"],
        "CHGNet as its package brings it, with nothing fitted here. Its own training set is not at hand: dH refers to "
        "what its user knows, the training file or its strained crystals.",
    )
    return lines + coverage_table("Its bound, calibrated as above.", part["coverage"])


# --- all of it --------------------------------------------------------------------------------------------------------


def made_with() -> dict[str, Any]:
    """The machine, and the versions of all that is asked."""
    found = machine()
    for package in ("ase", "lammps", "chgnet", "tblite"):
        with contextlib.suppress(PackageNotFoundError):
            found["versions"][package] = version(package)
    return found


def main() -> None:
    """Run the parts that are wanted and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="every tenth frame; nothing is written, unless --output")
    parser.add_argument("--repeats", type=int, default=400, help="random splits of coverage")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--output", type=Path, help="folder for all results, in place of benchmarks/ and docs/")
    options = parser.parse_args()
    folder, picture = HERE / "results", HERE.parent / "docs" / "figures"
    with tempfile.TemporaryDirectory() as scratch:
        if options.output or options.quick:
            folder = picture = options.output or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        store = folder / "uq.json"
        results = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
        size = Size(options.quick, min(20, options.repeats) if options.quick else options.repeats)
        for name in (name for name in PARTS if name in options.only):
            print(f"--- {name}", flush=True)
            seconds, part = timed(lambda name=name: PARTS[name](size))
            if part is not None:
                results[name] = {"machine": made_with(), **part}
                store.write_text(json.dumps(results) + "\n", encoding="utf-8")
            print(f"--- {name}: {seconds:.0f} s", flush=True)
        text = markdown(results)
        (folder / "uq.md").write_text(text, encoding="utf-8")
        figures(results, picture)
        if options.quick:
            print(text)


if __name__ == "__main__":
    main()
