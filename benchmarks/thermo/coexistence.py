"""Solid and liquid copper in one model: where they coexist, by information entropies and by one known point.

    python benchmarks/thermo/coexistence.py                      # runs what is not in the cache; writes
                                                                 # docs/figures/thermo_coexistence.png and
                                                                 # benchmarks/results/thermo_coexistence.json and .md
    python benchmarks/thermo/coexistence.py --part lines         # some parts; the others stay as they were
    python benchmarks/thermo/coexistence.py --report             # nothing is run: tables and figure of what is stored

States are runs of one phase each, kept under build/thermo (``--cache``). Bond order, of freud (``freud-analysis``),
judges which of them kept their phase; `quests_zenn.states.find_phases` is tried on all of them. The line is compared
with runs that had both phases in one cell: ``benchmarks/results/thermo_melting.json``, by melting.py.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # neighbours of this script, and those of the folder above

from _melting_orders import bond_order  # noqa: E402
from density import machine, show, table, timed  # noqa: E402
from simulate import CACHE, run_all, simulate  # noqa: E402

from quests_zenn.io.frames import read_frames  # noqa: E402
from quests_zenn.states import (  # noqa: E402
    State,
    StateEntropies,
    StatesFit,
    coexistence,
    find_phases,
    fit_states,
    group_states,
    iterate_samples,
    link_entropy,
    state_entropies,
)

FloatArray = npt.NDArray[np.float64]
Row = dict[str, Any]

RESULTS, FIGURES = HERE.parent / "results", HERE.parent.parent / "docs" / "figures"

BOLTZMANN = 8.617333262145179e-05  # eV/K
GPA = 160.21766208

#: Å3 per atom and K: what the grids of simulate.py lack around the line.
HOT = [(v, t) for v in (12.2, 12.5, 12.8, 13.1) for t in (900.0, 1100.0, 1300.0, 1450.0)]
COMPRESSED = [(v, t) for v in (11.5, 11.9) for t in (1300.0, 1500.0, 1700.0)]
MOLTEN = [(v, t) for v in (12.9, 13.3) for t in (1400.0, 1600.0)]
DENSE = [(v, t) for v in (11.9, 12.4) for t in (1400.0, 1600.0)]
LENGTHS = {
    "solid": {"picoseconds": 40.0, "equilibration": 10.0, "every": 0.5},
    "liquid": {"picoseconds": 40.0, "equilibration": 20.0, "every": 0.5},
    "dense": {"picoseconds": 100.0, "equilibration": 20.0, "every": 0.5},  # undercooled, with a longer memory
}

#: Averaged bond order between those of both phases; every so many frames are looked at.
CRYSTALLINE, LOOK = 0.28, 5

#: Share of crystalline atoms that no frame of a liquid, and every frame of a solid, has.
MOST_OF_LIQUID, LEAST_OF_SOLID = 0.1, 0.9

#: 1/Å.
BANDWIDTHS = (0.015, 0.03, 0.06, 0.1)
#: Environments of each state, beside as many as there are.
FEWER = 2000

#: GPa, and K: the runs of two phases, and what their temperatures are trusted to.
PRESSURES = (0.0, 2.0, 5.0, 10.0)
TRUSTED = 15.0
KNOWN = (0.0, 1325.0)

MEMBERS = 8

#: K from which on solids tell c of their own.
NEAR = 900.0

#: K of lines, and GPa of the figure.
TEMPERATURES = np.linspace(500.0, 2900.0, 121)
DRAWN = np.linspace(-1.0, 11.0, 49)
BOTTOM, TOP = 500.0, 2900.0

#: States without which the line through the known point is drawn once more: what forms miss, members do not tell.
LEFT_OUT: dict[str, Callable[[State], bool]] = {
    "solids at 13.1 Å3": lambda state: state.phase == 1 or state.volume < 13.0,
    "solids below 600 K": lambda state: state.phase == 1 or state.temperature > 599.0,
    "liquids above 2000 K": lambda state: state.phase == 0 or state.temperature < 2000.0,
    "liquids at 14.5 Å3": lambda state: state.phase == 0 or state.volume < 14.0,
}

LINKS = {"fitted": "c fitted", "one": "c = 1", "hot": f"c of solids from {NEAR:g} K on"}


# --- states -----------------------------------------------------------------------------------------------------------


def trajectories(cache: Path) -> Iterator[tuple[str, Path]]:
    """The phase that each run began with, and its file."""
    for name, phase in (("copper", "solid"), ("copper-liquid", "liquid")):
        for path in run_all(name, cache):
            yield phase, path
    for length, places in (("solid", HOT), ("solid", COMPRESSED), ("liquid", MOLTEN), ("dense", DENSE)):
        phase = "solid" if length == "solid" else "liquid"
        for v, t in places:
            yield phase, simulate("copper", v, t, phase=phase, cache=cache, **LENGTHS[length])


def crystalline(path: Path) -> FloatArray:
    """Share of crystalline atoms in every few frames."""
    found = []
    for i, frame in enumerate(read_frames(path)):
        if i % LOOK == 0:
            order, _ = bond_order(frame.positions, np.diag(frame.cell))
            found.append(float((order > CRYSTALLINE).mean()))
    return np.array(found)


def all_states(cache: Path) -> Row:
    """What each run is by bond order, and what `find_phases` calls it."""
    runs = list(trajectories(cache))
    samples = list(iterate_samples([str(path) for _, path in runs]))
    rows = []
    for (phase, path), part in zip(runs, samples, strict=True):
        share = crystalline(path)
        kept = share.max() <= MOST_OF_LIQUID if phase == "liquid" else share.min() >= LEAST_OF_SOLID
        rows.append(
            {
                "file": path.name,
                "begun": phase,
                "volume": float(part.volume.mean()),
                "temperature": float(part.temperature.mean()),
                "crystalline": [float(share.min()), float(share.mean()), float(share.max())],
                "kept": bool(kept),
            }
        )
    content: Row = {"rows": rows}
    for name, chosen in (("all", list(range(len(rows)))), ("kept", [i for i, row in enumerate(rows) if row["kept"]])):
        some = [samples[i] for i in chosen]
        phases = find_phases(some, group_states(some), jobs=1)
        solid = {"solid": 0, "liquid": 1}
        for i, labels in zip(chosen, phases.labels, strict=True):
            rows[i][f"labels_{name}"] = np.bincount(labels, minlength=phases.n).tolist()
        wrong = sum(
            int(np.sum(labels != solid[rows[i]["begun"]]))
            for i, labels in zip(chosen, phases.labels, strict=True)
            if rows[i]["kept"]
        )
        content[name] = {
            "n": phases.n,
            "left_over": phases.left_over,
            "runs": len(chosen),
            "frames": sum(len(part) for part in some),
            "frames_kept": sum(len(samples[i]) for i in chosen if rows[i]["kept"]),
            "wrong": wrong,
        }
    return content


def kept_states(cache: Path, content: Row) -> list[State]:
    """States of the runs that kept their phase: 0 solid, 1 liquid."""
    good = {row["file"]: int(row["begun"] == "liquid") for row in content["rows"] if row["kept"]}
    paths = [cache / name for name in good]
    samples = list(iterate_samples([str(path) for path in paths]))
    return group_states(
        samples, phases=[np.full(len(part), good[path.name]) for part, path in zip(samples, paths, strict=True)]
    )


def all_entropies(cache: Path, results: Row) -> Row:
    """H of the kept states at all bandwidths, for two numbers of environments."""
    states = kept_states(cache, results["states"])
    content: Row = {
        "states": [
            {
                "phase": state.phase,
                "volume": state.volume,
                "temperature": state.temperature,
                "pressure": state.pressure,
                "pressure_error": state.pressure_error,
                "internal_energy": state.internal_energy,
                "internal_energy_error": state.internal_energy_error,
                "frames": state.n_frames,
            }
            for state in states
        ],
        "H": [],
    }
    for h in BANDWIDTHS:
        for n in (FEWER, None):
            found = state_entropies(states, h, n_environments=n, jobs=1)
            content["H"].append(
                {"h": h, "n": found.n_environments, "H": found.H.tolist(), "error": found.error.tolist()}
            )
            print(f"    h = {h:g}, N = {found.n_environments:,}", flush=True)
    return content


# --- lines ------------------------------------------------------------------------------------------------------------


def of_store(entry: Row) -> StateEntropies:
    """Entropies of the store; the environments are not kept."""
    H = np.array(entry["H"])
    nothing = np.zeros(len(H), np.int64)
    return StateEntropies(H, np.array(entry["error"]), entry["n"], nothing, nothing, entry["h"], [])


def line_of(fit: StatesFit) -> Row:
    """T_m at the pressures of the table and of the figure, and what changes at melting at zero pressure."""
    solid, liquid = fit.phase_models
    found = coexistence(solid, liquid, TEMPERATURES)
    row: Row = {"T_m": []}
    for P in PRESSURES:
        T, std = found.temperature_at(P)
        own = found.pressure_members - P
        there = ((own[:, :-1] * own[:, 1:]) <= 0.0).any(1)
        row["T_m"].append({"pressure": P, "temperature": T, "error": std, "members": float(there.mean())})
    drawn = [found.temperature_at(float(P)) for P in DRAWN]
    row["drawn"] = {"temperature": [T for T, _ in drawn], "error": [e for _, e in drawn]}
    T = row["T_m"][0]["temperature"]
    if np.isfinite(T):
        row["at_zero"] = melting(fit, T)
    return row


def by_gap(fit: StatesFit, gap: float) -> Row:
    """T_m if S of the liquid is less than that of the fit by a gap, k_B per atom."""
    solid, liquid = fit.phase_models[0], copy.deepcopy(fit.phase_models[1])
    liquid.entropy_shift_ = liquid.entropy_shift_ - BOLTZMANN * gap
    found = coexistence(solid, liquid, TEMPERATURES)
    return {
        "T_m": [found.temperature_at(P)[0] for P in PRESSURES],
        "drawn": [found.temperature_at(float(P))[0] for P in DRAWN],
    }


def melting(fit: StatesFit, T: float) -> Row:
    """Entropy (k_B per atom), volume (Å3 per atom) and slope dT/dP (K/GPa) of melting at zero pressure."""
    solid, liquid = fit.phase_models
    V, S = [], []
    for model in (solid, liquid):
        volumes = np.linspace(*model.x_range_[0], 2001)
        P = -GPA * model.derivatives(volumes, np.full(2001, T), [(1, 0)], members=True)[1, 0]
        own = np.array([np.interp(0.0, p[::-1], volumes[::-1]) for p in P])
        V.append(own)
        entropy = [
            -float(model.derivatives(np.array([v]), np.array([T]), [(0, 1)], members=True)[0, 1][m, 0]) / BOLTZMANN
            for m, v in enumerate(own)
        ]
        S.append(np.array(entropy))
    dV, dS = V[1] - V[0], S[1] - S[0]
    slope = dV / (dS * BOLTZMANN * GPA)
    return {
        name: {"value": float(np.mean(values)), "error": float(np.std(values, ddof=1))}
        for name, values in (("dS", dS), ("dV", dV), ("slope", slope), ("V_solid", V[0]), ("V_liquid", V[1]))
    }


@functools.cache
def committee() -> Any:
    """The model of a phase. It keeps its fits: links differ in the constants of S, not in what is fitted."""
    from quests_zenn.zenn import ZENN

    done: dict[str, Row] = {}

    class Kept(ZENN):  # type: ignore[misc]
        def fit(self, V: Any, T: Any, **more: Any) -> Any:
            key = repr([np.asarray(values).tolist() for values in (V, T)] + [str(more)])
            if key not in done:
                super().fit(V, T, **more)
                done[key] = copy.deepcopy(self.__dict__)
            self.__dict__.update(copy.deepcopy(done[key]))
            return self

    return Kept(1, thermal="classical", hidden=(), n_members=MEMBERS, random_state=0, n_jobs=1, verbose=False)


def two_phase() -> Row:
    """The runs with both phases in one cell, and the slope of their line at zero pressure, from a parabola."""
    rows = json.loads((RESULTS / "thermo_melting.json").read_text(encoding="utf-8"))["two_phase"]
    P = np.array([row["pressure"] for row in rows])
    T = np.array([row["temperature"] for row in rows])
    rng = np.random.default_rng(0)
    drawn = np.polyfit(P, (T + TRUSTED * rng.normal(size=(4000, len(T)))).T, 2)
    return {
        "points": [
            {"pressure": float(p), "temperature": float(t), "error": TRUSTED} for p, t in zip(P, T, strict=True)
        ],
        "slope": {"value": float(np.polyfit(P, T, 2)[1]), "error": float(np.std(drawn[1]))},
    }


def all_lines(cache: Path, results: Row) -> Row:
    """The line by each link, and through the known point."""
    import warnings

    from quests_zenn import DataWarning

    warnings.simplefilter("ignore", DataWarning)
    states = kept_states(cache, results["states"])
    T = np.array([state.temperature for state in states])
    phase = np.array([state.phase for state in states])
    content: Row = {"two_phase": two_phase()}

    through = fit_states(states, committee(), equal_at=KNOWN)
    content["targets"] = through.targets
    content["known"] = line_of(through)
    shifted = [line_of(fit_states(states, committee(), equal_at=(KNOWN[0], KNOWN[1] + d))) for d in (-TRUSTED, TRUSTED)]
    for row, low, high in zip(content["known"]["T_m"], shifted[0]["T_m"], shifted[1]["T_m"], strict=True):
        row["error_of_point"] = 0.5 * (high["temperature"] - low["temperature"])
    low, high = (np.array(row["drawn"]["temperature"]) for row in shifted)
    content["known"]["drawn"]["error_of_point"] = (0.5 * (high - low)).tolist()
    content["binodal"] = same_line(through)
    content["fewer"] = [
        {
            "without": without,
            "states": sum(map(kept, states)),
            **line_of(fit_states([state for state in states if kept(state)], committee(), equal_at=KNOWN)),
        }
        for without, kept in LEFT_OUT.items()
    ]
    print("    known point", flush=True)

    S = np.empty(len(states))
    for p, model in enumerate(through.phase_models):
        mine = phase == p
        S[mine] = np.mean(
            [-model.derivatives(np.array([s.volume for s, m in zip(states, mine, strict=True) if m]), T[mine],
                                [(0, 1)], members=True)[0, 1] / BOLTZMANN], axis=(0, 1)
        )  # fmt: skip
    hot = (phase == 0) & (NEAR <= T)
    content["links"] = []
    for entry in results["entropies"]["H"]:
        H, error = np.array(entry["H"]), np.array(entry["error"])
        of_hot = link_entropy(H[hot], T[hot], S[hot], error[hot])
        slopes = {"fitted": None, "one": 1.0, "hot": of_hot.c}
        for name, c in slopes.items():
            link = link_entropy(H, T, S, error, phases=phase, c=c)
            row = {"h": entry["h"], "n": entry["n"], "link": name, "c": link.c, "c_error": link.c_error}
            row["c_error"] = {"fitted": link.c_error, "one": 0.0, "hot": of_hot.c_error}[name]
            row |= {"rms": link.rms, "gap": link.s0_of_phases[1] - link.s0_of_phases[0]}
            row["central"] = by_gap(through, row["gap"])
            if entry["n"] != FEWER:
                both = math.sqrt(2.0) * link.rms
                row["low"], row["high"] = (by_gap(through, row["gap"] + sign * both) for sign in (-1.0, 1.0))
                fit = fit_states(states, committee(), entropies=of_store(entry), c=c)
                row |= line_of(fit)
                if name == "fitted":
                    row["binodal"] = same_line(fit)
                print(f"    h = {entry['h']:g}, {LINKS[name]}", flush=True)
            content["links"].append(row)
    return content


def same_line(fit: StatesFit) -> Row:
    """`binodal` of the joined model beside `coexistence` of the two models."""
    from quests_zenn.zenn.thermo import binodal

    T = np.linspace(1200.0, 1800.0, 13)
    whole, parts = binodal(fit.model, T), coexistence(*fit.phase_models, T)
    return {
        "temperature": T.tolist(),
        "binodal": whole.pressure.tolist(),
        "binodal_std": whole.pressure_std.tolist(),
        "coexistence": parts.pressure.tolist(),
        "coexistence_std": parts.pressure_std.tolist(),
    }


# --- report -----------------------------------------------------------------------------------------------------------


def known(value: float | None) -> bool:
    """Whether there is a number."""
    return value is not None and math.isfinite(value)


def told(point: Row, error: str = "error") -> str:
    """T_m at one pressure, and the share of members that have one where it is not all of them."""
    if not known(point["temperature"]):
        return f"none ({point['members']:.0%})"
    spread = f" ± {point[error]:.0f}" if known(point[error]) else ""
    few = f" ({point['members']:.0%})" if point["members"] < 1.0 else ""
    return f"{point['temperature']:.0f}{spread}{few}"


def at(pressure: float) -> Callable[[Row], str]:
    """A column: T_m at a pressure."""
    return lambda row: next(told(point) for point in row["T_m"] if point["pressure"] == pressure)


def central(number: int) -> Callable[[Row], str]:
    """A column: T_m of the link as it is."""
    return lambda row: f"{row['central']['T_m'][number]:.0f}" if known(row["central"]["T_m"][number]) else "none"


def between(row: Row) -> str:
    """T_m at zero pressure if the link is off by what it misses."""
    ends = [row[name]["T_m"][0] for name in ("low", "high")]
    return " to ".join(f"{end:.0f}" if known(end) else "none" for end in ends)


def write_states(content: Row) -> list[str]:
    """Runs and their phases."""
    whole, kept = content["all"], content["kept"]
    lines = ["### States", ""]
    lines.append(
        f"{whole['runs']} runs of 256 atoms at given volume and temperature, {kept['runs']} of which kept the phase "
        f"that they were begun with: averaged bond order above {CRYSTALLINE:g} for at least {LEAST_OF_SOLID:.0%} of "
        f"the atoms in every frame of a solid, and for at most {MOST_OF_LIQUID:.0%} in every frame of a liquid (every "
        f"{LOOK}th frame is looked at). Left over: variance that phases and their trends leave, in units of frames "
        "inside a state, for one, two, ... phases. Wrong: frames of runs that kept their phase and are called the "
        "other one."
    )
    lines += table(
        "`find_phases`, number of phases not given.",
        [{"of": "all runs", **whole}, {"of": "runs that kept their phase", **kept}],
        {
            "of": show("of"),
            "runs": show("runs"),
            "frames": show("frames", ","),
            "phases": show("n"),
            "left over": lambda row: ", ".join(f"{value:.2f}" for value in row["left_over"]),
            "wrong": lambda row: f"{row['wrong']} of {row['frames_kept']:,}",
        },
    )
    lost = [row for row in content["rows"] if not row["kept"]]
    return lines + table(
        "Runs that did not keep their phase: smallest, mean and largest share of crystalline atoms, and frames in each "
        "phase by `find_phases`.",
        lost,
        {
            "begun": show("begun"),
            "V, Å3": show("volume", ".4g"),
            "T, K": show("temperature", "g"),
            "crystalline": lambda row: ", ".join(f"{value:.2f}" for value in row["crystalline"]),
            "frames": lambda row: ", ".join(str(value) for value in row["labels_all"]),
        },
    )


def write_lines(content: Row) -> list[str]:
    """Melting temperatures."""
    lines = ["### The line", ""]
    lines.append(
        f"T_m in K, ± standard deviation over {MEMBERS} members; in brackets, the share of members that have the line "
        f"at that pressure where it is not all. Known point: {KNOWN[1]:g} K at {KNOWN[0]:g} GPa. c, rms and gap "
        "(liquid less solid, k_B per atom): c from within the phases, what is left there, and what S has between the "
        "phases beyond c H + 3/2 ln T, S being that of the line through the known point. By information entropies: T_m "
        "of the link as it is, then at zero pressure if the gap were off by √2 rms either way, and of the committee. "
        f"None: no line from {TEMPERATURES[0]:g} to {TEMPERATURES[-1]:g} K where both models are stable; models are "
        "far beyond their states there."
    )
    columns: dict[str, Callable[[Row], str]] = {f"{P:g} GPa": at(P) for P in PRESSURES}
    one = content["known"]
    point = [{**row, "error": row["error_of_point"]} for row in one["T_m"]]
    both = [{**row, "error": math.hypot(row["error"], row["error_of_point"])} for row in one["T_m"]]
    two = [{**row, "members": 1.0} for row in content["two_phase"]["points"]]
    lines += table(
        f"Through the known point, against runs with two phases (trusted to {TRUSTED:g} K each).",
        [
            {"of": "two phases in one cell", "T_m": two},
            {"of": "known point, members", "T_m": one["T_m"]},
            {"of": f"known point, if it is off by {TRUSTED:g} K", "T_m": point},
            {"of": "known point, both", "T_m": both},
            *({"of": f"known point, without {row['without']}", "T_m": row["T_m"]} for row in content["fewer"]),
        ],
        {"": show("of"), **columns},
    )
    for name, title in LINKS.items():
        rows = [row for row in content["links"] if row["link"] == name]
        lines += table(
            f"By information entropies, {title}.",
            rows,
            {
                "h, 1/Å": show("h", "g"),
                "N": show("n", ","),
                "c": lambda row: f"{row['c']:.2f} ± {row['c_error']:.2f}" if row["c_error"] else f"{row['c']:.2f}",
                "rms": show("rms", ".2f"),
                "gap": show("gap", "+.2f"),
                **{f"{P:g} GPa": central(i) for i, P in enumerate(PRESSURES)},
                "0 GPa, √2 rms": between,
                "0 GPa, members": at(0.0),
            },
        )
    return lines


def write_melting(content: Row) -> list[str]:
    """Entropy, volume and slope of melting."""
    lines = ["### Melting at zero pressure", ""]
    lines.append(
        "Entropy and volume of melting, and the slope of the line by Clausius and Clapeyron. Two phases: slope of a "
        "parabola through the four points; the entropy is the volume of melting of the line above it over that slope."
    )
    found = {"by": "known point", **content["known"]["at_zero"]}
    slope, dV = content["two_phase"]["slope"], found["dV"]
    dS = dV["value"] / slope["value"] / BOLTZMANN / GPA
    other = {
        "by": "two phases in one cell",
        "slope": slope,
        "dS": {"value": dS, "error": dS * slope["error"] / slope["value"]},
    }
    rows = [found, other]
    for row in content["links"]:
        if row["link"] == "fitted" and "at_zero" in row:
            rows.append({"by": f"H at h = {row['h']:g}, c fitted", **row["at_zero"]})

    def cell(key: str, form: str) -> Callable[[Row], str]:
        return lambda row: f"{row[key]['value']:{form}} ± {row[key]['error']:{form}}"

    return lines + table(
        "Melting at T_m of each.",
        rows,
        {
            "by": show("by"),
            "dS, k_B per atom": cell("dS", ".2f"),
            "dV, Å3 per atom": cell("dV", ".3f"),
            "dT/dP, K/GPa": cell("slope", ".1f"),
        },
    )


def write_binodal(content: Row) -> list[str]:
    """Two ways to the line."""
    lines = ["### The joined model", ""]
    one = content["binodal"]
    lines.append(
        "Pressure of coexistence (GPa) of the model through the known point: `coexistence` of the models of both "
        "phases, and `binodal` of the joined model, which knows nothing of phases and looks for a common tangent."
    )
    rows = [
        {"T": T, "a": a, "ae": ae, "b": b, "be": be}
        for T, a, ae, b, be in zip(
            one["temperature"],
            one["coexistence"],
            one["coexistence_std"],
            one["binodal"],
            one["binodal_std"],
            strict=True,
        )
    ]

    def cell(value: str, error: str) -> Callable[[Row], str]:
        return lambda row: f"{row[value]:.3f} ± {row[error]:.3f}" if known(row[value]) else "none"

    return lines + table(
        "The same line twice.",
        rows,
        {"T, K": show("T", "g"), "coexistence": cell("a", "ae"), "binodal": cell("b", "be")},
    )


def markdown(results: Row) -> str:
    """The results as Markdown."""
    lines = [
        "Copper, the potential of thermo_melting; k = 32, r_c = 5 Å; H in nats, S in k_B per atom. A model of each "
        "phase: an equation of state with classical vibrations.",
        "",
    ]
    if results.get("states"):
        lines += [*write_states(results["states"]), ""]
    if results.get("lines"):
        for writer in (write_lines, write_melting, write_binodal):
            lines += [*writer(results["lines"]), ""]
    return "\n".join(lines).rstrip() + "\n"


def figure(results: Row, folder: Path) -> None:
    """T_m against P, all of it and the neighbourhood of the two-phase runs."""
    if not results.get("lines"):
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    content = results["lines"]
    drawing, axes = plt.subplots(1, 2, figsize=(11.0, 4.4), constrained_layout=True)
    point = content["two_phase"]["points"]

    def numbers(values: list[Any]) -> FloatArray:
        return np.array([value if known(value) else math.nan for value in values])

    one = content["known"]["drawn"]
    error = np.hypot(numbers(one["error"]), numbers(one["error_of_point"]))
    chosen = [
        ("fitted", 0.03, "#d1495b", "H at h = 0.03, c fitted"),
        ("fitted", 0.06, "#e9a23b", "H at h = 0.06, c fitted"),
        ("one", 0.03, "#6a4c93", "H at h = 0.03, c = 1"),
    ]
    for name, h, colour, label in chosen:
        for row in content["links"]:
            if (row["link"], row["h"]) == (name, h) and "low" in row:
                low, middle, high = (numbers(row[which]["drawn"]) for which in ("low", "central", "high"))
                axes[0].plot(DRAWN, middle, "-", color=colour, linewidth=1.6, label=label)
                # no upper end: above all temperatures that are looked at
                high = np.where(np.isnan(high) & ~np.isnan(middle), TOP, high)
                axes[0].fill_between(DRAWN, low, high, color=colour, alpha=0.13, linewidth=0)
                for end in (low, np.where(high < TOP, high, math.nan)):
                    axes[0].plot(DRAWN, end, ":", color=colour, linewidth=0.9)
    T = numbers(one["temperature"])
    for axis in axes:
        axis.plot(DRAWN, T, "-", color="#0b5fa5", linewidth=1.6, label="one known point")
        axis.fill_between(DRAWN, T - error, T + error, color="#0b5fa5", alpha=0.3, linewidth=0)
        axis.errorbar(
            [row["pressure"] for row in point],
            [row["temperature"] for row in point],
            [row["error"] for row in point],
            fmt="o",
            color="#222222",
            markersize=5,
            capsize=3,
            label="two phases in one cell",
            zorder=5,
        )
        axis.set_xlim(-0.6, 10.9)
        axis.set_xlabel("P (GPa)")
        axis.set_ylabel("T$_m$ (K)")
    axes[0].set_ylim(BOTTOM, TOP)
    axes[0].set_title("Lines by H, and through one known point", fontsize=11)
    axes[0].legend(frameon=False, fontsize=8.5, loc="best")
    axes[1].plot(*KNOWN, "o", markersize=11, markerfacecolor="none", color="#0b5fa5", label="the known point")
    axes[1].set_ylim(1270.0, 1760.0)
    axes[1].set_title("Near the two-phase runs", fontsize=11)
    axes[1].legend(frameon=False, fontsize=8.5, loc="lower right")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "thermo_coexistence.png"
    drawing.savefig(path, dpi=150)
    plt.close(drawing)
    print(f"wrote {path}")


# --- program ----------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Path, Row], Row]] = {
    "states": lambda cache, results: all_states(cache),
    "entropies": all_entropies,
    "lines": all_lines,
}


def plain(value: Any) -> Any:
    """Ready for JSON: what is no number becomes null."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(path: Path, text: str) -> None:
    """A file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


def main() -> None:
    """Run the parts that are wanted and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of trajectories (default: build/thermo)")
    parser.add_argument("--report", action="store_true", help="run nothing: tables and the figure of what is stored")
    parser.add_argument("--output", type=Path, help="folder for all results, in place of benchmarks/ and docs/")
    options = parser.parse_args()
    folder, picture = (options.output, options.output) if options.output else (RESULTS, FIGURES)
    path = folder / "thermo_coexistence.json"
    results: Row = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in (name for name in PARTS if name in options.part and not options.report):
        print(f"--- {name}", flush=True)
        seconds, found = timed(lambda name=name: PARTS[name](options.cache, results))
        results[name] = plain(found)
        print(f"--- {name}: {seconds:.0f} s", flush=True)
        results["machine"] = machine()
        write(path, json.dumps(results) + "\n")
    text = markdown(results)
    write(folder / "thermo_coexistence.md", text)
    figure(results, picture)
    print(text)


if __name__ == "__main__":
    main()
