//! Expressions of `condition` and `skip_when`: the part of Python's that such rules are written in.
//!
//! Comparisons (also chained), `and`, `or`, `not`, `in`, `is`, `a if b else c`, sums and products, parentheses, lists,
//! `len(…)` and its like, generators within them, texts, numbers and names. Evaluation has no effect but its value: it
//! can neither assign nor reach anything that its [`Scope`] does not give, and it ends after a bounded number of steps.

mod evaluate;
mod parse;

use std::collections::BTreeMap;

use super::suggest::nearest;
use super::value::Value;

/// Bytes that an expression may have.
const MAX_BYTES: usize = 8 * 1024;

/// Both words for all sheets of a run.
pub const SHEETS: &[&str] = &["sheets", "batches"];

/// What `skip_when` may ask of a sheet: `sheets[n].status`.
pub const SHEET_FIELDS: &[&str] = &[
    "sheet_num",
    "status",
    "attempt_count",
    "completion_attempts",
    "exit_code",
    "validation_passed",
    "last_pass_percentage",
    "error_category",
    "error_code",
    "error_message",
    "estimated_cost",
];

/// What `skip_when` may ask of the run: `job.total_sheets`.
pub const JOB_FIELDS: &[&str] = &[
    "job_id",
    "job_name",
    "status",
    "total_sheets",
    "last_completed_sheet",
    "rate_limit_waits",
    "quota_waits",
    "total_estimated_cost",
];

/// A parsed expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression(Node);

/// A value while it is evaluated.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// One of YAML's.
    Plain(Value),
    /// All sheets of the run, by number.
    Sheets,
    /// A sheet.
    Sheet(u32),
    /// The run.
    Job,
    /// A list of such.
    List(Vec<Self>),
}

/// What an expression may look at.
pub trait Scope {
    /// What the name stands for.
    fn variable(&self, name: &str) -> Option<Item>;

    /// Every name, for suggestions.
    fn names(&self) -> Vec<&str>;

    /// How many sheets [`Item::Sheets`] has.
    fn sheets(&self) -> u32 {
        0
    }

    /// A field of a sheet; one of [`SHEET_FIELDS`].
    fn of_sheet(&self, _sheet: u32, _field: &str) -> Option<Value> {
        None
    }

    /// A field of the run; one of [`JOB_FIELDS`].
    fn of_job(&self, _field: &str) -> Option<Value> {
        None
    }
}

impl Scope for BTreeMap<String, Value> {
    fn variable(&self, name: &str) -> Option<Item> {
        self.get(name).cloned().map(Item::Plain)
    }

    fn names(&self) -> Vec<&str> {
        self.keys().map(String::as_str).collect()
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Or(Vec<Self>),
    And(Vec<Self>),
    Not(Box<Self>),
    Minus(Box<Self>),
    /// Taken, condition, otherwise.
    If(Box<(Self, Self, Self)>),
    /// `a < b <= c`.
    Compare(Box<Self>, Vec<(Comparison, Self)>),
    /// `a + b - c`, or `a * b % c`.
    Calculate(Box<Self>, Vec<(Operator, Self)>),
    List(Vec<Self>),
    Generator(Box<Generator>),
    Literal(Value),
    Name(String),
    Field(Box<Self>, String),
    Index(Box<Self>, Box<Self>),
    Call(Function, Vec<Self>),
    Method(Box<Self>, Method, Vec<Self>),
}

/// `each for names in items if condition`.
#[derive(Debug, Clone, PartialEq)]
struct Generator {
    each: Node,
    names: Vec<String>,
    items: Node,
    condition: Option<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
    Is,
    IsNot,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operator {
    Plus,
    Minus,
    Times,
    Divide,
    FloorDivide,
    Modulo,
}

/// A table of words and what they mean.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        enum $name { $($variant),* }

        impl $name {
            const ALL: &'static [Self] = &[$(Self::$variant),*];

            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            fn named(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.word() == word)
            }
        }
    };
}

words! {
    /// What can be called.
    Function {
        Len = "len", Bool = "bool", Int = "int", Str = "str", Any = "any", All = "all", Max = "max", Min = "min",
    }
}

words! {
    /// What can be called on a value.
    Method {
        Get = "get", Keys = "keys", Values = "values", Items = "items", StartsWith = "startswith",
        EndsWith = "endswith", Lower = "lower", Upper = "upper", Strip = "strip",
    }
}

impl Expression {
    /// Parses an expression. The error is a sentence fragment for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("it is longer than {MAX_BYTES} bytes"));
        }
        parse::parse(text).map(Self)
    }

    /// Whether it is true there, as Python's `bool()` has it. The error says what cannot be evaluated.
    pub fn holds(&self, scope: &dyn Scope) -> Result<bool, String> {
        evaluate::holds(&self.0, scope)
    }

    /// The names that it uses and does not bind itself, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.0
            .visit(&mut Vec::new(), &mut |node, bound| {
                if let Node::Name(name) = node
                    && !bound.contains(&name.as_str())
                {
                    names.push(name.as_str());
                }
                Ok(())
            })
            .unwrap_or_default();
        names
    }

    /// What is wrong with it as a `skip_when` of a job with so many sheets, as far as that shows before anything has run.
    pub fn check_skip(&self, sheets: u32) -> Result<(), String> {
        self.0.visit(&mut Vec::new(), &mut |node, bound| {
            // What a generator's name stands for shows only when it is evaluated.
            let is =
                |node: &Node, name: &str| matches!(node, Node::Name(found) if found == name && !bound.contains(&name));
            let is_sheets = |node: &Node| SHEETS.iter().any(|name| is(node, name));
            let is_sheet = |node: &Node| match node {
                Node::Index(of, _) => is_sheets(of),
                Node::Method(of, Method::Get, _) => is_sheets(of),
                _ => false,
            };
            match node {
                Node::Name(name)
                    if !bound.contains(&name.as_str()) && name != "job" && !SHEETS.contains(&name.as_str()) =>
                {
                    Err(unknown("name", name, bound.iter().copied().chain(["sheets", "job"])))
                }
                Node::Index(of, index) if is_sheets(of) => in_range(index, sheets),
                Node::Field(of, field) if is(of, "job") && !JOB_FIELDS.contains(&field.as_str()) => {
                    Err(unknown("field of `job`", field, JOB_FIELDS.iter().copied()))
                }
                Node::Field(of, field) if is_sheet(of) && !SHEET_FIELDS.contains(&field.as_str()) => {
                    Err(unknown("field of a sheet", field, SHEET_FIELDS.iter().copied()))
                }
                Node::Field(of, field) if is_sheets(of) => {
                    Err(format!("`sheets.{field}` is nothing; write `sheets[n].{field}`"))
                }
                _ => Ok(()),
            }
        })
    }
}

fn in_range(index: &Node, sheets: u32) -> Result<(), String> {
    match index {
        Node::Literal(Value::Int(number)) if !(1..=i64::from(sheets)).contains(number) => {
            Err(format!("there is no sheet {number}: this job has {sheets}"))
        }
        _ => Ok(()),
    }
}

fn unknown<'n>(what: &str, name: &str, known: impl Iterator<Item = &'n str>) -> String {
    match nearest(name, known) {
        Some(near) => format!("`{name}` is no {what}; did you mean `{near}`?"),
        None => format!("`{name}` is no {what}"),
    }
}

/// Looks at a part of an expression, with the names that generators bind there.
type See<'s, 'n> = &'s mut dyn FnMut(&'n Node, &[&str]) -> Result<(), String>;

impl Node {
    /// Calls `see` for each part, with the names that generators bind there.
    fn visit<'n>(&'n self, bound: &mut Vec<&'n str>, see: See<'_, 'n>) -> Result<(), String> {
        see(self, bound)?;
        match self {
            Self::Or(parts) | Self::And(parts) | Self::List(parts) | Self::Call(_, parts) => {
                parts.iter().try_for_each(|part| part.visit(bound, see))
            }
            Self::Not(inner) | Self::Minus(inner) | Self::Field(inner, _) => inner.visit(bound, see),
            Self::If(parts) => {
                let (taken, condition, otherwise) = parts.as_ref();
                [taken, condition, otherwise]
                    .into_iter()
                    .try_for_each(|part| part.visit(bound, see))
            }
            Self::Compare(first, rest) => {
                first.visit(bound, see)?;
                rest.iter().try_for_each(|(_, part)| part.visit(bound, see))
            }
            Self::Calculate(first, rest) => {
                first.visit(bound, see)?;
                rest.iter().try_for_each(|(_, part)| part.visit(bound, see))
            }
            Self::Generator(generator) => {
                generator.items.visit(bound, see)?;
                let before = bound.len();
                bound.extend(generator.names.iter().map(String::as_str));
                let inner = [Some(&generator.each), generator.condition.as_ref()];
                let seen = inner.into_iter().flatten().try_for_each(|part| part.visit(bound, see));
                bound.truncate(before);
                seen
            }
            Self::Index(of, index) => {
                of.visit(bound, see)?;
                index.visit(bound, see)
            }
            Self::Method(of, _, arguments) => {
                of.visit(bound, see)?;
                arguments.iter().try_for_each(|part| part.visit(bound, see))
            }
            Self::Literal(_) | Self::Name(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
