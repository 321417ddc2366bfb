//! Every sheet is rendered once before anything starts, and its rules are filled in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::thread;

use super::Lowering;
use super::doubts::Filled;
use crate::job::pattern::Pattern;
use crate::job::placeholder::has_placeholders;
use crate::job::plan::{Backend, BackendKind, Check, Prompt, Rule, Sheet, TemplateEngine};
use crate::job::rules::{rule_for, skip_command};
use crate::job::schema;
use crate::job::suggest::nearest;
use crate::job::value::Value;
use crate::job::yaml::{Mark, Node};
use crate::prompt::template::{Compiled, RenderError, RenderFault, with_template};
use crate::prompt::variables_of;

/// Estimated tokens (characters / 4) of a prompt that are worth a warning.
const MANY_TOKENS: usize = 50_000;
/// Estimated tokens that do not fit into a model's ordinary window.
const TOO_MANY_TOKENS: usize = 150_000;
/// Lines of a prompt that are worth a warning.
const MANY_LINES: usize = 5000;
/// Sheets that are worth a thread of their own.
const SHEETS_OF_A_PART: usize = 1000;
/// Threads that render beside each other; each has a large stack.
const MAX_PARTS: usize = 8;
/// Patterns with placeholders that are compiled before the start; the rest is, when it is asked.
const MAX_PATTERNS: usize = 200;

/// What rendering every sheet showed.
#[derive(Default)]
struct Rendered {
    /// First sheet with its error, for each different error.
    errors: Vec<(u32, RenderError)>,
    /// Both engines agree on every sheet.
    agree: bool,
    /// Names that the template may look up.
    names: Vec<String>,
    /// Sheet and characters of each prompt.
    chars: Vec<(u32, usize)>,
    /// The longest prompt: sheet, lines.
    most_lines: (u32, usize),
}

impl Rendered {
    /// What later sheets showed.
    fn add(&mut self, later: Self) {
        for (sheet, error) in later.errors {
            self.error(sheet, error);
        }
        self.agree &= later.agree;
        self.chars.extend(later.chars);
        if later.most_lines.1 > self.most_lines.1 {
            self.most_lines = later.most_lines;
        }
    }

    fn error(&mut self, sheet: u32, error: RenderError) {
        if self.errors.len() < 20 && !self.errors.iter().any(|(_, known)| *known == error) {
            self.errors.push((sheet, error));
        }
    }

    fn measure(&mut self, sheet: u32, text: &str) {
        self.chars.push((sheet, text.chars().count()));
        let lines = text.lines().count();
        if lines > self.most_lines.1 {
            self.most_lines = (sheet, lines);
        }
    }
}

impl Lowering<'_> {
    /// Chooses the engine where the job does not, and reports what cannot be rendered or filled in; the rules of each
    /// sheet as they are for it.
    pub(super) fn render(
        &mut self,
        workspace: &str,
        sheets: &[Sheet],
        backend: &Backend,
        rules: &[Rule],
        prompt: &Prompt,
        engine: Option<TemplateEngine>,
    ) -> (TemplateEngine, Vec<Filled>) {
        // Without sheets there is still the syntax to look at, for one that stands for all.
        let stand_in = [stand_in()];
        let sheets = if sheets.is_empty() { &stand_in } else { sheets };
        let all = Sheets {
            workspace,
            sheets,
            prompt,
        };
        let outcome = match engine {
            Some(engine) => in_parts(sheets, |part| {
                with_template(prompt, engine, |template| render_each(template, None, &all, part))
            }),
            None => in_parts(sheets, |part| {
                with_template(prompt, TemplateEngine::Jinja, |jinja| {
                    with_template(prompt, TemplateEngine::Tera, |tera| {
                        render_each(jinja, Some(tera), &all, part)
                    })
                    .unwrap_or_else(|_| render_each(jinja, None, &all, part))
                })
            })
            .map_err(|error| only_tera_can(&all, error)),
        };
        let names: Vec<String> = all.first().into_keys().collect();
        let known: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let chosen = match outcome {
            Ok(rendered) => {
                self.report_rendering(&rendered, prompt, &known, sheets.len());
                self.report_size(&rendered, sheets, backend);
                if rendered.agree {
                    TemplateEngine::Tera
                } else {
                    TemplateEngine::Jinja
                }
            }
            Err(error) => {
                self.report_template(None, &error, prompt, &known);
                TemplateEngine::Jinja
            }
        };
        self.format_syntax(prompt, &known);
        let filled = self.fill_in_rules(rules, &all);
        (engine.unwrap_or(chosen), filled)
    }

    fn report_rendering(&mut self, rendered: &Rendered, prompt: &Prompt, known: &BTreeSet<&str>, sheets: usize) {
        for (sheet, error) in &rendered.errors {
            self.report_template(Some((*sheet, sheets)), error, prompt, known);
        }
        for name in &rendered.names {
            let asked_for = is_asked_for(&prompt.template, name);
            let told = rendered
                .errors
                .iter()
                .any(|(_, error)| error.name.as_deref() == Some(name.as_str()));
            if known.contains(name.as_str()) || asked_for || told || name == "loop" || name == "self" {
                continue;
            }
            let line = prompt
                .template
                .lines()
                .position(|line| word_at(line, name).is_some())
                .map_or(1, |index| index + 1);
            let at = self.word_mark(u32::try_from(line).ok(), &prompt.template_name, name);
            let message = format!("`{name}` is not defined; no sheet comes to where it is used");
            let field = self.template_field();
            let finding = self.problems.warning("V101", at, field, message);
            if let Some(near) = nearest(name, known.iter().copied()) {
                finding.suggest(format!("did you mean `{near}`?"));
            }
        }
    }

    /// A template error: of the whole template (V001), or of a sheet (V109).
    fn report_template(
        &mut self,
        sheet: Option<(u32, usize)>,
        error: &RenderError,
        prompt: &Prompt,
        known: &BTreeSet<&str>,
    ) {
        let at = self.word_mark(error.line, &error.template, error.name.as_deref().unwrap_or_default());
        let field = self.template_field();
        // The place in the job file says it already where the template stands there.
        let inline = error.template == "prompt.template";
        let place = match error.line {
            Some(line) if !inline => format!(" ({}, line {line})", error.template),
            Some(line) if error.template == prompt.template_name => format!(" (line {line} of the template)"),
            _ => String::new(),
        };
        let finding = match sheet {
            Some((sheet, _)) if error.kind != RenderFault::Syntax => {
                let message = format!("sheet {sheet} cannot be rendered: {}{place}", error.message);
                self.problems.error("V109", at, field, message).with("sheet", sheet)
            }
            _ => self.problems.error(
                "V001",
                at,
                field,
                format!("the template is wrong: {}{place}", error.message),
            ),
        };
        let Some(name) = &error.name else { return };
        let finding = finding.with("variable", name);
        match nearest(name, known.iter().copied()) {
            Some(near) => finding.suggest(format!("did you mean `{near}`?")),
            None => finding.suggest(format!("define `{name}` under `prompt.variables`")),
        };
    }

    fn report_size(&mut self, rendered: &Rendered, sheets: &[Sheet], backend: &Backend) {
        let field = self.template_field();
        let at = self.at(field);
        let has_large_window = |number: u32| match backend.kind {
            BackendKind::ClaudeCli(_) => {
                let sheet = sheets.iter().find(|sheet| sheet.number == number);
                backend.model(sheet).is_some_and(|model| model.contains("[1m]"))
            }
            // What reads it, and how much it can take, is not known.
            BackendKind::Command { .. } => true,
        };
        let mut largest_first: Vec<_> = rendered
            .chars
            .iter()
            .map(|(sheet, chars)| (chars / 4, Reverse(*sheet)))
            .filter(|(tokens, _)| *tokens > MANY_TOKENS)
            .collect();
        largest_first.sort_unstable_by_key(|size| Reverse(*size));
        let does_not_fit = largest_first
            .iter()
            .find(|(tokens, sheet)| *tokens > TOO_MANY_TOKENS && !has_large_window(sheet.0));
        if let Some((tokens, Reverse(sheet))) = does_not_fit {
            let message = format!(
                "the prompt of sheet {sheet} has about {tokens} tokens; more than {TOO_MANY_TOKENS} do not fit"
            );
            self.problems.error("E602", at, field, message).with("sheet", sheet);
        } else if let Some((tokens, Reverse(sheet))) = largest_first.first() {
            let message = format!("the prompt of sheet {sheet} has about {tokens} tokens");
            self.problems.warning("E602", at, field, message).with("sheet", sheet);
        }
        let (sheet, lines) = rendered.most_lines;
        if lines > MANY_LINES {
            let message = format!("the prompt of sheet {sheet} has {lines} lines");
            self.problems.warning("E602", at, field, message).with("sheet", sheet);
        }
    }

    /// `{name}` in a template is not filled in there; in paths it is, so it is written by mistake.
    fn format_syntax(&mut self, prompt: &Prompt, known: &BTreeSet<&str>) {
        let mut told = BTreeSet::new();
        for (index, line) in prompt.template.lines().enumerate() {
            for (start, _) in line.match_indices('{') {
                let before = line[..start].chars().next_back();
                let Some((name, after)) = line[start + 1..].split_once('}') else {
                    continue;
                };
                let alone = !matches!(before, Some('{' | '$' | '%')) && !after.starts_with('}');
                let bare = name.split(':').next().unwrap_or(name);
                if alone && known.contains(bare) && told.insert(bare.to_owned()) {
                    let written = format!("{{{name}}}");
                    let at = self.word_mark(u32::try_from(index + 1).ok(), &prompt.template_name, &written);
                    let field = self.template_field();
                    self.problems
                        .warning(
                            "V202",
                            at,
                            field,
                            format!("`{written}` is sent as it stands: templates use double braces"),
                        )
                        .suggest(format!("write `{{{{ {bare} }}}}`"));
                }
            }
        }
    }

    /// Fills in the rules of every sheet; each different fault of a field is reported once.
    fn fill_in_rules(&mut self, rules: &[Rule], all: &Sheets<'_>) -> Vec<Filled> {
        let mut filled_in = Vec::new();
        let mut compiled = BTreeSet::new();
        let mut told = BTreeSet::new();
        let sound: Vec<(usize, &Rule)> = rules
            .iter()
            .enumerate()
            .filter(|(index, _)| !self.problems.any_error_at(&format!("validations[{index}].")))
            .collect();
        let mut skips = BTreeSet::new();
        for (number, sheet) in all.sheets.iter().enumerate() {
            let variables = all.variables(sheet);
            if let Err(error) = skip_command(sheet, &variables)
                && skips.insert(error.clone())
            {
                let field = format!("sheet.skip_when_command.{}", sheet.number);
                let at = self.skip_mark(sheet.number);
                self.problems
                    .error("E604", at, &field, error)
                    .with("sheet", sheet.number);
            }
            for (index, rule) in &sound {
                let (name, id, message) = match rule_for(rule, *index, all.workspace, &variables) {
                    Ok(filled) => {
                        let Some(filled) = filled else { continue };
                        let pattern = new_pattern(rule, &filled.check, &mut compiled);
                        filled_in.push(Filled {
                            sheet: number,
                            rule: *index,
                            check: filled.check,
                        });
                        let Some(pattern) = pattern else {
                            continue;
                        };
                        let Err(error) = Pattern::new(&pattern, false) else {
                            continue;
                        };
                        let message = format!("for sheet {} this is no regular expression: {error}", sheet.number);
                        ("pattern", "V007", message)
                    }
                    Err((name @ "condition", error)) => (name, "E301", error),
                    Err((name @ ("path" | "working_directory"), error)) => (name, "E303", error),
                    Err((name, error)) => (name, "E604", error),
                };
                if told.insert((*index, name)) {
                    let field = format!("validations[{index}].{name}");
                    let at = self.rule_mark(*index, name);
                    self.problems.error(id, at, &field, message).with("sheet", sheet.number);
                }
            }
        }
        filled_in
    }

    fn skip_mark(&self, sheet: u32) -> Option<Mark> {
        let entries = self.root.get_path("sheet.skip_when_command")?.map()?;
        let of_sheet = |key: &Node| schema::integer(key) == Some(i64::from(sheet));
        let (_, node) = entries.iter().find(|(key, _)| of_sheet(key))?;
        Some(node.get("command").map_or(node.at, |command| command.at))
    }

    pub(super) fn rule_mark(&self, index: usize, name: &str) -> Option<Mark> {
        let item = self.root.get("validations")?.list()?.get(index)?;
        Some(item.get(name).map_or(item.at, |node| node.at))
    }

    fn template_field(&self) -> &'static str {
        if self.node("prompt.template").is_none() && self.node("prompt.template_file").is_some() {
            "prompt.template_file"
        } else {
            "prompt.template"
        }
    }

    /// Where a word of a template's line stands in the job file; at the line's begin where it is not in it.
    fn word_mark(&self, line: Option<u32>, template: &str, word: &str) -> Option<Mark> {
        let mark = self.template_mark(line, template)?;
        if mark.column != 1 || word.is_empty() {
            return Some(mark);
        }
        let text = String::from_utf8_lossy(self.input.text);
        let line = text.lines().nth(usize::try_from(mark.line).ok()?.checked_sub(1)?)?;
        let column = word_at(line, word).map_or(1, |at| line[..at].chars().count() + 1);
        Some(Mark {
            column: u32::try_from(column).ok()?,
            ..mark
        })
    }

    /// Where a line of a template stands in the job file.
    fn template_mark(&self, line: Option<u32>, template: &str) -> Option<Mark> {
        let field = self.template_field();
        let node = self.node(field);
        let block = node.and_then(|node| node.scalar()?.block_line);
        match (block, line) {
            (Some(first), Some(line)) if template == "prompt.template" => Some(Mark {
                line: first.saturating_add(line).saturating_sub(1),
                column: 1,
            }),
            _ => self.at(field),
        }
    }
}

fn stand_in() -> Sheet {
    Sheet {
        number: 1,
        start_item: 1,
        end_item: 1,
        stage: 1,
        instance: 1,
        fan_count: 1,
        ..Sheet::default()
    }
}

/// All sheets; the variables of one are made when they are needed.
struct Sheets<'s> {
    workspace: &'s str,
    /// At least one.
    sheets: &'s [Sheet],
    prompt: &'s Prompt,
}

impl Sheets<'_> {
    fn variables(&self, sheet: &Sheet) -> BTreeMap<String, Value> {
        variables_of(self.workspace, self.sheets, self.prompt, sheet)
    }

    fn first(&self) -> BTreeMap<String, Value> {
        self.sheets
            .first()
            .map(|sheet| self.variables(sheet))
            .unwrap_or_default()
    }
}

/// A template that only Tera can compile needs to say so: `error` with that hint.
fn only_tera_can(all: &Sheets<'_>, mut error: RenderError) -> RenderError {
    let tera = with_template(all.prompt, TemplateEngine::Tera, |tera| {
        render_each(tera, None, all, all.sheets)
    });
    if tera.is_ok_and(|rendered| rendered.errors.is_empty()) {
        error.message.push_str("; Tera can render it: write `engine: tera`");
    }
    error
}

/// The filled-in pattern of a rule whose pattern has placeholders, if it was not seen before.
fn new_pattern(rule: &Rule, filled: &Check, seen: &mut BTreeSet<String>) -> Option<String> {
    match (&rule.check, filled) {
        (Check::ContentRegex { pattern: written, .. }, Check::ContentRegex { pattern, .. })
            if has_placeholders(written) && seen.len() < MAX_PATTERNS && seen.insert(pattern.clone()) =>
        {
            Some(pattern.clone())
        }
        _ => None,
    }
}

/// Renders very many sheets on several processors.
fn in_parts(
    sheets: &[Sheet],
    render: impl Fn(&[Sheet]) -> Result<Rendered, RenderError> + Sync,
) -> Result<Rendered, RenderError> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let parts = processors.min(MAX_PARTS).min(sheets.len() / SHEETS_OF_A_PART);
    if parts < 2 {
        return render(sheets);
    }
    let rendered: Vec<_> = thread::scope(|scope| {
        let render = &render;
        let parts = sheets.chunks(sheets.len().div_ceil(parts));
        let parts: Vec<_> = parts
            .map(|part| (part, thread::Builder::new().spawn_scoped(scope, move || render(part))))
            .collect();
        let rendered = parts.into_iter().map(|(part, thread)| {
            let done = thread.ok().and_then(|thread| thread.join().ok());
            done.unwrap_or_else(|| render(part))
        });
        rendered.collect()
    });
    let joined = rendered.into_iter().reduce(|all, part| {
        let mut all = all?;
        all.add(part?);
        Ok(all)
    });
    joined.unwrap_or_else(|| render(sheets))
}

fn render_each(template: &Compiled<'_>, other: Option<&Compiled<'_>>, all: &Sheets<'_>, part: &[Sheet]) -> Rendered {
    let mut rendered = Rendered {
        agree: other.is_some(),
        names: template.names(),
        ..Rendered::default()
    };
    for sheet in part {
        let variables = all.variables(sheet);
        match template.render(&variables) {
            Ok(text) => {
                rendered.measure(sheet.number, &text);
                if rendered.agree && other.is_some_and(|other| other.render(&variables).as_ref() != Ok(&text)) {
                    rendered.agree = false;
                }
            }
            Err(error) => {
                rendered.agree = false;
                // It will not get better, and each such try takes long.
                let hopeless = error.kind == RenderFault::Limit;
                rendered.error(sheet.number, error);
                if hopeless {
                    break;
                }
            }
        }
    }
    rendered
}

/// The template itself asks whether the name is there, or says what to take instead.
fn is_asked_for(template: &str, name: &str) -> bool {
    template.match_indices(name).any(|(at, _)| {
        let rest = template[at + name.len()..].trim_start();
        let filter = rest.strip_prefix('|').map(str::trim_start);
        rest.strip_prefix("is").is_some_and(|rest| {
            rest.trim_start()
                .trim_start_matches("not")
                .trim_start()
                .starts_with("defined")
        }) || filter.is_some_and(|filter| {
            filter
                .split(|c: char| !c.is_alphanumeric())
                .next()
                .is_some_and(|word| word == "default" || word == "d")
        })
    })
}

/// Where a name stands in a line as a word of its own; of one in single braces: behind the brace.
fn word_at(line: &str, word: &str) -> Option<usize> {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let in_braces = word.starts_with('{');
    let found = line.match_indices(word).find(|(at, _)| {
        let (before, after) = (line[..*at].chars().next_back(), line[at + word.len()..].chars().next());
        if in_braces {
            !matches!(before, Some('{' | '$' | '%'))
        } else {
            !is_word(before) && !is_word(after)
        }
    });
    found.map(|(at, _)| at + usize::from(in_braces))
}
