"""Two shards against one: the same work on the same cores."""

from . import servers
from .fanout import kept, load

# Few enough that one shard sends each publication at once, as two do: a busier one merges several into one send,
# for which each of two has less reason, so that two cost more and are sooner there.
PUBLICATIONS_A_SECOND = 40


def shards(bench):
    """The load generator shares both cores with the server, so that nothing is known of the highest rate; what
    counts is what the same work costs: the CPU time of both ends together. Loopback does the receiver's part of TCP
    in the sender's time, and how much of it falls to the server differs with who waits for whom. Echo in a closed
    loop, because at a fixed rate the second shard's own wake-ups are what differs."""
    cores = f"{bench.server_core},{bench.load_core}"
    starts = {"ours": 2, "one shard": 1}

    def echoed(server):
        report = bench.load("echo", server.url, "--connections", 100 if bench.quick else 1000, "--size", 20,
                            "--warmup", bench.warmup, "--duration", bench.seconds, "--server-pid", server.pid, core=cores)
        return per_cpu_s(report, report["messages_per_s"])

    def delivered(server):
        each = load(PUBLICATIONS_A_SECOND, 100 if bench.quick else 1000)
        report = kept(bench, server, each, "--duration", bench.seconds, core=cores)
        return per_cpu_s(report, report["deliveries_per_s"])

    def per_cpu_s(report, per_s):
        # At its limit or not: the load generator's time is part of the figure.
        bench.load_limited = False
        cpu = report["cpu"]
        return per_s * cpu["window_s"] / (cpu["server_cpu_s"] + cpu["own_cpu_s"])

    def started(measure, path, *more):
        return {who: servers.fresh(bench, lambda bench, count=count: servers.ours(bench, *more, path=path, cores=cores, shards=count), measure)
                for who, count in starts.items()}

    return [bench.row("echo", "msgs/cpu-s of both ends", started(echoed, "/echo", "--echo")),
            bench.row(f"fanout rate={PUBLICATIONS_A_SECOND}", "deliveries/cpu-s of both ends", started(delivered, "/connection/websocket"))]
