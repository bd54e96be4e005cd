"""Environments to densities to information. Arrays only: this room knows no atoms and no files."""

from quests_zenn.entropy.approximate import DeltaEntropyEstimate, approx_delta_entropy
from quests_zenn.entropy.bandwidth import (
    DEFAULT_BANDWIDTH,
    BandwidthLikelihood,
    get_bandwidth,
    intrinsic_dimension,
    likelihood,
    select_bandwidth,
)
from quests_zenn.entropy.blocks import (
    GAS_CONSTANT,
    BlockError,
    TrajectoryEntropy,
    autocorrelation_time,
    block_error,
    time_blocks,
    trajectory_entropy,
)
from quests_zenn.entropy.curves import InformationGap, LearningCurve, information_gap, learning_curve
from quests_zenn.entropy.estimate import EntropyEstimate, estimate_entropy, is_exact
from quests_zenn.entropy.groups import GroupMatrix, group_matrix
from quests_zenn.entropy.metrics import (
    PRECISIONS,
    GroupMetrics,
    delta_entropy,
    diversity,
    entropy,
    get_all_metrics,
    group_metrics,
    is_novel,
    novelty,
    overlap,
)

__all__ = [
    "DEFAULT_BANDWIDTH",
    "GAS_CONSTANT",
    "PRECISIONS",
    "BandwidthLikelihood",
    "BlockError",
    "DeltaEntropyEstimate",
    "EntropyEstimate",
    "GroupMatrix",
    "GroupMetrics",
    "InformationGap",
    "LearningCurve",
    "TrajectoryEntropy",
    "approx_delta_entropy",
    "autocorrelation_time",
    "block_error",
    "delta_entropy",
    "diversity",
    "entropy",
    "estimate_entropy",
    "get_all_metrics",
    "get_bandwidth",
    "group_matrix",
    "group_metrics",
    "information_gap",
    "intrinsic_dimension",
    "is_exact",
    "is_novel",
    "learning_curve",
    "likelihood",
    "novelty",
    "overlap",
    "select_bandwidth",
    "time_blocks",
    "trajectory_entropy",
]
