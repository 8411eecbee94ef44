"""Where the parts of the cluster are, and what they say of themselves."""

import json
import os
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
STATE = os.path.join(ROOT, ".flux")
CLIENTS = "ws://127.0.0.1:8080/connection/websocket"
BALANCER = "http://127.0.0.1:8090"
DASHBOARD = "http://127.0.0.1:9090"


class Unreachable(Exception):
    """A part did not answer."""


def get(url, timeout_s=2.0):
    """The JSON document at an address."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return json.load(answer)
    except (OSError, ValueError) as error:
        raise Unreachable(f"{url}: {error}") from error


def read_state(name):
    """A file that start.sh left, or None."""
    try:
        with open(os.path.join(STATE, name), encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def node_ids():
    return [f"gateway-{n}" for n in range(1, int(read_state("nodes") or 3) + 1)]


def balancer_nodes():
    """What the balancer thinks of each node, by id."""
    return {node["id"]: node for node in get(f"{BALANCER}/api/nodes")}


def topology():
    return get(f"{DASHBOARD}/api/topology")


def metric(node, name):
    """The sum of a metric's series on a gateway."""
    address = f"http://127.0.0.1:810{node.rsplit('-', 1)[1]}/metrics"
    try:
        with urllib.request.urlopen(address, timeout=2.0) as answer:
            lines = answer.read().decode().splitlines()
    except OSError as error:
        raise Unreachable(f"{address}: {error}") from error
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + " ", name + "{")))


def owner(key):
    """Who owns an affinity key: (first candidate on the ring, where a connection goes now)."""
    answer = get(f"{BALANCER}/api/ring?key={key}")
    return (answer["candidates"] or [None])[0], answer["node"]


def wait_for(seconds, condition):
    """Polls until the condition holds; returns the time when it did, or None."""
    deadline = time.time() + seconds
    while True:
        try:
            if condition():
                return time.time()
        except (Unreachable, KeyError):
            pass
        if time.time() >= deadline:
            return None
        time.sleep(0.05)


def eligible(node):
    return balancer_nodes()[node]["eligible"]


def shown_state(node):
    for one in topology()["nodes"]:
        if one["id"] == node:
            return one["state"]
    return None


def all_ready():
    """Every node is shown READY and gets new connections."""
    nodes = balancer_nodes()
    return all(nodes[node]["eligible"] and shown_state(node) == "READY" for node in node_ids())


def share_whole(node):
    """The node is not in its slow start: new connections with its keys go to it."""
    owners = [owner(f"share-{n}") for n in range(64)]
    return all(now == node for first, now in owners if first == node)
