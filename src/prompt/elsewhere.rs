//! Rendering in another place, whose memory and time are bounded whatever the template does: what is said there and
//! back. The place itself is a process that the programs give ([`render_in`]); the library does without.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::sync::{Mutex, OnceLock};

use serde::{Deserialize, Serialize};

use super::jinja;
use super::template::{RenderError, RenderFault, with_template};
use crate::job::plan::{Prompt, TemplateEngine};
use crate::job::value::Value;

/// Bytes of memory that rendering may take in such a place, the stack included.
pub const MAX_MEMORY: u64 = 256 * 1024 * 1024;
/// Seconds of a processor that rendering one prompt may take there.
pub const MAX_SECONDS: u64 = 2;

/// Why a place gives no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer {
    /// It took more than [`MAX_MEMORY`].
    Memory,
    /// It took more than [`MAX_SECONDS`].
    Time,
    /// It went so deep that the stack was used up.
    Depth,
    /// Anything else, in words.
    Other(String),
}

/// A bounded place that serves one template.
pub trait Place: Send {
    /// One line there, one line back.
    fn ask(&mut self, line: &[u8]) -> Result<Vec<u8>, NoAnswer>;
}

/// Opens a place.
pub type Open = fn() -> Result<Box<dyn Place>, String>;

static OPEN: OnceLock<Open> = OnceLock::new();

/// From now on templates that may grow are rendered in such places. Without this they are rendered right here, in
/// which their memory is not bounded.
pub fn render_in(open: Open) {
    // The first word counts; there is but one.
    OPEN.get_or_init(|| open);
}

/// Whether there are such places.
pub(super) fn is_there() -> bool {
    OPEN.get().is_some()
}

#[derive(Serialize, Deserialize)]
enum Question<'q> {
    Template(Cow<'q, Prompt>, TemplateEngine),
    Render(Cow<'q, BTreeMap<String, Value>>),
    Expression(Cow<'q, str>, Cow<'q, BTreeMap<String, Value>>),
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Names(Vec<String>),
    Text(String),
    Fault(RenderError),
}

/// A template in another place.
pub(super) struct Template {
    place: Mutex<Box<dyn Place>>,
    name: String,
    names: Vec<String>,
}

impl Template {
    /// Compiles it there.
    pub(super) fn new(prompt: &Prompt, engine: TemplateEngine) -> Result<Self, RenderError> {
        let name = &prompt.template_name;
        let mut place = open(name)?;
        match ask(&mut *place, &Question::Template(Cow::Borrowed(prompt), engine), name)? {
            Answer::Names(names) => Ok(Self {
                place: Mutex::new(place),
                name: name.clone(),
                names,
            }),
            Answer::Fault(error) => Err(error),
            Answer::Text(_) => Err(failed(name, "the answer fits no question")),
        }
    }

    pub(super) fn render(&self, variables: &BTreeMap<String, Value>) -> Result<String, RenderError> {
        let Ok(mut place) = self.place.lock() else {
            return Err(failed(&self.name, "an earlier one ended it"));
        };
        text(
            ask(&mut **place, &Question::Render(Cow::Borrowed(variables)), &self.name)?,
            &self.name,
        )
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }
}

/// The value of an expression.
pub(super) fn expression(expression: &str, variables: &BTreeMap<String, Value>) -> Result<String, RenderError> {
    let question = Question::Expression(Cow::Borrowed(expression), Cow::Borrowed(variables));
    let name = "expression";
    text(ask(&mut *open(name)?, &question, name)?, name)
}

fn open(name: &str) -> Result<Box<dyn Place>, RenderError> {
    match OPEN.get() {
        Some(open) => open().map_err(|error| failed(name, &error)),
        None => Err(failed(name, "there is no place for it")),
    }
}

fn ask(place: &mut dyn Place, question: &Question<'_>, name: &str) -> Result<Answer, RenderError> {
    let mut line = serde_json::to_vec(question).map_err(|error| failed(name, &error.to_string()))?;
    line.push(b'\n');
    let limit = |message: String| RenderError {
        kind: RenderFault::Limit,
        message,
        line: None,
        template: name.to_owned(),
        name: None,
    };
    let answer = place.ask(&line).map_err(|error| match error {
        NoAnswer::Memory => limit(format!("it takes more than {} MiB of memory", MAX_MEMORY / 1024 / 1024)),
        NoAnswer::Time => limit(format!("it takes more than {MAX_SECONDS} s")),
        NoAnswer::Depth => limit("it goes too deep into itself".to_owned()),
        NoAnswer::Other(error) => failed(name, &error),
    })?;
    serde_json::from_slice(&answer).map_err(|error| failed(name, &error.to_string()))
}

fn text(answer: Answer, name: &str) -> Result<String, RenderError> {
    match answer {
        Answer::Text(text) => Ok(text),
        Answer::Fault(error) => Err(error),
        Answer::Names(_) => Err(failed(name, "the answer fits no question")),
    }
}

fn failed(name: &str, why: &str) -> RenderError {
    RenderError {
        kind: RenderFault::Elsewhere,
        message: format!("the process that renders it failed: {why}"),
        line: None,
        template: name.to_owned(),
        name: None,
    }
}

/// Answers what is asked until nothing more is. `begin` is called before each work.
pub fn serve(
    questions: &mut (impl BufRead + Send),
    answers: &mut (impl Write + Send),
    begin: impl Fn() + Sync,
) -> io::Result<()> {
    let Some(question) = next(questions)? else {
        return Ok(());
    };
    begin();
    match question {
        Question::Template(prompt, engine) => {
            let served = with_template(&prompt, engine, |template| {
                say(answers, &Answer::Names(template.names()))?;
                while let Some(question) = next(questions)? {
                    let Question::Render(variables) = question else {
                        return Err(io::ErrorKind::InvalidData.into());
                    };
                    begin();
                    say(answers, &told(template.render(&variables)))?;
                }
                Ok(())
            });
            served.unwrap_or_else(|error| say(answers, &Answer::Fault(error)))
        }
        Question::Expression(text, variables) => say(answers, &told(jinja::expression(&text, &variables))),
        Question::Render(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn told(rendered: Result<String, RenderError>) -> Answer {
    rendered.map_or_else(Answer::Fault, Answer::Text)
}

fn next(questions: &mut impl BufRead) -> io::Result<Option<Question<'static>>> {
    let mut line = Vec::new();
    questions.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

fn say(answers: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    answers.write_all(&line)?;
    answers.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(questions: &[Question<'_>]) -> Vec<Answer> {
        let lines: Vec<String> = questions
            .iter()
            .map(|question| serde_json::to_string(question).unwrap())
            .collect();
        let mut answers = Vec::new();
        serve(&mut (lines.join("\n") + "\n").as_bytes(), &mut answers, || {}).unwrap();
        let answers = String::from_utf8(answers).unwrap();
        answers
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// What is rendered in another place has the same bytes, the types of the variables and the faults included.
    #[test]
    fn a_place_serves_one_template_and_many_variables() {
        let plan = crate::job::plan_of(
            "name: n\nworkspace: /w\nsheet: {size: 1, total_items: 2}\n\
             prompt: {template: \"{% set x = 9 / sheet_num %}{{ x }} {{ m[1] }} {{ f }}\", engine: jinja, \
             variables: {m: {1: one}, f: 0.1}}\n",
        );
        let variables: Vec<_> = plan
            .sheets
            .iter()
            .map(|sheet| super::super::variables(&plan, sheet))
            .collect();
        let mut questions = vec![Question::Template(Cow::Borrowed(&plan.prompt), TemplateEngine::Jinja)];
        questions.extend(
            variables
                .iter()
                .map(|variables| Question::Render(Cow::Borrowed(variables))),
        );
        questions.push(Question::Render(Cow::Owned(BTreeMap::new())));
        let answers = served(&questions);
        let [
            Answer::Names(names),
            Answer::Text(one),
            Answer::Text(two),
            Answer::Fault(error),
        ] = &answers[..]
        else {
            panic!("{} answers", answers.len());
        };
        assert_eq!(names, &["f", "m", "sheet_num"]);
        assert_eq!((one.as_str(), two.as_str()), ("9.0 one 0.1", "4.5 one 0.1"));
        assert_eq!(
            (error.kind, error.name.as_deref()),
            (RenderFault::Undefined, Some("sheet_num"))
        );
        let question = Question::Expression("1 + 1".into(), Cow::Owned(BTreeMap::new()));
        assert!(matches!(&served(&[question])[..], [Answer::Text(two)] if two == "2"));
    }
}
