"""Tasks on a local Dask cluster: results in order and to the last bit, whatever happens to the processes."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dask")
pytest.importorskip("cryptography")

import psutil
import remote_tasks

from quests_zenn import DataError
from quests_zenn._core.parallel import Workers
from quests_zenn._core.remote import LazyTasks, Task
from quests_zenn.compression import DatasetCompressor
from quests_zenn.distributed import DaskBackend, local_cluster
from quests_zenn.distributed import backend as room
from quests_zenn.distributed.worker import Loaded, aligned
from quests_zenn.entropy import delta_entropy, get_all_metrics

pytestmark = pytest.mark.extra

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskBackend]:
    with local_cluster(2, dashboard=False) as backend:
        yield backend


def wait_until(true: object, seconds: float = 20.0) -> None:
    """Wait for something that other processes do."""
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


# --- results ----------------------------------------------------------------------------------------------------------


def test_results_come_in_order(cluster: DaskBackend) -> None:
    assert cluster.name == "dask"
    assert cluster.n_workers == 2
    wanted = list(range(300))
    tasks = [Task((), (n, 0.02 if n % 50 == 0 else 0.0)) for n in wanted]
    done: list[int] = []
    assert list(cluster.map(remote_tasks.slow_number, [], tasks, done.append)) == wanted
    assert sorted(done) == wanted
    assert list(cluster.map(remote_tasks.number, [], [])) == []
    assert list(cluster.map(remote_tasks.number, [], LazyTasks(9, lambda n: Task((), (n,))))) == wanted[:9]


def test_pieces_go_to_the_workers_once(cluster: DaskBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [RNG.normal(size=(50, 50)) for _ in range(4)]
    sent: list[int] = []
    put = room._Run._put
    monkeypatch.setattr(room._Run, "_put", lambda run, data: (sent.append(id(data)), put(run, data))[1])
    tasks = [Task((i % 4, (3 * i) % 4), (0.5 + i,)) for i in range(40)]
    found = cluster.map(remote_tasks.dot, pieces, tasks)
    for task, result in zip(tasks, found, strict=True):
        a, b = (pieces[i] for i in task.needs)
        np.testing.assert_array_equal(result, remote_tasks.dot(a, b, *task.arguments))
    assert sorted(sent) == sorted(map(id, pieces))


def test_arrays_arrive_as_they_are_in_this_process(cluster: DaskBackend) -> None:
    pieces = [np.arange(n, dtype=np.float64) for n in (1001, 70_001)]
    tasks = [Task((i % 2,), (RNG.normal(size=999 + i),)) for i in range(8)]
    tasks.append(Task((0,), (RNG.normal(size=300_001),)))  # large ones take another way
    for task, (piece, argument) in zip(tasks, cluster.map(remote_tasks.layout, pieces, tasks), strict=True):
        np.testing.assert_array_equal(piece, pieces[task.needs[0]])
        np.testing.assert_array_equal(argument, task.arguments[0])
        assert argument.flags.aligned
    wanted = [remote_tasks.total(pieces[task.needs[0]], *task.arguments) for task in tasks]
    assert list(cluster.map(remote_tasks.total, pieces, tasks)) == wanted


def test_arrays_inside_of_others_are_aligned() -> None:
    whole = np.zeros(80_001, np.uint8)
    odd = whole[1:].view(np.float64)
    odd[:] = 1.0
    assert not odd.flags.aligned
    data = DatasetCompressor.from_environments(np.ones((4, 2)), np.array([0, 2, 4]), 0.1, jobs=1)
    data.x = odd  # it came over a connection
    assert aligned(data).x.flags.aligned
    tree = aligned({"a": [odd, (odd, 3)], "b": remote_tasks.Row("x", 2)})
    assert tree["a"][0].flags.aligned
    assert tree["a"][1][0].flags.aligned
    np.testing.assert_array_equal(tree["a"][1][0], odd)
    even = np.zeros(3)
    assert aligned(even) is even


def test_workers_read_what_can_be_read_from_where_it_lies(cluster: DaskBackend, tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "rows.npy")
    rows = RNG.normal(size=(3, 40, 40))
    np.save(path, rows)
    pieces = [remote_tasks.Row(path, i) for i in range(3)]
    tasks = [Task((i % 3, (i + 1) % 3), (1.0,)) for i in range(30)]
    for _ in range(2):
        for task, result in zip(tasks, cluster.map(remote_tasks.dot, pieces, tasks), strict=True):
            np.testing.assert_array_equal(result, remote_tasks.dot(*(rows[i] for i in task.needs), 1.0))
    reads = [file.read_text() for file in tmp_path.glob("rows.npy.*")]
    assert 3 <= len(reads) <= 6
    assert set(reads) == {"x"}  # by each process once


def test_no_more_is_kept_than_fits() -> None:
    loaded, reads = Loaded(), []

    class Piece:
        def __init__(self, n: int) -> None:
            self.n = n

        def load(self) -> np.ndarray:
            reads.append(self.n)
            return np.full(1000, self.n)

    for n in (0, 1, 0, 2, 0, 1, 1):
        assert loaded.get(n, Piece(n), 17_000)[0] == n
    assert reads == [0, 1, 2, 1]
    for _ in range(2):
        assert loaded.get(9, Piece(9), 100)[0] == 9
    assert reads == [0, 1, 2, 1, 9, 9]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sums_have_the_same_bits_everywhere(
    cluster: DaskBackend, monkeypatch: pytest.MonkeyPatch, dtype: type[np.floating]
) -> None:
    from quests_zenn.entropy import _squares

    monkeypatch.setattr(_squares, "LEAST_PAIRS_ELSEWHERE", 1)
    monkeypatch.setattr(_squares, "PAIRS_PER_CALL", 2**18)
    centres = RNG.normal(size=(40, 16))
    x = (centres[RNG.integers(0, 40, 3000)] + 0.02 * RNG.normal(size=(3000, 16))).astype(dtype)
    y = x[:900] + dtype(0.003)
    h = [0.03, 0.1]
    used: list[str] = []
    of_cluster = cluster.map
    monkeypatch.setattr(
        cluster, "map", lambda function, *rest: (used.append(function.__name__), of_cluster(function, *rest))[1]
    )
    for precision in ("float64", "float32"):
        found = []
        for workers in (Workers(1), Workers(2), Workers(1, remote=cluster)):
            with workers:
                metrics = get_all_metrics(x, h, precision=precision, workers=workers)
                found.append((*metrics, delta_entropy(y, x, 0.03, precision=precision, workers=workers)))
        for other in found[1:]:
            for one, two in zip(found[0], other, strict=True):
                np.testing.assert_array_equal(one, two)
    assert len(set(used)) == 2
    assert len(used) == 4


# --- faults -----------------------------------------------------------------------------------------------------------


def test_an_error_of_the_work_is_raised_as_it_is(cluster: DaskBackend, tmp_path: Path) -> None:
    tasks = [Task((), (n, os.fspath(tmp_path))) for n in range(20)]
    with pytest.raises(DataError, match=r"^set 7, frame 3: has no atoms; leave it out$"):
        list(cluster.map(remote_tasks.refuse, [], tasks))
    assert (tmp_path / "tries").read_text() == "x"
    with pytest.raises(MemoryError, match="no"):
        list(cluster.map(remote_tasks.no_memory, [], [Task((), (0,))]))


def test_nothing_of_a_run_that_is_left_stays(cluster: DaskBackend) -> None:
    tasks = [Task((0, 0), (float(n), 0.01)) for n in range(100)]
    results = cluster.map(remote_tasks.slow_dot, [np.eye(100)], tasks)
    next(results)
    results.close()  # type: ignore[attr-defined]
    wait_until(lambda: cluster.client.run_on_scheduler(lambda dask_scheduler: not dask_scheduler.tasks))


def test_workers_that_are_killed_change_no_bit(cluster: DaskBackend) -> None:
    pieces = [RNG.normal(size=(300, 300)) for _ in range(4)]
    tasks = [Task((i % 4, (3 * i) % 4), (0.5 + i, 0.03)) for i in range(60)]
    done: list[int] = []
    results = cluster.map(remote_tasks.slow_dot, pieces, tasks, done.append)
    found = [next(results) for _ in range(5)]
    first, second = cluster.everywhere(os.getpid).values()
    os.kill(first, signal.SIGKILL)
    found += [next(results) for _ in range(15)]
    os.kill(second, signal.SIGKILL)
    found += list(results)
    for task, result in zip(tasks, found, strict=True):
        a, b = (pieces[i] for i in task.needs)
        np.testing.assert_array_equal(result, remote_tasks.slow_dot(a, b, task.arguments[0], 0.0))
    assert sorted(done) == list(range(60))
    wait_until(lambda: cluster.n_workers == 2)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_a_task_that_ends_all_processes_ends_the_run(cluster: DaskBackend, shared: bool) -> None:
    """Whether what it needs is lost with the process, or not."""
    pieces = [np.zeros(100) if shared else remote_tasks.Row(os.devnull, 0)]
    tasks = [Task((0,) if shared else (), ((n,) if shared else (None, n))) for n in range(10)]
    with pytest.raises(DataError, match=r"the same task has ended one worker process after the other, most likely"):
        list(cluster.map(remote_tasks.deadly, pieces, tasks))
    wait_until(lambda: cluster.n_workers == 2)
    assert list(cluster.map(remote_tasks.number, [], [Task((), (n,)) for n in range(10)])) == list(range(10))


@pytest.mark.slow
def test_one_worker_after_the_other_is_killed(cluster: DaskBackend) -> None:
    """Machines that come and go: no task is taken for one that kills."""
    results = cluster.map(remote_tasks.slow_number, [], [Task((), (n, 0.05)) for n in range(400)])
    found = []
    for n in range(400):
        found.append(next(results))
        if n % 50 == 20:
            os.kill(next(iter(cluster.everywhere(os.getpid).values())), signal.SIGKILL)
    assert found == list(range(400))
    wait_until(lambda: cluster.n_workers == 2)


# --- processes --------------------------------------------------------------------------------------------------------


def test_cores_are_not_oversubscribed(cluster: DaskBackend) -> None:
    assert len(cluster.everywhere(os.getpid)) == 2
    for found in cluster.everywhere(remote_tasks.threads).values():
        assert set(found.values()) == {"1"}


def own_processes() -> list[psutil.Process]:
    this = psutil.Process()
    return [this, *this.children(recursive=True)]


def test_only_the_loopback_interface_listens() -> None:
    with local_cluster(1, dashboard=True) as backend:
        listening = [
            connection.laddr
            for each in own_processes()
            for connection in each.net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        assert len(listening) >= 5
        assert {address.ip for address in listening} == {"127.0.0.1"}
        assert backend.dashboard is not None
        assert backend.dashboard.startswith("http://127.0.0.1:")


def test_nobody_else_on_the_machine_gives_work(cluster: DaskBackend) -> None:
    host, port = cluster.address.removeprefix("tls://").split(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def talk() -> bytes:
        with socket.create_connection((host, int(port)), 10) as plain, context.wrap_socket(plain) as secure:
            secure.settimeout(10)
            secure.sendall(bytes(64))
            answer = secure.recv(1)
        if not answer:
            raise ConnectionResetError
        return answer

    with pytest.raises((ssl.SSLError, ConnectionError)):  # whichever comes first
        talk()
