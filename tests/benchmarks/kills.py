"""A night of `kill -9`: runs that die at random moments, in a world that changes, and what is left of each.

    uv run python -m tests.benchmarks.kills --seed 1 --kills 200

Every kill is printed with its place; the same seed gives the same kills. It ends with an error at the first thing that is
not as if nothing had happened: what readers see, rows, records, locks, connections, files, shared memory.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.benchmarks.bench import opened
from tests.kills import kill_at_random, no_shared_memory_left
from tests.nights import make_night


def main() -> None:
    """Kill, and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--entities", type=int, default=400)
    asked = parser.parse_args()
    began = time.perf_counter()
    with no_shared_memory_left(), opened() as bench:
        night = make_night(bench.url, bench.folder, asked.entities)
        tally = kill_at_random(
            night,
            bench.folder / "temporary",
            seed=asked.seed,
            kills=asked.kills,
            say=lambda text: print(text, flush=True),
        )
        statuses = night.statuses()
    by_point = ", ".join(f"{point} {count}" for point, count in tally.points.most_common())
    print(
        f"seed {asked.seed}: {tally.kills} runs were killed, {tally.full} of them full ones, {tally.published} after they had "
        f"published; {tally.ended_before} ended before their moment came; {tally.recoveries} undisturbed runs in between. "
        f"{tally.reads:,} reads saw whole publications. "
        f"Records: {statuses.count('crashed')} crashed, {statuses.count('published')} published, {len(statuses)} in all. "
        f"{time.perf_counter() - began:.0f} s.\nKilled after: {by_point}."
    )


if __name__ == "__main__":
    sys.exit(main())
