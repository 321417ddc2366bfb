//! Jinja2 as Python renders it: strict variables, no escaping, the trailing line feed kept.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex};

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};

use super::template::{MAX_OUTPUT, RenderError, RenderFault};
use super::{history, python};
use crate::job::plan::Prompt;
use crate::job::value::Value;

/// Steps that one rendering may take.
pub(super) const STEPS: u64 = 2_000_000;
/// Steps after which a rendering is begun anew where its time is bounded.
pub(super) const FEW_STEPS: u64 = 20_000;
/// Steps that one expression may take.
const EXPRESSION_FUEL: u64 = 10_000;
/// Bytes that an expression in a path, pattern or command may have.
const MAX_EXPRESSION: usize = 1000;

/// A compiled Jinja2 template.
pub(crate) struct Template<'p> {
    environment: Environment<'p>,
    name: &'p str,
}

impl<'p> Template<'p> {
    pub(super) fn new(prompt: &'p Prompt, steps: u64) -> Result<Self, RenderError> {
        let mut environment = environment(steps);
        environment.add_function(history::FUNCTION, previous_text);
        for (name, text) in prompt
            .includes
            .iter()
            .chain([(&prompt.template_name, &prompt.template)])
        {
            environment
                .add_template(name, text)
                .map_err(|error| translate(&error, name))?;
        }
        Ok(Self {
            environment,
            name: &prompt.template_name,
        })
    }

    pub(super) fn render(&self, variables: &BTreeMap<String, Value>) -> Result<String, RenderError> {
        let template = self
            .environment
            .get_template(self.name)
            .map_err(|error| translate(&error, self.name))?;
        let out = Bounded::default();
        template
            .render_captured_to(context(variables), out.clone())
            .map_err(|error| {
                if out.is_full() {
                    too_much(self.name)
                } else {
                    translate(&error, self.name)
                }
            })?;
        out.text(self.name)
    }

    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .environment
            .templates()
            .flat_map(|(_, template)| template.undeclared_variables(false))
            .filter(|name| !self.environment.globals().any(|(global, _)| global == name))
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// The value of an expression in a path, pattern or command, as Python's `str()` shows it.
///
/// Short enough for a chain in it not to overflow the stack of an ordinary thread.
pub(super) fn expression(text: &str, variables: &BTreeMap<String, Value>) -> Result<String, RenderError> {
    if text.len() > MAX_EXPRESSION {
        return Err(RenderError {
            kind: RenderFault::Limit,
            message: format!("the expression is longer than {MAX_EXPRESSION} bytes"),
            line: None,
            template: "expression".to_owned(),
            name: None,
        });
    }
    let environment = environment(EXPRESSION_FUEL);
    let wrapped = format!("{{{{ {text} }}}}");
    environment
        .render_named_str("expression", &wrapped, context(variables))
        .map_err(|error| translate(&error, "expression"))
}

fn environment<'e>(fuel: u64) -> Environment<'e> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    // Keeps the name of what is undefined for the error.
    environment.set_debug(true);
    environment.set_fuel(Some(fuel));
    python::add_to(&mut environment);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    environment
}

/// What stands under that key, or a visible note.
fn previous_text(of: minijinja::Value, key: minijinja::Value) -> Result<minijinja::Value, minijinja::Error> {
    let found = of.get_item(&key)?;
    if !found.is_undefined() {
        return Ok(found);
    }
    let key = match (i64::try_from(key.clone()), key.as_str()) {
        (Ok(number), None) => Value::Int(number),
        _ => Value::Text(key.to_string()),
    };
    Ok(minijinja::Value::from(history::note(&key)))
}

fn context(variables: &BTreeMap<String, Value>) -> minijinja::Value {
    minijinja::Value::from_pairs(variables.iter().map(|(name, value)| (name.as_str(), to_jinja(value))))
}

fn to_jinja(value: &Value) -> minijinja::Value {
    match value {
        Value::Null => minijinja::Value::from(()),
        Value::Bool(value) => minijinja::Value::from(*value),
        Value::Int(value) => minijinja::Value::from(*value),
        Value::Float(value) => minijinja::Value::from(*value),
        Value::Text(text) => minijinja::Value::from(text.as_str()),
        Value::List(items) => minijinja::Value::from(items.iter().map(to_jinja).collect::<Vec<_>>()),
        Value::Map(entries) => {
            minijinja::Value::from_pairs(entries.iter().map(|(key, value)| (to_jinja(key), to_jinja(value))))
        }
    }
}

fn translate(mut error: &minijinja::Error, template: &str) -> RenderError {
    // What is wrong within an included template is what is wrong.
    while matches!(error.kind(), ErrorKind::BadInclude | ErrorKind::EvalBlock)
        && let Some(within) = error.source().and_then(|source| source.downcast_ref())
    {
        error = within;
    }
    // `(`name` is undefined)` behind another error says why it came.
    let undefined = error.detail().and_then(|detail| {
        let (_, reason) = detail.rsplit_once(" (`")?;
        reason.strip_suffix("` is undefined)")
    });
    let kind = match error.kind() {
        _ if undefined.is_some() => RenderFault::Undefined,
        ErrorKind::SyntaxError | ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction => {
            RenderFault::Syntax
        }
        ErrorKind::UndefinedError => RenderFault::Undefined,
        ErrorKind::OutOfFuel => RenderFault::Limit,
        _ => RenderFault::Other,
    };
    let message = match (error.kind(), undefined, error.detail()) {
        (ErrorKind::OutOfFuel, _, _) => format!("it takes more than {STEPS} steps"),
        (_, Some(name), _) => format!("`{name}` is undefined"),
        (_, None, Some(detail)) => detail.to_owned(),
        (kind, None, None) => kind.to_string(),
    };
    let name = (kind == RenderFault::Undefined)
        .then(|| message.split('`').nth(1).map(str::to_owned))
        .flatten();
    RenderError {
        kind,
        message,
        line: error.line().and_then(|line| u32::try_from(line).ok()),
        template: error.name().unwrap_or(template).to_owned(),
        name,
    }
}

/// A writer that takes [`MAX_OUTPUT`] bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Bounded(Arc<Mutex<Vec<u8>>>);

impl Bounded {
    pub(super) fn is_full(&self) -> bool {
        self.0.lock().map_or(true, |bytes| bytes.len() >= MAX_OUTPUT)
    }

    pub(super) fn text(self, template: &str) -> Result<String, RenderError> {
        let bytes = self
            .0
            .lock()
            .map(|mut bytes| std::mem::take(&mut *bytes))
            .unwrap_or_default();
        String::from_utf8(bytes).map_err(|_| too_much(template))
    }
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Ok(mut buffer) = self.0.lock() else {
            return Err(io::ErrorKind::Other.into());
        };
        let room = MAX_OUTPUT - buffer.len().min(MAX_OUTPUT);
        if bytes.len() > room {
            buffer.extend_from_slice(&bytes[..room]);
            return Err(io::ErrorKind::StorageFull.into());
        }
        buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn too_much(template: &str) -> RenderError {
    RenderError {
        kind: RenderFault::Limit,
        message: format!("it makes more than {} MiB of text", MAX_OUTPUT / 1024 / 1024),
        line: None,
        template: template.to_owned(),
        name: None,
    }
}
