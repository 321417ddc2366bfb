//! Cuts a byte stream into lines, whatever the chunks, and mends what is known to happen to lines of the CLI.

use serde_json::Value;

/// A longer line is skipped as it comes, so that no output can fill the memory.
pub(super) const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// Lines of a stream that arrives in chunks of any size.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
    skipping: bool,
}

impl Lines {
    /// Takes the next bytes and hands every finished line, without its line feed, to `line`.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = bytes.split_at(end);
            bytes = rest.get(1..).unwrap_or_default();
            if std::mem::take(&mut self.skipping) || self.partial.len() + head.len() > LONGEST_LINE {
                self.partial.clear();
            } else if self.partial.is_empty() {
                line(head);
            } else {
                self.partial.extend_from_slice(head);
                line(&std::mem::take(&mut self.partial));
            }
        }
        if self.skipping || self.partial.len() + bytes.len() > LONGEST_LINE {
            self.skipping = true;
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    /// Hands out what came after the last line feed.
    pub(super) fn finish(&mut self, line: impl FnOnce(&[u8])) {
        let rest = std::mem::take(&mut self.partial);
        if !rest.is_empty() && !self.skipping {
            line(&rest);
        }
    }
}

/// Reads the events of a stream-json line.
///
/// The CLI was seen to write a `rate_limit_event`, line feed and all, into the middle of another line: the event is
/// taken out, and the two halves of the other line are put together again.
#[derive(Debug, Default)]
pub(super) struct Events {
    half: Vec<u8>,
}

impl Events {
    const INJECTED: &'static [u8] = br#"{"type":"rate_limit_event""#;

    /// The events of one line, in order; empty where it holds none.
    pub(super) fn read(&mut self, line: &[u8]) -> Vec<Value> {
        let half = std::mem::take(&mut self.half);
        if let Some(events) = parse(line) {
            return events;
        }
        if !half.is_empty() && half.len() + line.len() <= LONGEST_LINE {
            let whole = [half.as_slice(), line].concat();
            if let Some(events) = parse(&whole) {
                return events;
            }
        }
        let Some(at) = find(line, Self::INJECTED).filter(|at| *at > 0) else {
            return Vec::new();
        };
        let (before, injected) = line.split_at(at);
        let mut values = serde_json::Deserializer::from_slice(injected).into_iter::<Value>();
        let Some(Ok(event)) = values.next() else {
            return Vec::new();
        };
        let after = injected.get(values.byte_offset()..).unwrap_or_default();
        let mut events = vec![event];
        let rest = [before, after].concat();
        match parse(&rest) {
            Some(more) => events.extend(more),
            None => self.half = rest,
        }
        events
    }
}

/// An object, or a list of objects (`--output-format json --verbose` prints one).
fn parse(line: &[u8]) -> Option<Vec<Value>> {
    match serde_json::from_slice(line).ok()? {
        Value::Array(events) => Some(events),
        event @ Value::Object(_) => Some(vec![event]),
        _ => None,
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The end of a stream, at most so many bytes.
#[derive(Debug)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    keep: usize,
}

impl Tail {
    pub(super) fn new(keep: usize) -> Self {
        Self {
            bytes: Vec::new(),
            keep,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let start = bytes.len().saturating_sub(self.keep);
        self.bytes.extend_from_slice(bytes.get(start..).unwrap_or_default());
        // Cut rarely: each byte is moved at most once for each one that came.
        if self.bytes.len() > self.keep.saturating_mul(2) {
            self.bytes.drain(..self.bytes.len() - self.keep);
        }
    }

    pub(super) fn text(&self) -> String {
        let start = self.bytes.len().saturating_sub(self.keep);
        String::from_utf8_lossy(self.bytes.get(start..).unwrap_or_default()).into_owned()
    }
}

/// The last `most` bytes of a text, cut at a character; whole where it is shorter.
pub(super) fn end_of(text: &str, most: usize) -> &str {
    let mut start = text.len().saturating_sub(most);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, |line| seen.push(line.to_vec()));
        }
        lines.finish(|line| seen.push(line.to_vec()));
        seen
    }

    #[test]
    fn chunks_do_not_matter() {
        let expected: Vec<Vec<u8>> = vec![b"one".into(), b"".into(), b"two".into()];
        assert_eq!(lines_of(&[b"one\n\ntwo"]), expected);
        assert_eq!(lines_of(&[b"o", b"ne", b"\n", b"\ntw", b"", b"o\n"]), expected);
    }

    #[test]
    fn an_endless_line_is_skipped_and_the_next_is_read() {
        let chunk = vec![b'x'; 1024 * 1024];
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for _ in 0..40 {
            lines.feed(&chunk, |line| seen.push(line.to_vec()));
            assert!(lines.partial.len() <= LONGEST_LINE);
        }
        lines.feed(b"rest\nnext\n", |line| seen.push(line.to_vec()));
        assert_eq!(seen, vec![b"next".to_vec()]);
    }

    #[test]
    fn an_event_inside_another_line_breaks_neither() {
        let injected = r#"{"type":"rate_limit_event","rate_limit_info":{"status":"allowed"}}"#;
        let other = r#"{"type":"result","result":"all done"}"#;
        let (head, tail) = other.split_at(20);
        for text in [
            format!("{head}{injected}\n{tail}\n"),
            format!("{head}{injected}{tail}\n"),
        ] {
            let mut events = Events::default();
            let seen: Vec<Value> = text.lines().flat_map(|line| events.read(line.as_bytes())).collect();
            let kinds: Vec<_> = seen.iter().map(|event| event["type"].as_str().unwrap()).collect();
            assert_eq!(kinds, ["rate_limit_event", "result"], "{text}");
            assert_eq!(seen[1]["result"], "all done");
        }
    }

    #[test]
    fn garbage_is_no_event() {
        let mut events = Events::default();
        for line in ["", "hello", "17", "\"x\"", "{", "{\"a\":", "null"] {
            assert!(events.read(line.as_bytes()).is_empty(), "{line}");
        }
        assert_eq!(events.read(b"[{\"type\":\"a\"},{\"type\":\"b\"}]").len(), 2);
    }

    #[test]
    fn tails_keep_the_end() {
        let mut tail = Tail::new(4);
        for chunk in ["abc", "defghij", "", "k"] {
            tail.push(chunk.as_bytes());
        }
        assert_eq!(tail.text(), "hijk");
        assert_eq!(end_of("aäö", 3), "ö");
        assert_eq!(end_of("ab", 3), "ab");
    }
}
