//! Python's format specifications, for integers and texts: `[[fill]align][sign][#][0][width][,|_][.precision][type]`.

use crate::job::value::Value;

/// Characters that a width or precision may ask for.
const MAX_WIDTH: usize = 1000;

/// `format(value, spec)` of Python. The error is a sentence fragment.
pub(super) fn format(value: &Value, spec: &str) -> Result<String, String> {
    if spec.is_empty() {
        return Ok(value.python_str());
    }
    let parsed = Spec::parse(spec).ok_or_else(|| format!("`{spec}` is no format"))?;
    if parsed.width > MAX_WIDTH || parsed.precision.is_some_and(|precision| precision > MAX_WIDTH) {
        return Err(format!("its format asks for more than {MAX_WIDTH} characters"));
    }
    match value {
        Value::Int(number) => integer(*number, &parsed),
        Value::Bool(value) => integer(i64::from(*value), &parsed),
        Value::Float(number) => float(*number, &parsed),
        Value::Text(text) => parsed.text(text),
        Value::Null | Value::List(_) | Value::Map(_) => Err("a list, a map or nothing takes no format".to_owned()),
    }
}

#[derive(Debug)]
struct Spec {
    fill: char,
    align: Option<char>,
    sign: char,
    alternate: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

impl Spec {
    fn parse(spec: &str) -> Option<Self> {
        let chars: Vec<char> = spec.chars().collect();
        let is_align = |c: Option<&char>| matches!(c, Some('<' | '>' | '=' | '^'));
        let mut at = 0;
        let (mut fill, mut align) = (' ', None);
        if is_align(chars.get(1)) {
            fill = chars[0];
            align = Some(chars[1]);
            at = 2;
        } else if is_align(chars.first()) {
            align = Some(chars[0]);
            at = 1;
        }
        let mut take = |wanted: &[char]| {
            let found = chars.get(at).copied().filter(|c| wanted.contains(c));
            at += usize::from(found.is_some());
            found
        };
        let sign = take(&['+', '-', ' ']).unwrap_or('-');
        let alternate = take(&['#']).is_some();
        if take(&['0']).is_some() && align.is_none() {
            fill = '0';
            align = Some('=');
        }
        let width = number(&chars, &mut at)?.unwrap_or(0);
        let grouping = chars.get(at).copied().filter(|c| matches!(c, ',' | '_'));
        at += usize::from(grouping.is_some());
        let mut precision = None;
        if chars.get(at) == Some(&'.') {
            at += 1;
            precision = Some(number(&chars, &mut at)??);
        }
        let kind = chars.get(at).copied();
        at += usize::from(kind.is_some());
        (at == chars.len()).then_some(Self {
            fill,
            align,
            sign,
            alternate,
            width,
            grouping,
            precision,
            kind,
        })
    }

    fn text(&self, text: &str) -> Result<String, String> {
        if !matches!(self.kind, None | Some('s')) || self.align == Some('=') || self.sign != '-' || self.alternate {
            return Err("this format is for numbers, and the value is a text".to_owned());
        }
        let text: String = text.chars().take(self.precision.unwrap_or(usize::MAX)).collect();
        Ok(self.pad("", &text, '<'))
    }

    /// A number by its sign (and prefix) and its digits.
    fn number(&self, negative: bool, prefix: &str, digits: &str) -> String {
        let sign = match (negative, self.sign) {
            (true, _) => "-",
            (false, '+') => "+",
            (false, ' ') => " ",
            (false, _) => "",
        };
        self.pad(&format!("{sign}{prefix}"), digits, '>')
    }

    fn pad(&self, head: &str, body: &str, default_align: char) -> String {
        let length = head.chars().count() + body.chars().count();
        let missing = self.width.saturating_sub(length);
        let fill = |count: usize| self.fill.to_string().repeat(count);
        match self.align.unwrap_or(default_align) {
            '<' => format!("{head}{body}{}", fill(missing)),
            '=' => format!("{head}{}{body}", fill(missing)),
            '^' => format!("{}{head}{body}{}", fill(missing / 2), fill(missing - missing / 2)),
            _ => format!("{}{head}{body}", fill(missing)),
        }
    }
}

/// Digits at `at`; the inner `None`: there are none, the outer: too many.
fn number(chars: &[char], at: &mut usize) -> Option<Option<usize>> {
    let digits: String = chars.get(*at..)?.iter().take_while(|c| c.is_ascii_digit()).collect();
    *at += digits.len();
    if digits.is_empty() {
        Some(None)
    } else {
        digits.parse().ok().map(Some)
    }
}

fn integer(value: i64, spec: &Spec) -> Result<String, String> {
    let size = value.unsigned_abs();
    let (prefix, digits) = match spec.kind {
        None | Some('d' | 'n') => ("", size.to_string()),
        Some('b') => ("0b", format!("{size:b}")),
        Some('o') => ("0o", format!("{size:o}")),
        Some('x') => ("0x", format!("{size:x}")),
        Some('X') => ("0X", format!("{size:X}")),
        Some('f' | 'F' | 'e' | 'E' | '%') => return float(value as f64, spec),
        Some(kind) => return Err(format!("`{kind}` is no format of a number here")),
    };
    if spec.precision.is_some() {
        return Err("a whole number takes no precision".to_owned());
    }
    let prefix = if spec.alternate { prefix } else { "" };
    Ok(spec.number(value < 0, prefix, &grouped(&digits, spec)))
}

fn float(value: f64, spec: &Spec) -> Result<String, String> {
    let size = value.abs();
    let precision = spec.precision.unwrap_or(6);
    let digits = match spec.kind {
        None if spec.precision.is_none() => crate::job::value::python_float(size),
        Some('f' | 'F') => format!("{size:.precision$}"),
        Some('%') => format!("{:.precision$}%", size * 100.0),
        Some('e') => exponent(&format!("{size:.precision$e}")),
        Some('E') => exponent(&format!("{size:.precision$e}")).to_uppercase(),
        _ => return Err("this format is not supported for a number with a fraction".to_owned()),
    };
    let (whole, rest) = digits.split_at(digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len()));
    Ok(spec.number(value < 0.0, "", &format!("{}{rest}", grouped(whole, spec))))
}

/// `1.5e3` as Python writes it: `1.5e+03`.
fn exponent(text: &str) -> String {
    match text.split_once('e') {
        Some((digits, power)) => {
            let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
            format!("{digits}e{sign}{power:0>2}")
        }
        None => text.to_owned(),
    }
}

fn grouped(digits: &str, spec: &Spec) -> String {
    let Some(separator) = spec.grouping else {
        return digits.to_owned();
    };
    let every = if matches!(spec.kind, Some('b' | 'o' | 'x' | 'X')) {
        4
    } else {
        3
    };
    let count = digits.chars().count();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (count - index).is_multiple_of(every) {
            out.push(separator);
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The third column is Python's `format(value, spec)`.
    #[test]
    fn formats_are_those_of_python() {
        let text = |text: &str| Value::Text(text.into());
        let table = [
            (Value::Int(7), "02d", "07"),
            (Value::Int(7), "", "7"),
            (Value::Int(7), "03", "007"),
            (Value::Int(-7), "04d", "-007"),
            (Value::Int(7), ">4", "   7"),
            (Value::Int(7), "<4", "7   "),
            (Value::Int(7), "^5", "  7  "),
            (Value::Int(7), "*>3d", "**7"),
            (Value::Int(7), "+d", "+7"),
            (Value::Int(255), "x", "ff"),
            (Value::Int(255), "#06x", "0x00ff"),
            (Value::Int(255), "X", "FF"),
            (Value::Int(5), "b", "101"),
            (Value::Int(8), "o", "10"),
            (Value::Int(1_234_567), ",", "1,234,567"),
            (Value::Int(1_234_567), "_d", "1_234_567"),
            (Value::Int(7), ".2f", "7.00"),
            (Value::Float(0.5), ".1%", "50.0%"),
            (Value::Float(1234.5), ",.2f", "1,234.50"),
            (Value::Float(2.0), "", "2.0"),
            (text("ab"), "5", "ab   "),
            (text("ab"), ">5s", "   ab"),
            (text("abc"), ".2", "ab"),
            (text("ü"), "-^4", "-ü--"),
            (Value::Bool(true), "d", "1"),
            (Value::Bool(true), "", "True"),
        ];
        for (value, spec, expected) in table {
            assert_eq!(format(&value, spec).as_deref(), Ok(expected), "{value:?} {spec}");
        }
        for (value, spec) in [
            (Value::Int(7), " 5x5"),
            (Value::Int(7), ".2d"),
            (Value::Int(7), "s"),
            (text("a"), "02d"),
            (Value::Null, "d"),
            (Value::Int(7), "99999d"),
            (Value::Int(7), "99999999999999999999d"),
        ] {
            assert!(format(&value, spec).is_err(), "{spec}");
        }
    }
}
