#!/usr/bin/env bash
# rsyslog on this machine, for tests, on loopback only.
#
#   tests/servers/rsyslog.sh start DIR   installs it if need be (apt), starts it, prints variables
#   tests/servers/rsyslog.sh stop DIR    ends it
#
# 26514 takes TCP (octet counting or lines), 26515 TLS. What arrives is written to DIR/received, a
# JSON object a line: the parts of the message as rsyslog read them.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/server.sh"

start() {
    if ! command -v rsyslogd >&2 || [ ! -e /usr/lib/*/rsyslog/lmnsd_ossl.so ]; then
        apt-get install -qy --no-install-recommends rsyslog rsyslog-openssl >&2
    fi
    certificates server
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
    rsyslogd -n -f "$dir/rsyslog.conf" -i "$dir/pidfile" >"$dir/log" 2>&1 &
    echo $! >"$dir/pid"
    until_true "$dir/log" listens 26515
    echo "export KUBEWITNESS_TEST_RSYSLOG=$dir"
}

case $command in
start) start ;;
stop) end ;;
*) usage ;;
esac
