"""The texts of PanRT are in plain technical English: none has a phrase of the project's former dialect.

These are the documents, the command line's help, and in the sources, other than tests, the docstrings, the comments and
every string that is a sentence, such as an error or a line of a log. Each pattern stands for a phrase that a reader of
the field stumbles over, beside what to write instead. Inline code is exempt, as it quotes the names and output of
programs; comments in code blocks are not.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import typer.main

from panrt.cli import commands

ROOT = Path(__file__).parents[1]
ROOMS = ("benchmarks", "engine", "examples", "export", "model", "plugins", "python/panrt", "tools")
CPP = {".cpp", ".cu", ".h"}
BUILD_FILES = ("CMakeLists.txt", "Makefile", "plugins/CMakeLists.txt", "plugins/defaults.cmake", "pyproject.toml")

DOCUMENTS = tuple(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", *(f"{room}/**/*.md" for room in (*ROOMS[:-2], "tools", "tests")))
    for path in sorted(ROOT.glob(pattern))
)

UNITS = (
    "axis|batch|bin|byte|cell|core|frame|image|inference|iteration|lane|level|op|operation|pixel|RoI|second|side"
    r"|workload"
)
COUNTED = (  # nouns that are no verbs, so that "it samples a cell" passes
    r"anchors?|bins?|bits|bytes?|frames?|GMACs?|ids?|images?|joules?|MB|megabytes?|millijoules?|milliseconds?|ms|pixels?"
    r"|requests|roundings?|rows?|times"
)

# A pattern, an example that it finds, and what to write instead.
GLOSSARY = (
    (r"\bof (?:ours|our own)\b|\bof (?:PanRT|the project)'s own\b", "a queue of our own", "a PanRT queue"),
    (r"\bdoes not do\b(?!\s+(?:so|this|that|it)\b)", "a size that does not do", "is invalid, is not supported"),
    (r"\b(?:twice|again) is fine\b", "closing it twice is fine", "idempotent"),
    (r"\bbrings\b|\bcom(?:es|e|ing) along\b", "the model that comes along", "provides, bundled"),
    (r"\bpictures?\b", "the picture that the GPU draws", "image, overlay"),
    (rf"\b(?:{COUNTED}) an? (?:{UNITS})\b", "60 frames a second", "per second, per image, per axis"),
    (rf"\bone an? (?:{UNITS})\b", "one a level", "one per level"),
    (r"\bwhere (?:not given|there (?:is|are|was|were))\b", "the headers where there are none", "if none exists"),
    (r"\bas (?:it is|they are)(?=[.,;:)|]|$)", "the weights as they are.", "unchanged"),
    (r"\bat hand\b", "the tools at hand", "available"),
    (r"\brefus(?:al|als|e|es|ed|ing)\b", "the engine is refused", "rejected, error"),
    (r"\bdense (?:parts?|ones?)\b", "the dense part", "subgraph"),
    (r"\birregular\b", "the irregular ops", "custom ops"),
    (r"\blasting (?:track )?ids?\b", "lasting ids", "persistent track ID"),
    (r"\bfor people\b", "a line for people", "readable, display name"),
    (r"\bnarrow maps?\b", "a narrow map", "compact map"),
    (r"\bg(?:ive|ives|ave|iving) way\b", "old results give way", "are dropped, yields"),
    (r"\blook(?:s|ed|ing)? out for\b", "threads look out for work", "spins"),
    (r"\bbef(?:alls?|ell|allen)\b", "what befalls a camera", "faults"),
    (r"\bgo(?:es|ing)? on\b|\bwent on\b", "inference goes on", "continues"),
    (r"\btold\b", "nothing else has to be told", "reported"),
    (r"\bsaid\b", "the log said so", "reported, declared"),
    (r"\blooked at statically\b", "the kernels, looked at statically", "static kernel analysis"),
    (r"\bback to back\b", "measured back to back", "throughput run"),
    (r"\bwhoever\b", "whoever reads it", "the reader"),
    (r"\bmends?\b|\bmended\b", "a security mend", "fix"),
    (r"\bspoil(?:s|t|ed|ing)?\b", "a call that spoils the capture", "invalidates"),
    (r"\bfor want of\b", "skipped for want of time", "for lack of"),
    (r"\b(?:is|are) no part of\b", "they are no part of it", "not part of"),
    (r"\bat the (?:pace of a camera|camera's pace)\b", "at the pace of a camera", "fixed-rate run"),
)


BEGINNINGS = "As|By|For|From|How|Its|Of|On|Those|What|Where|Which|Why"


def prose(text: str) -> str:
    """The text in one line per paragraph, without inline code and the targets of links."""
    text = re.sub(r"(?<!`)`[^`\n]+`(?!`)", "CODE", text)
    text = re.sub(r"(?<=\])\([^)]*\)", "", text)
    return re.sub(r"(?<=\S)\n(?=[ \t]*\w)[ \t]*", " ", text)


def unreleased(text: str) -> str:
    """The section of a change log that may still be changed."""
    return re.split(r"(?m)^## ", text)[1]


def findings(text: str) -> list[str]:
    return [
        f"...{text[max(found.start() - 30, 0) : found.end() + 30]!r}... write: {instead}"
        for pattern, _, instead in GLOSSARY
        for found in re.finditer(pattern, text, re.IGNORECASE)
    ]


def sources(suffixes: set[str]) -> list[str]:
    """The files of the rooms; links between rooms are not followed."""
    found = chain.from_iterable((ROOT / room).rglob("*") for room in ROOMS)
    return sorted({str(path.resolve().relative_to(ROOT)) for path in found if path.suffix in suffixes})


def python_texts(source: str) -> Iterator[str]:
    """Docstrings, comments, and strings with a space, in which VALUE stands for what is formatted into them."""
    parts: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts.update(map(id, node.values))
            yield "".join(str(one.value) if isinstance(one, ast.Constant) else "VALUE" for one in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value if " " in node.value else ""
    comments: list[str] = []
    row = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != row + 1:
                yield "\n".join(comments)
                comments = []
            comments.append(token.string.lstrip("#: "))
            row = token.start[0]
    yield "\n".join(comments)


def riddles(source: str) -> list[str]:
    """The first lines of docstrings that neither begin with a verb nor name a thing, by their first word."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        first = (ast.get_docstring(node) or "").split("\n")[0]
        is_function = not isinstance(node, (ast.Module, ast.ClassDef)) and not any(
            "property" in ast.unparse(each) for each in node.decorator_list
        )
        if re.match(rf"(?:{BEGINNINGS}{'|Whether' if is_function else ''})\b", first) or first.startswith("("):
            found.append(first)
    return found


def cpp_texts(source: str) -> Iterator[str]:
    """Comments, those of consecutive lines as one, and strings with a space."""
    for found in re.findall(r'(?m)(?:^[ \t]*//.*\n)+|//.*$|"(?:[^"\\\n]|\\.)*"', source):
        yield re.sub(r"(?m)^[ \t]*//", "", found) if found[0] != '"' or " " in found else ""


def helps(command: Any, name: str) -> Iterator[tuple[str, str]]:
    """The help of a command and of those below it, each with its name."""
    context = command.make_context(name, [], resilient_parsing=True)
    yield name, command.get_help(context)
    for below in getattr(command, "commands", {}).values():
        yield from helps(below, f"{name} {below.name}")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_has_no_phrase_of_the_glossary(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    found = findings(prose(unreleased(text) if name == "CHANGELOG.md" else text))
    assert not found, "\n".join((name, *found))


@pytest.mark.parametrize("name", BUILD_FILES)
def test_comments_of_a_build_file_have_no_phrase_of_the_glossary(name: str) -> None:
    comments = re.findall(r"(?m)(?:^[ \t]*#.*\n)+|#.*$", (ROOT / name).read_text(encoding="utf-8"))
    found = [each for text in comments for each in findings(prose(re.sub(r"(?m)^[ \t]*#", "", text)))]
    assert not found, "\n".join((name, *found))


@pytest.mark.parametrize(("pattern", "example", "instead"), GLOSSARY)
def test_glossary_finds_its_phrase_and_accepts_its_replacement(pattern: str, example: str, instead: str) -> None:
    broken = example.replace(" ", "\n   ")
    assert re.search(pattern, prose(f"Text: {example}\n"), re.IGNORECASE)
    assert re.search(pattern, prose(f"* {broken}\n"), re.IGNORECASE)
    assert not findings(instead)


def test_glossary_spares_quoted_output_but_no_code_block() -> None:
    assert not findings(prose("the row `back to back: latency`"))
    assert findings(prose("```\npanrt bench tabletop     measures back to back\n```\n"))


@pytest.mark.parametrize("name", sources({".py", ".pyi"}))
def test_python_texts_have_no_phrase_of_the_glossary(name: str) -> None:
    texts = python_texts((ROOT / name).read_text(encoding="utf-8"))
    found = [each for text in texts for each in findings(prose(text))]
    assert not found, "\n".join((name, *found))


@pytest.mark.parametrize("name", sources(CPP))
def test_cpp_texts_have_no_phrase_of_the_glossary(name: str) -> None:
    texts = cpp_texts((ROOT / name).read_text(encoding="utf-8"))
    found = [each for text in texts for each in findings(prose(text))]
    assert not found, "\n".join((name, *found))


def test_help_of_every_command_has_no_phrase_of_the_glossary() -> None:
    pages = dict(helps(typer.main.get_command(commands.app), "panrt"))
    assert {"panrt run", "panrt bench compare", "panrt plugins build"} <= pages.keys()
    found = [f"{name} --help: {each}" for name, page in pages.items() for each in findings(prose(page))]
    assert not found, "\n".join(found)


def test_texts_of_sources_are_docstrings_comments_and_sentences() -> None:
    python = '''
def f(x):
    """The document."""
    # first
    # second
    raise ValueError(f"x: got {x}, "
                     f"expected 1", "name")
'''
    assert set(filter(None, python_texts(python))) == {"The document.", "first\nsecond", "x: got VALUE, expected 1"}
    cpp = '// first\n  // second\nint x = 1;  // third\nthrow Error("no such " + name + "thing");\n'
    assert [" ".join(text.split()) for text in cpp_texts(cpp) if text] == ["first second", "third", '"no such "']


@pytest.mark.parametrize("name", sources({".py", ".pyi"}))
def test_docstrings_begin_with_a_verb_or_a_thing(name: str) -> None:
    found = riddles((ROOT / name).read_text(encoding="utf-8"))
    assert not found, "\n".join((name, *found))


def test_docstrings_that_begin_otherwise_are_found() -> None:
    assert riddles('"""What it does."""\ndef f():\n    """Whether it does."""\n') == [
        "What it does.",
        "Whether it does.",
    ]
    assert not riddles('class A:\n    """A thing."""\n    @property\n    def f(self):\n        """Whether it is."""\n')
