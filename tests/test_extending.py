"""The code of docs/extending.md runs as it stands there."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import panrt
from panrt.engine.bundled import locate
from panrt.engine.frame import Frame
from panrt.engine.sinks.sink import Context, Sink, SinkSpec
from panrt.engine.sources.pattern import pattern
from panrt.engine.sources.source import Source, Spec
from tools.null_session import NullSession

DOCUMENT = Path(__file__).parents[1] / "docs" / "extending.md"


def defined(name: str) -> Any:
    """Return what the code block that defines this name makes of it."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (block for block in blocks if re.search(rf"^(class|def) {name}\b", block, re.MULTILINE))
    names: dict[str, Any] = {"__name__": name}
    exec(compile(block, f"{DOCUMENT.name}: {name}", "exec", dont_inherit=True), names)
    return names[name]


def test_function_is_a_sink(capsys: Any) -> None:
    for _ in panrt.stream("test://32x24@max?frames=2", NullSession(), sinks=defined("count")):
        pass
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["0", "1"]


def test_writer_records_every_result(tmp_path: Path) -> None:
    path, writer = tmp_path / "counts.csv", defined("ClassCountsWriter")

    def opened(context: Context) -> Any:
        return writer(path, context)

    for _ in panrt.stream("test://32x24@max?frames=3", NullSession(), sinks=Sink(SinkSpec("counts://", opened, True))):
        pass
    head, *lines = path.read_text().splitlines()
    assert head == "source,frame_index,bright,dark"
    assert [line.split(",")[1] for line in lines] == ["0", "1", "2"]


def test_source_delivers_frames_of_its_size() -> None:
    with Source(Spec("noise://", partial(defined("noise_frames"), (24, 32), 100), live=True)) as source:
        frame = source.take(None)
    assert frame is not None
    assert frame.hw == (24, 32)


def test_backend_runs_a_stream() -> None:
    with defined("VoidSession")(locate("tabletop")) as session:
        result = session(Frame(pattern(0, (24, 32)), captured_at=0.0))
        assert result.panoptic.shape == (24, 32)
        assert [found.frame_index for found in panrt.stream("test://32x24@max?frames=2", session)] == [0, 1]
