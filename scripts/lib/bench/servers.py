"""What drives WebSocket clients: ours and its peers, each started on the server's core and ready to be measured."""

import collections
import os

from .peers import bun_binary, nats_binary, nchan_module
from .rounds import PEERS, Failed, free_port

# `protocol` is what flux-bench is to speak to it, `pid` whose CPU time and memory count.
Server = collections.namedtuple("Server", "url pid protocol")


def ours(bench, *more, path="/connection/websocket", cores=None, **options):
    port, process = bench.gateway(bench.server_core if cores is None else cores, *more, **options)
    return Server(f"ws://127.0.0.1:{port}{path}", process.pid, "centrifuge")


def bun(bench, script="bun-centrifuge.js"):
    port = free_port()
    command = [bun_binary(), os.path.join(PEERS, script)]
    process = bench.start(command, port, bench.server_core, {"PORT": str(port)}, "bun")
    return Server(f"ws://127.0.0.1:{port}/", process.pid, "centrifuge")


def nats(bench):
    port, plain = free_port(), free_port()
    process = bench.start([nats_binary(), "-c", os.path.join(PEERS, "nats.conf")], port, bench.server_core,
                          {"CLIENT_PORT": str(plain), "WEBSOCKET_PORT": str(port), "GOMAXPROCS": "1"}, "nats")
    return Server(f"ws://127.0.0.1:{port}/", process.pid, "nats")


def nchan(bench):
    port = free_port()
    with open(os.path.join(PEERS, "nginx-nchan.conf")) as template:
        text = template.read().replace("@MODULES@", os.path.dirname(nchan_module())).replace("@LISTEN_PORT@", str(port))
    path = os.path.join(bench.folder, f"nchan-{port}.conf")
    with open(path, "w") as out:
        out.write(text)
    process = bench.start(["nginx", "-p", bench.folder, "-c", path], port, bench.server_core, name="nchan")
    return Server(f"ws://127.0.0.1:{port}/", process.pid, "nchan")


# What publishes and subscribes, ours first; and how each is had where it is missing.
PUBSUB = {"ours": ours, "bun": bun, "nats": nats, "nchan": nchan}
INSTALLERS = {"bun": bun_binary, "nats": nats_binary, "nchan": nchan_module}


def here(bench, *wanted):
    """Those of them that this machine has or can get: a column stays empty for what is not to be had."""
    found = {}
    for who in wanted or PUBSUB:
        try:
            INSTALLERS.get(who, bool)()
            found[who] = PUBSUB[who]
        except Failed as why:
            bench.remarks.add(f"without {who}: {why}")
    return found


def fresh(bench, start, measure):
    """A measurement of a server that is started for it and stopped behind it: what a saturated one has queued is
    not the next one's business, and what an earlier one has left in memory is none of this one's."""
    def once():
        with bench.running():
            return measure(start(bench))
    return once
