"""Training: Adam where networks carry a model, then damped Gauss-Newton steps; noise and priors are learned too.

What is minimised is, for every member of a committee, half the sum of squared residuals over their noise plus half the
sum of squares of standardised parameters over the widths of their priors: a maximum a posteriori estimate. The noise of
each kind of target, and the widths of blocks of parameters, follow from the members themselves (MacKay, Neural
Computation 4, 448 (1992); Foresee and Hagan, ICNN 1997, for Gauss-Newton). Members see data moved by draws of the
noise, and priors moved by draws of the prior; the draws of all members sum to zero. In a linear model their spread is
then the posterior's, and their mean its centre (Bardsley et al., SIAM J. Sci. Comput. 36, A1895 (2014)).
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quests_zenn._core.checks import DataError
from quests_zenn._core.parallel import Workers
from quests_zenn.zenn._parts import Design, rungs, stretches
from quests_zenn.zenn._problem import Problem, Rows, Sums, one_thread

if TYPE_CHECKING:
    import torch

#: How much wider than the noise residuals may be at the first of the screening steps; 1 at the last.
HEAT = 30.0

#: Steps for every start, after which the best become the members.
SCREENING = 12

#: Least noise, in units of the first guess.
NOISE_FLOOR = 1e-9

#: Rounds of L-BFGS, with a look at the noise after each.
ROUNDS = 4

#: Rows that the noise of a component of mu is worth before it is learned, in proportion to the first guesses. With few
#: rows a model can meet one component exactly, at the cost of all others.
ALIKE = 30.0

#: Weight of the prior on a learned width: that of so many parameters for each of its own. Less where inputs differ.
HELD, HELD_BY_INPUT = 1.0, 0.3

#: Rows of a kind from which its noise is learned.
LEAST_TO_LEARN = 8

#: Screening steps between two looks at noise and priors, which cost a step each.
LEARN_EVERY = 3

#: Told the stage and how much of it has been done since the last call.
Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Settings:
    """How to train. See `ZENN`."""

    n_members: int = 5
    n_starts: int = 10
    adam_steps: int = 0
    learning_rate: float = 0.02
    max_iterations: int = 100
    tolerance: float = 1e-4
    validation_fraction: float = 0.1
    convexity: float = 1.0
    learn_priors: bool = True
    max_damped_parameters: int = 4000


@dataclass
class Trained:
    """Parameters of the members, and what was learned beside them."""

    z: torch.Tensor
    noise: dict[str, float]
    misfit: dict[str, float]
    widths: dict[str, float]
    cost: list[float]
    validation: list[dict[str, float]]
    iterations: int
    adam_steps: int
    converged: bool
    seconds: float


@dataclass
class _State:
    """All that changes while training: what a checkpoint holds."""

    stage: str
    step: int
    tensors: dict[str, torch.Tensor]
    noise: dict[str, float]
    precision: list[float]
    history: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0
    heat: float = 1.0


class Trainer:
    """One fit of a committee.

    Parameters
    ----------
    design : Design
    rows : Rows
    settings : Settings
    seed : int
    jobs : int or None
    noise : dict of float
        First guess of the noise by kind, in the unit of the target.
    checkpoint : Path or None
        A file in which the state is kept from time to time, and from which an interrupted fit goes on.
    start : tensor or None
        (M, P) parameters to start from, in place of random ones.
    learned : dict of float or None
        Noise that was learned with `start`, to begin with.
    widths : dict of float or None
        Widths of priors that were learned with `start`, as `Trained` has them.
    """

    def __init__(
        self,
        design: Design,
        rows: Rows,
        settings: Settings,
        seed: int,
        jobs: int | None = None,
        noise: dict[str, float] | None = None,
        checkpoint: Path | None = None,
        start: torch.Tensor | None = None,
        progress: Progress | None = None,
        learned: dict[str, float] | None = None,
        widths: dict[str, float] | None = None,
    ) -> None:
        import torch

        self.design, self.rows, self.settings, self.seed, self.jobs = design, rows, settings, seed, jobs
        self.problem = Problem(design, rows, settings.convexity, seed)
        self.blocks = self.problem.parts.blocks
        #: Parameters that share the width of their prior; of each parameter, which these are.
        self.stretches = stretches(self.blocks)
        self.stretch_of = torch.empty(design.n_parameters, dtype=torch.int64)
        self.first_precision = []
        for i, (name, (block, which)) in enumerate(self.stretches.items()):
            self.stretch_of[torch.from_numpy(which)] = i
            self.first_precision.append((block.scale / (widths or {}).get(name, block.scale)) ** 2)
        self.checkpoint, self.progress = checkpoint, progress or (lambda stage, done: None)
        self.kinds = self.problem.kinds
        self.members = settings.n_members
        #: Whether matrices of all pairs of parameters can be held and factored.
        self.small = design.n_parameters <= settings.max_damped_parameters
        many = start is None and self.small
        self.starts = max(self.members, settings.n_starts) if many else self.members
        self.first_noise = {kind: (noise or {}).get(kind, 1.0) for kind in self.kinds}
        self.learned = None if start is None else {**self.first_noise, **(learned or {})}
        rng = np.random.default_rng(seed)
        size, count = design.n_parameters, len(rows)
        spread = np.concatenate([np.full(block.size, block.spread) for block in self.blocks])
        drawn = rng.normal(size=(self.starts, size)) * spread
        # all begin on the lowest rung, and climb where nothing holds them
        for block in self.blocks:
            if block.step:
                drawn[:, block.first : block.stop] -= (rungs(block.size) * (block.step / block.scale)).numpy()
        self.z0 = torch.from_numpy(drawn) if start is None else start.clone()
        # draws sum to zero over the members, so that their mean is not moved
        self.epsilon = {kind: torch.from_numpy(_centred(rng.normal(size=(self.members, count)))) for kind in self.kinds}
        self.zeta = torch.from_numpy(_centred(rng.normal(size=(self.members, size))))
        if "density" in self.kinds:
            self.epsilon["density"] *= 0.0
        self.train = torch.from_numpy(self._split(rng))
        self.last_saved = time.monotonic()

    def _split(self, rng: np.random.Generator) -> np.ndarray:
        """(M, R): 1 for rows that a member is trained on, 0 for those that it is judged by. Each member has its own.

        Rows of a density are normalised together with those held out, which their own residuals do not count.
        """
        count = len(self.rows)
        held = round(self.settings.validation_fraction * count)
        train = np.ones((self.members, count))
        if held < 1:
            return train
        order: list[int] = []
        for m in range(self.members):
            while len(order) < held:
                order.extend(rng.permutation(count).tolist())
            out, order = order[:held], order[held:]
            train[m, out] = 0.0
        return train

    # state ------------------------------------------------------------------------------------------------------

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        described = {
            "design": asdict(self.design),
            "settings": asdict(self.settings),
            "seed": self.seed,
            "noise": self.first_noise,
            "learned": self.learned,
            "precision": self.first_precision,
        }
        digest.update(json.dumps(described, sort_keys=True).encode())
        digest.update(self.z0.numpy().tobytes())
        for array in (self.rows.x, self.rows.T, self.rows.weight, *(self.rows.targets[k] for k in self.kinds)):
            digest.update(np.ascontiguousarray(array).tobytes())
        for kind in sorted(self.rows.errors):
            digest.update(np.ascontiguousarray(self.rows.errors[kind]).tobytes())
        return digest.hexdigest()

    def _save(self, state: _State, force: bool = False) -> None:
        if self.checkpoint is None or (not force and time.monotonic() - self.last_saved < 5.0):
            return
        from quests_zenn.zenn._files import write_tensors

        about = {
            "fingerprint": self._fingerprint(),
            "seed": self.seed,
            "stage": state.stage,
            "step": state.step,
            "noise": state.noise,
            "precision": state.precision,
            "history": state.history,
            "seconds": state.seconds,
        }
        write_tensors(self.checkpoint, state.tensors, about)
        self.last_saved = time.monotonic()

    def _restored(self) -> _State | None:
        if self.checkpoint is None or not self.checkpoint.exists():
            return None
        from quests_zenn.zenn._files import read_tensors

        tensors, about = read_tensors(self.checkpoint)
        if about.get("fingerprint") != self._fingerprint():
            raise DataError(
                f"{self.checkpoint}: this checkpoint is of a fit with other data, settings or seed; delete it, or give "
                "another checkpoint"
            )
        damaged = DataError(f"{self.checkpoint}: is no checkpoint of a fit, or is damaged; delete it to begin anew")
        try:
            state = _State(
                about["stage"],
                about["step"],
                tensors,
                {str(kind): float(value) for kind, value in about["noise"].items()},
                [float(value) for value in about["precision"]],
                [[float(value) for value in entry] for entry in about["history"]],
                float(about["seconds"]),
            )
            z = tensors["z"]
            limit = max(self.settings.adam_steps, self.settings.max_iterations, ROUNDS)
            sound = (
                state.stage in ("adam", "screen", "damped", "done")
                and isinstance(state.step, int)
                and 0 <= state.step <= limit
                and set(state.noise) == set(self.kinds)
                and all(math.isfinite(value) and value > 0.0 for value in state.noise.values())
                and len(state.precision) == len(self.stretches)
                and all(math.isfinite(value) and value > 0.0 for value in state.precision)
                and z.shape[1] == self.z0.shape[1]
                and z.shape[0] in (self.starts, self.members)
                and str(z.dtype) == "torch.float64"
                and bool(z.isfinite().all())
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            raise damaged from None
        if not sound:
            raise damaged
        return state

    # stages -----------------------------------------------------------------------------------------------------

    def run(self) -> Trained:
        """Train, and return the best state of each member."""
        state = self._restored() or _State(
            "adam" if self.settings.adam_steps else "screen",
            0,
            {"z": self.z0},
            dict(self.first_noise),
            list(self.first_precision),
        )
        self.began = time.monotonic() - state.seconds
        with one_thread(), Workers(self.jobs) as self.workers:
            if self.learned is not None and state.stage == "screen":
                state.noise = self._noise_of_start(state)
            self.problem.by_logarithm = True
            if state.stage == "adam":
                self._adam(state)
            if state.stage == "screen":
                self._screen(state)
            self.problem.by_logarithm = False
            return self._damped(state) if self.small else self._quasi_newton(state)

    def _noise_of_start(self, state: _State) -> dict[str, float]:
        """What was learned before, unless new rows say more: noise grows slowly, and would hold on to old rows."""
        assert self.learned is not None
        state.noise = {kind: self.learned[kind] for kind in self.kinds}
        sums = self._sums(state, state.tensors["z"], False, still=True)
        found = {}
        for kind in self.kinds:
            count = float((self.problem.root_weight**2 * self.problem.known[kind]).sum())
            ratio = float((sums.squares[kind] / max(count, 1e-300)).median())
            found[kind] = self.learned[kind] * min(
                max(1.0, math.sqrt(ratio)), max(1.0, self.first_noise[kind] / self.learned[kind])
            )
        return found

    def _scales(self, state: _State) -> dict[str, torch.Tensor]:
        import torch

        count = len(self.rows)
        return {
            kind: state.heat
            * (
                self.problem.errors[kind]
                if kind in self.problem.errors
                else torch.full((count,), state.noise[kind], dtype=torch.float64)
            )
            for kind in self.kinds
        }

    def _precisions(self, state: _State) -> torch.Tensor:
        import torch

        return torch.tensor(state.precision, dtype=torch.float64)[self.stretch_of]

    def _sums(self, state: _State, z: torch.Tensor, jacobian: bool, still: bool = False) -> Sums:
        """Cost of each member with its prior; `still` for starts, of which nothing is moved or held out yet."""
        import torch

        alpha = self._precisions(state)
        if still:
            train = torch.ones((z.shape[0], len(self.rows)), dtype=torch.float64)
            noise = {kind: torch.zeros_like(train) for kind in self.kinds}
            centre = torch.zeros_like(z)
        else:
            train, noise = self.train, self.epsilon
            centre = self.zeta / torch.sqrt(alpha)
        sums = self.problem.normal_equations(z, self._scales(state), noise, train, self.workers, jacobian)
        gap = z - centre
        sums.cost = sums.cost + 0.5 * (alpha * gap**2).sum(1)
        if sums.gradient is not None and sums.matrix is not None:
            sums.gradient += alpha * gap
            sums.matrix.diagonal(dim1=1, dim2=2).add_(alpha)
        return sums

    def _adam(self, state: _State) -> None:
        """First-order steps with a cosine schedule, all starts at once, from a point where networks know nothing."""
        import torch

        s = self.settings
        tensors = state.tensors
        for name in ("first", "second"):
            tensors.setdefault(name, torch.zeros_like(tensors["z"]))
        alpha = self._precisions(state)
        scales = self._scales(state)
        for step in range(state.step, s.adam_steps):
            z = tensors["z"]
            gradient = self._gradient(z, scales) + alpha * z
            rate = s.learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / s.adam_steps)) + 1e-4
            tensors["first"] = 0.9 * tensors["first"] + 0.1 * gradient
            tensors["second"] = 0.999 * tensors["second"] + 0.001 * gradient**2
            first = tensors["first"] / (1.0 - 0.9 ** (step + 1))
            second = tensors["second"] / (1.0 - 0.999 ** (step + 1))
            tensors["z"] = z - rate * first / (second.sqrt() + 1e-12)
            state.step = step + 1
            state.seconds = time.monotonic() - self.began
            self.progress("adam", 1)
            self._save(state)
        state.stage, state.step = "screen", 0
        del tensors["first"], tensors["second"]

    def _gradient(self, z: torch.Tensor, scales: dict[str, torch.Tensor]) -> torch.Tensor:
        """Gradient of half the sum of squares, for all starts, without derivatives by row."""
        import torch

        slots: list[torch.Tensor | None] = [None] * len(self.problem.chunks)
        train = torch.ones((len(z), len(self.rows)), dtype=torch.float64)
        noise = {kind: torch.zeros_like(train) for kind in self.kinds}

        def work(i: int) -> None:
            first, end = self.problem.chunks[i]
            with torch.enable_grad():
                leaf = z.detach().clone().requires_grad_()
                total = self.problem.half_squares(leaf, first, end, scales, train, noise)
                slots[i] = torch.autograd.grad(total, leaf)[0]

        self.workers.run(work, list(range(len(slots))))
        result = torch.zeros_like(z)
        for part in slots:
            assert part is not None
            result += part
        return result

    def _screen(self, state: _State) -> None:
        """A few steps for every start; the best become the members."""
        import torch

        state.tensors["z"] = self._shifted(state, state.tensors["z"])
        if self.starts > self.members:
            damping = torch.full((self.starts,), 1e-2, dtype=torch.float64)
            z, cost = state.tensors["z"], None
            for i in range(SCREENING):
                # after Adam, heat would undo what it found
                state.heat = 1.0 if self.settings.adam_steps else HEAT ** (1.0 - i / (SCREENING - 1))
                z, cost, damping = self._step(state, z, damping, still=True)
                if i % LEARN_EVERY == LEARN_EVERY - 1:
                    self._learn(state, z, still=True)
                self.progress("screen", 1)
            cost = self._sums(state, z, False, still=True).cost
            best = torch.argsort(torch.nan_to_num(cost, nan=math.inf), stable=True)[: self.members]
            state.tensors = {"z": z[best].clone(), "damping": damping[best].clone()}
        state.stage, state.step = "damped", 0
        self._save(state, force=True)

    def _shifted(self, state: _State, z: torch.Tensor) -> torch.Tensor:
        """Energies of equations of state moved so that the mean of F is right, which saves many steps."""
        import torch

        block = next((block for block in self.blocks if block.name == "energy"), None)
        kind = next((kind for kind in ("F", "U") if kind in self.kinds), None)
        if block is None or kind is None:
            return z
        gap, seen = torch.zeros(z.shape[0], dtype=torch.float64), 0.0
        for first, end in self.problem.chunks:
            for which, residual, _ in self.problem.residuals(z, first, end, False):
                if which == kind:
                    gap += residual.sum(1)
                    seen += float(self.problem.known[kind][first:end].sum())
        moved = z.clone()
        moved[:, block.first : block.stop] -= (gap / seen / block.scale)[:, None]
        return moved

    def _step(
        self, state: _State, z: torch.Tensor, damping: torch.Tensor, still: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One damped Gauss-Newton step of every member (Levenberg 1944, Marquardt 1963); members that fail stay."""
        import torch

        sums = self._sums(state, z, True, still)
        assert sums.matrix is not None
        assert sums.gradient is not None
        matrix, gradient = sums.matrix, sums.gradient
        scale = torch.diagonal(matrix, dim1=1, dim2=2).clone()
        done = torch.zeros(z.shape[0], dtype=torch.bool)
        best, cost = z.clone(), sums.cost.clone()
        growth = 2.0
        for _ in range(12):
            trial = best.clone()

            def solve(m: int, trial: torch.Tensor = trial, damping: torch.Tensor = damping) -> None:
                damped = matrix[m] + torch.diag(damping[m] * scale[m])
                factor, failed = torch.linalg.cholesky_ex(damped)
                if int(failed) == 0:
                    trial[m] = z[m] - torch.cholesky_solve(gradient[m][:, None], factor)[:, 0]

            self.workers.run(solve, torch.nonzero(~done)[:, 0].tolist())
            tried = self._sums(state, trial, False, still).cost
            better = (tried < sums.cost) & ~done
            best[better], cost[better] = trial[better], tried[better]
            lower, higher = (damping / 5.0).clamp(min=1e-12), damping * growth
            damping = torch.where(better, lower, torch.where(done, damping, higher.clamp(max=1e10)))
            growth *= 2.0
            done = done | better
            if bool(done.all()):
                break
        return best, cost, damping

    def _learn(self, state: _State, z: torch.Tensor, still: bool = False) -> Sums:
        """Noise by kind and widths of priors from where the members stand.

        Members that were moved by draws scatter as the posterior does, so that their squares need no correction for the
        number of parameters; a single one, or starts that were not moved, take it from the curvature.
        """
        import torch

        sums = self._sums(state, z, still or self.members == 1, still)
        members, size = z.shape
        if sums.matrix is not None:
            alpha = self._precisions(state)
            inverse = torch.zeros_like(z)

            def invert(m: int) -> None:
                assert sums.matrix is not None
                factor, failed = torch.linalg.cholesky_ex(sums.matrix[m])
                if int(failed) == 0:
                    inverse[m] = torch.diagonal(torch.cholesky_inverse(factor))

            self.workers.run(invert, list(range(members)))
            bound = (size - (alpha * inverse).sum(1)).clamp(min=0.0)
        else:
            inverse, bound = torch.zeros_like(z), torch.zeros(members, dtype=torch.float64)
        # the best half speaks: a member that is lost must not widen the noise for all
        count = max(1, (members + 1) // 2)
        speak = torch.argsort(sums.cost, stable=True)[:count] if still else torch.arange(members)
        seen = sum(float(self.problem.known[kind].sum()) for kind in self.kinds)
        ratios: dict[str, float] = {}
        for kind in self.kinds:
            # a row or two can always be met: their noise stays what it was taken for
            if kind in self.problem.errors or int(self.problem.known[kind].sum()) < LEAST_TO_LEARN:
                continue
            weight = self.problem.root_weight**2 * self.problem.known[kind]
            shown = weight.sum().expand(members) if still else (weight * self.train).sum(-1)
            share = (1.0 - bound / seen).clamp(min=0.1)
            ratios[kind] = float((sums.squares[kind] / (shown * share).clamp(min=1e-300))[speak].median())
        self._keep_alike(state, ratios)
        for kind, ratio in ratios.items():
            previous = state.noise[kind]
            floor = NOISE_FLOOR * self.first_noise[kind]
            # slow to grow: while a fit is far from its end, residuals are not noise
            growth = 1.0 if still else 1.05
            state.noise[kind] = max(floor, previous * min(growth, max(0.2, math.sqrt(ratio))))
        if self.settings.learn_priors:
            for i, (block, which) in enumerate(self.stretches.values()):
                if not block.learned:
                    continue
                squares = float((z[speak][:, which] ** 2 + inverse[speak][:, which]).sum())
                # a prior on the width itself, worth as much as one member's block, or a part of it: no width runs away
                held = (HELD_BY_INPUT if block.by_input else HELD) * len(which)
                state.precision[i] = (len(speak) * len(which) + held) / (squares + held)
        return sums

    def _keep_alike(self, state: _State, ratios: dict[str, float]) -> None:
        """Draw the noise of each component of mu towards their mean, in units of the first guesses."""
        alike = [kind for kind in ratios if kind.startswith("mu_")]
        if len(alike) < 2:
            return
        unit = {kind: (state.noise[kind] / self.first_noise[kind]) ** 2 for kind in alike}
        common = sum(unit[kind] * ratios[kind] for kind in alike) / len(alike)
        for kind in alike:
            n = float(self.problem.known[kind].sum())
            ratios[kind] = (ALIKE * common / unit[kind] + n * ratios[kind]) / (ALIKE + n)

    def _quasi_newton(self, state: _State) -> Trained:
        """L-BFGS (Liu and Nocedal, Math. Program. 45, 503 (1989)) for models too large for the damped steps.

        The noise is learned between rounds, from rows held out where there are such; priors keep their widths.
        """
        import torch
        from scipy.optimize import minimize

        s = self.settings
        ended = torch.zeros(self.members, dtype=torch.bool)
        alpha = self._precisions(state)
        best = state.tensors.get("best", state.tensors["z"]).clone()
        lowest = state.tensors.get("lowest", torch.full((self.members,), math.inf, dtype=torch.float64)).clone()
        for number in range(state.step, ROUNDS):
            scales = self._scales(state)
            z = state.tensors["z"].clone()
            centre = self.zeta / torch.sqrt(alpha)

            def solve(
                m: int,
                z: torch.Tensor = z,
                scales: dict[str, torch.Tensor] = scales,
                centre: torch.Tensor = centre,
            ) -> None:
                def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
                    with torch.enable_grad():
                        leaf = torch.from_numpy(flat.copy())[None].requires_grad_()
                        total = 0.5 * (alpha * (leaf - centre[m]) ** 2).sum()
                        for first, end in self.problem.chunks:
                            total = total + self.problem.half_squares(
                                leaf,
                                first,
                                end,
                                scales,
                                self.train[m : m + 1],
                                {kind: draws[m : m + 1] for kind, draws in self.epsilon.items()},
                            )
                        (slope,) = torch.autograd.grad(total, leaf)
                    return float(total.detach()), slope[0].numpy()

                found = minimize(
                    cost, z[m].numpy(), jac=True, method="L-BFGS-B", options={"maxiter": s.max_iterations, "maxcor": 20}
                )
                z[m] = torch.from_numpy(found.x)
                ended[m] = bool(found.success)

            self.workers.run(solve, list(range(self.members)))
            state.tensors["z"] = z
            noise = dict(state.noise)
            sums = self._sums(state, z, False)
            squares = sums.held if s.validation_fraction > 0.0 else sums.squares
            # judged in one unit throughout: the first guess of the noise, or the errors given
            judged = torch.zeros_like(lowest)
            for kind in self.kinds:
                unit = self._unit(kind, noise)
                judged += squares[kind] * (unit / self._unit(kind, self.first_noise)) ** 2
                if kind not in self.problem.errors:
                    weight = self.problem.root_weight**2 * self.problem.known[kind]
                    part = 1.0 - self.train if s.validation_fraction > 0.0 else self.train
                    shown = float((weight * part).sum()) / self.members
                    found = unit * math.sqrt(float(squares[kind].median()) / max(shown, 1.0))
                    state.noise[kind] = max(found, NOISE_FLOOR * self.first_noise[kind])
            better = judged < lowest
            best[better], lowest[better] = z[better], judged[better]
            state.history.append([float(sums.cost.mean()), float(judged.mean())])
            state.step, state.seconds = number + 1, time.monotonic() - self.began
            state.tensors = {"z": z, "best": best, "lowest": lowest}
            self.progress("fit", 1)
            self._save(state, force=True)
        return self._finished(state, best, bool(ended.all()))

    def _damped(self, state: _State) -> Trained:
        """Damped steps to convergence; rows held out decide which state of each member is kept."""
        import torch

        s = self.settings
        tensors = state.tensors
        members = tensors["z"].shape[0]
        tensors.setdefault("damping", torch.full((members,), 1e-3, dtype=torch.float64))
        tensors.setdefault("best", tensors["z"].clone())
        for kind in self.kinds:
            tensors.setdefault(f"held_{kind}", torch.full((members,), math.inf, dtype=torch.float64))
        converged = state.stage == "done"
        for step in range(state.step, state.step if converged else s.max_iterations):
            z, cost, tensors["damping"] = self._step(state, tensors["z"], tensors["damping"])
            noise = dict(state.noise)
            sums = self._learn(state, z)
            if step + 1 in (s.max_iterations // 4, s.max_iterations // 2):
                z, tensors["damping"] = self._found_again(z, cost, tensors["damping"])
            tensors["z"] = z
            held, error, before = self._held(sums, noise, tensors)
            # a later state is kept unless rows held out clearly speak against it
            keep = held <= before + error
            tensors["best"][keep] = z[keep]
            for kind in self.kinds:
                squares = sums.held[kind] * self._unit(kind, noise) ** 2
                lower = held < before
                tensors[f"held_{kind}"] = torch.where(lower, squares, tensors[f"held_{kind}"])
            state.history.append([float(cost.mean()), float(held.mean())])
            state.step, state.seconds = step + 1, time.monotonic() - self.began
            if self._settled(state, noise):
                converged, state.stage = True, "done"
            self.progress("fit", 1)
            self._save(state)
            if converged:
                break
        return self._finished(state, tensors["best"] if s.validation_fraction > 0.0 else tensors["z"], converged)

    def _found_again(
        self, z: torch.Tensor, cost: torch.Tensor, damping: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Members that are stuck far above the best one start again where it stands, with draws of their own.

        Costs of members that are where they should be scatter by about the root of the number of rows and parameters.
        """
        import torch

        best = int(torch.argmin(cost))
        lost = cost > cost[best] + 4.0 * math.sqrt(len(self.rows) + z.shape[1])
        return torch.where(lost[:, None], z[best], z), torch.where(lost, damping[best], damping)

    def _finished(self, state: _State, z: torch.Tensor, converged: bool) -> Trained:
        """What came out, and how rows held out speak of it."""
        s = self.settings
        sums = self._sums(state, z, False)
        validation = []
        for m in range(len(z)):
            entry = {}
            for kind in self.kinds:
                weight = self.problem.root_weight**2 * self.problem.known[kind] * (1.0 - self.train[m])
                scale = state.noise[kind] if kind not in self.problem.errors else 1.0
                total = float(weight.sum())
                entry[kind] = math.sqrt(float(sums.held[kind][m]) / total) * scale if total else math.nan
            validation.append(entry)
        misfit = {}
        for kind in self.kinds:
            weight = self.problem.root_weight**2 * self.problem.known[kind]
            shown = float((weight * self.train).sum()) / len(z)
            misfit[kind] = float(sums.squares[kind].median()) / shown
        widths = {
            name: block.scale / math.sqrt(p)
            for (name, (block, _)), p in zip(self.stretches.items(), state.precision, strict=True)
        }
        return Trained(
            z.detach(),
            {kind: value for kind, value in state.noise.items() if kind not in self.problem.errors},
            misfit,
            widths,
            sums.cost.tolist(),
            validation,
            state.step,
            s.adam_steps,
            converged,
            time.monotonic() - self.began,
        )

    def _unit(self, kind: str, noise: dict[str, float]) -> float:
        return 1.0 if kind in self.problem.errors else noise[kind]

    def _held(
        self, sums: Sums, noise: dict[str, float], tensors: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sum of squares of rows held out, its standard error, and the lowest so far, in units of the same noise."""
        import torch

        total = torch.stack([sums.held[kind] for kind in self.kinds]).sum(0)
        fourth = torch.stack([sums.held_fourth[kind] for kind in self.kinds]).sum(0)
        before = torch.stack([tensors[f"held_{kind}"] / self._unit(kind, noise) ** 2 for kind in self.kinds]).sum(0)
        return total, torch.sqrt(fourth), before

    def _settled(self, state: _State, noise: dict[str, float]) -> bool:
        """Whether costs and noise have stopped moving."""
        if len(state.history) < 12:
            return False
        steady = all(abs(math.log(state.noise[kind] / noise[kind])) < 1e-2 for kind in noise)
        recent = [entry[0] for entry in state.history[-4:]]
        # costs are in nats: a tenth of one means nothing
        return steady and max(recent) - min(recent) < self.settings.tolerance * max(1000.0, abs(recent[-1]))


def _centred(draws: np.ndarray) -> np.ndarray:
    """Draws of unit variance that sum to zero over the first axis; zeros where there is one."""
    members = len(draws)
    if members == 1:
        return np.zeros_like(draws)
    return (draws - draws.mean(0)) * math.sqrt(members / (members - 1))
