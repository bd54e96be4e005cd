"""Active learning of free energies: error against points bought, for each criterion, for all of them and for none.

    python benchmarks/active.py                       # all parts; writes benchmarks/results/active_*.json, active.md
                                                      # and docs/figures/active.png
    python benchmarks/active.py --part lco --seeds 10
    python benchmarks/active.py --report              # nothing is run: tables from what is stored
    python benchmarks/active.py --quick --output DIR  # little of everything, to see that it runs

Every run is stored as soon as it ends, so that an interrupted benchmark goes on where it was; ``--fresh`` forgets what
is stored of the parts that are asked for. Data sets are found through the environment variable QUESTS_ZENN_DATA.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _active_figures import figures
from _active_lattice import part_engine, part_lattice, write_engine, write_lattice
from _active_ridge import Ridge
from _zenn_fe3pt import Row, Store
from density import machine, show, table, timed
from run import data_file
from scipy.spatial import cKDTree
from zenn import several

from quests_zenn.sampling import ActiveLearning, Polytope
from quests_zenn.sampling.criteria import DEFAULT_CRITERIA
from quests_zenn.sampling.oracles import FunctionOracle, PoolOracle
from quests_zenn.zenn import IDNN, IdealMixing
from quests_zenn.zenn._polynomials import Polynomials

Array = npt.NDArray[np.float64]

HERE = Path(__file__).resolve().parent

warnings.filterwarnings("ignore")

#: Rows of the real data that are never trained on.
HELD_OUT = 300

#: Points of the first round, of each further one, and in all.
INITIAL, PER_ROUND, TOTAL = 40, 20, 300

#: What is compared: shares of criteria.
STRATEGIES: dict[str, dict[str, float]] = {
    "random": {"random": 1.0},
    "default": dict(DEFAULT_CRITERIA),
    **{name: {name: 1.0} for name in DEFAULT_CRITERIA if name not in ("random",)},
}


# --- real data --------------------------------------------------------------------------------------------------------


class Measured:
    """The Monte Carlo rows of layered LixCoO2: a pool to buy from, rows held out, regions of both."""

    def __init__(self, path: Path, transforms: Path, sublattices: Path) -> None:
        rows = np.genfromtxt(path, delimiter=",", names=True)
        self.x = np.stack([rows[f"eta_{i}"] for i in range(7)], axis=1)
        self.mu = np.stack([rows[f"mu_{i}"] for i in range(7)], axis=1)
        order = np.random.default_rng(2024).permutation(len(self.x))
        self.held, self.pool = order[:HELD_OUT], order[HELD_OUT:]
        self.inputs = Polynomials.read(transforms)
        self.Q = np.loadtxt(sublattices)
        self.ideal = IdealMixing.sublattices(self.Q, 7)
        self.spread = self.mu[self.pool].std(0)

    def regions(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Of rows held out: near ordering, near disorder, edges of composition."""
        x = self.x[self.held]
        ordering = np.linalg.norm(x[:, 1:], axis=1)
        return {
            "ordered": ordering > np.quantile(ordering, 0.8),
            "disordered": ordering < np.quantile(ordering, 0.2),
            "edges": (x[:, 0] < 0.15) | (x[:, 0] > 0.85),
            "wells": self._wells(),
        }

    def _wells(self) -> npt.NDArray[np.bool_]:
        """A fifth of the rows with the smallest chemical potentials."""
        size = np.linalg.norm(self.mu[self.held] / self.spread, axis=1)
        return size < np.quantile(size, 0.2)


def real_data() -> Measured | None:
    """The rows, or None where they are not at hand."""
    paths = [data_file(name) for name in ("lco_mc.csv", "lco_transforms.json", "lco_Q.txt")]
    if None in paths:
        print("lco_mc.csv is not in QUESTS_ZENN_DATA: what needs it is left out")
        return None
    return Measured(*(path for path in paths if path is not None))


def lco_model(data: Measured, quick: bool, ideal: bool = True) -> IDNN:
    """Ideal mixing and one narrow layer that sees the invariants; a committee of three, as curves are many."""
    settings = {"hidden": (16,), "n_members": 3, "verbose": False, "max_iterations": 4 if quick else 40}
    return IDNN(inputs=data.inputs, ideal=data.ideal if ideal else None, **settings)


def judged(mu: Array, predicted: Array, spread: Array, regions: dict[str, Any]) -> Row:
    """Median and tail of errors in units of the spread; root mean squares by component; medians by region."""
    each = np.sqrt(np.mean(np.square((predicted - mu) / spread), axis=1))
    rms = np.sqrt(np.mean(np.square(predicted - mu), axis=0))
    return {
        "median": float(np.median(each)),
        "p95": float(np.quantile(each, 0.95)),
        "rms": rms.tolist(),
        **{f"in_{name}": float(np.median(each[mask])) for name, mask in regions.items()},
    }


def mu_of(model: Any, x: Array, T: float = 300.0) -> Array:
    """Mean of the committee."""
    q = x.shape[1]
    orders = [tuple(int(i == j) for j in range(q + 1)) for i in range(q)]
    found = model.derivatives(x, np.full(len(x), T), orders)
    return np.stack([found[order] for order in orders], axis=1)


def part_lco(size: Row, store: Store) -> None:
    """Real data: a pool of rows that were measured."""
    data = real_data()
    if data is None:
        return
    domain, regions = Polytope.from_sublattices(data.Q, 7), data.regions()
    x, mu = data.x[data.held], data.mu[data.held]
    total = 80 if size["quick"] else TOTAL
    for seed in range(size["seeds"]):
        for name in size["strategies"]:

            def make(name: str = name, seed: int = seed) -> Row:
                curve: list[Row] = []

                def after(run: ActiveLearning, number: int, new: bool) -> None:
                    found = judged(mu, mu_of(run.model_, x), data.spread, regions)
                    curve.append({"points": len(run.rows_), **found})

                run = ActiveLearning(
                    domain,
                    PoolOracle(data.x[data.pool], data.mu[data.pool]),
                    lco_model(data, size["quick"]),
                    criteria=STRATEGIES[name],
                    stop=total,
                    initial=INITIAL,
                    per_round=PER_ROUND,
                    novelty=name != "random",
                    conserved=(0,),
                    random_state=seed,
                    n_jobs=size["jobs"],
                    after_round=after,
                )
                run.run()
                shares = [entry["by_criterion"] for entry in run.rounds_]
                return {"curve": curve, "shares": shares, "took": dict(run.seconds)}

            store(make, task="curve", strategy=name, seed=seed)
        for count in (100, 200, 300, len(data.pool)) if not size["quick"] else (60,):

            def ridge(seed: int = seed, count: int = count) -> Row:
                rows = data.pool[np.random.default_rng(seed).permutation(len(data.pool))[:count]]
                model = Ridge(data.inputs).fit(data.x[rows], data.mu[rows], seed)
                found = judged(mu, model.potential(x), data.spread, regions)
                return {**found, "terms": model.terms, "form": model.form}

            def network(ideal: bool, seed: int = seed, count: int = count) -> Row:
                rows = data.pool[np.random.default_rng(seed).permutation(len(data.pool))[:count]]
                model = lco_model(data, size["quick"], ideal).set_params(random_state=seed, n_jobs=size["jobs"])
                model.fit(data.x[rows], 300.0, mu=data.mu[rows])
                return judged(mu, mu_of(model, x), data.spread, regions)

            if count < len(data.pool) or seed < size["few"]:
                store(ridge, task="rows", model="ridge", count=count, seed=seed)
                for ideal, name in ((True, "IDNN"), (False, "IDNN, nothing ideal")):
                    store(lambda n=network, i=ideal: n(i), task="rows", model=name, count=count, seed=seed)
    store.content["noise"] = data.spread.tolist()
    store.write()


# --- free energies that are known -------------------------------------------------------------------------------------


def two_dimensions(x: Array, T: Array) -> Array:
    """mu of g = 0.4 (c^2 - 0.36)^2 + 0.3 (s^2 - 0.5 (0.5 - c))^2, c = x_0, s = x_1: three wells, two ordered."""
    c, s = x[:, 0], x[:, 1]
    inner = s**2 - 0.5 * (0.5 - c)
    return np.stack([1.6 * c * (c**2 - 0.36) + 0.3 * inner, 1.2 * s * inner], axis=1)


def four_dimensions(x: Array, T: Array) -> Array:
    """mu of the same in the first two, coupled to two more that only follow: 0.2 |y - 0.3 (c, s^2)|^2."""
    first = two_dimensions(x[:, :2], T)
    c, s = x[:, 0], x[:, 1]
    gap = np.stack([x[:, 2] - 0.3 * c, x[:, 3] - 0.3 * s**2], axis=1)
    slope = 0.4 * gap
    return np.concatenate([first + np.stack([-0.3 * slope[:, 0], -0.6 * s * slope[:, 1]], axis=1), slope], axis=1)


NOISE = 2e-3
KNOWN: dict[str, tuple[int, Callable[[Array, Array], Array]]] = {
    "2-D": (2, two_dimensions),
    "4-D": (4, four_dimensions),
}


def minima(mu: Callable[[Array], Array], q: int) -> Array:
    """Local minima inside of the box, from many starts: where a descent along -mu comes to rest."""
    from scipy.stats import qmc

    x = 1.8 * qmc.Sobol(q, seed=0).random(128) - 0.9
    for step in (0.5, 0.25):
        for _ in range(150):
            x = np.clip(x - step * mu(x), -0.999, 0.999)
    inside = (np.abs(x) < 0.99).all(1) & (np.linalg.norm(mu(x), axis=1) < 2e-3)
    found: list[Array] = []
    for point in x[inside]:
        if all(np.linalg.norm(point - other) > 0.1 for other in found):
            found.append(point)
    return np.array(found).reshape(-1, q)


def well_error(found: Array, true: Array) -> float:
    """Mean distance from each true well to the nearest that was found, at most 0.5."""
    if not len(found):
        return 0.5
    return float(np.minimum(cKDTree(found).query(true)[0], 0.5).mean())


def tangents(mu: Callable[[Array], Array], q: int, n: int = 161) -> tuple[float, float]:
    """Compositions c of the two ends of the widest gap of the convex hull of min over all else of g(c, ...)."""
    c = np.linspace(-0.95, 0.95, n)
    rest = np.zeros((n, q - 1))
    rest[:, 0] = 0.9
    for _ in range(400):
        rest = np.clip(rest - 0.5 * mu(np.column_stack([c, rest]))[:, 1:], -0.999, 0.999)
    slope = mu(np.column_stack([c, rest]))[:, 0]
    g = np.concatenate([[0.0], np.cumsum(0.5 * (slope[1:] + slope[:-1]) * np.diff(c))])
    hull: list[int] = []
    for i in range(n):
        while len(hull) > 1 and (g[hull[-1]] - g[hull[-2]]) * (c[i] - c[hull[-2]]) >= (g[i] - g[hull[-2]]) * (
            c[hull[-1]] - c[hull[-2]]
        ):
            hull.pop()
        hull.append(i)
    gaps = np.diff(c[hull])
    k = int(np.argmax(gaps))
    return float(c[hull[k]]), float(c[hull[k + 1]])


class Known:
    """A free energy that is known, and how well a run has found it."""

    def __init__(self, dims: str, quick: bool) -> None:
        self.q, self.function = KNOWN[dims]
        self.domain = Polytope.box([-1.0] * self.q, [1.0] * self.q)
        self.x = self.domain.sample(500, method="sobol", rng=1)
        self.truth = self.exact(self.x)
        self.spread = self.truth.std(0)
        self.wells, self.ends = minima(self.exact, self.q), tangents(self.exact, self.q)
        self.total = (30 if self.q == 2 else 60) if quick else (100 if self.q == 2 else 200)
        self.settings: dict[str, Any] = {"hidden": (16,), "max_iterations": 4 if quick else 40}

    def exact(self, points: Array) -> Array:
        """mu without noise."""
        return self.function(points, np.full(len(points), 300.0))

    def judged(self, model: Any) -> Row:
        """Errors of mu, of wells, of the binodal."""

        def mu(points: Array) -> Array:
            return mu_of(model, points)

        a, b = tangents(mu, self.q)
        return {
            **judged(self.truth, mu(self.x), self.spread, {}),
            "wells": well_error(minima(mu, self.q), self.wells),
            "binodal": 0.5 * (abs(a - self.ends[0]) + abs(b - self.ends[1])),
        }

    def run(self, name: str, seed: int, jobs: int | None) -> Row:
        """The curve of one run."""
        curve: list[Row] = []
        count = 10 if self.q == 2 else 20
        run = ActiveLearning(
            self.domain,
            FunctionOracle(self.function, self.q, noise=NOISE),
            IDNN(n_members=3, verbose=False, **self.settings),
            criteria=STRATEGIES[name],
            stop=self.total,
            initial=count,
            per_round=count,
            n_candidates=2_000,
            novelty=name != "random",
            random_state=seed,
            n_jobs=jobs,
        )
        run.after_round = lambda *_: curve.append({"points": len(run.rows_), **self.judged(run.model_)})
        run.run()
        return {"curve": curve}


def part_synthetic(size: Row, store: Store) -> None:
    """Known free energies in two and four dimensions, noise on mu."""
    for dims in KNOWN:
        known = Known(dims, size["quick"])
        truth = {"wells": known.wells.tolist(), "binodal": list(known.ends)}
        store.content.setdefault("truth", {})[dims] = truth
        for seed in range(size["seeds"]):
            for name in size["strategies"]:
                store(
                    lambda known=known, name=name, seed=seed: known.run(name, seed, size["jobs"]),
                    task=dims,
                    strategy=name,
                    seed=seed,
                )
    store.write()


# --- speed ------------------------------------------------------------------------------------------------------------


def part_speed(size: Row, store: Store) -> None:
    """A full round on the domain of the real data: committee of five, 100,000 candidates, all criteria."""
    data = real_data()
    if data is None:
        return

    def make() -> Row:
        domain = Polytope.from_sublattices(data.Q, 7)
        model = lco_model(data, size["quick"]).set_params(n_members=5)
        pool = PoolOracle(data.x[data.pool], data.mu[data.pool])

        class Anywhere:
            """Any point may be asked for; the nearest row answers."""

            q, names = 7, pool.names

            def candidates(self) -> None:
                return None

            def fingerprint(self) -> str:
                return pool.fingerprint()

            def evaluate(self, *args: Any, **kwargs: Any) -> Any:
                return pool.evaluate(*args, **kwargs)

        run = ActiveLearning(
            domain,
            Anywhere(),
            model,
            stop=220,
            initial=200,
            per_round=20,
            n_candidates=2_000 if size["quick"] else 100_000,
            conserved=(0,),
            n_jobs=size["jobs"],
        )
        marks: list[float] = []
        run.after_round = lambda *_: marks.append(time.perf_counter())
        run.run()
        return {"round_seconds": marks[1] - marks[0], "took": dict(run.seconds)}

    store(make, task="round")


PARTS: dict[str, Callable[[Row, Store], None]] = {
    "lco": part_lco,
    "synthetic": part_synthetic,
    "lattice": part_lattice,
    "engine": part_engine,
    "speed": part_speed,
}


# --- tables -----------------------------------------------------------------------------------------------------------


def at(rows: list[Row], points: int, key: str) -> list[float]:
    """A figure of all curves at a number of points."""
    return [entry[key] for row in rows for entry in row["curve"] if entry["points"] == points]


def first_below(row: Row, level: float, key: str = "median") -> float | None:
    """Points from which on a curve stays below a level."""
    found = None
    for entry in reversed(row["curve"]):
        if entry[key] > level:
            break
        found = entry["points"]
    return found


def needed(rows: list[Row], random: list[Row], key: str) -> str:
    """Points for the final error of random choice with the same seed: median over seeds, and how many reach it."""
    final = {row["seed"]: row["curve"][-1][key] for row in random}
    found = [first_below(row, final[row["seed"]], key) for row in rows if row["seed"] in final]
    reached = [points for points in found if points is not None]
    if not reached:
        return f"never (0 of {len(found)})"
    return f"{np.median(reached):.0f} ({len(reached)} of {len(found)})"


def curves_table(title: str, rows: list[Row], keys: dict[str, str], at_points: list[int]) -> list[str]:
    """A row for each strategy."""
    random = [row for row in rows if row["strategy"] == "random"]
    groups = [[row for row in rows if row["strategy"] == name] for name in STRATEGIES]
    columns: dict[str, Any] = {
        "criterion": lambda row: row["rows"][0]["strategy"],
        "runs": lambda row: str(len(row["rows"])),
    }
    for name, key in keys.items():
        for points in at_points if key in ("median", "p95") else at_points[-1:]:
            columns[f"{name} at {points}"] = lambda row, key=key, points=points: several(at(row["rows"], points, key))
    for name, key in (("points for random's last median", "median"), ("for its last 95 %", "p95")):
        columns[name] = lambda row, key=key: needed(row["rows"], random, key)
    return table(title, [{"rows": group} for group in groups if group], columns)


def write_lco(content: Row) -> list[str]:
    """Real data: LixCoO2"""
    rows = list(content["rows"].values())
    curves = [row for row in rows if row["task"] == "curve"]
    lines = curves_table(
        f"Errors of µ at {HELD_OUT} rows held out, in units of the spread of each component; mean ± standard deviation "
        f"over runs that begin with {INITIAL} rows and buy {PER_ROUND} at a time from 983. A committee of three `IDNN` "
        "with twelve invariant inputs.",
        curves,
        {
            "median": "median",
            "95 %": "p95",
            "ordered": "in_ordered",
            "disordered": "in_disordered",
            "edges": "in_edges",
            "wells": "in_wells",
        },
        [100, 200, 300],
    )
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["task"] == "rows":
            groups.setdefault((row["count"], row["model"]), []).append(row)
    lines += table(
        "Random rows of the pool: the network against a ridge polynomial in the same twelve invariants, its degree and "
        "penalty chosen by cross-validation.",
        [{"rows": groups[key], "count": key[0], "model": key[1]} for key in sorted(groups)],
        {
            "rows": show("count"),
            "model": show("model"),
            "draws": lambda row: str(len(row["rows"])),
            "median": lambda row: several([r["median"] for r in row["rows"]]),
            "95 %": lambda row: several([r["p95"] for r in row["rows"]]),
            "edges, median": lambda row: several([r["in_edges"] for r in row["rows"]]),
            "rms µ_0, meV": lambda row: several([1e3 * r["rms"][0] for r in row["rows"]]),
            "rms µ_1..6, meV": lambda row: several(
                [1e3 * float(np.sqrt(np.mean(np.square(r["rms"][1:])))) for r in row["rows"]]
            ),
            "terms": lambda row: several([r["terms"] for r in row["rows"]], ".0f"),
        },
    )
    return lines


def write_synthetic(content: Row) -> list[str]:
    """Free energies that are known"""
    lines: list[str] = []
    for dims in KNOWN:
        rows = [row for row in content["rows"].values() if row["task"] == dims]
        if not rows:
            continue
        last = rows[0]["curve"][-1]["points"]
        truth = content["truth"][dims]
        lines += curves_table(
            f"**{dims}**, noise of {1e3 * NOISE:g} meV on every component: {len(truth['wells'])} wells, binodal at "
            f"{truth['binodal'][0]:.2f} and {truth['binodal'][1]:.2f}. Errors of µ in units of its spread, of places "
            "of wells and of the binodal in units of x.",
            rows,
            {"median": "median", "95 %": "p95", "wells": "wells", "binodal": "binodal"},
            [last // 2, last],
        )
    return lines


def write_speed(content: Row) -> list[str]:
    """Speed"""
    lines = []
    for row in content["rows"].values():
        took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in row["took"].items())
        lines += [
            "",
            f"A round on the domain of LixCoO2 with a committee of five, 100,000 candidates and all criteria: "
            f"{row['round_seconds']:.0f} s (both rounds, the first with 200 points: {took}).",
        ]
    return lines


WRITERS: dict[str, Callable[[Row], list[str]]] = {
    "lco": write_lco,
    "synthetic": write_synthetic,
    "lattice": write_lattice,
    "engine": write_engine,
    "speed": write_speed,
}


def stored(folder: Path) -> dict[str, Row]:
    """All results in a folder."""
    return {name: Store(folder / f"active_{name}.json", False, {}).content for name in PARTS}


def markdown(results: dict[str, Row]) -> str:
    """The results as Markdown."""
    lines = ["# Active learning of free energies"]
    for name, write in WRITERS.items():
        content = results.get(name)
        if content and content["rows"]:
            lines += ["", f"## {write.__doc__}", *write(content)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the parts that are wanted and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--few", type=int, default=3, help="seeds of fits to all rows")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES), metavar="NAME")
    parser.add_argument("--jobs", type=int, help="threads; all cores by default")
    parser.add_argument(
        "--quick", action="store_true", help="little of everything; nothing is written, unless --output"
    )
    parser.add_argument("--fresh", action="store_true", help="forget what is stored of these parts")
    parser.add_argument("--report", action="store_true", help="run nothing: tables of what is stored")
    parser.add_argument("--output", type=Path, help="folder for all results, in place of benchmarks/")
    options = parser.parse_args()
    folder, picture = HERE / "results", HERE.parent / "docs" / "figures"
    with tempfile.TemporaryDirectory() as scratch:
        if options.output or options.quick:
            folder = picture = options.output or Path(scratch)
        size: Row = {
            "quick": options.quick,
            "seeds": 1 if options.quick else options.seeds,
            "few": 1 if options.quick else options.few,
            "strategies": ["random", "default"] if options.quick else options.strategies,
            "jobs": options.jobs,
        }
        for name in (name for name in PARTS if name in options.part and not options.report):
            print(f"--- {name}", flush=True)
            store = Store(folder / f"active_{name}.json", options.fresh, machine())
            seconds, _ = timed(lambda name=name, store=store: PARTS[name](size, store))
            print(f"--- {name}: {seconds:.0f} s", flush=True)
        results = stored(folder)
        text = markdown(results)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "active.md").write_text(text, encoding="utf-8")
        figures(results, picture)
        print(text)


if __name__ == "__main__":
    main()
