"""Volume per atom where it means something, and a refusal where it does not."""

from __future__ import annotations

import numpy as np
import pytest
import structures

from quests_zenn._core.checks import DataError
from quests_zenn.descriptors import volume_per_atom
from quests_zenn.io import as_frame


def test_volume_of_a_crystal() -> None:
    assert volume_per_atom(as_frame(structures.fcc(3.6, rattle=0.1))) == pytest.approx(3.6**3 / 4, rel=1e-12)
    one = (np.zeros((1, 3)), np.array([[4.0, 0, 0], [400, 4, 0], [0, 0, 4]]), True, [29])
    assert volume_per_atom(as_frame(one)) == pytest.approx(64.0, rel=1e-12)


def test_volume_ignores_handedness_and_wrapping() -> None:
    positions, cell, pbc, numbers = structures.fcc(3.6)
    moved = (positions + 17.3 * cell[0], cell[[1, 0, 2]], pbc, numbers)
    assert volume_per_atom(as_frame(moved)) == pytest.approx(3.6**3 / 4, rel=1e-12)


@pytest.mark.parametrize("pbc", structures.ALL_PBC[:-1])
def test_no_volume_without_full_periodicity(pbc: tuple[bool, bool, bool]) -> None:
    positions, cell, _, numbers = structures.fcc()
    with pytest.raises(
        DataError, match=r"slab\.xyz: the volume per atom is undefined, the frame is not periodic along"
    ):
        volume_per_atom(as_frame((positions, cell, pbc, numbers), "slab.xyz"))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("gap", [4.0, 8.0])
def test_vacuum_is_noticed(axis: int, gap: float) -> None:
    positions, cell, pbc, numbers = structures.fcc()
    layer = 3.615 / 2
    wider = cell + np.diag(np.eye(3)[axis] * (gap - layer))
    frame = as_frame((positions, wider, pbc, numbers), "it")
    if gap > 5.0:
        with pytest.raises(DataError, match=r"it: the volume per atom is undefined, a layer of 8\.0 Å holds no atoms"):
            volume_per_atom(frame)
    else:
        assert volume_per_atom(frame) > 3.615**3 / 4


def test_flat_cell_has_no_volume() -> None:
    positions, cell, pbc, numbers = structures.fcc()
    cell[2] = cell[1]
    with pytest.raises(DataError, match="its cell has no volume"):
        volume_per_atom(as_frame((positions, cell, pbc, numbers)))
