"""Frames in: every format, every index, one at a time; and one clear sentence for each file that cannot be used."""

from __future__ import annotations

import gc
import gzip
import os
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from quests_zenn._core.checks import DataError
from quests_zenn.io import Frame, as_frame, frame_properties, iterate_frames, read_atoms, read_frames
from quests_zenn.io.frames import dump_chunks, is_single, selected_atoms, split_index, stem


def trajectory(n: int = 5) -> list[Atoms]:
    """Rattled copper; frame i has 100 + i K and its first atom at x = i / 100."""
    frames = []
    for i in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=i)
        atoms.positions += 0.3  # inside the cell: some formats wrap
        atoms.positions[0, 0] = i / 100
        atoms.info["temperature"] = 100.0 + i
        frames.append(atoms)
    return frames


def lammps_dump(
    n: int = 3, n_atoms: int = 4, columns: str = "id type x y z", bounds: str = "pp pp pp", n_types: int = 2
) -> str:
    """Text dump; frame s has its first atom at x = s / 100."""
    rng = np.random.default_rng(0)
    text = ""
    for s in range(n):
        text += f"ITEM: TIMESTEP\n{10 * s}\nITEM: NUMBER OF ATOMS\n{n_atoms}\nITEM: BOX BOUNDS {bounds}\n"
        text += "0.0 4.0\n0.0 5.0\n0.0 6.0\n" + f"ITEM: ATOMS {columns}\n"
        for i in range(n_atoms):
            row = {
                "id": i + 1,
                "type": 1 + i % n_types,
                "element": ["Cu", "Ni"][i % 2],
                "x": round(0.9 * i + s / 100, 3),
                "y": round(0.3 * i, 3),
                "z": 1.0,
            }
            velocity = dict(zip(("vx", "vy", "vz"), (f"{v:.4f}" for v in 3 * rng.normal(size=3)), strict=True))
            text += " ".join(str((row | velocity)[column]) for column in columns.split()) + "\n"
    return text


@pytest.fixture
def xyz(tmp_path: Path) -> str:
    """Five frames of extended XYZ."""
    path = tmp_path / "t.xyz"
    write(path, trajectory())
    return str(path)


def firsts(frames: Iterator[Frame]) -> list[int]:
    """Which frames of `trajectory` these are."""
    return [round(100 * float(frame.positions[0, 0])) for frame in frames]


# --- formats ----------------------------------------------------------------------------------------------------------


MANY = ["t.xyz", "t.extxyz", "t.xyz.gz", "t.extxyz.bz2", "t.traj", "t.json", "XDATCAR", "t.xyz.xz"]
ONE = ["POSCAR", "CONTCAR", "t.cif", "t.vasp", "t.xsf"]


@pytest.mark.parametrize("name", MANY)
def test_formats_of_many_frames(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    atoms = trajectory()
    write(path, atoms, format="vasp-xdatcar" if name == "XDATCAR" else "extxyz" if ".xyz." in name else None)
    frames = list(read_frames(path))
    assert len(frames) == 5
    for number, (frame, expected) in enumerate(zip(frames, atoms, strict=True)):
        assert frame.label == f"{path}, frame {number}"
        np.testing.assert_allclose(frame.positions, expected.positions, rtol=0.0, atol=1e-7)
        np.testing.assert_allclose(frame.cell, expected.cell.array, atol=1e-8)
        np.testing.assert_array_equal(frame.pbc, True)
        np.testing.assert_array_equal(frame.numbers, 29)
        assert frame.positions.dtype == frame.cell.dtype == np.float64
        assert frame.numbers.dtype == np.int64
        assert frame.pbc.dtype == np.bool_
        assert frame.positions.flags.c_contiguous


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("index", ["", "@0", "@-1", "@:", "@0:1"])
def test_formats_of_one_frame(name: str, index: str, tmp_path: Path) -> None:
    path = tmp_path / name
    expected = trajectory(3)[2]
    write(path, expected)
    (frame,) = read_frames(f"{path}{index}")
    np.testing.assert_allclose(frame.positions, expected.positions, atol=1e-7)
    np.testing.assert_allclose(frame.cell, expected.cell.array, atol=1e-8)
    assert frame.pbc.all()


@pytest.mark.parametrize("index", ["1", "1:", "-2", "3:7"])
def test_format_of_one_frame_has_no_second(index: str, tmp_path: Path) -> None:
    write(tmp_path / "POSCAR", trajectory(1)[0])
    with pytest.raises(DataError, match="no frame is selected"):
        list(read_frames(f"{tmp_path / 'POSCAR'}@{index}"))


@pytest.mark.parametrize(("index", "found"), [("0:0", 0), ("-3:", 1), (":-1", 0)])
def test_format_of_one_frame_is_a_list_of_one(index: str, found: int, tmp_path: Path) -> None:
    write(tmp_path / "POSCAR", trajectory(1)[0])
    if found:
        assert len(list(read_frames(f"{tmp_path / 'POSCAR'}@{index}"))) == 1
    else:
        with pytest.raises(DataError, match="no frame is selected"):
            list(read_frames(f"{tmp_path / 'POSCAR'}@{index}"))


def test_plain_xyz_has_no_cell(tmp_path: Path) -> None:
    (tmp_path / "m.xyz").write_text("2\nwater, nearly\nO 0 0 0\nH 0 0 0.96\n")
    (frame,) = read_frames(tmp_path / "m.xyz")
    assert not frame.pbc.any()
    assert not frame.cell.any()
    np.testing.assert_array_equal(frame.numbers, [8, 1])
    assert frame.properties == {}


def test_partial_periodicity_is_kept(tmp_path: Path) -> None:
    atoms = trajectory(1)[0]
    atoms.pbc = (True, False, True)
    for name in ("s.xyz", "s.traj", "s.json"):
        write(tmp_path / name, atoms)
        (frame,) = read_frames(tmp_path / name)
        np.testing.assert_array_equal(frame.pbc, [True, False, True])


def test_several_files_in_order(tmp_path: Path, xyz: str) -> None:
    write(tmp_path / "u.traj", trajectory(3))
    frames = list(read_frames([xyz + "@-1", tmp_path / "u.traj", f"{tmp_path / 'u.traj'}@1"]))
    assert firsts(iter(frames)) == [4, 0, 1, 2, 1]
    assert [frame.label for frame in frames[1:]] == [f"{tmp_path / 'u.traj'}, frame {i}" for i in (0, 1, 2, 1)]


def test_on_atoms_sees_each_frame_before_it_is_handed_on(xyz: str) -> None:
    seen: list[tuple[str, int]] = []
    for count, frame in enumerate(read_frames(xyz, on_atoms=lambda label, atoms: seen.append((label, len(atoms)))), 1):
        assert len(seen) == count
        assert seen[-1] == (frame.label, 4)


# --- LAMMPS dumps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["d.lammpstrj", "d.dump"])
def test_lammps_dump(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(lammps_dump(bounds="pp ff pp"))
    frames = list(read_frames(path, type_map={1: 29, 2: 28}))
    assert firsts(iter(frames)) == [0, 1, 2]
    for frame in frames:
        np.testing.assert_array_equal(frame.numbers, [29, 28, 29, 28])
        np.testing.assert_array_equal(frame.pbc, [True, False, True])
        np.testing.assert_allclose(frame.cell, np.diag([4.0, 5.0, 6.0]))
        np.testing.assert_allclose(frame.positions[:, 1], [0.0, 0.3, 0.6, 0.9])


def test_lammps_dump_with_units_and_time(tmp_path: Path) -> None:
    text = lammps_dump().replace("ITEM: TIMESTEP", "ITEM: TIME\n0.5\nITEM: TIMESTEP")
    (tmp_path / "d.dump").write_text("ITEM: UNITS\nmetal\n" + text)
    assert firsts(read_frames(tmp_path / "d.dump", type_map={1: 29, 2: 28})) == [0, 1, 2]
    assert firsts(read_frames(f"{tmp_path / 'd.dump'}@-2:", type_map={1: 29, 2: 28})) == [1, 2]


def test_lammps_dump_names_its_elements(tmp_path: Path) -> None:
    (tmp_path / "d.lammpstrj").write_text(lammps_dump(columns="id element x y z"))
    frames = list(read_frames(f"{tmp_path / 'd.lammpstrj'}@1:"))
    assert firsts(iter(frames)) == [1, 2]
    np.testing.assert_array_equal(frames[0].numbers, [29, 28, 29, 28])


def test_type_map_must_know_all_types(tmp_path: Path) -> None:
    path = tmp_path / "d.lammpstrj"
    path.write_text(lammps_dump())
    with pytest.raises(DataError, match=r"d\.lammpstrj, frame 0: atom type 2 is not in the type map"):
        list(read_frames(path, type_map={1: 29}))


def lammps_temperature(path: Path, numbers: list[int]) -> float:
    """Temperature of the first frame, from its velocities (Å/ps) and the masses of `numbers`."""
    from ase.data import atomic_masses
    from ase.units import _amu, _k

    rows = path.read_text().split("vz\n")[1].splitlines()[: len(numbers)]
    v = np.array([[float(word) for word in row.split()[-3:]] for row in rows]) * 100.0
    return float((atomic_masses[numbers] * _amu * (v**2).sum(axis=1)).sum() / (3 * len(numbers) * _k))


def test_temperature_of_lammps_velocities(tmp_path: Path) -> None:
    path = tmp_path / "d.lammpstrj"
    path.write_text(lammps_dump(columns="id element x y z vx vy vz"))
    frame = next(read_frames(path))
    assert frame.properties["temperature"] == pytest.approx(lammps_temperature(path, [29, 28, 29, 28]), rel=1e-4)


def test_temperature_of_lammps_velocities_with_type_map(tmp_path: Path) -> None:
    path = tmp_path / "d.lammpstrj"
    path.write_text(lammps_dump(columns="id type x y z vx vy vz"))
    frame = next(read_frames(path, type_map={1: 29, 2: 28}))
    assert frame.properties["temperature"] == pytest.approx(lammps_temperature(path, [29, 28, 29, 28]), rel=1e-4)


# --- indices and labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("@:", [0, 1, 2, 3, 4]),
        ("@::2", [0, 2, 4]),
        ("@1::3", [1, 4]),
        ("@-1", [4]),
        ("@-2", [3]),
        ("@0", [0]),
        ("@3", [3]),
        ("@0:3", [0, 1, 2]),
        ("@-2:", [3, 4]),
        ("@:-3", [0, 1]),
        ("@1:-1", [1, 2, 3]),
        ("@::-1", [4, 3, 2, 1, 0]),
        ("@3:99", [3, 4]),
        ("@ 2 ", [2]),
    ],
)
@pytest.mark.parametrize("name", ["t.xyz", "t.xyz.gz", "t.traj"])
def test_index(name: str, index: str, expected: list[int], tmp_path: Path) -> None:
    """Any slice of Python, and the labels name the right frames."""
    write(tmp_path / name, trajectory())
    frames = list(read_frames(f"{tmp_path / name}{index}"))
    assert firsts(iter(frames)) == expected
    for count, (frame, number) in enumerate(zip(frames, expected, strict=True)):
        if frame.label.startswith(f"{tmp_path / name}, frame"):
            assert frame.label == f"{tmp_path / name}, frame {number}"
        else:
            assert frame.label == f"{tmp_path / name}{index}, frame {count} of the selection"
    if not index or index.strip("@ ")[0] not in "-:":
        assert frames[0].label == f"{tmp_path / name}, frame {expected[0]}"


@pytest.mark.parametrize("index", ["1:3", "-1", "2", "0:2"])
def test_index_in_a_database(index: str, tmp_path: Path) -> None:
    write(tmp_path / "t.json", trajectory())
    expected = list(range(5))[slice(1, 3) if index == "1:3" else slice(0, 2) if index == "0:2" else slice(None)]
    expected = {"-1": [4], "2": [2]}.get(index, expected)
    assert firsts(read_frames(f"{tmp_path / 't.json'}@{index}")) == expected


def test_index_with_a_step_in_a_database(tmp_path: Path) -> None:
    write(tmp_path / "t.json", trajectory())
    assert firsts(read_frames(f"{tmp_path / 't.json'}@::2")) == [0, 2, 4]


def test_names_with_an_at_sign(tmp_path: Path) -> None:
    path = tmp_path / "run@300K.xyz"
    write(tmp_path / "plain.xyz", trajectory())
    path.write_bytes((tmp_path / "plain.xyz").read_bytes())
    assert firsts(read_frames(path)) == [0, 1, 2, 3, 4]
    assert firsts(read_frames(f"{path}@-1")) == [4]
    assert firsts(read_frames(f"{path}@::4")) == [0, 4]
    folder = tmp_path / "a@b"
    folder.mkdir()
    (folder / "t.xyz").write_bytes(path.read_bytes())
    assert firsts(read_frames(folder / "t.xyz")) == [0, 1, 2, 3, 4]
    assert firsts(read_frames(f"{folder / 't.xyz'}@1")) == [1]


def test_split_index(tmp_path: Path) -> None:
    assert split_index("traj.xyz") == ("traj.xyz", ":")
    assert split_index("traj.xyz@::10") == ("traj.xyz", "::10")
    assert split_index(Path("a@b.xyz@-1")) == ("a@b.xyz", "-1")
    existing = tmp_path / "x@1"
    existing.write_text("")
    assert split_index(existing) == (str(existing), ":")
    assert stem("some/folder/traj.xyz@::10") == "traj.xyz"


@pytest.mark.parametrize("index", ["", "all", "1:2:3:4", "::0", "1.5", "1,2", "1 2"])
def test_bad_index(index: str, xyz: str) -> None:
    with pytest.raises(
        DataError, match=r"is no index; write for example traj\.xyz@::10, traj\.xyz@-1 or traj\.xyz@0:100"
    ):
        list(read_frames(f"{xyz}@{index}"))


@pytest.mark.parametrize("index", ["5", "99:", "-6", "3:3", "4:1"])
@pytest.mark.parametrize("name", ["t.xyz", "t.traj", "t.json"])
def test_bad_index_that_selects_nothing(index: str, name: str, tmp_path: Path) -> None:
    write(tmp_path / name, trajectory())
    with pytest.raises(DataError, match=r"no frame is selected|cannot be read after 0 good frames"):
        list(read_frames(f"{tmp_path / name}@{index}"))


# --- streaming --------------------------------------------------------------------------------------------------------


def test_nothing_happens_before_the_first_frame_is_asked_for() -> None:
    read_frames("no/such/file.xyz")
    read_atoms("no/such/file.xyz@what")


def cut(path: Path, n_bytes: int) -> None:
    """Leave out the last bytes."""
    path.write_bytes(path.read_bytes()[:-n_bytes])


@pytest.mark.parametrize("name", ["t.xyz", "t.traj"])
def test_first_frames_arrive_before_the_last_is_read(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, trajectory())
    cut(tmp_path / name, 40)
    frames = read_frames(tmp_path / name)
    assert firsts(next(frames) for _ in range(4)) == [0, 1, 2, 3]
    with pytest.raises(DataError, match="cannot be read after 4 good frames"):
        next(frames)


@pytest.mark.parametrize("name", ["t.xyz", "t.xyz.gz", "t.traj"])
def test_one_frame_in_memory_at_a_time(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, trajectory(6))
    alive: list[weakref.ref[Atoms]] = []
    most = 0
    for _ in read_frames(tmp_path / name, on_atoms=lambda label, atoms: alive.append(weakref.ref(atoms))):
        gc.collect()
        most = max(most, sum(reference() is not None for reference in alive))
    assert len(alive) == 6
    assert most <= 2


def test_an_abandoned_stream_closes_its_file(xyz: str) -> None:
    frames = read_frames(xyz)
    next(frames)
    frames.close()
    del frames
    gc.collect()  # an open file would warn here, and warnings are errors


def test_remarks_of_readers_are_muted(tmp_path: Path) -> None:
    """A reader's own warnings (here: a CIF without occupancies and symmetry) do not reach the user."""
    write(tmp_path / "t.cif", trajectory(1)[0])
    text = (tmp_path / "t.cif").read_text()
    (tmp_path / "t.cif").write_text("\n".join(line for line in text.splitlines() if "_space_group" not in line))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(list(read_frames(tmp_path / "t.cif"))) == 1
    assert caught == []


def test_the_callers_warnings_are_not_muted(xyz: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in read_frames(xyz):
            warnings.warn("of the caller", UserWarning, stacklevel=1)
    assert len(caught) == 5


def test_two_streams_leave_the_warning_filters_alone(xyz: str) -> None:
    with warnings.catch_warnings():
        before = list(warnings.filters)
        a, b = read_frames(xyz), read_frames(xyz)
        next(a), next(b)
        assert len(list(a)) == len(list(b)) == 4
        assert list(warnings.filters) == before


# --- properties -------------------------------------------------------------------------------------------------------


def properties_of(info: dict[str, Any], energy_key: str | None = None, **arrays: Any) -> dict[str, float]:
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [2, 0, 0]])
    atoms.info.update(info)
    for name, values in arrays.items():
        atoms.set_array(name, np.asarray(values))
    return frame_properties(atoms, energy_key)


def test_temperature_of_info() -> None:
    assert properties_of({"temperature": 300}) == {"temperature": 300.0}
    assert properties_of({"temperature_K": 400.0}) == {"temperature": 400.0}
    assert properties_of({"temperature": 300, "temperature_K": 400.0}) == {"temperature": 300.0}
    assert type(properties_of({"temperature": np.float32(300)})["temperature"]) is float


def test_temperature_of_velocities() -> None:
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [2, 0, 0]])
    atoms.set_velocities([[0.01, 0.0, 0.02], [-0.01, 0.03, 0.0]])
    properties = frame_properties(atoms)
    assert properties == {"temperature": pytest.approx(atoms.get_temperature())}
    atoms.info["temperature"] = 5.0
    assert frame_properties(atoms) == {"temperature": 5.0}


def test_velocities_of_zero_are_no_temperature() -> None:
    assert properties_of({}, momenta=np.zeros((2, 3))) == {}


def test_temperature_of_velocities_from_a_file(tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.set_velocities(0.01 * np.random.default_rng(0).normal(size=(4, 3)))
    for name in ("t.xyz", "t.traj", "t.json"):
        write(tmp_path / name, atoms)
        (frame,) = read_frames(tmp_path / name)
        assert frame.properties["temperature"] == pytest.approx(atoms.get_temperature(), rel=1e-4)


def test_time() -> None:
    assert properties_of({"time_ps": 2.5}) == {"time": 2.5}
    assert properties_of({"time": 3}) == {}  # in a unit that nobody knows


@pytest.mark.parametrize("value", ["hot", None, np.nan, np.inf, [1.0, 2.0]])
def test_values_that_are_no_number_are_left_out(value: Any) -> None:
    assert properties_of({"temperature": value, "energy": value, "time_ps": value}) == {}


def test_energy() -> None:
    assert properties_of({"energy": -3.5}) == {"energy": -3.5}
    assert properties_of({"dft": -4.0, "energy": -3.5}, "dft") == {"energy": -4.0}
    assert properties_of({"energy": -3.5}, "dft") == {}
    atoms = Atoms("Cu")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.25)
    atoms.info["energy"] = 7.0
    assert frame_properties(atoms) == {"energy": -1.25}


def test_energy_of_a_file(tmp_path: Path) -> None:
    atoms = trajectory(1)[0]
    atoms.info["dft_energy"] = -4.0
    atoms.calc = SinglePointCalculator(atoms, energy=-3.5, forces=np.ones((4, 3)))
    for name in ("t.xyz", "t.traj"):
        write(tmp_path / name, atoms)
        (frame,) = read_frames(tmp_path / name)
        assert frame.properties == {"temperature": 100.0, "energy": -3.5}
    (frame,) = read_frames(tmp_path / "t.xyz", energy_key="dft_energy")
    assert frame.properties["energy"] == -4.0


@pytest.mark.parametrize("key", ["energy", "free_energy"])
def test_energy_under_its_usual_key(key: str, tmp_path: Path) -> None:
    atoms = trajectory(1)[0]
    atoms.calc = SinglePointCalculator(atoms, energy=-3.5, free_energy=-3.75)
    write(tmp_path / "t.xyz", atoms)
    (frame,) = read_frames(tmp_path / "t.xyz", energy_key=key)
    assert frame.properties["energy"] == {"energy": -3.5, "free_energy": -3.75}[key]


def test_bad_energy_key(xyz: str) -> None:
    with pytest.raises(
        DataError, match=r"t\.xyz, frame 0: no energy under the key 'dft' \(its info holds temperature\)"
    ):
        list(read_frames(xyz, energy_key="dft"))


# --- files that cannot be used ----------------------------------------------------------------------------------------


def test_bad_file_missing(tmp_path: Path) -> None:
    for spec in ("none.xyz", "none.xyz@::2", "no/folder/t.traj"):
        with pytest.raises(DataError, match=r"(none\.xyz|t\.traj): no such file$"):
            list(read_frames(tmp_path / spec))


@pytest.mark.parametrize("name", ["t.xyz", "t.traj", "POSCAR", "t.xyz.gz", "t.unknown"])
def test_bad_file_empty(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=f"{name}: the file is empty$"):
        list(read_frames(tmp_path / name))


@pytest.mark.parametrize("text", ["\n", "\n\n   \n"])
def test_bad_file_blank(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.xyz").write_text(text)
    with pytest.raises(DataError, match="no frame is selected; the file has none"):
        list(read_frames(tmp_path / "t.xyz"))


def lines_of(path: str | Path) -> list[str]:
    return Path(path).read_text().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("n_lines", "n_characters"),
    [(29, 0), (29, 3), (29, 30), (26, 0), (27, 0), (25, 0), (25, 40), (24, 1)],
    ids=["atom", "symbol", "half atom", "all atoms", "three atoms", "comment", "half comment", "atom count alone"],
)
def test_bad_file_truncated_xyz(n_lines: int, n_characters: int, xyz: str) -> None:
    """Five frames of six lines; the end is missing, from half a line on."""
    lines = lines_of(xyz)
    tail = lines[n_lines][:n_characters] if n_characters else ""
    Path(xyz).write_text("".join(lines[:n_lines]) + tail)
    frames = read_frames(xyz)
    assert firsts(next(frames) for _ in range(4)) == [0, 1, 2, 3]
    with pytest.raises(
        DataError, match=r"t\.xyz: cannot be read after 4 good frames \(.*\); is it truncated or damaged\?"
    ):
        next(frames)


@pytest.mark.parametrize("name", ["t.traj", "t.json", "t.xyz.gz"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.97])
def test_bad_file_truncated_others(name: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / name
    write(path, trajectory())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"cannot be read after \d good frames \(.*\); is it truncated or damaged\?"):
        list(read_frames(path))


@pytest.mark.parametrize("n_lines", [59, 58, 57, 56])
def test_bad_file_truncated_xdatcar(n_lines: int, tmp_path: Path) -> None:
    """Five frames of twelve lines, the last four of them atoms."""
    path = tmp_path / "XDATCAR"
    write(path, trajectory(), format="vasp-xdatcar")
    lines = lines_of(path)
    assert len(lines) == 60
    path.write_text("".join(lines[:n_lines]))
    with pytest.raises(DataError, match="cannot be read after"):
        list(read_frames(path))


@pytest.mark.parametrize("n_lines", [38, 36, 35, 33, 30, 28, 27])
def test_bad_file_truncated_lammps(n_lines: int, tmp_path: Path) -> None:
    """Three frames of 13 lines. A frame with fewer atoms than it announces is no frame."""
    lines = lammps_dump(3).splitlines(keepends=True)
    assert len(lines) == 39
    (tmp_path / "d.lammpstrj").write_text("".join(lines[:n_lines]))
    with pytest.raises(DataError, match=r"frame 2: .*was the dump cut short"):
        list(read_frames(tmp_path / "d.lammpstrj"))


@pytest.mark.parametrize(("name", "index"), [("d.lammpstrj", "@0:3"), ("d.lammpstrj", "@2"), ("d.lammpstrj.gz", "")])
def test_bad_file_truncated_lammps_read_in_part(name: str, index: str, tmp_path: Path) -> None:
    """The last frame announces four atoms and has three; it is chosen by a positive index, or was packed like that."""
    text = "".join(lammps_dump(3).splitlines(keepends=True)[:38]).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    with pytest.raises(DataError):
        list(read_frames(f"{tmp_path / name}{index}"))


def line_by_line(lines: list[str], path: str) -> Iterator[list[str]]:
    """A slow twin of `dump_chunks` for dumps of frames that announce their atoms in the fourth line."""
    frame: list[str] = []
    for line in [*(line for line in lines if line.strip()), "ITEM: the end"]:
        if line.startswith("ITEM:") and any(line.startswith("ITEM: ATOMS") for line in frame):
            atoms = len(frame) - 1 - next(i for i, line in enumerate(frame) if line.startswith("ITEM: ATOMS"))
            titles = [i for i, line in enumerate(frame) if line.startswith("ITEM: NUMBER OF ATOMS")]
            if not titles or not frame[titles[0] + 1].strip().isdecimal():
                raise DataError("its header is not complete")
            if int(frame[titles[0] + 1]) != atoms:
                raise DataError(f"it announces {int(frame[titles[0] + 1])} atoms and has {atoms}")
            yield frame
            frame = []
        frame.append(line)
    if len(frame) > 1:
        raise DataError("its header is not complete")


@pytest.mark.parametrize("change", ["gone", "twice", "blank", "title", "item inside"])
def test_frames_of_a_dump_are_those_of_its_lines(change: str) -> None:
    """Whatever line is wrong: atoms are taken all at once, and must not hide it."""
    whole = lammps_dump(3).splitlines(keepends=True)
    outcomes = set()
    for place in range(len(whole)):
        lines = whole.copy()
        lines[place : place + 1] = {
            "gone": [],
            "twice": [whole[place]] * 2,
            "blank": ["  \n", whole[place]],
            "title": ["ITEM: TIMESTEP\n"],
            "item inside": [whole[place].rstrip() + " ITEM: x\n"],
        }[change]
        found: list[tuple[list[list[str]], str]] = []
        for split in (line_by_line(lines, "d.dump"), dump_chunks(lines, "d.dump")):
            frames: list[list[str]] = []
            message = ""
            try:
                for frame in split:
                    frames.append(frame)
            except DataError as error:
                message = str(error)
            found.append((frames, message))
        assert found[0][0] == found[1][0], place
        assert found[0][1] in found[1][1], place
        assert bool(found[0][1]) == bool(found[1][1]), place
        outcomes.add(found[0][1])
    assert len(outcomes) >= (1 if change == "blank" else 2)


@pytest.mark.parametrize("index", ["@0", "@0:2", "@1"])
def test_good_frames_of_a_truncated_lammps_dump(index: str, tmp_path: Path) -> None:
    (tmp_path / "d.lammpstrj").write_text("".join(lammps_dump(3).splitlines(keepends=True)[:38]))
    assert all(len(frame) == 4 for frame in read_frames(f"{tmp_path / 'd.lammpstrj'}{index}"))


def test_bad_file_with_a_blank_line_in_the_middle(xyz: str) -> None:
    """Files glued together by hand: all frames, or a sentence, but never the first part alone."""
    lines = lines_of(xyz)
    Path(xyz).write_text("".join([*lines[:12], "\n", *lines[12:]]))
    try:
        found = len(list(read_frames(xyz)))
    except DataError:
        return
    assert found == 5


def test_blank_lines_at_the_end_are_harmless(xyz: str) -> None:
    Path(xyz).write_text(Path(xyz).read_text() + "\n\n")
    assert len(list(read_frames(xyz))) == 5


def test_bad_file_damaged_in_the_middle(xyz: str) -> None:
    lines = lines_of(xyz)
    lines[14] = lines[14].replace(".", "x", 1)
    Path(xyz).write_text("".join(lines))
    with pytest.raises(DataError, match="cannot be read after 2 good frames"):
        list(read_frames(xyz))


def test_bad_file_of_unknown_format(tmp_path: Path) -> None:
    (tmp_path / "notes.abc").write_text("hello\n")
    with pytest.raises(DataError, match=r"notes\.abc: the format is not known; ASE guesses it from"):
        list(read_frames(tmp_path / "notes.abc"))


@pytest.mark.parametrize("damage", ["not gzip", "cut", "flipped"])
def test_bad_file_damaged_gz(damage: str, xyz: str) -> None:
    raw = bytearray(gzip.compress(Path(xyz).read_bytes()))
    if damage == "not gzip":
        raw = bytearray(b"5\nnot compressed at all\n")
    elif damage == "cut":
        del raw[len(raw) // 2 :]
    else:
        raw[len(raw) // 2] ^= 0xFF
        raw[len(raw) // 2 + 1] ^= 0xFF
    Path(xyz + ".gz").write_bytes(raw)
    with pytest.raises(DataError, match=r"t\.xyz\.gz: cannot be read after 0 good frames"):
        list(read_frames(xyz + ".gz"))


def test_bad_file_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^{tmp_path}: "):
        list(read_frames(tmp_path))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_bad_file_without_permission(xyz: str) -> None:
    os.chmod(xyz, 0)
    with pytest.raises(DataError, match="no permission to read it"):
        list(read_frames(xyz))


def test_bad_frame_without_atoms(xyz: str) -> None:
    text = Path(xyz).read_text()
    Path(xyz).write_text("".join(text.splitlines(keepends=True)[:12]) + '0\nLattice="4 0 0 0 4 0 0 0 4"\n')
    with pytest.raises(DataError, match=r"t\.xyz, frame 2: it has no atoms"):
        list(read_frames(xyz))


def test_errors_are_one_line(tmp_path: Path) -> None:
    """Whatever a reader raises, however long, becomes one readable sentence."""
    for name, text in (
        ("t.xyz", "nonsense\n" * 50),
        ("POSCAR", "x\n" * 9),
        ("t.cif", "data_\nloop_\n"),
        ("t.json", "{"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError) as caught:
            list(read_frames(tmp_path / name))
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300 + len(str(tmp_path))


# --- structures in memory ---------------------------------------------------------------------------------------------


def test_as_frame_of_atoms() -> None:
    atoms = trajectory(1)[0]
    frame = as_frame(atoms, "mine")
    np.testing.assert_array_equal(frame.positions, atoms.positions)
    np.testing.assert_array_equal(frame.cell, atoms.cell.array)
    np.testing.assert_array_equal(frame.numbers, atoms.numbers)
    assert frame.label == "mine"
    assert len(frame) == 4
    assert as_frame(frame, "other") is frame


def test_as_frame_of_a_tuple() -> None:
    frame = as_frame((np.zeros((2, 3)), None, False, [1, 8]))
    np.testing.assert_array_equal(frame.cell, np.zeros((3, 3)))
    np.testing.assert_array_equal(frame.pbc, [False] * 3)
    frame = as_frame(([[0, 0, 0]], [3, 4, 5], [1, 0, 1], (29,)))
    np.testing.assert_array_equal(frame.cell, np.diag([3.0, 4.0, 5.0]))
    np.testing.assert_array_equal(frame.pbc, [True, False, True])
    assert frame.positions.dtype == np.float64


@pytest.mark.parametrize("thing", [None, 3, "Cu", [[0, 0, 0]], (1, 2, 3), {"positions": 1}, np.zeros((4, 3))])
def test_as_frame_of_something_else(thing: Any) -> None:
    with pytest.raises(
        DataError, match=r"it is no structure: expected ase.Atoms or \(positions, cell, pbc, numbers\), got"
    ):
        as_frame(thing, "it")


def test_as_frame_refuses_flags_in_letters() -> None:
    with pytest.raises(DataError):
        as_frame((np.zeros((1, 3)), None, "FFF", [1]))


def test_as_frame_refuses_complex_positions() -> None:
    with pytest.raises(DataError):
        as_frame((np.zeros((1, 3)) + 1j, None, False, [1]))


def test_iterate_frames_names_them_by_place() -> None:
    assert [frame.label for frame in iterate_frames(trajectory(3))] == ["frame 0", "frame 1", "frame 2"]
    assert [frame.label for frame in iterate_frames(trajectory(1)[0])] == ["frame 0"]


def test_is_single() -> None:
    atoms = trajectory(1)[0]
    parts = (atoms.positions, atoms.cell.array, True, atoms.numbers)
    assert is_single(atoms)
    assert is_single(as_frame(atoms))
    assert is_single(parts)
    assert is_single(tuple(part.tolist() if isinstance(part, np.ndarray) else part for part in parts))
    assert not is_single([atoms])
    assert not is_single((atoms, atoms, atoms, atoms))
    assert not is_single((parts, parts, parts, parts))


# --- selections -------------------------------------------------------------------------------------------------------


@pytest.fixture
def alloy() -> Atoms:
    atoms = Atoms("Cu4Ni3Cu3", positions=np.arange(30).reshape(10, 3))
    atoms.set_array("defect", np.array([0, 1, 0, 0, 0, 0, 2, 0, 0, -1]))
    atoms.set_array("mask", np.arange(10) > 7)
    atoms.set_array("name", np.array(list("abcdefghij")))
    atoms.set_array("forces", np.ones((10, 3)))
    return atoms


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("Ni", [4, 5, 6]),
        ("Cu", [0, 1, 2, 3, 7, 8, 9]),
        ("Fe", []),
        ("3", [3]),
        ("-1", [9]),
        ("0,5,2:4", [0, 2, 3, 5]),
        ("8:", [8, 9]),
        ("::4", [0, 4, 8]),
        ("5,5,5:7,5", [5, 6]),
        ("8:100", [8, 9]),
        (" 1, 2", [1, 2]),
        ("defect", [1, 6, 9]),
        ("mask", [8, 9]),
    ],
)
def test_selected_atoms(select: str, expected: list[int], alloy: Atoms) -> None:
    chosen = selected_atoms(alloy, select)
    assert chosen.tolist() == expected
    assert chosen.dtype == np.int64


def test_bad_selection_of_atoms_that_do_not_exist(alloy: Atoms) -> None:
    for select in ("10", "0,99", "-11"):
        with pytest.raises(DataError, match=r"it: the selection '.*' names an atom that does not exist \(10 atoms\)"):
            selected_atoms(alloy, select, "it")


@pytest.mark.parametrize("select", ["", "copper", "1.5", "0;1", "cu", "1,,2", "forces", "1:2:0", "1:2:3:4"])
def test_bad_selection_of_nothing_known(select: str, alloy: Atoms) -> None:
    with pytest.raises(
        DataError, match=r"it: the selection '.*' names no elements, no indices, and no array with one number"
    ):
        selected_atoms(alloy, select, "it")


def test_bad_selection_by_an_array_of_names(alloy: Atoms) -> None:
    with pytest.raises(DataError, match="it: the array 'name' does not hold numbers, so it cannot select atoms"):
        selected_atoms(alloy, "name", "it")


def test_bad_file_that_announces_more_atoms_than_it_has_bytes(tmp_path: Path) -> None:
    (tmp_path / "t.xyz").write_text("99999999999\n\nCu 0 0 0\n")
    with pytest.raises(DataError, match=r"t\.xyz, frame 0: it announces 99999999999 atoms"):
        list(read_frames(tmp_path / "t.xyz"))
