"""Cluster expansions of icet as an oracle, through its Monte Carlo, mchammer.

mchammer draws from the one generator of a Python process and holds its lock, so that every run gets a process of its
own: that is `ProgramOracle` with a program of ours, `_icet_run`. A cluster expansion travels there as JSON. icet's own
files are pickles, which can run code when they are read.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, MissingExtraError, finite, one_of, positive, whole_number
from quests_zenn.sampling import _icet_run
from quests_zenn.sampling._icet_run import FORMAT, expansion_from_plain, structure_from_plain
from quests_zenn.sampling._program import Programs, Template
from quests_zenn.sampling._results import (
    FloatArray,
    Result,
    as_matrix,
    check_asked,
    check_names,
    fingerprint_of,
    run_programs,
    shifted,
)

#: k_B in eV/K, CODATA 2018.
BOLTZMANN = 8.617333262145179e-5


def need_icet() -> None:
    """Raise MissingExtraError where icet is not installed."""
    if find_spec("icet") is None or find_spec("mchammer") is None:
        raise MissingExtraError("icet", "active")


def structure_to_plain(structure: Any) -> dict[str, Any]:
    """An ``ase.Atoms`` in terms of JSON: symbols, positions and cell in Å, pbc."""
    return {
        "symbols": list(structure.get_chemical_symbols()),
        "positions": structure.positions.tolist(),
        "cell": np.asarray(structure.cell).tolist(),
        "pbc": [bool(p) for p in structure.pbc],
    }


def expansion_to_plain(expansion: Any) -> dict[str, Any]:
    """A cluster expansion in terms of JSON: all that it is made from, and its parameters.

    Raises
    ------
    DataError
        If it does not come back the same, as with one whose orbits were taken out in ways unknown to us.
    """
    try:
        space = expansion.get_cluster_space_copy()
        # what ClusterSpace.write stores has no public names
        history = [[str(kind), _plain_orbits(value)] for kind, value in space._pruning_history]
        document = {
            "format": FORMAT,
            "structure": structure_to_plain(space._input_structure),
            "cutoffs": [float(cutoff) for cutoff in space._cutoffs],
            "chemical_symbols": _plain_symbols(space._input_chemical_symbols),
            "symprec": float(space.symprec),
            "position_tolerance": float(space.position_tolerance),
            "history": history,
            "parameters": np.asarray(expansion.parameters, dtype=np.float64).tolist(),
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"this cluster expansion cannot be taken apart ({error}); is it one of icet >= 3.0?") from None
    try:
        again = expansion_from_plain(document).get_cluster_space_copy()
    except ValueError as error:
        raise DataError(f"this cluster expansion cannot be put together again ({error})") from None
    if [_orbit(one) for one in again.as_list] != [_orbit(one) for one in space.as_list]:
        raise DataError("this cluster expansion does not come back the same from what it is made of")
    return document


def _plain_symbols(symbols: Sequence[Any]) -> list[Any]:
    return [one if isinstance(one, str) else [str(symbol) for symbol in one] for one in symbols]


def _plain_orbits(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): [int(i) for i in items] for key, items in value.items()}
    return [int(i) for i in value]


def _orbit(one: Mapping[str, Any]) -> tuple[Any, ...]:
    return one["order"], round(float(one["radius"]), 6), one["multiplicity"], str(one["multicomponent_vector"])


def _read_expansion(path: Path) -> Any:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix == ".json":
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read as JSON ({error})") from None
        try:
            return expansion_from_plain(document if isinstance(document, Mapping) else {})
        except ValueError as error:
            raise DataError(f"{path}: {error}") from None
    raise DataError(
        f"{path}: files of icet are pickles, which can run any code when they are read; read it with "
        "icet.ClusterExpansion.read if you know where it comes from and pass the expansion itself, or give a .json "
        "written by IcetOracle.save"
    )


class IcetOracle:
    """A cluster expansion of icet as an oracle: mu from mchammer's Monte Carlo.

    Order parameters are the fractions c_i of all species but one on the active sublattice, g is per site of it and
    mu_i = dg/dc_i, in the energy unit of the expansion.

    ``"variance-constrained"``: the bias N phi (c - kappa)^2 with N sites holds c near the point, in unstable regions
    too; mu = -2 phi (<c> - kappa). In terms of mchammer its `kappa` is phi / (k_B T) and its `phi` is -2 kappa. Two
    species only: with more, its acceptance of exchanges between two biased species does not obey detailed balance
    (icet 4.0: the term of second order is counted once, not twice).

    ``"semi-grand"``: mu is given and <c> is found, so that it needs a guess of mu, and never lands where g is unstable;
    any number of species. Without a guess, that of an ideal solution is taken.

    Parameters
    ----------
    cluster_expansion : icet.ClusterExpansion or path
        Per site of the primitive cell, as usual. A path is that of a .json written by `save`: files of icet are
        pickles, and are not read here.
    supercell : ase.Atoms
        Structure that is simulated, or three numbers of repetitions of the primitive cell. Its species are where runs
        begin.
    species : sequence of str
        Whose fractions are the order parameters: all on the active sublattice but one.
    sweeps : int
        Trial steps of each site.
    phi : float, energy per site
        Stiffness of the bias (variance-constrained only).
    equilibration : float
        Share of the sweeps that is left out at the beginning.
    ensemble : {"variance-constrained", "semi-grand"}
    boltzmann : float
        k_B in the units of the expansion per K; by default in eV/K.
    timeout, retries
        See `ProgramOracle`.

    Raises
    ------
    MissingExtraError
        If icet is not installed.
    DataError
        If the expansion, the supercell and the species do not fit together.
    ValueError
        If a setting makes no sense.
    """

    def __init__(
        self,
        cluster_expansion: Any,
        supercell: Any,
        species: Sequence[str],
        sweeps: int = 1000,
        phi: float = 10.0,
        *,
        equilibration: float = 0.25,
        ensemble: str = "variance-constrained",
        boltzmann: float = BOLTZMANN,
        timeout: float | None = 3600.0,
        retries: int = 1,
    ) -> None:
        need_icet()
        self.ensemble = one_of(ensemble, "ensemble", ("variance-constrained", "semi-grand"))
        self.sweeps = whole_number(sweeps, "sweeps", 20)
        self.phi = positive(phi, "phi")
        self.equilibration = finite(equilibration, "equilibration")
        if not 0.0 <= self.equilibration <= 0.9:
            raise ValueError(f"equilibration must lie between 0 and 0.9, got {equilibration!r}")
        self.boltzmann = positive(boltzmann, "boltzmann")
        if isinstance(cluster_expansion, str | os.PathLike):
            cluster_expansion = _read_expansion(Path(cluster_expansion))
        self._expansion = expansion_to_plain(cluster_expansion)
        expansion = expansion_from_plain(self._expansion)
        space = expansion.get_cluster_space_copy()
        self._structure = structure_to_plain(_supercell(supercell, space.primitive_structure))
        self.species, self.other, self.sites = self._sublattice(space, species)
        self.q = len(self.species)
        self.names = check_names([f"c_{symbol}" for symbol in self.species], self.q)
        if self.ensemble == "variance-constrained" and self.q > 1:
            raise DataError(
                "the variance-constrained ensemble of mchammer is exact for two species only; say ensemble='semi-grand'"
            )
        self.timeout = None if timeout is None else positive(timeout, "timeout")
        self.retries = whole_number(retries, "retries", 0)

    def _programs(self, folder: str) -> Programs:
        """How points are answered, by our own program; `folder` holds its settings."""
        settings = Path(folder) / "settings.json"
        settings.write_text(json.dumps(self._settings()), encoding="utf-8")
        # -P: the folder of the program is no place to import from
        command = [sys.executable, "-P", _braces(_icet_run.__file__), _braces(str(settings)), "{input}", "{output}"]
        return Programs(
            template=Template(command, ("input", "output"), {}),
            names=self.names,
            input="points.csv",
            output="results.csv",
            timeout=self.timeout,
            retries=self.retries,
            batch=False,
            fingerprint=self.fingerprint(),
            environment={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def _sublattice(self, space: Any, species: Sequence[str]) -> tuple[tuple[str, ...], str, int]:
        """Species asked for, the one that is left, and the number of sites of the active sublattice."""
        structure = structure_from_plain(self._structure)
        try:
            sublattices = space.get_sublattices(structure)
            sublattices.assert_occupation_is_allowed(structure.get_chemical_symbols())
        except Exception as error:  # icet raises many kinds
            raise DataError(f"the supercell does not fit the cluster expansion ({error})") from None
        active = sublattices.active_sublattices
        if len(active) != 1:
            raise DataError(f"the cluster expansion must have one active sublattice, got {len(active)}")
        there = list(active[0].chemical_symbols)
        asked = (species,) if isinstance(species, str) else tuple(species)
        if len(set(asked)) != len(there) - 1 or len(asked) != len(there) - 1 or not set(asked) < set(there):
            raise DataError(
                f"species must be {len(there) - 1} of the {len(there)} on the active sublattice "
                f"({', '.join(there)}), got {', '.join(map(str, asked))}"
            )
        other = next(symbol for symbol in there if symbol not in asked)
        return asked, other, len(active[0].indices)

    def _settings(self) -> dict[str, Any]:
        return {
            "expansion": self._expansion,
            "structure": self._structure,
            "species": list(self.species),
            "other": self.other,
            "sites": self.sites,
            "sweeps": self.sweeps,
            "phi": self.phi,
            "equilibration": self.equilibration,
            "ensemble": self.ensemble,
            "boltzmann": self.boltzmann,
        }

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the cluster expansion as JSON, which can be read without running any code of the file.

        Raises
        ------
        DataError
            If the file exists already, or cannot be written.
        """
        from quests_zenn.io.outputs import write_json

        write_json(path, self._expansion, overwrite)

    def candidates(self) -> None:
        """Any point may be asked for."""
        return None

    def fingerprint(self) -> str:
        """SHA-256 of the cluster expansion, the supercell and the settings of a run."""
        return fingerprint_of({"oracle": "icet", **self._settings()})

    def evaluate(
        self,
        points: npt.ArrayLike,
        T: npt.ArrayLike,
        *,
        seeds: npt.ArrayLike,
        jobs: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        used: npt.ArrayLike | None = None,
        mu_guess: npt.ArrayLike | None = None,
    ) -> Result:
        """Simulate all points; see `Oracle.evaluate`. Each one is a process of its own.

        Parameters
        ----------
        mu_guess : array_like, shape (n, q), optional
            mu as it is expected at the points, such as that of a model: it moves the bias so that <c> lands near the
            point, or is the mu of the semi-grand ensemble. NaN for no guess.

        Raises
        ------
        DataError
            If the points are not as they should be, or `folder` cannot be written to.
        """
        asked, temperatures, numbers = check_asked(points, T, seeds, self.q)
        if self.ensemble == "variance-constrained":
            told = shifted(asked, mu_guess, np.full(self.q, self.phi))
        else:
            told = self._ideal(asked, temperatures)
            if mu_guess is not None:
                guess = as_matrix(mu_guess, "mu_guess")
                if guess.shape != asked.shape:
                    raise DataError(f"mu_guess must have the shape of points, {asked.shape}, got {guess.shape}")
                told = np.where(np.isfinite(guess), guess, told)
        with tempfile.TemporaryDirectory(prefix="quests_zenn_icet_", ignore_cleanup_errors=True) as own:
            return run_programs(self._programs(own), told, temperatures, numbers, jobs, folder, asked)

    def _ideal(self, x: FloatArray, T: FloatArray) -> FloatArray:
        """mu_i = k_B T ln(c_i / c_other) of an ideal solution, at most half an atom away from pure species."""
        least = 0.5 / self.sites
        rest = np.maximum(1.0 - x.sum(axis=1), least)
        mu: FloatArray = self.boltzmann * T[:, None] * np.log(np.maximum(x, least) / rest[:, None])
        return mu


def _braces(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _supercell(supercell: Any, primitive: Any) -> Any:
    if hasattr(supercell, "get_chemical_symbols"):
        return supercell
    try:
        repeats = [whole_number(number, "a repetition", 1) for number in supercell]
    except TypeError:
        repeats = []
    if len(repeats) != 3:
        raise ValueError(f"supercell must be an ase.Atoms or three numbers of repetitions, got {supercell!r}")
    return primitive.repeat(repeats)
