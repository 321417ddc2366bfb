//! Conditions of validation rules: `sheet_num >= 3 and stage != 2`.

use std::collections::BTreeMap;

use super::expression::Expression;
use super::value::Value;

/// A parsed condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition(Expression);

impl Condition {
    /// Parses a condition. The error is a sentence fragment for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        Expression::parse(text).map(Self)
    }

    /// Whether it holds for those variables.
    ///
    /// The error says which name is unknown or which values cannot be compared.
    pub fn holds(&self, variables: &BTreeMap<String, Value>) -> Result<bool, String> {
        self.0.holds(variables)
    }

    /// The names it uses, in order.
    pub fn names(&self) -> Vec<&str> {
        self.0.names()
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
            (
                "__import__('os')",
                "`__import__` is no function; there are len, bool, int, str, any, all, max, min",
            ),
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
