//! The floor: a SIMD JSON reader that takes the twenty fields that rules mostly ask for out of a
//! line, and does nothing with them.
//!
//! Texts are borrowed where nothing is escaped; lists, maps and bodies stay raw, as nobody asks for
//! their insides.

use std::borrow::Cow;
use std::hint::black_box;

use serde::Deserialize;
use sonic_rs::LazyValue;

/// An event's twenty fields.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields<'a> {
    #[serde(borrow)]
    level: Cow<'a, str>,
    #[serde(borrow, rename = "auditID")]
    audit_id: Cow<'a, str>,
    #[serde(borrow)]
    stage: Cow<'a, str>,
    #[serde(borrow, rename = "requestURI")]
    request_uri: Cow<'a, str>,
    #[serde(borrow)]
    verb: Cow<'a, str>,
    #[serde(borrow)]
    user: User<'a>,
    #[serde(borrow, rename = "impersonatedUser")]
    impersonated_user: Option<LazyValue<'a>>,
    #[serde(borrow, rename = "sourceIPs")]
    source_ips: Option<LazyValue<'a>>,
    #[serde(borrow, rename = "userAgent")]
    user_agent: Cow<'a, str>,
    #[serde(borrow, rename = "objectRef")]
    object_ref: ObjectRef<'a>,
    #[serde(rename = "responseStatus")]
    response_status: ResponseStatus,
    #[serde(borrow, rename = "requestObject")]
    request_object: Option<LazyValue<'a>>,
    #[serde(borrow, rename = "responseObject")]
    response_object: Option<LazyValue<'a>>,
    #[serde(borrow, rename = "stageTimestamp")]
    stage_timestamp: Cow<'a, str>,
    #[serde(borrow)]
    annotations: Option<LazyValue<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User<'a> {
    #[serde(borrow)]
    username: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    groups: Option<LazyValue<'a>>,
    #[serde(borrow)]
    extra: Option<LazyValue<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectRef<'a> {
    #[serde(borrow)]
    resource: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, rename = "apiGroup")]
    api_group: Cow<'a, str>,
    #[serde(borrow)]
    subresource: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

/// Takes the fields out of a line and drops them; whether the line was JSON.
pub fn extract(line: &[u8]) -> bool {
    let Ok(fields) = sonic_rs::from_slice::<Fields<'_>>(line) else { return false };
    let Fields { level, audit_id, stage, request_uri, verb, user, .. } = &fields;
    black_box((level, audit_id, stage, request_uri, verb));
    black_box((&user.username, &user.uid, &user.groups, &user.extra));
    black_box((&fields.impersonated_user, &fields.source_ips, &fields.user_agent));
    let ObjectRef { resource, namespace, name, api_group, subresource } = &fields.object_ref;
    black_box((resource, namespace, name, api_group, subresource));
    black_box((&fields.response_status.code, &fields.request_object, &fields.response_object));
    black_box((&fields.stage_timestamp, &fields.annotations));
    true
}
