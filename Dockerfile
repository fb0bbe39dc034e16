# heed in a container: one static binary, no shell, not root. The data directory is a volume.
#
#   docker build -t heed .
#   docker run -d --name heed -p 8080:8080 -v heed-data:/data -v $PWD/heed.yaml:/etc/heed/heed.yaml:ro heed
#
# In heed.yaml set data_dir: /data. The admin listener stays on the container's loopback unless you open it.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o /heed ./cmd/heed \
 && mkdir -m 700 /data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /heed /heed
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=3s --start-period=30s CMD ["/heed", "healthcheck", "-c", "/etc/heed/heed.yaml"]
ENTRYPOINT ["/heed"]
CMD ["serve", "-c", "/etc/heed/heed.yaml"]
