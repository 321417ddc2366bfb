//! Stages that fan out, sheets that wait for others, and how many run at once.

use std::collections::BTreeMap;

use super::Lowering;
use crate::job::plan::{Dependency, FailFast, Parallel, SheetRange};
use crate::job::schema;
use crate::job::yaml::Node;
use crate::model::SheetNo;

/// An edge as written: stages by index, and where the second one stands.
type Edge<'a> = (usize, usize, &'a Node);

impl<'a> Lowering<'a> {
    /// How many instances each of the stages has.
    pub(super) fn fan_out(&mut self, stages: usize, size: i128, start_item: i128) -> Vec<u32> {
        const FIELD: &str = "sheet.fan_out";
        let mut counts = vec![1; stages];
        let Some(node) = self.node(FIELD) else { return counts };
        for (stage, value) in self.by_stage(FIELD, stages) {
            let count = schema::integer(value).and_then(|count| u32::try_from(count).ok());
            if let (Some(count), Some(slot)) = (count.filter(|count| *count >= 1), counts.get_mut(stage)) {
                *slot = count;
            }
        }
        for (field, value) in [("size", size), ("start_item", start_item)] {
            if value != 1 {
                let message = format!("with `fan_out` each sheet is a stage: `{field}` must be 1, and it is {value}");
                let path = format!("sheet.{field}");
                self.problems.error("E301", self.at(&path), &path, message);
            }
        }
        if counts.iter().any(|count| *count > 1) {
            if self.node("sheet.dependencies").is_none() {
                let message = "stages fan out, and none waits for another: without `dependencies` an instance may start \
                               before the stage that it builds on has ended";
                self.problems.warning("V206", Some(node.at), FIELD, message.to_owned());
            }
            if !self.boolean("parallel.enabled", false) {
                let message = "stages fan out, and `parallel` is not enabled: their instances run one after another";
                self.problems.info("V207", Some(node.at), FIELD, message.to_owned());
            }
        }
        counts
    }

    /// Which sheets wait for which. `stages` are the sheets of each stage; without fan-out each is one sheet.
    pub(super) fn dependencies(&mut self, stages: &[SheetRange]) -> Vec<Dependency> {
        const FIELD: &str = "sheet.dependencies";
        let mut edges: Vec<Edge<'a>> = Vec::new();
        for (of, list) in self.by_stage(FIELD, stages.len()) {
            for item in list.list().unwrap_or_default() {
                let Some(number) = schema::integer(item).filter(|number| *number >= 1) else {
                    continue;
                };
                let field = format!("{FIELD}.{}", of + 1);
                match usize::try_from(number - 1).ok().filter(|on| *on < stages.len()) {
                    None => {
                        let message = format!("there is no {number} to wait for: this job has {}", stages.len());
                        self.problems.error("E301", Some(item.at), &field, message);
                    }
                    Some(on) if on == of => {
                        let message = format!("{number} waits for itself");
                        self.problems.error("E301", Some(item.at), &field, message);
                    }
                    Some(on) => edges.push((of, on, item)),
                }
            }
        }
        if let Some((path, at)) = cycle(stages.len(), &edges) {
            let path: Vec<String> = path.iter().map(|stage| (stage + 1).to_string()).collect();
            let message = format!(
                "these wait for each other, so none of them could ever start: {}",
                path.join(" → ")
            );
            self.problems
                .error("E301", Some(at.at), FIELD, message)
                .suggest("take one of these out");
            return Vec::new();
        }
        expand(stages, &edges)
    }

    pub(super) fn parallel(&mut self, sheets: usize) -> Option<Parallel> {
        if !self.boolean("parallel.enabled", false) {
            return None;
        }
        let fail_fast = match self.text("parallel.fail_fast") {
            Some("cancel") => FailFast::Cancel,
            _ if self.boolean("parallel.fail_fast", true) => FailFast::Hold,
            _ => FailFast::Off,
        };
        let weights: BTreeMap<_, _> = self
            .by_sheet("parallel.weights", sheets)
            .into_iter()
            .filter_map(|(index, node)| {
                let sheet = SheetNo(u32::try_from(index + 1).ok()?);
                let weight = u32::try_from(schema::integer(node)?).ok()?;
                Some((sheet, weight))
            })
            .collect();
        Some(Parallel {
            max_concurrent: self.count("parallel.max_concurrent", 3),
            fail_fast,
            weights: weights.into_iter().filter(|(_, weight)| *weight != 1).collect(),
        })
    }

    /// Entries of a map from stage numbers, by index; keys out of range are errors.
    fn by_stage(&mut self, field: &str, stages: usize) -> Vec<(usize, &'a Node)> {
        let entries = self.root.get_path(field).and_then(Node::map).unwrap_or_default();
        let mut found = Vec::new();
        for (key, value) in entries {
            let Some(number) = schema::integer(key).filter(|number| *number >= 1) else {
                continue;
            };
            match usize::try_from(number - 1).ok().filter(|index| *index < stages) {
                Some(index) => found.push((index, value)),
                None => {
                    let message = format!(
                        "there is no {number} here: this job has {stages}, without what `fan_out` makes of them"
                    );
                    self.problems
                        .error("E301", Some(key.at), &format!("{field}.{number}"), message);
                }
            }
        }
        found
    }
}

/// The shortest way in which the first stage that waits for itself does so, and an edge of it. Not recursive: a chain of
/// 100,000 is no cycle, and no depth either.
fn cycle<'a>(stages: usize, edges: &[Edge<'a>]) -> Option<(Vec<usize>, &'a Node)> {
    let mut on: Vec<Vec<usize>> = vec![Vec::new(); stages];
    let mut waiting = vec![0_usize; stages];
    let mut of: Vec<Vec<usize>> = vec![Vec::new(); stages];
    for (edge, (from, to, _)) in edges.iter().enumerate() {
        on.get_mut(*from)?.push(edge);
        of.get_mut(*to)?.push(*from);
        *waiting.get_mut(*from)? += 1;
    }
    // What can start one after another is in no cycle.
    let mut ready: Vec<usize> = (0..stages).filter(|stage| waiting.get(*stage) == Some(&0)).collect();
    while let Some(stage) = ready.pop() {
        for dependent in of.get(stage)? {
            let left = waiting.get_mut(*dependent)?;
            *left -= 1;
            if *left == 0 {
                ready.push(*dependent);
            }
        }
    }
    let stuck = |stage: usize| waiting.get(stage).is_some_and(|left| *left > 0);
    // Each that is stuck waits for one that is stuck: whoever follows comes round.
    let mut stage = (0..stages).find(|stage| stuck(*stage))?;
    let mut seen = BTreeMap::new();
    let mut path = Vec::new();
    loop {
        if let Some(begin) = seen.insert(stage, path.len()) {
            let path: Vec<(usize, &Node)> = path.split_off(begin);
            let (_, at) = *path.last()?;
            let stages = path.iter().map(|(stage, _)| *stage).chain([stage]);
            return Some((stages.collect(), at));
        }
        let next = on.get(stage)?.iter().filter_map(|edge| edges.get(*edge));
        let (_, next, at) = next.into_iter().find(|(_, next, _)| stuck(*next))?;
        path.push((stage, *at));
        stage = *next;
    }
}

/// From stages to sheets: one to one, one to many, many to one, instance to instance where there are as many, and
/// all to all. Neighbours that wait for neighbours become one.
fn expand(stages: &[SheetRange], edges: &[Edge<'_>]) -> Vec<Dependency> {
    let mut expanded: Vec<Dependency> = edges
        .iter()
        .filter_map(|(of, on, _)| {
            let (of, on) = (*stages.get(*of)?, *stages.get(*on)?);
            let pairwise = of.count() == on.count();
            Some(Dependency { of, on, pairwise })
        })
        .collect();
    let offset = |dependency: &Dependency| i64::from(dependency.of.first.0) - i64::from(dependency.on.first.0);
    expanded.sort_unstable_by_key(|dependency| {
        (
            !dependency.pairwise,
            offset(dependency),
            dependency.of.first,
            dependency.on.first,
        )
    });
    expanded.dedup();
    let mut merged: Vec<Dependency> = Vec::new();
    for dependency in expanded {
        match merged.last_mut() {
            Some(last)
                if last.pairwise
                    && dependency.pairwise
                    && offset(last) == offset(&dependency)
                    && last.of.last.0 + 1 == dependency.of.first.0 =>
            {
                (last.of.last, last.on.last) = (dependency.of.last, dependency.on.last);
            }
            Some(_) | None => merged.push(dependency),
        }
    }
    merged.sort_unstable_by_key(|dependency| (dependency.of.first, dependency.on.first));
    merged
}
