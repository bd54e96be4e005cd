"""The published package, where it computes the same thing: fully periodic and fully isolated structures.

It treats anything between as isolated, loses images in left-handed cells, and takes an arbitrary subset where a tie
straddles place k; X2 of such frames is not compared. It rounds fractional coordinates to 12 decimals, hence 1e-10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import structures

from quests_zenn.descriptors import describe, get_descriptors
from quests_zenn.io import Frame, read_frames

pytest.importorskip("quests", reason="the published package is not installed: pip install quests")

pytestmark = [
    pytest.mark.extra,
    pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaTypeSafetyWarning"),
]

Peer = Callable[..., Any]

FILES = [
    "Ta_fitsnap.xyz",
    "acac_test_300K.xyz",
    "acac_test_600K.xyz",
    "acac_test_H_transfer.xyz",
    "acac_test_dihedral.xyz",
    "acac_train_300K.xyz",
    "mlearn_Ge_test.xyz",
    "mlearn_Ge_train.xyz",
    "mlearn_Mo_test.xyz",
    "mlearn_Mo_train.xyz",
    "mlearn_Si_test.xyz",
    "mlearn_Si_train.xyz",
]
#: The first of them takes half a minute.
NAMES = [pytest.param(FILES[0], marks=pytest.mark.slow), *FILES[1:]]


def peer_descriptors(frame: Frame | structures.Structure, k: int, cutoff: float) -> npt.NDArray[np.float64]:
    from quests.descriptor import get_descriptors as peer

    parts = (frame.positions, frame.cell, frame.pbc, frame.numbers) if isinstance(frame, Frame) else frame
    return np.asarray(peer([structures.as_atoms(parts)], k=k, cutoff=cutoff))


def compare(frames: Sequence[Frame], k: int, cutoff: float) -> None:
    """X1 of all frames (to 1e-8 at ties), X2 of those without ties, to 1e-10."""
    tied = compared = 0
    for frame in frames:
        if frame.pbc.any() and not frame.pbc.all():
            continue
        compared += 1
        ours = describe(frame, k, cutoff)
        theirs = peer_descriptors(frame, k, cutoff)
        width, atol = 2 * k - 1, 1e-10
        if ours.n_tied:  # distances that count as equal are up to 1e-8 apart, and ordered by displacement
            tied += 1
            width, atol = k, 1e-8
        np.testing.assert_allclose(
            ours.x[:, :width], theirs[:, :width], rtol=0.0, atol=atol, err_msg=f"{frame.label}, k = {k}"
        )
    print(f"k = {k}, cutoff = {cutoff:g}: {compared} frames agree; X2 of {tied} with ties was not compared")
    assert compared > 0


def frames_of(data_dir: Path, name: str, index: str) -> list[Frame]:
    if not (data_dir / name).exists():
        pytest.skip(f"{name} is not in the folder of data sets")
    return list(read_frames(f"{data_dir / name}@{index}"))


def test_all_files_are_named(data_dir: Path) -> None:
    assert sorted(path.name for path in data_dir.glob("*.xyz")) == FILES


@pytest.mark.parametrize("name", NAMES)
def test_some_frames(data_dir: Path, name: str) -> None:
    frames = frames_of(data_dir, name, "::29")
    compare(frames, 32, 5.0)
    compare(frames[:4], 9, 4.0)
    compare(frames[:4], 45, 6.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_frame(data_dir: Path, name: str) -> None:
    frames = frames_of(data_dir, name, ":")
    compare(frames, 32, 5.0)
    compare(frames[::5], 9, 4.0)
    compare(frames[::7], 45, 6.0)


@pytest.mark.parametrize("pbc", [True, False])
@pytest.mark.parametrize("k", [2, 8, 33])
def test_gas(k: int, pbc: bool) -> None:
    cell = np.array([[6.4, 0.3, -0.2], [1.7, 6.1, 0.4], [-1.1, 1.9, 6.6]])
    structure = structures.gas(14, cell, (pbc, pbc, pbc), seed=k)
    theirs = peer_descriptors(structure, k, 5.0)
    np.testing.assert_allclose(get_descriptors(structure, k), theirs, rtol=0.0, atol=1e-10)


def test_blocks_of_elements() -> None:
    """The same blocks, in another order of columns: [X1 of all blocks, X2 of all blocks] there."""
    from quests.descriptor import get_descriptors_multicomponent as peer

    k = 12
    structure = structures.gas(18, np.diag([7.0, 7.5, 8.0]), numbers=(47, 29, 79), seed=1)
    x1, x2 = peer([structures.as_atoms(structure)], k=k, concat=False)
    ours = get_descriptors(structure, k, species="blocks").reshape(18, 4, 2 * k - 1)
    np.testing.assert_allclose(ours[:, :, :k].reshape(18, -1), x1, rtol=0.0, atol=1e-10)
    np.testing.assert_allclose(ours[:, :, k:].reshape(18, -1), x2, rtol=0.0, atol=1e-10)


def test_where_we_differ() -> None:
    """Stated differences, so that a change on either side is noticed."""
    positions, cell, _, numbers = structures.fcc(rattle=0.1, seed=1)
    slab, isolated = (positions, cell, (True, True, False), numbers), (positions, cell, (False,) * 3, numbers)
    np.testing.assert_allclose(peer_descriptors(slab, 32, 5.0), get_descriptors(isolated), rtol=0.0, atol=1e-10)
    assert np.abs(peer_descriptors(slab, 32, 5.0) - get_descriptors(slab)).max() > 1e-3
    left = (positions, cell[[1, 0, 2]], (True,) * 3, numbers)
    right = (positions, cell, (True,) * 3, numbers)
    np.testing.assert_allclose(get_descriptors(left), get_descriptors(right), rtol=0.0, atol=1e-12)
    assert np.abs(peer_descriptors(left, 32, 5.0) - get_descriptors(left)).max() > 1e-3
