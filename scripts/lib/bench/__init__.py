"""Side-by-side benchmarks: what scripts/bench is made of.

rounds      programs started and stopped, interleaved rounds, medians
peers       peers from package registries
cases       echo, new connections, fan-out, idle memory
balancer    balancers: round trips, new connections, large data, memory, latency
registry    records of nodes that a test writes itself
publish     the way of a publication through Redis, against Redis's own
compare     all of them in one table
"""
