"""Whether probabilities of classes mean what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, whole_number

Array = npt.NDArray[np.float64]

#: How far the probabilities of a row may be from a sum of one.
SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Reliability:
    """How often predictions of a given confidence are right.

    Attributes
    ----------
    edges : numpy.ndarray, shape (bins + 1,)
        Of bins of equal width in confidence. A bin holds its upper edge, not its lower one.
    count : numpy.ndarray of int, shape (bins,)
        Predictions in each.
    confidence : numpy.ndarray, shape (bins,)
        Mean probability of the predicted class; NaN where there are none.
    accuracy : numpy.ndarray, shape (bins,)
        Share of them that is right; NaN where there are none.
    """

    edges: Array
    count: npt.NDArray[np.int64]
    confidence: Array
    accuracy: Array

    @property
    def error(self) -> float:
        """Expected calibration error: the mean over predictions of ``|accuracy - confidence|`` of their bins."""
        some = self.count > 0
        gaps = np.abs(self.accuracy[some] - self.confidence[some])
        return float(np.sum(self.count[some] * gaps) / np.sum(self.count))


def reliability(
    y: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 15, *, classes: npt.ArrayLike | None = None
) -> Reliability:
    """Accuracy of predictions by their confidence, the largest probability (Guo et al., ICML 2017, section 2).

    Parameters
    ----------
    y : array, shape (n,)
        True classes: columns of `probabilities`, counted from 0, or labels where `classes` is given.
    probabilities : array, shape (n, K)
        Of each class; rows sum to one.
    bins : int
        Of equal width in confidence, from 0 to 1.
    classes : array, shape (K,), optional
        Label of each column: `classes_` of a classifier.

    Returns
    -------
    Reliability

    Raises
    ------
    DataError
        If rows are no probabilities, lengths differ, or a label is unknown.
    ValueError
        If `bins` is no whole number from 1.
    """
    bins = whole_number(bins, "bins", 1)
    p = _probabilities(probabilities)
    truth = _columns(y, p, classes)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == truth
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, confidence, bins) / count
        accuracy = np.bincount(place, right.astype(np.float64), bins) / count
    return Reliability(edges, count.astype(np.int64), mean, accuracy)


def calibration_error(
    y: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 15, *, classes: npt.ArrayLike | None = None
) -> float:
    """Expected calibration error: ``sum_b (n_b / n) |accuracy_b - confidence_b|`` over bins of confidence.

    Zero if predictions of each confidence are right as often as they say. It is biased upwards for small n: each bin
    counts its own noise. See `reliability` for arguments and errors.

    Returns
    -------
    float, 0 to 1
    """
    return reliability(y, probabilities, bins, classes=classes).error


def _probabilities(probabilities: Any) -> Array:
    """As an array (n, K) of rows that sum to one."""
    try:
        p = np.asarray(probabilities, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError("probabilities must be numbers, one row per sample and one column per class") from None
    if p.ndim != 2 or 0 in p.shape:
        raise DataError(f"probabilities must have shape (samples, classes), got {p.shape}")
    bad = ~(np.isfinite(p).all(axis=1) & (p >= 0.0).all(axis=1))
    bad |= np.abs(np.where(bad, 1.0, p.sum(axis=1)) - 1.0) > SUM_TOLERANCE
    if bad.any():
        raise DataError(f"probabilities must not be negative and sum to one, but row {int(np.argmax(bad))} does not")
    return p


def _columns(y: Any, p: Array, classes: Any) -> npt.NDArray[np.int64]:
    """True classes as columns of `p`."""
    truth = np.asarray(y)
    if truth.shape != (len(p),):
        raise DataError(f"y must have shape ({len(p)},), one class per row of probabilities, got {truth.shape}")
    known = np.arange(p.shape[1]) if classes is None else np.asarray(classes)
    if known.shape != (p.shape[1],):
        raise DataError(f"classes must have shape ({p.shape[1]},), one per column, got {known.shape}")
    column = {label: i for i, label in enumerate(known.tolist())}
    for label in truth.tolist():
        if label not in column:
            raise DataError(f"y holds the class {label!r}, which has no column of probabilities")
    return np.array([column[label] for label in truth.tolist()], dtype=np.int64)
