"""What is compressed: the structures of files, or environments that were written before, with what they are worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from quests_zenn._core.checks import DataError
from quests_zenn.cli._source import Source, known
from quests_zenn.descriptors import element_symbols
from quests_zenn.descriptors._layout import block_names
from quests_zenn.io.outputs import frame_mark
from quests_zenn.io.store import Store, open_store
from quests_zenn.io.store_form import is_store

#: Values that an error names.
MOST_NAMED = 20

#: Kinds of descriptors.
SPECIES = ("none", "blocks", "pairs")

#: Keys that a file of environments has.
_CONTENT = ("x", "frame_offsets", "numbers", "k", "cutoff", "species", "elements")


@dataclass
class Data:
    """Environments of all structures, wherever they come from.

    Attributes
    ----------
    x : (M, d)
    offsets : (S + 1,)
    numbers : (M,)
        Atomic numbers of the centres.
    labels : list of str
        Names of the structures.
    elements : tuple of str
        In the order of the blocks of a row.
    k, cutoff, species
        Of the descriptor.
    source : Source or None
        The frames, where there are any.
    flagged : tuple of int, or None
        Environments that are incomplete, and tied, where a store tells.
    """

    x: np.ndarray
    offsets: np.ndarray
    numbers: np.ndarray
    labels: list[str]
    elements: tuple[str, ...]
    k: int
    cutoff: float
    species: str
    source: Structures | None = None
    flagged: tuple[int, int] | None = None

    @property
    def sizes(self) -> np.ndarray:
        """Environments of each structure."""
        return np.diff(self.offsets)

    def parameters(self) -> dict[str, Any]:
        """What the document says of its input."""
        incomplete, tied = self.flagged or (None, None)
        if self.source is not None and hasattr(self.source, "environments"):
            incomplete, tied = self.source.flagged()
        return {
            "n_frames": len(self.labels), "n_environments": len(self.x), "elements": element_symbols(self.numbers),
            "k": self.k, "cutoff": self.cutoff, "species": self.species, "n_tied": tied, "n_incomplete": incomplete,
        }  # fmt: skip


class Structures(Source):
    """A source that also notes which frames are pinned, what they weigh and cost, and how to know them again."""

    def __init__(self, files: tuple[str, ...], options: dict[str, Any], volumes: bool | None = None) -> None:
        super().__init__(files, options, volumes)
        self.marks: list[int] = []
        self.weights: list[float] = []
        self.costs: list[float] = []
        # of each key of --keep, the values that are found, and which frames have them
        self.found: dict[str, dict[str, list[int]]] = {key: {} for key, _ in options["keep"]}
        self.without: dict[str, str] = {}

    def _note(self, label: str, atoms: Any) -> None:
        super()._note(label, atoms)
        number = len(self.marks)
        self.marks.append(frame_mark(atoms))
        for key, values in self.found.items():
            value = _said(atoms, key)
            if value is None:
                self.without.setdefault(key, f"{label}: no key {key!r} (its info holds {known(atoms)})")
            else:
                values.setdefault(str(value), []).append(number)
        if self.options["weight"] is not None:
            self.weights.append(_positive(atoms, self.options["weight"], label, "weight"))
        cost = self.options["cost"]
        if cost is not None:
            numbers = {"atoms": len(atoms), "electrons": int(atoms.numbers.sum())}
            self.costs.append(numbers[cost] if cost in numbers else _positive(atoms, cost, label, "cost"))

    def _key(self, label: str, atoms: Any) -> Any:
        """What --by says of a frame: like --keep and --cost, it also looks at the results of calculators."""
        if self.by not in (None, "file") and atoms.info.get(self.by) is None:
            value = getattr(atoms.calc, "results", {}).get(self.by)
            if value is not None and np.ndim(value) == 0:
                return value.item() if isinstance(value, np.generic) else value
        return super()._key(label, atoms)

    def frame_groups(self) -> tuple[np.ndarray, list[str]]:
        """Group of every frame by --by, and the names of the groups."""
        if self.without_key and len(self.without_key) == len(self.keys):
            raise DataError(f"{self.without_key[0]}; nor has any other frame (--by file works always)")
        return super().frame_groups()

    def pinned(self) -> np.ndarray:
        """Frames that --keep names, in the order of the input."""
        chosen: set[int] = set()
        for key, wanted in self.options["keep"]:
            values = self.found[key]
            if not values:
                raise DataError(f"{self.without[key]}; nor has any other frame")
            for value in [wanted] if wanted in values else wanted.split(","):
                if value.strip() not in values:
                    there = sorted(values)
                    more = f" and {len(there) - MOST_NAMED} more" if len(there) > MOST_NAMED else ""
                    raise DataError(
                        f"--keep {key}={wanted}: no frame has the {key} {value.strip()!r}; there are "
                        f"{', '.join(there[:MOST_NAMED])}{more}"
                    )
                chosen.update(values[value.strip()])
        return np.array(sorted(chosen), np.int64)


def _said(atoms: Any, key: str) -> Any:
    """What a frame says of itself under a key; None if nothing."""
    value = atoms.info.get(key)
    if value is None:
        value = getattr(atoms.calc, "results", {}).get(key)
    return value.item() if isinstance(value, np.generic) else value


def _positive(atoms: Any, key: str, label: str, what: str) -> float:
    """A positive number under a key."""
    value = _said(atoms, key)
    if value is None:
        raise DataError(f"{label}: no key {key!r} for --{what} (its info holds {known(atoms)})")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0.0):
        raise DataError(f"{label}: --{what} needs positive numbers, and its {key!r} is {value!r}")
    return number


def load_environments(path: str) -> Data:
    """Environments that `quests-zenn descriptors` wrote.

    Raises
    ------
    DataError
        If it is something else.
    """
    if is_store(path):
        return _of_store(open_store(path))
    if path.endswith(".npy"):
        raise DataError(
            f"{path}: holds a matrix alone, and not which rows belong to one structure; quests-zenn descriptors -o "
            "FILE.npz writes both"
        )
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    try:
        with open(path, "rb") as stream:  # closed whatever happens
            content = np.load(stream, allow_pickle=False)
            missing = [name for name in _CONTENT if name not in content.files]
            found = {name: content[name] for name in (*_CONTENT, "labels") if name in content.files}
    except MemoryError:
        raise
    except Exception as error:  # a damaged archive fails in any way there is
        what = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise DataError(f"{path}: is no file that quests-zenn descriptors wrote{what}") from error
    wrong = f"it lacks {', '.join(missing)}" if missing else _wrong(found)
    if wrong:
        raise DataError(f"{path}: is no file that quests-zenn descriptors wrote ({wrong})")
    x, offsets = np.ascontiguousarray(found["x"]), found["frame_offsets"].astype(np.int64)
    if not (np.diff(offsets) > 0).all():
        raise DataError(f"{path}: some of its frames have no environments; describe whole frames, without --select")
    n = len(offsets) - 1
    labels = found.get("labels", np.empty(0))
    names = [str(label) for label in labels] if labels.shape == (n,) else [f"{path}, frame {i}" for i in range(n)]
    return Data(
        x, offsets, found["numbers"].astype(np.int64), names, tuple(map(str, found["elements"])), int(found["k"]),
        float(found["cutoff"]), str(found["species"]),
    )  # fmt: skip


def _of_store(store: Store) -> Data:
    """Environments of a store, in memory."""
    offsets = store.frame_offsets
    if not (np.diff(offsets) > 0).all():
        raise DataError(
            f"{store.path}: some of its frames have no environments; describe whole frames, without --select"
        )
    return Data(
        store.read(0, len(store)), offsets, store.numbers.astype(np.int64), store.labels, store.elements, store.k,
        store.cutoff, store.species,
        flagged=(int(np.count_nonzero(store.incomplete)), int(np.count_nonzero(store.tied))),
    )  # fmt: skip


def _wrong(found: dict[str, np.ndarray]) -> str:
    """What is wrong with the arrays of a file; nothing if they fit together."""
    x, offsets, numbers, elements = found["x"], found["frame_offsets"], found["numbers"], found["elements"]
    k, cutoff, species = found["k"], found["cutoff"], found["species"]
    if x.ndim != 2 or x.dtype not in (np.float32, np.float64) or not len(x):
        return "x is no matrix of environments"
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or len(offsets) < 2:
        return "frame_offsets are no whole numbers"
    steps = offsets.astype(np.int64)
    if steps[0] != 0 or steps[-1] != len(x) or (np.diff(steps) < 0).any():
        return f"frame_offsets do not lead from 0 to the {len(x):,} rows of x"
    if numbers.shape != (len(x),) or numbers.dtype.kind not in "iu":
        return f"numbers are not the atomic numbers of the {len(x):,} rows of x"
    if not ((numbers > 0) & (numbers < len(chemical_symbols))).all():
        return "numbers hold what is no atomic number"
    if k.shape != () or k.dtype.kind not in "iu" or not 2 <= int(k) <= 4096:
        return "k is no number of neighbours"
    if cutoff.shape != () or cutoff.dtype.kind not in "iuf" or not 0.0 < float(cutoff) < math.inf:
        return "cutoff is no positive number"
    if species.shape != () or str(species) not in SPECIES:
        return f"species is none of {', '.join(SPECIES)}"
    if elements.ndim != 1 or elements.dtype.kind != "U" or not {*elements.tolist()} <= {*chemical_symbols[1:]}:
        return "elements are no chemical symbols"
    names = elements.tolist()
    if str(species) != "none" and (names != sorted({*names}) or not {*element_symbols(numbers)} <= {*names}):
        return "elements are not those of its atoms, in alphabetical order"
    width = len(block_names(names, str(species))) * (2 * int(k) - 1)
    if x.shape[1] != width:
        return f"x has {x.shape[1]:,} columns, and k, species and elements make {width:,}"
    if not np.isfinite(x).all():
        return "x holds values that are not finite"
    return ""
