"""Options that several commands share, written once; and how a command ends."""

from __future__ import annotations

import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from quests_zenn import __version__

Command = TypeVar("Command", bound=Callable[..., Any])

#: Exit status after Ctrl-C, as shells expect it.
INTERRUPTED = 130


class PositiveFloat(click.ParamType):
    """A number that is positive and finite."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from quests_zenn._core.checks import positive

        try:
            return positive(value, "it")
        except ValueError:
            self.fail(f"{value!r} is not a positive, finite number", param, ctx)


class NotNegative(click.ParamType):
    """A finite number that is zero or more."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from quests_zenn._core.checks import finite

        try:
            number = finite(value, "it")
            if number < 0.0:
                raise ValueError
        except ValueError:
            self.fail(f"{value!r} is not a finite number of at least 0", param, ctx)
        return number + 0.0  # no -0.0


class Share(click.ParamType):
    """A number above 0 and up to 1."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
            if not 0.0 < number <= 1.0:  # NaN neither
                raise ValueError
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not a share, a number above 0 and up to 1", param, ctx)
        return number


class Bandwidths(click.ParamType):
    """A positive number, several separated by commas, or ``auto``."""

    name = "number|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float | str]:
        from quests_zenn._core.checks import bandwidth

        parts = value if isinstance(value, list) else str(value).split(",")
        try:
            return [part if part == "auto" else bandwidth(part) for part in parts]
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Memory(click.ParamType):
    """An amount of memory in bytes: ``4GB``, ``500MB``, ``2GiB``."""

    name = "4GB"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        import math
        import re

        found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kMGT]?)(i?)B\s*", str(value), re.IGNORECASE)
        if isinstance(value, int):
            return value
        amount = 0.0
        if found is not None:
            unit = 1024 if found[3] else 1000
            amount = float(found[1]) * unit ** " KMGT".index(found[2].upper() or " ")
        if not (math.isfinite(amount) and amount >= 1.0):
            self.fail(f"{value!r} is no amount of memory; write for example 4GB, 500MB or 2GiB", param, ctx)
        return int(amount)


class Count(click.ParamType):
    """A whole number of at least 1, also as ``1e9``."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = float(value)
            if not (1.0 <= number <= 1e15 and number == int(number)):  # NaN neither
                raise ValueError
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not a whole number from 1 to 1e15", param, ctx)
        return int(number)


class TypeMap(click.ParamType):
    """Elements of the atom types of a file: ``1=Cu,2=Zr``."""

    name = "1=Cu,2=Zr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[int, int]:
        if isinstance(value, dict):
            return value
        from ase.data import atomic_numbers

        mapping = {}
        for part in str(value).split(","):
            number, _, symbol = part.partition("=")
            if not (number.strip().isascii() and number.strip().isdigit()) or symbol.strip() not in atomic_numbers:
                self.fail(f"{part!r} is not of the form 1=Cu", param, ctx)
            mapping[int(number)] = atomic_numbers[symbol.strip()]
        return mapping


def _stack(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


frame_options = _stack(
    click.option("--type-map", type=TypeMap(), metavar="1=Cu,2=Zr", help="Elements of the atom types of the file."),
    click.option(
        "--select", metavar="WHAT",
        help="Atoms asked about: elements (C,O), indices (0,5,10:20), or an array of the frames. All stay neighbours.",
    ),
)  # fmt: skip

energy_option = click.option(
    "--energy-key", metavar="KEY", help="Where frames keep their energy (REF_energy, ...), for plots."
)

descriptor_options = _stack(
    click.option("--k", type=click.IntRange(2, 4096), default=32, show_default=True, help="Neighbours per atom."),
    click.option("--cutoff", type=PositiveFloat(), default=5.0, show_default=True, help="Cutoff radius in Å."),
    click.option(
        "--species", type=click.Choice(["none", "blocks", "pairs"]), default="none", show_default=True,
        help="Blocks of the descriptor for each element, and for each pair of elements.",
    ),
)  # fmt: skip

bandwidth_option = click.option(
    "--bandwidth", "bandwidths", type=Bandwidths(), multiple=True, metavar="NUMBER|auto",
    help="Bandwidth in 1/Å [default: 0.015]; auto takes it from the volume per atom. Several: --bandwidth 0.015,0.03.",
)  # fmt: skip

precision_option = click.option(
    "--precision", type=click.Choice(["auto", "float64", "float32"]), default="auto", show_default=True,
    help="Arithmetic. auto: single where it is faster and errs by less than 1e-6 nats in H. "
    "float32: also for descriptors and their storage.",
)  # fmt: skip

estimator_option = click.option(
        "--estimator", type=click.Choice(["auto", "exact", "sampled", "knn"]), default="auto", show_default=True,
        help="How sums are done. auto: exact up to 50,000 environments, then sampled, with an error bar.",
)  # fmt: skip

tolerance_option = click.option(
    "--tolerance", type=PositiveFloat(), default=0.01, show_default=True,
    help="Half-width of the 95% interval of H, nats, that samples aim at.",
)  # fmt: skip

estimator_options = _stack(estimator_option, tolerance_option)

by_option = click.option(
    "--by", metavar="KEY", help="Group frames by this key of their info (config_type, ...), by file, or by frame."
)

seed_option = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all samples.")

memory_option = click.option(
    "--memory", type=Memory(), metavar="4GB", help="Memory that may be taken in all (4GB, 500MB, 2GiB)."
)

backend_options = _stack(
    click.option(
        "--backend", type=click.Choice(["threads", "dask"]),
        help="Who computes: threads of one process, or as many processes, which Dask runs [default: threads].",
    ),
    click.option(
        "--scheduler", metavar="ADDRESS",
        help="A Dask cluster that computes: tls://host:8786, or the file that its scheduler has written.",
    ),
    click.option("--tls-ca", metavar="FILE", type=click.Path(), help="Whom --scheduler tls://... must be signed by."),
    click.option("--tls-cert", metavar="FILE", type=click.Path(), help="Certificate of this side, for tls://..."),
    click.option("--tls-key", metavar="FILE", type=click.Path(), help="Its key [default: in the file of --tls-cert]."),
)  # fmt: skip

dry_run_option = click.option("--dry-run", is_flag=True, help="Only predict time and memory.")

run_options = _stack(
    precision_option,
    click.option("--jobs", type=click.IntRange(min=1), help="Threads [default: all cores]."),
    seed_option,
    click.option("--quiet", is_flag=True, help="Print no table, no progress and no warnings."),
)  # fmt: skip

output_options = _stack(
    click.option("--json", "json_file", metavar="FILE", type=click.Path(), help="Write one JSON document."),
    click.option("--plot", "plot_file", metavar="FILE", type=click.Path(), help="Draw the result (.png, .pdf, .svg)."),
    click.option("--overwrite", is_flag=True, help="Replace files that exist."),
)

version_option = click.version_option(__version__, "--version", message="%(prog)s %(version)s")


def ends_well(command: Command) -> Command:
    """One clear line and a status for each way to end: 1 for bad data or a failed run, 130 for Ctrl-C."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        with Interrupts(), _warnings_told(kwargs.get("quiet", False)):
            try:
                return command(*args, **kwargs)
            except (click.exceptions.ClickException, BrokenPipeError):
                raise
            except BaseException as error:
                if Interrupts.pending or isinstance(error, KeyboardInterrupt):
                    _fail("interrupted; unfinished files were removed", INTERRUPTED)
                if isinstance(error, MemoryError):
                    _fail("not enough memory; fewer frames (file@::10) or --precision float32 need less", 1)
                if isinstance(error, ValueError | OSError | ImportError):
                    _fail(" ".join(str(error).split()), 1)
                raise

    return run  # type: ignore[return-value]


@contextmanager
def _warnings_told(quiet: bool) -> Iterator[None]:
    """Warnings of the package as one line each, like those of the commands themselves."""
    import warnings

    from quests_zenn._core.checks import DataWarning

    def show(message: Any, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        if not issubclass(category, DataWarning):
            shown(message, category, *args, **kwargs)
        elif not quiet:
            click.echo(f"warning: {message}", err=True)

    with warnings.catch_warnings():
        shown = warnings.showwarning
        warnings.simplefilter("always", DataWarning)
        warnings.showwarning = show
        yield


class Interrupts:
    """While it is entered, Ctrl-C and a polite kill end the run alike: temporary files are removed on the way out.

    An exception raised inside a callback of the compiler is printed and forgotten, so the signal is remembered too.
    """

    pending = False

    def __enter__(self) -> None:
        Interrupts.pending = False
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is not threading.main_thread():
            return  # elsewhere Python delivers no signals
        self._previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in self._previous:
            signal.signal(number, self._remember)

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @staticmethod
    def _remember(signum: int, frame: Any) -> None:
        Interrupts.pending = True
        raise KeyboardInterrupt

    @staticmethod
    def raise_if_pending() -> None:
        """Raise KeyboardInterrupt if a signal came and its exception was lost."""
        if Interrupts.pending:
            raise KeyboardInterrupt


def stop_for_now(told: str = "the same command goes on where this one stopped") -> None:
    """End after Ctrl-C, where something is left: what another run can go on from, or a finished file."""
    Interrupts.pending = False
    _fail(f"interrupted; {told}", INTERRUPTED)


def _fail(message: str, status: int) -> None:
    context = click.get_current_context(silent=True)
    name = context.command_path if context is not None else "quests-zenn"
    click.echo(f"{name}: {message}", err=True)
    sys.exit(status)
