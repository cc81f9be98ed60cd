"""`python -m panrt.model.data.tabletop images OUT` and `... clip OUT`: generate without the panrt command."""

import argparse
import sys
from pathlib import Path

from panrt.model.data.tabletop import dataset


def main() -> None:
    """Parse the arguments, generate, say where."""
    parser = argparse.ArgumentParser(
        prog="python -m panrt.model.data.tabletop", description="Generate the simulated tabletop."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    images = commands.add_parser("images", help="a COCO panoptic data set")
    images.add_argument("--split", choices=("train", "eval"), default="train")
    images.add_argument("--count", type=int, default=1000)
    images.add_argument("--workers", type=int, default=1)
    clip = commands.add_parser("clip", help="a clip with ids that stay the same over time")
    clip.add_argument("--frames", type=int, default=200)
    for command in (images, clip):
        command.add_argument("out", type=Path)
        command.add_argument("--seed", type=int, default=0, help="first scene, counted within the split")
        command.add_argument("--height", type=int, default=dataset.HEIGHT)
        command.add_argument("--width", type=int, default=dataset.WIDTH)
    options = parser.parse_args()
    size = {"height": options.height, "width": options.width}
    if options.command == "images":
        target = dataset.generate(
            options.split,
            options.out,
            count=options.count,
            seed=options.seed,
            workers=options.workers,
            progress=_show,
            **size,
        )
    else:
        target = dataset.generate_clip(options.out, frames=options.frames, seed=options.seed, progress=_show, **size)
    print(f"  wrote  {target}")


def _show(done: int, total: int) -> None:
    if done == total or done % 20 == 0:
        print(f"\r  rendered  {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
