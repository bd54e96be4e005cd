"""Clusters: one of processes on this machine, and those that others have started."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import shutil
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from quests_zenn._core.checks import DataError, DataWarning, MissingExtraError, whole_number
from quests_zenn._core.parallel import available_cores
from quests_zenn.distributed import worker
from quests_zenn.distributed.backend import DaskBackend

#: The only interface that a local cluster listens on.
HERE = "127.0.0.1"

#: Seconds that a local cluster may be without a worker: those that were killed are started again.
PATIENCE_HERE = 60.0

#: Seconds without any worker after which it is started anew, should Dask not do it.
RESTART = 15.0


@contextmanager
def local_cluster(
    n_workers: int | None = None, threads: int = 1, memory: float | None = None, dashboard: bool = True
) -> Iterator[DaskBackend]:
    """A cluster of processes on this machine, for the time of a block.

    It listens on the loopback interface only, and its processes know each other by certificates that are made for it:
    nobody else on the machine can give it work. Processes that are killed are started again; all of them end with the
    block, or with the process that has started them.

    Parameters
    ----------
    n_workers : int or None
        Number of processes; None for one for each available core.
    threads : int
        Threads of each of them.
    memory : float or None
        Bytes that all of them may use together; a process that takes more than its part is ended.
    dashboard : bool
        Show what they do in a browser; needs bokeh.

    Raises
    ------
    ValueError
        If a number is not a positive whole number.
    MissingExtraError
        If Dask is not installed.
    """
    n_workers = available_cores() if n_workers is None else whole_number(n_workers, "the number of workers", 1)
    threads = whole_number(threads, "threads", 1)
    dask = _dask()
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(_same_environment())
        stack.enter_context(dask.config.set(_settings(threads)))
        folder = tempfile.mkdtemp(prefix="quests_zenn-")  # of data that do not fit into memory
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        opened = stack.enter_context(ExitStack())

        def start() -> Any:
            opened.close()  # what is left of the one before
            with _without_interrupts():
                cluster = LocalCluster(
                    n_workers=n_workers,
                    threads_per_worker=threads,
                    processes=True,
                    host=HERE,
                    security=_own_certificates(),
                    dashboard_address=f"{HERE}:0",  # also where nobody looks: by default it is a port that may be taken
                    memory_limit=None if memory is None else int(memory / n_workers),
                    local_directory=folder,
                    env={"NUMBA_NUM_THREADS": str(threads)},  # not in this process, whose Numba would see it
                    silence_logs=_SILENT,
                )
                opened.callback(_close, cluster)
            client = Client(cluster, timeout=30, set_as_default=False)
            opened.callback(_close, client)
            return client

        client = start()
        backend = DaskBackend(client, PATIENCE_HERE, reopen=start, reopen_after=RESTART, direct=True)
        backend.dashboard = client.dashboard_link if dashboard else None
        yield backend


def connect(
    address: str,
    tls_ca: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    timeout: float = 20.0,
    patience: float = 300.0,
) -> AbstractContextManager[DaskBackend]:
    """A cluster that others have started, for the time of a block.

    Parameters
    ----------
    address : str
        ``tls://host:8786`` or ``tcp://host:8786``, or a file that a scheduler of Dask has written
        (``--scheduler-file``).
    tls_ca, tls_cert, tls_key : str or None
        Files in PEM format for ``tls://``: who is trusted, and the certificate and key of this side. Those that are not
        given come from the configuration of Dask (``DASK_DISTRIBUTED__COMM__TLS__CA_FILE`` and so on).
    timeout : float
        Seconds within which the scheduler must answer.
    patience : float
        Seconds for which it may be without a worker, or out of reach, before a run is given up.

    Raises
    ------
    DataError
        If the address is none, nobody answers, certificates are missing or refused, or the workers have other versions
        of what decides on results than this side.
    MissingExtraError
        If Dask is not installed.
    """
    _dask()
    return _connected(address, (tls_ca, tls_cert, tls_key), timeout, patience)


@contextmanager
def _connected(
    given: str, files: tuple[str | None, str | None, str | None], timeout: float, patience: float
) -> Iterator[DaskBackend]:
    from distributed import Client

    with ExitStack() as stack:
        stack.enter_context(_quiet())
        opened = stack.enter_context(ExitStack())

        def start() -> Any:
            opened.close()
            try:
                address = _address(given)  # a scheduler that was started again may have another one
            except DataError as error:  # its file was right before, and will be there again
                raise OSError(str(error)) from None
            security = _certificates(address, *files)
            client = Client(address, timeout=timeout, set_as_default=False, **security)
            opened.callback(_close, client)
            return client

        address = _address(given)
        if address.startswith("tcp://") and not _is_here(address):
            warnings.warn(
                f"{address}: the connection is neither encrypted nor authenticated: whoever reaches this port can run "
                "programs there, and on the workers; tls:// is safe",
                DataWarning,
                stacklevel=4,
            )
        try:
            client = start()
        except (OSError, TimeoutError) as error:
            raise DataError(_unreachable(address, error, timeout)) from None
        backend = DaskBackend(client, patience, reopen=start)
        backend.dashboard = client.dashboard_link or None
        _compare_versions(backend)
        yield backend


def _address(given: str) -> str:
    """The address of a scheduler, or the one that a file of a scheduler names."""
    kind, mark, rest = given.partition("://")
    if not mark:
        if not Path(given).is_file():
            raise DataError(
                f"{given}: is neither an address of a scheduler, such as tls://host:8786, nor a file of one"
            )
        try:
            address = json.loads(Path(given).read_text(encoding="utf-8"))["address"]
        except (ValueError, KeyError, TypeError, OSError):
            raise DataError(f"{given}: is no file of a scheduler (a JSON document with its address)") from None
        return _address(str(address)) if "://" in str(address) else _address(f"tcp://{address}")
    if kind not in ("tls", "tcp"):
        raise DataError(f"{given}: the address of a scheduler begins with tls:// or tcp://")
    host, _, port = rest.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise DataError(f"{given}: is no address of a scheduler; it should look like {kind}://host:8786")
    return given


def _is_here(address: str) -> bool:
    """Whether an address is one of this machine that nobody else reaches."""
    host = address.partition("://")[2].rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _certificates(address: str, ca: str | None, cert: str | None, key: str | None) -> dict[str, Any]:
    """Arguments of a client about security."""
    from distributed.security import Security

    given = {"--tls-ca": ca, "--tls-cert": cert, "--tls-key": key}
    if not address.startswith("tls://"):
        named = [name for name, value in given.items() if value is not None]
        if named:
            raise DataError(f"{address}: {named[0]} is for addresses that begin with tls://")
        return {}
    for name, value in given.items():
        if value is not None and not Path(value).is_file():
            raise DataError(f"{value}: no such file ({name})")
    options = {"tls_ca_file": ca, "tls_client_cert": cert, "tls_client_key": key}
    security = Security(require_encryption=True, **{name: value for name, value in options.items() if value})
    for option, name in zip(options, given, strict=True):
        if name != "--tls-key" and getattr(security, option) is None:  # a key may be in the file of the certificate
            raise DataError(
                f"{address}: a connection by TLS needs {name}, or distributed.comm.tls in the configuration of Dask"
            )
    try:
        security.get_connection_args("client")
    except (OSError, ValueError) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{address}: the certificates for TLS cannot be used ({what})") from None
    return {"security": security}


def _unreachable(address: str, error: BaseException, timeout: float) -> str:
    import ssl

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return f"{address}: the connection by TLS was refused ({cause.reason or cause}); check the certificates"
        cause = cause.__cause__ or cause.__context__
    return f"{address}: no scheduler answers there within {timeout:g} s; is it running, and is this its address?"


def _compare_versions(backend: DaskBackend) -> None:
    """Refuse workers that would compute something else, and warn of those whose last digits may differ.

    Raises
    ------
    DataError
        If a version differs, or the package is not installed there.
    """
    here = worker.installed()
    try:
        backend.wait_for_workers()
        answers = backend.everywhere(worker.installed)
    except DataError:
        raise
    except Exception as error:  # they do not know what they are asked
        what = " ".join(str(error).split())
        raise DataError(
            f"{backend.address}: its workers do not have quests_zenn {here['quests_zenn']} ({what})"
        ) from None
    for address, there in answers.items():
        for name, version in here.items():
            if there.get(name) != version:
                raise DataError(
                    f"{backend.address}: the worker {address} has {name} {there.get(name)}, and this side {version}; "
                    "results are the same only with the same versions"
                )
    own = worker.processor()
    others = {there: address for address, there in backend.everywhere(worker.processor).items() if there != own}
    for there, address in sorted(others.items()):
        warnings.warn(
            f"{backend.address}: the worker {address} has another processor ({there}) than this side ({own}): the last "
            "digits of results may depend on who did what",
            DataWarning,
            stacklevel=5,
        )


#: A level above that of all messages.
_SILENT = logging.CRITICAL + 1


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A block that Ctrl-C and polite kills cannot cut in two: they come at its end.

    Threads and processes that are started in it do not see Ctrl-C at all: this process ends them.
    """
    late: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, lambda number, frame: late.append(number))
    mask = None
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # it would let signals in again
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            if handler is not None:  # else not one of Python
                signal.signal(number, handler)
        if late:
            signal.raise_signal(late[0])


#: Variables that Dask sets in this process, so that those it starts inherit them.
_ALGEBRA = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextmanager
def _same_environment() -> Iterator[None]:
    """Variables that Dask sets are as they were afterwards."""
    set_by_dask = (*_ALGEBRA, "MALLOC_TRIM_THRESHOLD_", "PYTHONHASHSEED", "__DASK_PARENT_PID")
    before = {name: os.environ.get(name) for name in set_by_dask}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _settings(threads: int) -> dict[str, Any]:
    """Settings of Dask for a local cluster; processes inherit them."""
    return {
        "distributed.nanny.pre-spawn-environ": {"MALLOC_TRIM_THRESHOLD_": 65536, **dict.fromkeys(_ALGEBRA, threads)},
        # nobody looks at profiles, and they cost time
        "distributed.worker.profile.enabled": False,
        "distributed.diagnostics.computations.nframes": 0,
        # a task that was there when workers ended is then tried alone
        "distributed.scheduler.allowed-failures": 2,
        # a worker that is being started again when this is over would be given up
        "distributed.deploy.lost-worker-timeout": "1000 days",
        # copies of pieces stay where they are needed again
        "distributed.scheduler.active-memory-manager.start": False,
        # maps of files count as memory: a worker that waited for them to go away would wait for ever
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": 0.98,
    }


def _own_certificates() -> Any:
    from distributed.security import Security

    try:
        return Security.temporary()
    except ImportError:
        raise MissingExtraError("cryptography", "dask") from None


def _close(what: Any) -> None:
    with suppress(Exception):  # there is nobody left to tell
        what.close(timeout=10)


@contextmanager
def _quiet() -> Iterator[None]:
    """What Dask has to say is said by this package; its loggers are as they were afterwards."""
    rooms = ("distributed", "tornado", "bokeh", "asyncio")
    # some of them have a level of their own
    names = [name for name in list(logging.root.manager.loggerDict) if name.partition(".")[0] in rooms]
    loggers = [logging.getLogger(name) for name in {*rooms, *names}]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(_SILENT)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _dask() -> Any:
    try:
        import dask
        import distributed  # noqa: F401
    except ImportError:
        raise MissingExtraError("dask", "dask") from None
    return dask
