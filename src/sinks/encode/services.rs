//! Bodies that services on the web ask for: chat, paging, log stores.
//!
//! What is shown to people is plain text in all of them: no value of an event becomes markup, a
//! link or a mention.

use crate::event::time::format_us;
use crate::rule::Level;
use crate::sinks::encode::json::{Object, lossy};
use crate::sinks::encode::{Subject, VENDOR, VERSION};

/// The longest text of a chat's block, in characters.
const BLOCK_MAX: usize = 2_000;
/// The longest title, in characters.
const TITLE_MAX: usize = 150;
/// The longest summary of a page, in characters.
const PAGE_MAX: usize = 1_024;
/// The longest value of a label, in characters.
const LABEL_MAX: usize = 256;

fn cut(text: &str, letters_max: usize) -> String {
    let calm = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().take(letters_max).map(calm).collect()
}

fn level(subject: &Subject<'_>) -> Level {
    match &subject.alert {
        Some(alert) => alert.rule.level,
        None if subject.is_notice => Level::Medium,
        None => Level::Informational,
    }
}

fn sentence(subject: &Subject<'_>) -> String {
    let title = subject.title();
    subject.facts.summary.as_deref().unwrap_or(&title).to_owned()
}

/// What a person wants to know, in pairs.
fn about(subject: &Subject<'_>) -> Vec<(&'static str, String)> {
    let facts = &subject.facts;
    let own = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let object = [facts.namespace.as_deref(), facts.name.as_deref()];
    let object: Vec<&str> = object.into_iter().flatten().collect();
    let pairs = [
        ("Level", level(subject).as_str().to_owned()),
        ("Time", format_us(facts.time_us)),
        ("Cluster", facts.cluster.to_string()),
        ("Actor", own(facts.username.as_deref())),
        ("Acting as", own(facts.impersonated.as_deref())),
        ("From", own(facts.source_ip.as_deref())),
        ("Verb", own(facts.verb.as_deref())),
        ("Resource", own(facts.resource_type().as_deref())),
        ("Object", object.join("/")),
        ("Runbook", own(subject.alert.as_ref().and_then(|alert| alert.runbook.as_deref()))),
        ("Id", subject.id.clone()),
    ];
    pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// A message of Slack's incoming webhooks: blocks of plain text.
pub(crate) fn slack(subject: &Subject<'_>, out: &mut Vec<u8>) {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let plain = |text: &str, o: &mut Object<'_>| {
        o.text("type", "plain_text");
        o.text("text", text);
        o.bool("emoji", false);
    };
    Object::write(out, |o| {
        o.text("text", &escaped(&cut(&sentence(subject), BLOCK_MAX)));
        o.objects("blocks", 0..3, |block, o| match block {
            0 => {
                o.text("type", "header");
                o.object("text", |o| plain(&cut(&subject.title(), TITLE_MAX), o));
            }
            1 => {
                o.text("type", "section");
                o.object("text", |o| plain(&cut(&sentence(subject), BLOCK_MAX), o));
            }
            _ => {
                o.text("type", "section");
                o.objects("fields", about(subject).into_iter().take(10), |(name, value), o| {
                    plain(&cut(&format!("{name}: {value}"), BLOCK_MAX), o);
                });
            }
        });
    });
}

/// A message of Microsoft Teams' workflows: an adaptive card of runs of text.
pub(crate) fn teams(subject: &Subject<'_>, out: &mut Vec<u8>) {
    let mut lines = vec![(true, subject.title()), (false, sentence(subject))];
    lines.extend(
        about(subject).into_iter().map(|(name, value)| (false, format!("{name}: {value}"))),
    );
    Object::write(out, |o| {
        o.text("type", "message");
        o.objects("attachments", [()], |(), o| {
            o.text("contentType", "application/vnd.microsoft.card.adaptive");
            o.object("content", |o| {
                o.text("type", "AdaptiveCard");
                o.text("version", "1.4");
                o.objects("body", &lines, |(is_title, line), o| {
                    o.text("type", "RichTextBlock");
                    o.objects("inlines", [()], |(), o| {
                        o.text("type", "TextRun");
                        o.text("text", &cut(line, BLOCK_MAX));
                        o.text("weight", if *is_title { "bolder" } else { "default" });
                    });
                });
            });
        });
    });
}

/// An event of PagerDuty's Events API 2; `key` is the integration's routing key.
pub(crate) fn pagerduty(subject: &Subject<'_>, key: &str, out: &mut Vec<u8>) {
    let facts = &subject.facts;
    let severity = match level(subject) {
        Level::Critical => "critical",
        Level::High => "error",
        Level::Medium => "warning",
        Level::Low | Level::Informational => "info",
    };
    Object::write(out, |o| {
        o.text("routing_key", key);
        o.text("event_action", "trigger");
        o.text("dedup_key", &subject.id);
        o.object("payload", |o| {
            o.text("summary", &cut(&sentence(subject), PAGE_MAX));
            let cluster = if facts.cluster.is_empty() { VENDOR } else { &facts.cluster };
            o.text("source", cluster);
            o.text("severity", severity);
            o.text("timestamp", &format_us(facts.time_us));
            o.text_if("component", facts.resource_type());
            o.text_if("group", facts.namespace.as_deref());
            o.text("class", &cut(&subject.title(), PAGE_MAX));
            o.object("custom_details", |o| {
                for (name, value) in about(subject) {
                    o.text(name, &cut(&value, PAGE_MAX));
                }
            });
        });
    });
}

/// Alerts of Alertmanager's API 2. Labels are what makes an alert the same alert there.
pub(crate) fn alertmanager(subjects: &[Subject<'_>], out: &mut Vec<u8>) {
    array(subjects, out, |subject, o| {
        let facts = &subject.facts;
        let rule = subject.alert.as_ref().map(|alert| &alert.rule);
        o.object("labels", |o| {
            o.text("alertname", &cut(&subject.title(), LABEL_MAX));
            o.text("severity", level(subject).as_str());
            let mut label = |name: &'static str, value: Option<&str>| {
                o.text_if(name, value.map(|value| cut(value, LABEL_MAX)));
            };
            label("rule_id", rule.map(|rule| rule.id.as_str()));
            label("cluster", Some(&facts.cluster));
            label("namespace", facts.namespace.as_deref());
            label("username", facts.username.as_deref());
            label("resource", facts.resource_type().as_deref());
            label("name", facts.name.as_deref());
        });
        o.object("annotations", |o| {
            o.text("summary", &cut(&sentence(subject), BLOCK_MAX));
            o.text("id", &subject.id);
            let runbook = subject.alert.as_ref().and_then(|alert| alert.runbook.as_deref());
            o.text_if("runbook", runbook);
        });
        o.text("startsAt", &format_us(facts.time_us));
    });
}

/// Streams of Loki's push API: few labels, the id as structured metadata.
pub(crate) fn loki(subjects: &[Subject<'_>], lines: &[Vec<u8>], out: &mut Vec<u8>) {
    Object::write(out, |o| {
        o.objects("streams", subjects.iter().zip(lines), |(subject, line), o| {
            o.object("stream", |o| {
                o.text("service_name", VENDOR);
                o.text("kind", kind(subject));
                o.text("level", level(subject).as_str());
                o.text_if("cluster", Some(&subject.facts.cluster));
            });
            let mut value = Vec::new();
            value.extend_from_slice(b"[[");
            put(&nanoseconds(subject), &mut value);
            value.push(b',');
            put(&lossy(line), &mut value);
            value.push(b',');
            Object::write(&mut value, |o| o.text("id", &subject.id));
            value.extend_from_slice(b"]]");
            o.raw("values", &value);
        });
    });
}

/// Logs of Datadog's API 2.
pub(crate) fn datadog(subjects: &[Subject<'_>], lines: &[Vec<u8>], out: &mut Vec<u8>) {
    let mut lines = lines.iter();
    array(subjects, out, |subject, o| {
        o.text("ddsource", "kubernetes.audit");
        o.text("service", VENDOR);
        o.text_if("hostname", Some(&subject.facts.cluster));
        o.text("ddtags", &format!("kind:{},level:{}", kind(subject), level(subject).as_str()));
        o.text("status", status(level(subject)));
        o.text("id", &subject.id);
        o.number("timestamp", subject.facts.time_us.div_euclid(1_000));
        o.text("message", &lossy(lines.next().map_or(&[], Vec::as_slice)));
    });
}

/// Log records of OTLP over HTTP, as JSON.
pub(crate) fn otlp(subjects: &[Subject<'_>], lines: &[Vec<u8>], out: &mut Vec<u8>) {
    let attribute = |(name, value): (&str, &str), o: &mut Object<'_>| {
        o.text("key", name);
        o.object("value", |o| o.text("stringValue", value));
    };
    Object::write(out, |o| {
        o.objects("resourceLogs", [()], |(), o| {
            o.object("resource", |o| {
                o.objects("attributes", [("service.name", VENDOR)], attribute)
            });
            o.objects("scopeLogs", [()], |(), o| {
                o.object("scope", |o| {
                    o.text("name", VENDOR);
                    o.text("version", VERSION);
                });
                o.objects("logRecords", subjects.iter().zip(lines), |(subject, line), o| {
                    let level = level(subject);
                    o.text("timeUnixNano", &nanoseconds(subject));
                    o.number("severityNumber", severity_number(level));
                    o.text("severityText", level.as_str());
                    o.object("body", |o| o.text("stringValue", &lossy(line)));
                    let facts = &subject.facts;
                    let pairs = [
                        ("log.record.uid", Some(subject.id.as_str())),
                        ("kubewitness.kind", Some(kind(subject))),
                        ("k8s.cluster.name", Some(facts.cluster.as_ref())),
                        ("k8s.namespace.name", facts.namespace.as_deref()),
                        ("user.name", facts.username.as_deref()),
                    ];
                    let known = pairs.into_iter().filter_map(|(name, value)| Some((name, value?)));
                    o.objects("attributes", known, attribute);
                });
            });
        });
    });
}

fn array<'s, 'r>(
    subjects: &'s [Subject<'r>],
    out: &mut Vec<u8>,
    mut members: impl FnMut(&'s Subject<'r>, &mut Object<'_>),
) {
    out.push(b'[');
    for (index, subject) in subjects.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        Object::write(out, |o| members(subject, o));
    }
    out.push(b']');
}

fn put(text: &str, out: &mut Vec<u8>) {
    crate::sinks::encode::json::put_text(text, out);
}

fn kind(subject: &Subject<'_>) -> &'static str {
    match (&subject.alert, subject.is_notice) {
        (Some(_), _) => "alert",
        (None, true) => "notice",
        (None, false) => "event",
    }
}

fn nanoseconds(subject: &Subject<'_>) -> String {
    subject.facts.time_us.max(0).saturating_mul(1_000).to_string()
}

/// Datadog's status.
fn status(level: Level) -> &'static str {
    match level {
        Level::Informational => "info",
        Level::Low => "notice",
        Level::Medium => "warning",
        Level::High => "error",
        Level::Critical => "critical",
    }
}

/// OpenTelemetry's severity.
fn severity_number(level: Level) -> i64 {
    match level {
        Level::Informational => 9,
        Level::Low => 10,
        Level::Medium => 13,
        Level::High => 17,
        Level::Critical => 21,
    }
}
