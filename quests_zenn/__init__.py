"""Information entropy of atomistic data: descriptors, densities, uncertainty, free energies.

The rooms of the package are its modules; importing this one imports none of them.

>>> from quests_zenn.descriptors import get_descriptors
>>> from quests_zenn.entropy import entropy, delta_entropy
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_ROOMS = ("compression", "descriptors", "distributed", "entropy", "io", "sampling", "states", "uq", "zenn")
_ERRORS = ("DataError", "DataWarning", "MissingExtraError")

__all__ = ["__version__", *_ERRORS, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _ERRORS:
        return getattr(importlib.import_module(f"{__name__}._core.checks"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
