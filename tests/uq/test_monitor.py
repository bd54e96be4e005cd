"""The monitor: what it flags, what it keeps, what is on the disk when it is killed, and how it ends an ASE run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structures
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import UnitCellFilter
from ase.io import read
from ase.md.langevin import Langevin
from ase.optimize import BFGS
from ase.optimize.sciopt import SciPyFminCG

from quests_zenn import DataError
from quests_zenn.descriptors import get_descriptors
from quests_zenn.entropy import delta_entropy
from quests_zenn.uq import Monitor, NovelEnvironment, Reference, Report, frame_threshold


def known(seed: int) -> Atoms:
    """Copper with thermal disorder, as the reference holds it."""
    return structures.as_atoms(structures.fcc(repeat=(2, 2, 2), rattle=0.05, seed=seed))


def new(seed: int, rattle: float = 0.4) -> Atoms:
    """Copper with more disorder than any of the reference."""
    return structures.as_atoms(structures.fcc(repeat=(2, 2, 2), rattle=rattle, seed=1000 + seed))


def defect(seed: int) -> Atoms:
    """A known structure with one atom out of its place: some atoms are new, most are not."""
    atoms = structures.as_atoms(structures.fcc(repeat=(3, 3, 3), rattle=0.05, seed=seed))
    atoms.positions[0] += [1.0, 0.5, 0.2]
    return atoms


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.fit([known(seed) for seed in range(40)], bandwidth=0.03)


THRESHOLD = 2.0


@pytest.fixture
def frames() -> list[Atoms]:
    """A run that leaves what is known twice, and comes back."""
    return [known(50), new(0), new(0), known(51), new(1), known(52), new(0), new(2)]


# --- what is flagged --------------------------------------------------------------------------------------------------


def test_frames_are_as_told(reference: Reference, frames: list[Atoms]) -> None:
    monitor = Monitor(reference, threshold=THRESHOLD)
    reports = [monitor.look(atoms) for atoms in frames]
    assert [report.flagged for report in reports] == [False, True, True, False, True, False, True, True]
    assert [report.collected for report in reports] == [False, True, False, False, True, False, False, True]
    assert (monitor.n_calls, monitor.n_flagged, monitor.n_collected) == (8, 5, 3)
    for report, atoms in zip(reports, frames, strict=True):
        dh = reference.score(atoms)
        np.testing.assert_array_equal(report.novel, dh >= THRESHOLD)
        assert (report.n_atoms, report.n_novel) == (32, np.count_nonzero(dh >= THRESHOLD))
        assert report.share == report.n_novel / 32
        assert report.scored == report.collected, "the whole sum is for frames that are kept"
        np.testing.assert_allclose(report.dh, dh, rtol=1e-12)
        assert report.worst == np.argmax(dh)
        assert report.dh_max == pytest.approx(dh.max())
    assert [atoms.info["step"] for atoms in monitor.frames] == [1, 4, 7]


def test_a_kept_frame_says_what_its_scores_mean(reference: Reference) -> None:
    monitor = Monitor(reference, threshold=THRESHOLD)
    monitor.look(new(0), step=70, time=0.35)
    (kept,) = monitor.frames
    np.testing.assert_allclose(kept.arrays["dH"], reference.score(new(0)), rtol=1e-12)
    assert kept.info == {
        "step": 70,
        "time_ps": 0.35,
        "dH_scope": "the reference",
        "dH_threshold": THRESHOLD,
        "n_novel": np.count_nonzero(kept.arrays["dH"] >= THRESHOLD),
        "dH_bandwidth": 0.03,
        "dH_k": 32,
        "dH_cutoff": 5.0,
        "dH_species": "none",
    }


@pytest.mark.parametrize("min_new", [0.0, 0.25, 0.9])
def test_frames_are_new_to_the_reference_and_to_all_that_was_kept(reference: Reference, min_new: float) -> None:
    """The course of a run, repeated with sums of its own."""
    rng = np.random.default_rng(0)
    run = [new(seed) for seed in range(4)]
    run += [run[i].copy() for i in (0, 3, 1)]
    for atoms, size in zip(run[4:], (0.003, 0.01, 0.03), strict=True):
        atoms.positions += size * rng.normal(size=atoms.positions.shape)
    run += [defect(7), defect(8), defect(7)]
    monitor = Monitor(reference, threshold=THRESHOLD, min_new=min_new)
    kept = np.zeros((0, 63))
    collected = []
    for atoms in run:
        report = monitor.look(atoms)
        x = get_descriptors(atoms)
        x = x[delta_entropy(x, reference.x, reference.bandwidth) >= THRESHOLD]
        fresh = x if len(kept) == 0 else x[delta_entropy(x, kept, reference.bandwidth) >= THRESHOLD]
        assert (report.n_novel, report.n_new) == (len(x), len(fresh))
        collected.append(len(fresh) >= max(1, min_new * len(x)))
        assert report.collected == collected[-1]
        if collected[-1]:
            kept = np.concatenate([kept, fresh])
    assert 0 < sum(collected) < len(run)


@pytest.mark.parametrize("threshold", [-3.0, 0.0])
def test_no_frame_is_kept_twice_where_a_copy_does_not_reach_the_threshold(
    reference: Reference, threshold: float
) -> None:
    """With a threshold below 0, an atom stays novel until several like it are known."""
    monitor = Monitor(reference, threshold=threshold)
    atoms = new(0)
    assert [monitor.look(atoms).collected for _ in range(3)] == [True, False, False]
    assert monitor.n_flagged == 3
    assert monitor.look(new(1)).collected


def test_slow_motion_is_not_kept_a_hundred_times(reference: Reference) -> None:
    """One excursion, in steps so small that each frame resembles the one before."""
    start, end = known(3), new(0)
    path = []
    for part in np.linspace(0.0, 1.0, 100):
        atoms = start.copy()
        atoms.positions += part * (end.positions - start.positions)
        path.append(atoms)
    monitor = Monitor(reference, threshold=THRESHOLD)
    for atoms in path + path[::-1]:
        monitor.look(atoms)
    assert monitor.n_flagged > 100
    assert 2 <= monitor.n_collected < 0.2 * monitor.n_flagged
    assert not any(monitor.look(atoms).collected for atoms in path), "all of it is known by now"


def test_history(reference: Reference, frames: list[Atoms]) -> None:
    monitor = Monitor(reference, threshold=THRESHOLD)
    for number, atoms in enumerate(frames):
        monitor.look(atoms, 10 * number, None if number else 0.5)
    history = monitor.history
    assert history["step"].tolist() == [0, 10, 20, 30, 40, 50, 60, 70]
    assert history["time_ps"][0] == 0.5
    assert np.isnan(history["time_ps"][1:]).all()
    assert history["flagged"].sum() == 5
    assert history["collected"].nonzero()[0].tolist() == [1, 4, 7]
    np.testing.assert_array_equal(np.isnan(history["dh_max"]), ~history["collected"])
    np.testing.assert_allclose(history["dh_max"][1], reference.score(frames[1]).max())
    np.testing.assert_array_equal(history["n_novel"] > 0, history["flagged"])


# --- options ----------------------------------------------------------------------------------------------------------


def flagged(reference: Reference, **options: Any) -> list[bool]:
    monitor = Monitor(reference, **{"threshold": THRESHOLD, **options})
    return [monitor.look(atoms).flagged for atoms in (known(50), defect(60), new(0))]


def test_min_atoms_and_min_share(reference: Reference) -> None:
    n_novel = np.count_nonzero(reference.score(defect(60)) >= THRESHOLD)
    assert 1 < n_novel < 54
    assert flagged(reference) == [False, True, True]
    assert flagged(reference, min_atoms=n_novel) == [False, True, True]
    assert flagged(reference, min_atoms=n_novel + 1) == [False, False, True]
    assert flagged(reference, min_share=n_novel / 108) == [False, True, True]
    assert flagged(reference, min_share=n_novel / 108 + 0.001) == [False, False, True]


def test_threshold(reference: Reference) -> None:
    assert flagged(reference, threshold=-10.0) == [True, True, True]
    assert flagged(reference, threshold=1e6) == [False, False, False]


def test_auto_threshold_is_the_one_of_the_reference(reference: Reference) -> None:
    def auto(**options: Any) -> float:
        return Monitor(reference, threshold="auto", **{"false_alarm": 0.1, **options}).threshold

    assert auto() == reference.threshold(0.1, of="max"), "one atom is enough: the worst of a frame counts"
    assert auto(false_alarm=0.3) < auto()
    assert auto(of="atom") == reference.threshold(0.1, of="atom") < auto()
    assert auto(min_atoms=3) == frame_threshold(reference, 0.1, min_atoms=3) < auto()
    assert auto(min_share=0.2) == frame_threshold(reference, 0.1, min_share=0.2) < auto(min_atoms=3)


def test_auto_threshold_follows_the_reference(reference: Reference) -> None:
    grown = reference.copy()
    monitor = Monitor(grown, threshold="auto", false_alarm=0.1)
    before = monitor.threshold
    grown.extend([new(seed) for seed in range(20)])
    assert monitor.threshold == grown.threshold(0.1, of="max") != before


def test_min_new(reference: Reference) -> None:
    def kept(min_new: float) -> list[bool]:
        monitor = Monitor(reference, threshold=THRESHOLD, min_new=min_new)
        first, second = new(0), new(0)
        second.positions[:2] += [[0.5, 0.0, 0.0], [0.0, -0.4, 0.2]]
        return [monitor.look(atoms).collected for atoms in (first, second)]

    assert kept(0.0) == [True, True]
    assert kept(1.0) == [True, False]


def test_max_frames(reference: Reference) -> None:
    monitor = Monitor(reference, threshold=THRESHOLD, max_frames=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for seed in range(5):
            monitor.look(new(seed))
    assert [str(warning.message) for warning in caught] == ["2 frames were collected (max_frames); no more are kept"]
    assert (monitor.n_flagged, monitor.n_collected, len(monitor.frames)) == (5, 2, 2)
    monitor = Monitor(reference, threshold=THRESHOLD, max_frames=0)
    assert not monitor.look(new(0)).collected


def test_jobs_do_not_change_the_answers(reference: Reference, frames: list[Atoms]) -> None:
    found = []
    for jobs in (1, 2):
        monitor = Monitor(reference, threshold=THRESHOLD, jobs=jobs)
        found.append([(report.novel.tolist(), report.dh.tolist()) for report in map(monitor.look, frames)])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": "automatic"}, "threshold must be a number or \"auto\", got 'automatic'"),
        ({"threshold": float("nan")}, "threshold must be finite, got nan"),
        ({"min_atoms": 0}, "min_atoms must be a whole number of at least 1, got 0"),
        ({"min_share": 1.5}, "min_share must lie between 0 and 1, got 1.5"),
        ({"min_new": -0.1}, "min_new must lie between 0 and 1, got -0.1"),
        ({"of": "max"}, "of must be one of frame, atom, got 'max'"),
        ({"max_frames": -1}, "max_frames must be a whole number of at least 0, got -1"),
        ({"action": "shout"}, "action must be one of record, stop, or a callable, got 'shout'"),
        ({"path": "flagged.traj"}, "flagged.traj: collected frames are extended XYZ; choose a name that ends in .xyz"),
        ({"path": "nowhere/flagged.xyz"}, "nowhere/flagged.xyz: the folder nowhere does not exist"),
        ({"jobs": 0}, "jobs must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_options(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        Monitor(reference, **options)
    assert str(caught.value) == message


def test_a_reference_is_needed() -> None:
    with pytest.raises(ValueError, match="reference must be a Reference, got str"):
        Monitor("train.qref")  # type: ignore[arg-type]


def test_something_to_look_at_is_needed(reference: Reference) -> None:
    with pytest.raises(ValueError, match="there is nothing to look at"):
        Monitor(reference)()


# --- actions ----------------------------------------------------------------------------------------------------------


def test_a_callable_gets_atoms_and_report(reference: Reference, frames: list[Atoms]) -> None:
    calls: list[tuple[Atoms, Report]] = []
    monitor = Monitor(reference, threshold=THRESHOLD, action=lambda *given: calls.append(given))
    for atoms in frames:
        monitor.look(atoms)
    assert [report.step for _, report in calls] == [1, 2, 4, 6, 7]
    assert all(atoms is frames[report.step] for atoms, report in calls)
    assert calls[0][1].collected


def test_what_a_callable_raises_is_raised(reference: Reference) -> None:
    def fail(atoms: Atoms, report: Report) -> None:
        raise ZeroDivisionError(f"at step {report.step}")

    monitor = Monitor(reference, threshold=THRESHOLD, action=fail)
    monitor.look(known(50))
    with pytest.raises(ZeroDivisionError, match="at step 1"):
        monitor.look(new(0))
    assert monitor.history["flagged"].tolist() == [False, True]
    assert monitor.n_collected == 1


def test_stop_raises_where_there_is_no_dynamics(reference: Reference) -> None:
    atoms = known(50)
    monitor = Monitor(reference, atoms, threshold=THRESHOLD, action="stop")
    monitor()
    assert not monitor.stopped
    atoms.positions[:] = new(0).positions
    with pytest.raises(NovelEnvironment, match=r"^step 1: \d+ of 32 atoms are new to the reference$") as caught:
        monitor()
    assert caught.value.report is monitor.last
    assert monitor.stopped
    assert monitor.history["flagged"].tolist() == [False, True]


class Clock:
    """A clock that stands still but for what is added to it."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.125
        return self.now


def test_overhead(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("quests_zenn.uq.monitor.clock", clock)

    def slow(atoms: Atoms, report: Report) -> None:
        clock.now += 1000.0

    monitor = Monitor(reference, threshold=THRESHOLD, action=slow)
    assert np.isnan(monitor.overhead)
    for number in range(5):
        monitor.look(new(0) if number in (0, 3) else known(50))
        clock.now += 1.125 - (0.125 if number in (0, 3) else 0.0)  # an action reads the clock twice: once more outside
    # each look takes 0.125, and the steps between two looks 1.25; actions count for neither
    assert monitor.seconds == pytest.approx(5 * 0.125)
    assert monitor.overhead == pytest.approx(0.125 / (0.125 + 1.25))
    told = monitor.summary()
    assert told["seconds"] == monitor.seconds
    assert told["overhead"] == monitor.overhead
    assert told["n_calls"] == 5
    assert told["n_flagged"] == 2
    assert repr(monitor) == "<Monitor: 5 looks, 2 flagged, 1 collected, 0.625 s>"


# --- unusual frames ---------------------------------------------------------------------------------------------------


def test_a_run_that_blew_up_is_told_in_one_sentence(reference: Reference) -> None:
    monitor = Monitor(reference)
    atoms = known(50)
    atoms.positions[3, 1] = np.nan
    with pytest.raises(DataError, match=r"^step 120\b.*\batom 3\b") as caught:
        monitor.look(atoms, 120)
    assert "\n" not in str(caught.value)


def test_the_number_of_atoms_may_change(reference: Reference) -> None:
    monitor = Monitor(reference, threshold=THRESHOLD)
    fewer = known(50)
    del fewer[5]
    reports = [monitor.look(atoms) for atoms in (known(50), fewer, new(0) * (2, 1, 1))]
    assert [report.n_atoms for report in reports] == [32, 31, 64]
    assert [report.flagged for report in reports] == [False, True, True]
    assert [len(atoms) for atoms in monitor.frames] == [31, 64]


@pytest.mark.parametrize("species", ["none", "pairs"])
def test_strangers_are_novel_and_told_of_once(tmp_path: Path, species: str) -> None:
    copper = Reference.fit([known(seed) for seed in range(10)], bandwidth=0.03, species=species)
    path = tmp_path / "new.xyz"
    monitor = Monitor(copper, threshold=THRESHOLD, path=path)
    atoms = known(3)
    atoms.numbers[4] = 79
    with pytest.warns(UserWarning, match="the reference never saw Au: all these atoms are novel"):
        first = monitor.look(atoms)
    second = monitor.look(atoms)  # a second warning would be an error
    assert first.novel[4]
    assert first.worst == 4
    assert first.dh_max == np.inf
    assert (first.collected, second.flagged, second.collected) == (True, True, False)
    np.testing.assert_array_equal(np.isinf(read(path).arrays["dH"]), atoms.numbers == 79)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed = Monitor(copper, threshold=THRESHOLD, path=path, resume=True)
    with pytest.warns(UserWarning, match="never saw Au"):
        assert not resumed.look(atoms).collected


def test_any_structure_will_do(reference: Reference) -> None:
    monitor = Monitor(reference, threshold=THRESHOLD)
    structure = structures.fcc(repeat=(2, 2, 2), rattle=0.4, seed=0)
    assert monitor.look(structure).collected
    np.testing.assert_array_equal(monitor.frames[0].positions, structure[0])
    assert monitor.frames[0].pbc.all()


# --- the file ---------------------------------------------------------------------------------------------------------


def run(reference: Reference, frames: list[Atoms], path: Path, resume: bool = False) -> Monitor:
    monitor = Monitor(reference, threshold=THRESHOLD, path=path, resume=resume)
    for atoms in frames:
        monitor.look(atoms)
    return monitor


def test_frames_are_on_the_disk_as_they_come(reference: Reference, frames: list[Atoms], tmp_path: Path) -> None:
    path = tmp_path / "new.xyz"
    monitor = Monitor(reference, threshold=THRESHOLD, path=path)
    assert monitor.frames == []
    count = 0
    for atoms in frames:
        count += monitor.look(atoms).collected
        assert (len(read(path, ":")) if path.exists() else 0) == count
    for kept, atoms in zip(read(path, ":"), (frames[1], frames[4], frames[7]), strict=True):
        np.testing.assert_allclose(kept.positions, atoms.positions, atol=1e-8)
        np.testing.assert_array_equal(kept.cell.array, atoms.cell.array)
        np.testing.assert_allclose(kept.arrays["dH"], reference.score(atoms), atol=1e-7)
        assert kept.info["dH_scope"] == "the reference"
        assert kept.info["dH_bandwidth"] == 0.03
    assert [len(atoms) for atoms in monitor.frames] == [32, 32, 32]


def test_an_existing_file_is_refused(reference: Reference, tmp_path: Path) -> None:
    path = tmp_path / "new.xyz"
    path.write_text("precious")
    with pytest.raises(DataError, match="exists already; choose another name, or go on with it"):
        Monitor(reference, path=path)
    assert path.read_text() == "precious"


def cuts(path: Path) -> Iterator[int]:
    """Sizes at which a file may have been cut: in each part of its last frame, and before the first is complete."""
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    ends = np.cumsum([len(line) for line in lines])
    begin = int(ends[-35])
    yield from (begin + 1, begin + 3, begin + 60, int(ends[-33]), int(ends[-33]) + 20, int(ends[-2]), len(content) - 1)
    yield int(ends[1]) + 5


def test_a_killed_run_goes_on_where_it_was(reference: Reference, frames: list[Atoms], tmp_path: Path) -> None:
    whole = tmp_path / "whole.xyz"
    run(reference, frames, whole)
    for size in cuts(whole):
        path = tmp_path / f"cut_{size}.xyz"
        path.write_bytes(whole.read_bytes()[:size])
        with pytest.warns(UserWarning, match="its last frame was not complete, and was removed"):
            monitor = run(reference, frames, path, resume=True)
        assert path.read_bytes() == whole.read_bytes(), size
        assert monitor.n_resumed + monitor.n_collected == 3


def test_going_on_stores_nothing_twice(reference: Reference, frames: list[Atoms], tmp_path: Path) -> None:
    path = tmp_path / "new.xyz"
    for expected in ((0, 3), (3, 0), (3, 0)):
        monitor = run(reference, frames, path, resume=True)
        assert (monitor.n_resumed, monitor.n_collected) == expected
    assert len(read(path, ":")) == 3
    monitor = Monitor(reference, threshold=THRESHOLD, path=path, resume=True, max_frames=4)
    with pytest.warns(UserWarning, match="4 frames were collected"):
        collected = [monitor.look(new(seed)).collected for seed in (0, 5, 6)]
    assert collected == [False, True, False], "frames that were read back count"


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from test_monitor import THRESHOLD, known, new
from quests_zenn.descriptors import get_descriptors
from quests_zenn.entropy import delta_entropy
from quests_zenn.uq import Monitor, Reference

def action(atoms, report):
    if report.step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)

monitor = Monitor(Reference.load({reference!r}), threshold=THRESHOLD, path={output!r}, resume=True, action=action)
for seed in range(4):
    monitor.look(new(seed))
print(monitor.n_resumed, monitor.n_collected)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no such signal")
def test_a_run_that_was_really_killed(reference: Reference, tmp_path: Path) -> None:
    reference.save(tmp_path / "known.qref")
    output = tmp_path / "new.xyz"
    names = {"reference": str(tmp_path / "known.qref"), "output": str(output)}
    codes, told = [], ""
    for step in (1, 2, 99):
        code = KILLED.format(path=[str(Path(__file__).parent), str(Path(__file__).parents[1])], step=step, **names)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
        codes.append(done.returncode)
        told = done.stdout
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert told == "3 1\n"
    assert [atoms.info["step"] for atoms in read(output, ":")] == [0, 1, 2, 3]


def test_files_of_others_are_not_touched(reference: Reference, tmp_path: Path) -> None:
    path = tmp_path / "train.xyz"
    known(0).write(path)
    content = path.read_bytes()[:-1]  # without the end of the last line
    path.write_bytes(content)
    with pytest.raises(DataError, match="holds no frame that a monitor collected"):
        Monitor(reference, path=path, resume=True)
    path.write_text("not even frames\n")
    with pytest.raises(DataError, match="no frame begins at byte 0"):
        Monitor(reference, path=path, resume=True)
    assert path.read_text() == "not even frames\n"


def test_frames_of_another_descriptor_are_refused(reference: Reference, frames: list[Atoms], tmp_path: Path) -> None:
    path = tmp_path / "new.xyz"
    run(reference, frames, path)
    other = Reference.fit([known(seed) for seed in range(3)], bandwidth=0.03, k=20)
    with pytest.raises(DataError, match="frame 0: was collected with k 32, and the reference has 20"):
        Monitor(other, path=path, resume=True)


def test_an_empty_file_may_be_gone_on_with(reference: Reference, frames: list[Atoms], tmp_path: Path) -> None:
    path = tmp_path / "new.xyz"
    path.touch()
    assert run(reference, frames, path, resume=True).n_collected == 3


def test_a_full_disk_leaves_no_half_frame(
    reference: Reference, frames: list[Atoms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new.xyz"
    monitor = run(reference, frames[:2], path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"new\.xyz: cannot be written \(No space left on device\)"):
        monitor.look(new(1))
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert monitor.look(new(1)).collected, "it can go on when there is room"
    assert len(read(path, ":")) == 2


def test_one_process_of_several_writes(
    reference: Reference, frames: list[Atoms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Second:
        rank = 1

        def barrier(self) -> None: ...

    monkeypatch.setattr("ase.parallel.world", Second())
    path = tmp_path / "new.xyz"
    assert run(reference, frames, path).n_collected == 3
    assert not path.exists()


# --- in runs of ASE ---------------------------------------------------------------------------------------------------


def dynamics(temperature: float, seed: int) -> Langevin:
    """Copper at 300 K and a little time later, with a thermostat at another temperature."""
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    rng = np.random.default_rng(seed)
    atoms.set_velocities(rng.normal(size=(len(atoms), 3)) * np.sqrt(600.0 * units.kB / atoms.get_masses()[0]))
    atoms.calc = EMT()
    kind = {"friction": 0.02 / units.fs, "fixcm": False, "rng": rng}
    Langevin(atoms, 5.0 * units.fs, temperature_K=300.0, **kind).run(50)
    return Langevin(atoms, 5.0 * units.fs, temperature_K=temperature, **kind)


@pytest.fixture(scope="module")
def copper() -> Reference:
    """What copper at 300 K looks like."""
    dyn = dynamics(300.0, 0)
    seen: list[Atoms] = []
    dyn.attach(lambda: seen.append(dyn.atoms.copy()), interval=4)
    dyn.run(600)
    return Reference.fit(seen, bandwidth=0.03)


def test_a_run_ends_where_it_leaves_what_is_known(copper: Reference, tmp_path: Path) -> None:
    path = tmp_path / "new.xyz"
    dyn = dynamics(3000.0, 1)
    monitor = Monitor(copper, dyn, threshold="auto", false_alarm=0.01, action="stop", path=path)
    dyn.attach(monitor, interval=5)
    dyn.run(400)
    stopped_at = dyn.nsteps
    assert monitor.stopped
    assert 0 < stopped_at < 400
    assert stopped_at % 5 == 0
    assert monitor.history["step"].tolist() == list(range(0, stopped_at + 1, 5))
    assert monitor.history["flagged"].tolist() == [False] * (monitor.n_calls - 1) + [True]
    np.testing.assert_allclose(monitor.history["time_ps"], 0.005 * monitor.history["step"])
    kept = read(path)
    assert kept.info["step"] == stopped_at
    np.testing.assert_allclose(kept.positions, dyn.atoms.positions, atol=1e-8)
    np.testing.assert_allclose(kept.get_forces(), dyn.atoms.get_forces(), atol=1e-7)
    assert kept.get_potential_energy() == pytest.approx(dyn.atoms.get_potential_energy())
    assert kept.arrays["momenta"].shape == (32, 3)
    # who wants to go on can; nothing is looked at twice
    dyn.run(5)
    assert dyn.nsteps == stopped_at + 5
    assert monitor.n_calls == stopped_at // 5 + 2


def test_a_run_at_the_temperature_of_the_reference_is_hardly_flagged(copper: Reference) -> None:
    dyn = dynamics(300.0, 2)
    monitor = Monitor(copper, dyn, threshold="auto", false_alarm=0.01)
    dyn.attach(monitor, interval=10)
    dyn.run(400)
    assert monitor.n_calls == 41
    assert monitor.n_flagged <= 4  # one in a hundred, by its own word
    assert 0.0 < monitor.overhead < 1.0


def test_a_run_that_begins_outside_can_be_gone_on_with(copper: Reference) -> None:
    dyn = dynamics(300.0, 3)
    dyn.atoms.positions[0] += [0.5, 0.4, 0.3]
    monitor = Monitor(copper, dyn, threshold="auto", action="stop")
    dyn.attach(monitor, interval=10)
    dyn.run(20)
    assert (dyn.nsteps, monitor.n_calls) == (0, 1)
    dyn.run(5)
    assert (dyn.nsteps, monitor.n_calls) == (5, 1)


def test_a_callable_may_stop_a_run(copper: Reference) -> None:
    dyn = dynamics(3000.0, 1)

    def action(atoms: Atoms, report: Report) -> None:
        if monitor.n_flagged == 3:
            monitor.stop()

    monitor = Monitor(copper, dyn, threshold="auto", action=action)
    dyn.attach(monitor, interval=5)
    dyn.run(400)
    assert monitor.n_flagged == 3
    assert dyn.nsteps < 400


def test_an_optimizer_that_goes_on_nevertheless_is_ended_by_an_exception(copper: Reference) -> None:
    atoms = dynamics(300.0, 3).atoms
    atoms.positions[0] += [0.5, 0.4, 0.3]
    with SciPyFminCG(atoms, logfile=None) as optimizer:
        monitor = Monitor(copper, optimizer, threshold="auto", action="stop")
        optimizer.attach(monitor)
        with pytest.raises(NovelEnvironment):
            optimizer.run(fmax=1e-4, steps=100)
    assert optimizer.nsteps == 1


def test_optimizers_and_filters(copper: Reference) -> None:
    atoms = dynamics(300.0, 3).atoms
    with BFGS(UnitCellFilter(atoms), logfile=None) as optimizer:
        monitor = Monitor(copper, optimizer, threshold="auto")
        optimizer.attach(monitor)
        optimizer.run(steps=3)
        assert monitor.n_calls == 4
        assert np.isnan(monitor.history["time_ps"]).all()
        assert monitor.last is not None
        assert monitor.last.n_atoms == 32


def test_results_of_other_positions_are_not_kept(reference: Reference) -> None:
    atoms = new(0)
    atoms.calc = EMT()
    atoms.get_potential_energy()
    atoms.positions[0] += 0.1
    monitor = Monitor(reference, atoms, threshold=THRESHOLD)
    monitor()
    assert monitor.frames[0].calc is None


def test_looks_cost_no_forces(copper: Reference) -> None:
    """A look asks nothing of the calculator."""
    dyn = dynamics(3000.0, 1)
    monitor = Monitor(copper, dyn, threshold="auto")
    calls = 0
    calculate = dyn.atoms.calc.calculate

    def counted(*given: Any) -> None:
        nonlocal calls
        calls += 1
        calculate(*given)

    dyn.atoms.calc.calculate = counted
    dyn.attach(monitor, interval=1)
    dyn.run(20)
    assert calls == 20
    assert monitor.n_calls == 21
