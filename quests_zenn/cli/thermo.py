"""``quests-zenn thermo``: what follows from a fitted free energy."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import click

from quests_zenn.cli import _options

#: Numbers that one option may stand for.
MOST = 100_000


class Numbers(click.ParamType):
    """``0:8:1``, which holds both ends, or numbers separated by commas, in increasing order."""

    name = "0:8:1"

    def __init__(self, *, positive: bool = False) -> None:
        self.positive = positive

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split(":")
        if len(parts) == 1:
            numbers = [self._number(part, value, param, ctx) for part in str(value).split(",")]
        elif len(parts) == 3:
            first, last, step = (self._number(part, value, param, ctx) for part in parts)
            if step <= 0 or last < first:
                self.fail(f"{value!r} is no range: it runs from small to large by a positive step", param, ctx)
            count = int((last - first) / step) + 1
            if count > MOST:
                self.fail(f"{value!r} stands for {count:,} numbers, and at most {MOST:,} are sensible", param, ctx)
            numbers = [first + number * step for number in range(count)]  # decimal: 0.1 added up stays 0.3
        else:
            self.fail(f"{value!r} is no range FIRST:LAST:STEP", param, ctx)
        if self.positive and min(numbers) <= 0:
            self.fail(f"{value!r} holds {min(numbers)}, and temperatures must be positive", param, ctx)
        return tuple(sorted({float(number) for number in numbers}))

    def _number(self, text: str, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            number = Decimal(text.strip())
            if number.is_finite() and abs(number.adjusted()) < 300:
                return number + 0  # no -0
        except InvalidOperation:
            pass
        self.fail(f"{value!r} is no range FIRST:LAST:STEP and no list of numbers", param, ctx)


class State(click.ParamType):
    """``V,T``: a volume in Å3 and a temperature in K."""

    name = "V,T"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        from quests_zenn._core.checks import positive

        parts = str(value).split(",")
        try:
            volume, temperature = (positive(part, "it") for part in parts)
        except ValueError:
            self.fail(f"{value!r} is not of the form V,T: a volume in Å3 and a temperature in K", param, ctx)
        return volume, temperature


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Isobars, transitions and critical point of a fitted free energy.",
)
@click.argument("model", metavar="MODEL")
@click.option(
    "--pressure", type=Numbers(), metavar="FIRST:LAST:STEP",
    help="Isobars in GPa: a range with both ends, or numbers separated by commas [default: 0].",
)  # fmt: skip
@click.option(
    "--temperature", type=Numbers(positive=True), metavar="FIRST:LAST:STEP",
    help="Temperatures in K, likewise [default: about 60 over the range of the fit].",
)  # fmt: skip
@click.option(
    "--state", "states", type=State(), multiple=True, metavar="V,T",
    help="Tell F, U, P and S of one state (several times): a volume in Å3, a temperature in K. Without any of the "
    "options above, -o and --plot, nothing else is worked out.",
)  # fmt: skip
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(),
    help="Write the isobars as a table (.csv, .csv.gz), one row for each pressure and temperature.",
)  # fmt: skip
@_options.output_options
@click.option("--quiet", is_flag=True, help="Print no table and no warnings.")
@_options.ends_well
def thermo(model: str, **options: Any) -> None:
    """What follows from MODEL, a folder that `fit` wrote, whose coordinate is a volume.

    Isobars (volume, Gibbs energy, entropy, heat capacities, bulk modulus, thermal expansion), where it is negative,
    spinodal, binodal and critical point, each with the spread of the committee. Whatever lies outside the range of the
    fit is marked as extrapolated.

    \b
    Examples:
      quests-zenn thermo model/ --pressure 0:8:1 --plot pt.png --json out.json
      quests-zenn thermo model/ --pressure 0,3,5 --temperature 5:600:5 -o isobars.csv
      quests-zenn thermo model/ --state 158.0,300
    """
    from quests_zenn.cli._thermo import ThermoRun

    ThermoRun(model, options).run()
