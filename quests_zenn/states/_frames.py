"""Environments of the frames of states, every file read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn.descriptors import describe
from quests_zenn.descriptors.environments import element_symbols
from quests_zenn.io.frames import Frame, read_frames
from quests_zenn.states.grouping import State

IntArray = npt.NDArray[np.int64]

#: Atoms that are described at once.
ATOMS = 50_000


@dataclass(frozen=True)
class Settings:
    """Of environments, see `describe`."""

    k: int
    cutoff: float
    species: str
    jobs: int | None


def described(
    states: Sequence[State], taken: Sequence[Sequence[IntArray]], settings: Settings, volume: float | None = None
) -> Iterator[tuple[int, int, int, npt.NDArray[np.floating[Any]]]]:
    """Number of the state, of its part, of the frame in its file, and environments (atoms, d) of each frame.

    `taken` are the frames of each part of each state. With `volume`, frames are brought to that volume per atom, Å3.
    Frames come file by file.
    """
    elements = None if settings.species == "none" else _elements(states, taken)
    batch: list[tuple[int, int, int, Frame]] = []
    atoms = 0
    for entry in _frames(states, taken):
        batch.append(entry)
        atoms += len(entry[3])
        if atoms >= ATOMS:
            yield from _environments(batch, settings, elements, volume)
            batch, atoms = [], 0
    if batch:
        yield from _environments(batch, settings, elements, volume)


def _environments(
    batch: list[tuple[int, int, int, Frame]], settings: Settings, elements: list[str] | None, volume: float | None
) -> Iterator[tuple[int, int, int, npt.NDArray[np.floating[Any]]]]:
    frames = [frame if volume is None else _scaled(frame, volume) for *_, frame in batch]
    found = describe(frames, settings.k, settings.cutoff, settings.species, elements=elements, jobs=settings.jobs)
    for i, (state, part, number, _) in enumerate(batch):
        yield state, part, number, found.x[found.frame_offsets[i] : found.frame_offsets[i + 1]]


def _frames(states: Sequence[State], taken: Sequence[Sequence[IntArray]]) -> Iterator[tuple[int, int, int, Frame]]:
    files: dict[int, tuple[Any, dict[int, tuple[int, int]]]] = {}
    for s, (state, parts) in enumerate(zip(states, taken, strict=True)):
        for p, ((samples, _), rows) in enumerate(zip(state.parts, parts, strict=True)):
            wanted = files.setdefault(id(samples), (samples, {}))[1]
            wanted.update((int(row), (s, p)) for row in rows)
    for samples, wanted in files.values():
        last = max(wanted, default=-1)
        for i, frame in enumerate(read_frames(samples.spec, type_map=samples.type_map)):
            if i in wanted:
                yield (*wanted[i], i, frame)
            if i >= last:
                break


def _elements(states: Sequence[State], taken: Sequence[Sequence[IntArray]]) -> list[str]:
    """Elements of the first frame of each part: blocks must be the same everywhere."""
    first = [[rows[:1] for rows in parts] for parts in taken]
    numbers = {int(number) for *_, frame in _frames(states, first) for number in np.unique(frame.numbers)}
    return sorted(element_symbols(np.array(sorted(numbers), np.int64)))


def _scaled(frame: Frame, volume: float) -> Frame:
    """A frame at another volume per atom."""
    factor = (volume * len(frame) / abs(float(np.linalg.det(frame.cell)))) ** (1.0 / 3.0)
    return replace(frame, positions=frame.positions * factor, cell=frame.cell * factor)
