"""Cost against size: the same work with few and with very many connections, channels and nodes.

Each figure is what one unit of work costs, so that the same figure in every row means that size costs nothing;
the last row of each part is the dearest over the cheapest.
"""

import time

from . import balancer, registry
from .rounds import cpu_s, finished, needs, required

ECHOES_A_SECOND = 20_000
PUBLICATIONS_A_SECOND = 5_000
CONNECTS_A_SECOND = 500
# Subscribed connections in each row that has as many channels, so that the number of channels is what differs.
SUBSCRIBERS = 1_000
ROUND_TRIPS_A_SECOND = 10_000
# Where gateways and balancers look for records unless they are told otherwise.
PREFIX = "gateway"
NODES = (3, 1_000)


def size(bench):
    return connections(bench) + channels(bench) + nodes(bench)


def connections(bench):
    """Per message, at one rate over all connections."""
    rows = []
    for count in (10, 100) if bench.quick else (10, 100, 1_000, 10_000):
        def measure(count=count):
            with bench.running():
                port, process = bench.gateway(bench.server_core, "--echo")
                report = bench.load("echo", f"ws://127.0.0.1:{port}/echo", "--connections", count, "--size", 20, "--rate", ECHOES_A_SECOND,
                                    "--duration", bench.seconds, "--server-pid", process.pid)
            return 1e6 / required(report, "messages_per_cpu_s")

        rows.append(bench.row(f"message, {count:,} connections", "CPU us", {"ours": measure}, less_is_better=True, rounds=bench.few_rounds))
    return [*rows, spread("message", rows)]


def channels(bench):
    """Per publication to one of so many channels with one subscriber each, and memory of a channel."""
    costs, memory = [], []
    for count in (10, 1_000) if bench.quick else (10, 1_000, 100_000, 1_000_000):
        def measure(count=count):
            with bench.running():
                port, process = bench.gateway(bench.server_core, config="size.toml")
                report = bench.load("channels", f"ws://127.0.0.1:{port}/connection/websocket", "--channels", count,
                                    "--connections", SUBSCRIBERS,
                                    "--rate", PUBLICATIONS_A_SECOND, "--warmup", bench.warmup, "--duration", bench.seconds, "--server-pid", process.pid)
            return {"cost": 1e6 / required(report, "publications_per_cpu_s"), "memory": report["resident_per_channel"],
                    "subscribe": report["subscribe_cpu_s"] * 1e6 / count}

        cost, subscribe, each = bench.rows(
            [(f"publication, {count:,} channels", "CPU us", "cost", True), (f"subscription, {count:,} channels", "CPU us", "subscribe", True),
             (f"memory, {count:,} channels", "bytes/channel", "memory", True)], {"ours": measure}, bench.few_rounds)
        costs.append(cost)
        # A few channels cost less than the pages that the first of them touch, and than a tick of the clock.
        memory += [subscribe, each] if count >= 100_000 or bench.quick else []
    return [*costs, spread("publication", costs), *memory]


def nodes(bench):
    """Per round trip and per new connection through the balancer, and its time and a gateway's while nothing happens,
    with so many nodes in the registry. The records stand for one gateway, and nobody renews them."""
    needs(("redis-server", "redis-server"))
    kinds = [("round trip", "CPU us", "trip"), ("new connection", "CPU us", "connect"), ("balancer at rest", "CPU ms/s", "rest"),
             ("gateway at rest", "CPU ms/s", "gateway_rest")]
    rows = {key: [] for _, _, key in kinds}
    for count in NODES:
        found = bench.rows([(f"{name}, {count:,} nodes", unit, key, True) for name, unit, key in kinds],
                           {"ours": lambda count=count: with_nodes(bench, count)}, bench.few_rounds)
        for (_, _, key), row in zip(kinds, found, strict=True):
            rows[key].append(row)
    return [*rows["trip"], spread("round trip", rows["trip"]), *rows["connect"], spread("new connection", rows["connect"]),
            *rows["rest"], *rows["gateway_rest"]]


def with_nodes(bench, count):
    with bench.running():
        redis_port, _ = bench.redis(bench.load_core)
        redis_url = f"redis://127.0.0.1:{redis_port}"
        target, _ = bench.gateway(bench.load_core, "--echo")
        # Without an admin address a node is not probed: what 1,000 probes a second cost is not this case.
        registry.write_nodes(redis_port, PREFIX, {f"node-{number}": (f"127.0.0.1:{target}", None) for number in range(count - 1)})
        _, gateway = bench.gateway(bench.server_core, "--id", "size-1", "--redis", redis_url, "--echo")
        port, process = balancer.flux_lb(bench, redis_url)
        balancer.until_upgraded(bench, port)
        before, began = (cpu_s(process.pid), cpu_s(gateway.pid)), time.monotonic()
        # What is measured is a time in which nothing happens.
        time.sleep(1 if bench.quick else 5)
        took = time.monotonic() - began
        rest, gateway_rest = ((cpu_s(each.pid) - at) * 1000 / took for each, at in zip((process, gateway), before, strict=True))
        trips = bench.load("relay", f"ws://127.0.0.1:{port}/echo", "--connections", 100, "--size", 20, "--rate", ROUND_TRIPS_A_SECOND,
                           "--duration", bench.seconds, "--server-pid", process.pid)
        connects = bench.load("probe-connect", f"ws://127.0.0.1:{port}/echo", "--count", bench.count(CONNECTS_A_SECOND),
                              "--rate", CONNECTS_A_SECOND, "--server-pid", process.pid, shared=True)
    return {"trip": 1e6 / required(trips, "messages_per_cpu_s"), "connect": 1e6 / required(connects, "handshakes_per_cpu_s"),
            "rest": rest, "gateway_rest": gateway_rest}


def spread(what, rows):
    """The dearest over the cheapest, by the medians."""
    medians = [row["ours"] for row in rows]
    row = finished(f"{what}: dearest / cheapest", "x", True, {"ours": [max(medians) / min(medians)]}, {})
    return {**row, "rounds": rows[0]["rounds"]}
