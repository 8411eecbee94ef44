"""./demo.sh: the faults as a story, with a verdict each."""

import argparse
import sys

from . import cluster, engines, scenarios
from .cluster import DASHBOARD, Unreachable

SHOWN = ["kill", "drain", "partition", "rolling"]


def arguments():
    parser = argparse.ArgumentParser(
        prog="./demo.sh",
        description="Live clients through the balancer while a node is killed, drained, cut off and healed, and all"
        " are restarted in turn. Prints a timeline and a verdict per scenario; exit 0 only if every verdict holds.",
    )
    parser.add_argument("--scenario", choices=[*SHOWN, "storm", "all"], default="all")
    parser.add_argument("--clients", type=int, default=300, metavar="N", help="live clients (default 300), a third of it messages/s")
    options = parser.parse_args()
    if not 1 <= options.clients <= 20000:
        parser.error(f"--clients {options.clients}: give a number from 1 to 20000")
    return options


def main():
    options = arguments()
    engine = engines.current()
    try:
        cluster.topology()
    except Unreachable:
        engine = None
    if engine is None:
        print("the cluster does not run; start it with ./start.sh", file=sys.stderr)
        return 1
    print(f"watch it at {DASHBOARD}/dashboard  ({engine.name}, {options.clients} clients, {len(cluster.node_ids())} nodes)")
    verdicts = []
    for name in SHOWN if options.scenario == "all" else [options.scenario]:
        try:
            story = scenarios.play(name, engine, options.clients)
        except engines.Skipped as why:
            print(f"  skipped: {why}")
            verdicts.append((name, None, str(why)))
            continue
        failed = [promise for holds, promise in story.checks if not holds]
        verdicts.append((name, story.holds(), "; ".join(failed)))
    print("\nverdict")
    words = {True: "holds", False: "DOES NOT HOLD", None: "skipped"}
    for name, holds, why in verdicts:
        print(f"  {name:10} {words[holds]}" + (f": {why}" if why else ""))
    return 0 if all(holds is not False for _, holds, _ in verdicts) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
