//! From text to expression.

use super::{Comparison, Function, Generator, Method, Node, Operator};
use crate::job::suggest::nearest;
use crate::job::value::Value;

/// Levels of parentheses, `not`, fields of fields and the like.
const MAX_DEPTH: usize = 64;

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Literal(Value),
    /// A name or a word such as `and`.
    Word(String),
    Compare(Comparison),
    Operator(Operator),
    Open,
    Close,
    OpenList,
    CloseList,
    Comma,
    Dot,
}

pub(super) fn parse(text: &str) -> Result<Node, String> {
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Err("it is empty".to_owned());
    }
    let mut parser = Parser {
        tokens,
        at: 0,
        depth: 0,
    };
    let node = parser.whole()?;
    match parser.peek() {
        None => Ok(node),
        Some(token) => Err(format!("{} is not expected there", shown(token))),
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
            "//" => (Token::Operator(Operator::FloorDivide), 2),
            "&&" => return Err("`&&` is written `and`".to_owned()),
            "||" => return Err("`||` is written `or`".to_owned()),
            _ => match first {
                '<' => (Token::Compare(Comparison::Less), 1),
                '>' => (Token::Compare(Comparison::Greater), 1),
                '+' => (Token::Operator(Operator::Plus), 1),
                '-' => (Token::Operator(Operator::Minus), 1),
                '*' => (Token::Operator(Operator::Times), 1),
                '/' => (Token::Operator(Operator::Divide), 1),
                '%' => (Token::Operator(Operator::Modulo), 1),
                '=' => return Err("`=` is written `==`".to_owned()),
                '!' => return Err("`!` is written `not`".to_owned()),
                '(' => (Token::Open, 1),
                ')' => (Token::Close, 1),
                '[' => (Token::OpenList, 1),
                ']' => (Token::CloseList, 1),
                ',' => (Token::Comma, 1),
                '.' => (Token::Dot, 1),
                '\'' | '"' => quoted(rest, first)?,
                c if c.is_ascii_digit() => numeric(rest)?,
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
    let digits = rest
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(rest.len());
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
        Token::Operator(operator) => format!("`{}`", operator.word()),
        Token::Open => "`(`".to_owned(),
        Token::Close => "`)`".to_owned(),
        Token::OpenList => "`[`".to_owned(),
        Token::CloseList => "`]`".to_owned(),
        Token::Comma => "`,`".to_owned(),
        Token::Dot => "`.`".to_owned(),
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

    /// What `inner` parses, one level deeper.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("it is nested too deeply".to_owned());
        }
        let parsed = inner(self)?;
        self.depth -= 1;
        Ok(parsed)
    }

    fn whole(&mut self) -> Result<Node, String> {
        let taken = self.or()?;
        if !self.takes_word("if") {
            return Ok(taken);
        }
        let condition = self.or()?;
        if !self.takes_word("else") {
            return Err("an `if` needs an `else`: `a if condition else b`".to_owned());
        }
        let otherwise = self.deeper(Self::whole)?;
        Ok(Node::If(Box::new((taken, condition, otherwise))))
    }

    fn or(&mut self) -> Result<Node, String> {
        let mut parts = vec![self.and()?];
        while self.takes_word("or") {
            parts.push(self.and()?);
        }
        Ok(if parts.len() == 1 {
            parts.remove(0)
        } else {
            Node::Or(parts)
        })
    }

    fn and(&mut self) -> Result<Node, String> {
        let mut parts = vec![self.not()?];
        while self.takes_word("and") {
            parts.push(self.not()?);
        }
        Ok(if parts.len() == 1 {
            parts.remove(0)
        } else {
            Node::And(parts)
        })
    }

    fn not(&mut self) -> Result<Node, String> {
        if !self.takes_word("not") {
            return self.comparison();
        }
        Ok(Node::Not(Box::new(self.deeper(Self::not)?)))
    }

    fn comparison(&mut self) -> Result<Node, String> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        while let Some(comparison) = self.comparator()? {
            rest.push((comparison, self.sum()?));
        }
        Ok(if rest.is_empty() {
            first
        } else {
            Node::Compare(Box::new(first), rest)
        })
    }

    fn comparator(&mut self) -> Result<Option<Comparison>, String> {
        if self.takes_word("in") {
            return Ok(Some(Comparison::In));
        }
        if self.takes_word("is") {
            let negated = self.takes_word("not");
            return Ok(Some(if negated { Comparison::IsNot } else { Comparison::Is }));
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

    fn sum(&mut self) -> Result<Node, String> {
        self.chain(&[Operator::Plus, Operator::Minus], Self::product)
    }

    fn product(&mut self) -> Result<Node, String> {
        use Operator::{Divide, FloorDivide, Modulo, Times};
        self.chain(&[Times, Divide, FloorDivide, Modulo], Self::factor)
    }

    fn chain(&mut self, operators: &[Operator], part: fn(&mut Self) -> Result<Node, String>) -> Result<Node, String> {
        let first = part(self)?;
        let mut rest = Vec::new();
        while let Some(Token::Operator(operator)) = self.peek() {
            let operator = *operator;
            if !operators.contains(&operator) {
                break;
            }
            self.at += 1;
            rest.push((operator, part(self)?));
        }
        Ok(if rest.is_empty() {
            first
        } else {
            Node::Calculate(Box::new(first), rest)
        })
    }

    fn factor(&mut self) -> Result<Node, String> {
        if self.takes(&Token::Operator(Operator::Minus)) {
            return Ok(Node::Minus(Box::new(self.deeper(Self::factor)?)));
        }
        let before = self.depth;
        let mut node = self.operand()?;
        // `a.b.c` is a tree as deep as it is long.
        loop {
            let of = Box::new(node);
            node = if self.takes(&Token::Dot) {
                self.depth += 1;
                match self.next() {
                    Some(Token::Word(name)) if self.peek() == Some(&Token::Open) => {
                        let Some(method) = Method::named(&name) else {
                            return Err(no_such("method", &name, Method::ALL.iter().map(|method| method.word())));
                        };
                        self.at += 1;
                        Node::Method(of, method, self.arguments()?)
                    }
                    Some(Token::Word(name)) => Node::Field(of, name),
                    Some(token) => return Err(format!("{} is not expected there", shown(&token))),
                    None => return Err("it ends too early".to_owned()),
                }
            } else if self.takes(&Token::OpenList) {
                self.depth += 1;
                let index = self.deeper(Self::whole)?;
                if !self.takes(&Token::CloseList) {
                    return Err("a `[` is not closed".to_owned());
                }
                Node::Index(of, Box::new(index))
            } else {
                self.depth = before;
                return Ok(*of);
            };
            if self.depth > MAX_DEPTH {
                return Err("it is nested too deeply".to_owned());
            }
        }
    }

    fn operand(&mut self) -> Result<Node, String> {
        match self.next() {
            Some(Token::Literal(value)) => Ok(Node::Literal(value)),
            Some(Token::Word(word)) => match word.as_str() {
                "true" | "True" => Ok(Node::Literal(Value::Bool(true))),
                "false" | "False" => Ok(Node::Literal(Value::Bool(false))),
                "none" | "None" | "null" => Ok(Node::Literal(Value::Null)),
                "and" | "or" | "in" | "not" | "is" | "if" | "else" | "for" => {
                    Err(format!("`{word}` is not expected there"))
                }
                _ if self.takes(&Token::Open) => match Function::named(&word) {
                    Some(function) => Ok(Node::Call(function, self.arguments()?)),
                    None => Err(no_such("function", &word, Function::ALL.iter().map(|one| one.word()))),
                },
                _ => Ok(Node::Name(word)),
            },
            Some(Token::Open) => {
                let inner = self.deeper(Self::generator)?;
                if self.takes(&Token::Close) {
                    Ok(inner)
                } else {
                    Err("a `(` is not closed".to_owned())
                }
            }
            Some(Token::OpenList) => {
                let mut items = self.items(&Token::CloseList, "a `[` is not closed")?;
                Ok(match items.pop() {
                    Some(generator @ Node::Generator(_)) if items.is_empty() => generator,
                    last => {
                        items.extend(last);
                        Node::List(items)
                    }
                })
            }
            Some(token) => Err(format!("{} is not expected there", shown(&token))),
            None => Err("it ends too early".to_owned()),
        }
    }

    /// What stands between the parentheses of a call, of which the first is read.
    fn arguments(&mut self) -> Result<Vec<Node>, String> {
        self.items(&Token::Close, "a `(` is not closed")
    }

    fn items(&mut self, close: &Token, open: &str) -> Result<Vec<Node>, String> {
        self.deeper(|parser| {
            let mut items = Vec::new();
            while !parser.takes(close) {
                items.push(parser.generator()?);
                if !parser.takes(&Token::Comma) && parser.peek() != Some(close) {
                    return Err(open.to_owned());
                }
            }
            Ok(items)
        })
    }

    /// A value, or values one after the other: `each for name in items if condition`.
    fn generator(&mut self) -> Result<Node, String> {
        let each = self.whole()?;
        if !self.takes_word("for") {
            return Ok(each);
        }
        let mut names = Vec::new();
        loop {
            match self.next() {
                Some(Token::Word(name)) => names.push(name),
                _ => return Err("`for` needs a name behind it".to_owned()),
            }
            if !self.takes(&Token::Comma) {
                break;
            }
        }
        if !self.takes_word("in") {
            return Err("`for` needs an `in`: `x for x in list`".to_owned());
        }
        let items = self.or()?;
        let condition = if self.takes_word("if") { Some(self.or()?) } else { None };
        Ok(Node::Generator(Box::new(Generator {
            each,
            names,
            items,
            condition,
        })))
    }
}

fn no_such<'n>(what: &str, name: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    match nearest(name, known.clone()) {
        Some(near) => format!("`{name}` is no {what}; did you mean `{near}`?"),
        None => {
            let known: Vec<&str> = known.collect();
            format!("`{name}` is no {what}; there are {}", known.join(", "))
        }
    }
}

impl Operator {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Plus => "+",
            Self::Minus => "-",
            Self::Times => "*",
            Self::Divide => "/",
            Self::FloorDivide => "//",
            Self::Modulo => "%",
        }
    }
}
