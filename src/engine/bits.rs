//! A set of sheets of one run, a bit each: cloned with the run in every decision, so it is one short vector.

use serde::Serialize;

use crate::model::SheetNo;

/// Sheets by number, from 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// An empty set with room for sheets 1 to `sheets`.
    pub(super) fn new(sheets: u32) -> Self {
        Self(vec![0; usize::try_from(sheets).unwrap_or(usize::MAX).div_ceil(64)])
    }

    /// Puts a sheet in or takes it out; a number that there is no room for is not taken.
    pub(super) fn set(&mut self, sheet: SheetNo, on: bool) {
        let Some((word, bit)) = place(sheet) else { return };
        if let Some(word) = self.0.get_mut(word) {
            *word = if on { *word | bit } else { *word & !bit };
        }
    }

    /// Whether it is in.
    pub(super) fn contains(&self, sheet: SheetNo) -> bool {
        place(sheet).is_some_and(|(word, bit)| self.0.get(word).is_some_and(|word| word & bit != 0))
    }

    /// The lowest.
    pub(super) fn first(&self) -> Option<SheetNo> {
        let (at, word) = self.0.iter().enumerate().find(|(_, word)| **word != 0)?;
        Some(SheetNo(u32::try_from(at).ok()? * 64 + word.trailing_zeros() + 1))
    }
}

/// Word and bit of a sheet; `None` for number 0.
fn place(sheet: SheetNo) -> Option<(usize, u64)> {
    let index = sheet.0.checked_sub(1)?;
    Some((usize::try_from(index / 64).ok()?, 1 << (index % 64)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(sheets in 1..300_u32, ops in prop::collection::vec((0..320_u32, any::<bool>()), 0..80)) {
            let (mut bits, mut set) = (Bits::new(sheets), BTreeSet::new());
            for (no, on) in ops {
                bits.set(SheetNo(no), on);
                if no == 0 || no > sheets.next_multiple_of(64) {
                    continue;
                }
                if on { set.insert(SheetNo(no)); } else { set.remove(&SheetNo(no)); }
            }
            prop_assert_eq!(bits.first(), set.first().copied());
            prop_assert!((0..400).map(SheetNo).all(|no| bits.contains(no) == set.contains(&no)));
        }
    }
}
