# For this machine's architecture:   docker build -t auditlake .        (or podman, or buildah)
# For both, on machines that are of them or emulate them:
#   docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/auditlake:VERSION --push .
# Emulated, a build of Rust takes very long: rather one on each, joined by `docker buildx imagetools create`.
# Nothing here names an architecture. `make test-image` builds it and runs the main job in it.

FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /build

# What the binary depends on, in a layer of its own, that lasts until Cargo.lock changes. Nothing of ours is in it but
# manifests: cargo builds two empty crates.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY tests/servers/Cargo.toml tests/servers/
RUN mkdir -p src tests/servers/src \
    && echo 'fn main() {}' >src/main.rs \
    && touch src/lib.rs tests/servers/src/lib.rs \
    && cargo build --release --locked --bin auditlake

# Newer than the empty crates, whatever time the files have.
COPY src src
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin auditlake \
    && target/release/auditlake --version

# glibc, libgcc and certificates; no shell, no package manager. Its user nonroot is 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="auditlake" \
    org.opencontainers.image.description="Archives Temporal Cloud audit logs exactly once, as Parquet or JSON, with a proof" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /build/target/release/auditlake /usr/local/bin/auditlake
COPY LICENSE /usr/share/doc/auditlake/LICENSE

# As numbers, so that Kubernetes can see that it is not root. Nothing is written but where a configuration says.
USER 65532:65532
WORKDIR /
# metrics.listen of the shipped deployments
EXPOSE 9464
# There is no HEALTHCHECK: nothing in the image could ask. Orchestrators ask /livez and /readyz themselves.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/auditlake"]
CMD ["run"]
