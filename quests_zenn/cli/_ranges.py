"""Ranges of a file of frames, read and described wherever there is a process for them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quests_zenn._core.checks import DataError
from quests_zenn._core.remote import Remote, Task
from quests_zenn.descriptors import Environments, describe, volume_per_atom
from quests_zenn.io.frames import Frame, as_read, split_index
from quests_zenn.io.index import FrameRange, frame_ranges, range_atoms
from quests_zenn.io.outputs import plain
from quests_zenn.io.store_form import FrameRecord

#: Letters of a text of the info of a frame that a store keeps.
MOST_LETTERS = 1_000


@dataclass(frozen=True)
class How:
    """Parameters of environments; ``elements`` are those that have blocks."""

    k: int
    cutoff: float
    species: str
    elements: tuple[str, ...] | None
    dtype: str


def described_elsewhere(
    remote: Remote,
    spec: str,
    how: How,
    atoms: int,
    *,
    file: int = 0,
    type_map: Mapping[int, int] | None = None,
    energy_key: str | None = None,
    skip: int = 0,
) -> Iterator[tuple[Environments, list[FrameRecord]]] | None:
    """Environments of a file and what is known of its frames, in their order.

    None where it is not worth it: the file is small, or cannot be cut.

    Parameters
    ----------
    spec : str
        The file, which all processes see under this name.
    atoms : int
        Of a range, about.
    file : int
        Its number, for the records.
    skip : int
        Frames that are left out at the beginning.
    """
    name, index = split_index(spec)
    ranges = frame_ranges(name, atoms) if index == ":" else None
    if ranges is None or len(ranges) < 2:
        return None
    left = [part for part in ranges if part.last > skip]
    path = os.path.abspath(name)  # other processes may stand elsewhere
    tasks = [Task((), (path, name, part, dict(type_map or {}), energy_key, file, how)) for part in left]

    def results() -> Iterator[tuple[Environments, list[FrameRecord]]]:
        for part, (env, records) in zip(left, remote.map(describe_range, [], tasks), strict=True):
            there = max(0, skip - part.first)
            if there:  # a run that goes on may have some of them already
                env = env.of_rows(np.arange(int(env.frame_offsets[there]), len(env)))
            yield env, records[there:]

    return results()


def describe_range(
    path: str, name: str, part: FrameRange, type_map: Mapping[int, int], energy_key: str | None, file: int, how: How
) -> tuple[Environments, list[FrameRecord]]:
    """Environments of some frames of a file, in the calling thread. `name` is what messages call it."""
    frames, records = [], []
    for label, atoms in range_atoms(path, part, type_map, name):
        frame = as_read(label, atoms, energy_key)
        frames.append(frame)
        records.append(record_of(frame, len(frame), file, facts_of(atoms)))
    return describe(frames, how.k, how.cutoff, how.species, how.dtype, elements=how.elements, jobs=1), records


def facts_of(atoms: Any) -> dict[str, Any]:
    """Numbers and texts that a frame says of itself, as JSON has them, and the names of all else."""
    kept: dict[str, dict[str, Any]] = {"info": {}, "results": {}}
    arrays: list[str] = []
    for name, values in (("info", atoms.info), ("results", getattr(atoms.calc, "results", None) or {})):
        for key, value in values.items():
            found = plain(value)
            if isinstance(found, bool | int | float) or (isinstance(found, str) and len(found) <= MOST_LETTERS):
                kept[name][str(key)] = found
            elif name == "info" and isinstance(value, np.ndarray | list | tuple | dict):
                arrays.append(str(key))
    return {**kept, "arrays": tuple(arrays)}


def record_of(frame: Frame, n: int, file: int, facts: Mapping[str, Any]) -> FrameRecord:
    """What a store keeps of a frame of which n atoms are asked about."""
    volume, without = None, ""
    try:
        volume = volume_per_atom(frame)
    except DataError as error:
        without = str(error)
    return FrameRecord(frame.label, n, file, volume, without, dict(frame.properties), **facts)
