#!/usr/bin/env bash
# Prometheus' Alertmanager on this machine, for tests, on loopback only: 127.0.0.1:29493.
#
#   tests/servers/alertmanager.sh start DIR   installs it if need be (apt), starts it, prints variables
#   tests/servers/alertmanager.sh stop DIR    ends it
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/server.sh"

start() {
    command -v prometheus-alertmanager >&2 ||
        apt-get install -qy --no-install-recommends prometheus-alertmanager >&2
    printf 'route: {receiver: none}\nreceivers: [{name: none}]\n' >"$dir/alertmanager.yml"
    prometheus-alertmanager --config.file="$dir/alertmanager.yml" --storage.path="$dir/data" \
        --web.listen-address=127.0.0.1:29493 --cluster.listen-address= >"$dir/log" 2>&1 &
    echo $! >"$dir/pid"
    until_true "$dir/log" listens 29493
    echo "export KUBEWITNESS_TEST_ALERTMANAGER=http://127.0.0.1:29493"
}

case $command in
start) start ;;
stop) end ;;
*) usage ;;
esac
