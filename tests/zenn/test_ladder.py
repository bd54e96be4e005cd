"""The ladder of energies: which configurations stay out of the mixture, and that it changes nothing but the prior."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from quests_zenn.zenn import ZENN  # noqa: E402
from quests_zenn.zenn._parts import BOLTZMANN, Design, View, rungs  # noqa: E402
from quests_zenn.zenn._rows import make_rows  # noqa: E402
from quests_zenn.zenn.model import _aligned  # noqa: E402

pytestmark = pytest.mark.extra


def table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One solid, which needs one configuration."""
    V, T = (part.ravel() for part in np.meshgrid(np.linspace(10.0, 13.0, 9), np.linspace(100.0, 800.0, 8)))
    F = 0.02 * (V - 11.5) ** 2 - 2e-4 * T - 1e-7 * T**2
    return V, T, F + 5e-4 * np.random.default_rng(0).normal(size=V.size)


@pytest.fixture(scope="module")
def model() -> Any:
    V, T, F = table()
    return ZENN(5, n_members=2, hidden=(), max_iterations=40, random_state=0, n_jobs=1, verbose=False).fit(V, T, F=F)


def test_two_share_the_lowest_rung() -> None:
    assert rungs(5).tolist() == [0.0, 0.0, 1.0, 2.0, 3.0]
    assert rungs(1).tolist() == [0.0]


def test_a_single_configuration_has_no_ladder() -> None:
    block = next(block for block in Design(1, x_centre=(11.0,)).blocks() if block.name == "energy")
    assert block.step == 0.0


def test_the_prior_of_energies_rises_by_rungs() -> None:
    design = Design(5, x_centre=(11.0,), energy_scale=0.3, ladder=0.45)
    z = torch.zeros((1, design.n_parameters), dtype=torch.float64)
    energies = View(design.blocks(), z, 1).block("energy")[0]
    np.testing.assert_allclose(energies.numpy(), [0.0, 0.0, 0.45, 0.9, 1.35], rtol=0, atol=1e-15)


def test_the_ladder_is_as_high_as_the_mixing_is_hot(model: Any) -> None:
    assert model.design_.ladder == pytest.approx(1.5 * 6.0 * BOLTZMANN * 800.0)
    assert model.report_["targets"]["F"]["noise"] == pytest.approx(5e-4, rel=0.3)


def test_the_order_of_configurations_is_a_name_only(model: Any) -> None:
    V, T, F = table()
    before = model.free_energy(V, T)
    rows = make_rows(V, T, {"F": F}, None, None, "volume")
    again = _aligned(model, rows)
    kept = model.z_
    try:
        model.z_ = again
        np.testing.assert_allclose(model.free_energy(V, T), before, rtol=0, atol=1e-12)
    finally:
        model.z_ = kept
    assert torch.allclose(again, kept, rtol=0, atol=1e-12)  # in order already


def test_vibrations_are_held_tighter_off_the_ground() -> None:
    """A z of one means the whole width on the ground, and the tapered one above."""
    design = Design(4, x_centre=(11.0,), taper=0.25)
    z = torch.ones((1, design.n_parameters), dtype=torch.float64)
    view = View(design.blocks(), z, 1)
    assert view.block("grueneisen")[0].tolist() == [3.0, 3.0, 2.25, 2.25]
    wide = View(Design(4, x_centre=(11.0,)).blocks(), z, 1)
    assert wide.block("grueneisen")[0].tolist() == [3.0] * 4
    assert view.block("log_volume")[0].tolist() == wide.block("log_volume")[0].tolist()


def test_fits_of_volumes_taper_and_those_of_networks_do_not(model: Any) -> None:
    V, T, F = table()
    assert (model.design_.taper, model.design_.entropy_correction) == (0.5, 0.3)
    order = ZENN(
        2, coordinate="order", n_members=2, hidden=(2,), adam_steps=2, max_iterations=2, n_jobs=1, verbose=False
    )
    order.fit(V, T, F=F)
    assert (order.design_.taper, order.design_.entropy_correction) == (1.0, 1.0)
