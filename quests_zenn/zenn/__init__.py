"""Free-energy models of several configurations, with derivatives that can be trusted. Needs the extra zenn."""

from importlib import import_module
from typing import Any

_HOMES = {
    "DNN": "model",
    "FreeEnergyModel": "model",
    "IDNN": "model",
    "IdealMixing": "_ideal",
    "ZENN": "model",
    "CrossEntropyClassifier": "classifier",
    "ZENNClassifier": "classifier",
    "calibration_error": "calibration",
    "join": "_joined",
    "reliability": "calibration",
}

__all__ = [
    "DNN",
    "IDNN",
    "ZENN",
    "CrossEntropyClassifier",
    "FreeEnergyModel",
    "IdealMixing",
    "ZENNClassifier",
    "calibration_error",
    "join",
    "reliability",
    "thermo",
]


def __getattr__(name: str) -> Any:
    if name == "thermo":
        return import_module("quests_zenn.zenn.thermo")
    if name in _HOMES:
        return getattr(import_module(f"quests_zenn.zenn.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
