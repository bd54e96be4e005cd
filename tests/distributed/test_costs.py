"""The cost model: answers known by thought alone, and rates that are found again."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from quests_zenn.distributed import costs
from quests_zenn.distributed.costs import Machine, Plan, Stage, Work, fit, fit_exponent, limits, predict, rests_on

#: All is free but the sums.
IDEAL = Machine(
    reading={"xyz": 0.0, "store": 0.0}, describing=0.0, writing=0.0, packing=0.0, pair=1e-9, cross=1e-9, task=0.0,
    collecting=0.0, network=0.0, worker=0.0, disk=0.0,
)  # fmt: skip

#: Exact sums of many squares: a thousand seconds of one thread on the ideal machine.
MANY = Work(n=1_414_214, width=63, runs=1024)

SAMPLED = Work(
    n=10_000_000, width=63, itemsize=4, packed_itemsize=4, kind="store", store=True,
    references=(370, 11_111, 333_333, 10_000_000), asked=(50_000, 1_000, 1_000, 1_000), turns=(1, 1, 1, 1),
)  # fmt: skip


def stage(plan: Plan, name: str) -> Stage:
    (found,) = (s for s in plan.stages if s.name == name)
    return found


def test_twice_as_many_environments_have_four_times_the_pairs() -> None:
    once = stage(predict(Machine(), Work(n=100_000, width=63), 0), "sums").seconds
    twice = stage(predict(Machine(), Work(n=200_000, width=63), 0), "sums").seconds
    assert twice == pytest.approx(4.0 * once)
    assert once == pytest.approx(0.5e10 * Machine().pair)


def test_twice_as_many_environments_have_twice_the_descriptors() -> None:
    work = Work(n=100_000, width=63, input_bytes=1e7)
    once, twice = (predict(Machine(), replace(work, n=m * work.n, input_bytes=m * work.input_bytes), 0) for m in (1, 2))
    for name in ("reading", "descriptors"):
        assert stage(twice, name).seconds == pytest.approx(2.0 * stage(once, name).seconds)


def test_without_communication_scaling_is_perfect() -> None:
    alone = predict(IDEAL, MANY, 1).seconds
    assert alone == pytest.approx(1000.0, rel=1e-5)
    for workers in (2, 16, 64):
        found = predict(IDEAL, MANY, workers)
        assert found.seconds * workers == pytest.approx(alone, rel=1e-2)
        assert found.seconds * workers >= alone * (1.0 - 1e-12)
        assert found.communication == 0.0
    # threads of a worker are as good as workers
    assert predict(IDEAL, MANY, 8, threads=4).seconds == predict(IDEAL, MANY, 32).seconds
    # and those of the client as long as there are no workers
    assert predict(IDEAL, MANY, 0, client_threads=4).seconds == pytest.approx(alone / 4)


def test_workers_without_a_task_do_not_help() -> None:
    work = replace(MANY, runs=4)  # ten squares
    times = [predict(IDEAL, work, workers).seconds for workers in (1, 5, 6, 9, 10, 1000)]
    assert times == pytest.approx([1000.0, 200.0, 200.0, 200.0, 100.0, 100.0], rel=1e-5)


def test_bytes_of_exact_sums() -> None:
    work = Work(n=30_000, width=61, packed_itemsize=4, n_bandwidths=3, runs=2)
    packed = 30_000 * 64 * 4
    plan = predict(Machine(), work, 1)
    assert stage(plan, "sums").bytes_moved == 2 * packed  # sent by the client, and received
    assert stage(plan, "sums").tasks == 3
    # three squares: two of a run with itself, one of two runs, for the rows of both; space for both in each
    assert stage(plan, "collecting").bytes_moved == 3 * 8 * 30_000 * 4
    assert plan.bytes_moved == sum(s.bytes_moved for s in plan.stages)
    assert plan.seconds == pytest.approx(plan.parallel + plan.communication + plan.serial)
    # a worker of very many holds two runs at most
    many = predict(Machine(), replace(MANY, kind="store"), 524_800)
    assert many.worker_memory == pytest.approx(costs.PROCESS_BYTES + MANY.packed_bytes * 2 / 1024, rel=1e-3)
    assert predict(Machine(), MANY, 1).worker_memory == pytest.approx(costs.PROCESS_BYTES + MANY.packed_bytes, rel=1e-3)


def test_small_sets_stay_where_they_are() -> None:
    plan = predict(Machine(), Work(n=1000, width=63, elsewhere=False), 8, client_threads=2)
    assert [s.name for s in plan.stages] == ["reading", "descriptors", "preparing", "sums"]
    assert plan.bytes_moved == 0.0
    assert plan.seconds == predict(Machine(), Work(n=1000, width=63), 0, client_threads=2).seconds


def test_samples_of_more_than_a_piece_go_elsewhere() -> None:
    plan = predict(Machine(), SAMPLED, 4)
    assert [s.name for s in plan.stages] == ["preparing", "sums", "collecting"]
    # the third sample has two pieces, and is asked on its own level and on the next; the whole has 39
    assert stage(plan, "sums").tasks == 2 + 2 + 39
    assert stage(plan, "sums").bytes_read == SAMPLED.n * 63 * 4
    # samples are taken from all rows, and so are the environments that are asked
    assert stage(plan, "preparing").bytes_read == (3 + 4) * SAMPLED.n * 63 * 4
    small = replace(SAMPLED, n=200_000, references=(6_666, 200_000), asked=(50_000, 1_000), turns=(1, 1))
    assert sum(s.tasks for s in predict(Machine(), small, 4).stages) == 0
    assert small.pairs == 50_000 * 6_666 + 1_000 * 206_666


def test_samples_are_linear_in_the_set() -> None:
    work = replace(SAMPLED, references=(10_000_000,), asked=(1_000,), turns=(1,))
    ten = replace(work, n=100_000_000, references=(100_000_000,))
    once, more = predict(IDEAL, work, 1).seconds, predict(IDEAL, ten, 1).seconds
    assert once == pytest.approx(10.0)
    assert more == pytest.approx(100.0)


def test_every_turn_is_a_pass() -> None:
    twice = replace(SAMPLED, turns=(1, 1, 1, 2))
    once, more = (stage(predict(Machine(), work, 4), "sums") for work in (SAMPLED, twice))
    assert more.bytes_read == 2 * once.bytes_read
    # those of the last level, and of the one before, which it asks too
    assert more.tasks - once.tasks == 39 + 2


def test_a_store_keeps_memory_small() -> None:
    ten = replace(SAMPLED, n=100_000_000, references=(*SAMPLED.references[:-1], 100_000_000))
    small, large = (predict(Machine(), work, 4) for work in (SAMPLED, ten))
    assert large.worker_memory == small.worker_memory
    assert large.client_memory - small.client_memory == pytest.approx((12 + 4 * 5) * 90_000_000)
    in_memory = replace(SAMPLED, kind="xyz", store=False)
    assert predict(Machine(), in_memory, 4).client_memory > small.client_memory + SAMPLED.matrix_bytes
    # pieces that a worker keeps are a part of its memory
    less = predict(Machine(), SAMPLED, 4, memory=1e9).worker_memory
    assert small.worker_memory - less == pytest.approx(costs.KEPT - costs.SHARE * 1e9)


def test_a_store_that_is_written_is_written_once() -> None:
    work = Work(n=1000, width=63, store=True, described=2000)
    plan = predict(Machine(), work, 0)
    assert stage(plan, "writing").bytes_written == 2000 * 63 * 8
    assert stage(plan, "reading the store").bytes_read == 1000 * 63 * 8


def test_a_shared_disk_is_a_limit() -> None:
    slow = replace(IDEAL, disk=1e-6)
    assert predict(slow, SAMPLED, 4).seconds == pytest.approx(predict(slow, SAMPLED, 39).seconds, rel=0.1)
    assert predict(slow, SAMPLED, 39).seconds > SAMPLED.n * 63 * 4 * 1e-6


def test_files_that_can_be_cut_are_read_and_described_by_workers() -> None:
    work = Work(n=100 * costs.RANGE, width=63, input_bytes=1e6, kind="lammpstrj")
    machine = replace(IDEAL, describing=1e-5, reading={"lammpstrj": 1e-6, "other": 1e-6})
    alone = predict(machine, work, 0)
    shared = predict(machine, work, 50)
    for name in ("reading", "descriptors"):
        assert stage(shared, name).seconds == pytest.approx(stage(alone, name).seconds / 50, rel=1e-6)
    assert stage(shared, "descriptors").bytes_moved == work.matrix_bytes
    # others are read here
    whole = predict(machine, replace(work, kind="other"), 50)
    assert stage(whole, "reading").seconds == stage(alone, "reading").seconds
    # and rows that come back take the time of the client
    slow = predict(replace(machine, collecting=1e-9), work, 50)
    extra = stage(slow, "descriptors").seconds - stage(shared, "descriptors").seconds
    assert extra == pytest.approx(1e-9 * work.matrix_bytes)


def test_a_worker_of_one_square_fetches_two_runs() -> None:
    plan = predict(Machine(), replace(MANY, kind="store"), MANY.runs * (MANY.runs + 1) // 2)
    packed = MANY.packed_bytes
    fetched = plan.workers * packed * 2 / MANY.runs
    assert stage(plan, "sums").bytes_moved == pytest.approx(packed + fetched, rel=1e-9)


# --- where it ends ----------------------------------------------------------------------------------------------------


def test_serial_work_takes_half_where_the_sums_are_as_short() -> None:
    work = replace(MANY, input_bytes=10.0, kind="other")  # a file that workers cannot cut
    found = limits(replace(IDEAL, reading={"other": 1.0}), work)
    # 10 s + 1000 s / W
    assert found.dominated_from == pytest.approx(100, abs=1)
    assert found.dominated_by == "reading"
    assert found.communication_from is None
    assert 1900 < found.best < 2200
    assert found.seconds == pytest.approx(10.5, rel=0.01)


def test_communication_takes_half_where_workers_cost_as_much_as_they_do() -> None:
    found = limits(replace(IDEAL, worker=0.1), MANY)
    # 1000 s / W + 0.1 s W
    assert found.dominated_from == pytest.approx(100, abs=2)
    assert found.communication_from == pytest.approx(100, abs=2)
    assert found.dominated_by == "collecting"
    assert 70 < found.best <= 100


def test_on_the_ideal_machine_only_tasks_are_too_few() -> None:
    found = limits(IDEAL, replace(MANY, runs=4))
    assert found.best == 10
    # ten tasks on 20 workers: half of the time they wait
    assert found.dominated_from == 20
    assert found.dominated_by == "waiting for the last tasks"


def test_limits_of_what_is_not_shared() -> None:
    found = limits(Machine(), Work(n=1000, width=63, elsewhere=False))
    assert (found.dominated_from, found.best) == (1, 1)


def test_bundles_are_as_the_backend_makes_them() -> None:
    assert costs.n_bundles(1000, 1000.0, 0.0, 4) == 1000  # a second each: alone
    assert costs.n_bundles(1000, 100.0, 0.0, 4) == 250  # a tenth: four of them
    assert costs.n_bundles(1000, 100.0, 1000 * 8e6, 4) == 500  # of many bytes: two
    assert costs.n_bundles(1000, 0.1, 0.0, 4) == 8  # as many as make it fair
    assert costs.n_bundles(10**6, 0.1, 0.0, 4) == pytest.approx(10**6 / 256)  # and not more than the most


# --- rates from runs --------------------------------------------------------------------------------------------------

TRUE = Machine(
    reading={"xyz": 4e-8}, describing=3e-6, writing=2e-9, packing=5e-8, pair=7e-10, cross=9e-10, task=6e-3,
    collecting=5e-9, worker=0.02, network=2e-9,
)  # fmt: skip


def made_up_runs() -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = []
    for n in (10_000, 100_000, 1_000_000):
        runs += [
            {"stage": "reading", "bytes": 70.0 * n, "format": "xyz", "seconds": 70 * n * 4e-8},
            {"stage": "descriptors", "n": n, "threads": 2, "seconds": 1.5e-6 * n},
            {"stage": "writing", "bytes": 504.0 * n, "seconds": 504 * n * 2e-9},
            {"stage": "preparing", "n": n, "seconds": 5e-8 * costs.halvings(n)},
            {"stage": "cross", "pairs": 1e3 * n, "seconds": 1e3 * n * 9e-10},
        ]
        for workers in (0, 1, 2):
            seconds = 0.5 * n**2 * 7e-10 / max(1, workers)
            row: dict[str, Any] = {"stage": "sums", "pairs": 0.5 * n**2, "workers": workers}
            if workers:
                row |= {"tasks": n // 5_000 * workers, "bytes": 50.0 * n**1.2, "moved": 300.0 * n}
                seconds += row["tasks"] * 6e-3 + row["bytes"] * 5e-9 + row["moved"] * 2e-9 + 0.02 * workers
            runs.append({**row, "seconds": seconds})
    return runs


def test_rates_are_found_again() -> None:
    found = fit(made_up_runs())
    for name in ("describing", "writing", "packing", "pair", "cross", "task", "collecting", "worker", "network"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=1e-6), name
    assert found.reading["xyz"] == pytest.approx(4e-8)
    assert found.reading["store"] == Machine().reading["store"]
    assert found.most_workers == 2
    assert found.basis["pair"] == "fitted to 24 measured runs with up to 2 workers"


def test_rates_are_never_negative_and_others_stay() -> None:
    rng = np.random.default_rng(1)
    runs = [run | {"seconds": run["seconds"] * rng.uniform(0.3, 3.0)} for run in made_up_runs()]
    found = fit(runs)
    assert all(getattr(found, name) >= 0.0 for name in costs.RATES if name != "reading")
    start = Machine(writing=1.0)
    some = fit([{"stage": "descriptors", "n": 10, "seconds": 20.0}], start)
    assert some == replace(start, describing=2.0, basis={"describing": "fitted to 1 measured runs of one process"})


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "there are no runs to fit"),
        ([{"stage": "sums", "seconds": 1.0}], "a run of the stage 'sums' needs 'pairs', a number above 0"),
        ([{"stage": "descriptors", "n": 5}], "the seconds of a run must be a number, got None"),
        ([{"stage": "sleep", "seconds": 1.0}], "the stage of a run must be one of"),
    ],
)
def test_runs_that_say_nothing(runs: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(runs)


def test_exponents() -> None:
    n = np.array([1e4, 1e5, 1e6])
    assert fit_exponent(n, 3e-9 * n**2) == pytest.approx((2.0, 0.0), abs=1e-12)
    exponent, error = fit_exponent(n[:2], n[:2])
    assert exponent == pytest.approx(1.0)
    assert math.isnan(error)
    # four points, one decade apart, off the line by +-1, -+1: known in closed form
    x = np.array([0.0, 1.0, 2.0, 3.0])
    exponent, error = fit_exponent(np.exp(x), np.exp(2 * x + [1, -1, -1, 1]))
    assert exponent == pytest.approx(2.0)
    assert error == pytest.approx(math.sqrt(4 / 2 / 5))


@pytest.mark.parametrize(
    ("n", "seconds", "message"),
    [
        ([1, 2], [1.0], "one number for each run"),
        ([1, 2], [1.0, 0.0], "must be positive and finite"),
        ([2, 2], [1.0, 2.0], "at least two sizes"),
    ],
)
def test_exponents_need_runs(n: list[int], seconds: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_exponent(n, seconds)


def test_measured_rates_say_so() -> None:
    found = Machine().measured("measured here", pair=1e-9, reading={"store": 2e-9})
    assert found.pair == 1e-9
    assert found.reading == {**Machine().reading, "store": 2e-9}
    assert found.reading_of("never seen") == found.reading["other"]
    assert rests_on(found, 0)[-1] == "reading, pair: measured here" or "reading, pair: measured here" in rests_on(
        found, 0
    )
    with pytest.raises(ValueError, match="pair must be positive and finite"):
        Machine().measured("nonsense", pair=-1.0)
    with pytest.raises(ValueError, match="a rate must be one of"):
        Machine().measured("nonsense", pears=1.0)


def test_what_a_forecast_rests_on() -> None:
    assert not any("forecast" in line for line in rests_on(Machine(), 0))
    assert "nobody has measured what other processes cost" in rests_on(Machine(), 2)[-1]
    two = replace(Machine(), most_workers=2)
    assert not any("forecast" in line for line in rests_on(two, 2))
    assert rests_on(two, 1000)[-1] == (
        "costs of other processes were measured with at most 2; 1,000 is a forecast"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": -1}, "workers must be"),
        ({"workers": 1, "threads": 0}, "threads must be"),
        ({"workers": 1, "client_threads": 0}, "client_threads must be"),
    ],
)
def test_numbers_of_workers_are_judged(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict(Machine(), MANY, **arguments)


def test_work_is_judged() -> None:
    with pytest.raises(ValueError, match="n must be"):
        Work(n=0, width=63)
    with pytest.raises(ValueError, match="one number for each level"):
        Work(n=10, width=63, references=(10,))


def test_a_plan_needs_no_dask() -> None:
    code = "import sys, quests_zenn.distributed.costs; print({'dask', 'distributed', 'zarr'} & {*sys.modules})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "set()\n"
