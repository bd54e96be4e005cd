"""What frames say of energy, pressure, volume and temperature, file by file."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, DataWarning, one_of, positive
from quests_zenn.io.frames import read_atoms, split_index

FloatArray = npt.NDArray[np.float64]

#: GPa of 1 eV/Å3.
GPA = 160.2176634

#: What the stress of a frame holds: forces between atoms alone, as ASE's calculators have it, or motion as well.
STRESSES = ("virial", "total")


@dataclass(frozen=True)
class Samples:
    """Frames of one file in the order of the file; all arrays (n,).

    Attributes
    ----------
    spec : str
        The file, with its index if it has one.
    labels : list of str
        ``file, frame 7``, for messages.
    n_atoms : array of int
    volume : array, Å3 per atom
    temperature : array, K
        What each frame says, else what was given for the file, else the mean of `kinetic` over the file.
    told : array of bool
        Whether the temperature is one that was set, not one that was measured.
    kinetic : array, K
        From velocities, NaN where there are none.
    potential : array, eV per atom
        NaN where there is none.
    virial : array, GPa
        Pressure of the forces between atoms alone, NaN where there is none.
    type_map : mapping or None
        Atomic numbers of the types of a LAMMPS dump, to read frames again.
    """

    spec: str
    labels: list[str]
    n_atoms: npt.NDArray[np.int64]
    volume: FloatArray
    temperature: FloatArray
    told: npt.NDArray[np.bool_]
    kinetic: FloatArray
    potential: FloatArray
    virial: FloatArray
    type_map: Mapping[int, int] | None = None

    def __len__(self) -> int:
        return len(self.volume)


def read_samples(
    spec: str | os.PathLike[str],
    temperature: float | None = None,
    *,
    energy_key: str | None = None,
    stress: str = "virial",
    type_map: Mapping[int, int] | None = None,
) -> Samples:
    """Read one file of frames.

    Parameters
    ----------
    spec : path
        Any file that ASE reads, with an ASE index (``run.xyz@::5``) if only some frames are wanted.
    temperature : float, optional
        K, of frames that do not say theirs in ``info['temperature']`` or ``info['temperature_K']``.
    energy_key : str, optional
        Key of ``info`` that holds the potential energy of the frame, eV; by default that of the calculator, or
        ``info['energy']``.
    stress : {"virial", "total"}
        Whether stresses hold the forces between atoms alone, as those of ASE's calculators do, or the motion of the
        atoms as well.
    type_map : mapping, optional
        Atomic numbers of the types of a LAMMPS dump.

    Returns
    -------
    Samples

    Raises
    ------
    DataError
        If the file cannot be read, a frame has no volume, numbers are not finite, or no temperature is known.
    ValueError
        If an argument makes no sense.
    """
    one_of(stress, "stress", STRESSES)
    given = None if temperature is None else positive(temperature, "temperature")
    labels: list[str] = []
    rows: list[tuple[float, ...]] = []
    for label, atoms in read_atoms(spec, type_map):
        labels.append(label)
        rows.append(_row(label, atoms, energy_key, stress))
    n_atoms, volume, told, kinetic, potential, pressure = np.array(rows).T
    path = split_index(spec)[0]
    found = np.where(np.isnan(told), math.nan if given is None else given, told)
    if given is not None and not np.isnan(told).any():
        warnings.warn(
            f"{path}: its frames say their temperature ({told.min():g} to {told.max():g} K); {given:g} K is not used",
            DataWarning,
            stacklevel=2,
        )
    set_ = np.isfinite(found)
    if not set_.all():
        moving = kinetic[np.isfinite(kinetic)]
        if not len(moving):
            first = labels[int(np.flatnonzero(~set_)[0])]
            raise DataError(
                f"{first}: says no temperature and has no velocities; name it with --temperature {path}=K, or write "
                "info['temperature']"
            )
        found = np.where(set_, found, moving.mean())
    if stress == "total":
        # what stays is the part of the forces: motion is put back at the temperature of the state
        kelvin = np.where(np.isfinite(kinetic), kinetic, found)
        pressure = pressure - GPA * BOLTZMANN * kelvin / volume
    counts = n_atoms.astype(np.int64)
    return Samples(os.fspath(spec), labels, counts, volume, found, set_, kinetic, potential, pressure, type_map)


#: eV/K.
BOLTZMANN = 8.617333262145179e-05


#: K, Å3 per atom, eV per atom and GPa between which numbers of frames lie.
LIMITS = {"temperature": (1e-3, 1e7), "volume": (0.5, 1e5), "energy": (-1e6, 1e6), "pressure": (-1e5, 1e5)}


def _row(label: str, atoms: Any, energy_key: str | None, stress: str) -> tuple[float, ...]:
    """Atoms, volume, told and kinetic temperature, potential energy and pressure of a frame."""
    n = len(atoms)
    if not np.asarray(atoms.pbc).all():
        raise DataError(f"{label}: is not periodic in three directions, so that it has no volume; a state needs one")
    volume = abs(float(np.linalg.det(np.asarray(atoms.cell))))
    if not (math.isfinite(volume) and volume > 0.0):
        raise DataError(f"{label}: its cell has no volume")
    info, results = atoms.info, getattr(atoms.calc, "results", {})
    told = _number(label, info.get("temperature", info.get("temperature_K")), "temperature")
    if told <= 0.0:
        raise DataError(f"{label}: its temperature is {told:g} K")
    _believable(label, "temperature", told, "K")
    _believable(label, "volume", volume / n, "Å3 per atom")
    kinetic = float(atoms.get_temperature()) if atoms.has("momenta") and atoms.arrays["momenta"].any() else math.nan
    if energy_key is None:
        energy = _number(label, results.get("energy", info.get("energy")), "energy")
    else:
        energy = _number(label, info.get(energy_key, results.get(energy_key)), energy_key)
    tensor = results.get("stress", info.get("stress"))
    pressure = math.nan
    if tensor is not None:
        values = np.asarray(tensor, dtype=np.float64).reshape(-1)
        if values.size not in (6, 9) or not np.isfinite(values).all():
            raise DataError(f"{label}: its stress must be 6 or 9 finite numbers, got {values.size}")
        pressure = -float(values[:3].sum() if values.size == 6 else values[[0, 4, 8]].sum()) / 3.0 * GPA
    _believable(label, "energy", energy / n, "eV per atom")
    _believable(label, "pressure", pressure, "GPa")
    return float(n), volume / n, told, kinetic, energy / n, pressure


def _believable(label: str, name: str, value: float, unit: str) -> None:
    """Numbers that no state of matter has are wrong units, or broken frames."""
    low, high = LIMITS[name]
    if math.isfinite(value) and not low <= value <= high:
        raise DataError(
            f"{label}: its {name} is {value:.6g} {unit}, which cannot be; is the frame broken, or the unit?"
        )


def _number(label: str, value: Any, name: str) -> float:
    """A number that a frame may have: NaN if it has none."""
    if value is None:
        return math.nan
    if isinstance(value, bool | np.bool_):
        raise DataError(f"{label}: its {name} is no number: {value!r}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(f"{label}: its {name} is no number: {value!r}") from None
    if not math.isfinite(number):
        raise DataError(f"{label}: its {name} is {number}; leave out what is not known")
    return number


def iterate_samples(
    specs: list[str], temperatures: Mapping[str, float] | None = None, **more: Any
) -> Iterator[Samples]:
    """Files one after the other; `temperatures` by name of file (with or without its index).

    Raises
    ------
    DataError
        See `read_samples`; or a temperature names a file that is not read.
    """
    given = dict(temperatures or {})
    names = {spec: (spec, split_index(spec)[0]) for spec in specs}
    known = {name for pair in names.values() for name in pair}
    for name in given:
        if name not in known:
            raise DataError(f"--temperature names {name}, which is none of the files")
    for spec in specs:
        told = next((given[name] for name in names[spec] if name in given), None)
        yield read_samples(spec, told, **more)
