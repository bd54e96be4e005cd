"""Other ways to say what a data set does not know, from well-kept libraries, in the descriptor space that ours uses.

Each takes the environments of a training file and gives a score per environment, larger where it is less known. What
they need to be told is chosen from the training file alone.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from quests_zenn.descriptors import Environments
from quests_zenn.entropy import BandwidthLikelihood, select_bandwidth
from quests_zenn.uq import Reference
from quests_zenn.uq.thresholds import find_copies

Score = Callable[[np.ndarray], np.ndarray]
#: Takes environments and the frame of each, and returns a call that scores others.
Maker = Callable[[np.ndarray, np.ndarray], Score]

#: Share of the variance that principal components keep.
KEPT = 0.999

#: Numbers of Gaussians that are tried; neighbours that are summed, and those that dH is compared with.
MIXTURES, NEIGHBOURS, COMPARED = (1, 2, 4, 8, 16), 64, 20


def frame_codes(env: Environments) -> np.ndarray:
    """For each environment its frame, copies of a frame merged."""
    first = find_copies(env.x, env.numbers, env.frame_offsets)
    return np.repeat(first, np.diff(env.frame_offsets))


def likely_bandwidth(x: np.ndarray, frame: np.ndarray) -> BandwidthLikelihood:
    """The rule for ours, and for the neighbours below: how well all other frames foretell each of them."""
    return select_bandwidth(x, groups=frame)


def nearest(x: np.ndarray, frame: np.ndarray) -> Score:
    """Distance to the nearest environment of the training file."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(x)
    return lambda y: index.kneighbors(y)[0][:, 0]


def mahalanobis(x: np.ndarray, frame: np.ndarray) -> Score:
    """Mahalanobis distance; the covariance is shrunk as its own data ask for (Ledoit and Wolf)."""
    from sklearn.covariance import LedoitWolf

    scale = x.std(axis=0)
    used = scale > 1e-6 * scale.max()
    model = LedoitWolf().fit(x[:, used] / scale[used])
    return lambda y: np.sqrt(model.mahalanobis(y[:, used] / scale[used]))


def mixture(x: np.ndarray, frame: np.ndarray) -> Score:
    """Negative log likelihood of Gaussians in principal components; their number by the Bayesian criterion."""
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    axes = PCA(KEPT, whiten=True, random_state=0).fit(x)
    t = axes.transform(x)
    tried = [GaussianMixture(n, random_state=0, reg_covar=1e-4).fit(t) for n in MIXTURES if n * 20 < len(t)]
    best = min(tried, key=lambda model: model.bic(t))
    return lambda y: -best.score_samples(axes.transform(y))


def neighbour_density(x: np.ndarray, frame: np.ndarray) -> Score:
    """Kernel density of the nearest neighbours in principal components, -ln.

    In the form of D. Willimetz and L. Grajciar, arXiv:2508.14613; numbers of components and neighbours are ours.
    """
    from scipy.special import logsumexp
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    axes = PCA(KEPT, random_state=0).fit(x)
    t = axes.transform(x)
    h = likely_bandwidth(t, frame).best
    index = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(t)), algorithm="brute").fit(t)
    return lambda y: -logsumexp(-0.5 * (index.kneighbors(axes.transform(y))[0] / h) ** 2, axis=1)


def outlier_factor(x: np.ndarray, frame: np.ndarray) -> Score:
    """Local outlier factor, as scikit-learn sets it."""
    from sklearn.neighbors import LocalOutlierFactor

    model = LocalOutlierFactor(novelty=True, algorithm="brute").fit(x)
    return lambda y: -model.score_samples(y)


def isolation(x: np.ndarray, frame: np.ndarray) -> Score:
    """Isolation forest, as scikit-learn sets it, with 200 trees."""
    from sklearn.ensemble import IsolationForest

    model = IsolationForest(n_estimators=200, random_state=0).fit(x)
    return lambda y: -model.score_samples(y)


def one_class(x: np.ndarray, frame: np.ndarray) -> Score:
    """One-class support vectors, 1 % outside, on columns of unit variance."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import OneClassSVM

    model = make_pipeline(StandardScaler(), OneClassSVM(nu=0.01, gamma="scale")).fit(x)
    return lambda y: -model.decision_function(y)


RIVALS: dict[str, Maker] = {
    "nearest neighbour": nearest,
    "Mahalanobis": mahalanobis,
    "Gaussian mixture": mixture,
    "k-NN density, PCA": neighbour_density,
    "local outlier factor": outlier_factor,
    "isolation forest": isolation,
    "one-class SVM": one_class,
}


def rival(name: str, env: Environments) -> Callable[[Environments], np.ndarray]:
    """A rival that knows a set of environments.

    With species ``blocks`` or ``pairs`` there is one for each centre element, as environments of different centres do
    not resemble each other there.
    """
    frame = frame_codes(env)
    x = np.asarray(env.x, np.float64)
    told = env.numbers if env.species != "none" else np.zeros(len(x), np.int64)
    known = {kind: RIVALS[name](x[told == kind], frame[told == kind]) for kind in np.unique(told)}

    def score(asked: Environments) -> np.ndarray:
        y = np.asarray(asked.x, np.float64)
        kinds = asked.numbers if env.species != "none" else np.zeros(len(y), np.int64)
        values = np.full(len(y), np.inf)
        for kind, call in known.items():
            values[kinds == kind] = call(y[kinds == kind])
        return values

    return score


def ours(env: Environments, bandwidth: float | None = None) -> Reference:
    """Our reference; its bandwidth by the rule, unless one is given."""
    h = likely_bandwidth(env.x, frame_codes(env)).best if bandwidth is None else bandwidth
    return Reference.from_environments(env, h)


def excess(reference: Reference, env: Environments, asked: Environments, values: np.ndarray) -> np.ndarray:
    """dH less the mean left-out dH of the nearest known environments: how much less known than those.

    `env` are the environments of the reference, and `values` the dH of those that are asked about.
    """
    from sklearn.neighbors import NearestNeighbors

    kept = reference.leave_out()
    index = NearestNeighbors(n_neighbors=COMPARED, algorithm="brute").fit(env.x[kept.rows])
    return values - kept.dh[index.kneighbors(asked.x)[1]].mean(axis=1)


# --- from atoms to frames ---------------------------------------------------------------------------------------------


def statistics(values: np.ndarray, offsets: np.ndarray) -> dict[str, np.ndarray]:
    """Ways to one score for each frame: mean, mean of the largest quarter, and largest."""
    parts = [np.sort(values[first:last])[::-1] for first, last in pairwise(offsets)]
    return {
        "mean": np.array([part.mean() for part in parts]),
        "quarter": np.array([part[: max(1, round(len(part) / 4))].mean() for part in parts]),
        "max": np.array([part[0] for part in parts]),
    }


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Share of pairs in which the positive frame has the larger score; ties count one half."""
    from scipy.stats import mannwhitneyu

    found = mannwhitneyu(positive, negative, method="asymptotic").statistic
    return float(found) / (len(positive) * len(negative))
