"""The running cluster, watched and disturbed: what ./demo.sh and scripts/chaos share.

cluster     where everything is, what it says of itself
engines     the faults, in Docker and with local processes
clients     flux-bench as live clients and as a stream of new connections
story       the timeline as it happens, and the verdict
scenarios   one fault each
"""
