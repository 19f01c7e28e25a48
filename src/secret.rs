//! Secrets of far sides: read from a file or the environment when needed, never written down.

use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Where a secret is. Exactly one of the two is given.
///
/// What stands in place of the two is likely to be the secret itself, so no error repeats it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(remote = "Secret", deny_unknown_fields, default)]
pub struct Secret {
    /// A file that holds it; white space around it does not count. Read again at every connection,
    /// so that a rotated secret is taken up without a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A variable of the environment that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Secret::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        deserializer.deserialize_any(Place)
    }
}

/// Reads where a secret is, and repeats nothing else.
struct Place;

/// What is said of a secret that was written down.
const WRITTEN: &str = "a secret is not written here: give `{file: …}` or `{env: …}`";

impl<'de> Visitor<'de> for Place {
    type Value = Secret;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("`{file: …}` or `{env: …}`")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Secret, A::Error> {
        Secret::deserialize(MapAccessDeserializer::new(map))
    }

    fn visit_unit<E: Error>(self) -> Result<Secret, E> {
        Ok(Secret::default())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Secret, E> {
        Err(E::custom(WRITTEN))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Secret, E> {
        Err(E::custom(WRITTEN))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Secret, E> {
        Err(E::custom(WRITTEN))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Secret, E> {
        Err(E::custom(WRITTEN))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Secret, E> {
        Err(E::custom(WRITTEN))
    }
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
    fn a_secret_that_is_written_down_is_not_repeated() {
        for written in [r#""letmein""#, "4711", "-4711", "4.711", "true", r#"["letmein"]"#] {
            let error = serde_json::from_str::<Secret>(written).unwrap_err().to_string();
            assert!(error.contains("`{file: …}` or `{env: …}`"), "{error}");
            assert!(!error.contains("letmein") && !error.contains("711"), "{error}");
        }
        let env = Secret { env: Some("TOKEN".to_owned()), file: None };
        assert_eq!(serde_json::from_str::<Secret>(r#"{"env":"TOKEN"}"#).unwrap(), env);
        assert_eq!(serde_json::to_string(&env).unwrap(), r#"{"env":"TOKEN"}"#);
        assert!(serde_json::from_str::<Secret>(r#"{"enf":"TOKEN"}"#).is_err());
    }

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
