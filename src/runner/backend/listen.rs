//! What a session's output tells before its end: that the API answers, and how it stands with the account's limits.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::claude_cli::{SYNTHETIC, Told, text, throttle};
use super::lines::{Events, Lines};
use crate::job::plan::BackendKind;
use crate::model::{Limit, LimitKind, Timestamp};
use crate::runner::fixed_regex;

/// No more is told of the limits of one session: they are windows of hours, so whatever changes more often is no limit.
const MOST: usize = 100;
/// A longer name is none.
const WINDOW_BYTES: usize = 64;

/// What an event that is worth a look must hold. Most of an output is neither, and far longer.
static WORTH: LazyLock<Regex> = LazyLock::new(|| fixed_regex(r#""type"\s*:\s*"(?:assistant|rate_limit_event)""#));

/// Something that was heard of a session at work.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// The API answered it; told once.
    Answered,
    /// How it stands with a limit; told where it is news.
    Limit {
        /// Which limit, and when it is over.
        limit: Limit,
        /// The session was refused because of it.
        refused: bool,
    },
}

/// Listens to the standard output of a session as it grows.
#[derive(Debug, Default)]
pub struct Listener {
    lines: Lines,
    heard: Memory,
}

#[derive(Debug, Default)]
struct Memory {
    events: Events,
    answered: bool,
    /// What was last told of each window.
    limits: BTreeMap<Option<String>, (bool, Option<Timestamp>)>,
    told: usize,
}

impl Listener {
    /// For a session of this kind; `None` where it tells nothing.
    pub fn new(kind: &BackendKind) -> Option<Self> {
        match kind {
            BackendKind::ClaudeCli(_) => Some(Self::default()),
            BackendKind::Command { .. } => None,
        }
    }

    /// What these bytes tell, in chunks of any size; only whole lines count.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Heard> {
        let Self { lines, heard } = self;
        let mut news = Vec::new();
        lines.feed(bytes, |line| heard.line(line, &mut news));
        news
    }

    /// The output begins anew: the session has cut it. What was told is not told again.
    pub fn begin_again(&mut self) {
        self.lines = Lines::default();
        self.heard.events = Events::default();
    }
}

impl Memory {
    fn line(&mut self, line: &[u8], news: &mut Vec<Heard>) {
        if !WORTH.is_match(&String::from_utf8_lossy(line)) {
            return;
        }
        for event in self.events.read(line) {
            match text(&event, "type").unwrap_or_default() {
                "assistant" if !self.answered && text(&event["message"], "model") != Some(SYNTHETIC) => {
                    self.answered = true;
                    news.push(Heard::Answered);
                }
                "rate_limit_event" => news.extend(self.limit(&event["rate_limit_info"])),
                _ => {}
            }
        }
    }

    fn limit(&mut self, info: &Value) -> Option<Heard> {
        let status = text(info, "status")?;
        if !(status == "rejected" || status.starts_with("allowed")) {
            return None;
        }
        // What is refused within the limit may be allowed beyond it.
        let refused = status == "rejected" && info["isUsingOverage"].as_bool() != Some(true);
        let Told { window, resets_at } = Told::of(info);
        let window = window.filter(|window| window.len() <= WINDOW_BYTES);
        let state = (refused, resets_at);
        if self.limits.get(&window) == Some(&state) || self.told == MOST {
            return None;
        }
        self.told += 1;
        self.limits.insert(window.clone(), state);
        let limit = if refused && resets_at.is_none() {
            throttle(None)
        } else {
            Limit {
                kind: LimitKind::Usage,
                window,
                resets_at,
                from_text: false,
                retry_after: None,
            }
        };
        Some(Heard::Limit { limit, refused })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn limit(info: Value) -> Value {
        json!({"uuid": "u", "rate_limit_info": info, "type": "rate_limit_event"})
    }

    fn says(model: &str, text: &str) -> Value {
        json!({"message": {"model": model, "content": [{"type": "text", "text": text}]}, "type": "assistant"})
    }

    fn lines(events: &[Value]) -> Vec<u8> {
        let line = |event: &Value| format!("{event}\n").into_bytes();
        events.iter().flat_map(line).collect()
    }

    fn heard(events: &[Value]) -> Vec<Heard> {
        Listener::default().feed(&lines(events))
    }

    /// Kind, window, reset in seconds, refused.
    type News<'a> = (LimitKind, Option<&'a str>, Option<i64>, bool);

    fn of(heard: &Heard) -> News<'_> {
        match heard {
            Heard::Answered => panic!("no limit"),
            Heard::Limit { limit, refused } => (
                limit.kind,
                limit.window.as_deref(),
                limit.resets_at.map(|at| at.0 / 1_000_000),
                *refused,
            ),
        }
    }

    fn session() -> Vec<Value> {
        vec![
            json!({"type": "system", "subtype": "init", "session_id": "5f0c"}),
            limit(json!({"status": "allowed", "resetsAt": 1_795_228_656, "rateLimitType": "five_hour"})),
            says("claude-opus-5-5", "I look at \"type\":\"rate_limit_event\"."),
            json!({"type": "user", "message": {"content": "{\"type\":\"assistant\"}"}}),
            limit(json!({"status": "allowed_warning", "resetsAt": 1_795_228_656, "rateLimitType": "five_hour"})),
            says("claude-opus-5-5", "Done."),
            limit(json!({"status": "rejected", "resetsAt": 1_795_228_656, "rateLimitType": "five_hour"})),
        ]
    }

    #[test]
    fn an_answer_is_told_once_and_a_limit_where_it_is_news() {
        let heard = heard(&session());
        assert_eq!(heard.len(), 3, "{heard:?}");
        assert_eq!(
            of(&heard[0]),
            (LimitKind::Usage, Some("five_hour"), Some(1_795_228_656), false)
        );
        assert_eq!(heard[1], Heard::Answered);
        assert_eq!(
            of(&heard[2]),
            (LimitKind::Usage, Some("five_hour"), Some(1_795_228_656), true)
        );
    }

    #[test]
    fn each_window_has_its_own_news() {
        let told = heard(&[
            limit(json!({"status": "allowed", "resetsAt": 1000, "rateLimitType": "five_hour"})),
            limit(json!({"status": "allowed", "resetsAt": 2000, "rateLimitType": "seven_day"})),
            limit(json!({"status": "allowed", "resetsAt": 1000, "rateLimitType": "five_hour"})),
            limit(json!({"status": "allowed", "resetsAt": 3000, "rateLimitType": "five_hour"})),
            limit(json!({"status": "rejected"})),
            // Beyond the limit, and paid for.
            limit(
                json!({"status": "rejected", "resetsAt": 2000, "rateLimitType": "seven_day", "isUsingOverage": true}),
            ),
            limit(json!({"status": "unheard of", "resetsAt": 4000})),
            limit(json!({"resetsAt": 4000})),
        ]);
        let expected = [
            (LimitKind::Usage, Some("five_hour"), Some(1000), false),
            (LimitKind::Usage, Some("seven_day"), Some(2000), false),
            (LimitKind::Usage, Some("five_hour"), Some(3000), false),
            (LimitKind::Throttle, None, None, true),
        ];
        assert_eq!(told.iter().map(of).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_error_of_the_clis_own_is_no_answer() {
        assert_eq!(heard(&[says(SYNTHETIC, "API Error: 529 Overloaded.")]), []);
        assert_eq!(
            heard(&[says(SYNTHETIC, "x"), says("claude-opus-5-5", "y")]),
            [Heard::Answered]
        );
    }

    #[test]
    fn an_output_that_begins_anew_tells_nothing_twice() {
        let mut listener = Listener::default();
        assert_eq!(listener.feed(&lines(&session())).len(), 3);
        assert_eq!(listener.feed(b"{\"type\":\"assis"), []);
        listener.begin_again();
        let again = lines(&session()[1..3]);
        // Only that it is allowed again is news.
        assert_eq!(listener.feed(&again).len(), 1);
        assert_eq!(listener.feed(&again), []);
    }

    #[test]
    fn a_limit_that_never_stays_the_same_is_not_told_for_ever() {
        let events: Vec<_> = (1..2000)
            .map(|at| limit(json!({"status": "rejected", "resetsAt": at, "rateLimitType": "x".repeat(at)})))
            .collect();
        assert_eq!(heard(&events).len(), MOST);
    }

    #[test]
    fn a_command_tells_nothing() {
        assert!(Listener::new(&BackendKind::Command { command: Vec::new() }).is_none());
    }

    proptest! {
        #[test]
        fn any_chunking_tells_the_same(cut in 1_usize..300) {
            let bytes = lines(&session());
            let mut listener = Listener::default();
            let told: Vec<_> = bytes.chunks(cut).flat_map(|chunk| listener.feed(chunk)).collect();
            prop_assert_eq!(told, heard(&session()));
        }
    }
}
