//! `previous_outputs[1]` where there is nothing to be told: a visible note instead of an error, for what an earlier sheet
//! left is not known when a template is checked, and not certain when it is rendered.
//!
//! Only a direct index is read so: `in`, `is defined`, `default`, `.get()` and loops see the maps as they are. Both
//! engines are given the template with each such index written as a call of [`FUNCTION`].

use std::borrow::Cow;

use crate::job::plan::{Prompt, TemplateEngine};
use crate::job::value::Value;

/// The function that an index becomes.
pub(super) const FUNCTION: &str = "previous_text";

const MAPS: [&str; 2] = ["previous_outputs", "previous_files"];

/// What is rendered where nothing stands under that key.
pub(super) fn note(key: &Value) -> String {
    match key {
        Value::Int(sheet) => format!("[no output of sheet {sheet}]"),
        key => format!("[no file {}]", key.python_str()),
    }
}

/// The prompt as the engine is to be given it.
pub(super) fn indexed(prompt: &Prompt, engine: TemplateEngine) -> Cow<'_, Prompt> {
    let maps: Vec<&str> = MAPS
        .into_iter()
        // The job's own variable of that name is none of ours.
        .filter(|map| !prompt.variables.contains_key(*map))
        .collect();
    let uses = |text: &str| maps.iter().any(|map| text.contains(map));
    if !uses(&prompt.template) && !prompt.includes.values().any(|text| uses(text)) {
        return Cow::Borrowed(prompt);
    }
    let mut changed = prompt.clone();
    for text in changed.includes.values_mut().chain([&mut changed.template]) {
        *text = rewritten(text, &maps, engine);
    }
    Cow::Owned(changed)
}

fn rewritten(text: &str, maps: &[&str], engine: TemplateEngine) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    let mut rest = text;
    let mut raw = false;
    while let Some(start) = rest
        .find("{{")
        .into_iter()
        .chain(rest.find("{%"))
        .chain(rest.find("{#"))
        .min()
    {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let close = match tag.get(..2) {
            Some("{{") => "}}",
            Some("{#") => "#}",
            _ => "%}",
        };
        let end = tag
            .get(2..)
            .and_then(|inner| inner.find(close))
            .map_or(tag.len(), |end| end + 4);
        let (tag, after) = tag.split_at(end);
        let word = tag
            .get(2..)
            .unwrap_or_default()
            .trim_start_matches(['-', '+', ' ', '\t', '\n']);
        if close == "%}" && word.starts_with("endraw") {
            raw = false;
        }
        if raw || close == "#}" {
            out.push_str(tag);
        } else {
            out.push_str(&in_tag(tag, maps, engine));
        }
        if close == "%}" && word.starts_with("raw") {
            raw = true;
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// One tag with its indices rewritten.
fn in_tag(tag: &str, maps: &[&str], engine: TemplateEngine) -> String {
    let mut out = String::with_capacity(tag.len() + 64);
    let mut at = 0;
    while let Some(rest) = tag.get(at..)
        && let Some(first) = rest.chars().next()
    {
        let mut length = first.len_utf8();
        if matches!(first, '"' | '\'') {
            length = quoted(rest);
        } else if is_word(first) {
            length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let own = !tag[..at].trim_end().ends_with('.');
            let map = maps.iter().find(|map| own && **map == &rest[..length]);
            if let Some((map, (index, end))) = map.zip(index_of(&rest[length..])) {
                let call = match engine {
                    TemplateEngine::Jinja => format!("{FUNCTION}({map}, {index})"),
                    TemplateEngine::Tera => format!("{FUNCTION}(of={map}, at={index})"),
                };
                out.push_str(&call);
                at += length + end;
                continue;
            }
        }
        out.push_str(&rest[..length]);
        at += length;
    }
    out
}

/// What stands between the brackets that follow, and where they end; `None` where that is no plain index, or where the
/// template asks itself whether there is anything.
fn index_of(text: &str) -> Option<(&str, usize)> {
    let open = text.len() - text.trim_start().len();
    let inner = text[open..].strip_prefix('[')?;
    let (mut depth, mut at) = (0_u32, 0);
    loop {
        let rest = inner.get(at..)?;
        let first = rest.chars().next()?;
        match first {
            '"' | '\'' => {
                at += quoted(rest);
                continue;
            }
            '[' | '(' | '{' => depth += 1,
            ']' if depth == 0 => break,
            ']' | ')' | '}' => depth = depth.checked_sub(1)?,
            ':' if depth == 0 => return None,
            _ => {}
        }
        at += first.len_utf8();
    }
    let index = &inner[..at];
    let end = open + 1 + at + 1;
    let after = text[end..].trim_start();
    let word = |text: &str| text.split(|c: char| !is_word(c)).next().unwrap_or_default().to_owned();
    let asks = word(after) == "is"
        || after
            .strip_prefix('|')
            .is_some_and(|filter| matches!(word(filter.trim_start()).as_str(), "default" | "d"));
    (!index.trim().is_empty() && !asks).then_some((index, end))
}

/// The length of the text in quotes that begins there.
fn quoted(text: &str) -> usize {
    let mut chars = text.char_indices();
    let quote = chars.next().map(|(_, quote)| quote);
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if Some(c) == quote {
            return at + 1;
        }
    }
    text.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_direct_index_is_rewritten() {
        let jinja = |text: &str| rewritten(text, &MAPS, TemplateEngine::Jinja);
        for (text, expected) in [
            ("{{ previous_outputs[1] }}", "{{ previous_text(previous_outputs, 1) }}"),
            (
                "{% set x = previous_outputs[sheet_num - 1][:800] %}",
                "{% set x = previous_text(previous_outputs, sheet_num - 1)[:800] %}",
            ),
            (
                "{{ previous_files['a]b'] | upper }}",
                "{{ previous_text(previous_files, 'a]b') | upper }}",
            ),
            (
                "{{ previous_files[names[0]] if names }}",
                "{{ previous_text(previous_files, names[0]) if names }}",
            ),
        ] {
            assert_eq!(jinja(text), expected);
        }
        for same in [
            "previous_outputs[1] {# previous_outputs[1] #}",
            "{{ previous_outputs[1] is defined }} {{ previous_outputs[1] | default('x') }} {{ previous_outputs[1]|d }}",
            "{{ 'previous_outputs[1]' }} {{ x.previous_outputs[1] }} {{ my_previous_outputs[1] }}",
            "{% raw %}{{ previous_outputs[1] }}{% endraw %}",
            "{{ previous_outputs[:2] }} {{ previous_outputs }} {{ 1 in previous_outputs }}",
            "{{ previous_outputs[1",
            "{{ previous_outputs[] }}",
        ] {
            assert_eq!(jinja(same), same);
        }
        assert_eq!(
            rewritten("{{ previous_outputs[1] }}", &MAPS, TemplateEngine::Tera),
            "{{ previous_text(of=previous_outputs, at=1) }}"
        );
    }
}
