#!/usr/bin/env bash
# A receiver of OpenTelemetry's OTLP on this machine (rotel), for tests, on loopback only: over HTTP
# at http://127.0.0.1:24318, what it received at DIR/received, as text.
#
#   tests/servers/otlp.sh start DIR   installs it if need be (pip), starts it, prints variables
#   tests/servers/otlp.sh stop DIR    ends it
set -euo pipefail

version=0.0.1a15
command=${1:?start or stop}
mkdir -p "${2:?a directory}"
dir=$(cd "$2" && pwd)
cache=${KUBEWITNESS_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/kubewitness-servers}
home=$cache/rotel-$version

install() {
    [ -e "$home/.complete" ] && return
    python3 -m venv "$home"
    "$home/bin/pip" install -q "rotel==$version" >&2
    touch "$home/.complete"
}

start() {
    install
    local agent
    agent=$(find "$home" -name rotel-agent -type f | head -1)
    "$agent" start --exporter blackhole --debug-log logs --debug-log-verbosity detailed \
        --otlp-grpc-endpoint 127.0.0.1:24317 --otlp-http-endpoint 127.0.0.1:24318 \
        >"$dir/received" 2>&1 &
    echo $! >"$dir/pid"
    for _ in $(seq 100); do
        (echo >/dev/tcp/127.0.0.1/24318) 2>/dev/null && break
        kill -0 "$(cat "$dir/pid")" || { tail -20 "$dir/received" >&2; exit 1; }
        sleep 0.2
    done
    echo "export KUBEWITNESS_TEST_OTLP=$dir"
}

case $command in
start) start ;;
stop) kill "$(cat "$dir/pid")" ;;
*) sed -n '2,7p' "$0" && exit 2 ;;
esac
