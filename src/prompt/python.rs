//! What MiniJinja lacks of Python's Jinja2, or does otherwise: filters with arguments by place and by name, methods of
//! texts, floats as Python writes them.

use minijinja::value::{ArgType, Kwargs, Rest, Tuple, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, escape_formatter, filters};
use minijinja_contrib::filters::{filesizeformat, striptags};
use minijinja_contrib::globals::{cycler, joiner};
use minijinja_contrib::pycompat::unknown_method_callback;

use crate::job::value::python_float;

/// Columns that a text is filled up to.
const MAX_WIDTH: usize = 10_000;

pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.set_formatter(formatted);
    environment.set_unknown_method_callback(method);
    environment.add_function("cycler", |items: Rest<Value>| cycler(items.0));
    environment.add_function("joiner", joiner);
    environment.add_filter("filesizeformat", filesizeformat);
    environment.add_filter("striptags", striptags);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("replace", replace);
    environment.add_filter("sort", sort);
    environment.add_filter("dictsort", dictsort);
    environment.add_filter("float", float);
    environment.add_filter("int", int);
    environment.add_filter("indent", indent);
    environment.add_filter("truncate", truncate);
    environment.add_filter("wordcount", |text: String| {
        text.split(|c: char| !is_word(c))
            .filter(|word| !word.is_empty())
            .count()
    });
    environment.add_filter("center", |text: String, width: Option<usize>| {
        padded(&text, width.unwrap_or(80), " ", Side::Both)
    });
    environment.add_filter("urlencode", |text: String| quoted_for_urls(&text));
    environment.add_filter("escape", escape);
    environment.add_filter("e", escape);
}

/// Floats are written as by Python.
fn formatted(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if value.is_number() && !value.is_integer() {
        let text = f64::try_from(value.clone()).map(python_float)?;
        return out.write_str(&text).map_err(Error::from);
    }
    escape_formatter(out, state, value)
}

/// The arguments of a call, by place or by name.
struct Given {
    places: Vec<Value>,
    names: Kwargs,
}

impl Given {
    fn new(given: Rest<ValueOrKwargs>, most: usize) -> Result<Self, Error> {
        let given = given.into_values();
        let (places, names) = from_args::<(&[Value], Kwargs)>(&given)?;
        if places.len() > most {
            return Err(ErrorKind::TooManyArguments.into());
        }
        Ok(Self {
            places: places.to_vec(),
            names,
        })
    }

    fn get<T>(&self, place: usize, name: &str) -> Result<Option<T>, Error>
    where
        T: for<'a> ArgType<'a, Output = T>,
    {
        match self.places.get(place) {
            Some(value) => from_args::<(Option<T>,)>(std::slice::from_ref(value)).map(|(value,)| value),
            None => self.names.get::<Option<T>>(name),
        }
    }

    fn all_used(&self) -> Result<(), Error> {
        self.names.assert_all_used()
    }
}

fn default(value: Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let given = Given::new(given, 2)?;
    let other = given.get::<Value>(0, "default_value")?;
    let false_too = given.get::<bool>(1, "boolean")?.unwrap_or(false);
    given.all_used()?;
    let taken = value.is_undefined() || (false_too && !value.is_true());
    Ok(if taken {
        other.unwrap_or_else(|| Value::from(""))
    } else {
        value
    })
}

fn replace(text: String, given: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let given = Given::new(given, 3)?;
    let missing = || Error::from(ErrorKind::MissingArgument);
    let old = given.get::<Value>(0, "old")?.ok_or_else(missing)?.to_string();
    let new = given.get::<Value>(1, "new")?.ok_or_else(missing)?.to_string();
    let count = given.get::<i64>(2, "count")?.unwrap_or(-1);
    given.all_used()?;
    Ok(match usize::try_from(count) {
        Ok(count) => text.replacen(&old, &new, count),
        Err(_) => text.replace(&old, &new),
    })
}

fn sort(state: &State<'_, '_>, value: Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let given = Given::new(given, 3)?;
    let mut named = Vec::new();
    for (place, name) in ["reverse", "case_sensitive", "attribute"].into_iter().enumerate() {
        named.extend(given.get::<Value>(place, name)?.map(|value| (name, value)));
    }
    given.all_used()?;
    filters::sort(state, value, named.into_iter().collect())
}

fn dictsort(value: Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let given = Given::new(given, 3)?;
    let mut named = Vec::new();
    for (place, name) in ["case_sensitive", "by", "reverse"].into_iter().enumerate() {
        named.extend(given.get::<Value>(place, name)?.map(|value| (name, value)));
    }
    given.all_used()?;
    filters::dictsort(&value, named.into_iter().collect())
}

fn float(state: &State<'_, '_>, value: Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let given = Given::new(given, 1)?;
    let otherwise = given.get::<Value>(0, "default")?.unwrap_or_else(|| Value::from(0.0));
    given.all_used()?;
    let none: [(&str, Value); 0] = [];
    filters::float(state, &value, Some(otherwise), none.into_iter().collect())
}

fn int(state: &State<'_, '_>, value: Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let given = Given::new(given, 2)?;
    let otherwise = given.get::<Value>(0, "default")?.unwrap_or_else(|| Value::from(0));
    let base = given.get::<u32>(1, "base")?;
    given.all_used()?;
    let none: [(&str, Value); 0] = [];
    filters::int(state, &value, Some(otherwise), base, none.into_iter().collect())
}

fn indent(text: String, given: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let given = Given::new(given, 3)?;
    let width = given.get::<Value>(0, "width")?.unwrap_or_else(|| Value::from(4));
    let first = given.get::<bool>(1, "first")?.unwrap_or(false);
    let blank = given.get::<bool>(2, "blank")?.unwrap_or(false);
    given.all_used()?;
    let by = match width.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(bounded(usize::try_from(width)?)?),
    };
    let mut out = String::with_capacity(text.len());
    for (index, line) in text.lines().chain(text.ends_with('\n').then_some("")).enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if (index > 0 && (blank || !line.is_empty())) || (index == 0 && first) {
            out.push_str(&by);
        }
        out.push_str(line);
    }
    Ok(out)
}

fn truncate(text: String, given: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let given = Given::new(given, 4)?;
    let length = given.get::<usize>(0, "length")?.unwrap_or(255);
    let killwords = given.get::<bool>(1, "killwords")?.unwrap_or(false);
    let end = given.get::<String>(2, "end")?.unwrap_or_else(|| "...".to_owned());
    let leeway = given.get::<usize>(3, "leeway")?.unwrap_or(5);
    given.all_used()?;
    let room = length.checked_sub(end.chars().count()).ok_or_else(|| {
        let message = format!("truncate: a length of {length} has no room for its end, {end:?}");
        Error::new(ErrorKind::InvalidOperation, message)
    })?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let cut: String = text.chars().take(room).collect();
    let kept = match cut.rsplit_once(' ') {
        Some((words, _)) if !killwords => words,
        _ => &cut,
    };
    Ok(format!("{kept}{end}"))
}

/// As `markupsafe` does.
fn escape(text: String) -> String {
    text.replace('&', "&amp;")
        .replace('>', "&gt;")
        .replace('<', "&lt;")
        .replace('\'', "&#39;")
        .replace('"', "&#34;")
}

fn quoted_for_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Methods of Python's texts and maps.
fn method(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) => match text_method(text, method, args)? {
            Some(value) => Ok(value),
            None => unknown_method_callback(state, value, method, args),
        },
        None if method == "copy" => from_args(args).map(|()| value.clone()),
        None => unknown_method_callback(state, value, method, args),
    }
}

fn text_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let parts = |parts: [&str; 3]| Value::from(Tuple::from(parts.map(Value::from).to_vec()));
    let value = match method {
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
            let digits = padded(digits, width.saturating_sub(sign.len()), "0", Side::Left)?;
            Value::from(format!("{sign}{digits}"))
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            let side = match method {
                "ljust" => Side::Right,
                "rjust" => Side::Left,
                _ => Side::Both,
            };
            Value::from(padded(text, width, fill.unwrap_or(" "), side)?)
        }
        "rsplit" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
            let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
            Value::from(split_from_the_right(text, separator, most)?)
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (before, after) = split_once(text.find(not_empty(separator)?), text, separator).unwrap_or((text, ""));
            let found = before.len() < text.len();
            parts([before, if found { separator } else { "" }, after])
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            match split_once(text.rfind(not_empty(separator)?), text, separator) {
                Some((before, after)) => parts([before, separator, after]),
                None => parts(["", "", text]),
            }
        }
        "removeprefix" | "removesuffix" => {
            let (affix,): (&str,) = from_args(args)?;
            let cut = match method {
                "removeprefix" => text.strip_prefix(affix),
                _ => text.strip_suffix(affix),
            };
            Value::from(cut.unwrap_or(text))
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swapped = |c: char| {
                if c.is_uppercase() {
                    c.to_lowercase().collect::<String>()
                } else {
                    c.to_uppercase().collect()
                }
            };
            Value::from(text.chars().map(swapped).collect::<String>())
        }
        "title" => {
            let () = from_args(args)?;
            let mut within = false;
            let mut out = String::with_capacity(text.len());
            for c in text.chars() {
                if within {
                    out.extend(c.to_lowercase());
                } else {
                    out.extend(c.to_uppercase());
                }
                within = c.is_alphabetic();
            }
            Value::from(out)
        }
        "index" => {
            let (wanted,): (&str,) = from_args(args)?;
            let at = text
                .find(wanted)
                .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("{wanted:?} is not in the text")))?;
            Value::from(text[..at].chars().count())
        }
        "expandtabs" => {
            let (width,): (Option<usize>,) = from_args(args)?;
            let width = bounded(width.unwrap_or(8))?;
            let (mut out, mut column) = (String::with_capacity(text.len()), 0);
            for c in text.chars() {
                match c {
                    '\t' => {
                        let blanks = if width == 0 { 0 } else { width - column % width };
                        out.push_str(&" ".repeat(blanks));
                        column += blanks;
                    }
                    c => {
                        out.push(c);
                        column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                    }
                }
            }
            Value::from(out)
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Left,
    Right,
    Both,
}

fn padded(text: &str, width: usize, fill: &str, side: Side) -> Result<String, Error> {
    let room = bounded(width)?.saturating_sub(text.chars().count());
    let left = match side {
        Side::Left => room,
        Side::Right => 0,
        // Of an odd one Python gives the left the larger half where the width is odd too.
        Side::Both => room / 2 + (room & width & 1),
    };
    Ok(format!("{}{text}{}", fill.repeat(left), fill.repeat(room - left)))
}

fn bounded(width: usize) -> Result<usize, Error> {
    if width <= MAX_WIDTH {
        return Ok(width);
    }
    let message = format!("a width of {width} is more than {MAX_WIDTH}");
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn not_empty(separator: &str) -> Result<&str, Error> {
    if separator.is_empty() {
        Err(Error::new(ErrorKind::InvalidOperation, "empty separator"))
    } else {
        Ok(separator)
    }
}

fn split_once<'t>(at: Option<usize>, text: &'t str, separator: &str) -> Option<(&'t str, &'t str)> {
    at.map(|at| (&text[..at], &text[at + separator.len()..]))
}

fn split_from_the_right(text: &str, separator: Option<&str>, most: usize) -> Result<Vec<String>, Error> {
    let mut parts: Vec<String> = match separator {
        Some(separator) => text
            .rsplitn(most.saturating_add(1), not_empty(separator)?)
            .map(str::to_owned)
            .collect(),
        None => {
            let (mut parts, mut rest) = (Vec::new(), text.trim_end());
            while parts.len() < most
                && let Some((before, word)) = rest.rsplit_once(char::is_whitespace)
            {
                parts.push(word.to_owned());
                rest = before.trim_end();
            }
            parts.extend((!rest.is_empty()).then(|| rest.to_owned()));
            parts
        }
    };
    parts.reverse();
    Ok(parts)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
