"""Models whose parameters are set by hand, without a fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from quests_zenn.zenn._parts import Design
from quests_zenn.zenn.model import DNN, ZENN, FreeEnergyModel

Array = npt.NDArray[np.float64]

VOLUME: dict[str, Any] = {
    "x_centre": (12.0,),
    "x_scale": (2.0,),
    "T_centre": 500.0,
    "T_scale": 400.0,
    "energy_scale": 0.04,
    "correction": 0.02,
    "entropy_correction": 0.4,
    "taper": 0.5,
}
ORDER: dict[str, Any] = {
    "coordinate": "order",
    "energy": "network",
    "thermal": "none",
    "n_inputs": 2,
    "x_centre": (0.1, -0.3),
    "x_scale": (1.5, 0.7),
    "T_centre": 500.0,
    "T_scale": 400.0,
    "energy_scale": 0.05,
    "correction": 0.05,
    "hidden": (4, 3),
    "explicit_temperature": True,
}

#: Networks that see x_1^2, x_0 x_1^2 and x_0^3 - 2 x_0.
INPUTS: dict[str, Any] = {
    "inputs": {
        "names": ["a", "b", "c"],
        "exponents": [[0, 2], [1, 2], [1, 0], [3, 0]],
        "coefficients": [1.0, 1.0, -2.0, 1.0],
        "outputs": [0, 1, 2, 2],
    },
    "input_centre": (0.3, 0.0, -0.1),
    "input_scale": (0.8, 1.1, 2.0),
}

#: Every form that a model can have.
DESIGNS: dict[str, Design] = {
    "birch-murnaghan and debye": Design(3, hidden=(4,), **VOLUME),
    "without networks": Design(2, hidden=(), **VOLUME),
    "vinet and einstein": Design(2, energy="vinet", thermal="einstein", hidden=(3, 2), n_atoms=4.0, **VOLUME),
    "classical": Design(2, thermal="classical", hidden=(3,), **VOLUME),
    "classical, bound": Design(2, thermal="classical", hidden=(3,), gamma=2.0, **VOLUME),
    "bound entropy": Design(3, hidden=(4,), gamma=2.5, **VOLUME),
    "bound entropy, einstein": Design(2, thermal="einstein", energy="vinet", hidden=(2,), gamma=1.5, **VOLUME),
    "coherent": Design(3, hidden=(4,), coherence=7.0, **VOLUME),
    "no vibrations": Design(2, thermal="none", hidden=(4,), explicit_temperature=True, **VOLUME),
    "no vibrations, no networks": Design(2, thermal="none", hidden=(), gamma=3.0, **VOLUME),
    "network and debye": Design(2, energy="network", hidden=(3, 3), **VOLUME),
    "one free energy": Design(1, split=False, hidden=(4, 4), explicit_temperature=True, **VOLUME),
    "one configuration, bound": Design(1, hidden=(4,), gamma=2.0, **VOLUME),
    "order": Design(3, **ORDER),
    "order, bound": Design(3, gamma=2.0, coherence=2.0, **ORDER),
    "order, one": Design(1, split=False, **ORDER),
    "order, polynomials": Design(3, **ORDER, **INPUTS),
    "order, one, polynomials": Design(1, split=False, **ORDER, **INPUTS),
    "order, two scales": Design(1, split=False, gains=(1.0, 0.02), fine=0.02, **ORDER),
    "order, two scales, polynomials": Design(1, split=False, gains=(1.0, 0.02, 0.3), fine=0.02, **ORDER, **INPUTS),
    "order, one temperature": Design(2, **{**ORDER, "explicit_temperature": False}),
    "convex": Design(2, convex=True, **ORDER),
    "convex, one temperature": Design(2, convex=True, **{**ORDER, "explicit_temperature": False}),
    "convex, bound": Design(2, convex=True, gamma=2.0, **ORDER),
    "convex volume": Design(
        2, convex=True, energy="network", thermal="none", explicit_temperature=True, hidden=(3,), **VOLUME
    ),
    "other units": Design(2, boltzmann=0.2, **{**ORDER, "T_centre": 1.0, "T_scale": 0.5, "energy_scale": 0.3}),
}


def drawn(design: Design, members: int, seed: int, width: float = 0.7) -> torch.Tensor:
    """Random parameters."""
    return torch.from_numpy(width * np.random.default_rng(seed).normal(size=(members, design.n_parameters)))


def values(design: Design, z: torch.Tensor) -> dict[str, Array]:
    """Physical values of parameters of one member, by name."""
    return {
        block.name: (z[block.first : block.stop].numpy() * np.asarray(block.scales()) + block.mean).reshape(block.shape)
        for block in design.blocks()
    }


def points(design: Design, count: int, seed: int) -> tuple[Array, Array]:
    """x (n, q) and T (n,) where the model lives."""
    rng = np.random.default_rng(seed)
    x = np.asarray(design.x_centre) + np.asarray(design.x_scale) * rng.uniform(-1, 1, (count, design.n_inputs))
    return x, design.T_centre + design.T_scale * rng.uniform(-1, 1, count)


def by_hand(design: Design, z: torch.Tensor, shift: float = 0.0) -> Any:
    """A model with these parameters."""
    kind: type[FreeEnergyModel] = ZENN if design.split else DNN
    more = {"n_configurations": design.n_configurations} if design.split else {}
    model = kind(coordinate=design.coordinate, n_members=len(z), n_atoms=design.n_atoms, n_jobs=1, **more)
    centre, scale = np.asarray(design.x_centre), np.asarray(design.x_scale)
    model.design_, model.z_, model.shift_, model.seed_ = design, z, shift, 0
    model.entropy_shift_, model.ranges_ = np.zeros(len(z)), []
    model.n_members_, model.n_features_in_, model.n_parameters_ = len(z), design.n_inputs, design.n_parameters
    model.x_range_ = np.stack([centre - scale, centre + scale], axis=1)
    model.T_range_ = np.array([design.T_centre - design.T_scale, design.T_centre + design.T_scale])
    model.known_, model.relative_to_ = frozenset({"F", "S", "U", "C_V", "P", "B", "mu"}), "F as given"
    model.noise_, model.report_, model.ideal_ = {}, {}, None
    return model


def single(design: Design, **more: float) -> tuple[Design, torch.Tensor]:
    """A design whose parameters are all at their means, and scalars that are set by name; lists go by configuration."""
    z = torch.zeros(1, design.n_parameters, dtype=torch.float64)
    blocks = {block.name: block for block in design.blocks()}
    for name, wanted in more.items():
        block = blocks[name]
        value = np.broadcast_to(np.asarray(wanted, dtype=np.float64), block.shape).reshape(-1)
        z[0, block.first : block.stop] = torch.from_numpy((value - block.mean) / np.asarray(block.scales()))
    assert math.isfinite(float(z.sum()))
    return design, z
