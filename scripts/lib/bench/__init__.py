"""Side-by-side benchmarks: what scripts/bench is made of.

rounds      programs started and stopped, interleaved rounds, medians
peers       peers from package registries
servers     ours and its peers for WebSocket clients, started
echo        messages that come back
connections new connections, memory of idle ones
fanout      publications to many subscribers, beside a slow reader
limits      the highest rate without loss
shards      two shards against one
balancer    balancers: round trips, new connections, large data, memory, latency
container   a node in a small container
web         plain HTTP
size        cost against size
registry    records of nodes that a test writes itself
publish     the way of a publication through Redis, against Redis's own
compare     all of them in one table
plot        bar charts of its rows
instructions  instructions and allocations of the pure parts, against the baseline
profile     a flame graph (flame) of a running case, system calls and allocations for each message
million     as many connections as the machine holds
"""
