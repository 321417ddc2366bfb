//! In which waves the sheets of a plan can run: what is in one wave waits only for earlier ones.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::plan::{Dependency, Plan, SheetRange};
use crate::model::{SheetNo, Span};

/// The sheets in waves, in order. Without `parallel` each wave is one sheet.
pub fn waves(plan: &Plan) -> Vec<Vec<SheetNo>> {
    let count = plan.sheets.len();
    let mut order = Order::new(count, &plan.dependencies);
    let mut waves: Vec<Vec<SheetNo>> = Vec::new();
    // Of several that could run, the lowest number comes first.
    let mut ready: BinaryHeap<Reverse<u32>> = order.first().into_iter().map(Reverse).collect();
    while let Some(Reverse(sheet)) = ready.pop() {
        let wave = match plan.parallel {
            Some(_) => order.level(sheet),
            None => waves.len(),
        };
        if waves.len() <= wave {
            waves.resize(wave + 1, Vec::new());
        }
        if let Some(wave) = waves.get_mut(wave) {
            wave.push(SheetNo(sheet));
        }
        ready.extend(order.done(sheet).into_iter().map(Reverse));
    }
    waves.iter_mut().for_each(|wave| wave.sort_unstable());
    waves
}

/// How long sheets take that take so long each, as many beside each other as the plan lets; one without a length does
/// not run.
pub(crate) fn makespan(plan: &Plan, work: impl Fn(SheetNo) -> Option<Span>) -> Span {
    let (places, pause) = match &plan.parallel {
        Some(parallel) => (usize::try_from(parallel.max_concurrent.max(1)).unwrap_or(1), 0),
        None => (1, plan.pause_between_sheets.0),
    };
    let mut order = Order::new(plan.sheets.len(), &plan.dependencies);
    let mut ready: BinaryHeap<Reverse<u32>> = order.first().into_iter().map(Reverse).collect();
    // By their ends.
    let mut running: BinaryHeap<Reverse<(i64, u32)>> = BinaryHeap::new();
    let mut ended = None;
    loop {
        while running.len() < places
            && let Some(Reverse(sheet)) = ready.pop()
        {
            match work(SheetNo(sheet)) {
                Some(work) => {
                    let begin = ended.map_or(0, |ended: i64| ended.saturating_add(pause));
                    running.push(Reverse((begin.saturating_add(work.0), sheet)));
                }
                None => ready.extend(order.done(sheet).into_iter().map(Reverse)),
            }
        }
        let Some(Reverse((end, sheet))) = running.pop() else {
            return Span(ended.unwrap_or(0));
        };
        ended = Some(end);
        ready.extend(order.done(sheet).into_iter().map(Reverse));
    }
}

/// The wave of each sheet, by index, where all that could run at once do.
pub(crate) fn levels(sheets: usize, dependencies: &[Dependency]) -> Vec<usize> {
    let mut order = Order::new(sheets, dependencies);
    let mut ready = order.first();
    while let Some(sheet) = ready.pop() {
        ready.extend(order.done(sheet));
    }
    order.levels
}

/// Who may start when which others are done. Many sheets that wait for many are two ranges and a count, however many
/// edges that is.
struct Order<'d> {
    dependencies: &'d [Dependency],
    /// Ranges that others wait for as a whole.
    sources: Vec<Source>,
    /// Ranges that wait as a whole.
    targets: Vec<Target>,
    /// For each sheet: the sources that it is in.
    in_sources: Vec<Vec<usize>>,
    /// For each sheet: the pairwise dependencies in which it is waited for.
    pairs: Vec<Vec<usize>>,
    /// For each sheet: the targets that it is in, and the sheets that hold it alone.
    waiting: Vec<u32>,
    levels: Vec<usize>,
}

struct Source {
    /// Its sheets that are not done.
    left: u32,
    /// The highest level of those that are.
    highest: usize,
    targets: Vec<usize>,
}

struct Target {
    sheets: SheetRange,
    /// Sources that are not done.
    left: u32,
    highest: usize,
}

impl<'d> Order<'d> {
    fn new(sheets: usize, dependencies: &'d [Dependency]) -> Self {
        let mut order = Self {
            dependencies,
            sources: Vec::new(),
            targets: Vec::new(),
            in_sources: vec![Vec::new(); sheets],
            pairs: vec![Vec::new(); sheets],
            waiting: vec![0; sheets],
            levels: vec![0; sheets],
        };
        let (mut sources, mut targets) = (HashMap::new(), HashMap::new());
        for (index, Dependency { of, on, pairwise }) in dependencies.iter().enumerate() {
            if *pairwise {
                for sheet in on.sheets() {
                    at(&mut order.pairs, sheet)
                        .into_iter()
                        .for_each(|pairs| pairs.push(index));
                }
                order.hold(*of);
                continue;
            }
            let source = *sources.entry((on.first, on.last)).or_insert_with(|| {
                let source = order.sources.len();
                for sheet in on.sheets() {
                    at(&mut order.in_sources, sheet)
                        .into_iter()
                        .for_each(|list| list.push(source));
                }
                order.sources.push(Source {
                    left: on.count(),
                    highest: 0,
                    targets: Vec::new(),
                });
                source
            });
            let target = *targets.entry((of.first, of.last)).or_insert_with(|| {
                order.hold(*of);
                order.targets.push(Target {
                    sheets: *of,
                    left: 0,
                    highest: 0,
                });
                order.targets.len() - 1
            });
            if let (Some(source), Some(waiter)) = (order.sources.get_mut(source), order.targets.get_mut(target)) {
                source.targets.push(target);
                waiter.left += 1;
            }
        }
        order
    }

    /// One thing more holds each of these.
    fn hold(&mut self, sheets: SheetRange) {
        for sheet in sheets.sheets() {
            at(&mut self.waiting, sheet)
                .into_iter()
                .for_each(|waiting| *waiting += 1);
        }
    }

    fn first(&self) -> Vec<u32> {
        (1..)
            .zip(&self.waiting)
            .filter(|(_, waiting)| **waiting == 0)
            .map(|(sheet, _)| sheet)
            .collect()
    }

    fn level(&self, sheet: u32) -> usize {
        let index = usize::try_from(sheet).unwrap_or(0).saturating_sub(1);
        self.levels.get(index).copied().unwrap_or(0)
    }

    /// The sheets that nothing holds any more now that this one is done.
    fn done(&mut self, sheet: u32) -> Vec<u32> {
        let (level, sheet) = (self.level(sheet), SheetNo(sheet));
        let mut free = Vec::new();
        for index in at(&mut self.pairs, sheet).map(std::mem::take).unwrap_or_default() {
            if let Some(partner) = self.dependencies.get(index).and_then(|pairs| pairs.dependents(sheet)) {
                self.release(partner, level, &mut free);
            }
        }
        for index in at(&mut self.in_sources, sheet).map(std::mem::take).unwrap_or_default() {
            let Some(source) = self.sources.get_mut(index) else {
                continue;
            };
            source.left = source.left.saturating_sub(1);
            source.highest = level.max(source.highest);
            if source.left > 0 {
                continue;
            }
            let highest = source.highest;
            for index in std::mem::take(&mut source.targets) {
                let Some(target) = self.targets.get_mut(index) else {
                    continue;
                };
                target.left = target.left.saturating_sub(1);
                target.highest = highest.max(target.highest);
                if target.left == 0 {
                    let (sheets, highest) = (target.sheets, target.highest);
                    self.release(sheets, highest, &mut free);
                }
            }
        }
        free
    }

    /// One thing less holds each of these, and it was of that level.
    fn release(&mut self, sheets: SheetRange, above: usize, free: &mut Vec<u32>) {
        for sheet in sheets.sheets() {
            if let Some(level) = at(&mut self.levels, sheet) {
                *level = (above + 1).max(*level);
            }
            if let Some(waiting) = at(&mut self.waiting, sheet) {
                *waiting = waiting.saturating_sub(1);
                if *waiting == 0 {
                    free.push(sheet.0);
                }
            }
        }
    }
}

fn at<T>(list: &mut [T], sheet: SheetNo) -> Option<&mut T> {
    list.get_mut(usize::try_from(sheet.0).ok()?.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first: u32, last: u32) -> SheetRange {
        SheetRange::from((SheetNo(first), SheetNo(last)))
    }

    fn wait(of: SheetRange, on: SheetRange, pairwise: bool) -> Dependency {
        Dependency { of, on, pairwise }
    }

    #[test]
    fn a_sheet_is_one_wave_behind_the_last_that_it_waits_for() {
        assert_eq!(levels(3, &[]), [0, 0, 0]);
        // One, then three, each of which has a follower, and one that waits for all.
        let fan = [
            wait(range(2, 4), range(1, 1), false),
            wait(range(5, 7), range(2, 4), true),
            wait(range(8, 8), range(5, 7), false),
        ];
        assert_eq!(levels(8, &fan), [0, 1, 1, 1, 2, 2, 2, 3]);
        // Backwards, and with two ways of different length.
        let back = [
            wait(range(1, 1), range(3, 3), false),
            wait(range(1, 1), range(2, 2), false),
            wait(range(2, 2), range(3, 3), false),
        ];
        assert_eq!(levels(3, &back), [2, 1, 0]);
    }

    #[test]
    fn many_sheets_that_wait_for_many_are_no_work() {
        let all = [wait(range(10_001, 20_000), range(1, 10_000), false)];
        assert_eq!(levels(20_000, &all)[19_999], 1);
        // So are many stages that each wait for all instances of one, and one that waits for many stages.
        let stages: Vec<Dependency> = (30_001..=60_000)
            .map(|stage| wait(range(stage, stage), range(1, 30_000), false))
            .chain((30_001..=60_000).map(|stage| wait(range(60_001, 90_000), range(stage, stage), false)))
            .collect();
        let levels_of_all = levels(90_000, &stages);
        assert_eq!((levels_of_all[30_000], levels_of_all[89_999]), (1, 2));
        let chain = [wait(range(2, 100_000), range(1, 99_999), true)];
        assert_eq!(levels(100_000, &chain)[99_999], 99_999);
    }

    proptest! {
        #[test]
        fn nobody_is_in_a_wave_with_one_that_it_waits_for(edges in proptest::collection::vec((1_u32..12, 1_u32..12), 0..30)) {
            // From a higher number to a lower one: no cycle.
            let edges: Vec<Dependency> = edges
                .into_iter()
                .filter(|(of, on)| of > on)
                .map(|(of, on)| wait(range(of, of), range(on, on), false))
                .collect();
            let levels = levels(11, &edges);
            let level = |sheet: SheetNo| levels[sheet.0 as usize - 1];
            for sheet in (1..=11).map(SheetNo) {
                let highest = edges.iter().filter(|edge| edge.of.first == sheet).map(|edge| level(edge.on.first) + 1).max();
                prop_assert_eq!(level(sheet), highest.unwrap_or(0));
            }
        }
    }
}
