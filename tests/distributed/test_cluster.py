"""Clusters that others have started: addresses, certificates, versions; and processes that end with those before."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

pytest.importorskip("dask")
pytest.importorskip("cryptography")

import dask
import distributed  # noqa: F401  (which adds to the settings of dask when it is imported)
import psutil
import remote_tasks

from quests_zenn import DataError, DataWarning
from quests_zenn._core.remote import Task
from quests_zenn.distributed import DaskBackend, connect, local_cluster
from quests_zenn.distributed import cluster as room
from quests_zenn.distributed import worker as on_workers

pytestmark = pytest.mark.extra

Files = dict[str, str]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Files]:
    """Files of an authority and of one side that it has signed, made for these tests."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder = tmp_path_factory.mktemp("certificates")

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def write(path: Path, content: bytes) -> str:
        path.write_bytes(content)
        return os.fspath(path)

    def make(authority: str) -> Files:
        day = datetime.timedelta(days=1)
        now = datetime.datetime.now(datetime.UTC)
        its_key, own_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

        def signed(subject: str, key: ec.EllipticCurvePrivateKey, is_authority: bool) -> bytes:
            builder = (
                x509.CertificateBuilder()
                .subject_name(name(subject))
                .issuer_name(name(authority))
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - day)
                .not_valid_after(now + day)
                .add_extension(x509.BasicConstraints(is_authority, None), True)
                .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            )
            return builder.sign(its_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

        key = own_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "tls_ca": write(folder / f"{authority}-ca.pem", signed(authority, its_key, True)),
            "tls_cert": write(folder / f"{authority}-cert.pem", signed("side", own_key, False)),
            "tls_key": write(folder / f"{authority}-key.pem", key),
        }

    return make


@contextmanager
def outside_cluster(folder: Path, files: Files | None = None, n_workers: int = 1) -> Iterator[list[subprocess.Popen]]:
    """A scheduler and workers as processes, as people start them. The first is the scheduler."""
    file = folder / "scheduler.json"
    options = ["--host", "127.0.0.1", "--scheduler-file", os.fspath(file), "--no-dashboard"]
    tls = []
    if files is not None:
        tls = [word for name, path in files.items() for word in (f"--{name}-file".replace("_", "-"), path)]
        tls = [word.replace("--tls-cert-file", "--tls-cert").replace("--tls-key-file", "--tls-key") for word in tls]
    environment = {**os.environ, "PYTHONPATH": os.fspath(Path(__file__).parent)}

    def start(module: str, *words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.{module}", *options, *tls, *words]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(process.wait, 20)
        stack.callback(process.kill)
        return process

    with ExitStack() as stack:
        found = [start("dask_scheduler", "--port", "0", *(["--protocol", "tls"] if tls else []))]
        words = ["--nthreads", "1", "--no-nanny", "--local-directory", os.fspath(folder)]
        found += [start("dask_worker", *words) for _ in range(n_workers)]
        end = time.monotonic() + 30
        while not file.exists() or not file.read_text().strip():
            assert time.monotonic() < end
            time.sleep(0.05)
        yield found


def numbers(backend: DaskBackend, n: int = 30) -> list[int]:
    return list(backend.map(remote_tasks.number, [], [Task((), (i,)) for i in range(n)]))


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("nowhere.json", "nowhere.json: is neither an address of a scheduler, such as tls://host:8786, nor a file"),
        ("notes.json", "notes.json: is no file of a scheduler"),
        ("http://host:1", "http://host:1: the address of a scheduler begins with tls:// or tcp://"),
        ("tcp://host", "tcp://host: is no address of a scheduler; it should look like tcp://host:8786"),
        ("tls://host:99999", "tls://host:99999: is no address of a scheduler; it should look like tls://host:8786"),
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:1: no scheduler answers there within 0.3 s; is it running"),
        ("there.json", "tcp://127.0.0.1:1: no scheduler answers there within 0.3 s; is it running"),
        ("tls://127.0.0.1:1", "tls://127.0.0.1:1: a connection by TLS needs --tls-ca, or distributed.comm.tls in the"),
    ],
)
def test_addresses_that_lead_nowhere(
    address: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.json").write_text("[1]")
    Path("there.json").write_text(json.dumps({"address": "127.0.0.1:1"}))
    with pytest.raises(DataError) as caught, connect(address, timeout=0.3):
        pass
    assert str(caught.value).startswith(sentence)


def test_certificates_that_are_none(tmp_path: Path, certificates: Callable[[str], Files]) -> None:
    files = certificates("good")
    text = tmp_path / "text"
    text.write_text("not a certificate")
    with pytest.raises(DataError, match=r"no_ca: no such file \(--tls-ca\)"), connect("tls://a:1", "no_ca"):
        pass
    with (
        pytest.raises(DataError, match=r"^tls://a:1: the certificates for TLS cannot be used \("),
        connect("tls://a:1", **{**files, "tls_cert": os.fspath(text)}),
    ):
        pass
    with pytest.raises(DataError, match="--tls-cert is for addresses that begin with tls://"):  # noqa: SIM117
        with connect("tcp://127.0.0.1:1", tls_cert=files["tls_cert"]):
            pass


def test_connections_to_others_in_plain_text_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # an address that is never used by anyone
    with (
        pytest.warns(DataWarning, match=r"^tcp://192\.0\.2\.1:8786: the connection is neither encrypted nor"),
        pytest.raises(DataError, match="no scheduler answers"),
        connect("tcp://192.0.2.1:8786", timeout=0.2),
    ):
        pass
    for address in ("tcp://127.0.0.1:1", "tcp://localhost:1", "tcp://[::1]:1"):
        assert room._is_here(address)


# --- a cluster that is there ------------------------------------------------------------------------------------------


def test_a_cluster_with_tls(
    tmp_path: Path, certificates: Callable[[str], Files], monkeypatch: pytest.MonkeyPatch
) -> None:
    files, others = certificates("one"), certificates("another")
    with outside_cluster(tmp_path, files):
        file = os.fspath(tmp_path / "scheduler.json")
        address = json.loads(Path(file).read_text())["address"]
        assert address.startswith("tls://127.0.0.1:")
        with connect(address, **files) as backend:
            assert numbers(backend) == list(range(30))
            assert backend.address == address
        names = {"tls_ca": "ca-file", "tls_cert": "client.cert", "tls_key": "client.key"}
        in_dask = {f"distributed.comm.tls.{name}": files[option] for option, name in names.items()}
        with dask.config.set(in_dask), connect(file) as backend:
            assert backend.n_workers == 1
        # who is not signed by the same authority is refused, and so is a scheduler that is not
        for wrong in ({**others, "tls_ca": files["tls_ca"]}, others):
            with pytest.raises(DataError, match=r"tls://.*(refused|no scheduler answers)"):  # noqa: SIM117
                with connect(address, **wrong, timeout=1.0):
                    pass
        own = on_workers.processor()
        monkeypatch.setattr("llvmlite.binding.get_host_cpu_name", lambda: "abacus")
        with (
            pytest.warns(DataWarning, match=rf"has another processor \({own}\) than this side \(abacus\): the last"),
            connect(address, **files) as backend,
        ):
            assert numbers(backend) == list(range(30))
        monkeypatch.undo()
        there = on_workers.installed()
        monkeypatch.setattr(on_workers, "versions", lambda: {**there, "quests_zenn": "0.0.9"})
        with pytest.raises(  # noqa: SIM117
            DataError, match=rf"has quests_zenn {there['quests_zenn']}, and this side 0\.0\.9; results are the same"
        ):
            with connect(address, **files):
                pass


def test_a_lost_scheduler_ends_the_run(tmp_path: Path) -> None:
    file = os.fspath(tmp_path / "scheduler.json")
    with outside_cluster(tmp_path) as (scheduler, _), connect(file, timeout=0.5, patience=1.0) as backend:
        results = backend.map(remote_tasks.slow_number, [], [Task((), (n, 0.05)) for n in range(1000)])
        assert next(results) == 0
        scheduler.kill()
        with pytest.raises(
            DataError, match=r"the scheduler at tcp://.* is lost; the same command goes on where this one stopped"
        ):
            list(results)


def test_no_worker_for_too_long_ends_the_run(tmp_path: Path) -> None:
    file = os.fspath(tmp_path / "scheduler.json")
    with outside_cluster(tmp_path) as (_, worker), connect(file, patience=1.0) as backend:
        results = backend.map(remote_tasks.slow_number, [], [Task((), (n, 0.05)) for n in range(1000)])
        assert next(results) == 0
        worker.kill()
        with pytest.raises(DataError, match=r"no worker has been left at tcp://.* for 1 s; the same command goes"):
            list(results)


@pytest.mark.slow
def test_a_scheduler_that_comes_back_ends_nothing(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    with (
        outside_cluster(tmp_path) as (scheduler, worker),
        connect(os.fspath(file), timeout=1.0, patience=60.0) as backend,
    ):
        tasks = [Task((0,), (n,)) for n in range(200)]
        results = backend.map(remote_tasks.wait_with, [[0.02]], tasks)
        found = [next(results)]
        scheduler.kill()
        worker.kill()
        file.unlink()
        with outside_cluster(tmp_path):
            found += list(results)
    assert found == list(range(200))


# --- processes end with those that have started them ------------------------------------------------------------------

PARENT = """
import sys, time
sys.path.insert(0, {folder!r})
import remote_tasks
from quests_zenn._core.remote import Task
from quests_zenn.distributed import local_cluster
if __name__ == "__main__":
    with local_cluster(2, dashboard=False) as backend:
        tasks = [Task((), (n, 0.2)) for n in range(1000)]
        for n in backend.map(remote_tasks.slow_number, [], tasks):
            print(n, flush=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kills groups of processes")
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=["SIGKILL", "SIGINT"]
)
def test_no_process_is_left_behind(tmp_path: Path, number: int) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(folder=os.fspath(Path(__file__).parent)))
    environment = {**os.environ, "TMPDIR": os.fspath(tmp_path)}
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        assert parent.stdout.readline() == "0\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 2
        if number == signal.SIGINT:
            os.killpg(parent.pid, number)  # as a terminal does
        else:
            parent.send_signal(number)
        _, error = parent.communicate(timeout=30)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]
    if number == signal.SIGINT:
        assert error.count("Traceback") == 1  # of this script
        assert not list(tmp_path.glob("quests_zenn-*"))


def test_settings_of_the_user_stay_as_they_are() -> None:
    before = json.dumps(dask.config.config, default=str, sort_keys=True)
    environment = dict(os.environ)
    folders = set(Path(room.tempfile.gettempdir()).glob("quests_zenn-*"))
    handlers = signal.getsignal(signal.SIGINT)

    def fail() -> None:
        with local_cluster(1, dashboard=False):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert json.dumps(dask.config.config, default=str, sort_keys=True) == before
    assert dict(os.environ) == environment
    assert signal.getsignal(signal.SIGINT) is handlers
    assert not psutil.Process().children(recursive=True) or all(
        "resource_tracker" in " ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)
    )
    assert set(Path(room.tempfile.gettempdir()).glob("quests_zenn-*")) <= folders


def test_numbers_of_workers() -> None:
    with pytest.raises(ValueError, match="the number of workers must be a whole number of at least 1, got 0"):  # noqa: SIM117
        with local_cluster(0):
            pass
