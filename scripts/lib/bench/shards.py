"""Two shards against one: the same work at the same rate, on the same cores."""

from . import servers
from .fanout import kept, load
from .rounds import required

# Few enough that one shard sends each publication at once, as two do: a busier one merges several into one send,
# for which each of two has less reason, so that two cost more and are sooner there.
PUBLICATIONS_A_SECOND = 40


def shards(bench):
    """The load generator shares both cores with the server, so that nothing is known of the highest rate; what
    counts is what the same work costs."""
    cores = f"{bench.server_core},{bench.load_core}"
    starts = {"ours": 2, "one shard": 1}

    def echoed(server):
        report = bench.load("echo", server.url, "--connections", 100 if bench.quick else 1000, "--size", 20, "--rate", 20_000,
                            "--warmup", bench.warmup, "--duration", bench.seconds, "--server-pid", server.pid, core=cores)
        return required(report, "messages_per_cpu_s")

    def delivered(server):
        each = load(PUBLICATIONS_A_SECOND, 100 if bench.quick else 1000)
        return required(kept(bench, server, each, "--duration", bench.seconds, core=cores), "deliveries_per_cpu_s")

    def started(measure, path, *more):
        return {who: servers.fresh(bench, lambda bench, count=count: servers.ours(bench, *more, path=path, cores=cores, shards=count), measure)
                for who, count in starts.items()}

    return [bench.row("echo at 20,000/s", "msgs/cpu-s", started(echoed, "/echo", "--echo")),
            bench.row(f"fanout rate={PUBLICATIONS_A_SECOND}", "deliveries/cpu-s", started(delivered, "/connection/websocket"))]
