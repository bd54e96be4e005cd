"""``{click-command} MODULE:NAME``: usage, description and options of a click command, as its ``--help`` gives them.

Option ``:prog:`` names the program. The commands of a group are listed; they get no section of their own.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import click
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


def escape(text: str) -> str:
    """`text` with nothing left that Markdown would read as markup."""
    return re.sub(r"([\\`*_\[\]<>#|$@])", r"\\\1", text)


def fence(language: str, text: str) -> Iterator[str]:
    yield from ("", f"```{language}", *text.splitlines(), "```", "")


def command_markdown(command: click.Command, prog: str) -> Iterator[str]:
    """Lines of Markdown that tell what ``prog --help`` tells."""
    context = click.Context(command, info_name=prog, **command.context_settings)
    usage = command.get_usage(context).removeprefix("Usage: ")
    yield from fence("text", " ".join(usage.split()))
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b"):  # click's mark for text whose lines stay as they are
            yield from fence("text", paragraph.removeprefix("\b\n"))
        else:
            yield from (escape(paragraph), "")
    yield from (":::{program} " + prog, ":::", "")
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            name, text = record
            yield from (":::{option} " + name, escape(text), ":::", "")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            member = command.get_command(context, name)
            if member is not None and not member.hidden:
                yield from (f"`{prog} {name}`", f": {escape(member.get_short_help_str(200))}", "")


class ClickCommand(SphinxDirective):
    required_arguments = 1
    option_spec: ClassVar = {"prog": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].partition(":")
        source = importlib.import_module(module)
        self.env.note_dependency(str(source.__file__))
        lines = command_markdown(getattr(source, name), self.options["prog"])
        parent = nodes.container()
        self.state.nested_parse(StringList(list(lines), source=str(source.__file__)), 0, parent)
        return parent.children


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("click-command", ClickCommand)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
