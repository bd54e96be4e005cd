"""A calculator of ASE that knows how new its atoms are."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.calculators.calculator import BaseCalculator, compare_atoms

from quests_zenn._core.checks import whole_number
from quests_zenn.uq.reference import DEFAULT_THRESHOLD, Reference

#: What this calculator adds to the results of another one.
PROPERTIES = ("dH", "dH_max", "novel")


class UncertaintyCalculator(BaseCalculator):
    """Adds dH to the results of any calculator.

    Energies, forces and all else come from `calc`, unchanged. ``get_property("dH", atoms)`` gives dH of every atom,
    ``"dH_max"`` the largest, and ``"novel"`` whether ``dH >= threshold``, without the whole sum. They are computed when
    they are asked for, and kept as long as the atoms stay as they are. Steps of a dynamics ask for forces only, and
    take no more time than without.

    Parameters
    ----------
    calc : calculator of ASE
    reference : Reference
    every : int, optional
        Compute dH unasked for each structure whose number is a multiple of it, beginning with the first: the structures
        of a run are counted as forces and energies are asked for. By default never.
    threshold : float or "auto"
        For ``"novel"``, nats; see `Reference.is_novel`.
    keep_array : bool
        Put dH into ``atoms.arrays["dH"]`` as well, so that ``ase.io.write`` takes it to extended XYZ (of results, ASE
        writes only those that it knows). The array is removed when the atoms have moved and something is asked again.
    jobs : int or None
        Threads; None for all available cores.

    Raises
    ------
    ValueError
        For arguments out of range.

    Examples
    --------
    >>> atoms.calc = UncertaintyCalculator(EMT(), reference)
    >>> atoms.get_potential_energy()
    >>> atoms.calc.get_property("dH", atoms)
    """

    def __init__(
        self,
        calc: Any,
        reference: Reference,
        *,
        every: int | None = None,
        threshold: float | str = DEFAULT_THRESHOLD,
        keep_array: bool = True,
        jobs: int | None = None,
    ) -> None:
        if not hasattr(calc, "get_property"):
            raise ValueError(f"calc must be a calculator of ASE, got {type(calc).__name__}")
        self.calc, self.reference, self.keep_array, self.jobs = calc, reference, keep_array, jobs
        self.every = None if every is None else whole_number(every, "every", 1)
        self._threshold = threshold
        self._structures = 0
        self._own: dict[str, Any] = {}
        super().__init__()

    @property
    def implemented_properties(self) -> list[str]:  # type: ignore[override]
        """Properties of `calc`, and ours."""
        return [*self.calc.implemented_properties, *PROPERTIES]

    @property
    def results(self) -> dict[str, Any]:  # type: ignore[override]
        """Results of `calc`, and ours."""
        return {**self.calc.results, **self._own}

    @results.setter
    def results(self, values: dict[str, Any]) -> None:
        self._own = {name: value for name, value in values.items() if name in PROPERTIES}

    def get_property(self, name: str, atoms: Any = None, allow_calculation: bool = True) -> Any:
        """A property of the atoms; see ``ase.calculators.calculator``.

        Raises
        ------
        DataError
            For dH of structures that cannot be described.
        """
        if name in PROPERTIES:
            return self._get_own(name, atoms, allow_calculation)
        if atoms is not None and (self.every is not None or self._own):
            self._notice(atoms)
        return self.calc.get_property(name, atoms, allow_calculation)

    def calculate(self, atoms: Any, properties: list[str], system_changes: list[str]) -> None:
        """Compute properties; their values are in `results`."""
        for name in properties:
            self.get_property(name, atoms)

    def calculation_required(self, atoms: Any, properties: list[str]) -> bool:
        """Whether any of the properties must be computed anew."""
        own = [name for name in properties if name in PROPERTIES]
        if any(self._get_own(name, atoms, False) is None for name in own):
            return True
        others = [name for name in properties if name not in PROPERTIES]
        return bool(others or not own) and bool(self.calc.calculation_required(atoms, others))

    def check_state(self, atoms: Any, tol: float = 1e-15) -> list[str]:
        """What has changed since `calc` was last asked."""
        changes: list[str] = self.calc.check_state(atoms, tol=tol)
        return changes

    def export_properties(self) -> Any:
        """Results of `calc`, those that ASE knows."""
        return self.calc.export_properties()

    def reset(self) -> None:
        """Forget all results."""
        self.atoms, self._own = None, {}
        self.calc.reset()

    def _notice(self, atoms: Any) -> None:
        """Count structures, and forget what is no longer true."""
        if self.atoms is not None and not compare_atoms(self.atoms, atoms):
            return
        kept = self._own.get("dH")
        if kept is not None and np.array_equal(atoms.arrays.get("dH"), kept):
            del atoms.arrays["dH"]
        self.atoms, self._own = atoms.copy(), {}
        self._structures += 1
        if self.every is not None and (self._structures - 1) % self.every == 0:
            self._compute("dH", atoms)

    def _get_own(self, name: str, atoms: Any, allow_calculation: bool) -> Any:
        if atoms is None:
            atoms = self.atoms if self.atoms is not None else getattr(self.calc, "atoms", None)
        if atoms is None:
            raise ValueError(f"{name} of which atoms? Ask with get_property({name!r}, atoms)")
        self._notice(atoms)
        if name not in self._own:
            if not allow_calculation:
                return None
            self._compute(name, atoms)
        value = self._own[name]
        return value.copy() if isinstance(value, np.ndarray) else value

    def _compute(self, name: str, atoms: Any) -> None:
        if name == "novel":
            self._own["novel"] = self.reference.is_novel(atoms, self._threshold, jobs=self.jobs)
            return
        dh = self.reference.score(atoms, jobs=self.jobs)
        self._own |= {"dH": dh, "dH_max": float(dh.max())}
        if self.keep_array:
            atoms.arrays["dH"] = dh.copy()
