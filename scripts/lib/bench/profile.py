"""What a running case spends its time on: a flame graph, the functions at the top, and system calls and allocations
for each message."""

import concurrent.futures
import contextlib
import os
import subprocess
import time
import urllib.request

from . import flame
from .balancer import until_upgraded
from .rounds import CACHE, ROOT, Failed, free_port, needs, say

OUR_DOOR = "/connection/websocket"
# Samples a second; not a divisor of what timers do.
FREQUENCY = 997
# How much of each stack is kept to be unwound, in bytes.
STACK_BYTES = 16_384
# System calls that are told apart; the rest is one figure.
CALLS = ["io_uring_enter", "epoll_wait", "epoll_pwait2", "futex", "read", "write", "recvfrom", "sendto", "sendmsg", "splice", "accept4", "close",
         "mmap", "munmap", "madvise", "brk"]
ALLOCATORS = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"]
TOP = 20


def profile(bench, subject):
    needs(("perf", "linux-perf"))
    start, unit, expected = SUBJECTS[subject]
    seconds = 1 if bench.quick else 4
    # Warm-up, counting, sampling and some room.
    load_s = 3 * seconds + 6
    with bench.running(), concurrent.futures.ThreadPoolExecutor(1) as pool:
        process, admin, arguments = start(bench)
        load = pool.submit(bench.load, *arguments, "--duration", load_s, "--server-pid", process.pid)
        time.sleep(2)
        if load.done():
            load.result()
            raise Failed("the load ended before it could be profiled")
        calls, allocations, rates = counted(process.pid, seconds, admin)
        data = os.path.join(bench.folder, "perf.data")
        perf("record", "-q", "-e", "cpu-clock", "-F", str(FREQUENCY), "--call-graph", f"dwarf,{STACK_BYTES}", "-o", data,
             "-p", str(process.pid), "--", "sleep", str(seconds))
        say("waiting for the load to end")
        load.result()
    text = perf("script", "--no-inline", "-i", data, "-F", "comm,ip,sym,dso")
    samples = list(flame.stacks(text))
    if not samples:
        raise Failed("perf has no samples of it: did the server have work?")
    path = os.path.join(CACHE, f"profile-{subject}.svg")
    os.makedirs(CACHE, exist_ok=True)
    with open(path, "w") as out:
        out.write(flame.svg(f"scripts/bench profile {subject}", samples))
    print(f"\nprofile {subject}: {len(samples):,} samples in {seconds} s; flame graph: {os.path.relpath(path, ROOT)}")
    for share, name, is_kernel in flame.top(samples, TOP):
        print(f"  {100 * share:5.1f} %  {'kernel' if is_kernel else '      '}  {name}")
    report(unit, expected, rates, calls, allocations)
    return 0


# -- the cases: what is started, and which load ------------------------------------------------------


def echo(bench):
    admin = free_port()
    port, process = bench.gateway(bench.server_core, "--echo", "--admin", f"127.0.0.1:{admin}")
    return process, admin, ["echo", f"ws://127.0.0.1:{port}/echo", "--connections", 100, "--size", 20]


def fanout(bench):
    admin = free_port()
    port, process = bench.gateway(bench.server_core, "--admin", f"127.0.0.1:{admin}")
    return process, admin, ["fanout", f"ws://127.0.0.1:{port}{OUR_DOOR}", "--subscribers", 1000, "--rate", 100, "--size", 100]


def relay(bench):
    needs(("redis-server", "redis-server"))
    redis_port, _ = bench.redis(bench.load_core)
    redis_url = f"redis://127.0.0.1:{redis_port}"
    bench.gateway(bench.load_core, "--echo", "--id", "relay-1", "--redis", redis_url)
    port, admin = free_port(), free_port()
    process = bench.start([bench.binary("flux-lb"), "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", "--redis", redis_url],
                          port, bench.server_core, name="flux-lb")
    until_upgraded(bench, port)
    return process, admin, ["relay", f"ws://127.0.0.1:{port}/echo", "--connections", 100, "--size", 20]


SUBJECTS = {
    # name: how it starts, the counter that a figure is for each of, what theory asks for
    "echo": (echo, "flux_messages_received", "an enter takes all that has come and submits all answers: with 100 clients far less than one a message"),
    "fanout": (fanout, "flux_deliveries", "one enter for all sends of a turn, whatever the number of subscribers"),
    "relay": (relay, None, "an enter takes all that has come and submits all sends, on both sides of all flows"),
}


# -- counting ----------------------------------------------------------------------------------------


def counted(pid, seconds, admin):
    """System calls (by name), allocations (by thread) and what the process's own counters rose by, each a second.
    Counted by the kernel and the process, nothing is sampled. Allocations are None where probes cannot be set."""
    calls = ["raw_syscalls:sys_enter", *(f"syscalls:sys_enter_{name}" for name in CALLS)]
    with allocation_probes(pid) as probes:
        began, before = time.monotonic(), counters(admin)
        text = perf("stat", "--per-thread", "-x", ",", *(part for event in [*calls, *probes] for part in ("-e", event)),
                    "-p", str(pid), "--", "sleep", str(seconds), stderr=True)
        elapsed, after = time.monotonic() - began, counters(admin)
    found, by_thread = {}, {}
    for fields in (line.split(",") for line in text.splitlines()):
        # Thread, count, unit, event.
        if len(fields) > 3 and fields[1].isdigit():
            found[fields[3]] = found.get(fields[3], 0) + int(fields[1])
            if fields[3] in probes and int(fields[1]):
                thread = fields[0].rpartition("-")[0]
                by_thread[thread] = by_thread.get(thread, 0) + int(fields[1]) / seconds
    if "raw_syscalls:sys_enter" not in found:
        raise Failed(f"perf cannot count system calls here (it wants root): {text.strip()[-300:]}")
    names = {name: found.get(f"syscalls:sys_enter_{name}", 0) / seconds for name in CALLS}
    names["others"] = found["raw_syscalls:sys_enter"] / seconds - sum(names.values())
    return names, by_thread if probes else None, {name: (after[name] - before.get(name, 0)) / elapsed for name in after}


@contextlib.contextmanager
def allocation_probes(pid):
    """Probes on the C library's allocator, which the release programs use; removed at the end. A call of a probe costs
    about a microsecond, which does not matter where hardly any come."""
    library = next((path for path in mapped(pid) if os.path.basename(path).startswith("libc.so")), None)
    group = f"flux_bench_{os.getpid()}"
    made = []
    try:
        for name in ALLOCATORS if library else []:
            done = subprocess.run(["perf", "probe", "-q", "-x", library, "--add", f"{group}:{name}={name}"],
                                  capture_output=True, timeout=60, check=False)
            if done.returncode == 0:
                made.append(f"{group}:{name}")
        yield made
    finally:
        if made:
            subprocess.run(["perf", "probe", "-q", "--del", f"{group}:*"], capture_output=True, timeout=60, check=False)


def mapped(pid):
    with open(f"/proc/{pid}/maps") as maps:
        return {fields[5] for fields in (line.split(maxsplit=5) for line in map(str.strip, maps)) if len(fields) == 6}


def counters(admin):
    """The program's own counters, summed over its shards."""
    sums = {}
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name and not line.startswith("#"):
                name = name.partition("{")[0].removesuffix("_total")
                with contextlib.suppress(ValueError):
                    sums[name] = sums.get(name, 0) + float(value)
    return sums


def report(unit, expected, rates, calls, allocations):
    total = sum(calls.values())
    named = ", ".join(f"{name} {count:,.0f}" for name, count in sorted(calls.items(), key=lambda item: -item[1]) if count >= 0.5)
    print(f"system calls a second: {total:,.0f} ({named})")
    if allocations is None:
        print("allocations: not counted, no probe could be set on this program's allocator (root, perf probe); see gateway/tests/allocations.rs")
    else:
        named = ", ".join(f"{thread} {count:,.0f}" for thread, count in sorted(allocations.items(), key=lambda item: -item[1])) or "none"
        print(f"allocations a second, by thread: {named}")
    rate = rates.get(unit, 0) if unit else 0
    if rate:
        shards = sum(count for thread, count in (allocations or {}).items() if "shard" in thread)
        print(f"for each of {rate:,.0f} {unit.removeprefix('flux_')} a second: {total / rate:.4f} system calls"
              + ("" if allocations is None else f", {shards / rate:.6f} allocations in the shard"))
    rounds, enters = rates.get("flux_rounds", 0), rates.get("flux_ring_enters", 0)
    if rounds:
        print(f"a second: rounds {rounds:,.0f}, enters of the ring {enters:,.0f} ({enters / rounds:.2f} a round), "
              f"turns {rates.get('flux_turns', 0):,.0f}, sends {rates.get('flux_sends', 0):,.0f}")
    print(f"theory: {expected}")


def perf(*arguments, stderr=False):
    done = subprocess.run(["perf", *arguments], text=True, capture_output=True, timeout=300, check=False, errors="replace")
    if done.returncode != 0:
        raise Failed(f"perf {arguments[0]} failed: {done.stderr.strip()[-300:]}")
    return done.stderr if stderr else done.stdout
