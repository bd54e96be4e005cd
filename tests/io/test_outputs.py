"""Outputs: whole or not at all, never over a file unasked, and nothing lost on the way."""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write

from quests_zenn._core.checks import DataError
from quests_zenn.io import check_output, read_atoms, write_json, write_scored
from quests_zenn.io.outputs import plain, replacing, versions


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- a place to write to ----------------------------------------------------------------------------------------------


def test_check_output_of_a_new_file(tmp_path: Path) -> None:
    assert check_output(tmp_path / "new.json") == tmp_path / "new.json"
    assert check_output(str(tmp_path / "new.json"), overwrite=True) == tmp_path / "new.json"
    assert entries(tmp_path) == []


def test_check_output_of_a_name_without_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_output("new.json") == Path("new.json")


def test_check_output_never_overwrites_unasked(tmp_path: Path) -> None:
    (tmp_path / "old.json").touch()
    with pytest.raises(DataError, match=r"old\.json: exists already; choose another name or say --overwrite"):
        check_output(tmp_path / "old.json")
    assert check_output(tmp_path / "old.json", overwrite=True) == tmp_path / "old.json"


@pytest.mark.parametrize("overwrite", [True, False])
def test_check_output_of_a_folder(overwrite: bool, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder, not a file"):
        check_output(tmp_path, overwrite)


@pytest.mark.parametrize("overwrite", [True, False])
def test_check_output_in_no_folder(overwrite: bool, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"new\.json: the folder .*none does not exist"):
        check_output(tmp_path / "none" / "new.json", overwrite)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_check_output_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="no permission to write to"):
        check_output(tmp_path / "new.json")


# --- all or nothing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.json", "t.xyz.gz", "a.b.c.xyz", "no ending"])
def test_replacing_puts_the_file_in_its_place(name: str, tmp_path: Path) -> None:
    with replacing(tmp_path / name) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name != name
        assert Path(name).suffix in ("", temporary.suffix)  # by which writers know the format
        temporary.write_text("new")
        assert not (tmp_path / name).exists()
    assert entries(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "new"


def test_replacing_never_overwrites_unasked(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("old")
    with pytest.raises(DataError, match="exists already"), replacing(tmp_path / "t.json"):
        pytest.fail("the block must not run")
    assert (tmp_path / "t.json").read_text() == "old"


def test_replacing_keeps_the_old_file_until_the_end(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("old")
    with replacing(tmp_path / "t.json", overwrite=True) as temporary:
        temporary.write_text("new")
        assert (tmp_path / "t.json").read_text() == "old"
    assert entries(tmp_path) == ["t.json"]
    assert (tmp_path / "t.json").read_text() == "new"


def fail_inside(path: Path, error: BaseException, overwrite: bool = False) -> None:
    with replacing(path, overwrite) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("existing", [True, False])
def test_replacing_leaves_nothing_behind_on_failure(error: type[BaseException], existing: bool, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    if existing:
        path.write_text("old")
    with pytest.raises(error):
        fail_inside(path, error(), overwrite=existing)
    assert entries(tmp_path) == (["t.json"] if existing else [])
    assert not existing or path.read_text() == "old"


def test_replacing_says_what_the_system_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.json: cannot be written \(No space left on device\)"):
        fail_inside(tmp_path / "t.json", OSError(28, "No space left on device"))
    assert entries(tmp_path) == []


def appear_meanwhile(path: Path, overwrite: bool) -> None:
    with replacing(path, overwrite) as temporary:
        temporary.write_text("ours")
        path.write_text("of somebody else")


def test_replacing_keeps_a_file_that_appeared_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="exists already"):
        appear_meanwhile(tmp_path / "t.json", overwrite=False)
    assert entries(tmp_path) == ["t.json"]
    assert (tmp_path / "t.json").read_text() == "of somebody else"
    appear_meanwhile(tmp_path / "t.json", overwrite=True)
    assert (tmp_path / "t.json").read_text() == "ours"


def test_two_writers_at_once_do_not_meet(tmp_path: Path) -> None:
    """Temporary names differ, so neither writes into the file of the other."""
    with replacing(tmp_path / "t.json", True) as first, replacing(tmp_path / "t.json", True) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert entries(tmp_path) == ["t.json"]
    assert (tmp_path / "t.json").read_text() == "first"


# --- JSON -------------------------------------------------------------------------------------------------------------


def test_json_keeps_full_precision(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=50) * 10.0 ** np.arange(-25, 25)
    write_json(tmp_path / "t.json", {"values": values, "one": values[3], "pi": math.pi, "n": np.int64(2**60)})
    got = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert got["values"] == values.tolist()
    assert got["one"] == values[3]
    assert got["pi"] == math.pi
    assert got["n"] == 2**60


def test_json_has_no_numbers_that_are_none(tmp_path: Path) -> None:
    """NaN and infinity are not JSON: they become null, wherever they hide."""
    document = {"a": np.nan, "b": [1.0, -np.inf, (np.inf, {"c": np.float32("nan")})], "d": np.array([[1.0, np.nan]])}
    write_json(tmp_path / "t.json", document)
    text = (tmp_path / "t.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text) == {"a": None, "b": [1.0, None, [None, {"c": None}]], "d": [[1.0, None]]}


def test_json_keeps_all_else(tmp_path: Path) -> None:
    document = {
        "text": "Å and ü",
        "flag": np.bool_(True),
        "no": False,
        "nothing": None,
        "path": Path("a") / "b.xyz",
        "empty": [],
        300: {"int key": 1},
        "flags": np.array([True, False]),
        "ints": np.arange(3, dtype=np.int32),
        "names": np.array(["Cu", "Ni"]),
    }
    write_json(tmp_path / "t.json", document)
    text = (tmp_path / "t.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    got = json.loads(text)
    assert got == {
        "text": "Å and ü",
        "flag": True,
        "no": False,
        "nothing": None,
        "path": os.path.join("a", "b.xyz"),
        "empty": [],
        "300": {"int key": 1},
        "flags": [True, False],
        "ints": [0, 1, 2],
        "names": ["Cu", "Ni"],
    }
    assert list(got) == [str(key) for key in document]


def test_plain_array_without_dimensions() -> None:
    assert plain(np.array(1.5)) == 1.5


def test_json_never_overwrites_unasked(tmp_path: Path) -> None:
    write_json(tmp_path / "t.json", {"a": 1})
    with pytest.raises(DataError, match="exists already"):
        write_json(tmp_path / "t.json", {"a": 2})
    assert json.loads((tmp_path / "t.json").read_text()) == {"a": 1}
    write_json(tmp_path / "t.json", {"a": 2}, overwrite=True)
    assert json.loads((tmp_path / "t.json").read_text()) == {"a": 2}


def test_json_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "t.json", {"a": object()})
    assert entries(tmp_path) == []


def test_document_is_left_alone(tmp_path: Path) -> None:
    values = np.array([1.0, np.nan])
    document = {"values": values, "list": [np.nan]}
    write_json(tmp_path / "t.json", document)
    assert document["values"] is values
    assert math.isnan(document["list"][0])


def test_versions() -> None:
    found = versions()
    assert set(found) >= {"quests_zenn", "python", "numpy", "numba", "ase"}
    assert found["numpy"] == np.__version__


# --- scored files -----------------------------------------------------------------------------------------------------


def rich(n: int = 3) -> list[Atoms]:
    """Frames that carry everything: arrays of all kinds, info of all kinds, results, velocities, a constraint."""
    rng = np.random.default_rng(1)
    frames = []
    for i in range(n):
        atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
        atoms.rattle(0.05, seed=i)
        atoms.pbc = (True, True, i % 2 == 0)
        atoms.info.update(
            temperature=300.5 + i,
            config_type="liquid",
            step=i,
            ok=True,
            matrix=np.arange(9.0).reshape(3, 3),
            text="a b=c",
        )
        atoms.set_array("charge_guess", rng.normal(size=8))
        atoms.set_array("group", rng.integers(0, 5, size=8))
        atoms.set_array("mask", rng.random(8) > 0.5)
        atoms.set_array("label", np.array([f"s{j}" for j in range(8)]))
        atoms.set_array("dipole", rng.normal(size=(8, 3)))
        atoms.set_velocities(rng.normal(size=(8, 3)) * 0.01)
        atoms.calc = SinglePointCalculator(
            atoms, energy=-3.5 - i, forces=rng.normal(size=(8, 3)), stress=rng.normal(size=6)
        )
        frames.append(atoms)
    return frames


def labelled(frames: list[Atoms]) -> Iterator[tuple[str, Atoms]]:
    return ((f"t.xyz, frame {i}", atoms) for i, atoms in enumerate(frames))


@pytest.mark.parametrize("name", ["out.xyz", "out.extxyz", "out.xyz.gz"])
def test_scored_file_carries_all(name: str, tmp_path: Path) -> None:
    frames = rich()
    write(tmp_path / "in.xyz", frames)
    scores = np.random.default_rng(2).normal(size=24) * 10
    assert write_scored(tmp_path / name, read_atoms(tmp_path / "in.xyz"), scores) == 3
    assert entries(tmp_path) == sorted(["in.xyz", name])
    before, after = read(tmp_path / "in.xyz", ":"), read(tmp_path / name, ":")
    assert len(after) == 3
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        np.testing.assert_allclose(new.arrays["dH"], scores[8 * i : 8 * i + 8], rtol=0.0, atol=1e-8)
        assert set(new.arrays) == set(old.arrays) | {"dH"}
        for key, values in old.arrays.items():
            np.testing.assert_array_equal(new.arrays[key], values)
        assert set(new.info) == set(old.info)
        for key, value in old.info.items():
            np.testing.assert_array_equal(new.info[key], value)
        np.testing.assert_array_equal(new.cell.array, old.cell.array)
        np.testing.assert_array_equal(new.pbc, old.pbc)
        assert new.get_potential_energy() == old.get_potential_energy() == -3.5 - i
        np.testing.assert_array_equal(new.get_forces(), old.get_forces())
        np.testing.assert_array_equal(new.get_stress(), old.get_stress())
        np.testing.assert_allclose(new.get_velocities(), frames[i].get_velocities(), atol=1e-8)


def test_scored_file_of_frames_of_another_format(tmp_path: Path) -> None:
    """Everything that a .traj carries reaches the extended XYZ, as closely as its eight decimals allow."""
    frames = rich()
    write(tmp_path / "in.traj", frames)
    write_scored(tmp_path / "out.xyz", read_atoms(tmp_path / "in.traj"), np.arange(24.0))
    for i, new in enumerate(read(tmp_path / "out.xyz", ":")):
        np.testing.assert_allclose(new.positions, frames[i].positions, atol=1e-8)
        np.testing.assert_allclose(new.get_forces(), frames[i].get_forces(), atol=1e-8)
        assert new.get_potential_energy() == frames[i].get_potential_energy()
        assert new.info["config_type"] == "liquid"
        np.testing.assert_array_equal(new.arrays["dH"], np.arange(8 * i, 8 * i + 8))


def test_scored_file_replaces_old_scores(tmp_path: Path) -> None:
    write(tmp_path / "in.xyz", rich(2))
    write_scored(tmp_path / "a.xyz", read_atoms(tmp_path / "in.xyz"), np.arange(16.0))
    write_scored(tmp_path / "b.xyz", read_atoms(tmp_path / "a.xyz"), -np.arange(16.0))
    second = read(tmp_path / "b.xyz", 1)
    np.testing.assert_array_equal(second.arrays["dH"], -np.arange(8.0, 16.0))
    assert len([key for key in second.arrays if "dH" in key]) == 1


def test_scored_file_carries_notes(tmp_path: Path) -> None:
    write(tmp_path / "in.xyz", rich(2))
    notes = {"bandwidth": 0.015, "scope": "all environments of the run"}
    write_scored(tmp_path / "out.xyz", read_atoms(tmp_path / "in.xyz"), np.arange(16.0), notes=notes)
    for old, new in zip(read(tmp_path / "in.xyz", ":"), read(tmp_path / "out.xyz", ":"), strict=True):
        assert {key: new.info[key] for key in notes} == notes
        assert set(new.info) == set(old.info) | set(notes)


def test_scored_file_says_infinity(tmp_path: Path) -> None:
    write(tmp_path / "in.xyz", rich(1))
    scores = np.array([np.inf, -np.inf, np.nan, 0.0, 5e5, -1.0, 1e-3, 2.0])
    write_scored(tmp_path / "out.xyz", read_atoms(tmp_path / "in.xyz"), scores)
    np.testing.assert_array_equal(read(tmp_path / "out.xyz").arrays["dH"], scores)


def test_scored_file_keeps_constraints(tmp_path: Path) -> None:
    (atoms,) = rich(1)
    atoms.set_constraint(FixAtoms([1, 5]))
    write(tmp_path / "in.traj", atoms)
    write_scored(tmp_path / "out.xyz", read_atoms(tmp_path / "in.traj"), np.arange(8.0))
    back = read(tmp_path / "out.xyz")
    fixed = back.constraints[0].index if back.constraints else np.flatnonzero(~back.arrays["move_mask"])
    np.testing.assert_array_equal(np.sort(fixed), [1, 5])


def test_scored_file_of_molecules_without_cell(tmp_path: Path) -> None:
    (tmp_path / "m.xyz").write_text("2\nwater, nearly\nO 0 0 0\nH 0 0 0.96\n")
    write_scored(tmp_path / "out.xyz", read_atoms(tmp_path / "m.xyz"), np.array([1.0, 2.0]))
    back = read(tmp_path / "out.xyz")
    assert not back.pbc.any()
    np.testing.assert_array_equal(back.arrays["dH"], [1.0, 2.0])


def test_scored_file_compressed_is_compressed(tmp_path: Path) -> None:
    write(tmp_path / "in.xyz", rich(1))
    write_scored(tmp_path / "out.xyz.gz", read_atoms(tmp_path / "in.xyz"), np.arange(8.0))
    with gzip.open(tmp_path / "out.xyz.gz", "rt") as stream:
        assert "dH:R:1" in stream.read()


def test_scored_file_never_overwrites_unasked(tmp_path: Path) -> None:
    write(tmp_path / "in.xyz", rich(1))
    before = (tmp_path / "in.xyz").read_bytes()
    with pytest.raises(DataError, match="exists already"):
        write_scored(tmp_path / "in.xyz", read_atoms(tmp_path / "in.xyz"), np.arange(8.0))
    assert (tmp_path / "in.xyz").read_bytes() == before


def test_scored_file_over_its_own_input(tmp_path: Path) -> None:
    """Asked to overwrite, the input is read to its end before it is replaced."""
    write(tmp_path / "in.xyz", rich(3))
    write_scored(tmp_path / "in.xyz", read_atoms(tmp_path / "in.xyz"), np.arange(24.0), overwrite=True)
    back = read(tmp_path / "in.xyz", ":")
    np.testing.assert_array_equal(np.concatenate([atoms.arrays["dH"] for atoms in back]), np.arange(24.0))
    assert entries(tmp_path) == ["in.xyz"]


@pytest.mark.parametrize("spoil", ["line break", "blank in a word", "empty word"])
def test_scored_file_can_be_read_back(spoil: str, tmp_path: Path) -> None:
    """Written readably, or refused with a sentence."""
    (atoms,) = rich(1)
    if spoil == "line break":
        atoms.info["note"] = "first line\nsecond line"
    else:
        atoms.set_array("site", np.array(["a b" if spoil == "blank in a word" else "", *"cdefghi"]))
    try:
        write_scored(tmp_path / "out.xyz", iter([("it", atoms)]), np.arange(8.0))
    except DataError:
        return
    np.testing.assert_array_equal(read(tmp_path / "out.xyz").arrays["dH"], np.arange(8.0))


def test_scored_file_with_two_energies(tmp_path: Path) -> None:
    (atoms,) = rich(1)
    atoms.info["energy"] = -99.0
    write_scored(tmp_path / "out.xyz", iter([("it", atoms)]), np.arange(8.0))
    assert read(tmp_path / "out.xyz").get_potential_energy() == -3.5


@pytest.mark.parametrize(
    ("n_scores", "where"),
    [(7, r"t\.xyz, frame 0"), (23, r"t\.xyz, frame 2"), (25, r"out\.xyz"), (0, r"t\.xyz, frame 0")],
)
def test_scored_file_of_a_changed_input(n_scores: int, where: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{where}: the input changed while it was being scored"):
        write_scored(tmp_path / "out.xyz", labelled(rich(3)), np.zeros(n_scores))
    assert entries(tmp_path) == []


def broken(frames: list[Atoms]) -> Iterator[tuple[str, Atoms]]:
    yield from labelled(frames)
    raise DataError("t.xyz: cannot be read after 3 good frames")


def unwritable(frames: list[Atoms]) -> Iterator[tuple[str, Atoms]]:
    frames[1].set_array("strange", np.ones(8) * 1j)
    return labelled(frames)


@pytest.mark.parametrize(
    ("source", "sentence"), [(broken, "cannot be read after 3"), (unwritable, "frame 1: cannot be")]
)
def test_scored_file_leaves_nothing_behind_on_failure(
    source: Callable[[list[Atoms]], Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=sentence):
        write_scored(tmp_path / "out.xyz", source(rich(3)), np.zeros(24))
    assert entries(tmp_path) == []


def test_links(tmp_path: Path) -> None:
    """A link is written through to its file; one that points nowhere is not replaced unasked."""
    (tmp_path / "file.json").write_text("{}")
    (tmp_path / "link.json").symlink_to("file.json")
    write_json(tmp_path / "link.json", {"a": 1}, overwrite=True)
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "file.json").read_text()) == {"a": 1}
    (tmp_path / "nowhere.json").symlink_to("missing.json")
    with pytest.raises(DataError, match=r"nowhere\.json: is a link that points nowhere"):
        write_json(tmp_path / "nowhere.json", {})
    with pytest.raises(DataError, match="an output needs a name"):
        write_json("", {})


def test_long_names(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250 + ".json")
    write_json(path, {"a": 1})
    assert entries(tmp_path) == [path.name]
