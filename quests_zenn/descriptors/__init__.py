"""Structures to environments: one row per atom."""

from quests_zenn.descriptors.environments import (
    DEFAULT_CUTOFF,
    DEFAULT_K,
    SPECIES,
    Environments,
    describe,
    element_symbols,
    get_descriptors,
)
from quests_zenn.descriptors.volume import volume_per_atom

__all__ = [
    "DEFAULT_CUTOFF",
    "DEFAULT_K",
    "SPECIES",
    "Environments",
    "describe",
    "element_symbols",
    "get_descriptors",
    "volume_per_atom",
]
