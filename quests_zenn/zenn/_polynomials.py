"""Polynomials of order parameters: what networks see in their place, so that free energies have the crystal's symmetry.

A function of invariants h_j(x) has every symmetry that they have, whatever the function. Expressions are read through
Python's grammar and a short list of what may stand in them; nothing is ever evaluated as code.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from quests_zenn._core.checks import DataError, whole_number

if TYPE_CHECKING:
    import torch

    from quests_zenn.zenn._jets import Orders

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Bounds of what is accepted. With x below 1e12, no power leaves the range of numbers.
MOST_DEGREE, MOST_INPUTS, MOST_OUTPUTS, MOST_TERMS = 24, 1000, 1000, 20_000
LONGEST, DEEPEST, LARGEST_FILE = 20_000, 250, 2**24

#: Products of two terms, and additions of terms, that one expression may ask for.
MOST_WORK = 500_000

#: What a search for invariants may look at: monomials in all, invariants of one degree, products of invariants.
MOST_MONOMIALS, MOST_INVARIANTS, MOST_PRODUCTS = 100_000, 1000, 20_000

#: Integers modulo this prime (2^31 - 1): ranks without rounding.
PRIME = 2_147_483_647

#: Rows evaluated at a time.
STRETCH = 1024

#: A monomial: (variable, power) by variable; () is 1.
Monomial = tuple[tuple[int, int], ...]


class Polynomials:
    """Several polynomials in the same variables.

    Parameters
    ----------
    exponents : array of int, shape (n_terms, n_inputs)
        Powers of the variables in each term.
    coefficients : array, shape (n_terms,)
    outputs : array of int, shape (n_terms,)
        To which polynomial a term belongs, from 0; each has at least one term that depends on a variable.
    names : sequence of str, optional
        Of the polynomials; h0, h1, ... by default.

    Attributes
    ----------
    exponents, coefficients, outputs, names
        Equal terms are added up, and terms have one order: polynomials that are equal have equal arrays.
    n_inputs, n_outputs, degree : int

    Raises
    ------
    DataError
        If the arrays do not fit, or exceed bounds (degree 24, 1,000 variables, 20,000 terms).

    Examples
    --------
    >>> h = Polynomials.parse(["x_0", "2./3.*(x[:,1]**2 + x[:,2]**2)"])
    >>> h([[0.5, 1.0, 2.0]])
    array([[0.5       , 3.33333333]])
    """

    def __init__(
        self,
        exponents: npt.ArrayLike,
        coefficients: npt.ArrayLike,
        outputs: npt.ArrayLike,
        names: Sequence[str] | None = None,
    ) -> None:
        powers = _whole(exponents, "exponents", 2)
        if powers.shape[0] == 0 or not 1 <= powers.shape[1] <= MOST_INPUTS:
            raise DataError(
                f"exponents must be of shape (terms, variables) with 1 to {MOST_INPUTS} variables, got {powers.shape}"
            )
        if len(powers) > MOST_TERMS:
            raise DataError(f"polynomials of {len(powers)} terms are too long: {MOST_TERMS} are the limit")
        if (powers < 0).any() or powers.max() > MOST_DEGREE or powers.sum(1).max() > MOST_DEGREE:
            raise DataError(f"powers must be whole numbers from 0, and sum to {MOST_DEGREE} at most in each term")
        try:
            factors = np.array(coefficients, dtype=np.float64)
        except (TypeError, ValueError):
            raise DataError("coefficients of polynomials must be numbers") from None
        which = _whole(outputs, "outputs", 1)
        if factors.shape != (len(powers),) or which.shape != (len(powers),):
            raise DataError(
                f"coefficients and outputs must be as many as the {len(powers)} terms, got shapes {factors.shape} and "
                f"{which.shape}"
            )
        if not np.isfinite(factors).all():
            raise DataError("coefficients of polynomials must be finite")
        if which.min() < 0 or which.max() >= MOST_OUTPUTS:
            raise DataError(f"outputs must lie between 0 and {MOST_OUTPUTS - 1}")
        count = int(which.max()) + 1
        keys = np.column_stack([which, powers.sum(1), -powers])
        unique, inverse = np.unique(keys, axis=0, return_inverse=True)
        total = np.zeros(len(unique))
        np.add.at(total, inverse.reshape(-1), factors)
        kept = total != 0.0
        self.exponents: IntArray = np.ascontiguousarray(-unique[kept, 2:])
        self.coefficients: FloatArray = total[kept]
        self.outputs: IntArray = np.ascontiguousarray(unique[kept, 0])
        self.n_inputs, self.n_outputs = int(powers.shape[1]), count
        varies = np.zeros(count, dtype=bool)
        varies[self.outputs[self.exponents.any(1)]] = True
        if not varies.all():
            raise DataError(f"polynomial {int(np.flatnonzero(~varies)[0])} is a constant, which says nothing of x")
        if names is not None and (isinstance(names, str) or any(not isinstance(name, str) for name in names)):
            raise DataError(f"names must be a list of words, got {names!r}")
        self.names = tuple(f"h{j}" for j in range(count)) if names is None else tuple(names)
        if len(self.names) != count:
            raise DataError(f"{len(self.names)} names were given for {count} polynomials")
        self.degree = int(self.exponents.sum(1).max())
        self._tables: dict[tuple[tuple[int, ...], ...], _Table] = {}

    # where they come from ---------------------------------------------------------------------------------------

    @classmethod
    def parse(cls, expressions: Sequence[Any], n_inputs: int | None = None) -> Polynomials:
        """Polynomials from text.

        Parameters
        ----------
        expressions : sequence of str, or of pairs (name, expression)
            Numbers, variables ``x[:,i]``, ``x_i`` or ``eta_i`` counted from 0, ``+ - *``, division by numbers, whole
            powers, parentheses, and ``sqrt`` of a number.
        n_inputs : int, optional
            Variables; by default those up to the last one that is named.

        Raises
        ------
        DataError
            In one sentence, with the expression and what is wrong.
        """
        if isinstance(expressions, str | bytes | Mapping) or not isinstance(expressions, Sequence | np.ndarray):
            raise DataError(f"polynomials must be a list of expressions, got {type(expressions).__name__}")
        if not 1 <= len(expressions) <= MOST_OUTPUTS:
            raise DataError(f"between 1 and {MOST_OUTPUTS} expressions are needed, got {len(expressions)}")
        if n_inputs is not None and whole_number(n_inputs, "n_inputs", 1) > MOST_INPUTS:
            raise DataError(f"{n_inputs} variables are too many: {MOST_INPUTS} are the limit")
        names, found = [], []
        for j, item in enumerate(expressions):
            name, text = (f"h{j}", item) if isinstance(item, str) else _pair(item)
            names.append(name)
            found.append(_Reader(text, n_inputs).polynomial())
        last = max(i for terms in found for monomial in terms for i, _ in monomial)
        count = last + 1 if n_inputs is None else int(n_inputs)
        size = sum(map(len, found))
        if size > MOST_TERMS:
            raise DataError(f"polynomials of {size} terms are too long: {MOST_TERMS} are the limit")
        exponents = np.zeros((size, count), dtype=np.int64)
        coefficients, outputs = np.empty(size), np.empty(size, dtype=np.int64)
        at = 0
        for j, terms in enumerate(found):
            for monomial, coefficient in terms.items():
                for i, power in monomial:
                    exponents[at, i] = power
                coefficients[at], outputs[at] = coefficient, j
                at += 1
        return cls(exponents, coefficients, outputs, names)

    @classmethod
    def read(cls, path: str | os.PathLike[str], n_inputs: int | None = None) -> Polynomials:
        """Polynomials from a JSON file: a list of expressions or of pairs [name, expression], or what `to_dict` gives.

        Raises
        ------
        DataError
            If there is no such file, or it holds something else.
        """
        file = Path(path)
        try:
            if not file.is_file():
                raise DataError(f"{file}: is no file")
            if file.stat().st_size > LARGEST_FILE:
                raise DataError(f"{file}: is too large for a list of polynomials")
            content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
        except DataError:
            raise
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{file}: cannot be read as a list of polynomials in JSON ({reason})") from error
        try:
            return cls.from_dict(content) if isinstance(content, dict) else cls.parse(content, n_inputs)
        except DataError as error:
            raise DataError(f"{file}: {error}") from None

    @classmethod
    def from_group(
        cls,
        generators: Sequence[npt.ArrayLike],
        degree: int,
        n_inputs: int | None = None,
        independent: bool = True,
    ) -> Polynomials:
        """Invariants of a group of permutations with signs.

        The mean of a monomial over a group (Reynolds operator) is the sum over its orbit, with signs, or zero; these
        sums span all invariants of a degree. (Sturmfels, Algorithms in Invariant Theory, Springer 2008, chapter 2.)

        Parameters
        ----------
        generators : list
            Each a permutation of the variables, as a list of indices from 0, or a matrix (q, q) with one entry 1 or -1
            in each row and column, x -> matrix x. The group is all that follows from them.
        degree : int
            Highest degree of the invariants.
        n_inputs : int, optional
            Variables, where no generator tells it.
        independent : bool
            Whether invariants that are polynomials in those before them are left out (rank over random points, in
            arithmetic modulo a prime). What remains generates all invariants up to `degree`.

        Raises
        ------
        DataError
            If generators make no sense, or there would be too many invariants.
        """
        top = whole_number(degree, "degree", 1)
        if top > MOST_DEGREE:
            raise DataError(f"degree must be {MOST_DEGREE} at most, got {degree}")
        group = [_signed_permutation(generator) for generator in generators]
        sizes = {len(images) for images, _ in group}
        if n_inputs is not None:
            sizes.add(whole_number(n_inputs, "n_inputs", 1))
        if not sizes:
            raise DataError("a group without generators needs n_inputs, the number of variables")
        if len(sizes) > 1:
            raise DataError(f"generators must act on the same number of variables, got {sorted(sizes)}")
        q = sizes.pop()
        if q > MOST_INPUTS or math.comb(q + top, top) > MOST_MONOMIALS:
            raise DataError(f"{q} variables up to degree {top} have too many monomials; choose a lower degree")
        # signs never depend on chance: the points are fixed
        points = np.random.default_rng(0).integers(1, PRIME, size=(MOST_INVARIANTS + 20, q), dtype=np.int64)
        chosen: list[dict[tuple[int, ...], int]] = []
        values: list[IntArray] = []
        degrees: list[int] = []
        for d in range(1, top + 1):
            orbits = _orbits(group, q, d)
            if len(orbits) > MOST_INVARIANTS:
                raise DataError(f"there are {len(orbits)} invariants of degree {d}, too many; choose a lower degree")
            span = _Span(points[: len(orbits) + 20])
            if independent:
                for factors in _products(degrees, d):
                    if span.rank == len(orbits):
                        break
                    vector = values[factors[0]]
                    for j in factors[1:]:
                        vector = vector * values[j] % PRIME
                    span.add(vector)
            for orbit in orbits:
                vector = _modular(orbit, points)
                if not independent or span.add(vector):
                    chosen.append(orbit)
                    values.append(vector)
                    degrees.append(d)
        if not chosen:
            raise DataError(f"the group has no invariants up to degree {top} but constants")
        return cls(
            [monomial for orbit in chosen for monomial in orbit],
            [sign / len(orbit) for orbit in chosen for sign in orbit.values()],
            [j for j, orbit in enumerate(chosen) for _ in orbit],
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and words, as JSON has them."""
        return {
            "names": list(self.names),
            "exponents": self.exponents.tolist(),
            "coefficients": self.coefficients.tolist(),
            "outputs": self.outputs.tolist(),
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Polynomials:
        """What `to_dict` gave; the same to the last bit.

        Raises
        ------
        DataError
            If it is something else.
        """
        keys = {"names", "exponents", "coefficients", "outputs"}
        if not isinstance(given, Mapping) or set(given) != keys:
            raise DataError(f"polynomials are kept under {', '.join(sorted(keys))}, and nothing else")
        return cls(given["exponents"], given["coefficients"], given["outputs"], given["names"])

    # what they are ----------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polynomials) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Polynomials({self.n_outputs} of {self.n_inputs} variables, degree {self.degree})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": {}}

    def __call__(self, x: npt.ArrayLike) -> FloatArray:
        """Values.

        Parameters
        ----------
        x : array, shape (n, n_inputs)

        Returns
        -------
        (n, n_outputs)
        """
        return self.taylor(self._points(x), [(0,) * self.n_inputs])[0]

    def gradient(self, x: npt.ArrayLike) -> FloatArray:
        """First derivatives: (n, n_outputs, n_inputs). Argument as for a call."""
        units = np.eye(self.n_inputs, dtype=int)
        return np.moveaxis(self.taylor(self._points(x), [tuple(unit.tolist()) for unit in units]), 0, 2)

    def hessian(self, x: npt.ArrayLike) -> FloatArray:
        """Second derivatives: (n, n_outputs, n_inputs, n_inputs). Argument as for a call."""
        points, q = self._points(x), self.n_inputs
        result = np.empty((len(points), self.n_outputs, q, q))
        units = np.eye(q, dtype=int)
        pairs = [(i, j) for i in range(q) for j in range(i, q)]
        found = self.taylor(points, [tuple((units[i] + units[j]).tolist()) for i, j in pairs])
        for (i, j), coefficient in zip(pairs, found, strict=True):
            result[:, :, i, j] = result[:, :, j, i] = coefficient * (2.0 if i == j else 1.0)
        return result

    def _points(self, x: npt.ArrayLike) -> FloatArray:
        from quests_zenn.zenn._rows import as_points

        points = as_points(x)
        if points.shape[1] != self.n_inputs:
            raise DataError(f"x has {points.shape[1]} columns, but the polynomials have {self.n_inputs} variables")
        return points

    def taylor(self, x: FloatArray, orders: Sequence[tuple[int, ...]]) -> FloatArray:
        """Taylor coefficients (derivatives over factorials) around points.

        Parameters
        ----------
        x : (n, n_inputs)
        orders : sequence of tuples of int
            Orders of differentiation by variable.

        Returns
        -------
        (len(orders), n, n_outputs)
        """
        key = tuple(orders)
        if key not in self._tables:
            self._tables[key] = _Table(self, key)
        return self._tables[key](x)

    def jets(self, orders: Orders, x: torch.Tensor) -> torch.Tensor:
        """Polynomials of jets. They are not open to differentiation backwards: x comes from data.

        Parameters
        ----------
        orders : Orders
        x : (C, R, n_inputs) jets

        Returns
        -------
        (C, R, n_outputs) jets
        """
        import torch

        value, q = x[0].numpy(), self.n_inputs
        if self._are_variables(orders, x):
            return torch.from_numpy(self.taylor(value, [item[:q] for item in orders.list]))
        # h(x0 + d) = sum of Taylor coefficients times powers of d, which end at the degree of the jets
        around = [item for item in product(range(orders.degree + 1), repeat=q) if sum(item) <= orders.degree]
        coefficients = torch.from_numpy(self.taylor(value, around))
        step = x.clone()
        step[0] = 0.0
        powers: dict[tuple[int, ...], torch.Tensor] = {}
        result = orders.constant(coefficients[around.index((0,) * q)])
        for item, coefficient in sorted(zip(around, coefficients, strict=True), key=lambda pair: sum(pair[0])):
            if not any(item):
                continue
            i = next(i for i, n in enumerate(item) if n)
            below = (*item[:i], item[i] - 1, *item[i + 1 :])
            powers[item] = orders.multiply(powers[below], step[..., i]) if any(below) else step[..., i]
            result = result + powers[item][..., None] * coefficient
        return result

    def _are_variables(self, orders: Orders, x: torch.Tensor) -> bool:
        """Whether the jets are those of the first variables themselves, and nothing depends on others."""
        q = self.n_inputs
        if len(orders.list[0]) < q or any(any(item[q:]) for item in orders.list):
            return False
        units = x.new_zeros((len(orders), 1, q))
        for c, item in enumerate(orders.list):
            if sum(item) == 1:
                units[c, 0, item.index(1)] = 1.0
        return bool((x[1:] == units[1:]).all())


class _Table:
    """How to work out Taylor coefficients: monomials one from another, then sums of them."""

    def __init__(self, of: Polynomials, orders: Sequence[tuple[int, ...]]) -> None:
        from scipy.sparse import csr_matrix

        needed: dict[tuple[int, ...], int] = {(0,) * of.n_inputs: 0}
        rows, columns, factors = [], [], []
        for c, order in enumerate(orders):
            for powers, coefficient, output in zip(
                of.exponents.tolist(), of.coefficients.tolist(), of.outputs.tolist(), strict=True
            ):
                if any(n > p for n, p in zip(order, powers, strict=True)):
                    continue
                factor = math.prod(math.comb(p, n) for n, p in zip(order, powers, strict=True) if n)
                monomial = tuple(p - n for n, p in zip(order, powers, strict=True))
                rows.append(c * of.n_outputs + output)
                columns.append(monomial)
                factors.append(coefficient * factor)
                while monomial not in needed:
                    needed[monomial] = 0
                    monomial = _parent(monomial)[0]
        ordered = sorted(needed, key=lambda item: (sum(item), item))
        place = {item: n for n, item in enumerate(ordered)}
        self.size, self.shape = len(ordered), (len(orders), of.n_outputs)
        #: By degree: which monomials follow from which others, times which variable.
        self.levels: list[tuple[slice, IntArray, IntArray]] = []
        first = 1
        while first < self.size:
            last = first
            while last < self.size and sum(ordered[last]) == sum(ordered[first]):
                last += 1
            parents = [_parent(item) for item in ordered[first:last]]
            self.levels.append(
                (
                    slice(first, last),
                    np.array([place[item] for item, _ in parents]),
                    np.array([i for _, i in parents]),
                )
            )
            first = last
        self.matrix = csr_matrix(
            (factors, (rows, [place[item] for item in columns])), shape=(len(orders) * of.n_outputs, self.size)
        )

    def __call__(self, x: FloatArray) -> FloatArray:
        count = len(x)
        result = np.empty((self.shape[0], count, self.shape[1]))
        for first in range(0, count, STRETCH):
            part = np.ascontiguousarray(x[first : first + STRETCH].T)
            table = np.empty((self.size, part.shape[1]))
            table[0] = 1.0
            for level, parents, variables in self.levels:
                np.multiply(table[parents], part[variables], out=table[level])
            sums = (self.matrix @ table).reshape(*self.shape, -1)
            result[:, first : first + STRETCH] = sums.transpose(0, 2, 1)
        return result


def _parent(monomial: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """A monomial without one factor, and which variable that is."""
    i = next((i for i, p in enumerate(monomial) if p), 0)
    return (*monomial[:i], monomial[i] - 1, *monomial[i + 1 :]), i


def _whole(values: Any, what: str, ndim: int) -> IntArray:
    try:
        array = np.array(values)
        if array.dtype.kind not in "iu" or array.ndim != ndim:
            raise TypeError
        return array.astype(np.int64)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{what} of polynomials must be whole numbers in {ndim} dimension(s)") from None


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _pair(item: Any) -> tuple[str, str]:
    if isinstance(item, Sequence) and len(item) == 2 and all(isinstance(part, str) for part in item):
        return item[0], item[1]
    raise DataError(f"an expression is a text, or a pair of a name and a text, got {_short(repr(item))}")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


# expressions --------------------------------------------------------------------------------------------------------


class _Reader:
    """One expression, read into its terms."""

    def __init__(self, text: str, n_inputs: int | None) -> None:
        self.text, self.n_inputs, self.work = text, n_inputs, 0

    def polynomial(self) -> dict[Monomial, float]:
        """Coefficients by monomial."""
        if len(self.text) > LONGEST:
            raise self._wrong(f"it has {len(self.text)} characters, and {LONGEST} are the limit")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(self.text.strip(), mode="eval")
        except (SyntaxError, ValueError):
            raise self._wrong("it does not follow the rules of arithmetic") from None
        except (RecursionError, MemoryError):
            raise self._wrong("it is nested too deeply") from None
        terms = {monomial: value for monomial, value in self._value(tree.body, 0).items() if value != 0.0}
        if not any(terms):
            raise self._wrong("it does not depend on x")
        return terms

    def _wrong(self, why: str) -> DataError:
        return DataError(f"the expression {_short(self.text)!r} cannot be used: {why}")

    def _spend(self, amount: int) -> None:
        self.work += amount
        if self.work > MOST_WORK:
            raise self._wrong("it has too many terms when written out")

    def _value(self, node: ast.expr, depth: int) -> dict[Monomial, float]:
        if depth > DEEPEST:
            raise self._wrong("it is nested too deeply")
        if isinstance(node, ast.BinOp):
            if isinstance(node.op, ast.Add | ast.Sub):
                return self._sum(node, depth)
            if isinstance(node.op, ast.Mult | ast.Div):
                return self._product(node, depth)
            if isinstance(node.op, ast.Pow):
                return self._power(node, depth)
            raise self._wrong("between terms only + - * / and ** may stand")
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            inner = self._value(node.operand, depth + 1)
            return inner if isinstance(node.op, ast.UAdd) else {key: -value for key, value in inner.items()}
        if isinstance(node, ast.Constant):
            return self._constant(node)
        if isinstance(node, ast.Name | ast.Subscript):
            return {((self._variable(node), 1),): 1.0}
        if isinstance(node, ast.Call):
            return self._root(node, depth)
        raise self._wrong(f"{_short(ast.unparse(node))!r} is no number, variable, sum, product or power")

    def _constant(self, node: ast.Constant) -> dict[Monomial, float]:
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise self._wrong(f"{_short(repr(node.value))} is no real number")
        try:
            return self._finite({(): float(node.value)})
        except OverflowError:
            raise self._wrong("a number in it is too large") from None

    def _finite(self, terms: dict[Monomial, float]) -> dict[Monomial, float]:
        if not all(map(math.isfinite, terms.values())):
            raise self._wrong("a number in it is too large")
        return terms

    def _variable(self, node: ast.Name | ast.Subscript) -> int:
        digits = None
        if isinstance(node, ast.Name):
            match = re.fullmatch(r"(?:x|eta)_([0-9]{1,6})", node.id)
            digits = match and int(match.group(1))
        elif isinstance(node.value, ast.Name) and node.value.id in ("x", "eta") and isinstance(node.slice, ast.Tuple):
            parts = node.slice.elts
            whole = len(parts) == 2 and isinstance(parts[0], ast.Slice)
            if whole and ast.unparse(parts[0]) == ":" and isinstance(parts[1], ast.Constant):
                digits = parts[1].value if type(parts[1].value) is int else None
        if digits is None or not isinstance(digits, int):
            raise self._wrong(f"{_short(ast.unparse(node))!r} is no variable; they are written x[:,0], x_0 or eta_0")
        limit = MOST_INPUTS if self.n_inputs is None else self.n_inputs
        if digits >= limit:
            raise self._wrong(f"{_short(ast.unparse(node))!r} is not among the {limit} variables, counted from 0")
        return digits

    def _sum(self, node: ast.expr, depth: int) -> dict[Monomial, float]:
        parts: list[tuple[ast.expr, float]] = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            parts.append((node.right, 1.0 if isinstance(node.op, ast.Add) else -1.0))
            node = node.left
        total = dict(self._value(node, depth + 1))
        for part, sign in reversed(parts):
            terms = self._value(part, depth + 1)
            self._spend(len(terms))
            for key, value in terms.items():
                total[key] = total.get(key, 0.0) + sign * value
        return self._finite(total)

    def _product(self, node: ast.expr, depth: int) -> dict[Monomial, float]:
        parts: list[tuple[ast.expr, bool]] = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
            parts.append((node.right, isinstance(node.op, ast.Div)))
            node = node.left
        total = self._value(node, depth + 1)
        for part, below in reversed(parts):
            factor = self._value(part, depth + 1)
            if below:
                if any(factor):
                    raise self._wrong(f"{_short(ast.unparse(part))!r} stands below a fraction; only numbers may")
                if factor.get((), 0.0) == 0.0:
                    raise self._wrong("it divides by zero")
                total = self._finite({key: value / factor[()] for key, value in total.items()})
            else:
                total = self._times(total, factor)
        return total

    def _times(self, a: dict[Monomial, float], b: dict[Monomial, float]) -> dict[Monomial, float]:
        self._spend(len(a) * len(b))
        result: dict[Monomial, float] = {}
        for left, u in a.items():
            for right, v in b.items():
                powers = dict(left)
                for i, p in right:
                    powers[i] = powers.get(i, 0) + p
                if sum(powers.values()) > MOST_DEGREE:
                    raise self._wrong(f"its degree exceeds {MOST_DEGREE}")
                key = tuple(sorted(powers.items()))
                result[key] = result.get(key, 0.0) + u * v
        return self._finite(result)

    def _power(self, node: ast.BinOp, depth: int) -> dict[Monomial, float]:
        power = node.right.value if isinstance(node.right, ast.Constant) else None
        if isinstance(power, bool) or not isinstance(power, int | float) or power != power // 1:
            raise self._wrong(f"the power {_short(ast.unparse(node.right))!r} is no whole number from 0")
        if power > MOST_DEGREE:
            raise self._wrong(f"the power {_short(ast.unparse(node.right))!r} exceeds {MOST_DEGREE}")
        base = self._value(node.left, depth + 1)
        result: dict[Monomial, float] = {(): 1.0}
        for _ in range(int(power)):
            result = self._times(result, base)
        return result

    def _root(self, node: ast.Call, depth: int) -> dict[Monomial, float]:
        name = ast.unparse(node.func)
        if name not in ("sqrt", "np.sqrt") or len(node.args) != 1 or node.keywords:
            raise self._wrong(f"{_short(name)!r} may not be called; only sqrt of a number may")
        inner = self._value(node.args[0], depth + 1)
        if any(inner):
            raise self._wrong("sqrt may be taken of numbers only")
        value = inner.get((), 0.0)
        if value < 0.0:
            raise self._wrong("it takes sqrt of a negative number")
        return {(): math.sqrt(value)}


# groups -------------------------------------------------------------------------------------------------------------


def _signed_permutation(generator: npt.ArrayLike) -> tuple[list[int], list[int]]:
    """Where each variable goes, and with which sign."""
    try:
        array = np.array(generator)
        if array.dtype.kind not in "iuf":
            raise ValueError
    except (TypeError, ValueError):
        raise DataError("a generator must be a list of indices or a matrix of numbers") from None
    if array.ndim == 1 and len(array):
        if array.dtype.kind == "f" or sorted(array.tolist()) != list(range(len(array))):
            raise DataError(f"{_short(str(array.tolist()))} is no permutation: it must hold 0 to {len(array) - 1} once")
        return array.tolist(), [1] * len(array)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not len(array):
        raise DataError(f"a generator must be a list of indices or a square matrix, got shape {array.shape}")
    full = array != 0
    if not (np.isin(array, (-1, 0, 1)).all() and (full.sum(0) == 1).all() and (full.sum(1) == 1).all()):
        raise DataError("a matrix of a group must hold one 1 or -1 in each row and column, and zeros beside them")
    images = full.argmax(1)
    return images.tolist(), [int(v) for v in array[np.arange(len(array)), images]]


def _orbits(group: list[tuple[list[int], list[int]]], q: int, degree: int) -> list[dict[tuple[int, ...], int]]:
    """Orbits of monomials of one degree, with signs; those whose sum vanishes are left out."""
    seen: set[tuple[int, ...]] = set()
    found = []
    for factors in combinations_with_replacement(range(q), degree):
        start = tuple(np.bincount(factors, minlength=q).tolist())
        if start in seen:
            continue
        signs, stack, vanishes = {start: 1}, [start], False
        while stack:
            monomial = stack.pop()
            for images, flips in group:
                sign, moved = signs[monomial], [0] * q
                for i, p in enumerate(monomial):
                    if p:
                        moved[images[i]] = p
                        sign = -sign if flips[i] < 0 and p % 2 else sign
                key = tuple(moved)
                if key not in signs:
                    signs[key] = sign
                    stack.append(key)
                elif signs[key] != sign:
                    vanishes = True
        seen.update(signs)
        if not vanishes:
            found.append(signs)
    # sums of pure powers come first
    return sorted(found, key=lambda orbit: max(sorted(monomial, reverse=True) for monomial in orbit), reverse=True)


def _products(degrees: list[int], total: int) -> list[tuple[int, ...]]:
    """Products of two or more invariants with a degree in sum."""
    found: list[tuple[int, ...]] = []

    def grow(chosen: tuple[int, ...], first: int, left: int) -> None:
        if left == 0:
            if len(chosen) > 1:
                found.append(chosen)
            if len(found) > MOST_PRODUCTS:
                raise DataError(f"there are too many products of invariants of degree {total}; choose a lower degree")
            return
        for j in range(first, len(degrees)):
            if degrees[j] > left:
                break  # degrees rise
            grow((*chosen, j), j, left - degrees[j])

    grow((), 0, total)
    return found


def _modular(orbit: dict[tuple[int, ...], int], points: IntArray) -> IntArray:
    """Values of a sum of monomials at points, modulo the prime."""
    total = np.zeros(len(points), dtype=np.int64)
    for monomial, sign in orbit.items():
        value = np.ones(len(points), dtype=np.int64)
        for i, p in enumerate(monomial):
            for _ in range(p):
                value = value * points[:, i] % PRIME
        total = (total + sign * value) % PRIME
    return total


class _Span:
    """Vectors modulo the prime, reduced against each other."""

    def __init__(self, points: IntArray) -> None:
        self.width = len(points)
        self.rows = np.empty((0, self.width), dtype=np.int64)
        self.pivots: list[int] = []

    @property
    def rank(self) -> int:
        """Independent vectors so far."""
        return len(self.pivots)

    def add(self, vector: IntArray) -> bool:
        """Whether the vector is independent of those before; then it is one of them."""
        rest = vector[: self.width] % PRIME
        if self.pivots:
            rest = (rest - (rest[self.pivots][:, None] * self.rows % PRIME).sum(0)) % PRIME
        hits = np.flatnonzero(rest)
        if not len(hits):
            return False
        pivot = int(hits[0])
        rest = rest * pow(int(rest[pivot]), -1, PRIME) % PRIME
        if self.pivots:
            self.rows = (self.rows - self.rows[:, pivot : pivot + 1] * rest % PRIME) % PRIME
        self.rows = np.vstack([self.rows, rest])
        self.pivots.append(pivot)
        return True
