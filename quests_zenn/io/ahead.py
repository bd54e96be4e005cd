"""Reading ahead: the next frames are read in a second thread while those before them are worked on."""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

#: Seconds after which whoever waits looks whether a signal has come.
PATIENCE = 0.2


class _Queue(Generic[Item]):
    """Items on their way from one thread to another, up to a certain weight."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.items: deque[tuple[int, Item]] = deque()
        self.weight = 0
        self.ended = self.stopped = False
        self.error: BaseException | None = None
        self.changed = threading.Condition()

    def put(self, weight: int, item: Item) -> bool:
        """Whether anybody still wants it."""
        with self.changed:
            while self.items and self.weight + weight > self.most and not self.stopped:
                self.changed.wait(PATIENCE)
            if self.stopped:
                return False
            self.items.append((weight, item))
            self.weight += weight
            self.changed.notify_all()
        return True

    def end(self, error: BaseException | None) -> None:
        with self.changed:
            self.ended, self.error = True, error
            self.changed.notify_all()

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.items.clear()
            self.changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self.changed:
                while not self.items and not self.ended:
                    self.changed.wait(PATIENCE)
                if not self.items:
                    break
                weight, item = self.items.popleft()
                self.weight -= weight
                self.changed.notify_all()
            yield item
        if self.error is not None:
            raise self.error


def ahead(items: Iterator[Item], weigh: Callable[[Item], int], most: int) -> Generator[Item, None, None]:
    """The same items, made in another thread, which is ahead by a weight of `most` at the most.

    Whatever the items raise is raised here, in its turn. When this iterator is closed, the thread ends with the item
    that it is making.

    Parameters
    ----------
    items : iterator
        Used in the other thread only.
    weigh : callable
        The weight of an item, the number of its atoms, say.
    most : int
        One item may be heavier.
    """
    queue: _Queue[Any] = _Queue(most)

    def make() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not queue.put(weigh(item), item):
                    break
        except BaseException as raised:
            error = raised
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
            queue.end(error)

    thread = threading.Thread(target=make, name="quests_zenn reader", daemon=True)
    with warnings.catch_warnings():  # filters belong to all threads: the reader sets none
        warnings.filterwarnings("ignore", module=r"ase\.")
        thread.start()
        try:
            yield from queue
        finally:
            queue.stop()
            thread.join()
