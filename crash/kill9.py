#!/usr/bin/env python3
"""Kill -9: what was acknowledged is there when the broker is back.

    python3 crash/kill9.py --whimbrel target/release/whimbrel --rounds 20

Each round: load, SIGKILL at some moment (at times again while it starts; at times SIGTERM instead),
restart with the same data directory, and the check of `load.py`. Failures are printed with the seed
of their store; the last line is `kill9: N passed, N failed`, in rounds.
"""

import argparse
import sys

import broker
import rounds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    broker.add_arguments(parser)
    rounds.arguments(parser)
    parser.add_argument("--only-stop", action="store_true", help="SIGTERM in all rounds")
    options = parser.parse_args()
    run = rounds.Rounds("kill9", options, broker.Command(options), rounds.Disk)
    if options.only_stop:
        run.stop_chance, run.early_kill_chance = 1.0, 0.0
    return run.run()


if __name__ == "__main__":
    sys.exit(main())
