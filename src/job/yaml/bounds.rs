//! What a job file may be, as far as that can be seen before the parser reads it: that turns the whole text into
//! events before it tells of the first.

use super::{Mark, NotYaml};

/// Bytes that a job file may have: 8 MiB.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Levels of lists and maps within each other.
pub(super) const MAX_DEPTH: usize = 64;
/// Nodes in all, each use of an alias counted anew.
pub(super) const MAX_NODES: usize = 50_000;
/// Lines; far more than any job needs, and a bound for what the parser keeps in memory.
pub(super) const MAX_LINES: usize = 200_000;
/// Characters that may open or separate nodes in flow style or on one line; the same bound for one long line.
const MAX_INDICATORS: usize = 50_000;
/// Brackets times indicators: the parser looks at every open bracket for each token, and whether a bracket is a
/// list or just a character of a text is not known before. Half a tenth of a second of work at most; the largest job
/// files seen need a fiftieth of it.
const MAX_BRACKET_WORK: usize = 50_000_000;
/// Bytes of one text: more than is ever sent, and what is larger has a file of its own.
pub(super) const MAX_TEXT: usize = 1024 * 1024;

/// What separates the parts of a line.
const BLANK: [char; 2] = [' ', '\t'];

/// The text of a file, where its size and encoding are right, and no text in it is too long.
pub(super) fn text_of(bytes: &[u8]) -> Result<&str, NotYaml> {
    let fail = |at, message: String| Err(NotYaml { at, message });
    if bytes.len() > MAX_BYTES {
        return fail(
            None,
            format!(
                "the file has {} bytes; a job file may have at most {MAX_BYTES} (8 MiB)",
                bytes.len()
            ),
        );
    }
    if bytes.is_empty() {
        return fail(None, "this is not YAML: the file is empty".to_owned());
    }
    if bytes.contains(&0) {
        let position = bytes.iter().take_while(|byte| **byte != 0).count();
        return fail(
            None,
            format!("this is not YAML: the file holds a NUL byte at byte {position}, it is probably binary"),
        );
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = bytes[..error.valid_up_to()]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            return fail(
                Some(beginning(line)),
                format!("this is not YAML: byte {} is not UTF-8 text", error.valid_up_to()),
            );
        }
    };
    match long_text(text) {
        Some(line) => fail(Some(beginning(line)), too_long()),
        None => Ok(text),
    }
}

/// Where a line begins that so many lines stand before.
fn beginning(lines: usize) -> Mark {
    Mark {
        line: u32::try_from(lines).unwrap_or(u32::MAX).saturating_add(1),
        column: 1,
    }
}

/// Bounds what the parser may have to keep: it reads the whole text into events before the first is looked at.
pub(super) fn check(text: &str, lines: usize) -> Result<(), NotYaml> {
    if lines > MAX_LINES {
        return Err(NotYaml {
            at: None,
            message: format!("the file has more than {MAX_LINES} lines"),
        });
    }
    // The parser would say only how many characters stand before it.
    let forbidden = |c: &char| (c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}')) || *c == '\u{feff}';
    let plain = |line: &str| line.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    if let Some((number, line)) = text
        .lines()
        .enumerate()
        .find(|(_, line)| !plain(line) && line.chars().any(|c| forbidden(&c)))
    {
        let column = line.chars().position(|c| forbidden(&c)).unwrap_or_default();
        let character = line.chars().find(forbidden).unwrap_or_default().escape_unicode();
        return Err(NotYaml {
            at: Some(Mark {
                column: u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1),
                ..beginning(number)
            }),
            message: format!("this is not YAML: the character {character} is not allowed"),
        });
    }
    // Each `- ` or `? ` at a line's beginning opens one level more.
    let levels = |line: &str| {
        line.split_ascii_whitespace()
            .take_while(|word| matches!(*word, "-" | "?"))
            .count()
    };
    if let Some(index) = text.lines().position(|line| levels(line) > MAX_DEPTH) {
        return Err(NotYaml {
            at: Some(beginning(index)),
            message: too_deep(),
        });
    }
    let bytes = text.as_bytes();
    let brackets = bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    let indicators = bytes.iter().enumerate().filter(|(index, byte)| match byte {
        b'[' | b'{' | b']' | b'}' | b',' => true,
        b'-' | b'?' | b':' => matches!(bytes.get(index + 1), None | Some(b' ' | b'\n' | b'\t')),
        _ => false,
    });
    let indicators = indicators.count();
    if indicators > MAX_INDICATORS {
        return Err(NotYaml {
            at: None,
            message: "the file has too many lists and maps for a job file".to_owned(),
        });
    }
    if brackets.saturating_mul(indicators) > MAX_BRACKET_WORK {
        let message = "the file has too many brackets; write long lists and maps with one item on each line";
        return Err(NotYaml {
            at: None,
            message: message.to_owned(),
        });
    }
    Ok(())
}

/// The line from which on a text is too long, as far as that can be seen without the parser, which would keep it
/// several times.
fn long_text(text: &str) -> Option<usize> {
    let mut open: Option<Text> = None;
    let mut bytes = 0;
    for (index, line) in text.lines().enumerate().take(MAX_LINES) {
        let before = open.map(|text| text.line);
        open = Text::behind(line, index, open);
        bytes = if open.is_some_and(|text| before == Some(text.line)) {
            bytes + line.len()
        } else {
            line.len()
        };
        if bytes > MAX_TEXT {
            return Some(open.map_or(index, |text| text.line));
        }
    }
    None
}

/// A text that is not over at the end of a line. Lists and maps in flow style are read loosely: what looks like a text
/// there is cut off by the next line that is indented less.
#[derive(Debug, Clone, Copy)]
struct Text {
    /// The line that it begins on, from 0.
    line: usize,
    until: Until,
}

#[derive(Debug, Clone, Copy)]
enum Until {
    /// Behind `|` or `>`: a line that is indented by fewer columns.
    Block(usize),
    /// Without quotes: that, or a line that begins a value or a comment, which such a text cannot hold.
    Plain(usize),
    /// A quote.
    Quote(char),
}

impl Text {
    /// The text that is open at the end of a line, where `open` was at its beginning.
    fn behind(line: &str, index: usize, open: Option<Self>) -> Option<Self> {
        let quoted = match open {
            Some(Self {
                line,
                until: Until::Quote(quote),
            }) => Some((quote, line)),
            Some(Self {
                until: Until::Block(least),
                ..
            }) if belongs(line, least) => return open,
            Some(Self {
                until: Until::Plain(least),
                ..
            }) if belongs(line, least) && !is_more(line) => return open,
            Some(_) | None => None,
        };
        if let Some((quote, line)) = open_quote(line, index, quoted) {
            let until = Until::Quote(quote);
            return Some(Self { line, until });
        }
        // Behind a quote that ends here no text without quotes begins.
        let until = if quoted.is_none() { begun(line) } else { None };
        until.map(|until| Self { line: index, until })
    }
}

/// Whether a line is indented by `least` columns, or empty.
fn belongs(line: &str, least: usize) -> bool {
    let inner = line.trim_start_matches(' ');
    inner.is_empty() || line.len() - inner.len() >= least
}

/// Whether a line holds what no text without quotes does.
fn is_more(line: &str) -> bool {
    value(line).is_some() || without_comment(line).len() < line.trim_end().len()
}

/// What stands behind the first key of a line, if it has one.
fn value(line: &str) -> Option<&str> {
    let ends = |at: &usize| matches!(line.as_bytes().get(at + 1), None | Some(b' ' | b'\t'));
    let at = line.match_indices(':').map(|(at, _)| at).find(ends)?;
    Some(line[at + 1..].trim_start_matches(BLANK))
}

fn without_comment(line: &str) -> &str {
    let comment = line.find(" #").or_else(|| line.find("\t#"));
    line[..comment.unwrap_or(line.len())].trim_end()
}

/// The quote that is open at the end of a line and the line it opened on, where `open` was at its beginning.
fn open_quote(line: &str, index: usize, mut open: Option<(char, usize)>) -> Option<(char, usize)> {
    if !line.contains(['"', '\'']) {
        return open;
    }
    let mut closed = None;
    // Where a value may begin: behind the dashes of a line, in a list or map in flow style, behind a key.
    let (mut begins, mut leads, mut flows) = (true, true, false);
    let mut before = ' ';
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (open, c) {
            (Some(('"', _)), '\\') => drop(chars.next()),
            (Some((quote, _)), _) if c == quote => {
                closed = open.take();
                begins = false;
            }
            (Some(_), _) => {}
            (None, '#') if BLANK.contains(&before) => return None,
            // Doubled, it stands for itself.
            (None, '\'') if before == c => open = closed,
            (None, '"' | '\'') if begins => open = Some((c, index)),
            (None, '&' | '!') if begins => {
                chars.find(|c| *c == ' ');
                before = ' ';
                continue;
            }
            (None, ' ' | '\t') => begins = begins || before == ':' || (leads && matches!(before, '-' | '?')),
            (None, ':') => begins = closed.is_some() && matches!(before, '"' | '\''),
            (None, ',') => begins = flows,
            (None, _) => {
                begins = matches!(c, '[' | '{');
                flows |= begins;
            }
        }
        leads &= matches!(c, ' ' | '-' | '?');
        before = c;
    }
    open
}

/// The text without quotes, or behind `|` or `>`, that begins on this line and may go on below it.
fn begun(line: &str) -> Option<Until> {
    let column = |rest: &str| line.len() - rest.len();
    let mut rest = line.trim_start_matches(BLANK);
    let mut least = column(rest);
    if least == 0 && ["---", "...", "%"].iter().any(|marker| rest.starts_with(marker)) {
        return None;
    }
    while let Some(item) = rest.strip_prefix("- ").or_else(|| rest.strip_prefix("? ")) {
        least = column(rest) + 1;
        rest = item.trim_start_matches(BLANK);
    }
    if let Some(value) = value(rest) {
        least = column(rest) + 1;
        rest = value;
    }
    while rest.starts_with(['&', '!']) {
        let (_, value) = rest.split_once(' ')?;
        rest = value.trim_start_matches(BLANK);
    }
    if rest.starts_with(['|', '>']) {
        return Some(Until::Block(least));
    }
    let rest = without_comment(rest);
    let no_text = matches!(rest, "" | "-" | "?")
        || rest.starts_with(['"', '\'', '[', ']', '{', '}', '*', '#'])
        || rest.ends_with([',', '[', '{', ':']);
    (!no_text).then_some(Until::Plain(least))
}

pub(super) fn too_deep() -> String {
    format!("lists and maps are nested more than {MAX_DEPTH} levels deep")
}

pub(super) fn too_long() -> String {
    "this text has more than 1 MiB; put it into a file of its own (`prompt.template_file`)".to_owned()
}
