"""Data sets of chemiscope.

https://chemiscope.org/docs describes the format.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, MissingExtraError
from quests_zenn.io.outputs import replacing

#: Digits of numbers in a data set of chemiscope, which are there to be looked at.
DIGITS = 7


def check_chemiscope() -> Any:
    """The module ``chemiscope.input``, which makes and judges data sets.

    Raises
    ------
    MissingExtraError
        If chemiscope is not installed.
    """
    try:
        import chemiscope.input
    except ImportError:
        raise MissingExtraError("chemiscope", "interop") from None
    return chemiscope.input


def as_structure(
    symbols: Sequence[str],
    positions: npt.NDArray[np.float64],
    cell: npt.NDArray[np.float64],
    pbc: npt.NDArray[np.bool_],
) -> dict[str, Any]:
    """One structure as chemiscope writes it down.

    The format knows no periodic axes: a structure has a cell or none. Here it has one where the frame is periodic along
    any axis and the cell has a volume.

    Parameters
    ----------
    symbols : n names of elements
    positions : (n, 3), Å
    cell : (3, 3), Å
    pbc : (3,)
    """
    x, y, z = (_rounded(positions[:, axis]) for axis in range(3))
    structure = {"size": len(symbols), "names": list(symbols), "x": x, "y": y, "z": z}
    if np.any(pbc) and abs(np.linalg.det(cell)) > 1e-6:
        structure["cell"] = _rounded(cell.ravel())
    return structure


def write_dataset(
    path: str | os.PathLike[str],
    *,
    name: str,
    description: str,
    structures: Sequence[Mapping[str, Any]],
    environments: Sequence[tuple[int, int, float]],
    properties: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    overwrite: bool = False,
) -> None:
    """Write a data set of chemiscope: structures, environments in them, and what is known of both.

    It is made and judged by the package chemiscope, and written with seven digits; the same content gives the same
    bytes, compressed or not.

    Parameters
    ----------
    path : str or path
        Ends in .json or .json.gz.
    structures : sequence of mappings
        See `as_structure`.
    environments : sequence of (structure, atom, radius in Å)
    properties : mapping
        By name ``target`` (``atom``: one value for each environment; ``structure``), ``values``, and where there are
        any ``units`` and ``description``. Values are finite numbers or text.
    settings : mapping
        What the viewer shows at first.

    Raises
    ------
    DataError
        If chemiscope refuses it, a number is not finite, or see `quests_zenn.io.outputs.check_output`.
    MissingExtraError
        If chemiscope is not installed.
    """
    chemiscope = check_chemiscope()
    for key, entry in properties.items():
        values = np.asarray(entry["values"])
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(f"{os.fspath(path)}: the property {key!r} holds numbers that are not finite")
    try:
        data = chemiscope.create_input(
            list(structures),
            metadata={"name": name, "description": description},
            properties={key: dict(entry) for key, entry in properties.items()},
            environments=list(environments),
            settings=dict(settings),
        )
    except Exception as error:  # chemiscope raises bare exceptions
        raise DataError(f"{os.fspath(path)}: chemiscope refuses the data set ({error})") from error
    for entry in data["properties"].values():
        if not isinstance(entry["values"][0], str):
            entry["values"] = _rounded(entry["values"])
    text = json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n"
    _write(path, text, overwrite)


def _write(path: str | os.PathLike[str], text: str, overwrite: bool) -> None:
    data = text.encode("utf-8")
    with replacing(path, overwrite) as temporary:
        # no time and no name in the header, so that equal content gives equal bytes
        temporary.write_bytes(gzip.compress(data, mtime=0) if os.fspath(path).endswith(".gz") else data)


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") + 0.0 for value in np.asarray(values, np.float64).tolist()]
