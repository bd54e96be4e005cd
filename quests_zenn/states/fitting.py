"""A free energy from states: energies and pressures, entropies where asked for, rows weighted by their scores."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, finite, positive
from quests_zenn.sampling.weights import effective_sample_size
from quests_zenn.states.entropies import StateEntropies
from quests_zenn.states.grouping import ALIKE, State, name_of
from quests_zenn.states.samples import BOLTZMANN

FloatArray = npt.NDArray[np.float64]

#: Fits in turn of the model and of the link between information entropy and entropy.
TURNS = 3

#: Errors are widened, and the fit repeated, where residuals are so many times their square.
WORSE = 1.2

#: c of a link that is held lies between these.
SLOPES = 1e-3, 1e3

#: A reference lies within this factor of volumes and temperatures of states.
FAR = 3.0

#: Free parameters of an equation of state with classical vibrations.
FORM = 8

#: Fewer states make no F(V, T).
LEAST_STATES = 4


@dataclass(frozen=True)
class EntropyLink:
    """S / k_B = c H + 3/2 ln T + s0, fitted to the entropies of a model.

    Attributes
    ----------
    c, c_error : float
        1 if information entropy were thermodynamic entropy.
    s0 : float, k_B
        Holds the constant of S that energies and pressures leave open.
    rms, worst : float, k_B per atom
        What is left over, each state counted as one.
    r2 : float
        Share of the variance of S - 3/2 k_B ln T that H explains.
    s0_of_phases : tuple of float
        Constant of each phase, see `link_entropy`: what they differ by, S of a phase has and its H does not show.
    """

    c: float
    c_error: float
    s0: float
    rms: float
    worst: float
    r2: float
    s0_of_phases: tuple[float, ...] = ()

    def entropy(self, H: npt.ArrayLike, T: npt.ArrayLike) -> FloatArray:
        """S, k_B per atom."""
        return self.c * np.asarray(H, np.float64) + 1.5 * np.log(np.asarray(T, np.float64)) + self.s0


@dataclass(frozen=True)
class StatesFit:
    """A model fitted to states.

    Attributes
    ----------
    model : FreeEnergyModel
        F(V, T), eV per atom, the kinetic part included. Phases of the states are its configurations, in their order.
    link : EntropyLink or None
        None where no entropies were given.
    weights : array (S,)
        Of the states, mean 1.
    effective_sample_size : float
    reference : (float, float)
        Volume (Å3 per atom) and temperature (K) of the state at which S is set to zero.
    phase_models : list of FreeEnergyModel
        The model of each phase on its own, with the same zero; `model` alone where there is one phase.
    targets : dict
        Of U and P: number of rows, root mean square of what is left, and mean square in units of the errors.
    """

    model: Any
    link: EntropyLink | None
    weights: FloatArray
    effective_sample_size: float
    reference: tuple[float, float]
    phase_models: list[Any]
    targets: dict[str, dict[str, Any]]


def link_entropy(
    H: npt.ArrayLike,
    T: npt.ArrayLike,
    S: npt.ArrayLike,
    error: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    phases: npt.ArrayLike | None = None,
    c: float | None = None,
) -> EntropyLink:
    """Least squares for c and s0 of S / k_B = c H + 3/2 ln T + s0.

    Parameters
    ----------
    H, T, S, error : array, shape (n,)
        Information entropies (nats), temperatures (K), entropies (k_B per atom), and errors of H.
    weights : array, shape (n,), optional
        What each row counts.
    phases : array of int, shape (n,), optional
        Where S of each phase has a constant of its own: c is what rows of the same phase tell, and `s0_of_phases` are
        the constants; `s0` is that of the first one.
    c : float, optional
        Held, not fitted.

    Returns
    -------
    EntropyLink

    Raises
    ------
    DataError
        If all rows of a phase have the same information entropy.
    """
    H, T, S, error = (np.asarray(values, np.float64) for values in (H, T, S, error))
    if H.ndim != 1 or len(H) < 2 or not H.shape == T.shape == S.shape == error.shape:
        raise ValueError(f"H, T, S and error must be as many, two or more, got {[v.shape for v in (H, T, S, error)]}")
    if not (T > 0.0).all():
        raise DataError("temperatures must be positive")
    weights = np.ones(len(H)) if weights is None else np.asarray(weights, np.float64)
    of = np.zeros(len(H), np.int64) if phases is None else np.asarray(phases)
    kinds = np.unique(of)
    y = S - 1.5 * np.log(T)
    members = (of[:, None] == kinds[None, :]).astype(np.float64)
    w = weights
    found = _fitted_link(H, y, w, members, c)
    for _ in range(TURNS):
        # rows are off by the failure of the surrogate and by the errors of H, the former as a rule far more
        known = (found[0] * error) ** 2
        variance = known + max(found[2] ** 2 - float(np.average(known, weights=w)), 0.0)
        if not (variance > 0.0).all():
            break
        w = weights / variance
        found = _fitted_link(H, y, w, members, c)
    slope, constants, rms, left = found
    # what a reader asks is how far states are off, whatever they count in the fit
    off = float(np.sqrt(np.mean(left**2)))
    spread = float(np.sqrt(np.mean((y - members @ _means(y, np.ones(len(y)), members)) ** 2)))
    h = H - members @ _means(H, w, members)
    free = max(len(H) - len(kinds) - (c is None), 1)
    deviation = math.sqrt(np.average(h**2, weights=w) * free)
    return EntropyLink(
        slope,
        0.0 if c is not None else rms / deviation if deviation > 0.0 else math.inf,
        float(constants[0]),
        off,
        float(np.abs(left).max()),
        1.0 - (off / spread) ** 2 if spread > 0.0 else math.nan,
        tuple(constants.tolist()),
    )


def _means(values: FloatArray, w: FloatArray, members: FloatArray) -> FloatArray:
    """Of each phase; `members` (n, phases) is 1 where a row is of a phase."""
    return np.asarray((members.T @ (w * values)) / (members.T @ w))


def _fitted_link(
    H: FloatArray, y: FloatArray, w: FloatArray, members: FloatArray, c: float | None
) -> tuple[float, FloatArray, float, FloatArray]:
    """Slope, constants of phases, root mean square left over, and what is left."""
    h = H - members @ _means(H, w, members)
    square = float((w * h * h).sum())
    if c is None and not square > 1e-14 * float((w * H * H).sum()):
        raise DataError(
            "all states of a phase have the same information entropy, which tells nothing of S; try another bandwidth"
        )
    slope = float(c) if c is not None else float((w * h * y).sum()) / square
    constants = _means(y - slope * H, w, members)
    left = y - slope * H - members @ constants
    return slope, constants, float(np.sqrt(np.average(left**2, weights=w))), left


def fit_states(
    states: Sequence[State],
    model: Any = None,
    *,
    entropies: StateEntropies | None = None,
    weights: npt.ArrayLike | None = None,
    entropy_as_target: bool = False,
    c: float | None = None,
    reference: tuple[float, float] | None = None,
    equal_at: tuple[float, float] | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> StatesFit:
    """Fit F(V, T) to mean energies and pressures of states, each with its error.

    Energies and pressures fix S of a phase up to a constant. It is set to zero at one state. Where states are of
    several phases, each is fitted on its own, and the constants between them come from their information entropies:
    S / k_B = c H + 3/2 ln T + s0 with one c and one s0 for all. What this misses inside of phases it may miss between
    them, and members of the committee differ by as much. Two phases that are known to coexist at one state (from a run
    with both in one cell, say) need no such link. Models are then joined (see `quests_zenn.zenn.join`) with as many
    atoms changing together as a frame has.

    Parameters
    ----------
    states : sequence of State
    model : FreeEnergyModel, optional
        By default `ZENN` with one configuration, an equation of state and classical vibrations, as classical dynamics
        has them, and no networks: a grid of few volumes cannot tell them what to do between. Of several phases this
        is the model of each.
    entropies : StateEntropies, optional
        To compare with the entropies of the model: `EntropyLink`. Several phases need them.
    weights : array, shape (S,), optional
        Of the states; uniform by default. See `state_weights`.
    entropy_as_target : bool
        Whether S = c k_B H + 3/2 k_B ln T + s0 is fitted as well: model and c, s0 in turn.
    c : float, optional
        c of the link; fitted by default.
    reference : (float, float), optional
        Volume and temperature of a state at which S is set to zero; by default the one of the lowest temperature, and
        of these that of the pressure nearest to zero (or of the largest volume, without pressures).
    equal_at : (float, float), optional
        Pressure (GPa) and temperature (K) at which two phases are known to have the same Gibbs energy.
    progress : callable, optional
        See `FreeEnergyModel.fit`.

    Returns
    -------
    StatesFit

    Raises
    ------
    DataError
        If energies and pressures are missing, or states are too few.
    ValueError
        If an argument makes no sense.
    """
    if entropy_as_target and entropies is None:
        raise ValueError("entropy_as_target needs entropies")
    rows = _rows(states, weights)
    kinds = sorted({state.phase for state in states})
    if len(kinds) > 1 and not {"U", "P"} <= set(rows.targets):
        raise DataError(
            "states of several phases need energies and pressures; with one of them alone, Gibbs energies are unknown"
        )
    if equal_at is not None:
        if entropy_as_target:
            raise ValueError("equal_at and entropy_as_target both say what S of a phase is; give one of them")
        if len(kinds) != 2:
            raise ValueError(f"equal_at compares two phases, and there {_are(len(kinds))}")
        equal_at = finite(equal_at[0], "a pressure"), positive(equal_at[1], "T")
    elif len(kinds) > 1 and entropies is None:
        raise ValueError("states of several phases need entropies: energies and pressures do not compare their S")
    if not {"U", "P"} <= set(rows.targets):
        for given, what in ((entropy_as_target, "an entropy as target"), (reference, "a reference"), (c, "c")):
            if given:
                raise DataError(
                    f"{what} needs energies and pressures; these frames have {' '.join(rows.targets)} alone"
                )
    if c is not None and not SLOPES[0] <= positive(c, "c") <= SLOPES[1]:
        raise ValueError(f"c must lie between {SLOPES[0]:g} and {SLOPES[1]:g}, got {c!r}")
    place = _reference(rows) if reference is None else _given(reference, rows)
    if model is None:
        from quests_zenn.zenn import ZENN

        model = ZENN(1, thermal="classical", hidden=(), random_state=0, verbose=False)
    alone = [_Phase(_part(rows, rows.phase == kind), copy.deepcopy(model)) for kind in kinds]
    _check(alone, states)
    # of several phases, the one that the reference is of: the nearest state
    near = np.abs(rows.V / place[0] - 1.0) + np.abs(rows.T / place[1] - 1.0)
    first = kinds.index(int(rows.phase[near.argmin()]))
    link, told_reference = None, ""
    for turn in range(TURNS if entropy_as_target else 1):
        for phase in alone:
            phase.fit(entropies, link if turn else None, progress)
        floats = not turn and "U" in rows.targets and {"S", "U"} <= alone[0].model.known_
        if floats:
            for phase in alone:
                phase.model.set_reference(*(place if phase is alone[first] else phase.middle()))
            told_reference = alone[first].model.relative_to_
        if equal_at is not None and floats:
            _equal(alone, first, *equal_at)
        if entropies is not None and "S" in alone[0].model.known_:
            try:
                link = _linked(alone, entropies, rows, first, c, floats and equal_at is None)
            except DataError:
                if entropy_as_target or c is not None or (len(alone) > 1 and equal_at is None):
                    raise
                # nobody asked for it
    if turn and "U" in rows.targets:  # entropies were given up to a constant as well
        zero = alone[first].entropies(*place)[:, 0]
        for phase in alone:
            phase.model.entropy_shift_ = phase.model.entropy_shift_ - BOLTZMANN * zero
            phase.model.relative_to_ = told_reference
        assert link is not None
        link = replace(link, s0=link.s0 - float(zero.mean()))
    elif floats:
        for phase in alone:
            phase.model.relative_to_ = told_reference
    whole = alone[0].model
    if len(alone) > 1:
        from quests_zenn.zenn import join

        whole = join([phase.model for phase in alone], coherence=float(np.mean([state.n_atoms for state in states])))
    told = _targets(alone, rows)
    return StatesFit(
        whole, link, rows.weight, effective_sample_size(rows.weight), place, [p.model for p in alone], told
    )


@dataclass
class _Rows:
    """Rows of a fit: one for each state."""

    V: FloatArray
    T: FloatArray
    phase: npt.NDArray[np.int64]
    targets: dict[str, FloatArray]
    errors: dict[str, FloatArray]
    weight: FloatArray
    number: npt.NDArray[np.int64]


def _rows(states: Sequence[State], weights: npt.ArrayLike | None) -> _Rows:
    if not states:
        raise DataError("there are no states")
    V, T = (np.array([getattr(state, name) for state in states]) for name in ("volume", "temperature"))
    frames = np.array([float(state.n_frames) for state in states])
    targets, errors = {}, {}
    for symbol, name in (("U", "internal_energy"), ("P", "pressure")):
        values = np.array([getattr(state, name) for state in states])
        if np.isnan(values).all():
            continue
        targets[symbol] = values
        found = np.array([getattr(state, f"{name}_error") for state in states])
        usable = np.isfinite(found) & (found > 0.0)
        if usable.sum() * 2 >= len(found):  # few known errors tell nothing of the others: learned, then
            # states without an error have few frames: what a frame of the others is known to
            single = np.median(found[usable] * np.sqrt(frames[usable]))
            errors[symbol] = np.where(usable, found, single / np.sqrt(frames))
    if not targets:
        raise DataError(f"frames have neither energy nor stress ({name_of(states[0])}): nothing to fit")
    rows = np.ones(len(states)) if weights is None else np.asarray(weights, dtype=np.float64)
    if rows.shape != (len(states),) or not (np.isfinite(rows).all() and (rows > 0.0).all()):
        raise ValueError(f"weights must be {len(states)} positive numbers, got {weights!r}")
    phase = np.array([state.phase for state in states], np.int64)
    return _Rows(V, T, phase, targets, errors, rows / rows.mean(), np.arange(len(states)))


def _part(rows: _Rows, mine: npt.NDArray[np.bool_]) -> _Rows:
    return _Rows(
        rows.V[mine],
        rows.T[mine],
        rows.phase[mine],
        {name: values[mine] for name, values in rows.targets.items()},
        {name: values[mine] for name, values in rows.errors.items()},
        rows.weight[mine],
        rows.number[mine],
    )


def _given(reference: tuple[float, float], rows: _Rows) -> tuple[float, float]:
    """A reference that was given, if it is anywhere near the states."""
    try:
        volume, kelvin = reference
    except (TypeError, ValueError):
        raise ValueError(f"a reference is a volume and a temperature, got {reference!r}") from None
    V, T = positive(volume, "the volume of the reference"), positive(kelvin, "the temperature of the reference")
    for value, values, unit in ((V, rows.V, "Å3 per atom"), (T, rows.T, "K")):
        if not values.min() / FAR <= value <= values.max() * FAR:
            raise DataError(
                f"the reference, V = {V:g} Å3 per atom and T = {T:g} K, is far from all states ({values.min():.4g} to "
                f"{values.max():.4g} {unit})"
            )
    return V, T


def _reference(rows: _Rows) -> tuple[float, float]:
    """The coldest state, and of these that of the smallest pressure."""
    cold = np.flatnonzero(rows.T.min() * (1.0 + ALIKE) >= rows.T)
    P = rows.targets.get("P", rows.V.max() - rows.V)
    size = np.where(np.isnan(P[cold]), np.inf, np.abs(P[cold]))
    chosen = cold[int(size.argmin())]
    return float(rows.V[chosen]), float(rows.T[chosen])


def _check(phases: Sequence[_Phase], states: Sequence[State]) -> None:
    several = len(phases) > 1
    for phase in phases:
        rows = phase.rows
        where = f"phase {rows.phase[0]} (for instance at {name_of(states[int(rows.number[0])])})" if several else "it"
        for values, what in ((rows.V, "volume"), (rows.T, "temperature")):
            if np.ptp(values) <= ALIKE * values.max():
                told = f"all states of {where} have one {what}" if several else f"all states have one {what}"
                raise DataError(
                    f"{told}, {values[0]:.5g} {'Å3 per atom' if what == 'volume' else 'K'}; a free energy F(V, T) "
                    f"needs two {what}s or more{', or fewer phases' if several else ''}"
                )
        if len(rows.V) < LEAST_STATES:
            raise DataError(
                f"{len(rows.V)} states{f' of {where}' if several else ''} are too few for a free energy F(V, T): "
                f"{LEAST_STATES} or more are needed{', or fewer phases' if several else ''}"
            )


class _Phase:
    """The states of one phase, and the model of it."""

    def __init__(self, rows: _Rows, model: Any) -> None:
        self.rows, self.model = rows, model

    def fit(
        self, entropies: StateEntropies | None, link: EntropyLink | None, progress: Callable[[str, int], None] | None
    ) -> None:
        """Energies and pressures, and entropies where there is a link."""
        rows = self.rows
        targets, errors = dict(rows.targets), dict(rows.errors)
        if link is not None:
            assert entropies is not None
            targets["S"] = BOLTZMANN * link.entropy(entropies.H[rows.number], rows.T)
            errors["S"] = BOLTZMANN * np.hypot(link.c * entropies.error[rows.number], max(link.rms, 1e-3))
        more = {} if progress is None else {"progress": progress}
        self.model.fit(rows.V, rows.T, **targets, errors=errors or None, sample_weight=rows.weight, **more)
        # forms miss more than errors of long runs allow: what is left, not these errors, balances U and P, and is what
        # members must differ by (Birge, Phys. Rev. 40, 207 (1932))
        told = {name: entry for name, entry in self.model.report_["targets"].items() if name in errors}
        if not told:
            return
        count = sum(entry["n"] for entry in told.values())
        free = count / max(count - FORM, count / 3.0)
        left = {name: free * entry["chi2"] for name, entry in told.items()}
        if any(chi2 > WORSE for chi2 in left.values()):
            wider = {name: errors[name] * math.sqrt(max(1.0, left[name])) for name in errors}
            self.model.fit(rows.V, rows.T, **targets, errors=wider, sample_weight=rows.weight, **more)

    def middle(self) -> tuple[float, float]:
        """A state of this phase."""
        return float(np.median(self.rows.V)), float(np.median(self.rows.T))

    def entropies(self, V: Any = None, T: Any = None) -> FloatArray:
        """(members, n) k_B per atom, of the rows by default."""
        where = (self.rows.V, self.rows.T) if V is None else (np.array([V]), np.array([T]))
        found = self.model.derivatives(*where, [(0, 1)], members=True)[0, 1]
        return np.asarray(-found / BOLTZMANN)


def _are(n: int) -> str:
    return "is one" if n == 1 else f"are {n}"


def _equal(phases: Sequence[_Phase], first: int, P: float, T: float) -> None:
    """Move S of the other phase so that both have the same Gibbs energy at one state."""
    from quests_zenn.states.coexistence import gibbs

    G = [gibbs(phase.model, P, T) for phase in phases]
    for phase, found in zip(phases, G, strict=True):
        if np.isnan(found).any():
            raise DataError(
                f"phase {phase.rows.phase[0]} is not stable at {P:g} GPa and {T:g} K in the range of its volumes "
                f"({phase.rows.V.min():.4g} to {phase.rows.V.max():.4g} Å3 per atom); its states must reach there"
            )
    other = phases[1 - first].model
    other.entropy_shift_ = other.entropy_shift_ + (G[1 - first] - G[first]) / T


def _linked(
    phases: Sequence[_Phase],
    entropies: StateEntropies,
    rows: _Rows,
    first: int,
    c: float | None,
    floats: bool,
) -> EntropyLink:
    """The link of all phases; where S of each phase floats, it is moved so that all have the same s0."""
    S = np.empty((len(phases[0].entropies()), len(rows.V)))
    for phase in phases:
        S[:, phase.rows.number] = phase.entropies()
    several = len(phases) > 1
    of = rows.phase if several else None
    link = link_entropy(entropies.H, rows.T, S.mean(0), entropies.error, rows.weight, of, c)
    if several and floats:
        # a member believes in entropies, a slope, and a miss of the link of its own, as far as they are known; few
        # members are spread evenly over what is possible
        rng = np.random.default_rng(len(rows.V))
        slopes = link.c + link.c_error * _even(len(S), rng)
        misses = np.column_stack([math.sqrt(2.0) * link.rms * _even(len(S), rng) for _ in phases])
        misses[:, first] = 0.0  # every gap between two phases may be off by both
        moves = np.empty((len(S), len(phases)))
        for m, own in enumerate(S):
            H = entropies.H + (entropies.error * rng.normal(size=len(rows.V)) if len(S) > 1 else 0.0)
            found = link_entropy(H, rows.T, own, entropies.error, rows.weight, of, slopes[m]).s0_of_phases
            each = np.array(found) + misses[m]
            moves[m] = each - each[first]
        for number, phase in enumerate(phases):
            phase.model.entropy_shift_ = phase.model.entropy_shift_ - BOLTZMANN * moves[:, number]
        link = replace(link, s0=link.s0_of_phases[first], s0_of_phases=(link.s0_of_phases[first],) * len(phases))
    return replace(link, s0=link.s0_of_phases[first])


def _even(n: int, rng: np.random.Generator) -> FloatArray:
    """n numbers of mean 0 and variance 1, as a normal distribution has them, in random order; 0 where there is one."""
    from scipy.stats import norm

    if n == 1:
        return np.zeros(1)
    found = norm.ppf((np.arange(n) + 0.5) / n)
    return np.asarray(rng.permutation(found / found.std(ddof=1)))


def _targets(phases: Sequence[_Phase], rows: _Rows) -> dict[str, dict[str, Any]]:
    """What is left of U and P, over all phases."""
    told = {}
    for name, method, unit in (("U", "internal_energy", "eV"), ("P", "pressure", "GPa")):
        if name not in rows.targets or name not in phases[0].model.known_:
            continue
        gap = np.full(len(rows.V), np.nan)
        for phase in phases:
            own = phase.rows
            gap[own.number] = np.asarray(getattr(phase.model, method)(own.V, own.T)) - own.targets[name]
        known = np.isfinite(gap)
        chi2 = None
        if name in rows.errors:
            chi2 = float(np.mean((gap[known] / rows.errors[name][known]) ** 2))
        told[name] = {
            "n": int(known.sum()), "rms": float(np.sqrt(np.mean(gap[known] ** 2))), "chi2": chi2, "unit": unit,
        }  # fmt: skip
    return told
