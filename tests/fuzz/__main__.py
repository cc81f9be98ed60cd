"""`make fuzz`: fuzz for some minutes, or read one input again.

PYTHONPATH=tests python -m fuzz [--minutes N] [--jobs N] [--seed N] [TARGET ...]
PYTHONPATH=tests python -m fuzz --replay build/fuzz/TARGET-SEED-NUMBER
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fuzz import targets
from fuzz.campaign import REPOSITORY, Campaign

SAVED = REPOSITORY / "build" / "fuzz"


def main() -> int:
    """The number of findings, at most 1, as exit code."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("names", nargs="*", metavar="TARGET", help=f"any of {', '.join(targets.NAMES)}; default: all")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", type=Path, metavar="FOLDER", help="an input that was saved")
    options = parser.parse_args()
    if unknown := set(options.names) - set(targets.NAMES):
        parser.error(f"no target is called {', '.join(sorted(unknown))}; there are {', '.join(targets.NAMES)}")
    names = options.names or targets.NAMES
    if options.replay is not None:
        names = [options.replay.resolve().name.split("-")[0]]
    SAVED.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(names, seed=options.seed, saved=SAVED)
    if options.replay is not None:
        campaign.replay(names[0], [options.replay.resolve()])
    else:
        campaign.run_minutes(options.minutes, jobs=options.jobs)
    print(campaign.table())
    if campaign.findings:
        print(f"\n{campaign.report()}")
    return 1 if campaign.findings else 0


if __name__ == "__main__":
    sys.exit(main())
