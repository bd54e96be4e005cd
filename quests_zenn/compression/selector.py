"""Selection of rows, or of groups of rows, of any matrix, as an estimator of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from quests_zenn._core.arrays import as_codes, as_matrix
from quests_zenn._core.checks import whole_number
from quests_zenn._core.parallel import available_cores
from quests_zenn.compression.compressor import DatasetCompressor

Array = npt.NDArray[Any]


class SampleSelector(TransformerMixin, BaseEstimator):
    """Selects groups of rows that keep the information of all.

    Like selectors of scikit-learn, but of samples. A group is what `DatasetCompressor` calls a structure, and its rows
    are the environments. `transform` takes the selected rows of the X of `fit`, or of what goes with it (a y, say); it
    selects nothing from other data.

    Parameters
    ----------
    method : str
        One of ``quests_zenn.compression.METHODS``.
    n_to_select : int, float, str or Size
        Number of groups, share of them (in (0, 1]), or all that `Size.parse` takes, such as ``"5000env"`` (rows) or
        ``"auto"``.
    bandwidth : float
        Of the kernel, in units of X.
    balance : {"equal", "proportional"}
        How much each class of `by` gets.
    random_state : int, numpy.random.Generator or None
        None gives another result each time, where the method is random.
    n_jobs : int or None
        Threads; None and -1 for all available cores, -2 for all but one, and so on. Results do not depend on it.

    Attributes
    ----------
    selected_groups_ : ndarray, shape (n_selected,)
        Labels of the selected groups, in order of selection; without groups, indices of rows.
    selected_idx_ : ndarray of int64
        Selected rows of X: all of the first group, in the order of X, then those of the second, and so on.
    scores_ : ndarray, shape (n_selected,)
        Score of each group when it was selected; NaN where the method has none.
    stop_ : str
        Why the selection ended.
    n_features_in_ : int
        Columns of X.
    n_samples_fit_ : int
        Rows of X.

    Examples
    --------
    >>> selector = SampleSelector("msc", n_to_select=0.1, bandwidth=0.5).fit(X, groups=molecule)
    >>> X[selector.selected_idx_]
    """

    def __init__(
        self,
        method: str = "msc",
        n_to_select: Any = 0.1,
        bandwidth: float = 0.015,
        *,
        balance: str = "equal",
        random_state: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.method = method
        self.n_to_select = n_to_select
        self.bandwidth = bandwidth
        self.balance = balance
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(
        self,
        X: npt.ArrayLike,
        y: Any = None,
        *,
        groups: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
        costs: npt.ArrayLike | None = None,
        by: npt.ArrayLike | None = None,
        keep: npt.ArrayLike | None = None,
        reference: Any = None,
    ) -> SampleSelector:
        """Select.

        Parameters
        ----------
        X : array, shape (n, d)
        y
            Not used.
        groups : array, shape (n,), optional
            Rows with the same label form one group, wherever they stand. By default each row is a group of its own.
            The order of groups, which decides between ties, is that of their sorted labels.
        sample_weight : array, shape (n,), optional
            Positive; the same in all rows of a group. Its logarithm is added to scores.
        costs : array, shape (n,), optional
            Cost of the whole group that owns the row, positive; the same in all rows of a group.
        by : array, shape (n,), optional
            Class of each row, to balance the selection; the same in all rows of a group.
        keep : array, optional
            Labels of groups that are selected first in any case; without groups, indices of rows.
        reference : array, shape (m, d), optional
            Rows that are known already. See `DatasetCompressor.select`.

        Returns
        -------
        SampleSelector
            Itself.

        Raises
        ------
        ValueError
            If arguments are out of range, do not fit X, or differ within a group.
        """
        x = as_matrix(X, "X")
        n = len(x)
        codes = np.arange(n, dtype=np.int64)
        labels: Array = codes
        if groups is not None:
            _shape(groups, n, "groups")
            found = as_codes(groups, n, "groups")
            assert found is not None
            codes = found
            labels = np.asarray(groups)[np.unique(codes, return_index=True)[1]]
        rows = np.argsort(codes, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(codes))])
        first = rows[offsets[:-1]]

        compressor = DatasetCompressor.from_environments(
            x[rows],
            offsets,
            self.bandwidth,
            weights=_one_number_each(sample_weight, "sample_weight", codes, first, labels),
            costs=_one_number_each(costs, "costs", codes, first, labels),
            jobs=_threads(self.n_jobs),
        )
        selection = compressor.select(
            self.method,
            self.n_to_select,
            reference=reference,
            keep=_places(keep, labels),
            by=_one_each(by, "by", codes, first, labels),
            balance=self.balance,
            random_state=self.random_state,
        )
        chosen = selection.indices
        self.n_features_in_ = x.shape[1]
        self.n_samples_fit_ = n
        self.selected_groups_ = labels[chosen]
        parts = [rows[offsets[g] : offsets[g + 1]] for g in chosen]
        self.selected_idx_ = np.concatenate([np.empty(0, dtype=np.int64), *parts])
        self.scores_ = selection.scores
        self.stop_ = selection.stop
        return self

    def get_support(self, indices: bool = False) -> Array:
        """Which rows are selected: a mask (n,), or their indices in ascending order.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        if indices:
            return np.sort(self.selected_idx_)
        mask = np.zeros(self.n_samples_fit_, dtype=bool)
        mask[self.selected_idx_] = True
        return mask

    def transform(self, X: npt.ArrayLike) -> Array:
        """The selected rows, in order of selection, of any array with as many rows as the matrix given to `fit`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        ValueError
            If the number of rows is another.
        """
        check_is_fitted(self)
        array = np.asarray(X)
        if array.ndim == 0 or len(array) != self.n_samples_fit_:
            raise ValueError(
                f"X must have the {self.n_samples_fit_} rows that fit saw, of which some were selected, "
                f"got shape {array.shape}"
            )
        return array[self.selected_idx_]

    def fit_transform(self, X: npt.ArrayLike, y: Any = None, **fit_params: Any) -> Array:
        """`fit`, and the selected rows of X. See there."""
        return self.fit(X, y, **fit_params).transform(X)


def _threads(n_jobs: int | None) -> int | None:
    """Threads, by the rules of scikit-learn for negative numbers."""
    if n_jobs is None:
        return None
    if isinstance(n_jobs, int | np.integer) and n_jobs < 0:
        return max(1, available_cores() + 1 + int(n_jobs))
    return whole_number(n_jobs, "n_jobs", 1)


def _shape(values: Any, n: int, name: str) -> Array:
    """`values` as an array (n,)."""
    array = np.asarray(values)
    if array.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one per row of X, got {array.shape}")
    return array


def _one_each(values: Any, name: str, codes: Array, first: Array, labels: Array) -> Array | None:
    """Values of rows as values of groups, of any kind that can be sorted."""
    if values is None:
        return None
    array = _shape(values, len(codes), name)
    kinds = as_codes(array, len(codes), name)
    assert kinds is not None
    differs = np.flatnonzero(kinds != kinds[first][codes])
    if len(differs):
        row = int(differs[0])
        raise ValueError(
            f"{name} must be the same in all rows of a group, but rows {first[codes[row]]} and {row} "
            f"of group {labels.tolist()[codes[row]]!r} differ"
        )
    return array[first]


def _one_number_each(values: Any, name: str, codes: Array, first: Array, labels: Array) -> Array | None:
    """The same for numbers, positive and finite."""
    if values is None:
        return None
    array = _shape(values, len(codes), name)
    if array.dtype.kind not in "fiu" or not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"{name} must be positive and finite numbers, one per row of X")
    return _one_each(array, name, codes, first, labels)


def _places(keep: Any, labels: Array) -> list[int] | None:
    """Places of labels among the sorted ones, each once."""
    if keep is None:
        return None
    place = {label: i for i, label in enumerate(labels.tolist())}
    places = []
    for label in np.ravel(np.asarray(keep)).tolist():
        if label not in place:
            raise ValueError(f"keep names group {label!r}, which does not exist")
        places.append(place[label])
    return list(dict.fromkeys(places))
