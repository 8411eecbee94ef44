"""All cases in one table, ours against each peer, with the machine and the versions beside it."""

import os
import platform
import re
import shutil
import statistics
import subprocess
import time

from . import balancer, connections, container, echo, fanout, limits, publish, shards, size, web
from .peers import BUN, NATS
from .rounds import ROOT, Failed, Missing, cell, columns, say, verdict

# In the order of the table.
PARTS = {"echo": echo.echo, "connect": connections.connect, "fanout": fanout.fanout, "limits": limits.limits,
         "slow-reader": fanout.slow_reader, "idle": connections.idle, "shards": shards.shards, "relay": balancer.relay,
         "relay-connect": balancer.connect, "relay-bulk": balancer.bulk, "relay-idle": balancer.idle, "relay-latency": balancer.latency,
         "container": container.container, "http": web.http, "publish": publish.publish,
         "size": size.size}


def compare(bench):
    """A case that cannot run here is named and leaves the others alone."""
    rows = []
    for name, case in PARTS.items():
        say(f"{name}:")
        began = time.monotonic()
        try:
            with bench.running():
                rows += [{**row, "name": f"{name} {row['name']}"} for row in case(bench)]
            bench.passed += 1
        except Missing as why:
            bench.skipped.append(f"{name}: {why}")
        except Failed as why:
            bench.failures.append(f"{name}: {why}")
        say(f"  took {time.monotonic() - began:.0f} s")
    if not rows:
        raise Failed("no case could run: " + "; ".join(bench.failures))
    return rows


def markdown(rows):
    """The table, as docs/benchmarks.md has it."""
    who = columns(rows)
    print("\n| case | unit | " + " | ".join(who) + " | ratio |")
    print("|" + "---|" * (len(who) + 3))
    for row in rows:
        print(f"| {row['name']} | {row['unit']} | " + " | ".join(cell(row, each) for each in who) + f" | {verdict(row)} |")
    print(f"\n{medians([row['rounds'] for row in rows])} {machine()}")


def medians(rounds):
    """What the figures are, of rows that had so many rounds."""
    usual, most, fewest = statistics.mode(rounds), max(rounds), min(rounds)
    if usual == 1:
        return "One round: these figures judge nothing."
    fewer = "" if fewest == usual else f", of {fewest} for memory, size, highest rates and the container"
    more = "" if most == usual else f", of {most} of half the length for added latency"
    return f"Medians of {usual} interleaved rounds{fewer}{more}."


def machine():
    """What was measured on, and with which versions."""
    model = found(r"model name\s*: (.*)", read("/proc/cpuinfo")) or platform.machine()
    memory = int(found(r"MemTotal:\s*(\d+)", read("/proc/meminfo")) or 0) >> 20
    versions = [f"Linux {platform.release()}", f"commit {answer('git', '-C', ROOT, 'rev-parse', '--short', 'HEAD').strip()}", BUN, NATS]
    for program, flag, pattern in [("haproxy", "-v", r"version (\S+)"), ("nginx", "-v", r"nginx/(\S+)"), ("redis-server", "--version", r"v=(\S+)")]:
        if shutil.which(program):
            versions.append(f"{program} {found(pattern, answer(program, flag))}")
    return f"Machine: {len(os.sched_getaffinity(0))} cores of {model}, {memory} GiB; {', '.join(versions)}."


def answer(*command):
    done = subprocess.run(command, text=True, capture_output=True, timeout=30, check=False)
    return done.stdout + done.stderr


def found(pattern, text):
    match = re.search(pattern, text)
    return match and match[1]


def read(path):
    with open(path) as file:
        return file.read()
