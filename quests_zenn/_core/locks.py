"""One process at a time: locks on files, which go with the process that holds them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # a system without it
    fcntl = None  # type: ignore[assignment]


def try_to_lock(stream: int) -> bool:
    """Lock an open file, without waiting.

    Parameters
    ----------
    stream : int
        Its descriptor; the lock ends when this is closed.

    Returns
    -------
    bool
        False if another process holds it. True also where nobody can lock anything: systems and file systems without
        locks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def still_named(stream: int, path: Path) -> bool:
    """Whether an open file is the one of this name: whoever held it before may have removed it."""
    try:
        return os.path.samestat(os.fstat(stream), os.stat(path))
    except OSError:
        return False


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock of a file, which is made if need be, for the time of a block; others wait for it.

    Nobody waits where the file can neither be opened nor made, and on systems and file systems without locks.
    """
    stream = None
    try:
        if fcntl is not None:
            try:
                stream = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                fcntl.flock(stream, fcntl.LOCK_EX)
            except OSError:
                pass
        yield
    finally:
        if stream is not None:
            os.close(stream)
