"""The doors: `ZENN`, `DNN` and `IDNN`, and what any fitted free energy can be asked."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from quests_zenn._core.checks import DataError, DataWarning, MissingExtraError, finite, one_of, positive, whole_number
from quests_zenn._core.parallel import Workers, resolve_jobs
from quests_zenn._core.progress import progress_bar
from quests_zenn._core.rng import as_rng
from quests_zenn.io.outputs import check_output
from quests_zenn.zenn import _mixture
from quests_zenn.zenn._ideal import IdealMixing
from quests_zenn.zenn._jets import Orders
from quests_zenn.zenn._parts import BOLTZMANN, ENERGIES, FIXED, GPA, THERMALS, Design, Parts, View, rungs, stretches
from quests_zenn.zenn._polynomials import Polynomials
from quests_zenn.zenn._problem import Problem, Rows, one_thread
from quests_zenn.zenn._rows import as_numbers, as_points, as_temperatures, make_rows, relative_to, what_is_known
from quests_zenn.zenn._train import Progress, Settings, Trained, Trainer

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float64]

#: What networks see of x.
Inputs = None | Polynomials | str | os.PathLike[str] | Sequence[Any]

#: Points evaluated at a time.
EVALUATED = 512

#: Priors of an equation of state before anything is known: wide where data decide, narrow where physics does.
FIRST_WIDTHS = {
    "log_volume": 0.2,
    "log_bulk_modulus": 1.0,
    "bulk_modulus_slope": 0.5,
    "log_temperature": 0.7,
    "grueneisen": 0.5,
    "grueneisen_slope": 0.5,
}

#: How much narrower priors of vibrations and electrons are off the ground: configurations of one material differ by a
#: few tenths of k_B per atom.
TAPER = 0.5

#: What networks add to the roots of entropies beside vibrations and electrons, which carry most of them.
ENTROPY_CORRECTION = 0.3

#: What configurations take over from the fit with a single one.
TAKEN_OVER = ("energy", "log_volume", "log_bulk_modulus", "log_temperature")

FORMAT = 1

#: Share of the damped steps for a fit that goes on from the last one.
WARM_SHARE = 0.3

#: Arguments of a network are of one scale if none matters less than the first by this factor; gains are not lower.
ONE_SCALE, LEAST_GAIN = 0.1, 1e-4

#: Rungs of the ladder of energies, in units of the width of their prior.
LADDER = 1.5


class FreeEnergyModel(BaseEstimator):
    """What all models share: fitting, observables, files. Use `ZENN`, `DNN` or `IDNN`."""

    # what a subclass sets in its __init__, as scikit-learn has it
    coordinate: str
    inputs: Inputs
    ideal: IdealMixing | None
    n_members: int
    n_starts: int | None
    n_atoms: float
    boltzmann: float
    convexity: float | str
    learn_priors: bool
    learning_rate: float
    adam_steps: int | str
    max_iterations: int
    tolerance: float
    validation_fraction: float
    warm_start: bool
    random_state: Any
    n_jobs: int | None
    verbose: bool

    # fitting ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        x: npt.ArrayLike,
        T: npt.ArrayLike,
        F: npt.ArrayLike | None = None,
        U: npt.ArrayLike | None = None,
        P: npt.ArrayLike | None = None,
        S: npt.ArrayLike | None = None,
        mu: npt.ArrayLike | None = None,
        density: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
        errors: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> FreeEnergyModel:
        """Fit to any mix of targets.

        Parameters
        ----------
        x : array, shape (n,) or (n, q)
            Volumes in Å3 of the unit that energies refer to, or other coordinates.
        T : float or array, shape (n,)
            Temperatures, K.
        F, U : array, shape (n,), optional
            Helmholtz energies, internal energies, eV per unit. NaN marks a missing target, here and below.
        P : array, shape (n,), optional
            Pressures, GPa (volumes only).
        S : array, shape (n,), optional
            Entropies, eV/K per unit.
        mu : array, shape (n,) or (n, q), optional
            Derivatives of F in x, eV per unit of x.
        density : array, shape (n,), optional
            Densities of x at each T, on any scale: proportional to exp(-F / k_B T).
        sample_weight : array, shape (n,), optional
            Weights of the rows; they are scaled to mean 1.
        errors : mapping, optional
            Standard errors by target, ``{"P": 0.01}`` or one number a row, in the unit of the target. Where none are
            given the noise is learned, one number for each kind of target.
        progress : callable, optional
            Told a stage and how many steps of it are done since the last call; by default a bar on the terminal.
        checkpoint : path, optional
            A file that keeps the state of the fit, and from which the same call goes on after an interruption.

        Returns
        -------
        The model itself.

        Raises
        ------
        DataError
            If the data cannot be used: the sentence says which row, and what to do.
        ValueError
            If a setting makes no sense.
        MissingExtraError
            Without torch.
        """
        _needs_torch()
        self._check_settings()
        rows = make_rows(
            x,
            T,
            {"F": F, "U": U, "P": P, "S": S, "mu": mu, "density": density},
            sample_weight,
            errors,
            self.coordinate,
        )
        given = np.unique(rows.T)
        if len(given) == 1 and self._needs_temperatures():
            raise DataError(
                f"all rows have T = {given[0]:g} K; a free energy of x and T needs two temperatures or more (or "
                "thermal='none', for the dependence on x alone)"
            )
        if self.coordinate == "volume" and rows.x.mean() / self.n_atoms > 80.0:
            warnings.warn(
                f"volumes are {rows.x.mean() / self.n_atoms:.0f} Å3 per atom; if x is the volume of a cell of several "
                "atoms, say so with n_atoms",
                DataWarning,
                stacklevel=2,
            )
        if checkpoint is not None:
            checkpoint = check_output(checkpoint, overwrite=True)
        seed = self._seed(checkpoint)
        usual = {kind: float(np.nanstd(values)) for kind, values in rows.targets.items()}
        self._take_ideal(rows)
        shift = self._take_shift(rows)
        previous = (
            getattr(self, "z_", None) if self.warm_start and self.ideal == getattr(self, "ideal_", None) else None
        )
        with _bar(progress, self.verbose) as told:
            design, noise, first = self._design(rows, seed, told)
            settings = self._settings(design)
            start, learned, widths = None, None, None
            if previous is not None and len(previous) == self.n_members and _same_form(design, self.design_):
                # units inside, and centres of priors, stay those that the parameters mean
                design, start = self.design_, previous
                learned, widths = self.noise_, self.report_["prior_widths"]
                settings = replace(
                    settings, adam_steps=0, max_iterations=math.ceil(WARM_SHARE * settings.max_iterations)
                )
            trainer = Trainer(
                design,
                rows,
                settings,
                seed,
                self.n_jobs,
                noise,
                None if checkpoint is None else Path(checkpoint),
                start,
                told,
                learned,
                widths,
            )
            trained = trainer.run()
        if not all(math.isfinite(cost) for cost in trained.cost):
            raise DataError("the fit ended in numbers that are not finite; look at units, errors and settings")
        self._keep(design, rows, shift, seed, trained, first)
        if trained.converged or trained.iterations >= 50:
            self._judge(rows, usual)
        return self

    def _check_settings(self) -> None:
        one_of(self.coordinate, "coordinate", ("volume", "order"))
        self._check_inputs()
        whole_number(self.n_members, "n_members", 1)
        if self.n_starts is not None:
            whole_number(self.n_starts, "n_starts", self.n_members)
        positive(self.n_atoms, "n_atoms")
        positive(self.boltzmann, "boltzmann")
        if self.convexity not in ("auto", "construction") and finite(self.convexity, "convexity") < 0.0:
            raise ValueError(f"convexity must be 'auto', 'construction' or a number from 0, got {self.convexity!r}")
        positive(self.learning_rate, "learning_rate")
        if self.adam_steps != "auto":
            whole_number(self.adam_steps, "adam_steps", 0)
        whole_number(self.max_iterations, "max_iterations", 1)
        positive(self.tolerance, "tolerance")
        if not 0.0 <= finite(self.validation_fraction, "validation_fraction") <= 0.5:
            raise ValueError(f"validation_fraction must lie between 0 and 0.5, got {self.validation_fraction!r}")
        resolve_jobs(self.n_jobs)

    def _check_inputs(self) -> None:
        if self.ideal is not None:
            if self.coordinate != "order":
                raise ValueError("ideal mixing needs coordinate='order'")
            if not isinstance(self.ideal, IdealMixing):
                raise ValueError(
                    "ideal must be None, or ideal mixing such as IdealMixing.sublattices(Q) or IdealMixing.simplex(q), "
                    f"got {self.ideal!r}"
                )
            if self.convexity not in ("auto", 0.0):
                raise ValueError(
                    "with ideal mixing use convexity=0: what it leaves need not be convex where the whole is"
                )
        if self.inputs is None or self.inputs == "x":
            return
        if self.coordinate != "order":
            raise ValueError("inputs, polynomials of x, need coordinate='order'")
        if self.convexity == "construction":
            raise ValueError(
                "convexity='construction' needs inputs=None: what is convex in polynomials need not be in x"
            )
        if not isinstance(self.inputs, Polynomials | str | os.PathLike | Sequence):
            raise ValueError(
                f"inputs must be None, 'x', Polynomials, a file of them or a list of expressions, got {self.inputs!r}"
            )

    def _polynomials(self, q: int) -> Polynomials | None:
        """What networks see in place of the q components of x; None for x itself."""
        given = self.inputs
        if given is None or given == "x":
            return None
        if isinstance(given, Polynomials):
            if given.n_inputs != q:
                raise DataError(f"x has {q} columns, but inputs are polynomials of {given.n_inputs} variables")
            return given
        return Polynomials.read(given, q) if isinstance(given, str | os.PathLike) else Polynomials.parse(given, q)

    def _seed(self, checkpoint: str | os.PathLike[str] | None) -> int:
        drawn = self.random_state is None or isinstance(self.random_state, np.random.Generator)
        if drawn and checkpoint is not None and Path(checkpoint).exists():
            from quests_zenn.zenn._files import read_tensors

            return int(read_tensors(Path(checkpoint))[1].get("seed", 0))
        if drawn:
            return int(as_rng(self.random_state).integers(2**31))
        return whole_number(self.random_state, "random_state", 0)

    @staticmethod
    def _take_shift(rows: Rows) -> float:
        """Energies are fitted relative to their mean: a constant changes nothing but the constant."""
        kind = "F" if "F" in rows.targets else "U"
        if kind not in rows.targets:
            return 0.0
        known = ~np.isnan(rows.targets[kind])
        shift = float(np.average(rows.targets[kind][known], weights=rows.weight[known]))
        for name in ("F", "U"):
            if name in rows.targets:
                rows.targets[name] = rows.targets[name] - shift
        return shift

    def _take_ideal(self, rows: Rows) -> None:
        """What is learned is what ideal mixing leaves."""
        if self.ideal is None:
            return
        q = rows.x.shape[1]
        if self.ideal.n_inputs != q:
            raise DataError(f"x has {q} columns, but ideal mixing is of {self.ideal.n_inputs} order parameters")
        if "density" in rows.targets:
            raise ValueError("ideal mixing cannot be taken from a density; give F or mu in its place")
        slopes = {f"mu_{i}": tuple(int(i == j) for j in range(q + 1)) for i in range(q)}
        heat = (*(0,) * q, 1)
        found = self.ideal.derivatives(rows.x, rows.T, [(0,) * (q + 1), heat, *slopes.values()], float(self.boltzmann))
        parts = {"F": found[(0,) * (q + 1)], "S": -found[heat], **{kind: found[n] for kind, n in slopes.items()}}
        for kind, part in parts.items():  # nothing of U: F is proportional to T
            if kind in rows.targets:
                rows.targets[kind] = rows.targets[kind] - part

    def _needs_temperatures(self) -> bool:
        return self.coordinate == "volume" and self._form()[1] != "none"

    def _form(self) -> tuple[str, str, tuple[int, ...], bool]:
        """Energy, thermal, hidden widths, and whether networks see T."""
        raise NotImplementedError

    def _layout(self) -> dict[str, Any]:
        """Configurations, and how they mix, as in `Design`."""
        raise NotImplementedError

    def _settings(self, design: Design) -> Settings:
        steps = self.adam_steps
        if steps == "auto":
            steps = 300 if design.energy == "network" and not design.gains else 0
        if self.convexity == "construction":
            convexity = 0.0
        elif self.convexity == "auto":
            convexity = 1.0 if design.energy != "network" else 0.1
            if self.ideal is not None:
                convexity = 0.0  # what is left to be learned need not be convex
        else:
            convexity = float(self.convexity)
        return Settings(
            n_members=self.n_members,
            n_starts=self.n_starts or 2 * self.n_members,
            adam_steps=int(steps),
            learning_rate=self.learning_rate,
            max_iterations=self.max_iterations,
            tolerance=self.tolerance,
            validation_fraction=self.validation_fraction,
            convexity=convexity,
            learn_priors=self.learn_priors,
        )

    def _design(self, rows: Rows, seed: int, told: Progress) -> tuple[Design, dict[str, float], dict[str, float]]:
        """The form of the model with its units and priors, a first guess of the noise, and what a single equation of
        state gives for the priors."""
        energy, thermal, hidden, explicit = self._form()
        low, high, span = _ranges(rows.x)
        T_low, T_high = float(rows.T.min()), float(rows.T.max())
        explicit = explicit and T_high > T_low
        scale = self._energy_scale(rows, span)
        design = Design(
            n_configurations=1,
            n_inputs=rows.x.shape[1],
            coordinate=self.coordinate,
            energy=energy,
            thermal=thermal,
            hidden=hidden,
            explicit_temperature=explicit,
            n_atoms=float(self.n_atoms),
            boltzmann=float(self.boltzmann),
            x_centre=tuple(((low + high) / 2).tolist()),
            x_scale=tuple((span / 2).tolist()),
            T_centre=(T_low + T_high) / 2,
            T_scale=max(T_high - T_low, 1e-3 * T_high) / 2,
            energy_scale=scale,
            correction=scale,
            **self._seen(rows.x),
        )
        if energy == "network":
            noise = {kind: 0.1 * _spread(values) for kind, values in rows.targets.items()}
            if "density" in noise:
                noise["density"] = 0.03
            design = replace(design, **self._layout())
            return replace(design, **self._two_scales(rows, design)), noise, {}
        # of classical vibrations, energies and pressures tell the constant of S nothing: it is chosen, not drawn
        held = {"log_temperature": FIXED, "entropy_root": FIXED} if _floats(thermal, rows) else {}
        single = replace(
            design,
            hidden=(),
            energy_scale=3.0 * scale,
            widths={**FIRST_WIDTHS, "log_electronic": 1.5, **held},
        )
        settings = Settings(
            n_members=1,
            n_starts=4,
            validation_fraction=0.0,
            learn_priors=False,
            max_iterations=40,
            convexity=0.0,
        )
        guess = {kind: 0.1 * _spread(values) for kind, values in rows.targets.items()}
        if "density" in guess:
            guess["density"] = 0.03
        trained = Trainer(single, rows, settings, seed, self.n_jobs, guess, progress=told).run()
        found = {block.name: float(trained.z[0, block.first] * block.scale + block.mean) for block in single.blocks()}
        centres = {name: found[name] for name in TAKEN_OVER if name in found}
        noise = {kind: value / 5.0 if value < guess[kind] else value for kind, value in trained.noise.items()}
        mixing = 6.0 * self.boltzmann * T_high
        design = replace(
            design,
            centres=centres,
            widths=held,
            energy_scale=mixing,
            correction=0.1 * mixing,
            entropy_correction=ENTROPY_CORRECTION,
            taper=TAPER,
            **self._layout(),
        )
        if design.n_configurations > 1:
            design = replace(design, ladder=LADDER * mixing)
        return design, noise, found

    def _seen(self, x: FloatArray) -> dict[str, Any]:
        """What networks see in place of x, as in `Design`."""
        polynomials = self._polynomials(x.shape[1])
        if polynomials is None:
            return {}
        values = polynomials(x)
        low, high, span = _ranges(values)
        return {
            "inputs": polynomials.to_dict(),
            "input_centre": tuple(((low + high) / 2).tolist()),
            "input_scale": tuple((span / 2).tolist()),
        }

    @staticmethod
    def _two_scales(rows: Rows, design: Design) -> dict[str, Any]:
        """Whether some arguments of F matter far less than others, as in `Design`.

        How much F changes over the range of an argument h is judged as if F hung on h alone: by the derivatives in x,
        over what they would be if F were h, in the component of x that allows least.
        """
        known = [i for i in range(design.n_inputs) if f"mu_{i}" in rows.targets]
        if design.split or design.convex or not known:
            return {}
        if design.inputs is None:
            slopes = np.broadcast_to(np.diag(1.0 / np.asarray(design.x_scale)), (len(rows), *(design.n_inputs,) * 2))
        else:
            slopes = Polynomials.from_dict(design.inputs).gradient(rows.x) / np.asarray(design.input_scale)[:, None]
        usual = np.sqrt((slopes**2).mean(0))[:, known]
        sizes = np.array([math.sqrt(np.nanmean(rows.targets[f"mu_{i}"] ** 2)) for i in known])
        bounds = np.where(usual > 0.0, sizes / np.where(usual > 0.0, usual, 1.0), math.inf).min(1)
        # an argument that derivatives tell nothing of may matter; one with a large constant slope, which any network
        # meets, matters no more than energies spread
        gains = np.clip(bounds / design.correction, LEAST_GAIN, 1.0)
        gains = gains / gains.max()
        small = gains < ONE_SCALE
        if not small.any():
            return {}
        return {"gains": tuple(gains.tolist()), "fine": float(np.median(gains[small]))}

    def _energy_scale(self, rows: Rows, span: FloatArray) -> float:
        """How far energies spread, from whatever is given."""
        for kind in ("F", "U"):
            if kind in rows.targets:
                return _spread(rows.targets[kind])
        if "S" in rows.targets:
            return _spread(rows.targets["S"]) * max(float(np.ptp(rows.T)), float(rows.T.max()) * 1e-3)
        slopes = [
            _spread(values) * float(span[int(kind[3:])])
            for kind, values in rows.targets.items()
            if kind.startswith("mu_")
        ]
        if "P" in rows.targets:
            slopes.append(_spread(rows.targets["P"]) * float(span[0]))
        if slopes:
            return max(slopes)
        # a density alone: how far -k_B T ln p spreads where there is something to see
        p = rows.targets["density"]
        energies = -self.boltzmann * rows.T * np.log(np.maximum(p, 1e-12 * p.max()))
        return _spread(energies)

    def _keep(
        self, design: Design, rows: Rows, shift: float, seed: int, trained: Trained, first: dict[str, float]
    ) -> None:
        """Set what a fitted model has."""
        self.design_ = design
        self.ideal_ = self.ideal
        self.z_ = trained.z
        self.shift_ = shift
        self.entropy_shift_ = np.zeros(len(trained.z))
        self.ranges_: list[tuple[FloatArray, FloatArray]] = []
        self.seed_ = seed
        self.noise_ = dict(trained.noise)
        self.n_members_ = len(trained.z)
        self.n_features_in_ = design.n_inputs
        self.n_parameters_ = design.n_parameters
        self.x_range_ = np.stack([rows.x.min(0), rows.x.max(0)], axis=1)
        self.T_range_ = np.array([rows.T.min(), rows.T.max()])
        kinds = rows.kinds()
        self.known_ = what_is_known(kinds)
        if self.T_range_[0] == self.T_range_[1]:
            self.known_ = self.known_ - {"S", "U", "C_V"}
        self.relative_to_ = relative_to(kinds)
        if design.n_configurations > 1:
            self.z_ = _aligned(self, rows)
        self.report_ = self._report(rows, trained, first)

    def _judge(self, rows: Rows, usual: dict[str, float]) -> None:
        """Say so where a fit explains nothing; `usual` is how far targets spread."""
        for kind, entry in self.report_["targets"].items():
            spread = usual[kind] * (GPA if kind == "P" else 1.0)
            if kind != "density" and entry["n"] > 2 and spread > 0.0 and entry["rms"] > 0.7 * spread:
                warnings.warn(
                    f"the fit explains next to nothing of {kind}: residuals of {entry['rms']:.3g} {entry['unit']}, "
                    f"where data spread over {spread:.3g}; look at units, at rows that are far off, and at errors",
                    DataWarning,
                    stacklevel=3,
                )
            elif kind in rows.errors and entry["chi2"] > 25.0:
                warnings.warn(
                    f"residuals of {kind} are {math.sqrt(entry['chi2']):.0f} times the errors that were given; look "
                    "for errors that are far too small, or leave them out to have the noise learned",
                    DataWarning,
                    stacklevel=3,
                )

    def _report(self, rows: Rows, trained: Trained, first: dict[str, float]) -> dict[str, Any]:
        targets: dict[str, Any] = {}
        problem = Problem(self.design_, rows)
        squares = dict.fromkeys(problem.kinds, 0.0)
        with one_thread():
            for start, end in problem.chunks:
                for kind, gap, _ in problem.residuals(self.z_, start, end, False):
                    squares[kind] += float((gap.mean(0) ** 2).sum())
        for kind in problem.kinds:
            unit = GPA if kind == "P" else 1.0
            count = int(problem.known[kind].sum())
            held = [entry[kind] for entry in trained.validation if math.isfinite(entry[kind])]
            targets[kind] = {
                "n": count,
                "rms": math.sqrt(squares[kind] / count) * unit,
                "chi2": trained.misfit[kind],
                "rms_validation": math.sqrt(float(np.mean(np.square(held)))) * unit
                if held and kind not in rows.errors
                else None,
                "noise": trained.noise[kind] * unit if kind in trained.noise else None,
                "unit": {"F": "eV", "U": "eV", "S": "eV/K", "P": "GPa", "density": "sqrt(JS)"}.get(
                    kind, "eV per unit of x"
                ),
            }
        report: dict[str, Any] = {
            "targets": targets,
            "n_rows": len(rows),
            "n_parameters": self.n_parameters_,
            "n_members": self.n_members_,
            "iterations": trained.iterations,
            "adam_steps": trained.adam_steps,
            "converged": trained.converged,
            "seconds": trained.seconds,
            "cost": trained.cost,
            "prior_widths": trained.widths,
            "single_equation_of_state": first,
        }
        if self.design_.n_configurations > 1:
            p = self._probabilities(rows.x, rows.T).mean(0)
            share = np.average(p, axis=0, weights=rows.weight)
            rules = p.argmax(1)
            report["configurations"] = [
                {
                    "share": float(share[k]),
                    "rules_rows": int((rules == k).sum()),
                    "x_range": [float(rows.x[rules == k, 0].min()), float(rows.x[rules == k, 0].max())]
                    if (rules == k).any()
                    else None,
                    "T_range": [float(rows.T[rules == k].min()), float(rows.T[rules == k].max())]
                    if (rules == k).any()
                    else None,
                }
                for k in range(self.design_.n_configurations)
            ]
        return report

    # evaluation -------------------------------------------------------------------------------------------------

    def _fitted(self) -> Design:
        if not hasattr(self, "z_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted: call fit first")
        return self.design_

    def _points(self, x: npt.ArrayLike, T: npt.ArrayLike) -> tuple[FloatArray, FloatArray, tuple[int, ...]]:
        """Points as (n, q) and (n,), and the shape of results."""
        design = self._fitted()
        raw, heat = as_numbers(x, "x"), as_numbers(T, "T")
        if design.n_inputs == 1:
            if raw.ndim == 2 and raw.shape[1] == 1 and heat.ndim < 2:
                raw = raw[:, 0]  # rows of one column, as in `fit`
            try:
                raw, heat = np.broadcast_arrays(raw, heat)
            except ValueError:
                raise DataError(f"x of shape {raw.shape} and T of shape {heat.shape} do not go together") from None
            shape = raw.shape
            points = as_points(raw.reshape(-1, 1)) if raw.size else np.empty((0, 1))
            heat = heat.reshape(-1)
        else:
            points = as_points(raw[None] if raw.ndim == 1 else raw)
            shape = (len(points),)
        if points.shape[1] != design.n_inputs:
            raise DataError(f"x has {points.shape[1]} columns, but the model was fitted on {design.n_inputs}")
        if design.coordinate == "volume" and (points <= 0.0).any():
            raise DataError("volumes must be positive")
        return points, as_temperatures(heat, len(points)) if len(points) else np.empty(0), shape

    def _map(
        self, points: FloatArray, T: FloatArray, work: Callable[[torch.Tensor, torch.Tensor, slice], None]
    ) -> None:
        """Call `work` for stretches of points, on threads; each writes its own part of a result."""
        import torch

        def one(first: int) -> None:
            part = slice(first, first + EVALUATED)
            with torch.no_grad():
                work(torch.from_numpy(points[part]), torch.from_numpy(T[part]), part)

        with one_thread(), Workers(self.n_jobs) as workers:
            workers.run(one, list(range(0, len(points), EVALUATED)))

    def derivatives(
        self, x: npt.ArrayLike, T: npt.ArrayLike, orders: Sequence[tuple[int, ...]], members: bool = False
    ) -> dict[tuple[int, ...], FloatArray]:
        """Derivatives of F of any order, exact to rounding.

        Parameters
        ----------
        x : array, shape (n,) or (n, q)
        T : float or array, shape (n,)
        orders : sequence of tuples of int
            Orders of differentiation by variable: ``(2, 1)`` is d3F/dx2 dT, and ``(0, 0)`` is F.
        members : bool
            Whether those of each member of the committee are asked for, and not those of their mean.

        Returns
        -------
        dict of (n,) arrays, or of (n_members, n) arrays, by order, in eV, units of x and K

        Raises
        ------
        DataError, ValueError
            If the points, or the orders, make no sense.
        """
        design = self._fitted()
        wanted = [tuple(int(n) for n in order) for order in orders]
        for order in wanted:
            if len(order) != design.n_inputs + 1 or min(order) < 0:
                raise ValueError(f"an order names {design.n_inputs} components of x and T, got {order}")
        points, heat, shape = self._points(x, T)
        values = self._derivatives(points, heat, wanted)
        return {
            order: (value.reshape(-1, *shape) if members else value.mean(0).reshape(shape))
            for order, value in values.items()
        }

    def _derivatives(
        self, points: FloatArray, T: FloatArray, wanted: Sequence[tuple[int, ...]]
    ) -> dict[tuple[int, ...], FloatArray]:
        """(n_members, n) of each order."""
        import torch

        design, parts = self.design_, Parts(self.design_)
        orders = Orders([*wanted, (0,) * (design.n_inputs + 1)])
        result = {order: np.empty((self.n_members_, len(points))) for order in wanted}

        def work(x: torch.Tensor, heat: torch.Tensor, part: slice) -> None:
            view = View(parts.blocks, self.z_, len(heat))
            jet_x = torch.stack([orders.variable(x[:, i], i) for i in range(x.shape[1])], dim=-1)
            jet_T = orders.variable(heat, x.shape[1])
            free, entropies = parts.free_energies(view, orders, jet_x, jet_T, math.isfinite(design.gamma))
            F = _mixture.free_energy(design, orders, free, entropies, jet_T)
            for order in wanted:
                result[order][:, part] = orders.derivative(F, order).numpy()

        self._map(points, T, work)
        zero = (0,) * (design.n_inputs + 1)
        if zero in result:
            result[zero] += self.shift_ - self.entropy_shift_[:, None] * T
        if self._order(T=1) in result:
            result[self._order(T=1)] -= self.entropy_shift_[:, None]
        if self.ideal_ is not None:
            for order, part in self.ideal_.derivatives(points, T, wanted, design.boltzmann).items():
                result[order] += part
        return result

    def slopes_of_mu(self, x: npt.ArrayLike, T: npt.ArrayLike, member: int = 0) -> FloatArray:
        """Derivatives of mu with respect to the parameters of one member, in units of the widths of their priors.

        About the fit, the model is linear in its parameters, with a prior of unit covariance: what a further row would
        teach follows from these (Laplace's approximation; see the criterion ``expected-error`` of `sampling`).

        Parameters
        ----------
        x : array, shape (n,) or (n, q)
        T : float or array, shape (n,)
        member : int

        Returns
        -------
        (n, q, n_parameters_), eV per unit of x

        Raises
        ------
        DataError, ValueError
            If the points, or the member, make no sense.
        """
        design = self._fitted()
        member = whole_number(member, "member", 0)
        if member >= self.n_members_:
            raise ValueError(f"member must lie below {self.n_members_}, got {member}")
        points, heat, _ = self._points(x, T)
        nothing = {f"mu_{i}": np.zeros(len(points)) for i in range(design.n_inputs)}
        problem = Problem(design, Rows(points, heat, nothing, {}, np.ones(len(points))))
        result = np.empty((len(points), design.n_inputs, design.n_parameters))

        def work(chunk: tuple[int, int]) -> None:
            for kind, _, slope in problem.residuals(self.z_[member : member + 1], *chunk, True):
                assert slope is not None
                result[chunk[0] : chunk[1], int(kind[3:])] = slope[0].numpy()

        with one_thread(), Workers(self.n_jobs) as workers:
            workers.run(work, problem.chunks)
        return result * self._widths_learned()

    def _widths_learned(self) -> FloatArray:
        """(P,) learned width of the prior of each parameter, over the width that it began with."""
        found = np.ones(self.n_parameters_)
        for name, (block, which) in stretches(self.design_.blocks()).items():
            found[which] = self.report_["prior_widths"].get(name, block.scale) / block.scale
        return found

    def _parts_at(self, points: FloatArray, T: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """F_k, S_k and p_k of members: (n_members, n, K) each."""
        design, parts = self.design_, Parts(self.design_)
        orders = Orders([(0,) * (design.n_inputs + 1)])
        shape = (self.n_members_, len(points), design.n_configurations)
        free_energies, entropies, shares = np.empty(shape), np.empty(shape), np.empty(shape)

        def work(x: torch.Tensor, heat: torch.Tensor, part: slice) -> None:
            view = View(parts.blocks, self.z_, len(heat))
            jet_T = orders.constant(heat)
            free, S = parts.free_energies(view, orders, orders.constant(x), jet_T, True)
            logarithms = _mixture.log_probabilities(design, orders, free, S, jet_T)
            assert S is not None
            free_energies[:, part] = free[0].transpose(1, 2).numpy() + self.shift_
            entropies[:, part] = S[0].transpose(1, 2).numpy()
            shares[:, part] = logarithms[0].exp().transpose(1, 2).numpy()

        self._map(points, T, work)
        free_energies -= (self.entropy_shift_[:, None] * T)[:, :, None]
        entropies += self.entropy_shift_[:, None, None]
        if self.ideal_ is not None:
            zero, heat = self._order(), self._order(T=1)
            found = self.ideal_.derivatives(points, T, [zero, heat], design.boltzmann)
            free_energies += found[zero][:, None]
            entropies -= found[heat][:, None]
        return free_energies, entropies, shares

    def _probabilities(self, points: FloatArray, T: FloatArray) -> FloatArray:
        return self._parts_at(points, T)[2]

    def set_reference(self, x: npt.ArrayLike, T: float) -> Any:
        """Set S to zero at one state, where the data fix it up to a constant only.

        Energies and pressures fix F up to -s0 T. Each member of the committee gets its own s0, so that spreads are
        those of differences from this state.

        Parameters
        ----------
        x : float or array, shape (q,)
        T : float, K

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the data of this model fix S, or leave more open than a constant.
        """
        kelvin = positive(T, "T")
        if {"S", "U"} - self._known() or not self.relative_to_.startswith("U as given; S up to"):
            raise ValueError(f"this model has no constant of S to choose: {self.relative_to_}")
        points, heat, _ = self._points(x, kelvin)
        if len(points) != 1:
            raise ValueError("a reference is one state")
        heat_order = self._order(T=1)
        shift = self._derivatives(points, heat, [heat_order])[heat_order].reshape(-1)
        if not np.isfinite(shift).all():
            raise ValueError(f"S is not finite at x = {points[0]}, T = {kelvin:g} K; choose a reference near the data")
        self.entropy_shift_ = self.entropy_shift_ + shift
        where = ", ".join(f"{value:g}" for value in points[0]) + (" Å3" if self.coordinate == "volume" else "")
        self.relative_to_ = f"U as given; S up to S0 (S at {where} and {kelvin:g} K), F up to -S0 T"
        return self

    def _known(self) -> frozenset[str]:
        """Symbols of what the data fix."""
        self._fitted()
        return self.known_

    def extrapolates(self, x: npt.ArrayLike, T: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether points lie outside the ranges of x and T that the model was fitted on.

        Returns
        -------
        (n,) bool
        """
        points, heat, shape = self._points(x, T)
        return self._outside(points, heat).reshape(shape)

    def _outside(self, points: FloatArray, T: FloatArray) -> npt.NDArray[np.bool_]:
        outside = np.ones(len(points), bool)
        # phases that were fitted on their own each know their own states
        for x_range, T_range in self.ranges_ or [(self.x_range_, self.T_range_)]:
            low, high = x_range[:, 0], x_range[:, 1]
            # a grid made anew may miss its own end by a rounding
            slack = 1e-9 * np.maximum(high - low, np.abs(high))
            beyond = ((points < low - slack) | (points > high + slack)).any(1)
            T_slack = 1e-9 * T_range[1]
            outside &= beyond | (T_range[0] - T_slack > T) | (T_range[1] + T_slack < T)
        return outside

    def _warn_outside(self, points: FloatArray, T: FloatArray) -> None:
        count = int(self._outside(points, T).sum())
        if count:
            ranges = ", ".join(f"{low:g} to {high:g}" for low, high in self.x_range_)
            warnings.warn(
                f"{count} of {len(T)} points lie outside the data that the model was fitted on (x {ranges}; "
                f"T {self.T_range_[0]:g} to {self.T_range_[1]:g} K): an extrapolation",
                DataWarning,
                stacklevel=4,
            )

    def _observable(
        self,
        x: npt.ArrayLike,
        T: npt.ArrayLike,
        std: bool,
        needs: str,
        orders: Sequence[tuple[int, ...]],
        formula: Callable[[FloatArray, FloatArray, dict[tuple[int, ...], FloatArray]], FloatArray],
    ) -> Any:
        """A quantity that is linear in F: its value for the mean surface, and the spread over the members."""
        self._fitted()
        if needs not in self.known_:
            raise ValueError(
                f"{needs} cannot be had from this model: the data it was fitted on fix only "
                f"{', '.join(sorted(self.known_))} ({self.relative_to_})"
            )
        points, heat, shape = self._points(x, T)
        self._warn_outside(points, heat)
        values = formula(points, heat, self._derivatives(points, heat, orders))
        mean = values.mean(0).reshape((*shape, *values.shape[2:]))
        if not std:
            return mean
        spread = values.std(0, ddof=1) if len(values) > 1 else np.full(values.shape[1:], np.nan)
        return mean, spread.reshape(mean.shape)

    def _order(self, x: int = 0, T: int = 0) -> tuple[int, ...]:
        return (x, *(0,) * (self._fitted().n_inputs - 1), T)

    def free_energy(self, x: npt.ArrayLike, T: npt.ArrayLike, std: bool = False) -> Any:
        """Helmholtz energy F.

        Parameters
        ----------
        x : array, shape (n,) or (n, q)
        T : float or array, shape (n,)
            K. For one coordinate, x and T broadcast.
        std : bool
            Also return the standard deviation over the members of the committee.

        Returns
        -------
        (n,) eV, or two such arrays

        Raises
        ------
        DataError, ValueError
            If the points make no sense, or the data do not fix the quantity.

        Warns
        -----
        DataWarning
            If some points lie outside the data.
        """
        zero = self._order()
        return self._observable(x, T, std, "F", [zero], lambda x, T, d: d[zero])

    def entropy(self, x: npt.ArrayLike, T: npt.ArrayLike, std: bool = False) -> Any:
        """Entropy S = -dF/dT at constant x, eV/K. Arguments and results as for `free_energy`."""
        heat = self._order(T=1)
        return self._observable(x, T, std, "S", [heat], lambda x, T, d: -d[heat])

    def internal_energy(self, x: npt.ArrayLike, T: npt.ArrayLike, std: bool = False) -> Any:
        """Internal energy U = F + T S, eV. Arguments and results as for `free_energy`."""
        zero, heat = self._order(), self._order(T=1)
        return self._observable(x, T, std, "U", [zero, heat], lambda x, T, d: d[zero] - T * d[heat])

    def heat_capacity(self, x: npt.ArrayLike, T: npt.ArrayLike, std: bool = False) -> Any:
        """Heat capacity C_V = -T d2F/dT2 at constant x, eV/K. Arguments and results as for `free_energy`."""
        twice = self._order(T=2)
        return self._observable(x, T, std, "C_V", [twice], lambda x, T, d: -T * d[twice])

    def pressure(self, x: npt.ArrayLike, T: npt.ArrayLike, std: bool = False) -> Any:
        """Pressure P = -dF/dV, GPa. Arguments and results as for `free_energy`."""
        self._only_volumes("pressure")
        slope = self._order(1)
        return self._observable(x, T, std, "P", [slope], lambda x, T, d: -d[slope] * GPA)

    def bulk_modulus(self, x: npt.ArrayLike, T: npt.ArrayLike, std: bool = False) -> Any:
        """Isothermal bulk modulus B = V d2F/dV2, GPa. Arguments and results as for `free_energy`."""
        self._only_volumes("bulk_modulus")
        twice = self._order(2)
        return self._observable(x, T, std, "B", [twice], lambda x, T, d: x[:, 0] * d[twice] * GPA)

    def chemical_potential(self, x: npt.ArrayLike, T: npt.ArrayLike, std: bool = False) -> Any:
        """mu = dF/dx, eV per unit of x: (n,), or (n, q) for several components. Arguments as for `free_energy`."""
        q = self._fitted().n_inputs
        orders = [tuple(int(i == j) for j in range(q + 1)) for i in range(q)]

        def gradient(x: FloatArray, T: FloatArray, d: dict[tuple[int, ...], FloatArray]) -> FloatArray:
            return d[orders[0]] if q == 1 else np.stack([d[order] for order in orders], axis=-1)

        return self._observable(x, T, std, "mu", orders, gradient)

    def hessian(self, x: npt.ArrayLike, T: npt.ArrayLike, std: bool = False) -> Any:
        """d2F/dx_i dx_j, eV: (n, q, q). Arguments as for `free_energy`."""
        q = self._fitted().n_inputs
        orders = {(i, j): tuple(int(i == m) + int(j == m) for m in range(q + 1)) for i in range(q) for j in range(i, q)}

        def matrix(x: FloatArray, T: FloatArray, d: dict[tuple[int, ...], FloatArray]) -> FloatArray:
            return np.stack(
                [np.stack([d[orders[min(i, j), max(i, j)]] for j in range(q)], -1) for i in range(q)], axis=-2
            )

        return self._observable(x, T, std, "mu", list(orders.values()), matrix)

    def _only_volumes(self, what: str) -> None:
        if self._fitted().coordinate != "volume":
            raise ValueError(
                f"{what} needs x to be a volume; this model has another coordinate (see chemical_potential)"
            )

    def score(
        self, x: npt.ArrayLike, T: npt.ArrayLike, F: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> float:
        """Coefficient of determination R2 of free energies."""
        from sklearn.metrics import r2_score

        return float(r2_score(F, self.free_energy(x, T), sample_weight=sample_weight))

    # files ------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the model to a folder, whole or not at all: numbers as safetensors, all else as JSON.

        Raises
        ------
        DataError
            If the folder exists and `overwrite` is False, holds anything but a model, or cannot be written.
        """
        import quests_zenn
        from quests_zenn.zenn._files import write_model

        design = asdict(self._fitted())
        design["gamma"] = None if math.isinf(design["gamma"]) else design["gamma"]
        settings = self.get_params(deep=False)
        settings["random_state"] = self.seed_
        if isinstance(self.inputs, Polynomials) or (self.inputs != "x" and isinstance(self.inputs, str | os.PathLike)):
            settings["inputs"] = design["inputs"]  # files may be gone by the time that the model is read
        settings["ideal"] = None if self.ideal_ is None else self.ideal_.to_dict()
        for name, value in settings.items():
            if isinstance(value, float) and math.isinf(value):
                settings[name] = "inf"
        document = {
            "format": FORMAT,
            "class": type(self).__name__,
            "quests_zenn": quests_zenn.__version__,
            "units": {"energy": "eV", "temperature": "K", "x": "Å3" if self.coordinate == "volume" else "as given"},
            "settings": settings,
            "design": design,
            "shift": self.shift_,
            "entropy_shift": self.entropy_shift_,
            "seed": self.seed_,
            "noise": self.noise_,
            "x_range": self.x_range_,
            "T_range": self.T_range_,
            "ranges": [[x_range, T_range] for x_range, T_range in self.ranges_],
            "known": sorted(self.known_),
            "relative_to": self.relative_to_,
            "report": self.report_,
        }
        write_model(path, {"z": self.z_}, document, overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FreeEnergyModel:
        """A model that was saved; it gives the same results to the last bit.

        Raises
        ------
        DataError
            If there is no model, it is damaged, or of another class.
        MissingExtraError
            Without torch or safetensors.
        """
        _needs_torch()
        from quests_zenn.zenn._files import read_model

        tensors, document = read_model(path)
        classes = {"ZENN": ZENN, "DNN": DNN, "IDNN": IDNN}
        name = document.get("class")
        if not isinstance(name, str) or name not in classes or not issubclass(classes[name], cls):
            raise DataError(f"{path}: holds a model of the class {name}, not {cls.__name__}")
        if document.get("format") != FORMAT:
            raise DataError(
                f"{path}: was written in format {document.get('format')}; this version reads format {FORMAT}"
            )
        try:
            return classes[name]._from(document, tensors["z"])
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, IndexError) as error:
            raise DataError(f"{path}: the model is damaged ({error})") from error

    @classmethod
    def _from(cls, document: dict[str, Any], z: torch.Tensor) -> FreeEnergyModel:
        import torch

        settings = {name: math.inf if value == "inf" else value for name, value in document["settings"].items()}
        widths = settings.get("hidden")
        if isinstance(widths, list):
            settings["hidden"] = tuple(widths)
        inputs: Any = settings.get("inputs")
        if isinstance(inputs, dict):
            settings["inputs"] = Polynomials.from_dict(inputs)
        ideal: Any = settings.get("ideal")
        if ideal is not None:
            settings["ideal"] = IdealMixing.from_dict(ideal)
        model = cls(**settings)
        model._check_settings()
        design = dict(document["design"])
        design["gamma"] = math.inf if design["gamma"] is None else float(design["gamma"])
        for name in ("hidden", "x_centre", "x_scale", "input_centre", "input_scale", "gains"):
            design[name] = tuple(design.get(name, ()))  # models of before polynomials have none
        model.design_ = Design(**design)
        one_of(model.design_.energy, "energy", ENERGIES)
        one_of(model.design_.thermal, "thermal", THERMALS)
        if z.dtype != torch.float64 or z.ndim != 2 or z.shape[1] != model.design_.n_parameters:
            raise ValueError(f"parameters of shape {tuple(z.shape)} do not fit the form of the model")
        if not bool(torch.isfinite(z).all()):
            raise ValueError("parameters are not finite")
        model.ideal_ = model.ideal
        if model.ideal_ is not None and model.ideal_.n_inputs != model.design_.n_inputs:
            raise ValueError("ideal mixing is of other order parameters")
        model.z_ = z
        model.shift_ = finite(document["shift"], "shift")
        shifts = document.get("entropy_shift", [0.0] * len(z))  # models of before reference states have none
        if not isinstance(shifts, list) or any(isinstance(value, bool | str) for value in shifts):
            raise ValueError("entropy_shift must be a list of numbers")
        model.entropy_shift_ = np.array([finite(value, "entropy_shift") for value in shifts])
        if len(model.entropy_shift_) != len(z):
            raise ValueError("shifts of entropies do not fit")
        model.seed_ = int(document["seed"])
        model.noise_ = dict(document["noise"])
        model.n_members_ = len(z)
        model.n_features_in_ = model.design_.n_inputs
        model.n_parameters_ = model.design_.n_parameters
        model.x_range_ = np.array(document["x_range"], dtype=np.float64)
        model.T_range_ = np.array(document["T_range"], dtype=np.float64)
        if model.x_range_.shape != (model.n_features_in_, 2) or model.T_range_.shape != (2,) or len(z) < 1:
            raise ValueError("ranges do not fit")
        model.ranges_ = [
            (np.array(x_range, np.float64).reshape(-1, 2), np.array(T_range, np.float64).reshape(2))
            for x_range, T_range in document.get("ranges", [])
        ]
        if any(len(x_range) != model.n_features_in_ for x_range, _ in model.ranges_):
            raise ValueError("ranges do not fit")
        model.known_ = frozenset(document["known"])
        if not model.known_ <= {"F", "S", "U", "C_V", "P", "B", "mu"} or not model.known_:
            raise ValueError("known holds unknown symbols")
        if not (np.isfinite(model.x_range_).all() and np.isfinite(model.T_range_).all()):
            raise ValueError("ranges are not finite")
        model.relative_to_ = str(document["relative_to"])
        model.report_ = document["report"]
        return model


class ZENN(FreeEnergyModel):
    """Free energy of K configurations, each with a learned energy and a learned intrinsic entropy.

    F = sum_k p_k F_k + (k_B T / n) sum_k p_k ln p_k, with F_k = E_k - T S_k and p_k from a softmax of
    -n F_k / (k_B T) - (S_k / (gamma k_B))^2. For volumes, E_k is an equation of state with a small network beside it,
    and S_k has the vibrations of a Debye solid whose temperature depends on the volume, electrons, a constant, and a
    network: all that changes with T does so by physics, so that dE_k/dT = T dS_k/dT. For other coordinates both are
    networks.

    Parameters
    ----------
    n_configurations : int
        K.
    coordinate : {"volume", "order"}
        Whether x is a volume, Å3, or anything else.
    energy : {"auto", "birch-murnaghan", "vinet", "network"}
        What E_k starts from; "auto" is Birch and Murnaghan's equation of state for volumes, else a network alone.
    thermal : {"auto", "debye", "einstein", "classical", "none"}
        Vibrations; "auto" is Debye's solid for volumes, else none. Without them the networks see T. "classical" is for
        averages of classical dynamics, which knows neither quanta nor electrons.
    hidden : "auto" or tuple of int
        Widths of the hidden layers of the networks: (8,) beside an equation of state, else (8, 8); () for no networks.
    inputs : None, "x", Polynomials, path or list of str
        What networks see of x, for other coordinates than volumes: x itself (None, or "x"), or polynomials of x, so
        that F has every symmetry that they have (see `Polynomials.parse` for expressions, `Polynomials.read` for
        files).
    ideal : IdealMixing or None
        A free energy of ideal mixing, to which the model adds what it learns; for other coordinates than volumes.
    n_atoms : float
        Atoms of the unit that x, F, U and S refer to (an atom, or a cell): the vibrations are those of so many.
    coherence : float
        n, units that mix as one. A transition sharpens as it grows.
    gamma : float
        Bound of the fluctuation of entropy, in k_B; infinity drops the term.
    boltzmann : float
        k_B in the units of energies and T; eV/K by default.
    convexity : "auto", float or "construction"
        Weight of a penalty on configurations that are not convex in x ("auto": 1 beside an equation of state, 0.1 for
        networks alone), or networks that are convex in x by construction (``energy="network"``, ``thermal="none"``).
    n_members : int
        Members of the committee; one gives a single estimate without spread.
    n_starts : int or None
        Random starts from which the members are taken; None for twice as many.
    learn_priors : bool
        Whether widths of priors are learned from how configurations differ.
    learning_rate : float
        Of Adam, which comes first where E_k is a network.
    adam_steps : int or "auto"
        "auto" is 300 for networks, 0 for equations of state.
    max_iterations : int
        Damped Gauss-Newton steps at most; above 4,000 parameters, steps of L-BFGS in each of four rounds.
    tolerance : float
        Relative change of the cost (of 1000 nats at least) over a few steps below which they end.
    validation_fraction : float
        Rows that each member does not see in its damped steps and is judged by; each has its own. They decide which of
        its states is kept. (The steps before, which find where to begin, see all rows.)
    warm_start : bool
        Whether a further `fit` goes on from the last one, where the form of the model is the same.
    random_state : int, numpy.random.Generator or None
    n_jobs : int or None
        Threads; None for all available cores. Results do not depend on it.
    verbose : bool
        Whether a fit shows its progress, on a terminal.

    Attributes
    ----------
    report_ : dict
        What was fitted how well, what was learned, and which configuration rules where.
    n_members_, n_parameters_, x_range_, T_range_, noise_
    known_ : frozenset of str
        What the data fix: of F, S, U, C_V, P, B, mu.
    relative_to_ : str
        What F and S are relative to.

    Notes
    -----
    The mixture is that of ZENN; training, noise and spread are described in `_train` and in the documentation.

    Examples
    --------
    >>> model = ZENN(n_atoms=12, random_state=0).fit(volume, temperature, F=free_energy)
    >>> pressure, spread = model.pressure(155.0, [100.0, 200.0, 300.0], std=True)
    """

    def __init__(
        self,
        n_configurations: int = 12,
        *,
        coordinate: str = "volume",
        energy: str = "auto",
        thermal: str = "auto",
        hidden: str | tuple[int, ...] = "auto",
        inputs: Inputs = None,
        ideal: IdealMixing | None = None,
        n_atoms: float = 1,
        coherence: float = 1.0,
        gamma: float = math.inf,
        boltzmann: float = BOLTZMANN,
        convexity: float | str = "auto",
        n_members: int = 5,
        n_starts: int | None = None,
        learn_priors: bool = True,
        learning_rate: float = 0.02,
        adam_steps: int | str = "auto",
        max_iterations: int = 100,
        tolerance: float = 1e-4,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: bool = True,
    ) -> None:
        self.n_configurations = n_configurations
        self.coordinate = coordinate
        self.energy = energy
        self.thermal = thermal
        self.hidden = hidden
        self.inputs = inputs
        self.ideal = ideal
        self.n_atoms = n_atoms
        self.coherence = coherence
        self.gamma = gamma
        self.boltzmann = boltzmann
        self.convexity = convexity
        self.n_members = n_members
        self.n_starts = n_starts
        self.learn_priors = learn_priors
        self.learning_rate = learning_rate
        self.adam_steps = adam_steps
        self.max_iterations = max_iterations
        self.tolerance = tolerance
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _check_settings(self) -> None:
        super()._check_settings()
        whole_number(self.n_configurations, "n_configurations", 1)
        positive(self.coherence, "coherence")
        if self.gamma != math.inf and positive(self.gamma, "gamma") < 1e-6:
            raise ValueError(f"gamma must be at least 1e-6, got {self.gamma!r}")
        energy, _, hidden, _ = self._form()
        if self.convexity == "construction" and energy != "network":
            raise ValueError(
                "convexity='construction' needs energy='network': equations of state are not convex everywhere"
            )
        if energy == "network" and not hidden:
            raise ValueError("energy='network' needs hidden layers")
        if self.convexity == "construction" and self._form()[1] != "none":
            raise ValueError(
                "convexity='construction' needs thermal='none': vibrations need not be convex in the volume"
            )

    def _form(self) -> tuple[str, str, tuple[int, ...], bool]:
        return _form(self)

    def _layout(self) -> dict[str, Any]:
        return {
            "n_configurations": int(self.n_configurations),
            "coherence": float(self.coherence),
            "gamma": float(self.gamma),
            "convex": self.convexity == "construction",
        }

    def probabilities(self, x: npt.ArrayLike, T: npt.ArrayLike, std: bool = False) -> Any:
        """Probabilities p_k of the configurations, whose order is that of the mean x where they rule.

        Returns
        -------
        (n, K), each row summing to 1; with `std` also their standard deviations over the members
        """
        points, heat, shape = self._points(x, T)
        self._warn_outside(points, heat)
        p = self._probabilities(points, heat)
        mean = p.mean(0).reshape((*shape, p.shape[2]))
        if not std:
            return mean
        spread = p.std(0, ddof=1) if len(p) > 1 else np.full(p.shape[1:], np.nan)
        return mean, spread.reshape(mean.shape)

    def configurations(self, x: npt.ArrayLike, T: npt.ArrayLike, member: int = 0) -> dict[str, FloatArray]:
        """The configurations of one member: ``F`` (eV), ``S`` (eV/K), ``E`` (eV) and ``p``, each (n, K)."""
        points, heat, shape = self._points(x, T)
        if not 0 <= whole_number(member, "member", 0) < self.n_members_:
            raise ValueError(f"member must lie below {self.n_members_}, got {member}")
        free, entropies, shares = (part[member] for part in self._parts_at(points, heat))
        found = {"F": free, "S": entropies, "E": free + heat[:, None] * entropies, "p": shares}
        return {name: value.reshape((*shape, value.shape[1])) for name, value in found.items()}


class DNN(FreeEnergyModel):
    """One network for the whole free energy: what configurations are compared with.

    For volumes it stands beside the same equation of state, vibrations and electrons as a configuration of `ZENN` has,
    and it sees T. By default it has, for one coordinate, about as many parameters as a `ZENN` of 12 configurations with
    default settings. Its other settings are those of `ZENN`.
    """

    def __init__(
        self,
        *,
        coordinate: str = "volume",
        energy: str = "auto",
        thermal: str = "auto",
        hidden: str | tuple[int, ...] = "auto",
        inputs: Inputs = None,
        ideal: IdealMixing | None = None,
        n_atoms: float = 1,
        boltzmann: float = BOLTZMANN,
        convexity: float | str = 0.0,
        n_members: int = 5,
        n_starts: int | None = None,
        learn_priors: bool = True,
        learning_rate: float = 0.02,
        adam_steps: int | str = "auto",
        max_iterations: int = 100,
        tolerance: float = 1e-4,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: bool = True,
    ) -> None:
        self.coordinate = coordinate
        self.energy = energy
        self.thermal = thermal
        self.hidden = hidden
        self.inputs = inputs
        self.ideal = ideal
        self.n_atoms = n_atoms
        self.boltzmann = boltzmann
        self.convexity = convexity
        self.n_members = n_members
        self.n_starts = n_starts
        self.learn_priors = learn_priors
        self.learning_rate = learning_rate
        self.adam_steps = adam_steps
        self.max_iterations = max_iterations
        self.tolerance = tolerance
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.convexity == "construction":
            raise ValueError("convexity='construction' would forbid what one free energy must be able to do: turn")
        if self._form()[0] == "network" and not self._form()[2]:
            raise ValueError("energy='network' needs hidden layers")

    def _form(self) -> tuple[str, str, tuple[int, ...], bool]:
        energy, thermal, hidden, _ = _form(self)
        if self.hidden == "auto":
            hidden = self._as_many(energy, thermal)
        return energy, thermal, hidden, True

    def _as_many(self, energy: str, thermal: str) -> tuple[int, ...]:
        """Two layers of one width, for about as many parameters as a `ZENN` of 12 configurations has."""
        plain = Design(
            12, x_centre=(1.0,), energy=energy, thermal=thermal, hidden=(8,) if energy != "network" else (8, 8)
        )
        plain = replace(plain, explicit_temperature=thermal == "none")
        aim = plain.n_parameters
        width = 2
        while (
            replace(plain, n_configurations=1, split=False, explicit_temperature=True, hidden=(width,) * 2).n_parameters
            < aim
        ):
            width += 1
        return (width, width)

    def _layout(self) -> dict[str, Any]:
        return {"split": False}


class IDNN(DNN):
    """A free energy of order parameters at given T, one network, trained on its derivatives mu (and F where known).

    Its settings are those of `ZENN`, with ``coordinate="order"``.
    """

    def __init__(
        self,
        *,
        coordinate: str = "order",
        energy: str = "network",
        thermal: str = "none",
        hidden: str | tuple[int, ...] = (32, 32),
        inputs: Inputs = None,
        ideal: IdealMixing | None = None,
        n_atoms: float = 1,
        boltzmann: float = BOLTZMANN,
        convexity: float | str = 0.0,
        n_members: int = 5,
        n_starts: int | None = None,
        learn_priors: bool = True,
        learning_rate: float = 0.02,
        adam_steps: int | str = "auto",
        max_iterations: int = 100,
        tolerance: float = 1e-4,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__(
            coordinate=coordinate,
            energy=energy,
            thermal=thermal,
            hidden=hidden,
            inputs=inputs,
            ideal=ideal,
            n_atoms=n_atoms,
            boltzmann=boltzmann,
            convexity=convexity,
            n_members=n_members,
            n_starts=n_starts,
            learn_priors=learn_priors,
            learning_rate=learning_rate,
            adam_steps=adam_steps,
            max_iterations=max_iterations,
            tolerance=tolerance,
            validation_fraction=validation_fraction,
            warm_start=warm_start,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )


def _form(model: Any) -> tuple[str, str, tuple[int, ...], bool]:
    volume = model.coordinate == "volume"
    energy = one_of(model.energy, "energy", ("auto", *ENERGIES))
    thermal = one_of(model.thermal, "thermal", ("auto", *THERMALS))
    energy = ("birch-murnaghan" if volume else "network") if energy == "auto" else energy
    thermal = ("debye" if volume else "none") if thermal == "auto" else thermal
    if not volume and (energy != "network" or thermal != "none"):
        raise ValueError("equations of state and vibrations need coordinate='volume'")
    if isinstance(model.hidden, str):
        one_of(model.hidden, "hidden", ("auto",))
        hidden: tuple[int, ...] = (8, 8) if energy == "network" else (8,)
    else:
        if not isinstance(model.hidden, Sequence):
            raise ValueError(f"hidden must be 'auto' or widths such as (8,), got {model.hidden!r}")
        hidden = tuple(whole_number(width, "a width of hidden", 1) for width in model.hidden)
    return energy, thermal, hidden, thermal == "none"


def _same_form(a: Design, b: Design) -> bool:
    """Whether parameters of one mean the same in the other, apart from the units inside."""
    units = (
        *("x_centre", "x_scale", "input_centre", "input_scale", "T_centre", "T_scale"),
        *("energy_scale", "correction", "centres", "widths", "gains", "fine"),
    )
    same = all(value == getattr(b, name) for name, value in vars(a).items() if name not in units)
    return same and bool(a.gains) == bool(b.gains)


def _floats(thermal: str, rows: Rows) -> bool:
    """Whether a constant of S is free."""
    return thermal == "classical" and not {"F", "S"} & set(rows.targets)


def _ranges(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Lowest, highest, and the span by column, 1 where it is zero."""
    low, high = values.min(0), values.max(0)
    return low, high, np.where(high > low, high - low, 1.0)


def _spread(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.std()) or max(abs(float(known[0])), 1.0) * 1e-3


def _aligned(model: FreeEnergyModel, rows: Rows) -> torch.Tensor:
    """Parameters with configurations in one order: of the mean x where they rule, and by overlap between members."""
    import torch
    from scipy.optimize import linear_sum_assignment

    design = model.design_
    p = model._probabilities(rows.x, rows.T)
    weight = rows.weight[None, :, None] * p
    place = (weight * rows.x[None, :, :1]).sum(1) / np.maximum(weight.sum(1), 1e-300)
    place[p.sum(1) < 1e-9 * len(rows)] = np.inf
    first = np.argsort(place[0], kind="stable")
    reference = p[0][:, first]
    z = model.z_.clone()
    for m in range(len(z)):
        order = first if m == 0 else linear_sum_assignment(-(reference.T @ p[m]))[1]
        for block in design.blocks():
            # mean and scale of the prior may depend on the place of a configuration
            height = block.step * rungs(block.size) if block.step else 0.0
            values = z[m, block.first : block.stop] * block.scales() + height
            k = design.n_configurations
            index = torch.from_numpy(np.concatenate([np.asarray(order) + g for g in range(0, block.shape[0], k)]))
            moved = values.reshape(block.shape)[index].reshape(-1)
            z[m, block.first : block.stop] = (moved - height) / block.scales()
    return z


def _needs_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError("torch", "zenn") from None


@contextmanager
def _bar(progress: Progress | None, verbose: bool) -> Iterator[Progress]:
    if progress is not None:
        yield progress
        return
    with progress_bar("fitting", "steps", quiet=not verbose) as advance:
        yield lambda stage, done: advance(done)
