"""Parts of `active.py`: our own lattice Monte Carlo end to end, and its speed beside that of icet's mchammer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from _zenn_fe3pt import Row, Store
from density import show, table
from numpy.polynomial import Polynomial
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq, root
from zenn import several

from quests_zenn.sampling import ActiveLearning, LatticeMC, MonteCarloOracle, Polytope
from quests_zenn.sampling.lattice import BOLTZMANN
from quests_zenn.zenn import IDNN, IdealMixing

Array = npt.NDArray[np.float64]

# --- the alloy --------------------------------------------------------------------------------------------------------

#: Pairs of occupied neighbours cost J eV, pairs of second neighbours gain as much. At half filling the checkerboard
#: orders below kT = 1.31 J. Here kT = 0.55 J: a dilute disordered phase and an ordered one are apart by a first-order
#: transition, and so are, by symmetry, an ordered one and a dense disordered one.
J, T = 0.094, 600.0
KT = BOLTZMANN * T

#: Composition c and order parameter s, from the occupations of the two sublattices.
Q = np.array([[0.5, 0.5], [0.5, -0.5]])

#: Stiffness of the bias, eV per site: enough to hold a system between two phases.
PHI = (10.0 * J, 10.0 * J)

#: What networks see: the free energy is even in s.
INPUTS = ["x_0", "x_1**2"]

#: Shares of criteria, None for those by default; and whether ideal mixing on both sublattices is the baseline.
CHOICES: dict[str, tuple[dict[str, float] | None, bool]] = {
    "random": ({"random": 1.0}, True),
    "default": (None, True),
    "default, no ideal mixing": (None, False),
}

INITIAL, PER_ROUND = 40, 20


class Sizes(dict[str, Any]):
    """How much is done."""

    @classmethod
    def of(cls, quick: bool) -> Sizes:
        if quick:
            return cls(
                L=12, sweeps=300, total=60, grid=(5,), held=40, long=3000, large=16, direct=(100,), reference=200,
                settings={"max_iterations": 4}, candidates=300,
            )  # fmt: skip
        return cls(
            L=24, sweeps=2000, total=200, grid=(10, 14, 19), held=200, long=10_000, large=48,
            direct=(50, 200, 800, 3200), reference=40_000, settings={}, candidates=2000,
        )  # fmt: skip


def alloy(L: int) -> LatticeMC:
    """L x L sites, two sublattices."""
    mc = LatticeMC.square(L, J, -J)
    return mc.with_order_parameters(np.indices((L, L)).sum(0).ravel() % 2, Q)


class Counted:
    """A simulation that counts the flips it has attempted."""

    def __init__(self, mc: LatticeMC) -> None:
        self.mc, self.n_eta, self.flips = mc, mc.n_eta, 0

    def fingerprint(self) -> str:
        """That of the lattice."""
        return self.mc.fingerprint()

    def run(self, T: npt.ArrayLike, *, sweeps: int, warmup: int, **more: Any) -> Any:
        """`LatticeMC.run`."""
        found = self.mc.run(T, sweeps=sweeps, warmup=warmup, **more)
        self.flips += len(found.T) * (sweeps + warmup) * self.mc.n_sites
        return found


# --- phase boundary from direct runs ----------------------------------------------------------------------------------

#: mu / J up to which each branch is followed: next to coexistence, but where both phases live long.
DILUTE_END, ORDERED_END = -1.98, -1.978


def nodes(low: float, high: float, n: int) -> Array:
    """Chebyshev's, from the smallest."""
    return 0.5 * (low + high) - 0.5 * (high - low) * np.cos(np.pi * (np.arange(n) + 0.5) / n)


def fitted(x: Array, y: Array, error: Array, degree: int) -> Polynomial:
    """Polynomial through means with errors."""
    return Polynomial.fit(x, y, degree, w=1.0 / np.maximum(error, 1e-3 * error.max()))


def integral(f: Callable[[Array], Array], low: float, high: float) -> float:
    """Of a smooth function."""
    x, w = np.polynomial.legendre.leggauss(40)
    return float(0.5 * (high - low) * (w @ f(0.5 * (high - low) * x + 0.5 * (high + low))))


class Direct:
    """Coexistence by integrating grand potentials per site along two branches; no branch crosses a transition.

    The dilute branch begins at c = 0: with z = exp(mu/kT), c = z + z^2 p(z). The ordered branch begins with the perfect
    checkerboard at T = 0 and mu = 0, where particles and holes are alike and defects cost 4 J each: with
    w = exp(-4 J/kT), the energy is -J + w (4 J + ...). It goes on at T to smaller mu.
    """

    def __init__(self, mc: LatticeMC, sweeps: int, seed: int, jobs: int | None) -> None:
        run = Counted(mc)
        settings: dict[str, Any] = {"sweeps": sweeps, "warmup": max(20, sweeps // 10), "jobs": jobs}
        seeds = np.random.default_rng([7, seed]).integers(0, 2**31 - 1, 3)
        nothing, checkerboard = np.zeros(mc.n_sites, np.int8), (mc.labels == 0).astype(np.int8)

        z = nodes(0.0, np.exp(DILUTE_END * J / KT), 8)
        found = run.run(T, mu=_first(KT * np.log(z)), start=nothing, seed=int(seeds[0]), **settings)
        self.stayed = bool((found.eta[:, 0] < 0.2).all())
        self.p = fitted(z, (found.eta[:, 0] - z) / z**2, _error(found.eta_error[:, 0], z, mc, sweeps) / z**2, 4)

        w = nodes(0.0, np.exp(-4.0 * J / KT), 5)
        cold = -4.0 * J / (BOLTZMANN * np.log(w))
        found = run.run(cold, mu=np.zeros((1, 2)), start=checkerboard, seed=int(seeds[1]), **settings)
        excess = fitted(w, (found.energy + J) / w, _error(found.energy_error, w, mc, sweeps, 4.0 * J) / w, 2)
        self.begin = -J - KT / (4.0 * J) * integral(excess, 0.0, float(np.exp(-4.0 * J / KT)))

        y = nodes(1.0, np.exp(-ORDERED_END * J / KT), 8)
        found = run.run(T, mu=_first(-KT * np.log(y)), start=checkerboard, seed=int(seeds[2]), **settings)
        width = _error(found.eta_error[:, 0], np.exp(-4.0 * J / KT) * y, mc, sweeps) / (y - 1.0)
        self.h = fitted(y, (found.eta[:, 0] - 0.5) / (y - 1.0), width, 4)
        self.stayed &= bool((np.abs(found.eta[:, 1]) > 0.3).all())
        self.flips = run.flips

    def dilute(self, mu: float) -> tuple[float, float]:
        """Grand potential and composition."""
        end = float(np.exp(mu / KT))
        return -KT * integral(lambda z: 1.0 + z * self.p(z), 0.0, end), end + end**2 * float(self.p(end))

    def ordered(self, mu: float) -> tuple[float, float]:
        """Grand potential and composition."""
        end = float(np.exp(-mu / KT))
        rise = KT * integral(lambda y: (y - 1.0) / y * self.h(y), 1.0, end)
        return self.begin - 0.5 * mu + rise, 0.5 + (end - 1.0) * float(self.h(end))

    def coexistence(self) -> Row:
        """c_1, c_2, and mu in units of J."""
        mu = float(brentq(lambda m: self.dilute(m)[0] - self.ordered(m)[0], -2.2 * J, -1.8 * J))
        return {"c_1": self.dilute(mu)[1], "c_2": self.ordered(mu)[1], "mu": mu / J}


def _first(mu: Array) -> Array:
    return np.stack([mu, np.zeros(len(mu))], axis=1)


def _error(found: Array, rare: Array, mc: LatticeMC, sweeps: int, size: float = 1.0) -> Array:
    """Standard errors, not below those of independent rare events of one size: few events do not tell their own."""
    return np.maximum(found, size * np.sqrt(rare / (mc.n_sites * sweeps)))


# --- phase boundary from a free energy --------------------------------------------------------------------------------


def lowest(g: Callable[[Array], Array], c: Array, n: int = 41) -> Array:
    """min over s of g(c, s), s from 0 to min(c, 1 - c), a parabola through the three lowest of n points."""
    s = np.linspace(0.0, 1.0, n)
    x = np.stack([np.repeat(c, n), (np.minimum(c, 1.0 - c)[:, None] * s).ravel()], axis=1)
    values = g(x).reshape(len(c), n)
    k = np.clip(values.argmin(1), 1, n - 2)
    left, here, right = (values[np.arange(len(c)), k + i] for i in (-1, 0, 1))
    curvature, slope = left - 2.0 * here + right, 0.5 * (right - left)
    inside = (curvature > 0.0) & (np.abs(slope) < curvature)
    gain = np.where(inside, slope**2 / (2.0 * np.where(curvature > 0.0, curvature, 1.0)), 0.0)
    return np.where(inside, here - gain, values.min(1))


#: Gaps of a hull whose slopes differ by less, in units of J, are one: noise may lift g to the hull between two phases.
ALIKE = 0.03


def lower_hull(c: Array, g: Array) -> list[int]:
    """Indices of the corners."""
    hull: list[int] = []
    for i in range(len(c)):
        while len(hull) > 1 and (g[hull[-1]] - g[hull[-2]]) * (c[i] - c[hull[-2]]) >= (g[i] - g[hull[-2]]) * (
            c[hull[-1]] - c[hull[-2]]
        ):
            hull.pop()
        hull.append(i)
    return hull


def widest_tangent(c: Array, g: Array) -> Row:
    """Ends and slope (in units of J) of the widest gap of the lower convex hull, then of the common tangent itself."""
    hull = lower_hull(c, g)
    ends, steps = c[hull], np.diff(hull)
    slopes = np.diff(g[hull]) / np.diff(ends)
    k = int(np.argmax(steps))
    same = [i for i in np.flatnonzero(steps > 2) if abs(slopes[i] - slopes[k]) < ALIKE * J]
    a, b = ends[min(same)], ends[max(same) + 1]
    curve = CubicSpline(c, g)

    def gap(at: Array) -> list[float]:
        slope = curve(at, 1)
        return [slope[0] - slope[1], curve(at[1]) - curve(at[0]) - slope[0] * (at[1] - at[0])]

    found = root(gap, [a, b])
    if found.success and np.abs(found.x - [a, b]).max() < 0.02:
        a, b = found.x
    return {"c_1": float(a), "c_2": float(b), "mu": float((curve(b) - curve(a)) / (b - a) / J)}


def boundaries(g: Callable[[Array], Array]) -> list[Row]:
    """Both two-phase regions; the dense one as its mirror image."""
    c = np.linspace(0.002, 0.5, 250)
    return [
        widest_tangent(c, lowest(g, c)),
        widest_tangent(c, lowest(lambda x: g(np.stack([1.0 - x[:, 0], x[:, 1]], axis=1)), c)),
    ]


# --- learning ---------------------------------------------------------------------------------------------------------


def domain() -> Polytope:
    """Compositions and order parameters whose sublattice occupations lie between 0 and 1."""
    return Polytope.from_sublattices(Q, names=["c", "s"])


def network(sizes: Sizes, ideal: bool = True) -> IDNN:
    """A committee of three, even in s, for what ideal mixing leaves."""
    mixing = IdealMixing.sublattices(Q) if ideal else None
    return IDNN(hidden=(16, 16), inputs=INPUTS, ideal=mixing, n_members=3, verbose=False, **sizes["settings"])


def oracle(sizes: Sizes) -> tuple[MonteCarloOracle, Counted]:
    """Biased Monte Carlo, and what counts its flips."""
    counted = Counted(alloy(sizes["L"]))
    return biased(counted, sizes["sweeps"]), counted


def biased(simulation: Counted, sweeps: int) -> MonteCarloOracle:
    """Runs of some sweeps, repeated once with twice as many where these did not suffice."""
    return MonteCarloOracle(simulation, PHI, sweeps, retries=1, strict=False, warmup=sweeps // 10)


def held_out(sizes: Sizes, jobs: int | None) -> Row:
    """mu at points all over the domain, by long runs; short ones before them tell where to put the bias."""
    simulation = Counted(alloy(sizes["L"]))
    x = domain().sample(sizes["held"], method="sobol", rng=11)
    asked: tuple[Any, Any] = (x, np.full(len(x), T))
    seeds = np.arange(len(x))
    first = biased(simulation, sizes["sweeps"]).evaluate(*asked, seeds=seeds, jobs=jobs)
    found = biased(simulation, sizes["long"]).evaluate(*asked, seeds=seeds, jobs=jobs, mu_guess=first.mu)
    assert found.mu_error is not None
    # at the very edge a few sites decide
    good = np.isfinite(found.mu).all(axis=1) & (found.mu_error < 0.02 * J).all(axis=1)
    return {
        "eta": found.x[good].tolist(),
        "mu_at": found.mu[good].tolist(),
        "mu_error": float(np.sqrt(np.mean(np.square(found.mu_error[good])))),
        "flips": simulation.flips,
    }


def judged(model: Any, held: Row) -> Row:
    """Errors of mu at points held out, in units of J; the boundaries."""
    x, mu = np.array(held["eta"]), np.array(held["mu_at"])
    found = model.derivatives(x, np.full(len(x), T), [(1, 0, 0), (0, 1, 0)])
    each = np.sqrt(np.mean(np.square(np.stack([found[1, 0, 0], found[0, 1, 0]], axis=1) - mu), axis=1)) / J

    def g(points: Array) -> Array:
        values: Array = model.derivatives(points, np.full(len(points), T), [(0, 0, 0)])[0, 0, 0]
        return values

    return {"median": float(np.median(each)), "p95": float(np.quantile(each, 0.95)), "ends": boundaries(g)}


def learned(name: str, seed: int, sizes: Sizes, held: Row, jobs: int | None) -> Row:
    """The curve of one run: errors against points and flips."""
    ask, counted = oracle(sizes)
    curve: list[Row] = []
    criteria, ideal = CHOICES[name]
    run = ActiveLearning(
        domain(),
        ask,
        network(sizes, ideal),
        criteria=criteria,
        stop=sizes["total"],
        initial=INITIAL,
        per_round=PER_ROUND,
        temperature=T,
        n_candidates=sizes["candidates"],
        novelty=name != "random",
        conserved=(0,),
        random_state=seed,
        n_jobs=jobs,
        after_round=lambda run, *_: curve.append(
            {"points": len(run.rows_), "flips": counted.flips, **judged(run.model_, held)}
        ),
    )
    run.run()
    return {"curve": curve, "took": dict(run.seconds), "failed": int((~run.rows_.good).sum())}


def on_grid(k: int, seed: int, sizes: Sizes, held: Row, jobs: int | None) -> Row:
    """A regular grid of k x k occupations of sublattices, its half with s >= 0."""
    ask, counted = oracle(sizes)
    a, b = ((np.indices((k, k)).reshape(2, -1)) + 0.5) / k
    x = np.stack([a, b], axis=1)[a >= b] @ Q.T
    seeds = np.random.default_rng([8, seed]).integers(0, 2**31 - 1, len(x))
    found = ask.evaluate(x, np.full(len(x), T), seeds=seeds, jobs=jobs)
    good = np.isfinite(found.mu).all(axis=1)
    model = network(sizes).set_params(random_state=seed, n_jobs=jobs)
    assert found.mu_error is not None
    model.fit(found.x[good], found.T[good], mu=found.mu[good], errors={"mu": found.mu_error[good]})
    return {"curve": [{"points": len(x), "flips": counted.flips, **judged(model, held)}]}


def part_lattice(size: Row, store: Store) -> None:
    """An ordering alloy on the square lattice: its free energy learned, its phase boundary against direct runs."""
    sizes, jobs = Sizes.of(size["quick"]), size["jobs"]

    def direct(L: int, sweeps: int, seed: int) -> Row:
        found = Direct(alloy(L), sweeps, seed, jobs)
        try:
            where = found.coexistence()
        except ValueError:  # branches that do not cross: a phase was lost
            return {"flips": found.flips, "stayed": False}
        return {**where, "flips": found.flips, "stayed": found.stayed}

    held = store(lambda: held_out(sizes, jobs), task="held")
    for seed in range(max(2, size["few"])):
        for L in (sizes["L"], sizes["large"]):
            store(lambda L=L, seed=seed: direct(L, sizes["reference"], seed), task="reference", L=L, seed=seed)
    for seed in range(size["seeds"]):
        for sweeps in sizes["direct"]:
            store(
                lambda sweeps=sweeps, seed=seed: direct(sizes["L"], sweeps, 1000 + seed),
                task="direct",
                sweeps=sweeps,
                seed=seed,
            )
        for name, (_, ideal) in CHOICES.items():
            if not ideal and seed >= size["few"]:
                continue
            store(
                lambda name=name, seed=seed: learned(name, seed, sizes, held, jobs),
                task="curve",
                strategy=name,
                seed=seed,
            )
        for k in sizes["grid"]:
            store(
                lambda k=k, seed=seed: on_grid(k, seed, sizes, held, jobs),
                task="curve",
                strategy=f"grid {k}",
                seed=seed,
            )
    store.content["sizes"] = {key: sizes[key] for key in ("L", "large", "sweeps", "reference", "long")}
    store.write()


# --- tables of the alloy ----------------------------------------------------------------------------------------------

ENDS = ("c_1", "c_2", "mu")


def off(entry: Row, truth: Row, key: str) -> float:
    """Error of one of c_1, c_2, mu: mean over both two-phase regions, or of the one there is."""
    found = entry.get("ends", [entry])
    return float(np.mean([abs(ends[key] - truth[key]) for ends in found]))


def of_both(entry: Row, truth: Row) -> float:
    """Error of the boundary: mean of those of c_1 and c_2."""
    return 0.5 * (off(entry, truth, "c_1") + off(entry, truth, "c_2"))


def reached(curve: list[Row], truth: Row, level: float) -> Row | None:
    """The entry from which on the boundary is within `level`."""
    found = None
    for entry in reversed(curve):
        if of_both(entry, truth) > level:
            break
        found = entry
    return found


def errors_table(title: str, groups: list[Row], truth: Row) -> list[str]:
    """A row for each group of entries."""

    def column(key: str) -> Callable[[Row], str]:
        return lambda row: several([off(entry, truth, key) for entry in row["entries"]], ".2g")

    def plain(key: str, form: str) -> Callable[[Row], str]:
        return lambda row: several([entry[key] for entry in row["entries"]], form)

    return table(
        title,
        groups,
        {
            "strategy": show("strategy"),
            "runs": lambda row: str(len(row["entries"])),
            "points": lambda row: format(np.mean([entry["points"] for entry in row["entries"]]), ".0f"),
            "flips, 10⁶": lambda row: format(np.mean([entry["flips"] for entry in row["entries"]]) / 1e6, ".3g"),
            "c_1": column("c_1"),
            "c_2": column("c_2"),
            "µ/J of coexistence": column("mu"),
            "µ/J held out, median": plain("median", ".2g"),
            "95 %": plain("p95", ".2g"),
        },
    )


def write_lattice(content: Row) -> list[str]:
    """Own lattice Monte Carlo"""
    rows = list(content["rows"].values())
    sizes = content["sizes"]
    held = next(row for row in rows if row["task"] == "held")
    references = [row for row in rows if row["task"] == "reference" and row["stayed"]]
    truth = {key: float(np.mean([row[key] for row in references if row["L"] == sizes["large"]])) for key in ENDS}
    lines = table(
        f"A square lattice whose neighbours repel with J = {1e3 * J:g} meV and whose second neighbours attract as "
        f"much, at kT = {KT / J:.2f} J: a dilute disordered phase c_1 beside an ordered one c_2. Direct runs: grand "
        f"potentials along each phase, {sizes['reference']:,} sweeps a run, mean ± standard deviation over seeds; runs "
        "in which a phase was lost are left out.",
        [
            {"L": L, "rows": [row for row in references if row["L"] == L]}
            for L in sorted({row["L"] for row in references})
        ],
        {
            "sites": lambda row: f"{row['L']} x {row['L']}",
            "seeds": lambda row: str(len(row["rows"])),
            **{
                name: lambda row, key=key: several([r[key] for r in row["rows"]], ".5f")
                for name, key in (("c_1", "c_1"), ("c_2", "c_2"), ("µ/J", "mu"))
            },
            "flips, 10⁶": lambda row: format(np.mean([r["flips"] for r in row["rows"]]) / 1e6, ".4g"),
        },
    )
    curves = [row for row in rows if row["task"] == "curve"]
    groups: list[Row] = []
    for name in dict.fromkeys(row["strategy"] for row in curves):
        mine = [row["curve"] for row in curves if row["strategy"] == name]
        count = len(mine[0])
        for i in sorted({count // 2, count - 1}):
            groups.append(
                {"strategy": "grid" if name.startswith("grid") else name, "entries": [curve[i] for curve in mine]}
            )
    for sweeps in dict.fromkeys(row["sweeps"] for row in rows if row["task"] == "direct"):
        mine = [row for row in rows if row["task"] == "direct" and row["sweeps"] == sweeps and row["stayed"]]
        entries = [{"points": 8 + 5 + 8, **row} for row in mine]
        groups.append({"strategy": f"direct, {sweeps} sweeps", "entries": entries})
    lines += errors_table(
        f"Absolute errors, mean ± standard deviation over runs, against the direct runs at {sizes['large']} x "
        f"{sizes['large']} sites: of the boundary (common tangent of the lowest g over s; mean over both two-phase "
        f"regions), and of µ at {len(held['eta'])} points held out (runs of {sizes['long']:,} sweeps, whose own error "
        f"is {held['mu_error'] / J:.1g} J). Points cost {sizes['sweeps']:,} sweeps of {sizes['L']} x {sizes['L']} "
        "sites, and at most twice as much once more where these did not suffice. Direct runs know beforehand which two "
        "phases to follow, and give one boundary at one temperature.",
        groups,
        truth,
    )
    return [*lines, *write_needed(curves, truth)]


def write_needed(curves: list[Row], truth: Row) -> list[str]:
    """Points and flips until the boundary is as good as at the end of random choice with the same seed."""
    last = {row["seed"]: of_both(row["curve"][-1], truth) for row in curves if row["strategy"] == "random"}
    lines = []
    for name in CHOICES:
        mine = [row for row in curves if row["strategy"] == name and row["seed"] in last]
        found = [entry for row in mine if (entry := reached(row["curve"], truth, last[row["seed"]])) is not None]
        if found:
            points, flips = (np.median([entry[key] for entry in found]) for key in ("points", "flips"))
            lines += [
                "",
                f"Until the boundary stays within the last error of random points: {name} {points:.0f} points, "
                f"{flips / 1e6:.3g} million flips (median of {len(found)} of {len(mine)} runs that get there).",
            ]
    return lines


# --- speed beside mchammer --------------------------------------------------------------------------------------------

#: fcc, pairs of spins in three shells, eV; T in K; mu in eV for the semi-grand runs, half filling for the others.
SHELLS, AT, FIELD = (0.02, -0.01, 0.002), 900.0, 0.1
PAIRS = (6, 3, 12)

#: What the energies and compositions of both must agree in.
ENSEMBLES = ("canonical", "semi-grand")


def half_filled(mc: LatticeMC, seed: int) -> npt.NDArray[np.int8]:
    """Random occupations."""
    occupations = np.zeros(mc.n_sites, np.int8)
    occupations[np.random.default_rng(seed).permutation(mc.n_sites)[: mc.n_sites // 2]] = 1
    return occupations


def ours(mc: LatticeMC, ensemble: str, sweeps: int, seed: int) -> Row:
    """One run of `LatticeMC`: attempts per second, energy (eV per site) and composition after a warm-up."""
    warmup = sweeps // 5
    conditions: dict[str, Any] = {"composition": 0.5} if ensemble == "canonical" else {"mu": FIELD}
    start, every = half_filled(mc, seed), max(1, sweeps // 5000)
    began = time.perf_counter()
    found = mc.run(AT, **conditions, start=start, sweeps=sweeps, warmup=warmup, every=every, seed=seed, jobs=1)
    rate = (sweeps + warmup) * mc.n_sites / (time.perf_counter() - began)
    return {"rate": rate, "energy": float(found.energy[0]), "composition": float(found.composition[0])}


class Hammer:
    """The same Hamiltonian in icet."""

    def __init__(self, mc: LatticeMC, a: float = 4.0) -> None:
        from ase.build import bulk
        from icet import ClusterExpansion, ClusterSpace
        from mchammer.calculators import ClusterExpansionCalculator

        self.mc = mc
        space = ClusterSpace(bulk("Au", a=a), cutoffs=[1.3 * a], chemical_symbols=["Ag", "Au"])
        parameters = [0.0, 0.0, *(many * energy for many, energy in zip(PAIRS, SHELLS, strict=True))]
        expansion = ClusterExpansion(space, parameters)
        self.atoms = mc.atoms(half_filled(mc, 0), ("Ag", "Au"))
        self.calculator = ClusterExpansionCalculator(self.atoms, expansion)

    def energy(self, occupations: npt.NDArray[np.int8]) -> float:
        """Of all sites, eV."""
        return float(self.calculator.calculate_total(occupations=np.where(occupations == 1, 79, 47)))

    def run(self, ensemble: str, sweeps: int, seed: int) -> Row:
        """As `ours`."""
        from mchammer.ensembles import CanonicalEnsemble, SemiGrandCanonicalEnsemble

        n = self.mc.n_sites
        start = self.mc.atoms(half_filled(self.mc, seed), ("Ag", "Au"))
        more: dict[str, Any] = {} if ensemble == "canonical" else {"chemical_potentials": {"Ag": 0.0, "Au": FIELD}}
        walk = (CanonicalEnsemble if ensemble == "canonical" else SemiGrandCanonicalEnsemble)(
            start,
            self.calculator,
            temperature=AT,
            boltzmann_constant=BOLTZMANN,
            random_seed=seed,
            ensemble_data_write_interval=n,
            **more,
        )
        warmup = sweeps // 5
        steps = (sweeps + warmup) * n
        began = time.perf_counter()
        walk.run(steps)
        rate = steps / (time.perf_counter() - began)
        data = walk.data_container.data
        late = data[data["mctrial"] > warmup * n]
        composition = 0.5 if ensemble == "canonical" else float(late["Au_count"].mean()) / n
        return {"rate": rate, "energy": float(late["potential"].mean()) / n, "composition": composition}


def part_engine(size: Row, store: Store) -> None:
    """Attempts per second of `LatticeMC` and mchammer, one thread each, in turns."""
    try:
        import icet  # noqa: F401
    except ImportError:
        print("icet is not installed: this part is left out")
        return
    repeats, cells = (2, (3,)) if size["quick"] else (5, (4, 8))
    for n in cells:
        mc = LatticeMC.fcc(n, *SHELLS, a=4.0, variables="spin")
        attempts = 4_000 if size["quick"] else 150_000 if n == cells[0] else 50_000

        def make(mc: LatticeMC = mc, attempts: int = attempts) -> Row:
            hammer = Hammer(mc)
            occupations = half_filled(mc, 1)
            found: Row = {"energies_differ": abs(hammer.energy(occupations) - mc.energy(occupations)) / mc.n_sites}
            # some seconds of mchammer, and 200 times as many attempts of ours
            few = max(20, attempts // mc.n_sites)
            many = max(200, 5_000 * (200 * few // 5_000))
            for ensemble in ENSEMBLES:
                began = time.perf_counter()
                ours(mc, ensemble, 100, 0)
                compiled = time.perf_counter() - began
                turns = [
                    (ours(mc, ensemble, many, seed), hammer.run(ensemble, few, seed)) for seed in range(1, repeats + 1)
                ]
                found[ensemble] = {
                    "first_call": compiled,
                    **{name: merged([turn[i] for turn in turns]) for i, name in enumerate(("LatticeMC", "mchammer"))},
                }
            return found

        store(make, task="engine", sites=mc.n_sites)


def merged(runs: list[Row]) -> Row:
    """Median rate; means and their standard errors over independent runs."""
    found: Row = {"rate": statistics.median(run["rate"] for run in runs), "rates": [run["rate"] for run in runs]}
    for key in ("energy", "composition"):
        values = [run[key] for run in runs]
        found[key] = [float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))]
    return found


def write_engine(content: Row) -> list[str]:
    """Lattice Monte Carlo beside mchammer"""
    rows = [
        {"sites": row["sites"], "ensemble": ensemble, **row[ensemble]}
        for row in content["rows"].values()
        for ensemble in ENSEMBLES
    ]

    smallest = min(row["sites"] for row in rows)

    def mean(name: str, key: str) -> Callable[[Row], str]:
        return lambda row: "" if row["sites"] > smallest else f"{row[name][key][0]:.5f} ± {row[name][key][1]:.1g}"

    lines = table(
        f"An fcc alloy with pairs of spins in three shells, {', '.join(f'{1e3 * J:g}' for J in SHELLS)} meV, at "
        f"{AT:g} K, at half filling or at µ = {1e3 * FIELD:g} meV. One thread each, in turns; attempted moves per "
        "second (swaps in the canonical ensemble, flips in the other), medians of whole runs without the time to "
        "compile and to build calculators. Energies and compositions, where runs are long enough for them: means ± "
        "standard errors over the turns.",
        rows,
        {
            "sites": show("sites", ","),
            "ensemble": show("ensemble"),
            "LatticeMC, 10⁶/s": lambda row: format(row["LatticeMC"]["rate"] / 1e6, ".3g"),
            "mchammer, 10⁶/s": lambda row: format(row["mchammer"]["rate"] / 1e6, ".3g"),
            "ratio": lambda row: format(row["LatticeMC"]["rate"] / row["mchammer"]["rate"], ".0f"),
            **{
                f"{what}, {name}": mean(name, key)
                for what, key in (("eV per site", "energy"), ("composition", "composition"))
                for name in ("LatticeMC", "mchammer")
            },
        },
    )
    largest = max(row["energies_differ"] for row in content["rows"].values())
    return [*lines, "", f"Energies of one configuration differ by at most {largest:.1g} eV per site."]
