# The Prometheus that the tests scrape with.
ARG RUNTIME=debian:bookworm-slim
FROM ${RUNTIME}
RUN apt-get update && apt-get install -y --no-install-recommends prometheus \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /usr/bin/promtool /usr/bin/tsdb /usr/share/javascript
USER 65532:65532
EXPOSE 9090
ENTRYPOINT ["prometheus"]
