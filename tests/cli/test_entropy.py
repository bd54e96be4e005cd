"""``quests-entropy`` as people meet it: what it prints and writes, that every option counts, and how it fails.

Most tests call the command within this process; those about processes (status, signals, pipes) start a real one.
"""

from __future__ import annotations

import ctypes
import gzip
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import naive
import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from click.testing import CliRunner

import quests_zenn
from quests_zenn.cli.entropy import entropy as command
from quests_zenn.cli.main import main
from quests_zenn.descriptors import describe
from quests_zenn.entropy import get_all_metrics, get_bandwidth

Array = npt.NDArray[np.float64]
SCRIPT = Path(sysconfig.get_path("scripts")) / "quests-entropy"


# --- running it -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        """Lines on stderr, without the note that a first run on a machine gives."""
        return [line for line in self.err.splitlines() if not line.startswith("compiling kernels")]


def run(*args: Any, door: Any = command) -> Outcome:
    """The command within this process. Exceptions that it does not turn into a sentence are ours to see."""
    name = "quests-zenn" if door is main else "quests-entropy"
    result = CliRunner().invoke(door, [str(arg) for arg in args], prog_name=name)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def run_well(*args: Any, door: Any = command) -> Outcome:
    outcome = run(*args, door=door)
    assert outcome.status == 0, outcome
    return outcome


def document(*args: Any, door: Any = command) -> dict[str, Any]:
    """The JSON document of a run."""
    run_well(*args, "--quiet", "--json", "document.json", "--overwrite", door=door)
    return json.loads(Path("document.json").read_text(encoding="utf-8"))


def real(*args: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    return subprocess.run(
        [SCRIPT, *map(str, args)], capture_output=True, text=True, timeout=120, check=False, **options
    )


def table(text: str) -> dict[str, str]:
    """Names and values of the table on stdout."""
    rows = [line for line in text.splitlines() if len(line) > 14 and line[:14].strip() and line[13] == " "]
    return {row[:14].strip(): row[14:].strip() for row in rows}


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


# --- inputs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def copper(amplitude: float, seed: int, n: int = 2) -> Atoms:
    atoms = bulk("Cu", cubic=True) * (n, n, n)
    atoms.rattle(amplitude, seed=seed)
    return atoms


def trajectory() -> list[Atoms]:
    """Four frames of copper with everything that frames may carry."""
    frames = []
    for i in range(4):
        atoms = copper(0.03 + 0.03 * i, seed=i)
        atoms.info.update(REF_energy=-100.0 - i, temperature=300.0 + 100.0 * i, note=f"step {i}")
        atoms.arrays["chosen"] = (np.arange(32) % 5 == i).astype(int)
        atoms.calc = SinglePointCalculator(atoms, energy=-110.0 - i, forces=np.full((32, 3), 0.25 * i))
        frames.append(atoms)
    return frames


def alloy() -> list[Atoms]:
    frames = []
    for i in range(2):
        atoms = copper(0.1, seed=10 + i)
        atoms.symbols[[0, 3, 5, 8 + i, 20]] = "Ag"
        atoms.symbols[[1, 9, 30]] = "Zr"
        frames.append(atoms)
    return frames


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of good inputs."""
    folder = tmp_path_factory.mktemp("inputs")
    write(folder / "copper.xyz", trajectory())
    write(folder / "alloy.xyz", alloy())
    write(folder / "perfect.xyz", bulk("Cu", cubic=True) * (2, 2, 2))
    write(folder / "molecule.xyz", molecule("CH3CH2OH"))
    slab = fcc111("Cu", (2, 2, 3), vacuum=10.0)
    slab.info.clear()
    slab.rattle(0.05, seed=3)
    write(folder / "slab.xyz", slab)
    slab.pbc = True
    write(folder / "vacuum.xyz", slab)
    box = molecule("C6H6")
    box.set_cell([20.0] * 3)
    box.pbc = True
    write(folder / "box.xyz", box)
    (folder / "types.lammpstrj").write_text(dump(alloy()[0]), encoding="ascii")
    return folder


def dump(atoms: Atoms) -> str:
    """A LAMMPS dump of two types."""
    edges = atoms.cell.lengths()
    lines = ["ITEM: TIMESTEP", "0", "ITEM: NUMBER OF ATOMS", str(len(atoms)), "ITEM: BOX BOUNDS pp pp pp"]
    lines += [f"0.0 {edge:.10f}" for edge in edges]
    lines += ["ITEM: ATOMS id type x y z"]
    for i, (number, position) in enumerate(zip(atoms.numbers, atoms.positions, strict=True), start=1):
        lines.append(f"{i} {1 if number == 29 else 2} " + " ".join(f"{value:.10f}" for value in position))
    return "\n".join(lines) + "\n"


@pytest.fixture
def traj(store: Path) -> Path:
    return store / "copper.xyz"


def library(
    frames: list[Atoms], h: Any = 0.015, rows: Any = slice(None), labelled: bool = False, **options: Any
) -> tuple[Any, Any, Array]:
    """What the library makes of frames."""
    env = describe(frames, **options)
    labels = env.numbers[rows] if labelled else None
    return get_all_metrics(env.x[rows], h, labels=labels, precision=options.get("dtype", "float64"))


def every_frame(path: Path, index: str = ":") -> list[Atoms]:
    return read(path, index)


# --- what it prints ---------------------------------------------------------------------------------------------------


def test_table(traj: Path) -> None:
    outcome = run_well(traj)
    h, d, _ = library(every_frame(traj))
    found = table(outcome.out)
    assert list(found) == [
        "frames", "environments", "elements", "descriptor", "bandwidth", "entropy H", "ln N", "redundancy",
        "diversity D", "time",
    ]  # fmt: skip
    assert found["frames"] == "4"
    assert found["environments"] == "128"
    assert found["elements"] == "Cu"
    assert found["descriptor"] == "k = 32, cutoff 5 Å, species none"
    assert found["bandwidth"] == "0.015 1/Å (default)"
    assert found["entropy H"] == f"{h:.4f} nats"
    assert found["ln N"].startswith(f"{math.log(128):.4f} nats")
    assert found["redundancy"] == f"{math.log(128) - h:.4f} nats"
    assert found["diversity D"] == f"{d:.4f} nats"
    assert outcome.complaints == []


def test_table_of_several_bandwidths(traj: Path) -> None:
    outcome = run_well(traj, "--bandwidth", "0.015,0.03", "--bandwidth", "0.06")
    h, d, _ = library(every_frame(traj), [0.015, 0.03, 0.06])
    lines = outcome.out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[-1:] == ["source"])
    for line, bandwidth, value, diversity in zip(
        lines[start + 1 : start + 4], ("0.015", "0.03", "0.06"), h, d, strict=True
    ):
        expected = [bandwidth, f"{value:.4f}", f"{math.log(128) - value:.4f}", f"{diversity:.4f}", "given"]
        assert line.split() == expected


def test_table_of_frames(traj: Path) -> None:
    outcome = run_well(traj, "--per-frame")
    lines = outcome.out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == ["frame"])
    rows = [line.split() for line in lines[start + 1 :]]
    assert len(rows) == 4
    for i, (row, atoms) in enumerate(zip(rows, every_frame(traj), strict=True)):
        h, _, dh = library([atoms])
        assert row == [
            str(i),
            "32",
            f"{h:.4f}",
            f"{math.log(32):.4f}",
            f"{dh.mean():.4f}",
            f"{300.0 + 100.0 * i:.4f}",
            f"{-110.0 - i:.4f}",
        ]


def test_results_on_stdout_and_remarks_on_stderr(store: Path) -> None:
    outcome = run_well(store / "molecule.xyz")
    assert "warning" not in outcome.out
    assert outcome.complaints
    assert all(line.startswith("warning: ") for line in outcome.complaints)
    assert "entropy H" not in outcome.err


@pytest.mark.parametrize(
    ("name", "args", "fragment"),
    [
        ("molecule.xyz", [], r"100% of the atoms asked about have fewer than k = 32 neighbours within 5 Å"),
        ("perfect.xyz", [], r"32 of 32 environments have equal distances across place k = 32"),
        ("perfect.xyz", [], r"H is close to 0 at h = 0\.015: all environments look the same.*\(try 0\.0075\)"),
        ("copper.xyz", ["--bandwidth", "1e-5"], r"H is within 1% of ln N at h = 1e-05.*\(try 2e-05\)"),
        ("copper.xyz", ["--bandwidth", "50"], r"H is close to 0 at h = 50"),
    ],
)
def test_warnings_that_save_a_day(store: Path, name: str, args: list[str], fragment: str) -> None:
    found = run_well(store / name, *args).complaints
    assert any(re.search(f"^warning: {fragment}", line) for line in found), found


def test_one_environment_is_said_to_be_one(store: Path) -> None:
    outcome = run_well(f"{store / 'copper.xyz'}@0", "--select", "7")
    assert outcome.complaints == ["warning: one environment has no entropy: H = 0 = ln 1"]
    assert table(outcome.out)["environments"] == "1 (7)"


def test_quiet_says_nothing(store: Path, here: Path) -> None:
    outcome = run_well(store / "molecule.xyz", "--quiet", "--per-frame", "-o", "scored.xyz", "--json", "d.json")
    assert outcome == Outcome(0, "", "")
    assert sorted(listing(here)) == ["d.json", "scored.xyz"]


def test_help_and_version() -> None:
    for flag in ("-h", "--help"):
        text = run_well(flag).out
        options = ["--bandwidth", "--per-frame", "--output", "--json", "--plot", "--overwrite", "--k", "--cutoff"]
        options += ["--species", "--type-map", "--energy-key", "--select", "--precision", "--jobs", "--seed", "--quiet"]
        for option in [*options, "--dry-run"]:
            assert option in text
    assert run_well("--version").out.split()[-1] == quests_zenn.__version__


# --- the JSON document ------------------------------------------------------------------------------------------------

KEYS_OF_ONE = {
    "entropy", "diversity", "max_entropy", "redundancy", "estimator", "standard_error", "block_error", "bandwidth",
}  # fmt: skip
KEYS_OF_ALL = {"n_environments", "n_frames", "k", "cutoff", "species", "backend", "n_workers", "seed"}


def test_keys_and_values_of_the_document(traj: Path) -> None:
    doc = document(traj, "--jobs", "2", "--seed", "7")
    assert set(doc) >= KEYS_OF_ONE | KEYS_OF_ALL
    h, d, dh = library(every_frame(traj))
    assert doc["entropy"] == h
    assert doc["diversity"] == d
    assert doc["max_entropy"] == math.log(128)
    assert doc["redundancy"] == pytest.approx(math.log(128) - h, abs=1e-15)
    assert doc["mean_dh"] == pytest.approx(dh.mean(), abs=1e-14)
    assert doc["estimator"] == "exact"
    assert doc["standard_error"] == 0.0
    assert doc["block_error"] is None or doc["block_error"] > 0.0
    expected = {
        "n_environments": 128, "n_frames": 4, "bandwidth": 0.015, "k": 32, "cutoff": 5.0, "species": "none",
        "backend": "threads", "n_workers": 2, "seed": 7, "precision": "auto", "select": None, "elements": ["Cu"],
        "inputs": [str(traj)],
    }  # fmt: skip
    assert {key: doc[key] for key in expected} == expected
    assert doc["scope"]["dH"] == "all environments of the run"
    assert doc["versions"]["quests_zenn"] == quests_zenn.__version__
    assert {"numpy", "numba", "ase", "python"} <= set(doc["versions"])
    assert doc["timings"]["total"] > 0.0
    assert "results" not in doc
    assert "frames" not in doc


def test_the_whole_way_by_hand(traj: Path) -> None:
    """From positions to H by the slow twins alone."""
    atoms = every_frame(traj, "2:4")
    x = np.concatenate([naive.descriptor(a.positions, a.cell.array, a.pbc, 8, 4.0) for a in atoms])
    doc = document(f"{traj}@2:", "--k", "8", "--cutoff", "4.0", "--bandwidth", "0.02")
    assert doc["n_environments"] == len(x) == 64
    assert doc["entropy"] == pytest.approx(naive.entropy(x, 0.02), abs=1e-10)
    assert doc["diversity"] == pytest.approx(naive.diversity(x, 0.02), abs=1e-10)
    assert 0.5 < doc["entropy"] < math.log(64) - 0.1  # the comparison would say little at either end


def test_document_of_several_bandwidths(traj: Path) -> None:
    doc = document(traj, "--bandwidth", "0.015,0.03", "--bandwidth", "0.06")
    assert not KEYS_OF_ONE & set(doc)
    assert set(doc) >= KEYS_OF_ALL
    h, d, _ = library(every_frame(traj), [0.015, 0.03, 0.06])
    assert [result["bandwidth"] for result in doc["results"]] == [0.015, 0.03, 0.06]
    for result, value, diversity in zip(doc["results"], h, d, strict=True):
        assert set(result) >= KEYS_OF_ONE
        assert result["entropy"] == value
        assert result["diversity"] == diversity


@pytest.mark.parametrize("several", [False, True])
def test_document_of_frames(traj: Path, several: bool) -> None:
    bandwidths = [0.015, 0.05] if several else [0.015]
    doc = document(traj, "--per-frame", "--bandwidth", ",".join(map(str, bandwidths)))
    for result, h in zip(doc["results"] if several else [doc], bandwidths, strict=True):
        assert [frame["index"] for frame in result["frames"]] == [0, 1, 2, 3]
        for frame, atoms in zip(result["frames"], every_frame(traj), strict=True):
            value, _, dh = library([atoms], h)
            assert set(frame) >= {"index", "entropy", "mean_dh", "n_environments"}
            assert frame["entropy"] == pytest.approx(value, abs=1e-12)
            assert frame["mean_dh"] == pytest.approx(dh.mean(), abs=1e-12)
            assert frame["n_environments"] == 32
    assert doc["scope"]["frames.mean_dh"] == "the frame"
    # frames differ, and no frame knows what the run knows
    values = [frame["entropy"] for frame in result["frames"]]
    assert len(set(values)) == 4


def test_document_is_one_line_of_utf8_json_after_another(traj: Path, here: Path) -> None:
    document(traj)
    raw = (here / "document.json").read_bytes()
    assert raw.endswith(b"}\n")
    assert b"NaN" not in raw
    assert json.loads(raw.decode("utf-8"))["units"]["entropy"] == "nats"


# --- every option counts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "options"),
    [
        (["--k", "12"], {"k": 12}),
        (["--cutoff", "4.1"], {"cutoff": 4.1}),
        (["--species", "blocks"], {"species": "blocks", "labelled": True}),
        (["--species", "pairs"], {"species": "pairs", "labelled": True}),
        (["--precision", "float32"], {"dtype": "float32"}),
        (["--bandwidth", "0.04"], {"h": 0.04}),
        (["--k", "9", "--cutoff", "3.9", "--species", "pairs", "--bandwidth", "0.02"],
         {"k": 9, "cutoff": 3.9, "species": "pairs", "labelled": True, "h": 0.02}),
    ],
)  # fmt: skip
def test_options_of_descriptor_and_kernel(store: Path, args: list[str], options: dict[str, Any]) -> None:
    path = store / "alloy.xyz"
    plain, doc = document(path), document(path, *args)
    h, d, _ = library(every_frame(path), **options)
    assert doc["entropy"] == h != plain["entropy"]
    assert doc["diversity"] == d != plain["diversity"]
    expected = {key: value for key, value in options.items() if key in ("k", "cutoff", "species")}
    assert {key: doc[key] for key in expected} == expected
    assert doc["bandwidth"] == options.get("h", 0.015)
    assert doc["precision"] == options.get("dtype", "auto")
    assert doc["elements"] == ["Ag", "Cu", "Zr"]


def test_species_blocks_and_pairs_differ(store: Path) -> None:
    path = store / "alloy.xyz"
    blocks, pairs = (document(path, "--species", species) for species in ("blocks", "pairs"))
    assert blocks["entropy"] != pairs["entropy"]


def test_single_precision_is_close(traj: Path) -> None:
    double, single = document(traj), document(traj, "--precision", "float32")
    assert 0.0 < abs(single["entropy"] - double["entropy"]) < 1e-5


def test_bandwidth_from_the_volume(traj: Path) -> None:
    volume = every_frame(traj)[0].get_volume() / 32
    doc = document(traj, "--bandwidth", "auto")
    assert doc["bandwidth"] == pytest.approx(get_bandwidth(volume), rel=1e-12)
    assert doc["bandwidth_source"].startswith("auto")
    assert doc["entropy"] == library(every_frame(traj), doc["bandwidth"])[0]
    both = document(traj, "--bandwidth", "0.03,auto")["results"]
    assert [result["bandwidth"] for result in both] == [0.03, doc["bandwidth"]]


def test_bandwidth_from_the_mean_volume(here: Path) -> None:
    small, large = copper(0.05, seed=1), copper(0.05, seed=2, n=3)
    large.set_cell(large.cell * 1.1, scale_atoms=True)
    write("volumes.xyz", [small, large])
    outcome = run_well("volumes.xyz", "--bandwidth", "auto", "--json", "d.json")
    volume = (small.get_volume() + large.get_volume()) / (32 + 108)
    assert json.loads(Path("d.json").read_text())["bandwidth"] == pytest.approx(get_bandwidth(volume), rel=1e-7)
    assert any("volumes per atom range from 11.8 to 15.7 Å3" in line for line in outcome.complaints)


def chosen_rows(frames: list[Atoms], choose: Callable[[Atoms], Any]) -> Array:
    starts = np.cumsum([0, *map(len, frames)])
    return np.concatenate([start + np.arange(len(a))[choose(a)] for start, a in zip(starts[:-1], frames, strict=True)])


@pytest.mark.parametrize(
    ("name", "select", "choose"),
    [
        ("alloy.xyz", "Ag", lambda atoms: atoms.numbers == 47),
        ("alloy.xyz", "Zr", lambda atoms: atoms.numbers == 40),
        ("alloy.xyz", "0,5,10:20", lambda atoms: [0, 5, *range(10, 20)]),
        ("alloy.xyz", "20:10:-2", lambda atoms: [12, 14, 16, 18, 20]),
        ("alloy.xyz", "-1,3,3", lambda atoms: [3, 31]),
        ("copper.xyz", "chosen", lambda atoms: atoms.arrays["chosen"] != 0),
    ],
)
def test_selection(store: Path, name: str, select: str, choose: Callable[[Atoms], Any]) -> None:
    path = store / name
    frames = every_frame(path)
    rows = chosen_rows(frames, choose)
    doc = document(path, "--select", select, "--per-frame")
    assert doc["n_environments"] == len(rows) < sum(map(len, frames))
    assert doc["select"] == select
    # all atoms stay neighbours: descriptors are those of the whole frames
    assert doc["entropy"] == library(frames, rows=rows)[0]
    assert sum(frame["n_environments"] for frame in doc["frames"]) == len(rows)
    assert doc["max_entropy"] == math.log(len(rows))


def test_frames_without_chosen_atoms_have_no_entropy(here: Path) -> None:
    frames = [copper(0.05, seed=i) for i in range(3)]
    frames[0].symbols[4] = frames[2].symbols[[7, 8]] = "Ag"
    write("some.xyz", frames)
    doc = document("some.xyz", "--select", "Ag", "--per-frame")
    assert [(frame["index"], frame["n_environments"]) for frame in doc["frames"]] == [(0, 1), (2, 2)]
    assert doc["n_frames"] == 3


def test_energy_key(traj: Path) -> None:
    assert [frame["energy"] for frame in document(traj, "--per-frame")["frames"]] == [-110.0, -111.0, -112.0, -113.0]
    doc = document(traj, "--per-frame", "--energy-key", "REF_energy")
    assert [frame["energy"] for frame in doc["frames"]] == [-100.0, -101.0, -102.0, -103.0]
    outcome = run(traj, "--energy-key", "MACE_energy")
    assert outcome.status == 1
    assert outcome.complaints == [
        f"quests-entropy: {traj}, frame 0: no energy under the key 'MACE_energy' (its info holds "
        "REF_energy, note, temperature)"
    ]


def test_type_map(store: Path) -> None:
    path = store / "types.lammpstrj"
    assert document(path)["elements"] == ["H", "He"]
    doc = document(path, "--type-map", "1=Cu,2=Ag", "--species", "blocks")
    assert doc["elements"] == ["Ag", "Cu"]
    assert document(path, "--type-map", "1=Cu,2=Cu", "--species", "blocks")["entropy"] != doc["entropy"]
    assert document(path, "--type-map", "1=Cu,2=Ag", "--select", "Ag")["n_environments"] == 8
    scored = "scored.xyz"
    run_well(path, "--type-map", " 1 = Cu , 2 = Ag ", "-o", scored)
    assert sorted(set(read(scored).symbols)) == ["Ag", "Cu"]


def test_jobs_and_seed_are_recorded_and_change_nothing(traj: Path) -> None:
    one, three = document(traj, "--jobs", "1"), document(traj, "--jobs", "3", "--seed", "11")
    assert (one["n_workers"], three["n_workers"]) == (1, 3)
    assert (one["seed"], three["seed"]) == (0, 11)
    if hasattr(os, "sched_getaffinity"):
        assert document(traj)["n_workers"] == len(os.sched_getaffinity(0))
    for key in ("entropy", "diversity", "mean_dh"):
        assert one[key] == three[key]


def test_several_files_and_indices(store: Path, here: Path) -> None:
    first, second = store / "copper.xyz", store / "alloy.xyz"
    doc = document(first, second, "--per-frame")
    frames = every_frame(first) + every_frame(second)
    assert doc["n_frames"] == 6
    assert doc["entropy"] == library(frames)[0]
    assert [frame["index"] for frame in doc["frames"]] == list(range(6))
    assert doc["inputs"] == [str(first), str(second)]
    assert "6 in 2 files" in table(run_well(first, second).out)["frames"]
    for index, chosen in (("::2", frames[0:4:2]), ("-1", frames[3:4]), ("1:3", frames[1:3]), ("2", frames[2:3])):
        doc = document(f"{first}@{index}")
        assert doc["n_frames"] == len(chosen)
        assert doc["entropy"] == library(chosen)[0]
    # the order of files does not matter to H, and a file taken twice adds nothing
    assert document(second, first)["entropy"] == pytest.approx(library(frames)[0], abs=1e-12)
    assert document(first, first)["entropy"] == pytest.approx(library(frames[:4])[0], abs=1e-12)
    # a name that holds an @ is a name
    Path("odd@1").write_bytes(first.read_bytes())
    write("odd@1.xyz", frames[:2])
    assert document("odd@1.xyz")["n_frames"] == 2
    assert document("odd@1.xyz@1")["n_frames"] == 1


def test_a_new_element_in_a_later_frame(store: Path) -> None:
    frames = [*every_frame(store / "copper.xyz"), *every_frame(store / "alloy.xyz")]
    doc = document(store / "copper.xyz", store / "alloy.xyz", "--species", "pairs")
    assert doc["entropy"] == library(frames, species="pairs", labelled=True)[0]
    assert doc["elements"] == ["Ag", "Cu", "Zr"]


@pytest.mark.parametrize("ending", ["xyz.gz", "extxyz", "traj", "cif", "vasp"])
def test_other_formats(here: Path, ending: str) -> None:
    atoms = copper(0.05, seed=1)
    write(f"one.{ending}", atoms)
    doc = document(f"one.{ending}")
    assert doc["n_frames"] == 1
    assert doc["entropy"] == pytest.approx(library([atoms])[0], abs=1e-3)


# --- scored frames ----------------------------------------------------------------------------------------------------


def test_scored_frames(traj: Path) -> None:
    run_well(traj, "--quiet", "-o", "scored.xyz")
    frames, scored = every_frame(traj), every_frame(Path("scored.xyz"))
    assert len(scored) == 4
    dh = library(frames)[2].reshape(4, 32)
    for before, after, values in zip(frames, scored, dh, strict=True):
        np.testing.assert_allclose(after.arrays["dH"], values, rtol=0.0, atol=1e-8)
        np.testing.assert_allclose(after.positions, before.positions, rtol=0.0, atol=1e-8)
        np.testing.assert_allclose(after.cell.array, before.cell.array, rtol=0.0, atol=1e-8)
        np.testing.assert_array_equal(after.pbc, before.pbc)
        np.testing.assert_array_equal(after.numbers, before.numbers)
        # and everything else that they carried
        assert after.get_potential_energy() == before.get_potential_energy()
        np.testing.assert_array_equal(after.get_forces(), before.get_forces())
        notes = {"dH_bandwidth": 0.015, "dH_scope": "all environments of the run"}
        notes |= {"dH_k": 32, "dH_cutoff": 5.0, "dH_species": "none"}
        assert after.info == {**before.info, **notes}
        np.testing.assert_array_equal(after.arrays["chosen"], before.arrays["chosen"])
    assert len(np.unique(dh.round(6))) > 100


def test_scored_frames_of_several_files_and_a_selection(store: Path) -> None:
    first, second = store / "copper.xyz", store / "alloy.xyz"
    args = (f"{first}@1:3", second, "--select", "Ag,", "--quiet")
    assert run(*args).status == 1
    run_well(f"{first}@1:3", second, "--select", "0,3,5", "--quiet", "-o", "scored.xyz", "--bandwidth", "0.03,0.1")
    frames = every_frame(first, "1:3") + every_frame(second)
    scored = every_frame(Path("scored.xyz"))
    rows = chosen_rows(frames, lambda atoms: [0, 3, 5])
    expected = np.full(128, np.nan)
    expected[rows] = library(frames, [0.03, 0.1], rows=rows)[2][0]  # of the first bandwidth
    found = np.concatenate([atoms.arrays["dH"] for atoms in scored])
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-8)


def test_scored_frames_can_be_compressed_and_scored_again(traj: Path) -> None:
    run_well(traj, "--quiet", "-o", "scored.xyz.gz")
    with gzip.open("scored.xyz.gz", "rt", encoding="utf-8") as stream:
        assert stream.readline() == "32\n"
    run_well("scored.xyz.gz", "--quiet", "-o", "again.extxyz")
    first, again = every_frame(Path("scored.xyz.gz")), every_frame(Path("again.extxyz"))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_allclose(a.arrays["dH"], b.arrays["dH"], rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("option", ["-o", "--json"])
def test_an_input_is_never_replaced(traj: Path, option: str) -> None:
    """Whatever was said: frames that were not selected, or a whole trajectory, would be lost."""
    Path("mine.xyz").write_bytes(traj.read_bytes())
    assert_fails(run("mine.xyz@::2", option, "mine.xyz", "--overwrite"), 1, r"mine\.xyz: is an input")
    assert Path("mine.xyz").read_bytes() == traj.read_bytes()


# --- plots ------------------------------------------------------------------------------------------------------------


@pytest.mark.extra
@pytest.mark.parametrize(
    ("ending", "magic"), [("png", b"\x89PNG\r\n"), ("pdf", b"%PDF-"), ("svg", b"<?xml"), ("PNG", b"\x89PNG")]
)
def test_plots(store: Path, here: Path, ending: str, magic: bytes) -> None:
    pytest.importorskip("matplotlib")
    name = f"entropy.{ending}"
    outcome = run_well(
        store / "copper.xyz", store / "alloy.xyz", "--bandwidth", "0.015,0.05", "--plot", name, "--quiet"
    )
    assert outcome == Outcome(0, "", "")
    content = (here / name).read_bytes()
    assert content.startswith(magic)
    assert len(content) > 5000
    if ending == "svg":
        assert b"<svg" in content
    assert sorted(listing(here)) == [name]


@pytest.mark.extra
def test_plot_of_one_frame_and_of_a_selection(store: Path, here: Path) -> None:
    pytest.importorskip("matplotlib")
    run_well(store / "molecule.xyz", "--plot", "one.png", "--quiet")
    run_well(store / "alloy.xyz", "--select", "Ag", "--plot", "some.png", "--quiet")
    run_well(store / "perfect.xyz", "--plot", "flat.png", "--quiet")
    assert sorted(listing(here)) == ["flat.png", "one.png", "some.png"]


def test_a_plot_without_matplotlib_names_the_extra(traj: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = run(traj, "--plot", "entropy.png")
    assert outcome.status == 1
    assert outcome.complaints == [
        "quests-entropy: this needs matplotlib, which is not installed: pip install 'quests_zenn[plot]'"
    ]
    assert listing(here) == {}


# --- dry run ----------------------------------------------------------------------------------------------------------


def test_dry_run_only_predicts(traj: Path, here: Path) -> None:
    outcome = run_well(traj, "--dry-run", "-o", "scored.xyz", "--json", "d.json")
    assert re.fullmatch(
        r"4 frames, 128 environments: about [0-9.e-]+ (s|min|h) on \d+ threads, [0-9.]+ [MG]B of memory\n", outcome.out
    )
    assert listing(here) == {}
    for options in (["--species", "pairs"], ["--bandwidth", "auto"], ["--select", "Cu"], ["--precision", "float32"]):
        run_well(traj, "--dry-run", *options)


def test_dry_run_still_judges(traj: Path, store: Path) -> None:
    Path("there.json").write_text("mine")
    for args in (
        [traj, "--json", "there.json"],
        [traj, "--json", "nowhere/d.json"],
        ["missing.xyz"],
        [store / "slab.xyz", "--bandwidth", "auto"],
    ):
        outcome = run(*args, "--dry-run")
        assert outcome.status == 1
        assert len(outcome.complaints) == 1
        assert outcome.out == ""
    assert Path("there.json").read_text() == "mine"


# --- bad input --------------------------------------------------------------------------------------------------------


def spoil(change: Callable[[Atoms], None], frame: int = 2) -> bytes:
    """Four good frames of copper, one of which is changed, as extended XYZ."""
    frames = [copper(0.05, seed=i) for i in range(4)]
    change(frames[frame])
    stream = io.StringIO()
    write(stream, frames, format="extxyz")
    return stream.getvalue().encode()


def not_finite(value: float) -> Callable[[Atoms], None]:
    def change(atoms: Atoms) -> None:
        atoms.positions[5, 1] = value

    return change


def coincide(atoms: Atoms) -> None:
    atoms.positions[20] = atoms.positions[11]


def coincide_with_image(atoms: Atoms) -> None:
    atoms.positions[20] = atoms.positions[11] + atoms.cell[0] - 2 * atoms.cell[2]


def flatten(atoms: Atoms) -> None:
    atoms.set_cell([atoms.cell[0], 2.0 * atoms.cell[0], atoms.cell[2]])


def no_cell(atoms: Atoms) -> None:
    atoms.set_cell(np.zeros((3, 3)))
    atoms.pbc = (True, True, False)


def cell_not_finite(atoms: Atoms) -> None:
    atoms.cell.array[1, 1] = math.nan


GOOD = spoil(lambda atoms: None)

#: Name, content (None: the file is missing), arguments, and what the one line on stderr says.
BAD_INPUT = [
    ("nan.xyz", spoil(not_finite(math.nan)), [], r"nan\.xyz, frame 2, atom 5: its position is not finite"),
    ("inf.xyz", spoil(not_finite(math.inf)), [], r"inf\.xyz, frame 2, atom 5: its position is not finite"),
    ("minus.xyz", spoil(not_finite(-math.inf), 0), [], r"minus\.xyz, frame 0, atom 5: its position is not finite"),
    ("twice.xyz", spoil(coincide), [], r"twice\.xyz, frame 2: atoms 11 and 20 are at the same point"),
    ("image.xyz", spoil(coincide_with_image), [], r"image\.xyz, frame 2: atoms 11 and 20 are at the same point"),
    ("flat.xyz", spoil(flatten), [], r"flat\.xyz, frame 2: its cell has no volume along the periodic axes"),
    ("nocell.xyz", spoil(no_cell), [], r"nocell\.xyz, frame 2: its cell has no volume .* \(pbc = T T F\)"),
    ("nancell.xyz", spoil(cell_not_finite), [], r"nancell\.xyz, frame 2: its cell is not finite"),
    ("flat.xyz", spoil(flatten), ["--bandwidth", "auto"], r"flat\.xyz, frame 2: its cell has no volume"),
    ("empty.xyz", b"", [], r"empty\.xyz: the file is empty"),
    ("noatoms.xyz", GOOD + b"0\n\n", [], r"noatoms\.xyz, frame 4: it has no atoms"),
    ("cut.xyz", GOOD[: 3 * len(GOOD) // 4 + 900], [], r"cut\.xyz: cannot be read after 3 good frames .*truncated"),
    ("line.xyz", GOOD[: GOOD.rindex(b" ", 0, len(GOOD) - 20)], [], r"line\.xyz: cannot be read after 3 good frames"),
    ("words.xyz", GOOD.replace(b"Cu ", b"Cu abc", 1), [], r"words\.xyz: cannot be read after 0 good frames"),
    ("cut.xyz.gz", gzip.compress(GOOD)[:-200], [], r"cut\.xyz\.gz: cannot be read after \d good frames"),
    ("nonsense.abc", b"hello\nworld\n", [], r"nonsense\.abc: the format is not known"),
    ("cut.lammpstrj", dump(alloy()[0])[:700].encode(), [], r"cut\.lammpstrj, frame 0: it announces 32 atoms and has"),
    ("missing.xyz", None, [], r"missing\.xyz: no such file"),
    ("missing.xyz@::2", None, [], r"missing\.xyz: no such file"),
    ("few.xyz@7", GOOD, [], r"few\.xyz@7: no frame is selected"),
    ("few.xyz@7:", GOOD, [], r"few\.xyz@7:: no frame is selected"),
    ("few.xyz@one", GOOD, [], r"few\.xyz@one: 'one' is no index"),
    ("few.xyz@::0", GOOD, [], r"few\.xyz@::0: '::0' is no index"),
    ("good.xyz", GOOD, ["--select", "Au"], r"the selection 'Au' names no atom in any frame"),
    ("good.xyz", GOOD, ["--select", "99"], r"good\.xyz, frame 0: the selection '99' names an atom that does not exist"),
    ("good.xyz", GOOD, ["--select", "mask"], r"good\.xyz, frame 0: the selection 'mask' names no elements"),
    ("good.xyz", GOOD, ["--type-map", "1=Cu"], r"good\.xyz, frame 0: atom type 29 is not in the type map"),
    ("good.xyz", GOOD, ["--energy-key", "DFT"], r"good\.xyz, frame 0: no energy under the key 'DFT'"),
]  # fmt: skip


def assert_fails(outcome: Outcome, status: int, sentence: str) -> None:
    """Status, exactly one line on stderr, nothing on stdout."""
    assert outcome.status == status, outcome
    assert outcome.out == ""
    assert len(outcome.complaints) == 1, outcome.err
    line = outcome.complaints[0]
    assert line.startswith("quests-entropy: ")
    assert re.search(sentence, line), line
    assert "Traceback" not in outcome.err


def as_param(case: tuple[str, bytes | None, list[str], str]) -> Any:
    return pytest.param(*case, id=" ".join([case[0], *case[2]]))


@pytest.mark.parametrize(("name", "content", "args", "sentence"), [as_param(case) for case in BAD_INPUT])
def test_bad_input_is_one_line(here: Path, name: str, content: bytes | None, args: list[str], sentence: str) -> None:
    if content is not None:
        (here / name.partition("@")[0]).write_bytes(content)
    before = listing(here)
    outcome = run(name, *args, "-o", "scored.xyz", "--json", "d.json")
    assert_fails(outcome, 1, sentence)
    assert listing(here) == before


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("slab.xyz", "not periodic along all axes"),
        ("molecule.xyz", "not periodic along all axes"),
        ("vacuum.xyz", r"a layer of \d+\.\d Å holds no atoms"),
        ("box.xyz", r"a layer of \d+\.\d Å holds no atoms"),
    ],
)
def test_no_automatic_bandwidth_for_slabs_and_molecules(store: Path, here: Path, name: str, reason: str) -> None:
    outcome = run(store / "copper.xyz", store / name, "--bandwidth", "auto", "--json", "d.json")
    assert_fails(
        outcome, 1, rf"{name}, frame 0: .*{reason}.*--bandwidth auto needs all: leave them out, or give a number"
    )
    assert listing(here) == {}
    run_well(store / name, "--quiet", "--bandwidth", "0.02")


def test_a_bad_second_file_is_named(traj: Path, here: Path) -> None:
    Path("second.xyz").write_bytes(spoil(not_finite(math.nan), 1))
    assert_fails(run(traj, "second.xyz"), 1, r"second\.xyz, frame 1, atom 5")
    # by its place in the file, whatever the index
    assert_fails(run("second.xyz@1:", traj), 1, r"second\.xyz, frame 1, atom 5")
    run_well("second.xyz@2:", "--quiet")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["-o", "there.xyz"], r"there\.xyz: exists already; choose another name or say --overwrite"),
        (["--json", "there.json"], r"there\.json: exists already"),
        (["--json", "nowhere/d.json"], r"nowhere/d\.json: the folder nowhere does not exist"),
        (["-o", "nowhere/d.xyz"], r"nowhere/d\.xyz: the folder nowhere does not exist"),
        (["--json", "folder", "--overwrite"], r"folder: is a folder, not a file"),
        (["--json", "there.json/d.json"], r"there\.json/d\.json: the folder there\.json does not exist"),
        (["--json", "same", "--plot", "same"], r"two outputs have the same name"),
        (["--json", "same.xyz", "-o", "./same.xyz"], r"two outputs have the same name"),
        (["-o", "scored.cif"], r"scored\.cif: scored frames are extended XYZ; its name must end in \.xyz"),
        (["-o", "scored"], r"scored: scored frames are extended XYZ"),
        (["--plot", "figure.jpg"], r"figure\.jpg: a plot is written as \.png, \.pdf, \.svg"),
        (["--plot", "figure"], r"figure: a plot is written as"),
        (["--plot", "there.png"], r"there\.png: exists already"),
        (["--plot", "nowhere/figure.png"], r"nowhere/figure\.png: the folder nowhere does not exist"),
    ],
)
def test_outputs_are_judged_before_the_work(traj: Path, here: Path, args: list[str], sentence: str) -> None:
    for name in ("there.xyz", "there.json", "there.png"):
        (here / name).write_text("mine")
    (here / "folder").mkdir()
    before = listing(here)
    # even before the input is looked at
    for source in (traj, "missing.xyz"):
        assert_fails(run(source, *args), 1, sentence)
    assert listing(here) == before
    assert list((here / "folder").iterdir()) == []


def test_existing_outputs_are_replaced_on_request(traj: Path, here: Path) -> None:
    for name in ("scored.xyz", "d.json"):
        (here / name).write_text("old")
    run_well(traj, "--quiet", "-o", "scored.xyz", "--json", "d.json", "--overwrite")
    assert len(every_frame(Path("scored.xyz"))) == 4
    assert json.loads(Path("d.json").read_text())["n_frames"] == 4
    assert sorted(listing(here)) == ["d.json", "scored.xyz"]


def test_a_failed_run_leaves_existing_outputs_alone(here: Path) -> None:
    Path("nan.xyz").write_bytes(spoil(not_finite(math.nan)))
    for name in ("scored.xyz", "d.json"):
        (here / name).write_text("old")
    before = listing(here)
    assert run("nan.xyz", "-o", "scored.xyz", "--json", "d.json", "--overwrite").status == 1
    assert listing(here) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_what_is_no_plain_file_is_not_replaced(traj: Path, here: Path) -> None:
    os.mkfifo("pipe")
    outcome = run(traj, "--quiet", "--json", "pipe", "--overwrite")
    assert (here / "pipe").is_fifo()
    assert outcome.status == 1


@pytest.mark.parametrize(
    "args",
    [
        ["--bandwidth", "0"], ["--bandwidth", "-0.1"], ["--bandwidth", "nan"], ["--bandwidth", "inf"],
        ["--bandwidth", "wide"], ["--bandwidth", "0.1,"], ["--bandwidth", "0.1,0"], ["--bandwidth", ""],
        ["--k", "1"], ["--k", "0"], ["--k", "-3"], ["--k", "2.5"],
        ["--cutoff", "0"], ["--cutoff", "-1"], ["--cutoff", "nan"], ["--cutoff", "inf"],
        ["--jobs", "0"], ["--jobs", "two"], ["--seed", "one"],
        ["--species", "all"], ["--precision", "float16"],
        ["--type-map", "Cu"], ["--type-map", "1=Xx"], ["--type-map", "1=Cu,"], ["--type-map", "a=Cu"],
        ["--unknown"], ["--json"],
    ],
)  # fmt: skip
def test_wrong_usage(traj: Path, here: Path, args: list[str]) -> None:
    outcome = run(traj, *args)
    assert outcome.status == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    last = outcome.complaints[-1]
    assert last.startswith("Error: ")
    assert args[0] in last
    assert listing(here) == {}


def test_wrong_usage_in_odd_digits(traj: Path) -> None:
    assert run(traj, "--type-map", "²=Cu").status == 2


def test_no_file_is_wrong_usage() -> None:
    outcome = run()
    assert outcome.status == 2
    assert "FILE" in outcome.err


@pytest.mark.parametrize("bandwidth", ["1e-200", "1e-320", "1e10", "0.015,1e-10"])
def test_a_bandwidth_beyond_reason_is_wrong_usage(traj: Path, bandwidth: str) -> None:
    outcome = run(traj, "--bandwidth", bandwidth)
    assert outcome.status == 2
    assert "bandwidth must lie between 1e-09 and 1e+09" in outcome.err


def test_frames_that_cannot_be_told_apart_are_counted(traj: Path, store: Path) -> None:
    found = run(traj, "--per-frame", "--bandwidth", "0.0001")
    assert "H of the frame is within 1% of ln n in 4 of 4 frames at h = 0.0001" in found.err
    assert "H of the frame" not in run(traj, "--bandwidth", "0.0001").err
    assert "frames differ in their number of atoms" in run(traj, store / "molecule.xyz", "--per-frame").err


def test_a_pipe_is_no_input(here: Path) -> None:
    os.mkfifo("pipe.xyz")
    assert_fails(run("pipe.xyz"), 1, r"pipe\.xyz: is a pipe or a device")


# --- the other door ---------------------------------------------------------------------------------------------------


def test_the_same_command_under_quests_zenn(traj: Path) -> None:
    mine, other = document(traj), document("entropy", traj, door=main)
    for key in set(mine) - {"timings"}:
        assert mine[key] == other[key]
    outcome = run("entropy", "missing.xyz", door=main)
    assert outcome.status == 1
    assert outcome.complaints == ["quests-zenn entropy: missing.xyz: no such file"]


def test_info() -> None:
    text = run_well("info", door=main).out
    for word in ("quests_zenn", "numpy", "numba", "ase", "cores", "matplotlib"):
        assert word in text
    assert quests_zenn.__version__ in text


# --- as a process -----------------------------------------------------------------------------------------------------


def test_a_real_run(traj: Path, here: Path) -> None:
    ended = real(traj, "-o", "scored.xyz", "--json", "d.json", cwd=here)
    assert ended.returncode == 0
    assert table(ended.stdout)["entropy H"] == f"{library(every_frame(traj))[0]:.4f} nats"
    assert Outcome(0, "", ended.stderr).complaints == []
    assert json.loads(Path("d.json").read_text())["entropy"] == library(every_frame(traj))[0]
    assert sorted(listing(here)) == ["d.json", "scored.xyz"]


def test_a_real_failure(here: Path) -> None:
    Path("nan.xyz").write_bytes(spoil(not_finite(math.nan)))
    ended = real("nan.xyz", "-o", "scored.xyz", cwd=here)
    assert_fails(Outcome(ended.returncode, ended.stdout, ended.stderr), 1, r"nan\.xyz, frame 2, atom 5")
    ended = real("nan.xyz", "--k", "1", cwd=here)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert sorted(listing(here)) == ["nan.xyz"]


def test_a_reader_that_went_away(traj: Path, here: Path) -> None:
    """``quests-entropy traj.xyz | head -0``: no traceback, whatever the status."""
    with subprocess.Popen([SCRIPT, traj], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=here) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        err = child.stderr.read()
        child.wait(timeout=120)
    assert "Traceback" not in err
    assert Outcome(0, "", err).complaints == []


def test_the_handler_of_sigterm_is_given_back(traj: Path) -> None:
    def mine(number: int, frame: Any) -> None: ...

    before = signal.signal(signal.SIGTERM, mine)
    try:
        run_well(traj, "--quiet")
        run("missing.xyz")
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupts_are_not_lost_in_callbacks(
    traj: Path, here: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    """While kernels are compiled, most signals arrive in a callback of the compiler, where exceptions are lost."""
    from quests_zenn.cli._run import EntropyRun

    original = EntropyRun.warm_up
    callback = ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), how))

    def warm_up(self: EntropyRun) -> None:
        original(self)
        callback()

    monkeypatch.setattr(EntropyRun, "warm_up", warm_up)
    outcome = run(traj, "--json", "d.json")
    assert outcome.status == 130
    assert listing(here) == {}


@pytest.fixture(scope="session")
def loading_time(store: Path) -> float:
    """Seconds that a run takes before it has anything to do; kernels are compiled afterwards."""
    seconds = []
    for _ in range(2):
        before = time.perf_counter()
        assert real(store / "copper.xyz", "--quiet").returncode == 0
        seconds.append(time.perf_counter() - before)
    return seconds[-1]


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100,000 atoms in 25 frames: many seconds of kernel sums, and of writing."""
    path = tmp_path_factory.mktemp("big") / "big.xyz"
    rng = np.random.default_rng(0)
    atoms = bulk("Cu", cubic=True) * (10, 10, 10)
    header = (
        f'4000\nLattice="{" ".join(map(str, atoms.cell.array.ravel()))}" Properties=species:S:1:pos:R:3 pbc="T T T"\n'
    )
    with open(path, "w", encoding="ascii") as stream:
        for _ in range(25):
            stream.write(header)
            np.savetxt(stream, atoms.positions + 0.05 * rng.normal(size=(4000, 3)), fmt="Cu %.5f %.5f %.5f")
    return path


def interrupted(args: list[Any], how: signal.Signals, when: Callable[[], bool], cwd: Path) -> tuple[Outcome, float]:
    """Start, wait until `when`, send the signal; the outcome, and the seconds from signal to end."""
    words = [SCRIPT, *map(str, args)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd) as child:
        try:
            limit = time.perf_counter() + 100.0
            while not when():
                assert child.poll() is None, "the run ended before it could be interrupted"
                assert time.perf_counter() < limit, "it never came to the point"
                time.sleep(0.002)
            child.send_signal(how)
            before = time.perf_counter()
            out, err = child.communicate(timeout=60)
            return Outcome(child.returncode, out, err), time.perf_counter() - before
        finally:
            child.kill()


def after(seconds: float) -> Callable[[], bool]:
    start = time.perf_counter()
    return lambda: time.perf_counter() - start > seconds


@pytest.mark.parametrize(
    ("how", "jobs"),
    [
        (signal.SIGINT, 2),
        pytest.param(signal.SIGINT, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.slow),
    ],
)
def test_interrupted_in_the_sums(big: Path, here: Path, loading_time: float, how: signal.Signals, jobs: int) -> None:
    Path("d.json").write_text("old")
    args = [big, "-o", "scored.xyz", "--json", "d.json", "--overwrite", "--jobs", jobs]
    args += ["--bandwidth", ",".join(str(0.01 + 0.001 * i) for i in range(20))]
    outcome, seconds = interrupted(args, how, after(1.5 * loading_time + 2.5), here)
    assert outcome.status == 130
    assert outcome.complaints == ["quests-entropy: interrupted; unfinished files were removed"]
    assert outcome.out == ""
    assert listing(here) == {"d.json": b"old"}
    assert seconds < 20.0


@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_interrupted_while_writing(big: Path, here: Path, how: signal.Signals) -> None:
    """With one atom per frame asked about there is nothing to sum: the time goes into reading and writing."""
    Path("scored.xyz").write_text("old")

    def writing() -> bool:
        return any(path.name != "scored.xyz" for path in here.iterdir())

    args = [big, "--select", "0", "-o", "scored.xyz", "--overwrite", "--json", "d.json"]
    outcome, _ = interrupted(args, how, writing, here)
    assert outcome.status == 130
    assert outcome.complaints == ["quests-entropy: interrupted; unfinished files were removed"]
    assert outcome.out == ""
    assert listing(here) == {"scored.xyz": b"old"}
