//! What tokens cost: a dated table, asked only where a session does not say itself what it has cost.

use std::collections::BTreeMap;

use super::plan::TokenPrice;
use super::value::Value;
use super::yaml::{self, Node};
use crate::model::Cost;

/// The table that comes with Mozart.
const PACKAGED: &str = include_str!("prices.yaml");

/// Prices by model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prices {
    /// The day on which they were right, such as `2026-09-22`.
    pub as_of: String,
    models: BTreeMap<String, Price>,
}

/// Dollars for a million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Price {
    input: f64,
    output: f64,
    cache_write: f64,
    cache_read: f64,
}

/// Tokens of a session, by what they cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Read, and neither written to the cache nor found there.
    pub input: u64,
    /// Written to the cache.
    pub cache_write: u64,
    /// Found there.
    pub cache_read: u64,
    /// Answered.
    pub output: u64,
}

impl Tokens {
    /// Everything that was read.
    pub fn all_input(self) -> u64 {
        self.input
            .saturating_add(self.cache_write)
            .saturating_add(self.cache_read)
    }

    /// With others added.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            cache_read: self.cache_read.saturating_add(other.cache_read),
            output: self.output.saturating_add(other.output),
        }
    }

    /// What they cost at a price that makes no difference between kinds of input.
    pub fn cost(self, price: TokenPrice) -> Cost {
        let part = |tokens: u64, price: Cost| tokens as f64 * price.0 as f64 / 1000.0;
        Cost((part(self.all_input(), price.input) + part(self.output, price.output)).ceil() as i64)
    }
}

impl Prices {
    /// The table that comes with Mozart.
    pub fn packaged() -> Self {
        // It is read by a test; nobody else can change it.
        Self::parse(PACKAGED.as_bytes(), "prices").unwrap_or_default()
    }

    /// The same with another file's laid over it.
    ///
    /// # Errors
    /// What is wrong with the file, each with its place, a line each.
    pub fn with(bytes: &[u8], file: &str) -> Result<Self, String> {
        let own = Self::parse(bytes, file)?;
        let mut all = Self::packaged();
        all.models.extend(own.models);
        all.as_of = own.as_of;
        Ok(all)
    }

    fn parse(bytes: &[u8], file: &str) -> Result<Self, String> {
        let place = |at: yaml::Mark| format!("{file}:{}:{}", at.line, at.column);
        let document = yaml::read(bytes).map_err(|fault| match fault.at {
            Some(at) => format!("{}: {}", place(at), fault.message),
            None => format!("{file}: {}", fault.message),
        })?;
        let mut errors: Vec<_> = document
            .faults
            .iter()
            .map(|fault| format!("{}: {}", place(fault.at), fault.message))
            .collect();
        let mut prices = Self::default();
        let Some(entries) = document.root.map() else {
            return Err(format!("{file}: prices are a map of `as_of` and `models`"));
        };
        for (key, value) in entries {
            match (key.text(), value.text(), value.map()) {
                (Some("as_of"), Some(day), _) => prices.as_of = day.to_owned(),
                (Some("models"), _, Some(models)) => {
                    for (model, price) in models {
                        match (model.text(), price_of(price)) {
                            (Some(name), Ok(price)) => {
                                prices.models.insert(name.to_owned(), price);
                            }
                            (Some(name), Err(why)) => {
                                errors.push(format!("{}: the price of `{name}` {why}", place(price.at)));
                            }
                            (None, _) => errors.push(format!("{}: a model's name is a text", place(model.at))),
                        }
                    }
                }
                _ => errors.push(format!(
                    "{}: prices have `as_of`, a date such as 2026-09-22, and `models`, a map",
                    place(key.at)
                )),
            }
        }
        if prices.as_of.is_empty() {
            errors.push(format!(
                "{file}: `as_of` is missing: the date on which these prices were right"
            ));
        }
        match errors.is_empty() {
            true => Ok(prices),
            false => Err(errors.join("\n")),
        }
    }

    /// Whether the price of that model is known.
    pub fn knows(&self, model: &str) -> bool {
        self.of(model).is_some()
    }

    /// What those tokens of a model cost; `None` where nobody knows.
    pub fn cost(&self, model: &str, tokens: Tokens) -> Option<Cost> {
        let price = self.of(model)?;
        let Tokens {
            input,
            cache_write,
            cache_read,
            output,
        } = tokens;
        let parts = [
            (input, price.input),
            (cache_write, price.cache_write),
            (cache_read, price.cache_read),
            (output, price.output),
        ];
        // A dollar for a million tokens is a millionth of it for each.
        let sum: f64 = parts.iter().map(|(tokens, price)| *tokens as f64 * price).sum();
        Some(Cost(sum.ceil() as i64))
    }

    fn of(&self, model: &str) -> Option<&Price> {
        // The CLI's mark of a large context.
        let name = model.split('[').next().unwrap_or_default();
        self.models.get(name).or_else(|| {
            let (name, date) = name.rsplit_once('-')?;
            let is_date = date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit());
            self.models.get(name).filter(|_| is_date)
        })
    }
}

fn price_of(node: &Node) -> Result<Price, String> {
    let entries = node.map().ok_or("is a map of dollars for a million tokens")?;
    let (mut input, mut output, mut cache_write, mut cache_read) = (None, None, None, None);
    for (key, value) in entries {
        let place = match key.text() {
            Some("input") => &mut input,
            Some("output") => &mut output,
            Some("cache_write") => &mut cache_write,
            Some("cache_read") => &mut cache_read,
            _ => return Err("has `input`, `output`, `cache_write` and `cache_read`, and nothing else".to_owned()),
        };
        let dollars = match value.to_value() {
            Value::Int(dollars) => dollars as f64,
            Value::Float(dollars) => dollars,
            _ => f64::NAN,
        };
        if !(0.0..1e6).contains(&dollars) {
            return Err(format!("is in dollars for a million tokens, not {}", value.describe()));
        }
        *place = Some(dollars);
    }
    let (Some(input), Some(output)) = (input, output) else {
        return Err("has at least `input` and `output`".to_owned());
    };
    Ok(Price {
        input,
        output,
        cache_write: cache_write.unwrap_or(input * 1.25),
        cache_read: cache_read.unwrap_or(input * 0.1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Tokens = Tokens {
        input: 1_000,
        cache_write: 10_000,
        cache_read: 100_000,
        output: 2_000,
    };

    #[test]
    fn the_packaged_table_is_read() {
        let prices = Prices::parse(PACKAGED.as_bytes(), "prices.yaml").unwrap();
        assert_eq!(prices.as_of, "2026-10-24");
        assert_eq!(prices.models.len(), 24);
        assert_eq!(
            prices.cost("claude-sonnet-4-5-20250929", SOME),
            Some(Cost(3_000 + 37_500 + 30_000 + 30_000))
        );
        assert_eq!(
            prices.cost("claude-opus-4-20250514", SOME),
            Some(Cost(15_000 + 187_500 + 150_000 + 150_000))
        );
        assert_eq!(
            prices.cost("claude-opus-4-5[1m]", SOME),
            Some(Cost(5_000 + 62_500 + 50_000 + 50_000))
        );
    }

    #[test]
    fn of_a_model_that_is_not_there_nobody_knows() {
        let prices = Prices::packaged();
        for model in [
            "claude-opus-4-99",
            "claude-haiku-5-5",
            "claude-opus-4-9-20270101",
            "gpt",
            "",
            "claude-opus-4-2025051x",
        ] {
            assert_eq!(prices.cost(model, SOME), None, "{model}");
        }
    }

    #[test]
    fn ones_own_prices_win() {
        let own = "as_of: 2026-11-01\nmodels:\n  claude-sonnet-4-5: {input: 2, output: 10}\n  mine: {input: 0, output: 1.5}\n";
        let prices = Prices::with(own.as_bytes(), "own.yaml").unwrap();
        assert_eq!(prices.as_of, "2026-11-01");
        assert_eq!(
            prices.cost("claude-sonnet-4-5", SOME),
            Some(Cost(2_000 + 25_000 + 20_000 + 20_000))
        );
        assert_eq!(prices.cost("mine", SOME), Some(Cost(3_000)));
        assert!(prices.knows("claude-haiku-4-5-20251001"));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_its_place() {
        let error = |text: &str| Prices::with(text.as_bytes(), "own.yaml").unwrap_err();
        assert_eq!(
            error("models: {}"),
            "own.yaml: `as_of` is missing: the date on which these prices were right"
        );
        let found =
            error("as_of: 2026-11-01\nmodels:\n  a: {input: 1}\n  b: {input: x, output: 1}\n  c: {in: 1}\nmore: 1\n");
        let lines: Vec<_> = found.lines().collect();
        assert!(
            lines[0].starts_with("own.yaml:3:7: the price of `a` has at least"),
            "{found}"
        );
        assert!(
            lines[1].contains("of `b` is in dollars for a million tokens, not"),
            "{found}"
        );
        assert!(lines[2].contains("of `c` has `input`"), "{found}");
        assert!(lines[3].starts_with("own.yaml:6:1: prices have"), "{found}");
    }

    #[test]
    fn a_job_files_own_price_makes_no_difference_of_cached_input() {
        let price = TokenPrice {
            input: Cost::from_usd(0.003),
            output: Cost::from_usd(0.015),
        };
        assert_eq!(SOME.cost(price), Cost(333_000 + 30_000));
    }
}
