"""``quests-zenn COMMAND``: all commands under one name. Each loads its own imports, and only when it runs."""

from __future__ import annotations

import os
import sys

import click

from quests_zenn.cli._options import version_option
from quests_zenn.cli.active import active
from quests_zenn.cli.calibrate import calibrate
from quests_zenn.cli.compress import compress
from quests_zenn.cli.density import bandwidth, compare, descriptors, dh, learning_curve, overlap
from quests_zenn.cli.entropy import entropy
from quests_zenn.cli.filter import filter_
from quests_zenn.cli.fit import fit
from quests_zenn.cli.generate import generate
from quests_zenn.cli.info import info
from quests_zenn.cli.map import map_
from quests_zenn.cli.outliers import outliers
from quests_zenn.cli.plan import plan
from quests_zenn.cli.reference import reference
from quests_zenn.cli.thermo import thermo


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def main() -> None:
    """Information entropy of atomistic data."""


for command in (
    entropy,
    descriptors,
    dh,
    overlap,
    compare,
    learning_curve,
    bandwidth,
    compress,
    reference,
    filter_,
    calibrate,
    outliers,
    map_,
    generate,
    fit,
    thermo,
    active,
    plan,
    info,
):
    main.add_command(command)


def run(command: click.Command) -> None:
    """Run a command as a process of its own.

    The process ends at once: taking down the compiler and its libraries one by one would cost a third of a second.
    """
    status: object = 0
    try:
        command()
    except SystemExit as end:
        status = end.code
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except OSError:
        status = status or 1
    os._exit(status if isinstance(status, int) else int(status is not None))


def quests_entropy() -> None:
    """The console script ``quests-entropy``."""
    run(entropy)


def quests_zenn() -> None:
    """The console script ``quests-zenn``."""
    run(main)
