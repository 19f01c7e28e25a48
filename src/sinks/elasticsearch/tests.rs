//! A cluster that answers by a script: each document's own status counts.

use super::*;
use crate::sinks::endpoint::fake::{self, Fake, Seen, answer};

const RAW: &str = r#"{"auditID":"a","verb":"create","stage":"ResponseComplete","requestObject":{"spec":{"a.b":1}},"annotations":{"authorization.k8s.io/decision":"allow"}}"#;

fn event(seq: u64) -> Item<'static> {
    fake::event(seq, RAW)
}

fn sink(url: &str) -> Elasticsearch {
    let config = format!(r#"{{"url":"{url}"}}"#);
    Elasticsearch::new(serde_json::from_str(&config).unwrap(), &[RecordKind::Events]).unwrap()
}

fn bulk(statuses: &[(u16, &str)]) -> String {
    let items: Vec<String> = statuses
        .iter()
        .map(|(status, kind)| match kind {
            &"" => format!(r#"{{"create":{{"status":{status}}}}}"#),
            kind => format!(
                r#"{{"create":{{"status":{status},"error":{{"type":"{kind}","reason":"r"}}}}}}"#
            ),
        })
        .collect();
    format!(r#"{{"errors":true,"items":[{}]}}"#, items.join(","))
}

#[tokio::test]
async fn every_document_has_its_own_answer() {
    let fake = Fake::start(|_| answer(200, r#"{"errors":false}"#)).await;
    let mut sink = sink(&fake.url);
    let batch: Vec<Item<'_>> = (0..4).map(event).collect();
    assert_eq!(sink.send(&batch).await, Ok(Delivered::default()));
    let seen = fake.take().remove(0);
    assert_eq!(seen.uri.path(), "/_bulk");
    let lines: Vec<serde_json::Value> =
        seen.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 8);
    assert_eq!(lines[0]["create"]["_index"], "logs-kubewitness.audit-default");
    assert_eq!(lines[0]["create"]["_id"], event(0).id());
    let audit = &lines[1]["kubernetes"]["audit"];
    assert_eq!(audit["requestObject"]["spec"]["a.b"], 1);
    assert_eq!(audit["annotations"]["authorization_k8s_io/decision"], "allow");

    // A copy is there, one is busy, one does not fit the mapping and then does, one never does.
    fake.next(answer(
        200,
        bulk(&[
            (409, "version_conflict_engine_exception"),
            (429, "es_rejected_execution_exception"),
            (400, "document_parsing_exception"),
            (400, "document_parsing_exception"),
        ]),
    ));
    fake.next(answer(200, bulk(&[(201, ""), (400, "document_parsing_exception")])));
    let delivered = sink.send(&batch).await.unwrap();
    assert_eq!(delivered.again, [1]);
    assert_eq!(delivered.rejected.len(), 1);
    assert_eq!((delivered.rejected[0].index, delivered.rejected[0].reason), (3, "mapping"));
    let again = fake.take().remove(1).text();
    let document: serde_json::Value = serde_json::from_str(again.lines().nth(1).unwrap()).unwrap();
    assert_eq!(document["event"]["original"], RAW);
    assert!(document["kubernetes"]["audit"].get("requestObject").is_none());
}

#[tokio::test]
async fn what_blocks_is_said_exactly() {
    let fake = Fake::start(|_| answer(200, r#"{"errors":false}"#)).await;
    let mut sink = sink(&fake.url);
    let batch = [event(1)];
    for (status, kind, part) in [
        (403, "security_exception", "create_doc"),
        (403, "cluster_block_exception", "free disk space"),
        (429, "cluster_block_exception", "free disk space"),
        (404, "index_not_found_exception", "create the data stream"),
    ] {
        fake.next(answer(200, bulk(&[(status, kind)])));
        let delivered = sink.send(&batch).await.unwrap();
        assert_eq!(delivered.again, [0]);
        let why = delivered.why.unwrap().to_string();
        assert!(why.contains(part) && why.contains(kind), "{why}");
    }
    for (status, body, expected) in [
        (200, "<html>a proxy's page</html>", "no bulk answer"),
        (200, r#"{"errors":true,"items":[]}"#, "0 answers for 1 documents"),
        (503, "", "answered 503"),
        (413, "", "answered 413"),
        (401, r#"{"error":"unable to authenticate"}"#, "mend the sink's secret"),
    ] {
        fake.next(answer(status, body));
        let error = sink.send(&batch).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_preflight_asks_for_the_stream_and_install_puts_what_is_missing() {
    let there = |seen: &Seen| match seen.uri.path() {
        "/" => answer(200, r#"{"version":{"number":"8.15.3"}}"#),
        path if path.starts_with("/_ilm") || path.starts_with("/_index_template/") => {
            answer(if seen.body.is_empty() { 404 } else { 200 }, "{}")
        }
        _ => answer(404, "{}"),
    };
    let fake = Fake::start(there).await;
    let mut sink = sink(&fake.url);
    let error = sink.check().await.unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no lifecycle policy \"kubewitness\", no index template \"kubewitness\", no data \
         stream \"logs-kubewitness.audit-default\"; run `kubewitness check --install`, or put what \
         is in deploy/siem/elasticsearch"
    );
    fake.take();
    let done = sink.install().await.unwrap();
    assert_eq!(done, ["put _ilm/policy/kubewitness", "put _index_template/kubewitness"]);
    let paths: Vec<String> = fake.take().iter().map(|seen| seen.uri.path().to_owned()).collect();
    assert_eq!(paths, ["/", "/_ilm/policy/kubewitness", "/_index_template/kubewitness"]);
    for text in [INDEX_TEMPLATE, ILM_POLICY, ISM_POLICY] {
        serde_json::from_str::<serde_json::Value>(text).unwrap();
    }
}

#[tokio::test]
async fn a_server_without_lifecycle_policies_is_told_apart_from_one_that_lacks_ours() {
    let there = |seen: &Seen| match seen.uri.path() {
        "/" => answer(200, r#"{"version":{"distribution":"opensearch"}}"#),
        path if path.starts_with("/_plugins/_ism") => {
            answer(400, r#"{"error":"no handler found for uri [/_plugins/_ism]"}"#)
        }
        _ => answer(200, "{}"),
    };
    let fake = Fake::start(there).await;
    let mut sink = sink(&fake.url);
    let done = sink.install().await.unwrap();
    assert_eq!(
        done,
        [
            "no policy was put: the server has no Index State Management, so documents stay until \
             somebody deletes them",
            "put _index_template/kubewitness",
        ]
    );
    sink.check().await.unwrap();
}
