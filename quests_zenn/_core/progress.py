"""Progress on stderr, and only on a terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    label: str, unit: str, total: int | None = None, quiet: bool = False
) -> Iterator[Callable[[int], None]]:
    """A function that takes the amount of work done since its last call. Safe to call from any thread.

    Parameters
    ----------
    label, unit : str
    total : int or None
        Amount of work in all, where it is known; the bar then shows what is left.
    quiet : bool
        Show nothing, on a terminal either.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda done: None
        return
    from tqdm import tqdm

    lock = threading.Lock()
    with tqdm(
        total=total, desc=label, unit=unit, unit_scale=True, leave=False, file=sys.stderr, delay=0.5, mininterval=0.2
    ) as bar:

        def advance(done: int) -> None:
            with lock:
                bar.update(done)

        yield advance


@contextmanager
def note_if_slow(message: str, seconds: float, quiet: bool = False) -> Iterator[None]:
    """Say `message` on stderr if the block has not ended after some seconds."""

    def say() -> None:
        print(message, file=sys.stderr, flush=True)

    timer = threading.Timer(seconds, say)
    timer.daemon = True
    if not quiet:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
