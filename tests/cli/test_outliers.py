"""``quests-zenn outliers``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write

from quests_zenn.uq import Reference
from quests_zenn.uq.outliers import find_outliers

H = 0.03


def run(*args: Any, status: int = 0) -> tuple[str, str]:
    """What the command says on stdout and stderr."""
    return commands.run("outliers", *args, status=status)


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


def crystals(n_frames: int, seed: int) -> list[Atoms]:
    frames = []
    for i in range(n_frames):
        atoms = bulk("Cu", cubic=True) * (2, 2, 1)
        atoms.rattle(0.05, seed=100 * seed + i)
        atoms.info["config_type"] = "even" if i % 2 == 0 else "odd"
        atoms.arrays["region"] = np.arange(16) // 8
        frames.append(atoms)
    return frames


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    frames = crystals(8, 1)
    frames[5].positions[3] += [0.5, 0.2, 0.0]
    write("data.xyz", frames)
    write("more.xyz", crystals(3, 2))
    for number, atoms in enumerate(frames):
        atoms.symbols[::4] = "Ag"
        if number == 2:
            atoms.symbols[1] = "Au"
    write("alloy.xyz", frames)
    return tmp_path


ARGS = ("data.xyz", "--bandwidth", H, "--k", 12)


def test_the_planted_atom_comes_first() -> None:
    out, err = run(*ARGS)
    assert err == ""
    lines = out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(" rank"))
    assert re.match(
        r"    1 +\d+\.\d{4}  Cu 3 of data\.xyz, frame 5 +Cu \d+ of data\.xyz, frame \d, at 0\.\d{4} 1/Å = \d",
        lines[at + 1],
    )
    assert re.match(r" {19}.*neighbour at \d\.\d\d Å, there at \d\.\d\d Å", lines[at + 2])
    assert re.search(r"^    1 .* data\.xyz, frame 5$", out[out.index("mean dH") :], re.M)
    assert re.search(r"^frames +8 in 8 groups$", out, re.M)


def test_the_document_is_what_the_library_finds() -> None:
    found = document(*ARGS, "--number", 7)
    expected = find_outliers(read("data.xyz", ":"), 7, bandwidth=H, k=12)
    assert [item["row"] for item in found["outliers"]] == [item.row for item in expected.atoms]
    assert [item["rank"] for item in found["outliers"]] == list(range(1, 8))
    first = found["outliers"][0]
    assert (first["label"], first["atom"], first["element"]) == ("data.xyz, frame 5", 3, "Cu")
    assert first["reason"] == expected.atoms[0].reason
    assert first["nearest_label"] == f"data.xyz, frame {first['nearest_frame']}"
    np.testing.assert_array_equal([frame["mean_dh"] for frame in found["frames"]], expected.mean)
    np.testing.assert_array_equal([frame["max_dh"] for frame in found["frames"]], expected.max)
    assert found["quantiles"]["1.0"] == expected.dh.max()
    assert (found["n_groups"], found["n_copies"], found["by"]) == (8, 0, None)
    assert found["scope"]["dH"] == "all other groups of frames"


def test_every_option_counts() -> None:
    base = document(*ARGS)

    def scores(*args: Any) -> list[float]:
        return [frame["mean_dh"] for frame in document(*ARGS, *args)["frames"]]

    usual = [frame["mean_dh"] for frame in base["frames"]]
    assert len(base["outliers"]) == 20
    assert len(document(*ARGS, "--number", 3)["outliers"]) == 3
    assert sorted(item["frame"] for item in document(*ARGS, "--one-per-frame")["outliers"]) == list(range(8))
    assert scores("--k", 8) != usual
    assert scores("--cutoff", 4.0) != usual
    wide = document("data.xyz", "--k", 12, "--bandwidth", 0.06)
    assert [frame["mean_dh"] for frame in wide["frames"]] != usual
    assert scores("--jobs", 1) == usual
    by = document(*ARGS, "--by", "config_type")
    assert by["n_groups"] == 2
    assert by["frames"][0]["group"] == "even"
    assert [frame["mean_dh"] for frame in by["frames"]] != usual
    expected = find_outliers(read("data.xyz", ":"), bandwidth=H, k=12, groups=[0, 1] * 4)
    assert [frame["mean_dh"] for frame in by["frames"]] == expected.mean.tolist()
    assert len({item["frame"] for item in by["outliers"] if item["nearest_frame"] % 2 == item["frame"] % 2}) == 0
    part = document(*ARGS, "--select", "region")
    assert {item["atom"] for item in part["outliers"]} <= set(range(8, 16))
    assert part["n_environments"] == 64
    dh = find_outliers(read("data.xyz", ":"), bandwidth=H, k=12).dh.reshape(8, 16)[:, 8:]
    np.testing.assert_allclose([frame["mean_dh"] for frame in part["frames"]], dh.mean(axis=1), rtol=1e-12)
    assert [frame["max_dh"] for frame in part["frames"]] == dh.max(axis=1).tolist()
    silver = document("alloy.xyz", "data.xyz@0", "--bandwidth", H, "--select", "Ag")
    assert (silver["frames"][8]["mean_dh"], silver["frames"][8]["max_dh"]) == (None, None)
    out, _ = run("alloy.xyz", "data.xyz@0", "--bandwidth", H, "--select", "Ag")
    assert "data.xyz, frame 0" not in out[out.index("mean dH") :]
    auto = document("data.xyz", "--bandwidth", "auto")
    assert auto["bandwidth"] > 0.05
    several = document("data.xyz", "more.xyz", "--bandwidth", H, "--by", "file")
    assert [frame["group"] for frame in several["frames"]] == ["data.xyz"] * 8 + ["more.xyz"] * 3


def test_species() -> None:
    blind = document("alloy.xyz", "--bandwidth", H)
    seeing = document("alloy.xyz", "--bandwidth", H, "--species", "blocks")
    assert blind["outliers"][0]["dh"] is not None
    first = seeing["outliers"][0]
    assert (first["element"], first["dh"], first["nearest_label"]) == ("Au", None, None)
    out, _ = run("alloy.xyz", "--bandwidth", H, "--species", "blocks", "--number", 1)
    assert re.search(r"^    1 +inf  Au 1 of alloy\.xyz, frame 2\n {19}no other group holds Au$", out, re.M)


def test_frames_are_marked() -> None:
    out, _ = run(*ARGS, "--mark", "config_type", "--number", 1)
    assert re.search(r"^    1 .*  Cu 3 of data\.xyz, frame 5 \(odd\) ", out, re.M)
    found = document(*ARGS, "--mark", "config_type")
    assert found["outliers"][0]["mark"] == "odd"
    assert [frame["mark"] for frame in found["frames"]] == ["even", "odd"] * 4
    assert found["n_groups"] == 8
    assert document(*ARGS)["outliers"][0]["mark"] is None
    refused(
        r"data\.xyz, frame 0: no key 'phase' \(its info holds config_type\); nor has any other",
        *ARGS,
        "--mark",
        "phase",
    )


def test_copies_are_told() -> None:
    frames = crystals(6, 3)
    write("twice.xyz", [*frames, frames[0]])
    out, _ = run("twice.xyz")
    assert re.search(r"^frames +7 in 6 groups; 1 frame is a copy of others$", out, re.M)
    found = document("twice.xyz")
    assert [frame["copy"] for frame in found["frames"]] == [False] * 6 + [True]
    assert found["n_copies"] == 1


def test_frames_are_written_with_their_scores() -> None:
    run(*ARGS, "-o", "scored.xyz", "--by", "config_type")
    expected = find_outliers(read("data.xyz", ":"), bandwidth=H, k=12, groups=[0, 1] * 4)
    scored = read("scored.xyz", ":")
    np.testing.assert_allclose(np.concatenate([atoms.arrays["dH"] for atoms in scored]), expected.dh, atol=1e-8)
    assert scored[0].info["dH_scope"] == "all other groups of frames (by config_type, copies merged)"
    assert scored[5].info["config_type"] == "odd"
    assert "region" in scored[0].arrays
    run(*ARGS, "-o", "part.xyz", "--select", "0:4")
    assert np.isnan(read("part.xyz", 0).arrays["dH"][4:]).all()
    refused("part.xyz: exists already", *ARGS, "-o", "part.xyz")


def test_a_reference_in_place_of_frames() -> None:
    Reference.fit("data.xyz@1:", H, k=12).save("data.qref")
    found = document("data.qref")
    again = document("data.xyz@1:", "--bandwidth", H, "--k", 12)
    assert [item["row"] for item in found["outliers"]] == [item["row"] for item in again["outliers"]]
    assert [item["label"] for item in found["outliers"]] == [item["label"] for item in again["outliers"]]
    assert found["outliers"][0]["label"] == "data.xyz, frame 5"
    out, _ = run("data.qref", "--number", 1)
    assert re.search(r"^bandwidth +0\.03 1/Å \(of the reference\)$", out, re.M)
    for sentence, args in [
        ("a reference holds environments and no frames; leave out --output", ["-o", "a.xyz"]),
        ("leave out --select", ["--select", "Cu"]),
        ("leave out --mark", ["--mark", "config_type"]),
        ("its groups were chosen when it was made; leave out --by", ["--by", "config_type"]),
        ("was made with k 12, and --k 8 asks for another", ["--k", 8]),
        ("a saved reference stands alone", ["data.xyz"]),
    ]:
        refused(sentence, "data.qref", *args)


def test_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    texts = []
    for number, args in enumerate([(), ("--mark", "config_type"), ("--by", "config_type"), ("--number", 1)]):
        run(*ARGS, "--plot", f"plot{number}.svg", *args)
        texts.append(re.sub(r"<dc:date>.*?</dc:date>|id=\"\w+\"|#\w+", "", Path(f"plot{number}.svg").read_text()))
    assert len(set(texts)) == 4
    _, err = run("alloy.xyz", "--species", "blocks", "--plot", "alloy.png")
    assert "the plot leaves out 1 environments with infinite dH" in err
    assert Path("alloy.png").stat().st_size > 10_000
    write("strangers.xyz", [Atoms("Cu2", [[0, 0, 0], [0, 0, 2.2]]), Atoms("Ag2", [[0, 0, 0], [0, 0, 2.2]])])
    refused("dH is infinite everywhere", "strangers.xyz", "--species", "blocks", "--plot", "none.png")


def test_types_are_mapped() -> None:
    atoms = "ITEM: ATOMS id type x y z\n1 1 0 0 {0}\n2 2 1.9 0 0.{0}\n"
    head = "ITEM: TIMESTEP\n{0}\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS ff ff ff\n0 9\n0 9\n0 9\n"
    Path("types.lammpstrj").write_text("".join((head + atoms).format(step) for step in (0, 1)))
    assert document("types.lammpstrj", "--type-map", "1=Cu,2=Zr")["elements"] == ["Cu", "Zr"]
    _, err = run("types.lammpstrj")
    assert "atom types were read as elements (H He)" in err


def test_bad_input() -> None:
    refused("none.xyz: no such file", "none.xyz")
    refused("at least two groups", "data.xyz@0")
    refused("at least two groups", "data.xyz", "--by", "file")
    refused("no key 'phase'", "data.xyz", "--by", "phase")
    refused("takes one --bandwidth, got several", "data.xyz", "--bandwidth", "0.1,0.2")
    refused("scored frames are extended XYZ", "data.xyz", "-o", "scored.dump")
    refused("is an input, and would be replaced", "data.xyz", "-o", "data.xyz", "--overwrite")
    refused("names no atom in any frame", "data.xyz", "--select", "Zr")
    refused("is not in the range", "data.xyz", "--number", 0, status=2)
