"""Helmholtz energies of Fe3Pt: four tasks, and what models, splines and Gaussian processes make of them."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from _zenn_rivals import Answer, Array, Asked, Surface, bicubic, gaussian_process, thin_plate
from density import print_row
from run import data_file

from quests_zenn._core.checks import DataWarning
from quests_zenn.zenn import DNN, ZENN, thermo

Row = dict[str, Any]
Rows = list[Row]

GPA = 160.2176634
ATOMS = 12
TABLE = "fe3pt_helmholtz.csv"

#: Pressures, GPa, at which ranges of negative thermal expansion are told.
PRESSURES = (0.0, 3.0, 5.0, 6.5)

#: Temperatures at which expansion is looked at before ends of ranges are refined: shorter ranges may be missed.
SEARCHED = 61

#: Random points, and noise (eV), of the task that matters.
POINTS, NOISE = 80, 1e-3

#: Up to here, K, the table has a kink in V narrower than its steps: two splines through it do not agree.
COLD = 20.0

#: Isotherms of the figure, K.
ISOTHERMS = (5.0, 100.0, 165.0, 300.0)


@dataclass(frozen=True)
class Size:
    """How much is run. `few` seeds are for the tasks that take longest."""

    quick: bool
    seeds: int
    few: int
    draws: int
    jobs: int | None

    @property
    def budget(self) -> dict[str, Any]:
        """Settings of all models."""
        quick = {"max_iterations": 8, "n_starts": 4, "n_members": 3} if self.quick else {}
        return {"n_jobs": self.jobs, "verbose": False, **quick}


class Store:
    """Rows by name, in a file: those that are there are not made again.

    Parameters
    ----------
    path : Path
    fresh : bool
        Whether to forget what is there.
    about : dict
        What the rows were made with.
    """

    def __init__(self, path: Path, fresh: bool, about: dict[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {}
        if path.exists() and not fresh:
            self.content = json.loads(path.read_text(encoding="utf-8"))
        self.content.setdefault("rows", {})
        self.content.setdefault("machine", about)

    def __call__(self, make: Callable[[], Row], **key: Any) -> Row:
        """The row with a key, made if it is not there; the file is written at once."""
        name = "|".join(str(value) for value in key.values())
        rows = self.content["rows"]
        if name not in rows:
            began = time.perf_counter()
            row = make()
            rows[name] = {**key, **row, "seconds": time.perf_counter() - began}
            self.write()
            print_row({k: v for k, v in rows[name].items() if not isinstance(v, list | dict)})
        found: Row = rows[name]
        return found

    def write(self) -> None:
        """Write the file, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_suffix(".tmp")
        scratch.write_text(json.dumps(self.content) + "\n", encoding="utf-8")
        os.replace(scratch, self.path)


# --- the table and the tasks ------------------------------------------------------------------------------------------


class Table:
    """The table, and what a spline through all of it says of derivatives."""

    def __init__(self, path: Path) -> None:
        rows = np.genfromtxt(path, delimiter=",", names=True)
        self.t, self.v = np.unique(rows["T_K"]), np.unique(np.round(rows["volume_A3"], 9))
        shape = len(self.v), len(self.t)
        self.F = np.full(shape, np.nan)
        at = np.searchsorted(self.v, np.round(rows["volume_A3"], 9)), np.searchsorted(self.t, rows["T_K"])
        self.F[at] = rows["free_energy_eV"]
        assert not np.isnan(self.F).any()
        self.V, self.T = np.meshgrid(self.v, self.t, indexing="ij")

    @cached_property
    def surface(self) -> Surface:
        """The reference of critical points and expansion, which need fourth derivatives."""
        return Surface(self.v, self.t, self.F)

    @cached_property
    def truth(self) -> dict[str, Array]:
        """F (eV), P (GPa) and curvature (GPa/Å3) on the grid."""
        return self.through(self.F, 3)

    def through(self, F: Array, degree: int) -> dict[str, Array]:
        """The same, of an interpolating spline through free energies on the grid."""
        return quantities(Surface(self.v, self.t, F, degree).derivatives(self.V, self.T, ORDERS))

    def doubt(self) -> Row:
        """How far the derivatives of two interpolating splines are apart: the table does not say what they are."""
        other = self.through(self.F, 5)
        gaps = {name: other[name] - self.truth[name] for name in "pc"}
        return {
            f"{name}_{part}": rms(gap[self.inside & mask])
            for name, gap in gaps.items()
            for part, mask in (("all", self.T > 0.0), ("warm", self.T > COLD))
        }

    @property
    def inside(self) -> Array:
        """All points but those of the first and the last volume, where splines are at their worst."""
        mask = np.ones(self.F.shape, bool)
        mask[[0, -1]] = False
        return mask


ORDERS = [(0, 0), (1, 0), (2, 0)]


def quantities(d: dict[tuple[int, int], Array]) -> dict[str, Array]:
    """F (eV), P (GPa) and the curvature of F in V (GPa/Å3), from derivatives."""
    return {"f": d[0, 0], "p": -GPA * d[1, 0], "c": GPA * d[2, 0]}


def load() -> Table | None:
    """The table, or None where it is not at hand."""
    path = data_file(TABLE)
    if path is None:
        print(f"{TABLE} is not in QUESTS_ZENN_DATA: what needs it is left out")
        return None
    return Table(path)


@dataclass(frozen=True)
class Task:
    """Rows to train on, and which points of the table are judged."""

    x: Array
    T: Array
    F: Array
    judged: Array


def grid_task(table: Table, name: str, step: int = 2) -> Task:
    """Tasks (a), (b), (c): every second volume at every second temperature, some of which are withheld."""
    every = np.zeros(table.F.shape, bool)
    every[::step, ::step] = True
    kept, judged = {
        "a": (table.T > 0.0, table.T > 0.0),
        "b": (table.T <= 400.0, table.T > 400.0),
        "c": (table.T >= 100.0, table.T < 100.0),
    }[name]
    rows = every & kept
    return Task(table.V[rows], table.T[rows], table.F[rows], table.inside & judged)


def noisy_task(table: Table, draw: int) -> Task:
    """Task (d): random points of the table with noise."""
    # draws from 0 on were looked at when defaults were chosen
    rng = np.random.default_rng(1000 + draw)
    rows = rng.choice(table.F.size, POINTS, replace=False)
    noise = rng.normal(scale=NOISE, size=POINTS)
    return Task(table.V.ravel()[rows], table.T.ravel()[rows], table.F.ravel()[rows] + noise, table.inside)


# --- what is judged ---------------------------------------------------------------------------------------------------


def rms(values: Array) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def errors(table: Table, judged: Array, found: dict[str, Array], std: dict[str, Array] | None) -> Row:
    """Errors of F (meV), P (GPa), curvature (GPa/Å3), and the shares of points whose band of two deviations holds."""
    gaps = {name: (found[name] - table.truth[name])[judged] for name in "fpc"}
    row: Row = {"f_rms": 1e3 * rms(gaps["f"]), "p_rms": rms(gaps["p"]), "c_rms": rms(gaps["c"])}
    warm = table.T[judged] > COLD
    row |= {"p_warm": rms(gaps["p"][warm]), "c_warm": rms(gaps["c"][warm])}
    for name in "fp":
        if std is not None and name in std:
            row[f"{name}_covered"] = float(np.mean(np.abs(gaps[name]) <= 2.0 * std[name][judged]))
            row[f"{name}_std"] = rms(std[name][judged]) * (1e3 if name == "f" else 1.0)
    return row


def features(surface: Any, table: Table) -> Row:
    """The critical point, and ranges of negative thermal expansion."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        critical = thermo.critical_point(surface)
        span = float(table.t[0]), float(table.t[-1])
        expansion = thermo.negative_expansion(surface, PRESSURES, span, n_temperatures=SEARCHED)
    return {
        "critical": None if critical is None else critical.to_dict(),
        "expansion": [[span.to_dict() for span in spans] for spans in expansion.ranges],
        "expansion_share": expansion.share_of_members.tolist(),
    }


def judge_model(model: Any, table: Table, task: Task) -> Row:
    """All figures of a fitted model."""
    members = model.derivatives(table.V, table.T, ORDERS, members=True)
    each = quantities(members)
    found = {name: value.mean(0) for name, value in each.items()}
    std = {name: value.std(0, ddof=1) for name, value in each.items()} if model.n_members_ > 1 else None
    report = model.report_
    return {
        **errors(table, task.judged, found, std),
        **features(model, table),
        "members_f_rms": [1e3 * rms((f - table.truth["f"])[task.judged]) for f in each["f"]],
        "fit_seconds": report["seconds"],
        "n_parameters": report["n_parameters"],
        "iterations": report["iterations"],
        "converged": report["converged"],
        "noise": 1e3 * report["targets"]["F"]["noise"],
        "rms": 1e3 * report["targets"]["F"]["rms"],
    }


def judge_answer(answer: Answer, table: Table, task: Task) -> Row:
    """All figures of free energies on the grid: derivatives are those of an interpolating spline, as for the truth."""
    surface = Surface(table.v, table.t, answer.f)
    found = table.through(answer.f, 3)
    std = None
    if answer.f_std is not None and answer.p_std is not None:
        std = {"f": answer.f_std, "p": answer.p_std}
    return {**errors(table, task.judged, found, std), **features(surface, table), "note": answer.note}


def rival_data(table: Table, task: Task, seed: int) -> Asked:
    """The rows for a rival, with the same physics as a configuration has: its fit with a single one and no network."""
    single = ZENN(1, hidden=(), n_atoms=ATOMS, n_members=1, validation_fraction=0.0, random_state=seed, verbose=False)
    single.fit(task.x, task.T, F=task.F)
    return Asked(
        task.x,
        task.T,
        task.F,
        table.v,
        table.t,
        single.derivatives,
        lambda f: rms((f - table.F)[task.judged]),
    )


# --- parts ------------------------------------------------------------------------------------------------------------

#: Models: ours, the ablation, and the network with as many parameters and the same physics.
MODELS: dict[str, Callable[..., Any]] = {
    "ZENN": lambda **how: ZENN(n_atoms=ATOMS, **how),
    "ZENN, K = 1": lambda **how: ZENN(1, n_atoms=ATOMS, **how),
    "DNN": lambda **how: DNN(n_atoms=ATOMS, **how),
}


def part_fe3pt(size: Size, store: Store) -> None:
    """Tasks (a), (b), (c)."""
    table = load()
    if table is None:
        return
    store.content["reference"] = {**features(table.surface, table), "doubt": table.doubt()}
    step = 8 if size.quick else 2
    for name in "abc":
        task = grid_task(table, name, step)
        store.content.setdefault("tasks", {})[name] = {"rows": len(task.x), "judged": int(task.judged.sum())}
        for seed in range(size.seeds if name == "a" else size.few):
            for model, make in MODELS.items():
                store(
                    lambda make=make, seed=seed, task=task: judge_model(
                        make(random_state=seed, **size.budget).fit(task.x, task.T, F=task.F), table, task
                    ),
                    task=name,
                    model=model,
                    seed=seed,
                )
        if name == "a":
            store(
                lambda task=task: judge_answer(bicubic(rival_data(table, task, 0)), table, task),
                task="a",
                model="bicubic spline",
                seed=0,
            )
    store.write()


def part_noise(size: Size, store: Store) -> None:
    """Task (d)."""
    table = load()
    if table is None:
        return
    store.content["reference"] = {**features(table.surface, table), "doubt": table.doubt()}
    for draw in range(size.draws):
        task = noisy_task(table, draw)
        for model, make in MODELS.items():
            store(
                lambda make=make, model=model, draw=draw, task=task: noisy_row(
                    make(random_state=draw, **size.budget), model, draw, table, task
                ),
                task="d",
                model=model,
                seed=draw,
            )
        rivals: dict[str, Callable[[Asked], Answer]] = {
            "thin-plate spline": thin_plate(physics=False, free=False),
            "thin-plate spline, free": thin_plate(physics=False, free=True),
            "physics + thin-plate spline": thin_plate(physics=True, free=False),
            "physics + thin-plate spline, free": thin_plate(physics=True, free=True),
            "physics + Gaussian process": gaussian_process(draw),
        }
        asked = rival_data(table, task, draw)
        for model, fit in rivals.items():
            store(
                lambda fit=fit, asked=asked, task=task: judge_answer(fit(asked), table, task),
                task="d",
                model=model,
                seed=draw,
            )
    store.content["shown"] = {"isotherms": isotherms(table.surface, table), "phases": phases(table.surface, table)}
    store.write()


def noisy_row(model: Any, name: str, draw: int, table: Table, task: Task) -> Row:
    """A fit to noisy points; of the first draw also what the figure shows is returned."""
    model.fit(task.x, task.T, F=task.F)
    row = judge_model(model, table, task)
    if draw == 0 and name != "ZENN, K = 1":
        row["shown"] = shown(model, table, task, probabilities=name == "ZENN")
    return row


# --- what the figure shows --------------------------------------------------------------------------------------------


def rounded(values: Any, digits: int = 5) -> Any:
    """Lists of rounded numbers; None for NaN."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, list):
        return [rounded(value, digits) for value in values]
    return None if values != values else float(f"{values:.{digits}g}")


def isotherms(surface: Any, table: Table) -> Row:
    """P(V) at some temperatures with deviations over the members."""
    v = np.linspace(table.v[1], table.v[-2], 121)
    curves = []
    for t in ISOTHERMS:
        p = -GPA * surface.derivatives(v, np.full(len(v), t), [(1, 0)], members=True)[1, 0]
        std = p.std(0, ddof=1) if len(p) > 1 else np.zeros(len(v))
        curves.append({"T": t, "p": rounded(p.mean(0)), "std": rounded(std)})
    return {"v": rounded(v, 7), "curves": curves}


def phases(surface: Any, table: Table) -> Row:
    """Spinodal pressures over temperature with deviations, and the critical point."""
    t = np.arange(5.0, 301.0, 5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        found = thermo.spinodal(surface, t)
    names = ("pressure_low", "pressure_high", "pressure_low_std", "pressure_high_std", "share_of_members")
    return {"t": t.tolist(), **{name: rounded(getattr(found, name)) for name in names}}


def shown(surface: Any, table: Table, task: Task, probabilities: bool) -> Row:
    """Curves of a model; and where its main configurations rule."""
    found: Row = {"isotherms": isotherms(surface, table), "phases": phases(surface, table)}
    found["points"] = {"v": rounded(task.x, 7), "t": rounded(task.T)}
    if probabilities:
        v, t = np.linspace(table.v[0], table.v[-1], 61), np.linspace(table.t[0], table.t[-1], 61)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            p = surface.probabilities(*(part.ravel() for part in np.meshgrid(v, t, indexing="ij")))
        main = np.sort(np.argsort(p.max(0) + p.mean(0))[::-1][:4])
        found["probabilities"] = {
            "v": rounded(v, 7),
            "t": rounded(t),
            "k": (main + 1).tolist(),
            "p": rounded(p[:, main].T.reshape(len(main), len(v), len(t)), 3),
        }
    return found
