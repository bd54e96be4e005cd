"""Files that still grow."""

from __future__ import annotations

import os
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from quests_zenn._core.checks import DataError
from quests_zenn.io.follow import Follower, Place, hash_of
from quests_zenn.io.frames import read_atoms

DUMP = """ITEM: TIMESTEP
{step}
ITEM: NUMBER OF ATOMS
3
ITEM: BOX BOUNDS pp pp pp
0.0 4.0
0.0 5.0
0.0 6.0
ITEM: ATOMS id type x y z vx
1 1 0.{step}1 0.5 0.5 1.0
2 2 2.0{step} 1.5 2.5 0.0
3 1 1.0 3.{step}5 4.5 0.0
"""


def xyz_frames(n: int) -> list[Atoms]:
    frames = []
    for number in range(n):
        atoms = molecule("H2O", cell=[6.0, 6.0, 6.0], pbc=[True, False, True])
        atoms.rattle(0.05, seed=number)
        atoms.info["note"] = f"frame {number}"
        frames.append(atoms)
    return frames


@pytest.fixture(params=["xyz", "dump"])
def grown(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A complete file of three frames."""
    if request.param == "xyz":
        write(tmp_path / "whole.xyz", xyz_frames(3))
        return tmp_path / "whole.xyz"
    path = tmp_path / "whole.lammpstrj"
    path.write_text("".join(DUMP.format(step=step) for step in range(3)), encoding="utf-8")
    return path


def same(a: Any, b: Any) -> None:
    np.testing.assert_array_equal(a.positions, b.positions)
    np.testing.assert_array_equal(a.numbers, b.numbers)
    np.testing.assert_array_equal(a.cell.array, b.cell.array)
    np.testing.assert_array_equal(a.pbc, b.pbc)
    assert a.info == b.info
    assert sorted(a.arrays) == sorted(b.arrays)


def test_frames_are_those_of_the_reader(grown: Path) -> None:
    followed = list(Follower(str(grown), idle=0.0))
    read = list(read_atoms(grown))
    assert [label for label, *_ in followed] == [label for label, _ in read]
    for (_, here, _, _), (_, there) in zip(followed, read, strict=True):
        same(here, there)
    assert [begin.number for *_, begin, _ in followed] == [0, 1, 2]
    assert followed[-1][3] == Place(3, grown.stat().st_size)


def test_every_beginning_of_a_file_holds_what_is_complete(grown: Path, tmp_path: Path) -> None:
    """The file is cut at every byte: a frame is there exactly when its last line has its end."""
    content = grown.read_bytes()
    ends = [end.offset for *_, end in Follower(str(grown), idle=0.0)]
    part = tmp_path / f"part{grown.suffix}"
    for size in range(len(content)):
        part.write_bytes(content[:size])
        reader = Follower(str(part), idle=0.0)
        found = list(reader)
        complete = sum(end <= size for end in ends)
        assert len(found) == complete, size
        assert bool(reader.left) == (size not in (0, *ends)), size
        # what comes next is read from there
        if size % 20:
            continue
        part.write_bytes(content)
        rest = list(Follower(str(part), reader.place, idle=0.0))
        assert [begin.number for *_, begin, _ in rest] == list(range(complete, 3))


def test_frames_come_while_the_file_grows(grown: Path, tmp_path: Path) -> None:
    content, path = grown.read_bytes(), tmp_path / f"growing{grown.suffix}"
    waited: list[bool] = []

    def grow() -> None:
        time.sleep(0.1)
        rng = np.random.default_rng(0)
        with open(path, "wb") as stream:
            at = 0
            while at < len(content):
                step = int(rng.integers(1, len(content) // 6))
                stream.write(content[at : at + step])
                stream.flush()
                at += step
                time.sleep(0.02)

    writer = threading.Thread(target=grow)
    writer.start()
    found = list(islice(Follower(str(path), idle=60.0, on_wait=lambda: waited.append(True)), 3))
    writer.join()
    assert waited == [True]
    for (_, here, _, _), (_, there) in zip(found, read_atoms(grown), strict=True):
        same(here, there)


def test_some_frames_are_passed_over(grown: Path) -> None:
    assert [begin.number for *_, begin, _ in Follower(str(grown), idle=0.0, every=2)] == [0, 2]


def test_types_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "whole.lammpstrj"
    path.write_text(DUMP.format(step=1), encoding="utf-8")
    ((_, atoms, _, _),) = Follower(str(path), idle=0.0, type_map={1: 29, 2: 79})
    assert atoms.numbers.tolist() == [29, 79, 29]
    np.testing.assert_array_equal(atoms.get_velocities(), next(read_atoms(path, {1: 29, 2: 79}))[1].get_velocities())
    with pytest.raises(DataError, match="frame 0: atom type 2 is not in the type map"):
        list(Follower(str(path), idle=0.0, type_map={1: 29}))


def test_blank_lines_between_frames_and_windows_line_ends(tmp_path: Path) -> None:
    write(tmp_path / "one.xyz", xyz_frames(1))
    one = (tmp_path / "one.xyz").read_bytes()
    path = tmp_path / "two.xyz"
    path.write_bytes(one + b"\n  \n" + one.replace(b"\n", b"\r\n"))
    first, second = (atoms for _, atoms, _, _ in Follower(str(path), idle=0.0))
    np.testing.assert_array_equal(first.positions, second.positions)


def damaged(tmp_path: Path, content: bytes) -> Follower:
    path = tmp_path / "damaged"
    path.write_bytes(content)
    return Follower(str(path), idle=0.0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"hello\n", "frame 0: does not begin as one of extended XYZ or of a LAMMPS dump"),
        (b"0\n\n", "frame 0: it has no atoms"),
        (b"1\nLattice\nCu 0 0 zero\n", "frame 0: cannot be read"),
        (DUMP.format(step=0).encode() + b"2\n", "frame 1: does not begin as one"),
        (b"ITEM: TIMESTEP\n0\nITEM: ATOMS id type x y z\n", "does not say how many atoms it has"),
        (b"ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\nmany\n", "its number of atoms is none"),
        (b"ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n0\n", "it has no atoms"),
        (b"ITEM: TIMESTEP\n" + b"0\n" * 50, "its header has no end"),
        (DUMP.format(step=0).replace("3 1 1.0 3.05 4.5 0.0\n", "").encode() + DUMP.format(step=1).encode(),
         "frame 0: it announces 3 atoms and has 2"),
        (b"1\n\xff\xfe\nCu 0 0 0\n", "frame 0: cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_frame_is_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=sentence) as error:
        list(damaged(tmp_path, content))
    assert "\n" not in str(error.value)


def test_a_file_that_is_another_one_by_now_is_refused(grown: Path) -> None:
    content = grown.read_bytes()
    reader = iter(Follower(str(grown), idle=5.0))
    for _ in range(3):
        next(reader)
    grown.write_bytes(content[:40])
    with pytest.raises(DataError, match="was truncated while it was followed"):
        next(reader)

    grown.write_bytes(content)
    reader = iter(Follower(str(grown), idle=5.0))
    for _ in range(3):
        next(reader)
    copy = grown.with_name("copy")
    copy.write_bytes(content * 2)
    os.replace(copy, grown)
    with pytest.raises(DataError, match="was replaced by another file"):
        next(reader)

    reader = iter(Follower(str(grown), idle=5.0))
    for _ in range(6):
        next(reader)
    grown.unlink()
    with pytest.raises(DataError, match="vanished while it was followed"):
        next(reader)

    grown.write_bytes(content[:40])
    with pytest.raises(DataError, match="is shorter than what was read of it before"):
        next(iter(Follower(str(grown), Place(1, 41), idle=0.0)))


def test_what_cannot_be_followed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no plain file"):
        list(Follower(str(tmp_path), idle=0.0))
    assert list(Follower(str(tmp_path / "nothing.xyz"), idle=0.0)) == []


def test_a_file_is_known_by_its_head(tmp_path: Path) -> None:
    write(tmp_path / "a.xyz", [bulk("Cu", cubic=True) * (2, 2, 2)] * 2)
    content = (tmp_path / "a.xyz").read_bytes()

    def head_of(path: str, size: int) -> tuple[int, str]:
        n, hashed = hash_of(path, size)
        return n, hashed.hexdigest()

    head = head_of(str(tmp_path / "a.xyz"), 1000)
    (tmp_path / "b.xyz").write_bytes(content * 2)
    assert head_of(str(tmp_path / "b.xyz"), head[0]) == head
    (tmp_path / "b.xyz").write_bytes(content.replace(b"1.8", b"1.9"))
    assert head_of(str(tmp_path / "b.xyz"), head[0]) != head


def test_the_hash_of_what_was_read(grown: Path) -> None:
    """That of the bytes before the next frame, from the beginning of the file, wherever reading began."""
    seen = []
    reader = Follower(str(grown), idle=0.0, every=2)
    for _, _, _, end in reader:
        seen.append((end, reader.hashed.hexdigest()))
        assert hash_of(str(grown), end.offset)[1].hexdigest() == seen[-1][1]
    assert len(seen) == 2
    place = seen[0][0]
    reader = Follower(str(grown), place, idle=0.0, every=2, hashed=hash_of(str(grown), place.offset)[1])
    assert [(end, reader.hashed.hexdigest()) for _, _, _, end in reader] == seen[1:]


def test_it_stops_when_it_is_asked_to(grown: Path) -> None:
    """Between frames that are there, and while it waits; what is left complete is not called incomplete."""
    for last in (1, 2, 3):
        seen: list[int] = []
        reader = Follower(str(grown), stop=lambda seen=seen, last=last: len(seen) >= last)  # type: ignore[misc]
        for _, _, begin, _ in reader:
            seen.append(begin.number)
        assert seen == list(range(last))
        assert reader.left == ""
    with open(grown, "ab") as stream:
        stream.write(grown.read_bytes()[:20])
    count = 0

    def enough() -> bool:
        nonlocal count
        count += 1
        return count > 5

    reader = Follower(str(grown), stop=enough)
    assert len(list(reader)) == 3
    assert "is not complete" in reader.left
