# An S3 server for the tests of backups: backup/examples/bucket.rs. The context is the source tree, which is compiled, or a directory
# that holds the program.
ARG BUILDER=rust:1.95.0-bookworm
ARG RUNTIME=debian:bookworm-slim

FROM ${BUILDER} AS program
WORKDIR /src
COPY . .
RUN if [ ! -x bucket ]; then cargo build --release --locked -p zue-backup --example bucket && cp target/release/examples/bucket .; fi

FROM ${RUNTIME}
COPY --from=program /src/bucket /usr/local/bin/
USER 65532:65532
EXPOSE 9000
ENTRYPOINT ["bucket"]
