//! The client for services that speak HTTP, and what they answer: bounded in time and size.

use std::path::Path;
use std::time::Duration;

use crate::telemetry::chain;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A client that follows no redirection and waits for no longer than `timeout`; only those in
/// `ca_file` (PEM) may vouch for servers, where there is one, else the system's authorities.
///
/// # Errors
/// The certificates cannot be used.
pub(crate) fn client(timeout: Duration, ca_file: Option<&Path>) -> Result<reqwest::Client, String> {
    crate::tls::install();
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .timeout(timeout);
    if let Some(path) = ca_file {
        let wrong = |error: &dyn std::error::Error| format!("{}: {}", path.display(), chain(error));
        let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
        let bundle = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| wrong(&error))?;
        if bundle.is_empty() {
            return Err(format!("{} holds no certificate", path.display()));
        }
        builder = builder.tls_certs_only(bundle);
    }
    builder.build().map_err(|error| chain(&error))
}

/// Status and body of an answer; why there is none.
pub(crate) async fn exchange(
    client: &reqwest::Client,
    request: reqwest::Request,
) -> Result<(u16, Vec<u8>), String> {
    // Without the URL: whoever asked says where.
    let failed = |error: reqwest::Error| chain(&error.without_url());
    let response = client.execute(request).await.map_err(failed)?;
    Ok((response.status().as_u16(), body(response).await?))
}

/// The body of an answer.
pub(crate) async fn body(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let failed = |error: reqwest::Error| chain(&error.without_url());
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(failed)? {
        if body.len() + part.len() > ANSWER_BYTES_MAX {
            return Err("its answer is too long".to_owned());
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}
