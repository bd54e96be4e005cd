"""Maps over threads. The kernels run without the interpreter lock, so a plain pool of threads is all it takes.

Work is cut into tasks that do not depend on the number of threads, and every task writes its own part of the
output: results are bit-identical for any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from threading import Lock
from typing import Any, TypeVar

from quests_zenn._core.checks import whole_number
from quests_zenn._core.remote import Keeper, Remote

Task = TypeVar("Task")


def available_cores() -> int:
    """Cores this process may use (its affinity mask, where the system has one)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_jobs(jobs: int | None) -> int:
    """Number of threads: `jobs`, or all available cores for None.

    Raises
    ------
    ValueError
        If `jobs` is not a positive whole number.
    """
    return available_cores() if jobs is None else whole_number(jobs, "jobs", 1)


class Workers:
    """A pool of threads that runs one list of tasks after the other. Use as a context manager.

    Parameters
    ----------
    jobs : int or None
        Number of threads; None for all available cores. One job runs in the calling thread.
    remote : Remote or None
        Who runs the large sums in other processes. What is not made for that runs in the threads.
    keeper : Keeper or None
        Who keeps finished parts of long work.
    """

    def __init__(self, jobs: int | None = None, remote: Remote | None = None, keeper: Keeper | None = None) -> None:
        self.jobs = resolve_jobs(jobs)
        self.remote, self.keeper = remote, keeper
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Workers:
        if self.jobs > 1:  # the calling thread works, too
            self._pool = ThreadPoolExecutor(self.jobs - 1, thread_name_prefix="quests_zenn")
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def run(
        self, work: Callable[[Task], Any], tasks: Sequence[Task], done: Callable[[Task], Any] | None = None
    ) -> None:
        """Call ``work(task)`` for every task and return when all are finished.

        `done` is called, in some thread, after each task. The first exception stops the remaining tasks and is raised
        here; so does an interrupt from the keyboard.
        """
        # threads, the calling one among them, take tasks as they come: waking them takes longer than a small task
        left, lock = iter(range(len(tasks))), Lock()
        errors: list[BaseException] = []

        def take() -> None:
            try:
                while not errors:
                    with lock:
                        place = next(left, None)
                    if place is None:
                        return
                    task = tasks[place]
                    work(task)
                    if done is not None:
                        done(task)
            except BaseException as error:
                errors.append(error)

        helpers = 0 if self._pool is None else min(self.jobs, len(tasks)) - 1
        try:
            futures = [self._pool.submit(take) for _ in range(helpers)]  # type: ignore[union-attr]
            take()
            wait([future for future in futures if not future.cancel()])  # those that never began have nothing left
        except BaseException as error:  # an interrupt in between: others end with the task that they have
            errors.append(error)
            raise
        if errors:
            raise errors[0]


def use_workers(workers: Workers | None, jobs: int | None) -> AbstractContextManager[Workers]:
    """`workers` itself, left open afterwards, or a new pool of `jobs` threads."""
    return nullcontext(workers) if workers is not None else Workers(jobs)


def split_evenly(total: int, largest: int, least_parts: int = 1) -> list[tuple[int, int]]:
    """Cut range(total) into consecutive parts of nearly equal size, none larger than `largest`."""
    if total <= 0:
        return []
    parts = min(total, max(least_parts, -(-total // largest)))
    edges = [total * p // parts for p in range(parts + 1)]
    return list(pairwise(edges))


def split_by_cost(costs: Iterable[int], largest: int) -> list[tuple[int, int]]:
    """Cut items into consecutive parts whose summed cost reaches about `largest` (an item is never divided)."""
    parts: list[tuple[int, int]] = []
    first, total, i = 0, 0, -1
    for i, cost in enumerate(costs):
        total += cost
        if total >= largest:
            parts.append((first, i + 1))
            first, total = i + 1, 0
    if i >= first:
        parts.append((first, i + 1))
    return parts
