# Redis from the host's redis-server, for places where the official image cannot be pulled: the
# context is what docker/stage-registry.sh has laid out.
FROM scratch
COPY . /
ENV PATH=/bin
