//! What a comparison that ignores case makes of a text.

/// Lowercases as both sides of a case-insensitive comparison are: one character for each, so that
/// `?` and the lengths of texts mean the same before and after, and whatever stands around. The
/// final sigma is a sigma; of `İ`, the only letter that is two in lower case, the dot goes.
pub fn lowercase(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let lower = |character: char| match character {
        'ς' => 'σ',
        _ => character.to_lowercase().next().unwrap_or(character),
    };
    text.chars().map(lower).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_stays_one() {
        for (text, lower) in
            [("AÄ", "aä"), ("ΣΊΣΥΦΟΣ", "σίσυφοσ"), ("ς", "σ"), ("xİY", "xiy"), ("ẞ\u{212a}", "ßk")]
        {
            assert_eq!(lowercase(text), lower, "{text}");
        }
        let is_two = |c: &char| c.to_lowercase().count() > 1;
        assert_eq!(('\0'..=char::MAX).filter(is_two).collect::<String>(), "İ");
    }
}
