//! YAML text to nodes with positions: the only place that uses `serde_yaml`.
//!
//! `serde_yaml` gives values without positions, but every error that a visitor raises carries the position of
//! the scalar it was raised at. So the visitor here keeps each scalar aside and then fails on purpose; the
//! parent catches the failure, reads the position from it and goes on with the next element. One pass gives the
//! whole tree with line and column of every scalar; a list or map stands where its first scalar stands.
//!
//! Plain scalars are resolved once more by the rules of YAML 1.1, because that is what PyYAML does and what
//! existing job files rely on (`yes`, `012`, `1:30`). Merge keys are applied, duplicate keys are reported.
//!
//! The input is hostile: its size, depth and number of nodes (aliases expanded) are bounded.

mod bounds;
mod scalar;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::value::Value;
use bounds::{MAX_DEPTH, MAX_LINES, MAX_NODES, MAX_TEXT, too_deep, too_long};
use scalar::{Source, resolve};

pub use bounds::MAX_BYTES;
pub use scalar::plain;

/// Characters between two known byte offsets.
const STRIDE: usize = 64;

/// A place in the text, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// Line.
    pub line: u32,
    /// Column in characters.
    pub column: u32,
}

impl Mark {
    /// The beginning of the text.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stands; for a list or a map its first scalar.
    pub at: Mark,
    /// What it is.
    pub kind: Kind,
}

/// The kinds of nodes.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Anything that is neither a list nor a map.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map in the file's order, merge keys applied, keys unique.
    Map(Vec<(Node, Node)>),
}

/// A scalar as written and as meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    /// The value by YAML 1.1; never a list or a map.
    pub value: Value,
    /// The text between the quotes, or as written where there are none.
    pub raw: String,
    /// YAML 1.2 would read it differently: what that would be, in words.
    pub ambiguous: Option<&'static str>,
    /// It stands on a line of its own behind `|`, so that its lines are the file's: line of its first line.
    pub block_line: Option<u32>,
}

/// A fault that does not keep the rest of the text from being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub at: Mark,
    /// What, one sentence.
    pub message: String,
}

/// What was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The whole.
    pub root: Node,
    /// Duplicate keys, wrong merge keys.
    pub faults: Vec<Fault>,
}

/// The text is no YAML that a job file may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotYaml {
    /// Where, if it is at one place.
    pub at: Option<Mark>,
    /// What is wrong, one sentence.
    pub message: String,
}

impl Node {
    /// The scalar, where it is one.
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(scalar),
            Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// The text, where it is a text.
    pub fn text(&self) -> Option<&str> {
        match &self.scalar()?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is `null` or nothing.
    pub fn is_null(&self) -> bool {
        matches!(self.scalar(), Some(Scalar { value: Value::Null, .. }))
    }

    /// The entries, where it is a map.
    pub fn map(&self) -> Option<&[(Self, Self)]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            Kind::Scalar(_) | Kind::List(_) => None,
        }
    }

    /// The items, where it is a list.
    pub fn list(&self) -> Option<&[Self]> {
        match &self.kind {
            Kind::List(items) => Some(items),
            Kind::Scalar(_) | Kind::Map(_) => None,
        }
    }

    /// The value under the text key `name`, where it is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.map()?
            .iter()
            .find(|(key, _)| key.text() == Some(name))
            .map(|(_, value)| value)
    }

    /// The value at a path of text keys such as `retry.max_retries`.
    pub fn get_path(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |node, key| node.get(key))
    }

    /// The value without positions.
    pub fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(scalar) => scalar.value.clone(),
            Kind::List(items) => Value::List(items.iter().map(Self::to_value).collect()),
            Kind::Map(entries) => Value::Map(
                entries
                    .iter()
                    .map(|(key, value)| (key.to_value(), value.to_value()))
                    .collect(),
            ),
        }
    }

    /// What it is, for messages: `a list`, `the text "x"`, …
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
            Kind::Scalar(scalar) => match &scalar.value {
                Value::Null => "nothing".to_owned(),
                Value::Bool(value) => format!("the boolean {value}"),
                Value::Int(value) => format!("the number {value}"),
                Value::Float(value) => format!("the number {value}"),
                _ => {
                    let mut short: String = scalar.raw.chars().take(40).collect();
                    if short.len() < scalar.raw.len() {
                        short.push('…');
                    }
                    format!("the text {short:?}")
                }
            },
        }
    }
}

/// Reads one YAML document.
///
/// The error says why the bytes are no YAML (or more of it than a job file may have): empty, binary, not UTF-8,
/// a syntax error, several documents, a tag of the writer's own, too large, too deep, too many nodes.
pub fn read(bytes: &[u8]) -> Result<Document, NotYaml> {
    let text = bounds::text_of(bytes)?;
    let lines = Lines::of(text);
    bounds::check(text, lines.starts.len())?;
    let reader = Reader {
        lines,
        state: RefCell::default(),
    };
    let outcome = Seed {
        reader: &reader,
        depth: 0,
    }
    .deserialize(serde_yaml::Deserializer::from_str(text));
    let root = match outcome {
        Ok(node) => Some(node),
        // A document that is a single scalar fails like every scalar.
        Err(error) => match reader.caught(&error) {
            Some(node) => Some(node),
            None => return Err(reader.not_yaml(&error)),
        },
    };
    match root {
        Some(root) if !root.is_null() => Ok(Document {
            root,
            faults: reader.state.into_inner().faults,
        }),
        _ => Err(NotYaml {
            at: None,
            message: "this is not YAML: the file holds nothing".to_owned(),
        }),
    }
}

/// The text by lines, as libyaml counts them, with every place found in constant time.
struct Lines<'t> {
    text: &'t str,
    /// Number of the character that each line begins with.
    starts: Vec<usize>,
    /// Byte offset of every [`STRIDE`]th character.
    offsets: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let mut starts = vec![0];
        let mut offsets = Vec::with_capacity(text.len() / STRIDE + 1);
        let mut chars = text.char_indices().enumerate().peekable();
        while let Some((number, (offset, character))) = chars.next() {
            if number.is_multiple_of(STRIDE) {
                offsets.push(offset);
            }
            let followed_by_feed = matches!(chars.peek(), Some((_, (_, '\n'))));
            if matches!(character, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
                || (character == '\r' && !followed_by_feed)
            {
                starts.push(number + 1);
                if starts.len() > MAX_LINES {
                    break;
                }
            }
        }
        Self { text, starts, offsets }
    }

    /// The text before that place.
    fn before(&self, at: Mark) -> &'t str {
        let end = self.text.len().saturating_sub(self.from(at).len());
        self.text.get(..end).unwrap_or("")
    }

    /// The text from that place on.
    fn from(&self, at: Mark) -> &'t str {
        let before = |number: u32| usize::try_from(number).unwrap_or(usize::MAX).saturating_sub(1);
        let Some(start) = self.starts.get(before(at.line)) else {
            return "";
        };
        let character = start.saturating_add(before(at.column));
        let Some(offset) = self.offsets.get(character / STRIDE) else {
            return "";
        };
        let rest = self.text.get(*offset..).unwrap_or("");
        rest.char_indices()
            .nth(character % STRIDE)
            .map_or("", |(offset, _)| rest.get(offset..).unwrap_or(""))
    }
}

/// What the visitor knows beside the events.
struct Reader<'t> {
    lines: Lines<'t>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// The scalar whose visitor has just failed on purpose.
    caught: Option<Typed>,
    /// Why reading must end, where it is Mozart's own reason.
    refused: Option<String>,
    nodes: usize,
    faults: Vec<Fault>,
}

/// A scalar as `serde_yaml` types it (YAML 1.2).
enum Typed {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

impl Reader<'_> {
    /// The scalar that failed on purpose with `error`, now with its place; `None`: it is a real error.
    fn caught(&self, error: &impl fmt::Display) -> Option<Node> {
        let typed = self.state.borrow_mut().caught.take()?;
        let at = position(&error.to_string());
        let source = Source::at(self.lines.from(at));
        if let Some(tag) = source.foreign_tag {
            self.foreign_tag(at, tag);
        }
        let scalar = resolve(typed, &source.style, at);
        Some(Node {
            at,
            kind: Kind::Scalar(scalar),
        })
    }

    fn not_yaml(&self, error: &serde_yaml::Error) -> NotYaml {
        let at = error.location().map(|location| Mark {
            line: u32::try_from(location.line()).unwrap_or(u32::MAX),
            column: u32::try_from(location.column()).unwrap_or(u32::MAX),
        });
        let message = match self.state.borrow_mut().refused.take() {
            Some(message) => message,
            None => {
                let text = error.to_string();
                match text.as_str() {
                    _ if text.starts_with("recursion limit") => too_deep(),
                    _ if text.starts_with("repetition limit") => too_many(),
                    _ if text.contains("more than one document") => {
                        "the file holds more than one YAML document; a job file is one".to_owned()
                    }
                    _ => format!("this is not YAML: {}", without_position(&text)),
                }
            }
        };
        NotYaml { at, message }
    }

    /// Ends reading for a reason of Mozart's own.
    fn refuse<E: de::Error>(&self, message: String) -> E {
        self.state.borrow_mut().refused.get_or_insert(message);
        E::custom("refused")
    }

    /// Keeps a scalar aside and fails, so that its place is told.
    fn keep<E: de::Error>(&self, typed: Typed) -> E {
        self.state.borrow_mut().caught = Some(typed);
        E::custom("scalar")
    }

    fn fault(&self, at: Mark, message: String) {
        self.state.borrow_mut().faults.push(Fault { at, message });
    }

    fn foreign_tag(&self, at: Mark, tag: &str) {
        let tag: String = tag.chars().take(80).collect();
        self.fault(at, format!("the tag `{tag}` has no meaning in a job file"));
    }

    /// Complains of a tag in front of a list or map, whose first scalar stands there after one `opener`: the parser
    /// does not hand it out where it begins with `!!`.
    fn check_tag(&self, first: Option<&Node>, opener: &[char]) {
        let Some(first) = first else { return };
        let before = self.lines.before(first.at).trim_end();
        let before = before.strip_suffix(opener).unwrap_or(before).trim_end();
        let mut words = before.rsplit(char::is_whitespace);
        let word = words
            .next()
            .filter(|word| !word.starts_with('&'))
            .or_else(|| words.next());
        if let Some(tag) = word.filter(|word| word.starts_with("!!") && !word.ends_with(':'))
            && !matches!(tag, "!!map" | "!!seq")
        {
            self.foreign_tag(first.at, tag);
        }
    }
}

fn too_many() -> String {
    format!("the file makes more than {MAX_NODES} values once its aliases are expanded")
}

/// The place at the end of a `serde_yaml` error text; the text's beginning where it has none.
fn position(error: &str) -> Mark {
    let parse = || {
        let (before, column) = error.rsplit_once(" column ")?;
        let (_, line) = before.rsplit_once(" line ")?;
        Some(Mark {
            line: line.parse().ok()?,
            column: column.parse().ok()?,
        })
    };
    parse().unwrap_or(Mark::START)
}

/// A parser message without the position that the caller shows anyway.
fn without_position(text: &str) -> &str {
    match text.find(" at line ") {
        Some(end) => &text[..end],
        None => text,
    }
}

/// Reads one node of the event stream.
#[derive(Clone, Copy)]
struct Seed<'r, 't> {
    reader: &'r Reader<'t>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        {
            let mut state = self.reader.state.borrow_mut();
            state.nodes += 1;
            if state.nodes > MAX_NODES {
                drop(state);
                return Err(self.reader.refuse(too_many()));
            }
        }
        if self.depth > MAX_DEPTH {
            return Err(self.reader.refuse(too_deep()));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Err(self.reader.keep(Typed::Null))
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        Err(self.reader.keep(Typed::Null))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        Err(self.reader.keep(Typed::Bool(value)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        Err(self.reader.keep(Typed::Int(value)))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        Err(self
            .reader
            .keep(i64::try_from(value).map_or(Typed::Float(value as f64), Typed::Int)))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        Err(self.reader.keep(Typed::Float(value as f64)))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        Err(self.reader.keep(Typed::Float(value as f64)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        Err(self.reader.keep(Typed::Float(value)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        if value.len() > MAX_TEXT {
            return Err(self.reader.refuse(too_long()));
        }
        Err(self.reader.keep(Typed::Text(value.to_owned())))
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(self
            .reader
            .refuse("a tag such as `!name` has no meaning in a job file".to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let child = Self {
            depth: self.depth + 1,
            ..self
        };
        let mut items = Vec::new();
        loop {
            match access.next_element_seed(child) {
                Ok(Some(node)) => items.push(node),
                Ok(None) => break,
                Err(error) => items.push(self.reader.caught(&error).ok_or(error)?),
            }
        }
        self.reader.check_tag(items.first(), &['[', '-']);
        let at = items.first().map_or(Mark::START, |item: &Node| item.at);
        Ok(Node {
            at,
            kind: Kind::List(items),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let child = Self {
            depth: self.depth + 1,
            ..self
        };
        let mut own = Entries::default();
        let mut merged = Entries::default();
        loop {
            let key = match access.next_key_seed(child) {
                Ok(Some(key)) => key,
                Ok(None) => break,
                Err(error) => self.reader.caught(&error).ok_or(error)?,
            };
            let mut value = match access.next_value_seed(child) {
                Ok(value) => value,
                Err(error) => self.reader.caught(&error).ok_or(error)?,
            };
            if matches!(&value.kind, Kind::List(items) if items.is_empty())
                || matches!(&value.kind, Kind::Map(entries) if entries.is_empty())
            {
                value.at = key.at;
            }
            if own.list.is_empty() && merged.list.is_empty() {
                self.reader.check_tag(Some(&key), &['{']);
            }
            if is_merge(&key) {
                self.merge(&key, value, &mut merged);
            } else {
                self.insert(&mut own, key, value);
            }
        }
        let at = own
            .list
            .first()
            .or(merged.list.first())
            .map_or(Mark::START, |(key, _): &(Node, Node)| key.at);
        Ok(Node {
            at,
            kind: Kind::Map(with_merged(own, merged)),
        })
    }
}

/// Entries of a map under construction, in order, with an index by key.
#[derive(Default)]
struct Entries {
    list: Vec<(Node, Node)>,
    by_key: BTreeMap<String, usize>,
}

impl Entries {
    /// Puts an entry at the end; the earlier one with that key, where there is one.
    fn add(&mut self, key: Node, value: Node) -> Result<(), &mut (Node, Node)> {
        match self.by_key.entry(key.to_value().python_repr()) {
            Entry::Occupied(index) => Err(&mut self.list[*index.get()]),
            Entry::Vacant(slot) => {
                slot.insert(self.list.len());
                self.list.push((key, value));
                Ok(())
            }
        }
    }
}

impl Seed<'_, '_> {
    fn insert(&self, entries: &mut Entries, key: Node, value: Node) {
        let Some(scalar) = key.scalar() else {
            self.reader.fault(key.at, "a list or a map cannot be a key".to_owned());
            return;
        };
        let (at, raw) = (key.at, scalar.raw.clone());
        if let Err((first, _)) = entries.add(key, value) {
            let line = first.at.line;
            self.reader.fault(
                at,
                format!("the key `{raw}` stands here twice; it stood on line {line} already"),
            );
        }
    }

    /// Takes in the maps that a `<<` names; earlier ones win over later ones.
    fn merge(&self, key: &Node, value: Node, merged: &mut Entries) {
        let maps = match value.kind {
            Kind::Map(entries) => vec![entries],
            Kind::List(items) if items.iter().all(|item| item.map().is_some()) => items
                .into_iter()
                .filter_map(|item| {
                    if let Kind::Map(entries) = item.kind {
                        Some(entries)
                    } else {
                        None
                    }
                })
                .collect(),
            Kind::List(_) | Kind::Scalar(_) => {
                self.reader
                    .fault(key.at, "`<<` takes a map or a list of maps".to_owned());
                return;
            }
        };
        for (key, value) in maps.into_iter().flatten() {
            // What is there already wins.
            let _kept = merged.add(key, value);
        }
    }
}

fn is_merge(key: &Node) -> bool {
    key.text() == Some("<<")
}

/// Merged entries come first, as PyYAML has them; the map's own replace them in place.
fn with_merged(own: Entries, mut merged: Entries) -> Vec<(Node, Node)> {
    if merged.list.is_empty() {
        return own.list;
    }
    for (key, value) in own.list {
        let entry = (key.clone(), value.clone());
        if let Err(slot) = merged.add(key, value) {
            *slot = entry;
        }
    }
    merged.list
}

#[cfg(test)]
mod tests;
