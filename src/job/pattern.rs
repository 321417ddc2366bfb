//! Regular expressions as Python's `re` reads them.
//!
//! The linear-time engine takes what it can; only a pattern with look-around or backreferences goes to the
//! backtracking one, whose steps are bounded. Where Python and these engines mean different things by the same
//! characters, the pattern is rewritten: `$` also before a final line feed, `{` that begins no repetition, `[`
//! within a class, `\Z`, comments.

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Pattern(Engine);

#[derive(Debug, Clone)]
enum Engine {
    Linear(regex::Regex),
    // Boxed: it is several times as large.
    Backtracking(Box<fancy_regex::Regex>),
}

/// Steps after which the backtracking engine gives up.
const BACKTRACK_LIMIT: usize = 1_000_000;
/// Bytes that a compiled pattern may take.
const SIZE_LIMIT: usize = 4 * 1024 * 1024;
/// Bytes that a pattern may have.
const MAX_PATTERN: usize = 64 * 1024;

impl Pattern {
    /// Compiles a pattern in Python's syntax. The error is a sentence fragment for a person.
    pub fn new(pattern: &str, case_insensitive: bool) -> Result<Self, String> {
        if pattern.len() > MAX_PATTERN {
            return Err(format!("it is longer than {MAX_PATTERN} bytes"));
        }
        let (translated, backtracking) = translate(pattern)?;
        let linear = regex::RegexBuilder::new(&translated)
            .case_insensitive(case_insensitive)
            .size_limit(SIZE_LIMIT)
            .build();
        match linear {
            Ok(regex) => return Ok(Self(Engine::Linear(regex))),
            Err(regex::Error::CompiledTooBig(_)) => return Err("it is too large once compiled".to_owned()),
            Err(error) if !backtracking => return Err(last_line(&error.to_string())),
            Err(_) => {}
        }
        fancy_regex::RegexBuilder::new(&translated)
            .case_insensitive(case_insensitive)
            .backtrack_limit(BACKTRACK_LIMIT)
            .delegate_size_limit(SIZE_LIMIT)
            .build()
            .map(|regex| Self(Engine::Backtracking(Box::new(regex))))
            .map_err(|error| last_line(&error.to_string()))
    }

    /// Whether it is found anywhere in `text`, as `re.search` does.
    ///
    /// The error is that of the backtracking engine that gave up.
    pub fn is_in(&self, text: &str) -> Result<bool, String> {
        match &self.0 {
            Engine::Linear(regex) => Ok(regex.is_match(text)),
            Engine::Backtracking(regex) => regex
                .is_match(text)
                .map_err(|_| format!("the pattern needs more than {BACKTRACK_LIMIT} steps on this text")),
        }
    }
}

/// Messages of the regex crates show the pattern in several lines; the last one says what is wrong.
fn last_line(message: &str) -> String {
    let line = message
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or(message)
        .trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// The pattern in the engines' syntax, and whether only the backtracking one has what it needs.
fn translate(pattern: &str) -> Result<(String, bool), String> {
    let multi_line = has_multi_line_flag(pattern);
    let chars: Vec<char> = pattern.chars().collect();
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut backtracking = false;
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let rest = &chars[at..];
        let starts = |text: &str| text.chars().enumerate().all(|(index, c)| rest.get(index) == Some(&c));
        match c {
            '\\' => {
                let Some(&escaped) = rest.get(1) else {
                    return Err("it ends in a backslash".to_owned());
                };
                backtracking |= escaped.is_ascii_digit() && escaped != '0';
                match escaped {
                    'Z' => out.push_str("\\z"),
                    '0' => out.push_str("\\x00"),
                    _ => {
                        out.push('\\');
                        out.push(escaped);
                    }
                }
                at += 2;
            }
            '[' => at += class(rest, &mut out)?,
            '(' if starts("(?#") => {
                let end = rest
                    .iter()
                    .position(|c| *c == ')')
                    .ok_or("a comment in it is not closed")?;
                at += end + 1;
            }
            '(' if starts("(?(") => return Err("conditional groups `(?(…)…)` are not supported".to_owned()),
            '(' => {
                backtracking |= ["(?=", "(?!", "(?<=", "(?<!", "(?P=", "(?>"]
                    .iter()
                    .any(|look_around| starts(look_around));
                out.push('(');
                at += 1;
            }
            '$' => {
                out.push_str(if multi_line { "$" } else { "(?:\\n?\\z)" });
                at += 1;
            }
            '{' if !is_repetition(rest) => {
                out.push_str("\\{");
                at += 1;
            }
            '{' => {
                out.push('{');
                // `{,3}` is Python's alone.
                if rest.get(1) == Some(&',') {
                    out.push('0');
                }
                at += 1;
            }
            '}' => {
                out.push_str(if closes_repetition(&chars[..at]) { "}" } else { "\\}" });
                at += 1;
            }
            _ => {
                out.push(c);
                at += 1;
            }
        }
    }
    Ok((out, backtracking))
}

/// Copies a character class; the number of characters it takes.
fn class(rest: &[char], out: &mut String) -> Result<usize, String> {
    out.push('[');
    let mut at = 1;
    if rest.get(at) == Some(&'^') {
        out.push('^');
        at += 1;
    }
    let first = at;
    loop {
        match rest.get(at) {
            None => return Err("a character class `[` in it is not closed".to_owned()),
            Some(']') if at > first => {
                out.push(']');
                return Ok(at + 1);
            }
            Some('\\') => {
                let escaped = *rest.get(at + 1).ok_or("it ends in a backslash")?;
                match escaped {
                    '0' => out.push_str("\\x00"),
                    // In a class it is the backspace.
                    'b' => out.push_str("\\x08"),
                    _ => {
                        out.push('\\');
                        out.push(escaped);
                    }
                }
                at += 2;
            }
            // Python knows neither nested classes nor set operations.
            Some(&c) if matches!(c, '[' | ']' | '&' | '~') => {
                out.push('\\');
                out.push(c);
                at += 1;
            }
            Some('-') if rest.get(at + 1) == Some(&'-') => {
                out.push_str("\\-");
                at += 1;
            }
            Some(&c) => {
                out.push(c);
                at += 1;
            }
        }
    }
}

/// `{3}`, `{3,}`, `{,3}`, `{3,4}`.
fn is_repetition(rest: &[char]) -> bool {
    let Some(end) = rest.iter().position(|c| *c == '}') else {
        return false;
    };
    let inner = &rest[1..end];
    inner.iter().any(char::is_ascii_digit)
        && inner.iter().all(|c| c.is_ascii_digit() || *c == ',')
        && inner.iter().filter(|c| **c == ',').count() <= 1
}

fn closes_repetition(before: &[char]) -> bool {
    match before.iter().rposition(|c| *c == '{') {
        Some(start) => {
            let mut group: Vec<char> = before[start..].to_vec();
            group.push('}');
            is_repetition(&group) || is_named_escape(before, start)
        }
        None => false,
    }
}

/// `\p{…}`, `\x{…}`, `\u{…}`.
fn is_named_escape(before: &[char], brace: usize) -> bool {
    brace >= 2 && before[brace - 2] == '\\' && matches!(before[brace - 1], 'p' | 'P' | 'x' | 'u')
}

fn has_multi_line_flag(pattern: &str) -> bool {
    pattern.match_indices("(?").any(|(at, _)| {
        pattern[at + 2..]
            .chars()
            .take_while(|c| c.is_ascii_alphabetic())
            .any(|flag| flag == 'm')
            && pattern[at + 2..]
                .trim_start_matches(|c: char| c.is_ascii_alphabetic())
                .starts_with([')', ':', '-'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The third column is `bool(re.search(pattern, text))` of Python 3.
    #[test]
    fn patterns_search_as_in_python() {
        let table = [
            (r"^## \w+", "## Summary\n", true),
            (r"^## \w+", "x\n## Summary\n", false),
            (r"(?m)^## \w+", "x\n## Summary\n", true),
            (r"done$", "done\n", true),
            (r"done$", "done\nmore", false),
            (r"(?m)done$", "done\nmore", true),
            (r"done\Z", "done\n", false),
            (r"[0-9]{3}", "a 123", true),
            (r"{name}", "{name}", true),
            (r"\{x\}", "{x}", true),
            (r"a{,2}b", "aab", true),
            (r"x{a", "x{a", true),
            (r"[[]x[]]", "[x]", true),
            (r"[&&a]", "&", true),
            (r"[\w.-]+@", "a.b-c@", true),
            (r"(?i)DONE", "done", true),
            (r"(?P<a>x)(?P=a)", "xx", true),
            (r"(.)\1", "ab", false),
            (r"(.)\1", "abb", true),
            (r"(?<=a)b", "ab", true),
            (r"foo(?!bar)", "foobar", false),
            (r"(?#why)x", "x", true),
            (r"SEARCH_\d+_COMPLETE", "SEARCH_12_COMPLETE", true),
            (r"\-\_\/", "-_/", true),
            (r"é", "É", false),
            (r"(?s)a.b", "a\nb", true),
            (r"a.b", "a\nb", false),
            (r"^$", "", true),
            (r"", "", true),
        ];
        for (pattern, text, expected) in table {
            let compiled = Pattern::new(pattern, false).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(compiled.is_in(text), Ok(expected), "{pattern}");
        }
        assert_eq!(Pattern::new("rate.?limit", true).unwrap().is_in("Rate Limit"), Ok(true));
    }

    #[test]
    fn bad_patterns_are_told() {
        let table = [
            ("(", "unclosed group"),
            ("[a", "a character class `[` in it is not closed"),
            ("*", "repetition operator missing expression"),
            ("a\\", "it ends in a backslash"),
            ("(?(1)a|b)", "conditional groups `(?(…)…)` are not supported"),
            ("(?:(?:a{1000}){1000}){1000}", "it is too large once compiled"),
        ];
        for (pattern, expected) in table {
            assert_eq!(Pattern::new(pattern, false).unwrap_err(), expected, "{pattern}");
        }
        assert!(Pattern::new(&"a".repeat(MAX_PATTERN + 1), false).is_err());
    }

    #[test]
    fn a_pattern_that_explodes_ends() {
        let pattern = Pattern::new(r"(?=x)(x+x+)+y\1", false).unwrap();
        assert!(pattern.is_in(&"x".repeat(4000)).is_err());
    }
}
