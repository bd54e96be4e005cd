"""Commands, run in this process."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner

from quests_zenn.cli.main import main

#: What commands say while kernels are compiled: on the first run on a machine only, and not always then.
_COMPILING = "compiling kernels"


def run(*args: Any, status: int = 0) -> tuple[str, str]:
    """What ``quests-zenn ARGS`` says on stdout and stderr; it must end with this status."""
    result = CliRunner().invoke(main, [str(arg) for arg in args], prog_name="quests-zenn")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, (result.exit_code, result.stdout, result.stderr)
    said = (line for line in result.stderr.splitlines(keepends=True) if not line.startswith(_COMPILING))
    return result.stdout, "".join(said)
