//! How the work divides into sheets.

use super::Lowering;
use super::retry::OWN_SILENCE;
use crate::job::expression::Expression;
use crate::job::plan::{Sheet, SheetRange, SkipCommand};
use crate::job::schema;
use crate::job::yaml::{Mark, Node};
use crate::model::{SheetNo, Span, count};

/// Sheets that one run may have.
const MAX_SHEETS: usize = 100_000;

impl<'a> Lowering<'a> {
    /// The sheets, and which of them each stage is.
    pub(super) fn sheets(&mut self) -> (Vec<Sheet>, Vec<SheetRange>) {
        let none = (Vec::new(), Vec::new());
        if self.node("sheet").is_none() {
            let at = self.at("sheet").unwrap_or(Mark::START);
            self.missing(
                "sheet",
                "a job needs a section `sheet` (or `batch`) with `size` and `total_items`",
                at,
            );
            return none;
        }
        let at = self.at("sheet").unwrap_or(Mark::START);
        let mut required = |field: &str| {
            let path = format!("sheet.{field}");
            if self.node(&path).is_none() {
                self.missing(&path, &format!("`sheet` (or `batch`) needs `{field}`"), at);
            }
            self.node(&path).and_then(schema::integer).filter(|value| *value >= 1)
        };
        let (size, total_items) = (required("size"), required("total_items"));
        let start_item = self
            .node("sheet.start_item")
            .map_or(Some(1), schema::integer)
            .filter(|value| *value >= 1);
        let (Some(size), Some(total_items), Some(start_item)) = (size, total_items, start_item) else {
            return none;
        };
        let (size, total_items, start_item) = (i128::from(size), i128::from(total_items), i128::from(start_item));
        let count = (total_items - start_item + size) / size;
        if start_item > total_items {
            let message = format!(
                "this makes no sheet at all: `start_item` is {start_item} and `total_items` only {total_items}"
            );
            self.problems
                .error("E301", self.at("sheet.start_item"), "sheet.start_item", message);
            return none;
        }
        let Some(count) = usize::try_from(count).ok().filter(|count| *count <= MAX_SHEETS) else {
            let message = format!("this makes {count} sheets; a run may have at most {MAX_SHEETS}");
            self.problems
                .error("E301", self.at("sheet.total_items"), "sheet.total_items", message)
                .suggest("use a larger `size`");
            return none;
        };
        let timeout = self.timeout();
        let fan_out = self.fan_out(count, size, start_item);
        let expanded: u64 = fan_out.iter().map(|instances| u64::from(*instances)).sum();
        if usize::try_from(expanded).map_or(true, |expanded| expanded > MAX_SHEETS) {
            let message = format!("this makes {expanded} sheets; a run may have at most {MAX_SHEETS}");
            self.problems
                .error("E301", self.at("sheet.fan_out"), "sheet.fan_out", message);
            return none;
        }
        // With fan-out each sheet is an item.
        let total_items = total_items + i128::from(expanded) - i128::try_from(count).unwrap_or(0);
        let item = |value: i128| i64::try_from(value).unwrap_or(i64::MAX);
        let (mut sheets, mut stages) = (Vec::new(), Vec::new());
        for (stage, fan_count) in (1..).zip(fan_out) {
            let before = u32::try_from(sheets.len()).unwrap_or(u32::MAX);
            stages.push(SheetRange::from((SheetNo(before + 1), SheetNo(before + fan_count))));
            for instance in 1..=fan_count {
                let number = before + instance;
                let first = i128::from(number - 1) * size + start_item;
                sheets.push(Sheet {
                    number,
                    start_item: item(first),
                    end_item: item((first + size - 1).min(total_items)),
                    stage,
                    instance,
                    fan_count,
                    timeout,
                    ..Sheet::default()
                });
            }
        }
        for (sheet, node) in self.by_sheet("sheet.descriptions", sheets.len()) {
            if let (Some(sheet), Some(scalar)) = (sheets.get_mut(sheet), node.scalar()) {
                sheet.description = Some(scalar.raw.clone());
            }
        }
        self.overrides(&mut sheets);
        self.skip_rules(&mut sheets);
        for (index, node) in self.by_sheet("sheet.prompt_extensions", sheets.len()) {
            let texts = self.extensions(&format!("sheet.prompt_extensions.{}", index + 1), Some(node));
            if let Some(sheet) = sheets.get_mut(index) {
                sheet.extensions = texts;
            }
        }
        (sheets, stages)
    }

    /// What the backend is told for single sheets.
    fn overrides(&mut self, sheets: &mut [Sheet]) {
        const TIMEOUTS: &str = "backend.timeout_overrides";
        for (index, node) in self.by_sheet(TIMEOUTS, sheets.len()) {
            if let Some(sheet) = sheets.get_mut(index) {
                self.own_timeout(sheet, node, &format!("{TIMEOUTS}.{}", index + 1));
            }
        }
        const OVERRIDES: &str = "backend.sheet_overrides";
        for (index, node) in self.by_sheet(OVERRIDES, sheets.len()) {
            let Some(sheet) = sheets.get_mut(index) else { continue };
            let field = |name: &str| format!("{OVERRIDES}.{}.{name}", index + 1);
            if let Some(timeout) = node.get("timeout_seconds") {
                self.own_timeout(sheet, timeout, &field("timeout_seconds"));
            }
            let Some(model) = node.get("cli_model").filter(|model| !model.is_null()) else {
                continue;
            };
            if self.text("backend.type") == Some("command") {
                let field = field("cli_model");
                let message = format!("`{field}` has no effect with `type: command`");
                self.problems.warning("V190", Some(model.at), &field, message);
            } else {
                sheet.model = model.scalar().map(|scalar| scalar.raw.clone());
            }
        }
    }

    fn own_timeout(&mut self, sheet: &mut Sheet, node: &Node, field: &str) {
        if let Some(seconds) = schema::number(node).filter(|seconds| *seconds > 0.0) {
            sheet.timeout = Span::from_secs_f64(seconds);
            self.judge_timeout(seconds, Some(node.at), field);
        }
    }

    /// Which sheets may turn out not to be needed.
    fn skip_rules(&mut self, sheets: &mut [Sheet]) {
        const WHEN: &str = "sheet.skip_when";
        let all = u32::try_from(sheets.len()).unwrap_or(u32::MAX);
        for (index, node) in self.by_sheet(WHEN, sheets.len()) {
            let (Some(sheet), Some(scalar)) = (sheets.get_mut(index), node.scalar()) else {
                continue;
            };
            if let Err(error) = Expression::parse(&scalar.raw).and_then(|expression| expression.check_skip(all)) {
                let message = format!("the expression cannot be evaluated: {error}");
                self.problems
                    .error("E301", Some(node.at), &format!("{WHEN}.{}", sheet.number), message)
                    .suggest("write for example `sheets[1].status == 'completed' and sheets[1].attempt_count == 1`");
            }
            sheet.skip_when = Some(scalar.raw.clone());
        }
        const COMMAND: &str = "sheet.skip_when_command";
        for (index, node) in self.by_sheet(COMMAND, sheets.len()) {
            let Some(sheet) = sheets.get_mut(index).filter(|_| node.map().is_some()) else {
                continue;
            };
            let text = |name: &str| node.get(name).and_then(Node::scalar).map(|scalar| scalar.raw.clone());
            let Some(command) = text("command").filter(|command| !command.trim().is_empty()) else {
                let field = format!("{COMMAND}.{}.command", sheet.number);
                self.missing(&field, "a `skip_when_command` needs a `command`", node.at);
                continue;
            };
            let seconds = node.get("timeout_seconds").and_then(schema::number);
            sheet.skip_command = Some(SkipCommand {
                command,
                description: text("description"),
                timeout: Span::from_secs_f64(seconds.filter(|seconds| *seconds > 0.0).unwrap_or(10.0)),
            });
        }
    }

    /// Timeout of an attempt where no override says otherwise.
    fn timeout(&mut self) -> Span {
        let seconds = Some(self.number("backend.timeout_seconds", 1800.0)).filter(|seconds| *seconds > 0.0);
        let seconds = seconds.unwrap_or(1800.0);
        self.judge_timeout(seconds, self.at("backend.timeout_seconds"), "backend.timeout_seconds");
        Span::from_secs_f64(seconds)
    }

    fn judge_timeout(&mut self, seconds: f64, at: Option<Mark>, field: &str) {
        if seconds < 60.0 {
            let message = format!("a timeout of {seconds} s is short; a session that does real work needs minutes");
            self.problems.warning("V103", at, field, message);
        } else if seconds <= OWN_SILENCE && self.text("backend.type").is_none_or(|kind| kind == "claude_cli") {
            let message = format!(
                "a timeout of {seconds} s: the CLI itself waits up to {OWN_SILENCE} s for an API that does not answer, and is ended sooner here"
            );
            self.problems
                .warning("V103", at, field, message)
                .suggest("1800 is the default");
        } else if seconds > 7200.0 {
            self.problems.info(
                "V104",
                at,
                field,
                format!("a timeout of {seconds} s: a session that hangs is noticed late"),
            );
        }
    }

    /// Entries of a map from sheet numbers, by index of the sheet; keys out of range are reported.
    pub(super) fn by_sheet(&mut self, field: &str, sheets: usize) -> Vec<(usize, &'a Node)> {
        let entries = self.root.get_path(field).and_then(Node::map).unwrap_or_default();
        let mut found = Vec::new();
        for (key, value) in entries {
            let Some(number) = schema::integer(key).filter(|number| *number >= 1) else {
                continue;
            };
            match usize::try_from(number - 1).ok().filter(|index| *index < sheets) {
                Some(index) => found.push((index, value)),
                None => {
                    let message = format!("there is no sheet {number}: this job has {}", count(sheets, "sheet"));
                    let path = format!("{field}.{number}");
                    // A label or a timeout more does no harm; a sheet that runs although it was not to does.
                    if field.starts_with("sheet.skip_when") {
                        self.problems.error("V212", Some(key.at), &path, message);
                    } else {
                        self.problems.warning("V212", Some(key.at), &path, message);
                    }
                }
            }
        }
        found
    }
}
