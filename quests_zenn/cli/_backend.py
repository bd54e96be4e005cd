"""Who computes: threads of this process, processes on this machine, or a cluster; and what is kept of a long run."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from quests_zenn._core.checks import DataError
from quests_zenn._core.parallel import Workers, resolve_jobs
from quests_zenn._core.progress import note_if_slow
from quests_zenn._core.remote import Keeper
from quests_zenn.cli import _options
from quests_zenn.cli._tell import Times, size
from quests_zenn.io.keeper import DiskKeeper

#: Bytes that a worker process takes before it has any data, and for the least of them.
OF_WORKER = 350_000_000

#: Files that only a cluster needs, as `quests_zenn.distributed.connect` calls them.
_TLS = ("tls_ca", "tls_cert", "tls_key")


class Backend:
    """What the options of a command say of who computes.

    Attributes
    ----------
    name : str
        For documents: ``threads`` or ``dask``.
    n_workers : int
        Threads, or tasks that a cluster runs at the same time.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.jobs = self.n_workers = resolve_jobs(options["jobs"])
        self.quiet: bool = options["quiet"]
        scheduler = options["scheduler"]
        if scheduler is not None and options["backend"] == "threads":
            raise click.UsageError("--scheduler is for --backend dask")
        given = [name for name in _TLS if options[name] is not None]
        if given and scheduler is None:
            raise click.UsageError(f"--{given[0].replace('_', '-')} belongs to --scheduler")
        self.name = "threads" if scheduler is None and options["backend"] != "dask" else "dask"
        #: Bytes that this process may take, where that is limited: with processes beside it, half of what all may take.
        self.memory: int | None = options.get("memory")
        self.share = ""
        if self.memory is not None and self.name == "dask" and scheduler is None:
            self.memory //= 2
            self.share = ", half of which is for workers"
            if self.memory < self.jobs * OF_WORKER:
                raise DataError(
                    f"--memory {size(options['memory'])} is too little for {self.jobs} worker processes; they take at "
                    f"least {size(2 * self.jobs * OF_WORKER)} together with this one"
                )

    @property
    def told(self) -> str:
        """For tables."""
        if self.name == "threads":
            return f"{self.jobs} threads"
        return f"{self.n_workers} Dask worker{'s' * (self.n_workers != 1)}"

    @contextmanager
    def workers(self, times: Times, keeper: Keeper | None = None) -> Iterator[Workers]:
        """The workers, for the time of a block. A cluster is started, or a connection made, where one is asked for.

        What that takes counts to ``workers`` of the times.

        Raises
        ------
        DataError, MissingExtraError
            See `quests_zenn.distributed`.
        """
        if self.name == "threads":
            with Workers(self.jobs, keeper=keeper) as workers:
                yield workers
            return
        with ExitStack() as stack:
            remote = times.step("workers", lambda: stack.enter_context(self._remote()))
            self._tell_dashboard(remote.dashboard)
            with note_if_slow("compiling kernels (first run on this machine only) ...", 10.0, self.quiet):
                times.step("workers", lambda: remote.everywhere(load_kernels))
            self.n_workers = remote.n_workers
            with Workers(self.jobs, remote, keeper) as workers:
                yield workers
            _options.Interrupts.raise_if_pending()

    def _remote(self) -> AbstractContextManager[Any]:
        from quests_zenn.distributed import connect, local_cluster

        options = self.options
        if options["scheduler"] is not None:
            return connect(options["scheduler"], *(options[name] for name in _TLS))
        return local_cluster(self.jobs, memory=self.memory, dashboard=not self.quiet and _has_bokeh())

    def _tell_dashboard(self, link: str | None) -> None:
        if self.quiet:
            return
        told = f"dashboard: {link}" if link else "no dashboard: it needs bokeh (pip install 'quests_zenn[dask]')"
        click.echo(told, err=True)


def _has_bokeh() -> bool:
    return importlib.util.find_spec("bokeh") is not None


def load_kernels() -> None:
    """Load the compiled kernels of sums, in whichever process this is called."""
    import numpy as np

    from quests_zenn.entropy import delta_entropy, get_all_metrics

    x = np.linspace(0.0, 1.0, 16).reshape(4, 4)
    for precision in ("float64", "float32"):
        get_all_metrics(x, precision=precision, jobs=1)
        delta_entropy(x, x[:2], precision=precision, jobs=1)


@contextmanager
def kept(quiet: bool) -> Iterator[DiskKeeper]:
    """What keeps finished parts of a run until all of it is done; says so when it goes on from an earlier one."""

    def say(folder: Path) -> None:
        if not quiet:
            click.echo(f"goes on where an earlier run stopped (kept in {folder})", err=True)

    with DiskKeeper(on_resume=say) as keeper:
        try:
            yield keeper
        except BaseException as error:
            interrupted = _options.Interrupts.pending or isinstance(error, KeyboardInterrupt)
            if interrupted and keeper.holds_something:
                _options.stop_for_now()
            raise
