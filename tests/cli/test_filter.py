"""``quests-zenn filter``: what is flagged, what is written, and that nothing is lost when the process is killed."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import signal
import subprocess
import sysconfig
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write

from quests_zenn.cli import _filter
from quests_zenn.io import journal
from quests_zenn.io.follow import Follower
from quests_zenn.uq import Reference
from quests_zenn.uq.filter import frame_threshold

H = 0.03
FOUND = 3
SCRIPT = Path(sysconfig.get_path("scripts")) / "quests-zenn"


def run(*args: Any, status: int = 0) -> tuple[str, str]:
    """What the command says on stdout and stderr."""
    return commands.run("filter", *args, status=status)


def document(*args: Any, status: int = FOUND) -> dict[str, Any]:
    Path("found.json").unlink(missing_ok=True)
    out, _ = run(*args, "--quiet", "--json", "found.json", status=status)
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


def crystal(amplitude: float, seed: int) -> Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 2, 1)
    atoms.rattle(amplitude, seed=seed)
    return atoms


def trajectory() -> list[Atoms]:
    """Known frames, an excursion that comes twice, known frames."""
    frames = [crystal(0.05, 1000 + i) for i in range(16)]
    for number in (4, 5, 6, 10, 13):
        frames[number] = crystal(0.2, 10 + number)
    frames[11] = frames[5].copy()
    for number, atoms in enumerate(frames):
        atoms.info |= {"time_ps": 0.1 * number, "note": "a b"}
        atoms.arrays["spread"] = np.linspace(0.0, number, 16)
    return frames


EXCURSION = [4, 5, 6, 10, 11, 13]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filter")
    train = [crystal(0.05, i) for i in range(25)]
    for number, atoms in enumerate(train):
        atoms.info["run"] = number // 5
    write(folder / "train.xyz", train)
    Reference.fit(str(folder / "train.xyz"), H, k=12).save(folder / "train.qref")
    write(folder / "md.xyz", trajectory())
    return folder


@pytest.fixture(autouse=True)
def here(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in store.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


GIVEN = ("--reference", "train.qref", "--threshold", 0.0)


def indices(found: dict[str, Any]) -> list[int]:
    return [frame["index"] for frame in found["frames"]]


def written(found: dict[str, Any]) -> list[int]:
    return [frame["index"] for frame in found["frames"] if frame["written"]]


# --- what is flagged and written --------------------------------------------------------------------------------------


def test_frames_that_leave_the_reference() -> None:
    out, err = run("md.xyz", *GIVEN, "-o", "flagged.xyz", status=FOUND)
    assert err == ""
    assert re.search(r"^frames +16 judged; 256 environments$", out, re.M)
    assert re.search(r"^flagged +6 frames \(37\.5%\) with at least 1 novel atom$", out, re.M)
    assert re.search(r"^written +flagged\.xyz: 5 frames; 1 resembles these$", out, re.M)
    lines = out[out.index("   frame ") :].splitlines()[1:]
    assert [int(line.split()[0]) for line in lines] == EXCURSION
    reference, source = Reference.load("train.qref"), read("md.xyz", ":")
    for line, number in zip(lines, EXCURSION, strict=True):
        worst = int(reference.score([source[number]]).argmax())
        assert re.search(rf"  Cu {worst}(  written)?$", line)
    kept = read("flagged.xyz", ":")
    assert [atoms.info["dH_frame"] for atoms in kept] == [4, 5, 6, 10, 13]
    for atoms in kept:
        origin = source[atoms.info["dH_frame"]]
        dh = reference.score([origin])
        np.testing.assert_allclose(atoms.arrays["dH"], dh, atol=1e-8)
        np.testing.assert_array_equal(atoms.positions, origin.positions)
        np.testing.assert_array_equal(atoms.arrays["spread"], origin.arrays["spread"])
        assert atoms.info | origin.info == atoms.info
        assert atoms.info["dH_novel"] == np.count_nonzero(dh >= 0.0)
        np.testing.assert_array_equal(atoms.arrays["is_novel"], dh >= 0.0)
        assert not atoms.info["dH_scaled"]
        told = {
            name: atoms.info[f"dH_{name}"] for name in ("source", "threshold", "scope", "bandwidth", "k", "species")
        }
        assert told == {
            "source": "md.xyz", "threshold": 0.0, "scope": "the reference: train.qref", "bandwidth": H, "k": 12,
            "species": "none",
        }  # fmt: skip


def test_the_document() -> None:
    found = document("md.xyz", *GIVEN, "-o", "flagged.xyz")
    assert indices(found) == EXCURSION
    assert written(found) == [4, 5, 6, 10, 13]
    assert (found["n_frames"], found["n_flagged"], found["n_written"], found["n_environments"]) == (16, 6, 5, 256)
    assert (found["threshold"], found["threshold_source"], found["false_alarm"]) == (0.0, "given", None)
    assert found["references"] == ["train.qref"]
    assert found["scope"]["frames.max_dh"] == "the reference: train.qref"
    reference, source = Reference.load("train.qref"), read("md.xyz", ":")
    for frame in found["frames"]:
        dh = reference.score([source[frame["index"]]])
        assert frame["max_dh"] == dh.max()
        assert (frame["worst_atom"], frame["worst_element"]) == (dh.argmax(), "Cu")
        assert frame["max_scaled_dh"] is None
        assert frame["mean_dh"] == dh.mean()
        assert frame["n_novel"] == np.count_nonzero(dh >= 0.0)
        assert frame["novelty"] == frame["n_novel"] / 16
        assert frame["label"] == f"md.xyz, frame {frame['index']}"


def test_nothing_to_be_found_ends_with_status_0() -> None:
    out, _ = run("md.xyz@:4", *GIVEN, "-o", "flagged.xyz")
    assert "flagged       0 frames (0.0%)" in out
    assert "written       nothing" in out
    assert not Path("flagged.xyz").exists()
    Path("flagged.xyz").write_text("from yesterday")
    run("md.xyz@:4", *GIVEN, "-o", "flagged.xyz", "--overwrite")
    assert not Path("flagged.xyz").exists()


def test_every_option_counts() -> None:
    base = ("md.xyz", "--reference", "train.qref")
    few = document(*base, "--threshold", 12.0)
    assert 0 < few["n_flagged"] < 6
    assert indices(document(*base, "--threshold", 0.0, "--min-atoms", 14)) == [4, 6]
    assert indices(document(*base, "--threshold", 0.0, "--min-share", 0.85)) == indices(
        document(*base, "--threshold", 0.0, "--min-atoms", 14)
    )
    assert indices(document("md.xyz", *GIVEN, "--every", 3)) == [6]
    every = document("md.xyz", *GIVEN, "--every", 5, "--all")
    assert (indices(every), every["n_frames"], every["every"]) == ([5, 10], 4, 5)
    everything = document("md.xyz", *GIVEN, "-o", "all.xyz", "--all")
    assert written(everything) == EXCURSION
    assert [atoms.info["dH_frame"] for atoms in read("all.xyz", ":")] == EXCURSION
    part = document("md.xyz", *GIVEN, "--select", "0:3", "-o", "part.xyz")
    assert part["n_environments"] == 48
    assert all(frame["n_environments"] == 3 for frame in part["frames"])
    atoms = read("part.xyz", 0)
    assert np.isnan(atoms.arrays["dH"][3:]).all()
    assert np.isfinite(atoms.arrays["dH"][:3]).all()
    assert document("md.xyz", *GIVEN, "--jobs", 1)["frames"] == document("md.xyz", *GIVEN)["frames"]


def test_thresholds_from_the_reference() -> None:
    reference = Reference.load("train.qref")
    base = ("md.xyz", "--reference", "train.qref")
    found = document(*base, "--false-alarm", 0.1)
    assert found["threshold"] == frame_threshold(reference, 0.1, scaled=True)
    assert found["scaled"]
    assert all(frame["max_scaled_dh"] >= found["threshold"] for frame in found["frames"])
    assert (found["false_alarm"], found["false_alarm_of"]) == (0.1, "frame")
    assert found["threshold_source"].startswith("auto: 10% of the frames flagged")
    assert document(*base, "--false-alarm", 0.2)["threshold"] == frame_threshold(reference, 0.2, scaled=True)
    of_atoms = document(*base, "--false-alarm", 0.05, "--false-alarm-of", "atom")
    assert of_atoms["threshold"] == reference.threshold(0.05, of="atom")
    assert of_atoms["threshold_source"].startswith("auto: 5% of the atoms novel")
    assert not of_atoms["scaled"]
    assert document(*base, "--false-alarm", 0.1, "--min-atoms", 4)["threshold"] == frame_threshold(
        reference, 0.1, min_atoms=4, scaled=True
    )
    refused(
        r"takes at least 99 groups of frames .*, and there are 25; .*; give another --false-alarm, or --threshold a "
        r"number in nats; or count atoms \(--false-alarm-of atom\)",
        *base,
    )
    _, err = run(*base, "--false-alarm-of", "atom", status=FOUND)
    assert "takes at least 99 groups of frames to be certain, and there are 25" in err


def test_scaled_dh_is_told() -> None:
    """A reference with crystals that are far from each other: dH beside these counts less."""
    sparse = [bulk("Cu", a=a, cubic=True) * (2, 2, 1) for a in (3.2, 2.95, 2.7, 2.45, 2.2)]
    Reference.fit([*read("train.xyz", ":"), *sparse], H, k=12).save("uneven.qref")
    between = bulk("Cu", a=2.33, cubic=True) * (2, 2, 1)
    write("new.xyz", [crystal(0.2, 9), between])
    base = ("new.xyz", "--reference", "uneven.qref", "--false-alarm", 0.04)
    found = document(*base, "-o", "flagged.xyz")
    (frame,) = found["frames"]
    reference = Reference.load("uneven.qref")
    assert frame["index"] == 0
    assert found["threshold"] < frame["max_scaled_dh"] <= frame["max_dh"]
    assert reference.score([between]).max() > found["threshold"]
    assert frame["max_dh"] < reference.threshold(0.04, of="max")
    atoms = read("flagged.xyz", 0)
    assert atoms.info["dH_scaled"]
    assert np.count_nonzero(atoms.arrays["is_novel"]) == frame["n_novel"]
    out, _ = run(*base, status=FOUND)
    assert re.search(r"^threshold +\d+\.\d{4} nats of scaled dH \(auto: 4% of the frames flagged when", out, re.M)
    assert re.search(r"^ +frame +envs +novel +mean dH +largest +scaled  of atom$", out, re.M)


def test_thresholds_of_selected_atoms() -> None:
    frames = [crystal(0.05, i) for i in range(25)]
    rng = np.random.default_rng(1)
    for atoms in frames:
        atoms.symbols[:4] = "Ag"
        atoms.positions[:4] += rng.normal(0.0, 0.2, (4, 3))
    write("alloy.xyz", frames)
    Reference.fit("alloy.xyz", H, k=12).save("alloy.qref")
    reference = Reference.load("alloy.qref")
    base = ("md.xyz", "--reference", "alloy.qref", "--false-alarm", 0.1)
    for of in ("frame", "atom"):
        found = document(*base, "--select", "Cu", "--false-alarm-of", of)
        scaled = of == "frame"
        assert found["threshold"] == frame_threshold(reference, 0.1, of=of, elements=["Cu"], scaled=scaled)
        assert found["threshold"] < frame_threshold(reference, 0.1, of=of, scaled=scaled)
        assert f"{'frames flagged' if scaled else 'atoms novel'} (Cu) when" in found["threshold_source"]
    for select in ("0:3", "spread"):
        refused(f"--select {select} does not tell which atoms of the reference", *base, "--select", select)
    refused("the reference holds no Zr to find a threshold from", *base, "--select", "Zr")


def test_a_reference_of_frames() -> None:
    base = ("md.xyz", "--reference", "train.xyz", "--false-alarm", 0.1)
    found = document(*base, "--bandwidth", H, "--k", 12)
    assert found["frames"] == document("md.xyz", "--reference", "train.qref", "--false-alarm", 0.1)["frames"]
    assert found["bandwidth_source"] == "given"
    one = document(*base)
    assert (one["k"], one["cutoff"], one["species"], one["bandwidth"]) == (32, 5.0, "none", 0.015)
    assert document(*base, "--cutoff", 4.0)["threshold"] != one["threshold"]
    assert document(*base, "--species", "blocks")["species"] == "blocks"
    assert document(*base, "--bandwidth", "auto")["bandwidth"] > 0.05
    by = ("md.xyz", "--reference", "train.xyz", "--false-alarm", 0.2)
    grouped = document(*by, "--by", "run")
    assert grouped["threshold"] != document(*by)["threshold"]
    expected = frame_threshold(Reference.fit("train.xyz", groups=np.arange(25) // 5), 0.2, scaled=True)
    assert grouped["threshold"] == expected
    two = document("md.xyz", "--reference", "train.xyz@:10", "--reference", "train.xyz@10:", "--threshold", 0)
    assert two["frames"] == document("md.xyz", "--reference", "train.xyz", "--threshold", 0)["frames"]
    assert two["references"] == ["train.xyz@:10", "train.xyz@10:"]


def test_several_files_and_indices() -> None:
    found = document("md.xyz@3:6", "md.xyz@-6:", *GIVEN, "-o", "flagged.xyz")
    assert [frame["label"] for frame in found["frames"]] == [
        "md.xyz, frame 4", "md.xyz, frame 5", "md.xyz@-6:, frame 0 of the selection",
        "md.xyz@-6:, frame 1 of the selection", "md.xyz@-6:, frame 3 of the selection",
    ]  # fmt: skip
    kept = read("flagged.xyz", ":")
    assert [atoms.info["dH_source"] for atoms in kept] == ["md.xyz", "md.xyz", "md.xyz@-6:", "md.xyz@-6:"]
    assert [atoms.info["dH_frame"] for atoms in kept] == [4, 5, 0, 3]
    out, _ = run("md.xyz", "train.xyz", *GIVEN, status=FOUND)
    assert re.search(r"^ +13 +16 .*  md\.xyz$", out, re.M)


def test_compressed_output_is_the_same() -> None:
    run("md.xyz", *GIVEN, "-o", "flagged.xyz", status=FOUND)
    run("md.xyz", *GIVEN, "-o", "flagged.xyz.gz", status=FOUND)
    assert gzip.decompress(Path("flagged.xyz.gz").read_bytes()) == Path("flagged.xyz").read_bytes()


def test_elements_that_the_reference_never_saw() -> None:
    frames = read("md.xyz", ":4")
    frames[2].symbols[7] = "Ag"
    write("silver.xyz", frames)
    _, err = run("silver.xyz", *GIVEN, "-o", "flagged.xyz", status=FOUND)
    assert "the reference has never seen Ag: these atoms are novel" in err
    kept = read("flagged.xyz", ":")
    assert [atoms.info["dH_frame"] for atoms in kept] == [2]
    assert np.flatnonzero(np.isposinf(kept[0].arrays["dH"])).tolist() == [7]
    found = document("silver.xyz", *GIVEN)
    assert found["unseen_elements"] == ["Ag"]
    assert found["frames"][0]["max_dh"] is None


def test_warnings() -> None:
    large = bulk("Cu", cubic=True) * (3, 3, 3)
    write("quiet.xyz", [large])
    large.rattle(0.2, seed=1)
    write("large.xyz", [large])
    base = ("--reference", "train.qref", "--false-alarm", 0.1)
    _, err = run("large.xyz", *base, status=FOUND)
    assert "frames of up to 108 atoms were judged, and the largest of the reference holds 16: of such frames" in err
    assert "more than 10% may be flagged falsely" in err
    assert "were judged" not in run("quiet.xyz", *base)[1]  # nothing is flagged
    assert "were judged" not in run("large.xyz", *base, "--false-alarm-of", "atom", status=FOUND)[1]
    assert "were judged" not in run("large.xyz", *GIVEN, status=FOUND)[1]
    Reference.fit(["train.xyz", "large.xyz"], H, k=12).save("both.qref")
    write("other.xyz", [crystal(0.2, 3) * (2, 2, 1)])
    _, err = run("other.xyz", "--reference", "both.qref", "--false-alarm", 0.1, status=FOUND)
    assert "were judged" not in err  # the reference holds frames of that size
    dump = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS ff ff ff\n0 9\n0 9\n0 9\n"
    Path("types.lammpstrj").write_text(dump + "ITEM: ATOMS id type x y z\n1 1 0 0 0\n2 1 2.5 0 0\n")
    _, err = run("types.lammpstrj", *GIVEN, status=FOUND)
    assert "atom types were read as elements (the reference holds Cu); --type-map 1=Cu,... helps" in err
    assert "the reference has never seen H" in err
    found = document("types.lammpstrj", *GIVEN, "--type-map", "1=Cu")
    assert found["unseen_elements"] == []


def test_plots() -> None:
    pytest.importorskip("matplotlib")
    run("md.xyz", *GIVEN, "--plot", "a.svg", status=FOUND)
    run("md.xyz", "--reference", "train.qref", "--threshold", 5, "--plot", "b.svg", status=FOUND)
    first, second = (
        re.sub(r"<dc:date>.*?</dc:date>|id=\"\w+\"|#\w+", "", Path(name).read_text()) for name in ("a.svg", "b.svg")
    )
    assert first != second
    # also where nothing is flagged, and with elements that the reference never saw
    _, err = run("md.xyz@:4", *GIVEN, "--plot", "c.svg")
    assert err == ""
    assert "no frame is flagged" in Path("c.svg").read_text()
    frames = read("md.xyz", ":")
    frames[2].symbols[7] = "Ag"
    write("silver.xyz", frames)
    run("silver.xyz", "md.xyz", *GIVEN, "--plot", "d.png", status=FOUND)
    assert Path("d.png").stat().st_size > 10_000


def test_a_plot_has_every_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of earlier runs too, which ended or were killed."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(_filter, "NOTE_EVERY", 0.0)
    monkeypatch.setattr(_filter.plots_novel, "plot_flagged", lambda path, **more: told.update(more))
    run("md.xyz", *GIVEN, "--min-atoms", 3, "--plot", "a.png", status=FOUND)
    expected = told.copy()
    np.testing.assert_array_equal(expected["judged"], np.arange(16))
    reference, source = Reference.load("train.qref"), read("md.xyz", ":")
    shares = [np.mean(reference.score([atoms]) >= 0.0) for atoms in source]
    np.testing.assert_array_equal(expected["judged_share"], shares)
    judge, calls = _filter.FilterRun._judge, 0

    def interrupting(self: Any, label: str, atoms: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return judge(self, label, atoms)

    args = ("md.xyz", *FOLLOW, "--min-atoms", 3, "-o", "flagged.xyz", "--plot", "a.png")
    with monkeypatch.context() as patch:
        patch.setattr(_filter.FilterRun, "_judge", interrupting)
        run(*args, status=130)
    run(*args, status=FOUND)
    for name in ("judged", "judged_share", "frames", "share", "largest"):
        np.testing.assert_array_equal(told[name], expected[name], err_msg=name)


def test_memory_does_not_grow_with_the_trajectory(monkeypatch: pytest.MonkeyPatch) -> None:
    write("long.xyz", read("md.xyz", ":") * 4)
    alive = most = 0
    reader = _filter.read_atoms

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def counting(*args: Any) -> Any:
        nonlocal alive, most
        for label, atoms in reader(*args):
            weakref.finalize(atoms, gone)
            alive += 1
            most = max(most, alive)
            yield label, atoms

    monkeypatch.setattr(_filter, "read_atoms", counting)
    assert document("long.xyz", *GIVEN, "-o", "flagged.xyz")["n_frames"] == 64
    assert 1 <= most <= 3


# --- following --------------------------------------------------------------------------------------------------------

FOLLOW = (*GIVEN, "--follow", "--idle", 0.05)


def test_following_finds_the_same() -> None:
    run("md.xyz", *GIVEN, "-o", "once.xyz", status=FOUND)
    out, err = run("md.xyz", *FOLLOW, "-o", "followed.xyz", status=FOUND)
    assert err == ""
    assert Path("followed.xyz").read_bytes() == Path("once.xyz").read_bytes()
    assert re.search(r"^frame 4: \d+ of 16 atoms novel, largest dH \S+ nats \(Cu \d+\), written$", out, re.M)
    assert re.search(r"^frame 11: \d+ of 16 atoms novel, largest dH \S+ nats \(Cu \d+\)$", out, re.M)
    assert indices(document("md.xyz", *FOLLOW, "--every", 5)) == [5, 10]
    assert indices(document("md.xyz", *FOLLOW, "--select", "0:3")) == indices(
        document("md.xyz", *GIVEN, "--select", "0:3")
    )


def test_a_frame_is_judged_when_it_is_complete() -> None:
    content = Path("md.xyz").read_bytes()
    *_, begin, end = list(Follower("md.xyz", idle=0.0))[4]
    Path("md.xyz").write_bytes(content[: end.offset - 1])
    _, err = run("md.xyz", *FOLLOW, "-o", "flagged.xyz")
    assert "md.xyz, frame 4: is not complete (18 lines are there), and was left out" in err
    assert not Path("flagged.xyz").exists()
    # it goes on with the rest
    Path("md.xyz").write_bytes(content[: end.offset])
    out, err = run("md.xyz", *FOLLOW, "-o", "flagged.xyz", status=FOUND)
    assert err == ""
    assert "frame 4: " in out
    assert re.search(r"^frames +5 judged", out, re.M)
    assert begin.number == 4
    Path("md.xyz").write_bytes(content)
    run("md.xyz", *FOLLOW, "-o", "flagged.xyz", status=FOUND)
    run("md.xyz", *GIVEN, "-o", "once.xyz", status=FOUND)
    assert Path("flagged.xyz").read_bytes() == Path("once.xyz").read_bytes()
    # nothing is new, and what was found stays found; a document of the same run is replaced, no other one
    found = document("md.xyz", *FOLLOW, "-o", "flagged.xyz")
    assert found["n_flagged"] == 6
    run("md.xyz", *FOLLOW, "-o", "flagged.xyz", "--json", "found.json", status=FOUND)
    Path("mine.json").write_text("mine")
    refused("mine.json: exists already", "md.xyz", *FOLLOW, "-o", "flagged.xyz", "--json", "mine.json")
    assert Path("flagged.xyz").read_bytes() == Path("once.xyz").read_bytes()


def test_a_file_that_is_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    content = Path("md.xyz").read_bytes()
    Path("md.xyz").unlink()

    class Waited(Follower):
        """The file appears as soon as somebody waits for it."""

        def __init__(self, *args: Any, on_wait: Any, **more: Any) -> None:
            super().__init__(*args, on_wait=lambda: (on_wait(), Path("md.xyz").write_bytes(content)), **more)

    with monkeypatch.context() as patch:
        patch.setattr(_filter, "Follower", Waited)
        _, err = run("md.xyz", *GIVEN, "--follow", "--idle", 0.5, status=FOUND)
    assert err == "md.xyz is not there yet: waiting for it\n"
    Path("md.xyz").unlink()
    _, err = run("md.xyz", *FOLLOW, "-o", "flagged.xyz", status=1)
    assert "md.xyz: no frame came within 0.05 seconds" in err
    assert not list(Path().glob("flagged*"))


def test_a_dump_is_followed() -> None:
    head = "ITEM: TIMESTEP\n{0}\nITEM: NUMBER OF ATOMS\n16\nITEM: BOX BOUNDS pp pp pp\n0 {1}\n0 {1}\n0 {2}\n"
    head += "ITEM: ATOMS id type x y z\n"
    text = ""
    for number, atoms in enumerate(trajectory()):
        lengths = atoms.cell.lengths()
        text += head.format(number, repr(float(lengths[0])), repr(float(lengths[2])))
        text += "".join(f"{i + 1} 1 {x!r} {y!r} {z!r}\n" for i, (x, y, z) in enumerate(atoms.positions.tolist()))
    Path("md.lammpstrj").write_text(text)
    found = document("md.lammpstrj", *FOLLOW, "--type-map", "1=Cu", "-o", "flagged.xyz")
    assert indices(found) == EXCURSION
    assert read("flagged.xyz", 0).get_chemical_symbols() == ["Cu"] * 16


def test_a_file_that_was_truncated_or_replaced() -> None:
    run("md.xyz", *FOLLOW, "-o", "flagged.xyz", status=FOUND)
    content = Path("md.xyz").read_bytes()
    Path("md.xyz").write_bytes(content[:1000])
    refused("md.xyz: is shorter than what was read of it before", "md.xyz", *FOLLOW, "-o", "flagged.xyz")
    middle = content.index(b"Cu ", len(content) // 2) + 20  # one digit, far from the beginning
    digit = b"1" if content[middle : middle + 1] != b"1" else b"2"
    Path("md.xyz").write_bytes(content[:middle] + digit + content[middle + 1 :])
    refused("md.xyz: is not the file that was read before", "md.xyz", *FOLLOW, "-o", "flagged.xyz")
    Path("md.xyz").write_bytes(content.replace(b"a b", b"c d"))
    refused(
        "md.xyz: is not the file that was read before; --overwrite begins anew", "md.xyz", *FOLLOW, "-o", "flagged.xyz"
    )
    Path("md.xyz").unlink()
    refused("md.xyz: no such file; it was read before", "md.xyz", *FOLLOW, "-o", "flagged.xyz")
    Path("md.xyz").write_bytes(content)
    run("md.xyz", *FOLLOW, "-o", "flagged.xyz", "--overwrite", status=FOUND)
    assert len(read("flagged.xyz", ":")) == 5


def test_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C leaves behind what the next run goes on from."""
    judge = _filter.FilterRun._judge
    for mode, args in (("once", GIVEN), ("followed", FOLLOW)):
        calls = 0

        def interrupting(self: Any, label: str, atoms: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 7:
                raise KeyboardInterrupt
            return judge(self, label, atoms)

        monkeypatch.setattr(_filter.FilterRun, "_judge", interrupting)
        _, err = run("md.xyz", *args, "-o", f"{mode}.xyz", status=130)
        assert err == "quests-zenn filter: interrupted; the same command goes on where this one stopped\n"
        assert Path(f"{mode}.xyz").exists() == (mode == "followed")
        monkeypatch.setattr(_filter.FilterRun, "_judge", judge)
        run("md.xyz", *args, "-o", f"{mode}.xyz", status=FOUND)
    assert Path("once.xyz").read_bytes() == Path("followed.xyz").read_bytes()
    assert len(read("once.xyz", ":")) == 5


def test_an_overwriting_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with --overwrite that was broken off goes on with the same command, and without the option."""
    run("md.xyz", *GIVEN, "-o", "expected.xyz", status=FOUND)
    judge = _filter.FilterRun._judge
    for mode in (GIVEN, FOLLOW):
        for again in ([], ["--overwrite"]):
            for path in Path().glob("flagged*"):
                path.unlink()
            Path("flagged.xyz").write_text("old")
            judged: list[str] = []

            def watching(self: Any, label: str, atoms: Any, judged: list[str] = judged) -> Any:
                judged.append(label)
                if len(judged) == 9:
                    raise KeyboardInterrupt
                return judge(self, label, atoms)

            with monkeypatch.context() as patch:
                patch.setattr(_filter.FilterRun, "_judge", watching)
                run("md.xyz", *mode, "-o", "flagged.xyz", "--overwrite", status=130)
                found = document("md.xyz", *mode, "-o", "flagged.xyz", *again)
            assert found["n_frames"] == 16
            assert judged.count("md.xyz, frame 3") == 1
            assert Path("flagged.xyz").read_bytes() == Path("expected.xyz").read_bytes()
    # what came to its end begins anew
    judged = []

    def counting(self: Any, label: str, atoms: Any) -> Any:
        judged.append(label)
        return judge(self, label, atoms)

    monkeypatch.setattr(_filter.FilterRun, "_judge", counting)
    run("md.xyz", *FOLLOW, "-o", "flagged.xyz", "--overwrite", status=FOUND)
    assert len(judged) == 16


@pytest.mark.parametrize("change", ["input", "output"])
def test_an_overwriting_run_whose_files_changed_begins_anew(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    judge, calls = _filter.FilterRun._judge, 0

    def interrupting(self: Any, label: str, atoms: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return judge(self, label, atoms)

    args = ("md.xyz", *FOLLOW, "-o", "flagged.xyz", "--overwrite")
    with monkeypatch.context() as patch:
        patch.setattr(_filter.FilterRun, "_judge", interrupting)
        run(*args, status=130)
    if change == "input":
        Path("md.xyz").write_bytes(Path("md.xyz").read_bytes().replace(b"a b", b"c d"))
    else:
        Path("flagged.xyz").write_bytes(b"")
    assert document(*args)["n_frames"] == 16
    run("md.xyz", *GIVEN, "-o", "expected.xyz", status=FOUND)
    assert Path("flagged.xyz").read_bytes() == Path("expected.xyz").read_bytes()


def broken_off(monkeypatch: pytest.MonkeyPatch, after: int, *args: Any) -> None:
    """A run that is interrupted when it judges one frame more than `after`."""
    judge, calls = _filter.FilterRun._judge, 0

    def interrupting(self: Any, label: str, atoms: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == after + 1:
            raise KeyboardInterrupt
        return judge(self, label, atoms)

    with monkeypatch.context() as patch:
        patch.setattr(_filter.FilterRun, "_judge", interrupting)
        patch.setattr(_filter, "NOTE_EVERY", 0.0)
        run(*args, status=130)


def test_an_input_that_changed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it begins as before."""
    frames = read("md.xyz", ":")
    moved = [atoms.copy() for atoms in frames]
    moved[3].positions[5] += 0.01
    write("growing.xyz", frames[:14])
    anew = r"growing\.xyz\S*: its frames are not those that were judged before .*; --overwrite begins anew"
    for spec, second, sentence in [
        ("growing.xyz", frames[:4], r"growing\.xyz: 4 frames are there, and 9 when it was read before; --overwrite"),
        ("growing.xyz", moved, anew),
        ("growing.xyz@-12:", frames, anew),
        ("growing.xyz@::-1", frames, anew),
    ]:
        args = (spec, *GIVEN, "-o", "flagged.xyz")
        for path in Path().glob("*flagged*"):
            path.unlink()
        write("growing.xyz", frames[:14])
        broken_off(monkeypatch, 9, *args)
        write("growing.xyz", second)
        refused(sentence, *args)
        # with --overwrite from the beginning, also if the run before this one had it
        run(*args, "--overwrite", status=0 if len(second) == 4 else FOUND)
        assert not Path("flagged.xyz.progress.jsonl").exists()
        write("growing.xyz", frames[:14])
        broken_off(monkeypatch, 9, *args, "--overwrite")
        write("growing.xyz", second)
        found = document(*args, "--overwrite", status=0 if len(second) == 4 else FOUND)
        fresh = document(spec, *GIVEN, "-o", "fresh.xyz", "--overwrite", status=0 if len(second) == 4 else FOUND)
        assert found["frames"] == fresh["frames"]
        assert found["n_frames"] == fresh["n_frames"]
    # a file that was finished before has grown; one that is being read may grow
    args = ("growing.xyz", "train.xyz", *GIVEN, "-o", "flagged.xyz", "--overwrite")
    write("growing.xyz", frames[:10])
    broken_off(monkeypatch, 12, *args)
    write("growing.xyz", frames)
    refused("growing.xyz: 16 frames are there, and 10 when it was read before", *args[:-1])
    for path in Path().glob("*flagged*"):
        path.unlink()
    write("growing.xyz", frames[:10])
    broken_off(monkeypatch, 8, "growing.xyz", *GIVEN, "-o", "flagged.xyz")
    write("growing.xyz", frames)
    assert document("growing.xyz", *GIVEN, "-o", "flagged.xyz")["n_frames"] == 16


@pytest.mark.parametrize("kind", ["--json", "--plot"])
def test_a_document_of_somebody_else_stays(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It appeared while the run was under way: refused, and refused again."""
    if kind == "--plot":
        pytest.importorskip("matplotlib")
    for mode in (GIVEN, FOLLOW):
        Path("mine.svg").unlink(missing_ok=True)
        judge = _filter.FilterRun._judge_all

        def meanwhile(self: Any, judge: Any = judge) -> None:
            judge(self)
            Path("mine.svg").write_text("precious")

        args = ("md.xyz", *mode, "-o", "flagged.xyz", kind, "mine.svg")
        with monkeypatch.context() as patch:
            patch.setattr(_filter.FilterRun, "_judge_all", meanwhile)
            _, err = run(*args, status=1)
            assert "mine.svg: exists already" in err
        refused("mine.svg: exists already", *args)
        assert Path("mine.svg").read_text() == "precious"
        Path("mine.svg").unlink()
        with monkeypatch.context() as patch:  # while it goes on
            patch.setattr(_filter.FilterRun, "_judge_all", meanwhile)
            _, err = run(*args, status=1)
        assert Path("mine.svg").read_text() == "precious"
        Path("mine.svg").unlink()
        run(*args, status=FOUND)
        if mode is FOLLOW:
            run(*args, status=FOUND)  # its own is replaced
        for path in Path().glob("*flagged*"):
            path.unlink()


def test_an_empty_journal_gives_no_leave_to_replace() -> None:
    for said in ("", '{"format": "que'):
        Path("flagged.xyz").write_text("precious")
        Path("flagged.xyz.progress.jsonl").write_text(said)
        refused("flagged.xyz: exists already", "none.xyz", *FOLLOW, "-o", "flagged.xyz")
        refused("flagged.xyz: exists already", "md.xyz", *GIVEN, "-o", "flagged.xyz")
        assert Path("flagged.xyz").read_text() == "precious"


def test_a_linked_output_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("deep").mkdir()
    for mode in (GIVEN, FOLLOW):
        Path("link.xyz").symlink_to("deep/real.xyz")
        Path("deep/real.xyz").write_text("old")
        broken_off(monkeypatch, 9, "md.xyz", *mode, "-o", "link.xyz", "--overwrite")
        assert document("md.xyz", *mode, "-o", "link.xyz")["n_frames"] == 16
        assert Path("link.xyz").is_symlink()
        assert len(read("deep/real.xyz", ":")) == 5
        for path in (Path("link.xyz"), *Path("deep").iterdir()):
            path.unlink()


@pytest.mark.parametrize("mode", [GIVEN, FOLLOW])
def test_a_full_disk_keeps_what_was_found(mode: tuple[Any, ...]) -> None:
    resource = pytest.importorskip("resource")
    run("md.xyz", *GIVEN, "-o", "expected.xyz", status=FOUND)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(0.7 * os.path.getsize("expected.xyz")), before[1]))
    try:
        _, err = run("md.xyz", *mode, "-o", "flagged.xyz", status=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    name = "flagged.xyz" if mode is FOLLOW else ".flagged.xyz.part"
    told = f"{name}: cannot be written (File too large); what was flagged before is in {name}, and the same command"
    assert told in err
    run("md.xyz", *mode, "-o", "flagged.xyz", status=FOUND)
    assert Path("flagged.xyz").read_bytes() == Path("expected.xyz").read_bytes()


def test_interrupted_while_it_waits(here: Path) -> None:
    """Ctrl-C is how a run that follows a file is ended: with its table, its document and its status."""
    for source, status in (("md.xyz", FOUND), ("train.xyz", 0)):
        command = [SCRIPT, "filter", source, "--reference", "train.qref", "--threshold", 2, "--follow", "-o", "f.xyz"]
        command += ["--json", f"{status}.json", "--every", 2]
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(600):
            lines = (
                Path("f.xyz.progress.jsonl").read_text().splitlines() if Path("f.xyz.progress.jsonl").exists() else []
            )
            if len(lines) > 1 or (lines and status == 0):
                break
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == status, err
        assert "frames        " in out
        found = json.loads(Path(f"{status}.json").read_text())
        assert (found["n_flagged"] > 0) == (status == FOUND)
        for path in Path().glob("f.xyz*"):
            path.unlink()


# --- killed -----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the run is executed after it."""


@pytest.mark.parametrize("mode", ["once", "followed", "all"])
@pytest.mark.parametrize(
    "torn", [pytest.param(0.0, marks=pytest.mark.slow), 0.6, pytest.param(1.0, marks=pytest.mark.slow)]
)
def test_killed_at_any_write(mode: str, torn: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies before, in the middle of, or after each of its writes; the same command then goes on."""
    args = ("md.xyz", *(GIVEN if mode == "once" else FOLLOW), *(["--all"] if mode == "all" else []))
    expected = document(*args, "-o", "undisturbed.xyz")["frames"]
    whole = Path("undisturbed.xyz").read_bytes()

    def stopped(self: Any, error: BaseException) -> None:
        raise error

    write_ = journal._write
    survived = False
    for last in range(1, 100):
        count = 0

        def dying(stream: Any, content: bytes) -> None:
            nonlocal count
            count += 1
            if count > last:  # noqa: B023
                stream.write(content[: int(torn * len(content))])
                stream.flush()
                raise Killed
            write_(stream, content)

        for path in Path().glob("*flagged*"):
            path.unlink()
        with monkeypatch.context() as patch:
            patch.setattr(journal, "_write", dying)
            patch.setattr(_filter.FilterRun, "_stopped", stopped)
            try:
                found = document(*args, "-o", "flagged.xyz")
                survived = True
            except Killed:
                pass
        if not survived:
            found = document(*args, "-o", "flagged.xyz")
        assert Path("flagged.xyz").read_bytes() == whole, last
        assert found["frames"] == expected, last
        if survived:
            break
    # a header, six flagged frames, five or six records, the end
    assert last >= 12


def test_another_command_does_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    run("md.xyz", *FOLLOW, "-o", "flagged.xyz", status=FOUND)
    for sentence, args in [
        (r"had min atoms 1, and this one has 3", ["--min-atoms", 3]),
        (r"had every 1, and this one has 2", ["--every", 2]),
        (r"had keep all false, and this one has true", ["--all"]),
        (r'had select null, and this one has "Cu"', ["--select", "Cu"]),
    ]:
        refused(sentence, "md.xyz", *FOLLOW, *args, "-o", "flagged.xyz")
    more = ("--follow", "--idle", 0.1, "-o", "flagged.xyz")
    told = r"had threshold 0\.0, and this one has 1\.0"
    refused(told, "md.xyz", "--reference", "train.qref", "--threshold", 1, *more)
    told = r'had reference "400 environments'
    refused(told, "md.xyz", "--reference", "train.xyz", "--threshold", 0, *more)
    refused(r"had follow true, and this one has false", "md.xyz", *GIVEN, "-o", "flagged.xyz")
    # without its journal it is a file like any other
    Path("flagged.xyz.progress.jsonl").unlink()
    refused(r"flagged\.xyz: exists already", "md.xyz", *FOLLOW, "-o", "flagged.xyz")


def test_errors_in_the_data_keep_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    content = Path("md.xyz").read_bytes()
    run("md.xyz", *GIVEN, "-o", "expected.xyz", status=FOUND)
    Path("cut.xyz").write_bytes(content[: len(content) // 2 - 300])
    told = (
        r"^quests-zenn filter: cut.xyz: cannot be read after 7 good frames.*; what was flagged before is in "
        r"\.flagged\.xyz\.part, and the same command goes on from there$"
    )
    _, err = run("cut.xyz", *GIVEN, "-o", "flagged.xyz", status=1)
    assert re.search(told, " ".join(err.split())), err
    assert len(read(".flagged.xyz.part", ":", format="extxyz")) == 3
    refused("the same command goes on", "cut.xyz", *GIVEN, "-o", "flagged.xyz")
    Path("cut.xyz").write_bytes(content)
    judge = _filter.FilterRun._judge
    judged: list[str] = []

    def watching(self: Any, label: str, atoms: Any) -> Any:
        judged.append(label)
        return judge(self, label, atoms)

    with monkeypatch.context() as patch:
        patch.setattr(_filter.FilterRun, "_judge", watching)
        run("cut.xyz", *GIVEN, "-o", "flagged.xyz", status=FOUND)
    assert "cut.xyz, frame 0" not in judged
    assert len(read("flagged.xyz", ":")) == 5
    assert Path("flagged.xyz").read_bytes().replace(b"cut.xyz", b"md.xyz") == Path("expected.xyz").read_bytes()
    for path in Path().glob("*flagged*"):
        path.unlink()
    # where nothing was judged, nothing is left
    Path("text.xyz").write_text("hello\nworld\n")
    refused("frame 0: does not begin as one of extended XYZ", "text.xyz", *FOLLOW, "-o", "flagged.xyz")
    # what was found while following stays
    Path("bad.xyz").write_bytes(content + b"hello\n")
    _, err = run("bad.xyz", *FOLLOW, "-o", "flagged.xyz", status=1)
    assert "bad.xyz, frame 16: does not begin as one" in err
    assert len(read("flagged.xyz", ":")) == 5


def test_wrong_usage_and_bad_input() -> None:
    for sentence, args in [
        ("Missing option '--reference'", ["md.xyz"]),
        ("--follow takes one file, got 2", ["md.xyz", "train.xyz", *FOLLOW]),
        ("--idle belongs to --follow", ["md.xyz", *GIVEN, "--idle", 3]),
        ("--false-alarm belongs to --threshold auto", ["md.xyz", *GIVEN, "--false-alarm", 0.2]),
        ("--false-alarm-of belongs to --threshold auto", ["md.xyz", *GIVEN, "--false-alarm-of", "atom"]),
        ("'high' is no finite number", ["md.xyz", "--reference", "train.qref", "--threshold", "high"]),
        ("'nan' is no finite number", ["md.xyz", "--reference", "train.qref", "--threshold", "nan"]),
        ("'2' is no number from 0 to 1", ["md.xyz", *GIVEN, "--min-share", 2]),
        ("'0' is no number between 0 and 1", ["md.xyz", "--reference", "train.qref", "--false-alarm", 0]),
        ("is not in the range", ["md.xyz", *GIVEN, "--min-atoms", 0]),
        ("is not in the range", ["md.xyz", *GIVEN, "--every", 0]),
    ]:
        refused(sentence, *args, status=2)
    for sentence, args in [
        ("none.xyz: no such file", ["none.xyz", *GIVEN]),
        ("none.qref: no such file", ["md.xyz", "--reference", "none.qref"]),
        ("a file that grows has no index; --every takes a part", ["md.xyz@::2", *FOLLOW]),
        ("scored frames are extended XYZ", ["md.xyz", *GIVEN, "-o", "flagged.dump"]),
        ("is an input, and would be replaced", ["md.xyz", *GIVEN, "-o", "md.xyz", "--overwrite"]),
        ("is an input, and would be", ["md.xyz", "--reference", "train.xyz", "-o", "train.xyz", "--overwrite"]),
        ("two outputs have the same name", ["md.xyz", *GIVEN, "-o", "a.xyz", "--json", "a.xyz"]),
        ("train.xyz: exists already", ["md.xyz", *GIVEN, "-o", "train.xyz"]),
        ("was made with k 12, and --k 32 asks for another", ["md.xyz", *GIVEN, "--k", 32]),
        ("its groups were chosen when it was made", ["md.xyz", *GIVEN, "--by", "run"]),
        ("names no atom in any frame", ["md.xyz", *GIVEN, "--select", "Zr", "-o", "flagged.xyz"]),
        ("min_atoms = 17 is more than the 16 atoms",
         ["md.xyz", "--reference", "train.qref", "--false-alarm", 0.1, "--min-atoms", 17]),
    ]:  # fmt: skip
        refused(sentence, *args)


def grow(path: Path, content: bytes, after: list[threading.Event], rng: np.random.Generator) -> None:
    """Append pieces of any size, as a buffered writer does; the piece i of the whole waits for the event i."""
    ends = np.linspace(0, len(content), len(after) + 1).astype(int)
    with open(path, "ab", buffering=0) as stream:
        for start, stop, event in zip(ends[:-1], ends[1:], after, strict=True):
            event.wait()
            pieces = [int(start), *np.sort(rng.integers(start, stop, 6)).tolist(), int(stop)]
            for first, last in itertools.pairwise(pieces):
                stream.write(content[first:last])
                time.sleep(0.1)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("every", [(), ("--all",)])
def test_killed_at_random_moments_while_the_file_grows(every: tuple[str, ...], here: Path) -> None:
    """Real processes, really killed, again and again; the result is that of a run that nothing disturbed."""
    rng = np.random.default_rng(5)
    frames = [crystal(0.2 if rng.random() < 0.5 else 0.05, 5000 + i) for i in range(150)]
    Path("whole").mkdir()
    write("whole/growing.xyz", [*frames, *frames[::-1]])
    content = Path("whole/growing.xyz").read_bytes()
    run("whole/growing.xyz", *FOLLOW, *every, "-o", "undisturbed.xyz", status=FOUND)
    expected = Path("undisturbed.xyz").read_bytes()
    command = [SCRIPT, "filter", "growing.xyz", *GIVEN, "--follow", *every, "-o", "flagged.xyz"]
    runs = 8  # the file grows with the runs, not with the clock: a loaded machine only takes longer
    ready = [threading.Event() for _ in range(runs)]
    writer = threading.Thread(target=grow, args=(here / "growing.xyz", content, ready, np.random.default_rng(6)))
    writer.start()
    sizes = {size(here / "flagged.xyz")}
    for i in range(runs):
        ready[i].set()
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        known, patience = size(here / "flagged.xyz"), time.monotonic() + 120.0
        while i % 2 and size(here / "flagged.xyz") == known < len(expected) and time.monotonic() < patience:
            time.sleep(0.01)  # every second run is killed when it writes, or soon after; the others at any moment
        time.sleep(float(rng.uniform(0.0, 0.5) if i % 2 else rng.uniform(0.3, 2.5)))
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, err
        sizes.add(size(here / "flagged.xyz"))
    writer.join()
    ended = subprocess.run([*map(str, command), "--idle", "0.5"], capture_output=True, text=True, check=False)
    assert ended.returncode == FOUND, ended.stderr
    assert Path("flagged.xyz").read_bytes() == expected
    assert len(sizes) > 2, "no run wrote anything before it was killed"
