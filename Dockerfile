# Builds and runs a single node:
#   docker build -t ottla .
#   docker run -p 9092:9092 -p 9404:9404 ottla
# Other settings: mount a file over /etc/ottla/server.properties, or append `--override key=value` to
# `ottla /etc/ottla/server.properties`.

FROM rust:1.95-slim-bookworm AS build
# zstd and the allocator are C.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY etc/base2histogram etc/base2histogram
COPY src src
RUN cargo build --release --locked --bin ottla

FROM debian:bookworm-slim
RUN useradd --uid 1000 --create-home --shell /usr/sbin/nologin appuser \
    && mkdir -p /var/lib/ottla/data /etc/ottla \
    && chown -R appuser:appuser /var/lib/ottla
COPY --from=build /build/target/release/ottla /usr/local/bin/ottla
COPY etc/server.properties /etc/ottla/server.properties
COPY LICENSE /usr/share/doc/ottla/LICENSE
USER appuser
VOLUME /var/lib/ottla/data
EXPOSE 9092 9404
ENTRYPOINT ["ottla"]
CMD ["/etc/ottla/server.properties"]
