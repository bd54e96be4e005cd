"""The commands about densities, and the options of ``quests-entropy`` that estimate and group."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write
from commands import run

from quests_zenn import entropy as room
from quests_zenn.descriptors import describe
from quests_zenn.entropy import estimate

Array = npt.NDArray[np.float64]

H = 0.03


def document(*args: Any) -> dict[str, Any]:
    out, _ = run(*args, "--quiet", "--json", "found.json", "--overwrite")
    assert out == ""
    found: dict[str, Any] = json.loads(Path("found.json").read_text(encoding="utf-8"))
    return found


def refused(sentence: str, *args: Any, status: int = 1) -> None:
    before = sorted(path.name for path in Path().iterdir())
    _, err = run(*args, status=status)
    assert re.search(sentence, err), err
    assert "Traceback" not in err
    if status == 1:
        assert len([line for line in err.splitlines() if not line.startswith("compiling")]) == 1
    assert sorted(path.name for path in Path().iterdir()) == before


def crystals(n_frames: int, amplitude: float, seed: int) -> list[Atoms]:
    frames = []
    for i in range(n_frames):
        atoms = bulk("Cu", cubic=True) * (2, 2, 2)
        atoms.rattle(amplitude, seed=100 * seed + i)
        atoms.info["config_type"] = "even" if i % 2 == 0 else "odd"
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("densities")
    write(folder / "cold.xyz", crystals(12, 0.05, 1))
    write(folder / "hot.xyz", crystals(12, 0.15, 2))
    write(folder / "few.xyz", crystals(3, 0.05, 3))
    silver = crystals(12, 0.05, 1)
    for atoms in silver:
        atoms.symbols[::4] = "Ag"
    write(folder / "silver.xyz", silver)
    write(folder / "molecule.xyz", [molecule("CH3CH2OH")] * 2)
    write(folder / "large.xyz", [bulk("Cu", cubic=True) * (3, 3, 3)])
    return folder


@pytest.fixture(autouse=True)
def here(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in store.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(name: str, **options: Any) -> Array:
    return describe(read(name, ":"), **options).x


# --- quests-entropy: estimators, groups, blocks -----------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["sampled", "knn"])
def test_estimators_of_the_entropy_command(estimator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quests_zenn.entropy._levels.PILOT", 50)
    args = ("entropy", "hot.xyz", "--bandwidth", H)
    exact = document(*args)
    found = document(*args, "--estimator", estimator, "--tolerance", 0.5)
    assert found["estimator"] == estimator
    assert abs(found["entropy"] - exact["entropy"]) <= 5.0 * found["standard_error"] + 1e-6
    assert found["tolerance"] == 0.5
    assert found["mean_dh"] == pytest.approx(found["entropy"] - math.log(384))
    assert exact["standard_error"] == 0.0
    out, _ = run(*args, "--estimator", estimator, "--tolerance", 0.5)
    assert f"estimator     {estimator} (" in out
    assert "±" in out
    assert found["standard_error"] > 0.0


def test_large_runs_are_estimated_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "EXACT_UP_TO", 100)
    monkeypatch.setattr("quests_zenn.entropy._levels.PILOT", 50)
    monkeypatch.setattr("quests_zenn.entropy._levels.FEWEST_REFERENCES", 10)
    args = ("entropy", "hot.xyz", "--bandwidth", H, "--tolerance", 0.3)
    found = document(*args)
    again, other = document(*args), document(*args, "--seed", 5)
    assert found["estimator"] == "sampled"
    assert 0.0 < found["standard_error"] <= 0.3 / 1.95
    assert found["levels"]["references"] == [12, 384]
    assert found["entropy"] == again["entropy"] != other["entropy"]
    assert document(*args, "--estimator", "exact")["estimator"] == "exact"
    close = document(*args[:-1], 0.02)
    assert close["estimator"] == "exact" or close["standard_error"] <= 0.02 / 1.95
    scored = document(*args, "-o", "scored.xyz", "--per-frame")
    atoms = read("scored.xyz", ":")
    assert len(scored["frames"]) == len(atoms) == 12
    assert "dH" in atoms[0].arrays


def test_groups_of_the_entropy_command() -> None:
    found = document("entropy", "cold.xyz", "--bandwidth", H, "--by", "config_type")["groups"]
    assert found["names"] == ["even", "odd"]
    assert found["sizes"] == [192, 192]
    even = rows("cold.xyz")[np.repeat(np.arange(12) % 2 == 0, 32)]
    odd = rows("cold.xyz")[np.repeat(np.arange(12) % 2 == 1, 32)]
    assert found["entropy"][0] == pytest.approx(room.entropy(even, H), abs=1e-12)
    assert found["mean_dh"][1][0] == pytest.approx(room.delta_entropy(odd, even, H).mean(), abs=1e-12)
    out, _ = run("entropy", "cold.xyz", "hot.xyz", "--by", "file")
    assert "each file alone" in out
    assert re.search(r"^cold\.xyz +384 ", out, re.M)
    refused(r"cold.xyz, frame 0: no key 'phase' to group frames by \(its info holds config_type\); nor has any other",
            "entropy", "cold.xyz", "--by", "phase")  # fmt: skip


def test_groups_in_their_order() -> None:
    frames = read("cold.xyz", ":")
    for number, atoms in enumerate(frames):
        atoms.info["temperature"] = [900.0, 1000.0, 60.0][number % 3]
        atoms.info["name"] = ["zinc", "ant"][number % 2]
        if number > 8:
            del atoms.info["temperature"]
    write("keys.xyz", frames)

    def names(*args: str) -> Any:
        return document("overlap", *args)["names"]

    assert names("keys.xyz", "--by", "temperature") == ["60.0", "900.0", "1000.0", "(none)"]
    assert names("keys.xyz", "--by", "name") == ["zinc", "ant"]
    assert names("keys.xyz@:3", "--by", "frame") == ["0", "1", "2"]
    slices = document("overlap", "keys.xyz@6:9", "keys.xyz@:3")
    assert slices["names"] == ["keys.xyz@6:9", "keys.xyz@:3"]
    assert slices["sizes"] == [96, 96]
    out, _ = run("overlap", "cold.xyz", "hot.xyz", "--by", "frame")
    assert "dH between 24 groups: see --json" in out
    assert "overlap: share" not in out


def test_block_errors_of_the_entropy_command() -> None:
    found = document("entropy", "hot.xyz", "--bandwidth", "0.03,0.06", "--blocks", 4)
    blocks = np.repeat(np.arange(12) * 4 // 12, 32)
    expected = room.block_error(rows("hot.xyz"), [0.03, 0.06], blocks=blocks).standard_error
    np.testing.assert_allclose([result["block_error"] for result in found["results"]], expected, rtol=1e-12)
    assert document("entropy", "hot.xyz")["block_error"] is None
    out, _ = run("entropy", "hot.xyz", "--blocks", 3)
    assert re.search(r"^block error   0\.\d+ nats, from 3 blocks", out, re.M)
    _, err = run("entropy", "hot.xyz", "--blocks", 12)
    assert "a block is 1 frames, not much longer" in err or "autocorrelation times: that time is a guess" in err
    refused("few.xyz: 3 frames cannot be cut into 4 blocks", "entropy", "few.xyz", "--blocks", 4)


# --- descriptors ------------------------------------------------------------------------------------------------------


def test_descriptors_are_written_for_numpy() -> None:
    run("descriptors", "silver.xyz", "-o", "x.npz", "--k", 8, "--cutoff", 4.0, "--species", "blocks")
    with np.load("x.npz", allow_pickle=False) as found:
        env = describe(read("silver.xyz", ":"), 8, 4.0, "blocks")
        np.testing.assert_array_equal(found["x"], env.x)
        np.testing.assert_array_equal(found["frame_offsets"], env.frame_offsets)
        np.testing.assert_array_equal(found["numbers"], env.numbers)
        assert (int(found["k"]), float(found["cutoff"]), str(found["species"])) == (8, 4.0, "blocks")
        assert found["labels"][3] == "silver.xyz, frame 3"
    run("descriptors", "silver.xyz", "-o", "x.npy", "--precision", "float32", "--select", "Ag", "--quiet")
    matrix = np.load("x.npy", allow_pickle=False)
    assert matrix.dtype == np.float32
    assert matrix.shape == (12 * 8, 63)
    run("descriptors", "silver.xyz", "-o", "y.npz", "--select", "Ag")
    with np.load("y.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["frame_offsets"], 8 * np.arange(13))
        assert set(found["numbers"].tolist()) == {47}


def test_descriptors_refuse_what_they_cannot_write() -> None:
    refused(r"x.txt: environments are written as \.zarr", "descriptors", "cold.xyz", "-o", "x.txt")
    refused("cold.xyz: exists already|is an input", "descriptors", "cold.xyz", "-o", "cold.xyz")
    refused("Missing option '-o'", "descriptors", "cold.xyz", status=2)
    refused("nothing.xyz: no such file", "descriptors", "nothing.xyz", "-o", "x.npz")


# --- dh ---------------------------------------------------------------------------------------------------------------


def test_dh_given_a_reference() -> None:
    y, x = rows("hot.xyz"), rows("cold.xyz")
    dh = room.delta_entropy(y, x, H)
    found = document("dh", "hot.xyz", "--reference", "cold.xyz", "--bandwidth", H, "--per-frame", "-o", "scored.xyz")
    assert found["mean_dh"] == pytest.approx(dh.mean(), abs=1e-10)
    assert found["novelty"] == np.mean(dh >= 1e-5)
    assert found["overlap"] == 1.0 - found["novelty"]
    assert found["n_reference"] == 384
    assert found["quantiles"]["1.0"] == pytest.approx(dh.max(), abs=1e-10)
    by_frame = dh.reshape(12, 32)
    np.testing.assert_allclose([f["mean_dh"] for f in found["frames"]], by_frame.mean(axis=1), atol=1e-10)
    np.testing.assert_allclose([f["max_dh"] for f in found["frames"]], by_frame.max(axis=1), atol=1e-10)
    np.testing.assert_allclose(np.concatenate([a.arrays["dH"] for a in read("scored.xyz", ":")]), dh, atol=1e-7)
    assert read("scored.xyz").info["dH_scope"] == "the reference: cold.xyz"
    strict = document("dh", "hot.xyz", "--reference", "cold.xyz", "--bandwidth", H, "--eps", -1.0)
    assert strict["novelty"] == np.mean(dh >= -1.0) > found["novelty"]
    both = document("dh", "hot.xyz", "--reference", "cold.xyz", "--reference", "few.xyz", "--bandwidth", H)
    assert both["n_reference"] == 480
    assert both["mean_dh"] < found["mean_dh"]
    knn = document("dh", "hot.xyz", "--reference", "cold.xyz", "--bandwidth", H, "--estimator", "knn")
    assert knn["estimator"] == "knn"
    assert knn["mean_dh"] >= found["mean_dh"]


def test_dh_of_elements_that_were_never_seen() -> None:
    out, err = run("dh", "silver.xyz", "--reference", "cold.xyz", "--species", "blocks")
    assert "the reference has never seen Ag: their dH is infinite" in err
    assert "largest inf" in out
    assert re.search(r"^novel +\d", out, re.M)
    _, err = run("dh", "silver.xyz", "--reference", "cold.xyz")
    assert "never seen Ag: --species blocks makes them novel" in err
    found = document("dh", "silver.xyz", "--reference", "cold.xyz", "--species", "blocks", "--select", "Ag")
    assert found["novelty"] == 1.0
    assert found["mean_dh"] is None  # infinite


def test_dh_refuses() -> None:
    refused("Missing option '--reference'", "dh", "hot.xyz", status=2)
    refused("nothing.xyz: no such file", "dh", "hot.xyz", "--reference", "nothing.xyz")
    refused("this command takes one --bandwidth", "dh", "hot.xyz", "--reference", "cold.xyz", "--bandwidth", "0.1,0.2")
    refused("cold.xyz: is an input|exists already", "dh", "hot.xyz", "--reference", "cold.xyz", "-o", "cold.xyz")
    refused("--eps must be finite", "dh", "hot.xyz", "--reference", "cold.xyz", "--eps", "nan")


# --- overlap ----------------------------------------------------------------------------------------------------------


def test_overlap_between_files_and_groups() -> None:
    found = document("overlap", "cold.xyz", "hot.xyz", "--bandwidth", H)
    x, y = rows("cold.xyz"), rows("hot.xyz")
    assert found["names"] == ["cold.xyz", "hot.xyz"]
    assert found["overlap"][1][0] == pytest.approx(room.overlap(y, x, H), abs=1e-12)
    assert found["overlap"][0][0] == found["overlap"][1][1] == 1.0
    out, _ = run("overlap", "cold.xyz", "--by", "config_type")
    assert "share of the row that the column knows" in out
    _, err = run("overlap", "cold.xyz")
    assert "there is only one file" in err


# --- compare ----------------------------------------------------------------------------------------------------------


def test_compare_two_trajectories() -> None:
    found = document("compare", "cold.xyz", "hot.xyz", "--bandwidth", H, "--blocks", 4)
    a, b = room.entropy(rows("cold.xyz"), H), room.entropy(rows("hot.xyz"), H)
    assert found["delta_entropy"] == pytest.approx(b - a, abs=1e-10)
    assert found["delta_J_per_mol_K"] == pytest.approx(8.31446 * (b - a), rel=1e-5)
    blocks = np.repeat(np.arange(12) * 4 // 12, 32)
    errors = [room.block_error(rows(name), H, blocks=blocks).standard_error for name in ("cold.xyz", "hot.xyz")]
    assert found["delta_error"] == pytest.approx(math.hypot(*errors), rel=1e-10)
    other = document("compare", "hot.xyz", "cold.xyz", "--bandwidth", H, "--blocks", 4)
    assert other["delta_entropy"] == pytest.approx(a - b, abs=1e-10)
    out, _ = run("compare", "cold.xyz", "hot.xyz", "--bandwidth", H, "--blocks", 3)
    assert re.search(r"H\(B\) - H\(A\) +\d\.\d+ ± \d\.\d+ nats", out)
    assert "J/(mol K)" in out


def test_compare_takes_the_same_number_of_frames() -> None:
    found = document("compare", "cold.xyz", "few.xyz", "--blocks", 3)
    assert found["n_frames_each"] == 3
    assert found["a"]["n_environments"] == found["b"]["n_environments"] == 96
    picked = np.concatenate([rows("cold.xyz")[32 * f : 32 * f + 32] for f in (0, 4, 8)])
    assert found["a"]["entropy"] == pytest.approx(room.entropy(picked), abs=1e-10)
    _, err = run("compare", "cold.xyz", "few.xyz", "--blocks", 3)
    assert "3 frames of each were used, evenly spaced; the files hold 12 and 3" in err


def test_compare_refuses() -> None:
    refused("frames hold 32 and 108 atoms", "compare", "cold.xyz", "large.xyz")
    refused("12 frames cannot be cut into 13 blocks", "compare", "cold.xyz", "hot.xyz", "--blocks", 13)
    refused("nothing.xyz: no such file", "compare", "cold.xyz", "nothing.xyz")


# --- learning-curve ---------------------------------------------------------------------------------------------------


def test_learning_curve_of_a_file() -> None:
    found = document("learning-curve", "hot.xyz", "--bandwidth", H, "--repeats", 3)
    x = rows("hot.xyz")
    expected = room.learning_curve(x, H, repeats=3, random_state=0)
    np.testing.assert_allclose(found["mean"], expected.mean, rtol=1e-12)
    assert found["mean"][-1] == pytest.approx(room.entropy(x, H), abs=1e-12)
    assert found["information_gap"]["gap"] == pytest.approx(room.information_gap(expected).gap)
    seeded = document("learning-curve", "hot.xyz", "--bandwidth", H, "--repeats", 3, "--seed", 4)
    assert seeded["mean"][0] != found["mean"][0]
    grouped = document("learning-curve", "hot.xyz", "--by", "frame", "--sizes", "32,96,384")
    assert grouped["counts"] == [32, 96, 384]
    assert grouped["information_gap"] is None
    out, _ = run("learning-curve", "hot.xyz", "--sizes", "32,96,384")
    assert "not told: that takes a curve of at least 4 different sizes" in out
    refused(
        "--sizes must be whole numbers separated by commas, got '1,x'", "learning-curve", "hot.xyz", "--sizes", "1,x"
    )
    refused("a part cannot be larger than the set of 384", "learning-curve", "hot.xyz", "--sizes", "385")


# --- bandwidth --------------------------------------------------------------------------------------------------------


def test_bandwidth_of_a_file() -> None:
    found = document("bandwidth", "hot.xyz", "--dimension", 6)
    frames = np.repeat(np.arange(12), 32)
    expected = room.select_bandwidth(rows("hot.xyz"), None, frames, dimension=6.0)
    assert found["best"] == pytest.approx(expected.best, rel=1e-10)
    assert found["volume_rule"] == pytest.approx(room.get_bandwidth(3.61**3 / 4), rel=1e-3)
    assert document("bandwidth", "hot.xyz")["dimension"] != 6
    fine = document("bandwidth", "hot.xyz", "--grid", "0.01:0.1:5")
    np.testing.assert_allclose(fine["bandwidths"], np.geomspace(0.01, 0.1, 5))
    groups = document("bandwidth", "hot.xyz", "--by", "config_type", "--dimension", 6)
    assert groups["score"] != found["score"]
    out, _ = run("bandwidth", "hot.xyz")
    assert "<- best of the grid" in out
    out, err = run("bandwidth", "hot.xyz", "--grid", "0.001:0.002:3")
    assert "at the edge of the grid" in err


def test_bandwidth_refuses() -> None:
    refused("belong to one file, and none can be left out", "bandwidth", "hot.xyz", "--by", "file")
    refused("--grid must be of the form", "bandwidth", "hot.xyz", "--grid", "1:2")
    refused("--grid must ascend", "bandwidth", "hot.xyz", "--grid", "2:1:5")
    refused("bandwidth must be a number", "bandwidth", "hot.xyz", "--grid", "x:1:5")


# --- common to all ----------------------------------------------------------------------------------------------------

COMMANDS: list[tuple[str, ...]] = [
    ("dh", "hot.xyz", "--reference", "cold.xyz"),
    ("overlap", "cold.xyz", "hot.xyz"),
    ("compare", "cold.xyz", "hot.xyz"),
    ("learning-curve", "hot.xyz"),
    ("bandwidth", "hot.xyz"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_what_all_commands_share(command: tuple[str, ...]) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    found = document(*command, "--plot", "figure.png")
    assert found["command"] == command[0]
    assert {"n_environments", "k", "cutoff", "species", "seed", "versions", "timings", "inputs", "units"} <= set(found)
    assert Path("figure.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in Path().glob(".*")) == []
    refused(r"figure.png: exists already", *command, "--plot", "figure.png")
    refused(r"found.json: exists already", *command, "--json", "found.json")
    refused(r"a plot is written as", *command, "--plot", "figure.txt")
    refused("No such option", *command, "--nonsense", status=2)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_descriptor_options_count(command: tuple[str, ...]) -> None:
    echoed = {"timings", "n_workers", "k", "cutoff", "select", "precision", "n_environments", "n_incomplete"}

    def numbers(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: numbers(item) for key, item in value.items() if key not in echoed}
        return value

    plain = numbers(document(*command))
    assert numbers(document(*command, "--jobs", "1")) == plain
    for option in (["--k", "8"], ["--cutoff", "3.5"], ["--select", "0:10"], ["--precision", "float32"]):
        assert numbers(document(*command, *option)) != plain


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_help_of_each_command(command: tuple[str, ...]) -> None:
    out, _ = run(command[0], "--help")
    assert out.startswith("Usage: quests-zenn")
    assert "Show this message and exit" in out
