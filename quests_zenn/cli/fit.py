"""``quests-zenn fit``: a free energy from a table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import click

from quests_zenn.cli import _options

#: What a free energy can be fitted to: the kind of its unit, or None where it has none.
TARGETS: dict[str, str | None] = {
    "F": "energy", "U": "energy", "P": "pressure", "S": "entropy", "mu": "energy", "density": None,
}  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """One comparison of a column with a number, in the unit of the column."""

    column: str
    sign: str
    value: float

    def __str__(self) -> str:
        return f"{self.column}{self.sign}{self.value:g}"


class Columns(click.ParamType):
    """Names of columns, separated by commas."""

    name = "column"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(part.strip() for part in str(value).split(","))
        if not all(names):
            self.fail(f"{value!r} does not name columns, separated by commas", param, ctx)
        if len(set(names)) < len(names):
            self.fail(f"{value!r} names a column twice", param, ctx)
        return names


class Named(click.ParamType):
    """``F=column`` for one of `TARGETS`; several columns are separated by commas."""

    name = "F=column"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[str, ...]]:
        if isinstance(value, tuple):
            return value
        name, equals, rest = str(value).partition("=")
        name = name.strip()
        if not equals or not rest.strip():
            self.fail(f"{value!r} is not of the form F=column", param, ctx)
        if name not in TARGETS:
            self.fail(f"{name!r} is none of {', '.join(TARGETS)}", param, ctx)
        return name, Columns().convert(rest, param, ctx)


class UnitsOf(click.ParamType):
    """``column=eV``; several are separated by commas, and * in a name stands for anything."""

    name = "column=unit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        if isinstance(value, dict):
            return value
        from quests_zenn.io.tables import KINDS

        found = {}
        for part in str(value).split(","):
            name, equals, unit = (piece.strip() for piece in part.rpartition("="))
            if not (name and equals and unit):
                self.fail(f"{part!r} is not of the form column=eV", param, ctx)
            if unit not in KINDS:
                self.fail(f"{unit!r} is no known unit; known are {', '.join(KINDS)}", param, ctx)
            found[name] = unit
        return found


class Comparison(click.ParamType):
    """``T_K<=400``: a column, a sign, a number."""

    name = "column<=number"

    _FORM = re.compile(r"\s*([^<>=!]+?)\s*(<=|>=|==|!=|<|>|=)\s*([^<>=!]+?)\s*")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Condition:
        if isinstance(value, Condition):
            return value
        from quests_zenn._core.checks import finite

        found = self._FORM.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is not of the form T_K<=400; signs are <, <=, >, >=, ==, !=", param, ctx)
        column, sign, number = found.groups()
        try:
            return Condition(column, "==" if sign == "=" else sign, finite(number, "it"))
        except ValueError:
            self.fail(f"{value!r} compares with {number!r}, which is no finite number", param, ctx)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]}, short_help="A free energy from a table, with errors."
)
@click.argument("table", metavar="TABLE")
@click.option(
    "--x", "x", type=Columns(), multiple=True, required=True, metavar="COLUMN",
    help="The volume of an atom or a cell; with --coordinate order any coordinates (several times, or separated by "
    "commas).",
)  # fmt: skip
@click.option("--T", "temperature", required=True, metavar="COLUMN", help="The temperature.")
@click.option(
    "--target", "targets", type=Named(), multiple=True, required=True, metavar="F=COLUMN",
    help="What to fit (several times): F (free energy), U (energy), P (pressure), S (entropy), mu (chemical "
    "potentials, mu=mu_0,mu_1 for several coordinates), density. Empty cells are missing.",
)  # fmt: skip
@click.option(
    "-o", "--output", required=True, metavar="FOLDER", type=click.Path(), help="Where to write the model: a new folder."
)
@click.option(
    "--error", "errors", type=Named(), multiple=True, metavar="F=COLUMN|NUMBER",
    help="Standard errors of a target: a column, whose name ends in a unit as well (P_std_GPa, not P_GPa_std), or a "
    "number in the unit of the target's column [default: learned from the data].",
)  # fmt: skip
@click.option("--weight", metavar="COLUMN", help="What each row counts.")
@click.option(
    "--units", type=UnitsOf(), multiple=True, metavar="COLUMN=UNIT",
    help="Unit of a column whose name does not end in one (F=eV); * stands for anything (mu_*=eV).",
)  # fmt: skip
@click.option(
    "--where", "conditions", type=Comparison(), multiple=True, metavar="COLUMN<=NUMBER",
    help="Rows to use (several times; all must hold), in the unit of the column: \"T_K<=400\".",
)  # fmt: skip
@click.option(
    "--coordinate", type=click.Choice(["volume", "order"]), default="volume", show_default=True,
    help="What x is: a volume, or order parameters.",
)  # fmt: skip
@click.option(
    "--atoms", "n_atoms", type=click.IntRange(min=1), default=1, show_default=True,
    help="Atoms of the unit that volumes and energies of the table refer to.",
)  # fmt: skip
@click.option(
    "--configurations", type=click.IntRange(1, 1000), default=12, show_default=True, help="Configurations of the model."
)
@click.option(
    "--members", type=click.IntRange(1, 1000), default=5, show_default=True,
    help="Models in the committee, whose spread gives the errors.",
)  # fmt: skip
@_options.output_options
@click.option("--jobs", type=click.IntRange(min=1), help="Threads [default: all cores].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the fit.")
@click.option("--quiet", is_flag=True, help="Print no table, no progress and no warnings.")
@_options.ends_well
def fit(table: str, **options: Any) -> None:
    """Fit a free energy F(x, T) to TABLE, a csv file (.csv, .csv.gz) with names of columns in its first line.

    Units are taken from the ends of these names: volume_A3, T_K, free_energy_eV, P_GPa, S_kB; --units names others. The
    model is a mixture of configurations; pressures, entropies and heat capacities are derivatives of its free energy. A
    fit that was killed goes on where it was when the same command is given again.

    \b
    Examples:
      quests-zenn fit table.csv --x volume_A3 --T T_K --target F=free_energy_eV --atoms 12 -o model/ --plot fit.png
      quests-zenn fit md.csv --x V_A3 --T T_K --target U=U_eV --target P=P_GPa --error P=P_std_GPa -o model/
      quests-zenn fit mc.csv --coordinate order --x n_0,n_1 --T T_K --target mu=mu_0,mu_1 --units "mu_*=eV" -o model/
    """
    from quests_zenn.cli._fit import FitRun

    FitRun(table, options).run()
