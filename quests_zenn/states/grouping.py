"""Frames to thermodynamic states: one (V, T) each, with means and their errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, positive
from quests_zenn.entropy import autocorrelation_time
from quests_zenn.states.samples import BOLTZMANN, GPA, Samples

FloatArray = npt.NDArray[np.float64]

#: Volumes and temperatures that differ by less than this share belong to one state.
ALIKE = 1e-3

#: So many runs of a state tell by their means how much runs differ.
LEAST_RUNS = 3

#: Levels lie further apart than so many standard deviations of the values in either.
SCATTER = 2.0


@dataclass(frozen=True)
class State:
    """A state (V, T) and what its frames say of it. Averages are canonical: every frame counts the same.

    Attributes
    ----------
    volume : float, Å3 per atom
    temperature : float, K
    parts : list of (Samples, array of int)
        Frames, file by file in the order of time.
    n_frames : int
    n_atoms : float
        Of a frame; the mean where frames differ.
    internal_energy, internal_energy_error : float, eV per atom
        <E_pot> and 3/2 k_B T; NaN where frames have no energy.
    pressure, pressure_error : float, GPa
        That of the forces and k_B T / V; NaN where frames have no stress.
    correlation_time : float, frames
        Of the slower of energy and pressure; at least 0.5.
    fixed_volume : bool
        Whether all frames have the same volume. Otherwise (a run at given pressure) V is their mean, and P that of the
        frames, which is P at the mean volume up to a term of the order of 1/N.
    phase : int
        0 but where phases were given.
    """

    volume: float
    temperature: float
    parts: list[tuple[Samples, npt.NDArray[np.int64]]] = field(repr=False)
    n_frames: int
    n_atoms: float
    internal_energy: float
    internal_energy_error: float
    pressure: float
    pressure_error: float
    correlation_time: float
    fixed_volume: bool
    phase: int = 0


def group_states(
    samples: Sequence[Samples],
    *,
    volume_alike: float = ALIKE,
    temperature_alike: float = ALIKE,
    phases: Sequence[npt.ArrayLike] | None = None,
) -> list[State]:
    """States of all frames, by volume and then by temperature (and by phase, where frames have one).

    Frames of one file at one temperature whose volumes scatter without gaps are one state at their mean volume; else
    frames belong together, within a file and across files, if volumes and temperatures agree.

    Parameters
    ----------
    samples : sequence of Samples
    volume_alike, temperature_alike : float
        Shares by which they may differ.
    phases : sequence of array of int, optional
        For each `Samples`, the phase of each frame, from 0, as `find_phases` has them. Means of a state are those of
        one phase.

    Returns
    -------
    list of State

    Raises
    ------
    DataError
        If there are no frames.
    ValueError
        If a share is not positive.
    """
    positive(volume_alike, "volume_alike")
    positive(temperature_alike, "temperature_alike")
    if phases is None:
        phases = [np.zeros(len(part), np.int64) for part in samples]
    if len(phases) != len(samples) or any(np.shape(p) != (len(s),) for p, s in zip(phases, samples, strict=True)):
        raise ValueError("phases must hold one number for each frame of each of the samples")
    if any(np.asarray(labels).min() < 0 for labels in phases if len(np.asarray(labels))):
        raise ValueError("phases count from 0")
    pieces: list[_Piece] = []
    for part, labels in zip(samples, phases, strict=True):
        for phase in np.unique(labels).tolist():
            # volumes of a run at given pressure have no gaps while it stays in a phase
            mine = np.flatnonzero(np.asarray(labels) == phase)
            for rows_T in _levels(part.temperature, mine, temperature_alike):
                for rows in _levels(part.volume, rows_T, volume_alike):
                    rows = np.sort(rows)
                    place = float(part.volume[rows].mean()), float(part.temperature[rows].mean())
                    pieces.append(_Piece(*place, part, rows, int(phase)))
    if not pieces:
        raise DataError("there are no frames")
    volumes, temperatures = np.array([p.volume for p in pieces]), np.array([p.temperature for p in pieces])
    states = []
    for phase in sorted({piece.phase for piece in pieces}):
        mine = np.array([i for i, piece in enumerate(pieces) if piece.phase == phase])
        for of_T in _levels(temperatures, mine, temperature_alike):
            for members in _levels(volumes, of_T, volume_alike):
                states.append(_state([pieces[i] for i in np.sort(members)], volume_alike))
    return sorted(states, key=lambda state: (state.volume, state.temperature, state.phase))


def single_states(samples: Sequence[Samples], phases: Sequence[npt.ArrayLike] | None = None) -> list[State]:
    """Every frame as a state of its own, in the order of the files: the rows of a table of structures.

    Parameters
    ----------
    samples : sequence of Samples
    phases : sequence of array of int, optional
        As in `group_states`.

    Returns
    -------
    list of State
        Without errors: a single structure tells none.
    """
    found = []
    for number, part in enumerate(samples):
        for i in range(len(part)):
            phase = 0 if phases is None else int(np.asarray(phases[number])[i])
            row = np.array([i])
            found.append(_state([_Piece(float(part.volume[i]), float(part.temperature[i]), part, row, phase)], ALIKE))
    return found


def name_of(state: State) -> str:
    """How messages name a state."""
    return f"V = {state.volume:.4g} Å3, T = {state.temperature:.5g} K"


@dataclass(frozen=True)
class _Piece:
    """Frames of one file at one volume, temperature and phase."""

    volume: float
    temperature: float
    samples: Samples
    rows: npt.NDArray[np.int64]
    phase: int


def _levels(values: FloatArray, rows: npt.NDArray[np.int64], alike: float) -> list[npt.NDArray[np.int64]]:
    """Rows by levels of their values.

    Between two levels lies a gap of more than a share of the value, and wide against the scatter within either: what
    fluctuates, as volumes at given pressure do, has gaps in its tails.
    """
    order = rows[np.argsort(values[rows], kind="stable")]
    level = values[order]
    cuts = np.flatnonzero(np.diff(level) > alike * np.abs(level[1:])) + 1
    if not len(cuts):
        return [order]
    found: list[npt.NDArray[np.int64]] = []
    for piece in np.split(order, cuts):
        found.append(piece)
        # a tail joins its neighbour, and the longer level may reach the next one
        while len(found) > 1 and _touch(values[found[-2]], values[found[-1]]):
            last = found.pop()
            found[-1] = np.concatenate([found[-1], last])
    return found


def _touch(low: FloatArray, high: FloatArray) -> bool:
    """Whether the gap between two levels is no wider than what they scatter by."""
    return bool(high[0] - low[-1] <= SCATTER * max(float(low.std()), float(high.std())))


def _state(pieces: list[_Piece], alike: float) -> State:
    parts = [(piece.samples, piece.rows) for piece in pieces]
    volume = np.concatenate([samples.volume[rows] for samples, rows in parts])
    kelvin = np.concatenate([samples.temperature[rows] for samples, rows in parts])
    atoms = np.concatenate([samples.n_atoms[rows] for samples, rows in parts])
    T, V = float(kelvin.mean()), float(volume.mean())
    U, U_error, slow_U = _mean([samples.potential[rows] for samples, rows in parts])
    P, P_error, slow_P = _mean([samples.virial[rows] for samples, rows in parts])
    return State(
        volume=V,
        temperature=T,
        parts=parts,
        n_frames=len(volume),
        n_atoms=float(atoms.mean()),
        internal_energy=U + 1.5 * BOLTZMANN * T,
        internal_energy_error=U_error,
        pressure=P + GPA * BOLTZMANN * T / V,
        pressure_error=P_error,
        correlation_time=max(slow_U, slow_P),
        fixed_volume=bool(np.ptp(volume) <= alike * V),
        phase=pieces[0].phase,
    )


def _mean(series: list[FloatArray]) -> tuple[float, float, float]:
    """Mean over all frames, its standard error with the correlation of each series, and the longest correlation time.

    Series of different files are independent. With tau the integrated autocorrelation time, n frames are worth
    n / (2 tau) independent ones. A single frame tells no error.
    """
    if any(np.isnan(values).any() for values in series):
        return math.nan, math.nan, 0.5
    whole = np.concatenate(series)
    n, mean = len(whole), float(whole.mean())
    if n < 2:
        return mean, math.nan, 0.5
    spread = float(whole.var(ddof=1))
    times = [autocorrelation_time(values) if len(values) > 1 else 0.5 for values in series]
    square = sum(
        (len(values) / n) ** 2 * spread * 2.0 * tau / len(values) for values, tau in zip(series, times, strict=True)
    )
    if len(series) >= LEAST_RUNS:
        # runs that have not come to rest differ by more than their own fluctuations tell
        means, sizes = np.array([values.mean() for values in series]), np.array([len(values) for values in series])
        share = sizes / n
        between = float((share * (means - mean) ** 2).sum()) / (1.0 - float((share**2).sum()))
        square = max(square, between * float((share**2).sum()))
    return mean, math.sqrt(square), max(times)
