"""The timeline as it happens, and the verdict: each promise with its figures."""

import sys
import threading
import time

from . import cluster
from .cluster import Unreachable

POLL_S = 0.1


class Story:
    """Prints what happens to the cluster since `begin`, then `ok` or `not ok` for each promise."""

    def __init__(self, title, out=sys.stdout):
        self.title = title
        self.out = out
        self.colour = out.isatty()
        self.lock = threading.Lock()
        self.zero = time.time()
        self.checks = []
        self.seen = []  # (at, node, what), what: state, "eligible" or "not eligible"
        self.heartbeat_ages = []  # (at, node, state, ms)
        self.last = {}
        self.stopped = threading.Event()
        self.observer = threading.Thread(target=self.observe, daemon=True)

    def __enter__(self):
        self.print(f"\n{self.paint('1', '== ' + self.title)}")
        self.observer.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.observer.join(5)

    # --- telling ---------------------------------------------------------------------------------

    def paint(self, code, text):
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def print(self, line):
        with self.lock:
            print(line, file=self.out, flush=True)

    def tell(self, what, at=None):
        since = (at or time.time()) - self.zero
        self.print(f"  {since:6.1f} s  {what}")

    def action(self, words):
        """What is done to the cluster, told before it is."""
        self.tell(self.paint("1;33", words))

    def fault(self, action, *arguments):
        """Does something to the cluster; the clock of the story starts anew. Returns when."""
        self.zero = time.time()
        action(*arguments)
        return self.zero

    def step(self, action, *arguments):
        """Does something more, in the same count of time. Returns when it began."""
        at = time.time()
        action(*arguments)
        return at

    def clients(self, lost, back):
        """What happened to the clients lately, from Watch."""
        parts = [f"{count} of {node} disconnected ({said})" for (node, said), count in sorted(lost.items())]
        if back:
            parts.append("back: " + ", ".join(f"{count} on {node}" for node, count in sorted(back.items())))
        self.tell("clients: " + "; ".join(parts))

    # --- watching --------------------------------------------------------------------------------

    def observe(self):
        while not self.stopped.wait(POLL_S):
            self.look("balancer", self.look_at_balancer)
            self.look("dashboard", self.look_at_dashboard)

    def look(self, part, how):
        try:
            how()
            self.note(part, "answers", quiet=True)
        except Unreachable:
            self.note(part, "does not answer")
        except (KeyError, TypeError) as error:
            self.note(part, f"says what is not understood: {error!r}")

    def look_at_balancer(self):
        for node, one in cluster.balancer_nodes().items():
            what = "eligible" if one["eligible"] else "not eligible"
            words = "gets new connections" if one["eligible"] else f"gets no new connections ({one['reason']})"
            self.note(("lb", node), what, f"{node} {words}", node)

    def look_at_dashboard(self):
        document = cluster.topology()
        self.note("registry", document["registry"]["state"], f"registry {document['registry']['state']}")
        for one in document["nodes"]:
            node, state = one["id"], one["state"]
            self.heartbeat_ages.append((time.time(), node, state, one["heartbeat_age_ms"]))
            words = f"{node} {state}" + (f" ({one['reason']})" if one["reason"] else "")
            self.note(("page", node), state, words, node)

    def note(self, key, what, words=None, node=None, quiet=False):
        """Tells what has changed."""
        before, self.last[key] = self.last.get(key), what
        if before == what:
            return
        at = time.time()
        if node:
            self.seen.append((at, node, what))
        if before is not None and not quiet:
            self.tell(words or f"{key} {what}", at)

    def first(self, node, what, since):
        """When this was first seen of a node since then; None: not."""
        return next((at for at, one, seen in self.seen if at >= since and one == node and seen == what), None)

    def wait(self, node, what, since, seconds):
        """Waits until it was seen; returns when, or None."""
        cluster.wait_for(seconds, lambda: self.first(node, what, since) is not None)
        return self.first(node, what, since)

    # --- judging ---------------------------------------------------------------------------------

    def check(self, holds, promise, figures=""):
        self.checks.append((bool(holds), promise))
        word = self.paint("32", "ok    ") if holds else self.paint("31", "not ok")
        self.print(f"  {word} {promise}" + (f": {figures}" if figures else ""))
        return bool(holds)

    def within(self, at, since, limit_s, promise):
        """A promise about a time; None: it did not happen."""
        figures = "not seen" if at is None else f"{at - since:.1f} s"
        return self.check(at is not None and at - since <= limit_s, f"{promise} within {limit_s:g} s", figures)

    def holds(self):
        return bool(self.checks) and all(holds for holds, _ in self.checks)

    # Promises that every scenario makes.

    def check_delivery(self, report, may_be_told=False):
        """Nothing lost, doubled or out of order; what is missing and announced counts as lost, unless `may_be_told`."""
        lost = report["lost"] + report["missed_while_away"] + (0 if may_be_told else report["told"])
        figures = (
            f"lost {lost}, duplicated {report['duplicated']}, reordered {report['reordered']}"
            f" of {report['expected']} receipts"
        )
        if may_be_told:
            figures += f"; {report['told']} missing where the client was told so"
        clean = lost + report["duplicated"] + report["reordered"] == 0 and report["delivered"] > 0
        self.check(clean, "every client got every message once and in order", figures)

    def check_new_connections(self, report):
        kinds = ", ".join(f"{count} {kind}" for kind, count in report["failures"].items())
        figures = f"{report['failed']} of {report['opened'] + report['failed']} failed" + (f" ({kinds})" if kinds else "")
        self.check(report["failed"] == 0 and report["opened"] > 0, "new connections never fail", figures)

    def check_untouched(self, watch, clients, others):
        losses = watch.losses(clients)
        self.check(not losses, f"clients of {others} notice nothing", f"{len(losses)} reconnects of {len(clients)} clients")
