//! Takes secrets out of text before it is kept or shown.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use crate::runner::fixed_regex;
use crate::runner::spec::Secrets;

const REDACTED: &str = "[redacted]";
/// A shorter value would take ordinary words out of the text.
const SHORTEST_SECRET: usize = 6;

/// What looks like a key of the API whoever set it, and what follows `Bearer`.
static KEYS: LazyLock<Regex> =
    LazyLock::new(|| fixed_regex(r"sk-ant-[A-Za-z0-9_-]{6,}|(?i:\bbearer\s+)[A-Za-z0-9._~+/=-]{16,}"));

/// The text without the values of these secrets, and without anything that looks like a key of the API.
pub fn redact<'a>(text: &'a str, secrets: &Secrets) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(text);
    let mut values: Vec<&str> = secrets
        .0
        .values()
        .map(|value| value.trim())
        .filter(|value| value.len() >= SHORTEST_SECRET)
        .collect();
    // A secret that contains another one is taken out first.
    values.sort_unstable_by_key(|value| std::cmp::Reverse(value.len()));
    for value in values {
        if text.contains(value) {
            text = Cow::Owned(text.replace(value, REDACTED));
        }
    }
    match KEYS.replace_all(&text, REDACTED) {
        Cow::Borrowed(_) => text,
        Cow::Owned(replaced) => Cow::Owned(replaced),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out() {
        let secrets = Secrets(
            [("A", "hunter22"), ("B", "hunter22-long"), ("C", "ab"), ("D", "")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        );
        let text = "a hunter22-long, hunter22; sk-ant-oat01-Abc_def-123, Authorization: Bearer abcdefghijklmnop1234 ab";
        assert_eq!(
            redact(text, &secrets),
            "a [redacted], [redacted]; [redacted], Authorization: [redacted] ab"
        );
        assert!(matches!(redact("nothing of it: sk-ant-", &secrets), Cow::Borrowed(_)));
    }
}
