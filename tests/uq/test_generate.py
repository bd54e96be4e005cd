"""New structures on purpose: where walks go, what they obey, and what comes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import structures
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms, FixBondLengths
from ase.data import covalent_radii
from ase.io import read, write
from ase.neighborlist import neighbor_list

from quests_zenn._core.checks import DataError
from quests_zenn._core.parallel import Workers
from quests_zenn.descriptors import describe
from quests_zenn.uq import GeneratedFrame, Reference, generate
from quests_zenn.uq import _walk as walks
from quests_zenn.uq._guards import Box, Distances, distances, find_close, nearest_distance

Array = npt.NDArray[np.float64]

H = 0.03


def crystals(n: int, amplitude: float, seed: int, repeat: tuple[int, int, int] = (2, 2, 2)) -> list[Atoms]:
    frames = []
    for i in range(n):
        atoms = bulk("Cu", cubic=True) * repeat
        atoms.rattle(amplitude, seed=100 * seed + i)
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def known() -> Reference:
    return Reference.fit(crystals(6, 0.08, 1), H)


@pytest.fixture(scope="module")
def start() -> Atoms:
    return crystals(1, 0.05, 2)[0]


@pytest.fixture(scope="module")
def alloy() -> Atoms:
    atoms = crystals(1, 0.05, 3)[0]
    atoms.symbols[::3] = "Ag"
    return atoms


@pytest.fixture(scope="module")
def alloys(alloy: Atoms) -> Reference:
    frames = crystals(4, 0.08, 4)
    for atoms in frames:
        atoms.symbols[::4] = "Ag"
    return Reference.fit([*frames, alloy], H, species="pairs")


def one(*args: Any, **options: Any) -> GeneratedFrame:
    found = generate(*args, **({"rng": 0, "keep_all": True, "jobs": 1} | options))
    assert len(found) == 1
    return found[0]


def smallest(atoms: Atoms) -> float:
    return float(neighbor_list("d", atoms, 5.0).min())


def statistic(dh: Array, name: str, quantile: float = 0.9) -> float:
    if name == "quantile":
        return float(np.sort(dh)[int(np.ceil(quantile * len(dh))) - 1])
    return float(dh.mean() if name == "mean" else dh.max())


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "target"), [("max", 8.0), ("mean", 3.0), ("quantile", 5.0), ("max", 15.0)])
def test_frames_are_near_the_target_given_all_before(
    known: Reference, start: Atoms, name: str, target: float, tmp_path: Path
) -> None:
    found = generate(
        start, known, target, 3, 2, width=1.0, statistic=name, quantile=0.8, apart=-100.0, rng=1, jobs=2, steps=2000
    )
    assert len(found) == 6
    before = known.copy()
    earlier = known.copy()  # what the walks of a generation know
    for place, frame in enumerate(found):
        if place == 3:
            earlier = before.copy()
        assert frame.kept
        reached = statistic(earlier.score(frame.atoms), name, 0.8)
        assert reached == pytest.approx(frame.reached, abs=1e-9)
        assert abs(reached - target) <= 1.0
        dh = before.score(frame.atoms)
        np.testing.assert_allclose(frame.atoms.arrays["dH"], dh, rtol=0.0, atol=1e-9)
        assert frame.value == pytest.approx(statistic(dh, name, 0.8), abs=1e-9)
        assert (frame.mean, frame.max) == pytest.approx((dh.mean(), dh.max()), abs=1e-9)
        assert frame.min_distance == pytest.approx(smallest(frame.atoms), abs=1e-9)
        assert frame.volume == pytest.approx(frame.atoms.get_volume() / 32)
        assert frame.generation == 1 + place // 3
        assert frame.name == f"g{frame.generation}w{place % 3}"
        assert frame.parent == ("frame 0" if place < 3 else f"g1w{place % 3}")
        before.extend(frame.atoms)
    # what a file holds is what was judged, to the last bit
    write(tmp_path / "new.xyz", [frame.atoms for frame in found])
    for frame, atoms in zip(found, read(tmp_path / "new.xyz", ":"), strict=True):
        np.testing.assert_array_equal(atoms.positions, frame.atoms.positions)
        np.testing.assert_array_equal(atoms.cell.array, frame.atoms.cell.array)
        for key in ("name", "parent", "generation", "outcome", "dH_scope", "dH_statistic", "dH_species"):
            assert atoms.info[key] == frame.atoms.info[key]
        for key in ("acceptance", "min_distance", "dH_target", "dH_width", "dH_value", "dH_reached", "dH_mean", "seed"):
            assert atoms.info[key] == pytest.approx(frame.atoms.info[key], rel=1e-12)


def test_a_higher_target_lies_further(known: Reference, start: Atoms) -> None:
    means = [
        np.mean([frame.mean for frame in generate(start, known, t, 4, statistic="mean", width=0.5, apart=-99, rng=0)])
        for t in (0.0, 4.0, 8.0)
    ]
    assert means[0] < means[1] < means[2]


def test_what_lies_further_is_higher_in_energy(known: Reference, start: Atoms) -> None:
    """Nobody computed an energy, but what is further from the known crystal is higher in energy, and not absurd."""
    from ase.calculators.emt import EMT

    def energy(atoms: Atoms) -> float:
        copy = atoms.copy()
        copy.calc = EMT()
        return float(copy.get_potential_energy()) / len(copy)

    above = []
    for target in (0.0, 4.0, 12.0):
        found = generate(start, known, target, 5, statistic="mean", width=1.0, apart=-99.0, rng=0, steps=1000)
        assert len(found) == 5
        above.append(np.mean([energy(frame.atoms) for frame in found]) - energy(start))
    assert 0.0 < above[0] < above[1] < above[2] < 1.5  # the cohesive energy is 3.5 eV


def test_generations_explore_beyond_each_other(known: Reference, start: Atoms) -> None:
    found = generate(start, known, 8.0, 1, 4, width=1.0, rng=0)
    assert [frame.parent for frame in found] == ["frame 0", "g1w0", "g2w0", "g3w0"]
    for a, frame in enumerate(found):
        before = Reference.fit([*crystals(6, 0.08, 1), *(other.atoms for other in found[:a])], H)
        assert before.score(frame.atoms).max() == pytest.approx(frame.max, abs=1e-9)
        assert abs(frame.max - 8.0) <= 1.0
    # without what was found before, the last ones are far beyond the target
    assert known.score(found[-1].atoms).max() > 9.0


def test_nothing_of_a_caller_is_changed(known: Reference, start: Atoms) -> None:
    atoms = start.copy()
    atoms.info["source"] = "here"
    atoms.arrays["forces"] = np.ones((32, 3))
    atoms.set_tags(np.arange(32))
    n, thresholds = len(known), dict(known._thresholds)
    kept = atoms.copy()
    frame = one(atoms, known, 8.0)
    assert len(known) == n
    assert known._thresholds == thresholds
    assert atoms == kept
    assert atoms.info == {"source": "here"}
    # what belonged to the old configuration does not go with the new one
    assert set(frame.atoms.arrays) == {"numbers", "positions", "tags", "dH"}
    assert "source" not in frame.atoms.info
    assert frame.atoms.calc is None


@pytest.mark.parametrize("kind", ["tuple", "frame", "list", "generator"])
def test_starts_may_be_anything_that_is_a_structure(known: Reference, start: Atoms, kind: str) -> None:
    from quests_zenn.io import as_frame

    parts = (start.positions, start.cell.array, start.pbc, start.numbers)
    given = {
        "tuple": parts,
        "frame": as_frame(start, "a frame"),
        "list": [start],
        "generator": (atoms for atoms in [start]),
    }[kind]
    expected = one(start, known, 8.0)
    found = one(given, known, 8.0)
    np.testing.assert_array_equal(found.atoms.positions, expected.atoms.positions)
    assert found.parent == ("a frame" if kind == "frame" else "frame 0")
    assert one(start, known, 8.0, labels=["mine"]).parent == "mine"


def test_walks_take_the_starts_in_turn(known: Reference) -> None:
    starts = crystals(2, 0.05, 7)
    found = generate(starts, known, 8.0, 3, rng=0, keep_all=True)
    assert [frame.parent for frame in found] == ["frame 0", "frame 1", "frame 0"]
    assert len(generate(starts, known, 8.0, rng=0, keep_all=True)) == 2  # by default one each
    alone = one(starts[0], known, 8.0)
    np.testing.assert_array_equal(found[0].atoms.positions, alone.atoms.positions)


# --- random numbers, threads, and interrupted runs --------------------------------------------------------------------


def same(first: list[GeneratedFrame], second: list[GeneratedFrame]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a.atoms.positions, b.atoms.positions)
        and np.array_equal(a.atoms.cell.array, b.atoms.cell.array)
        and np.array_equal(a.atoms.arrays["dH"], b.atoms.arrays["dH"])
        and (a.name, a.outcome, a.moves, a.arrived) == (b.name, b.outcome, b.moves, b.arrived)
        for a, b in zip(first, second, strict=True)
    )


def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(known: Reference, start: Atoms) -> None:
    args: dict[str, Any] = {"target": 8.0, "number": 3, "generations": 2, "volume_moves": 0.2, "keep_all": True}
    first = generate(start, known, rng=5, jobs=1, **args)
    assert same(first, generate(start, known, rng=5, jobs=2, **args))
    assert same(first, generate(start, known, rng=5, jobs=7, **args))
    assert not same(first, generate(start, known, rng=6, jobs=2, **args))
    drawn = generate(start, known, rng=np.random.default_rng(5), **args)
    assert same(drawn, generate(start, known, rng=np.random.default_rng(5), **args))
    assert same(drawn, generate(start, known, rng=drawn[0].atoms.info["seed"], **args))
    assert not same(generate(start, known, **args), generate(start, known, **args))


def test_walks_have_streams_of_their_own(known: Reference, start: Atoms) -> None:
    few = generate(start, known, 8.0, 2, rng=0, keep_all=True)
    many = generate(start, known, 8.0, 4, rng=0, keep_all=True)
    assert same(few, many[:2])
    positions = [frame.atoms.positions for frame in many]
    assert all(not np.array_equal(positions[a], positions[b]) for a in range(4) for b in range(a))


def test_no_stream_is_used_twice(known: Reference, start: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[Array] = []
    begin = walks.Walker.__init__

    def noted(self: Any, *args: Any) -> None:
        seeds.append(args[-1].generate_state(4))
        begin(self, *args)

    monkeypatch.setattr(walks.Walker, "__init__", noted)
    generate(start, known, 8.0, 3, 3, rng=0, apart=-99.0)
    assert len(seeds) == 9
    assert len({tuple(seed.tolist()) for seed in seeds}) == 9


class Counter:
    """Progress that ends the run after some moves, by one error in one thread."""

    def __init__(self, most: float = np.inf, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.moves, self.most, self.error = 0, most, error
        self._lock = threading.Lock()

    def __call__(self, moves: int) -> None:
        with self._lock:
            self.moves += moves
            if self.moves > self.most:
                self.most = np.inf
                raise self.error


ARGS: dict[str, Any] = {"target": 8.0, "number": 3, "generations": 3, "linger": 60, "apart": -99.0, "rng": 3}


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_run_goes_on(known: Reference, start: Atoms, tmp_path: Path, jobs: int) -> None:
    whole = Counter()
    expected = generate(start, known, progress=whole, **ARGS)
    total = 9 * 320
    assert whole.moves == total
    path = tmp_path / "run"
    journal = tmp_path / "run.progress.jsonl"
    with pytest.raises(KeyboardInterrupt):
        generate(start, known, progress=Counter(0.6 * total), checkpoint=path, jobs=jobs, **ARGS)
    done = len(journal.read_text().splitlines())
    assert 4 <= done < 11  # a header, the seed, and some walks
    with open(journal, "ab") as stream:
        stream.write(b'{"walk": {"generat')  # killed while it wrote
    spent: list[int] = []
    walk = walks.Walker.walk

    def counted(self: Any, generation: int, number: int, *args: Any, **options: Any) -> walks.Walk:
        spent.append(number)
        return walk(self, generation, number, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walks.Walker, "walk", counted)
        assert same(expected, generate(start, known, checkpoint=path, jobs=jobs, **ARGS))
        assert len(spent) == 9 - (done - 2)
        assert same(expected, generate(start, known, checkpoint=path, **ARGS))
        assert len(spent) == 9 - (done - 2)  # all is there already
    more = generate(start, known, checkpoint=path, **(ARGS | {"generations": 4}))
    assert same(expected, more[:9])
    assert len(more) == 12


def test_a_checkpoint_of_another_run_is_refused(known: Reference, start: Atoms, tmp_path: Path) -> None:
    path = tmp_path / "run"
    args = ARGS | {"generations": 1, "number": 1}
    generate(start, known, checkpoint=path, **args)
    with pytest.raises(DataError, match=r"had step size 0.1, and this one has 0.2"):
        generate(start, known, checkpoint=path, step_size=0.2, **args)
    with pytest.raises(DataError, match=r"starting frames"):
        generate(crystals(1, 0.05, 9), known, checkpoint=path, **args)
    with pytest.raises(DataError, match=r"had reference"):
        generate(start, Reference.fit(crystals(2, 0.08, 9), H), checkpoint=path, **args)
    with pytest.raises(DataError, match=r"had seed"):
        generate(start, known, checkpoint=path, **(args | {"rng": 4}))
    other = generate(start, known, step_size=0.2, checkpoint=path, overwrite=True, **args)
    assert same(other, generate(start, known, step_size=0.2, **args))
    assert same(other, generate(start, known, step_size=0.2, checkpoint=path, **args))
    # overwriting a run of the same kind goes on with it
    before = (tmp_path / "run.progress.jsonl").read_text()
    generate(start, known, step_size=0.2, checkpoint=path, overwrite=True, **args)
    assert (tmp_path / "run.progress.jsonl").read_text().startswith(before)
    (tmp_path / "run.progress.jsonl").write_text("something else\n")
    with pytest.raises(DataError, match="damaged"):
        generate(start, known, checkpoint=path, **args)


def test_a_run_without_a_seed_goes_on_with_its_own(known: Reference, start: Atoms, tmp_path: Path) -> None:
    args = ARGS | {"rng": None}
    with pytest.raises(KeyboardInterrupt):
        generate(start, known, progress=Counter(1500), checkpoint=tmp_path / "run", **args)
    first = generate(start, known, checkpoint=tmp_path / "run", **args)
    assert same(first, generate(start, known, **(args | {"rng": first[0].atoms.info["seed"]})))


def test_a_failure_ends_all_walks_at_once(known: Reference, start: Atoms) -> None:
    counter = Counter(50, RuntimeError)
    with pytest.raises(RuntimeError):
        generate(start, known, 1e6, 4, steps=5_000, rng=0, jobs=3, progress=counter)
    assert counter.moves < 5_000


# --- a walk -----------------------------------------------------------------------------------------------------------


def walker(atoms: Atoms, known: Reference, seed: int = 0, **rules: Any) -> walks.Walker:
    everything = np.arange(len(atoms))
    begin = walks.Start(
        np.round(atoms.positions, 8), atoms.cell.array.copy(), atoms.pbc.copy(), atoms.numbers.copy(), everything,
        everything, "the start",
    )  # fmt: skip
    default = walks.Rules(
        target=8.0, width=2.0, statistic="max", quantile=0.9, temperature=0.1, steps=None, linger=0, burn_in=None,
        step_size=0.1, atoms_per_move=1, acceptance=0.5, swaps=0.0, volume_moves=0.0, shear_moves=0.0, strain=0.01,
        distances=distances("reference:0.9", known, atoms.numbers), volume=None, ceiling=100.0, apart=0.0,
    )  # fmt: skip
    found = walks.Walker(begin, known, replace(default, **rules), np.random.SeedSequence(seed))
    found.workers = Workers(1)
    return found


@pytest.mark.parametrize("shares", [{}, {"volume_moves": 0.3, "shear_moves": 0.3, "swaps": 0.3}])
def test_states_hold_what_they_say_and_refused_moves_leave_no_trace(
    alloys: Reference, alloy: Atoms, shares: dict[str, float]
) -> None:
    mover = walker(alloy, alloys, step_size=0.2, strain=0.03, temperature=1.0, atoms_per_move=2, **shares)
    state = mover._first()
    refused = 0
    for _ in range(120):
        kept = [array.copy() for array in (state.positions, state.cell, state.env.x, state.dh)]
        new, _ = mover._move(state)
        for array, copy in zip((state.positions, state.cell, state.env.x, state.dh), kept, strict=True):
            assert np.array_equal(array, copy), "a move changed the state it started from"
        refused += new is None
        if new is None:
            continue
        state = new
        frame = (state.positions, state.cell, alloy.pbc, alloy.numbers)
        assert np.array_equal(state.env.x, describe(frame, species="pairs", elements=alloys.elements).x)
        np.testing.assert_allclose(state.dh, alloys.score(frame), rtol=0.0, atol=1e-9)
        assert state.value == state.dh.max()
        assert np.array_equal(state.positions, np.round(state.positions, 8))
    assert 10 < refused < 110


def test_only_what_changed_is_summed_again(known: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = crystals(1, 0.05, 2, (4, 4, 4))[0]
    mover = walker(atoms, known)
    state = mover._first()
    asked: list[int] = []
    score = Reference.score

    def counted(self: Reference, env: Any, **options: Any) -> Array:
        asked.append(len(env))
        return score(self, env, **options)

    monkeypatch.setattr(Reference, "score", counted)
    for _ in range(20):
        state = mover._move(state)[0] or state
    assert len(asked) > 5
    assert max(asked) < 100  # 43 atoms lie within the cutoff of one of 256
    np.testing.assert_allclose(state.dh, score(known, (state.positions, state.cell, True, atoms.numbers)), atol=1e-9)


def test_cold_walks_never_climb_and_warm_ones_do(known: Reference, start: Atoms) -> None:
    def energies(temperature: float) -> Array:
        frame = one(start, known, 12.0, statistic="mean", width=0.2, temperature=temperature, steps=150, burn_in=0)
        assert len(frame.trace) == 151
        return np.asarray(((frame.trace[:, 1] - 12.0) / 0.2) ** 2)

    assert (np.diff(energies(0.0)) <= 1e-9).all()
    climbs = np.diff(energies(50.0))
    assert (climbs > 0.0).any()
    # exp(-30) of the moves would climb by 30 times the temperature
    assert climbs.max() < 30.0 * 50.0


def test_acceptance_follows_the_rule_of_metropolis(known: Reference, start: Atoms) -> None:
    """Of moves up by dE in the energy a share exp(-dE / T) is accepted."""
    mover = walker(start, known, statistic="mean", target=30.0, width=1.0, temperature=5.0, distances=all_pairs(0.5))
    state = mover._first()
    seen, accepted, expected = 0, 0, 0.0
    for _ in range(800):
        draws = mover.rng.bit_generator.state
        new, _ = mover._move(state)
        # the same move again, for its energy
        mover.rng.bit_generator.state = draws
        mover._kind()
        positions, box, _ = mover._propose(walks.DISPLACE, state)
        mover.rng.random()
        value = known.score((positions, box.cell, start.pbc, start.numbers)).mean()
        change = (value - 30.0) ** 2 - state.energy
        if change > 0.0:
            seen += 1
            accepted += new is not None
            expected += np.exp(-change / 5.0)
    assert seen > 250
    assert accepted == pytest.approx(expected, abs=4.0 * np.sqrt(expected))
    assert 0.1 * seen < expected < 0.95 * seen


def all_pairs(limit: float, numbers: tuple[int, ...] = (29,)) -> Distances:
    return Distances({(a, b): limit for a in numbers for b in numbers if a <= b}, "as given")


def test_steps_adapt_in_the_burn_in_only(known: Reference, start: Atoms) -> None:
    args: dict[str, Any] = {"target": 300.0, "width": 1.0, "step_size": 0.1, "strain": 0.02, "ceiling": 1e9}
    still = one(start, known, **args, burn_in=0, steps=50, volume_moves=0.5)
    assert (still.step_size, still.strain) == (0.1, 0.02)
    adapted = one(start, known, **args, burn_in=30, steps=50, volume_moves=0.5)
    assert adapted.step_size != 0.1
    assert adapted.strain != 0.02
    longer = one(start, known, **args, burn_in=30, steps=80, volume_moves=0.5)
    assert (longer.step_size, longer.strain) == (adapted.step_size, adapted.strain)
    # towards the rate asked for
    shares = [one(start, known, **args, burn_in=600, steps=1200, acceptance=a) for a in (0.2, 0.45)]
    assert shares[0].step_size > shares[1].step_size
    assert shares[0].acceptance < shares[1].acceptance
    # but not without bounds
    assert one(start, known, **args, burn_in=200, steps=200, acceptance=0.0).step_size == pytest.approx(0.3)
    assert one(start, known, **args, burn_in=200, steps=200, acceptance=1.0).step_size == pytest.approx(0.01)


def test_a_walk_ends_near_the_target_or_in_the_nearest_state(known: Reference, start: Atoms) -> None:
    arrived = one(start, known, 8.0)
    assert arrived.moves == arrived.arrived > 0
    assert arrived.trace[-1].tolist() == [arrived.moves, arrived.reached]
    lingering = one(start, known, 8.0, linger=40)
    assert lingering.arrived == arrived.arrived
    assert lingering.moves == arrived.moves + 40
    assert abs(lingering.reached - 8.0) <= 2.0
    still = np.isclose(lingering.atoms.positions, arrived.atoms.positions).all(axis=1)
    assert not still.all()
    missed = one(start, known, 1000.0, steps=60)
    assert missed.outcome == "missed"
    assert missed.arrived == -1
    assert missed.moves == 60
    assert missed.reached == pytest.approx(missed.trace[:, 1].max())
    there = one(start, known, float(known.score(start).max()))  # near it already
    assert there.moves == 0
    np.testing.assert_array_equal(there.atoms.positions, np.round(start.positions, 8))


def test_a_walk_can_seek_what_is_better_known(known: Reference) -> None:
    hot = crystals(1, 0.16, 5)[0]
    high = known.score(hot).max()
    frame = one(hot, known, high - 6.0, width=1.0, steps=3000, min_distance=1.8)
    assert high > 7.0
    assert frame.kept
    assert frame.max < high - 4.0


def test_default_steps_grow_with_the_frame(known: Reference, start: Atoms) -> None:
    assert one(start, known, 1e6).moves == 320
    assert one(start, known, 1e6, atoms_per_move=2).moves == 200
    assert one(start, known, 1e6, select="0:25").moves == 250
    assert one(start, known, 1e6, steps=7).moves == 7


# --- options change the result ----------------------------------------------------------------------------------------

#: Options, and what they are compared with.
CHANGES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"target": 4.0}, {}),
    ({"width": 0.3}, {}),
    ({"statistic": "mean"}, {}),
    ({"statistic": "quantile"}, {}),
    ({"statistic": "quantile", "quantile": 0.5}, {"statistic": "quantile"}),
    ({"temperature": 30.0}, {}),
    ({"steps": 2}, {}),
    ({"linger": 10}, {}),
    ({"burn_in": 3}, {}),
    ({"step_size": 0.05}, {}),
    ({"atoms_per_move": 3}, {}),
    ({"acceptance": 0.2}, {}),
    ({"swaps": 0.5}, {}),
    ({"volume_moves": 0.5}, {}),
    ({"shear_moves": 0.5}, {}),
    ({"strain": 0.05, "volume_moves": 0.5}, {"volume_moves": 0.5}),
    ({"strain": 0.05, "shear_moves": 0.5}, {"shear_moves": 0.5}),
    ({"min_distance": 2.3}, {"statistic": "mean"}),
    ({"min_distance": "covalent:0.8"}, {"statistic": "mean"}),
    ({"min_distance": {("Cu", "Ag"): 2.3}}, {"statistic": "mean"}),
    ({"volume": (11.0, 11.9), "volume_moves": 1.0, "strain": 0.1}, {"volume_moves": 1.0, "strain": 0.1}),
    ({"ceiling": 4.0, "statistic": "mean"}, {"statistic": "mean"}),
    ({"select": "Cu"}, {}),
    ({"rng": 1}, {}),
]


@pytest.mark.parametrize(("changed", "base"), CHANGES, ids=lambda value: ",".join(value) or "default")
def test_every_option_changes_the_result(
    alloys: Reference, alloy: Atoms, changed: dict[str, Any], base: dict[str, Any]
) -> None:
    first = one(alloy, alloys, **({"target": 9.0, "steps": 120} | base))
    second = one(alloy, alloys, **({"target": 9.0, "steps": 120} | base | changed))
    assert not same([first], [second])


def test_outcomes_depend_on_how_far_apart_frames_must_be(known: Reference, start: Atoms) -> None:
    args: dict[str, Any] = {"target": 8.0, "number": 6, "statistic": "mean", "width": 1.0, "rng": 0, "steps": 1500}
    everything = generate(start, known, **args, keep_all=True, apart=-99.0)
    assert [frame.outcome for frame in everything] == ["kept"] * 6
    strict = generate(start, known, **args, keep_all=True, apart=6.9)
    assert {frame.outcome for frame in strict} == {"kept", "repeated"}
    assert all((frame.value >= 6.9) == frame.kept for frame in strict)
    default = generate(start, known, **args, keep_all=True)
    assert all((frame.value >= 4.0) == frame.kept for frame in default)
    kept = generate(start, known, **args, apart=6.9)
    assert [frame.name for frame in kept] == [frame.name for frame in strict if frame.kept]
    # frames that are not kept are not known either
    n_kept = sum(frame.kept for frame in strict)
    with pytest.warns(RuntimeWarning, match="nothing of generation 1 was kept"):
        assert generate(start, known, 1e6, 2, 3, rng=0, steps=20) == []
    assert 1 <= n_kept < 6
    # targets within what is known have another default
    known_well = generate(start, known, -2.0, 6, statistic="mean", width=0.5, rng=0, keep_all=True)
    assert all((frame.value >= -2.5) == frame.kept for frame in known_well)
    assert any(frame.kept for frame in known_well)


def test_the_ceiling_holds_for_every_atom(known: Reference, start: Atoms) -> None:
    args: dict[str, Any] = {"target": 4.0, "statistic": "mean", "width": 1.0, "steps": 1500}
    free = one(start, known, **args, ceiling=1e9)
    low = one(start, known, **args, ceiling=9.0)
    assert low.kept
    assert low.max <= 9.0 < free.max
    assert one(start, known, 3.0, statistic="mean", width=0.4, steps=1500).max <= 3.0 + 10 * 0.4  # the default
    # a start above it may come down
    hot = crystals(1, 0.16, 5)[0]
    high = known.score(hot).max()
    assert one(hot, known, high - 4.0, width=1.0, ceiling=high - 2.0, steps=2000, min_distance=1.8).kept


# --- guards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "limit"),
    [(2.35, 2.35), ("2.2", 2.2), ("covalent:0.85", 0.85 * 2 * covalent_radii[29]), ({("Cu", "Cu"): 2.3}, 2.3),
     ("Cu-Cu=2.25", 2.25)],
)  # fmt: skip
def test_no_pair_is_closer_than_the_guard(known: Reference, start: Atoms, spec: Any, limit: float) -> None:
    found = generate(start, known, 15.0, 3, statistic="mean", rng=0, keep_all=True, min_distance=spec, steps=400)
    closest = [smallest(frame.atoms) for frame in found]
    assert min(closest) >= limit
    assert min(closest) < limit + 0.05  # it was the guard that stopped them


def test_the_default_guard_comes_from_the_reference(known: Reference, start: Atoms) -> None:
    seen = min(smallest(atoms) for atoms in crystals(6, 0.08, 1))
    guard = distances("reference:0.9", known, start.numbers)
    assert guard.limits == {(29, 29): pytest.approx(0.9 * seen, abs=1e-9)}
    frame = one(start, known, 15.0, statistic="mean", steps=400)
    assert 0.9 * seen <= smallest(frame.atoms) < 0.9 * seen + 0.05


def test_guards_of_pairs_of_elements(alloys: Reference, alloy: Atoms) -> None:
    frames = crystals(4, 0.08, 4)
    for atoms in frames:
        atoms.symbols[::4] = "Ag"
    nearest = dict.fromkeys((29, 47), np.inf)
    for atoms in [*frames, alloy]:
        i, d = neighbor_list("id", atoms, 5.0)
        for z in nearest:
            nearest[z] = min(nearest[z], d[atoms.numbers[i] == z].min())
    guard = distances("reference:0.8", alloys, alloy.numbers)
    expected = {(29, 29): nearest[29], (29, 47): max(nearest.values()), (47, 47): nearest[47]}
    assert guard.limits == {pair: pytest.approx(0.8 * d, abs=1e-9) for pair, d in expected.items()}
    mixed = distances("Cu-Ag=2.4", alloys, alloy.numbers)
    default = distances("reference:0.9", alloys, alloy.numbers)
    assert mixed.limits == default.limits | {(29, 47): 2.4}
    found = generate(
        alloy, alloys, 30.0, 2, statistic="mean", rng=0, keep_all=True, steps=500, swaps=0.2,
        min_distance="Cu-Cu=2.1,Cu-Ag=2.2,Ag-Ag=2.3",
    )  # fmt: skip
    for frame in found:
        i, j, d = neighbor_list("ijd", frame.atoms, 5.0)
        for a, b, limit in ((29, 29, 2.1), (29, 47, 2.2), (47, 47, 2.3)):
            pairs = (frame.atoms.numbers[i] == a) & (frame.atoms.numbers[j] == b)
            assert limit <= d[pairs].min() < limit + 0.1


@pytest.mark.parametrize("pbc", structures.ALL_PBC)
def test_close_pairs_are_found_in_any_cell(pbc: tuple[bool, bool, bool]) -> None:
    """Against ASE's neighbour list, in small and skewed cells in which atoms see their own images."""
    rng = np.random.default_rng(3)
    for skew in (0.0, 0.4, 1.7):
        for trial in range(8):
            cell = np.diag(rng.uniform(1.5, 6.0, 3)) @ (np.eye(3) + skew * np.tril(rng.uniform(-1, 1, (3, 3)), -1))
            atoms = Atoms("CuAgCu", positions=rng.uniform(-5, 5, (3, 3)), cell=cell, pbc=pbc)
            limits = {(29, 29): 2.0, (29, 47): 1.4, (47, 47): 0.9}
            guard = Distances(limits, "as given")
            i, j, d = neighbor_list("ijd", atoms, 2.0)
            below = [limits[min(a, b), max(a, b)] for a, b in zip(atoms.numbers[i], atoms.numbers[j], strict=True)]
            close = d < np.array(below, float)
            box = Box.of(cell, pbc, guard.farthest, "it")
            codes, limits2 = guard.table(atoms.numbers)
            for moved in (np.arange(3), np.array([trial % 3])):
                found = np.zeros(3)
                answer = find_close(
                    atoms.positions, moved, codes, limits2, box.lattice, box.inverse, box.periodic, box.reach, found
                )
                assert answer == bool((close & np.isin(i, moved)).any())
                if answer:
                    pair = (i == int(found[0])) & (j == int(found[1]))
                    assert np.isclose(d[pair], found[2]).any()


def test_the_nearest_distance_is_told_by_environments() -> None:
    for atoms in (crystals(1, 0.1, 1)[0], molecule("CH3CH2OH"), Atoms("Cu2", [[0, 0, 0], [0, 0, 4.9999]])):
        x = describe(atoms).x
        assert nearest_distance(x, 5.0) == pytest.approx(
            atoms.get_all_distances(mic=True)[~np.eye(len(atoms), dtype=bool)].min(), abs=1e-6
        )
    assert nearest_distance(describe(Atoms("Cu")).x, 5.0) == np.inf
    close = Atoms("H2", [[0, 0, 0], [0, 0, 0.02]])
    assert nearest_distance(describe(close).x, 5.0) == pytest.approx(0.02, abs=1e-9)


def test_the_volume_stays_between_its_limits(known: Reference, start: Atoms) -> None:
    at = start.get_volume() / 32
    args: dict[str, Any] = {"target": 1e6, "volume_moves": 1.0, "steps": 150, "strain": 0.1, "min_distance": 1.0}
    free = one(start, known, **args)
    assert 0.8 * at - 1e-9 <= free.volume <= 1.25 * at + 1e-9
    assert min(abs(free.volume / at - 0.8), abs(free.volume / at - 1.25)) < 0.03  # a default limit stops it
    narrow = one(start, known, **args, volume=(0.98 * at, 1.03 * at))
    assert 0.98 * at <= narrow.volume <= 1.03 * at
    wide = one(start, known, **args, volume=f"{0.5 * at}:{2 * at}")
    assert not 0.8 * at <= wide.volume <= 1.25 * at
    assert free.atoms.cell.angles() == pytest.approx([90.0] * 3)
    # positions go with the cell
    scaled = free.atoms.get_scaled_positions() - start.get_scaled_positions()
    assert np.abs(scaled - np.rint(scaled)).max() < 1e-7


def test_moves_of_the_shape_keep_the_volume(known: Reference, start: Atoms) -> None:
    frame = one(start, known, 1e6, shear_moves=1.0, steps=100, strain=0.03, min_distance=1.5)
    assert frame.volume == pytest.approx(start.get_volume() / 32, rel=1e-10)
    assert np.abs(frame.atoms.cell.angles() - 90.0).max() > 1.0
    assert frame.strain != 0.03
    assert frame.step_size == 0.1  # no atom was displaced on its own
    assert one(start, known, 1e6, steps=20).atoms.cell.array.tolist() == start.cell.array.tolist()


def test_swaps_exchange_positions(alloys: Reference, alloy: Atoms) -> None:
    frame = one(alloy, alloys, 1e6, swaps=1.0, steps=60, min_distance=1.0, ceiling=1e9)
    np.testing.assert_array_equal(frame.atoms.numbers, alloy.numbers)
    before = {tuple(p) for p in np.round(alloy.positions, 8)}
    assert {tuple(p) for p in frame.atoms.positions} == before
    moved = (frame.atoms.positions != np.round(alloy.positions, 8)).any(axis=1)
    assert moved.sum() >= 2
    place = {tuple(p): z for p, z in zip(np.round(alloy.positions, 8), alloy.numbers, strict=True)}
    other = [place[tuple(p)] for p in frame.atoms.positions]
    assert (np.array(other) != alloy.numbers).sum() >= 2


def test_held_and_unselected_atoms_stay(known: Reference) -> None:
    slab = fcc111("Cu", (3, 3, 3), vacuum=6.0)
    slab.rattle(0.05, seed=1)
    slab.set_constraint(FixAtoms(indices=np.arange(9)))
    # a slab is known after what is like it
    reference = known.copy()
    reference.extend([slab])
    frame = one(slab, reference, 4.0, steps=500, linger=200)
    still = (frame.atoms.positions == np.round(slab.positions, 8)).all(axis=1)
    assert still[:9].all()
    assert not still[9:].any()
    assert frame.atoms.constraints[0].get_indices().tolist() == list(range(9))
    assert np.isnan(frame.volume)  # not periodic along all axes
    free = one(slab, reference, 4.0, select="18:27", steps=500, linger=200)
    still = (free.atoms.positions == np.round(slab.positions, 8)).all(axis=1)
    assert still[:18].all()
    assert not still[18:].any()
    # dH of the selected atoms alone counts
    assert free.reached == pytest.approx(reference.score(free.atoms)[18:].max(), abs=1e-9)
    slab.set_array("mine", np.isin(np.arange(27), [20, 21]))
    mine = one(slab, reference, 4.0, select="mine", steps=300)
    assert (mine.atoms.positions != np.round(slab.positions, 8)).any(axis=1).nonzero()[0].tolist() == [20, 21]
    assert "mine" not in mine.atoms.arrays


def test_only_selected_atoms_count(known: Reference, start: Atoms) -> None:
    odd = start.copy()
    odd.positions[0] += [0.5, 0.3, -0.4]
    assert known.score(odd).argmax() == 0
    assert known.score(odd).max() > 12.0
    far = int(odd.get_distances(0, range(32), mic=True).argmax())
    frame = one(odd, known, 6.0, select=str(far), width=1.0, steps=500, min_distance=1.5)
    assert frame.reached == pytest.approx(known.score(frame.atoms)[far], abs=1e-9)
    assert abs(frame.reached - 6.0) <= 1.0
    assert frame.max > 10.0


def test_molecules_have_no_cell() -> None:
    frames = []
    for seed in range(30):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.03, seed=seed)
        frames.append(atoms)
    reference = Reference.fit(frames, 0.03, species="blocks")
    found = generate(frames[:2], reference, 6.0, 2, 2, rng=0, statistic="mean", apart=0.0)
    assert len(found) == 4
    guard = distances("reference:0.9", reference, frames[0].numbers)
    nearest: dict[int, float] = {}
    for atoms in frames:
        i, d = neighbor_list("id", atoms, 5.0)
        for z in (1, 6, 8):
            nearest[z] = min(nearest.get(z, np.inf), float(d[atoms.numbers[i] == z].min()))
    assert nearest[1] < nearest[6] - 0.05  # O-H is shorter than C-H
    for (a, b), limit in guard.limits.items():
        assert limit == pytest.approx(0.9 * max(nearest[a], nearest[b]), abs=1e-9)
    for frame in found:
        d, z = frame.atoms.get_all_distances(), frame.atoms.numbers
        for a in range(9):
            for b in range(a):
                assert d[a, b] >= guard.limits[min(z[a], z[b]), max(z[a], z[b])]
    with pytest.raises(DataError, match="not periodic along all axes, so that it has no volume"):
        generate(frames[:1], reference, volume=(10, 20))
    with pytest.raises(DataError, match="not periodic along all axes, so that its cell cannot move"):
        generate(frames[:1], reference, shear_moves=0.1)


# --- refusals ---------------------------------------------------------------------------------------------------------

Make = Callable[[Atoms], Any]


def closer(atoms: Atoms) -> Atoms:
    atoms = atoms.copy()
    atoms.positions[3] = atoms.positions[7] + [0.0, 0.0, 1.2]
    return atoms


def with_gold(atoms: Atoms) -> Atoms:
    atoms = atoms.copy()
    atoms.symbols[0] = "Au"
    return atoms


def lost(atoms: Atoms) -> Atoms:
    atoms = atoms.copy()
    atoms.positions[3, 1] = np.nan
    return atoms


def bound(atoms: Atoms) -> Atoms:
    atoms = atoms.copy()
    atoms.set_constraint(FixBondLengths([[0, 1]]))
    return atoms


def held(atoms: Atoms) -> Atoms:
    atoms = atoms.copy()
    atoms.set_constraint(FixAtoms(range(len(atoms))))
    return atoms


@pytest.mark.parametrize(
    ("make", "options", "sentence"),
    [
        (lambda a: [], {}, r"there are no frames to start from"),
        (lambda a: Atoms(), {}, r"frame 0: it has no atoms"),
        (lambda a: "start.xyz", {}, r"frames must be structures"),
        (lambda a: 7, {}, r"frames must be structures"),
        (with_gold, {}, r"frame 0: it holds Au, which the reference \(Cu\) never saw"),
        (lost, {}, r"frame 0: its positions are not all finite"),
        (bound, {}, r"frame 0: its constraint FixBondLengths is not obeyed"),
        (held, {}, r"frame 0: no atom can move"),
        (lambda a: a, {"select": "Ag"}, r"frame 0: no atom can move"),
        (lambda a: [a, closer(a)], {}, r"frame 1: atoms \d+ and \d+ \(Cu-Cu\) are 1\.\d+ Å apart, closer than the"),
        (lambda a: a, {"labels": ["mine"], "min_distance": 2.7}, r"^mine: atoms .* guard of 2.700 Å \(as given\)"),
        (lambda a: a, {"volume": (14, 16)}, r"its volume of 11.\d+ Å3 per atom is outside the limits of 14 to 16"),
        (lambda a: a, {"volume": (14, 12)}, r"the lower limit of volume must be below the upper one"),
        (lambda a: a, {"volume": "14"}, r"volume takes a lower and an upper limit"),
        (lambda a: a, {"volume": 14.0}, r"volume takes a lower and an upper limit"),
        (lambda a: a, {"target": np.nan}, r"target must be finite"),
        (lambda a: a, {"target": np.inf}, r"target must be finite"),
        (lambda a: a, {"width": 0.0}, r"width must be positive"),
        (lambda a: a, {"statistic": "median"}, r"statistic must be one of max, mean, quantile"),
        (lambda a: a, {"quantile": 1.5}, r"quantile is a share"),
        (lambda a: a, {"temperature": -1.0}, r"temperature must not be negative"),
        (lambda a: a, {"steps": 0}, r"steps must be a whole number of at least 1"),
        (lambda a: a, {"linger": -1}, r"linger must be a whole number of at least 0"),
        (lambda a: a, {"burn_in": 0.5}, r"burn_in must be a whole number"),
        (lambda a: a, {"number": 0}, r"number must be a whole number of at least 1"),
        (lambda a: a, {"generations": 0}, r"generations must be a whole number of at least 1"),
        (lambda a: a, {"step_size": -0.1}, r"step_size must be positive"),
        (lambda a: a, {"strain": 0.5}, r"strain must be at most 0.2"),
        (lambda a: a, {"atoms_per_move": 0}, r"atoms_per_move must be a whole number"),
        (lambda a: a, {"acceptance": 2}, r"acceptance is a share"),
        (lambda a: a, {"swaps": -0.1}, r"swaps is a share"),
        (lambda a: a, {"volume_moves": 0.6, "shear_moves": 0.6}, r"must not exceed 1, got 1.2"),
        (lambda a: a, {"swaps": 0.1}, r"swaps need a reference with species blocks or pairs"),
        (lambda a: a, {"volume_moves": 0.1, "select": "0:4"}, r"moves of the cell move all atoms"),
        (lambda a: a, {"ceiling": np.nan}, r"ceiling must be finite"),
        (lambda a: a, {"apart": np.nan}, r"apart must be finite"),
        (lambda a: a, {"rng": -1}, r"rng must be a whole number of at least 0"),
        (lambda a: a, {"rng": 1.5}, r"rng must be a whole number"),
        (lambda a: a, {"min_distance": 0.0}, r"min_distance is a positive number in Å, reference:FACTOR or covalent"),
        (lambda a: a, {"min_distance": "near"}, r"min_distance is a positive number .* got 'near'"),
        (lambda a: a, {"min_distance": "reference:x"}, r"the factor of min_distance reference:FACTOR must be a number"),
        (lambda a: a, {"min_distance": "start:0.9"}, r"min_distance is a positive number"),
        (lambda a: a, {"min_distance": "Cu=2.0"}, r"min_distance for pairs reads A-B=Å"),
        (lambda a: a, {"min_distance": "Cu-Ag=2.0"}, r"min_distance names Ag, which is in none of the starting frames"),
        (lambda a: a, {"min_distance": {}}, r"min_distance names no pair"),
        (lambda a: a, {"jobs": 0}, r"jobs must be a whole number"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_sentence(
    known: Reference, start: Atoms, make: Make, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        generate(make(start), known, **options)
    assert "\n" not in str(caught.value)


def test_swaps_need_two_elements(alloys: Reference, start: Atoms, alloy: Atoms) -> None:
    with pytest.raises(DataError, match="of one element, so that none can be swapped"):
        generate(start, alloys, swaps=0.1, rng=0)
    with pytest.raises(DataError, match="of one element, so that none can be swapped"):
        generate(alloy, alloys, swaps=0.1, select="Ag", rng=0)


def test_a_reference_of_lone_atoms_tells_no_distance() -> None:
    lone = Reference.fit([Atoms("Cu", cell=[20, 20, 20], pbc=True)])
    pair = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]])
    with pytest.raises(DataError, match="no Cu of the reference has a neighbour"):
        generate(pair, lone)
    assert len(generate(pair, lone, 50.0, min_distance=1.5, rng=0, keep_all=True, steps=5)) == 1


# --- real data --------------------------------------------------------------------------------------------------------


def test_new_silicon(data_dir: Path) -> None:
    train = read(data_dir / "mlearn_Si_train.xyz", "::4")
    reference = Reference.fit(train)
    starts = [atoms for atoms in train if atoms.info["config_type"] in ("AIMD-NVT", "Vacancy")][::20]
    before = reference.score_frames(starts)
    assert before.max.max() < 0.5
    found = generate(starts, reference, 20.0, 4, 2, rng=0)
    assert len(found) >= 6
    seen = min(smallest(atoms) for atoms in train)
    for frame in found:
        assert abs(frame.reached - 20.0) <= 2.0
        assert smallest(frame.atoms) >= 0.9 * seen - 1e-9
        assert known_is_far(reference, frame)


def known_is_far(reference: Reference, frame: GeneratedFrame) -> bool:
    return bool(reference.score(frame.atoms).max() >= frame.max - 1e-9)
