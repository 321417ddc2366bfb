//! The value of an expression, as Python has it.

use std::cmp::Ordering;

use super::{Comparison, Function, Generator, Item, JOB_FIELDS, Method, Node, Operator, SHEET_FIELDS, Scope, unknown};
use crate::job::suggest::nearest;
use crate::job::value::Value;

/// Parts that one evaluation may look at: some milliseconds.
const MAX_STEPS: u32 = 200_000;

pub(super) fn holds(node: &Node, scope: &dyn Scope) -> Result<bool, String> {
    let mut evaluation = Evaluation {
        scope,
        locals: Vec::new(),
        steps: 0,
    };
    let value = evaluation.value(node)?;
    Ok(evaluation.truth(&value))
}

struct Evaluation<'s> {
    scope: &'s dyn Scope,
    /// What generators bind, the innermost last.
    locals: Vec<(String, Item)>,
    steps: u32,
}

impl Evaluation<'_> {
    fn step(&mut self, parts: u32) -> Result<(), String> {
        self.steps = self.steps.saturating_add(parts);
        if self.steps > MAX_STEPS {
            Err(format!("it takes more than {MAX_STEPS} steps"))
        } else {
            Ok(())
        }
    }

    fn value(&mut self, node: &Node) -> Result<Item, String> {
        self.step(1)?;
        match node {
            Node::Or(parts) => self.first(parts, true),
            Node::And(parts) => self.first(parts, false),
            Node::Not(inner) => {
                let value = self.value(inner)?;
                Ok(boolean(!self.truth(&value)))
            }
            Node::Minus(inner) => {
                let value = self.value(inner)?;
                calculate(Operator::Minus, &Item::Plain(Value::Int(0)), &value)
            }
            Node::If(parts) => {
                let (taken, condition, otherwise) = parts.as_ref();
                let condition = self.value(condition)?;
                self.value(if self.truth(&condition) { taken } else { otherwise })
            }
            Node::Compare(first, rest) => {
                let mut left = self.value(first)?;
                for (comparison, right) in rest {
                    let right = self.value(right)?;
                    if !self.compare(*comparison, &left, &right)? {
                        return Ok(boolean(false));
                    }
                    left = right;
                }
                Ok(boolean(true))
            }
            Node::Calculate(first, rest) => {
                let mut value = self.value(first)?;
                for (operator, right) in rest {
                    let right = self.value(right)?;
                    value = calculate(*operator, &value, &right)?;
                }
                Ok(value)
            }
            Node::List(items) => Ok(Item::List(self.values(items)?)),
            Node::Generator(generator) => Ok(Item::List(self.generate(generator, None)?)),
            Node::Literal(value) => Ok(Item::Plain(value.clone())),
            Node::Name(name) => self.named(name),
            Node::Field(of, field) => {
                let of = self.value(of)?;
                self.field(&of, field)
            }
            Node::Index(of, index) => {
                let (of, index) = (self.value(of)?, self.value(index)?);
                let found = self.at(&of, &index)?;
                found.ok_or_else(|| match of {
                    Item::Sheets => format!("there is no sheet {}", shown(&index)),
                    of => format!("{} has nothing at {}", shown(&of), shown(&index)),
                })
            }
            Node::Call(function, arguments) => self.call(*function, arguments),
            Node::Method(of, method, arguments) => {
                let of = self.value(of)?;
                let arguments = self.values(arguments)?;
                self.method(&of, *method, &arguments)
            }
        }
    }

    fn values(&mut self, nodes: &[Node]) -> Result<Vec<Item>, String> {
        nodes.iter().map(|node| self.value(node)).collect()
    }

    /// The first that is true (or false), else the last, as `or` (or `and`) has it.
    fn first(&mut self, parts: &[Node], wanted: bool) -> Result<Item, String> {
        let mut last = boolean(!wanted);
        for part in parts {
            last = self.value(part)?;
            if self.truth(&last) == wanted {
                break;
            }
        }
        Ok(last)
    }

    fn named(&self, name: &str) -> Result<Item, String> {
        let local = self.locals.iter().rev().find(|(local, _)| local == name);
        local
            .map(|(_, item)| item.clone())
            .or_else(|| self.scope.variable(name))
            .ok_or_else(|| match nearest(name, self.scope.names()) {
                Some(near) => format!("`{name}` is not a variable; did you mean `{near}`?"),
                None => format!("`{name}` is not a variable (a text needs quotes)"),
            })
    }

    fn field(&self, of: &Item, field: &str) -> Result<Item, String> {
        let (value, what, known) = match of {
            Item::Sheet(sheet) => (self.scope.of_sheet(*sheet, field), "field of a sheet", SHEET_FIELDS),
            Item::Job => (self.scope.of_job(field), "field of `job`", JOB_FIELDS),
            // The statuses of the Python version are texts that have this too.
            Item::Plain(Value::Text(_)) if field == "value" => return Ok(of.clone()),
            Item::Plain(_) | Item::Sheets | Item::List(_) => return Err(format!("{} has no fields", shown(of))),
        };
        value
            .map(Item::Plain)
            .ok_or_else(|| unknown(what, field, known.iter().copied()))
    }

    /// What stands there; `None`: nothing does.
    fn at(&self, of: &Item, index: &Item) -> Result<Option<Item>, String> {
        let place = |length: usize| {
            let length = i64::try_from(length).ok()?;
            let at = as_int(index)?;
            usize::try_from(if at < 0 { at + length } else { at }).ok()
        };
        match of {
            Item::Sheets => Ok(as_int(index).and_then(|number| self.sheet(number))),
            Item::List(items) => Ok(place(items.len()).and_then(|at| items.get(at)).cloned()),
            Item::Plain(Value::List(items)) => Ok(place(items.len())
                .and_then(|at| items.get(at))
                .cloned()
                .map(Item::Plain)),
            Item::Plain(Value::Map(entries)) => {
                let found = entries
                    .iter()
                    .find(|(key, _)| matches!(index, Item::Plain(index) if equal(key, index)));
                Ok(found.map(|(_, value)| Item::Plain(value.clone())))
            }
            Item::Plain(_) | Item::Sheet(_) | Item::Job => Err(format!("{} has no parts", shown(of))),
        }
    }

    fn sheet(&self, number: i64) -> Option<Item> {
        let number = u32::try_from(number).ok()?;
        (1..=self.scope.sheets())
            .contains(&number)
            .then_some(Item::Sheet(number))
    }

    /// One item after the other.
    fn items(&mut self, of: &Item) -> Result<Vec<Item>, String> {
        let items: Vec<Item> = match of {
            Item::Sheets => {
                self.step(self.scope.sheets())?;
                (1..=self.scope.sheets()).map(number).collect()
            }
            Item::List(items) => items.clone(),
            Item::Plain(Value::List(items)) => items.iter().cloned().map(Item::Plain).collect(),
            Item::Plain(Value::Map(entries)) => entries.iter().map(|(key, _)| Item::Plain(key.clone())).collect(),
            Item::Plain(_) | Item::Sheet(_) | Item::Job => return Err(format!("{} is no list", shown(of))),
        };
        self.step(u32::try_from(items.len()).unwrap_or(u32::MAX))?;
        Ok(items)
    }

    /// What a generator gives, up to the first that is true or false as `until` says.
    fn generate(&mut self, generator: &Generator, until: Option<bool>) -> Result<Vec<Item>, String> {
        let of = self.value(&generator.items)?;
        let mut values = Vec::new();
        let before = self.locals.len();
        for item in self.items(&of)? {
            self.locals.truncate(before);
            match generator.names.as_slice() {
                [name] => self.locals.push((name.clone(), item)),
                names => {
                    let parts = self.items(&item)?;
                    if parts.len() != names.len() {
                        return Err(format!("{} are not {} values", shown(&item), names.len()));
                    }
                    self.locals.extend(names.iter().cloned().zip(parts));
                }
            }
            if let Some(condition) = &generator.condition {
                let condition = self.value(condition)?;
                if !self.truth(&condition) {
                    continue;
                }
            }
            let value = self.value(&generator.each)?;
            let enough = until == Some(self.truth(&value));
            values.push(value);
            if enough {
                break;
            }
        }
        self.locals.truncate(before);
        Ok(values)
    }

    fn call(&mut self, function: Function, arguments: &[Node]) -> Result<Item, String> {
        let name = function.word();
        let until = match function {
            Function::Any => Some(true),
            Function::All => Some(false),
            _ => None,
        };
        let values = match arguments {
            [Node::Generator(generator)] => vec![Item::List(self.generate(generator, until)?)],
            arguments => self.values(arguments)?,
        };
        if matches!(function, Function::Max | Function::Min) {
            let items = match values.as_slice() {
                [list] => self.items(list)?,
                several => several.to_vec(),
            };
            let wanted = if function == Function::Max {
                Ordering::Greater
            } else {
                Ordering::Less
            };
            let mut best: Option<Item> = None;
            for item in items {
                let better = match &best {
                    None => true,
                    Some(best) => order_of(&item, best)? == wanted,
                };
                if better {
                    best = Some(item);
                }
            }
            return best.ok_or_else(|| format!("`{name}` of nothing"));
        }
        let [value] = values.as_slice() else {
            return Err(format!("`{name}` takes one value, and here are {}", values.len()));
        };
        match function {
            Function::Len => match value {
                Item::Plain(Value::Text(text)) => Ok(length(text.chars().count())),
                value => Ok(length(self.items(value)?.len())),
            },
            Function::Bool => Ok(boolean(self.truth(value))),
            Function::Int => to_int(value),
            Function::Str => Ok(Item::Plain(Value::Text(shown_as_text(value)))),
            Function::Any | Function::All | Function::Max | Function::Min => {
                let wanted = function == Function::Any;
                let items = self.items(value)?;
                Ok(boolean(items.iter().any(|item| self.truth(item) == wanted) == wanted))
            }
        }
    }

    fn method(&mut self, of: &Item, method: Method, arguments: &[Item]) -> Result<Item, String> {
        let wrong = || format!("{} has no `{}()`", shown(of), method.word());
        let text = match of {
            Item::Plain(Value::Text(text)) => Some(text.as_str()),
            _ => None,
        };
        let argument = match arguments {
            [Item::Plain(Value::Text(argument))] => Some(argument.as_str()),
            _ => None,
        };
        let is_map = matches!(of, Item::Sheets | Item::Plain(Value::Map(_)));
        match (method, text, argument, arguments) {
            (Method::Get, _, _, [key] | [key, _]) if is_map => {
                let otherwise = arguments.get(1).cloned().unwrap_or(Item::Plain(Value::Null));
                Ok(self.at(of, key)?.unwrap_or(otherwise))
            }
            (Method::Keys, _, _, []) if is_map => Ok(Item::List(self.items(of)?)),
            (Method::Values | Method::Items, _, _, []) if is_map => {
                let mut list = Vec::new();
                for key in self.items(of)? {
                    let value = self.at(of, &key)?.ok_or_else(wrong)?;
                    list.push(match method {
                        Method::Items => Item::List(vec![key, value]),
                        _ => value,
                    });
                }
                Ok(Item::List(list))
            }
            (Method::StartsWith, Some(text), Some(start), _) => Ok(boolean(text.starts_with(start))),
            (Method::EndsWith, Some(text), Some(end), _) => Ok(boolean(text.ends_with(end))),
            (Method::Lower, Some(text), _, []) => Ok(Item::Plain(Value::Text(text.to_lowercase()))),
            (Method::Upper, Some(text), _, []) => Ok(Item::Plain(Value::Text(text.to_uppercase()))),
            (Method::Strip, Some(text), _, []) => Ok(Item::Plain(Value::Text(text.trim().to_owned()))),
            _ => Err(wrong()),
        }
    }

    fn compare(&mut self, comparison: Comparison, left: &Item, right: &Item) -> Result<bool, String> {
        match comparison {
            Comparison::Equal => Ok(same(left, right)),
            Comparison::NotEqual => Ok(!same(left, right)),
            Comparison::Less => Ok(order_of(left, right)? == Ordering::Less),
            Comparison::LessOrEqual => Ok(order_of(left, right)? != Ordering::Greater),
            Comparison::Greater => Ok(order_of(left, right)? == Ordering::Greater),
            Comparison::GreaterOrEqual => Ok(order_of(left, right)? != Ordering::Less),
            Comparison::In => self.is_in(left, right),
            Comparison::NotIn => Ok(!self.is_in(left, right)?),
            Comparison::Is => Ok(left == right),
            Comparison::IsNot => Ok(left != right),
        }
    }

    fn is_in(&mut self, left: &Item, right: &Item) -> Result<bool, String> {
        match (left, right) {
            (Item::Plain(Value::Text(part)), Item::Plain(Value::Text(text))) => Ok(text.contains(part.as_str())),
            (left, Item::Sheets) => Ok(as_int(left).is_some_and(|number| self.sheet(number).is_some())),
            (left, Item::List(_) | Item::Plain(Value::List(_) | Value::Map(_))) => {
                Ok(self.items(right)?.iter().any(|item| same(left, item)))
            }
            _ => Err(format!("{} is nothing that something can be in", shown(right))),
        }
    }

    fn truth(&self, item: &Item) -> bool {
        match item {
            Item::Sheets => self.scope.sheets() > 0,
            Item::Sheet(_) | Item::Job => true,
            Item::List(items) => !items.is_empty(),
            Item::Plain(value) => match value {
                Value::Null => false,
                Value::Bool(value) => *value,
                Value::Int(value) => *value != 0,
                Value::Float(value) => *value != 0.0,
                Value::Text(text) => !text.is_empty(),
                Value::List(items) => !items.is_empty(),
                Value::Map(entries) => !entries.is_empty(),
            },
        }
    }
}

fn boolean(value: bool) -> Item {
    Item::Plain(Value::Bool(value))
}

fn number(value: u32) -> Item {
    Item::Plain(Value::Int(i64::from(value)))
}

fn length(length: usize) -> Item {
    Item::Plain(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

/// The item as an error names it.
fn shown(item: &Item) -> String {
    match item {
        Item::Plain(value) => value.python_repr(),
        Item::Sheets => "`sheets`".to_owned(),
        Item::Sheet(number) => format!("sheet {number}"),
        Item::Job => "`job`".to_owned(),
        Item::List(items) => {
            let items: Vec<String> = items.iter().take(10).map(shown).collect();
            format!("[{}]", items.join(", "))
        }
    }
}

fn shown_as_text(item: &Item) -> String {
    match item {
        Item::Plain(value) => value.python_str(),
        other => shown(other),
    }
}

fn to_int(item: &Item) -> Result<Item, String> {
    let value = match item {
        Item::Plain(Value::Text(text)) => text.trim().parse().ok(),
        #[expect(clippy::cast_possible_truncation, reason = "it is within bounds")]
        Item::Plain(Value::Float(value)) if value.abs() < 9e18 => Some(value.trunc() as i64),
        other => as_int(other),
    };
    value
        .map(|value| Item::Plain(Value::Int(value)))
        .ok_or_else(|| format!("{} is no whole number", shown(item)))
}

fn as_int(item: &Item) -> Option<i64> {
    match item {
        Item::Plain(Value::Int(value)) => Some(*value),
        Item::Plain(Value::Bool(value)) => Some(i64::from(*value)),
        _ => None,
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

fn calculate(operator: Operator, left: &Item, right: &Item) -> Result<Item, String> {
    let wrong = || {
        format!(
            "{} {} {} cannot be calculated",
            shown(left),
            operator.word(),
            shown(right)
        )
    };
    if let (Some(left), Some(right)) = (as_int(left), as_int(right)) {
        let value = match operator {
            Operator::Plus => left.checked_add(right),
            Operator::Minus => left.checked_sub(right),
            Operator::Times => left.checked_mul(right),
            Operator::Divide if right != 0 => return Ok(Item::Plain(Value::Float(left as f64 / right as f64))),
            Operator::Divide => None,
            // Rounded down, and the rest has the sign of the divisor.
            Operator::FloorDivide => left.checked_div(right).and_then(|quotient| {
                let inexact = left.checked_rem(right)? != 0 && (left < 0) != (right < 0);
                quotient.checked_sub(i64::from(inexact))
            }),
            Operator::Modulo => left.checked_rem(right).map(|rest| {
                if rest != 0 && (rest < 0) != (right < 0) {
                    rest + right
                } else {
                    rest
                }
            }),
        };
        return value.map(|value| Item::Plain(Value::Int(value))).ok_or_else(wrong);
    }
    match (left, right) {
        (Item::Plain(Value::Text(left)), Item::Plain(Value::Text(right))) if operator == Operator::Plus => {
            Ok(Item::Plain(Value::Text(format!("{left}{right}"))))
        }
        (Item::Plain(left), Item::Plain(right)) => {
            let (left, right) = as_number(left).zip(as_number(right)).ok_or_else(wrong)?;
            if right == 0.0 && !matches!(operator, Operator::Plus | Operator::Minus | Operator::Times) {
                return Err(wrong());
            }
            Ok(Item::Plain(Value::Float(match operator {
                Operator::Plus => left + right,
                Operator::Minus => left - right,
                Operator::Times => left * right,
                Operator::Divide => left / right,
                Operator::FloorDivide => (left / right).floor(),
                Operator::Modulo => left - right * (left / right).floor(),
            })))
        }
        _ => Err(wrong()),
    }
}

fn same(left: &Item, right: &Item) -> bool {
    match (left, right) {
        (Item::Plain(left), Item::Plain(right)) => equal(left, right),
        _ => left == right,
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

fn order_of(left: &Item, right: &Item) -> Result<Ordering, String> {
    let ordering = match (left, right) {
        (Item::Plain(left), Item::Plain(right)) => order(left, right),
        _ => None,
    };
    ordering.ok_or_else(|| format!("{} and {} cannot be compared", shown(left), shown(right)))
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        _ => as_number(left)?.partial_cmp(&as_number(right)?),
    }
}
