"""What the documents refer to exists: the targets and headings of links, and the names of modules and their attributes.

`tests/test_architecture.py` looks at files and commands. Lines of prose have at most 100 columns.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = "benchmarks|docs|engine|examples|export|model|plugins|tests|tools"
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", *(f"{room}/**/*.md" for room in ROOMS.split("|")))
    for path in ROOT.glob(pattern)
)
GENERATED = {"benchmarks/results/latency.md"}


def text_of(name: str) -> str:
    """The text of a document; of the change log, what is not released and no old name."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.split(r"(?m)^## ", text)[1].split("### Renamed")[0] if name == "CHANGELOG.md" else text


def without_code_blocks(text: str) -> str:
    return re.sub(r"(?ms)^ *```.*?^ *```", "", text)


def long_lines(text: str) -> list[str]:
    """Lines of more than 100 columns that could be broken: neither of a table, nor one link or piece of code."""
    lines = (line for line in without_code_blocks(text).splitlines() if len(line) > 100 and line.lstrip()[0] != "|")
    return [line for line in lines if " " in re.sub(r"`[^`]*`|\[[^]]*\]\([^)]*\)", "X", line.strip())]


def anchors(text: str) -> set[str]:
    """The targets of the headings on a page of rendered Markdown."""
    titles = re.findall(r"(?m)^#+ (.+)$", without_code_blocks(text))
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(name: str, text: str) -> list[str]:
    """The targets in the repository that do not exist, or have no such heading."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code_blocks(text)):
        if re.match(r"\w+:", target):
            continue
        path, _, heading = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        if not file.exists() or (heading and heading not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(target)
    return broken


def exists(dotted: str) -> bool:
    """Whether a module, or an attribute of one, has this name."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if not dotted.startswith(str(error.name)):
                raise  # the module exists; a library that it imports does not
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def unknown_names(text: str) -> list[str]:
    """Dotted names below `panrt` in code that do not exist."""
    codes = [
        *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", without_code_blocks(text)),
        *re.findall(r"(?ms)^```[^\n]*\n(.*?)^```", text),
    ]
    names = {name for code in codes for name in re.findall(r"(?<![\w./'$-])panrt(?:\.[A-Za-z_]\w*)+", code)}
    return sorted(name for name in names if not exists(name))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_of_a_document_lead_to_a_file_and_a_heading(name: str) -> None:
    assert not broken_links(name, text_of(name))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_names_in_a_document_exist(name: str) -> None:
    assert not unknown_names(text_of(name))


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name not in GENERATED])
def test_lines_of_a_document_have_at_most_100_columns(name: str) -> None:
    assert not long_lines(text_of(name))


def test_long_lines_are_found() -> None:
    long = "word " * 21
    text = f"{long}\n* {long}\n| {long}|\n ![{long}](picture.svg)\n(`{long}`).\n```\n{long}\n```\n"
    assert long_lines(text) == [long, f"* {long}"]


def test_broken_links_and_unknown_names_are_found() -> None:
    text = """
# A title: `code` first

[one](README.md#use), [two](README.md#nowhere), [three](gone.md), [four](https://example.com/x), [five](#no-title);
`panrt.engine.gone`, `panrt.stream(x)`, `panrt.PanopticResult.gone`.

```python
import panrt.gone
```
"""
    assert broken_links("README.md", text) == ["README.md#nowhere", "gone.md", "#no-title"]
    assert unknown_names(text) == ["panrt.PanopticResult.gone", "panrt.engine.gone", "panrt.gone"]
    assert anchors(text) == {"a-title-code-first"}
