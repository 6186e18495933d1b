# docker build -f deploy/images/controller.Dockerfile -t mesh/sluice-controller:0.1.0 .
# Bases by tag, for nobody here could look up their digests: give yours as NAME@sha256:... (--build-arg NODE=..., BASE=...).
ARG NODE=node:24-bookworm-slim
# glibc, libstdc++ and certificates; no shell.
ARG BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${NODE} AS build
WORKDIR /src
COPY . .
RUN sh deploy/images/build.sh /out

FROM ${BASE}
COPY --from=build /usr/local/bin/node /usr/local/bin/node
COPY --from=build /out/ /
ENV NODE_ENV=production
USER 65532:65532
# API and the agents' links, xDS.
EXPOSE 18080 18000
ENTRYPOINT ["/usr/local/bin/sluice"]
CMD ["controller"]
