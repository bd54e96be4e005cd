"""Frames of points: where they may lie, and what happens to points whose frames cannot be read."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from quests_zenn._core.checks import DataError
from quests_zenn.descriptors import get_descriptors
from quests_zenn.sampling.oracles import FunctionOracle, PoolOracle, ProgramOracle
from quests_zenn.sampling.snapshots import Snapshots, load_environments, save_environments

Array = npt.NDArray[np.float64]


def frames(path: Path, lattice: float, symbol: str = "Cu", n: int = 1) -> Path:
    """Crystals of 4 atoms."""
    from ase.build import bulk
    from ase.io import write

    write(path, [bulk(symbol, "fcc", a=lattice + 0.01 * i, cubic=True) for i in range(n)])
    return path


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"k": 1}, "k must be"),
        ({"cutoff": -1.0}, "cutoff must be positive"),
        ({"bandwidth": 0.0}, "bandwidth must be positive"),
        ({"species": "block"}, "species must be one of"),
        ({"species": "blocks"}, "species 'blocks' needs elements"),
        ({"elements": ["Xx"]}, "elements must be chemical symbols"),
        ({"weights": "dense"}, "weights must be one of uniform, density, novelty"),
        ({"clip": (0.0, 0.5)}, "clip must be a range around 1"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Snapshots(**settings)


def test_environments_are_descriptors_and_the_element_of_the_centre(tmp_path: Path) -> None:
    from ase.io import read

    path = frames(tmp_path / "cu.xyz", 3.6, n=3)
    found = Snapshots(k=12).environments(path)
    np.testing.assert_array_equal(found[:, :-1], get_descriptors(read(path, ":"), k=12))
    assert found[:, -1].tolist() == [29.0] * 12
    assert len(Snapshots(k=12).environments(f"{path}@1:")) == 8
    blocks = Snapshots(k=12, species="blocks", elements=["Cu", "Ag"])
    assert blocks.environments(path).shape == (12, 3 * 23 + 1)
    with pytest.raises(DataError, match="holds Au, which is not among the elements"):
        blocks.environments(frames(tmp_path / "au.xyz", 4.0, "Au"))


def test_scores_of_two_alike_and_one_other(tmp_path: Path) -> None:
    settings = Snapshots(k=12, weights="density")
    same, other = (settings.environments(frames(tmp_path / f"{a}.xyz", a)) for a in (3.6, 4.2))
    scores = settings.scores([same, None, same, other])
    assert scores is not None
    assert scores.names.tolist() == [0, 2, 3]
    np.testing.assert_allclose(scores.mean[:2], -np.log(4.0), atol=1e-9)
    assert scores.mean[2] > 0.0
    np.testing.assert_allclose(settings.row_weights(scores, 4), [0.75, 1.0, 0.75, 1.5], atol=1e-9)
    assert settings.scores([same, None]) is None
    assert settings.row_weights(None, 2).tolist() == [1.0, 1.0]


def test_a_lone_element_weighs_most_and_does_not_overflow(tmp_path: Path) -> None:
    settings = Snapshots(k=12, weights="novelty", species="blocks", elements=["Cu", "Ag"])
    same, other = (settings.environments(frames(tmp_path / f"{s}.xyz", 3.6, s)) for s in ("Cu", "Ag"))
    scores = settings.scores([same, same, other])
    assert scores is not None
    assert scores.mean[2] == np.inf
    np.testing.assert_allclose(settings.row_weights(scores, 3), [0.1, 0.1, 2.8], atol=1e-9)


def test_novelty_of_rows_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    settings = Snapshots(k=12)
    known, new = frames(tmp_path / "a.xyz", 3.6), frames(tmp_path / "b.xyz", 4.2)
    (tmp_path / "c.xyz").write_text("nonsense")
    files = [known, new, tmp_path / "c.xyz", None]
    found = settings.novelty_against(lambda row: files[row], [settings.environments(known)])(np.array([3, 1, 0, 2]))
    assert found[2] == 0.0
    assert found[1] > 1.0
    assert np.isnan(found[[0, 3]]).all()
    assert np.isnan(settings.novelty_against(lambda row: files[row], [])(np.arange(2))).all()


def test_environments_on_disk(tmp_path: Path) -> None:
    path, x = tmp_path / "some" / "0001.npy", np.random.default_rng(0).normal(size=(5, 3))
    save_environments(path, x)
    np.testing.assert_array_equal(load_environments(path, 5), x)
    with pytest.raises(DataError, match="does not hold 6 environments"):
        load_environments(path, 6)
    with pytest.raises(DataError, match="is missing"):
        load_environments(tmp_path / "none.npy", 5)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="is damaged"):
        load_environments(path, 5)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="is damaged"):
        load_environments(path, 1)


# --- pools ------------------------------------------------------------------------------------------------------------


def test_a_pool_hands_out_its_files(tmp_path: Path) -> None:
    path = frames(tmp_path / "a.xyz", 3.6)
    x = np.array([[0.0], [1.0], [2.0]])
    oracle = PoolOracle(x, x, snapshots=[str(path), None, f"{path}@-1"])
    result = oracle.evaluate([[2.0], [1.0], [0.0], [0.0]], 300.0, seeds=range(4))
    assert result.snapshots == [Path(f"{path}@-1"), None, path, None]
    assert PoolOracle(x, x).evaluate([[0.0]], 300.0, seeds=[0]).snapshots is None
    assert oracle.fingerprint() != PoolOracle(x, x).fingerprint()
    moved = shutil.copy(path, tmp_path / "there.xyz")
    assert PoolOracle(x, x, snapshots=[moved, None, None]).fingerprint() != oracle.fingerprint()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["a.xyz"], "snapshots must be a list of 2 files, one for each row .or None., got 1"),
        ("a.xyz", "must be a list of 2 files"),
        ([None, "none.xyz"], "row 1: snapshots name 'none.xyz', which is no file"),
        ([3, None], "row 0: snapshots must be the name of a file, got 3"),
        (["a\0b", None], "row 0: snapshots name .*which is no file"),
    ],
)
def test_files_of_a_pool_that_are_not_there(files: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        PoolOracle([[0.0], [1.0]], [[0.0], [1.0]], snapshots=files)


def test_a_pool_from_a_table_with_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "md").mkdir(parents=True)
    frames(tmp_path / "data" / "md" / "run, 1.xyz", 3.6)
    table = tmp_path / "data" / "t.csv"
    table.write_text('# of mine\n\na,mu_a,snapshots\n0.1,1,"md/run, 1.xyz"\n\n0.2,2,\n')
    monkeypatch.chdir(tmp_path)
    oracle = PoolOracle.from_csv("data/t.csv", x=["a"], mu=["mu_a"], T=300.0, snapshots="snapshots")
    assert oracle.snapshots == [Path("data/md/run, 1.xyz"), None]
    before = oracle.fingerprint()
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = PoolOracle.from_csv("moved/t.csv", x=["a"], mu=["mu_a"], T=300.0, snapshots="snapshots")
    assert moved.fingerprint() == before
    with pytest.raises(DataError, match="has no column 'snapshot'; did you mean snapshots"):
        PoolOracle.from_csv("moved/t.csv", x=["a"], mu=["mu_a"], T=300.0, snapshots="snapshot")
    (tmp_path / "moved" / "t.csv").write_text("a;mu_a;snapshots\n0.1;1;md/run, 1.xyz\n0.2;2;md/run.xyz\n")
    with (
        pytest.warns(UserWarning, match="semicolons"),
        pytest.raises(DataError, match=r"line 3: snapshots names 'md/run.xyz', which is no file"),
    ):
        PoolOracle.from_csv("moved/t.csv", x=["a"], mu=["mu_a"], T=300.0, snapshots="snapshots")


# --- functions --------------------------------------------------------------------------------------------------------


def test_a_function_may_return_files(tmp_path: Path) -> None:
    path = frames(tmp_path / "a.xyz", 3.6)
    oracle = FunctionOracle(lambda x, T: (x, None, [path, None, "none.xyz"][: len(x)]), 1, noise=0.1)
    result = oracle.evaluate([[0.0], [1.0], [2.0]], 300.0, seeds=range(3))
    assert result.ok.all()
    assert result.snapshots == [path, None, None]
    assert result.message[:2] == ["", ""]
    assert result.message[2] == "point 2 (eta_0 = 2, T = 300): snapshots name 'none.xyz', which is no file"
    wrong = FunctionOracle(lambda x, T: (x, None, []), 1).evaluate([[0.0]], 300.0, seeds=[0])
    assert "there must be 1 files of snapshots, got 0" in wrong.message[0]


# --- programs ---------------------------------------------------------------------------------------------------------

PROGRAM = """
import csv, os, sys
rows = list(csv.DictReader(open(sys.argv[1])))
XYZ = "1\\nLattice=\\"3 0 0 0 3 0 0 0 3\\" pbc=\\"T T T\\"\\nCu 0 0 0\\n"
open("run.xyz", "w").write(2 * XYZ)
open(os.path.join(os.pardir, "out.xyz"), "w").write(XYZ)
os.symlink(os.path.join(os.pardir, "out.xyz"), "link.xyz")
os.mkdir("folder")
names = {{0: "run.xyz", 1: "run.xyz@-1", 2: "../out.xyz", 3: "link.xyz", 4: "{outside}", 5: "none.xyz", 6: "",
         7: "folder", 8: "folder/../run.xyz"}}
with open(sys.argv[2], "w") as out:
    print("id,mu_eta_0,snapshots", file=out)
    for row in rows:
        print(row["id"], float(row["eta_0"]) * 2, names[round(float(row["eta_0"]))], sep=",", file=out)
"""


def program(folder: Path, **more: Any) -> ProgramOracle:
    path = folder / "program.py"
    path.write_text(PROGRAM.format(outside=path))
    return ProgramOracle([sys.executable, "-S", str(path), "{input}", "{output}"], 1, retries=0, **more)


POINTS = np.arange(9.0)[:, None]


@pytest.mark.parametrize("per", ["point", "batch"])
def test_a_program_names_files_in_its_folder_and_nowhere_else(per: str, tmp_path: Path) -> None:
    oracle, folder = program(tmp_path, per=per), tmp_path / "answers"
    result = oracle.evaluate(POINTS, 300.0, seeds=range(9), folder=folder, jobs=2)
    assert result.ok.all()  # mu counts
    assert result.mu[:, 0].tolist() == (2.0 * POINTS[:, 0]).tolist()
    assert result.snapshots is not None
    assert [file is not None for file in result.snapshots] == [True, True] + [False] * 6 + [True]
    for i in (0, 1, 8):
        file = str(result.snapshots[i])
        assert file.startswith(str(folder.resolve()))
        assert Snapshots(k=2).environments(file).shape == ((1 if i == 1 else 2), 4)
    outside, no_file = "lies outside of the folder of the point", "is no file in the folder of the point"
    for i, told in {2: outside, 3: outside, 4: outside, 5: no_file, 7: no_file}.items():
        assert result.message[i].startswith(f"point {i} (eta_0 = {i}, T = 300): snapshots name ")
        assert told in result.message[i]
    assert [result.message[i] for i in (0, 1, 6, 8)] == [""] * 4
    again = oracle.evaluate(POINTS, 300.0, seeds=range(9), folder=folder)
    assert again.snapshots == result.snapshots
    assert again.message == result.message


def test_files_are_found_where_the_folder_was_moved_to(tmp_path: Path) -> None:
    oracle = program(tmp_path)
    oracle.evaluate(POINTS[:2], 300.0, seeds=[0, 1], folder=tmp_path / "answers")
    (tmp_path / "answers").rename(tmp_path / "moved")
    result = oracle.evaluate(POINTS[:2], 300.0, seeds=[0, 1], folder=tmp_path / "moved")
    assert result.snapshots is not None
    assert all(file is not None and str(file).startswith(str(tmp_path / "moved")) for file in result.snapshots)
    assert len(list((tmp_path / "moved").glob("*/run-*"))) == 2  # nothing ran again
    for file in (tmp_path / "moved").glob("*/run-1/run.xyz"):
        file.unlink()
    gone = oracle.evaluate(POINTS[:1], 300.0, seeds=[0], folder=tmp_path / "moved")
    assert gone.ok.all()
    assert gone.snapshots is None
    assert "which is no file" in gone.message[0]


def test_an_answer_whose_file_was_exchanged_for_one_outside(tmp_path: Path) -> None:
    oracle = program(tmp_path)
    oracle.evaluate(POINTS[:1], 300.0, seeds=[0], folder=tmp_path / "answers")
    (answer,) = (tmp_path / "answers").glob("*/answer.json")
    text = answer.read_text()
    assert "run-1/run.xyz" in text
    answer.write_text(text.replace(f"{answer.parent.name}/run-1/run.xyz", "../program.py"))
    result = oracle.evaluate(POINTS[:1], 300.0, seeds=[0], folder=tmp_path / "answers")
    assert result.snapshots is None
    assert "lies outside" in result.message[0]


def test_without_a_folder_files_do_not_last(tmp_path: Path) -> None:
    result = program(tmp_path).evaluate(POINTS[:1], 300.0, seeds=[0])
    assert result.ok.all()
    assert result.snapshots is None
    assert result.message == ["point 0 (eta_0 = 0, T = 300): snapshots are kept only where answers have a folder"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(
        "import os\nopen('a.xyz','w').write('x')\nos.chmod('a.xyz', 0)\n"
        "open('results.csv','w').write('id,mu_0,snapshots\\n0,1,a.xyz\\n')\n"
    )
    oracle = ProgramOracle([sys.executable, str(path)], 1)
    result = oracle.evaluate([[0.0]], 300.0, seeds=[0], folder=tmp_path / "answers")
    assert "may not be read" in result.message[0]


def test_the_fingerprint_of_a_program_does_not_hold_where_its_folder_lies(tmp_path: Path) -> None:
    prints = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "program.py").write_text("pass")
        for argument in ("program.py", str(folder / "program.py")):
            oracle = ProgramOracle([sys.executable, argument, "{input}"], 1, folder=folder)
            assert oracle.command == [sys.executable, str(folder / "program.py"), "{input}"]
            prints.append(oracle.fingerprint())
    assert len(set(prints)) == 1
    elsewhere = ProgramOracle([sys.executable, str(tmp_path / "one" / "program.py"), "{input}"], 1, folder=folder)
    assert elsewhere.fingerprint() != prints[0]
