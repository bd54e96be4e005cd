"""What a room may ask of whoever runs work elsewhere: other processes, other machines. Knows no Dask.

A function that is run elsewhere is a plain function of a module of this package. It gets pieces of data, which were
shared once, and a few small arguments, and returns arrays. It must be a function of these alone, so that a task that
was lost with its machine can be run again, by anyone, with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt

#: Arrays by name: what is kept of unfinished work.
State = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Task:
    """One call of a function that runs elsewhere: ``function(*[pieces[i] for i in needs], *arguments)``."""

    needs: tuple[int, ...]
    arguments: tuple[Any, ...] = ()


class LazyTasks(Sequence[Task]):
    """Tasks that are made when they are asked for, so that what they carry need not be in memory all at once."""

    def __init__(self, number: int, make: Callable[[int], Task]) -> None:
        self._number, self._make = number, make

    def __len__(self) -> int:
        return self._number

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [self._make(number) for number in range(self._number)[index]]
        return self._make(range(self._number)[index])


class Remote(Protocol):
    """Whoever runs tasks in other processes."""

    #: For documents: ``dask``.
    name: str

    @property
    def n_workers(self) -> int:
        """Tasks that run at the same time."""
        ...

    def map(
        self,
        function: Callable[..., Any],
        pieces: Sequence[Any],
        tasks: Sequence[Task],
        done: Callable[[int], Any] | None = None,
    ) -> Iterator[Any]:
        """Results of all tasks, in their order, whatever the order in which they are finished.

        Each piece is sent once, not with every task. `done` is called with the number of each task when it is
        finished. Tasks that are lost with a process are run again.

        Parameters
        ----------
        function : callable
            A plain function of a module of this package.
        pieces : sequence
            Data that tasks name by their place: arrays, or objects that know where to read them (see `Piece`).
        tasks : sequence of Task
            A few more than there are workers are under way at a time; others are not looked at yet.

        Raises
        ------
        DataError
            If no process is left to run them, or if a task fails by itself.
        """
        ...


class Piece(Protocol):
    """Data that a worker reads by itself, from where it lies."""

    def load(self) -> Any:
        """The data."""
        ...


class Keeper(Protocol):
    """Whoever keeps what is finished, so that a run that was killed goes on from there.

    What was kept is forgotten when the whole run is done, by whoever made the keeper.
    """

    def load(self, key: str) -> State | None:
        """What was kept under a key, if anything; nothing where it is damaged."""
        ...

    def save(self, key: str, state: Callable[[], State], now: bool = False) -> None:
        """Keep a state in place of the one before; not more often than every few seconds, unless `now`."""
        ...


@cache
def versions() -> Mapping[str, str]:
    """Versions in this process that decide on the last bits of results; of Python without the last number."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from quests_zenn import __version__

    found = {"quests_zenn": __version__, "python": ".".join(platform.python_version_tuple()[:2])}
    for name in ("numpy", "numba", "llvmlite"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return MappingProxyType(found)


def fingerprint(*parts: Any) -> str:
    """A key for arrays, numbers and text, and the versions in use: equal ones have equal keys, and no others."""
    import hashlib

    digest = hashlib.blake2b(repr(versions()).encode(), digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            array = np.ascontiguousarray(part)
            digest.update(f"|{array.dtype.str}{array.shape}|".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
        else:
            digest.update(f"|{type(part).__name__}:{part!r}|".encode())
    return digest.hexdigest()
