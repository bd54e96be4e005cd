"""Configurations that were fitted on their own, in one model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import positive
from quests_zenn.zenn._parts import View
from quests_zenn.zenn.model import ZENN

if TYPE_CHECKING:
    import torch

FloatArray = npt.NDArray[np.float64]


def join(models: Sequence[ZENN], coherence: float = 1.0) -> ZENN:
    """One model whose configurations are those of several models, each fitted to one phase.

    Configurations keep what each model knows of its phase, metastable states included, and mix by the free energies
    that they have: nothing is fitted anew. Energies and entropies of the models must have a common zero.

    Parameters
    ----------
    models : sequence of ZENN
        Fitted, one configuration each, without networks (``hidden=()``), with classical vibrations, of the same form.
    coherence : float
        Units that change together: atoms of the cell that was simulated, if it is of one phase at a time.

    Returns
    -------
    ZENN
        With as many configurations as there are models, in their order; its ranges span those of all.

    Raises
    ------
    ValueError
        If the models do not go together.
    """
    import torch

    positive(coherence, "coherence")
    if not models:
        raise ValueError("there are no models to join")
    first = models[0]
    for model in models:
        _check(model, first)
    design = replace(
        first.design_,
        n_configurations=len(models),
        coherence=float(coherence),
        x_centre=(float(np.mean([model.x_range_ for model in models])),),
        centres={},
        widths={},
        ladder=0.0,
        taper=1.0,
    )
    found = [_values(model, design.x_centre[0], first.shift_) for model in models]
    z = torch.empty((first.n_members_, design.n_parameters), dtype=torch.float64)
    for block in design.blocks():
        physical = torch.stack([values[block.name] for values in found], dim=1)
        z[:, block.first : block.stop] = (physical - block.mean) / block.scale
    joined: ZENN = ZENN(**{**first.get_params(), "n_configurations": len(models), "coherence": float(coherence)})
    joined.design_, joined.z_ = design, z
    joined.ideal_ = None
    joined.shift_, joined.entropy_shift_ = first.shift_, np.zeros(first.n_members_)
    joined.seed_ = first.seed_
    joined.noise_ = {}
    joined.n_members_, joined.n_features_in_ = first.n_members_, 1
    joined.n_parameters_ = design.n_parameters
    ranges = np.array([model.x_range_[0] for model in models])
    joined.x_range_ = np.array([[ranges[:, 0].min(), ranges[:, 1].max()]])
    joined.T_range_ = np.array([min(m.T_range_[0] for m in models), max(m.T_range_[1] for m in models)])
    joined.ranges_ = [(model.x_range_, model.T_range_) for model in models]
    joined.known_ = frozenset.intersection(*(model.known_ for model in models))
    joined.relative_to_ = first.relative_to_
    joined.report_ = {
        "targets": {},
        "prior_widths": {},
        "n_parameters": joined.n_parameters_,
        "n_members": joined.n_members_,
        "converged": all(model.report_["converged"] for model in models),
        "iterations": max(model.report_["iterations"] for model in models),
        "joined": [model.report_ for model in models],
    }
    return joined


def _check(model: ZENN, first: ZENN) -> None:
    if not isinstance(model, ZENN):
        raise ValueError(f"models to join are ZENN, got {type(model).__name__}")
    model._fitted()
    design = model.design_
    if design.n_configurations != 1 or design.hidden or design.thermal != "classical" or design.energy == "network":
        raise ValueError(
            "models to join have one configuration each, an equation of state, thermal='classical' and hidden=()"
        )
    if not math.isinf(design.gamma):
        raise ValueError("models to join have no bound of the entropy (gamma)")
    for name in ("energy", "n_atoms", "boltzmann"):
        if getattr(design, name) != getattr(first.design_, name):
            raise ValueError(f"models to join differ in {name}")
    if model.n_members_ != first.n_members_:
        raise ValueError("models to join differ in the number of their members")


def _values(model: ZENN, centre: float, shift: float) -> dict[str, torch.Tensor]:
    """(M,) physical parameters, with volumes of vibrations counted from another centre, and energies from `shift`."""
    design = model.design_
    blocks = design.blocks()
    view = View(blocks, model.z_, 1)
    found: dict[str, Any] = {block.name: view.block(block.name)[:, 0] for block in blocks}
    found["energy"] = found["energy"] + (model.shift_ - shift)
    # ln(V / V_old) = ln(V / V_new) + moved
    moved = math.log(centre / design.x_centre[0])
    slope, curve = found["grueneisen"], found["grueneisen_slope"]
    found["log_temperature"] = found["log_temperature"] - slope * moved - curve * moved**2
    found["grueneisen"] = slope + 2.0 * curve * moved
    found["anharmonicity"] = found["anharmonicity"] + found["anharmonicity_slope"] * moved
    # a constant of S is a factor of all frequencies: S / (N k_B) = 3 - 3 ln(theta / T)
    constant = found["log_temperature"].new_tensor(model.entropy_shift_)
    found["log_temperature"] = found["log_temperature"] - constant / (3.0 * design.n_atoms * design.boltzmann)
    return found
