#!/usr/bin/env bash
# OpenSearch on this machine, for tests: one node with its security plugin, on loopback only.
#
#   tests/servers/opensearch.sh start DIR   fetches it (Maven, Java 17), starts it, prints variables
#   tests/servers/opensearch.sh kill DIR    ends it as a crash does; `start` goes on with its data
#   tests/servers/opensearch.sh stop DIR    ends it and removes its data; what was fetched stays
#
#   eval "$(tests/servers/opensearch.sh start /tmp/opensearch)"
#   cargo test --test it opensearch
#
# https://localhost:29200, its authority DIR/ca.pem. All users have the password `letmein`: `admin`
# may do everything, `witness` write to logs-kubewitness.*, `stranger` nothing. It is put together
# from what is published for programs that embed it, which is all of the server but for its plugins:
# Index State Management is not among them.
set -euo pipefail

version=2.19.1
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"
libs=$cache/opensearch-$version

# dependency GROUP ARTIFACT VERSION
dependency() {
    echo "<dependency><groupId>$1</groupId><artifactId>$2</artifactId><version>$3</version></dependency>"
}

# jars DIRECTORY DEPENDENCY...: what they need, and they.
jars() {
    local where=$1
    shift
    mkdir -p "$where"
    cat >"$where/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>test</groupId><artifactId>opensearch</artifactId><version>1</version>
  <dependencies>$*</dependencies>
</project>
XML
    mvn -q -B -f "$where/pom.xml" dependency:copy-dependencies -DoutputDirectory="$where" >&2
}

fetch() {
    [ -e "$libs/.complete" ] && return
    jars "$libs/lib" "$(dependency org.opensearch opensearch $version)" \
        "$(dependency org.opensearch opensearch-plugin-classloader $version)" \
        "$(dependency org.apache.logging.log4j log4j-core 2.21.0)"
    jars "$libs/netty" "$(dependency org.opensearch.plugin transport-netty4-client $version)"
    # What the server has too may not be there twice.
    for jar in "$libs"/lib/*.jar; do rm -f "$libs/netty/$(basename "$jar")"; done
    cat >"$libs/netty/plugin-descriptor.properties" <<PROPERTIES
name=transport-netty4
description=HTTP and the transport
classname=org.opensearch.transport.Netty4Plugin
version=$version
opensearch.version=$version
java.version=11
PROPERTIES
    echo 'grant { permission java.net.SocketPermission "*", "accept,connect"; };' \
        >"$libs/netty/plugin-security.policy"
    mvn -q -B dependency:copy -DoutputDirectory="$libs" \
        -Dartifact="org.opensearch.plugin:opensearch-security:$version.0:zip" >&2
    python3 -m zipfile -e "$libs/opensearch-security-$version.0.zip" "$libs/security"
    touch "$libs/.complete"
}

configuration() {
    local config=$dir/home/config
    mkdir -p "$config" "$dir/home/modules/transport-netty4" "$dir/home/plugins/opensearch-security"
    cp -r "$libs/netty/." "$dir/home/modules/transport-netty4"
    cp -r "$libs/security/." "$dir/home/plugins/opensearch-security"
    cp "$dir/ca.pem" "$dir/server.crt" "$dir/server.key" "$config"
    cat >"$config/log4j2.properties" <<'PROPERTIES'
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
PROPERTIES
    cat >"$config/opensearch.yml" <<YAML
cluster.name: witness
discovery.type: single-node
path.data: $dir/data
http.host: 127.0.0.1
http.port: 29200
transport.host: 127.0.0.1
transport.port: 29300
cluster.routing.allocation.disk.threshold_enabled: false
plugins.security:
  allow_default_init_securityindex: true
  nodes_dn: ["CN=server"]
  ssl:
    transport: {pemcert_filepath: server.crt, pemkey_filepath: server.key, pemtrustedcas_filepath: ca.pem, enforce_hostname_verification: false}
    http: {enabled: true, pemcert_filepath: server.crt, pemkey_filepath: server.key, pemtrustedcas_filepath: ca.pem}
YAML
    users
}

# The plugin's own files, with other users.
users() {
    local config=$dir/home/config/opensearch-security
    mkdir -p "$config"
    cp "$libs"/security/config/*.yml "$config"
    local hash='$2y$12$.6.EbZnro4i8v/kMAeq.gOcuzdznTQ4GXqGufaQ2jmpwLZr3gBlw.'
    cat >"$config/internal_users.yml" <<YAML
_meta: {type: internalusers, config_version: 2}
admin: {hash: "$hash"}
witness: {hash: "$hash"}
stranger: {hash: "$hash"}
YAML
    cat >"$config/roles.yml" <<'YAML'
_meta: {type: roles, config_version: 2}
kubewitness:
  cluster_permissions: [cluster:monitor/main, "indices:data/write/bulk"]
  index_permissions:
    - index_patterns: ["logs-kubewitness.*"]
      allowed_actions: [create_index, "indices:data/write/*", "indices:admin/mapping/auto_put", "indices:admin/data_stream/get"]
YAML
    cat >"$config/roles_mapping.yml" <<'YAML'
_meta: {type: rolesmapping, config_version: 2}
all_access: {users: [admin]}
kubewitness: {users: [witness]}
YAML
}

answers() { curl -fsk -m 5 -u admin:letmein https://127.0.0.1:29200/; }

start() {
    fetch
    certificates server
    configuration
    # Without its native library it cannot ask whether it is root, and so does not refuse to be.
    cd "$dir/home"
    java -Xms512m -Xmx512m -Djava.security.manager=allow -Djna.nosys=true -Djna.nounpack=true \
        -Djna.boot.library.path=/nowhere -Dlog4j2.disable.jmx=true \
        -Dopensearch.path.home="$dir/home" -Dopensearch.path.conf="$dir/home/config" \
        -cp "$libs/lib/*" org.opensearch.bootstrap.OpenSearch >"$dir/log" 2>&1 &
    echo $! >"$dir/pid"
    until_true "$dir/log" answers
    echo "export KUBEWITNESS_TEST_OPENSEARCH=$dir"
}

case $command in
start) start ;;
kill) kill -9 "$(cat "$dir/pid")" ;;
stop)
    end
    rm -rf "$dir"
    ;;
*) usage ;;
esac
