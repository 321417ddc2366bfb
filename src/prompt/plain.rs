//! Whether a template can be rendered right here: one whose values stay as small as what they are made of.
//!
//! The engines bound neither the memory nor the time of a single step: a text that is doubled twenty times over, or one
//! `replace`, can fill the machine. So only what stands in the lists below is plain: nothing keeps a value, and a value
//! is no longer than what the tag names and says together, times a small number. All else is for
//! [`elsewhere`](super::elsewhere).

use std::collections::BTreeMap;

use crate::job::plan::{Prompt, TemplateEngine};
use crate::job::value::Value;

/// Bytes of variables, times the weight of a tag, that are handled right here.
const MAX_SIZE: usize = 8 * 1024 * 1024;
/// Bytes of variables, together.
const MAX_VARIABLES: usize = 1024 * 1024;

/// Statements that keep nothing.
const STATEMENTS: &[&str] = &["if", "elif", "else", "endif", "for", "endfor"];
/// Words behind which a bracket only groups.
const KEYWORDS: &[&str] = &["if", "elif", "else", "in", "and", "or", "not", "is"];
/// Filters and methods whose result is no longer than what they are given.
const SHORT: &[&str] = &[
    "abs",
    "capitalize",
    "count",
    "d",
    "default",
    "endswith",
    "find",
    "first",
    "float",
    "get",
    "int",
    "items",
    "keys",
    "last",
    "length",
    "lower",
    "lstrip",
    "max",
    "min",
    "rfind",
    "round",
    "rstrip",
    "startswith",
    "strip",
    "sum",
    "title",
    "trim",
    "upper",
    "values",
];
/// Those that make a list of a text, whose printed form is longer: one in a tag.
const LISTS: &[&str] = &["list", "reverse", "sort", "split", "splitlines", "unique"];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token<'t> {
    Word(&'t str),
    Number,
    Text(&'t str),
    Mark(char),
}

use Token::{Mark, Number, Text, Word};

/// Tokens of one tag that need little stack, and so do that many blocks within each other, or `elif`.
const SHALLOW: Shape = Shape {
    tokens: 50,
    blocks: 16,
    elifs: 32,
};

/// What an engine goes through by recursion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Shape {
    /// Of the longest tag.
    tokens: usize,
    /// Within each other.
    blocks: usize,
    /// In all.
    elifs: usize,
}

/// How much a plain template's largest tag has in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    heaviest: usize,
    shape: Shape,
}

impl Weight {
    /// The weight of a plain template; `None` if it is not plain.
    pub(super) fn of(prompt: &Prompt, engine: TemplateEngine) -> Option<Self> {
        // A template may take in another only with a statement that is not plain.
        weigh(&prompt.template, engine)
    }

    /// Whether an ordinary thread's stack is enough for it.
    pub(super) fn is_shallow(self) -> bool {
        let Shape { tokens, blocks, elifs } = self.shape;
        tokens <= SHALLOW.tokens && blocks <= SHALLOW.blocks && elifs <= SHALLOW.elifs
    }

    /// Whether it is plain with these variables too.
    pub(super) fn carries(self, variables: &BTreeMap<String, Value>) -> bool {
        let size = variables.values().map(size).fold(0, usize::saturating_add);
        size <= MAX_VARIABLES && size.saturating_mul(self.heaviest) <= MAX_SIZE
    }
}

/// Whether an expression, which stands in no tag, is plain with these variables.
pub(super) fn is_plain_expression(text: &str, variables: &BTreeMap<String, Value>) -> bool {
    let wrapped = format!("{{{{ {text} }}}}");
    weigh(&wrapped, TemplateEngine::Jinja).is_some_and(|weight| weight.carries(variables))
}

fn size(value: &Value) -> usize {
    let inner = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.iter().map(size).fold(0, usize::saturating_add),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, value)| size(key).saturating_add(size(value)))
            .fold(0, usize::saturating_add),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 0,
    };
    inner.saturating_add(16)
}

fn weigh(text: &str, engine: TemplateEngine) -> Option<Weight> {
    let (mut heaviest, mut open, mut shape) = (1, 0_usize, Shape::default());
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        rest = &rest[start..];
        let tag = match rest.get(..2) {
            Some("{{") => ("}}", false),
            Some("{%") => ("%}", true),
            Some("{#") => {
                // One within another would be read in two ways.
                let (comment, after) = rest[2..].split_once("#}")?;
                if comment.contains("{#") {
                    return None;
                }
                rest = after;
                continue;
            }
            _ => {
                rest = &rest[1..];
                continue;
            }
        };
        let (tokens, after) = tokens(&rest[2..], tag.0)?;
        if !is_plain(&tokens, tag.1, engine) {
            return None;
        }
        heaviest = heaviest.max(tokens.iter().map(weight).sum());
        shape.tokens = shape.tokens.max(tokens.len());
        match tokens.first() {
            Some(Word("if" | "for")) => open += 1,
            Some(Word("endif" | "endfor")) => open = open.saturating_sub(1),
            Some(Word("elif")) => shape.elifs += 1,
            _ => {}
        }
        shape.blocks = shape.blocks.max(open);
        rest = after;
    }
    Some(Weight { heaviest, shape })
}

fn weight(token: &Token<'_>) -> usize {
    match token {
        Text(text) => text.len(),
        Word(_) | Number | Mark(_) => 1,
    }
}

/// What a tag consists of, and what follows it.
fn tokens<'t>(mut rest: &'t str, close: &str) -> Option<(Vec<Token<'t>>, &'t str)> {
    let mut tokens = Vec::new();
    // Of whitespace control; else it would be a sign.
    rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let control = rest.strip_prefix(['-', '+']);
        if let Some(after) = control
            .and_then(|rest| rest.strip_prefix(close))
            .or_else(|| rest.strip_prefix(close))
        {
            return Some((tokens, after));
        }
        let first = rest.chars().next()?;
        let length = if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
            tokens.push(Word(&rest[..end]));
            end
        } else if first.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            tokens.push(Number);
            end
        } else if matches!(first, '"' | '\'') {
            let inner = &rest[1..];
            let end = inner.find(first)?;
            // With a backslash its end and its length are not what they seem.
            if inner[..end].contains('\\') {
                return None;
            }
            tokens.push(Text(&inner[..end]));
            end + 2
        } else if matches!(
            first,
            '.' | ',' | '[' | ']' | '(' | ')' | '|' | ':' | '=' | '!' | '<' | '>' | '+' | '-' | '/' | '%' | '~'
        ) {
            tokens.push(Mark(first));
            1
        } else {
            return None;
        };
        rest = &rest[length..];
    }
}

/// What is open at a place within a tag.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    Call,
    Group,
    Index,
    List,
}

fn is_plain(tokens: &[Token<'_>], statement: bool, engine: TemplateEngine) -> bool {
    let is_for = statement && tokens.first() == Some(&Word("for"));
    match tokens.first() {
        Some(Word(first)) if statement => {
            if !STATEMENTS.contains(first) {
                return false;
            }
        }
        // A component of Tera's.
        Some(Mark('<')) | None => return false,
        Some(_) if statement => return false,
        Some(_) => {}
    }
    let (mut lists, mut joins, mut behind_in) = (0, 0, false);
    let mut open = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        let called = tokens.get(at + 1) == Some(&Mark('('));
        match token {
            Word(name) if matches!(before, Some(Mark('|'))) || (matches!(before, Some(Mark('.'))) && called) => {
                lists += u32::from(LISTS.contains(name));
                joins += u32::from(*name == "join");
                let plain = SHORT.contains(name) || LISTS.contains(name) || is_plain_call(tokens, at);
                if !plain || lists > 1 || joins > 1 {
                    return false;
                }
            }
            Word("range") if called && is_for && engine == TemplateEngine::Jinja => {
                // Numbers that are only looped over are never there all at once.
                lists += 1;
                if lists > 1 || tokens.contains(&Mark('|')) {
                    return false;
                }
            }
            Word(name) if called && !KEYWORDS.contains(name) => return false,
            Word(name) => behind_in |= *name == "in",
            Number | Text(_) => {}
            Mark('(') => open.push(match before {
                Some(Word(name)) if !KEYWORDS.contains(name) => Open::Call,
                Some(Mark(')' | ']') | Text(_) | Number) => return false,
                _ => Open::Group,
            }),
            Mark('[') => open.push(match before {
                Some(Word(name)) if !KEYWORDS.contains(name) => Open::Index,
                Some(Mark(')' | ']') | Text(_)) => Open::Index,
                _ => Open::List,
            }),
            Mark(close @ (')' | ']')) => {
                let closed = open.pop();
                let fits = match closed {
                    Some(Open::Call | Open::Group) => *close == ')',
                    Some(Open::Index | Open::List) => *close == ']',
                    None => false,
                };
                if !fits {
                    return false;
                }
            }
            Mark(',') => {
                let plain = match open.last() {
                    Some(Open::Call | Open::List) => true,
                    Some(Open::Group | Open::Index) => false,
                    None => is_for && !behind_in,
                };
                if !plain {
                    return false;
                }
            }
            Mark(_) => {}
        }
        // A text in a list is printed in quotes, and that text again, longer each time.
        let constant = matches!(token, Number | Text(_) | Mark(',' | '[' | '-'));
        if open.contains(&Open::List) && !constant {
            return false;
        }
    }
    open.is_empty()
}

/// Calls whose result is bounded by what stands in the tag.
fn is_plain_call(tokens: &[Token<'_>], at: usize) -> bool {
    let next = |count: usize| tokens.get(at + count).copied();
    let on_text = match at.checked_sub(2).and_then(|at| tokens.get(at)) {
        Some(Text(text)) => Some(*text),
        _ => None,
    };
    match next(0) {
        Some(Word("join")) if tokens.get(at - 1) == Some(&Mark('.')) => on_text.is_some(),
        Some(Word("join")) => match next(1) {
            Some(Mark('(')) => matches!((next(2), next(3)), (Some(Text(_)), Some(Mark(')')))),
            _ => true,
        },
        Some(Word("replace")) => match (next(2), next(3), next(4), next(5)) {
            (Some(Text(from)), Some(Mark(',')), Some(Text(to)), Some(Mark(')'))) => {
                !from.is_empty() && to.len() <= from.len()
            }
            _ => false,
        },
        Some(Word("format")) => on_text.is_some_and(|text| {
            let wide = text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 2);
            !wide && !text.contains('*') && !text.contains(":{")
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> bool {
        weigh(text, TemplateEngine::Jinja).is_some()
    }

    #[test]
    fn what_templates_mostly_are_is_plain() {
        for text in [
            "no tag { at } all",
            "{{ workspace }}/{{ sheet_num - 1 }} {# a note #} {{- x -}}",
            "{% if stage == 1 and (instance != 2 or not x) %}{% elif a.b[1] in [1, 'two'] %}{% else %}{% endif %}",
            "{%- for i in range(1, total + 1) -%}{{ i }}{{ loop.index }}{%- endfor -%}",
            "{% for key, text in previous_outputs.items() %}{{ text[:600] }}{% endfor %}",
            "{{ previous_outputs[7][:800] if 7 in previous_outputs else \"\" }}",
            "{{ kinds[instance] | upper }} {{ x | default('none') | trim }} {{ x is defined }}",
            "{{ names | join(', ') }} {{ ', '.join(names) }} {{ names|join }}",
            "{{ name | replace(' ', '-') | lower }} {{ '%02d' | format(sheet_num) }}",
            "{{ name ~ '.md' }} {{ 7 // 2 % 3 }} {{ text.split(' ')[0] }}",
        ] {
            assert!(plain(text), "{text}");
        }
    }

    /// Each of these can make much of little.
    #[test]
    fn what_can_grow_is_not_plain() {
        for text in [
            "{% set s = s ~ s %}",
            "{% macro m() %}{% endmacro %}",
            "{% include 'x' %}",
            "{% filter upper %}{% endfilter %}",
            "{% raw %}{{ \"{% endraw %}{% set s = s ~ s %}{{ \" }}",
            "{% for x in range(9) | list %}{% endfor %}",
            "{% for x in tree recursive %}{{ loop(x) }}{% endfor %}",
            "{{ range(99) }}",
            "{{ 'x' * 9 }}",
            "{{ {'a': x} }}",
            "{{ [x] ~ '' }}",
            "{{ (x, y) ~ '' }}",
            "{{ x, y }}",
            "{{ x | replace('a', x) }}",
            "{{ x | replace('a', 'bb') }}",
            "{{ x | replace('', '') }}",
            "{{ x | join(x) }}",
            "{{ x.join(y) }}",
            "{{ x | list | join('ab') | list | join('ab') }}",
            "{{ x | sort ~ '' | sort }}",
            "{{ x | indent(99999) }}",
            "{{ '%999d' | format(1) }}",
            "{{ '{:{}}'.format(1, 9999) }}",
            "{{ x | format(1) }}",
            "{{ f(1) }}",
            "{{ f(1)(2) }}",
            "{{ x.append(1) }}",
            "{{ 'a\\'' ~ x }}",
            "{{ `a` }}",
            "{{ <component /> }}",
            "{# {# #} #}",
            "{{ x",
        ] {
            assert!(!plain(text), "{text}");
        }
    }

    #[test]
    fn much_data_is_not_plain() {
        let text = |bytes: usize| BTreeMap::from([("x".to_owned(), Value::Text("x".repeat(bytes)))]);
        assert!(is_plain_expression("x ~ x", &text(1_000_000)));
        assert!(!is_plain_expression("x ~ x", &text(2_000_000)));
        assert!(!is_plain_expression("x ~ x ~ x ~ x ~ x ~ x ~ x", &text(1_000_000)));
    }
}
