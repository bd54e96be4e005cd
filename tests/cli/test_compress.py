"""``quests-zenn compress``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write

from quests_zenn.cli import _options, compress
from quests_zenn.cli._compress import CompressRun
from quests_zenn.compression import METHODS, DatasetCompressor, Size, _state
from quests_zenn.uq import Reference

ROOT = Path(__file__).resolve().parents[2]

H = 0.015

N = 12


def run(*args: Any, status: int = 0) -> tuple[str, str]:
    """What the command says on stdout and stderr."""
    return commands.run("compress", *args, status=status)


def document(*args: Any) -> dict[str, Any]:
    out, _ = run(*args, "--quiet", "--json", "found.json", "--overwrite")
    assert out == ""
    found: dict[str, Any] = json.loads(Path("found.json").read_text(encoding="utf-8"))
    return found


def refused(sentence: str, *args: Any, status: int = 1) -> None:
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    _, err = run(*args, status=status)
    assert re.search(sentence, " ".join(err.split())), err
    assert "Traceback" not in err
    if status == 1:
        assert len([line for line in err.splitlines() if not line.startswith("compiling")]) == 1
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def structures() -> list[Atoms]:
    frames = []
    for i in range(N):
        atoms = bulk("Cu", cubic=True) * ((2, 1, 1) if i % 3 else (2, 2, 1))
        atoms.rattle(0.06 * (1 + i % 4), seed=i)
        atoms.info |= {"config_type": ("bulk", "hot", "odd, very")[i % 3], "number": i, "REF_energy": -3.25 * i}
        atoms.info |= {"weight": 1.0 + i, "charge": i % 2}
        atoms.arrays["REF_forces"] = np.arange(3.0 * len(atoms)).reshape(-1, 3) - i
        atoms.calc = SinglePointCalculator(atoms, energy=-1.5 * i, forces=np.full((len(atoms), 3), 0.25 * i))
        atoms.set_constraint(FixAtoms([0, 2]))
        frames.append(atoms)
    return frames


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    frames = structures()
    write("data.xyz", frames)
    for number, atoms in enumerate(frames):
        atoms.calc = None
        atoms.symbols[::4] = "Ag"
        if number == 7:
            atoms.symbols[1] = "Au"
    write("alloy.xyz", frames)
    return tmp_path


ARGS = ("data.xyz", "--bandwidth", H, "--k", 12)


def compressor(**options: Any) -> DatasetCompressor:
    return DatasetCompressor(read("data.xyz", ":"), H, k=12, **options)


# --- what is found ----------------------------------------------------------------------------------------------------


def test_the_document_is_what_the_library_finds() -> None:
    found = document(*ARGS, "--size", "0.5")
    data = compressor()
    expected = data.select("msc", 0.5)
    assert found["indices"] == expected.indices.tolist()
    assert found["scores"][0] is None  # infinite
    np.testing.assert_array_equal(found["scores"][1:], expected.scores[1:])
    assert found["labels"] == [f"data.xyz, frame {i}" for i in expected.indices]
    summary = data.get_summary(expected.indices)
    assert set(found["metrics"]) == {*summary, "original_entropy", "original_diversity"}
    for name, value in summary.items():
        assert found["metrics"][name] == pytest.approx(value, abs=1e-9), name
    assert found["metrics"]["original_diversity"] == float(data.whole.diversity)
    curve = data.get_curve(expected.indices)
    assert found["curve"]["sizes"] == curve.sizes.tolist() == [1, 2, 3, 4, 5, 6]
    assert found["curve"]["n_environments"] == curve.n_environments.tolist()
    for name in ("entropy", "diversity", "overlap"):
        np.testing.assert_allclose(found["curve"][name], getattr(curve, name), atol=1e-12)
    assert (found["method"], found["size"], found["size_kind"], found["stop"]) == (
        "msc", "0.5", "structures", "the size is reached",
    )  # fmt: skip
    assert (found["n_frames"], found["n_environments"], found["bandwidth_source"]) == (N, 128, "given")


def test_the_table() -> None:
    out, err = run(*ARGS, "--size", "0.5", "-o", "small.xyz")
    assert err == ""
    assert not re.search(r"-0\.0000", run(*ARGS, "--size", "1.0")[0])
    assert re.search(r"; 1 thread\)$", run(*ARGS, "--jobs", 1)[0], re.M)
    for row in (
        r"structures +12",
        r"environments +128",
        r"descriptor +k = 12, cutoff 5 Å, species none",
        r"bandwidth +0\.015 1/Å \(given\)",
        r"method +msc, size 0\.5",
        r"ended +the size is reached",
        r"chosen +6 structures \(50\.0%\), \d+ environments \(\d+\.\d%\)",
        r"entropy H +\d\.\d{4} nats; whole set \d\.\d{4} nats",
        r"diversity D +\d\.\d{4} nats; whole set \d\.\d{4} nats; loss -?\d\.\d{4} nats",
        r"overlap +\d+\.\d\d% of all environments are covered",
        r"written +small\.xyz: 6 structures",
        r"time +\d.*selection \d.*curve \d.*writing \d.*threads\)",
    ):
        assert re.search(f"^{row}$", out, re.M), (row, out)
    out, _ = run(*ARGS)
    assert re.search(r"^method +msc, size 0\.1 \(default\)$", out, re.M)
    assert re.search(r"^chosen +2 structures", out, re.M)
    assert sorted(path.name for path in Path().iterdir()) == ["alloy.xyz", "data.xyz", "small.xyz"]


@pytest.mark.parametrize(
    ("size", "expected"), [("3", 3), ("0.25", 3), ("1.0", 12), ("40env", None), ("0.25env", None), ("auto", None)]
)
def test_sizes(size: str, expected: int | None) -> None:
    found = document(*ARGS, "--size", size)
    assert found["indices"] == compressor().get_indices("msc", size).tolist()
    assert found["size"] == str(Size.parse(size))
    if expected is not None:
        assert len(found["indices"]) == expected


def test_targets() -> None:
    found = document(*ARGS, "--overlap", 0.9)
    assert found["indices"] == compressor().get_indices("msc", Size("overlap", 0.9)).tolist()
    assert found["metrics"]["overlap"] >= 0.9
    assert found["curve"]["overlap"][-2] < 0.9
    lossy = document(*ARGS, "--max-loss", 0.3)
    assert lossy["indices"] == compressor().get_indices("msc", Size("max_loss", 0.3)).tolist()
    assert lossy["metrics"]["loss"] <= 0.3
    lossless = document(*ARGS, "--max-loss", 0)
    assert lossless["indices"] == compressor().get_indices("msc", Size("max_loss", 0.0)).tolist()
    assert lossless["metrics"]["loss"] < 1e-6
    out, _ = run(*ARGS, "--overlap", 0.9)
    assert re.search(r"^method +msc, as few as cover 0\.9 of all environments$", out, re.M)
    out, _ = run(*ARGS, "--max-loss", 0.3)
    assert re.search(r"^method +msc, as few as lose 0\.3 nats of D$", out, re.M)


@pytest.mark.parametrize("method", METHODS)
def test_methods(method: str) -> None:
    reference = ("--reference", "data.xyz@:2") if method == "msc_conditional" else ()
    found = document(*ARGS, "--method", method, "--size", 4, "--seed", 3, *reference)
    options: dict[str, Any] = {"random_state": 3}
    if reference:
        known = Reference.fit("data.xyz@:2", H, k=12)
        options |= {"reference": known}
    assert found["indices"] == compressor().get_indices(method, 4, **options).tolist()
    assert found["method"] == method
    assert set(found["scores"]) == {None} or method not in ("random", "k_means", "direct")


def test_the_methods_of_the_option_are_those_of_the_library() -> None:
    assert compress.METHODS == METHODS


def test_every_option_counts() -> None:
    usual = document(*ARGS, "--size", 6)["indices"]
    assert document("data.xyz", "--k", 12, "--bandwidth", 0.3, "--size", 6)["indices"] != usual
    assert document("data.xyz", "--bandwidth", H, "--k", 5, "--size", 6)["k"] == 5
    assert document(*ARGS, "--size", 6, "--cutoff", 3.0)["indices"] != usual
    assert document(*ARGS, "--size", 6, "--jobs", 1)["indices"] == usual
    random = [document(*ARGS, "--size", 6, "--method", "random", "--seed", seed)["indices"] for seed in (0, 1)]
    assert random[0] != random[1]
    assert document("data.xyz", "--bandwidth", "auto")["bandwidth_source"].startswith("auto: volume rule")
    several = document("data.xyz@:3", "data.xyz@3:", "--bandwidth", H, "--k", 12, "--size", 6)
    assert several["indices"] == usual


# --- what is written --------------------------------------------------------------------------------------------------


def test_frames_keep_all_that_they_carry() -> None:
    run(*ARGS, "--size", 5, "-o", "small.xyz")
    chosen = compressor().select("msc", 5)
    frames, small = read("data.xyz", ":"), read("small.xyz", ":")
    assert len(small) == 5
    for order, (index, atoms) in enumerate(zip(chosen.indices.tolist(), small, strict=True)):
        before = frames[index]
        added = {"selection_order": order, "selection_index": index, "selection_method": "msc"}
        added |= {"selection_source": f"data.xyz, frame {index}"}
        if order:
            added["selection_score"] = pytest.approx(chosen.scores[order])
        assert dict(atoms.info) == {**before.info, **added}
        assert set(atoms.arrays) == set(before.arrays)
        for name, values in before.arrays.items():
            np.testing.assert_array_equal(atoms.arrays[name], values)
        assert atoms.get_potential_energy() == before.get_potential_energy()
        np.testing.assert_array_equal(atoms.get_forces(), before.get_forces())
        np.testing.assert_array_equal(atoms.constraints[0].index, [0, 2])
        np.testing.assert_array_equal(atoms.cell, before.cell)
    run(*ARGS, "--size", 5, "-o", "sorted.xyz.gz", "--sort", "input")
    ordered = read("sorted.xyz.gz", ":")
    assert [atoms.info["number"] for atoms in ordered] == sorted(chosen.indices.tolist())
    assert {atoms.info["number"]: atoms.info["selection_order"] for atoms in ordered} == {
        index: order for order, index in enumerate(chosen.indices.tolist())
    }


def test_notes_of_an_earlier_selection_are_replaced() -> None:
    run(*ARGS, "--size", 6, "-o", "first.xyz")
    run("first.xyz", "--method", "random", "--size", 3, "-o", "second.xyz")
    second = read("second.xyz", ":")
    assert [atoms.info["selection_order"] for atoms in second] == [0, 1, 2]
    assert not any("selection_score" in atoms.info for atoms in second)
    assert {atoms.info["selection_source"].split(",")[0] for atoms in second} == {"first.xyz"}


def test_a_beginning_of_the_output_is_a_smaller_selection() -> None:
    run(*ARGS, "--size", 8, "-o", "eight.xyz")
    run(*ARGS, "--size", 3, "-o", "three.xyz")
    eight, three = (read(name, ":") for name in ("eight.xyz", "three.xyz"))
    assert [atoms.info["number"] for atoms in eight[:3]] == [atoms.info["number"] for atoms in three]


def test_changed_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    select = DatasetCompressor.select
    frames = read("data.xyz", ":")
    changed: list[Atoms] = []

    def change(self: DatasetCompressor, *args: Any, **options: Any) -> Any:
        write("data.xyz", changed)
        return select(self, *args, **options)

    monkeypatch.setattr(DatasetCompressor, "select", change)
    moved = [atoms.copy() for atoms in frames]
    moved[3].positions[0, 0] += 0.01
    for new, where in ((frames[:-1], "a.xyz"), ([*frames, frames[0]], "data.xyz, frame 12"), (moved, "frame 3")):
        write("data.xyz", frames)
        changed[:] = new
        _, err = run(*ARGS, "-o", "a.xyz", status=1)
        assert re.search(f"{where}: the input changed while it was in use", err)
        assert not Path("a.xyz").exists()


def test_nothing_is_overwritten_unasked() -> None:
    Path("there.xyz").write_text("mine")
    refused("there.xyz: exists already", *ARGS, "-o", "there.xyz")
    refused("there.xyz: exists already", *ARGS, "-o", "small.xyz", "--json", "there.xyz")
    run(*ARGS, "-o", "there.xyz", "--overwrite")
    assert len(read("there.xyz", ":")) == 2
    refused("is an input, and would be replaced", *ARGS, "-o", "data.xyz", "--overwrite")
    refused("is an input", *ARGS, "--reference", "alloy.xyz", "-o", "alloy.xyz", "--overwrite")
    refused("two outputs have the same name", *ARGS, "-o", "a.xyz", "--json", "a.xyz")
    told = r"the structures chosen are written as extended XYZ; its name must end in \.xyz, \.extxyz or \.xyz\.gz"
    refused(f"small.traj: {told}", *ARGS, "-o", "small.traj")
    refused(r"a plot is written as", *ARGS, "--plot", "small.gif")
    noted = "is where this run notes down how far it has come; choose another name"
    state = "small.xyz.progress.npz"
    refused(f"{state}: {noted}", *ARGS, "-o", "small.xyz", "--json", state)
    refused(f"{state}: {noted}", state, "--json", "small.xyz")
    refused(f"{state}: {noted}", "data.xyz", "--descriptors", state, "-o", "small.xyz")
    Path("folder.xyz.progress.npz").mkdir()
    _, err = run(*ARGS, "-o", "folder.xyz", status=1)
    assert "folder.xyz.progress.npz: is a folder, not a file" in err
    Path("folder.xyz.progress.npz").rmdir()
    refused("progress.npz: the name is too long for a file", *ARGS, "-o", f"{'x' * 245}.xyz")
    refused("x.xyz: the name is too long for a file", *ARGS, "-o", f"{'x' * 300}.xyz")
    Path(state).write_text("junk")
    refused("is no state of a selection", *ARGS, "-o", "small.xyz")
    assert "pickle" not in run(*ARGS, "-o", "small.xyz", status=1)[1]


def test_nothing_fits() -> None:
    for size, told in (("5env", "the smallest has 8 environments"), ("5cost", "the cheapest costs 232 electrons")):
        args = (*ARGS, "--size", size, "--cost", "electrons", "-o", "small.xyz", "--json", "small.json")
        refused(f"--size {size} is too little for any structure: {told}", *args)
    refused(r"the cheapest costs 1 \(weight\)", *ARGS, "--size", "0.001cost", "--cost", "weight", "-o", "small.xyz")


# --- keep, by, weights, costs -----------------------------------------------------------------------------------------


def test_structures_are_pinned() -> None:
    found = document(*ARGS, "--size", 6, "--keep", "config_type=hot")
    assert found["indices"] == compressor().get_indices("msc", 6, keep=[1, 4, 7, 10]).tolist()
    assert found["indices"][:4] == [1, 4, 7, 10]
    assert (found["n_kept"], found["scores"][:4], found["keep"]) == (4, [None] * 4, ["config_type=hot"])
    several = document(*ARGS, "--size", 8, "--keep", "number=5,3", "--keep", "charge=1", "--keep", "number=8")
    assert sorted(several["indices"][:7]) == [1, 3, 5, 7, 8, 9, 11]
    assert several["n_kept"] == 7
    assert document(*ARGS, "--size", 6, "--keep", "config_type=odd, very")["n_kept"] == 4
    out, _ = run(*ARGS, "--size", 6, "--keep", "config_type=hot")
    assert re.search(r"^chosen .*; 4 of them by --keep$", out, re.M)
    refused(
        "--keep config_type=cold: no frame has the config_type 'cold'; there are bulk, hot, odd, very",
        *ARGS, "--keep", "config_type=cold",
    )  # fmt: skip
    refused("no frame has the config_type 'cold'", *ARGS, "--keep", "config_type=hot,cold")
    refused(r"data\.xyz, frame 0: no key 'phase' \(its info holds .*\); nor has any", *ARGS, "--keep", "phase=a")
    refused("is not of the form KEY=VALUE", *ARGS, "--keep", "config_type", status=2)
    refused("the 4 structures to be kept count 4", *ARGS, "--size", 2, "--keep", "config_type=hot")


def test_groups_are_balanced() -> None:
    by = np.arange(N) % 3
    equal = document(*ARGS, "--size", 6, "--by", "config_type")
    assert equal["indices"] == compressor().get_indices("msc", 6, by=by).tolist()
    assert equal["groups"]["names"] == ["bulk", "hot", "odd, very"]
    assert equal["groups"]["n_frames"] == [4, 4, 4]
    assert equal["groups"]["n_frames_chosen"] == [2, 2, 2]
    assert equal["groups"]["n_environments"] == [64, 32, 32]
    assert sum(equal["groups"]["n_environments_chosen"]) == equal["metrics"]["compressed_envs"]
    share = document(*ARGS, "--size", "64env", "--by", "config_type", "--balance", "proportional")
    assert share["groups"]["n_environments_chosen"] == [32, 16, 16]
    assert (share["by"], share["balance"]) == ("config_type", "proportional")
    files = document("data.xyz@:2", "data.xyz@2:", *ARGS[1:], "--size", 4, "--by", "file")
    assert files["groups"]["n_frames_chosen"] == [2, 2]
    out, _ = run(*ARGS, "--size", 6, "--by", "config_type")
    assert re.search(
        r"^config_type +structures +chosen +envs +chosen\nbulk +4 +2 +64 +32\nhot +4 +2 +32 +16$", out, re.M
    )
    refused(
        r"no key 'phase' to group frames by .*; nor has any other frame \(--by file works always\)$",
        *ARGS, "--by", "phase",
    )  # fmt: skip
    by_energy = document(*ARGS, "--size", 3, "--by", "energy")
    assert [float(name) for name in by_energy["groups"]["names"]] == [-1.5 * i for i in reversed(range(N))]
    refused("--by frame would make each structure a group of its own", *ARGS, "--by", "frame", status=2)
    refused("--balance belongs to --by", *ARGS, "--balance", "equal", status=2)


def test_weights_and_costs() -> None:
    weighted = document(*ARGS, "--size", 6, "--weight", "weight")
    assert weighted["indices"] == compressor(weights=np.arange(1.0, N + 1)).get_indices("msc", 6).tolist()
    assert weighted["weight"] == "weight"
    atoms = np.array([len(frame) for frame in read("data.xyz", ":")])
    for cost, costs in (("atoms", atoms), ("electrons", 29 * atoms), ("weight", np.arange(1.0, N + 1))):
        found = document(*ARGS, "--size", "0.5cost", "--cost", cost)
        chosen = compressor(costs=costs).get_indices("msc", "0.5cost")
        assert found["indices"] == chosen.tolist()
        assert found["total_cost"] == costs[chosen].sum()
    out, _ = run(*ARGS, "--size", "1000cost", "--cost", "electrons")
    assert re.search(r"^cost +\d+ of 3,712 electrons$", out, re.M)
    out, _ = run(*ARGS, "--size", "20cost", "--cost", "weight")
    assert re.search(r"^cost +\d+ of 78 \(weight\)$", out, re.M)
    refused(r"data\.xyz, frame 0: no key 'w' for --weight \(its info holds ", *ARGS, "--weight", "w")
    refused(r"frame 0: --cost needs positive numbers, and its 'number' is 0", *ARGS, "--cost", "number")
    refused(
        r"frame 0: --weight needs positive numbers, and its 'config_type' is 'bulk'", *ARGS, "--weight", "config_type"
    )
    frames = read("data.xyz", ":")
    del frames[4].info["weight"]
    write("lacking.xyz", frames)
    refused(r"lacking\.xyz, frame 4: no key 'weight' for --weight", "lacking.xyz", "--weight", "weight")


# --- references -------------------------------------------------------------------------------------------------------


def test_a_reference_brings_its_parameters() -> None:
    Reference.fit("data.xyz@:4", H, k=12).save("known.qref")
    saved = document("data.xyz", "--reference", "known.qref", "--size", 4)
    frames = document(*ARGS, "--reference", "data.xyz@:2", "--reference", "data.xyz@2:4", "--size", 4)
    reference = Reference.fit("data.xyz@:4", H, k=12)
    expected = compressor().select("msc_conditional", 4, reference=reference)
    for found in (saved, frames):
        assert found["indices"] == expected.indices.tolist()
        np.testing.assert_array_equal(found["scores"], expected.scores)
        assert (found["method"], found["k"], found["bandwidth"]) == ("msc_conditional", 12, H)
        assert found["n_reference"] == len(reference)
        assert not set(found["indices"]) & set(range(4))
        assert 0.2 < found["reference_overlap"] < found["metrics"]["overlap"]
    assert saved["bandwidth_source"] == "of the reference"
    out, _ = run("data.xyz", "--reference", "known.qref", "--size", 4)
    assert re.search(r"^reference +48 environments \(known\.qref\)$", out, re.M)
    assert re.search(r"^overlap +\d+\.\d\d% of all .* are covered; \d+\.\d\d% by the reference alone$", out, re.M)
    refused("was made with k 12, and --k 8 asks for another", "data.xyz", "--reference", "known.qref", "--k", 8)
    refused("--method fps knows no reference", *ARGS, "--reference", "known.qref", "--method", "fps", status=2)
    refused("--method msc_conditional needs a --reference", *ARGS, "--method", "msc_conditional", status=2)


@pytest.mark.parametrize("species", ["blocks", "pairs"])
def test_references_of_other_elements(species: str) -> None:
    Reference.fit("data.xyz@:3", H, k=6, species=species).save("copper.qref")
    found = document("alloy.xyz", "--reference", "copper.qref", "--size", 4)
    assert found["species"] == species
    assert found["indices"][1] == 7  # the first brings silver, and this one gold
    assert found["scores"][:2] == [None, None]
    both = DatasetCompressor(read("alloy.xyz", ":"), H, k=6, species=species)
    known = Reference.fit("data.xyz@:3", H, k=6, species=species, elements=["Ag", "Au", "Cu"])
    assert found["indices"] == both.get_indices("msc_conditional", 4, reference=known).tolist()
    _, err = run("alloy.xyz", "--reference", "copper.qref", "--size", 4)
    assert "warning: 2 structures have infinite scores: each holds an element that nothing known before" in err
    # the reference knows more elements than the data set
    Reference.fit("alloy.xyz", H, k=6, species=species).save("alloy.qref")
    assert document("data.xyz", "--reference", "alloy.qref", "--size", 4)["elements"] == ["Cu"]


def test_centres_that_are_not_told_apart() -> None:
    Reference.fit("alloy.xyz@:3", H, k=6, species="blocks", same_centre=False).save("loose.qref")
    found = document("alloy.xyz", "--reference", "loose.qref", "--size", 4)
    env = Reference.fit("alloy.xyz", H, k=6, species="blocks")
    data = DatasetCompressor.from_environments(env.x, env.frame_offsets, H)
    known = Reference.fit("alloy.xyz@:3", H, k=6, species="blocks", elements=["Ag", "Au", "Cu"])
    assert found["indices"] == data.get_indices("msc_conditional", 4, reference=known.x).tolist()


def test_a_reference_that_covers_everything() -> None:
    args = (*ARGS, "--reference", "data.xyz", "--overlap", 0.95, "-o", "none.xyz", "--plot", "none.png")
    pytest.importorskip("matplotlib")
    out, err = run(*args, "--json", "none.json")
    assert re.search(
        r"^ended +the reference covers that already: 100\.0000% of the environments are covered$", out, re.M
    )
    assert re.search(r"^chosen +0 structures", out, re.M)
    assert re.search(r"^written +none\.json only$", out, re.M)
    assert re.search(
        r"^warning: nothing was chosen: the reference covers .*; none.xyz and none.png are not written$", err
    )
    found = json.loads(Path("none.json").read_text(encoding="utf-8"))
    assert (found["indices"], found["curve"], found["output"], found["random"]) == ([], None, None, [])
    assert (found["metrics"]["overlap"], found["metrics"]["entropy"]) == (1.0, None)
    assert not Path("none.xyz").exists()
    assert not Path("none.png").exists()
    out, _ = run(*args)
    assert re.search(r"^written +nothing$", out, re.M)
    out, err = run(*args[:-6], "--size", 2)
    assert "warning: the reference covers 100.00% of the environments already: what is chosen adds little\n" in err
    assert re.search(r"^chosen +2 structures", out, re.M)


def test_elements_that_a_reference_lacks() -> None:
    args = ("alloy.xyz", *ARGS[1:], "--reference", "data.xyz", "--size", 2)
    _, err = run(*args)
    assert "warning: the reference has never seen Ag Au; species none does not tell elements apart\n" in err
    _, err = run(*args, "--species", "blocks")
    assert "warning: the reference has never seen Ag Au\n" in err
    _, err = run(*ARGS, "--reference", "alloy.xyz", "--size", 2)
    assert "never seen" not in err


# --- environments that were written before ----------------------------------------------------------------------------


def test_descriptors_are_used_again() -> None:
    commands.run("descriptors", "data.xyz", "--k", 12, "-o", "data.npz")
    fresh = document(*ARGS, "--size", 6, "--by", "config_type")
    again = document("data.xyz", "--bandwidth", H, "--size", 6, "--by", "config_type", "--descriptors", "data.npz")
    for name in ("indices", "scores", "metrics", "labels", "k", "groups"):
        assert again[name] == fresh[name], name
    assert (again["descriptors"], again["n_incomplete"]) == ("data.npz", None)
    run("data.xyz", "--bandwidth", H, "--size", 6, "--descriptors", "data.npz", "-o", "small.xyz", "--quiet")
    assert len(read("small.xyz", ":")) == 6
    alone = document("data.npz", "--bandwidth", H, "--size", 6, "--cost", "electrons")
    direct = document("data.xyz", "--k", 12, "--bandwidth", H, "--size", 6, "--cost", "electrons")
    assert (alone["indices"], alone["labels"]) == (direct["indices"], direct["labels"])
    out, _ = run("data.npz", "--bandwidth", H)
    assert re.search(r"^environments +128 \(data\.npz\)$", out, re.M)
    Reference.fit("data.xyz@:4", H, k=12).save("known.qref")
    given = document("data.npz", "--reference", "known.qref", "--size", 4)
    assert given["indices"] == document("data.xyz", "--reference", "known.qref", "--size", 4)["indices"]


def test_descriptors_with_elements() -> None:
    commands.run("descriptors", "alloy.xyz", "--k", 6, "--species", "blocks", "--precision", "float32", "-o", "a.npz")
    fresh = document("alloy.xyz", "--k", 6, "--species", "blocks", "--bandwidth", H, "--size", 5)
    again = document("alloy.xyz", "--bandwidth", H, "--size", 5, "--descriptors", "a.npz")
    assert again["indices"] == fresh["indices"]
    assert again["species"] == "blocks"


def test_descriptors_of_something_else_are_refused() -> None:
    commands.run("descriptors", "data.xyz", "--k", 12, "-o", "data.npz")
    commands.run("descriptors", "data.xyz", "--k", 12, "-o", "data.npy")
    commands.run("descriptors", "data.xyz", "--k", 12, "--select", "0:4", "-o", "part.npz")
    commands.run("descriptors", "data.xyz", "--k", 12, "--select", "Zr,Cu", "-o", "all.npz")
    Reference.fit("data.xyz@:4", H).save("known.qref")
    np.savez("other.npz", x=np.zeros((3, 2)))
    Path("junk.npz").write_text("junk")
    moved = read("data.xyz", ":")
    moved[-1].rattle(0.05, seed=9)
    write("moved.xyz", moved)
    with_npz = ("--descriptors", "data.npz")
    for sentence, args in (
        ("data.npz: holds 12 frames, and data.xyz@:5 5", ("data.xyz@:5", *with_npz)),
        (r"data\.xyz, frame 0: has 16 atoms, and part\.npz 4 environments", ("data.xyz", "--descriptors", "part.npz")),
        (r"data\.npz: its environments are not those of alloy\.xyz, frame 0", ("alloy.xyz", *with_npz)),
        (r"data\.npz: its environments are not those of moved\.xyz, frame 11", ("moved.xyz", *with_npz)),
        ("data.npz: was made with k 12, and --k 8 asks for another", ("data.xyz", *with_npz, "--k", 8)),
        ("was made with cutoff 5.0, and --cutoff 6.0 asks", ("data.npz", "--cutoff", 6)),
        ("data.npz: was made with k 12, and the reference with 32", ("data.npz", "--reference", "known.qref")),
        ("data.npy: holds a matrix alone", ("data.xyz", "--descriptors", "data.npy")),
        ("data.npy: holds a matrix alone", ("data.npy",)),
        ("is no file that quests-zenn descriptors wrote \\(it lacks frame_offsets", ("other.npz",)),
        ("junk.npz: is no file that quests-zenn descriptors wrote", ("junk.npz",)),
        ("nothing.npz: no such file", ("nothing.npz",)),
        ("stands alone, got 2 files", ("data.npz", "data.xyz")),
        ("is a file of environments already", ("data.npz", *with_npz)),
        ("holds environments and no frames, which --output needs", ("data.npz", "-o", "small.xyz")),
        ("no frames, which --keep needs", ("data.npz", "--keep", "a=b")),
        ("no frames, which --by needs", ("data.npz", "--by", "config_type")),
        ("no frames, which --weight needs", ("data.npz", "--weight", "weight")),
        ("no frames, which --cost needs", ("data.npz", "--cost", "weight")),
        ("no volumes, which --bandwidth auto needs", ("data.npz", "--bandwidth", "auto")),
    ):
        refused(sentence, *args)


def test_every_frame_is_compared_with_its_environments() -> None:
    frames = [atoms for i in range(5) for atoms in structures()]
    write("many.xyz", frames)
    commands.run("descriptors", "many.xyz", "--k", 12, "-o", "many.npz")
    run("many.xyz", "--descriptors", "many.npz", "--bandwidth", H, "--size", 3)
    for number in (1, 30, 44, 58):
        changed = [atoms.copy() for atoms in frames]
        changed[number].symbols[1] = "Ag"
        write("changed.xyz", changed)
        refused(
            rf"many\.npz: its environments are not those of changed\.xyz, frame {number}; make the file again",
            "changed.xyz", "--descriptors", "many.npz",
        )  # fmt: skip
    moved = [atoms.copy() for atoms in frames]
    for atoms in moved[20:30]:
        atoms.rattle(0.05, seed=9)
    write("moved.xyz", moved)
    refused(r"not those of moved\.xyz, frame 2\d; make", "moved.xyz", "--descriptors", "many.npz")


def test_damaged_environments_are_refused() -> None:
    commands.run("descriptors", "alloy.xyz", "--k", 6, "--species", "blocks", "-o", "good.npz")
    with np.load("good.npz") as content:
        good = dict(content)
    run("good.npz", "--bandwidth", H)
    x, offsets, numbers = good["x"].copy(), good["frame_offsets"], good["numbers"]
    holed = x.copy()
    holed[5, 3] = np.nan
    for sentence, changed in (
        ("x is no matrix of environments", {"x": x.astype(int)}),
        ("x is no matrix of environments", {"x": x[:, 0]}),
        ("x is no matrix of environments", {"x": x.astype(np.float16)}),
        ("x holds values that are not finite", {"x": holed}),
        ("x has 43 columns, and k, species and elements make 44", {"x": x[:, 1:]}),
        ("frame_offsets are no whole numbers", {"frame_offsets": offsets + 0.5}),
        ("frame_offsets are no whole numbers", {"frame_offsets": offsets[:1]}),
        ("frame_offsets do not lead from 0 to the 128 rows", {"frame_offsets": offsets[:-1]}),
        ("frame_offsets do not lead from 0 to the 128 rows", {"frame_offsets": offsets[[0, 2, 1, -1]]}),
        ("some of its frames have no environments", {"frame_offsets": np.insert(offsets, 1, 0)}),
        ("numbers are not the atomic numbers of the 128 rows", {"numbers": numbers[:-1]}),
        ("numbers are not the atomic numbers of the 128 rows", {"numbers": numbers.astype(str)}),
        ("numbers hold what is no atomic number", {"numbers": numbers * 0}),
        ("numbers hold what is no atomic number", {"numbers": numbers * 0 + 500}),
        ("k is no number of neighbours", {"k": np.array("six")}),
        ("k is no number of neighbours", {"k": np.array([6])}),
        ("k is no number of neighbours", {"k": np.array(1)}),
        ("cutoff is no positive number", {"cutoff": np.array(np.nan)}),
        ("cutoff is no positive number", {"cutoff": np.array(-5.0)}),
        ("species is none of none, blocks, pairs", {"species": np.array("soap")}),
        ("elements are no chemical symbols", {"elements": np.array(["Ag", "Au", "copper"])}),
        ("elements are not those of its atoms", {"elements": np.array(["Ag", "Cu"])}),
        ("elements are not those of its atoms", {"elements": np.array(["Au", "Ag", "Cu"])}),
        (r"wrote$", {"elements": np.array(["Ag", None], dtype=object)}),
    ):
        np.savez("bad.npz", **(good | changed))
        refused(sentence, "bad.npz", "--bandwidth", H)
        refused(r"^quests-zenn compress: bad\.npz: ", "alloy.xyz", "--descriptors", "bad.npz")
    np.save("matrix.npy", x)
    Path("matrix.npy").rename("matrix.npz")
    refused("matrix.npz: is no file that quests-zenn descriptors wrote$", "matrix.npz")
    whole = Path("good.npz").read_bytes()
    Path("cut.npz").write_bytes(whole[: len(whole) // 2])
    refused("cut.npz: is no file that quests-zenn descriptors wrote$", "cut.npz")
    Path("cut.npz").write_bytes(whole[:3000] + bytes(100) + whole[3100:])
    refused("cut.npz: is no file that quests-zenn descriptors wrote$", "cut.npz")
    # what else a file holds is of no concern, and numbers may be of any kind of integer
    np.savez("more.npz", **(good | {"numbers": numbers.astype(np.uint8), "extra": np.array([None, {}], dtype=object)}))
    same = [
        document(name, "--bandwidth", H, "--cost", "electrons", "--size", "0.3cost")
        for name in ("good.npz", "more.npz")
    ]
    assert same[0]["indices"] == same[1]["indices"]


# --- figures, predictions, stages -------------------------------------------------------------------------------------


def test_plots() -> None:
    pytest.importorskip("matplotlib")
    texts = []
    for number, args in enumerate([(), ("--plot-seeds", 0), ("--plot-seeds", 1), ("--method", "fps")]):
        run(*ARGS, "--size", 8, "--plot", f"plot{number}.svg", *args)
        texts.append(re.sub(r"<dc:date>.*?</dc:date>|id=\"\w+\"|#\w+", "", Path(f"plot{number}.svg").read_text()))
    assert len(set(texts)) == 4
    found = document(*ARGS, "--size", 8, "--plot", "again.png", "--plot-seeds", 2, "--seed", 5)
    assert [curve["seed"] for curve in found["random"]] == [6, 7]
    assert all(curve["n_environments"][-1] <= found["metrics"]["compressed_envs"] for curve in found["random"])
    order = compressor().get_indices(
        "random", Size("environments", found["metrics"]["compressed_envs"]), random_state=6
    )
    assert found["random"][0]["diversity"] == pytest.approx(compressor().get_curve(order).diversity.tolist())
    assert document(*ARGS)["random"] == []
    unordered = document(*ARGS, "--size", 8, "--method", "k_means", "--plot", "means.png", "--plot-seeds", 1)
    assert unordered["curve"]["sizes"] == [8]  # beginnings mean nothing
    assert len(unordered["random"][0]["sizes"]) > 3
    run(*(f"data.xyz@{i}" for i in range(6)), *ARGS[1:], "--size", 2, "--plot", "many.svg", "--plot-seeds", 0)
    refused("--plot-seeds belongs to --plot", *ARGS, "--plot-seeds", 2, status=2)


@pytest.mark.parametrize(
    "args",
    [(), ("--size", "1.0"), ("--overlap", 0.9), ("--size", "auto"), ("--size", "20env", "--chunk", 4),
     ("--size", "9cost", "--cost", "atoms"), ("--descriptors", "data.npz"), ("--method", "k_means")],
)  # fmt: skip
def test_time_and_memory_are_predicted(args: tuple[Any, ...]) -> None:
    commands.run("descriptors", "data.xyz", "--k", 12, "-o", "data.npz")
    before = sorted(path.name for path in Path().iterdir())
    out, err = run(*ARGS, *args, "-o", "small.xyz", "--dry-run")
    assert re.fullmatch(
        r"12 structures, 128 environments: (about|at most) \d\S* m?s on \d+ threads, \d+ MB of memory\n", out
    )
    assert err == ""
    assert sorted(path.name for path in Path().iterdir()) == before
    if not args:
        out, _ = run("data.npz", "--dry-run", "--cost", "electrons", "--size", "0.2cost")
        assert out.startswith("12 structures, 128 environments: about")


def test_two_stages() -> None:
    found = document(*ARGS, "--size", 3, "--chunk", 4)
    expected = compressor().select("msc", 3, chunk=4)
    assert found["indices"] == expected.indices.tolist()
    assert found["n_candidates"] == expected.n_candidates
    out, _ = run(*ARGS, "--size", 3, "--chunk", 4)
    assert re.search(r"^method +msc, size 3, in chunks of 4$", out, re.M)
    assert re.search(rf"^candidates +{expected.n_candidates} structures, handed on by the chunks$", out, re.M)
    refused("--chunk does not go with --overlap", *ARGS, "--chunk", 4, "--overlap", 0.9, status=2)


# --- warnings and bad input -------------------------------------------------------------------------------------------


def test_more_than_there_is() -> None:
    for size, total in (("100", "12"), ("900env", "128"), ("999cost", "128")):
        out, err = run(*ARGS, "--size", size, "--cost", "atoms")
        assert err == f"warning: --size {size} is more than there is ({total}): all structures are kept\n"
        assert re.search(r"^ended +all structures are chosen$", out, re.M)
    _, err = run(*ARGS, "--size", "1.0")
    assert err == ""


def test_incomplete_environments_are_told() -> None:
    _, err = run("data.xyz", "--k", 60)
    assert "have fewer than k = 60 neighbours" in err
    assert "have equal distances" not in err
    assert run("data.xyz", "--k", 60, "--quiet") == ("", "")


def test_usage() -> None:
    one = "--size, --overlap and --max-loss exclude one another"
    refused(one, *ARGS, "--size", 3, "--overlap", 0.9, status=2)
    refused(one, *ARGS, "--max-loss", 3, "--overlap", 0.9, status=2)
    refused("the size must be a share", *ARGS, "--size", "some", status=2)
    for share in ("1.2", "0", "nan", "-1", "most"):
        refused(f"{share!r} is not a share, a number above 0 and up to 1", *ARGS, "--overlap", share, status=2)
    for loss in ("-1", "nan", "inf", "none"):
        refused(f"{loss!r} is not a finite number of at least 0", *ARGS, "--max-loss", loss, status=2)
    refused("is a budget, which needs --cost", *ARGS, "--size", "5cost", status=2)
    refused("in no order, which --overlap needs", *ARGS, "--method", "k_means", "--overlap", "0.9", status=2)
    refused("in no order, which --size auto needs", *ARGS, "--method", "direct", "--size", "auto", status=2)
    refused("direct knows no weights", *ARGS, "--method", "direct", "--weight", "weight", status=2)
    refused("--sort belongs to --output", *ARGS, "--sort", "input", status=2)
    refused("takes one --bandwidth, got several", "data.xyz", "--bandwidth", "0.1,0.2")
    refused("none.xyz: no such file", "none.xyz")
    refused("frame 9 .*|no frame is selected", "data.xyz@20:")


def test_one_structure() -> None:
    found = document("data.xyz@0", "--bandwidth", H)
    assert (found["indices"], found["stop"]) == ([0], "all structures are chosen")
    assert found["metrics"]["overlap"] == 1.0


# --- runs that are broken off -----------------------------------------------------------------------------------------


class Broken(Exception):
    """Somebody pulled the plug."""


def break_after(monkeypatch: pytest.MonkeyPatch, n: int, error: type[BaseException]) -> None:
    """Once, after n structures were chosen."""
    original = CompressRun._select
    interval = _state.INTERVAL
    monkeypatch.setattr(_state, "INTERVAL", -1.0)

    def select(self: CompressRun) -> Any:
        monkeypatch.setattr(CompressRun, "_select", original)
        choose = self.compressor.select

        def chosen(*args: Any, progress: Any, **options: Any) -> Any:
            count = 0

            def counted(done: int) -> None:
                nonlocal count
                count += done
                if count > n:
                    if error is KeyboardInterrupt:
                        os.kill(os.getpid(), signal.SIGTERM)
                    raise error
                progress(done)

            return choose(*args, progress=counted, **options)

        monkeypatch.setattr(self.compressor, "select", chosen)
        try:
            return original(self)
        finally:
            monkeypatch.setattr(_state, "INTERVAL", interval)

    monkeypatch.setattr(CompressRun, "_select", select)


@pytest.mark.parametrize("target", [("--size", 8), ("--overlap", 0.97), ("--size", "auto"), ("--max-loss", 0.05)])
def test_an_interrupted_run_goes_on(monkeypatch: pytest.MonkeyPatch, target: tuple[Any, ...]) -> None:
    expected = document(*ARGS, *target)
    args = (*ARGS, *target, "-o", "small.xyz", "--json", "small.json")
    break_after(monkeypatch, 3, KeyboardInterrupt)
    _, err = run(*args, status=_options.INTERRUPTED)
    assert err == "quests-zenn compress: interrupted; the same command goes on where this one stopped\n"
    left = sorted(path.name for path in Path().iterdir())
    assert left == ["alloy.xyz", "data.xyz", "found.json", "small.xyz.progress.npz"]
    refused(r"small\.xyz\.progress\.npz: is of a run on other data", *ARGS, "--size", 2, "-o", "small.xyz")
    _, err = run(*args)
    assert err == "going on after 4 structures\n"
    found = json.loads(Path("small.json").read_text(encoding="utf-8"))
    assert (found["indices"], found["scores"]) == (expected["indices"], expected["scores"])
    assert [atoms.info["number"] for atoms in read("small.xyz", ":")] == expected["indices"]
    assert not Path("small.xyz.progress.npz").exists()


def test_a_run_that_failed_later_keeps_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_state, "INTERVAL", -1.0)
    with monkeypatch.context() as patch:
        patch.setattr(
            "quests_zenn.cli._compress.write_chosen", lambda *args, **options: (_ for _ in ()).throw(OSError("full"))
        )
        _, err = run(*ARGS, "--size", 5, "-o", "small.xyz", status=1)
        assert err.endswith("full\n")
    assert Path("small.xyz.progress.npz").exists()
    _, err = run(*ARGS, "--size", 5, "-o", "small.xyz")
    assert err == "going on after 5 structures\n"
    assert len(read("small.xyz", ":")) == 5


def test_a_curve_that_is_interrupted_leaves_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(self: CompressRun) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(_state, "INTERVAL", -1.0)
        patch.setattr(CompressRun, "_measure", measure)
        _, err = run(*ARGS, "--size", 5, "-o", "small.xyz", "--json", "small.json", status=_options.INTERRUPTED)
    told = "interrupted; small.xyz is written, the curve was not finished"
    assert err.splitlines()[-1] == f"quests-zenn compress: {told}"
    assert sorted(path.name for path in Path().iterdir()) == ["alloy.xyz", "data.xyz", "small.xyz"]
    assert [atoms.info["number"] for atoms in read("small.xyz", ":")] == compressor().get_indices("msc", 5).tolist()
    # nor does a failure leave a state that nobody needs
    with monkeypatch.context() as patch:
        patch.setattr(_state, "INTERVAL", -1.0)
        patch.setattr(CompressRun, "_measure", lambda self: (_ for _ in ()).throw(OSError("full")))
        run(*ARGS, "--size", 5, "-o", "small.xyz", "--overwrite", status=1)
    assert sorted(path.name for path in Path().iterdir()) == ["alloy.xyz", "data.xyz", "small.xyz"]


def test_stages_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    args = (*ARGS, "--size", 4, "--chunk", 4)
    expected = document(*args)
    break_after(monkeypatch, 6, KeyboardInterrupt)
    run(*args, "--json", "small.json", status=_options.INTERRUPTED)
    assert Path("small.json.progress.npz").exists()
    _, err = run(*args, "--json", "small.json")
    assert re.fullmatch(r"going on after \d chunks?\n", err)
    assert json.loads(Path("small.json").read_text(encoding="utf-8"))["indices"] == expected["indices"]


def test_without_a_place_for_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    break_after(monkeypatch, 3, KeyboardInterrupt)
    _, err = run(*ARGS, "--size", 8, status=_options.INTERRUPTED)
    assert err == "quests-zenn compress: interrupted; unfinished files were removed\n"
    assert sorted(path.name for path in Path().iterdir()) == ["alloy.xyz", "data.xyz"]


def test_a_run_that_was_killed_goes_on() -> None:
    """kill -9, on a process of its own that keeps its state after each structure, and lingers after the fifth."""
    script = (
        "import sys, time\n"
        "from quests_zenn.compression import _state\n"
        "from quests_zenn.compression._greedy import Greedy\n"
        "_state.INTERVAL, choose = -1.0, Greedy.choose\n"
        "def slow(self, *args):\n"
        "    choose(self, *args)\n"
        "    time.sleep(60.0 * (len(self.chosen) == 6))\n"
        "Greedy.choose = slow\n"
        "from quests_zenn.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    args = [*map(str, ARGS), "--size", "8", "-o", "small.xyz"]
    process = subprocess.Popen([sys.executable, "-c", script, "compress", *args])
    waited = time.monotonic()
    state = Path("small.xyz.progress.npz")
    while True:
        assert process.poll() is None
        assert time.monotonic() - waited < 60.0
        if state.exists():
            with np.load(state) as content:
                if len(content["chosen"]) == 5:
                    break
        time.sleep(0.02)
    process.kill()
    process.wait()
    _, err = run(*args)
    assert err == "going on after 5 structures\n"
    small = read("small.xyz", ":")
    assert [atoms.info["number"] for atoms in small] == compressor().get_indices("msc", 8).tolist()


# --- documentation ----------------------------------------------------------------------------------------------------


def test_the_page_about_documents_names_all_keys() -> None:
    page = (ROOT / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| `compress` |"))
    told = set(re.findall(r"`(\w+)`", row)) - {"compress"}
    pytest.importorskip("matplotlib")
    found = document(*ARGS, "--by", "config_type", "--plot", "a.png")
    shared = {
        "command", "inputs", "n_frames", "n_environments", "elements", "k", "cutoff", "species", "n_tied",
        "n_incomplete", "bandwidth", "bandwidth_source", "by", "scope", "precision", "backend", "n_workers", "seed",
        "units", "timings", "versions", "output",
    }  # fmt: skip
    inner = {*found["metrics"], *found["curve"], *found["groups"], "seed"}
    assert set(found) - shared <= told
    assert told <= set(found) | inner


def test_help_is_quick_to_come() -> None:
    script = Path(sysconfig.get_path("scripts")) / "quests-zenn"
    ended = subprocess.run([script, "compress", "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "--max-loss" in ended.stdout
    code = "import sys; from quests_zenn.cli.compress import compress; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
