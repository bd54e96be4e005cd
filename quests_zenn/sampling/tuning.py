"""Form of the model by cross-validation on the points known so far. Needs the extra active (optuna)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, MissingExtraError, whole_number

FloatArray = npt.NDArray[np.float64]

#: What is searched where nothing else is said: hidden layers, as sequences of widths.
SPACE: dict[str, Sequence[Any]] = {"hidden": ((8,), (16,), (32,), (8, 8), (16, 16), (32, 32))}

#: Parts of the cross-validation.
FOLDS = 3


def search(
    model: Any,
    x: npt.ArrayLike,
    T: npt.ArrayLike,
    mu: npt.ArrayLike,
    *,
    trials: int = 12,
    space: Mapping[str, Sequence[Any]] | None = None,
    random_state: int = 0,
    n_jobs: int | None = None,
) -> dict[str, Any]:
    """Settings that predict potentials of points left out best.

    Trials are proposed by a tree-structured Parzen estimator (Bergstra et al., NIPS 2011) and given up early when the
    first parts of the cross-validation are worse than the median of the trials before (Golovin et al., KDD 2017), both
    as optuna has them. Each trial is a single member. The settings of `model` are the first trial where `space` holds
    them.

    Parameters
    ----------
    model : FreeEnergyModel
        Cloned, never fitted itself.
    x : array_like, shape (n, q)
    T : array_like, shape (n,), K
    mu : array_like, shape (n, q)
        NaN where unknown.
    trials : int
    space : mapping of sequences, optional
        Choices for each setting; by default `SPACE`.
    random_state : int
    n_jobs : int or None

    Returns
    -------
    dict
        Settings for ``model.set_params``.

    Raises
    ------
    MissingExtraError
        Without optuna.
    DataError
        If there are fewer than `FOLDS` points with known potentials.
    ValueError
        If the space names a setting that the model does not have, or has no choices.
    """
    try:
        import optuna
    except ImportError:
        raise MissingExtraError("optuna", "active") from None
    from sklearn.base import clone

    whole_number(trials, "trials", 1)
    choices = {name: list(values) for name, values in (SPACE if space is None else space).items()}
    known = model.get_params()
    for name, values in choices.items():
        if name not in known:
            raise ValueError(f"the space names {name!r}, which {type(model).__name__} does not have")
        if not values:
            raise ValueError(f"the space has no choices for {name!r}")
    x, mu = np.asarray(x, dtype=np.float64), np.asarray(mu, dtype=np.float64)
    T = np.broadcast_to(np.asarray(T, dtype=np.float64), (len(x),))
    rows = np.flatnonzero(np.isfinite(mu).any(axis=1))
    if len(rows) < FOLDS:
        raise DataError(f"a search needs {FOLDS} points with known potentials, got {len(rows)}")
    part = np.empty(len(rows), np.int64)
    part[np.random.default_rng(random_state).permutation(len(rows))] = np.arange(len(rows)) % FOLDS
    spread = np.array([np.nanstd(column) or 1.0 for column in mu[rows].T])
    q = x.shape[1]
    orders = [tuple(int(i == j) for j in range(q + 1)) for i in range(q)]

    def objective(trial: Any) -> float:
        # by number, since values may be of any kind
        chosen = {name: choices[name][trial.suggest_int(name, 0, len(choices[name]) - 1)] for name in choices}
        squares: list[float] = []
        for fold in range(FOLDS):
            train, held = rows[part != fold], rows[part == fold]
            one = clone(model).set_params(**chosen)
            one.set_params(n_members=1, n_starts=2, validation_fraction=0.0, warm_start=False)
            one.set_params(random_state=random_state, n_jobs=n_jobs, verbose=False)
            one.fit(x[train], T[train], mu=mu[train])
            found = one.derivatives(x[held][:, 0] if q == 1 else x[held], T[held], orders)
            gap = (np.stack([found[order] for order in orders], axis=1) - mu[held]) / spread
            squares.append(float(np.nanmean(np.square(gap))))
            trial.report(float(np.mean(squares)), fold)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(squares))

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(
            direction="minimize",
            sampler=optuna.samplers.TPESampler(seed=random_state),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
        )
        if all(known[name] in choices[name] for name in choices):
            study.enqueue_trial({name: choices[name].index(known[name]) for name in choices})
        study.optimize(objective, n_trials=trials)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return {name: choices[name][number] for name, number in study.best_params.items()}
