"""Active learning of free energies: where points may lie, which to buy, who answers them, and the loop."""

from __future__ import annotations

from quests_zenn.sampling.criteria import CRITERIA, DEFAULT_CRITERIA, Budget, Context, criterion, propose
from quests_zenn.sampling.domain import Polytope
from quests_zenn.sampling.lattice import LatticeMC, LatticeResult
from quests_zenn.sampling.loop import ActiveLearning, Stop
from quests_zenn.sampling.oracles import (
    FunctionOracle,
    IcetOracle,
    MonteCarloOracle,
    Oracle,
    PoolOracle,
    ProgramOracle,
    Result,
)

__all__ = [
    "CRITERIA",
    "DEFAULT_CRITERIA",
    "ActiveLearning",
    "Budget",
    "Context",
    "FunctionOracle",
    "IcetOracle",
    "LatticeMC",
    "LatticeResult",
    "MonteCarloOracle",
    "Oracle",
    "Polytope",
    "PoolOracle",
    "ProgramOracle",
    "Result",
    "Stop",
    "criterion",
    "propose",
]
