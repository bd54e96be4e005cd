"""Rules that hold for the whole package: what an import costs, who imports whom, and what nobody does."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import quests_zenn

PACKAGE = Path(quests_zenn.__file__).parent
ROOT = Path(__file__).parent.parent

#: Rooms, ground floor first; those of one floor stand together.
FLOORS = [
    {"_core"},
    {"io"},
    {"descriptors", "distributed"},
    {"entropy"},
    {"uq", "compression"},
    {"zenn"},
    {"sampling"},
    {"states"},
    {"cli"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

#: Rooms that people enter by their name.
ROOMS = ("compression", "descriptors", "distributed", "entropy", "io", "sampling", "states", "uq", "zenn")

#: Arrays only: no atoms, no files.
FORBIDDEN = {"entropy": {"io", "descriptors", "ase"}, "_core": {"ase"}, "distributed": {"descriptors", "ase"}}

#: Where Dask and Zarr may be imported, inside functions only.
DASK = {"distributed": {"dask", "distributed"}, "io": {"zarr"}}

#: Where torch may be imported (inside functions, or on first use).
TORCH = {"zenn", "sampling", "states"}

FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(PACKAGE).as_posix() for path in FILES]
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), name) for name, path in zip(NAMES, FILES, strict=True)}


def room_of(name: str) -> str:
    """First folder below the package; empty for the package itself."""
    return name.split("/")[0] if "/" in name else ""


def imported(name: str) -> Iterator[str]:
    """Full names of all that a file imports, wherever in it: ``quests_zenn.io.frames``, ``numpy``."""
    here = ["quests_zenn", *name.split("/")[:-1]]
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = here[: len(here) + 1 - node.level] if node.level else []
            base = ".".join([*origin, *([node.module] if node.module else [])])
            # `from quests_zenn import io` imports a room as `from quests_zenn.io import x` does
            yield from (f"{base}.{alias.name}" for alias in node.names)


def rooms_imported(name: str) -> set[str]:
    parts = [full.split(".") for full in imported(name)]
    return {part[1] for part in parts if part[0] == "quests_zenn" and len(part) > 1 and part[1] in FLOOR}


def called(node: ast.Call) -> str:
    """Dotted name of what is called: ``np.load``; empty where it has none."""
    parts: list[str] = []
    target: ast.expr = node.func
    while isinstance(target, ast.Attribute):
        parts.append(target.attr)
        target = target.value
    if isinstance(target, ast.Name):
        parts.append(target.id)
    return ".".join(reversed(parts))


# --- what an import costs ---------------------------------------------------------------------------------------------


def modules_after(code: str) -> set[str]:
    """Top-level modules loaded by `code` in a fresh interpreter."""
    code += "\nimport json, sys\nprint('MODULES', json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    # isolated: nothing of this folder or the environment is on the path
    ended = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stderr == ""
    return set(json.loads(ended.stdout.rpartition("MODULES")[2]))


HEAVY = {
    "numba", "llvmlite", "ase", "torch", "matplotlib", "numpy", "scipy", "sklearn", "tqdm", "dask", "distributed",
    "zarr",
}  # fmt: skip


def test_importing_the_package_imports_none_of_its_rooms() -> None:
    loaded = modules_after("import quests_zenn; quests_zenn.__version__; dir(quests_zenn)")
    assert "quests_zenn" in loaded
    assert not HEAVY & loaded
    # the measure itself can see them
    assert {"numba", "numpy"} <= modules_after("import quests_zenn; quests_zenn.entropy.entropy")


def test_clusters_need_dask_only_when_started() -> None:
    assert not {"dask", "distributed", "zarr", "numba", "ase"} & modules_after(
        "from quests_zenn.distributed import DaskBackend, connect, local_cluster"
    )


def test_entropy_needs_no_atoms() -> None:
    assert not {"ase", "torch", "matplotlib"} & modules_after("from quests_zenn.entropy import entropy, delta_entropy")


def test_descriptors_need_no_torch() -> None:
    assert not {"torch", "matplotlib"} & modules_after("from quests_zenn.descriptors import get_descriptors")


def test_free_energies_need_torch_only_when_fitted() -> None:
    code = "from quests_zenn.zenn import IDNN, ZENN, ZENNClassifier, thermo; ZENN().get_params(), ZENNClassifier()"
    assert not {"ase", "torch", "safetensors", "matplotlib"} & modules_after(code)


@pytest.mark.parametrize(
    "arguments",
    [
        ("entropy", "--help"),
        ("entropy", "--version"),
        ("entropy", "traj.xyz", "--k", "1"),
        ("main", "--help"),
        ("main", "entropy", "--help"),
        ("main", "info", "--help"),
        ("fit", "--help"),
        ("thermo", "--help"),
        ("thermo", "model", "--pressure", "0:8:x"),
    ],
)
def test_help_comes_before_numba(arguments: tuple[str, ...]) -> None:
    module, *words = arguments
    code = f"""
from quests_zenn.cli.{module} import {module}
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
    with contextlib.suppress(SystemExit):
        {module}({words!r})
assert len(out.getvalue()) > 5
"""
    assert not HEAVY & modules_after(code)


@pytest.mark.parametrize("script", ["quests-entropy", "quests-zenn"])
def test_scripts_are_installed(script: str) -> None:
    path = Path(sysconfig.get_path("scripts")) / script
    ended = subprocess.run([path, "--help"], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout.startswith("Usage:")
    assert ended.stderr == ""


def test_rooms_are_reached_by_attribute() -> None:
    assert set(dir(quests_zenn)) >= {"__version__", *ROOMS}
    for room in ROOMS:
        assert getattr(quests_zenn, room).__name__ == f"quests_zenn.{room}"
    with pytest.raises(AttributeError, match="module 'quests_zenn' has no attribute 'attic'"):
        quests_zenn.attic  # noqa: B018


@pytest.mark.parametrize("room", ROOMS)
def test_all_that_a_room_promises_is_there(room: str) -> None:
    module = getattr(quests_zenn, room)
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None


# --- who imports whom -------------------------------------------------------------------------------------------------


def test_all_rooms_are_on_the_plan() -> None:
    rooms = {room_of(name) for name in NAMES} - {""}
    assert rooms <= FLOOR.keys()
    assert rooms >= {"_core", "io", "descriptors", "entropy", "cli"}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_imports_upward(name: str) -> None:
    room = room_of(name)
    for other in rooms_imported(name) - {room}:
        assert other != "cli", "nobody imports cli"
        assert room != "", "the package itself imports none of its rooms"
        if other == "distributed":
            assert room == "cli", "only cli imports distributed"
        else:
            assert FLOOR[other] <= FLOOR[room], f"{name} imports {other}, which is above {room}"
    assert not FORBIDDEN.get(room, set()) & (rooms_imported(name) | {full.partition(".")[0] for full in imported(name)})


def test_rooms_of_one_floor_do_not_need_each_other_both_ways() -> None:
    needs = {(room_of(name), other) for name in NAMES for other in rooms_imported(name)}
    assert {(a, b) for a, b in needs if a != b and (b, a) in needs} == set()
    # the measure itself can see imports
    assert {("entropy", "_core"), ("descriptors", "io"), ("cli", "descriptors"), ("cli", "entropy")} <= needs


@pytest.mark.parametrize("name", NAMES)
def test_torch_is_imported_by_few_and_late(name: str) -> None:
    if any(full.partition(".")[0] == "torch" for full in imported(name)):
        assert room_of(name) in TORCH or name == "entropy/_torch.py"
    for node in TREES[name].body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not any(module.partition(".")[0] == "torch" for module in modules), "torch at the top of a module"


@pytest.mark.parametrize("name", NAMES)
def test_dask_and_zarr_are_imported_by_few_and_late(name: str) -> None:
    packages = {"dask", "distributed", "zarr"}
    found = {full.partition(".")[0] for full in imported(name)} & packages
    assert found <= DASK.get(room_of(name), set())
    for node in TREES[name].body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {module.partition(".")[0] for module in modules} & packages, "at the top of a module"


# --- what nobody does -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_one_jit_decorator(name: str) -> None:
    """Flags are chosen once, in _core/jit.py, and never all of them: we use infinities."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.keyword) and node.arg == "fastmath":
            assert name == "_core/jit.py", "flags are chosen in _core/jit.py"
            assert not isinstance(node.value, ast.Constant), "fastmath=True lets the compiler ignore infinities"
            assert not {"nnan", "ninf", "fast"} & set(ast.literal_eval(node.value))
        if name == "_core/jit.py":
            continue
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"njit", "jit", "vectorize", "guvectorize"}, f"line {node.lineno}: use _core.jit"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("numba"):
            names = {alias.name for alias in node.names}
            assert not {"njit", "jit", "vectorize", "guvectorize"} & names, f"line {node.lineno}: use _core.jit"


@pytest.mark.parametrize("name", NAMES)
def test_no_code_from_data(name: str) -> None:
    """Files and arguments are data: nothing in them is run."""
    dangerous = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    assert not {full.partition(".")[0] for full in imported(name)} & dangerous
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Call):
            function = called(node)
            assert function not in {"eval", "exec", "compile", "__import__", "os.system"}, f"line {node.lineno}"
            assert function.rpartition(".")[2] not in {"read_pickle", "to_pickle"}, f"line {node.lineno}"
            for keyword in node.keywords:
                refused = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                assert keyword.arg != "allow_pickle" or refused, f"line {node.lineno}"
                assert keyword.arg != "shell" or refused, f"line {node.lineno}"
            if function == "torch.load":
                only = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert only.get("weights_only") == "True", f"line {node.lineno}"


@pytest.mark.parametrize("name", NAMES)
def test_no_global_state_is_touched(name: str) -> None:
    """No seeding of global generators, no settings of NumPy, no muted warnings at the top of a module."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Call):
            assert called(node) not in {"np.random.seed", "numpy.random.seed", "random.seed", "np.seterr"}, node.lineno
    for node in TREES[name].body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            assert not called(node.value).startswith("warnings."), f"line {node.lineno}"


@pytest.mark.parametrize("name", NAMES)
def test_every_module_says_what_it_is(name: str) -> None:
    assert ast.get_docstring(TREES[name])


# --- the version ------------------------------------------------------------------------------------------------------


def test_version_is_that_of_the_installation() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?", quests_zenn.__version__)
    assert version("quests_zenn") == quests_zenn.__version__


def root_file(name: str) -> str:
    path = ROOT / name
    if not path.is_file():
        pytest.skip(f"{name} is not beside the tests")
    return path.read_text(encoding="utf-8")


def test_version_has_one_home() -> None:
    found = re.findall(r"^version\s*=\s*(.*)$", root_file("setup.cfg"), re.MULTILINE)
    assert found == ["attr: quests_zenn.__version__"]
    assert not re.search(r"^version\s*=", root_file("pyproject.toml"), re.MULTILINE)


def test_version_to_cite() -> None:
    found = re.findall(r"^version:\s*['\"]?([^'\"\s]+)", root_file("CITATION.cff"), re.MULTILINE)
    assert found == [quests_zenn.__version__]
