//! All sheets of a run, in a vector whose clones share what they do not change.
//!
//! Deciding works on a clone of the engine. With a plain vector every event of a run of 100,000 sheets would
//! copy 100,000 of them; here it copies one leaf and the path to it.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::sheet::Sheet;
use crate::model::SheetNo;

/// Children of a node: three levels hold 64 × 64 × n sheets, and what one change copies stays small.
const FAN: usize = 64;

type Leaf = Vec<Sheet>;
type Node = Vec<Arc<Leaf>>;

/// Sheets by number, from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sheets {
    len: u32,
    nodes: Vec<Arc<Node>>,
}

impl Sheets {
    /// `len` sheets that nothing has happened to yet.
    pub(super) fn new(len: u32) -> Self {
        let mut sheets = Self {
            len: 0,
            nodes: Vec::new(),
        };
        sheets.resize(len);
        sheets
    }

    /// From now on there are `len`. Those that there were before, and are no longer, are kept out of sight.
    pub(super) fn resize(&mut self, len: u32) {
        let wanted = usize::try_from(len).unwrap_or(usize::MAX);
        let full = Arc::new(vec![Sheet::default(); FAN]);
        let mut there = self.stored();
        while there < wanted {
            let more = (FAN - there % FAN).min(wanted - there);
            match self.nodes.last_mut().map(Arc::make_mut) {
                Some(node) if !there.is_multiple_of(FAN) => {
                    if let Some(leaf) = node.last_mut().map(Arc::make_mut) {
                        leaf.resize(leaf.len() + more, Sheet::default());
                    }
                }
                last => {
                    let leaf = match more {
                        FAN => Arc::clone(&full),
                        more => Arc::new(vec![Sheet::default(); more]),
                    };
                    match last {
                        Some(node) if node.len() < FAN => node.push(leaf),
                        Some(_) | None => self.nodes.push(Arc::new(vec![leaf])),
                    }
                }
            }
            there += more;
        }
        self.len = len;
    }

    /// How many there are, those out of sight too.
    fn stored(&self) -> usize {
        let Some(node) = self.nodes.last() else { return 0 };
        let leaf = node.last().map_or(0, |leaf| leaf.len());
        (self.nodes.len() - 1) * FAN * FAN + node.len().saturating_sub(1) * FAN + leaf
    }

    /// How many there are.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// The sheet of that number.
    pub(super) fn get(&self, sheet: SheetNo) -> Option<&Sheet> {
        let (node, leaf, at) = path(sheet).filter(|_| sheet.0 <= self.len)?;
        self.nodes.get(node)?.get(leaf)?.get(at)
    }

    /// The sheet of that number, to be changed.
    pub(super) fn get_mut(&mut self, sheet: SheetNo) -> Option<&mut Sheet> {
        let (node, leaf, at) = path(sheet).filter(|_| sheet.0 <= self.len)?;
        let node = Arc::make_mut(self.nodes.get_mut(node)?);
        Arc::make_mut(node.get_mut(leaf)?).get_mut(at)
    }

    /// All, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SheetNo, &Sheet)> {
        let sheets = self
            .nodes
            .iter()
            .flat_map(|node| node.iter())
            .flat_map(|leaf| leaf.iter());
        (1..=self.len).map(SheetNo).zip(sheets)
    }
}

impl Serialize for Sheets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(|(_, sheet)| sheet))
    }
}

/// Node, leaf and place of a sheet; `None` for number 0.
fn path(sheet: SheetNo) -> Option<(usize, usize, usize)> {
    let index = usize::try_from(sheet.0).ok()?.checked_sub(1)?;
    Some((index / (FAN * FAN), index / FAN % FAN, index % FAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sheet_has_its_own_place() {
        for len in [0, 1, 63, 64, 65, 4096, 4097, 10_000] {
            let mut sheets = Sheets::new(len);
            for n in 1..=len {
                sheets.get_mut(SheetNo(n)).expect("is there").attempts = n;
            }
            let untouched = Sheets::new(len);
            assert_eq!(sheets == untouched, len == 0);
            assert_eq!(sheets.iter().count(), len as usize);
            assert!(sheets.iter().all(|(n, sheet)| sheet.attempts == n.0));
            assert_eq!(
                sheets.get(SheetNo(len)).map(|sheet| sheet.attempts),
                (len > 0).then_some(len)
            );
            assert!(sheets.get(SheetNo(0)).is_none());
            assert!(sheets.get(SheetNo(len + 1)).is_none());
        }
    }

    #[test]
    fn what_goes_out_of_sight_comes_back() {
        for (first, second) in [(3, 200), (64, 65), (70, 80), (4096, 4097), (4100, 1), (8200, 8300)] {
            let mut sheets = Sheets::new(first);
            sheets.get_mut(SheetNo(first)).expect("is there").attempts = 7;
            sheets.resize(second);
            assert_eq!((sheets.len(), sheets.iter().count()), (second, second as usize));
            assert!(sheets.get(SheetNo(second + 1)).is_none() && sheets.get(SheetNo(second)).is_some());
            sheets.resize(first.max(second));
            assert_eq!(sheets.stored(), first.max(second) as usize);
            assert_eq!(sheets.get(SheetNo(first)).map(|sheet| sheet.attempts), Some(7));
            assert_eq!(sheets.iter().filter(|(_, sheet)| sheet.attempts > 0).count(), 1);
        }
    }

    #[test]
    fn a_clone_keeps_what_it_was() {
        let before = Sheets::new(5000);
        let mut after = before.clone();
        after.get_mut(SheetNo(4500)).expect("is there").attempts = 1;
        assert_eq!(before.get(SheetNo(4500)).map(|sheet| sheet.attempts), Some(0));
        assert!(
            Arc::ptr_eq(&before.nodes[0], &after.nodes[0]),
            "what did not change is shared"
        );
    }
}
