"""Tables of numbers: csv with a header in, units from the names of columns, csv out."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import math
import os
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, DataWarning
from quests_zenn.io.outputs import replacing

FloatArray = npt.NDArray[np.float64]

# CODATA 2018 (Tiesinga et al., Rev. Mod. Phys. 93 (2021) 025010). The first three are exact in the SI since 2019;
# `ase.units`, which holds CODATA 2014, agrees to 1e-6 in k_B and to 2e-8 in all else.
_CHARGE = 1.602176634e-19  # C
_AVOGADRO = 6.02214076e23  # 1/mol
_BOLTZMANN = 1.380649e-23 / _CHARGE  # eV/K
_HARTREE = 27.211386245988  # eV
_BOHR = 0.529177210903  # Å
_PER_MOLE = 1.0 / (_CHARGE * _AVOGADRO)  # eV per unit, of 1 J per mole of units
_CALORIE = 4.184  # J, thermochemical, by definition
_GPA = 1e21 * _CHARGE  # GPa of 1 eV/Å3

#: For each kind of quantity its units, and what one of them is in the first, which is the one used inside.
UNITS: dict[str, dict[str, float]] = {
    "volume": {"A3": 1.0, "nm3": 1e3, "pm3": 1e-6, "bohr3": _BOHR**3, "cm3_mol": 1e24 / _AVOGADRO},
    "temperature": {"K": 1.0, "mK": 1e-3, "kK": 1e3},
    "energy": {
        "eV": 1.0, "meV": 1e-3, "Ha": _HARTREE, "mHa": 1e-3 * _HARTREE, "Ry": 0.5 * _HARTREE,
        "mRy": 5e-4 * _HARTREE, "kJ_mol": 1e3 * _PER_MOLE, "J_mol": _PER_MOLE, "kcal_mol": 1e3 * _CALORIE * _PER_MOLE,
    },
    "pressure": {
        "GPa": 1.0, "MPa": 1e-3, "Pa": 1e-9, "kbar": 0.1, "bar": 1e-4, "Mbar": 100.0, "eV_A3": _GPA,
        "meV_A3": 1e-3 * _GPA, "Ha_bohr3": _HARTREE / _BOHR**3 * _GPA, "Ry_bohr3": 0.5 * _HARTREE / _BOHR**3 * _GPA,
    },
    "entropy": {
        "eV_K": 1.0, "meV_K": 1e-3, "kB": _BOLTZMANN, "J_mol_K": _PER_MOLE, "J_K_mol": _PER_MOLE,
        "kJ_mol_K": 1e3 * _PER_MOLE, "cal_mol_K": _CALORIE * _PER_MOLE,
    },
}  # fmt: skip

#: The kind of each unit.
KINDS: dict[str, str] = {unit: kind for kind, units in UNITS.items() for unit in units}

#: Cells that stand for a missing number.
MISSING = frozenset({"", "nan", "na", "n/a", "none", "null", "-", "--"})

_ARTICLE = {"entropy": "an", "energy": "an"}


@dataclass(frozen=True)
class Table:
    """Columns of numbers.

    Attributes
    ----------
    path : Path
        Where it came from.
    names : tuple of str
        Of all columns, those with text too, in the order of the file.
    columns : dict of (n,) arrays
        The columns that hold numbers, as float64; NaN where a number is missing.
    lines : (n,)
        Line of the file on which each row ends, counted from 1.
    text : dict
        Columns that hold something else: the line and content of the first such cell.
    records : list
        Cells of each row as they stand, with those of columns that have no name.
    place : dict
        Where each column stands in a record.
    """

    path: Path
    names: tuple[str, ...]
    columns: dict[str, FloatArray]
    lines: npt.NDArray[np.int64]
    text: dict[str, tuple[int, str]] = field(default_factory=dict)
    records: list[list[str]] = field(default_factory=list, repr=False)
    place: dict[str, int] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, name: str) -> FloatArray:
        """The numbers of a column, (n,).

        Raises
        ------
        DataError
            If there is no such column, or it holds text or infinity.
        """
        self._must_have(name)
        if name in self.text:
            line, cell = self.text[name]
            decimal = "; numbers have a decimal point" if re.fullmatch(r"[-+]?\d+,\d+", cell) else ""
            raise DataError(f"{self.path}, line {line}: {name} must be a number, got {_short(cell)!r}{decimal}")
        values = self.columns[name]
        infinite = np.flatnonzero(np.isinf(values))
        if len(infinite):
            raise DataError(f"{self.path}, line {self.lines[infinite[0]]}: {name} must be finite, got infinity")
        return values

    def words(self, name: str) -> list[str]:
        """The cells of a column as they stand, n of them.

        Raises
        ------
        DataError
            If there is no such column.
        """
        self._must_have(name)
        return [record[self.place[name]].strip() for record in self.records]

    def _must_have(self, name: str) -> None:
        if name not in self.names:
            raise DataError(f"{self.path}: has no column {name!r}{nearest(name, self.names)}")

    def rows(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Table:
        """Some rows, by a mask (n,) or their numbers."""
        columns = {name: values[which] for name, values in self.columns.items()}
        records = [self.records[i] for i in np.arange(len(self))[which].tolist()]
        return Table(self.path, self.names, columns, self.lines[which], self.text, records, self.place)


def nearest(name: str, names: Sequence[str]) -> str:
    """How a message ends that says that `name` is not among `names`: the one that was meant, or all."""
    alike = {other.lower(): other for other in reversed(names)}
    close = difflib.get_close_matches(name.lower(), alike, 1, 0.6)
    if close:
        return f"; did you mean {_short(alike[close[0]])}?"
    named = ", ".join(map(_short, names[:12])) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"; there are {named}"


def unit_of(name: str) -> str | None:
    """The unit at the end of the name of a column: ``eV_K`` of ``entropy_eV_K``; None where there is none known."""
    found = [unit for unit in KINDS if name.endswith(f"_{unit}")]
    return max(found, key=len, default=None)


def check_unit(unit: str, kind: str) -> str:
    """`unit`, if it is one of this kind.

    Raises
    ------
    ValueError
        If no such unit or kind is known, or the unit is one of something else.
    """
    if kind not in UNITS:
        raise ValueError(f"kind must be one of {', '.join(UNITS)}, got {kind!r}")
    if unit in UNITS[kind]:
        return unit
    known = ", ".join(UNITS[kind])
    if unit in KINDS:
        there = KINDS[unit]
        raise ValueError(
            f"{unit} is a unit of {there}, where {_ARTICLE.get(kind, 'a')} {kind} is needed; its units are {known}"
        )
    raise ValueError(f"{unit!r} is no known unit of {kind}; known are {known}")


def convert(values: npt.ArrayLike, unit: str, kind: str) -> FloatArray:
    """`values` in the unit used inside: Å3, K, eV, GPa, eV/K.

    Parameters
    ----------
    values : array
    unit : str
        One of `UNITS` [kind]; ``kJ_mol`` and the like are per mole of the units (atoms or cells) that values refer to.
    kind : str
        ``volume``, ``temperature``, ``energy``, ``pressure`` or ``entropy``.

    Raises
    ------
    ValueError
        If the unit is none of this kind.
    """
    factor = UNITS[kind][check_unit(unit, kind)]
    array = np.asarray(values, np.float64)
    return array if factor == 1.0 else array * factor


def read_table(path: str | os.PathLike[str]) -> Table:
    """A table of numbers: csv, UTF-8, with names of columns in its first line; compressed if its name ends in .gz.

    Columns may be separated by semicolons or tabs in place of commas; a DataWarning then says so. Lines that begin with
    # before the header, and empty lines, are passed over. Empty cells and NaN are missing numbers. Columns of text are
    refused only when their numbers are asked for.

    Raises
    ------
    DataError
        If it cannot be read, has no header or no rows, two columns have the same name, or a line has too many or too
        few cells.
    """
    source = Path(path)
    content = _read_text(source)
    lines = list(io.StringIO(content, newline=""))
    first = next((i for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")), None)
    if first is None:
        raise DataError(f"{source}: is empty; a table has names of columns in its first line, and rows of numbers")
    separator = _separator(lines[first])
    if separator != ",":
        told = {";": "semicolons", "\t": "tabs"}[separator]
        warnings.warn(f"{source}: columns are separated by {told}, not commas; read as such", DataWarning, stacklevel=2)
    numbers, records = _records(source, lines[first:], separator, first)
    names = tuple(cell.strip() for cell in records[0])
    _check_header(source, names, numbers[0])
    for line, record in zip(numbers[1:], records[1:], strict=True):
        if len(record) != len(names):
            raise DataError(
                f"{source}, line {line}: has {len(record)} cell{'s' * (len(record) != 1)}, and the header "
                f"{len(names)} name{'s' * (len(names) != 1)}"
            )
    if len(records) == 1:
        raise DataError(f"{source}: has a header and no rows")
    columns: dict[str, FloatArray] = {}
    text: dict[str, tuple[int, str]] = {}
    for number, name in enumerate(names):
        if not name:
            continue  # an index that nobody named
        values = np.empty(len(records) - 1)
        for row, record in enumerate(records[1:]):
            value = _number(record[number])
            if value is None:
                text[name] = numbers[row + 1], record[number].strip()
                break
            values[row] = value
        else:
            columns[name] = values
    place = {name: number for number, name in enumerate(names) if name}
    return Table(source, tuple(place), columns, np.array(numbers[1:], np.int64), text, records[1:], place)


def write_table(
    path: str | os.PathLike[str], columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]], overwrite: bool = False
) -> None:
    """Write columns (n,) as csv that `read_table` reads back to the last bit; NaN is an empty cell, True is 1.

    Raises
    ------
    DataError
        See `quests_zenn.io.outputs.check_output`.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    cells = [[_cell(value) for value in np.asarray(values).tolist()] for values in columns.values()]
    writer.writerows(zip(*cells, strict=True))
    text = stream.getvalue()
    data = text.encode("utf-8")
    with replacing(path, overwrite) as temporary:
        temporary.write_bytes(gzip.compress(data, mtime=0) if os.fspath(path).endswith(".gz") else data)


def _cell(value: float | bool | int | str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(int(value))
    return "" if isinstance(value, float) and math.isnan(value) else repr(value)


def _read_text(source: Path) -> str:
    """Content of a file, without the mark that some programs put before UTF-8."""
    if source.exists() and not source.is_file():
        raise DataError(f"{source}: is a folder, a pipe or a device, not a file")
    try:
        data = source.read_bytes()
        if source.suffix == ".gz":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{source}: no such file") from None
    except UnicodeDecodeError as error:
        if error.object[:2] == b"\x1f\x8b":
            raise DataError(f"{source}: is compressed; its name must end in .gz") from None
        raise DataError(f"{source}: is no text in UTF-8; a table is read as csv") from None
    except (OSError, EOFError, zlib.error) as error:
        what = getattr(error, "strerror", None) or error
        raise DataError(f"{source}: cannot be read ({what})") from None


def _records(source: Path, lines: list[str], separator: str, before: int) -> tuple[list[int], list[list[str]]]:
    """Numbers of the lines that are not empty, and the cells of each; `before` lines precede those given."""
    numbers, records = [], []
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        for record in reader:
            if any(cell.strip() for cell in record):
                numbers.append(before + reader.line_num)
                records.append(record)
    except csv.Error as error:
        raise DataError(f"{source}, line {before + reader.line_num}: cannot be read as csv ({error})") from None
    return numbers, records


def _separator(header: str) -> str:
    return max(",;\t", key=header.count)  # the first of equals


def _check_header(source: Path, names: tuple[str, ...], line: int) -> None:
    if all(_number(name) is not None for name in names):
        raise DataError(f"{source}: has no header; names of columns belong in its first line, with units (volume_A3)")
    for name in filter(None, names):
        if names.count(name) > 1:
            raise DataError(f"{source}, line {line}: two columns have the name {name!r}")


def _number(cell: str) -> float | None:
    """A cell as a number, NaN where it is missing, None where it is something else."""
    cell = cell.strip()
    if cell.lower() in MISSING:
        return math.nan
    if "_" in cell or not cell.isascii():  # Python reads 1_000 and digits of all scripts
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
