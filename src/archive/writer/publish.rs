//! What follows from the commits, and what others say of them: tiles, the checkpoint, cosignatures;
//! and the ends of a log, of a key and of all.

use bytes::Bytes;

use crate::archive::cosigners::Asked;
use crate::archive::keys::KEY;
use crate::archive::layout::{CHECKPOINT, cosigned_key};
use crate::archive::record::Kind;
use crate::archive::seal::Draft;
use crate::archive::signatory::Signatory;
use crate::archive::writer::{Error, Writer};

impl Writer {
    /// Writes the tiles that are open and `checkpoint`, for tools that read tiles only.
    ///
    /// # Errors
    /// The store's; nothing is lost by them.
    pub async fn publish(&mut self, now_us: i64) -> Result<(), Error> {
        self.settle().await?;
        if self.published.0 == self.floor.size {
            return Ok(());
        }
        for (key, bytes) in self.fringe.partial() {
            self.same(&key, bytes.into()).await?;
        }
        let outcome = self.witness().await;
        if self.options.has_pointer {
            self.store.replace(CHECKPOINT, Bytes::from(self.checkpoint().to_owned())).await?;
        }
        outcome?;
        self.published = (self.floor.size, now_us);
        self.checkpoint = self.checkpoint().to_owned();
        Ok(())
    }

    /// Has the head cosigned, and keeps the signatures beside it where they are enough.
    async fn witness(&mut self) -> Result<(), Error> {
        let Some(cosigners) = self.options.cosigners.clone() else { return Ok(()) };
        let size = self.floor.size;
        let asked = cosigners.ask(&*self.store, &self.key, &self.note).await;
        let Asked { note, is_met, cosigned, refusals } = match asked {
            Ok(asked) => asked,
            Err(error) if cosigners.is_required() => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "the head is not shown to witnesses");
                return Ok(());
            }
        };
        for (witness, refusal) in &refusals {
            tracing::warn!(%witness, %refusal, size, "not cosigned");
        }
        let answers = Asked { note: note.clone(), is_met, cosigned, refusals: refusals.clone() };
        self.asked = Some(answers);
        if is_met {
            // A second attempt has other times in it; the first one is as good.
            self.store.create(&cosigned_key(size), Bytes::from(note.clone())).await?;
            self.witnessed = Some((size, note));
            return Ok(());
        }
        if !cosigners.is_required() {
            return Ok(());
        }
        if let Some((witness, refusal)) = refusals.iter().find(|(_, it)| it.is_alarm()) {
            let (witness, refusal) = (witness.clone(), refusal.clone());
            return Err(Error::Refused { witness, refusal });
        }
        let reasons = refusals.iter().map(|(witness, refusal)| format!("{witness}: {refusal}"));
        Err(Error::Unwitnessed { size, reason: reasons.collect::<Vec<_>>().join("; ") })
    }

    /// A writer that lost its disk cannot tell whether the store has lost its end; a witness can.
    pub(crate) async fn meet_witnesses(&mut self) -> Result<(), Error> {
        let Some(cosigners) = self.options.cosigners.clone() else { return Ok(()) };
        for (key, bytes) in self.fringe.partial() {
            self.same(&key, bytes.into()).await?;
        }
        let asked = cosigners.ask(&*self.store, &self.key, &self.note).await?;
        for (witness, refusal) in asked.refusals {
            if refusal.is_alarm() {
                return Err(Error::Refused { witness, refusal });
            }
            tracing::warn!(%witness, %refusal, "cannot say whether the log has lost its end");
        }
        if cosigners.is_required() && !asked.is_met {
            let (size, reason) = (self.floor.size, "the writer's disk was lost".to_owned());
            return Err(Error::Unwitnessed { size, reason });
        }
        Ok(())
    }

    /// Signs with another key from here on: the record that says so is signed by both. When it
    /// returns, the former key must not be used again; this writer has the new one.
    ///
    /// # Errors
    /// As [`Writer::append`]; the key is of another log, or was this log's before.
    pub async fn change_key(
        &mut self,
        next: impl Into<Signatory>,
        now_us: i64,
    ) -> Result<(), Error> {
        let next = next.into();
        self.settle().await?;
        let verifier = next.verifier();
        let key = verifier.to_string();
        if verifier.name() != self.key.name() || self.key.has(&verifier) {
            return Err(Error::OtherLog(key));
        }
        let draft = Draft::says(Kind::Key, &[(KEY, &key)]);
        self.commit_with(vec![draft], Some(&next), 0, None, now_us).await?;
        let keys = self.key.followed_by(self.floor.size, &verifier);
        self.key = keys.unwrap_or(verifier);
        self.signer = next;
        self.publish(now_us).await
    }

    /// Ends the log: nothing can be appended behind the record that says so.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub async fn close(mut self, says: &[(&str, &str)], now_us: i64) -> Result<u64, Error> {
        self.settle().await?;
        self.commit(vec![Draft::says(Kind::Close, says)], 0, None, now_us).await?;
        self.publish(now_us).await?;
        Ok(self.floor.size)
    }
}
