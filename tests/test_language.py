"""The documents are in plain technical English: none has a phrase of the project's former dialect.

Each pattern stands for a phrase that a reader of the field stumbles over, beside what to write instead. Inline code is
exempt, as it quotes the names and output of programs; comments in code blocks are not.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

DOCUMENTS = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/benchmarks.md",
    "docs/engines.md",
    "docs/gpu_validation.md",
    "docs/jetson.md",
    "docs/results.md",
    "docs/streaming.md",
    "docs/training.md",
    "plugins/OPS.md",
)

UNITS = (
    "axis|batch|bin|byte|cell|core|frame|image|inference|iteration|level|op|operation|pixel|RoI|second|side|workload"
)
COUNTED = (  # nouns that are no verbs, so that "it samples a cell" passes
    r"anchors?|bins?|bytes?|frames?|GMACs?|ids?|images?|joules?|MB|megabytes?|millijoules?|milliseconds?|ms|pixels?"
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
    (r"\bwhere there (?:is|are) none\b", "the headers where there are none", "if none exists"),
    (r"\bas (?:it is|they are)(?=[.,;:)|]|$)", "the weights as they are.", "unchanged"),
    (r"\bat hand\b", "the tools at hand", "available"),
    (r"\brefus(?:al|als|e|es|ed|ing)\b", "the engine is refused", "rejected, error"),
    (r"\bdense (?:parts?|ones?)\b", "the dense part", "subgraph"),
    (r"\birregular\b", "the irregular ops", "custom ops"),
    (r"\blasting (?:track )?ids?\b", "lasting ids", "persistent track ID"),
    (r"\bnarrow maps?\b", "a narrow map", "compact map"),
    (r"\bg(?:ive|ives|ave|iving) way\b", "old results give way", "are dropped, yields"),
    (r"\blook(?:s|ed|ing)? out for\b", "threads look out for work", "spins"),
    (r"\bbef(?:alls?|ell|allen)\b", "what befalls a camera", "faults"),
    (r"\bgo(?:es|ing)? on\b|\bwent on\b", "inference goes on", "continues"),
    (r"\btold\b", "nothing else has to be told", "reported"),
    (r"\bsaid\b", "the log said so", "reported, declared"),
    (r"\blooked at statically\b", "the kernels, looked at statically", "static kernel analysis"),
    (r"\bback to back\b", "measured back to back", "throughput run"),
    (r"\bat the (?:pace of a camera|camera's pace)\b", "at the pace of a camera", "fixed-rate run"),
)


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


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_has_no_phrase_of_the_glossary(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    found = findings(prose(unreleased(text) if name == "CHANGELOG.md" else text))
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
