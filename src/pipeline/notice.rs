//! What is wrong with the audit trail itself, as a record and as an alert of its own.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::alert::id::{RequestKey, alert_id};
use crate::alert::time::EventTime;
use crate::alert::{Actor, Alert, AlertKind, AlertRule, Reason, Request, RuleSource, attack};
use crate::event::redact::redact_text;
use crate::ingest::batch::{self, NoticeKind};
use crate::rule::Level;
use crate::spool::Damage;

/// What happened to the audit trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A source noticed it.
    Source(NoticeKind),
    /// Bytes of the spool that had been durable cannot be read.
    SpoolDamaged,
    /// New rules cannot be used; the old ones stay.
    RulesRefused,
    /// The detector's state cannot be read and begins anew.
    StateLost,
    /// Rejected input could not be kept: the dead letters are full.
    DeadLettersFull,
    /// A sink cannot deliver anything until a person acts.
    SinkBlocked,
    /// A blocked sink delivers again.
    SinkResumed,
    /// The archive's newest signed checkpoint, for the other sinks to keep; no alert.
    Anchor,
}

/// A kind's word, the id of its rule, its level, and what it means.
type Meaning = (&'static str, &'static str, Level, &'static str);

impl Kind {
    fn meaning(self) -> Meaning {
        use Level::{High, Informational, Low, Medium};
        let source = |kind: NoticeKind| match kind {
            NoticeKind::Gap => (High, "Audit log files were gone before they were read"),
            NoticeKind::Truncated => (High, "Audit log became shorter than what was read of it"),
            NoticeKind::Unlinked => (High, "Audit log was unlinked while it was being written"),
            NoticeKind::Silent => (High, "Audit source fell silent"),
            NoticeKind::Resumed => (Informational, "Audit source speaks again"),
            NoticeKind::Unreadable => (Medium, "Audit source cannot be read"),
        };
        match self {
            Kind::Source(kind) => {
                let (level, title) = source(kind);
                let id = match kind {
                    NoticeKind::Gap => "kubewitness-source-gap",
                    NoticeKind::Truncated => "kubewitness-source-truncated",
                    NoticeKind::Unlinked => "kubewitness-source-unlinked",
                    NoticeKind::Silent => "kubewitness-source-silent",
                    NoticeKind::Resumed => "kubewitness-source-resumed",
                    NoticeKind::Unreadable => "kubewitness-source-unreadable",
                };
                (kind.as_str(), id, level, title)
            }
            Kind::SpoolDamaged => (
                "spool_damaged",
                "kubewitness-spool-damaged",
                High,
                "Stored audit records were damaged",
            ),
            Kind::RulesRefused => {
                ("rules_refused", "kubewitness-rules-refused", Medium, "New rules were refused")
            }
            Kind::StateLost => {
                ("state_lost", "kubewitness-state-lost", Medium, "Detector state begins anew")
            }
            Kind::DeadLettersFull => (
                "dead_letters_full",
                "kubewitness-dead-letters-full",
                Medium,
                "Rejected input could not be kept",
            ),
            Kind::SinkBlocked => {
                ("sink_blocked", "kubewitness-sink-blocked", Low, "Sink delivers nothing")
            }
            Kind::Anchor => (
                "archive_checkpoint",
                "kubewitness-archive-checkpoint",
                Informational,
                "Signed checkpoint of the archive",
            ),
            Kind::SinkResumed => {
                ("sink_resumed", "kubewitness-sink-resumed", Informational, "Sink delivers again")
            }
        }
    }

    /// The kind as a word for records and metric labels.
    pub fn as_str(self) -> &'static str {
        self.meaning().0
    }
}

/// The payload of a NOTICE record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// What happened.
    #[serde(serialize_with = "write_kind")]
    pub kind: Kind,
    /// When.
    pub time: EventTime,
    /// The source or sink that noticed it; `spool` or `rules` for the others.
    pub source: String,
    /// What it is about: a path, or a receiver's name.
    pub subject: String,
    /// One sentence for a person.
    pub text: String,
    /// Bytes that are lost for good, where they are known.
    pub lost_bytes: Option<u64>,
}

fn write_kind<S: serde::Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

impl Notice {
    /// What a source noticed.
    pub fn of_source(source: &str, notice: &batch::Notice) -> Notice {
        Notice {
            kind: Kind::Source(notice.kind),
            time: EventTime(notice.at_us),
            source: source.to_owned(),
            subject: redact_text(&notice.subject).into_owned(),
            text: redact_text(&notice.text).into_owned(),
            lost_bytes: notice.lost_bytes,
        }
    }

    /// A signed checkpoint of the archive that a sink keeps.
    pub fn of_anchor(sink: &str, note: String, at_us: i64) -> Notice {
        Notice {
            kind: Kind::Anchor,
            time: EventTime(at_us),
            source: sink.to_owned(),
            subject: note.lines().next().unwrap_or_default().to_owned(),
            text: note,
            lost_bytes: None,
        }
    }

    /// Damage of the spool.
    pub fn of_damage(damage: &Damage, at_us: i64) -> Notice {
        let Damage { file, offset, bytes, reason } = damage;
        Notice {
            kind: Kind::SpoolDamaged,
            time: EventTime(at_us),
            source: "spool".to_owned(),
            subject: file.clone(),
            text: format!(
                "{bytes} bytes of {file} from byte {offset} on cannot be read: {}",
                reason.name()
            ),
            lost_bytes: Some(*bytes),
        }
    }

    /// The record's payload.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }

    /// The alert that it raises.
    pub fn alert(&self, cluster: &str) -> Alert {
        let (word, id, level, title) = self.kind.meaning();
        let digest = Sha256::digest(self.to_json());
        let (key, _) = digest.split_first_chunk::<16>().expect("SHA-256 gives 32 bytes");
        let is_blinding = matches!(
            self.kind,
            Kind::Source(
                NoticeKind::Gap | NoticeKind::Truncated | NoticeKind::Unlinked | NoticeKind::Silent
            ) | Kind::SpoolDamaged
        );
        let tags: Vec<String> = if is_blinding {
            ["attack.defense_evasion", "attack.t1562.008"].map(str::to_owned).into()
        } else {
            Vec::new()
        };
        Alert {
            id: alert_id(id, &[RequestKey(*key)], cluster),
            time: self.time,
            kind: AlertKind::Match,
            cluster: cluster.to_owned(),
            rule: AlertRule {
                id: id.to_owned(),
                title: title.to_owned(),
                level,
                source: RuleSource::Builtin,
                tags: tags.clone(),
            },
            attack: attack::from_tags(&tags),
            actor: Actor::default(),
            request: Request::default(),
            reason: vec![Reason {
                field: "source".to_owned(),
                value: self.source.clone(),
                matched: word.to_owned(),
            }],
            summary: format!("{title}: {}", self.text),
            events: Vec::new(),
            count: 1,
            runbook: None,
        }
    }
}
