"""Commands that write stores of environments, and that take them in place of frames."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write
from commands import run

from quests_zenn.descriptors import describe
from quests_zenn.io import store_form, store_writer
from quests_zenn.io.store import Store, open_store

pytest.importorskip("zarr")
pytestmark = pytest.mark.extra

#: Rows of a chunk here.
CHUNK = 100


def crystals(n_frames: int, amplitude: float, seed: int, kind: str, elements: tuple[str, ...] = ()) -> list[Atoms]:
    frames = []
    for i in range(n_frames):
        atoms = bulk("Cu", cubic=True) * (2, 2, 2)
        atoms.rattle(amplitude, seed=100 * seed + i)
        for place, symbol in enumerate(elements):
            atoms.symbols[place::5] = symbol
        atoms.info |= {"config_type": kind if i % 2 else "even", "energy": -3.5 * i, "temperature": 300.0 + i}
        atoms.set_array("mark", np.arange(len(atoms)) % 2)
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    write(folder / "cold.xyz", crystals(9, 0.05, 1, "cold"))
    write(folder / "hot.xyz", crystals(9, 0.15, 2, "hot"))
    write(folder / "alloy.xyz", crystals(5, 0.1, 3, "alloy", ("Zr",)))
    write(folder / "other.xyz", crystals(5, 0.1, 4, "other", ("Ag", "Zr")))
    write(folder / "molecule.xyz", [molecule("CH3CH2OH")] * 2)
    for name, *more in (
        ("cold", "cold.xyz"), ("both", "cold.xyz", "hot.xyz"), ("single", "hot.xyz", "--precision", "float32"),
        ("alloy", "alloy.xyz", "--species", "blocks"), ("other", "other.xyz", "--species", "blocks"),
        ("near", "cold.xyz", "--cutoff", "4.5"),
    ):  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store_form, "chunk_rows", lambda width: CHUNK)
            patch.chdir(folder)
            run("descriptors", *more, "-o", f"{name}.zarr", "--quiet")
    return folder


@pytest.fixture(autouse=True)
def here(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_form, "chunk_rows", lambda width: CHUNK)
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def document(*args: Any) -> dict[str, Any]:
    run(*args, "--quiet", "--json", "found.json", "--overwrite")
    found: dict[str, Any] = json.loads(Path("found.json").read_text(encoding="utf-8"))
    for name in ("timings", "inputs", "references", "scope"):
        found.pop(name, None)
    return found


def refused(sentence: str, *args: Any, status: int = 1) -> None:
    before = sorted(path.name for path in Path().iterdir())
    _, err = run(*args, status=status)
    assert re.search(sentence, err), err
    assert "Traceback" not in err
    if status == 1:
        assert len(err.splitlines()) == 1
    assert sorted(path.name for path in Path().iterdir()) == before


def same(found: Any, wanted: Any) -> None:
    """Equal documents, up to the order of sums."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for name in wanted:
            same(found[name], wanted[name])
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            same(a, b)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-6, abs=1e-6)
    else:
        assert found == wanted


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("species", ["none", "blocks", "pairs"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_store_holds_what_describe_finds(species: str, precision: str) -> None:
    run("descriptors", "alloy.xyz", "cold.xyz@1:4", "-o", "s.zarr", "--species", species, "--precision", precision,
        "--k", 12, "--cutoff", 4.2)  # fmt: skip
    wanted = describe([*read("alloy.xyz", ":"), *read("cold.xyz", "1:4")], 12, 4.2, species, precision)
    store = open_store("s.zarr", verify=True)
    assert store.dtype == np.dtype(precision)
    np.testing.assert_array_equal(store.read(0, len(store)), wanted.x)
    np.testing.assert_array_equal(store.numbers, wanted.numbers)
    np.testing.assert_array_equal(store.frame_offsets, wanted.frame_offsets)
    np.testing.assert_array_equal(store.tied, wanted.tied)
    np.testing.assert_array_equal(store.incomplete, wanted.incomplete)
    assert (store.k, store.cutoff, store.species, store.elements) == (12, 4.2, species, wanted.elements)
    assert [part["name"] for part in store.provenance] == ["alloy.xyz", "cold.xyz"]
    assert [part["n_frames"] for part in store.provenance] == [5, 3]
    assert [part["index"] for part in store.provenance] == [":", "1:4"]


def test_a_store_keeps_what_frames_say_of_themselves() -> None:
    records = list(open_store("both.zarr").records())
    assert len(records) == 18
    assert records[3].label == "cold.xyz, frame 3"
    assert records[3].info["config_type"] == "cold"
    assert records[3].results["energy"] == -10.5
    assert records[3].properties == {"energy": -10.5, "temperature": 303.0}
    assert records[3].volume == pytest.approx(3.61**3 / 4)
    assert records[12].file == 1
    run("descriptors", "molecule.xyz", "-o", "m.zarr", "--quiet")
    (record, _) = open_store("m.zarr").records()
    assert record.volume is None
    assert "the volume per atom is undefined" in record.without_volume


def test_what_is_told_of_a_store() -> None:
    out, _ = run("descriptors", "cold.xyz", "hot.xyz", "-o", "s.zarr")
    assert re.search(r"^frames        18 in 2 files\nenvironments  576\nelements      Cu\n", out)
    assert "written       s.zarr: 576 x 63, float64" in out


def test_selected_atoms_go_into_a_store() -> None:
    run("descriptors", "alloy.xyz", "-o", "s.zarr", "--select", "Zr", "--quiet")
    wanted = describe(read("alloy.xyz", ":"))
    store = open_store("s.zarr")
    np.testing.assert_array_equal(store.read(0, len(store)), wanted.x[wanted.numbers == 40])
    run("descriptors", "alloy.xyz", "-o", "t.zarr", "--select", "mark", "--quiet")
    assert len(open_store("t.zarr")) == len(wanted) / 2


def test_stores_become_files_for_numpy() -> None:
    run("descriptors", "both.zarr", "-o", "s.npz", "--quiet")
    run("descriptors", "cold.xyz", "hot.xyz", "-o", "f.npz", "--quiet")
    with np.load("s.npz") as found, np.load("f.npz") as wanted:
        assert found.files == wanted.files
        for name in wanted.files:
            np.testing.assert_array_equal(found[name], wanted[name])


def test_what_cannot_be_written_as_a_store_is_refused() -> None:
    refused(
        "cold.zarr: exists already; choose another name or say --overwrite", "descriptors", "hot.xyz", "-o", "cold.zarr"
    )
    refused("cold.zarr: is a store already; name frames", "descriptors", "cold.zarr", "-o", "s.zarr")
    refused(
        "both.zarr: is an input, and would be replaced", "descriptors", "both.zarr", "-o", "both.zarr", "--overwrite"
    )
    Path("folder.zarr").mkdir()
    refused("folder.zarr: is no store of env", "descriptors", "hot.xyz", "-o", "folder.zarr", "--overwrite")
    refused("nowhere.xyz: no such file", "descriptors", "nowhere.xyz", "-o", "s.zarr")
    refused(
        "s.npz: is written at once, from memory; --memory", "descriptors", "hot.xyz", "-o", "s.npz", "--memory", "4GB"
    )
    small = ("descriptors", "hot.xyz", "-o", "s.zarr", "--memory", "1MB")
    refused("--memory 1 MB is too little: rows of 63 numbers need at least [0-9.]+ [MG]B", *small)
    for wrong in ("4", "x", "-1GB", "0MB", "1PB"):
        command = ("descriptors", "a.xyz", "-o", "s.zarr", f"--memory={wrong}")
        refused("is no amount of memory; write for example 4GB", *command, status=2)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("4GB", 4 * 10**9), ("500 MB", 500 * 10**6), ("2GiB", 2**31), ("1.5tb", 15 * 10**11), ("80B", 80)],
)
def test_amounts_of_memory(text: str, n_bytes: int) -> None:
    from quests_zenn.cli._options import Memory

    assert Memory().convert(text, None, None) == n_bytes
    assert Memory().convert(n_bytes, None, None) == n_bytes


def test_memory_sets_the_size_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from quests_zenn.cli import _descriptors, _tell

    monkeypatch.setattr(_tell, "resident", lambda: 0)
    monkeypatch.setattr(_descriptors, "chunk_rows", lambda width: CHUNK)
    monkeypatch.setattr(_descriptors, "SPARE", 0)
    monkeypatch.setattr(_descriptors, "FEWEST_ATOMS", 32)
    sizes = []
    seen = describe

    def counted(frames: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(sum(map(len, frames)))
        return seen(frames, *args, **kwargs)

    monkeypatch.setattr(_descriptors, "describe", counted)
    taken = _descriptors.CHUNKS * CHUNK * 504
    run("descriptors", "cold.xyz", "-o", "s.zarr", "--quiet", f"--memory={taken + 70 * (504 + _descriptors.PER_ATOM)}B")
    assert sizes == [96, 96, 96]
    np.testing.assert_array_equal(open_store("s.zarr").take(np.arange(288)), seen(read("cold.xyz", ":")).x)
    large = bulk("Cu", cubic=True) * (4, 4, 4)
    large.rattle(0.1)
    write("large.xyz", large)
    refused("large.xyz, frame 0: a frame of 256 atoms needs .* MB, more than --memory .*; frames are described as a",
            "descriptors", "large.xyz", "-o", "t.zarr", "--quiet",
            f"--memory={taken + 70 * (504 + _descriptors.PER_ATOM)}B")  # fmt: skip


# --- runs that are stopped --------------------------------------------------------------------------------------------

SLOW = """
import sys, time
from quests_zenn.io import store_form, store_writer
store_form.chunk_rows = lambda width: {chunk}
from quests_zenn.cli import _descriptors
_descriptors.BATCH_ATOMS = 64
append = store_writer.StoreWriter.append
def slow(*args):
    append(*args)
    time.sleep(0.15)
store_writer.StoreWriter.append = slow
from quests_zenn.cli.main import main
main(["descriptors", "cold.xyz", "hot.xyz", "-o", "s.zarr", "--quiet"], prog_name="quests-zenn")
"""


def test_a_command_that_is_stopped_goes_on() -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW.format(chunk=CHUNK)], stderr=subprocess.PIPE, text=True)
    for _ in range(6000):
        if Path(".s.zarr.part/record.json").exists():
            break
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"interrupted; [0-9]00 environments are kept, and the same command goes on from there", told)
    assert not Path("s.zarr").exists()
    _, err = run("descriptors", "cold.xyz", "hot.xyz", "-o", "s.zarr")
    assert re.search(r"s.zarr: goes on after [0-9]00 environments that are there already", err)
    store, whole = open_store("s.zarr", verify=True), open_store("both.zarr")
    assert store.token == whole.token
    assert list(store.records()) == list(whole.records())
    assert store.provenance == whole.provenance or [p["n_frames"] for p in store.provenance] == [9, 9]
    assert ".s.zarr.part" not in os.listdir()


def test_a_changed_input_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from quests_zenn.cli import _descriptors

    monkeypatch.setattr(_descriptors, "BATCH_ATOMS", 64)
    append, calls = store_writer.StoreWriter.append, []

    def fails(self: Any, *args: Any) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise OSError("the plug is pulled")
        append(self, *args)

    monkeypatch.setattr(store_writer.StoreWriter, "append", fails)
    run("descriptors", "cold.xyz", "-o", "s.zarr", status=1)
    os.utime("cold.xyz", (1, 1))
    monkeypatch.setattr(store_writer.StoreWriter, "append", append)
    _, err = run("descriptors", "cold.xyz", "-o", "s.zarr")
    assert re.search(r"^warning: s.zarr: begins anew, since the run before this one had inputs", err)
    assert open_store("s.zarr", verify=True).token == open_store("cold.zarr").token


@pytest.mark.parametrize("change", ["other", "longer"])
def test_an_input_that_changes_while_it_is_read_is_told(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    append = store_writer.StoreWriter.append

    def changes(self: Any, *args: Any) -> None:
        append(self, *args)
        with open("cold.xyz", "a") as stream:
            stream.write("\n" * (change == "longer"))
        os.utime("cold.xyz", (1, 1))

    monkeypatch.setattr(store_writer.StoreWriter, "append", changes)
    _, err = run("descriptors", "cold.xyz", "-o", "s.zarr", status=int(change == "other"))
    if change == "other":
        assert "cold.xyz: was changed while it was read; repeat the command" in err
        assert not os.path.exists("s.zarr")
    else:
        assert "warning: cold.xyz: has grown while it was read" in err
        assert open_store("s.zarr").token == open_store("cold.zarr").token


# --- stores in place of frames ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "frames", "stores"),
    [
        (("entropy", "--per-frame", "--by", "config_type"), ("cold.xyz", "hot.xyz"), ("both.zarr",)),
        (("entropy", "--blocks", "3", "--bandwidth", "auto"), ("cold.xyz",), ("cold.zarr",)),
        (("entropy",), ("cold.xyz@1:7",), ("cold.zarr@1:7",)),
        (("entropy",), ("cold.xyz@::-2",), ("cold.zarr@::-2",)),
        (("entropy", "--select", "0,5,10:20"), ("cold.xyz", "hot.xyz"), ("both.zarr",)),
        (("entropy", "--select", "Zr"), ("alloy.xyz",), ("alloy.zarr",)),
        (("entropy", "--per-frame"), ("cold.xyz", "hot.xyz"), ("cold.zarr", "hot.xyz")),
        (("entropy",), ("alloy.xyz", "other.xyz"), ("alloy.zarr", "other.xyz")),
        (("entropy",), ("alloy.xyz", "other.xyz"), ("alloy.zarr", "other.zarr")),
        (("dh", "--reference", "cold.xyz", "--per-frame"), ("hot.xyz",), ("both.zarr@9:",)),
        (("dh", "--reference", "REF cold"), ("hot.xyz",), ("hot.xyz",)),
        (("dh", "--reference", "REF alloy"), ("other.xyz",), ("other.zarr",)),
        (("overlap",), ("cold.xyz", "hot.xyz"), ("both.zarr",)),
        (("learning-curve", "--by", "frame"), ("cold.xyz",), ("cold.zarr",)),
        (("bandwidth", "--by", "frame"), ("cold.xyz", "hot.xyz"), ("both.zarr",)),
        (("outliers", "--mark", "config_type"), ("cold.xyz",), ("cold.zarr",)),
        (("compress", "--size", "4"), ("cold.xyz",), ("cold.zarr",)),
    ],
    ids=lambda words: "-".join(words),
)
def test_a_store_says_what_its_frames_say(command: Any, frames: Any, stores: Any) -> None:
    species = ("--species", "blocks") if any("alloy" in name for name in (*frames, *command)) else ()
    with_frames = [word.replace("REF ", "") + (".xyz" if word.startswith("REF ") else "") for word in command]
    with_stores = [word.replace("REF ", "") + (".zarr" if word.startswith("REF ") else "") for word in command]
    wanted = document(with_frames[0], *frames, *with_frames[1:], *species)
    found = document(with_stores[0], *stores, *with_stores[1:])
    for content in (wanted, found):
        if command[0] == "compress":
            for name in ("n_tied", "n_incomplete"):
                content.pop(name, None)
            content["labels"] = None
        if command[0] == "overlap":
            content["names"] = [name.removeprefix("both.zarr: ") for name in content["names"]]
    same(found, wanted)


def test_two_trajectories_are_compared_as_stores() -> None:
    wanted = document("compare", "cold.xyz", "hot.xyz", "--blocks", "3", "--precision", "float64")
    run("descriptors", "hot.xyz", "-o", "hot.zarr", "--quiet")
    same(document("compare", "cold.zarr", "hot.zarr", "--blocks", "3", "--precision", "float64"), wanted)


def test_a_store_in_single_precision_is_used_as_it_is() -> None:
    found = document("entropy", "single.zarr")
    wanted = document("entropy", "hot.xyz", "--precision", "float32")
    assert found["entropy"] == pytest.approx(wanted["entropy"], abs=1e-5)


def test_a_reference_is_made_of_a_store() -> None:
    run("reference", "cold.zarr", "-o", "a.qref", "--quiet", "--by", "config_type")
    run("reference", "cold.xyz", "-o", "b.qref", "--quiet", "--by", "config_type")
    found, wanted = (document("dh", "hot.xyz", "--reference", name) for name in ("a.qref", "b.qref"))
    same(found, wanted)
    found, wanted = (document("dh", "both.zarr", "--reference", name) for name in ("a.qref", "b.qref"))
    same(found, wanted)
    run("filter", "hot.xyz", "--reference", "cold.zarr", "-o", "new.xyz", "--quiet", "--threshold", "-5", status=3)
    assert len(read("new.xyz", ":")) > 0


def test_tables_of_maps_are_made_of_stores() -> None:
    run("map", "both.zarr", "-o", "a.csv", "--quiet")
    run("map", "cold.xyz", "hot.xyz", "-o", "b.csv", "--quiet")
    first, second = (np.genfromtxt(name, delimiter=",", skip_header=1)[:, 4:] for name in ("a.csv", "b.csv"))
    np.testing.assert_allclose(np.abs(first), np.abs(second), atol=1e-6)


def test_parameters_come_from_the_store() -> None:
    assert document("entropy", "near.zarr")["cutoff"] == 4.5
    assert document("entropy", "near.zarr", "--cutoff", "4.5")["cutoff"] == 4.5
    refused(
        "near.zarr: was made with cutoff 4.5, and --cutoff 5 asks for another; leave the option out, or make the store",
        "entropy", "near.zarr", "--cutoff", "5.0",
    )  # fmt: skip
    refused(
        "near.zarr: was made with cutoff 4.5, and cold.zarr with 5; both need the same",
        "entropy",
        "cold.zarr",
        "near.zarr",
    )
    species = "alloy.zarr: was made with species blocks, and cold.zarr with none; both need the same"
    refused(species, "dh", "alloy.zarr", "--reference", "cold.zarr")
    run("reference", "cold.xyz", "-o", "a.qref", "--quiet")
    cutoff = "near.zarr: was made with cutoff 4.5, and a.qref with 5; both need the same"
    refused(cutoff, "dh", "near.zarr", "--reference", "a.qref")


FRAMES = "cold.zarr: is a store, of environments and not of frames"


def test_what_needs_frames_refuses_stores() -> None:
    refused(f"{FRAMES}, which -o needs; name the frames", "entropy", "cold.zarr", "-o", "scored.xyz")
    refused(f"{FRAMES}, which -o needs", "dh", "cold.zarr", "--reference", "hot.xyz", "-o", "scored.xyz")
    refused(f"{FRAMES}, which -o needs", "outliers", "cold.zarr", "-o", "scored.xyz")
    arrays = "'mark' names no elements and no indices, and that is all that a store knows of its atoms"
    refused(arrays, "entropy", "cold.zarr", "--select", "mark")
    refused(
        f"{FRAMES}, which a filter needs",
        "filter",
        "cold.zarr",
        "--reference",
        "hot.xyz",
        "--threshold",
        "1",
        "-o",
        "new.xyz",
    )
    refused(f"{FRAMES}, which a walk needs", "generate", "cold.zarr", "--reference", "hot.xyz", "-o", "new.xyz")
    refused(
        "cold.zarr: holds environments and no frames, which --output needs", "compress", "cold.zarr", "-o", "few.xyz"
    )
    refused("a file of environments stands alone", "compress", "cold.zarr", "hot.xyz")
    refused(f"{FRAMES}, which a comparison of what is true and what was predicted needs", "calibrate", "cold.zarr",
            "--reference", "hot.xyz", "--predicted-key", "forces_model", "-o", "bound.json")  # fmt: skip


def test_maps_for_viewers_need_frames() -> None:
    pytest.importorskip("chemiscope")
    refused(f"{FRAMES}, which a data set for chemiscope needs", "map", "cold.zarr", "-o", "m.json")


def test_names_that_are_no_stores_are_refused() -> None:
    refused("none.zarr: no such store", "entropy", "none.zarr")
    Path("empty.zarr").mkdir()
    refused("empty.zarr: is no store of environments", "entropy", "empty.zarr")
    refused("empty.zarr: is no store of environments", "dh", "cold.xyz", "--reference", "empty.zarr")
    refused("cold.zarr@20:: no frame is selected; the store has 9", "entropy", "cold.zarr@20:")
    refused(r"cold.zarr@x: 'x' is no index", "entropy", "cold.zarr@x")
    os.truncate("cold.zarr/x/c/1/0", 100)
    damaged = "cold.zarr: chunk 1 of its array x has 100 bytes and not .*: it is truncated or damaged; make the store"
    refused(damaged, "entropy", "cold.zarr")


def test_rows_of_a_store_need_not_be_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from quests_zenn._core.rows import Rows, SomeRows
    from quests_zenn.cli._source import Source

    options = {"jobs": 1, "quiet": True, "k": 32, "cutoff": 5.0, "species": "none", "by": "config_type"}
    loaded = Source(("both.zarr",), options)
    loaded.describe()
    for name, select, kind in (
        ("both.zarr", None, Store), ("both.zarr@2:9:3", None, SomeRows), ("both.zarr", "0:5", SomeRows),
        ("both.zarr@3:", "1,2", SomeRows),
    ):  # fmt: skip
        loaded = Source((name,), options | {"select": select})
        loaded.describe()
        source = Source((name,), options | {"select": select})
        x = source.open_rows()
        assert isinstance(x, kind)
        assert isinstance(x, Rows)
        np.testing.assert_array_equal(x.read(0, len(x)), loaded.x)
        np.testing.assert_array_equal(source.numbers, loaded.numbers)
        np.testing.assert_array_equal(source.owner, loaded.owner)
        np.testing.assert_array_equal(source.groups()[0], loaded.groups()[0])
        assert source.parameters() == loaded.parameters()
        assert source.rows() == loaded.rows()
    for names in (("both.zarr@::-1",), ("cold.xyz",), ("cold.zarr", "both.zarr")):
        assert Source(names, options).open_rows() is None
