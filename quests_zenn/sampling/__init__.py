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
from quests_zenn.sampling.snapshots import Snapshots
from quests_zenn.sampling.weights import GroupScores, effective_sample_size, group_scores, row_weights

__all__ = [
    "CRITERIA",
    "DEFAULT_CRITERIA",
    "ActiveLearning",
    "Budget",
    "Context",
    "FunctionOracle",
    "GroupScores",
    "IcetOracle",
    "LatticeMC",
    "LatticeResult",
    "MonteCarloOracle",
    "Oracle",
    "Polytope",
    "PoolOracle",
    "ProgramOracle",
    "Result",
    "Snapshots",
    "Stop",
    "criterion",
    "effective_sample_size",
    "group_scores",
    "propose",
    "row_weights",
]
