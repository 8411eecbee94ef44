"""Side-by-side benchmarks: what scripts/bench is made of.

rounds      programs started and stopped, interleaved rounds, medians
peers       peers from package registries
cases       echo, new connections, fan-out, idle memory, balancers
publish     the way of a publication through Redis, against Redis's own
compare     all of them in one table
"""
