"""Volume per atom, where it means something."""

from __future__ import annotations

import numpy as np

from quests_zenn._core.checks import DataError
from quests_zenn.io.frames import Frame

#: A layer without atoms that is thicker than this (Å) is vacuum, not a crystal plane.
VACUUM_GAP = 5.0


def volume_per_atom(frame: Frame) -> float:
    """Volume per atom of a bulk frame, Å3.

    Raises
    ------
    DataError
        Where it is undefined: the frame is not periodic along all axes, its cell is flat, or a layer of more than
        5 Å across a cell axis holds no atom (a slab, or a molecule in a box).
    """
    if not frame.pbc.all():
        raise DataError(f"{frame.label}: the volume per atom is undefined, the frame is not periodic along all axes")
    volume = abs(float(np.linalg.det(frame.cell)))
    if volume == 0.0 or not np.isfinite(volume):
        raise DataError(f"{frame.label}: its cell has no volume")
    inverse = np.linalg.inv(frame.cell)
    fractional = np.sort(frame.positions @ inverse % 1.0, axis=0)
    gaps = np.diff(fractional, axis=0, append=fractional[:1] + 1.0).max(axis=0) / np.linalg.norm(inverse, axis=0)
    if gaps.max() > VACUUM_GAP:
        raise DataError(
            f"{frame.label}: the volume per atom is undefined, a layer of {gaps.max():.1f} Å holds no atoms "
            "(vacuum, or a molecule in a box)"
        )
    return volume / len(frame)
