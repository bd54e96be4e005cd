"""Frames from memory or from files, and where they came from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from quests_zenn._core.checks import DataError
from quests_zenn.io.frames import Frame, FrameSource, is_single, read_frames, split_index


class FrameStream:
    """Frames from memory or from files, and where they came from."""

    def __init__(self, frames: FrameSource, type_map: dict[int, int] | None) -> None:
        self.sources: list[dict[str, Any]] = []
        self._type_map = type_map
        names = [frames] if isinstance(frames, str | os.PathLike) else frames
        if is_single(names):
            names = [names]
        if not isinstance(names, Iterable):
            raise DataError(f"expected structures or names of files, got {type(frames).__name__}")
        self._items = iter(names)

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            if isinstance(item, str | os.PathLike):
                source = self._begin(split_index(item)[0], index=split_index(item)[1])
                for frame in read_frames(item, type_map=self._type_map):
                    yield self._count(source, frame)
            else:
                last = self.sources[-1] if self.sources else {}
                source = last if last.get("name") == "memory" else self._begin("memory")
                yield self._count(source, item)

    def _begin(self, name: str, **more: Any) -> dict[str, Any]:
        self.sources.append({"name": os.path.basename(name), **more, "n_frames": 0, "n_environments": 0})
        return self.sources[-1]

    def _count(self, source: dict[str, Any], frame: Any) -> Any:
        source["n_frames"] += 1
        if isinstance(frame, Frame) or hasattr(frame, "numbers"):
            source["n_environments"] += len(frame)
        elif isinstance(frame, tuple) and len(frame) == 4:
            source["n_environments"] += len(frame[3])
        return frame
