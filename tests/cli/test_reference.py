"""``quests-zenn reference``, and what ``--reference`` of other commands makes of one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from commands import run

from quests_zenn.cli._known import frame_names
from quests_zenn.descriptors import describe
from quests_zenn.uq import Reference

H = 0.03


def document(*args: Any) -> dict[str, Any]:
    out, _ = run(*args, "--quiet", "--json", "found.json", "--overwrite")
    assert out == ""
    found: dict[str, Any] = json.loads(Path("found.json").read_text(encoding="utf-8"))
    return found


def refused(sentence: str, *args: Any, status: int = 1) -> None:
    before = sorted(path.name for path in Path().iterdir())
    _, err = run(*args, status=status)
    assert re.search(sentence, " ".join(err.split())), err
    assert "Traceback" not in err
    if status == 1:
        assert len([line for line in err.splitlines() if not line.startswith("compiling")]) == 1
    assert sorted(path.name for path in Path().iterdir()) == before


def crystals(n_frames: int, amplitude: float, seed: int) -> list[Atoms]:
    frames = []
    for i in range(n_frames):
        atoms = bulk("Cu", cubic=True) * (2, 2, 1)
        atoms.rattle(amplitude, seed=100 * seed + i)
        atoms.info["config_type"] = f"kind {i % 3}"
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    write(folder / "cold.xyz", crystals(12, 0.05, 1))
    write(folder / "hot.xyz", crystals(9, 0.15, 2))
    silver = crystals(4, 0.05, 3)
    for atoms in silver:
        atoms.symbols[::4] = "Ag"
    write(folder / "silver.xyz", silver)
    Reference.fit(str(folder / "cold.xyz"), H, k=12).save(folder / "cold.qref")
    Reference.fit(str(folder / "silver.xyz"), H, k=12, species="pairs").save(folder / "silver.qref")
    lines = []
    for step in range(2):
        head = f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS ff ff ff\n"
        lines.append(head + "0 9\n" * 3 + f"ITEM: ATOMS id type x y z\n1 1 0 0 {step}\n2 2 1.9 0 0.{step}\n")
    (folder / "types.lammpstrj").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def here(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in store.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- making one -------------------------------------------------------------------------------------------------------


def test_a_reference_is_made() -> None:
    out, err = run("reference", "cold.xyz", "hot.xyz@::2", "-o", "new.qref", "--bandwidth", H, "--k", 12)
    made = Reference.load("new.qref")
    frames = [*read("cold.xyz", ":"), *read("hot.xyz", "::2")]
    np.testing.assert_array_equal(made.x, describe(frames, 12).x)
    assert made.parameters == {"k": 12, "cutoff": 5.0, "species": "none", "bandwidth": H, "same_centre": True}
    assert made.sources == [
        {"name": "cold.xyz", "index": ":", "n_frames": 12, "n_environments": 192},
        {"name": "hot.xyz", "index": "::2", "n_frames": 5, "n_environments": 80},
    ]
    assert frame_names(made)[10:14] == [
        "cold.xyz, frame 10",
        "cold.xyz, frame 11",
        "hot.xyz, frame 0",
        "hot.xyz, frame 2",
    ]
    assert made.groups.tolist() == list(range(17))
    assert re.search(r"^frames +17 in 17 groups$", out, re.M)
    assert re.search(r"^environments  272$", out, re.M)
    assert re.search(r"^written +new\.qref: \d+ kB$", out, re.M)
    assert err.startswith("warning: a false-alarm rate of 0.01 takes at least 99 groups")
    assert err.count("\n") == 1


def test_options_reach_the_reference() -> None:
    def made(*args: Any) -> Reference:
        run("reference", "silver.xyz", "-o", "new.qref", "--overwrite", "--quiet", "--no-thresholds", *args)
        return Reference.load("new.qref")

    base = made()
    assert base.parameters == {"k": 32, "cutoff": 5.0, "species": "none", "bandwidth": 0.015, "same_centre": True}
    assert made("--k", 8).k == 8
    assert made("--cutoff", 4.5).cutoff == 4.5
    assert made("--species", "blocks").species == "blocks"
    assert made("--bandwidth", 0.1).bandwidth == 0.1
    assert 0.05 < made("--bandwidth", "auto").bandwidth < 0.07
    assert made("--by", "config_type").groups.tolist() == [0, 1, 2, 0]
    assert made("--by", "file").groups.tolist() == [0, 0, 0, 0]
    np.testing.assert_array_equal(made("--jobs", 1).x, base.x)
    run("reference", "types.lammpstrj", "-o", "types.qref", "--type-map", "1=Cu,2=Zr", "--no-thresholds")
    assert Reference.load("types.qref").elements == ("Cu", "Zr")
    _, err = run("reference", "types.lammpstrj", "-o", "types.qref", "--no-thresholds", "--overwrite")
    assert "atom types were read as elements (H He)" in err


def test_thresholds_are_found_and_kept() -> None:
    args = ("reference", "cold.xyz", "-o", "new.qref", "--bandwidth", H, "--k", 12, "--false-alarm", 0.1)
    found = document(*args)
    reference = Reference.fit("cold.xyz", H, k=12)
    expected = {of: reference.threshold(0.1, of=of) for of in ("atom", "mean", "max")}
    assert {item["of"]: item["threshold"] for item in found["thresholds"]} == expected
    assert all(item["false_alarm"] == 0.1 for item in found["thresholds"])
    assert Reference.load("new.qref")._thresholds == {(0.1, of): value for of, value in expected.items()}
    args = (*args[:-1], 0.25)
    found, grouped = document(*args), document(*args, "--by", "config_type")
    assert [item["of"] for item in grouped["thresholds"]] == ["atom", "mean", "max"]
    assert grouped["thresholds"] != found["thresholds"]
    assert grouped["n_groups"] == 3
    assert document(*args, "--no-thresholds")["thresholds"] == []
    out, _ = run(*args[:-1], 0.1, "--overwrite")
    assert f"{expected['max']:.4f} nats: reached by 0.1 of the frames, by largest dH" in out


def test_copies_are_told() -> None:
    frames = crystals(4, 0.05, 1)
    write("twice.xyz", [*frames, *frames[:3]])
    args = ("reference", "twice.xyz", "-o", "twice.qref", "--overwrite", "--false-alarm", 0.4)
    out, _ = run(*args)
    assert re.search(r"^frames +7 in 7 groups; 3 frames are copies of others, so that 4 groups count$", out, re.M)
    assert document(*args)["n_copies"] == 3
    # nobody has looked
    assert document(*args, "--no-thresholds")["n_copies"] is None
    out, _ = run("reference", "cold.xyz@0", "-o", "one.qref", "--no-thresholds")
    assert re.search(r"^frames +1 in 1 group$", out, re.M)


def test_where_thresholds_cannot_be_told() -> None:
    # 12 frames tell no rate of 1 % of frames, and one of 1 % of atoms not for certain
    out, err = run("reference", "cold.xyz", "-o", "new.qref", "--bandwidth", H)
    assert re.search(r"^threshold +\S+ nats: reached by 0.01 of the atoms$", out, re.M)
    assert "no threshold  a false-alarm rate of 0.01 takes at least 99 groups" in out
    assert "takes at least 99 groups of frames to be certain, and there are 12" in err
    # nothing was asked for: the reference is made all the same
    out, _ = run("reference", "cold.xyz@0", "-o", "one.qref")
    assert re.search(r"^no threshold  leaving groups out needs at least two groups", out, re.M)
    assert len(Reference.load("one.qref")) == 16
    refused("leaving groups out needs at least two", "reference", "cold.xyz@0", "-o", "a.qref", "--false-alarm", 0.1)


def test_the_document() -> None:
    found = document("reference", "silver.xyz", "-o", "new.qref", "--species", "blocks")
    assert found["command"] == "reference"
    assert found["inputs"] == ["silver.xyz"]
    assert found["output"] == "new.qref"
    assert found["element_counts"] == {"Ag": 16, "Cu": 48}
    assert (found["n_environments"], found["n_frames"], found["n_groups"]) == (64, 4, 4)
    assert found["bandwidth_source"] == "default"
    assert found["sources"][0]["name"] == "silver.xyz"
    assert found["versions"]["quests_zenn"]


# --- extending one ----------------------------------------------------------------------------------------------------


def test_a_reference_is_extended() -> None:
    args = ("reference", "hot.xyz", "--extend", "cold.qref", "-o", "new.qref")
    out, _ = run(*args)
    expected = Reference.load("cold.qref").copy()
    expected.extend("hot.xyz")
    made = Reference.load("new.qref")
    np.testing.assert_array_equal(made.x, expected.x)
    assert [part["name"] for part in made.sources] == ["cold.xyz", "hot.xyz"]
    assert re.search(r"^added +144 environments of 9 frames to the 192 of cold\.qref$", out, re.M)
    assert len(Reference.load("cold.qref")) == 192
    found = document(*args, "--by", "config_type")
    assert (found["n_before"], found["n_added"], found["n_frames_added"]) == (192, 144, 9)
    assert Reference.load("new.qref").groups.tolist() == [*range(12), *[12, 13, 14] * 3]


def test_only_what_is_new_is_added() -> None:
    args = ("reference", "hot.xyz", "--extend", "cold.qref", "-o", "new.qref", "--only-new")
    some = document(*args)
    assert 0 < some["n_added"] < 144
    expected = Reference.load("cold.qref").copy()
    assert expected.extend("hot.xyz", only_new=True) == some["n_added"]
    np.testing.assert_array_equal(Reference.load("new.qref").x, expected.x)
    fewer = document(*args, "--eps", 5.0)
    assert fewer["n_added"] < some["n_added"]
    assert (fewer["eps"], fewer["only_new"]) == (5.0, True)
    nothing = document(*args, "--eps", 1e6)
    assert nothing["n_added"] == 0
    assert len(Reference.load("new.qref")) == 192


def test_a_reference_is_extended_in_place() -> None:
    refused("cold.qref: exists already", "reference", "hot.xyz", "--extend", "cold.qref", "-o", "cold.qref")
    run("reference", "hot.xyz", "--extend", "cold.qref", "-o", "cold.qref", "--overwrite", "--quiet")
    assert len(Reference.load("cold.qref")) == 192 + 144


def test_extending_with_types() -> None:
    args = (
        "reference",
        "types.lammpstrj",
        "--extend",
        "silver.qref",
        "-o",
        "new.qref",
        "--no-thresholds",
        "--overwrite",
    )
    run(*args, "--type-map", "1=Cu,2=Zr")
    assert Reference.load("new.qref").elements == ("Ag", "Cu", "Zr")
    _, err = run(*args)
    assert "types.lammpstrj: atom types were read as elements" in err


# --- looking at one ---------------------------------------------------------------------------------------------------


def test_what_a_reference_holds() -> None:
    run("reference", "silver.xyz", "-o", "new.qref", "--bandwidth", H, "--by", "config_type", "--false-alarm", 0.2)
    more = ("--only-new", "--overwrite", "--false-alarm", 0.1)
    run("reference", "hot.xyz@::3", "--extend", "new.qref", "-o", "new.qref", *more)
    out, err = run("reference", "--show", "new.qref")
    assert err == ""
    assert re.search(r"^reference +new\.qref: \d+ kB, made by quests_zenn \d", out, re.M)
    assert re.search(r"^frames +7 in 6 groups$", out, re.M)
    assert re.search(r"^elements +Ag 16, Cu \d+$", out, re.M)
    assert re.search(r"^bandwidth +0\.03 1/Å$", out, re.M)
    assert re.search(r"^threshold +\S+ nats: reached by 0\.1 of the atoms$", out, re.M)
    assert re.search(r"^source +silver\.xyz: 4 frames, 64 environments$", out, re.M)
    assert re.search(r"^source +hot\.xyz@::3: 3 frames, \d+ environments, only what was new at 1e-05 nats$", out, re.M)
    found = document("reference", "--show", "new.qref")
    assert found["thresholds"][0]["of"] == "atom"
    assert found["made_with"]["quests_zenn"] == found["versions"]["quests_zenn"]
    assert found["k"] == 32


# --- what is refused --------------------------------------------------------------------------------------------------


def test_wrong_usage() -> None:
    for sentence, args in [
        ("Missing argument 'FILE...'", []),
        ("a reference needs a place: -o train.qref", ["cold.xyz"]),
        ("--only-new belongs to --extend", ["cold.xyz", "-o", "a.qref", "--only-new"]),
        ("--eps belongs to --only-new", ["cold.xyz", "-o", "a.qref", "--eps", 5]),
        ("--eps belongs to --only-new", ["hot.xyz", "--extend", "cold.qref", "-o", "a.qref", "--eps", 5]),
        ("--show takes no other files", ["cold.xyz", "--show", "cold.qref"]),
        ("--show takes no other files", ["--show", "cold.qref", "-o", "a.qref"]),
        ("'1.5' is no number between 0 and 1", ["cold.xyz", "-o", "a.qref", "--false-alarm", 1.5]),
        ("'nan' is no number between 0 and 1", ["cold.xyz", "-o", "a.qref", "--false-alarm", "nan"]),
        ("'inf' is no finite number", ["cold.xyz", "-o", "a.qref", "--eps", "inf"]),
    ]:
        refused(sentence, "reference", *args, status=2)


def test_what_cannot_become_a_reference() -> None:
    Path("text.qref").write_text("nothing")
    shutil.copy("cold.qref", "cut.qref")
    with open("cut.qref", "rb+") as stream:
        stream.truncate(500)
    for sentence, args in [
        ("a.xyz: the name of a reference must end in .qref", ["cold.xyz", "-o", "a.xyz"]),
        ("cold.qref: exists already", ["cold.xyz", "-o", "cold.qref"]),
        ("none.xyz: no such file", ["none.xyz", "-o", "a.qref"]),
        ("cold.qref: is a reference already; quests-zenn reference --extend", ["cold.qref", "-o", "a.qref"]),
        ("no key 'phase' to group frames by", ["cold.xyz", "-o", "a.qref", "--by", "phase"]),
        ("no key 'phase'", ["hot.xyz", "--extend", "cold.qref", "-o", "a.qref", "--by", "phase"]),
        ("takes one --bandwidth, got several", ["cold.xyz", "-o", "a.qref", "--bandwidth", "0.1,0.2"]),
        ("cold.xyz: is no reference", ["hot.xyz", "--extend", "cold.xyz", "-o", "a.qref"]),
        ("none.qref: no such file", ["hot.xyz", "--extend", "none.qref", "-o", "a.qref"]),
        ("text.qref: cannot be read", ["--show", "text.qref"]),
        ("cut.qref: cannot be read", ["--show", "cut.qref"]),
        ("was made with k 12, and --k 32 asks for another",
         ["hot.xyz", "--extend", "cold.qref", "-o", "a.qref", "--k", 32]),
        ("cold.qref: is an input, and would be replaced by an output",
         ["hot.xyz", "--extend", "cold.qref", "-o", "a.qref", "--json", "cold.qref", "--overwrite"]),
    ]:  # fmt: skip
        refused(sentence, "reference", *args)


# --- `dh` with a saved reference --------------------------------------------------------------------------------------


@pytest.mark.parametrize("species", ["none", "blocks", "pairs"])
def test_dh_given_a_saved_reference_is_that_given_its_frames(species: str) -> None:
    run("reference", "cold.xyz", "-o", "new.qref", "--k", 12, "--bandwidth", H, "--species", species, "--quiet")
    same = ("-o", "scored.xyz", "--per-frame")
    given = document(
        "dh", "silver.xyz", "--reference", "cold.xyz", "--k", 12, "--bandwidth", H, "--species", species, *same
    )
    expected = [atoms.arrays["dH"] for atoms in read("scored.xyz", ":")]
    found = document("dh", "silver.xyz", "--reference", "new.qref", *same)
    np.testing.assert_array_equal([atoms.arrays["dH"] for atoms in read("scored.xyz", ":")], expected)
    for name in ("mean_dh", "novelty", "n_reference", "k", "species", "frames", "reference_elements"):
        assert found[name] == given[name], name
    assert found["bandwidth_source"] == "of the reference"
    assert found["scope"] == {"dH": "the reference: new.qref"}
    atoms = read("scored.xyz", 0)
    assert (atoms.info["dH_k"], atoms.info["dH_species"], atoms.info["dH_bandwidth"]) == (12, species, H)


def test_other_options_of_dh_with_a_saved_reference() -> None:
    exact = document("dh", "hot.xyz", "--reference", "cold.qref")
    assert document("dh", "hot.xyz", "--reference", "cold.qref", "--estimator", "knn")["mean_dh"] > exact["mean_dh"]
    single = document("dh", "hot.xyz", "--reference", "cold.qref", "--precision", "float32")["mean_dh"]
    assert single == pytest.approx(exact["mean_dh"], rel=1e-4)
    assert single != exact["mean_dh"]
    assert document("dh", "hot.xyz", "--reference", "cold.qref", "--select", "0:4")["n_environments"] == 36
    out, _ = run("dh", "hot.xyz", "--reference", "cold.qref", "--k", 12, "--bandwidth", H)
    assert re.search(r"^bandwidth +0\.03 1/Å \(of the reference\)$", out, re.M)


def test_dh_tells_how_many_reach_the_threshold_of_the_reference() -> None:
    run("reference", "cold.xyz", "-o", "new.qref", "--k", 12, "--bandwidth", H, "--false-alarm", 0.1, "--quiet")
    reference = Reference.load("new.qref")
    limit = reference.threshold(0.1, of="atom")
    novel = np.mean(reference.score(read("hot.xyz", ":")) >= limit)
    assert 0.0 < novel < 1.0
    (told,) = document("dh", "hot.xyz", "--reference", "new.qref")["novelty_by_threshold"]
    assert told == {"of": "atom", "false_alarm": 0.1, "threshold": limit, "novelty": novel}
    out, _ = run("dh", "hot.xyz", "--reference", "new.qref")
    assert re.search(rf"^ +{100 * novel:.2f}% of the environments \(dH >= \S+ nats, which 0\.1 of the", out, re.M)
    assert document("dh", "hot.xyz", "--reference", "cold.qref")["novelty_by_threshold"] == []


def test_parameters_that_a_saved_reference_does_not_have_are_refused() -> None:
    for sentence, args in [
        ("cold.qref: was made with k 12, and --k 13 asks for another", ["--k", 13]),
        ("was made with k 12, and --k 32 asks for another", ["--k", 32]),
        ("was made with cutoff 5, and --cutoff 4.0 asks for another", ["--cutoff", 4]),
        ("was made with species none, and --species blocks asks", ["--species", "blocks"]),
        ("was made with bandwidth 0.03, and --bandwidth 0.015 asks", ["--bandwidth", 0.015]),
        ("was made with bandwidth 0.03, and --bandwidth auto asks", ["--bandwidth", "auto"]),
        ("was made with bandwidth 0.03, and --bandwidth 0.03,0.1 asks", ["--bandwidth", "0.03,0.1"]),
        ("a saved reference stands alone, got 2 files", ["--reference", "hot.xyz"]),
        ("is an input, and would be replaced", ["--json", "cold.qref", "--overwrite"]),
    ]:
        refused(sentence, "dh", "hot.xyz", "--reference", "cold.qref", *args)
    shutil.copy("cold.qref", "renamed")
    assert document("dh", "hot.xyz", "--reference", "renamed")["k"] == 12
