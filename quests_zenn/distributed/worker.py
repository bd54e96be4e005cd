"""What runs in the processes of a cluster."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from quests_zenn._core.checks import DataError
from quests_zenn._core.remote import versions

#: What is kept of pieces that a worker has read by itself, where its memory has no limit: bytes.
KEPT = 512_000_000

#: Share of the memory of a worker, where that has a limit.
SHARE = 0.25

#: Packages whose versions decide on bits, or on whether processes understand each other.
PACKAGES = ("quests_zenn", "python", "numpy", "numba", "llvmlite")


def size_of(data: Any) -> int:
    """Bytes, about."""
    from dask.sizeof import sizeof

    return int(sizeof(data))


class Loaded:
    """Pieces that were read last, up to some bytes; never less than those in use."""

    def __init__(self) -> None:
        self._data: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, piece: Any, most: int) -> Any:
        """The data of a piece, which is read if it is not here."""
        with self._lock:  # threads that want the same piece wait for one that reads it
            if key in self._data:
                self._data.move_to_end(key)
                return self._data[key][0]
            data = piece.load()
            size = size_of(data)
            while self._data and sum(kept for _, kept in self._data.values()) + size > most:
                self._data.popitem(last=False)
            if size <= most:
                self._data[key] = data, size
            return data


def aligned(data: Any) -> Any:
    """The same data, with arrays that begin where the processor wants them.

    What comes over a connection begins anywhere. Compiled kernels are others for such arrays, and sums of NumPy have
    other last bits.
    """
    if isinstance(data, np.ndarray):
        return data if data.flags.aligned and data.ctypes.data % 16 == 0 else data.copy(order="K")
    if isinstance(data, list):
        return [aligned(item) for item in data]
    if type(data) is tuple:
        return tuple(aligned(item) for item in data)
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(aligned(item) for item in data))
    if type(data) is dict:
        return {name: aligned(item) for name, item in data.items()}
    if type(data).__module__.startswith("quests_zenn.") and hasattr(data, "__dict__"):
        for name, old in list(vars(data).items()):
            new = aligned(old)
            if new is not old:
                object.__setattr__(data, name, new)  # nobody else has seen it yet, frozen or not
    return data


class Shared:
    """A piece on its way through a cluster; it arrives aligned."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self.data,)

    def __sizeof__(self) -> int:
        return size_of(self.data)


def _arrived(data: Any) -> Shared:
    return Shared(aligned(data))


#: One for each process of a cluster; tasks of one process share what they read.
_loaded = Loaded()


def run_bundle(
    function: Callable[..., Any],
    made_by: Mapping[str, str],
    pieces: Sequence[Any],
    names: Sequence[Hashable | None],
    tasks: Any,
) -> tuple[list[Any], float]:
    """Results of some tasks, one after the other, and the seconds they took.

    Parameters
    ----------
    function : callable
    made_by : mapping
        Versions of the process that asks.
    pieces : sequence
        `Shared` data, or objects that know where to read them.
    names : sequence
        For each piece that is read here, a name for it; None for data.
    tasks : list of (places in `pieces`, further arguments), or that list as `Shared`
    """
    here = installed()
    if made_by != here:  # it may have come after the others were asked
        other = next(name for name in here if made_by.get(name) != here[name])
        raise DataError(
            f"a worker has {other} {here[other]}, and the command {made_by.get(other)}; results are the same only with "
            "the same versions"
        )
    started = time.perf_counter()
    most = _most_kept()
    results = []
    for needs, arguments in tasks.data if isinstance(tasks, Shared) else tasks:
        data = {}
        for i in set(needs):
            name = names[i]
            data[i] = pieces[i].data if name is None else _loaded.get(name, pieces[i], most)
        results.append(function(*[data[i] for i in needs], *aligned(arguments)))
    return results, time.perf_counter() - started


def _most_kept() -> int:
    """Bytes of pieces that this worker may keep."""
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:  # called outside of a cluster
        return KEPT
    limit = getattr(worker.memory_manager, "memory_limit", None)
    return int(SHARE * limit) if limit else KEPT


def installed() -> dict[str, str]:
    """Versions in this process."""
    return dict(versions())


def processor() -> str:
    """The kind of processor that kernels are compiled for here, by the name that LLVM gives it."""
    from llvmlite import binding

    return str(binding.get_host_cpu_name())
