# The init container that redirects a Pod's traffic to the sidecar: a shell and iptables.
# docker build -f deploy/images/redirect.Dockerfile -t mesh/sluice-redirect:0.1.0 deploy/images
ARG BASE=debian:bookworm-slim

# hadolint ignore=DL3006
FROM ${BASE}
# Debian's repository keeps one version of a package: a pinned one is gone with the next security fix.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install -y --no-install-recommends iptables \
  && rm -rf /var/lib/apt/lists/*
# The Pod says otherwise (user 0 with NET_ADMIN and NET_RAW and nothing else): not the image.
USER 65532:65532
