"""Bandwidths."""

from __future__ import annotations

import math

from quests_zenn._core.checks import positive

#: 1/Å
DEFAULT_BANDWIDTH = 0.015


def get_bandwidth(volume: float) -> float:
    """Bandwidth from the volume per atom v: ``h(v) = 0.0897141 exp(-(v / 10.896)^2 / 2) + 0.0119417``.

    Parameters
    ----------
    volume : float
        Volume per atom, Å3, of a bulk phase. Vacuum and molecules have none.

    Returns
    -------
    float
        1/Å.

    Raises
    ------
    ValueError
        If the volume is not positive and finite.

    References
    ----------
    The rule of the package ``quests``, fitted to elemental crystals.
    """
    z = positive(volume, "volume per atom") / 10.896
    return 0.0897141 * math.exp(-0.5 * z * z) + 0.0119417
