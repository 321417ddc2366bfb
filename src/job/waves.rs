//! In which waves the sheets of a plan can run: what is in one wave waits only for earlier ones.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::plan::{Dependency, Plan};
use crate::model::SheetNo;

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

/// The wave of each sheet, by index, where all that could run at once do.
pub(crate) fn levels(sheets: usize, dependencies: &[Dependency]) -> Vec<usize> {
    let mut order = Order::new(sheets, dependencies);
    let mut ready = order.first();
    while let Some(sheet) = ready.pop() {
        ready.extend(order.done(sheet));
    }
    order.levels
}

/// Who may start when which others are done. No edge is written out: of ranges only what is left is counted.
struct Order<'d> {
    dependencies: &'d [Dependency],
    /// For each dependency: sheets of `on` that are not done, and the highest level of those that are.
    left: Vec<(u32, usize)>,
    /// For each sheet: the dependencies that it is waited for in.
    of: Vec<Vec<usize>>,
    /// For each sheet: the dependencies that hold it.
    waiting: Vec<u32>,
    levels: Vec<usize>,
}

impl<'d> Order<'d> {
    fn new(sheets: usize, dependencies: &'d [Dependency]) -> Self {
        let mut order = Self {
            dependencies,
            left: dependencies
                .iter()
                .map(|dependency| (dependency.on.count(), 0))
                .collect(),
            of: vec![Vec::new(); sheets],
            waiting: vec![0; sheets],
            levels: vec![0; sheets],
        };
        for (index, dependency) in dependencies.iter().enumerate() {
            for sheet in dependency.on.sheets() {
                if let Some(of) = at(&mut order.of, sheet.0) {
                    of.push(index);
                }
            }
            for sheet in dependency.of.sheets() {
                if let Some(waiting) = at(&mut order.waiting, sheet.0) {
                    *waiting += 1;
                }
            }
        }
        order
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
        let level = self.level(sheet);
        let mut free = Vec::new();
        for index in at(&mut self.of, sheet).map(std::mem::take).unwrap_or_default() {
            let (Some(dependency), Some((left, highest))) = (self.dependencies.get(index), self.left.get_mut(index))
            else {
                continue;
            };
            *left = left.saturating_sub(1);
            *highest = level.max(*highest);
            let (released, above) = match dependency.dependents(SheetNo(sheet)) {
                Some(one) if dependency.pairwise => (one, level),
                Some(all) if *left == 0 => (all, *highest),
                _ => continue,
            };
            for sheet in released.sheets() {
                if let Some(level) = at(&mut self.levels, sheet.0) {
                    *level = (above + 1).max(*level);
                }
                if let Some(waiting) = at(&mut self.waiting, sheet.0) {
                    *waiting = waiting.saturating_sub(1);
                    if *waiting == 0 {
                        free.push(sheet.0);
                    }
                }
            }
        }
        free
    }
}

fn at<T>(list: &mut [T], sheet: u32) -> Option<&mut T> {
    list.get_mut(usize::try_from(sheet).ok()?.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::plan::SheetRange;

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
