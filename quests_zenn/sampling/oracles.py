"""Who answers points: measured rows, functions, programs, Monte Carlo.

An oracle is asked for chemical potentials mu = dg/d(eta) at points eta and temperatures T. A point that fails costs
only itself: its row is NaN, and the message says why. Answers depend on the points, on T and on the seeds, never on the
number of threads nor on the order in which answers come in.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, one_of, positive, whole_number
from quests_zenn._core.parallel import resolve_jobs
from quests_zenn.io.tables import read_table
from quests_zenn.sampling._icet import IcetOracle
from quests_zenn.sampling._program import COMMON, OF_POINT, Answer, Asked, Kept, Programs, Template, another_seed
from quests_zenn.sampling._results import (
    FloatArray,
    Oracle,
    Result,
    as_asked,
    as_column,
    as_matrix,
    as_temperatures,
    check_asked,
    check_names,
    fingerprint_of,
    run_programs,
    shifted,
    where,
)
from quests_zenn.sampling.snapshots import check_files, files_of, judged

__all__ = [
    "BiasedSimulation",
    "FunctionOracle",
    "IcetOracle",
    "MonteCarloOracle",
    "Oracle",
    "PoolOracle",
    "ProgramOracle",
    "Result",
]


# (a) measured rows ----------------------------------------------------------------------------------------------------


class PoolOracle:
    """Rows that were measured before. Each one answers once.

    A point gets the nearest row that is not taken yet: by Euclidean distance, each coordinate in units of its standard
    deviation over the pool; T is one more coordinate if the pool has several. Of equally near rows the first one is
    taken. Points of one call are served in their order.

    Parameters
    ----------
    x : array_like, shape (N, q)
        Order parameters.
    mu : array_like, shape (N, q)
    T : float or array_like, shape (N,), K
    mu_error : array_like, shape (N, q), optional
        Standard errors; NaN where unknown.
    F : array_like, shape (N,), optional
        NaN where unknown.
    names : sequence of str, optional
    snapshots : sequence of path or None, optional
        File of frames of each row, in any format that ASE reads, with an index or without (``run.xyz@::10``).

    Raises
    ------
    DataError
        If shapes do not fit, a row is not finite, T is not positive, there are no rows, or a file is not there.
    """

    def __init__(
        self,
        x: npt.ArrayLike,
        mu: npt.ArrayLike,
        T: npt.ArrayLike = 300.0,
        mu_error: npt.ArrayLike | None = None,
        F: npt.ArrayLike | None = None,
        names: Sequence[str] | None = None,
        snapshots: Sequence[str | os.PathLike[str] | None] | None = None,
    ) -> None:
        self.x, self.mu = as_matrix(x, "x"), as_matrix(mu, "mu")
        n, self.q = self.x.shape
        if n == 0:
            raise DataError("a pool needs at least one row")
        if self.mu.shape != self.x.shape:
            raise DataError(f"mu must have the shape of x, {self.x.shape}, got {self.mu.shape}")
        for what, array in (("x", self.x), ("mu", self.mu)):
            wrong = np.flatnonzero(~np.isfinite(array).all(axis=1))
            if len(wrong):
                raise DataError(f"{what} must be finite, and row {wrong[0]} of the pool is not")
        self.T = as_temperatures(T, n)
        self.mu_error = None if mu_error is None else as_matrix(mu_error, "mu_error")
        if self.mu_error is not None:
            if self.mu_error.shape != self.mu.shape:
                raise DataError(f"mu_error must have the shape of mu, {self.mu.shape}, got {self.mu_error.shape}")
            if (self.mu_error < 0.0).any() or np.isinf(self.mu_error).any():
                raise DataError("mu_error must be finite and not negative")
        self.F = None if F is None else as_column(F, n, "F")
        if self.F is not None and np.isinf(self.F).any():
            raise DataError(f"F must be finite, and row {np.flatnonzero(np.isinf(self.F))[0]} of the pool is not")
        self.names = check_names(names, self.q)
        self.snapshots = None if snapshots is None else check_files(snapshots, n)
        several = bool(np.ptp(self.T) > 0.0)
        at = np.column_stack([self.x, self.T]) if several else self.x
        spread = at.std(axis=0)
        self._several, self._spread = several, np.where(spread > 0.0, spread, 1.0)
        self._at = at / self._spread

    @classmethod
    def from_csv(
        cls,
        path: str | os.PathLike[str],
        x: Sequence[str],
        mu: Sequence[str],
        T: str | float = "T",
        mu_error: Sequence[str] | None = None,
        F: str | None = None,
        snapshots: str | None = None,
    ) -> PoolOracle:
        """A pool from columns of a table.

        Parameters
        ----------
        path : path
        x, mu : sequence of str
            Columns of the order parameters, which become the names, and of their potentials.
        T : str or float
            Column of temperatures in K, or one for all rows.
        mu_error : sequence of str, optional
        F : str, optional
        snapshots : str, optional
            Column of files of frames, relative to the folder of the table; empty where there is none.

        Raises
        ------
        DataError
            If the table cannot be read, a column is missing, or a row is not finite.
        """
        table = read_table(path)

        def columns(names: Sequence[str], what: str) -> FloatArray:
            if isinstance(names, str) or len(names) == 0:
                raise ValueError(f"{what} must be a list of columns, got {names!r}")
            found = np.column_stack([table.column(name) for name in names])
            missing = np.flatnonzero(np.isnan(found).any(axis=1))
            if len(missing) and what != "mu_error":
                raise DataError(f"{table.path}, line {table.lines[missing[0]]}: {what} has no number there")
            return found

        return cls(
            columns(x, "x"),
            columns(mu, "mu"),
            table.column(T) if isinstance(T, str) else T,
            None if mu_error is None else columns(mu_error, "mu_error"),
            None if F is None else table.column(F),
            names=tuple(x),
            snapshots=None if snapshots is None else files_of(table, snapshots),
        )

    def __len__(self) -> int:
        return len(self.x)

    def candidates(self) -> FloatArray:
        """Order parameters of all rows, (N, q)."""
        return self.x.copy()

    def candidate_temperatures(self) -> FloatArray:
        """T of all rows, (N,), K: a row is a candidate at its own temperature only."""
        return self.T.copy()

    def fingerprint(self) -> str:
        """SHA-256 of the rows and their names, and of the names of their files of frames, without folders."""
        settings: dict[str, Any] = {"oracle": "pool", "names": self.names}
        if self.snapshots is not None:
            settings["snapshots"] = [None if file is None else file.name for file in self.snapshots]
        return fingerprint_of(settings, self.x, self.mu, self.T, self.mu_error, self.F)

    def evaluate(
        self,
        points: npt.ArrayLike,
        T: npt.ArrayLike,
        *,
        seeds: npt.ArrayLike,
        jobs: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        used: npt.ArrayLike | None = None,
    ) -> Result:
        """The nearest free row of each point; see `Oracle.evaluate`. Seeds, jobs and folder change nothing.

        Raises
        ------
        DataError
            If the points are not as they should be.
        ValueError
            If `used` names rows that the pool does not have.
        """
        asked, temperatures, _ = check_asked(points, T, seeds, self.q)
        resolve_jobs(jobs)
        free = np.ones(len(self), bool)
        taken = np.asarray([] if used is None else used).ravel()
        if taken.size:
            if taken.dtype.kind not in "iu" or taken.min() < 0 or taken.max() >= len(self):
                raise ValueError(f"used must hold numbers of rows from 0 to {len(self) - 1}")
            free[taken] = False
        at = np.column_stack([asked, temperatures]) if self._several else asked
        at = at / self._spread
        result = Result.empty(temperatures, self.q)
        result.index = np.full(len(asked), -1, np.int64)
        result.mu_error = None if self.mu_error is None else np.full(asked.shape, np.nan)
        result.F = None if self.F is None else np.full(len(asked), np.nan)
        result.snapshots = None if self.snapshots is None else [None] * len(asked)
        rows = np.flatnonzero(free)
        for i, point in enumerate(at):
            if not len(rows):
                named = where(i, asked[i], temperatures[i], self.names)
                result.message[i] = f"{named}: all {len(self)} rows of the pool are taken"
                continue
            nearest = int(np.argmin(((self._at[rows] - point) ** 2).sum(axis=1)))  # the first of equals
            row = int(rows[nearest])
            rows = np.delete(rows, nearest)
            result.index[i] = row
            result.x[i], result.mu[i], result.T[i] = self.x[row], self.mu[row], self.T[row]
            if result.mu_error is not None and self.mu_error is not None:
                result.mu_error[i] = self.mu_error[row]
            if result.F is not None and self.F is not None:
                result.F[i] = self.F[row]
            if result.snapshots is not None and self.snapshots is not None:
                result.snapshots[i] = self.snapshots[row]
        return result


# (b) any function -----------------------------------------------------------------------------------------------------


class FunctionOracle:
    """A Python function as an oracle.

    Parameters
    ----------
    function : callable
        ``function(x, T)`` with x (n, q) and T (n,); returns mu (n, q), or mu and F (n,), or mu, F (or None) and a list
        of n files of frames (or None). It is called once with all
        points, and if that fails once for each point, so that a point that cannot be computed costs only itself. Where
        it returns NaN or infinity, the point has failed.
    q : int
        Number of order parameters.
    noise : float or array_like, shape (q,)
        Standard deviation of normal noise that is added to mu, drawn from the seed of each point.
    names : sequence of str, optional
    label : str, optional
        Stands for the function in the fingerprint. By default the fingerprint holds its name and source text, but not
        the values that it refers to elsewhere.

    Raises
    ------
    ValueError
        If `function` cannot be called, or `noise` is negative.
    """

    def __init__(
        self,
        function: Callable[[FloatArray, FloatArray], Any],
        q: int,
        noise: npt.ArrayLike = 0.0,
        names: Sequence[str] | None = None,
        label: str | None = None,
    ) -> None:
        if not callable(function):
            raise ValueError(f"function must be something that can be called, got {function!r}")
        self.function = function
        self.q = whole_number(q, "q", 1)
        self.noise = as_column(noise, self.q, "noise")
        if not np.isfinite(self.noise).all() or (self.noise < 0.0).any():
            raise ValueError(f"noise must be finite and not negative, got {noise!r}")
        self.names = check_names(names, self.q)
        self.label = label

    def candidates(self) -> None:
        """Any point may be asked for."""
        return None

    def fingerprint(self) -> str:
        """SHA-256 of the settings and of the label, or of the name and source text of the function."""
        about: Any = self.label
        if about is None:
            named = self.function if hasattr(self.function, "__qualname__") else type(self.function)
            about = [getattr(named, "__module__", ""), getattr(named, "__qualname__", "")]
            try:
                about.append(inspect.getsource(named))
            except (OSError, TypeError):  # typed in at a prompt, or compiled
                about.append("")
        return fingerprint_of({"oracle": "function", "function": about, "names": self.names}, self.noise)

    def evaluate(
        self,
        points: npt.ArrayLike,
        T: npt.ArrayLike,
        *,
        seeds: npt.ArrayLike,
        jobs: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        used: npt.ArrayLike | None = None,
    ) -> Result:
        """mu of all points; see `Oracle.evaluate`. The function decides itself how many cores it uses.

        Raises
        ------
        DataError
            If the points are not as they should be.
        """
        asked, temperatures, numbers = check_asked(points, T, seeds, self.q)
        resolve_jobs(jobs)
        result = Result.empty(temperatures, self.q)
        if not len(asked):
            return result
        try:
            answers: list[Answer | str] = self._call(asked, temperatures)
        except Exception:  # whatever a user's function raises
            answers = []
            for i in range(len(asked)):
                try:
                    answers += self._call(asked[i : i + 1], temperatures[i : i + 1])
                except Exception as error:
                    answers.append(" ".join(f"the function raised {type(error).__name__}: {error}".split()))
        for i, answer in enumerate(answers):
            if isinstance(answer, str):
                answer = f"{where(i, asked[i], temperatures[i], self.names)}: {answer}"
            elif self.noise.any():
                shift = self.noise * np.random.default_rng(numbers[i]).standard_normal(self.q)
                noisy = tuple((np.array(answer.mu) + shift).tolist())
                answer = replace(answer, mu=noisy, mu_error=tuple(self.noise.tolist()))
            if isinstance(answer, Answer) and answer.note:
                answer = replace(answer, note=f"{where(i, asked[i], temperatures[i], self.names)}: {answer.note}")
            result.put(i, answer)
        return result

    def _call(self, x: FloatArray, T: FloatArray) -> list[Answer | str]:
        """What the function says about some points; raises what it raises, or if that has the wrong shape."""
        said = self.function(x.copy(), T.copy())
        parts = said if isinstance(said, tuple) and len(said) in (2, 3) else (said,)
        mu, F, files = (*parts, None, None)[:3]
        mu = np.asarray(mu, dtype=np.float64)
        mu = mu[:, None] if self.q == 1 and mu.shape == (len(x),) else mu
        if mu.shape != x.shape:
            raise DataError(f"mu must have the shape {x.shape}, got {mu.shape}")
        values = None if F is None else np.asarray(F, dtype=np.float64)
        if values is not None and values.shape != (len(x),):
            raise DataError(f"F must have the shape {(len(x),)}, got {values.shape}")
        names = [None] * len(x) if files is None else list(files)
        if len(names) != len(x):
            raise DataError(f"there must be {len(x)} files of snapshots, got {len(names)}")
        answers: list[Answer | str] = []
        for i in range(len(x)):
            if not np.isfinite(mu[i]).all() or (values is not None and np.isinf(values[i])):
                answers.append("the function returned NaN or infinity")
                continue
            known = values is not None and not np.isnan(values[i])
            file, note = judged(names[i])  # mu counts without it
            energy = float(values[i]) if known else None  # type: ignore[index]
            answers.append(Answer(tuple(x[i].tolist()), tuple(mu[i].tolist()), F=energy, snapshots=file, note=note))
        return answers


# (c) any program ------------------------------------------------------------------------------------------------------


class ProgramOracle:
    """An external program, by a command template, with CSV in and CSV out.

    The program finds a table `input` with columns ``id, T, <names...>, seed`` in its folder, and leaves a table
    `output` there with columns ``id`` and ``mu_<name>`` (or ``mu_0, mu_1, ...``) and, if it likes, ``x_<name>`` where
    mu was really found, ``mu_error_<name>`` and ``F``, and ``snapshots``, a file of frames by its name in the folder of
    the run (``run.xyz``, or ``run.xyz@::10`` for every tenth frame); one that is not there, or lies elsewhere, is told,
    and the mu of that point counts all the same. Rows may come in any order, other columns are passed over.

    Each run has a folder and a process group of its own, which is ended as a whole: when the program has ended, when
    its time is over, or when this process is interrupted. A point fails if the program cannot be run, ends with another
    status than 0, takes too long, or leaves no finite numbers for it; the message quotes the last line of stderr.
    Failed points are tried again with another seed. Nothing goes through a shell.

    Parameters
    ----------
    command : str or sequence of str
        The program and its arguments; a string is split as a shell would. Placeholders: ``{input}``, ``{output}``,
        ``{folder}``, ``{jobs}``, and with one point per run ``{seed}``, ``{T}`` and the names of the order parameters
        (``{eta_0}``). ``{{`` is a brace. Arguments that name files in `folder` are made absolute, since the program
        runs elsewhere.
    q : int, optional
        Number of order parameters; that of `names` if those are given.
    names : sequence of str, optional
        By default ``eta_0, eta_1, ...``
    timeout : float or None, s
        For one run; None for no limit.
    retries : int
        How often a failed point is tried again.
    input, output : str
        Names of the tables.
    per : {"point", "batch"}
        One run for each point, `jobs` at a time; or one for all points of a call, and then one for each of those that
        it left open.
    folder : path, optional
        Arguments that are names of files here are made absolute; by default the current folder. In the fingerprint they
        keep their names, so that it does not depend on where this folder lies.

    Raises
    ------
    ValueError
        If the command has an unknown placeholder or no such program exists, or a setting makes no sense.
    """

    def __init__(
        self,
        command: str | Sequence[str],
        q: int | None = None,
        *,
        names: Sequence[str] | None = None,
        timeout: float | None = 3600.0,
        retries: int = 1,
        input: str = "points.csv",
        output: str = "results.csv",
        per: str = "point",
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        if q is None and names is None:
            raise ValueError("a program needs names of the order parameters, or their number q")
        if q is None:
            q = 1 if isinstance(names, str) else len(tuple(names or ()))
        self.q = whole_number(q, "q", 1)
        self.names = check_names(names, self.q)
        self.per = one_of(per, "per", ("point", "batch"))
        for what, name in (("input", input), ("output", output)):
            if not isinstance(name, str) or not name or name in (".", "..") or Path(name).name != name:
                raise ValueError(f"{what} must be the name of a file, without a folder, got {name!r}")
        private = ("stdout.txt", "stderr.txt", "process.json")
        if input == output or input in private or output in private:
            raise ValueError(f"input and output must differ from each other and from {', '.join(private)}")
        of_point = (*OF_POINT, *self.names)
        batch = self.per == "batch"
        refused = dict.fromkeys(of_point, "differs from point to point; it needs per='point'") if batch else {}
        template = Template(command, COMMON if batch else (*COMMON, *of_point), refused, folder)
        self.command = template.arguments
        self._portable = template.portable
        self._programs = Programs(
            template=template,
            names=self.names,
            input=input,
            output=output,
            timeout=None if timeout is None else positive(timeout, "timeout"),
            retries=whole_number(retries, "retries", 0),
            batch=batch,
            fingerprint=self.fingerprint(),
        )

    def candidates(self) -> None:
        """Any point may be asked for."""
        return None

    def fingerprint(self) -> str:
        """SHA-256 of the command as it was given, the names, and `per`; not of what the program is made of."""
        return fingerprint_of({"oracle": "program", "command": self._portable, "names": self.names, "per": self.per})

    def evaluate(
        self,
        points: npt.ArrayLike,
        T: npt.ArrayLike,
        *,
        seeds: npt.ArrayLike,
        jobs: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        used: npt.ArrayLike | None = None,
    ) -> Result:
        """Run the program for all points; see `Oracle.evaluate`.

        Each point has a subfolder of `folder`, with a folder for each run of the program and, once it is answered, the
        file ``answer.json``. Points that have one are not run again.

        Raises
        ------
        DataError
            If the points are not as they should be, or `folder` cannot be written to.
        """
        asked, temperatures, numbers = check_asked(points, T, seeds, self.q)
        return run_programs(self._programs, asked, temperatures, numbers, jobs, folder)


# (d) lattice Monte Carlo ----------------------------------------------------------------------------------------------


class BiasedSimulation(Protocol):
    """What `MonteCarloOracle` needs of a simulation: `quests_zenn.sampling.LatticeMC` has it."""

    def run(self, T: Any, *, phi: Any, kappa: Any, sweeps: int, seed: Any, jobs: int | None, **options: Any) -> Any:
        """Simulate with the bias M sum_i phi_i (eta_i - kappa_i)^2 at each T (n,) and row of kappa (n, q).

        Returns something with ``eta``, ``mu`` and ``mu_error`` (n, q), ``equilibrated`` (n,) and ``reason``, why not.
        Each row depends on its own seed only.
        """


class MonteCarloOracle:
    """Biased Monte Carlo as an oracle: mu_i = -2 phi_i (<eta_i> - kappa_i), at <eta>.

    This is the exact mean of dg/d(eta), and dg/d(eta) at <eta> to O(1/M), M the number of sites; how far the two may be
    apart (`LatticeResult.mu_offset`) is a part of the error. A bias with its centre at the asked point x ends at
    x - mu / (2 phi). With a guess of mu, the centre is moved to x + mu / (2 phi), so that <eta> lands near x. In both
    cases the answer stands at <eta>, where it was found.

    Parameters
    ----------
    simulation : LatticeMC
        Or anything with the same `run`.
    phi : float or array_like, shape (q,), energy per site
        Stiffness of the bias. Stiffer means nearer to the point, and larger errors of mu.
    sweeps : int
        Length of one run.
    q : int, optional
        Number of order parameters; by default that of `phi`, or of the simulation where it says so.
    names : sequence of str, optional
    retries : int
        How often a run that failed or did not reach equilibrium is repeated, each time with another seed and with twice
        as many sweeps.
    strict : bool
        A point that is still not in equilibrium then has failed. Otherwise what was found stands.
    every, warmup : int
        Sweeps between samples, and before the first: see `LatticeMC.run`.

    Raises
    ------
    ValueError
        If a setting makes no sense.
    """

    def __init__(
        self,
        simulation: BiasedSimulation,
        phi: npt.ArrayLike,
        sweeps: int,
        q: int | None = None,
        names: Sequence[str] | None = None,
        retries: int = 1,
        strict: bool = True,
        every: int = 1,
        warmup: int = 0,
    ) -> None:
        if not callable(getattr(simulation, "run", None)):
            raise ValueError(f"simulation must have a method run, as LatticeMC has, got {type(simulation).__name__}")
        self.simulation = simulation
        if q is None:
            q = int(getattr(simulation, "n_eta", 1)) if np.ndim(phi) == 0 else len(np.asarray(phi))
        self.q = whole_number(q, "q", 1)
        self.phi = as_column(phi, self.q, "phi")
        if not (np.isfinite(self.phi) & (self.phi > 0.0)).all():
            raise ValueError(f"phi must be positive and finite, got {phi!r}")
        self.sweeps = whole_number(sweeps, "sweeps", 1)
        self.retries = whole_number(retries, "retries", 0)
        self.strict = bool(strict)
        self.every, self.warmup = whole_number(every, "every", 1), whole_number(warmup, "warmup", 0)
        self.names = check_names(names if names is not None else getattr(simulation, "names", None), self.q)

    def candidates(self) -> None:
        """Any point may be asked for."""
        return None

    def fingerprint(self) -> str:
        """SHA-256 of the simulation, and all settings."""
        own = getattr(self.simulation, "fingerprint", None)
        about = own() if callable(own) else f"{type(self.simulation).__module__}.{type(self.simulation).__qualname__}"
        settings = {"oracle": "monte carlo", "simulation": about, "names": self.names}
        settings |= {name: getattr(self, name) for name in ("sweeps", "retries", "strict", "every", "warmup")}
        return fingerprint_of(settings, self.phi)

    def evaluate(
        self,
        points: npt.ArrayLike,
        T: npt.ArrayLike,
        *,
        seeds: npt.ArrayLike,
        jobs: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        used: npt.ArrayLike | None = None,
        mu_guess: npt.ArrayLike | None = None,
    ) -> Result:
        """Simulate all points; see `Oracle.evaluate`. With a folder, answers are kept after every few runs.

        Parameters
        ----------
        mu_guess : array_like, shape (n, q), optional
            mu as it is expected at the points, such as that of a model; where it is NaN, there is no guess.

        Raises
        ------
        DataError
            If the points are not as they should be, or `folder` cannot be written to.
        """
        asked, temperatures, numbers = check_asked(points, T, seeds, self.q)
        jobs = resolve_jobs(jobs)
        centres = shifted(asked, mu_guess, self.phi)
        result = Result.empty(temperatures, self.q)
        kept = None if folder is None else Kept(Path(folder).resolve(), self.fingerprint())
        waiting = as_asked(centres, temperatures, numbers)
        left = []
        for point in waiting:
            known = None if kept is None else kept.load(point)
            if known is None:
                left.append(point)
            else:
                result.put(point.number, known)
        for attempt in range(self.retries + 1):
            # with a folder in pieces, so that a run that is killed loses one piece; points do not depend on each other
            step = max(1, len(left) if kept is None else 4 * jobs)
            again: list[Asked] = []
            for first in range(0, len(left), step):
                piece = left[first : first + step]
                for point, answer in zip(piece, self._simulate(piece, attempt, jobs), strict=True):
                    if isinstance(answer, str):
                        again.append(point)
                        i = point.number
                        answer = f"{where(i, asked[i], temperatures[i], self.names)}: {answer}"
                    else:
                        if kept is not None:
                            kept.save(point, answer)
                        result.message[point.number] = ""
                    result.put(point.number, answer)
            left = again
        return result

    def _simulate(self, points: Sequence[Asked], attempt: int, jobs: int) -> list[Answer | str]:
        """Some points; one by one if they cannot be had together."""
        try:
            return self._together(points, attempt, jobs)
        except Exception as error:  # one bad point must not cost the others
            if len(points) == 1:
                return [" ".join(f"the simulation raised {type(error).__name__}: {error}".split())]
            return [answer for point in points for answer in self._simulate([point], attempt, 1)]

    def _together(self, points: Sequence[Asked], attempt: int, jobs: int) -> list[Answer | str]:
        n = len(points)
        said = self.simulation.run(
            np.array([point.T for point in points]),
            phi=np.tile(self.phi, (n, 1)),
            kappa=np.array([point.x for point in points]),
            sweeps=self.sweeps * 2**attempt,
            every=self.every,
            warmup=self.warmup,
            seed=[another_seed(point.seed, attempt) for point in points],
            jobs=jobs,
        )
        eta, mu, error = (
            np.asarray(getattr(said, name), dtype=np.float64).reshape(n, self.q) for name in ("eta", "mu", "mu_error")
        )
        # a point against an edge of the domain must not be believed more than it can tell
        offset = np.asarray(getattr(said, "mu_offset", np.zeros((n, self.q))), dtype=np.float64).reshape(n, self.q)
        error = np.hypot(error, offset)
        settled = np.broadcast_to(np.asarray(getattr(said, "equilibrated", True), dtype=bool), (n,))
        reasons = getattr(said, "reason", [""] * n)
        answers: list[Answer | str] = []
        for i in range(n):
            if not (np.isfinite(eta[i]).all() and np.isfinite(mu[i]).all()):
                answers.append("the simulation returned NaN or infinity")
            elif not settled[i] and (self.strict or attempt < self.retries):
                why = f" ({reasons[i]})" if reasons[i] else ""
                answers.append(f"not in equilibrium after {self.sweeps * 2**attempt} sweeps{why}")
            else:
                at, found, width = (tuple(part[i].tolist()) for part in (eta, mu, error))
                answers.append(Answer(at, found, width))
        return answers
