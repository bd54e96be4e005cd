"""Scores to decisions: what a reference knows, from which dH on an atom is new, and what follows from it."""

from typing import Any

from quests_zenn.uq.calibration import Coverage, ErrorBound, SplitCheck, check_coverage
from quests_zenn.uq.filter import FrameFilter, Verdict, frame_threshold
from quests_zenn.uq.generate import GeneratedFrame, generate
from quests_zenn.uq.lammps import LammpsMonitor, import_lammps, potential_file
from quests_zenn.uq.monitor import Monitor, NovelEnvironment, Report
from quests_zenn.uq.outliers import Outlier, Outliers, find_outliers
from quests_zenn.uq.reference import DEFAULT_THRESHOLD, FrameScores, Reference
from quests_zenn.uq.thresholds import LeftOut, auto_threshold

__all__ = [
    "DEFAULT_THRESHOLD",
    "Coverage",
    "ErrorBound",
    "FrameFilter",
    "FrameScores",
    "GeneratedFrame",
    "LammpsMonitor",
    "LeftOut",
    "Monitor",
    "NovelEnvironment",
    "Outlier",
    "Outliers",
    "Reference",
    "Report",
    "SplitCheck",
    "UncertaintyCalculator",
    "Verdict",
    "auto_threshold",
    "check_coverage",
    "find_outliers",
    "frame_threshold",
    "generate",
    "import_lammps",
    "potential_file",
]


def __getattr__(name: str) -> Any:
    if name == "UncertaintyCalculator":  # a class of ASE
        from quests_zenn.uq.calculator import UncertaintyCalculator

        return UncertaintyCalculator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
