//! The one provider of cryptography for TLS.

/// Makes it the process's own, once; whoever makes a TLS client or server finds it then.
pub fn install() {
    // Whoever was first has installed the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
