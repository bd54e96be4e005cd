"""What a selection has come to, kept in a file, so that a run that is killed goes on where it was."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, DataWarning
from quests_zenn.io.outputs import check_output, replacing

#: Seconds between two states.
INTERVAL = 15.0

_FORMAT = "quests_zenn selection 1"

State = dict[str, npt.NDArray[Any]]


class Checkpoint:
    """A file that holds the state of a run. Nothing at all for a path of None.

    Raises
    ------
    DataError
        If the file is of another run, or no such file.
    """

    def __init__(self, path: str | os.PathLike[str] | None, run: str) -> None:
        self.path, self._run = None if path is None else Path(path), run
        self._saved = time.monotonic()
        self.state: State = {}
        self._told = False
        if self.path is None:
            return
        if not self.path.exists():
            check_output(self.path)
            return
        try:
            with open(self.path, "rb") as stream:
                content = np.load(stream, allow_pickle=False)
                state = {name: content[name] for name in content.files}
            same = str(state.pop("format")) == _FORMAT
        except Exception as error:  # a damaged archive fails in any way there is
            raise DataError(f"{self.path}: is no state of a selection, or damaged; remove it to start anew") from error
        if not same or str(state.pop("run", "")) != run:
            raise DataError(
                f"{self.path}: is of a run on other data or with other options; repeat that one, or remove the file"
            )
        self.state = state

    def save(self, state: Callable[[], Mapping[str, npt.NDArray[Any]]], now: bool = False) -> None:
        """Keep a state, if the last one is old enough."""
        if self.path is None or not (now or time.monotonic() - self._saved > INTERVAL):
            return
        self._saved = time.monotonic()
        content = {"format": np.array(_FORMAT), "run": np.array(self._run), **state()}
        try:
            with replacing(self.path, overwrite=True) as temporary, open(temporary, "wb") as stream:
                np.savez(stream, **content)  # type: ignore[arg-type]
        except DataError as error:  # the selection itself may well come to its end
            if not self._told:
                warnings.warn(f"the run could not go on after an interruption: {error}", DataWarning, stacklevel=2)
            self._told = True
        self._saved = time.monotonic()

    def discard(self) -> None:
        """Remove the file: the run came to its end."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
