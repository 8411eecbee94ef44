"""Balancers, ours and the peers on the same core in front of the same servers.

Behind all of them stands what answers, on the load generator's core: our gateway (echo and upgrades), or
flux-bench itself (large data, and the time that a message takes).
"""

import os
import resource
import subprocess
import time

from . import peers, registry
from .rounds import PEERS, START_S_MAX, Failed, free_port, needs, required, say

ECHO = "/echo"
DOOR = "/connection/websocket"
# Where the tests' own records stand, beside those of real nodes.
BULK_PREFIX, HOP_PREFIX = "bench-bulk", "bench-hop"
# New connections a second, as in `connect`.
# One at which the balancer sleeps between connections, and one at which most find it awake.
CONNECT_RATES = (2_000, 4_000)
IDLE_FLOWS = 4_000
# For each round that others have, of half the length.
LATENCY_ROUNDS = 3
# Descriptors of a balancer beside its flows' two each, or of what stands behind it.
DESCRIPTORS_SPARE = 2_000


class Yard:
    """A Redis, a gateway and the balancers in front of it."""

    def __init__(self, bench):
        needs(("redis-server", "redis-server"), ("haproxy", "haproxy"))
        self.bench = bench
        self.redis_port, _ = bench.redis(bench.load_core)
        self.redis_url = f"redis://127.0.0.1:{self.redis_port}"
        self.admin = f"127.0.0.1:{free_port()}"
        self.upstream, _ = bench.gateway(bench.load_core, "--echo", "--id", "relay-1", "--redis", self.redis_url, "--admin", self.admin)

    def starts(self, upstream=None, prefix=None, half_close="off"):
        """Who -> function that starts it: its port and process. `upstream` is a port; ours finds its own in the
        registry, under `prefix` if given. `half_close` is nginx's: whether an end reaches the other side while more
        comes back."""
        upstream = upstream or self.upstream
        return {"ours": lambda: self.ours(prefix), "haproxy": lambda: self.haproxy(upstream),
                "nginx": lambda: self.nginx(upstream, half_close)}

    def in_front_of(self, upstream, prefix, half_close="off"):
        """Every balancer, started, before another upstream than the gateway, whose record stands under `prefix`. The
        gateway's admin pages answer ours' probes for it."""
        registry.write_nodes(self.redis_port, prefix, {"bench-1": (f"127.0.0.1:{upstream}", self.admin)})
        return {who: start() for who, start in self.starts(upstream, prefix, half_close).items()}

    def all(self):
        """Every balancer, started, with a WebSocket that went through it."""
        started = {who: start() for who, start in self.starts().items()}
        for port, _ in started.values():
            until_upgraded(self.bench, port)
        return started

    def ours(self, prefix=None):
        return flux_lb(self.bench, self.redis_url, prefix)

    def haproxy(self, upstream):
        port = free_port()
        return port, self.bench.start(
            ["haproxy", "-db", "-f", os.path.join(PEERS, "haproxy.cfg")], port, self.bench.server_core,
            {"LISTEN_PORT": str(port), "UPSTREAM_PORT": str(upstream)}, "haproxy")

    def nginx(self, upstream, half_close):
        port = free_port()
        configuration = nginx_configuration(self.bench, port, upstream, half_close)
        return port, self.bench.start(
            ["nginx", "-p", self.bench.folder, "-c", configuration], port, self.bench.server_core, name="nginx")


def relay(bench):
    """Round trips: a flow is two descriptors of the balancer, so there are as many as the limit leaves room for."""
    balancers = Yard(bench).all()
    most = flows_most()
    if most < 10_000:
        bench.remarks.add(f"{most:,} flows in place of 10,000: the limit of open files leaves a balancer no more")

    def measure(port, process, flows):
        report = bench.load("relay", f"ws://127.0.0.1:{port}{ECHO}", "--connections", flows, "--size", 20,
                            "--duration", bench.seconds, "--server-pid", process.pid)
        return required(report, "messages_per_cpu_s")

    return [
        bench.row(f"n={flows}", "round trips/cpu-s",
                  {who: (lambda balancer=balancer: measure(*balancer, flows)) for who, balancer in balancers.items()})
        for flows in ([100] if bench.quick else [100, 1000, most])
    ]


def connect(bench):
    """New connections through the balancer: connect, upgrade, close."""
    balancers = Yard(bench).all()

    def measure(port, process, rate):
        report = bench.load("probe-connect", f"ws://127.0.0.1:{port}{ECHO}", "--count", bench.count(rate), "--rate", rate,
                            "--server-pid", process.pid, shared=True)
        return {"per_cpu": required(report, "handshakes_per_cpu_s"), "p99": report["handshake"]["p99_us"] / 1000}

    rows = []
    for rate in (500,) if bench.quick else CONNECT_RATES:
        rows += bench.rows([(f"rate={rate}", "connections/cpu-s", "per_cpu", False), (f"rate={rate} p99", "ms", "p99", True)],
                           {who: (lambda balancer=balancer, rate=rate: measure(*balancer, rate)) for who, balancer in balancers.items()})
    return rows


def bulk(bench):
    """Large data, on one flow in one direction at a time and on a few both ways."""
    yard = Yard(bench)
    sink = free_port()
    bench.start([bench.binary("flux-bench"), "serve-bulk", "--listen", f"127.0.0.1:{sink}"], sink, bench.load_core, name="serve-bulk")
    # That is the one thing for which nginx is told otherwise than it would do by itself.
    balancers = yard.in_front_of(sink, BULK_PREFIX, half_close="on")
    for port, _ in balancers.values():
        until_done(port, [bench.binary("flux-bench"), "bulk", f"tcp://127.0.0.1:{port}", "--duration", "1"])

    def measure(port, process, flows, direction):
        report = bench.load("bulk", f"tcp://127.0.0.1:{port}", "--flows", flows, "--direction", direction,
                            "--warmup", bench.warmup, "--duration", bench.seconds, "--server-pid", process.pid, shared=True)
        return required(report, "bytes_per_cpu_s") / 1e6

    loads = [(2, "both")] if bench.quick else [(1, "up"), (1, "down"), (4, "both")]
    return [
        bench.row(f"flows={flows} {direction}", "MB/cpu-s",
                  {who: (lambda balancer=balancer: measure(*balancer, flows, direction)) for who, balancer in balancers.items()})
        for flows, direction in loads
    ]


def idle(bench):
    """Growth of resident memory for each idle flow, each round with a fresh balancer."""
    yard = Yard(bench)
    flows = 500 if bench.quick else IDLE_FLOWS

    def measure(start):
        with bench.running():
            port, process = start()
            until_upgraded(bench, port)
            report = bench.load("idle", f"ws://127.0.0.1:{port}{DOOR}", "--connections", flows, "--channel", "idle",
                                "--hold", 1 if bench.quick else 2, "--server-pid", process.pid, shared=True)
        return required(report, "resident_per_connection")

    return [bench.row(f"n={flows}", "bytes/flow", {who: (lambda start=start: measure(start)) for who, start in yard.starts().items()},
                      less_is_better=True, rounds=bench.few_rounds)]


def latency(bench):
    """What a balancer adds to the way of a message, at half of what the slowest one reaches, the same rate for all.
    Both ends are in one thread of the load generator, so that no balancer's figure is the wait of one end for the other's
    turn on their core. A pause of the machine makes the p99 of the round that it falls into, whichever balancer's that
    is: so there are more rounds, and shorter ones."""
    yard = Yard(bench)
    ends = free_port()
    balancers = yard.in_front_of(ends, HOP_PREFIX)

    def load(port, *more):
        return bench.load("hop", f"tcp://127.0.0.1:{port}", "--listen", f"127.0.0.1:{ends}", "--flows", 100, "--size", 20,
                          "--warmup", 0.3, "--duration", bench.seconds / 2, *more)

    reached = {}
    for who, (port, _) in balancers.items():
        until_done(port, [bench.binary("flux-bench"), "hop", f"tcp://127.0.0.1:{port}", "--listen", f"127.0.0.1:{ends}",
                          "--flows", "1", "--warmup", "0.1", "--duration", "0.1"])
        reached[who] = load(port)["messages_per_s"]
    rate = int(min(reached.values()) / 2 / 100) * 100
    say(f"  reached per second: {', '.join(f'{who} {each:,.0f}' for who, each in reached.items())}; measured at {rate:,}/s")
    direct = {}

    def measure(who, port):
        if who == "ours":
            direct.update(load(ends, "--rate", rate)["and_back"])
        found = load(port, "--rate", rate)["and_back"]
        return {key: max(1, found[f"{key}_us"] - direct[f"{key}_us"]) for key in ("p50", "p99")}

    name = f"half load ({rate:,}/s)"
    return bench.rows([(f"{name} {key} added", "us", key, True) for key in ("p50", "p99")],
                      {who: (lambda who=who, port=port: measure(who, port)) for who, (port, _) in balancers.items()},
                      rounds=LATENCY_ROUNDS * bench.rounds)


def flux_lb(bench, redis_url, prefix=None):
    """Our balancer on the server core: its port and process."""
    port = free_port()
    return port, bench.start(
        [bench.binary("flux-lb"), "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{free_port()}", "--redis", redis_url],
        port, bench.server_core, {"FLUX_REDIS_PREFIX": prefix} if prefix else None, name="flux-lb")


def flows_most():
    """Flows that the limit of open files leaves room for, 10,000 at most."""
    return min(10_000, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - DESCRIPTORS_SPARE) // 2)


def nginx_configuration(bench, port, upstream, half_close):
    modules = os.path.dirname(peers.nginx_module("ngx_stream_module.so", "libnginx-mod-stream"))
    with open(os.path.join(PEERS, "nginx-stream.conf")) as template:
        text = template.read()
    for name, value in {"MODULES": modules, "LISTEN_PORT": port, "UPSTREAM_PORT": upstream, "HALF_CLOSE": half_close}.items():
        text = text.replace(f"@{name}@", str(value))
    path = os.path.join(bench.folder, f"nginx-{port}.conf")
    with open(path, "w") as out:
        out.write(text)
    return path


def until_upgraded(bench, port):
    """A balancer is ready when a WebSocket opens through it."""
    until_done(port, [bench.binary("flux-bench"), "probe-connect", f"ws://127.0.0.1:{port}{ECHO}", "--count", "1", "--timeout", "2"])


def until_done(port, command):
    until = time.monotonic() + START_S_MAX
    while True:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode == 0:
            return
        if time.monotonic() > until:
            raise Failed(f"nothing goes through the balancer on port {port}: {done.stdout.strip() or done.stderr.strip()}")
        time.sleep(0.2)
