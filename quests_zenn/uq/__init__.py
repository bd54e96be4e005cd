"""Scores to decisions: what a reference knows, from which dH on an atom is new, and what follows from it."""

from quests_zenn.uq.reference import DEFAULT_THRESHOLD, FrameScores, Reference

__all__ = ["DEFAULT_THRESHOLD", "FrameScores", "Reference"]
