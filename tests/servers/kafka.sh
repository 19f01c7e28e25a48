#!/usr/bin/env bash
# Apache Kafka on this machine, for tests: one node in KRaft mode, on loopback only.
#
#   tests/servers/kafka.sh start DIR   fetches it (Maven, Java 17), starts it, prints variables
#   tests/servers/kafka.sh kill DIR    ends it as a crash does; `start` goes on with its data
#   tests/servers/kafka.sh stop DIR    ends it and removes its data; what was fetched stays
#
#   eval "$(tests/servers/kafka.sh start /tmp/kafka)"
#   cargo test --test it kafka
#
# Listeners: 29092 plain; 29093 TLS with PLAIN and SCRAM-SHA-512, 29094 TLS with certificates of
# clients, 29095 OAUTHBEARER (unsecured tokens). The user is `witness`, its password `letmein`.
# Topics: `events` and `alerts` (three partitions), `small` (messages of at most 2000 bytes).
set -euo pipefail

version=4.1.0
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"
libs=$cache/kafka-$version

fetch() {
    [ -e "$libs/.complete" ] && return
    mkdir -p "$libs"
    cat >"$libs/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>test</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
  </dependencies>
</project>
XML
    mvn -q -B -f "$libs/pom.xml" dependency:copy-dependencies -DoutputDirectory="$libs" >&2
    touch "$libs/.complete"
}

configuration() {
    local module=org.apache.kafka.common.security
    cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:29099
listeners=PLAIN://127.0.0.1:29092,SECURE://127.0.0.1:29093,MUTUAL://127.0.0.1:29094,TOKEN://127.0.0.1:29095,CONTROLLER://127.0.0.1:29099
advertised.listeners=PLAIN://127.0.0.1:29092,SECURE://localhost:29093,MUTUAL://localhost:29094,TOKEN://127.0.0.1:29095
listener.security.protocol.map=PLAIN:PLAINTEXT,SECURE:SASL_SSL,MUTUAL:SSL,TOKEN:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
log.dirs=$dir/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
ssl.keystore.type=PEM
ssl.keystore.location=$dir/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=$dir/ca.pem
listener.name.mutual.ssl.client.auth=required
listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.secure.plain.sasl.jaas.config=$module.plain.PlainLoginModule required user_witness="letmein";
listener.name.secure.scram-sha-512.sasl.jaas.config=$module.scram.ScramLoginModule required;
listener.name.token.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.token.oauthbearer.sasl.jaas.config=$module.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
listener.name.token.oauthbearer.sasl.server.callback.handler.class=$module.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler
PROPERTIES
}

run() { java -Xmx256m -cp "$libs/*" "$@"; }

start() {
    fetch
    certificates server client
    [ -e "$dir/other-ca.pem" ] || authority other-ca
    cat "$dir/server.key" "$dir/server.crt" >"$dir/server.pem"
    configuration
    if [ ! -e "$dir/data/meta.properties" ]; then
        run kafka.tools.StorageTool format -t 4L6g3nShT-eMCtK--X86sw -c "$dir/server.properties" \
            --add-scram 'SCRAM-SHA-512=[name=witness,password=letmein]' >&2
    fi
    java -Xmx512m -cp "$libs/*" kafka.Kafka "$dir/server.properties" >"$dir/kafka.log" 2>&1 &
    echo $! >"$dir/pid"
    until_true "$dir/kafka.log" listens 29092
    if [ ! -e "$dir/topics" ]; then
        topic events
        topic alerts
        topic small --config max.message.bytes=2000
        touch "$dir/topics"
    fi
    echo "export KUBEWITNESS_TEST_KAFKA=$dir"
}

topic() {
    local name=$1
    shift
    run org.apache.kafka.tools.TopicCommand --bootstrap-server 127.0.0.1:29092 --create \
        --if-not-exists --topic "$name" --partitions 3 "$@" >&2
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
