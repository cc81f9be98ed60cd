"""The architecture that is documented is the one in the code: picture, named files, and no circle of imports."""

from __future__ import annotations

import graphlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import grimp
import pytest

ROOT = Path(__file__).parents[1]


def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_architecture", ROOT / "tools/draw_architecture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_picture_shows_the_imports_of_the_code() -> None:
    committed = (ROOT / "docs/architecture.svg").read_text(encoding="utf-8")
    assert committed == drawing().draw(), "draw it again: python tools/draw_architecture.py"


def test_an_import_that_runs_upward_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    module = drawing()
    graph = grimp.build_graph("panrt", cache_dir=None)
    graph.add_import(importer="panrt.formats.records", imported="panrt.engine.frame")
    monkeypatch.setattr(module.grimp, "build_graph", lambda *_, **__: graph)
    with pytest.raises(
        ValueError, match=r"panrt.formats.records imports panrt.engine.frame: 'formats, hub' is not on a floor above"
    ):
        module.imports()


def test_no_modules_import_each_other() -> None:
    """import-linter looks at packages that stand beside each other; this looks at every module."""
    graph = grimp.build_graph("panrt", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, with the circle


@pytest.mark.parametrize("name", ["docs/architecture.md", "docs/extending.md", "CONTRIBUTING.md"])
def test_files_that_a_document_names_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(
        r"`((?:engine|export|model|plugins|python|tests|tools|benchmarks|docs|examples)/[\w./-]+)`", text
    )
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]
