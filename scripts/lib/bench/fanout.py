"""Publications to many subscribers: at several rates, to one channel and to very many, beside a slow reader."""

import collections

from . import servers
from .rounds import KEPT_MIN, Behind, Failed, required

# From so many publications a second on a server has more to settle than caches (ours: how long connections rest), and
# this is how long all are given, in seconds.
BUSY_RATE, BUSY_WARMUP = 1000, 1.5

# `options` are flux-bench's, `expected` deliveries a second.
Load = collections.namedtuple("Load", "name rate channels options expected")


def fanout(bench):
    if bench.quick:
        loads = [load(100, subscribers=100), load(1000, subscribers=100, channels=1000, per_subscriber=10)]
    else:
        loads = [*(load(rate) for rate in (10, 100, 1000, 4000)), load(10, subscribers=10_000),
                 # 100,000 subscriptions.
                 load(5_000, subscribers=10_000, channels=10_000, per_subscriber=10)]
    rows = []
    for each in loads:
        try:
            rows += fanned_out(bench, each)
        except Failed as why:
            bench.failures.append(f"fanout {each.name}: {why}")
    if not rows:
        raise Failed("no load could be measured")
    return rows


def load(rate, subscribers=1000, channels=1, per_subscriber=1):
    """Publications of 100 bytes, by one connection; by ten to very many channels."""
    name = f"rate={rate}"
    if channels > 1:
        name = f"{channels:,} channels of {subscribers * per_subscriber // channels} rate={rate}"
    elif subscribers != 1000:
        name = f"n={subscribers} rate={rate}"
    options = ["--subscribers", subscribers, "--channels", channels, "--per-subscriber", per_subscriber,
               "--publishers", 10 if channels > 1 else 1, "--rate", rate, "--size", 100]
    return Load(name, rate, channels, options, rate * subscribers * per_subscriber / channels)


def fanned_out(bench, load):
    starts = servers.here(bench)
    if load.channels > 1:
        # A publisher of nchan is a connection for each channel.
        starts.pop("nchan", None)

    def measure(server):
        # At the lowest rate a window is a few rounds of sends.
        seconds = bench.seconds if bench.quick or load.rate > 10 else max(bench.seconds, 2)
        report = kept(bench, server, load, "--duration", seconds)
        return {"per_cpu": required(report, "deliveries_per_cpu_s"), "p99": report["latency"]["p99_us"] / 1000}

    return bench.rows([(load.name, "deliveries/cpu-s", "per_cpu", False), (f"{load.name} p99", "ms", "p99", True)],
                      {who: servers.fresh(bench, start, measure) for who, start in starts.items()})


def kept(bench, server, load, *more, core=None):
    """The report of a run in which the server kept the rate.

    Behind: it did not."""
    warmup = max(bench.warmup, BUSY_WARMUP) if load.rate >= BUSY_RATE and not bench.quick else bench.warmup
    report = bench.load("fanout", server.url, "--protocol", server.protocol, *load.options, "--warmup", warmup,
                        "--server-pid", server.pid, *more, incomplete_is_news=False, core=core)
    if report["closed"]:
        raise Behind(f"{report['closed']:,} connections were closed, first: {report['first_closed']}")
    if report["missing"] or report["out_of_order"] or report["refused"]:
        raise Behind(f"{report['missing']:,} of {report['expected']:,} deliveries did not come within 5 s of the end, "
                     f"{report['out_of_order']:,} out of order, {report['refused']:,} publications refused")
    if report["deliveries_per_s"] < KEPT_MIN * load.expected:
        raise Behind(f"{report['deliveries_per_s']:,.0f} of {load.expected:,.0f} deliveries a second came in time")
    return report


def slow_reader(bench):
    """What one subscriber that stops reading does to the others: their p99 with it against without, in one run."""
    rate, subscribers = 100, 100 if bench.quick else 1000
    options = ["--subscribers", subscribers, "--slow-readers", 1, "--rate", rate, "--size", 1000]
    each = Load("", rate, 1, options, rate * subscribers)

    def measure(server):
        report = kept(bench, server, each, "--duration", bench.seconds)
        without, beside = (part["latency"]["p99_us"] / 1000 for part in (report, report["beside_slow"]))
        return {"beside": beside, "times": beside / without}

    name = f"1 in {subscribers:,} rate={rate}"
    return bench.rows([(f"{name} p99", "ms", "beside", True), (f"{name} p99 with/without", "x", "times", True)],
                      {who: servers.fresh(bench, start, measure) for who, start in servers.here(bench).items()})
