"""Fast reading of plain files, jumps in large ones, and frames that are read ahead: the same as ASE finds, always."""

from __future__ import annotations

import itertools
import pickle
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread, write
from hypothesis import given
from hypothesis import strategies as st

from quests_zenn._core.checks import DataError
from quests_zenn.io import index as room
from quests_zenn.io.ahead import ahead
from quests_zenn.io.frames import Frame, as_read, read_atoms, read_frames
from quests_zenn.io.index import FrameRange, frame_index, frame_ranges, range_atoms
from quests_zenn.io.plain_xyz import UnusualError, plain_frames


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(room, "WORTH_KEEPING", 1)
    return tmp_path


def assert_same(found: Atoms, wanted: Atoms) -> None:
    """All that two ``ase.Atoms`` hold is equal, and of the same types."""
    for name in ("positions", "numbers", "pbc"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    np.testing.assert_array_equal(found.cell.array, wanted.cell.array)
    assert (found.calc is None) == (wanted.calc is None)
    pairs = [(found.arrays, wanted.arrays), (found.info, wanted.info)]
    if found.calc is not None:
        pairs.append((found.calc.results, wanted.calc.results))
    for own, other in pairs:
        assert own.keys() == other.keys()
        for key in other:
            assert type(own[key]) is type(other[key])
            assert getattr(own[key], "dtype", None) == getattr(other[key], "dtype", None)
            np.testing.assert_array_equal(own[key], other[key])


def read_range(name: str, part: FrameRange, types: dict[int, int] | None = None) -> list[Frame]:
    return [as_read(label, atoms, None) for label, atoms in range_atoms(name, part, types)]


def by_ase(path: str, index: str = ":") -> list[Atoms]:
    return list(iread(path, index=index, format="extxyz"))


def fast(path: str) -> list[Atoms]:
    with open(path) as stream:
        return list(plain_frames(stream, path))


def trajectory(n_frames: int = 7) -> list[Atoms]:
    frames = []
    for i in range(n_frames):
        atoms = bulk("Cu", cubic=True) * (1, 1, 1 + i % 3)
        atoms.symbols[0] = "Zr"
        atoms.rattle(0.1, seed=i)
        atoms.info |= {"config_type": "a b", "n": i, "x": 0.5, "flag": True, "list": [1, 2], "virial": np.ones((3, 3))}
        atoms.set_array("tag", np.arange(len(atoms)))
        atoms.set_array("name", np.array(["ab", "c"] * (len(atoms) // 2)))
        atoms.set_array("mask", np.arange(len(atoms)) % 2 == 0)
        atoms.set_momenta(np.ones((len(atoms), 3)))
        atoms.calc = SinglePointCalculator(atoms, energy=-1.5 * i, forces=atoms.positions / 7, stress=np.ones(6))
        frames.append(atoms)
    return frames


# --- plain extended XYZ -----------------------------------------------------------------------------------------------


def test_data_sets_are_read_as_ase_reads_them(data_dir: Path) -> None:
    names = sorted(data_dir.glob("*.xyz"))
    assert names
    for name in names:
        for found, wanted in zip(fast(str(name)), by_ase(str(name)), strict=True):
            assert_same(found, wanted)


def test_all_kinds_of_columns() -> None:
    write("t.xyz", trajectory())
    found = fast("t.xyz")
    assert len(found) == 7
    for own, wanted in zip(found, by_ase("t.xyz"), strict=True):
        assert_same(own, wanted)


ODD: dict[str, str] = {
    "windows": '2\r\nLattice="4 0 0 0 4 0 0 0 4"\r\nH 0 0 0\r\nHe 1 1 1\r\n1\r\n\r\nH 0 0 1\r\n',
    "no end": "1\n\nH 0 0 0\n1\n\nH 0 0 1",
    "blanks": '  2 \n  pbc="T F F"  \n\t H  0.0\t0 0   \n  He 1 1 1\n\n  \n',
    "positions first": "2\nProperties=pos:R:3:species:S:1:q:R:1\n0 0 0 H 1\n1 1 1 He 2\n",
    "numbers": "2\nProperties=Z:I:1:pos:R:3\n1 0 0 0\n29 1 1 1\n",
    "lower case": "2\n\nfe 0 0 0\nCU 1 1 1\n",
    "plain comment": "1\nan old comment, with no keys\nH 0 0 0\n",
    "exponents": "1\n\nH 1e-3 -2.5E+1 +.5\n",
    "hash": '1\nconfig=#1 name="a # b"\nH 0 0 0\n',
    "not finite": "1\n\nH nan inf -inf\n",
    "time": "1\nProperties=species:S:1:pos:R:3:momenta:R:3 Time=5\nH 0 0 0 1 1 1\n",
    "charges": "1\nProperties=species:S:1:pos:R:3:initial_charges:R:1\nH 0 0 0 0.5\n",
}

#: What only ASE reads: longer words, more columns than announced, cells after the atoms, constraints.
UNUSUAL: dict[str, str] = {
    "more columns": "1\n\nH 0 0 0 5 5\n",
    "long word": f"1\nProperties=species:S:1:pos:R:3:w:S:1\nH 0 0 0 {'w' * 40}\n",
    "underscore": "1\n\nH 0 1_0 0\n",
    "cell": "1\n\nH 0 0 0\nVEC1 4 0 0\nVEC2 0 4 0\nVEC3 0 0 4\n",
    "constraint": "1\nProperties=species:S:1:pos:R:3:move_mask:L:1\nH 0 0 0 F\n",
    "both": "1\nProperties=species:S:1:Z:I:1:pos:R:3\nH 1 0 0 0\n",
}

#: What nobody reads.
WRONG: dict[str, str] = {
    "element": "1\n\nQq 0 0 0\n",
    "number": "1\n\nH 0 0 x\n",
    "short": "3\n\nH 0 0 0\nH 1 1 1\n",
    "few columns": "1\n\nH 0 0\n",
    "header": "one\n\nH 0 0 0\n",
    "lattice": '1\nLattice="1 2 3"\nH 0 0 0\n',
    "whole": "1\nProperties=species:S:1:pos:R:3:tag:I:1\nH 0 0 0 1.5\n",
    "kind": "1\nProperties=species:S:1:pos:Q:3\nH 0 0 0\n",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_read_as_ase_reads_them(name: str) -> None:
    Path("t.xyz").write_bytes(ODD[name].encode())
    found = fast("t.xyz")
    assert found
    for own, wanted in zip(found, by_ase("t.xyz"), strict=True):
        assert_same(own, wanted)


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_unusual_is_left_to_ase(name: str) -> None:
    plain = "1\n\nHe 3 0 0\n"
    Path("t.xyz").write_text(plain + UNUSUAL[name] + plain)
    with pytest.raises(UnusualError):
        fast("t.xyz")
    found = [atoms for _, atoms in read_atoms("t.xyz")]
    for own, wanted in zip(found, by_ase("t.xyz"), strict=True):
        assert_same(own, wanted)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_where_it_is(name: str) -> None:
    Path("t.xyz").write_text("1\n\nHe 3 0 0\n" * 2 + WRONG[name])
    frames = read_atoms("t.xyz")
    with pytest.raises(
        DataError, match=r"t.xyz: cannot be read after 2 good frames \(.+\); is it truncated or damaged\?"
    ):
        list(frames)


@pytest.mark.parametrize(
    ("n", "what"), [(10**9, "Frame has 1 atoms, expected 1000000000"), (10**25, "frame 2 says that it has 10,000,000")]
)
def test_nobody_counts_to_a_number_of_atoms_that_is_not_there(n: int, what: str) -> None:
    Path("t.xyz").write_text("1\n\nHe 3 0 0\n" * 2 + f"{n}\n\nHe 3 0 0\n")
    with pytest.raises(DataError, match=rf"t\.xyz: cannot be read after 2 good frames \({what}"):
        list(read_atoms("t.xyz"))


@given(
    st.lists(
        st.tuples(
            st.integers(1, 4), st.sampled_from(["", "Lattice=\"3 0 0 0 3 0 0 0 3\"", "pbc=F a=1.5 b=text"]),
            st.sampled_from(["\n", "\r\n"]), st.sampled_from([" ", "\t", "   "]), st.booleans(),
        ),
        min_size=1, max_size=5,
    ),
    st.booleans(),
)  # fmt: skip
def test_any_file_is_read_as_ase_reads_it(frames: Any, ends: bool) -> None:
    text = ""
    for n, comment, end, blank, first in frames:
        properties = " Properties=pos:R:3:species:S:1" if first else ""
        rows = [
            blank.join(("0.5", "1", f"-{i}.25e0", "Si") if first else ("Si", "0.5", "1", f"-{i}.25")) for i in range(n)
        ]
        text += end.join([f"{n}", comment + properties, *rows, ""])
    Path("t.xyz").write_bytes((text if ends else text.rstrip("\r\n")).encode())
    for own, wanted in zip(fast("t.xyz"), by_ase("t.xyz"), strict=True):
        assert_same(own, wanted)


# --- jumps ------------------------------------------------------------------------------------------------------------


def dump(n_frames: int = 6, head: str = "") -> str:
    text = ""
    for i in range(n_frames):
        n = 1 + i % 3
        text += f"{head}ITEM: TIMESTEP\n{i}\nITEM: NUMBER OF ATOMS\n{n}\nITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\n"
        text += "ITEM: ATOMS id type x y z\n" + "".join(f"{j + 1} {1 + j % 2} {j}.5 {i} 0\n" for j in range(n))
    return text


@pytest.mark.parametrize("block", [1, 7, 64, 300, 2**24])
@pytest.mark.parametrize("kind", ["xyz", "windows", "dump", "head"])
def test_an_index_knows_where_frames_begin(kind: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "t.xyz" if kind in ("xyz", "windows") else "t.lammpstrj"
    if kind == "xyz":
        write(name, trajectory())
    elif kind == "windows":
        Path(name).write_bytes(("".join(f"{n}\r\n\r\n" + "H 0 0 0\r\n" * n for n in (1, 3, 2)) + "\r\n").encode())
    else:
        Path(name).write_text(dump(head="ITEM: UNITS\nmetal\nITEM: TIME\n5\n" if kind == "head" else ""))
    monkeypatch.setattr(room, "BLOCK", block)
    index = frame_index(name)
    assert index is not None
    frames = list(read_frames(name))
    assert index.atoms.tolist() == [len(frame) for frame in frames]
    content = Path(name).read_bytes()
    assert index.starts[0] == 0
    first = b"ITEM: UNITS" if kind == "head" else b"ITEM: TIMESTEP"
    for start, frame in zip(index.starts.tolist(), frames, strict=False):
        assert content[start:].startswith(first) or int(content[start:].split(b"\n")[0]) == len(frame)
    assert content[index.starts[-1] :].strip() == b""


@pytest.mark.parametrize("name", ["t.xyz", "t.lammpstrj"])
@pytest.mark.parametrize("index", [":", "3:", "2:5", "-1", "-3:", "::-2", ":-2", "1::2", "4", "-4:-1:2"])
def test_a_jump_ends_where_a_walk_ends(name: str, index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "t.xyz":
        write(name, trajectory())
    else:
        Path(name).write_text(dump())
    every = list(read_frames(name))
    found = list(read_frames(f"{name}@{index}"))
    monkeypatch.setattr(room, "frame_index", lambda path: None)
    walked = list(read_frames(f"{name}@{index}"))
    place = [int(part) if part else None for part in index.split(":")]
    wanted = every[slice(*place)] if len(place) > 1 else [every[place[0]]]
    assert len(wanted) > 0
    for own, other, third in zip(found, walked, wanted, strict=True):
        np.testing.assert_array_equal(own.positions, third.positions)
        np.testing.assert_array_equal(other.positions, third.positions)
        assert own.label == other.label


def test_frames_that_are_known_are_left_out() -> None:
    write("t.xyz", trajectory())
    Path("t.lammpstrj").write_text(dump())
    for spec in ("t.xyz", "t.lammpstrj", "t.xyz@1::2", "t.xyz@::-1", "t.xyz@-4:"):
        every = list(read_atoms(spec))
        for skip in range(len(every) + 1):
            found = list(read_atoms(spec, skip=skip))
            assert [label for label, _ in found] == [label for label, _ in every[skip:]]
            for (_, own), (_, wanted) in zip(found, every[skip:], strict=True):
                np.testing.assert_array_equal(own.positions, wanted.positions)


@pytest.mark.parametrize(
    "text", ["3\n\nH 0 0 0\n", "x\n", "1\n\nH 0 0 0\n\n1\n\nH 0 0 0\n", "1\n\nH 0 0 0\nVEC1 1 0 0\n", "-1\n\n", "0\n\n"]
)
def test_what_is_not_plain_has_no_index(text: str) -> None:
    Path("t.xyz").write_text(text)
    assert frame_index("t.xyz") is None
    assert frame_ranges("t.xyz", 10) is None


def test_other_files_have_no_index() -> None:
    write("t.traj", trajectory())
    write("t.xyz.gz", trajectory(), format="extxyz")
    Path("t.lammpstrj").write_text(dump()[:-40])
    Path("u.lammpstrj").write_text("ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\nmany\n")
    Path("none").write_text("what")
    for name in ("t.traj", "t.xyz.gz", "nothing.xyz", ".", "none", "u.lammpstrj"):
        assert frame_index(name) is None
    with pytest.raises(DataError, match=r"t.lammpstrj, frame 5: .*; was the dump cut short\?"):
        list(read_frames("t.lammpstrj@-1"))


# --- the cache --------------------------------------------------------------------------------------------------------


def test_a_file_is_searched_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("t.xyz", trajectory())
    first = frame_index("t.xyz")
    (kept,) = (here / "cache" / "quests_zenn" / "index").iterdir()
    assert kept.suffix == ".npz"
    searches: list[str] = []
    search = room._search_xyz
    monkeypatch.setattr(room, "_search_xyz", lambda path: searches.append(path) or search(path))
    again = frame_index("t.xyz")
    assert first is not None
    assert again is not None
    np.testing.assert_array_equal(first.starts, again.starts)
    assert searches == []
    write("t.xyz", trajectory(4))
    changed = frame_index("t.xyz")
    assert changed is not None
    assert len(changed) == 4
    assert searches == ["t.xyz"]
    for harm in (b"", kept.read_bytes()[:200], b"PK\x03\x04 nonsense"):
        kept.write_bytes(harm)
        repaired = frame_index("t.xyz")
        assert repaired is not None
        assert len(repaired) == 4


def test_a_cache_that_lies_is_not_believed(here: Path) -> None:
    write("t.xyz", trajectory())
    index = frame_index("t.xyz")
    assert index is not None
    (kept,) = (here / "cache" / "quests_zenn" / "index").iterdir()
    with np.load(kept) as content:
        good = dict(content)
    for name, wrong in (
        ("starts", good["starts"] + 10**9), ("starts", good["starts"][::-1].copy()), ("atoms", good["atoms"][:-1]),
        ("atoms", -good["atoms"]), ("starts", good["starts"].astype(float)), ("kind", np.array("lammps-dump-text")),
    ):  # fmt: skip
        np.savez(kept, **{**good, name: wrong})
        again = frame_index("t.xyz")
        assert again is not None
        np.testing.assert_array_equal(again.starts, index.starts)


def test_a_cache_that_cannot_be_written_is_no_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("t.xyz", trajectory())
    (here / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "file"))
    index = frame_index("t.xyz")
    assert index is not None
    assert len(index) == 7


# --- ranges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.xyz", "t.lammpstrj", "v.xyz"])
def test_ranges_are_read_by_other_processes(name: str) -> None:
    if name == "t.xyz":
        write(name, trajectory())
    elif name == "v.xyz":  # two frames that ASE must read
        Path(name).write_text("1\n\nH 0 0 0\n" + UNUSUAL["more columns"] * 2 + "2\n\nH 0 0 0\nH 1 0 0\n")
    else:
        Path(name).write_text(dump())
    types = {1: 29, 2: 40} if name == "t.lammpstrj" else None
    every = list(read_frames(name, type_map=types))
    ranges = frame_ranges(name, 3)
    assert ranges is not None
    assert [part.first for part in ranges] == [0, *[part.last for part in ranges[:-1]]]
    assert ranges[-1].last == len(every)
    assert len(ranges) > 1
    found = list(itertools.chain(*(read_range(name, pickle.loads(pickle.dumps(part)), types) for part in ranges)))
    for own, wanted in zip(found, every, strict=True):
        np.testing.assert_array_equal(own.positions, wanted.positions)
        np.testing.assert_array_equal(own.numbers, wanted.numbers)
        np.testing.assert_array_equal(own.cell, wanted.cell)
        assert own.label == wanted.label
        assert own.properties == wanted.properties


def test_a_range_is_read_by_a_process_that_knows_nothing_else() -> None:
    write("t.xyz", trajectory())
    ranges = frame_ranges("t.xyz", 8)
    assert ranges is not None
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(read_range, str(Path("t.xyz").resolve()), ranges[1]).result()
    assert len(found) == ranges[1].last - ranges[1].first


def test_files_that_change_are_told() -> None:
    write("t.xyz", trajectory())
    ranges = frame_ranges("t.xyz", 8)
    assert ranges is not None
    content = Path("t.xyz").read_bytes()
    Path("t.xyz").write_bytes(content[: ranges[-1].first_byte + 10])
    with pytest.raises(DataError, match=r"t.xyz: is shorter than it was; was it changed in the meantime"):
        read_range("t.xyz", ranges[-1])
    Path("t.xyz").write_bytes(content)
    part = ranges[0]
    with pytest.raises(DataError, match="holds other frames than it did; was it changed"):
        read_range("t.xyz", FrameRange(part.first, part.last + 1, part.first_byte, part.last_byte))
    with pytest.raises(DataError, match=r"t.xyz, frame 0: cannot be read \(.*\); is it truncated or damaged\?"):
        read_range("t.xyz", FrameRange(part.first, part.last, part.first_byte + 5, part.last_byte))
    with pytest.raises(DataError, match=r"u.xyz: cannot be read"):
        read_range("u.xyz", part)


# --- reading ahead ----------------------------------------------------------------------------------------------------


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "quests_zenn reader"]


def test_items_come_in_their_order() -> None:
    assert list(ahead(iter(range(1000)), lambda item: 1, 10)) == list(range(1000))
    assert list(ahead(iter([]), lambda item: 1, 10)) == []
    assert list(ahead(iter([5, 6]), lambda item: 100, 10)) == [5, 6]
    assert readers() == []


def test_so_much_is_read_ahead_and_no_more() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    stream = ahead(items(), lambda item: 3, 12)
    assert next(stream) == 0
    for _ in range(500):
        if len(made) >= 6:
            break
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 6  # one taken, four waiting, one that has no place yet
    stream.close()
    assert readers() == []


def test_errors_come_in_their_turn() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise DataError("the second is bad")

    stream = ahead(items(), lambda item: 1, 10)
    assert next(stream) == 1
    with pytest.raises(DataError, match="the second is bad"):
        next(stream)
    assert readers() == []


def test_an_interrupt_ends_the_reader() -> None:
    closed: list[bool] = []

    def items() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    stream = ahead(items(), lambda item: 1, 10)
    next(stream)
    with pytest.raises(KeyboardInterrupt):
        stream.throw(KeyboardInterrupt)
    assert readers() == []
    assert closed == [True]


def test_a_source_that_reads_ahead_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from quests_zenn.cli import _source

    write("a.xyz", trajectory())
    write("b.xyz", trajectory(3))
    options = {"jobs": 1, "quiet": True, "k": 8, "cutoff": 4.0, "species": "none", "by": "file", "select": "Cu"}
    wanted = _source.Source(("a.xyz", "b.xyz"), options)
    wanted.describe()
    monkeypatch.setattr(_source, "READ_AHEAD", 1)
    found = _source.Source(("a.xyz", "b.xyz"), options)
    found.describe()
    np.testing.assert_array_equal(found.x, wanted.x)
    assert (found.keys, found.labels, found.specs) == (wanted.keys, wanted.labels, wanted.specs)
    Path("c.xyz").write_text("1\n\nH 0 0 0\n" + WRONG["number"])
    with pytest.raises(DataError, match=re.escape("c.xyz: cannot be read after 1 good frames")):
        _source.Source(("a.xyz", "c.xyz"), options).describe()
    assert readers() == []
