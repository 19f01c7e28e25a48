//! librdkafka's mock cluster, which answers produce requests by a seeded list of errors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::pipeline::tests::faults::{Random, Stored};

/// The topic that everything goes to.
pub(crate) const TOPIC: &str = "audit";
const PARTITIONS: i32 = 3;

/// The cluster.
pub(crate) struct Far {
    /// Ends first, for it says farewell to the cluster.
    reader: BaseConsumer,
    /// Tells the thread that owns the cluster to fail no more; without it the cluster ends.
    heal: mpsc::Sender<()>,
}

impl Far {
    /// Starts one that meets so many faults; returns it with its address.
    pub(crate) fn start(seed: u64, faults: usize) -> (Far, String) {
        use RDKafkaRespErr::*;
        let mut random = Random(seed);
        let kinds = [
            RD_KAFKA_RESP_ERR_NO_ERROR,
            RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
            RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
            RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
            RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            // The connection breaks.
            RD_KAFKA_RESP_ERR__TRANSPORT,
        ];
        let errors: Vec<RDKafkaRespErr> =
            (0..faults).map(|_| kinds[random.below(kinds.len())]).collect();
        let (heal, healed) = mpsc::channel();
        let (started, address) = mpsc::channel();
        std::thread::spawn(move || {
            let cluster = MockCluster::new(1).unwrap();
            cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
            cluster.request_errors(RDKafkaApiKey::Produce, &errors);
            started.send(cluster.bootstrap_servers()).unwrap();
            while healed.recv().is_ok() {
                cluster.clear_request_errors(RDKafkaApiKey::Produce);
            }
        });
        let address = address.recv().unwrap();
        let reader = ClientConfig::new()
            .set("bootstrap.servers", &address)
            .set("group.id", "reader")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        (Far { reader, heal }, address)
    }

    /// Messages so far.
    pub(crate) fn messages(&self) -> usize {
        let end = |partition| {
            let asked = self.reader.fetch_watermarks(TOPIC, partition, Duration::from_secs(20));
            usize::try_from(asked.unwrap().1).unwrap()
        };
        (0..PARTITIONS).map(end).sum()
    }

    /// All messages; in each partition what came first came in order.
    pub(crate) fn stored(&self) -> Vec<Stored> {
        self.heal.send(()).unwrap();
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            partitions.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
        }
        self.reader.assign(&partitions).unwrap();
        let (mut found, mut ends, mut looks) = (Vec::new(), BTreeSet::new(), 0);
        let mut first: BTreeMap<i32, BTreeSet<usize>> = BTreeMap::new();
        while ends.len() < PARTITIONS as usize {
            looks += 1;
            assert!(looks < 10_000, "the partitions never end");
            // Nothing now may also be a word of librdkafka to itself.
            let message = match self.reader.poll(Duration::from_millis(100)) {
                None => continue,
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ends.insert(partition);
                    continue;
                }
                // It says what it mends by itself, such as a connection that broke.
                Some(Err(_)) => continue,
                Some(Ok(message)) => message,
            };
            let header = message.headers().unwrap().get(0);
            assert_eq!(header.key, "kubewitness-id");
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let payload = text(message.payload().unwrap());
            let stored = Stored::of(&format!("{} {payload}", text(header.value.unwrap())), "");
            let before = first.entry(message.partition()).or_default();
            let is_next = before.last().is_none_or(|last| *last < stored.tokens[0]);
            let is_in_order = is_next || before.contains(&stored.tokens[0]);
            assert!(is_in_order, "{before:?} {stored:?}");
            before.extend(&stored.tokens);
            found.push(stored);
        }
        found
    }
}
