//! What witnesses said: the newest head that enough of them cosigned, and when.

use crate::archive::layout::{CHECKPOINT, COSIGNED, cosigned_size};
use crate::archive::note;
use crate::archive::policy::Policy;
use crate::archive::recover::CHECKPOINT_BYTES_MAX;
use crate::archive::store::{self, Store};
use crate::archive::verify::{Class, Known, Options, Report, class_of};

/// Cosigned heads that are looked at, from the newest: those before it say less.
const HEADS_MAX: usize = 16;

/// Reads the newest cosigned heads. They are heads like any that the key signed; that there is one
/// with enough cosignatures is what the policy asks for.
pub(crate) async fn verify(
    store: &dyn Store,
    options: &Options,
    pointer: Option<&Known>,
    report: &mut Report,
) -> Result<Vec<Known>, store::Error> {
    let Some(policy) = &options.policy else { return Ok(Vec::new()) };
    let mut heads: Vec<Known> =
        pointer.filter(|known| known.source == CHECKPOINT).cloned().into_iter().collect();
    let mut sizes: Vec<u64> =
        store.list(COSIGNED).await?.iter().filter_map(|it| cosigned_size(&it.key)).collect();
    sizes.sort_unstable();
    for size in sizes.into_iter().rev().take(HEADS_MAX) {
        heads.extend(read(store, options, size, report).await?);
    }
    for known in &heads {
        witnessed(policy, known, report);
    }
    match report.witnessed {
        None => {
            let text = "no checkpoint has the cosignatures that the policy asks for";
            report.add(Class::BadSignature, COSIGNED, text);
        }
        Some((size, seconds)) => {
            let age_s = (options.now_us / 1_000_000).saturating_sub_unsigned(seconds);
            if options.age_us_max.is_some_and(|max| age_s > max / 1_000_000) {
                let text = format!("{size} records were cosigned {age_s} s ago, none since");
                report.add(Class::Stale, COSIGNED, text);
            }
        }
    }
    heads.retain(|known| known.source != CHECKPOINT);
    Ok(heads)
}

fn witnessed(policy: &Policy, known: &Known, report: &mut Report) {
    match policy.cosigned(&known.note) {
        Err(error) => report.add(class_of(&error), &known.source, error.to_string()),
        Ok(times) if policy.is_met(&times) => {
            // As old as the oldest of them: one witness alone cannot make it look fresh.
            let seconds = times.into_iter().flatten().min().unwrap_or(0);
            report.witnessed = report.witnessed.max(Some((known.head.size, seconds)));
        }
        Ok(_) => {}
    }
}

async fn read(
    store: &dyn Store,
    options: &Options,
    size: u64,
    report: &mut Report,
) -> Result<Option<Known>, store::Error> {
    let source = crate::archive::layout::cosigned_key(size);
    let bytes = match store.read(&source, CHECKPOINT_BYTES_MAX).await {
        Err(store::Error::TooLarge { .. }) => None,
        other => other?,
    };
    let note = bytes.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
    let head = note.as_deref().map(|note| options.key.checkpoint(note));
    match head {
        Some(Ok(head)) if head.size == size => {
            let note = note.unwrap_or_default();
            Ok(Some(Known { source, head, note, is_outside: false }))
        }
        Some(Err(error @ (note::Error::Unsigned(_) | note::Error::Forged(_)))) => {
            report.add(Class::BadSignature, &source, error.to_string());
            Ok(None)
        }
        _ => {
            report.add(Class::Altered, &source, "not a checkpoint of this size");
            Ok(None)
        }
    }
}
