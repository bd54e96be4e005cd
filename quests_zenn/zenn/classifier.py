"""Classes as configurations (cross-zentropy), and the same training for plain cross-entropy.

Two small tanh networks per class give an energy E_k(x, T) and an entropy S_k(x, T) >= 0, a square. Then::

    a_k = -(E_k - T S_k) / (k_B T) - (S_k / (gamma k_B))^2
    p_k = softmax_k(a_k)

Networks see standardised x and T, and give energies in units of k_B times a typical temperature, so that k_B cancels
in p_k. All members of the committee and all classes are one set of tensors, with features before rows: one product of
matrices per layer. Everything is float64 and on one thread, so that a seed means the same bits everywhere.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from quests_zenn._core.checks import DataError, DataWarning, MissingExtraError, finite, one_of, positive, whole_number
from quests_zenn._core.rng import as_rng
from quests_zenn.io.outputs import versions
from quests_zenn.zenn._files import read_model, write_model
from quests_zenn.zenn._rows import as_numbers

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]
Progress = Callable[[int], None]
Views = dict[str, "torch.Tensor"]
Shapes = dict[str, tuple[int, ...]]
Self = TypeVar("Self", bound="_Committee")

FORMAT, FORMAT_VERSION = "quests_zenn classifier", 1

#: Learnable temperatures are LOWEST + SPAN * sigmoid(lambda), in scaled units (definitions of cross-zentropy).
LOWEST, SPAN = 0.1, 9.9

#: Centre and scale of learnable temperatures as inputs of networks.
LEARNED_CENTRE, LEARNED_SCALE = 1.0, 3.0

#: Numbers beyond this, or temperatures below its inverse, are refused: squares would leave the range of numbers.
LARGEST = 1e100

#: Rows whose probabilities are computed together.
ROWS = 4096

#: Iterations of L-BFGS without a better validation loss of any member, after which it ends.
PATIENCE = 50


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "zenn") from error
    return torch


@contextmanager
def _one_thread() -> Iterator[Any]:
    """torch, on one thread as all other libraries of linear algebra; afterwards as they were."""
    torch = _import_torch()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with threadpool_limits(1):
            yield torch
    finally:
        torch.set_num_threads(before)


def _network_shapes(
    prefix: str, groups: int, inputs: int, hidden: Sequence[int], outputs: int, temperature: bool
) -> Shapes:
    """Shapes of the parameters of `groups` networks side by side."""
    shapes: Shapes = {f"{prefix}.0.weight": (groups, hidden[0], inputs), f"{prefix}.0.bias": (groups, hidden[0])}
    if temperature:
        shapes[f"{prefix}.0.temperature"] = (groups, hidden[0])
    widths = [*hidden, outputs]
    for layer in range(1, len(widths)):
        shapes[f"{prefix}.{layer}.weight"] = (groups, widths[layer], widths[layer - 1])
        shapes[f"{prefix}.{layer}.bias"] = (groups, widths[layer])
    return shapes


def _network(p: Views, prefix: str, layers: int, x: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
    """Outputs (members, groups, outputs, I, n) of tanh networks side by side.

    x: (d, n). t: (members, I, n), or n = 1 for temperatures that do not depend on the row; None where there are none.
    """
    torch = _import_torch()
    weight, bias = p[f"{prefix}.0.weight"], p[f"{prefix}.0.bias"]
    members, groups, width, inputs = weight.shape
    z = (weight.reshape(-1, inputs) @ x).reshape(members, groups, width, 1, x.shape[1]) + bias[..., None, None]
    if t is not None:
        z = z + p[f"{prefix}.0.temperature"][..., None, None] * t[:, None, None]
    kinds, rows = z.shape[-2:]
    a = z.reshape(members * groups, width, kinds * rows)
    for layer in range(1, layers):
        weight, bias = p[f"{prefix}.{layer}.weight"], p[f"{prefix}.{layer}.bias"]
        a = torch.baddbmm(
            bias.reshape(members * groups, -1, 1), weight.reshape(members * groups, *weight.shape[2:]), torch.tanh(a)
        )
    return a.reshape(members, groups, -1, kinds, rows)


class _Committee(ClassifierMixin, BaseEstimator):
    """What both classifiers share: input, training, committee, files."""

    hidden: Sequence[int]
    n_members: int
    weight_decay: float
    validation: float
    adam_steps: int
    learning_rate: float
    polish_steps: int
    random_state: Any

    # --- what each kind of model brings ------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Judge the arguments of the constructor."""
        _hidden(self.hidden)
        whole_number(self.n_members, "n_members", 1)
        whole_number(self.adam_steps, "adam_steps", 1)
        whole_number(self.polish_steps, "polish_steps", 0)
        positive(self.learning_rate, "learning_rate")
        if finite(self.weight_decay, "weight_decay") < 0.0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay!r}")
        if not 0.0 <= finite(self.validation, "validation") < 1.0:
            raise ValueError(f"validation must be a share from 0 to below 1, got {self.validation!r}")

    def _shapes(self) -> Shapes:
        """Shapes of all parameters of a member, by name."""
        raise NotImplementedError

    def _start(self, views: Mapping[str, Array], rng: np.random.Generator) -> None:
        """Change initial parameters (members, ...) in place, where they are not those of usual networks."""

    def _log_likelihood(self, p: Views, x: Any, T: Any, y: Any, source: Any) -> Any:
        """Log of the probability of what was seen, (members, n)."""
        raise NotImplementedError

    def _log_probabilities(self, p: Views, x: Any, T: Any, source: Any) -> Any:
        """Log of the probability of each class, (members, K, n)."""
        raise NotImplementedError

    def _finish(self) -> None:
        """After training."""

    # --- parameters ---------------------------------------------------------------------------------------------------

    def _views(self, theta: Any) -> dict[str, Any]:
        """Parameters by name, as views of (members, all parameters)."""
        views, start = {}, 0
        for name, shape in self._shapes().items():
            size = math.prod(shape)
            views[name] = theta[:, start : start + size].reshape(len(theta), *shape)
            start += size
        return views

    def _initial(self, torch: Any, rng: np.random.Generator) -> Array:
        """Random parameters (members, all): variance 1 / inputs for weights, biases near zero."""
        shapes = self._shapes()
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        size = sum(math.prod(shape) for shape in shapes.values())
        theta = torch.randn((int(self.n_members), size), generator=generator, dtype=torch.float64).numpy()
        for name, part in self._views(theta).items():
            if name.endswith("weight"):
                part /= math.sqrt(part.shape[-1])
            elif name.endswith("bias"):
                part *= 0.1
        self._start(self._views(theta), rng)
        return np.ascontiguousarray(theta)

    # --- fit ----------------------------------------------------------------------------------------------------------

    def _fit(
        self: Self, x: Any, y: Any, T: Any, source: Any, weight: Any, groups: Any, progress: Progress | None
    ) -> Self:
        self._judge()
        rng = as_rng(self.random_state)
        rows = _matrix(x)
        n = len(rows)
        classes, codes = _classes(y, n)
        self.classes_ = classes
        self.n_features_in_ = rows.shape[1]
        self._x_mean, self._x_scale = _standard(rows)
        self.x_range_ = np.stack([rows.min(axis=0), rows.max(axis=0)], axis=1)
        self._mode = "none" if T is None else "known"
        self.sources_: Array | None = None
        if T is not None:
            known = _temperatures(T, n)
            self._t_mean, self._t_scale = (float(v[0]) for v in _standard(known[:, None]))
            self._t_unit = float(np.exp(np.mean(np.log(known))))  # typical temperature
            self.T_range_: Array | None = np.array([known.min(), known.max()])
        else:
            known = np.ones(n)
            self._t_mean, self._t_scale, self._t_unit, self.T_range_ = LEARNED_CENTRE, LEARNED_SCALE, 1.0, None
        origin = np.zeros(n, dtype=np.int64)
        if source is not None:
            self._mode = "source"
            self.sources_, origin = _labels(source, n, "source")
        weights = _weights(weight, n)
        within = None if groups is None else _labels(groups, n, "groups")[1]
        share = np.zeros((int(self.n_members), n), dtype=bool)
        for member in share:
            member[:] = _validation(codes, float(self.validation), within, rng)

        started = time.perf_counter()
        with _one_thread() as torch:
            data = (
                torch.from_numpy(self._scaled(rows)),
                torch.from_numpy(known).reshape(1, 1, n),
                torch.from_numpy(codes),
                torch.from_numpy(origin),
            )
            theta, report = self._train(torch, self._initial(torch, rng), data, weights, share, progress)
        self._theta = theta
        self.n_members_ = len(theta)
        self.n_parameters_ = int(theta.shape[1])
        self._finish()
        self.report_ = {
            "n": n,
            "n_parameters": self.n_parameters_,
            "n_validation": share.sum(axis=1).tolist(),
            "seconds": time.perf_counter() - started,
            **report,
        }
        return self

    def _train(
        self,
        torch: Any,
        start: Array,
        data: tuple[Any, ...],
        weights: Array,
        held: Array,
        progress: Progress | None,
    ) -> tuple[Array, dict[str, Any]]:
        """Adam with a cosine schedule, then L-BFGS, for all members at once; of each member its best state.

        Members share nothing: the loss is the sum of theirs.
        """
        x, T, y, source = data
        train = torch.from_numpy(weights * ~held)
        train = train / train.sum(dim=1, keepdim=True)
        judged = torch.from_numpy(weights * held)
        split = judged.sum(dim=1) > 0  # members without rows held out are judged by what is minimised
        judged = judged / torch.where(split, judged.sum(dim=1), torch.ones_like(train[:, 0]))[:, None]
        decayed = np.zeros_like(start)
        for name, part in self._views(decayed).items():
            part[...] = 1.0 if name.endswith(("weight", "temperature")) else 0.0
        decay = torch.from_numpy(decayed) * float(self.weight_decay)

        best = np.full(len(start), np.inf)
        best_theta = start.copy()
        final = np.full(len(start), np.nan)
        unimproved = 0

        def note(theta: Any, validation: Array, training: Array) -> None:
            nonlocal unimproved
            better = validation < best
            best[better] = validation[better]
            final[better] = training[better]
            best_theta[better] = theta.detach().numpy()[better]
            unimproved = 0 if better.any() else unimproved + 1

        def evaluate(theta: Any) -> tuple[Any, Array, Array]:
            likelihood = self._log_likelihood(self._views(theta), x, T, y, source)
            loss = -(train * likelihood).sum(dim=1)
            objective = loss + 0.5 * (decay * theta * theta).sum(dim=1)
            validation = torch.where(split, -(judged * likelihood).sum(dim=1), objective)
            return objective.sum(), validation.detach().numpy(), loss.detach().numpy()

        steps = int(self.adam_steps)
        theta = torch.from_numpy(start.copy()).requires_grad_(True)
        adam = torch.optim.Adam([theta], lr=float(self.learning_rate))
        for step in range(steps):
            adam.param_groups[0]["lr"] = float(self.learning_rate) * 0.5 * (1.0 + math.cos(math.pi * step / steps))
            adam.zero_grad()
            objective, validation, training = evaluate(theta)
            note(theta, validation, training)
            objective.backward()
            adam.step()
            if progress is not None:
                progress(1)
        with torch.no_grad():
            _, validation, training = evaluate(theta)
        note(theta, validation, training)

        polished = 0
        if int(self.polish_steps):
            latest: dict[str, Any] = {}

            def function(flat: Array) -> tuple[float, Array]:
                point = torch.from_numpy(flat.reshape(start.shape).copy()).requires_grad_(True)
                objective, validation, training = evaluate(point)
                objective.backward()
                latest.update(at=flat.copy(), values=(point, validation, training))
                return float(objective.detach()), point.grad.numpy().ravel().copy()

            def each(flat: Array) -> None:
                nonlocal polished
                polished += 1
                if progress is not None:
                    progress(1)
                if not np.array_equal(latest["at"], flat):
                    function(flat)
                note(*latest["values"])
                if unimproved >= PATIENCE:
                    raise StopIteration

            unimproved = 0
            options = {"maxiter": int(self.polish_steps), "maxcor": 20, "maxfun": 4 * int(self.polish_steps)}
            minimize(function, best_theta.ravel().copy(), jac=True, method="L-BFGS-B", callback=each, options=options)
        if not np.isfinite(best).all():
            raise DataError("training went astray: the loss is not finite; try a smaller learning_rate")
        report = {
            "adam_steps": steps,
            "polish_steps": polished,
            "loss_training": final.tolist(),
            "loss_validation": best.tolist(),
        }
        return best_theta, report

    def _scaled(self, rows: Array) -> Array:
        """Standardised features (d, n)."""
        return np.ascontiguousarray(((rows - self._x_mean) / self._x_scale).T)

    # --- predictions --------------------------------------------------------------------------------------------------

    def _asked(self, x: Any, T: Any, source: Any) -> tuple[Array, Array | None, Array | None]:
        """x, T and numbers of sources of a question, judged."""
        check_is_fitted(self, "classes_")
        rows = _matrix(x)
        if rows.shape[1] != self.n_features_in_:
            raise DataError(f"x must have {self.n_features_in_} columns, as in fit, got {rows.shape[1]}")
        n = len(rows)
        known = None
        if self._mode == "known":
            if T is None:
                raise ValueError("T is needed: this model was fitted with known temperatures")
            known = _temperatures(T, n)
            low, high = self._T_bounds()
            outside = int(np.count_nonzero((known < low) | (known > high)))
            if outside:
                warnings.warn(
                    f"{outside} of {n} temperatures are outside of the range of fit, {low:g} to {high:g}",
                    DataWarning,
                    stacklevel=5,
                )
        elif T is not None:
            raise ValueError("T cannot be given: this model was fitted without known temperatures")
        origin = None
        if source is not None:
            if self.sources_ is None:
                raise ValueError("source cannot be given: this model was fitted without sources")
            origin = _known_labels(source, self.sources_, n)
        return rows, known, origin

    def _T_bounds(self) -> tuple[float, float]:
        assert self.T_range_ is not None
        return float(self.T_range_[0]), float(self.T_range_[1])

    def _members(self, x: Any, T: Any, source: Any) -> Array:
        """Probabilities (members, n, K)."""
        rows, known, origin = self._asked(x, T, source)
        parts = []
        with _one_thread() as torch, torch.no_grad():
            p = self._views(torch.from_numpy(self._theta))
            for first in range(0, len(rows), ROWS):
                part = slice(first, first + ROWS)
                at = None if known is None else torch.from_numpy(known[part]).reshape(1, 1, -1)
                whence = None if origin is None else torch.from_numpy(origin[part])
                found = self._log_probabilities(p, torch.from_numpy(self._scaled(rows[part])), at, whence)
                parts.append(torch.exp(found).permute(0, 2, 1).numpy())
        return np.concatenate(parts, axis=1)

    def _predict_proba(self, x: Any, T: Any, source: Any, std: bool) -> Any:
        members = self._members(x, T, source)
        mean = members.mean(axis=0)
        if not std:
            return mean
        return mean, members.std(axis=0, ddof=1) if len(members) > 1 else np.zeros_like(mean)

    # --- files --------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the model to a folder, whole or not at all: ``model.safetensors`` and ``model.json``; no pickle.

        Raises
        ------
        DataError
            If the folder exists and `overwrite` is False, holds anything but a model, or cannot be written, or classes
            are neither numbers nor text.
        MissingExtraError
            Without torch or safetensors.
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        check_is_fitted(self, "classes_")
        with _one_thread() as torch:
            tensors = {name: torch.from_numpy(part.copy()) for name, part in self._views(self._theta).items()}
            tensors["x_mean"], tensors["x_scale"] = torch.from_numpy(self._x_mean), torch.from_numpy(self._x_scale)
            tensors["x_range"] = torch.from_numpy(self.x_range_)
        document = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "kind": type(self).__name__,
            "parameters": self._parameters(),
            "classes": _to_json(self.classes_, "classes"),
            "sources": None if self.sources_ is None else _to_json(self.sources_, "sources"),
            "mode": self._mode,
            "T_mean": self._t_mean,
            "T_scale": self._t_scale,
            "T_unit": self._t_unit,
            "T_range": self.T_range_,
            "report": self.report_,
            "versions": versions(),
        }
        write_model(path, tensors, document, overwrite)

    def _parameters(self) -> dict[str, Any]:
        """Arguments of the constructor as JSON; those that are infinite as text."""
        found = dict(self.get_params(deep=False))
        if not (found["random_state"] is None or isinstance(found["random_state"], int | np.integer)):
            found["random_state"] = None  # a generator has moved on
        return {
            name: "inf" if isinstance(value, float | np.floating) and math.isinf(value) else value
            for name, value in found.items()
        }

    @classmethod
    def load(cls: type[Self], path: str | os.PathLike[str]) -> Self:
        """A model that `save` has written; it predicts the same bits.

        Raises
        ------
        DataError
            If there is none, it is damaged, of another kind, or of a newer format.
        MissingExtraError
            Without torch or safetensors.
        """
        _import_torch()
        name = os.fspath(path)
        tensors, document = read_model(path)
        if document.get("format") != FORMAT:
            raise DataError(f"{name}: is no saved classifier")
        if document.get("kind") != cls.__name__:
            raise DataError(f"{name}: holds a {document.get('kind')}, not a {cls.__name__}")
        if document.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{name}: was written in format {document.get('format_version')}, and this version of quests_zenn "
                f"reads {FORMAT_VERSION}"
            )
        try:
            return cls._from_file(document, {key: part.numpy() for key, part in tensors.items()})
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, IndexError) as error:
            raise DataError(f"{name}: the model is damaged ({error})") from error

    @classmethod
    def _from_file(cls: type[Self], document: dict[str, Any], tensors: dict[str, Array]) -> Self:
        given: dict[str, Any] = {k: math.inf if v == "inf" else v for k, v in document["parameters"].items()}
        given["hidden"] = tuple(given["hidden"])
        model = cls(**given)
        model._judge()
        model.classes_ = _from_json(document["classes"])
        model.sources_ = None if document["sources"] is None else _from_json(document["sources"])
        model._mode = one_of(document["mode"], "mode", ("none", "known", "source"))
        if len(model.classes_) < 2 or (model._mode == "source") != (model.sources_ is not None):
            raise ValueError("classes or sources do not fit the mode")
        model._t_mean, model._t_scale = finite(document["T_mean"], "T_mean"), positive(document["T_scale"], "T_scale")
        model._t_unit = positive(document["T_unit"], "T_unit")
        model.T_range_ = None if document["T_range"] is None else np.array(document["T_range"], dtype=np.float64)
        if (model._mode == "known") != (model.T_range_ is not None):
            raise ValueError("T_range does not fit the mode")
        if model.T_range_ is not None:
            _sound(model.T_range_, (2,), "T_range")
        model._x_mean, model._x_scale, model.x_range_ = (tensors[key] for key in ("x_mean", "x_scale", "x_range"))
        model.n_features_in_ = len(model._x_mean)
        _sound(model._x_mean, (model.n_features_in_,), "x_mean")
        _sound(model._x_scale, (model.n_features_in_,), "x_scale")
        _sound(model.x_range_, (model.n_features_in_, 2), "x_range")
        if not (model._x_scale > 0.0).all():
            raise ValueError("x_scale must be positive")
        members = int(model.n_members)
        parts = []
        for key, shape in model._shapes().items():
            _sound(tensors[key], (members, *shape), key)
            parts.append(tensors[key].reshape(members, -1))
        model._theta = np.ascontiguousarray(np.concatenate(parts, axis=1))
        model.n_members_, model.n_parameters_ = members, int(model._theta.shape[1])
        model.report_ = document["report"]
        return model


class ZENNClassifier(_Committee):
    """Classes as configurations, each with an energy and an entropy that depend on x and a temperature T.

    Temperatures are known (``fit(x, y, T=...)``), hidden (``fit(x, y)``) or those of known sources
    (``fit(x, y, source=...)``). Hidden ones are a fixed T = 1 beside `n_temperatures` that are learned,
    ``T_i = 0.1 + 9.9 sigmoid(lambda_i)``; a gate, a small network of x alone, says how likely each is. Training
    maximises the marginal likelihood ``sum_i pi_i(x) p(y | x, T_i)``, which is also what is predicted: the label of a
    prediction has no part in it. With sources, each has one learned temperature, and training maximises
    ``pi_s(x) p(y | x, T_s)`` of the class and the source; a prediction for a known source uses its temperature, and
    one for an unknown source the sum over sources.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the hidden layers of the networks of E_k and S_k.
    gamma : float
        Bounds the entropy: the larger, the less. inf drops the term.
    n_temperatures : int
        Learned temperatures beside the fixed one, where none are known.
    boltzmann : float
        k_B in the units wanted for energies per unit of T. Probabilities do not depend on it.
    n_members : int
        Of the committee. Each starts elsewhere and has a validation split of its own.
    weight_decay : float
        Adds ``weight_decay / 2`` times the sum of squared weights (no biases) to the mean loss.
    validation : float
        Share of the rows, stratified by class, by which the best state is chosen; with 0, by the training loss with the
        decay of weights.
    adam_steps, learning_rate : int, float
        Of Adam, on all rows at once, with a cosine schedule.
    polish_steps : int
        Iterations of L-BFGS at most that follow, from the best state; 0 for none.
    random_state : int, numpy.random.Generator or None
        An int gives the same bits each time.

    Attributes
    ----------
    classes_ : ndarray, shape (K,)
        Sorted.
    sources_ : ndarray or None
        Sorted labels of the sources.
    temperatures_ : ndarray, shape (n_members, I), or None
        Learned temperatures: 1 and then the others in ascending order, or one for each source. Those of sources
        matter by their ratios only. None where they were known.
    n_parameters_ : int
        Of one member.
    n_features_in_, n_members_ : int
    x_range_ : ndarray, shape (d, 2)
    T_range_ : ndarray, shape (2,), or None
    report_ : dict
        Losses (nats per row) of training and validation of each member, iterations, seconds.

    Examples
    --------
    >>> model = ZENNClassifier(random_state=0).fit(x, y, T=T)
    >>> model.predict_proba(x, T=T)
    """

    def __init__(
        self,
        hidden: Sequence[int] = (8, 8),
        gamma: float = 100.0,
        n_temperatures: int = 3,
        *,
        boltzmann: float = 1.0,
        n_members: int = 5,
        weight_decay: float = 1e-3,
        validation: float = 0.15,
        adam_steps: int = 500,
        learning_rate: float = 0.02,
        polish_steps: int = 200,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.gamma = gamma
        self.n_temperatures = n_temperatures
        self.boltzmann = boltzmann
        self.n_members = n_members
        self.weight_decay = weight_decay
        self.validation = validation
        self.adam_steps = adam_steps
        self.learning_rate = learning_rate
        self.polish_steps = polish_steps
        self.random_state = random_state

    def fit(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        T: npt.ArrayLike | None = None,
        source: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
        groups: npt.ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> ZENNClassifier:
        """Learn.

        Parameters
        ----------
        x : array, shape (n, d) or (n,)
            Features, in any units.
        y : array, shape (n,)
            Classes: numbers or text.
        T : array, shape (n,), or float, optional
            Known temperatures, in any units.
        source : array, shape (n,), optional
            Where each row is from: numbers or text. Not together with T.
        sample_weight : array, shape (n,), optional
            Not negative.
        groups : array, shape (n,), optional
            Rows of one group stand on one side of the validation split.
        progress : callable, optional
            Called with the number of iterations done since the last call; of ``adam_steps + polish_steps`` at most.

        Returns
        -------
        ZENNClassifier
            Itself.

        Raises
        ------
        DataError
            If data are not finite, differ in length, hold one class only, or a temperature is not positive.
        ValueError
            If arguments are out of range, or both T and source are given.
        MissingExtraError
            If torch is not installed.
        """
        if T is not None and source is not None:
            raise ValueError("T and source cannot both be given: a source stands for a temperature that is not known")
        return self._fit(x, y, T, source, sample_weight, groups, progress)

    def predict_proba(
        self,
        x: npt.ArrayLike,
        T: npt.ArrayLike | None = None,
        source: npt.ArrayLike | None = None,
        *,
        std: bool = False,
    ) -> Any:
        """Probability of each class: the mean over the committee.

        Parameters
        ----------
        x : array, shape (n, d) or (n,)
        T : array, shape (n,), or float
            Needed if `fit` had it. A `DataWarning` says how many are outside the range of `fit`.
        source : array, shape (n,), optional
            Of models fitted with sources; without it the gate says how likely each source is.
        std : bool
            Also give the spread of the committee.

        Returns
        -------
        ndarray, shape (n, K), or two of them with `std`
            In the order of `classes_`.

        Raises
        ------
        DataError
            If data are not finite, have another number of columns than in `fit`, or a source is unknown.
        ValueError
            If T is missing, or T or source is given to a model that does not know it.
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        return self._predict_proba(x, T, source, std)

    def predict(self, x: npt.ArrayLike, T: npt.ArrayLike | None = None, source: npt.ArrayLike | None = None) -> Array:
        """The most probable class of each row (n,). See `predict_proba`."""
        probabilities = self._predict_proba(x, T, source, False)
        return self.classes_[np.argmax(probabilities, axis=1)]

    def score(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        T: npt.ArrayLike | None = None,
        source: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> float:
        """Share of rows whose most probable class is right. See `predict_proba`."""
        return _accuracy(y, self.predict(x, T, source), sample_weight)

    def gate(self, x: npt.ArrayLike) -> Array:
        """How likely each temperature is, given x alone: the mean over the committee.

        Columns are those of `temperatures_`: for models with sources, the probability of each source.

        Returns
        -------
        ndarray, shape (n, I)

        Raises
        ------
        ValueError
            For models fitted with known temperatures.
        """
        rows = self._without_T(x)
        with _one_thread() as torch, torch.no_grad():
            p = self._views(torch.from_numpy(self._theta))
            found = torch.exp(self._log_gate(p, torch.from_numpy(self._scaled(rows))))
        return found.numpy().mean(axis=0).T

    def configurations(self, x: npt.ArrayLike, T: npt.ArrayLike) -> tuple[Array, Array]:
        """Energies E_k(x, T) and entropies S_k(x, T) of all classes, for each member.

        Only differences of E_k - T S_k between classes have a meaning.

        Parameters
        ----------
        x : array, shape (n, d) or (n,)
        T : array, shape (n,), or float
            Any temperatures, also those of models with learned ones.

        Returns
        -------
        energy : ndarray, shape (n_members, n, K)
            In units of `boltzmann` times T.
        entropy : ndarray, shape (n_members, n, K)
            In units of `boltzmann`; not negative.
        """
        check_is_fitted(self, "classes_")
        rows = _matrix(x)
        known = _temperatures(T, len(rows))
        with _one_thread() as torch, torch.no_grad():
            p = self._views(torch.from_numpy(self._theta))
            found = self._energies(p, torch.from_numpy(self._scaled(rows)), torch.from_numpy(known).reshape(1, 1, -1))
            e, s = (part[:, :, 0].permute(0, 2, 1).numpy() for part in found)
        k = float(self.boltzmann)
        return k * self._t_unit * e, k * s

    def extrapolates(self, x: npt.ArrayLike, T: npt.ArrayLike | None = None) -> Array:
        """Whether each row (n,) is outside the ranges that `fit` saw, in any feature or in T."""
        check_is_fitted(self, "classes_")
        rows = _matrix(x)
        outside: Array = np.any((rows < self.x_range_[:, 0]) | (rows > self.x_range_[:, 1]), axis=1)
        if T is not None and self.T_range_ is not None:
            known = _temperatures(T, len(rows))
            outside = outside | (known < self.T_range_[0]) | (known > self.T_range_[1])
        return outside

    @property
    def temperatures_(self) -> Array | None:
        """See the class."""
        check_is_fitted(self, "classes_")
        if self._mode == "known":
            return None
        with _one_thread() as torch:
            return self._learned(self._views(torch.from_numpy(self._theta))).numpy()

    # --- the model ----------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        super()._judge()
        positive(self.boltzmann, "boltzmann")
        whole_number(self.n_temperatures, "n_temperatures", 0)
        if self.gamma != math.inf:
            positive(self.gamma, "gamma")

    @property
    def _n_kinds(self) -> int:
        """Temperatures that the gate chooses among."""
        return 1 + int(self.n_temperatures) if self.sources_ is None else len(self.sources_)

    def _shapes(self) -> Shapes:
        d, hidden = self.n_features_in_, _hidden(self.hidden)
        shapes = _network_shapes("classes", 2 * len(self.classes_), d, hidden, 1, True)
        if self._mode == "known":
            return shapes
        learned = self._n_kinds - (self._mode == "none")
        if learned:
            shapes["temperatures.odds"] = (learned,)
        if self._n_kinds > 1:
            shapes |= _network_shapes("gate", 1, d, hidden[:1], self._n_kinds, False)
        return shapes

    def _start(self, views: Mapping[str, Array], rng: np.random.Generator) -> None:
        k = len(self.classes_)
        views[f"classes.{len(self.hidden)}.bias"][:, k:] += 0.5  # where a square is flat nothing is learned
        if "temperatures.odds" in views:
            odds = views["temperatures.odds"]
            near = np.geomspace(0.3, 3.0, odds.shape[1] + 2)[1:-1] if self._mode == "none" else np.ones(odds.shape[1])
            share = (near * np.exp(0.1 * np.tanh(odds)) - LOWEST) / SPAN
            odds[...] = np.log(share / (1.0 - share))

    def _energies(self, p: Views, x: Any, T: Any) -> tuple[Any, Any]:
        """E_k in units of k_B times the typical temperature and S_k in units of k_B: (members, K, I, n)."""
        k = len(self.classes_)
        members = p["classes.0.bias"].shape[0]
        t = ((T - self._t_mean) / self._t_scale).expand(members, -1, -1)
        found = _network(p, "classes", len(_hidden(self.hidden)) + 1, x, t)[:, :, 0]
        return found[:, :k], found[:, k:] ** 2

    def _log_classes(self, p: Views, x: Any, T: Any) -> Any:
        """ln p_k at temperatures (members or 1, I, n or 1): (members, K, I, n)."""
        torch = _import_torch()
        e, s = self._energies(p, x, T)
        a = s - (self._t_unit / T)[:, None] * e
        if math.isfinite(self.gamma):
            a = a - (s / float(self.gamma)) ** 2
        return torch.log_softmax(a, dim=1)

    def _learned(self, p: Views) -> Any:
        """Temperatures (members, I)."""
        torch = _import_torch()
        one = torch.ones((p["classes.0.bias"].shape[0], 1 if self._mode == "none" else 0), dtype=torch.float64)
        if "temperatures.odds" not in p:
            return one
        return torch.cat([one, LOWEST + SPAN * torch.sigmoid(p["temperatures.odds"])], dim=1)

    def _log_gate(self, p: Views, x: Any) -> Any:
        """ln pi_i(x): (members, I, n)."""
        torch = _import_torch()
        if self._n_kinds == 1:
            return torch.zeros((p["classes.0.bias"].shape[0], 1, x.shape[1]), dtype=torch.float64)
        return torch.log_softmax(_network(p, "gate", 2, x)[:, 0, :, 0], dim=1)

    def _log_likelihood(self, p: Views, x: Any, T: Any, y: Any, source: Any) -> Any:
        torch = _import_torch()
        rows = torch.arange(x.shape[1])
        if self._mode == "known":
            return self._log_classes(p, x, T)[:, y, 0, rows]
        learned = self._learned(p)
        if self._mode == "source":
            found = self._log_classes(p, x, learned[:, source][:, None])[:, y, 0, rows]
            return found + self._log_gate(p, x)[:, source, rows]
        found = self._log_classes(p, x, learned[:, :, None])
        chosen = found.permute(0, 2, 1, 3)[:, :, y, rows]  # (members, I, n)
        return torch.logsumexp(self._log_gate(p, x) + chosen, dim=1)

    def _log_probabilities(self, p: Views, x: Any, T: Any, source: Any) -> Any:
        torch = _import_torch()
        if self._mode == "known":
            return self._log_classes(p, x, T)[:, :, 0]
        learned = self._learned(p)
        if source is not None:
            return self._log_classes(p, x, learned[:, source][:, None])[:, :, 0]
        return torch.logsumexp(self._log_gate(p, x)[:, None] + self._log_classes(p, x, learned[:, :, None]), dim=2)

    def _finish(self) -> None:
        """Learned temperatures in ascending order, so that means over members of the gate have a meaning."""
        if self._mode != "none" or not int(self.n_temperatures):
            return
        views = {name: part.copy() for name, part in self._views(self._theta).items()}
        order = np.argsort(views["temperatures.odds"], axis=1, kind="stable")
        views["temperatures.odds"] = np.take_along_axis(views["temperatures.odds"], order, axis=1)
        order = np.column_stack([np.zeros(len(order), dtype=np.int64), order + 1])  # T = 1 stays first
        views["gate.1.weight"] = np.take_along_axis(views["gate.1.weight"], order[:, None, :, None], axis=2)
        views["gate.1.bias"] = np.take_along_axis(views["gate.1.bias"], order[:, None], axis=2)
        self._theta = np.concatenate([part.reshape(len(order), -1) for part in views.values()], axis=1)

    def _without_T(self, x: Any) -> Array:
        check_is_fitted(self, "classes_")
        if self._mode == "known":
            raise ValueError("there is no gate: this model was fitted with known temperatures")
        return self._asked(x, None, None)[0]


class CrossEntropyClassifier(_Committee):
    """A plain tanh network with a softmax, as a rival of `ZENNClassifier`: same size, training, committee, polishing.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the `ZENNClassifier` whose number of parameters (with known temperatures) is met.
    n_parameters : int or None
        Of one member, met as nearly as two hidden layers allow: ``n_parameters_`` of another model. None: see `hidden`.
    n_members, weight_decay, validation, adam_steps, learning_rate, polish_steps, random_state
        See `ZENNClassifier`.

    Attributes
    ----------
    widths_ : tuple of int
        Of the two hidden layers.
    classes_, n_parameters_, n_features_in_, n_members_, x_range_, T_range_, report_
        See `ZENNClassifier`.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (8, 8),
        n_parameters: int | None = None,
        *,
        n_members: int = 5,
        weight_decay: float = 1e-3,
        validation: float = 0.15,
        adam_steps: int = 500,
        learning_rate: float = 0.02,
        polish_steps: int = 200,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.n_parameters = n_parameters
        self.n_members = n_members
        self.weight_decay = weight_decay
        self.validation = validation
        self.adam_steps = adam_steps
        self.learning_rate = learning_rate
        self.polish_steps = polish_steps
        self.random_state = random_state

    def fit(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        T: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
        groups: npt.ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> CrossEntropyClassifier:
        """Learn; T, where it is given, is one more input. See `ZENNClassifier.fit`."""
        return self._fit(x, y, T, None, sample_weight, groups, progress)

    def predict_proba(self, x: npt.ArrayLike, T: npt.ArrayLike | None = None, *, std: bool = False) -> Any:
        """Probability of each class, and with `std` the spread of the committee. See `ZENNClassifier`."""
        return self._predict_proba(x, T, None, std)

    def predict(self, x: npt.ArrayLike, T: npt.ArrayLike | None = None) -> Array:
        """The most probable class of each row (n,)."""
        probabilities = self._predict_proba(x, T, None, False)
        return self.classes_[np.argmax(probabilities, axis=1)]

    def score(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        T: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> float:
        """Share of rows whose most probable class is right."""
        return _accuracy(y, self.predict(x, T), sample_weight)

    @property
    def widths_(self) -> tuple[int, int]:
        """See the class."""
        check_is_fitted(self, "classes_")
        return self._widths()

    def _judge(self) -> None:
        super()._judge()
        if self.n_parameters is not None:
            whole_number(self.n_parameters, "n_parameters", 1)

    def _widths(self) -> tuple[int, int]:
        d, k, with_T = self.n_features_in_, len(self.classes_), self._mode == "known"

        def size(shapes: Shapes) -> int:
            return sum(math.prod(shape) for shape in shapes.values())

        aim = self.n_parameters
        if aim is None:
            aim = size(_network_shapes("classes", 2 * k, d, _hidden(self.hidden), 1, True))
        largest = max(2, math.isqrt(int(aim)) + 1)
        # near the aim, widths that are nearly equal first
        tried = [(a, b) for a in range(1, largest + 1) for b in range(max(1, a - 3), a + 4)]
        miss = {
            pair: (abs(size(_network_shapes("network", 1, d, pair, k, with_T)) - int(aim)), abs(pair[0] - pair[1]))
            for pair in tried
        }
        return min(tried, key=lambda pair: (*miss[pair], pair))

    def _shapes(self) -> Shapes:
        return _network_shapes(
            "network", 1, self.n_features_in_, self._widths(), len(self.classes_), self._mode == "known"
        )

    def _log(self, p: Views, x: Any, T: Any) -> Any:
        torch = _import_torch()
        t = None
        if self._mode == "known":
            t = ((T - self._t_mean) / self._t_scale).expand(p["network.0.bias"].shape[0], -1, -1)
        return torch.log_softmax(_network(p, "network", 3, x, t)[:, 0, :, 0], dim=1)

    def _log_likelihood(self, p: Views, x: Any, T: Any, y: Any, source: Any) -> Any:
        return self._log(p, x, T)[:, y, _import_torch().arange(x.shape[1])]

    def _log_probabilities(self, p: Views, x: Any, T: Any, source: Any) -> Any:
        return self._log(p, x, T)


# --- judging data -----------------------------------------------------------------------------------------------------


def _hidden(hidden: Any) -> tuple[int, ...]:
    """Widths of hidden layers."""
    try:
        widths = tuple(hidden)
    except TypeError:
        widths = ()
    if not widths:
        raise ValueError(f"hidden must be a sequence of widths, such as (8, 8), got {hidden!r}")
    return tuple(whole_number(width, "hidden", 1) for width in widths)


def _matrix(x: Any) -> npt.NDArray[np.float64]:
    """Features (n, d), finite."""
    array = as_numbers(x, "x", ", a matrix with one row per sample")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"x must have shape (samples, features) with at least one of each, got {array.shape}")
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise DataError(f"x must be finite, but row {int(np.argmax(bad))} holds NaN or infinity")
    bad = (np.abs(array) > LARGEST).any(axis=1)
    if bad.any():
        raise DataError(f"x must lie within {LARGEST:g}, but row {int(np.argmax(bad))} does not")
    return np.ascontiguousarray(array)


def _standard(rows: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of columns; 1 for those that are constant."""
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    return mean, np.where(scale > 1e-12 * np.maximum(1.0, np.abs(mean)), scale, 1.0)


def _temperatures(T: Any, n: int) -> npt.NDArray[np.float64]:
    """Temperatures (n,), positive and finite."""
    array = as_numbers(T, "T", ", one per row of x")
    if array.ndim == 0:
        array = np.full(n, array)
    if array.shape != (n,):
        raise DataError(f"T must have shape ({n},), one per row of x, got {array.shape}")
    bad = ~(np.isfinite(array) & (array > 0.0))
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"T must be positive and finite, but row {row} holds {array[row]:g}")
    bad = (array < 1.0 / LARGEST) | (array > LARGEST)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"T must lie between {1 / LARGEST:g} and {LARGEST:g}, but row {row} holds {array[row]:g}")
    return np.ascontiguousarray(array)


def _labels(values: Any, n: int, name: str) -> tuple[Array, npt.NDArray[np.int64]]:
    """Sorted labels, and their number for each row."""
    if np.ma.is_masked(values):
        raise DataError(f"{name} must not be missing anywhere")
    array = np.asarray(values)
    if array.shape != (n,):
        raise DataError(f"{name} must have shape ({n},), one per row of x, got {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{name} must be finite, but row {int(np.argmin(np.isfinite(array)))} is not")
    if array.dtype.kind == "O" and any(v is None or v != v for v in array.tolist()):
        raise DataError(f"{name} must not be missing anywhere")
    try:
        labels, codes = np.unique(array, return_inverse=True)
    except TypeError:
        raise DataError(f"{name} must be of one kind, so that they can be sorted") from None
    return labels, codes.astype(np.int64)


def _classes(y: Any, n: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """Classes, and the number of that of each row; two of them at least."""
    classes, codes = _labels(y, n, "y")
    if len(classes) < 2:
        raise DataError(f"y must hold two classes at least, but all rows are of class {classes.tolist()[0]!r}")
    return classes, codes


def _known_labels(source: Any, sources: Array, n: int) -> npt.NDArray[np.int64]:
    """Numbers of known sources."""
    array = np.asarray(source)
    if array.ndim == 0:
        array = np.full(n, array)
    if array.shape != (n,):
        raise DataError(f"source must have shape ({n},), one per row of x, got {array.shape}")
    place = {label: i for i, label in enumerate(sources.tolist())}
    for label in array.tolist():
        if label not in place:
            names = ", ".join(str(name) for name in sources.tolist())
            raise DataError(f"source {label!r} is unknown; fit saw {names}, and without source the gate decides")
    return np.array([place[label] for label in array.tolist()], dtype=np.int64)


def _weights(weight: Any, n: int) -> npt.NDArray[np.float64]:
    """Weights of rows (n,), with mean 1."""
    if weight is None:
        return np.ones(n)
    array = as_numbers(weight, "sample_weight", ", one per row of x")
    if array.shape != (n,):
        raise DataError(f"sample_weight must have shape ({n},), one per row of x, got {array.shape}")
    if not np.isfinite(array).all() or (array < 0.0).any() or not array.any():
        raise DataError("sample_weight must be finite, not negative, and not all zero")
    array = array / array.max()  # sums of huge ones would overflow
    return array / array.mean()


def _validation(codes: Array, share: float, groups: Array | None, rng: np.random.Generator) -> Array:
    """Which rows (n,) are held out: of each class that share, whole groups where there are any.

    At least one unit of each class (a row, or a group) stays in training, and of classes with two units or more one is
    held out.
    """
    held = np.zeros(len(codes), dtype=bool)
    if share == 0.0:
        return held
    units = np.arange(len(codes)) if groups is None else groups
    taken: set[int] = set()
    trained: set[int] = set()
    for code in rng.permutation(int(codes.max()) + 1):
        mine = np.flatnonzero(codes == code)
        order = rng.permutation(np.unique(units[mine]))
        sizes = np.bincount(units[mine], minlength=int(units.max()) + 1)
        wanted = max(1.0, share * len(mine))
        wanted -= sum(int(sizes[u]) for u in order if int(u) in taken)
        free = [int(u) for u in order if int(u) not in taken and int(u) not in trained]
        # one unit is trained on, whatever the sizes
        if not any(int(u) in trained for u in order):
            last = free.pop() if free else int(order[-1])
            taken.discard(last)
            trained.add(last)
        for unit in free:
            if wanted <= 0.0:
                trained.add(unit)
                continue
            taken.add(unit)
            wanted -= int(sizes[unit])
    held[np.isin(units, list(taken))] = True
    return held


def _accuracy(y: Any, found: Array, sample_weight: Any) -> float:
    """Weighted share of equal labels."""
    truth = np.asarray(y)
    if truth.shape != found.shape:
        raise DataError(f"y must have shape {found.shape}, one per row of x, got {truth.shape}")
    return float(np.average(truth == found, weights=_weights(sample_weight, len(found))))


# --- files ------------------------------------------------------------------------------------------------------------


def _sound(array: Array, shape: tuple[int, ...], name: str) -> None:
    """Judge what a file holds."""
    if array.shape != shape or array.dtype != np.float64:
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, expected float64 of {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} is not finite")


def _to_json(labels: Array, name: str) -> dict[str, Any]:
    """Labels and what kind they are."""
    values = labels.tolist()
    if labels.dtype.kind == "O" and all(isinstance(value, str) for value in values):
        return {"kind": "object", "labels": values}
    if labels.dtype.kind not in "biufU":
        raise DataError(f"{name} must be numbers or text to be saved, got {labels.dtype}")
    return {"kind": labels.dtype.str, "labels": values}


def _from_json(document: dict[str, Any]) -> Array:
    kind, labels = document["kind"], list(document["labels"])
    if kind == "object":
        array = np.empty(len(labels), dtype=object)
        array[:] = [str(label) for label in labels]
    else:
        dtype = np.dtype(str(kind))
        if dtype.kind not in "biufU":
            raise ValueError(f"labels of kind {kind} are unknown")
        array = np.array(labels, dtype=dtype)
    if array.ndim != 1 or len(np.unique(array)) < len(array) or (array.dtype.kind == "f" and np.isinf(array).any()):
        raise ValueError("labels are not finite, or not all different")
    return array
