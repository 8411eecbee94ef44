"""flux-bench as live clients (`watch`) and as a stream of new connections (`probe-connect`)."""

import collections
import json
import math
import os
import signal
import subprocess
import threading
import time

from .cluster import CLIENTS, ROOT
from .engines import Failed

READY_S_MAX = 60
# A watch waits this long for clients that are away when it ends.
SETTLE_S_MAX = 25
TELL_S = 2


def bench(*arguments):
    """The command line of flux-bench: the host's, or for people without Rust the image's."""
    binary = os.path.join(ROOT, "target", "cluster", "flux-bench")
    if os.access(binary, os.X_OK):
        return [binary, *arguments]
    seccomp = f"seccomp={ROOT}/docker/seccomp.json"
    return ["docker", "run", "--rm", "-i", "--network", "host", "--security-opt", seccomp,
            "flux:local", "flux-bench", *arguments]  # fmt: skip


class Watch:
    """Live clients through the balancer, which publish in turn and reconnect as SDKs do.

    `on_batch(lost, back)` is told every other second how many were lost, by node and close code,
    and how many are back, by node. Times are those of this machine's clock, in seconds.
    """

    def __init__(self, clients, channels, rate, on_batch=lambda *_: None, url=CLIENTS):
        self.clients = clients
        self.on_batch = on_batch
        self.started = None
        self.summary = None
        self.where = {}  # client -> node, while live
        self.sids = {}
        self.lost = []  # (at, client, node, code)
        self.back = []  # (at, client, node)
        self.lock = threading.Lock()
        self.batch = (collections.Counter(), collections.Counter())
        self.ready = threading.Event()
        self.process = subprocess.Popen(
            bench("watch", url, "--clients", str(clients), "--channels", str(channels),
                  "--rate", str(rate), "--stdin", "--settle", str(SETTLE_S_MAX), "--json"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.teller = threading.Thread(target=self.tell, daemon=True)
        self.teller.start()

    def read(self):
        for line in self.process.stdout:
            event = json.loads(line)
            with self.lock:
                self.on_event(event)
        self.ready.set()

    def on_event(self, event):
        kind = event.get("event")
        if kind == "start":
            self.started = event["unix_ms"] / 1000
        at = (self.started or 0) + event.get("at_ms", 0) / 1000
        if kind == "live":
            client = event["client"]
            self.sids[client] = event["sid"]
            self.where[client] = event["node"]
            if event["before"] is not None:
                self.back.append((at, client, event["node"]))
                self.batch[1][event["node"]] += 1
        elif kind == "lost":
            self.where.pop(event["client"], None)
            self.lost.append((at, event["client"], event["node"], event["code"]))
            said = f"{event['code']} {event['reason']}".strip() if event["code"] else "without a close frame"
            self.batch[0][event["node"], said] += 1
        elif kind == "ready":
            self.ready.set()
        elif kind == "summary":
            self.summary = event

    def tell(self):
        while self.process.poll() is None:
            time.sleep(TELL_S)
            with self.lock:
                (lost, back), self.batch = self.batch, (collections.Counter(), collections.Counter())
            if lost or back:
                self.on_batch(lost, back)

    def wait_ready(self):
        """Until all clients are live; a cluster that does not take them is a failure."""
        self.ready.wait(READY_S_MAX)
        if self.process.poll() is not None:
            raise Failed(f"flux-bench watch ended: {self.process.stderr.read().strip()}")
        with self.lock:
            live = len(self.where)
        if live < self.clients:
            raise Failed(f"only {live} of {self.clients} clients came in")

    def on(self, node):
        """The clients on a node now."""
        with self.lock:
            return {client for client, where in self.where.items() if where == node}

    def losses(self, clients=None, since=0.0):
        """Connections that ended; a subscription that ended on a connection that stays (2000 to 2999) is none."""
        with self.lock:
            ended = [one for one in self.lost if one[0] >= since and not 2000 <= one[3] < 3000]
        return [one for one in ended if clients is None or one[1] in clients]

    def last_back(self, clients, since):
        """When the last of these clients was live elsewhere; None while one of them is not."""
        with self.lock:
            if not clients <= set(self.where):
                return None
            times = [at for at, client, _ in self.back if client in clients and at >= since]
        return max(times, default=None)

    def share_back(self, clients, since, share):
        """When this share of the clients was live again; None while fewer are."""
        needed = math.ceil(len(clients) * share)
        with self.lock:
            times = sorted(at for at, client, _ in self.back if client in clients and at >= since)
        return times[needed - 1] if len(times) >= needed else None

    def mark(self, text):
        """A line for flux-bench: a mark in its events, or `cut`."""
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def end(self):
        """Ends the run and returns flux-bench's report."""
        if self.summary is None:
            self.process.stdin.close()
            try:
                self.process.wait(SETTLE_S_MAX + 15)
            except subprocess.TimeoutExpired:
                self.process.kill()
            self.reader.join(10)
        if self.summary is None:
            raise Failed(f"flux-bench watch gave no report: {self.process.stderr.read().strip()}")
        return self.summary

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()


class NewConnections:
    """Connections that are opened and closed at a steady rate while a fault happens."""

    def __init__(self, count, rate):
        self.process = subprocess.Popen(
            bench("probe-connect", CLIENTS, "--count", str(count), "--rate", str(rate), "--json"),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(self, timeout_s=120):
        """flux-bench's report; waits until all were tried."""
        out, errors = self.process.communicate(timeout=timeout_s)
        lines = out.strip().splitlines()
        if not lines:
            raise Failed(f"flux-bench probe-connect gave no report: {errors.strip()}")
        return json.loads(lines[-1])

    def finish(self):
        """Ends it early, with the report of what was tried until now."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.end()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()


def pairs(nodes):
    """Whether one message passes through every pair of nodes, and the words about it."""
    urls = [f"ws://127.0.0.1:800{node.rsplit('-', 1)[1]}/connection/websocket" for node in nodes]
    done = subprocess.run(bench("pairs", *urls), capture_output=True, text=True, timeout=60)
    return done.returncode == 0, (done.stdout.strip() or done.stderr.strip())
