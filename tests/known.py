"""Defects that are known and not yet mended: the test says what should be, and turns red once it is."""

from __future__ import annotations

import pytest


def defect(reason: str) -> pytest.MarkDecorator:
    """Mark a test that must fail until the defect is mended (the project's xfail is strict)."""
    return pytest.mark.xfail(reason=f"known defect: {reason}")
