//! What is a secret, and how it is kept out of what is stored or shown.

/// Words that a variable's name has if its value is a secret.
const WORDS: &[&str] = &[
    "TOKEN",
    "SECRET",
    "SECRETS",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "PASSWORDS",
    "CREDENTIAL",
    "CREDENTIALS",
    "APIKEY",
    "PAT",
    "PWD",
    "AUTH",
    "KEY",
    "KEYS",
    "COOKIE",
    "DSN",
];
/// Names that hold such a word and are no secret.
const HARMLESS: &[&str] = &["PWD", "OLDPWD", "SSH_AUTH_SOCK", "XAUTHORITY"];

/// Whether the value of a variable of that name is to be treated as a secret: never stored, never shown.
pub fn looks_secret(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    if HARMLESS.contains(&upper.as_str()) || ["_FILE", "_PATH", "_DIR"].iter().any(|end| upper.ends_with(end)) {
        return false;
    }
    let joined = upper.replace(['-', '.'], "_");
    joined.split('_').any(|word| WORDS.contains(&word))
        || ["TOKEN", "SECRET", "PASSWORD", "APIKEY"]
            .iter()
            .any(|end| joined.ends_with(end))
}

/// `text` with every one of `secrets` (at least 6 bytes long) replaced by `[redacted]`.
///
/// Shorter values are left: they are in every text by chance.
pub fn redact<'s>(text: &str, secrets: impl IntoIterator<Item = &'s str>) -> String {
    let mut secrets: Vec<&str> = secrets
        .into_iter()
        .map(str::trim)
        .filter(|secret| secret.len() >= 6)
        .collect();
    // Longest first, so that a secret which holds another one goes as a whole.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let mut text = text.to_owned();
    for secret in secrets {
        if text.contains(secret) {
            text = text.replace(secret, "[redacted]");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_told_from_others() {
        for secret in [
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_AUTH_TOKEN",
            "CLAUDE_CODE_OAUTH_TOKEN",
            "GITHUB_TOKEN",
            "db_password",
            "AWS_SECRET_ACCESS_KEY",
            "MY-SECRET",
            "apikey",
            "GITHUBTOKEN",
            "NPM_PAT",
        ] {
            assert!(looks_secret(secret), "{secret}");
        }
        for harmless in [
            "PATH",
            "PWD",
            "LANG",
            "KEYBOARD",
            "SSH_AUTH_SOCK",
            "TOKENIZERS_PARALLELISM",
            "MAX_THINKING_TOKENS",
            "SSL_CERT_FILE",
            "KEY_PATH",
            "AUTHOR",
            "PATTERN",
        ] {
            assert!(!looks_secret(harmless), "{harmless}");
        }
    }

    #[test]
    fn secrets_are_taken_out_whole() {
        assert_eq!(
            redact(
                "a sk-123456-78 b sk-123456 c short",
                ["sk-123456", "sk-123456-78", "short"]
            ),
            "a [redacted] b [redacted] c short"
        );
        assert_eq!(redact("nothing", []), "nothing");
    }
}
