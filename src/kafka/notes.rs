//! What librdkafka tells a client beside answers: logs, troubles, requests for a token.

use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

use crate::clock;
use crate::secret::Secret;

/// Why a client cannot get on, as librdkafka says.
pub(crate) type Trouble = (RDKafkaErrorCode, String);

/// Remembers the last trouble, and has the token.
#[derive(Default)]
pub(crate) struct Notes {
    trouble: Mutex<Option<Trouble>>,
    token: Option<Secret>,
}

impl Notes {
    /// Answers requests for a token from this secret.
    pub(crate) fn new(token: Option<Secret>) -> Notes {
        Notes { trouble: Mutex::default(), token }
    }

    /// The last trouble since it was asked for.
    pub(crate) fn take_trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Notes {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // What is set is no choice of the user's: nobody can act on a word about it.
            _ if facility == "CONFWARN" => tracing::debug!(facility, "{message}"),
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::debug!(facility, "{message}");
            }
            _ => tracing::warn!(facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        // An alert of the far side about certificates comes as a failed read.
        let code = if reason.contains("SSL routines") { RDKafkaErrorCode::SSL } else { code };
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        // That all brokers are gone says less than why one is.
        if code != RDKafkaErrorCode::AllBrokersDown || trouble.is_none() {
            *trouble = Some((code, reason.to_owned()));
        }
    }

    fn generate_oauth_token(
        &self,
        _config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let secret = self.token.as_ref().ok_or("no token is configured")?;
        let token = secret.read("sasl.token")?;
        let (subject, expires_s) = claims(&token);
        // A token that says nothing of its end is read again soon.
        let lifetime_ms =
            expires_s.map_or(clock::now_us() / 1_000 + 300_000, |at| at.saturating_mul(1_000));
        Ok(OAuthToken { token, principal_name: subject.unwrap_or_default(), lifetime_ms })
    }
}

impl ConsumerContext for Notes {}

impl ProducerContext for Notes {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// The subject of a JSON web token and when it ends, in seconds since the epoch; nothing of it is
/// verified here.
fn claims(token: &str) -> (Option<String>, Option<i64>) {
    #[derive(Default, serde::Deserialize)]
    struct Claims {
        sub: Option<String>,
        exp: Option<i64>,
    }
    let payload = token.split('.').nth(1).unwrap_or_default();
    let json = BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).unwrap_or_default();
    let claims: Claims = serde_json::from_slice(&json).unwrap_or_default();
    (claims.sub, claims.exp)
}
