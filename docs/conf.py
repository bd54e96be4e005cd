"""Sphinx settings. Everything is built from this repository: no network, at build time or in the browser."""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

import quests_zenn  # noqa: E402

project = "quests_zenn"
author = "The quests_zenn developers"
copyright = author
release = version = quests_zenn.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "click_command",
    "include_if_exists",
    "mathml",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_ext", "_static", "gallery_built/**/*.py", "gallery_built/**/*.ipynb"]

# scripts of examples/gallery, run when the pages are built; with nothing on the pages that differs from run to run
sphinx_gallery_conf = {
    "examples_dirs": str(DOCS.parent / "examples" / "gallery"),
    "gallery_dirs": "gallery_built",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "min_reported_time": 3600,
    "show_memory": False,
    "capture_repr": (),
    "thumbnail_size": (400, 280),
    "remove_config_comments": True,
}

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
smartquotes = False  # two hyphens are the beginning of an option

# docstrings are NumPy style, with types in words and names in single backticks
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "code"


def keep_plain_text(app, what, name, obj, options, lines):  # type: ignore[no-untyped-def]
    """Docstrings write |a - b| for a length, and initials; neither is markup."""
    bars = [line if "``" in line else line.replace("|", r"\|") for line in lines]
    lines[:] = [re.sub(r"^(\s*[A-Z])\. ", r"\1\\. ", line) for line in bars]


def setup(app):  # type: ignore[no-untyped-def]
    app.connect("autodoc-process-docstring", keep_plain_text)


html_theme = "furo"
html_title = f"quests_zenn {release}"
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
