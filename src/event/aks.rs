//! Rows of Azure's tables `AKSAudit` and `AKSAuditAdmin`, written anew as the events that they are
//! made of: a column for each member, named in Azure's way
//! (learn.microsoft.com/azure/azure-monitor/reference/tables/aksaudit).

use crate::event::envelope::{Fields, aks_cluster, held_text, lossy};
use crate::event::json::skip_value;

/// Columns and members, in the API server's order, and whether the member is an object or a list:
/// some tools give those as text.
const COLUMNS: [(&[u8], &str, bool); 16] = [
    (b"Level", "level", false),
    (b"AuditId", "auditID", false),
    (b"Stage", "stage", false),
    (b"RequestUri", "requestURI", false),
    (b"Verb", "verb", false),
    (b"User", "user", true),
    (b"ImpersonatedUser", "impersonatedUser", true),
    (b"SourceIps", "sourceIPs", true),
    (b"UserAgent", "userAgent", false),
    (b"ObjectRef", "objectRef", true),
    (b"ResponseStatus", "responseStatus", true),
    (b"RequestObject", "requestObject", true),
    (b"ResponseObject", "responseObject", true),
    (b"RequestReceivedTime", "requestReceivedTimestamp", false),
    (b"StageReceivedTime", "stageTimestamp", false),
    (b"Annotations", "annotations", true),
];

/// The event of a row, and the cluster that its resource id names.
pub(crate) fn to_audit(row: &[u8]) -> (Vec<u8>, Option<String>) {
    let mut json = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1""#.to_vec();
    for (column, member, is_composed) in COLUMNS {
        let Some(field) = Fields::of(row).find(|field| field.key == column) else { continue };
        let value = &row[field.value.clone()];
        let is_text = value.first() == Some(&b'"');
        let value = match is_composed && is_text {
            true => held_text(row, field.value),
            false => lossy(value).into_owned(),
        };
        // One whole value and nothing behind it, or the row could say what the event did not.
        let value = value.trim();
        let is_value = skip_value(value.as_bytes(), 0) == Ok(value.len());
        if !is_value || matches!(value, "null" | "\"\"") {
            continue;
        }
        json.extend_from_slice(b",\"");
        json.extend_from_slice(member.as_bytes());
        json.extend_from_slice(b"\":");
        json.extend_from_slice(value.as_bytes());
    }
    json.push(b'}');
    let id = Fields::of(row).find(|field| field.key.eq_ignore_ascii_case(b"_ResourceId"));
    (json, id.and_then(|field| aks_cluster(&held_text(row, field.value))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_members() {
        let event = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a","stage":"Panic","requestURI":"/api","verb":"get","user":{"username":"u"},"sourceIPs":["10.0.0.1"],"stageTimestamp":"2026-11-22T00:16:52.7Z"}"#;
        let id = r#""_ResourceId":"/subscriptions/s/providers/microsoft.containerservice/managedclusters/prod""#;
        for row in [
            r#""Level":"Metadata","AuditId":"a","Stage":"Panic","RequestUri":"/api","Verb":"get","User":{"username":"u"},"SourceIps":["10.0.0.1"],"ObjectRef":null,"StageReceivedTime":"2026-11-22T00:16:52.7Z""#,
            r#""StageReceivedTime":"2026-11-22T00:16:52.7Z","SourceIps":"[\"10.0.0.1\"]","User":"{\"username\":\"u\"}","Verb":"get","RequestUri":"/api","Stage":"Panic","AuditId":"a","Level":"Metadata","Annotations":"""#,
        ] {
            let (json, cluster) = to_audit(format!("{{{row},{id}}}").as_bytes());
            assert_eq!(String::from_utf8(json).unwrap(), event);
            assert_eq!(cluster.as_deref(), Some("prod"));
        }
    }
}
