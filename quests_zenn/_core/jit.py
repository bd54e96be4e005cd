"""The decorators for compiled inner functions: flags are chosen once, here.

Numba writes the flags of a kernel onto every instruction compiled into it, explicit vector code included.
``nnan`` and ``ninf`` are left out on purpose: infinities carry meaning in our kernels (a padded neighbour,
an empty maximum), and NaN must survive to be reported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numba as nb

from quests_zenn._core.locks import locked


class _OneAtATime:
    """The files in which Numba keeps compiled code of one function, for many processes.

    Numba numbers the code of each combination of types. Two processes that save at once take the same number, and what
    is loaded later may be code for the types of the other; who loads while another saves may get what was there before.
    """

    def __init__(self, files: Any, folder: str) -> None:
        self._files, self._lock = files, os.path.join(folder, "lock")

    def save(self, key: Any, data: Any) -> None:
        with locked(self._lock):
            self._files.save(key, data)

    def load(self, key: Any) -> Any:
        with locked(self._lock):
            return self._files.load(key)

    def flush(self) -> None:
        with locked(self._lock):
            self._files.flush()


def _compiled(function: Callable[..., Any], **flags: Any) -> Any:
    """The function, compiled when it is called, cached, and free of the interpreter lock."""
    dispatcher = nb.njit(cache=True, nogil=True, error_model="numpy", **flags)(function)
    cache: Any = getattr(dispatcher, "_cache", None)  # none in plain Python
    if hasattr(cache, "_cache_file"):
        cache._cache_file = _OneAtATime(cache._cache_file, cache.cache_path)
    return dispatcher


def kernel(function: Callable[..., Any]) -> Any:
    """Compiled, cached, and free of the interpreter lock, so that a plain pool of threads scales."""
    return _compiled(function, fastmath={"nsz", "arcp", "contract", "reassoc"})


def strict_kernel(function: Callable[..., Any]) -> Any:
    """The same without value-changing flags: for geometry and searches, whose comparisons must mean what they say."""
    return _compiled(function)


def inlined(function: Callable[..., Any]) -> Any:
    """The same, part of whoever calls it.

    For small functions of many arrays: a real call counts references to each of them, which takes longer than the sums.
    """
    return _compiled(function, inline="always")


#: Whether kernels run as plain Python (NUMBA_DISABLE_JIT=1), for stepping through them and measuring coverage.
PLAIN = bool(vars(nb.config).get("DISABLE_JIT", 0))
