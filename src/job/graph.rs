//! The order of a plan's sheets as a picture: text for Mermaid or Graphviz.

use super::plan::{Plan, Sheet};
use super::waves::waves;
use crate::model::SheetNo;

/// For Mermaid, which Markdown viewers draw.
pub fn mermaid(plan: &Plan) -> String {
    let mut out = String::from("flowchart TD\n");
    for sheet in &plan.sheets {
        let label = label(sheet).replace('"', "#quot;").replace(['\n', '\r'], " ");
        out.push_str(&format!("    s{}[\"{label}\"]\n", sheet.number));
    }
    for Edge { from, to, only_order } in edges(plan) {
        let arrow = if only_order { "-.->" } else { "-->" };
        out.push_str(&format!("    s{from} {arrow} s{to}\n"));
    }
    out
}

/// For Graphviz.
pub fn dot(plan: &Plan) -> String {
    let quoted = |text: &str| {
        format!(
            "\"{}\"",
            text.replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace(['\n', '\r'], " ")
        )
    };
    let mut out = format!("digraph {} {{\n    node [shape=box];\n", quoted(plan.name.as_str()));
    for sheet in &plan.sheets {
        out.push_str(&format!("    s{} [label={}];\n", sheet.number, quoted(&label(sheet))));
    }
    for Edge { from, to, only_order } in edges(plan) {
        let style = if only_order { " [style=dotted]" } else { "" };
        out.push_str(&format!("    s{from} -> s{to}{style};\n"));
    }
    out.push_str("}\n");
    out
}

/// One sheet before another.
struct Edge {
    from: SheetNo,
    to: SheetNo,
    /// Nothing waits; they only run one after another.
    only_order: bool,
}

fn label(sheet: &Sheet) -> String {
    let instance = match sheet.fan_count {
        1 => String::new(),
        count => format!(" (stage {}, {} of {count})", sheet.stage, sheet.instance),
    };
    match &sheet.description {
        Some(description) => format!("{}{instance}: {description}", sheet.number),
        None => format!("{}{instance}", sheet.number),
    }
}

/// What waits for what; where nothing does and sheets run one at a time, their order.
fn edges(plan: &Plan) -> Vec<Edge> {
    if plan.dependencies.is_empty() && plan.parallel.is_none() {
        let order: Vec<SheetNo> = waves(plan).into_iter().flatten().collect();
        let pairs = order.windows(2).filter_map(|pair| match pair {
            [from, to] => Some((*from, *to)),
            _ => None,
        });
        return pairs
            .map(|(from, to)| Edge {
                from,
                to,
                only_order: true,
            })
            .collect();
    }
    let mut edges = Vec::new();
    for to in plan.sheets.iter().map(|sheet| SheetNo(sheet.number)) {
        for needs in plan.dependencies.iter().filter_map(|dependency| dependency.needs(to)) {
            edges.extend(needs.sheets().map(|from| Edge {
                from,
                to,
                only_order: false,
            }));
        }
    }
    edges
}
