"""``quests-zenn active``: buy the points that teach a free energy most."""

from __future__ import annotations

from typing import Any

import click

from quests_zenn.cli import _options


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="A free energy of order parameters by active learning.",
)
@click.argument("config", metavar="CONFIG")
@click.option(
    "-o", "--output", metavar="FOLDER", type=click.Path(),
    help="Where the run is kept [default: what CONFIG says, else a folder beside it with its name].",
)  # fmt: skip
@click.option("--report", is_flag=True, help="Tell and draw what there is; buy no points.")
@_options.output_options
@click.option("--jobs", type=click.IntRange(min=1), help="Threads, and programs at a time [default: all cores].")
@click.option("--quiet", is_flag=True, help="Print no table, no progress and no warnings.")
@_options.ends_well
def active(config: str, **options: Any) -> None:
    """Learn a free energy g(η, T) from chemical potentials, round by round, as CONFIG (TOML) says.

    CONFIG names the domain of order parameters, the oracle that answers points (measured rows, a program, lattice Monte
    Carlo, icet), the model, the criteria that propose points, the budget, and how frames of points are scored. The
    state is on disk after every step: a run that was killed, or whose budget was raised, goes on where it stopped when
    the same command is given again. Files that --json and --plot of this run wrote are replaced unless they
    were changed since; others only with --overwrite, which never deletes the run itself.

    \b
    Examples:
      quests-zenn active lco.toml
      quests-zenn active lco.toml --report --plot lco.png --json lco.json
    """
    from quests_zenn.cli._active import ActiveRun

    ActiveRun(config, options).run()
