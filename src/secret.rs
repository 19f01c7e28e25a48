//! Secrets of far sides: read from a file or the environment when needed, never written down.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a secret is. Exactly one of the two is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Secret {
    /// A file that holds it; white space around it does not count. Read again at every connection,
    /// so that a rotated secret is taken up without a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A variable of the environment that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
}

impl Secret {
    /// Refuses a reference to nothing, or to two things.
    ///
    /// # Errors
    /// A sentence that begins with `what` and says what to write.
    pub fn check(&self, what: &str) -> Result<(), String> {
        match (&self.file, &self.env) {
            (Some(_), None) | (None, Some(_)) => Ok(()),
            _ => Err(format!("{what}: give either `file` or `env`")),
        }
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// Where it was looked for and what is wrong there; never a part of it.
    pub fn read(&self, what: &str) -> Result<String, String> {
        self.check(what)?;
        let (text, place) = match (&self.file, &self.env) {
            (Some(file), _) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| format!("{what}: cannot read {}: {error}", file.display()))?;
                (text, file.display().to_string())
            }
            (None, name) => {
                let name = name.as_deref().unwrap_or_default();
                let text = std::env::var(name)
                    .map_err(|_| format!("{what}: the environment has no {name}"))?;
                (text, name.to_owned())
            }
        };
        let text = text.trim();
        if text.is_empty() {
            return Err(format!("{what}: {place} is empty"));
        }
        if text.chars().any(char::is_control) {
            return Err(format!("{what}: {place} holds more than one line"));
        }
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_line_of_one_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = folder.path().join("secret");
            std::fs::write(&path, text).unwrap();
            Secret { file: Some(path), env: None }.read("token")
        };
        assert_eq!(file(" s3cret\n").unwrap(), "s3cret");
        assert!(file("\n").unwrap_err().ends_with("is empty"));
        assert!(file("a\nX-Forged: b").unwrap_err().ends_with("more than one line"));
        let missing = Secret { file: Some("/none".into()), env: None }.read("token").unwrap_err();
        assert!(missing.starts_with("token: cannot read /none: "), "{missing}");
        assert!(Secret::default().read("token").unwrap_err().contains("either `file` or `env`"));
        let env = Secret { file: None, env: Some("KUBEWITNESS_NO_SUCH".into()) };
        assert!(env.read("token").unwrap_err().contains("has no KUBEWITNESS_NO_SUCH"));
    }
}
