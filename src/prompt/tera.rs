//! Tera, for templates written for it.
//!
//! Tera counts no steps, so what could run for ever is bounded before: the elements that all calls of `range`
//! give together, and loops within loops over long lists.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tera::value::Key;
use tera::{Context, ErrorKind, Kwargs, Map, State, Tera, TeraResult};

use super::history;
use super::jinja::{Bounded, too_much};
use super::template::{RenderError, RenderFault};
use crate::job::plan::Prompt;
use crate::job::value::Value;

/// Elements that all `range` of one rendering may give.
const RANGE_BUDGET: u64 = 100_000;
/// Times that the innermost of nested loops may run, as far as the lists' lengths tell.
const MAX_ITERATIONS: u64 = 100_000_000;
/// The same, where it is rendered without bounds of time.
const FEW_ITERATIONS: u64 = 5000;

/// A compiled Tera template.
pub(crate) struct Template<'p> {
    engine: Tera,
    name: &'p str,
    /// Loops within each other at most; with includes or components the number of all loops.
    depth: u32,
    /// Lists are made of texts too.
    splits: bool,
    range_left: Arc<AtomicU64>,
}

impl<'p> Template<'p> {
    pub(super) fn new(prompt: &'p Prompt) -> Result<Self, RenderError> {
        let mut engine = Tera::new();
        engine.autoescape_on(Vec::<&'static str>::new());
        let range_left = Arc::new(AtomicU64::new(RANGE_BUDGET));
        let budget = Arc::clone(&range_left);
        engine.register_function("range", move |arguments: Kwargs, _: &State<'_>| {
            range(&arguments, &budget)
        });
        engine.register_function(history::FUNCTION, |arguments: Kwargs, _: &State<'_>| {
            previous_text(&arguments)
        });
        let texts = prompt
            .includes
            .iter()
            .chain([(&prompt.template_name, &prompt.template)]);
        engine
            .add_raw_templates(texts.clone().map(|(name, text)| (name.as_str(), text.as_str())))
            .map_err(|error| translate(&error, &prompt.template_name, RenderFault::Syntax))?;
        let whole: String = texts.map(|(_, text)| text.as_str()).collect();
        Ok(Self {
            engine,
            name: &prompt.template_name,
            depth: loop_depth(&whole),
            splits: whole.contains("split"),
            range_left,
        })
    }

    /// Whether its loops are soon over.
    pub(super) fn is_quick(&self, variables: &BTreeMap<String, Value>) -> bool {
        // A text is looped over by characters.
        let longest = longest(variables, true).max(1);
        longest
            .checked_pow(self.depth)
            .is_some_and(|iterations| iterations <= FEW_ITERATIONS)
    }

    pub(super) fn render(&self, variables: &BTreeMap<String, Value>) -> Result<String, RenderError> {
        let longest = longest(variables, self.splits);
        let iterations = longest.max(1).checked_pow(self.depth);
        if self.depth > 1 && iterations.is_none_or(|iterations| iterations > MAX_ITERATIONS) {
            return Err(RenderError {
                kind: RenderFault::Limit,
                message: format!(
                    "{} loops within each other over lists of {longest} items may take too long (`engine: jinja` \
                     counts its steps and can take them)",
                    self.depth
                ),
                line: None,
                template: self.name.to_owned(),
                name: None,
            });
        }
        self.range_left.store(RANGE_BUDGET, Ordering::Relaxed);
        let mut context = Context::new();
        for (name, value) in variables {
            context.insert_value(name.clone(), to_tera(value));
        }
        let out = Bounded::default();
        self.engine
            .render_to(self.name, &context, out.clone())
            .map_err(|error| {
                if out.is_full() {
                    too_much(self.name)
                } else {
                    translate(&error, self.name, RenderFault::Other)
                }
            })?;
        out.text(self.name)
    }

    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .engine
            .get_template_variables(self.name)
            .map(|names| names.into_iter().map(str::to_owned).collect())
            .unwrap_or_default();
        names.sort();
        names
    }
}

/// What stands under that key, or a visible note.
fn previous_text(arguments: &Kwargs) -> TeraResult<tera::Value> {
    let of = arguments.must_get::<tera::Value>("of")?;
    let at = arguments.must_get::<tera::Value>("at")?;
    let key = match at.as_i64() {
        Some(number) => Value::Int(number),
        None => Value::Text(at.to_string()),
    };
    let found = of.as_map().and_then(|map| map.get(&to_key(&key)));
    Ok(found
        .cloned()
        .unwrap_or_else(|| tera::Value::normal_string(&history::note(&key))))
}

/// `range(start=0, end, step_by=1)`, as Tera's own, with a budget.
fn range(arguments: &Kwargs, budget: &AtomicU64) -> TeraResult<Vec<i64>> {
    let start = arguments.get::<i64>("start")?.unwrap_or_default();
    let end = arguments.must_get::<i64>("end")?;
    let step = arguments.get::<i64>("step_by")?.unwrap_or(1);
    if step == 0 {
        return Err(tera::Error::message("`range` takes no `step_by` of 0"));
    }
    let distance = i128::from(end) - i128::from(start);
    let step_wide = i128::from(step);
    let length = if distance.signum() == step_wide.signum() {
        (distance.abs() + step_wide.abs() - 1) / step_wide.abs()
    } else {
        0
    };
    let spent = u64::try_from(length).unwrap_or(u64::MAX).saturating_add(1);
    let left = budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(spent));
    if left.is_err() {
        return Err(tera::Error::message(format!(
            "`range` gives more than {RANGE_BUDGET} numbers in all"
        )));
    }
    Ok((0..length)
        .filter_map(|index| i64::try_from(i128::from(start) + index * step_wide).ok())
        .collect())
}

fn longest(variables: &BTreeMap<String, Value>, texts_too: bool) -> u64 {
    let lengths = variables.values().map(|value| length_of(value, texts_too));
    lengths.max().unwrap_or(0)
}

fn length_of(value: &Value, texts_too: bool) -> u64 {
    let length = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    match value {
        Value::List(items) => items
            .iter()
            .map(|item| length_of(item, texts_too))
            .max()
            .unwrap_or(0)
            .max(length(items.len())),
        Value::Map(entries) => entries
            .iter()
            .map(|(_, item)| length_of(item, texts_too))
            .max()
            .unwrap_or(0)
            .max(length(entries.len())),
        Value::Text(text) if texts_too => length(text.len()),
        _ => 0,
    }
}

/// How many loops stand within each other; the number of all loops where one cannot see it from the text.
fn loop_depth(text: &str) -> u32 {
    let (mut depth, mut deepest, mut all) = (0_u32, 0_u32, 0_u32);
    let mut indirect = false;
    let mut rest = text;
    while let Some(start) = rest.find("{%") {
        rest = rest[start + 2..].trim_start_matches(['-', ' ', '\t', '\n', '\r']);
        let word = rest.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or("");
        match word {
            "for" => {
                all = all.saturating_add(1);
                depth = depth.saturating_add(1);
                deepest = deepest.max(depth);
            }
            "endfor" => depth = depth.saturating_sub(1),
            "include" | "component" | "block" | "extends" => indirect = true,
            _ => {}
        }
    }
    if indirect { all } else { deepest }
}

fn to_tera(value: &Value) -> tera::Value {
    match value {
        Value::Null => tera::Value::none(),
        Value::Bool(value) => tera::Value::from(*value),
        Value::Int(value) => tera::Value::from(*value),
        Value::Float(value) => tera::Value::from(*value),
        Value::Text(text) => tera::Value::normal_string(text),
        Value::List(items) => tera::Value::from(items.iter().map(to_tera).collect::<Vec<_>>()),
        Value::Map(entries) => {
            let map: Map = entries
                .iter()
                .map(|(key, value)| (to_key(key), to_tera(value)))
                .collect();
            tera::Value::from(map)
        }
    }
}

fn to_key(key: &Value) -> Key<'static> {
    match key {
        Value::Int(number) => Key::I64(*number),
        Value::Bool(value) => Key::Bool(*value),
        other => Key::String(other.python_str().into()),
    }
}

fn translate(error: &tera::Error, template: &str, otherwise: RenderFault) -> RenderError {
    let number = |line: usize| u32::try_from(line).ok();
    let (kind, message, line, name) = match error.kind() {
        ErrorKind::SyntaxError(report) => (
            RenderFault::Syntax,
            report.message().to_owned(),
            number(report.span().start_line),
            report.filename(),
        ),
        ErrorKind::RenderingError(report) => (
            RenderFault::Other,
            report.message().to_owned(),
            number(report.span().start_line),
            report.filename(),
        ),
        // Unknown filters and includes come as a finished report of several lines.
        kind => {
            let text = kind.to_string();
            let first = text.lines().next().unwrap_or(&text);
            let message = first.strip_prefix("error: ").unwrap_or(first).to_owned();
            let place = text.lines().find_map(|line| line.trim_start().strip_prefix("--> "));
            let line = place.and_then(|place| place.rsplit(':').nth(1)?.parse().ok());
            (otherwise, message, line, template)
        }
    };
    let undefined = ["Variable `", "Field `"].iter().any(|start| message.starts_with(start));
    let subject = undefined
        .then(|| message.split('`').nth(1).map(str::to_owned))
        .flatten();
    // Tera lists every variable there is; the suggestion names the nearest.
    let message = match message.split_once(". Available variables:") {
        Some((before, _)) => before.to_owned(),
        None => message,
    };
    RenderError {
        kind: if undefined { RenderFault::Undefined } else { kind },
        message: lower_first(message.trim_end_matches('.')),
        line,
        template: if name.is_empty() {
            template.to_owned()
        } else {
            name.to_owned()
        },
        name: subject,
    }
}

fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_within_loops_are_counted() {
        assert_eq!(
            loop_depth("{% for a in b %}{%- for c in d %}{% endfor %}{% endfor %}{% for e in f %}{% endfor %}"),
            2
        );
        assert_eq!(
            loop_depth("{% for a in b %}{% include \"x\" %}{% endfor %}{% for e in f %}{% endfor %}"),
            2
        );
        assert_eq!(loop_depth("no loop {{ for }}"), 0);
    }
}
