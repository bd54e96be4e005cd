"""Which points would lower the expected error of the model most: optimal design of the linearised model."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


class Posterior:
    """What one member of a committee does not know: its parameters about their fit, and how mu of points hangs on them.

    Parameters
    ----------
    information : array, shape (P, P)
        What the known rows tell of parameters of unit prior: the sum of J^T J, J the derivatives of mu with respect to
        them, over the error of mu.
    ahead : array, shape (N, q, P)
        These derivatives at candidates, over the unit that errors of mu are counted in.
    noise : array, shape (q,) or (N, q)
        Standard deviation of a measured mu, in these units; of each candidate where they differ.
    over : array of int
        Candidates over which variances are averaged.

    Notes
    -----
    With slopes W (q, P) of a candidate and the covariance C of the parameters, V = W C W^T + noise^2 is the covariance
    of its mu if it is measured, and measuring it takes the trace of (sum_r W_r^T W_r) C W^T V^-1 W C off the sum of all
    variances (integrated variance: Sacks, Welch, Mitchell and Wynn, Statist. Sci. 4, 409 (1989); Cohn, Neural Networks
    9, 1071 (1996)). `own` is W C W^T and `shared` W C (sum_r W_r^T W_r) C W^T of all candidates; a measurement changes
    both by terms of rank q, so that no step costs more than N q^2 P.
    """

    def __init__(self, information: FloatArray, ahead: FloatArray, noise: FloatArray, over: IntArray) -> None:
        size = len(information)
        root = cholesky(information + np.eye(size), lower=True)
        # in these coordinates parameters have unit covariance
        self.flat = np.ascontiguousarray(solve_triangular(root, ahead.reshape(-1, size).T, lower=True).T)
        self.w = self.flat.reshape(ahead.shape)
        wide = self.w[over].reshape(-1, size)
        self.covariance = np.eye(size)
        self.wide = wide / math.sqrt(len(over))
        #: Covariance (N, q, q) of the noise.
        self.noise = np.zeros((len(ahead), *(ahead.shape[1],) * 2))
        self.noise[:, np.arange(ahead.shape[1]), np.arange(ahead.shape[1])] = np.square(noise)
        self.own = self.w @ self.w.transpose(0, 2, 1)
        # W (sum_r W_r^T W_r) W^T by the smaller of two ways
        if len(wide) < size:
            half = (self.flat @ self.wide.T).reshape(*ahead.shape[:2], -1)
            self.shared = half @ half.transpose(0, 2, 1)
        else:
            weight = self.wide.T @ self.wide
            self.shared = (self.flat @ weight).reshape(ahead.shape) @ self.w.transpose(0, 2, 1)

    def gains(self) -> FloatArray:
        """(N,) by how much measuring each candidate would lower the mean variance."""
        found: FloatArray = np.einsum("nii->n", np.linalg.solve(self.own + self.noise, self.shared))
        return found

    def measure(self, row: int) -> None:
        """Take a candidate as measured."""
        u = self.covariance @ self.w[row].T
        inverse = np.linalg.inv(self.own[row] + self.noise[row])
        # one product of matrices: a product for each candidate would take ten times as long
        seen = self.wide @ u
        both = self.flat @ np.concatenate([u, self.covariance @ (self.wide.T @ seen)], axis=1)
        a, g = (both.reshape(*self.w.shape[:2], -1)[..., part] for part in (slice(u.shape[1]), slice(u.shape[1], None)))
        left = a @ inverse
        cross = left @ g.transpose(0, 2, 1)
        self.shared += left @ (seen.T @ seen) @ left.transpose(0, 2, 1) - cross - cross.transpose(0, 2, 1)
        self.own -= left @ a.transpose(0, 2, 1)
        self.covariance -= (u @ inverse) @ u.T


def most_telling(posteriors: list[Posterior], n: int) -> list[int]:
    """Candidates whose measurement lowers the mean variance most, mean over the members, one after the other."""
    chosen: list[int] = []
    free = np.ones(len(posteriors[0].w), bool)
    for _ in range(min(n, len(free))):
        gain = np.mean([posterior.gains() for posterior in posteriors], axis=0)
        # the first wins a tie, and rounding must not break one, nor tell less than nothing
        best = np.where(free, np.maximum(gain, 0.0), -1.0)
        row = int(np.flatnonzero(best >= best.max() * (1.0 - 1e-9))[0])
        free[row] = False
        chosen.append(row)
        for posterior in posteriors:
            posterior.measure(row)
    return chosen
