"""Lattice Monte Carlo from a table of a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from quests_zenn._core.checks import DataError
from quests_zenn.sampling.domain import Polytope
from quests_zenn.sampling.lattice import LatticeMC
from quests_zenn.sampling.oracles import MonteCarloOracle

if TYPE_CHECKING:
    from quests_zenn.sampling.config import Part

LATTICES = ("square", "triangular", "bcc", "fcc")


def lattice_oracle(part: Part, domain: Polytope) -> MonteCarloOracle:
    """Biased Monte Carlo on one of the usual lattices, with energies of pairs by shell.

    Raises
    ------
    DataError
        If something is missing or does not fit.
    """
    make = getattr(LatticeMC, part.one_of("lattice", LATTICES))
    size = part.need("size", (int, list))
    pairs = part.need("pairs", list)
    variables = part.take("variables", "occupation", str)
    period = part.take("period", 1, (int, list))
    matrix = part.take("order_parameters", None, list)
    boltzmann = part.take("boltzmann", None, (int, float))
    phi = part.need("phi", (int, float, list))
    sweeps = part.need("sweeps", int)
    more = {name: part.take(name, default, int) for name, default in (("every", 1), ("warmup", 0), ("retries", 1))}
    strict = part.take("strict", True, bool)
    try:
        options = {"variables": variables, **({} if boltzmann is None else {"boltzmann": float(boltzmann)})}
        simulation = make(size, *pairs, **options)
        if matrix is not None:
            simulation = simulation.with_order_parameters(simulation.period_labels(period), matrix)
        oracle = MonteCarloOracle(
            simulation, phi, sweeps, q=None if np.ndim(phi) else domain.dim, names=domain.names, strict=strict, **more
        )
    except (TypeError, ValueError) as error:
        raise DataError(f"{part.where}: [oracle]: {error}") from error
    if simulation.n_eta != domain.dim:
        raise DataError(
            f"{part.where}: the lattice has {simulation.n_eta} order parameters and the domain {domain.dim}"
        )
    return oracle
