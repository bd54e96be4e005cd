"""``quests-zenn generate``: what it writes and says, and how it goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import read, write

from quests_zenn.uq import Reference, generate

H = "0.03"


def run(*args: Any, status: int = 0) -> tuple[str, str]:
    """What the command says on stdout and stderr."""
    return commands.run("generate", *args, status=status)


def crystals(n: int, amplitude: float, seed: int) -> list[Atoms]:
    frames = []
    for i in range(n):
        atoms = bulk("Cu", cubic=True) * (2, 2, 2)
        atoms.rattle(amplitude, seed=100 * seed + i)
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate")
    train = crystals(6, 0.08, 1)
    write(folder / "train.xyz", train)
    write(folder / "start.xyz", crystals(2, 0.05, 2))
    alloys = crystals(4, 0.08, 3)
    for atoms in alloys:
        atoms.symbols[::3] = "Ag"
    write(folder / "alloys.xyz", alloys)
    gold = crystals(1, 0.05, 4)
    gold[0].symbols[0] = "Au"
    write(folder / "gold.xyz", gold)
    close = crystals(2, 0.05, 5)
    close[1].positions[4] = close[1].positions[9] + [1.5, 0.0, 0.0]
    write(folder / "close.xyz", close)
    held = crystals(1, 0.05, 2)
    held[0].set_constraint(FixAtoms(range(16)))
    write(folder / "held.xyz", held)
    Reference.fit([folder / "train.xyz"], 0.03).save(folder / "train.qref")
    return folder


@pytest.fixture(autouse=True)
def here(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in store.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


BASE = ("start.xyz", "--reference", "train.qref", "--target", 8, "--jobs", 1)


def written(*args: Any, name: str = "new.xyz") -> list[Atoms]:
    """Frames of a quiet run."""
    out, err = run(*args, "-o", name, "--overwrite", "--quiet")
    assert (out, err) == ("", "")
    frames = read(name, ":")
    assert isinstance(frames, list)
    return frames


def same(first: list[Atoms], second: list[Atoms]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a.positions, b.positions) and np.array_equal(a.cell.array, b.cell.array)
        for a, b in zip(first, second, strict=True)
    )


# --- what it writes ---------------------------------------------------------------------------------------------------


def test_the_command_writes_what_the_library_finds() -> None:
    frames = written(*BASE, "--generations", 2, "--seed", 3, "--apart", -99)
    found = generate(
        read("start.xyz", ":"), Reference.load("train.qref"), 8.0, generations=2, rng=3, apart=-99,
        labels=["start.xyz, frame 0", "start.xyz, frame 1"], scope="the reference: train.qref",
    )  # fmt: skip
    assert len(frames) == len(found) == 4
    for atoms, frame in zip(frames, found, strict=True):
        np.testing.assert_array_equal(atoms.positions, frame.atoms.positions)
        np.testing.assert_allclose(atoms.arrays["dH"], frame.atoms.arrays["dH"], atol=1e-7)
        assert set(atoms.info) == set(frame.atoms.info)
        assert atoms.info["dH_scope"] == "the reference: train.qref, and the frames kept before this one"
    assert [atoms.info["parent"] for atoms in frames[:2]] == ["start.xyz, frame 0", "start.xyz, frame 1"]
    assert sorted(path.name for path in Path().iterdir() if "new" in path.name) == ["new.xyz"]


def test_the_table_and_the_document() -> None:
    out, err = run(*BASE, "--number", 3, "--generations", 2, "-o", "new.xyz", "--json", "found.json")
    found = json.loads(Path("found.json").read_text(encoding="utf-8"))
    frames = read("new.xyz", ":")
    assert re.search(r"^start +2 frames of 64 atoms \(start.xyz\)$", out, re.M)
    assert re.search(r"^target +largest dH 8 ± 2 nats$", out, re.M)
    assert re.search(r"^guard +Cu-Cu 1\.\d{3} Å \(reference:0.9\)$", out, re.M)
    assert re.search(rf"^written +new.xyz: {len(frames)} frames$", out, re.M)
    assert re.search(r"^time .*walks \d", out, re.M)
    counts = re.search(r"^walks +6 in 2 generations: (\d) kept, (\d) missed the target, (\d) repeat others$", out, re.M)
    assert counts is not None
    assert [int(n) for n in counts.groups()] == [found["n_kept"], found["n_missed"], found["n_repeated"]]
    assert found["n_walks"] == 6
    assert found["n_kept"] == len(frames)
    kept = [walk for walk in found["walks"] if walk["outcome"] == "kept"]
    assert [walk["index"] for walk in kept] == list(range(len(frames)))
    assert all(walk["index"] is None for walk in found["walks"] if walk["outcome"] != "kept")
    rows = [line.split() for line in out.splitlines() if re.match(r" +\d+  g\d", line)]
    assert len(rows) == len(frames)
    for row, walk, atoms in zip(rows, kept, frames, strict=True):
        assert row[1] == walk["name"] == atoms.info["name"]
        assert f"{walk['reached']:.2f}" in row
        assert f"{walk['max_dh']:.2f}" in row
        assert f"{walk['min_distance']:.3f}" in row
        assert row[-1] == f"{walk['acceptance']:.0%}"
        assert walk["reached"] == pytest.approx(atoms.info["dH_reached"])
        assert walk["mean_dh"] == pytest.approx(atoms.arrays["dH"].mean(), abs=1e-6)
        assert walk["trace"][-1][0] == walk["moves"]
    assert found["command"] == "generate"
    assert found["inputs"] == ["start.xyz"]
    assert found["references"] == ["train.qref"]
    assert (found["seed"], found["k"], found["bandwidth"], found["target"]) == (0, 32, 0.03, 8.0)
    assert {"walks", "total"} <= set(found["timings"])
    assert err == "" or err.startswith("warning:")


def test_frames_serve_as_a_reference_too() -> None:
    saved = written(*BASE)
    made = written("start.xyz", "--reference", "train.xyz", "--bandwidth", H, "--target", 8)
    assert same(saved, made)
    assert made[0].info["dH_scope"].startswith("the reference: train.xyz")


def test_compressed_output() -> None:
    assert same(written(*BASE), written(*BASE, name="new.xyz.gz"))
    assert Path("new.xyz.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_constraints_of_files_are_obeyed() -> None:
    (atoms,) = written("held.xyz", "--reference", "train.qref", "--target", 8, "--linger", 100)
    before = read("held.xyz")
    moved = (atoms.positions != before.positions).any(axis=1)
    assert not moved[:16].any()
    assert moved[16:].sum() > 8
    assert atoms.constraints[0].get_indices().tolist() == list(range(16))


def test_a_plot_is_drawn() -> None:
    pytest.importorskip("matplotlib")
    run(*BASE, "--generations", 3, "-o", "new.xyz", "--plot", "walks.png")
    assert Path("walks.png").read_bytes()[:4] == b"\x89PNG"
    run(*BASE, "--keep-all", "--steps", 2, "-o", "b.xyz", "--plot", "walks.svg")
    text = Path("walks.svg").read_text(encoding="utf-8")
    assert "<svg" in text


# --- options ----------------------------------------------------------------------------------------------------------

MEAN = {"--statistic": "mean", "--keep-all": None}
ALLOYS = {"FILES": "alloys.xyz", "--reference": "alloys.xyz"}

CHANGES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"--target": 4}, {}),
    ({"--width": 0.2}, {}),
    ({"--statistic": "mean"}, {}),
    ({"--statistic": "quantile"}, {}),
    ({"--quantile": 0.5}, {"--statistic": "quantile"}),
    ({"--number": 4}, {"--keep-all": None}),
    ({"--generations": 2}, {}),
    ({"--steps": 3, "--keep-all": None}, {"--keep-all": None}),
    ({"--linger": 5}, {}),
    ({"--burn-in": 1}, {}),
    ({"--temperature": 50}, MEAN),
    ({"--step-size": 0.05}, {}),
    ({"--atoms-per-move": 4}, {}),
    ({"--acceptance": 0.9}, MEAN),
    ({"--swaps": 0.5}, {**ALLOYS, "--species": "pairs"}),
    ({"--volume-moves": 0.5}, {}),
    ({"--shear-moves": 0.5}, {}),
    ({"--strain": 0.05}, {"--volume-moves": 0.5}),
    ({"--min-distance": 2.34}, MEAN),
    ({"--min-distance": "covalent:0.88"}, MEAN),
    ({"--min-distance": "Cu-Cu=2.33"}, MEAN),
    ({"--volume": "11.7:11.8"}, {"--volume-moves": 0.5, "--strain": 0.02, "--keep-all": None}),
    ({"--ceiling": 9}, MEAN),
    ({"--apart": 6.9}, {"--statistic": "mean", "--number": 6, "--steps": 1500, "--width": 1, "--apart": -9}),
    ({"--select": "0:4"}, {}),
    ({"--keep-all": None}, {"--statistic": "mean", "--number": 6, "--steps": 1500, "--width": 1, "--apart": 6.9}),
    ({"--seed": 1}, {}),
    ({"--bandwidth": 0.02}, {"--reference": "train.xyz"}),
    ({"--k": 20}, {"--reference": "train.xyz"}),
    ({"--cutoff": 4}, {"--reference": "train.xyz"}),
    ({"--species": "blocks"}, ALLOYS),
    ({"--type-map": "29=Ag,47=Cu"}, {**ALLOYS, **MEAN, "--min-distance": "covalent:0.75"}),
]


def words(options: dict[str, Any]) -> list[Any]:
    options = {"FILES": "start.xyz", "--reference": "train.qref", "--target": 8, "--jobs": 1} | options
    found = [options.pop("FILES")]
    for name, value in options.items():
        found += [name] if value is None else [name, value]
    return found


@pytest.mark.parametrize(("changed", "base"), CHANGES, ids=lambda value: " ".join(map(str, value)) or "default")
def test_every_option_changes_the_result(changed: dict[str, Any], base: dict[str, Any]) -> None:
    assert not same(written(*words(base)), written(*words(base | changed)))


def test_what_the_number_of_threads_changes() -> None:
    """Nothing but the number that is told."""
    out, _ = run(*BASE[:-1], 2, "-o", "two.xyz")
    assert "2 threads" in out
    out, _ = run(*BASE[:-1], 1, "-o", "one.xyz")
    assert "1 threads" in out
    assert Path("one.xyz").read_bytes() == Path("two.xyz").read_bytes()


def test_all_walks_are_written_on_request() -> None:
    args = (*BASE, "--statistic", "mean", "--number", 6, "--apart", 6.9, "--steps", 1500, "--width", 1)
    out, err = run(*args, "--keep-all", "-o", "all.xyz")
    frames = read("all.xyz", ":")
    assert len(frames) == 6
    outcomes = [atoms.info["outcome"] for atoms in frames]
    assert {"kept", "repeated"} <= set(outcomes)
    assert out.count("  repeated\n") == outcomes.count("repeated")
    assert f"{outcomes.count('repeated')} of 6 walks ended too close to a frame kept before" in err
    assert len(written(*args)) == outcomes.count("kept")


def test_warnings() -> None:
    _, err = run(*BASE, "--steps", 4, "--keep-all", "-o", "a.xyz")
    assert re.search(r"warning: \d of 2 walks missed the target \(they came to .* nats\)", err)
    _, err = run(*BASE, "--generations", 2, "--steps", 2, "--keep-all", "--target", 50, "-o", "b.xyz")
    assert "warning: nothing of generation 1 was kept, so that it is the last" in err
    _, err = run(*BASE, "--min-distance", 2.35, "--step-size", 1, "--burn-in", 0, "--keep-all", "-o", "c.xyz")
    assert "had fewer than 5% of their moves accepted" in err
    assert run(*BASE, "--steps", 4, "--keep-all", "-o", "d.xyz", "--quiet") == ("", "")


# --- interruptions ----------------------------------------------------------------------------------------------------

LONG = ("start.xyz", "--reference", "train.qref", "--target", "8", "--number", "3", "--generations", "60", "--linger",
        "100", "--apart", "-99", "--steps", "2000", "-o", "new.xyz")  # fmt: skip
JOURNAL = Path("new.xyz.walks.progress.jsonl")


def entries() -> int:
    return len(JOURNAL.read_bytes().splitlines()) if JOURNAL.exists() else 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals of this kind are not everywhere")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_an_interrupted_run_goes_on_where_it_was(number: signal.Signals) -> None:
    code = "from quests_zenn.cli.main import quests_zenn; quests_zenn()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "generate", *LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    patience = time.monotonic() + 60.0
    while entries() < 6 and process.poll() is None and time.monotonic() < patience:
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert out == ""
    assert not Path("new.xyz").exists()
    done = entries()
    assert done >= 5
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert f"finished walks are kept in {JOURNAL}" in err
        assert "Traceback" not in err
    else:
        assert process.returncode == -signal.SIGKILL
    few = [*LONG[:8], "4", *LONG[9:]]  # four generations are enough to compare
    _, err = run(*few, "--step-size", "0.2", status=1)
    assert "step size 0.1, and this one has 0.2; repeat that command to go on" in err
    run(*few)
    resumed = Path("new.xyz").read_bytes()
    assert not JOURNAL.exists()
    run(*few, "--overwrite")
    assert Path("new.xyz").read_bytes() == resumed


def test_an_output_is_replaced_only_when_the_new_one_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    run(*BASE, "-o", "new.xyz")
    old = Path("new.xyz").read_bytes()
    _, err = run(*BASE, "-o", "new.xyz", "--seed", 1, status=1)
    assert "new.xyz: exists already" in err

    def fail(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("quests_zenn.cli._generate.write_scored", fail)
        run(*BASE, "-o", "new.xyz", "--seed", 1, "--overwrite", status=130)
    assert Path("new.xyz").read_bytes() == old
    assert entries() == 4  # all walks are there
    run(*BASE, "-o", "new.xyz", "--seed", 1, "--overwrite")
    assert Path("new.xyz").read_bytes() != old
    assert not JOURNAL.exists()


# --- refusals ---------------------------------------------------------------------------------------------------------


def refused(sentence: str, *args: Any, status: int = 1) -> None:
    before = sorted(path.name for path in Path().iterdir())
    _, err = run(*args, status=status)
    assert re.search(sentence, err), err
    assert "Traceback" not in err
    if status == 1:
        assert len([line for line in err.splitlines() if not line.startswith("compiling")]) == 1
    assert sorted(path.name for path in Path().iterdir()) == before


def test_bad_input_is_refused_before_any_work() -> None:
    known = ("--reference", "train.qref", "-o", "new.xyz")
    refused(r"missing.xyz: no such file", "missing.xyz", *known)
    refused(r"missing.qref: no such file", "start.xyz", "--reference", "missing.qref", "-o", "new.xyz")
    refused(r"gold.xyz, frame 0: it holds Au, which the reference \(Cu\) never saw", "gold.xyz", *known)
    refused(
        r"close.xyz, frame 1: atoms 2 and 4 \(Cu-Cu\) are 1.798 Å apart, closer than the guard", "close.xyz", *known
    )
    refused(r"start.xyz: is an input", "start.xyz", "--reference", "train.qref", "-o", "start.xyz", "--overwrite")
    refused(r"train.qref: is an input", "start.xyz", "--reference", "train.qref", "--overwrite", "-o", "train.qref")
    refused(r"new.cif: scored frames are extended XYZ", "start.xyz", "--reference", "train.qref", "-o", "new.cif")
    refused(r"was made with bandwidth 0.03, and --bandwidth 0.02", "start.xyz", *known, "--bandwidth", 0.02)
    refused(r"was made with species none", "start.xyz", *known, "--species", "pairs")
    refused(r"swaps need a reference with species blocks or pairs", "start.xyz", *known, "--swaps", 0.1)
    refused(r"names Ag, which is in none of the starting frames", "start.xyz", *known, "--min-distance", "Ag-Ag=2")
    refused(r"its volume of 11.\d+ Å3 per atom is outside the limits", "start.xyz", *known, "--volume", "12:14")
    refused(r"no atom can move", "start.xyz", *known, "--select", "Ag")
    refused(r"must not exceed 1", "start.xyz", *known, "--volume-moves", 0.7, "--shear-moves", 0.7)
    refused(r"strain must be at most", "start.xyz", *known, "--strain", 3)
    refused(r"walks.txt: a plot is written as", "start.xyz", *known, "--plot", "walks.txt")


def test_nothing_near_the_target_is_one_sentence_and_no_file() -> None:
    refused(
        r"no walk came within 2 nats of the target 500 \(the nearest to .*\), so that nothing was written",
        *BASE, "--target", 500, "--steps", 20, "-o", "new.xyz",
    )  # fmt: skip
    refused(r"each walk ended at a structure like one kept before", *BASE, "--apart", 30, "-o", "new.xyz")


@pytest.mark.parametrize(
    "words",
    [
        ("--target", "nan"), ("--target", "inf"), ("--width", 0), ("--statistic", "median"), ("--quantile", 2),
        ("--number", 0), ("--generations", 0), ("--steps", 0), ("--linger", -1), ("--burn-in", -1),
        ("--temperature", -1), ("--step-size", 0), ("--atoms-per-move", 0), ("--acceptance", 1.5), ("--swaps", -0.1),
        ("--volume-moves", 2), ("--shear-moves", 2), ("--strain", 0), ("--min-distance", "near"),
        ("--min-distance", "-1"), ("--min-distance", "Cu=2"), ("--volume", "14"), ("--volume", "14:12"),
        ("--ceiling", "nan"), ("--apart", "x"), ("--seed", -1), ("--jobs", 0), ("--unknown", 1),
    ],
)  # fmt: skip
def test_wrong_usage(words: tuple[Any, ...]) -> None:
    refused(r"Error: ", *BASE, "-o", "new.xyz", *words, status=2)


def test_what_must_be_given() -> None:
    refused(r"Missing option '--reference'", "start.xyz", "-o", "new.xyz", status=2)
    refused(r"Missing option '-o'", "start.xyz", "--reference", "train.qref", status=2)
    refused(r"Missing argument", "--reference", "train.qref", "-o", "new.xyz", status=2)
