"""The code on the pages of the documentation and in the README runs, and prints what the pages show."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from quests_zenn.cli.entropy import entropy
from quests_zenn.cli.main import main

ROOT = Path(__file__).resolve().parents[1]


def load(path: Path, name: str) -> ModuleType:
    """A file as a module of that name."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


blocks = load(ROOT / "docs" / "blocks.py", "blocks")
PAGES = [ROOT / "README.md", *(page for page in blocks.pages() if blocks.blocks(page))]


#: Pages that fit models, compare many potentials or start many processes: a quarter of a minute and more each.
LONG = {
    f"docs/howto/{name}.md"
    for name in (
        "active_learning", "calibrate", "choose", "classify", "cluster", "compress", "datasets", "elements",
        "free_energy", "inputs", "large", "states", "trajectory", "uncertainty",
    )
}  # fmt: skip


def listed(page: Path) -> Any:
    name = str(page.relative_to(ROOT))
    return pytest.param(page, id=name, marks=[pytest.mark.slow] if name in LONG else [])


@pytest.mark.parametrize("page", [listed(page) for page in PAGES])
def test_page(page: Path, tmp_path: Path) -> None:
    if "--plot" in page.read_text(encoding="utf-8"):
        pytest.importorskip("matplotlib")
    for package in sorted(blocks.needs(page)):
        pytest.importorskip(package)
    blocks.prepare(tmp_path)
    blocks.run_page(page, tmp_path)


# --- the command reference --------------------------------------------------------------------------------------------

CLI = ROOT / "docs" / "reference" / "cli.md"


def documented(text: str) -> dict[str, click.Command]:
    """Commands of a page by the name that it gives them; each under a heading of that name."""
    found = {}
    pattern = r"^## (.+)\n\n```\{click-command\} (\S+):(\S+)\n:prog: (.+)\n```$"
    for heading, module, name, prog in re.findall(pattern, text, re.MULTILINE):
        assert heading == prog
        found[prog] = getattr(importlib.import_module(module), name)
    assert len(found) == text.count("{click-command}")
    return found


def commands() -> dict[str, click.Command]:
    """All that can be called; `quests-zenn entropy` is `quests-entropy`."""
    assert main.commands["entropy"] is entropy
    more = {f"quests-zenn {name}": command for name, command in main.commands.items() if name != "entropy"}
    return {"quests-entropy": entropy, "quests-zenn": main, **more}


def test_the_command_reference_has_every_command() -> None:
    assert documented(CLI.read_text(encoding="utf-8")) == commands()


def test_a_command_that_the_reference_lacks_is_found() -> None:
    text = CLI.read_text(encoding="utf-8")
    section = re.search(r"^## quests-zenn thermo\n.*?(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    missing = commands().keys() - documented(text.replace(section[0], "")).keys()
    assert missing == {"quests-zenn thermo"}


@pytest.mark.parametrize("prog", sorted(commands()))
def test_the_command_reference_has_every_option(prog: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    from click_command import command_markdown

    command = commands()[prog]
    lines = "\n".join(command_markdown(command, prog))
    told = set(re.findall(r"--?[a-zA-Z][a-z-]*", "\n".join(re.findall(r"^:::\{option\} (.*)$", lines, re.MULTILINE))))
    options = [
        parameter for parameter in command.params if isinstance(parameter, click.Option) and not parameter.hidden
    ]
    assert {name for option in options for name in option.opts} == told - {"-h", "--help"}


# --- tables of benchmarks ---------------------------------------------------------------------------------------------

BENCHMARKS = ROOT / "benchmarks"

#: Tables whose benchmark has another name than they.
BENCHMARK_OF = {"table": "run"}

#: JSON documents whose benchmark has another name than they.
STORE_OF = {"table": "peer"}


def tables() -> list[str]:
    """What the page of benchmarks includes."""
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    return re.findall(r"^```\{include-if-exists\} \.\./benchmarks/results/(\S+)\.md$", page, re.MULTILINE)


def made_of_json(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tables of a benchmark, made anew from the JSON documents that it left."""
    folder, _, rest = name.partition("_")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    if rest and (BENCHMARKS / folder).is_dir():  # thermo_melting of benchmarks/thermo/melting.py
        monkeypatch.syspath_prepend(str(BENCHMARKS / folder))
        module = load(BENCHMARKS / folder / f"{rest}.py", f"benchmark_{name}")
    else:
        module = importlib.import_module(BENCHMARK_OF.get(name, name))
    results = BENCHMARKS / "results"
    if hasattr(module, "stored"):  # several documents
        return str(module.markdown(module.stored(results)))
    content = json.loads((results / f"{STORE_OF.get(name, name)}.json").read_text(encoding="utf-8"))
    if name == "novel":
        content = content["results"]
    return str((module.markdown if hasattr(module, "markdown") else module.table)(content))


@pytest.mark.extra
@pytest.mark.parametrize("name", tables())
def test_tables_of_benchmarks_are_made_of_their_json(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")  # some of the programs import it
    written = BENCHMARKS / "results" / f"{name}.md"
    if not written.exists():
        pytest.skip("no results are stored")
    assert made_of_json(name, monkeypatch) == written.read_text(encoding="utf-8")


def test_the_page_of_benchmarks_has_all_tables() -> None:
    assert {path.stem for path in (BENCHMARKS / "results").glob("*.md")} <= set(tables())
