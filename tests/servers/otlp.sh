#!/usr/bin/env bash
# A receiver of OpenTelemetry's OTLP on this machine (rotel), for tests, on loopback only: over HTTP
# at http://127.0.0.1:24318, what it received at DIR/received, as text.
#
#   tests/servers/otlp.sh start DIR   installs it if need be (pip), starts it, prints variables
#   tests/servers/otlp.sh stop DIR    ends it
set -euo pipefail

version=0.0.1a15
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"

start() {
    from_pypi rotel "$version"
    local agent
    agent=$(find "$home" -name rotel-agent -type f | head -1)
    "$agent" start --exporter blackhole --debug-log logs --debug-log-verbosity detailed \
        --otlp-grpc-endpoint 127.0.0.1:24317 --otlp-http-endpoint 127.0.0.1:24318 \
        >"$dir/received" 2>&1 &
    echo $! >"$dir/pid"
    until_true "$dir/received" listens 24318
    echo "export KUBEWITNESS_TEST_OTLP=$dir"
}

case $command in
start) start ;;
stop) end ;;
*) usage ;;
esac
