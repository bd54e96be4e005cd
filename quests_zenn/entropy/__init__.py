"""Environments to densities to information. Arrays only: this room knows no atoms and no files."""

from quests_zenn.entropy.bandwidth import DEFAULT_BANDWIDTH, get_bandwidth
from quests_zenn.entropy.metrics import (
    PRECISIONS,
    GroupMetrics,
    delta_entropy,
    diversity,
    entropy,
    get_all_metrics,
    group_metrics,
)

__all__ = [
    "DEFAULT_BANDWIDTH",
    "PRECISIONS",
    "GroupMetrics",
    "delta_entropy",
    "diversity",
    "entropy",
    "get_all_metrics",
    "get_bandwidth",
    "group_metrics",
]
