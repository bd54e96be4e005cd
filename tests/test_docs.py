"""The code on the pages of the documentation and in the README runs, and prints what the pages show."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load_blocks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("blocks", ROOT / "docs" / "blocks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["blocks"] = module
    spec.loader.exec_module(module)
    return module


blocks = load_blocks()
PAGES = [ROOT / "README.md", *(page for page in blocks.pages() if blocks.blocks(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path, tmp_path: Path) -> None:
    if "--plot" in page.read_text(encoding="utf-8"):
        pytest.importorskip("matplotlib")
    for package in sorted(blocks.needs(page)):
        pytest.importorskip(package)
    blocks.prepare(tmp_path)
    blocks.run_page(page, tmp_path)
