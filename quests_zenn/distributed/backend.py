"""Tasks on a Dask cluster: in windows, in order, and again if they are lost with a process."""

from __future__ import annotations

import math
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from quests_zenn._core.checks import DataError
from quests_zenn._core.remote import Task
from quests_zenn.distributed import worker

#: Bundles of tasks that were sent and whose results are not yet passed on, for each thread of the workers.
AHEAD = 4

#: What a bundle should take, seconds: some hundred times what Dask needs to handle one.
BUNDLE = 0.4

#: Largest number of tasks of a bundle, and the bytes of results up to which it grows.
MOST_TASKS, MOST_BYTES = 256, 16_000_000

#: Bytes of what a bundle carries from which on that goes to the workers like pieces, not through the plan of Dask.
LARGE = 1_000_000

#: How often a bundle is lost before it is tried alone on a worker; how often it may end that worker; and how often in
#: a row something may be lost without any bundle that comes back.
LOST, BLAMED, IN_A_ROW = 3, 2, 12

#: Seconds in which results of a bundle must come from the worker that has them, or they count as lost.
FETCHING = 60.0

#: Seconds after which workers are counted again.
COUNT = 5.0

#: Seconds between two looks at whether there is anyone left, while nothing comes back.
LOOK = 1.0

GOES_ON = "the same command goes on where this one stopped"


class Bundle:
    """Consecutive tasks that are sent together."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.future: Any = None
        #: What its tasks carry, where that is much.
        self.carried: Any = None
        #: The only worker that may run it, where it is under suspicion.
        self.worker: str | None = None
        self.lost = self.blamed = 0
        #: Seconds in which its results should be here.
        self.fetching = 5.0

    def __len__(self) -> int:
        return self.last - self.first


class DaskBackend:
    """Runs tasks on a Dask cluster. See `quests_zenn._core.remote.Remote`.

    Parameters
    ----------
    client : distributed.Client
    patience : float
        Seconds for which the cluster may be without a worker, or out of reach, before the run is given up.
    reopen : callable or None
        Makes a new client where the one before has lost its scheduler; may raise OSError.
    reopen_after : float
        Seconds without a worker after which `reopen` is called as well.
    direct : bool
        Whether data go to the workers without a stop at the scheduler; they can be reached from here.

    Attributes
    ----------
    dashboard : str or None
        Where Dask shows what it does.
    """

    name = "dask"

    def __init__(
        self,
        client: Any,
        patience: float = 300.0,
        reopen: Callable[[], Any] | None = None,
        reopen_after: float = math.inf,
        direct: bool = False,
    ) -> None:
        self.client, self.patience = client, patience
        self.dashboard: str | None = None
        self._reopen, self._reopen_after, self._direct = reopen, reopen_after, direct
        self._threads, self._address = 1, "an unknown address"

    @property
    def n_workers(self) -> int:
        """Threads of all workers: tasks that run at the same time."""
        with suppress(Exception):  # out of reach just now: what was known last
            self._threads = self._count_threads() or self._threads
        return self._threads

    @property
    def address(self) -> str:
        """Of the scheduler."""
        scheduler = self.client.scheduler
        if scheduler is not None:  # else it is lost, and has been there
            self._address = str(scheduler.address)
        return self._address

    def map(
        self,
        function: Callable[..., Any],
        pieces: Sequence[Any],
        tasks: Sequence[Task],
        done: Callable[[int], Any] | None = None,
    ) -> Iterator[Any]:
        """Results of all tasks, in their order. See `quests_zenn._core.remote.Remote.map`.

        Raises
        ------
        DataError
            If no worker is left for longer than `patience`, or if a task ends every process that it runs in.
        """
        return _Run(self, function, pieces, tasks, done).results()

    def everywhere(self, function: Callable[[], Any]) -> dict[str, Any]:
        """Call a function without arguments in every worker process; what it returns, by address.

        Raises
        ------
        DataError
            If there is no worker. What the function raises is raised here.
        """
        self.wait_for_workers()
        found = dict(self.client.run(function, on_error="return"))
        for address, answer in list(found.items()):
            if isinstance(answer, OSError):  # of a connection: a worker that ended just now
                del found[address]
            elif isinstance(answer, Exception):
                raise answer
        return found

    # ------------------------------------------------------------------ what a run needs

    def _threads_of(self) -> dict[str, int]:
        """Number of threads of each worker."""
        if self.client.status != "running":
            return {}
        return dict(self.client.sync(self.client.scheduler.ncores, callback_timeout=10))

    def _count_threads(self) -> int:
        return sum(self._threads_of().values())

    def wait_for_workers(self) -> None:
        """Return when there is a worker; make a new connection where the old one is lost.

        Raises
        ------
        DataError
            After `patience` seconds without one.
        """
        started = asked = time.monotonic()
        address = self.address
        pause = 0.05
        while True:
            with suppress(OSError, TimeoutError):
                if found := self._count_threads():
                    self._threads = found
                    return
            now = time.monotonic()
            if now - started > self.patience or (self._reopen is None and self.client.status == "closed"):
                if self.client.status == "running":
                    raise DataError(f"no worker has been left at {address} for {self.patience:g} s; {GOES_ON}")
                raise DataError(f"the scheduler at {address} is lost; {GOES_ON}")
            if self._reopen is not None and (self.client.status == "closed" or now - asked > self._reopen_after):
                with suppress(OSError, TimeoutError):
                    self.client = self._reopen()
                asked = time.monotonic()
            time.sleep(pause)
            pause = min(1.0, 1.5 * pause)


class _Run:
    """One call of `DaskBackend.map`."""

    def __init__(
        self,
        backend: DaskBackend,
        function: Callable[..., Any],
        pieces: Sequence[Any],
        tasks: Sequence[Task],
        done: Callable[[int], Any] | None,
    ) -> None:
        self.backend, self.function, self.tasks, self.done = backend, function, tasks, done
        self.pieces = pieces
        name = uuid.uuid4().hex
        # those that a worker reads by itself are known by what they are, if that can be told, or by their place
        self.names = [_name_of(piece, (name, i)) if hasattr(piece, "load") else None for i, piece in enumerate(pieces)]
        self.scattered: dict[int, Any] = {}
        # the last task that needs each piece
        self.last_use = {i: number for number, task in enumerate(tasks) for i in task.needs} if pieces else {}
        self.next_task = 0
        self.waiting: deque[Bundle] = deque()  # whose results are not yet passed on, in the order of their tasks
        self.again: list[Bundle] = []  # those of them that were lost
        self.in_flight: set[Bundle] = set()
        self.results_of: dict[int, list[Any]] = {}
        self.arrived: queue.SimpleQueue[tuple[Bundle, Any]] = queue.SimpleQueue()
        self.seconds_per_task = 0.0
        self.bytes_per_task = self.carried_per_task = 0.0
        self.losses = 0
        self.counted = time.monotonic()

    def results(self) -> Iterator[Any]:
        """See `DaskBackend.map`."""
        if not self.tasks:
            return
        try:
            self.backend.wait_for_workers()
            while self.waiting or self.next_task < len(self.tasks):
                self._fill()
                first = self.waiting[0]
                if first.first in self.results_of:
                    self.waiting.popleft()
                    for i in [i for i in self.scattered if self.last_use[i] < first.last]:
                        del self.scattered[i]
                    yield from self.results_of.pop(first.first)
                else:
                    self._receive()
        finally:
            self._release()

    # ------------------------------------------------------------------ sending

    def _fill(self) -> None:
        """Send what there is room for."""
        suspects = [bundle for bundle in self.again if bundle.lost >= LOST]
        alone = any(bundle.worker is not None for bundle in self.in_flight)
        if suspects and (alone or not self.in_flight):
            # one on each worker, and nothing else: if the worker is gone, it is known why
            taken = {bundle.worker for bundle in self.in_flight}
            free = [address for address in self._workers() if address not in taken]
            for bundle, address in zip(sorted(suspects, key=_place), free, strict=False):
                self._send(bundle, address)
        if suspects or alone:
            return
        for bundle in sorted(self.again, key=_place):
            self._send(bundle)
        room = AHEAD * self.backend._threads + 1
        while self.next_task < len(self.tasks) and len(self.waiting) < room and not self.again:
            bundle = Bundle(self.next_task, self.next_task + self._bundle_size())
            self.next_task = bundle.last
            self.waiting.append(bundle)
            self._send(bundle)

    def _workers(self) -> list[str]:
        """Addresses of all workers; none where nobody can tell."""
        try:
            return list(self.backend._threads_of())
        except (OSError, TimeoutError):
            return []

    def _bundle_size(self) -> int:
        left = len(self.tasks) - self.next_task
        if not self.seconds_per_task:
            return 1
        size = int(BUNDLE / self.seconds_per_task)
        size = min(size, int(MOST_BYTES / max(1.0, self.bytes_per_task, self.carried_per_task)))
        # the last ones are small, so that nobody waits for long
        fair = math.ceil(left / (2 * self.backend._threads))
        return max(1, min(size, MOST_TASKS, fair, left))

    def _send(self, bundle: Bundle, address: str | None = None) -> None:
        """Send a bundle, to anyone or to one worker; where that fails, it counts as lost."""
        bundle.worker = address
        if bundle in self.again:
            self.again.remove(bundle)
        self.in_flight.add(bundle)
        tasks = self.tasks[bundle.first : bundle.last]
        places = list(dict.fromkeys(i for task in tasks for i in task.needs))
        place_of = {place: i for i, place in enumerate(places)}
        try:
            data = [self.pieces[i] if self.names[i] is not None else self._scatter(i) for i in places]
            calls: Any = [(tuple(place_of[i] for i in task.needs), task.arguments) for task in tasks]
            self.carried_per_task = worker.size_of(calls) / len(tasks)
            if worker.size_of(calls) > LARGE:
                calls = bundle.carried = self._put(calls)
            bundle.future = self.backend.client.submit(
                worker.run_bundle, self.function, worker.installed(), data, [self.names[i] for i in places], calls,
                key=f"{getattr(self.function, '__name__', 'task')}-{uuid.uuid4().hex}", pure=False,
                workers=None if address is None else [address],
            )  # fmt: skip
            bundle.future.add_done_callback(lambda future: self.arrived.put((bundle, future)))
        except Exception as error:
            if not _is_of_connection(error):
                raise
            bundle.future = None
            self.arrived.put((bundle, None))

    def _scatter(self, i: int) -> Any:
        """A piece on the cluster, where it is sent once."""
        if i not in self.scattered:
            self.scattered[i] = self._put(self.pieces[i])
        return self.scattered[i]

    def _put(self, data: Any) -> Any:
        """Data on the cluster."""
        client = self.backend.client
        return client.scatter([worker.Shared(data)], hash=False, direct=self.backend._direct)[0]

    # ------------------------------------------------------------------ receiving

    def _receive(self) -> None:
        """Take in one bundle that is finished, or see that nobody is there any more."""
        try:
            bundle, future = self.arrived.get(timeout=LOOK)
        except queue.Empty:
            self._look()
            return
        if bundle.future is not future:
            return  # of a bundle that was sent again since
        if future is None or future.cancelled():
            self._lost(bundle)
            return
        if future.status == "error":
            self._failed(bundle, future.exception())
            return
        try:
            found, seconds = future.result(timeout=bundle.fetching)
        except Exception:  # it went before it was fetched, or that takes long
            bundle.fetching *= 2.0
            if future.status == "error":
                self._failed(bundle, future.exception())
            elif future.cancelled() or bundle.fetching > FETCHING or self.backend.client.status != "running":
                self._lost(bundle)
            else:  # it is computed again
                future.add_done_callback(lambda future: self.arrived.put((bundle, future)))
            return
        self.losses = 0
        if time.monotonic() - self.counted > COUNT:  # more may have come
            self.counted, _ = time.monotonic(), self.backend.n_workers
        self._measure(found, seconds)
        future.release()
        bundle.future = bundle.carried = None
        self.in_flight.discard(bundle)
        self.results_of[bundle.first] = worker.aligned(found)
        if self.done is not None:
            for number in range(bundle.first, bundle.last):
                self.done(number)

    def _look(self) -> None:
        """Nothing came back for a while: is there anyone?"""
        there = self._workers() if self.backend.client.status == "running" else []
        if not there:
            self.backend.wait_for_workers()
        for bundle in list(self.in_flight):  # nobody else may run them
            if bundle.worker is not None and there and bundle.worker not in there and bundle in self.in_flight:
                self._lost(bundle)

    def _measure(self, found: list[Any], seconds: float) -> None:
        """What a task takes and returns, from the last ones."""
        old = 0.7 if self.seconds_per_task else 0.0
        self.seconds_per_task = old * self.seconds_per_task + (1 - old) * max(seconds, 1e-6) / len(found)
        self.bytes_per_task = old * self.bytes_per_task + (1 - old) * worker.size_of(found) / len(found)

    def _lost(self, first: Bundle) -> None:
        """A bundle did not come back: look what else is lost with it; all of it is sent again."""
        time.sleep(min(1.0, 0.05 * 2**self.losses))  # the others come in the meantime
        lost = [first]
        kept = []
        with suppress(queue.Empty):
            while True:
                bundle, future = self.arrived.get_nowait()
                if bundle.future is not future:
                    continue
                if future is not None and not future.cancelled():
                    kept.append((bundle, future))
                elif bundle not in lost:
                    lost.append(bundle)
        for item in kept:
            self.arrived.put(item)
        self.losses += 1
        self.backend.wait_for_workers()
        there = self._workers()
        for bundle in lost:
            bundle.lost += 1
            bundle.fetching = 5.0
            if bundle.worker is not None and bundle.worker not in there:
                bundle.blamed += 1
            if bundle.future is not None:
                bundle.future.release()
            bundle.future = bundle.carried = None
            self.in_flight.discard(bundle)
            self.again.append(bundle)
        if self.losses > IN_A_ROW or any(bundle.blamed >= BLAMED for bundle in lost):
            raise DataError(f"{_KILLED}; {GOES_ON}")
        self._forget_lost_pieces()

    def _forget_lost_pieces(self) -> None:
        """Pieces that no worker holds any more are sent again when they are needed."""
        client = self.backend.client
        if any(future.client is not client for future in self.scattered.values()):
            self.scattered.clear()  # of a connection that is lost
            return
        self.scattered = {i: future for i, future in self.scattered.items() if future.status == "finished"}
        if not self.scattered:
            return
        holders: dict[str, Any] = {}
        with suppress(OSError, TimeoutError, CancelledError):  # lost too: all of them are sent again
            holders = client.who_has(list(self.scattered.values()))
        self.scattered = {i: future for i, future in self.scattered.items() if holders.get(future.key)}

    def _failed(self, bundle: Bundle, error: Exception) -> None:
        """An error of the function is raised as it was; what Dask takes for one is looked at."""
        from distributed.scheduler import KilledWorker, NoWorkerError

        if isinstance(error, KilledWorker):  # or it stood beside one that kills
            bundle.lost = LOST
            self._lost(bundle)
        elif isinstance(error, NoWorkerError):
            raise DataError(f"no worker of {self.backend.address} takes tasks; {GOES_ON}") from error
        else:
            raise error

    def _release(self) -> None:
        """Nothing of this run stays on the cluster."""
        futures = [bundle.future for bundle in self.in_flight if bundle.future is not None]
        self.waiting.clear()
        self.in_flight.clear()
        self.results_of.clear()
        if futures and self.backend.client.status == "running":
            with suppress(Exception):
                self.backend.client.cancel(futures, force=True)
        self.scattered.clear()


_KILLED = (
    "the same task has ended one worker process after the other, most likely because their memory does not suffice; "
    "give them more, or start fewer"
)


def _place(bundle: Bundle) -> int:
    return bundle.first


def _name_of(piece: Any, otherwise: tuple[str, int]) -> Any:
    """A name by which a piece is known again in a later call."""
    try:
        hash(piece)
    except TypeError:
        return otherwise
    # objects that are equal only to themselves would not be found again, and others might be taken for them
    return piece if type(piece).__eq__ is not object.__eq__ else otherwise


def _is_of_connection(error: Exception) -> bool:
    """Whether an error of sending says that there is nobody to send to; a client that is closed has several words."""
    told = isinstance(error, RuntimeError) and "closed" in str(error).lower()
    return told or isinstance(error, OSError | TimeoutError) or type(error).__name__ == "ClosedClientError"
