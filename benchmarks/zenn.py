"""Free energies from configurations: how good they and their derivatives are, beside one network, splines and others.

    python benchmarks/zenn.py                        # all parts; writes benchmarks/results/zenn_*.json and zenn.md, and
                                                     # the figures docs/figures/zenn_*.png
    python benchmarks/zenn.py --part fe3pt noise     # some parts; the others stay as they were
    python benchmarks/zenn.py --report               # nothing is run: tables and figures from what is stored
    python benchmarks/zenn.py --quick --output DIR   # few seeds and few iterations, to see that it runs

Every fit is stored as soon as it is judged, so that an interrupted run goes on where it was; ``--fresh`` forgets what
is stored of the parts that are asked for. Data sets are found through the environment variable QUESTS_ZENN_DATA.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _zenn_classes import mlearn, synthetic
from _zenn_fe3pt import (
    ATOMS,
    COLD,
    POINTS,
    PRESSURES,
    Row,
    Rows,
    Size,
    Store,
    load,
    part_fe3pt,
    part_noise,
)
from _zenn_figures import figures
from _zenn_landscapes import DEPTH, TRAINED, part_landscapes
from density import machine, show, table, timed
from run import data_file

from quests_zenn._core.parallel import available_cores
from quests_zenn.zenn import DNN, ZENN

HERE = Path(__file__).resolve().parent

# fits that end at the last iteration, and rivals, warn
warnings.filterwarnings("ignore")

#: What the published script takes for an epoch, seconds, on two cores.
PUBLISHED = 45.0


def part_classes(size: Size, store: Store) -> None:
    """Classes that depend on temperature; solid, molten or surface."""
    seeds = range(1 if size.quick else size.few)
    store(lambda: {"rows": synthetic(seeds, size.quick)}, task="synthetic")
    path = data_file("mlearn_Si_train.xyz")
    if path is None:
        print("mlearn is not in QUESTS_ZENN_DATA: its classes are left out")
        return
    store(lambda: {"rows": mlearn(path.parent, seeds, size.quick)}, task="mlearn")


def part_speed(size: Size, store: Store) -> None:
    """Seconds of fits, of an epoch, and of observables."""
    energies = load()
    if energies is None:
        return
    step = 8 if size.quick else 2
    every = np.zeros(energies.F.shape, bool)
    every[::step, ::step] = True
    x, T, F = (part[every] for part in (energies.V, energies.T, energies.F))
    asked = [("ZENN", ZENN, size.jobs), ("DNN", DNN, size.jobs)]
    if (size.jobs or available_cores()) > 1:
        asked.append(("ZENN", ZENN, 1))
    for model, make, cores in asked:
        how = {**size.budget, "n_jobs": cores}

        def fit(make: Any = make, how: dict[str, Any] = how) -> Row:
            seconds, fitted = timed(lambda: make(n_atoms=ATOMS, random_state=0, **how).fit(x, T, F=F))
            rates = observables(fitted, energies, size.quick)
            return {"fit_seconds": seconds, "n_parameters": fitted.n_parameters_, "rates": rates}

        store(fit, task="fit", model=model, threads=cores or available_cores())
    store(lambda: epochs(size), task="epoch")


def observables(model: Any, energies: Any, quick: bool) -> dict[str, float]:
    """Points per second of some observables, with their deviations."""
    rng = np.random.default_rng(0)
    n = 2_000 if quick else 50_000
    v, t = rng.uniform(energies.v[0], energies.v[-1], n), rng.uniform(5.0, 595.0, n)
    found = {}
    for name in ("free_energy", "pressure", "bulk_modulus", "heat_capacity"):
        call = getattr(model, name)
        call(v[:100], t[:100], std=True)
        found[name] = n / timed(lambda call=call: call(v, t, std=True))[0]
    return found


def epochs(size: Size) -> Row:
    """Seconds of a full-batch step of Adam on the published problem: twelve configurations of two networks 2-8-8-1, all
    rows of the table, densities and coordinates as published, γ = 5, one member."""
    path = data_file("fe3pt_helmholtz.csv")
    assert path is not None
    rows = np.genfromtxt(path, delimiter=",", names=True)
    if size.quick:
        rows = rows[np.isin(rows["T_K"], np.unique(rows["T_K"])[::8])]

    def run(steps: int) -> float:
        model = ZENN(
            12,
            coordinate="order",
            boltzmann=0.1,
            gamma=5.0,
            convexity=1e-4,
            n_members=1,
            n_starts=1,
            adam_steps=steps,
            max_iterations=1,
            validation_fraction=0.0,
            learning_rate=0.01,
            random_state=0,
            verbose=False,
            n_jobs=size.jobs,
        )
        data = rows["volume_scaled"], rows["T_scaled"]
        return timed(lambda: model.fit(*data, density=rows["density"]))[0]

    few, many = 2, 12 if size.quick else 42
    run(few)
    seconds = (run(many) - run(few)) / (many - few)
    return {"epoch_seconds": seconds, "table_rows": len(rows), "threads": size.jobs or available_cores()}


PARTS: dict[str, Callable[[Size, Store], None]] = {
    "fe3pt": part_fe3pt,
    "noise": part_noise,
    "landscapes": part_landscapes,
    "classes": part_classes,
    "speed": part_speed,
}


# --- tables -----------------------------------------------------------------------------------------------------------


def several(values: list[float], form: str = ".3g") -> str:
    """Mean and standard deviation of what there is."""
    known = [v for v in values if v is not None]
    if not known:
        return ""
    mean = format(float(np.mean(known)), form)
    return mean if len(known) < 2 else f"{mean} ± {float(np.std(known, ddof=1)):.2g}"


def each(key: str, form: str = ".3g") -> Callable[[Rows], str]:
    """A column: mean and deviation over the rows of a group."""
    return lambda rows: several([row[key] for row in rows if key in row], form)


def grouped(rows: Rows, *keys: str) -> dict[tuple[Any, ...], Rows]:
    """Rows that have the same keys, in the order in which they came."""
    found: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def group_table(title: str, groups: list[Rows], columns: dict[str, Callable[[Rows], str]]) -> list[str]:
    """A row for each group."""
    wrapped = {name: (lambda row, make=make: make(row["rows"])) for name, make in columns.items()}
    return table(title, [{"rows": rows} for rows in groups], wrapped)


def first(key: str) -> Callable[[Rows], str]:
    """A column: what is the same in all rows of a group."""
    return lambda rows: str(rows[0][key])


def critical(key: str, form: str) -> Callable[[Rows], str]:
    """A column: median and range over rows of the critical temperature or pressure, and the deviation of committees."""

    def make(rows: Rows) -> str:
        points = [row["critical"] for row in rows if row.get("critical")]
        if not points:
            return "none"
        values = [point[key] for point in points]
        stds = [point[f"{key}_std"] for point in points if point.get(f"{key}_std") is not None]
        text = format(float(np.median(values)), form)
        if len(values) > 1:
            text += f" ({min(values):{form}} to {max(values):{form}})"
        return text + (f" ± {np.median(stds):{form}}" if stds else "")

    return make


def closing(low: float, high: float) -> Callable[[Rows], str]:
    """A column: how many rows have the critical temperature in a range."""

    def make(rows: Rows) -> str:
        good = [row for row in rows if row.get("critical") and low <= row["critical"]["temperature"] <= high]
        return f"{len(good)} of {len(rows)}"

    return make


def model_columns() -> dict[str, Callable[[Rows], str]]:
    """Of the tables of Fe3Pt."""
    return {
        "model": first("model"),
        "fits": lambda rows: str(len(rows)),
        "parameters": lambda rows: str(rows[0].get("n_parameters", "")),
        "F, meV": each("f_rms"),
        "P, GPa": each("p_rms"),
        "curvature, GPa/Å³": each("c_rms"),
        f"P above {COLD:g} K": each("p_warm"),
        "curvature": each("c_warm"),
        "F covered": each("f_covered", ".2f"),
        "P covered": each("p_covered", ".2f"),
        "closing, K": critical("temperature", ".0f"),
        "at, GPa": critical("pressure", ".2f"),
        "seconds": each("fit_seconds", ".0f"),
    }


ABOUT_MODELS = (
    "Errors are root mean squares over the table apart from the first and last volume, mean ± standard deviation over "
    "fits. Covered: share of points with the truth within two standard deviations of the committee (or the process). "
    "Closing: where the spinodal closes; median (range) over fits ± the usual standard deviation of a committee."
)


def spans(row: Row, i: int) -> str:
    """Ranges of temperature of negative expansion at one pressure."""

    def end(span: Row, key: str) -> str:
        std = span.get(f"{key}_std")
        return f"{span[key]:.0f}" + (f" ± {std:.0f}" if std is not None else "")

    found = [f"{end(span, 'low')} to {end(span, 'high')}" for span in row["expansion"][i]]
    return "; ".join(found) or "none"


def overlap(row: Row, reference: Row, i: int) -> float:
    """Length of what two sets of ranges have in common, over that of either: 1 if they are the same."""
    t = np.linspace(5.0, 600.0, 2381)

    def within(ranges: Rows) -> Any:
        mask = np.zeros(len(t), bool)
        for span in ranges:
            mask |= (t >= span["low"]) & (t <= span["high"])
        return mask

    mine, true = within(row["expansion"][i]), within(reference["expansion"][i])
    union = float((mine | true).sum())
    return float((mine & true).sum()) / union if union else 1.0


def expansion_tables(title: str, groups: list[Rows], reference: Row) -> list[str]:
    """Ranges of one fit of each model, and how well those of all fits overlap with the true ones."""
    truth = [{"model": "the table", "seed": "", **reference}]
    lines = group_table(
        f"{title}: temperatures, K, of negative thermal expansion, first fit of each (± standard deviation of the "
        "committee where an end is a zero or a jump).",
        [truth, *groups],
        {"model": first("model")}
        | {f"{p:g} GPa": (lambda rows, i=i: spans(rows[0], i)) for i, p in enumerate(PRESSURES)},
    )
    return lines + group_table(
        f"{title}: overlap of these ranges with the true ones (common length over that of either), mean over fits.",
        groups,
        {"model": first("model")}
        | {
            f"{p:g} GPa": (lambda rows, i=i: several([overlap(row, reference, i) for row in rows], ".2f"))
            for i, p in enumerate(PRESSURES)
        },
    )


TASKS = {
    "a": "(a) every second volume at every second temperature",
    "b": "(b) T > 400 K withheld, judged there",
    "c": "(c) T < 100 K withheld, judged there",
}


def about_reference(content: Row) -> list[str]:
    """What the table says itself."""
    reference = content["reference"]
    point, doubt = reference["critical"], reference["doubt"]
    return [
        "",
        "References are interpolating splines through the whole table: bicubic for P and curvature, of fifth degree "
        f"for critical point ({point['temperature']:.1f} K, {point['pressure']:.2f} GPa) and expansion. Up to "
        f"{COLD:g} K the table has a kink in V that is narrower than its steps. The two splines differ by "
        f"{doubt['p_all']:.2g} GPa and {doubt['c_all']:.2g} GPa/Å³ (root mean square), above {COLD:g} K by "
        f"{doubt['p_warm']:.1g} and {doubt['c_warm']:.1g}: what is closer to the reference than that is not better. "
        + ABOUT_MODELS,
    ]


def write_fe3pt(content: Row) -> list[str]:
    """Fe3Pt: interpolation, and temperatures that are withheld"""
    rows = list(content["rows"].values())
    lines = about_reference(content)
    for name, title in TASKS.items():
        groups = list(grouped([row for row in rows if row["task"] == name], "model").values())
        if not groups:
            continue
        task = content["tasks"][name]
        told = f"{title}: {task['rows']} rows, judged at {task['judged']} points."
        lines += group_table(told, groups, model_columns())
        if name == "a":
            lines += expansion_tables("(a)", groups, content["reference"])
    return lines + aims_fe3pt(rows)


def mean_of(rows: Rows, task: str, model: str, key: str) -> float | None:
    """Mean over fits."""
    values = [row[key] for row in rows if row["task"] == task and row["model"] == model]
    return float(np.mean(values)) if values else None


def aims_fe3pt(rows: Rows) -> list[str]:
    """What was hoped for, and what came of it."""
    found: Rows = []

    def add(task: str, aim: str, value: str, met: bool) -> None:
        found.append({"task": task, "aim": aim, "found": value, "met": "met" if met else "missed"})

    ours = [row for row in rows if row["task"] == "a" and row["model"] == "ZENN"]
    if ours:
        f, p = mean_of(rows, "a", "ZENN", "f_rms"), mean_of(rows, "a", "ZENN", "p_rms")
        assert f is not None
        assert p is not None
        add("(a)", "F within 0.5 meV", f"{f:.3g} meV", f <= 0.5)
        add("(a)", "P within 0.1 GPa", f"{p:.3g} GPa", p <= 0.1)
        points = [row["critical"] for row in ours]
        good = [point is not None and 155.0 <= point["temperature"] <= 170.0 for point in points]
        near = [point is not None and abs(point["pressure"] - 6.4) <= 0.3 for point in points]
        add("(a)", "closing at 155 to 170 K", f"{sum(good)} of {len(good)} fits", all(good))
        add("(a)", "pressure there within 0.3 GPa of 6.4", f"{sum(near)} of {len(near)} fits", all(near))
    for task in "bc":
        for key, what in (("p_rms", "P"), ("c_rms", "curvature")):
            mine, other = (mean_of(rows, task, model, key) for model in ("ZENN", "DNN"))
            if mine is not None and other is not None:
                add(f"({task})", f"{what} twice as good as DNN", f"{other / mine:.2f} times", other >= 2.0 * mine)
    if not found:
        return []
    return table("Aims.", found, {key: show(key) for key in ("task", "aim", "found", "met")})


def write_noise(content: Row) -> list[str]:
    """Fe3Pt from 80 noisy points"""
    rows = list(content["rows"].values())
    groups = list(grouped(rows, "model").values())
    columns = model_columns()
    columns["130 to 200 K"] = closing(130.0, 200.0)
    lines = about_reference(content)
    lines += group_table(
        f"(d) {POINTS} random points of the table with noise of 1 meV; a fit for each draw. Thin-plate splines have "
        "the smoothing of the smallest true error (an oracle); *free*: also the degree of the polynomial (1 to 4) and "
        "the stretch of T (0.5 to 4). *Physics*: what is left of the same equation of state with Debye's vibrations "
        "and electrons as a configuration has. Derivatives of splines and processes are those of an interpolating "
        "spline through their values on the table.",
        groups,
        columns,
    )
    lines += against_splines(rows)
    return lines + expansion_tables("(d)", groups, content["reference"])


def against_splines(rows: Rows) -> list[str]:
    """Ratios of the errors of others to ours, draw by draw."""
    by_key = {(row["model"], row["seed"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows if row["model"] == "ZENN"})
    found = []
    for model in dict.fromkeys(row["model"] for row in rows):
        both = [s for s in seeds if (model, s) in by_key]
        if model == "ZENN" or not both:
            continue
        row: Row = {"model": model}
        for key in ("f_rms", "p_rms", "c_rms", "c_warm"):
            ratios = np.log([by_key[model, s][key] / by_key["ZENN", s][key] for s in both])
            ratio = float(np.exp(ratios.mean()))
            row[key] = f"{ratio:.2f}"
            if len(ratios) > 1:
                row[key] += f" ± {ratio * ratios.std(ddof=1) / len(ratios) ** 0.5:.2f}"
            row[f"{key}_wins"] = f"{int((ratios > 0.0).sum())} of {len(ratios)}"
        if "spline" in model:
            row["aim"] = "met" if all(float(row[k].split()[0]) >= 2.0 for k in ("f_rms", "p_rms")) else "missed"
        found.append(row)
    return table(
        "**Aim: half the error of the best spline in F and P.** Errors of others over those of ZENN on the same draw: "
        "geometric mean ± standard error (above 1: ZENN is better), and in how many draws it is.",
        found,
        {
            "model": show("model"),
            "F": show("f_rms"),
            "better in F": show("f_rms_wins"),
            "P": show("p_rms"),
            "better in P": show("p_rms_wins"),
            "curvature": show("c_rms"),
            f"curvature above {COLD:g} K": show("c_warm"),
            "twice as good in F and P": show("aim"),
        },
    )


def write_landscapes(content: Row) -> list[str]:
    """Landscapes that are known"""
    rows = list(content["rows"].values())
    lines = [
        "",
        f"Trained on densities on a grid of {TRAINED} points, without noise, k_B = 1. All have about as many "
        "parameters: K = 4 has networks with two layers of 8, K = 12 of 4. Js: largest Jensen-Shannon divergence over "
        f"these temperatures, nats. Errors where F lies less than {DEPTH:g} k_B T above its lowest value: of F, once "
        "its mean difference at each T is gone, in k_B T; of its derivatives in x relative to their root mean square. "
        "Wells, spinodal: share of temperatures with as many as there are, and the error of their places where that "
        "is so. Two seeds (one for γ = 5 and for K = 12), as these fits take long.",
    ]
    for (name,), mine in grouped(rows, "landscape").items():
        about = content["landscapes"][name]
        told = "; ".join(
            f"{part} {', '.join(f'{t:g}' for t in about[part])}" for part in ("trained", "between", "beyond")
        )
        for part in ("between", "beyond", "trained"):
            groups = list(grouped(mine, "model").values())
            columns: dict[str, Callable[[Rows], str]] = {
                "model": first("model"),
                "fits": lambda rows: str(len(rows)),
                "parameters": first("n_parameters"),
                "Js": lambda rows, part=part: several([max(row[part]["js"]) for row in rows], ".2g"),
                "F": inner(part, "d0"),
                "F′": inner(part, "d1"),
                "F″": inner(part, "d2"),
                "F‴": inner(part, "d3"),
                "wells": inner(part, "wells_right", ".2f"),
                "their error": inner(part, "wells_off", ".2g"),
                "spinodal": inner(part, "spinodal_right", ".2f"),
                "its error": inner(part, "spinodal_off", ".2g"),
            }
            if part == "between":
                columns["bifurcation"] = bifurcations
            if part == "trained":
                columns["seconds"] = each("fit_seconds", ".0f")
            title = f"**{name}**, {about['formula']}; temperatures: {told}." if part == "between" else name
            lines += group_table(f"{title} *{part}*:", groups, columns)
    return lines


def inner(part: str, key: str, form: str = ".2g") -> Callable[[Rows], str]:
    """A column of landscapes."""
    return lambda rows: several([row[part][key] for row in rows], form)


def bifurcations(rows: Rows) -> str:
    """Temperatures where the number of wells changes, and the truth."""
    if "bifurcation_true" not in rows[0]:
        return ""
    known = [row["bifurcation"] for row in rows if row["bifurcation"] is not None]
    text = several(known, ".3f") if known else "none"
    return f"{text} ({len(known)} of {len(rows)} fits; truth {rows[0]['bifurcation_true']:.3f})"


def write_classes(content: Row) -> list[str]:
    """Classes that depend on temperature"""
    stored = content["rows"]

    def with_sd(key: str, form: str) -> Callable[[Row], str]:
        return lambda row: f"{row[key]:{form}} ± {row[f'{key}_sd']:.1g}"

    lines = []
    if "synthetic" in stored:
        rows = stored["synthetic"]["rows"]
        lines += table(
            "Three classes whose probabilities are sums of Gaussians in T, trained on T up to 6.1, predicted to 7.5. "
            "Divergences from the true probabilities, nats; largest error of a probability; ECE: expected calibration "
            f"error. {rows[0]['seeds']} seeds.",
            rows,
            {
                "method": show("method"),
                "rows": show("n", ","),
                "T": show("range"),
                "parameters": show("n_parameters", ".0f"),
                "KL": with_sd("kl", ".4f"),
                "JS": with_sd("js", ".4f"),
                "largest": show("largest", ".2f"),
                "accuracy": show("accuracy", ".4f"),
                "log loss": with_sd("log_loss", ".4f"),
                "ECE": show("ece", ".4f"),
            },
        )
    if "mlearn" in stored and stored["mlearn"]["rows"]:
        rows = stored["mlearn"]["rows"]
        lines += table(
            "Solid, molten or surface, from the mean environment of a structure of Si, Ge or Mo; split by merged "
            "groups. Gain: log loss of cross-entropy that knows as much, less that of the method. "
            f"{rows[0]['seeds']} seeds.",
            rows,
            {
                "split": show("split"),
                "labels": show("labels"),
                "method": show("method"),
                "knows": show("knows"),
                "parameters": show("n_parameters", ".0f"),
                "accuracy": with_sd("accuracy", ".4f"),
                "of states": show("accuracy_state", ".4f"),
                "log loss": with_sd("log_loss", ".4f"),
                "ECE": show("ece", ".4f"),
                "gain": with_sd("gain", "+.4f"),
                "T of sources": lambda row: ", ".join(f"{e} {row[f'T_{e}']:.2f}" for e in ("Si", "Ge", "Mo")),
            },
        )
    return lines


def write_speed(content: Row) -> list[str]:
    """Speed"""
    rows = list(content["rows"].values())
    where = content["machine"]
    lines = table(
        f"The default fit of task (a), and observables with their deviations, points per second; {where['cores']} "
        f"cores ({where['processor']}).",
        [row for row in rows if row["task"] == "fit"],
        {
            "model": show("model"),
            "threads": show("threads"),
            "parameters": show("n_parameters"),
            "fit, s": show("fit_seconds", ".0f"),
            **{
                name: (lambda row, key=key: f"{row['rates'][key]:,.0f}")
                for name, key in (
                    ("F", "free_energy"),
                    ("P", "pressure"),
                    ("B", "bulk_modulus"),
                    ("C_V", "heat_capacity"),
                )
            },
        },
    )
    for row in rows:
        if row["task"] == "epoch":
            lines += [
                "",
                f"A full-batch step of Adam on the published problem ({row['table_rows']:,} rows, densities, twelve "
                f"configurations of two tanh networks of two layers of 8, γ = 5, convexity 1e-4): "
                f"{row['epoch_seconds']:.2f} s with {row['threads']} threads; the published script takes "
                f"{PUBLISHED:g} s, {PUBLISHED / row['epoch_seconds']:.0f} times as long. What differs: ours evaluates "
                "all configurations as one batch, takes second derivatives forward, and looks at convexity in 64 "
                "points where the script does in all rows with one pass of double differentiation for each "
                "configuration; ours normalises densities at each T, the script over all rows at once. The default fit "
                "of task (a) takes Gauss-Newton steps and no epochs.",
            ]
    return lines


WRITERS: dict[str, Callable[[Row], list[str]]] = {
    "fe3pt": write_fe3pt,
    "noise": write_noise,
    "landscapes": write_landscapes,
    "classes": write_classes,
    "speed": write_speed,
}


def markdown(results: dict[str, Row]) -> str:
    """The results as Markdown."""
    lines = ["# Free energies from configurations"]
    for name, write in WRITERS.items():
        content = results.get(name)
        if content and content["rows"]:
            lines += ["", f"## {write.__doc__}", *write(content)]
    return "\n".join(lines) + "\n"


# --- all of it --------------------------------------------------------------------------------------------------------


def stored(folder: Path) -> dict[str, Row]:
    """What has been measured."""
    return {name: Store(folder / f"zenn_{name}.json", False, {}).content for name in PARTS}


def main() -> None:
    """Run the parts that are wanted and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seeds", type=int, default=5, help="of task (a)")
    parser.add_argument("--few", type=int, default=3, help="seeds of tasks (b), (c) and classes")
    parser.add_argument("--draws", type=int, default=10, help="of task (d)")
    parser.add_argument("--jobs", type=int, help="threads; all cores by default")
    parser.add_argument(
        "--quick", action="store_true", help="little of everything; nothing is written, unless --output"
    )
    parser.add_argument("--fresh", action="store_true", help="forget what is stored of these parts")
    parser.add_argument("--report", action="store_true", help="run nothing: tables and figures of what is stored")
    parser.add_argument("--output", type=Path, help="folder for all results, in place of benchmarks/ and docs/")
    options = parser.parse_args()
    folder, picture = HERE / "results", HERE.parent / "docs" / "figures"
    with tempfile.TemporaryDirectory() as scratch:
        if options.output or options.quick:
            folder = picture = options.output or Path(scratch)
        if options.quick:
            size = Size(True, min(1, options.seeds), 1, min(2, options.draws), options.jobs)
        else:
            size = Size(False, options.seeds, min(options.few, options.seeds), options.draws, options.jobs)
        for name in (name for name in PARTS if name in options.part and not options.report):
            print(f"--- {name}", flush=True)
            store = Store(folder / f"zenn_{name}.json", options.fresh, machine())
            seconds, _ = timed(lambda name=name, store=store: PARTS[name](size, store))
            print(f"--- {name}: {seconds:.0f} s", flush=True)
        results = stored(folder)
        text = markdown(results)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "zenn.md").write_text(text, encoding="utf-8")
        figures(results, picture)
        print(text)


if __name__ == "__main__":
    main()
