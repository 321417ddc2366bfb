//! Conditions of validation rules: `sheet_num >= 3 and stage != 2`.
//!
//! Comparisons (also chained), `and`, `or`, `not`, parentheses, `in [..]`, numbers, texts and variables. A safe
//! evaluator: it can neither call nor assign anything.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::suggest::nearest;
use super::value::Value;

/// Levels of parentheses and `not`.
const MAX_DEPTH: usize = 64;
/// Bytes that a condition may have.
const MAX_BYTES: usize = 8 * 1024;

/// A parsed condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition(Expression);

#[derive(Debug, Clone, PartialEq)]
enum Expression {
    Or(Vec<Self>),
    And(Vec<Self>),
    Not(Box<Self>),
    /// `a < b <= c`.
    Compare(Box<Self>, Vec<(Comparison, Self)>),
    List(Vec<Self>),
    Literal(Value),
    Name(String),
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
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Literal(Value),
    /// A name or a word such as `and`.
    Word(String),
    Compare(Comparison),
    Open,
    Close,
    OpenList,
    CloseList,
    Comma,
}

impl Condition {
    /// Parses a condition. The error is a sentence fragment for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("it is longer than {MAX_BYTES} bytes"));
        }
        let tokens = tokens(text)?;
        if tokens.is_empty() {
            return Err("it is empty".to_owned());
        }
        let mut parser = Parser {
            tokens,
            at: 0,
            depth: 0,
        };
        let expression = parser.or()?;
        match parser.peek() {
            None => Ok(Self(expression)),
            Some(token) => Err(format!("{} is not expected there", shown(token))),
        }
    }

    /// Whether it holds for those variables.
    ///
    /// The error says which name is unknown or which values cannot be compared.
    pub fn holds(&self, variables: &BTreeMap<String, Value>) -> Result<bool, String> {
        Ok(truth(&evaluate(&self.0, variables)?))
    }

    /// The names it uses, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        collect(&self.0, &mut names);
        names
    }
}

fn collect<'e>(expression: &'e Expression, names: &mut Vec<&'e str>) {
    match expression {
        Expression::Or(parts) | Expression::And(parts) | Expression::List(parts) => {
            parts.iter().for_each(|part| collect(part, names));
        }
        Expression::Not(inner) => collect(inner, names),
        Expression::Compare(first, rest) => {
            collect(first, names);
            rest.iter().for_each(|(_, part)| collect(part, names));
        }
        Expression::Literal(_) => {}
        Expression::Name(name) => names.push(name),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else {
            return Ok(tokens);
        };
        let two = rest.get(..2).unwrap_or("");
        let (token, length) = match two {
            "==" => (Token::Compare(Comparison::Equal), 2),
            "!=" => (Token::Compare(Comparison::NotEqual), 2),
            "<=" => (Token::Compare(Comparison::LessOrEqual), 2),
            ">=" => (Token::Compare(Comparison::GreaterOrEqual), 2),
            "&&" => return Err("`&&` is written `and`".to_owned()),
            "||" => return Err("`||` is written `or`".to_owned()),
            _ => match first {
                '<' => (Token::Compare(Comparison::Less), 1),
                '>' => (Token::Compare(Comparison::Greater), 1),
                '=' => return Err("`=` is written `==`".to_owned()),
                '!' => return Err("`!` is written `not`".to_owned()),
                '(' => (Token::Open, 1),
                ')' => (Token::Close, 1),
                '[' => (Token::OpenList, 1),
                ']' => (Token::CloseList, 1),
                ',' => (Token::Comma, 1),
                '\'' | '"' => quoted(rest, first)?,
                c if c.is_ascii_digit() || c == '-' => numeric(rest)?,
                c if c.is_alphabetic() || c == '_' => {
                    let end = rest
                        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                        .unwrap_or(rest.len());
                    (Token::Word(rest[..end].to_owned()), end)
                }
                c => return Err(format!("`{c}` is not expected there")),
            },
        };
        tokens.push(token);
        rest = &rest[length..];
    }
}

fn quoted(rest: &str, quote: char) -> Result<(Token, usize), String> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, c @ ('\\' | '\'' | '"'))) => text.push(c),
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, c)) => text.extend(['\\', c]),
                None => break,
            },
            c if c == quote => return Ok((Token::Literal(Value::Text(text)), at + 1)),
            c => text.push(c),
        }
    }
    Err("a text in quotes is not closed".to_owned())
}

fn numeric(rest: &str) -> Result<(Token, usize), String> {
    let sign = usize::from(rest.starts_with('-'));
    let digits = rest[sign..]
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .map_or(rest.len(), |end| end + sign);
    let word = &rest[..digits];
    let value = match word.parse::<i64>() {
        Ok(value) => Value::Int(value),
        Err(_) => Value::Float(word.parse().map_err(|_| format!("`{word}` is no number"))?),
    };
    Ok((Token::Literal(value), digits))
}

fn shown(token: &Token) -> String {
    match token {
        Token::Literal(value) => format!("`{}`", value.python_repr()),
        Token::Word(word) => format!("`{word}`"),
        Token::Compare(_) => "a comparison".to_owned(),
        Token::Open => "`(`".to_owned(),
        Token::Close => "`)`".to_owned(),
        Token::OpenList => "`[`".to_owned(),
        Token::CloseList => "`]`".to_owned(),
        Token::Comma => "`,`".to_owned(),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn takes(&mut self, token: &Token) -> bool {
        let matches = self.peek() == Some(token);
        if matches {
            self.at += 1;
        }
        matches
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let matches = matches!(self.peek(), Some(Token::Word(found)) if found == word);
        if matches {
            self.at += 1;
        }
        matches
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            Err("it is nested too deeply".to_owned())
        } else {
            Ok(())
        }
    }

    fn or(&mut self) -> Result<Expression, String> {
        let mut parts = vec![self.and()?];
        while self.takes_word("or") {
            parts.push(self.and()?);
        }
        Ok(if parts.len() == 1 {
            parts.remove(0)
        } else {
            Expression::Or(parts)
        })
    }

    fn and(&mut self) -> Result<Expression, String> {
        let mut parts = vec![self.not()?];
        while self.takes_word("and") {
            parts.push(self.not()?);
        }
        Ok(if parts.len() == 1 {
            parts.remove(0)
        } else {
            Expression::And(parts)
        })
    }

    fn not(&mut self) -> Result<Expression, String> {
        if !self.takes_word("not") {
            return self.comparison();
        }
        self.deeper()?;
        let inner = self.not()?;
        self.depth -= 1;
        Ok(Expression::Not(Box::new(inner)))
    }

    fn comparison(&mut self) -> Result<Expression, String> {
        let first = self.operand()?;
        let mut rest = Vec::new();
        while let Some(comparison) = self.comparator()? {
            rest.push((comparison, self.operand()?));
        }
        Ok(if rest.is_empty() {
            first
        } else {
            Expression::Compare(Box::new(first), rest)
        })
    }

    fn comparator(&mut self) -> Result<Option<Comparison>, String> {
        if self.takes_word("in") {
            return Ok(Some(Comparison::In));
        }
        if self.takes_word("not") {
            return if self.takes_word("in") {
                Ok(Some(Comparison::NotIn))
            } else {
                Err("`not` is not expected there".to_owned())
            };
        }
        match self.peek() {
            Some(Token::Compare(comparison)) => {
                let comparison = *comparison;
                self.at += 1;
                Ok(Some(comparison))
            }
            _ => Ok(None),
        }
    }

    fn operand(&mut self) -> Result<Expression, String> {
        match self.next() {
            Some(Token::Literal(value)) => Ok(Expression::Literal(value)),
            Some(Token::Word(word)) => match word.as_str() {
                "true" | "True" => Ok(Expression::Literal(Value::Bool(true))),
                "false" | "False" => Ok(Expression::Literal(Value::Bool(false))),
                "none" | "None" | "null" => Ok(Expression::Literal(Value::Null)),
                "and" | "or" | "in" | "not" => Err(format!("`{word}` is not expected there")),
                _ => Ok(Expression::Name(word)),
            },
            Some(Token::Open) => {
                self.deeper()?;
                let inner = self.or()?;
                self.depth -= 1;
                if self.takes(&Token::Close) {
                    Ok(inner)
                } else {
                    Err("a `(` is not closed".to_owned())
                }
            }
            Some(Token::OpenList) => {
                self.deeper()?;
                let mut items = Vec::new();
                while !self.takes(&Token::CloseList) {
                    items.push(self.or()?);
                    if !self.takes(&Token::Comma) && self.peek() != Some(&Token::CloseList) {
                        return Err("a `[` is not closed".to_owned());
                    }
                }
                self.depth -= 1;
                Ok(Expression::List(items))
            }
            Some(token) => Err(format!("{} is not expected there", shown(&token))),
            None => Err("it ends too early".to_owned()),
        }
    }
}

fn evaluate(expression: &Expression, variables: &BTreeMap<String, Value>) -> Result<Value, String> {
    match expression {
        Expression::Or(parts) => {
            for part in parts {
                if truth(&evaluate(part, variables)?) {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        Expression::And(parts) => {
            for part in parts {
                if !truth(&evaluate(part, variables)?) {
                    return Ok(Value::Bool(false));
                }
            }
            Ok(Value::Bool(true))
        }
        Expression::Not(inner) => Ok(Value::Bool(!truth(&evaluate(inner, variables)?))),
        Expression::Compare(first, rest) => {
            let mut left = evaluate(first, variables)?;
            for (comparison, right) in rest {
                let right = evaluate(right, variables)?;
                if !compare(*comparison, &left, &right)? {
                    return Ok(Value::Bool(false));
                }
                left = right;
            }
            Ok(Value::Bool(true))
        }
        Expression::List(items) => Ok(Value::List(
            items
                .iter()
                .map(|item| evaluate(item, variables))
                .collect::<Result<_, _>>()?,
        )),
        Expression::Literal(value) => Ok(value.clone()),
        Expression::Name(name) => {
            variables
                .get(name)
                .cloned()
                .ok_or_else(|| match nearest(name, variables.keys().map(String::as_str)) {
                    Some(near) => format!("`{name}` is not a variable; did you mean `{near}`?"),
                    None => format!("`{name}` is not a variable (a text needs quotes)"),
                })
        }
    }
}

fn compare(comparison: Comparison, left: &Value, right: &Value) -> Result<bool, String> {
    let ordered = |allowed: &[Ordering]| match order(left, right) {
        Some(ordering) => Ok(allowed.contains(&ordering)),
        None => Err(format!(
            "{} and {} cannot be compared",
            left.python_repr(),
            right.python_repr()
        )),
    };
    match comparison {
        Comparison::Equal => Ok(equal(left, right)),
        Comparison::NotEqual => Ok(!equal(left, right)),
        Comparison::Less => ordered(&[Ordering::Less]),
        Comparison::LessOrEqual => ordered(&[Ordering::Less, Ordering::Equal]),
        Comparison::Greater => ordered(&[Ordering::Greater]),
        Comparison::GreaterOrEqual => ordered(&[Ordering::Greater, Ordering::Equal]),
        Comparison::In => is_in(left, right),
        Comparison::NotIn => Ok(!is_in(left, right)?),
    }
}

fn is_in(left: &Value, right: &Value) -> Result<bool, String> {
    match right {
        Value::List(items) => Ok(items.iter().any(|item| equal(left, item))),
        Value::Map(entries) => Ok(entries.iter().any(|(key, _)| equal(left, key))),
        Value::Text(text) if left.as_text().is_some() => Ok(text.contains(left.as_text().unwrap_or_default())),
        _ => Err(format!("{} is nothing that something can be in", right.python_repr())),
    }
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        _ => None,
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => left == right,
        _ => match (as_number(left), as_number(right)) {
            (Some(left), Some(right)) => left == right,
            _ => left == right,
        },
    }
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        _ => as_number(left)?.partial_cmp(&as_number(right)?),
    }
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Int(value) => *value != 0,
        Value::Float(value) => *value != 0.0,
        Value::Text(text) => !text.is_empty(),
        Value::List(items) => !items.is_empty(),
        Value::Map(entries) => !entries.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<String, Value> {
        [
            ("sheet_num", Value::Int(3)),
            ("stage", Value::Int(2)),
            ("mode", Value::Text("fast".into())),
            ("ratio", Value::Float(0.5)),
            ("parts", Value::List(vec![Value::Int(1), Value::Int(3)])),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    #[test]
    fn conditions_hold_or_not() {
        let table = [
            ("sheet_num == 3", true),
            ("sheet_num >= 3 and stage != 2", false),
            ("sheet_num > 1 and stage <= 2", true),
            ("sheet_num < 3 or mode == 'fast'", true),
            ("not sheet_num == 3", false),
            ("not (sheet_num == 3 and stage == 1)", true),
            ("sheet_num in [1, 2, 3]", true),
            ("sheet_num not in [1, 2]", true),
            ("sheet_num in parts", true),
            ("mode in ['slow', \"fast\",]", true),
            ("1 <= sheet_num <= 3", true),
            ("1 <= sheet_num < 3", false),
            ("ratio < 1", true),
            ("sheet_num == '3'", false),
            ("stage==2 and sheet_num==3", true),
            ("sheet_num > -1", true),
            ("true and not False", true),
            ("mode", true),
        ];
        for (text, expected) in table {
            let condition = Condition::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(condition.holds(&variables()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_parsed_or_evaluated_is_told() {
        let parse = [
            ("", "it is empty"),
            ("sheet_num = 3", "`=` is written `==`"),
            ("sheet_num == 3 && stage == 2", "`&&` is written `and`"),
            ("sheet_num ==", "it ends too early"),
            ("sheet_num == 3)", "`)` is not expected there"),
            ("(sheet_num == 3", "a `(` is not closed"),
            ("sheet_num 3", "`3` is not expected there"),
            ("'open", "a text in quotes is not closed"),
            ("1.2.3 == 1", "`1.2.3` is no number"),
            ("a and and b", "`and` is not expected there"),
            ("__import__('os')", "`(` is not expected there"),
            ("in [1", "`in` is not expected there"),
        ];
        for (text, expected) in parse {
            assert_eq!(Condition::parse(text).unwrap_err(), expected, "{text}");
        }
        assert_eq!(
            Condition::parse(&"(".repeat(1000)).unwrap_err(),
            "it is nested too deeply"
        );
        assert_eq!(
            Condition::parse(&"not ".repeat(1000)).unwrap_err(),
            "it is nested too deeply"
        );
        let holds = |text: &str| Condition::parse(text).unwrap().holds(&variables()).unwrap_err();
        assert_eq!(
            holds("sheet_nun == 1"),
            "`sheet_nun` is not a variable; did you mean `sheet_num`?"
        );
        assert_eq!(
            holds("mode == quick"),
            "`quick` is not a variable (a text needs quotes)"
        );
        assert_eq!(holds("mode > 3"), "'fast' and 3 cannot be compared");
        assert_eq!(holds("1 in 3"), "3 is nothing that something can be in");
        assert_eq!(
            Condition::parse("a == b and c in [d]").unwrap().names(),
            ["a", "b", "c", "d"]
        );
    }
}
