"""One fault each, under live clients, and what must hold of it.

A scenario takes the engine, the story and the number of clients, starts from a cluster whose nodes
are all READY and leaves it so. Channels have a history: what a client misses while it is away it gets
when it is back, and what is still missing then is lost.
"""

import contextlib
import math
import time

from . import cluster
from .clients import NewConnections, Watch, pairs
from .engines import Failed
from .story import Story

DRAIN_S = 30
BACK_READY_S = 30


@contextlib.contextmanager
def live_clients(story, count, node=None, channels=None, rate=None, url=cluster.CLIENTS):
    """Clients that are live and publish, `node` with its share of them; stopped whatever happens."""
    rate = rate or max(20, count // 3)
    if not cluster.wait_for(40, cluster.all_ready):
        raise Failed("not every node is READY and gets new connections; ./verify.sh says more")
    if node and not cluster.share_whole(node):
        story.tell(f"{node} takes its share slowly after its return; waiting for that")
        if not cluster.wait_for(45, lambda: cluster.share_whole(node)):
            raise Failed("new connections do not go where the ring says; see /api/nodes of the balancer")
    # Channels with 10 clients each: what is published is heard on every node.
    watch = Watch(count, channels or max(1, count // 10), rate, on_batch=story.clients, url=url)
    try:
        watch.wait_ready()
        # The nodes' first full picture, before anything happens.
        cluster.wait_for(5, lambda: len([key for key in story.last if key[0] == "page"]) >= len(cluster.node_ids()))
        spread = ", ".join(f"{len(watch.on(node))} on {node}" for node in cluster.node_ids())
        story.tell(f"{count} clients live ({spread}), {rate} messages/s")
        yield watch
    finally:
        watch.stop()


@contextlib.contextmanager
def new_connections(count, rate):
    stream = NewConnections(count, rate)
    try:
        # The stream runs before the fault begins.
        time.sleep(1)
        yield stream
    finally:
        stream.stop()


def others_of(watch, node):
    """Clients of the other nodes, and those nodes' names."""
    others = [one for one in cluster.node_ids() if one != node]
    return set().union(*(watch.on(one) for one in others)), " and ".join(others)


def kill(engine, story, clients):
    """A node dies without a word: docker kill, or kill -KILL."""
    node = "gateway-2"
    with live_clients(story, clients, node) as watch, new_connections(1000, 100) as stream:
        its, (others, names) = watch.on(node), others_of(watch, node)
        at = story.fault(engine.kill, node)
        out = story.wait(node, "not eligible", at, 10)
        elsewhere = cluster.wait_for(30, lambda: watch.last_back(its, at) is not None)
        dead = story.wait(node, "DEAD", at, 25)
        opened = stream.end()

        started = story.step(engine.start, node)
        ready = story.wait(node, "READY", started, BACK_READY_S)
        routed = story.wait(node, "eligible", started, BACK_READY_S)
        report = watch.end()

        story.within(out, at, 3, f"{node} is out of routing")
        story.within(elsewhere and watch.last_back(its, at), at, 30, f"its {len(its)} clients are live elsewhere")
        age = next((ms for seen, one, state, ms in story.heartbeat_ages if one == node and state == "DEAD" and seen >= at), None)
        story.check(dead and age is not None and age <= 16000, f"{node} is shown DEAD within 16 s of its last heartbeat",
                    "not seen" if age is None else f"{age / 1000:.1f} s")  # fmt: skip
        story.within(ready and routed and max(ready, routed), started, 10, f"{node} is READY and routed to again")
        story.check_new_connections(opened)
        story.check_untouched(watch, others, names)
        story.check_delivery(report)
        story.check(report["away_at_end"] == 0, "every client is live at the end", f"{report['away_at_end']} away")


def left_in_order(engine, story, watch, node, at, its, report):
    """What holds of a drain, once it is over."""
    out = story.first(node, "not eligible", at)
    story.check(story.first(node, "DRAINING", at), f"{node} is shown DRAINING")
    story.within(out, at, 3, f"{node} gets no new connections")
    story.within(watch.last_back(its, at), at, 35, f"its {len(its)} clients are live elsewhere")
    groups = [group for group in report["closes"] if group["node"] == node]
    codes = ", ".join(f"{group['count']} with {group['code'] or 'no close frame'}" for group in groups) or "none"
    with_frame = sum(group["count"] for group in groups if group["code"])
    every = sum(group["count"] for group in groups)
    story.check(every and with_frame >= math.floor(every * 0.999), "they got a close frame", codes)
    slices = groups[0]["slices_5s"] if groups else []
    full = slices[:-1] or slices
    spread = max(full, default=0) - min(full, default=0)
    even = len(groups) == 1 and spread <= max(2, 0.1 * max(full))
    story.check(even, "closes spread evenly (5 s slices within 10 % or 2 of each other)", str(slices))


def drain(engine, story, clients):
    """A node is told to stop (docker stop, SIGTERM) and leaves in order."""
    node = "gateway-2"
    with live_clients(story, clients, node) as watch, new_connections(1100, 30) as stream:
        its, (others, names) = watch.on(node), others_of(watch, node)
        at = story.fault(engine.stop, node)
        gone = cluster.wait_for(DRAIN_S + 8, lambda: not engine.runs(node))
        if gone:
            story.tell(f"{node} has ended", gone)
        cluster.wait_for(10, lambda: watch.last_back(its, at) is not None)
        dead = story.wait(node, "DEAD", at, 20)
        code = engine.exit_code(node)
        opened = stream.end()
        words = next((one["reason"] for one in cluster.topology()["nodes"] if one["id"] == node), "")
        started = story.step(engine.start, node)
        ready = story.wait(node, "READY", started, BACK_READY_S)
        routed = story.wait(node, "eligible", started, BACK_READY_S)
        report = watch.end()

        left_in_order(engine, story, watch, node, at, its, report)
        story.within(gone, at, DRAIN_S + 0.9, f"{node} ends")
        if code is not None:
            story.check(code == 0, "its exit code is 0", str(code))
        story.check(dead and "left after its drain" in words, f"{node} is shown DEAD with the reason", words or "none")
        story.within(ready and routed and max(ready, routed), started, 10, f"{node} is READY and routed to again")
        story.check_new_connections(opened)
        story.check_untouched(watch, others, names)
        story.check_delivery(report)


def rolling(engine, story, clients):
    """Every node in turn is told to stop, leaves in order and is started again."""
    with live_clients(story, clients) as watch, new_connections(20000, 30) as stream:
        story.fault(lambda: None)
        for node in cluster.node_ids():
            at = story.step(engine.terminate, node)
            gone = cluster.wait_for(DRAIN_S + 8, lambda node=node: not engine.runs(node))
            story.within(gone, at, DRAIN_S + 0.9, f"{node} ends")
            if engine.exit_code(node) is not None:
                story.check(engine.exit_code(node) == 0, f"{node}'s exit code is 0", str(engine.exit_code(node)))
            started = story.step(engine.start, node)
            ready = story.wait(node, "READY", started, BACK_READY_S)
            routed = story.wait(node, "eligible", started, BACK_READY_S)
            story.within(ready and routed and max(ready, routed), started, 10, f"{node} is READY and routed to again")
        opened = stream.finish()
        report = watch.end()
        story.check_new_connections(opened)
        story.check_delivery(report)
        story.check(report["away_at_end"] == 0, "every client is live at the end", f"{report['away_at_end']} away")
        codes = sorted({group["code"] for group in report["closes"]})
        story.check(0 not in codes, "every client was told to reconnect", f"close codes {codes}")


def partition(engine, story, clients):
    """A node loses its network: it runs, but nobody reaches it and it reaches nobody."""
    node = "gateway-3"
    try:
        engine.prepare_cut(node)
        with live_clients(story, clients, node) as watch, new_connections(2400, 30) as stream:
            its, (others, names) = watch.on(node), others_of(watch, node)
            keys = sorted(watch.sids.values())
            owners = {key: cluster.owner(key)[0] for key in keys}
            at = story.fault(engine.cut, node)
            out = story.wait(node, "not eligible", at, 20)
            cluster.wait_for(25, lambda: watch.last_back(its, at) is not None)
            unready = next((seen for seen, one, what in story.seen if one == node and seen >= at and what == "DEAD"), None)

            healed = story.step(engine.heal, node)
            ready = story.wait(node, "READY", healed, 20)
            routed = story.wait(node, "eligible", healed, 20)
            same = {key: cluster.owner(key)[0] for key in keys}
            own = [key for key in keys if owners[key] == node]
            share = cluster.wait_for(40, lambda: all(cluster.owner(key)[1] == node for key in own))
            if share:
                story.tell(f"new connections with the keys of {node} go to {node} again", share)
            opened = stream.finish()
            report = watch.end()

            story.within(out, at, 15, f"{node} is out of routing")
            story.within(watch.last_back(its, at), at, 20, f"its {len(its)} clients are live elsewhere")
            story.check(unready, f"{node} is shown DEAD", "not seen" if not unready else f"after {unready - at:.1f} s")
            story.within(ready and routed and max(ready, routed), healed, 10, f"{node} is READY and routed to again")
            moved = sum(1 for key in keys if owners[key] != same[key])
            story.check(moved == 0, "each key has the same owner as before", f"{moved} of {len(keys)} differ")
            story.within(share, healed, 35, f"{node} takes its share of new connections ({len(own)} keys)")
            story.check_new_connections(opened)
            story.check_untouched(watch, others, names)
            again = watch.losses(its, since=healed)
            story.check(not again, f"nobody is moved when {node} returns", f"{len(again)} reconnects")
            story.check_delivery(report)
    finally:
        engine.after_cut(node)


def registry(engine, story, clients):
    """Redis is away for 30 s, comes back empty, and is emptied once more."""
    nodes = cluster.node_ids()

    def whole():
        return int(engine.registry("HLEN", "gateway:nodes") or 0) == len(nodes)

    def whole_within(at, seconds):
        return cluster.wait_for(seconds, lambda: quiet(whole))

    def quiet(condition):
        try:
            return condition()
        except Failed:
            return False

    with live_clients(story, clients) as watch, new_connections(1500, 30) as stream:
        at = story.fault(engine.stop_registry)
        time.sleep(30)
        returned = story.step(engine.start_registry)
        back = whole_within(returned, 15)
        relayed = cluster.wait_for(15, lambda: pairs(nodes)[0])
        flushed = story.step(engine.flush_registry)
        healed = whole_within(flushed, 15)
        passed, words = pairs(nodes)
        opened = stream.end()
        report = watch.end()

        losses = watch.losses(since=at)
        story.check(not losses, "no client connection is dropped", f"{len(losses)} of {clients}")
        # Redis came back empty, twice: what was in its history then is gone, and every client that may have missed
        # some of it has to know.
        story.check_delivery(report, may_be_told=True)
        story.print(f"         {report['refused']} publications were refused while Redis was away")
        story.within(back, returned, 6, "the registry is whole again after Redis returned")
        story.within(healed, flushed, 6, "the registry is whole again after FLUSHALL")
        story.within(relayed, returned, 10, "messages pass between all nodes again")
        story.check(passed, "and after FLUSHALL", words)
        story.check_new_connections(opened)
        story.check(cluster.wait_for(10, cluster.all_ready), "every node is READY")


def fencing(engine, story, clients):
    """A second process takes a node's id: the older one gives way."""
    node = "gateway-1"
    try:
        with live_clients(story, clients, node) as watch, new_connections(1000, 30) as stream:
            its, (others, names) = watch.on(node), others_of(watch, node)
            at = story.fault(engine.start_twin, node)
            fenced = cluster.wait_for(10, lambda: "fenced" in engine.log(node).lower())
            if fenced:
                story.tell(f"{node} has found out", fenced)
            gone = cluster.wait_for(DRAIN_S + 12, lambda: not engine.runs(node))
            if gone:
                story.tell(f"the older {node} has ended", gone)
            cluster.wait_for(15, lambda: watch.last_back(its, at) is not None)
            log = [line for line in engine.log(node).splitlines() if "fenced" in line.lower()]
            opened = stream.end()
            report = watch.end()

            story.within(fenced, at, 7, "the older process is fenced (its next heartbeat, at most 5.5 s, and the other's start)")
            story.check(log, "it says so", log[0].strip()[:200] if log else "nothing in its log")
            story.within(gone, fenced or at, DRAIN_S + 0.9, "it drains and ends")
            story.within(watch.last_back(its, at), at, 42, f"its {len(its)} clients are live elsewhere")
            story.check_new_connections(opened)
            story.check_untouched(watch, others, names)
            story.check_delivery(report)
    finally:
        engine.stop_twin(node)
        if not engine.runs(node):
            engine.start(node)
        cluster.wait_for(30, cluster.all_ready)


STORM_CLIENTS_MAX = 8000
HISTORY_READS = "flux_redis_reads_total"


def storm(engine, story, clients):
    """All clients of one channel lose their connections at once and recover."""
    # Two descriptors a flow at the balancer, and the load client's own.
    count = min(STORM_CLIENTS_MAX, clients * 40)
    with live_clients(story, count, channels=1, rate=10, url=engine.balancer_itself()) as watch:
        before = {node: cluster.metric(node, HISTORY_READS) for node in cluster.node_ids()}
        everybody = set(range(count))
        at = story.fault(lambda: (story.action(f"all {count} connections are cut"), watch.mark("cut")))
        cluster.wait_for(60, lambda: watch.share_back(everybody, at, 1.0) is not None)
        most, all_back = watch.share_back(everybody, at, 0.99), watch.share_back(everybody, at, 1.0)
        lasted = max(1, math.ceil((all_back or time.time()) - at))
        reads = {node: cluster.metric(node, HISTORY_READS) - before[node] for node in before}
        report = watch.end()

        story.within(most, at, 10, "99 % of the clients are back")
        story.within(all_back, at, 60, "all of them are back")
        words = ", ".join(f"{node} {count:.0f}" for node, count in reads.items())
        story.check(all(count <= lasted for count in reads.values()), f"at most one history read a second and node in {lasted} s", words)
        story.check_delivery(report)


# In an order in which no scenario has to wait for the slow start of its node.
SCENARIOS = {"registry": registry, "partition": partition, "kill": kill, "fencing": fencing,
             "drain": drain, "rolling": rolling, "storm": storm}  # fmt: skip


def play(name, engine, clients):
    """Runs one scenario with its story; true if everything it promises held."""
    scenario = SCENARIOS[name]
    with Story(f"{name}: {scenario.__doc__.splitlines()[0]}") as story:
        engine.say = story.action
        try:
            scenario(engine, story, clients)
        except Failed as error:
            story.check(False, "the scenario ran to its end", str(error))
    return story
