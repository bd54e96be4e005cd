"""Monte Carlo on lattices: cluster expansions of binary occupations, in three ensembles, many conditions at once."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.constants

from quests_zenn._core.checks import DataError, finite, one_of, positive, whole_number
from quests_zenn._core.parallel import Workers, use_workers
from quests_zenn._core.rng import as_rng
from quests_zenn.entropy.blocks import autocorrelation_time, time_blocks
from quests_zenn.sampling._lattice_kernels import (
    Tables,
    flip_lookup_sweeps,
    flip_sweeps,
    free_lookup_sweeps,
    swap_lookup_sweeps,
    swap_sweeps,
    total_energy,
)

if TYPE_CHECKING:
    from ase import Atoms

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Site = tuple[int, ...]
Cluster = tuple[Site, ...]

#: eV/K
BOLTZMANN: float = scipy.constants.k / scipy.constants.e

VARIABLES = ("occupation", "spin")

#: Attempts in one call of a kernel. Between calls a run can be interrupted, and the energy is summed afresh.
CHUNK = 1 << 24

#: Flips are looked up in a table if it has at most so many entries: larger ones fall out of the cache.
LARGEST_TABLE = 1 << 15

#: Samples that a run must have, for blocks and equilibration to mean anything.
LEAST_SAMPLES = 32

#: Independent samples after equilibration below which a run does not count as equilibrated.
LEAST_INDEPENDENT = 50.0

#: Candidates for the end of equilibration, and samples (means over consecutive ones) that they are judged by.
_CANDIDATES, _JUDGED = 24, 4096

#: Blocks for errors: as many as can be five statistical inefficiencies long, within these limits.
_MOST_BLOCKS, _FEWEST_BLOCKS = 32, 5

#: Halves of the rest of a run that differ by more than so many standard errors drift.
_DRIFT = 5.0

_TOO_LARGE = 2**31


@dataclass(frozen=True)
class LatticeResult:
    """What `LatticeMC.run` found. One row for each of n conditions; q order parameters, N sites.

    Attributes
    ----------
    ensemble : str
        "canonical", "semi-grand" or "biased".
    T : numpy.ndarray (n,), K
    eta, eta_error : numpy.ndarray (n, q)
        Mean order parameters Q x and their standard errors by blocking.
    mu, mu_error : numpy.ndarray (n, q), eV
        dg/deta, g per `normalisation`: biased -2 phi (<eta> - kappa) and 2 phi eta_error, NaN where eta never changed
        against a bias; semi-grand as given, error 0; canonical NaN.
    mu_offset : numpy.ndarray (n, q), eV
        How far the mean of dg/deta of a cell, which mu of a bias is, may lie from dg/deta of a large one at <eta>: half
        the variance times the curvature of mu, and the next term of Stirling's formula, both of ideal mixing on the
        sublattices. It falls with the number of sites, and is large where a bias holds a sublattice against an end of
        its range. Zero for the other ensembles.
    composition : numpy.ndarray (n,)
        Mean fraction of occupied sites.
    energy, energy_error : numpy.ndarray (n,), eV per site
        Mean energy of the clusters, without bias and chemical potentials.
    heat_capacity, heat_capacity_error : numpy.ndarray (n,), eV/K per site
        Variance of the sampled energy H (with bias and chemical potentials) over k T^2: d<H>/dT at fixed conditions. In
        the canonical ensemble that is the heat capacity at constant composition.
    acceptance : numpy.ndarray (n,)
        Accepted fraction of attempts, after the warm-up.
    equilibration : numpy.ndarray (n,), sweeps
        What was left out of the means, after the warm-up: maximises the number of independent samples of what remains.
    inefficiency : numpy.ndarray (n,), sweeps
        Statistical inefficiency, twice the autocorrelation time: of the slowest of energy and order parameters.
    independent : numpy.ndarray (n,)
        Independent samples in the means, of the slowest of them.
    equilibrated : numpy.ndarray (n,) of bool
    reason : list of str
        Why not; empty where equilibrated. A run that sits in a metastable state cannot know it.
    occupations : numpy.ndarray (n, N) of int8
        At the end: `start` of a run that goes on.
    final_energy : numpy.ndarray (n,), eV
        Of these, all sites together.
    seeds : list of int
        The seed of each condition: `run` with it alone gives the same row.
    snapshots : numpy.ndarray (n, snapshots, N) of int8
    snapshot_sweeps : numpy.ndarray (snapshots,)
        Sweeps after the warm-up at which they were taken.
    energy_series, eta_series : numpy.ndarray (n, samples) in eV per site, (n, samples, q); or None
        After each `every` sweeps, from the end of the warm-up on.
    """

    ensemble: str
    T: Array
    eta: Array
    eta_error: Array
    mu: Array
    mu_error: Array
    mu_offset: Array
    composition: Array
    energy: Array
    energy_error: Array
    heat_capacity: Array
    heat_capacity_error: Array
    acceptance: Array
    equilibration: Whole
    inefficiency: Array
    independent: Array
    equilibrated: npt.NDArray[np.bool_]
    reason: list[str]
    occupations: npt.NDArray[np.int8]
    final_energy: Array
    seeds: list[int]
    snapshots: npt.NDArray[np.int8]
    snapshot_sweeps: Whole
    energy_series: Array | None = None
    eta_series: Array | None = None


class LatticeMC:
    """Monte Carlo of occupations 0 and 1 on a periodic lattice whose energy is a sum over clusters.

    ``E = sum over orbits J sum over clusters of the orbit, moved to all cells, of the product of the values of its
    sites``. Values are occupations (0, 1), or spins (-1, +1) where occupation 1 is spin +1. A cluster counts as often
    as the periodic crystal has it for each supercell: in a supercell of two cells an atom is linked to the other by two
    pairs. A cluster that would meet its own periodic image is an error.

    Parameters
    ----------
    cell : array_like, shape (d, d), Å
        Lattice vectors in rows; d = 1, 2 or 3.
    basis : array_like, shape (b, d)
        Fractional coordinates of the sites of a cell.
    repeats : int or sequence of d int
        Cells along each vector. Site ``(c, k)`` has index ``k + b (c as a number of d digits, the last one fastest)``.
    clusters : sequence of (float, sequence of clusters)
        Orbits: energy in eV per cluster, and its clusters. A cluster is a list of sites; a site is d whole numbers
        (the cell) and the number of the basis site, which may be left out if there is only one. One cluster for each
        set of translated copies; symmetry is not added.
    variables : str
        "occupation" or "spin".
    labels : array_like of int, shape (N,), optional
        Sublattice of each site, from 0 to L - 1. All 0 by default.
    Q : array_like, shape (q, L), optional
        Order parameters ``eta = Q x`` from mean occupations x of sublattices. Default: the composition of all sites.
    normalisation : float, optional
        M, to which eta and the free energy g refer: bias ``M sum_i phi_i (eta_i - kappa_i)^2``. Default N.
    boltzmann : float
        Boltzmann's constant, in eV/K; 1.0 for reduced units.

    Raises
    ------
    ValueError
        If an argument is out of range.
    DataError
        If cell, basis or clusters make no lattice: singular cell, sites that coincide, clusters given twice, supercells
        too small for a cluster.
    """

    def __init__(
        self,
        cell: npt.ArrayLike,
        basis: npt.ArrayLike,
        repeats: int | Sequence[int],
        clusters: Sequence[tuple[float, Sequence[Sequence[Sequence[int]]]]],
        *,
        variables: str = "occupation",
        labels: npt.ArrayLike | None = None,
        Q: npt.ArrayLike | None = None,
        normalisation: float | None = None,
        boltzmann: float = BOLTZMANN,
    ) -> None:
        self.cell, self.basis = _crystal(cell, basis)
        self.dim = len(self.cell)
        self.repeats = _repeats(repeats, self.dim)
        self.variables = one_of(variables, "variables", VARIABLES)
        self.boltzmann = positive(boltzmann, "boltzmann")
        self.n_sites = math.prod(self.repeats) * len(self.basis)
        if self.n_sites >= _TOO_LARGE:
            raise ValueError(f"a lattice must have fewer than 2^31 sites, got {self.n_sites}")
        self.clusters = _orbits(clusters, self.dim, len(self.basis))
        self._tables = _make_tables(self.clusters, self.repeats, len(self.basis))
        self._steps = _key_steps(self._tables)
        self._set_order_parameters(labels, Q, normalisation)

    # --- constructors -------------------------------------------------------------------------------------------------

    @classmethod
    def from_neighbours(
        cls,
        cell: npt.ArrayLike,
        basis: npt.ArrayLike,
        repeats: int | Sequence[int],
        pair_energies: Mapping[int, float],
        *,
        point_energy: float = 0.0,
        triplet_energies: Mapping[tuple[int, int, int], float] | None = None,
        **options: Any,
    ) -> LatticeMC:
        """A lattice with energies by shell of neighbours.

        Parameters
        ----------
        cell, basis, repeats
            See `LatticeMC`.
        pair_energies : dict of int to float, eV
            Energy of each pair in a shell: 1 the shortest distance of the lattice, 2 the next, and so on.
        point_energy : float, eV
            Of each site.
        triplet_energies : dict of (int, int, int) to float, eV
            Energy of each triplet, by the shells of its three pairs, in ascending order.
        options
            Others of `LatticeMC`.

        Raises
        ------
        ValueError, DataError
            As `LatticeMC`; and if there are no triplets of the shells that were named.
        """
        vectors, inside = _crystal(cell, basis)
        pair_shells = [whole_number(shell, "a shell of pair_energies", 1) for shell in pair_energies]
        triples = {}
        for key, energy in (triplet_energies or {}).items():
            shells = tuple(whole_number(shell, "a shell of triplet_energies", 1) for shell in key)
            if len(shells) != 3 or list(shells) != sorted(shells):
                raise ValueError(f"a key of triplet_energies must be three shells in ascending order, got {key!r}")
            triples[shells] = energy
        last = max([*pair_shells, *(shells[2] for shells in triples)], default=0)
        shell_of = _neighbour_shells(vectors, inside, last) if last else {}
        orbits: list[tuple[float, list[Cluster]]] = []
        zero = (0,) * len(vectors)
        if point_energy != 0.0:
            orbits.append((point_energy, [((*zero, k),) for k in range(len(inside))]))
        for shell, energy in pair_energies.items():
            pairs = {_canonical(((*zero, k), site)) for (k, site), s in shell_of.items() if s == shell}
            orbits.append((energy, sorted(pairs)))
        for shells, energy in triples.items():
            found = set()
            for k in range(len(inside)):
                near = [(site, s) for (kind, site), s in shell_of.items() if kind == k and s in shells]
                for (left, s), (right, r) in combinations(near, 2):
                    across = (*(b - a for a, b in zip(left[:-1], right[:-1], strict=True)), right[-1])
                    if sorted((s, r, shell_of.get((left[-1], across), 0))) == list(shells):
                        found.add(_canonical(((*zero, k), left, right)))
            if not found:
                raise ValueError(f"this lattice has no triplets whose pairs belong to shells {shells}")
            orbits.append((energy, sorted(found)))
        return cls(vectors, inside, repeats, orbits, **options)

    @classmethod
    def square(cls, n: int | Sequence[int], *energies: float, a: float = 1.0, **options: Any) -> LatticeMC:
        """Square lattice of n x n sites; `energies` of pairs by shell, `a` in Å. Options of `from_neighbours`."""
        return cls.from_neighbours(_scaled(np.eye(2), a), np.zeros((1, 2)), n, _by_shell(energies), **options)

    @classmethod
    def triangular(cls, n: int | Sequence[int], *energies: float, a: float = 1.0, **options: Any) -> LatticeMC:
        """Triangular lattice of n x n sites; `energies` of pairs by shell, `a` in Å. Options of `from_neighbours`."""
        cell = np.array([[1.0, 0.0], [0.5, math.sqrt(0.75)]])
        return cls.from_neighbours(_scaled(cell, a), np.zeros((1, 2)), n, _by_shell(energies), **options)

    @classmethod
    def bcc(cls, n: int | Sequence[int], *energies: float, a: float = 1.0, **options: Any) -> LatticeMC:
        """n^3 cubes of two sites each (edge `a` in Å); `energies` of pairs by shell. Options of `from_neighbours`."""
        basis = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
        return cls.from_neighbours(_scaled(np.eye(3), a), basis, n, _by_shell(energies), **options)

    @classmethod
    def fcc(cls, n: int | Sequence[int], *energies: float, a: float = 1.0, **options: Any) -> LatticeMC:
        """n^3 cubes of four sites each (edge `a` in Å); `energies` of pairs by shell. Options of `from_neighbours`."""
        basis = [[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]
        return cls.from_neighbours(_scaled(np.eye(3), a), basis, n, _by_shell(energies), **options)

    # --- order parameters ---------------------------------------------------------------------------------------------

    def period_labels(self, period: int | Sequence[int]) -> npt.NDArray[np.int32]:
        """Sublattices of a superstructure of `period` cells: labels (N,), numbered as the sites of such a supercell.

        Raises
        ------
        ValueError
            If the repeats are no multiples of the period.
        """
        lengths = _repeats(period, self.dim, "period")
        if any(n % p for n, p in zip(self.repeats, lengths, strict=True)):
            raise ValueError(f"repeats {self.repeats} must be multiples of the period {lengths}")
        cells = np.indices(self.repeats).reshape(self.dim, -1) % np.array(lengths)[:, None]
        inner = np.ravel_multi_index(tuple(cells), lengths)
        b = len(self.basis)
        return (inner[:, None] * b + np.arange(b)).ravel().astype(np.int32)

    def with_order_parameters(
        self, labels: npt.ArrayLike, Q: npt.ArrayLike, normalisation: float | None = None
    ) -> LatticeMC:
        """The same lattice with other sublattices and order parameters. See `LatticeMC`, `period_labels`."""
        other = copy.copy(self)
        other._set_order_parameters(labels, Q, normalisation)
        return other

    def _set_order_parameters(
        self, labels: npt.ArrayLike | None, Q: npt.ArrayLike | None, normalisation: float | None
    ) -> None:
        n = self.n_sites
        if labels is None:
            self.labels = np.zeros(n, np.int32)
        else:
            given = np.asarray(labels)
            if given.shape != (n,) or given.dtype.kind not in "iu":
                raise ValueError(f"labels must be {n} whole numbers, one for each site, got shape {given.shape}")
            if given.min() < 0 or given.max() >= n:
                raise ValueError(f"labels must be numbered from 0 without gaps, got {given.min()} to {given.max()}")
            self.labels = given.astype(np.int32)
        self.sublattice_sizes = np.bincount(self.labels)
        if not self.sublattice_sizes.all():
            empty = int(np.flatnonzero(self.sublattice_sizes == 0)[0])
            raise ValueError(f"labels must be numbered from 0 without gaps, but no site has label {empty}")
        many = len(self.sublattice_sizes)
        self.Q = np.array(self.sublattice_sizes[None] / n if Q is None else Q, dtype=np.float64)
        if self.Q.ndim != 2 or self.Q.shape[1] != many or len(self.Q) == 0 or not np.isfinite(self.Q).all():
            raise ValueError(
                f"Q must hold finite numbers, one column for each of the {many} sublattices, got shape {self.Q.shape}"
            )
        self.n_eta = len(self.Q)
        self.normalisation = float(n) if normalisation is None else positive(normalisation, "normalisation")
        # sites that share a table of flips: equal surroundings, and the same sublattice
        t = self._tables
        forms = np.column_stack([t.points, _group_sizes(t), t.pair_energies])
        _, kinds, form = np.unique(forms, axis=0, return_index=True, return_inverse=True)
        pairs = np.stack([kinds[form.ravel()][t.kind], self.labels], axis=1)
        self._classes, rows = np.unique(pairs, axis=0, return_inverse=True)
        self._rows = (2 * rows.ravel()).astype(np.int32)

    def order_parameters(self, occupations: npt.ArrayLike) -> Array:
        """eta (..., q) of occupations (..., N)."""
        n = self._occupations(occupations)
        flat = n.reshape(-1, self.n_sites)
        x = np.stack([np.bincount(self.labels, one, len(self.sublattice_sizes)) for one in flat])
        eta: Array = (x / self.sublattice_sizes) @ self.Q.T
        return eta.reshape(*n.shape[:-1], self.n_eta)

    # --- plain questions ----------------------------------------------------------------------------------------------

    @property
    def positions(self) -> Array:
        """Positions (N, d) of the sites, Å."""
        cells = np.indices(self.repeats).reshape(self.dim, -1).T
        found: Array = (cells[:, None] + self.basis).reshape(-1, self.dim) @ self.cell
        return found

    def energy(self, occupations: npt.ArrayLike) -> float:
        """Energy of occupations (N,) in eV, all sites together, without bias and chemical potentials."""
        n = self._occupations(occupations)
        if n.ndim != 1:
            raise ValueError(f"occupations must have shape ({self.n_sites},), got {n.shape}")
        return float(total_energy(self._values(n), self._tables))

    def atoms(self, occupations: npt.ArrayLike, species: tuple[str | None, str | None]) -> Atoms:
        """Occupations (N,) as atoms.

        Parameters
        ----------
        occupations : array_like, shape (N,)
        species : (str or None, str or None)
            Chemical symbols for occupation 0 and 1; None for sites that are left empty.

        Returns
        -------
        ase.Atoms
            Periodic along the lattice vectors. Lattices of fewer than three dimensions lie in the plane z = 0, or on
            the x axis, and are not periodic across it.
        """
        from ase import Atoms

        n = self._occupations(occupations)
        if n.ndim != 1:
            raise ValueError(f"occupations must have shape ({self.n_sites},), got {n.shape}")
        if len(species) != 2:
            raise ValueError(f"species must be two symbols, for occupation 0 and 1, got {species!r}")
        places, cell = np.zeros((self.n_sites, 3)), np.zeros((3, 3))
        places[:, : self.dim] = self.positions
        cell[: self.dim, : self.dim] = self.cell * np.array(self.repeats)[:, None]
        symbols = [species[value] for value in n]
        kept = [i for i, symbol in enumerate(symbols) if symbol is not None]
        return Atoms(
            [symbols[i] for i in kept], positions=places[kept], cell=cell, pbc=[axis < self.dim for axis in range(3)]
        )

    def fingerprint(self) -> str:
        """Hash of all that fixes the model: lattice, clusters, order parameters, units."""
        text = repr((self.repeats, self.variables, self.boltzmann, self.normalisation, self.clusters))
        parts = (array.tobytes() for array in (self.cell, self.basis, self.Q))
        return hashlib.sha256(b"".join([text.encode(), self.labels.tobytes(), *parts])).hexdigest()

    def _occupations(self, given: npt.ArrayLike) -> npt.NDArray[np.int8]:
        array = np.asarray(given)
        if array.ndim == 0 or array.shape[-1] != self.n_sites:
            raise ValueError(f"occupations must have {self.n_sites} sites in their last axis, got shape {array.shape}")
        if array.dtype.kind not in "iubf" or not ((array == 0) | (array == 1)).all():
            raise ValueError("occupations must be 0 or 1, for spins too")
        return np.ascontiguousarray(array, dtype=np.int8)

    def _values(self, n: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        return n.copy() if self.variables == "occupation" else (2 * n - 1).astype(np.int8)

    # --- runs ---------------------------------------------------------------------------------------------------------

    def run(
        self,
        T: npt.ArrayLike,
        *,
        composition: npt.ArrayLike | None = None,
        mu: npt.ArrayLike | None = None,
        phi: npt.ArrayLike | None = None,
        kappa: npt.ArrayLike | None = None,
        sweeps: int = 2000,
        every: int = 1,
        warmup: int = 0,
        seed: int | Sequence[int] | npt.NDArray[np.integer] = 0,
        start: npt.ArrayLike | None = None,
        snapshots: int = 0,
        series: bool = False,
        jobs: int | None = None,
        workers: Workers | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> LatticeResult:
        """Metropolis runs at many conditions. What is given decides the ensemble:

        - `composition`, or only `start`: canonical, swaps of an occupied and a vacant site, anywhere;
        - `mu`: semi-grand-canonical, flips, weight ``exp(-(E - M mu . eta) / kT)``; with the default Q and M this is
          ``E - mu sum n``;
        - `phi` and `kappa`: biased, flips, weight ``exp(-(E + M sum_i phi_i (eta_i - kappa_i)^2) / kT)``.

        A number holds for all conditions. Otherwise T and composition have shape (n,); mu, phi and kappa (n, q), or
        (q,) for all conditions, or (n,) if there is one order parameter.

        Parameters
        ----------
        T : array_like, K
        composition : array_like
            Fraction of occupied sites; must be a whole number of sites.
        mu, phi : array_like, eV
            phi must not be negative.
        kappa : array_like
        sweeps : int
            Sweeps after the warm-up, of N attempts each, N the number of sites.
        every : int
            Sweeps between samples.
        warmup : int
            Sweeps before the first, which leave no trace. What the rest needs for equilibration is found from the
            samples.
        seed : int, or sequence of n int
            Seed of each condition; from a single one, those of several are derived (`LatticeResult.seeds`). Several
            seeds with one condition are repeated runs.
        start : array_like, shape (N,) or (n, N), optional
            Occupations. Default: random at the composition; at half (semi-grand); at occupations of sublattices that
            give kappa, cut to 0..1 (biased).
        snapshots : int
            Configurations to keep, evenly spaced among the samples, the last one at the end.
        series : bool
            Keep energies and order parameters of all samples.
        jobs : int or None
            Threads; None for all cores. The result does not depend on it.
        workers : Workers, optional
            A pool to use instead.
        progress : callable, optional
            Called with 1 after each condition, in some thread.

        Returns
        -------
        LatticeResult

        Raises
        ------
        ValueError
            If conditions are of unequal length, contradict each other, or an argument is out of range.

        References
        ----------
        Equilibration: J. D. Chodera, J. Chem. Theory Comput. 12 (2016) 1799. Bias: B. Sadigh and P. Erhart, Phys.
        Rev. B 86 (2012) 134204.
        """
        seeds = _seeds(seed)
        conditions = _Conditions.judge(self, T, composition, mu, phi, kappa, start, len(seeds))
        sweeps, every = whole_number(sweeps, "sweeps", 1), whole_number(every, "every", 1)
        warmup, snapshots = whole_number(warmup, "warmup", 0), whole_number(snapshots, "snapshots", 0)
        if sweeps // every < LEAST_SAMPLES or sweeps % every:
            raise ValueError(
                f"sweeps must be a multiple of every, and at least {LEAST_SAMPLES} times as much, "
                f"got {sweeps} and {every}"
            )
        n, q, samples = conditions.n, self.n_eta, sweeps // every
        if snapshots > samples:
            raise ValueError(f"there can be at most one snapshot for each of the {samples} samples, got {snapshots}")
        if len(seeds) < n:
            seeds = [int(word) >> 1 for word in np.random.SeedSequence(seeds[0]).generate_state(n, np.uint64)]
        plan = _Plan(
            sweeps,
            every,
            warmup,
            self._chunk(every),
            [samples * (i + 1) // snapshots * every for i in range(snapshots)],
        )
        runs: list[_Run | None] = [None] * n

        def work(c: int) -> None:
            runs[c] = self._one(conditions, c, seeds[c], plan)

        with use_workers(workers, jobs) as pool:
            pool.run(work, range(n), None if progress is None else lambda _: progress(1))
        done = [run for run in runs if run is not None]
        column = {
            name: np.array([getattr(run, name) for run in done])
            for name in (
                "composition", "energy", "energy_error", "heat_capacity", "heat_capacity_error", "acceptance",
                "equilibration", "inefficiency", "independent", "equilibrated", "final_energy",
            )
        }  # fmt: skip
        eta = np.array([run.eta for run in done]).reshape(n, q)
        eta_error = np.array([run.eta_error for run in done]).reshape(n, q)
        if conditions.ensemble == "biased":
            found, error = -2.0 * conditions.phi * (eta - conditions.kappa), 2.0 * conditions.phi * eta_error
            # held against an end of its range, eta says only that mu is larger or smaller than this
            found, error = (np.where((conditions.phi > 0.0) & (eta_error == 0.0), np.nan, v) for v in (found, error))
        elif conditions.ensemble == "semi-grand":
            found, error = conditions.mu.copy(), np.zeros((n, q))
        else:
            found, error = np.full((n, q), np.nan), np.full((n, q), np.nan)
        return LatticeResult(
            ensemble=conditions.ensemble,
            T=conditions.T,
            eta=eta,
            eta_error=eta_error,
            mu=found,
            mu_error=error,
            mu_offset=np.array([run.offset for run in done]).reshape(n, q),
            reason=[run.reason for run in done],
            occupations=np.array([run.occupations for run in done]),
            seeds=seeds,
            snapshots=np.array([run.snapshots for run in done]).reshape(n, snapshots, self.n_sites),
            snapshot_sweeps=np.array(plan.snapshots, dtype=np.int64),
            energy_series=np.array([run.energies for run in done]).reshape(n, samples) if series else None,
            eta_series=np.array([run.etas for run in done]).reshape(n, samples, q) if series else None,
            **column,
        )

    def _chunk(self, every: int) -> int:
        """Sweeps in one call of a kernel: a multiple of `every`."""
        return max(1, CHUNK // (self.n_sites * every)) * every

    def _offset(self, x: Array, count: Whole, T: float) -> Array:
        """See `LatticeResult.mu_offset`; x (L,) are mean occupations, count (samples, L) those of sublattices."""
        sites = self.sublattice_sizes.astype(np.float64)
        # of the rarer species; one that never came counts as seen once, in the next sample
        rare = np.maximum(np.minimum(x, 1.0 - x), 1.0 / (sites * (len(count) + 1)))
        variance = (count / sites).var(axis=0)
        variance = np.where(variance > 0.0, variance, rare / sites)
        share = sites / self.normalisation
        curved = variance * (0.5 / rare**2 - 0.5 / (1.0 - rare) ** 2)
        # entropy of mixing of so few sites: the next term of Stirling's formula
        few = (0.5 / rare - 0.5 / (1.0 - rare)) / sites
        size = share * self.boltzmann * T * (curved + few)
        offset: Array = size @ np.abs(np.linalg.pinv(self.Q))
        return offset

    def _one(self, conditions: _Conditions, c: int, seed: int, plan: _Plan) -> _Run:
        rng = as_rng(seed)
        state = rng.integers(0, 2**64, 4, dtype=np.uint64)
        occupations = conditions.first(self, c, rng)
        beta = 1.0 / (self.boltzmann * conditions.T[c])
        walk = _Walk(self, conditions, c, beta, occupations, state)
        if plan.warmup:
            walk.advance(plan.warmup, plan.warmup, plan.chunk)
        walk.accepted = 0
        energies, counts, kept = [], [], []
        at = 0
        for end in sorted({*plan.snapshots, plan.sweeps}):
            e, n = walk.advance(end - at, plan.every, plan.chunk)
            energies.append(e)
            counts.append(n)
            at = end
            if end in plan.snapshots:
                kept.append(walk.occupations())
        energy, count = np.concatenate(energies), np.concatenate(counts)
        etas = (count / self.sublattice_sizes) @ self.Q.T
        bias = count @ conditions.linear[c] + 0.5 * np.einsum("sa,ab,sb->s", count, conditions.square[c], count)
        attempts = plan.sweeps * self.n_sites
        found = _analyse(energy, energy + bias, etas, plan.every, walk.accepted, walk.frozen)
        per_site = 1.0 / self.n_sites
        # whole numbers: their sums are exact
        occupied = count[found.first :].sum(axis=0) / (len(count) - found.first)
        heat = beta / conditions.T[c] * per_site
        return _Run(
            eta=self.Q @ (occupied / self.sublattice_sizes),
            eta_error=found.eta_error,
            composition=float(occupied.sum()) * per_site,
            energy=float(energy[found.first :].mean()) * per_site,
            energy_error=found.energy_error * per_site,
            offset=self._offset(occupied / self.sublattice_sizes, count[found.first :], conditions.T[c])
            if conditions.ensemble == "biased"
            else np.zeros(self.n_eta),
            heat_capacity=found.variance * heat,
            heat_capacity_error=found.variance_error * heat,
            acceptance=walk.accepted / attempts,
            equilibration=found.first * plan.every,
            inefficiency=found.inefficiency * plan.every,
            independent=found.independent,
            equilibrated=not found.reason,
            reason=found.reason,
            occupations=walk.occupations(),
            final_energy=walk.energy,
            snapshots=kept,
            energies=energy * per_site,
            etas=etas,
        )


# --- conditions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    sweeps: int
    every: int
    warmup: int
    chunk: int
    snapshots: list[int]


@dataclass(frozen=True)
class _Run:
    """One row of a `LatticeResult`."""

    eta: Array
    eta_error: Array
    offset: Array
    composition: float
    energy: float
    energy_error: float
    heat_capacity: float
    heat_capacity_error: float
    acceptance: float
    equilibration: int
    inefficiency: float
    independent: float
    equilibrated: bool
    reason: str
    occupations: npt.NDArray[np.int8]
    final_energy: float
    snapshots: list[npt.NDArray[np.int8]]
    energies: Array
    etas: Array


@dataclass(frozen=True)
class _Conditions:
    """Conditions of n runs. Bias and chemical potentials are ``linear c + c square c / 2`` of the counts c (L,)."""

    ensemble: str
    n: int
    T: Array
    occupied: Whole
    mu: Array
    phi: Array
    kappa: Array
    linear: Array
    square: Array
    start: npt.NDArray[np.int8] | None

    @classmethod
    def judge(
        cls,
        mc: LatticeMC,
        T: npt.ArrayLike,
        composition: npt.ArrayLike | None,
        mu: npt.ArrayLike | None,
        phi: npt.ArrayLike | None,
        kappa: npt.ArrayLike | None,
        start: npt.ArrayLike | None,
        seeds: int,
    ) -> _Conditions:
        if (phi is None) != (kappa is None):
            raise ValueError("a biased run needs both phi and kappa")
        if sum(given is not None for given in (composition, mu, phi)) > 1:
            raise ValueError("a run takes one of composition, mu, or phi and kappa, not several")
        if composition is None and mu is None and phi is None and start is None:
            raise ValueError("a run needs a composition, or mu, or phi and kappa, or occupations to start from")
        q = mc.n_eta
        columns: dict[str, npt.NDArray[Any]] = {"T": _one_column(T, "T")}
        if composition is not None:
            columns["composition"] = _one_column(composition, "composition")
        for name, given in (("mu", mu), ("phi", phi), ("kappa", kappa)):
            if given is not None:
                columns[name] = _columns(given, name, q)
        begin = None if start is None else mc._occupations(start)
        if begin is not None:
            if begin.ndim > 2:
                raise ValueError(f"start must have shape (N,) or (n, N), got {begin.shape}")
            columns["start"] = begin.reshape(-1, mc.n_sites)
        n = _common_length({name: len(given) for name, given in columns.items()} | {"seed": seeds})
        full = {name: np.repeat(given, n, axis=0) if len(given) == 1 else given for name, given in columns.items()}
        for name in ("T", "composition", "mu", "phi", "kappa"):
            if name in full and not np.isfinite(full[name]).all():
                bad = int(np.flatnonzero(~np.isfinite(full[name]).reshape(n, -1).all(axis=1))[0])
                raise ValueError(f"{name} must be finite, but condition {bad} has {full[name][bad].tolist()}")
        if (full["T"] <= 0.0).any():
            bad = int(np.flatnonzero(full["T"] <= 0.0)[0])
            raise ValueError(f"T must be positive, but condition {bad} has {full['T'][bad]:g}")
        starts = full.get("start")
        occupied = np.zeros(n, np.int64)
        if composition is not None:
            occupied = _reachable(full["composition"], mc.n_sites)
            if starts is not None and (starts.sum(axis=1, dtype=np.int64) != occupied).any():
                raise ValueError("start must have the composition that is asked for; leave composition out to keep it")
        elif starts is not None and mu is None and phi is None:
            occupied = starts.sum(axis=1, dtype=np.int64)
        nothing = np.zeros((n, q))
        mus, phis, kappas = full.get("mu", nothing), full.get("phi", nothing), full.get("kappa", nothing)
        if phi is not None and ((phis < 0.0).any() or not phis.any(axis=1).all()):
            bad = int(np.flatnonzero((phis < 0.0).any(axis=1) | ~phis.any(axis=1))[0])
            raise ValueError(
                f"phi must not be negative nor all zero, but condition {bad} has {phis[bad].tolist()}"
            )  # fmt: skip
        # with eta = W c: M sum phi (eta - kappa)^2 - M mu eta, without its constant
        w = mc.Q / mc.sublattice_sizes
        linear = -mc.normalisation * (2.0 * phis * kappas + mus) @ w
        square = 2.0 * mc.normalisation * np.einsum("ni,ia,ib->nab", phis, w, w)
        ensemble = "semi-grand" if mu is not None else "biased" if phi is not None else "canonical"
        return cls(ensemble, n, full["T"], occupied, mus, phis, kappas, linear, square, starts)

    def first(self, mc: LatticeMC, c: int, rng: np.random.Generator) -> npt.NDArray[np.int8]:
        """Occupations (N,) to start condition c from."""
        if self.start is not None:
            return self.start[c].copy()
        occupations = np.zeros(mc.n_sites, np.int8)
        if self.ensemble == "canonical":
            occupations[rng.permutation(mc.n_sites)[: self.occupied[c]]] = 1
            return occupations
        x = np.full(len(mc.sublattice_sizes), 0.5)
        if self.ensemble == "biased":
            held = self.phi[c] > 0.0
            x = np.clip(np.linalg.lstsq(mc.Q[held], self.kappa[c][held], rcond=None)[0], 0.0, 1.0)
        for a, share in enumerate(x):
            mine = np.flatnonzero(mc.labels == a)
            occupations[rng.permutation(mine)[: round(share * len(mine))]] = 1
        return occupations


def _numbers(given: npt.ArrayLike, name: str) -> Array:
    try:
        array = np.asarray(given)
        if array.dtype.kind not in "fiu":
            raise TypeError
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers, got {given!r}") from None
    return array.astype(np.float64)


def _one_column(given: npt.ArrayLike, name: str) -> Array:
    array = np.atleast_1d(_numbers(given, name))
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{name} must be a number, or one for each condition, got shape {array.shape}")
    return array


def _columns(given: npt.ArrayLike, name: str, q: int) -> Array:
    """`given` as (n or 1, q)."""
    array = _numbers(given, name)
    if array.ndim == 0:
        return np.full((1, q), float(array))
    if array.ndim == 1:
        array = array[:, None] if q == 1 else array[None]
    if array.ndim != 2 or array.shape[1] != q or len(array) == 0:
        raise ValueError(f"{name} must have one row for each condition and {q} columns, got shape {np.shape(given)}")
    return array


def _common_length(lengths: Mapping[str, int]) -> int:
    n = max(lengths.values())
    if any(length not in (1, n) for length in lengths.values()):
        told = ", ".join(f"{name} {length}" for name, length in lengths.items() if length > 1)
        raise ValueError(f"conditions must be of equal length, or single, got {told}")
    return n


def _reachable(composition: Array, n_sites: int) -> Whole:
    """Occupied sites at each composition."""
    for c, x in enumerate(composition):
        if not 0.0 <= x <= 1.0:
            raise ValueError(f"composition must lie between 0 and 1, but condition {c} has {x:g}")
        near = round(x * n_sites)
        if abs(x * n_sites - near) > 1e-6:
            raise ValueError(
                f"composition {x:g} of condition {c} is not reachable with {n_sites} sites; "
                f"the nearest is {near}/{n_sites} = {near / n_sites:.9g}"
            )
    return np.rint(composition * n_sites).astype(np.int64)


def _seeds(seed: Any) -> list[int]:
    if np.ndim(seed) == 0:
        return [whole_number(seed, "seed", 0)]
    seeds = [whole_number(one, "seed", 0) for one in seed]
    if not seeds:
        raise ValueError("seed must be one whole number, or one for each condition, got an empty list")
    return seeds


# --- one walk ---------------------------------------------------------------------------------------------------------


class _Walk:
    """One condition on its way: arrays of the kernels, and the kernel that serves."""

    def __init__(
        self,
        mc: LatticeMC,
        conditions: _Conditions,
        c: int,
        beta: float,
        occupations: npt.NDArray[np.int8],
        state: npt.NDArray[np.uint64],
    ) -> None:
        self.mc, self.beta, self.state = mc, beta, state
        self.counts = np.bincount(mc.labels[occupations == 1], minlength=len(mc.sublattice_sizes)).astype(np.int64)
        self.linear, self.square = np.ascontiguousarray(conditions.linear[c]), conditions.square[c].copy()
        self.low = 0 if mc.variables == "occupation" else -1
        self.accepted = 0
        self.swaps = conditions.ensemble == "canonical"
        self.order = np.argsort(-occupations, kind="stable").astype(np.int32)
        self.occupied = int(occupations.sum())
        self.look = None if mc._steps is None else _look_up(mc, beta, self.linear, bool(self.square.any()))
        # whether there is but one state
        self.frozen = self.swaps and self.occupied in (0, mc.n_sites)
        self.v = occupations if self.look is not None else mc._values(occupations)
        self.energy = self._whole()

    def occupations(self) -> npt.NDArray[np.int8]:
        return (self.v == 1).astype(np.int8)

    def _whole(self) -> float:
        v = self.mc._values(self.v) if self.look is not None else self.v
        return float(total_energy(v, self.mc._tables))

    def advance(self, sweeps: int, every: int, chunk: int) -> tuple[Array, Whole]:
        """Energies (n,) in eV and counts (n, L) after each `every` of `sweeps` sweeps."""
        n = sweeps // every
        energies, samples = np.empty(n), np.empty((n, len(self.counts)), np.int64)
        if self.frozen:
            energies[:], samples[:] = self.energy, self.counts
            return energies, samples
        step = max(1, chunk // every) * every
        for first in range(0, sweeps, step):
            many = min(step, sweeps - first)
            part = slice(first // every, (first + many) // every)
            self._call(many, every, energies[part], samples[part])
        return energies, samples

    def _call(self, sweeps: int, every: int, energies: Array, samples: Whole) -> None:
        mc = self.mc
        t, label = mc._tables, mc.labels
        tail = (sweeps, every, self.state, self.energy, energies, samples)
        places = (self.order, self.occupied) if self.swaps else ()
        bias = () if self.swaps else (self.linear, self.square)
        if self.look is None:
            kernel = swap_sweeps if self.swaps else flip_sweeps
            found = kernel(self.v, self.low, t, label, self.counts, *places, *bias, self.beta, *tail)
        else:
            head = (self.v, t, mc._steps, mc._rows, self.look, label, self.counts)
            if self.swaps or self.square.any():
                kernel = swap_lookup_sweeps if self.swaps else flip_lookup_sweeps
                found = kernel(*head, *places, *bias, self.beta, *tail)
            else:
                found = free_lookup_sweeps(*head, *tail)
        self.accepted += int(found[0])
        self.energy = self._whole()


def _group_sizes(t: Tables) -> Whole:
    """Partners in each group of pairs (b, G)."""
    starts = t.pair_starts.astype(np.int64)
    return starts[:, 1:] - starts[:, :-1]


def _key_steps(t: Tables) -> npt.NDArray[np.int32] | None:
    """What each partner in a pair, if occupied, adds to the key of a site (b, P); None where a table will not do."""
    if t.more.shape[1]:
        return None
    sizes = _group_sizes(t)
    if (np.prod(sizes + 1.0, axis=1) > LARGEST_TABLE).any():
        return None
    steps = np.zeros((len(t.points), t.pairs.shape[1]), np.int32)
    for k, many in enumerate(sizes):
        strides = np.concatenate([[1], np.cumprod(many + 1)[:-1]])
        for g in range(len(many)):
            steps[k, t.pair_starts[k, g] : t.pair_starts[k, g + 1]] = strides[g]
    return steps


def _look_up(mc: LatticeMC, beta: float, linear: Array, biased: bool) -> Array | None:
    """Probability and energy of a flip (2 classes, keys, 2) by kind and sublattice, value and key."""
    t = mc._tables
    sizes = _group_sizes(t)
    keys = int(np.prod(sizes + 1, axis=1).max())
    classes = mc._classes
    if 2 * len(classes) * keys > 8 * LARGEST_TABLE:
        return None
    spin = mc.variables == "spin"
    look = np.zeros((2 * len(classes), keys, 2))
    for row, (k, a) in enumerate(classes):
        field = np.full(1, t.points[k])
        for many, energy in zip(sizes[k], t.pair_energies[k], strict=True):
            occupied = np.arange(many + 1.0)
            field = (field + (energy * (2.0 * occupied - many if spin else occupied))[:, None]).ravel()
        for value in (0, 1):
            change = 1 - 2 * value
            cost = change * (2 if spin else 1) * field
            look[2 * row + value, : len(field), 1] = cost
            if not biased:
                whole = np.maximum(cost + change * linear[a], 0.0)
                look[2 * row + value, : len(field), 0] = np.exp(-beta * whole)
    return look


# --- what a series tells ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    first: int
    inefficiency: float
    independent: float
    eta_error: Array
    energy_error: float
    variance: float
    variance_error: float
    reason: str


def _equilibration(series: Array) -> int:
    """Sample from which on a series (n,) holds most independent samples.

    J. D. Chodera, J. Chem. Theory Comput. 12 (2016) 1799, with `_CANDIDATES` beginnings in the first three quarters.
    Long series are judged by means over consecutive samples.
    """
    width = -(-len(series) // _JUDGED)
    many = len(series) // width
    means = series[: many * width].reshape(many, width).mean(axis=1)
    firsts = np.unique(np.linspace(0, 0.75 * many, _CANDIDATES).astype(int))
    worth = [(many - first) / (2.0 * autocorrelation_time(means[first:])) for first in firsts]
    return int(firsts[int(np.argmax(worth))]) * width


def _analyse(energy: Array, whole: Array, etas: Array, every: int, accepted: int, frozen: bool) -> _Found:
    """Equilibration, errors and heat capacity from samples of the energy, of H, and of order parameters (n, q)."""
    series = [energy, *etas.T]
    n = len(energy)
    first = max(_equilibration(one) for one in series)
    rest = n - first
    inefficiency = max(2.0 * autocorrelation_time(one[first:]) for one in series)
    independent = rest / inefficiency
    blocks = int(np.clip(rest / (5.0 * inefficiency), _FEWEST_BLOCKS, _MOST_BLOCKS))
    owner = time_blocks(rest, blocks)
    many = np.bincount(owner)

    def error(one: Array) -> float:
        means = np.bincount(owner, one[first:]) / many
        return float(means.std(ddof=1)) / math.sqrt(blocks)

    # the variance without each block, for the jackknife
    centred = whole[first:] - whole[first:].mean()
    left = rest - many
    mean = (centred.sum() - np.bincount(owner, centred)) / left
    without = ((centred**2).sum() - np.bincount(owner, centred**2)) / left - mean**2
    variance_error = math.sqrt((blocks - 1) / blocks * float(((without - without.mean()) ** 2).sum()))
    reason = "" if frozen else _why_not(series, first, every, inefficiency, independent, accepted)
    return _Found(
        first,
        inefficiency,
        independent,
        np.array([error(one) for one in etas.T]),
        error(energy),
        float((centred**2).mean()),
        variance_error,
        reason,
    )


def _why_not(
    series: Sequence[Array], first: int, every: int, inefficiency: float, independent: float, accepted: int
) -> str:
    """What speaks against equilibration, or nothing."""
    n = len(series[0])
    if accepted == 0:
        return "no move was accepted"
    if first > n / 2:
        return f"equilibration takes {first * every} of {n * every} sweeps: run longer"
    if independent < LEAST_INDEPENDENT:
        return (
            f"only {independent:.0f} independent samples, {inefficiency * every:.0f} sweeps apart: run longer"
        )  # fmt: skip
    for one in series:
        rest = one[first:]
        half = len(rest) // 2
        error = math.sqrt(2.0 * inefficiency / half * float(rest.var()))
        gap = abs(float(rest[:half].mean() - rest[half:].mean()))
        if gap > _DRIFT * error and gap > 1e-12 * float(np.abs(rest).max()):
            return f"the halves of the run differ by {gap / error:.0f} standard errors: run longer"
    return ""


# --- lattices and clusters --------------------------------------------------------------------------------------------


def _scaled(cell: Array, a: float) -> Array:
    return cell * positive(a, "a")


def _by_shell(energies: Sequence[float]) -> dict[int, float]:
    return {shell: energy for shell, energy in enumerate(energies, 1) if finite(energy, "a pair energy") != 0.0}


def _crystal(cell: npt.ArrayLike, basis: npt.ArrayLike) -> tuple[Array, Array]:
    vectors, sites = _numbers(cell, "cell"), _numbers(basis, "basis")
    if vectors.ndim != 2 or vectors.shape[0] != vectors.shape[1] or len(vectors) not in (1, 2, 3):
        raise ValueError(f"cell must have shape (d, d) with d = 1, 2 or 3, got {vectors.shape}")
    d = len(vectors)
    if sites.ndim != 2 or sites.shape[1] != d or len(sites) == 0:
        raise ValueError(f"basis must have shape (b, {d}) with at least one site, got {sites.shape}")
    if not np.isfinite(vectors).all() or not np.isfinite(sites).all():
        raise ValueError("cell and basis must be finite")
    lengths = np.linalg.norm(vectors, axis=1)
    if not abs(np.linalg.det(vectors)) > 1e-6 * np.prod(lengths):
        raise DataError("the vectors of the cell are linearly dependent")
    for k, m in combinations(range(len(sites)), 2):
        gap = sites[k] - sites[m]
        if np.linalg.norm((gap - np.rint(gap)) @ vectors) < 1e-6 * lengths.min():
            raise DataError(f"sites {k} and {m} of the basis coincide")
    return vectors, sites


def _repeats(given: Any, d: int, name: str = "repeats") -> tuple[int, ...]:
    each = [given] * d if np.ndim(given) == 0 else list(given)
    if len(each) != d:
        raise ValueError(f"{name} must be one whole number, or {d} of them, got {len(each)}")
    return tuple(whole_number(one, name, 1) for one in each)


def _canonical(cluster: Cluster) -> Cluster:
    """The same for all translated copies and orders of the sites of a cluster."""
    first, *others = sorted((site[-1], *site[:-1]) for site in cluster)
    return tuple(
        (*(a - b for a, b in zip(site[1:], first[1:], strict=True)), site[0]) for site in (first, *others)
    )  # fmt: skip


def _orbits(clusters: Any, d: int, b: int) -> list[tuple[float, list[Cluster]]]:
    """Orbits as energies and canonical clusters."""
    found: list[tuple[float, list[Cluster]]] = []
    seen: dict[Cluster, int] = {}
    for o, orbit in enumerate(clusters):
        try:
            energy, members = orbit
            listed = [tuple(tuple(site) for site in cluster) for cluster in members]
        except (TypeError, ValueError):
            raise ValueError(f"orbit {o} must be an energy and a list of clusters, each a list of sites") from None
        number = finite(energy, f"the energy of orbit {o}")
        mine: list[Cluster] = []
        for cluster in listed:
            if not cluster:
                raise ValueError(f"orbit {o} has a cluster without sites")
            sites = [_site(site, o, d, b) for site in cluster]
            if len(set(sites)) < len(sites):
                raise DataError(f"orbit {o} has a cluster that names a site twice: {list(cluster)}")
            key = _canonical(tuple(sites))
            if key in seen:
                raise DataError(
                    f"orbit {o} has a cluster that orbit {seen[key]} has already, up to a translation: {list(cluster)}"
                )
            seen[key] = o
            mine.append(key)
        found.append((number, mine))
    return found


def _site(given: tuple[Any, ...], orbit: int, d: int, b: int) -> Site:
    site = (*given, 0) if b == 1 and len(given) == d else given
    if len(site) != d + 1:
        raise ValueError(
            f"a site of orbit {orbit} must be {d} whole numbers and the number of its basis site, got {list(given)}"
        )
    numbers = []
    for one in site:
        if isinstance(one, bool | np.bool_) or not isinstance(one, int | np.integer):
            raise ValueError(f"a site of orbit {orbit} must be whole numbers, got {list(given)}")
        numbers.append(int(one))
    if not 0 <= numbers[-1] < b:
        raise ValueError(f"a site of orbit {orbit} has basis site {numbers[-1]}, but they are 0 to {b - 1}")
    return tuple(numbers)


def _make_tables(orbits: Sequence[tuple[float, list[Cluster]]], repeats: tuple[int, ...], b: int) -> Tables:
    """Clusters as seen from each site."""
    d = len(repeats)
    points = np.zeros(b)
    # by kind: energy and sites of the cluster but the first, relative to it
    pairs: list[list[tuple[float, Cluster]]] = [[] for _ in range(b)]
    more: list[list[tuple[float, int, Cluster]]] = [[] for _ in range(b)]
    for energy, clusters in orbits:
        for cluster in clusters:
            inside = {(*(c % r for c, r in zip(site[:d], repeats, strict=True)), site[d]) for site in cluster}
            if len(inside) < len(cluster):
                raise DataError(
                    f"repeats {repeats} are too small: the cluster {[list(site) for site in cluster]} "
                    "meets its own periodic image"
                )
            for m, site in enumerate(cluster):
                others = tuple(
                    (*(a - c for a, c in zip(other[:d], site[:d], strict=True)), other[d])
                    for other in cluster[:m] + cluster[m + 1 :]
                )
                k = site[d]
                if not others:
                    points[k] += energy
                elif energy != 0.0 and len(others) == 1:
                    pairs[k].append((energy, others))
                elif energy != 0.0:
                    more[k].append((energy, len(cluster), others))
    for k in range(b):
        pairs[k].sort()
        more[k].sort()
    cells = np.indices(repeats).reshape(d, -1)
    kind = np.tile(np.arange(b, dtype=np.int32), cells.shape[1])

    def partners(columns: Sequence[Sequence[Site]]) -> npt.NDArray[np.uint32]:
        table = np.zeros((cells.shape[1], b, max(len(sites) for sites in columns)), np.uint32)
        for k, sites in enumerate(columns):
            for p, site in enumerate(sites):
                moved = (cells + np.array(site[:d])[:, None]) % np.array(repeats)[:, None]
                table[:, k, p] = np.ravel_multi_index(tuple(moved), repeats) * b + site[d]
        return np.ascontiguousarray(table.reshape(cells.shape[1] * b, -1))

    pair_starts, pair_keys = _groups([[item[0] for item in mine] for mine in pairs])
    more_groups, more_keys = _groups([[item[:2] for item in mine] for mine in more])
    longest = max(len(mine) for mine in more)
    more_starts = np.zeros((b, longest + 1), np.uint32)
    for k, mine in enumerate(more):
        ends = np.cumsum([0, *(len(item[2]) for item in mine)])
        more_starts[k, : len(ends)], more_starts[k, len(ends) :] = ends, ends[-1]
    return Tables(
        kind=kind,
        points=points,
        pairs=partners([[item[1][0] for item in mine] for mine in pairs]),
        pair_starts=pair_starts,
        pair_energies=_padded(pair_keys, 0.0),
        more=partners([[site for item in mine for site in item[2]] for mine in more]),
        more_starts=more_starts,
        more_groups=more_groups,
        more_energies=_padded([[key[0] for key in keys] for keys in more_keys], 0.0),
        more_sizes=_padded([[key[1] for key in keys] for keys in more_keys], 1.0),
    )


def _groups(keys: Sequence[Sequence[Any]]) -> tuple[npt.NDArray[np.uint32], list[list[Any]]]:
    """Where runs of equal keys begin, by kind (b, G + 1), and the keys. Kinds with fewer runs get empty ones."""
    found: list[list[Any]] = []
    starts: list[list[int]] = []
    for mine in keys:
        begin = [i for i in range(len(mine)) if i == 0 or mine[i] != mine[i - 1]]
        found.append([mine[i] for i in begin])
        starts.append([*begin, len(mine)])
    most = max(len(one) for one in found)
    table = np.array([one + [one[-1]] * (most + 1 - len(one)) for one in starts], np.uint32)
    return table, found


def _padded(rows: Sequence[Sequence[float]], fill: float) -> Array:
    most = max(len(row) for row in rows)
    return np.array([[*row, *[fill] * (most - len(row))] for row in rows], np.float64).reshape(len(rows), most)


def _neighbour_shells(cell: Array, basis: Array, last: int) -> dict[tuple[int, Site], int]:
    """Shell, from 1 to `last`, of each neighbour: from (basis site k in cell 0, site) to the shell."""
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    spread = np.abs(basis[:, None] - basis).max(axis=(0, 1))
    tolerance = 1e-5 * np.linalg.norm(cell, axis=1).min()
    radius = float(np.linalg.norm(cell, axis=1).max())
    while True:
        # all sites within the radius lie in these cells
        reach = np.ceil(radius / heights + spread).astype(int)
        cells = np.array(list(product(*(range(-r, r + 1) for r in reach))))
        found: list[tuple[float, int, Site]] = []
        for k in range(len(basis)):
            for m in range(len(basis)):
                lengths = np.linalg.norm((cells + basis[m] - basis[k]) @ cell, axis=1)
                for i in np.flatnonzero((lengths <= radius) & (lengths > tolerance)):
                    found.append((float(lengths[i]), k, (*(int(c) for c in cells[i]), m)))
        found.sort()
        shells: dict[tuple[int, Site], int] = {}
        shell, before = 0, 0.0
        for length, k, site in found:
            shell += length > before + tolerance
            before = length
            if shell > last:
                return shells
            shells[k, site] = shell
        radius *= 1.5
