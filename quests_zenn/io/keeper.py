"""Finished parts of long work, kept in the cache of the user: a run that was killed goes on from there."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from quests_zenn._core.checks import DataError, DataWarning
from quests_zenn._core.locks import still_named, try_to_lock
from quests_zenn._core.remote import State
from quests_zenn.io.arrays import read_arrays, write_arrays
from quests_zenn.io.outputs import user_cache

#: Seconds between two states, and the largest share of the time that writing them may take.
INTERVAL, SHARE = 5.0, 0.02

#: Days after which what nobody came back for is removed.
DAYS = 30.0

_FORMAT = "quests_zenn run 1"
_STATE, _LOCK = "state.qarrays", "lock"


def default_folder() -> Path:
    """Where runs are kept: ``$XDG_CACHE_HOME/quests_zenn/runs``, or the same in ``~/.cache``.

    Raises
    ------
    DataError
        If there is no home.
    """
    try:
        return user_cache("runs")
    except RuntimeError:
        raise DataError("there is no home folder to keep unfinished work in") from None


class DiskKeeper:
    """Keeps states on disk. See `quests_zenn._core.remote.Keeper`. Use as a context manager.

    Nothing that goes wrong here ends a run: it goes on, and nothing is kept of it. Of two processes that do the same,
    one keeps its states.

    Parameters
    ----------
    folder : path or None
        None for the cache of the user.
    on_resume : callable or None
        Called once, with the folder, when a state of an earlier run is found.
    interval : float
        Seconds between two states of a key.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        on_resume: Callable[[Path], Any] | None = None,
        interval: float = INTERVAL,
    ) -> None:
        self._given, self._on_resume, self._interval = folder, on_resume, interval
        self._folder: Path | None = None
        self._locks: dict[str, int] = {}
        self._without: set[str] = set()  # keys that another process keeps, or that cannot be written
        self._next: dict[str, float] = {}
        self._told = self._resumed = False

    def __enter__(self) -> DiskKeeper:
        return self

    def __exit__(self, kind: Any, *rest: object) -> None:
        self.close(done=kind is None)

    @property
    def holds_something(self) -> bool:
        """Whether another run could go on from what is kept."""
        return any((self._path(key) / _STATE).exists() for key in self._locks)

    # ------------------------------------------------------------------ the three of a keeper

    def load(self, key: str) -> State | None:
        """What an earlier run has kept under this key; None where there is nothing, or it is damaged, or in use."""
        self._next[key] = time.monotonic() + self._interval
        try:
            path = self._path(key) / _STATE
            if not path.is_file() or not self._lock(key):
                return None
            meta, arrays = read_arrays(path)
        except (DataError, OSError):
            return None
        if meta.get("format") != _FORMAT or meta.get("key") != key:
            return None
        if not self._resumed and self._on_resume is not None:
            self._on_resume(path.parent)
        self._resumed = True
        return arrays

    def save(self, key: str, state: Callable[[], State], now: bool = False) -> None:
        """Keep a state in place of the one before, if that is old enough or `now`."""
        started = time.monotonic()
        if key in self._without or not (now or started >= self._next.get(key, -np.inf)):
            return
        try:
            if self._lock(key):
                write_arrays(self._path(key) / _STATE, {"format": _FORMAT, "key": key}, state(), overwrite=True)
        except (DataError, OSError) as error:
            self._without.add(key)
            if not self._told:
                what = " ".join(str(error).split())
                warnings.warn(f"the run could not go on after an interruption: {what}", DataWarning, stacklevel=2)
            self._told = True
        ended = time.monotonic()
        self._next[key] = ended + max(self._interval, (ended - started) / SHARE)

    def drop(self, key: str) -> None:
        """Forget what is kept under a key, unless another process keeps it."""
        if key in self._locks:
            shutil.rmtree(self._path(key), ignore_errors=True)
            self._unlock(key)

    def close(self, done: bool = False) -> None:
        """Give back all keys; where the work is `done`, what was kept of it is removed."""
        for key in list(self._locks):
            if done:
                self.drop(key)
            else:
                self._unlock(key)

    # ------------------------------------------------------------------ folders and locks

    def _path(self, key: str) -> Path:
        """Folder of a key."""
        if not key.isalnum():
            raise ValueError(f"a key must consist of letters and digits, got {key!r}")
        if self._folder is None:
            self._folder = default_folder() if self._given is None else Path(self._given)
            _remove_old(self._folder)
        return self._folder / key

    def _lock(self, key: str) -> bool:
        """Whether this process keeps the key; its folder is made."""
        if key in self._locks or key in self._without:
            return key in self._locks
        folder = self._path(key)
        for _ in range(5):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                stream = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            except FileNotFoundError:  # removed just now by whoever had it
                continue
            if not try_to_lock(stream):
                os.close(stream)
                break
            if still_named(stream, folder / _LOCK):
                self._locks[key] = stream
                return True
            os.close(stream)
        self._without.add(key)
        return False

    def _unlock(self, key: str) -> None:
        os.close(self._locks.pop(key))


def _remove_old(folder: Path) -> None:
    """Remove states that nobody came back for."""
    oldest = time.time() - 86400.0 * DAYS
    try:
        for entry in list(os.scandir(folder)):
            if not entry.is_dir(follow_symlinks=False):
                continue
            lock = Path(entry.path) / _LOCK
            state = Path(entry.path) / _STATE
            written = [path.stat().st_mtime for path in (lock, state) if path.exists()]
            if not written or max(written) > oldest:  # without any: not one of ours
                continue
            stream = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if try_to_lock(stream):
                    shutil.rmtree(entry.path, ignore_errors=True)
            finally:
                os.close(stream)
    except OSError:  # there is no folder, or it is not ours
        return
