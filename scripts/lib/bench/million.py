"""Very many connections to one gateway process, both ends on this machine: held idle, then one publication
that all of them hear.

A process may have only so many open files; direct descriptors of an io_uring are none, but each ring's table
of them is as small. So the gateway gets as many shards, and the load generator as many rings, as that takes.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess

from .rounds import PEERS, Failed, free_port, rounded, say

CONNECTIONS = 1_000_000
CONNECTIONS_QUICK = 2_000
# Slots of a ring at most (`RingConfig::direct_slots`), and the share of them that is planned with: the kernel
# spreads connections over the shards by chance.
SLOTS_MAX = 65_536
SLOTS_SHARE = 0.9
# Memory of a connection with both its ends, in kernel and programs, with room for what is under way.
BYTES_EACH = 13_000
# Connections from one source address, as flux-bench takes them; the kernel prefers ports of one parity.
PER_SOURCE = 10_000
# Everything else that the machine does.
FILES_SPARE = 100_000
# One connection after another, a ping each in between, and the end: a bound for what should never happen.
LOAD_S_MAX = 3600
# The kernel takes its time to close a million sockets.
END_S_MAX = 120


def million(bench):
    wanted = bench.connections or (CONNECTIONS_QUICK if bench.quick else CONNECTIONS)
    count = within_memory(bench, wanted)
    if not count:
        raise Failed("no memory for any connection")
    slots = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], SLOTS_MAX)
    # At least one for each core, as the default has it.
    shards = max(-(-count // int(slots * SLOTS_SHARE)), len(os.sched_getaffinity(0)))
    tune(bench, count)
    port = free_port()
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    server = bench.start(
        [bench.binary("flux-gateway"), "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{free_port()}",
         "--config", os.path.join(PEERS, "ours.toml"), "--shards", str(shards)],
        port, cores, env={"FLUX_LOG": "warn"}, name="flux-gateway")
    # Before the drain that `start` has seen to: it would take half a minute to say goodbye to all.
    bench.stack.callback(end, server)
    say(f"{count:,} connections, {shards} shards")
    report = load(bench, port, server, count)
    bench.remarks.add(f"{count:,} connections on {shards} shards of one process, {report['rings']} rings of the load generator; both on {cores.count(',') + 1} cores")
    publication, memory = report["publication"], report["memory"]
    figures = [
        ("connections", "", count),
        ("connected", "conn/s", report["connect"]["connections_per_s"]),
        ("server memory", "bytes/conn", memory["server_resident"]),
        ("load generator memory", "bytes/conn", memory["own_resident"]),
        ("kernel, both ends", "bytes/conn", memory["kernel"]),
        ("idle, most pings", "pings/s", report["hold"]["pings_per_s_max"]),
        ("idle, server", "cores", report["hold"]["server_cores"]),
        ("publish to all: last", "ms", publication["took_ms"]),
        ("publish to all: p50", "ms", publication["latency"]["p50_us"] / 1000),
        ("publish to all: p99", "ms", publication["latency"]["p99_us"] / 1000),
        ("publish to all: server", "cpu-s", publication["cpu"]["server_cpu_s"]),
    ]
    return [{"name": name, "unit": unit, "ours": rounded(value), "peers": {}, "ratio": None, "rounds": 1,
             "values": {"ours": [rounded(value)]}} for name, unit, value in figures]


def within_memory(bench, wanted):
    """As many as the machine has memory for; an error where a number was asked for by name."""
    with open("/proc/meminfo") as meminfo:
        available = next(int(line.split()[1]) << 10 for line in meminfo if line.startswith("MemAvailable:"))
    fits = available // BYTES_EACH
    if wanted <= fits:
        return wanted
    if bench.connections:
        raise Failed(f"{wanted:,} connections need {wanted * BYTES_EACH / 2**30:.1f} GiB (both ends), {available / 2**30:.1f} are free: --connections {fits // 1000 * 1000} fits")
    bench.remarks.add(f"{wanted:,} connections do not fit into {available / 2**30:.1f} GiB of free memory")
    return fits // 1000 * 1000


def load(bench, port, server, count):
    command = [bench.binary("flux-bench"), "million", f"ws://127.0.0.1:{port}/connection/websocket", "--connections", str(count),
               "--hold", "1" if bench.quick else "60", "--server-pid", str(server.pid), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    bench.stack.callback(end, process)
    try:
        out, _ = process.communicate(timeout=LOAD_S_MAX)
    except subprocess.TimeoutExpired as late:
        raise Failed(f"flux-bench million took longer than {LOAD_S_MAX} s") from late
    if process.returncode == 1:
        raise Failed(f"not every connection was held and heard the publication: {out.strip()}")
    if process.returncode != 0 or not out.strip():
        raise Failed(f"flux-bench million ended with {process.returncode}; its words are above")
    return json.loads(out.strip().splitlines()[-1])


def end(process):
    """Ends a program at once."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_S_MAX)


def tune(bench, count):
    """Sets what the kernel's settings lack for so many connections until the run is over."""
    at_least = {
        "fs/file-max": [2 * count + FILES_SPARE],
        "net/core/somaxconn": [4096],
        # Pages: one for each end that has something under way.
        "net/ipv4/tcp_mem": [count, 2 * count, 3 * count],
        # There once something has needed connection tracking (Docker, a firewall).
        "net/netfilter/nf_conntrack_max": [count + FILES_SPARE],
    }
    for name, wanted in at_least.items():
        path = f"/proc/sys/{name}"
        if os.path.exists(path):
            before = read(path)
            now = [max(old, new) for old, new in zip(map(int, before.split()), wanted)]
            change(bench, path, before, " ".join(map(str, now)))
    ports = "/proc/sys/net/ipv4/ip_local_port_range"
    before = read(ports)
    low, high = map(int, before.split())
    if high - low < 2 * PER_SOURCE:
        change(bench, ports, before, "1024 65535")


def change(bench, path, before, now):
    if before.split() == now.split():
        return
    name = path.removeprefix("/proc/sys/").replace("/", ".")
    try:
        write(path, now)
    except OSError as error:
        say(f"sysctl {name} stays {' '.join(before.split())} ({error}); {now} would be needed")
        return
    say(f"sysctl {name} = {now} for this run (before: {' '.join(before.split())})")
    bench.stack.callback(restore, path, name, before)


def restore(path, name, before):
    write(path, before)
    say(f"sysctl {name} = {' '.join(before.split())} again")


def read(path):
    with open(path) as file:
        return file.read().strip()


def write(path, text):
    with open(path, "w") as file:
        file.write(text)
