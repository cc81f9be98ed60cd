"""The architecture that is documented is the one in the code: picture, named files, and no circle of imports."""

from __future__ import annotations

import graphlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import grimp
import pytest
import typer.main

from panrt.cli import commands

ROOT = Path(__file__).parents[1]
ROOMS = ("benchmarks", "docs", "engine", "examples", "export", "model", "plugins", "python", "tests", "tools")
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", *(f"{room}/**/*.md" for room in ROOMS))
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"  # it names what was renamed
)
SOURCES = [str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*.*")]
SOURCES += [path.name for path in ROOT.glob("*.*")]
EXAMPLES = {  # files that a reader makes
    "docs/extending.md": {"class_counts.py", "noise.py"},
    "docs/gpu_validation.md": {"summary.md"},
}


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


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_a_document_names_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    paths = re.findall(rf"`((?:{'|'.join(ROOMS)})/[\w./-]+)`", text)
    assert not [path for path in paths if not (ROOT / path).exists()]
    files = set(re.findall(r"`([\w./-]+\.(?:cpp|cu|h|md|py|pyi))`", text)) - EXAMPLES.get(name, set())
    missing = {file for file in files if not any(f"/{path}".endswith(f"/{file}") for path in SOURCES)}
    assert not missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_modules_that_a_document_runs_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    modules = [module.replace(".", "/") for module in re.findall(r"python -m ((?:\w+\.)+\w+)", text)]
    assert not [
        path for path in modules if not ((ROOT / f"{path}.py").exists() or (ROOT / path / "__main__.py").exists())
    ]


def unknown_options(text: str) -> list[str]:
    """The options in the commands of a document that `panrt` does not have, each with its command."""
    unknown = []
    for line in re.findall(r"\bpanrt ((?!-)[a-z-]+(?: [^\n`]*)?)(?:`|\n)", text.replace("\\\n", " ")):
        words = re.split(r" {3,}| [|#&] |;|\)", line)[0].split()
        command: Any = typer.main.get_command(commands.app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        below = getattr(command, "commands", {}).values()  # of bench, whose first one needs no name
        parameters = [parameter for one in (command, *below) for parameter in one.params]
        known = {"--help", *(name for one in parameters for name in (*one.opts, *one.secondary_opts))}
        unknown += [
            f"{line}: {word}" for word in words if re.match("--?[a-z]", word) and word.split("=")[0] not in known
        ]
    return unknown


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_that_a_document_gives_have_their_options(name: str) -> None:
    assert not unknown_options((ROOT / name).read_text(encoding="utf-8"))


def test_an_option_that_a_command_lacks_is_found() -> None:
    assert unknown_options("Run `panrt build a.onnx --rate 3`.") == ["build a.onnx --rate 3: --rate"]
    assert unknown_options("```\npanrt bench compare a b --tf33   faster\n```\n") == [
        "bench compare a b --tf33   faster: --tf33"
    ]
    assert not unknown_options("```\npanrt bench a -o b --profile   options --of others\n```\n")
