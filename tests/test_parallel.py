"""Lists of tasks on threads: each done once, errors told, nothing left running."""

from __future__ import annotations

import threading
import time

import pytest

from quests_zenn._core.parallel import Workers


@pytest.mark.parametrize("jobs", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [0, 1, 2, 100])
def test_each_task_is_done_once(jobs: int, n: int) -> None:
    begun: list[int] = []
    told: list[int] = []
    with Workers(jobs) as workers:
        for _ in range(3):
            workers.run(begun.append, range(n), told.append)
    assert sorted(begun) == sorted(told) == sorted(3 * list(range(n)))


def test_so_many_threads_work_at_once_and_the_caller_is_one_of_them() -> None:
    together = threading.Barrier(3, timeout=30.0)
    names: set[str] = set()

    def work(task: int) -> None:
        together.wait()
        names.add(threading.current_thread().name)

    with Workers(3) as workers:
        workers.run(work, range(3))
    assert len(names) == 3
    assert threading.current_thread().name in names


@pytest.mark.parametrize("jobs", [1, 2, 4])
@pytest.mark.parametrize("where", ["work", "done"])
def test_the_first_error_stops_the_rest(jobs: int, where: str) -> None:
    begun: list[int] = []
    at_work = [0]
    lock = threading.Lock()

    def work(task: int) -> None:
        with lock:
            at_work[0] += 1
        begun.append(task)
        time.sleep(0.01)
        with lock:
            at_work[0] -= 1
        if where == "work" and task == 5:
            raise ValueError("five")

    def done(task: int) -> None:
        if where == "done" and task == 5:
            raise ValueError("five")

    with Workers(jobs) as workers:
        with pytest.raises(ValueError, match="five"):
            workers.run(work, range(100), done)
        assert at_work == [0]  # whoever had begun has ended
        assert len(begun) <= 5 + 2 * jobs
        workers.run(begun.append, [-1])  # and the pool goes on
    assert begun[-1] == -1


def test_an_error_of_another_thread_is_raised_here() -> None:
    here = threading.current_thread()
    began = threading.Event()

    def work(task: int) -> None:
        if threading.current_thread() is here:
            assert began.wait(30.0)
        else:
            began.set()
            raise ValueError("elsewhere")

    with Workers(2) as workers, pytest.raises(ValueError, match="elsewhere"):
        workers.run(work, range(50))


def test_tasks_may_run_tasks() -> None:
    sums: list[int] = []
    with Workers(2) as workers:
        workers.run(lambda task: workers.run(sums.append, range(task)), range(5))
    assert sorted(sums) == sorted(n for task in range(5) for n in range(task))
