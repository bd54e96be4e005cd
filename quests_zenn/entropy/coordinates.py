"""Few coordinates of many environments, for maps that one can look at."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quests_zenn._core.arrays import as_matrix
from quests_zenn._core.checks import DataError, one_of, whole_number

Array = npt.NDArray[np.float64]

METHODS = ("pca", "tsne")

#: Environments, and numbers in them, that the axes of a principal component analysis are taken from at most.
MOST_FITTED, MOST_NUMBERS = 100_000, 20_000_000

#: Columns up to which all singular vectors are computed, and not the first few alone.
FEW_COLUMNS = 500

#: Columns to which t-SNE reduces environments first; distances hardly change.
TSNE_COLUMNS = 50

#: t-SNE: neighbours that each point looks at, about. The usual value.
PERPLEXITY = 30.0

#: Coordinates that vary by less, relative to the largest number, hold rounding errors.
CONSTANT = 1e-9


@dataclass(frozen=True)
class MapCoordinates:
    """Coordinates of environments in a map.

    Attributes
    ----------
    values : numpy.ndarray, shape (m, n_coordinates)
        1/Å for ``pca``, of no unit for ``tsne``. Columns are 0 where there is nothing left to tell.
    explained : numpy.ndarray, shape (n_coordinates,), or None
        Share of the variance of all environments that each coordinate holds; only for ``pca``.
    method : str
    """

    values: Array
    explained: Array | None
    method: str


def map_coordinates(
    x: npt.ArrayLike,
    rows: npt.NDArray[np.int64] | None = None,
    *,
    method: str = "pca",
    n_coordinates: int = 2,
    random_state: int = 0,
) -> MapCoordinates:
    """Coordinates in a plane, or in space, in which environments that resemble each other lie close together.

    One thread does all, so that the same input and seed give the same bits for any number of threads.

    Parameters
    ----------
    x : array_like, shape (N, d)
        Environments, 1/Å.
    rows : (m,) int or None
        Which of them are wanted; None for all.
    method : {"pca", "tsne"}
        ``pca``: the directions of largest variance among all N (of more than 100,000, or of very wide ones, every n-th
        counts), from scikit-learn. The number of largest size in each direction is positive. ``tsne``: the t-SNE of
        scikit-learn, of the rows wanted alone, from where ``pca`` puts them: it shows what belongs together, and its
        distances, sizes and gaps mean nothing.
    n_coordinates : int
        1 to 3.
    random_state : int
        Of ``tsne``.

    Raises
    ------
    ValueError
        If x is not a finite matrix, or an argument is out of range.
    DataError
        If ``tsne`` has fewer than 4 environments.
    """
    data = as_matrix(x, "x")
    one_of(method, "method", METHODS)
    n_coordinates = whole_number(n_coordinates, "n_coordinates", 1)
    if n_coordinates > 3:
        raise ValueError(f"n_coordinates must be 3 at most, got {n_coordinates}")
    wanted = data if rows is None else data[rows]
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        if method == "pca":
            values, explained = _pca(data, wanted, n_coordinates)
            return MapCoordinates(values, explained, method)
        return MapCoordinates(_tsne(wanted, n_coordinates, random_state), None, method)


def _pca(data: npt.NDArray[np.floating], wanted: npt.NDArray[np.floating], n: int) -> tuple[Array, Array]:
    """Coordinates of `wanted` along the principal axes of `data`, and shares of the variance."""
    from sklearn.decomposition import PCA

    values, explained = np.zeros((len(wanted), n)), np.zeros(n)
    most = max(1, min(MOST_FITTED, MOST_NUMBERS // data.shape[1]))
    step = -(-len(data) // most)
    fitted = np.asarray(data[::step], np.float64)
    centre = fitted.mean(axis=0)
    fitted = fitted - centre
    scale = float(np.abs(data).max(initial=0.0))
    total = float((fitted**2).sum())
    if total <= (CONSTANT * scale) ** 2 * fitted.size:
        return values, explained  # all alike
    n_found = min(n, *fitted.shape)
    few = data.shape[1] > FEW_COLUMNS and n_found < min(fitted.shape)
    pca = PCA(n_found, svd_solver="arpack" if few else "full", random_state=0).fit(fitted)
    axes = pca.components_
    axes = axes * np.where(axes[np.arange(n_found), np.abs(axes).argmax(axis=1)] < 0.0, -1.0, 1.0)[:, None]
    found = (wanted - centre) @ axes.T
    spread = np.sqrt((pca.singular_values_**2) / len(fitted))
    real = spread > CONSTANT * scale
    values[:, :n_found] = np.where(real, found, 0.0)
    explained[:n_found] = np.where(real, pca.singular_values_**2 / total, 0.0)
    return values, explained


def _tsne(wanted: npt.NDArray[np.floating], n: int, seed: int) -> Array:
    from sklearn.manifold import TSNE

    if len(wanted) < 4:
        raise DataError(f"t-SNE needs at least 4 environments, got {len(wanted)}; the method pca needs 1")
    reduced, explained = _pca(wanted, wanted, min(TSNE_COLUMNS, wanted.shape[1]))
    if not explained.any():
        return np.zeros((len(wanted), n))
    reduced = reduced[:, explained > 0.0]
    start = np.zeros((len(wanted), n))
    kept = min(n, reduced.shape[1])
    # tiny and of the same width for all data, as t-SNE likes it
    start[:, :kept] = 1e-4 * reduced[:, :kept] / reduced[:, 0].std()
    perplexity = min(PERPLEXITY, (len(wanted) - 1) / 3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        found = TSNE(
            n, perplexity=perplexity, init=start.astype(np.float32), learning_rate="auto", random_state=seed, n_jobs=1
        ).fit_transform(reduced)
    return np.asarray(found, np.float64)
