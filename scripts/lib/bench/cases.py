"""One function a case: starts the servers, measures in rounds, returns the rows."""

import os

from .peers import bun_binary
from .rounds import PEERS, Failed, free_port, required

OUR_DOOR = "/connection/websocket"


def echo(bench):
    """In a closed loop the slower of server and load generator is the limit. At a rate that neither notices
    it is what the same work costs."""
    servers = {"ours": (*bench.gateway(bench.server_core, "--echo"), "/echo"), "bun": (*bun(bench, "bun-echo.js"), "/")}

    def measure(port, process, path, connections, rate):
        report = bench.load("echo", f"ws://127.0.0.1:{port}{path}", "--connections", connections, "--size", 20,
                            "--duration", bench.seconds, "--server-pid", process.pid, *(["--rate", rate] if rate else []))
        return required(report, "messages_per_cpu_s")

    loads = [(100, None)] if bench.quick else [(1, None), (100, None), (1000, None), (100, 50_000), (1000, 50_000)]
    return [
        bench.row(f"n={connections}" + (f" at {rate:,}/s" if rate else ""), "msgs/cpu-s",
                  {who: (lambda server=server: measure(*server, connections, rate)) for who, server in servers.items()})
        for connections, rate in loads
    ]


def fanout(bench):
    rows = []
    for rate in [100] if bench.quick else [10, 100, 1000, 4000]:
        def measure(port, process, path, rate=rate):
            report = bench.load("fanout", f"ws://127.0.0.1:{port}{path}", "--subscribers", 100 if bench.quick else 1000,
                                "--rate", rate, "--size", 100, "--duration", bench.seconds, "--server-pid", process.pid)
            return {"per_cpu": required(report, "deliveries_per_cpu_s"), "p99": report["latency"]["p99_us"] / 1000}

        # Fresh servers for each rate: what a saturated one still has queued is not the next one's business.
        try:
            with bench.running():
                servers = {"ours": (*bench.gateway(bench.server_core), OUR_DOOR), "bun": (*bun(bench, "bun-centrifuge.js"), "/")}
                rows += bench.rows([(f"rate={rate}", "deliveries/cpu-s", "per_cpu", False), (f"rate={rate} p99", "ms", "p99", True)],
                                   {who: (lambda server=server: measure(*server)) for who, server in servers.items()})
        except Failed as why:
            bench.failures.append(f"fanout rate={rate}: {why}")
    if not rows:
        raise Failed("no rate could be measured")
    return rows


def idle(bench):
    connections = 500 if bench.quick else 10_000

    def measure(start):
        with bench.running():
            port, process, path = start()
            report = bench.load("idle", f"ws://127.0.0.1:{port}{path}", "--connections", connections, "--channel", "idle",
                                "--hold", 1 if bench.quick else 3, "--server-pid", process.pid)
        return required(report, "resident_per_connection")

    return [bench.row(f"n={connections}", "bytes/conn", {
        "ours": lambda: measure(lambda: (*bench.gateway(bench.server_core), OUR_DOOR)),
        "bun": lambda: measure(lambda: (*bun(bench, "bun-centrifuge.js"), "/")),
    }, less_is_better=True)]


def connect(bench):
    """New connections at an even rate: TCP, upgrade, and the close that follows."""
    rate = 500 if bench.quick else 2_000
    servers = {"ours": (*bench.gateway(bench.server_core), OUR_DOOR), "bun": (*bun(bench, "bun-centrifuge.js"), "/")}

    def measure(port, process, path):
        report = bench.load("probe-connect", f"ws://127.0.0.1:{port}{path}", "--count", rate * bench.seconds, "--rate", rate,
                            "--server-pid", process.pid)
        return {"per_cpu": required(report, "handshakes_per_cpu_s"), "p99": report["handshake"]["p99_us"] / 1000}

    return bench.rows([(f"rate={rate}", "handshakes/cpu-s", "per_cpu", False), (f"rate={rate} p99", "ms", "p99", True)],
                      {who: (lambda server=server: measure(*server)) for who, server in servers.items()})


def bun(bench, script):
    port = free_port()
    command = [bun_binary(), os.path.join(PEERS, script)]
    return port, bench.start(command, port, bench.server_core, {"PORT": str(port)}, "bun")
