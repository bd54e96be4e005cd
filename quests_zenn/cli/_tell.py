"""What commands say, and how."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import click

from quests_zenn.io.outputs import versions, write_json


def warn(message: str) -> None:
    """One line on stderr."""
    click.echo(f"warning: {message}", err=True)


def duration(seconds: float) -> str:
    """``8.2 s``, ``73 s``, ``12 min``, ``3.1 h``, ``5.2 d``."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"
    if seconds < 360_000:
        return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:,.1f} d"


def size(n_bytes: float) -> str:
    """``73 MB``, ``1.2 GB``, ``3.4 TB``."""
    if n_bytes < 1e12:
        return f"{n_bytes / 1e6:.0f} MB" if n_bytes < 1e9 else f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e12:,.1f} TB"


def rows(items: Iterable[tuple[str, str]]) -> None:
    """Names and what they are, one below the other."""
    for name, text in items:
        click.echo(f"{name:14}{text}")


def matrix(names: list[str], values: Any, form: str) -> None:
    """A square table with names on both sides."""
    width = max(10, max(map(len, names)) + 2)
    click.echo(" " * width + "".join(f"{name:>{width}}" for name in names))
    for name, line in zip(names, values, strict=True):
        click.echo(f"{name:<{width}}" + "".join(f"{format(value, form):>{width}}" for value in line))


def with_error(value: float, error: float) -> str:
    """``5.3102 ± 0.0021 nats``; without an error where there is none, and never ``-0.0000``."""
    value = round(value, 4) + 0.0
    return f"{value:.4f} nats" if error == 0.0 else f"{value:.4f} ± {error:.4f} nats"


class Times:
    """Seconds of each step of a run."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """Do the work; its time counts to `name`."""
        before = time.perf_counter()
        try:
            return work()
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - before

    def total(self) -> float:
        """Seconds since the start, noted down."""
        self.seconds["total"] = time.perf_counter() - self.started
        return self.seconds["total"]

    def row(self, jobs: int | str) -> tuple[str, str]:
        """The last row of a table; `jobs` is the number of threads, or that in words."""
        order = (
            "loading", "workers", "reading", "descriptors", "sums", "selection", "curve", "walks", "splits", "writing",
        )  # fmt: skip
        told = jobs if isinstance(jobs, str) else f"{jobs} threads"
        steps = ", ".join(f"{name} {self.seconds[name]:.2f}" for name in order if name in self.seconds)
        return "time", f"{self.total():.2f} s ({steps}; {told})"


def write_document(
    command: str, inputs: Iterable[str], options: dict[str, Any], found: dict[str, Any], times: Times, jobs: int
) -> None:
    """The JSON document of a command, if it was asked for."""
    if not options["json_file"]:
        return
    times.total()
    document = {"command": command, "inputs": list(inputs), **found}
    document |= {
        "precision": options.get("precision", "auto"),
        "backend": "dask" if options.get("scheduler") else options.get("backend") or "threads",
        "n_workers": jobs,
        "seed": options.get("seed"),
        "units": {"entropy": "nats", "dH": "nats", "bandwidth": "1/Å", "cutoff": "Å"},
        "timings": times.seconds,
        "versions": versions(),
    }
    write_json(options["json_file"], document, options["overwrite"])


def resident() -> int:
    """The most memory that this process has taken so far, bytes."""
    try:
        import resource
    except ImportError:  # a system that does not tell
        return 300 * 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
