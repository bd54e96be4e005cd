"""The code blocks of these pages, so that tests can run them.

    python docs/blocks.py                              # runs all pages
    python docs/blocks.py docs/start.md                # runs one

A page is run from top to bottom in a folder of its own that holds copies of the shipped examples.
These fences run:

``python``
    All blocks of a page share one namespace. A ``text`` block right below holds what the block prints.
``console``
    Lines that begin with ``$`` are commands; the lines below each are what it prints, on stdout and stderr.

In the output shown, a line ``...`` stands for any lines and ``...`` within a line for any text; lines that begin with
``time``, which tell seconds, or with ``compiling kernels``, which a first run prints, are not compared. All other
fences (``sh``, say) are only there to be read.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent

#: What pages find in their folder, and the shipped example that it is a copy of.
EXAMPLES = {
    "traj.xyz": "copper_melting.xyz",
    "states.xyz": "copper_states.xyz",
    "table.csv": "two_solids.csv",
    "wells.toml": "wells.toml",
    "wells_oracle.py": "wells_oracle.py",
}

#: Optional packages, and words of blocks that need them.
NEEDS = {
    "torch": ("quests-zenn fit", "quests-zenn thermo", "quests-zenn active", "quests_zenn.zenn"),
    "zarr": (".zarr",),
    "distributed": ("--backend dask", "quests_zenn.distributed"),
}


@dataclass
class Block:
    """A fence that runs: its language, its text, the output shown, and the line of the page where the text begins."""

    language: str
    text: str
    line: int
    shown: str | None = None


@dataclass
class Command:
    """One command of a console block, and the output shown below it."""

    text: str
    shown: list[str] = field(default_factory=list)


def pages() -> list[Path]:
    """All pages of the documentation."""
    return sorted(path for path in DOCS.rglob("*.md") if not path.relative_to(DOCS).parts[0].startswith("_"))


def fences(path: Path) -> Iterator[tuple[str, str, int, int]]:
    """Language, text, first line and line of the closing fence (from 1) of all fences that are not indented."""
    mark, language, start = "", "", 0
    text: list[str] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not mark:
            opening = re.fullmatch(r"(`{3,}|:{3,})\s*(.*)", line)
            if opening:
                mark, language, start, text = opening[1], opening[2].strip(), number + 1, []
        elif line.rstrip() == mark:
            yield language, "\n".join(text), start, number
            mark = ""
        else:
            text.append(line)


def blocks(path: Path) -> list[Block]:
    """The blocks of a page that run, in order."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    last_end, last = 0, None
    for language, text, start, end in fences(path):
        if language in ("python", "console"):
            found.append(Block(language, text, start))
            last_end, last = end, language
        elif language == "text" and last == "python" and not "".join(lines[last_end : start - 2]).strip():
            found[-1].shown = text
            last = None
    return found


def python_blocks(path: Path) -> list[str]:
    """The Python blocks of a page."""
    return [block.text for block in blocks(path) if block.language == "python"]


def console_blocks(path: Path) -> list[list[Command]]:
    """The console blocks of a page, each a list of commands."""
    return [commands(block.text) for block in blocks(path) if block.language == "console"]


def commands(text: str) -> list[Command]:
    """Commands of a console block and their output; a command continues after a backslash at the end of the line."""
    found: list[Command] = []
    continued = False
    for line in text.splitlines():
        if continued:
            found[-1].text += "\n" + line
        elif line.startswith("$ "):
            found.append(Command(line[2:]))
        elif found:
            found[-1].shown.append(line)
            continue
        continued = line.endswith("\\")
    return found


def same(shown: str, printed: str) -> bool:
    """Whether the output shown is what was printed, up to what `...` and the times leave open."""

    def lines(text: str) -> list[str]:
        kept = text.strip("\n").splitlines()
        return [line.rstrip() for line in kept if not line.startswith(("time ", "compiling kernels"))]

    pattern = ""
    for line in lines(shown):
        pattern += "(.*\n)*?" if line.strip() == "..." else re.escape(line).replace(r"\.\.\.", ".*") + "\n"
    return re.fullmatch(pattern, "".join(line + "\n" for line in lines(printed))) is not None


def needs(path: Path) -> set[str]:
    """Optional packages without which the blocks of a page cannot run."""
    text = "\n".join(block.text for block in blocks(path))
    return {package for package, words in NEEDS.items() if any(word in text for word in words)}


def prepare(folder: Path) -> None:
    """Copy the shipped examples into the folder of a page."""
    for name, example in EXAMPLES.items():
        shutil.copyfile(DOCS.parent / "examples" / example, Path(folder) / name)


def run_page(path: Path, folder: Path) -> None:
    """Run all blocks of a page, in order, in a folder that `prepare` filled.

    Raises
    ------
    AssertionError
        If a command fails, or prints something else than the page shows.
    Exception
        Whatever a Python block raises.
    """
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks(path):
        if block.language == "python":
            # empty lines in front, so that a traceback names lines of the page
            code = compile("\n" * (block.line - 1) + block.text, str(path), "exec")
            printed = io.StringIO()
            with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
                exec(code, namespace)
            judge(path, block.line, block.shown, printed.getvalue())
            continue
        for command in commands(block.text):
            result = subprocess.run(
                command.text, shell=True, cwd=folder, env=environment(), text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
            if result.returncode != 0:
                raise AssertionError(f"{path}:{block.line}: `{command.text}` failed\n{result.stdout}")
            judge(path, block.line, "\n".join(command.shown) if command.shown else None, result.stdout)


def judge(path: Path, line: int, shown: str | None, printed: str) -> None:
    if shown is not None and not same(shown, printed):
        raise AssertionError(f"{path}:{line}: the page shows\n{shown}\n\nbut this was printed:\n{printed}")


def environment() -> dict[str, str]:
    """The environment of commands: those of this Python come first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path}


def main(names: list[str]) -> int:
    failures = 0
    for path in [Path(name) for name in names] or pages():
        if not blocks(path):
            continue
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder))
            try:
                run_page(path, Path(folder))
                print(f"{path}: {len(blocks(path))} blocks run")
            except Exception as error:
                failures += 1
                print(f"{path}: {type(error).__name__}: {error}")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
