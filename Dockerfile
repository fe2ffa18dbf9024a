# The tracker's image: docker build . (docs/docker.md). Both stages need the same Python, 3.11 to 3.13, in the same place.
ARG BASE=docker.io/library/python:3.13-slim-bookworm

# The kernels are compiled here; nothing but the environment that comes of it is kept.
FROM ${BASE} AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/shoal
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY common common
COPY gateway gateway
COPY shard shard
COPY cluster cluster
RUN /build/bin/pip wheel --no-cache-dir --wheel-dir /wheels .
RUN /build/bin/pip --python /opt/shoal/bin/python install --no-index --find-links /wheels shoal-tracker

FROM ${BASE}
LABEL org.opencontainers.image.title="Shoal" \
      org.opencontainers.image.description="A BitTorrent tracker that grows by adding machines" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/shoal /opt/shoal
# /data belongs to root, as /tmp does, so that the tracker may run as any user: what it makes there is its own.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin shoal \
    && install --directory --mode 1777 /data \
    && install --directory --mode 755 /etc/shoal
# STATE_DIRECTORY: the default of `data`
ENV PATH=/opt/shoal/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    STATE_DIRECTORY=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 6969/udp 6969/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s CMD ["shoal", "health"]
ENTRYPOINT ["shoal"]
CMD ["up"]
