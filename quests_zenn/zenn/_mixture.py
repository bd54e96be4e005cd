"""From configurations to one free energy: definitions of ZENN, as jets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quests_zenn.zenn import _jets
from quests_zenn.zenn._jets import Orders

if TYPE_CHECKING:
    import torch

    from quests_zenn.zenn._parts import Design


def relative(
    design: Design, orders: Orders, free: torch.Tensor, entropies: torch.Tensor | None, T: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Configurations relative to the one that rules each point: large numbers cancel before they are divided by T.

    Parameters
    ----------
    free, entropies : (C, M, K, R) jets
        F_k in eV, S_k in eV/K (needed where gamma is finite).
    T : (C, R) jet, K

    Returns
    -------
    a_k - a_top, ln sum_k exp(a_k - a_top), (S_k / (gamma k_B))^2 less that of the top or None, and F_top. The first
    less the second is ln p_k.
    """
    beta = orders.compose(_jets.power(-1.0), T)[:, None, None, :] * (design.coherence / design.boltzmann)
    bound = None
    exponent = -beta[0] * free[0]
    if math.isfinite(design.gamma):
        assert entropies is not None
        bound = orders.compose(_jets.square, entropies / (design.gamma * design.boltzmann))
        exponent = exponent - bound[0]
    index = _jets.largest(exponent, 1)[None]
    top = free.gather(2, index.expand(len(orders), -1, -1, -1))
    a = -orders.multiply(beta, free - top)
    if bound is not None:
        bound = bound - bound.gather(2, index.expand(len(orders), -1, -1, -1))
        a = a - bound
    return a, orders.logsumexp(a, 1), bound, top[:, :, 0]


def log_probabilities(
    design: Design, orders: Orders, free: torch.Tensor, entropies: torch.Tensor | None, T: torch.Tensor
) -> torch.Tensor:
    """ln p_k, (C, M, K, R) jet. Arguments as for `relative`."""
    a, total, _, _ = relative(design, orders, free, entropies, T)
    return a - total[:, :, None]


def free_energy(
    design: Design, orders: Orders, free: torch.Tensor, entropies: torch.Tensor | None, T: torch.Tensor
) -> torch.Tensor:
    """F = sum_k p_k F_k + (k_B T / n) sum_k p_k ln p_k, (C, M, R) jet. Arguments as for `relative`.

    Without the bound of entropy this is -(k_B T / n) ln sum_k exp(-n F_k / (k_B T)); with it, each configuration also
    brings -(k_B T / n) p_k (S_k / (gamma k_B))^2.
    """
    if design.n_configurations == 1:
        return free[:, :, 0]  # p = 1: the bound of entropy cancels
    a, total, bound, top = relative(design, orders, free, entropies, T)
    if bound is not None:
        p = orders.compose(_jets.exp, a - total[:, :, None])
        total = total + orders.multiply(p, bound).sum(2)
    return top - orders.multiply(T[:, None, :], total) * (design.boltzmann / design.coherence)
