"""``{include-if-exists} PATH``: a Markdown file, or else the body of the directive.

The path is relative to the page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


class IncludeIfExists(SphinxDirective):
    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        path = (Path(self.env.doc2path(self.env.docname)).parent / self.arguments[0]).resolve()
        self.env.note_dependency(str(path))
        content = self.content
        if path.is_file():
            content = StringList(path.read_text(encoding="utf-8").splitlines(), source=str(path))
        parent = nodes.container()
        self.state.nested_parse(content, 0, parent, match_titles=True)
        return parent.children


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("include-if-exists", IncludeIfExists)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
