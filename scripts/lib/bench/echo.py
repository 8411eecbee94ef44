"""Messages that come back."""

from . import servers
from .rounds import KEPT_MIN, Behind, required

# Connections, bytes, and messages a second; without those a closed loop.
LOADS = [(1, 20, None), (100, 20, None), (1000, 20, None), (10_000, 20, None), (100, 20, 80_000), (1000, 20, 80_000),
         (100, 1 << 10, 60_000), (100, 16 << 10, 25_000), (10, 1 << 20, 400)]
QUICK = [(100, 20, None), (10, 1 << 20, 100)]


def echo(bench):
    """In a closed loop the slower of server and load generator is the limit, and an echo costs both about the
    same. At a rate that neither notices it is what the same work costs."""
    # By default a message has 64 KiB at most.
    pair = {"ours": servers.ours(bench, "--echo", path="/echo", config="large.toml")}
    if "bun" in servers.here(bench, "bun"):
        pair["bun"] = servers.bun(bench, "bun-echo.js")

    def measure(server, connections, size, rate):
        report = bench.load("echo", server.url, "--connections", connections, "--size", size, "--warmup", bench.warmup,
                            "--duration", bench.seconds, "--server-pid", server.pid, *(["--rate", rate] if rate else []))
        if rate and report["messages_per_s"] < KEPT_MIN * rate:
            raise Behind(f"{report['messages_per_s']:,.0f} of {rate:,} messages a second came back")
        return required(report, "messages_per_cpu_s")

    return [
        bench.row(named(connections, size, rate), "msgs/cpu-s",
                  {who: (lambda server=server: measure(server, connections, size, rate)) for who, server in pair.items()})
        for connections, size, rate in (QUICK if bench.quick else LOADS)
    ]


def named(connections, size, rate):
    shown = {1 << 10: " 1 KiB", 16 << 10: " 16 KiB", 1 << 20: " 1 MiB"}.get(size, "")
    return f"n={connections}{shown}" + (f" at {rate:,}/s" if rate else "")
