"""``quests-zenn map``: what is in the file, and what the programs that read it say."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import io
import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from commands import run

from quests_zenn.descriptors import describe
from quests_zenn.entropy import delta_entropy, entropy
from quests_zenn.entropy.coordinates import map_coordinates
from quests_zenn.io.tables import read_table

ROOT = Path(__file__).resolve().parents[2]
H = 0.03

Array = npt.NDArray[np.float64]


def crystals(n_frames: int, amplitude: float, seed: int) -> list[Atoms]:
    frames = []
    for i in range(n_frames):
        atoms = bulk("Cu", cubic=True) * (2, 2, 2)
        atoms.rattle(amplitude, seed=100 * seed + i)
        atoms.info |= {"config_type": "even" if i % 2 == 0 else "odd", "same": 1, "step": 10 * i, "pair": np.ones(2)}
        atoms.calc = SinglePointCalculator(atoms, energy=-100.0 - i, forces=np.full((len(atoms), 3), float(i)))
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maps")
    cold = crystals(12, 0.05, 1)
    cold[7].positions[5] += [0.9, 0.4, 0.0]  # one that nobody else looks like
    write(folder / "cold.xyz", cold)
    silver = crystals(3, 0.05, 2)
    silver[1].symbols[3] = "Ag"
    write(folder / "silver.xyz", silver)
    write(folder / "molecule.xyz", [molecule("CH3CH2OH")] * 2)
    write(folder / "perfect.xyz", [bulk("Cu", cubic=True) * (2, 2, 2)] * 2)
    write(folder / "atom.xyz", Atoms("Ar"))
    return folder


@pytest.fixture(autouse=True)
def here(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in store.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(name: str, **options: Any) -> Array:
    return describe(read(name, ":"), **options).x


def mapped(*args: Any) -> Any:
    """The data set that a command writes, as its viewer would accept it."""
    pytest.importorskip("chemiscope")
    out, _ = run("map", *args, "--quiet", "-o", "map.json.gz", "--overwrite")
    assert out == ""
    text = gzip.decompress(Path("map.json.gz").read_bytes()).decode()
    data = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    judge(data)
    return data


def judge(data: Any) -> None:
    """What the viewer itself asks of a data set (``validateDataset`` of chemiscope 1.1, by hand)."""
    assert isinstance(data["meta"]["name"], str)
    for structure in data["structures"]:
        assert {len(structure[key]) for key in ("names", "x", "y", "z")} == {structure["size"]}
        assert len(structure.get("cell", range(9))) == 9
    for environment in data["environments"]:
        assert environment["center"] < data["structures"][environment["structure"]]["size"]
        assert environment["cutoff"] > 0.0
    places = [(environment["structure"], environment["center"]) for environment in data["environments"]]
    assert len(set(places)) == len(places)
    sizes = {"atom": len(places), "structure": len(data["structures"])}
    for name, entry in data["properties"].items():
        assert len(entry["values"]) == sizes[entry["target"]], name
        assert len({type(value) for value in entry["values"]}) == 1, name
        assert isinstance(entry["values"][0], str | float), name
    shown = data["settings"]["map"]
    named = [shown[key]["property"] for key in ("x", "y", "z", "color") if key in shown]
    assert all(data["properties"][name]["target"] == "atom" for name in named)
    assert shown["color"]["min"] < shown["color"]["max"]


def values(data: Any, name: str) -> Any:
    found = data["properties"][name]["values"]
    return found if isinstance(found[0], str) else np.array(found)


def table(*args: Any) -> Any:
    run("map", *args, "--quiet", "-o", "map.csv", "--overwrite")
    return read_table("map.csv")


# --- what is in the file ----------------------------------------------------------------------------------------------


@pytest.mark.extra
def test_a_data_set_holds_what_the_functions_say() -> None:
    data = mapped("cold.xyz", "--bandwidth", H)
    x = rows("cold.xyz")
    np.testing.assert_allclose(values(data, "dH"), delta_entropy(x, x, H), atol=1e-6)
    coordinates = map_coordinates(x).values
    for i in range(2):
        np.testing.assert_allclose(values(data, f"PCA_{i + 1}"), coordinates[:, i], atol=1e-6)
    dh = delta_entropy(x, x, H).reshape(12, 32)
    np.testing.assert_allclose(values(data, "mean_dH"), dh.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(values(data, "max_dH"), dh.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(values(data, "H"), [entropy(part, H) for part in x.reshape(12, 32, -1)], atol=1e-6)
    assert values(data, "frame").tolist() == np.repeat(np.arange(12.0), 32).tolist()
    assert set(values(data, "element")) == {"Cu"}
    assert [place["center"] for place in data["environments"]] == list(range(32)) * 12
    frame = read("cold.xyz", "7")
    assert np.allclose(data["structures"][7]["y"], frame.positions[:, 1])
    assert np.allclose(data["structures"][7]["cell"], frame.cell.array.ravel())
    assert "all environments of the run" in data["properties"]["dH"]["description"]


@pytest.mark.extra
def test_what_frames_say_of_themselves_is_kept() -> None:
    data = mapped("cold.xyz", "silver.xyz")
    assert np.allclose(values(data, "energy_per_atom"), [-(100.0 + i) / 32 for i in [*range(12), *range(3)]])
    assert values(data, "config_type")[:3] == ["even", "odd", "even"]
    assert values(data, "frame.config_type")[32] == "odd"
    assert values(data, "file") == ["cold.xyz"] * 12 + ["silver.xyz"] * 3
    assert values(data, "frame.step")[-1] == 20.0
    assert np.allclose(values(data, "|forces|")[-32:], 2.0 * np.sqrt(3.0), atol=1e-6)
    # what is the same for all, or no number and no word, tells nothing
    assert {"same", "pair"}.isdisjoint(data["properties"])


@pytest.mark.extra
def test_words_that_some_frames_lack_and_names_that_are_taken() -> None:
    frames = crystals(3, 0.05, 4)
    del frames[1].info["config_type"]
    del frames[2].info["step"]
    for i, atoms in enumerate(frames):
        atoms.info["H"] = float(i)
        atoms.arrays["dH"] = np.arange(32.0)
    frames[0].arrays["bad"] = np.full(32, np.nan)
    write("odd.xyz", frames)
    data = mapped("odd.xyz")
    assert values(data, "config_type") == ["even", "(none)", "even"]
    assert {"step", "bad"}.isdisjoint(data["properties"])
    assert values(data, "H of the file").tolist() == [0.0, 1.0, 2.0]
    assert values(data, "dH of the file").tolist() == list(range(32)) * 3
    assert (values(data, "dH") <= 1e-9).all()


@pytest.mark.extra
def test_molecules_have_no_cell_and_elements_are_symbols() -> None:
    data = mapped("molecule.xyz", "--species", "blocks", "--dimensions", 3)
    assert all("cell" not in structure for structure in data["structures"])
    assert data["structures"][0]["names"] == read("molecule.xyz", "0").get_chemical_symbols()
    assert data["settings"]["map"]["symbol"] == "element"
    assert data["settings"]["map"]["z"]["property"] == "PCA_3"
    x = describe(read("molecule.xyz", ":"), species="blocks")
    dh = delta_entropy(x.x, x.x, 0.015, y_labels=x.numbers, x_labels=x.numbers)
    np.testing.assert_allclose(values(data, "dH"), dh, atol=1e-6)


@pytest.mark.extra
def test_selected_atoms_keep_their_place() -> None:
    data = mapped("silver.xyz", "--select", "3,20")
    assert [(place["structure"], place["center"]) for place in data["environments"]] == [
        (f, a) for f in range(3) for a in (3, 20)
    ]
    assert values(data, "element") == ["Cu", "Cu", "Ag", "Cu", "Cu", "Cu"]
    alone = mapped("silver.xyz", "--select", "Ag")
    assert len(alone["structures"]) == 1
    assert values(alone, "frame_number").tolist() == [1.0]


@pytest.mark.extra
@pytest.mark.parametrize("name", ["perfect.xyz", "atom.xyz"])
def test_equal_environments_lie_on_one_point(name: str) -> None:
    data = mapped(name)
    assert not values(data, "PCA_1").any()
    assert not values(data, "PCA_2").any()
    _, err = run("map", name, "-o", "one.csv")
    assert "warning: all environments in the map are alike, and lie on one point" in err


# --- how much ---------------------------------------------------------------------------------------------------------


@pytest.mark.extra
def test_a_part_holds_the_rarest_and_others_by_the_rule() -> None:
    full = mapped("cold.xyz", "--bandwidth", H)
    dh = values(full, "dH")
    data = mapped("cold.xyz", "--bandwidth", H, "--frames", 10, "--environments", 40)
    rare = [name == "largest dH" for name in values(data, "drawn")]
    assert len(rare) == 40
    assert sum(rare) == 4
    frames = values(data, "frame").astype(int)
    of_full = frames * 32 + [place["center"] for place in data["environments"]]
    np.testing.assert_array_equal(values(data, "dH"), dh[of_full])
    np.testing.assert_array_equal(values(data, "PCA_1"), values(full, "PCA_1")[of_full])
    left_out = np.setdiff1d(np.arange(12), frames)
    candidates = np.flatnonzero(~np.isin(np.arange(12 * 32) // 32, left_out))
    assert set(of_full[rare]) == set(candidates[np.argsort(-dh[candidates], kind="stable")[:4]])
    assert int(np.argmax(dh)) // 32 in frames
    again = mapped("cold.xyz", "--bandwidth", H, "--frames", 10, "--environments", 40, "--seed", 1)
    assert again["environments"] != data["environments"]
    assert (
        "1 frame with the largest dH and others evenly spaced; 4 environments with the largest dH"
        in (data["meta"]["description"])
    )
    # frames without an environment in the map are left out
    one = mapped("cold.xyz", "--environments", 1)
    assert len(one["structures"]) == 1


def test_frames_are_evenly_spaced() -> None:
    found = table("cold.xyz", "--frames", 4)
    assert sorted(set(found.column("frame"))) == [0.0, 3.0, 6.0, 9.0]
    assert len(found) == 4 * 32


@pytest.mark.extra
def test_large_frames_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    from quests_zenn.cli import _map

    monkeypatch.setattr(_map, "MOST_ATOMS", 100)
    monkeypatch.setattr(_map, "MOST_ENVIRONMENTS", 50)
    data = mapped("cold.xyz")
    assert len(data["structures"]) == 3
    assert len(data["environments"]) == 50
    assert len(table("cold.xyz")) == 12 * 32  # tables hold all
    assert len(table("cold.xyz", "--method", "tsne")) == 50


@pytest.mark.extra
def test_the_same_bytes_for_the_same_input() -> None:
    pytest.importorskip("chemiscope")
    for number, jobs in enumerate((1, 2)):
        for method in ("pca", "tsne"):
            run("map", "cold.xyz", "--method", method, "--environments", 100, "--jobs", jobs, "--quiet",
                "-o", f"{method}{number}.json.gz")  # fmt: skip
    for method in ("pca", "tsne"):
        assert Path(f"{method}0.json.gz").read_bytes() == Path(f"{method}1.json.gz").read_bytes()


# --- given a reference ------------------------------------------------------------------------------------------------


@pytest.mark.extra
def test_given_a_reference_as_frames_or_saved() -> None:
    data = mapped("silver.xyz", "--reference", "cold.xyz", "--bandwidth", H)
    dh = delta_entropy(rows("silver.xyz"), rows("cold.xyz"), H)
    np.testing.assert_allclose(values(data, "dH"), dh, rtol=1e-6, atol=1e-6)
    run("reference", "cold.xyz", "--bandwidth", H, "-o", "cold.qref", "--quiet", "--no-thresholds")
    saved = mapped("silver.xyz", "--reference", "cold.qref")
    np.testing.assert_allclose(values(saved, "dH"), values(data, "dH"), atol=1e-6)
    assert "the reference: cold.qref" in saved["properties"]["dH"]["description"]
    # colours belong to most environments, not to a few that are far away
    assert saved["settings"]["map"]["color"]["max"] <= dh.max() + 1e-9


@pytest.mark.extra
def test_infinite_dh_has_a_stand_in() -> None:
    args = ("silver.xyz", "--reference", "cold.xyz", "--species", "blocks", "--bandwidth", H)
    data = mapped(*args)
    kind = np.array(values(data, "dH_is"))
    assert np.flatnonzero(kind == "infinite").tolist() == [32 + 3]
    largest = max(0.0, values(data, "dH")[kind == "finite"].max())
    assert values(data, "dH")[35] == pytest.approx(largest + 10.0, rel=1e-6)
    assert values(data, "max_dH")[1] == values(data, "dH")[35]
    assert "stands for infinity" in data["properties"]["dH"]["description"]
    out, err = run("map", *args, "-o", "map.csv", "--json", "map.json")
    assert "warning: dH of 1 environment is infinite" in err
    assert "it is written as inf" in err
    lines = Path("map.csv").read_text().splitlines()
    assert lines[1 + 35].split(",")[:5] == ["silver.xyz", "1", "3", "Ag", "inf"]
    found = json.loads(Path("map.json").read_text())
    assert found["n_infinite"] == 1
    assert found["infinite_as"] == pytest.approx(largest + 10.0, rel=1e-6)
    assert "largest inf nats" in out


# --- tables, documents, figures ---------------------------------------------------------------------------------------


def test_a_table_has_one_row_for_each_environment() -> None:
    found = table("cold.xyz", "silver.xyz", "--bandwidth", H)
    assert found.names == ("file", "frame", "atom", "element", "dH", "PCA_1", "PCA_2")
    x = np.concatenate([rows("cold.xyz"), rows("silver.xyz")])
    np.testing.assert_array_equal(found.column("dH"), delta_entropy(x, x, H))
    np.testing.assert_array_equal(found.column("frame"), np.repeat(np.arange(15.0), 32))
    assert found.words("file") == ["cold.xyz"] * (12 * 32) + ["silver.xyz"] * (3 * 32)
    assert found.words("element")[12 * 32 + 32 + 3] == "Ag"
    run("map", "cold.xyz", "silver.xyz", "--bandwidth", H, "-o", "map.csv.gz")
    assert gzip.decompress(Path("map.csv.gz").read_bytes()) == Path("map.csv").read_bytes()


def test_errors_of_samples_are_a_column() -> None:
    found = table("cold.xyz", "--estimator", "knn")
    assert found.names[4:6] == ("dH", "dH_error")
    assert (found.column("dH_error") > 0.0).any()


def test_the_document_and_the_table_on_screen() -> None:
    out, err = run("map", "cold.xyz", "--bandwidth", H, "--frames", 6, "-o", "map.csv", "--json", "map.json")
    assert err == ""
    found = json.loads(Path("map.json").read_text())
    x = rows("cold.xyz")
    dh = delta_entropy(x, x, H)
    assert found["command"] == "map"
    assert found["mean_dh"] == pytest.approx(dh.mean())
    assert found["n_environments"] == 384
    assert (found["n_shown"], found["n_frames_shown"]) == (192, 6)
    assert found["rule"] == "frames evenly spaced"
    assert found["infinite_as"] is None
    assert found["scope"]["dH"] == "all environments of the run"
    assert found["explained_variance"] == pytest.approx(map_coordinates(x).explained.tolist())  # type: ignore[union-attr]
    assert [frame["index"] for frame in found["frames"]] == [0, 2, 4, 6, 8, 10]
    assert found["frames"][1]["entropy"] == pytest.approx(entropy(x[64:96], H))
    assert found["frames"][1]["max_dh"] == pytest.approx(dh[64:96].max())
    assert re.search(r"map +192 environments of 6 frames\n +not all: frames evenly spaced\naxes +PCA_1 \d", out)


@pytest.mark.extra
def test_figures() -> None:
    pytest.importorskip("matplotlib")
    for name, args in {
        "kinds": ["cold.xyz"],
        "elements": ["molecule.xyz", "--method", "tsne"],
        "files": ["perfect.xyz", "atom.xyz", "--species", "none"],
        "infinite": ["silver.xyz", "--reference", "cold.xyz", "--species", "blocks"],
    }.items():
        run("map", *args, "--quiet", "-o", f"{name}.csv", "--plot", f"{name}.png")
        assert Path(f"{name}.png").stat().st_size > 5000


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(sentence: str, *args: Any) -> None:
    before = sorted(path.name for path in Path().iterdir())
    _, err = run("map", *args, status=1)
    assert re.search(sentence, err), err
    assert len(err.splitlines()) == 1
    assert sorted(path.name for path in Path().iterdir()) == before


def test_outputs_are_judged_first(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("there.csv").write_text("mine")
    refused("there.csv: exists already; choose another name or say --overwrite", "cold.xyz", "-o", "there.csv")
    assert Path("there.csv").read_text() == "mine"
    refused(r"map.txt: a map is written for chemiscope as .json or .json.gz, or as", "cold.xyz", "-o", "map.txt")
    refused("cold.xyz: is an input", "cold.xyz", "-o", "cold.xyz", "--overwrite")
    refused("silver.xyz: is an input", "cold.xyz", "--reference", "silver.xyz", "-o", "silver.xyz", "--overwrite")
    refused("two outputs have the same name", "cold.xyz", "-o", "a.csv", "--json", "a.csv")
    monkeypatch.setitem(sys.modules, "chemiscope", None)
    refused(r"this needs chemiscope, which is not installed: pip install 'quests_zenn\[interop\]'",
            "cold.xyz", "-o", "map.json")  # fmt: skip
    run("map", "cold.xyz", "-o", "map.csv", "--quiet")  # needs none


def test_odd_input() -> None:
    refused("nowhere.xyz: no such file", "nowhere.xyz", "-o", "a.csv")
    refused("this command takes one --bandwidth, got several", "cold.xyz", "--bandwidth", "0.1,0.2", "-o", "a.csv")
    refused("t-SNE needs at least 4 environments, got 1", "atom.xyz", "--method", "tsne", "-o", "a.csv")
    refused("names no atom in any frame", "cold.xyz", "--select", "Au", "-o", "a.csv")
    run("reference", "cold.xyz", "-o", "cold.qref", "--quiet", "--no-thresholds")
    refused("cold.qref: was made with k 32, and --k 8 asks for another", "silver.xyz", "--reference", "cold.qref",
            "--k", 8, "-o", "a.csv")  # fmt: skip
    for option, value in (("--frames", 0), ("--environments", 0), ("--dimensions", 4), ("--method", "umap")):
        run("map", "cold.xyz", "-o", "a.csv", option, value, status=2)
    run("map", "cold.xyz", status=2)


@pytest.mark.extra
def test_no_figure_where_all_is_infinite() -> None:
    pytest.importorskip("matplotlib")
    refused("dH is infinite everywhere .*: no plot", "cold.xyz", "--reference", "molecule.xyz", "--species", "blocks",
            "-o", "a.csv", "--plot", "a.png")  # fmt: skip


@pytest.mark.extra
def test_input_that_changes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("chemiscope")
    from quests_zenn.cli import _map

    def changing(self: Any) -> None:
        write("cold.xyz", crystals(12, 0.05, 9))

    monkeypatch.setattr(_map._Map, "frame_entropies", changing)
    refused("cold.xyz, frame 0: the input changed while it was in use", "cold.xyz", "-o", "map.json")


# --- other programs ---------------------------------------------------------------------------------------------------


@pytest.mark.extra
def test_chemiscope_opens_the_file() -> None:
    chemiscope = pytest.importorskip("chemiscope")
    data = mapped("silver.xyz")
    widget = chemiscope.show_input("map.json.gz")
    shown = json.loads(widget.value)
    assert shown["properties"] == data["properties"]
    assert shown["environments"] == data["environments"]


@pytest.mark.extra
def test_pandas_reads_tables_and_documents() -> None:
    pandas = pytest.importorskip("pandas")
    run("map", "silver.xyz", "--reference", "cold.xyz", "--species", "blocks", "-o", "map.csv.gz", "--quiet")
    found = pandas.read_csv("map.csv.gz")
    assert found.shape == (96, 7)
    assert np.isinf(found["dH"]).sum() == 1
    assert found.groupby("frame")["dH"].max().tolist()[1] == np.inf
    run("entropy", "cold.xyz", "--per-frame", "--json", "a.json", "--quiet")
    run("dh", "silver.xyz", "--reference", "cold.xyz", "--per-frame", "--json", "b.json", "--quiet")
    for name, columns, n in (("a", ["index", "entropy", "energy"], 12), ("b", ["index", "max_dh", "novelty"], 3)):
        frames = pandas.DataFrame(json.loads(Path(f"{name}.json").read_text())["frames"])
        assert len(frames) == n
        assert frames["index"].tolist() == list(range(n))
        assert all(frames[column].dtype.kind in "fi" for column in columns)


@pytest.mark.extra
def test_the_page_about_other_programs_with_pandas(here: Path) -> None:
    """Blocks that need pandas are text on the page, and run here."""
    pytest.importorskip("pandas")
    spec = importlib.util.spec_from_file_location("page_blocks", ROOT / "docs" / "blocks.py")
    assert spec is not None
    assert spec.loader is not None
    blocks = importlib.util.module_from_spec(spec)
    sys.modules["page_blocks"] = blocks
    spec.loader.exec_module(blocks)
    shutil.copyfile(ROOT / "examples" / "copper_melting.xyz", here / "traj.xyz")
    namespace: dict[str, Any] = {}
    n_run, printed = 0, None
    for language, text, _, _ in blocks.fences(ROOT / "docs" / "howto" / "outputs.md"):
        if language == "console":
            for command in blocks.commands(text):
                words = shlex.split(command.text.replace("\\\n", " "))
                run(*(words[1:] if words[0] == "quests-zenn" else ["entropy", *words[1:]]))
        elif language == "text" and "import pandas" in text:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(text, namespace)
            n_run += 1
        elif printed is not None:  # the block right below shows what it prints
            assert blocks.same(text, printed.getvalue())
            printed = None
    assert n_run == 2
    assert printed is None
