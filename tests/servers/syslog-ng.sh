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

command=${1:?start or stop}
mkdir -p "${2:?a directory}"
dir=$(cd "$2" && pwd)
cache=${KUBEWITNESS_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/kubewitness-servers}
root=$cache/syslog-ng

fetch() {
    [ -e "$root/.complete" ] && return
    mkdir -p "$root/packages"
    (cd "$root/packages" && apt-get download -qq syslog-ng-core libivykis0 libnet1 libwrap0 \
        libpcre3 libjson-c5 libcap2 libsystemd0 >&2)
    for package in "$root"/packages/*.deb; do dpkg -x "$package" "$root"; done
    touch "$root/.complete"
}

# An authority, a server's certificate for localhost, a client's.
certificates() {
    [ -e "$dir/client.crt" ] && return
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=ca" \
        -keyout "$dir/ca.key" -out "$dir/ca.pem" 2>/dev/null
    for name in server client; do
        openssl req -newkey rsa:2048 -nodes -subj "/CN=$name" \
            -keyout "$dir/$name.key" -out "$dir/$name.csr" 2>/dev/null
        openssl x509 -req -in "$dir/$name.csr" -days 30 -CA "$dir/ca.pem" -CAkey "$dir/ca.key" \
            -CAcreateserial -out "$dir/$name.crt" \
            -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1") 2>/dev/null
    done
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
    certificates
    configuration
    local modules libraries
    modules=$(dirname "$(find "$root/usr/lib" -name libafsocket.so)")
    libraries=$(find "$root/lib" "$root/usr/lib" -name 'lib*.so*' -printf '%h\n' | sort -u)
    LD_LIBRARY_PATH=$(echo "$libraries" | paste -sd:) \
        "$root/usr/sbin/syslog-ng" --foreground --no-caps --module-path="$modules" \
        --cfgfile="$dir/syslog-ng.conf" --persist-file="$dir/persist" --control="$dir/control" \
        --pidfile="$dir/pidfile" >"$dir/log" 2>&1 &
    echo $! >"$dir/pid"
    for _ in $(seq 50); do
        (echo >/dev/tcp/127.0.0.1/26615) 2>/dev/null && break
        kill -0 "$(cat "$dir/pid")" || { tail -20 "$dir/log" >&2; exit 1; }
        sleep 0.2
    done
    echo "export KUBEWITNESS_TEST_SYSLOG_NG=$dir"
}

case $command in
start) start ;;
stop) kill "$(cat "$dir/pid")" ;;
*) sed -n '2,10p' "$0" && exit 2 ;;
esac
