#!/usr/bin/env bash
# syslog-ng on this machine, for tests, on loopback only.
#
#   tests/servers/syslog-ng.sh start DIR   fetches it if need be (apt), starts it, prints variables
#   tests/servers/syslog-ng.sh stop DIR    ends it
#
# 26614 takes TCP (octet counting), 26615 TLS and wants a client's certificate. What arrives is
# written to DIR/received, a JSON object a line: the parts of the message as syslog-ng read them.
# Debian lets it not be installed beside rsyslog, so its packages are unpacked, not installed.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/server.sh"
root=$cache/syslog-ng

fetch() {
    [ -e "$root/.complete" ] && return
    mkdir -p "$root/packages"
    (cd "$root/packages" && apt-get download -qq syslog-ng-core libivykis0 libnet1 libwrap0 \
        libpcre3 libjson-c5 libcap2 libsystemd0 >&2)
    for package in "$root"/packages/*.deb; do dpkg -x "$package" "$root"; done
    touch "$root/.complete"
}

configuration() {
    cat >"$dir/syslog-ng.conf" <<CONF
@version: 3.38
options { keep-hostname(yes); use-dns(no); stats-freq(0); log-msg-size(65536); };
source tcp { syslog(ip(127.0.0.1) port(26614) transport("tcp")); };
source tls { syslog(ip(127.0.0.1) port(26615) transport("tls")
    tls(key-file("$dir/server.key") cert-file("$dir/server.crt")
        ca-file("$dir/ca.pem") peer-verify(required-trusted))); };
destination keep { file("$dir/received" template(
    "\$(format-json pri=\$PRI host=\$HOST app=\$PROGRAM msgid=\$MSGID data=\$SDATA message=\$MSG)\n")); };
log { source(tcp); source(tls); destination(keep); };
CONF
}

start() {
    fetch
    certificates server client
    configuration
    local modules libraries
    modules=$(dirname "$(find "$root/usr/lib" -name libafsocket.so)")
    libraries=$(find "$root/lib" "$root/usr/lib" -name 'lib*.so*' -printf '%h\n' | sort -u)
    LD_LIBRARY_PATH=$(echo "$libraries" | paste -sd:) \
        "$root/usr/sbin/syslog-ng" --foreground --no-caps --module-path="$modules" \
        --cfgfile="$dir/syslog-ng.conf" --persist-file="$dir/persist" --control="$dir/control" \
        --pidfile="$dir/pidfile" >"$dir/log" 2>&1 &
    echo $! >"$dir/pid"
    until_true "$dir/log" listens 26615
    echo "export KUBEWITNESS_TEST_SYSLOG_NG=$dir"
}

case $command in
start) start ;;
stop) end ;;
*) usage ;;
esac
