# The image from the host's own build: the context is what docker/stage-image.sh has laid out.
FROM scratch
COPY . /
ENV PATH=/bin
