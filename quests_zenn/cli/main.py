"""``quests-zenn COMMAND``: all commands under one name. Each loads its own imports, and only when it runs."""

from __future__ import annotations

import click

from quests_zenn.cli._options import version_option
from quests_zenn.cli.entropy import entropy
from quests_zenn.cli.info import info


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def main() -> None:
    """Information entropy of atomistic data."""


main.add_command(entropy)
main.add_command(info)
