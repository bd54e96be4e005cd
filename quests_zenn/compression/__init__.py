"""Which structures to keep: the information of a data set in fewer of them."""

from typing import Any

from quests_zenn.compression._course import Selection
from quests_zenn.compression._path import Curve
from quests_zenn.compression.compressor import BALANCES, METHODS, ORDERED, DatasetCompressor
from quests_zenn.compression.size import Size

__all__ = [
    "BALANCES",
    "METHODS",
    "ORDERED",
    "Curve",
    "DatasetCompressor",
    "SampleSelector",
    "Selection",
    "Size",
]


def __getattr__(name: str) -> Any:
    if name == "SampleSelector":  # an estimator of scikit-learn
        from quests_zenn.compression.selector import SampleSelector

        return SampleSelector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
