"""``quests-zenn info``: what is installed, and what it runs on."""

from __future__ import annotations

import click

from quests_zenn.cli._options import ends_well


@click.command(short_help="Versions, cores, optional parts.")
@ends_well
def info() -> None:
    """Show versions, cores, optional parts, and where compiled kernels are kept."""
    import importlib.util

    from quests_zenn._core.parallel import available_cores
    from quests_zenn.entropy._sweep import sum_tiles
    from quests_zenn.entropy._tile import ROWS
    from quests_zenn.io.outputs import versions

    for name, version in versions().items():
        click.echo(f"{name:14} {version}")
    click.echo(f"{'cores':14} {available_cores()}")
    click.echo(f"{'vector units':14} {'512 bits' if ROWS == 8 else 'narrower than 512 bits'}")
    for package, extra in (("matplotlib", "plot"), ("torch", "zenn"), ("safetensors", "zenn")):
        found = importlib.util.find_spec(package) is not None
        click.echo(f"{package:14} {'installed' if found else f'missing (extra: {extra})'}")
    cache = getattr(sum_tiles, "stats", None)
    if cache is not None:
        click.echo(f"{'kernel cache':14} {cache.cache_path}")
