//! Renders templates, with either engine, within bounds.
//!
//! Both engines parse by recursion and have chains (`a.b.c…`, `elif`, filters) that they do not count, so
//! templates are compiled and rendered on a thread with a stack that is large enough for every template that
//! passes the guard here; a small stack would overflow, which ends the whole process. Most are shallow, and need no
//! thread.
//!
//! Memory and time of one step are bounded by no engine, so what is not plain is rendered [`elsewhere`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::plain::Weight;
use super::{elsewhere, history, jinja, plain, tera};
use crate::job::plan::{Prompt, TemplateEngine};
use crate::job::value::Value;

/// Bytes that a rendered prompt may have.
pub(crate) const MAX_OUTPUT: usize = 16 * 1024 * 1024;
/// Bytes that one `{{ … }}` or `{% … %}` may have.
const MAX_TAG: usize = 32 * 1024;
/// `elif` in one template.
const MAX_ELIF: usize = 2000;
/// Stack of the rendering thread: an unoptimised build needs 5 KiB for each `elif`.
const STACK: usize = 64 * 1024 * 1024;

/// Why a template cannot be compiled or rendered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderError {
    /// Which kind of fault it is.
    pub kind: RenderFault,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// Line in the template, from 1, where known.
    pub line: Option<u32>,
    /// The template: its name as in the plan.
    pub template: String,
    /// The variable that is not defined, where that is what is wrong.
    pub name: Option<String>,
}

/// Kinds of template faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenderFault {
    /// It is no template.
    Syntax,
    /// It uses something that is not defined.
    Undefined,
    /// It takes too many steps, too much time or memory, or makes too much text.
    Limit,
    /// The process that renders it failed; another time it may not.
    Elsewhere,
    /// Anything else: a wrong type, a division by zero.
    Other,
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{} ({}, line {line})", self.message, self.template),
            None => write!(f, "{} ({})", self.message, self.template),
        }
    }
}

/// A compiled template.
pub(crate) struct Compiled<'p> {
    prompt: &'p Prompt,
    engine: TemplateEngine,
    /// None where it is not plain, and there is another place for it.
    here: Option<(Engine<'p>, Option<Weight>)>,
    /// Opened when it is needed.
    elsewhere: OnceLock<Result<elsewhere::Template, RenderError>>,
}

enum Engine<'p> {
    Tera(Box<tera::Template<'p>>),
    Jinja(Box<jinja::Template<'p>>),
}

impl<'p> Compiled<'p> {
    /// `original` is `prompt` as it was before [`history::indexed`].
    fn new(
        original: &'p Prompt,
        prompt: &'p Prompt,
        engine: TemplateEngine,
        weight: Option<Weight>,
    ) -> Result<Self, RenderError> {
        let mut compiled = Self {
            prompt: original,
            engine,
            here: None,
            elsewhere: OnceLock::new(),
        };
        let bounded = elsewhere::is_there();
        if bounded && weight.is_none() {
            let template = elsewhere::Template::new(original, engine)?;
            compiled.elsewhere = OnceLock::from(Ok(template));
        } else {
            let steps = if bounded { jinja::FEW_STEPS } else { jinja::STEPS };
            let engine = match engine {
                TemplateEngine::Tera => Engine::Tera(Box::new(tera::Template::new(prompt)?)),
                TemplateEngine::Jinja => Engine::Jinja(Box::new(jinja::Template::new(prompt, steps)?)),
            };
            compiled.here = Some((engine, weight.filter(|_| bounded)));
        }
        Ok(compiled)
    }

    /// The text for those variables.
    pub(crate) fn render(&self, variables: &BTreeMap<String, Value>) -> Result<String, RenderError> {
        if let Some((engine, weight)) = &self.here {
            let here = weight.is_none_or(|weight| weight.carries(variables));
            match engine {
                Engine::Tera(template) if here && (weight.is_none() || template.is_quick(variables)) => {
                    return template.render(variables);
                }
                Engine::Jinja(template) if here => match template.render(variables) {
                    Err(error) if weight.is_some() && error.kind == RenderFault::Limit => {}
                    rendered => return rendered,
                },
                Engine::Tera(_) | Engine::Jinja(_) => {}
            }
        }
        let template = self
            .elsewhere
            .get_or_init(|| elsewhere::Template::new(self.prompt, self.engine));
        template.as_ref().map_err(Clone::clone)?.render(variables)
    }

    /// Names that it looks up and does not set itself, whether a branch is taken or not.
    pub(crate) fn names(&self) -> Vec<String> {
        match &self.here {
            Some((Engine::Tera(template), _)) => template.names(),
            Some((Engine::Jinja(template), _)) => template.names(),
            None => match self.elsewhere.get() {
                Some(Ok(template)) => template.names().to_vec(),
                Some(Err(_)) | None => Vec::new(),
            },
        }
    }
}

/// Compiles the template of `prompt` for `engine` and lets `work` use it.
pub(crate) fn with_template<T: Send>(
    prompt: &Prompt,
    engine: TemplateEngine,
    work: impl FnOnce(&Compiled<'_>) -> T + Send,
) -> Result<T, RenderError> {
    guard(&prompt.template_name, &prompt.template)?;
    for (name, text) in &prompt.includes {
        guard(name, text)?;
    }
    let indexed = &*history::indexed(prompt, engine);
    let weight = Weight::of(prompt, engine);
    let job = || Ok(work(&Compiled::new(prompt, indexed, engine, weight)?));
    let failed = |message: &str| RenderError {
        kind: RenderFault::Other,
        message: message.to_owned(),
        line: None,
        template: prompt.template_name.clone(),
        name: None,
    };
    let broken = |_| Err(failed("the template engine failed"));
    if weight.is_some_and(Weight::is_shallow) {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        return done.unwrap_or_else(broken);
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("template".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, job);
        match thread {
            Ok(thread) => thread.join().unwrap_or_else(broken),
            Err(error) => Err(failed(&format!("no thread could be started for it: {error}"))),
        }
    })
}

/// The value of an expression in a path, pattern or command, as Python's `str()` shows it.
pub(crate) fn expression(text: &str, variables: &BTreeMap<String, Value>) -> Result<String, RenderError> {
    if elsewhere::is_there() && !plain::is_plain_expression(text, variables) {
        elsewhere::expression(text, variables)
    } else {
        jinja::expression(text, variables)
    }
}

/// Refuses what would need more stack than there is.
fn guard(name: &str, text: &str) -> Result<(), RenderError> {
    let fault = |message: String, at: usize| {
        let line = text[..at].bytes().filter(|byte| *byte == b'\n').count();
        Err(RenderError {
            kind: RenderFault::Limit,
            message,
            line: u32::try_from(line + 1).ok(),
            template: name.to_owned(),
            name: None,
        })
    };
    let mut elifs = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find("{{").into_iter().chain(text[at..].find("{%")).min() {
        let start = at + found;
        let close = if text[start..].starts_with("{{") { "}}" } else { "%}" };
        // Behind the opening: in `{%}` the two would share a character.
        let end = text[start + 2..].find(close).map_or(text.len(), |end| start + 2 + end);
        if end - start > MAX_TAG {
            return fault(format!("one tag has more than {MAX_TAG} bytes"), start);
        }
        if text[start + 2..end]
            .trim_start_matches(['-', '+', ' ', '\t', '\n'])
            .starts_with("elif")
        {
            elifs += 1;
            if elifs > MAX_ELIF {
                return fault(format!("there are more than {MAX_ELIF} `elif`"), start);
            }
        }
        at = end;
    }
    Ok(())
}

/// Files that a template takes in by a literal name: `{% include "x" %}`, `extends`, `import`, `from`.
pub(crate) fn names_of_includes(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{%") {
        rest = &rest[start + 2..];
        let Some(end) = rest.find("%}") else { break };
        let tag = rest[..end].trim_start_matches(['-', '+']).trim_start();
        let word = tag.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or("");
        if matches!(word, "include" | "extends" | "import" | "from")
            && let Some(quote) = tag.find(['"', '\''])
        {
            let mark = &tag[quote..=quote];
            if let Some(length) = tag[quote + 1..].find(mark) {
                names.push(tag[quote + 1..quote + 1 + length].to_owned());
            }
        }
        rest = &rest[end..];
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_are_found() {
        let text = "{% include \"a.txt\" %}{%- extends 'b' %}{% from \"c\" import x %}{% if \"d\" %}{% include name %}{% include";
        assert_eq!(names_of_includes(text), ["a.txt", "b", "c"]);
    }

    #[test]
    fn tags_that_would_need_too_much_stack_are_refused() {
        let long = format!("x\n{{{{ {}1 }}}}", "1+".repeat(20_000));
        let error = guard("t", &long).unwrap_err();
        assert_eq!(
            (error.kind, error.line, error.message.as_str()),
            (RenderFault::Limit, Some(2), "one tag has more than 32768 bytes")
        );
        let chain = format!("{{% if 0 %}}{}{{% endif %}}", "{%- elif 0 -%}".repeat(2001));
        assert_eq!(
            guard("t", &chain).unwrap_err().message,
            "there are more than 2000 `elif`"
        );
        assert_eq!(guard("t", "{%} {{}} {{}"), Ok(()));
        assert_eq!(guard("t", "{{ a }} {% if b %} {{ open {# #} {{"), Ok(()));
    }
}
