"""A run from a file: TOML whose tables name domain, oracle, model, criteria, budget. Unknown keys are errors.

Paths in the file are relative to the folder that it lies in.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quests_zenn._core.checks import DataError, positive
from quests_zenn.io.frames import read_atoms
from quests_zenn.io.tables import read_table
from quests_zenn.sampling.domain import Polytope
from quests_zenn.sampling.loop import ActiveLearning, Progress, Stop
from quests_zenn.sampling.oracles import IcetOracle, PoolOracle, ProgramOracle
from quests_zenn.sampling.snapshots import COLUMN, Snapshots
from quests_zenn.zenn import IdealMixing

#: Tables of a file.
TABLES = ("run", "domain", "oracle", "model", "criteria", "budget", "scores", "stop", "test")

#: Keys of [domain] by its kind, and those of all kinds.
DOMAINS = {
    "file": ("file",),
    "sublattices": ("file", "order_parameters"),
    "box": ("low", "high"),
    "simplex": ("dimensions",),
}
OF_ALL_DOMAINS = ("names", "conserved", "slices", "plane", "scale")

#: What keys of [domain] are called elsewhere.
MEANT = {"Q": "file", "q": "file", "matrix": "file", "n": "order_parameters"}


class Part:
    """One table of the file: what is asked of it is taken out, and what is left at the end nobody knows."""

    def __init__(self, where: str, name: str, values: Any, folder: Path) -> None:
        if not isinstance(values, Mapping):
            raise DataError(f"{where}: [{name}] must be a table")
        self.where, self.name, self.values, self.folder = where, name, dict(values), folder
        self.known: list[str] = []

    def take(self, key: str, default: Any = None, kind: type | tuple[type, ...] | None = None) -> Any:
        """The value of a key, or the default."""
        self.known.append(key)
        value = self.values.pop(key, default)
        if value is not None and kind is not None:
            wrong = isinstance(value, bool) and kind is not bool
            if wrong or not isinstance(value, kind):
                names = [k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,))]
                raise DataError(
                    f"{self.where}: {key} of [{self.name}] must be of type {' or '.join(names)}, got {value!r}"
                )
        return value

    def need(self, key: str, kind: type | tuple[type, ...] | None = None) -> Any:
        """The value of a key that must be there."""
        value = self.take(key, None, kind)
        if value is None:
            raise DataError(f"{self.where}: [{self.name}] needs {key}")
        return value

    def file(self, key: str) -> Path:
        """A file that must be there."""
        path = self.folder / self.need(key, str)
        if not path.is_file():
            raise DataError(f"{self.where}: {key} of [{self.name}] names {path}, which is no file")
        return path

    def one_of(self, key: str, choices: tuple[str, ...], default: str | None = None) -> str:
        """One of several words."""
        value = self.take(key, default, str)
        if value not in choices:
            raise DataError(
                f"{self.where}: {key} of [{self.name}] must be one of {', '.join(choices)}, got {value!r}"
                + suggestion(str(value), choices)
            )
        return str(value)

    def done(self) -> None:
        """Nothing may be left."""
        self.only(self.known)

    def only(self, known: Sequence[str], meant: Mapping[str, str] | None = None) -> None:
        """Other keys than these may not be left; `meant` has what is called otherwise elsewhere."""
        for key in self.values:
            if key not in known:
                hint = f" (did you mean {meant[key]!r}?)" if meant and key in meant else suggestion(key, known)
                raise DataError(f"{self.where}: [{self.name}] has no key {key!r}{hint}; it knows {', '.join(known)}")


def suggestion(word: str, known: Any) -> str:
    """What may have been meant."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The tables of a file.

    Raises
    ------
    DataError
        If it is no such file, or has tables that nobody knows.
    """
    source = Path(path)
    try:
        content = tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: is no text in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{source}: is no TOML: {error}") from error
    for name in content:
        if name not in TABLES:
            raise DataError(
                f"{source}: unknown table [{name}]{suggestion(name, TABLES)}; known are {', '.join(TABLES)}"
            )
    for name in ("domain", "oracle"):
        if name not in content:
            raise DataError(f"{source}: needs a table [{name}]")
    return content


def from_config(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    n_jobs: int | None = None,
    progress: Progress | None = None,
) -> ActiveLearning:
    """The run that a file describes.

    Parameters
    ----------
    path : path
    folder : path, optional
        Where the run is kept; by default what the file says, else a folder beside it with its name.
    n_jobs : int, optional
    progress : callable, optional

    Raises
    ------
    DataError
        If something is missing, unknown or does not fit.
    """
    source = Path(path)
    content = read_config(source)
    where, here = str(source), source.absolute().parent

    def part(name: str) -> Part:
        return Part(where, name, content.get(name, {}), here)

    run = part("run")
    place = run.take("folder", None, str)
    seed = run.take("seed", 0, int)
    temperature = run.take("temperature", None, (int, float, list))
    run.done()
    space = part("domain")
    domain, mixing = _domain(space)
    settings: dict[str, Any] = {
        "conserved": [_axis(space, "conserved", name, domain) for name in space.take("conserved", [], list)],
        "slices": _slices(space, domain),
        "plane": space.take("plane", None, list),
        "scale": space.take("scale", None, list),
    }
    space.done()
    if "scores" in content:
        settings["scores"] = _scores(part("scores"))
    asked = part("oracle")
    oracle = _oracle(asked, domain, "scores" in content)
    asked.done()
    described = part("model")
    tuning = {
        "tune_at": described.take("tune_at", [], list),
        "tune_trials": described.take("tune_trials", 12, int),
        "tune_space": _space(described),
    }
    model = _model(described, mixing)
    criteria = content.get("criteria")
    if criteria is not None:
        if not isinstance(criteria, Mapping) or not criteria:
            raise DataError(f"{where}: [criteria] must be a table of names and shares")
        for name, share in criteria.items():
            if isinstance(share, bool) or not isinstance(share, int | float):
                raise DataError(f"{where}: the share of {name!r} in [criteria] must be a number, got {share!r}")
    budget = part("budget")
    settings |= {
        "initial": budget.take("initial", 40, int),
        "per_round": budget.take("per_round", 20, int),
        "dynamic": budget.take("dynamic", True, bool),
        "novelty": budget.take("novelty", True, bool),
        "n_candidates": budget.take("candidates", 20_000, int),
        "min_distance": float(budget.take("min_distance", 1e-3, (int, float))),
        "recency": float(budget.take("recency", 1.0, (int, float))),
        "surplus": float(budget.take("surplus", 4.0, (int, float))),
        "tolerance": float(budget.take("convex_tolerance", 0.0, (int, float))),
    }
    total = budget.take("total", 300, int)
    budget.done()
    ending = part("stop")
    tolerance = ending.take("tolerance", None, (int, float))
    patience = ending.take("patience", 2, int)
    ending.done()
    test = None
    if "test" in content:
        table = part("test")
        told = content["oracle"] if isinstance(oracle, PoolOracle) else {}
        measured = PoolOracle.from_csv(table.file("file"), **_columns_of(table, domain, told))
        table.done()
        test = (measured.x, measured.T, measured.mu)
    target = Path(folder) if folder is not None else here / (place or source.stem)
    if folder is None and place is None and target == source.absolute():
        target = here / f"{source.name}.run"
    try:
        return ActiveLearning(
            domain,
            oracle,
            model=model,
            criteria=criteria,
            stop=Stop(total, tolerance, patience),
            temperature=temperature,
            test=test,
            folder=target,
            random_state=seed,
            n_jobs=n_jobs,
            progress=progress,
            **tuning,
            **settings,
        )
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _axis(part: Part, key: str, name: Any, domain: Polytope) -> int:
    """Number of an order parameter by its name."""
    if name not in domain.names:
        raise DataError(
            f"{part.where}: {key} of [{part.name}] names {name!r}{suggestion(str(name), domain.names)}; the order "
            f"parameters are {', '.join(domain.names)}"
        )
    return domain.names.index(name)


def _slices(part: Part, domain: Polytope) -> list[tuple[int, int]] | None:
    """Pairs of order parameters by name."""
    given = part.take("slices", None, list)
    if given is None:
        return None
    for pair in given:
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError(f"{part.where}: slices of [{part.name}] must be pairs of order parameters, got {pair!r}")
    return [(_axis(part, "slices", a, domain), _axis(part, "slices", b, domain)) for a, b in given]


def _given(part: Part, kinds: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """Those of some keys that are there; the others have the defaults of whoever takes them."""
    found = {name: part.take(name, None, kind) for name, kind in kinds.items()}
    return {name: value for name, value in found.items() if value is not None}


def _scores(part: Part) -> Snapshots:
    """How points are scored by their frames: the keys are the settings of `Snapshots`."""
    numbers = (int, float)
    given = _given(
        part,
        {
            "k": int, "cutoff": numbers, "bandwidth": numbers, "species": str, "weights": str, "novelty": bool,
            "clip": list, "elements": list,
        },
    )  # fmt: skip
    part.done()
    try:
        return Snapshots(**given)
    except ValueError as error:
        raise DataError(f"{part.where}: [scores]: {error}") from error


def _domain(part: Part) -> tuple[Polytope, IdealMixing | None]:
    """Where points may lie, and ideal mixing per site where the domain tells occupations."""
    names = part.take("names", None, list)
    kind = part.one_of("kind", tuple(DOMAINS))
    part.only(("kind", *DOMAINS[kind], *OF_ALL_DOMAINS), {k: v for k, v in MEANT.items() if v in DOMAINS[kind]})
    mixing = None
    try:
        if kind == "file":
            domain = Polytope.read(part.file("file"))
        elif kind == "box":
            domain = Polytope.box(part.need("low", list), part.need("high", list))
        elif kind == "simplex":
            count = part.need("dimensions", int)
            domain, mixing = Polytope.simplex(count), IdealMixing.simplex(count)
        else:
            matrix, first = _matrix(part), part.take("order_parameters", None, int)
            domain, mixing = Polytope.from_sublattices(matrix, first), IdealMixing.sublattices(matrix, first)
        return domain if names is None else Polytope(domain.A, domain.b, names=[str(n) for n in names]), mixing
    except ValueError as error:
        text = str(error)
        raise DataError(text if text.startswith(part.where) else f"{part.where}: [domain]: {text}") from error


def _matrix(part: Part) -> Any:
    path = part.file("file")
    try:
        return np.atleast_2d(np.loadtxt(path, dtype=np.float64))
    except ValueError as error:
        raise DataError(f"{path}: is no matrix of numbers ({error})") from error


def _columns_of(part: Part, domain: Polytope, usual: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Which columns of a table hold what; where it is not said, as another table says."""
    usual = usual or {}
    columns = part.take("x", usual.get("x", list(domain.names)), list)
    potentials = part.take("mu", usual.get("mu", [f"mu_{i}" for i in range(domain.dim)]), list)
    temperature = part.take("T", usual.get("T", 300.0), (int, float, str))
    return {"x": columns, "mu": potentials, "T": temperature}


def _oracle(part: Part, domain: Polytope, scored: bool) -> Any:
    kind = part.one_of("kind", ("pool", "program", "lattice", "icet"))
    if kind == "pool":
        path, columns = part.file("file"), _columns_of(part, domain)
        files = part.take("snapshots", None, str)
        if files is None and scored and COLUMN in read_table(path).names:
            files = COLUMN
        return PoolOracle.from_csv(path, **columns, snapshots=files)
    if kind == "program":
        command = part.need("command", (str, list))
        more = _given(part, {"timeout": (int, float), "retries": int, "per": str, "input": str, "output": str})
        try:
            return ProgramOracle(command, names=domain.names, folder=part.folder, **more)
        except ValueError as error:
            raise DataError(f"{part.where}: [oracle]: {error}") from error
    if kind == "icet":
        return _icet_oracle(part)
    from quests_zenn.sampling._config_lattice import lattice_oracle

    return lattice_oracle(part, domain)


def _icet_oracle(part: Part) -> IcetOracle:
    """Monte Carlo of a cluster expansion of icet, which `IcetOracle.save` wrote as JSON."""
    path = part.file("file")
    supercell = part.need("supercell", (list, str))
    if isinstance(supercell, str):
        try:
            supercell = next(read_atoms(part.folder / supercell))[1]
        except DataError as error:
            raise DataError(f"{part.where}: supercell of [{part.name}]: {error}") from error
    species = part.need("species", (list, str))
    numbers = (int, float)
    more = _given(
        part,
        {
            "sweeps": int, "phi": numbers, "equilibration": numbers, "ensemble": str, "boltzmann": numbers,
            "timeout": numbers, "retries": int,
        },
    )  # fmt: skip
    try:
        return IcetOracle(path, supercell, species, **more)
    except ValueError as error:
        raise DataError(f"{part.where}: [oracle]: {error}") from error


def _space(part: Part) -> dict[str, list[Any]] | None:
    """Choices for settings of the model; lists, which widths are, as tuples."""
    given = part.take("tune_space", None, dict)
    if given is None:
        return None
    for name, choices in given.items():
        if not isinstance(choices, list) or not choices:
            raise DataError(f"{part.where}: tune_space of [{part.name}] must have a list of choices for {name!r}")
    return {name: [tuple(c) if isinstance(c, list) else c for c in choices] for name, choices in given.items()}


def _model(part: Part, mixing: IdealMixing | None) -> Any:
    """The model that a table describes: its keys are settings of the class, but ``ideal``, which is true, or the
    number of sites that g refers to."""
    kind = part.one_of("kind", ("IDNN", "ZENN"), "IDNN")
    import quests_zenn.zenn as room

    make = getattr(room, kind)
    model = make() if kind == "IDNN" else make(coordinate="order")
    known = [name for name in model.get_params() if name not in ("coordinate", "n_jobs", "random_state", "warm_start")]
    settings: dict[str, Any] = {"verbose": False}
    for name in known:
        value = part.take(name)
        if value is None:
            continue
        if name == "ideal":
            value = _ideal(part, value, mixing)
        if name == "inputs" and isinstance(value, str) and value != "x":
            value = part.folder / value
        settings[name] = tuple(value) if name == "hidden" and isinstance(value, list) else value
    part.done()
    try:
        return model.set_params(**settings)
    except ValueError as error:
        raise DataError(f"{part.where}: [model]: {error}") from error


def _ideal(part: Part, value: Any, mixing: IdealMixing | None) -> IdealMixing | None:
    """What ``ideal`` asks for: nothing, ideal mixing per site, or that of so many sites."""
    where = f"{part.where}: ideal of [model]"
    if value is False:
        return None
    if mixing is None:
        raise DataError(f'{where} needs a [domain] that tells occupations: kind = "sublattices" or "simplex"')
    if value is True:
        return mixing
    try:
        sites = positive(value, "ideal")
    except ValueError:
        raise DataError(f"{where} must be true, false or the number of sites that g refers to, got {value!r}") from None
    if not 1e-9 <= sites <= 1e9:
        raise DataError(f"{where}: g of {sites:g} sites is a mistake")
    return IdealMixing(mixing.P, mixing.c, mixing.weights * sites)
