//! What is wrong with a rule: where, what, and what to do about it.

use std::path::PathBuf;

/// A fault in one document, before its file is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// 1-based line in the text that was read.
    pub line: usize,
    /// What is wrong and what to do, lower case, without the position.
    pub message: String,
}

impl Fault {
    /// A fault at a line.
    pub fn new(line: usize, message: impl Into<String>) -> Fault {
        Fault { line, message: message.into() }
    }
}

/// A fault with its file: what a user sees.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file as it was named.
    pub path: PathBuf,
    /// 1-based line.
    pub line: usize,
    /// What is wrong and what to do.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.message)
    }
}

impl std::error::Error for Problem {}

/// Returns the candidate that the word was probably meant to be, if one is close.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = 1 + word.chars().count() / 4;
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Returns ` (did you mean "…"?)`, or nothing when no candidate is close.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map(|hint| format!(" (did you mean {hint:?}?)")).unwrap_or_default()
}

/// The number of single-character edits between two words, case ignored; words are cut at 64
/// characters, so that a hostile name costs nothing.
fn distance(left: &str, right: &str) -> usize {
    let fold = |word: &str| -> Vec<char> {
        word.chars().take(64).map(|c| c.to_ascii_lowercase()).collect()
    };
    let (left, right) = (fold(left), fold(right));
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_what_was_meant() {
        let words = ["contains", "startswith", "endswith"];
        assert_eq!(nearest("contain", words), Some("contains"));
        assert_eq!(nearest("startwith", words), Some("startswith"));
        assert_eq!(nearest("cidr", words), None);
        assert_eq!(did_you_mean("endwith", words), " (did you mean \"endswith\"?)");
    }
}
