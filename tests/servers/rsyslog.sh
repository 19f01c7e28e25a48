#!/usr/bin/env bash
# rsyslog on this machine, for tests, on loopback only.
#
#   tests/servers/rsyslog.sh start DIR   installs it if need be (apt), starts it, prints variables
#   tests/servers/rsyslog.sh stop DIR    ends it
#
# 26514 takes TCP (octet counting or lines), 26515 TLS. What arrives is written to DIR/received, a
# JSON object a line: the parts of the message as rsyslog read them.
set -euo pipefail

command=${1:?start or stop}
mkdir -p "${2:?a directory}"
dir=$(cd "$2" && pwd)

start() {
    if ! command -v rsyslogd >&2 || [ ! -e /usr/lib/*/rsyslog/lmnsd_ossl.so ]; then
        apt-get install -qy --no-install-recommends rsyslog rsyslog-openssl >&2
    fi
    if [ ! -e "$dir/server.crt" ]; then
        openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=ca" \
            -keyout "$dir/ca.key" -out "$dir/ca.pem" 2>/dev/null
        openssl req -newkey rsa:2048 -nodes -subj "/CN=server" \
            -keyout "$dir/server.key" -out "$dir/server.csr" 2>/dev/null
        openssl x509 -req -in "$dir/server.csr" -days 30 -CA "$dir/ca.pem" -CAkey "$dir/ca.key" \
            -CAcreateserial -out "$dir/server.crt" \
            -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1") 2>/dev/null
    fi
    cat >"$dir/rsyslog.conf" <<CONF
global(workDirectory="$dir" maxMessageSize="8k"
       defaultNetstreamDriverCAFile="$dir/ca.pem"
       defaultNetstreamDriverCertFile="$dir/server.crt"
       defaultNetstreamDriverKeyFile="$dir/server.key")
module(load="imtcp")
template(name="parts" type="list") {
  constant(value="{")
  property(name="pri" outname="pri" format="jsonf")
  constant(value=",")
  property(name="hostname" outname="host" format="jsonf")
  constant(value=",")
  property(name="app-name" outname="app" format="jsonf")
  constant(value=",")
  property(name="msgid" outname="msgid" format="jsonf")
  constant(value=",")
  property(name="structured-data" outname="data" format="jsonf")
  constant(value=",")
  property(name="msg" outname="message" format="jsonf")
  constant(value="}\\n")
}
ruleset(name="keep") { action(type="omfile" file="$dir/received" template="parts") }
input(type="imtcp" port="26514" address="127.0.0.1" ruleset="keep")
input(type="imtcp" port="26515" address="127.0.0.1" ruleset="keep"
      streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon")
CONF
    rsyslogd -n -f "$dir/rsyslog.conf" -i "$dir/pid" >"$dir/log" 2>&1 &
    for _ in $(seq 50); do
        (echo >/dev/tcp/127.0.0.1/26515) 2>/dev/null && break
        sleep 0.2
    done
    echo "export KUBEWITNESS_TEST_RSYSLOG=$dir"
}

case $command in
start) start ;;
stop) kill "$(cat "$dir/pid")" ;;
*) sed -n '2,9p' "$0" && exit 2 ;;
esac
