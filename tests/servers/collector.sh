#!/usr/bin/env bash
# An OpenTelemetry Collector on this machine, for tests, on loopback only: OTLP over HTTP at
# http://127.0.0.1:24318, what it received at DIR/received (the debug exporter's text).
#
#   tests/servers/collector.sh start DIR   builds it if need be (Go), starts it, prints variables
#   tests/servers/collector.sh stop DIR    ends it
set -euo pipefail

version=0.164.0
command=${1:?start or stop}
mkdir -p "${2:?a directory}"
dir=$(cd "$2" && pwd)
cache=${KUBEWITNESS_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/kubewitness-servers}
home=$cache/collector-$version

# The collector's own builder makes one of exactly the parts that are named.
build() {
    [ -x "$home/collector" ] && return
    mkdir -p "$home"
    cat >"$home/builder.yaml" <<YAML
dist:
  module: test/collector
  name: collector
  output_path: $home/source
receivers:
  - gomod: go.opentelemetry.io/collector/receiver/otlpreceiver v$version
exporters:
  - gomod: go.opentelemetry.io/collector/exporter/debugexporter v$version
YAML
    go run "go.opentelemetry.io/collector/cmd/builder@v$version" --config "$home/builder.yaml" >&2
    mv "$home/source/collector" "$home/collector"
}

start() {
    build
    cat >"$dir/collector.yaml" <<YAML
receivers:
  otlp:
    protocols:
      http: {endpoint: 127.0.0.1:24318}
exporters:
  debug: {verbosity: detailed, use_internal_logger: false, output_paths: [$dir/received]}
service:
  telemetry:
    metrics: {level: none}
  pipelines:
    logs: {receivers: [otlp], exporters: [debug]}
YAML
    "$home/collector" --config "$dir/collector.yaml" >"$dir/log" 2>&1 &
    echo $! >"$dir/pid"
    for _ in $(seq 100); do
        (echo >/dev/tcp/127.0.0.1/24318) 2>/dev/null && break
        kill -0 "$(cat "$dir/pid")" || { tail -20 "$dir/log" >&2; exit 1; }
        sleep 0.2
    done
    echo "export KUBEWITNESS_TEST_COLLECTOR=$dir"
}

case $command in
start) start ;;
stop) kill "$(cat "$dir/pid")" ;;
*) sed -n '2,7p' "$0" && exit 2 ;;
esac
