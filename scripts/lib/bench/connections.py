"""Connections themselves: what a new one costs in time, an idle one in memory."""

from . import servers
from .rounds import required


def connect(bench):
    """New connections at an even rate: TCP, upgrade, and the close that follows."""
    rate = 500 if bench.quick else 4_000
    # A path that nchan upgrades; the others upgrade theirs.
    running = {who: start(bench) for who, start in servers.here(bench).items()}
    paths = {"nchan": "sub/connect"}

    def measure(who, server):
        report = bench.load("probe-connect", server.url + paths.get(who, ""), "--count", bench.count(rate), "--rate", rate,
                            "--server-pid", server.pid)
        return {"per_cpu": required(report, "handshakes_per_cpu_s"), "p99": report["handshake"]["p99_us"] / 1000}

    return bench.rows([(f"rate={rate}", "handshakes/cpu-s", "per_cpu", False), (f"rate={rate} p99", "ms", "p99", True)],
                      {who: (lambda who=who, server=server: measure(who, server)) for who, server in running.items()})


def idle(bench):
    """Subscribed connections at rest; ours has a session and presence for each beside the subscription."""
    connections = 500 if bench.quick else 10_000
    starts = {**servers.here(bench), "ours": lambda bench: servers.ours(bench, config="presence.toml")}

    def measure(server):
        report = bench.load("idle", server.url, "--protocol", server.protocol, "--connections", connections, "--channel", "idle",
                            "--hold", 1 if bench.quick else 2, "--server-pid", server.pid)
        return required(report, "resident_per_connection")

    return [bench.row(f"n={connections}", "bytes/conn",
                      {who: servers.fresh(bench, start, measure) for who, start in starts.items()}, less_is_better=True,
                      rounds=bench.few_rounds)]
