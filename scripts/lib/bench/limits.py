"""The highest rate without loss: how many publications a second 1,000 subscribers can be sent."""

from . import servers
from .fanout import kept, load
from .rounds import Behind

P99_MS_MAX = 100
RATE_MIN, RATE_MAX = 16, 64_000
# The last rate that held and the first that did not lie this close together at the end of a search.
CLOSE = 1.2


def limits(bench):
    """Each round finds for each server the highest rate that it kept with nothing missing and a p99 of at most
    100 ms. The later rounds search around what the one before found."""
    subscribers = 100 if bench.quick else 1000
    found = {}

    def measure(who, start):
        steps = Search(found.get(who))
        while (rate := steps.next()) is not None and not (bench.quick and steps.taken >= 2):
            steps.learn(rate, holds(bench, start, rate, subscribers))
        # What held was held, whatever it took; where the load generator had no room left, more may be possible.
        bench.load_limited = steps.load_limited
        if steps.held is None:
            raise Behind(f"no rate held, down to {steps.failed} publications a second")
        found[who] = steps.held
        return steps.held * subscribers

    return [bench.row("highest rate", "deliveries/s",
                      {who: (lambda who=who, start=start: measure(who, start)) for who, start in servers.here(bench).items()},
                      rounds=bench.few_rounds, at_least=True)]


def holds(bench, start, rate, subscribers):
    """Whether the server keeps the rate, and whether the load generator was at its own limit meanwhile."""
    bench.load_limited = False
    try:
        with bench.running():
            report = kept(bench, start(bench), load(rate, subscribers), "--duration", min(bench.seconds, 2))
        held = report["latency"]["p99_us"] <= 1000 * P99_MS_MAX
    except Behind:
        held = False
    return held, bench.load_limited


class Search:
    """Doubles or halves until one rate holds and one does not, and closes in on what lies between."""

    def __init__(self, before=None):
        self.at = before or 1000
        # Around what was found before the first steps are small.
        self.factor = CLOSE if before else 2
        self.held = self.failed = None
        self.load_limited = False
        self.taken = 0

    def next(self):
        """The rate to try, or None at the end."""
        if self.held is None and self.failed is None:
            return self.at
        if self.failed is None:
            rate = round(self.held * self.factor)
            return rate if rate <= RATE_MAX else None
        if self.held is None:
            rate = round(self.failed / self.factor)
            return rate if rate >= RATE_MIN else None
        return round((self.held * self.failed) ** 0.5) if self.failed / self.held > CLOSE + 0.01 else None

    def learn(self, rate, outcome):
        held, load_limited = outcome
        self.taken += 1
        if held:
            self.held = rate
        else:
            self.failed, self.load_limited = rate, load_limited
        if self.held is None or self.failed is None:
            self.factor = min(2, self.factor ** 2)
