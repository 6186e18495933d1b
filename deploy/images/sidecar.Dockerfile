# The agent with one Envoy. The tag is the Envoy's version, for that is how a HotUpgrade names it:
# docker build -f deploy/images/sidecar.Dockerfile --build-arg ENVOY_VERSION=1.40.0 -t mesh/sluice-sidecar:1.40.0 .
# Bases by tag, as in controller.Dockerfile.
ARG ENVOY_VERSION=1.40.0
ARG NODE=node:24-bookworm-slim
ARG ENVOY=envoyproxy/envoy:distroless-v${ENVOY_VERSION}
# With a shell: the agent starts Envoy through one.
ARG BASE=debian:bookworm-slim

FROM ${NODE} AS build
WORKDIR /src
COPY . .
RUN sh deploy/images/build.sh /out

FROM ${ENVOY} AS envoy

FROM ${BASE}
ARG ENVOY_VERSION
COPY --from=build /usr/local/bin/node /usr/local/bin/node
COPY --from=build /out/ /
COPY --from=envoy /usr/local/bin/envoy /opt/envoy/${ENVOY_VERSION}/envoy
ENV NODE_ENV=production SLUICE_ENVOYS=/opt/envoy SLUICE_ENVOY=${ENVOY_VERSION}
# As in the mesh's other sidecars: what this user sends is not redirected.
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/sluice"]
CMD ["agent"]
