#!/usr/bin/env bash
# A real kube-apiserver with its etcd on this machine, for tests and for trying things out, on
# loopback only.
#
#   tests/servers/kube-apiserver.sh build      builds both from the Go module proxy, prints variables
#   tests/servers/kube-apiserver.sh start DIR  builds if need be, starts them, prints variables
#   tests/servers/kube-apiserver.sh stop DIR   ends them, the API server first, so that it sends all
#
# https://127.0.0.1:26443, its certificate in DIR/pki/apiserver.crt; the token `admin-token` may do
# everything. It audits to DIR/audit/audit.log (rotated at 1 MiB), by DIR/policy.yaml if that is
# there, else by deploy/apiserver/policy.yaml; and to the webhook that DIR/webhook-kubeconfig.yaml
# names, if that is there (`kubewitness certs init` makes one). Building takes Go 1.26, some minutes
# and 2 GB; a second start takes seconds.
set -euo pipefail

command=${1:?build, start or stop}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${KUBEWITNESS_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/kubewitness-servers}
version=$(sed -n 's,^[[:space:]]*k8s.io/kubernetes ,,p' "$here/kube-apiserver/go.mod" | head -1)
home=$cache/kube-apiserver-$version

build() {
    if [ ! -e "$home/.complete" ]; then
        mkdir -p "$home"
        local minor=${version#v1.}
        local set="-X k8s.io/component-base/version"
        # Few processes at a time: the compiler takes a gigabyte for some packages.
        (cd "$here/kube-apiserver" && CGO_ENABLED=0 nice -n 19 go build \
            -p "${KUBEWITNESS_GO_BUILDS:-1}" -mod=readonly -trimpath \
            -ldflags "-s -w $set.gitVersion=$version $set.gitMajor=1 $set.gitMinor=${minor%%.*}" \
            -o "$home/" ./cmd/...) >&2
        touch "$home/.complete"
    fi
    echo "export KUBEWITNESS_TEST_KUBE_APISERVER=$home"
}

# wait_for PORT PID LOG: until something listens there.
wait_for() {
    for _ in $(seq 300); do
        (echo >"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        kill -0 "$2" || break
        sleep 0.2
    done
    tail -20 "$3" >&2
    return 1
}

start() {
    build
    mkdir -p "$dir/pki" "$dir/audit"
    local policy=$dir/policy.yaml webhook=()
    [ -e "$policy" ] || policy=$here/../../deploy/apiserver/policy.yaml
    [ ! -e "$dir/webhook-kubeconfig.yaml" ] || webhook=(
        "--audit-webhook-config-file=$dir/webhook-kubeconfig.yaml"
        --audit-webhook-initial-backoff=1s --audit-webhook-batch-max-wait=1s)
    [ -e "$dir/pki/sa.key" ] || openssl genrsa -out "$dir/pki/sa.key" 2048 2>/dev/null
    echo 'admin-token,admin,admin,"system:masters"' >"$dir/pki/tokens.csv"
    "$home/etcd" --data-dir "$dir/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls http://127.0.0.1:26379 --advertise-client-urls http://127.0.0.1:26379 \
        --listen-peer-urls http://127.0.0.1:26380 \
        --initial-advertise-peer-urls http://127.0.0.1:26380 \
        --initial-cluster default=http://127.0.0.1:26380 </dev/null >"$dir/etcd.log" 2>&1 &
    echo $! >"$dir/etcd.pid"
    wait_for 26379 "$(cat "$dir/etcd.pid")" "$dir/etcd.log"
    "$home/kube-apiserver" --etcd-servers=http://127.0.0.1:26379 \
        --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --secure-port=26443 \
        --cert-dir="$dir/pki" --token-auth-file="$dir/pki/tokens.csv" --authorization-mode=RBAC \
        --service-cluster-ip-range=10.96.0.0/24 --service-account-issuer=https://kubernetes.default \
        --service-account-key-file="$dir/pki/sa.key" \
        --service-account-signing-key-file="$dir/pki/sa.key" \
        --audit-policy-file="$policy" --audit-log-path="$dir/audit/audit.log" \
        --disable-admission-plugins=ServiceAccount \
        --audit-log-maxsize=1 --audit-log-maxbackup=100 \
        "${webhook[@]}" </dev/null >"$dir/apiserver.log" 2>&1 &
    echo $! >"$dir/apiserver.pid"
    wait_for 26443 "$(cat "$dir/apiserver.pid")" "$dir/apiserver.log"
    for _ in $(seq 300); do
        curl -fsSk -H 'Authorization: Bearer admin-token' -o /dev/null \
            https://127.0.0.1:26443/readyz 2>/dev/null && return
        sleep 0.2
    done
    tail -20 "$dir/apiserver.log" >&2
    return 1
}

stop() {
    local name pid
    for name in apiserver etcd; do
        [ -e "$dir/$name.pid" ] || continue
        pid=$(cat "$dir/$name.pid")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 600); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        rm "$dir/$name.pid"
    done
}

[ "$command" = build ] || { mkdir -p "${2:?a directory}" && dir=$(cd "$2" && pwd); }
case $command in
build) build ;;
start) start ;;
stop) stop ;;
*) sed -n '2,16p' "$0" && exit 2 ;;
esac
