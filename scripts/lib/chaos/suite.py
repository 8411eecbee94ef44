"""scripts/chaos/run: every scenario on one start of the cluster in Docker, as a test."""

import argparse
import os
import subprocess
import sys
import time

from . import engines, scenarios
from .cluster import ROOT, read_state

# The drain's evenness is judged per 5 s, so it needs some clients.
CLIENTS = 240


def arguments():
    names = list(scenarios.SCENARIOS)
    parser = argparse.ArgumentParser(
        prog="scripts/chaos/run",
        description="Starts a cluster in Docker, breaks it under live clients, one scenario after the other, judges, and"
        " removes it. Refuses to run beside a cluster that runs already.",
        epilog="scenarios: " + ", ".join(f"{name} ({scenarios.SCENARIOS[name].__doc__})" for name in names),
    )
    parser.add_argument("--only", choices=names, action="append", metavar="NAME", help="this scenario; may be repeated")
    parser.add_argument("--clients", type=int, default=CLIENTS, metavar="N")
    parser.add_argument("--keep", action="store_true", help="leave the cluster running")
    return parser.parse_args()


def engine_missing():
    """Why no Docker engine can be used, or None."""
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no docker command: {error}"
    return None if done.returncode == 0 else "no Docker engine answers"


def main():
    options = arguments()
    names = options.only or list(scenarios.SCENARIOS)
    missing = engine_missing()
    if missing:
        for name in names:
            print(f"skipped {name}: {missing}")
        print(f"0 passed, 0 failed, {len(names)} skipped")
        return 0
    if read_state("mode"):
        print("a cluster has been started here already; ./cleanup.sh first", file=sys.stderr)
        return 1
    begun = time.time()
    if subprocess.run([os.path.join(ROOT, "start.sh"), "--docker"]).returncode != 0:
        print(f"not ok the cluster starts\n0 passed, {len(names)} failed, 0 skipped")
        return 1
    passed = failed = 0
    try:
        engine = engines.current()
        for name in names:
            at = time.time()
            story = scenarios.play(name, engine, options.clients)
            passed += story.holds()
            failed += not story.holds()
            print(f"{'ok' if story.holds() else 'not ok'} {name} ({time.time() - at:.0f} s)", flush=True)
    finally:
        if not options.keep:
            subprocess.run([os.path.join(ROOT, "cleanup.sh")])
    print(f"whole run {time.time() - begun:.0f} s")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
