"""``quests-zenn fit``: a free energy from a table, or from frames of dynamics."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import click

from quests_zenn.cli import _options
from quests_zenn.cli.thermo import State

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


class Count(click.ParamType):
    """A number from 1 to 1000, or ``auto``."""

    name = "number|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "auto":
            return "auto"
        return int(click.IntRange(1, 1000).convert(value, param, ctx))


class Kelvin(click.ParamType):
    """``FILE=K``: the temperature of a file."""

    name = "FILE=K"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        from quests_zenn._core.checks import positive

        name, equals, number = str(value).rpartition("=")
        if not (equals and name):
            self.fail(f"{value!r} is not of the form FILE=K, run.xyz=300", param, ctx)
        try:
            return name, positive(number, "it")
        except ValueError:
            self.fail(f"{value!r} gives {number!r}, which is no temperature in K", param, ctx)


class Known(click.ParamType):
    """``P,T``: a pressure in GPa and a temperature in K."""

    name = "P,T"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        from quests_zenn._core.checks import finite, positive

        parts = str(value).split(",")
        try:
            pressure, temperature = parts
            return finite(pressure, "it"), positive(temperature, "it")
        except ValueError:
            self.fail(f"{value!r} is not of the form P,T: a pressure in GPa and a temperature in K", param, ctx)


#: Options of tables alone, and of frames alone: by parameter, as they are written.
TABLES_ONLY = {
    "x": "--x", "temperature": "--T", "targets": "--target", "errors": "--error", "weight": "--weight",
    "units": "--units", "conditions": "--where", "coordinate": "--coordinate", "n_atoms": "--atoms",
}  # fmt: skip
FRAMES_ONLY = {
    "weights": "--weights", "temperatures": "--temperature", "rows": "--rows", "energy_key": "--energy-key",
    "stress": "--stress", "type_map": "--type-map", "k": "--k", "cutoff": "--cutoff", "species": "--species",
    "bandwidth": "--bandwidth", "environments": "--environments", "entropy_target": "--entropy-target",
    "slope": "--slope", "equal_at": "--equal-at", "reference": "--reference", "table_file": "--table",
    "propose": "--propose",
}  # fmt: skip


def is_table(name: str) -> bool:
    """Whether a file is read as a table: all else is frames."""
    return name.lower().removesuffix(".gz").endswith(".csv")


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]}, short_help="A free energy from frames or a table."
)
@click.argument("files", metavar="FILES...", nargs=-1, required=True)
@click.option(
    "--x", "x", type=Columns(), multiple=True, metavar="COLUMN",
    help="The volume of an atom or a cell; with --coordinate order any coordinates (several times, or separated by "
    "commas).",
)  # fmt: skip
@click.option("--T", "temperature", metavar="COLUMN", help="The temperature.")
@click.option(
    "--target", "targets", type=Named(), multiple=True, metavar="F=COLUMN",
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
    "--configurations", type=Count(), metavar="NUMBER|auto",
    help="Configurations of the model. Of frames, auto finds phases from clusters of whole frames, and each gets one "
    "[default: 12 for tables, auto for frames].",
)  # fmt: skip
@click.option(
    "--members", type=click.IntRange(1, 1000), default=5, show_default=True,
    help="Models in the committee, whose spread gives the errors.",
)  # fmt: skip
@click.option(
    "--weights", metavar="KIND|FILE", default="uniform", show_default=True,
    help="Of frames: what each state counts. uniform; density (states unlike the others count more) or novelty, from "
    "dH; or a table with a column weight, such as --table writes.",
)  # fmt: skip
@click.option(
    "--temperature", "temperatures", type=Kelvin(), multiple=True, metavar="FILE=K",
    help="Temperature of the frames of a file that do not say it in info['temperature'] (several times).",
)  # fmt: skip
@click.option(
    "--rows", type=click.Choice(["states", "structures"]), default="states", show_default=True,
    help="Whether frames of one volume and temperature are averaged to a state, or each is a row of its own.",
)  # fmt: skip
@click.option(
    "--entropy-target", is_flag=True,
    help="Also fit S = c k_B H + 3/2 k_B ln T + s0 to the information entropies H of states.",
)  # fmt: skip
@click.option("--slope", type=_options.PositiveFloat(), metavar="C", help="Hold c at this value [default: fitted].")
@click.option(
    "--reference", type=State(), metavar="V,T",
    help="State (Å3 per atom, K) at which S is set to zero [default: the coldest, nearest to zero pressure].",
)  # fmt: skip
@click.option(
    "--equal-at", type=Known(), metavar="P,T",
    help="Pressure (GPa) and temperature (K) at which two phases are known to coexist, in place of their entropies.",
)  # fmt: skip
@click.option("--table", "table_file", metavar="FILE", type=click.Path(), help="Write the states as a table (.csv).")
@click.option(
    "--propose",
    type=click.IntRange(0, 100),
    default=1,
    show_default=True,
    help="How many states to name for the next runs.",
)
@click.option(
    "--environments", type=click.IntRange(min=2), metavar="N",
    help="Environments of each state for H [default: as many as the poorest state has, up to 20,000].",
)  # fmt: skip
@click.option(
    "--stress", type=click.Choice(["virial", "total"]), default="virial", show_default=True,
    help="Whether stresses of frames hold the forces between atoms alone, or their motion as well.",
)  # fmt: skip
@click.option("--energy-key", metavar="KEY", help="Where frames keep their energy (REF_energy, ...).")
@click.option(
    "--type-map", type=_options.TypeMap(), metavar="1=Cu,2=Zr", help="Elements of the atom types of the file."
)
@_options.descriptor_options
@click.option(
    "--bandwidth", type=_options.PositiveFloat(), default=0.015, show_default=True, help="Bandwidth of H and dH in 1/Å."
)
@_options.output_options
@click.option("--jobs", type=click.IntRange(min=1), help="Threads [default: all cores].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the fit.")
@click.option("--quiet", is_flag=True, help="Print no table, no progress and no warnings.")
@_options.ends_well
def fit(files: tuple[str, ...], **options: Any) -> None:
    """Fit a free energy F(V, T) to FILES: frames of dynamics, or one table.

    Frames, of any format that ASE reads, are grouped into states: one volume per atom and one temperature each. Means
    of energy and pressure with their errors are what is fitted; the information entropies of states are compared with
    the entropy of the fit, and tell how much S of one phase lies above that of another. Temperatures are those of
    info['temperature'], info['temperature_K'], --temperature, or else the mean of the velocities over the file.
    Stresses follow ASE's sign.

    A table is a csv file (.csv, .csv.gz) with names of columns in its first line; units are taken from the ends of
    these names: volume_A3, T_K, free_energy_eV, P_GPa, S_kB; --units names others. It needs --x, --T and --target.

    The model is a mixture of configurations; pressures, entropies and heat capacities are derivatives of its free
    energy. A fit of a table that was killed goes on where it was when the same command is given again.

    \b
    Examples:
      quests-zenn fit run_*.xyz --weights density --configurations auto -o model/ --table states.csv
      quests-zenn fit a.xyz b.xyz --temperature a.xyz=300 --temperature b.xyz=600 --entropy-target -o model/
      quests-zenn fit dft.xyz --rows structures --weights density -o model/
      quests-zenn fit table.csv --x volume_A3 --T T_K --target F=free_energy_eV --atoms 12 -o model/ --plot fit.png
      quests-zenn fit md.csv --x V_A3 --T T_K --target U=U_eV --target P=P_GPa --error P=P_std_GPa -o model/
      quests-zenn fit mc.csv --coordinate order --x n_0,n_1 --T T_K --target mu=mu_0,mu_1 --units "mu_*=eV" -o model/
    """
    tables = [name for name in files if is_table(name)]
    _check_kind(files, tables)
    if tables:
        for name in ("x", "temperature", "targets"):
            if not options[name]:
                raise click.UsageError(f"Missing option '{TABLES_ONLY[name]}', which a table needs.")
        if options["configurations"] == "auto":
            raise click.UsageError("--configurations auto belongs to frames")
        options["configurations"] = options["configurations"] or 12
        from quests_zenn.cli._fit import FitRun

        FitRun(tables[0], {name: value for name, value in options.items() if name not in FRAMES_ONLY}).run()
        return
    options["configurations"] = options["configurations"] or "auto"
    from quests_zenn.cli._fit_states import StatesRun

    StatesRun(files, {name: value for name, value in options.items() if name not in TABLES_ONLY}).run()


def _check_kind(files: tuple[str, ...], tables: list[str]) -> None:
    """One table, or frames, with the options of either alone."""
    if tables and len(files) > 1:
        raise click.UsageError(f"{tables[0]} is a table; a table is fitted on its own, got {len(files)} files")
    context = click.get_current_context()
    for name, option in (FRAMES_ONLY if tables else TABLES_ONLY).items():
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option} belongs to {'frames' if tables else 'a table'}; got {files[0]}")
