//! The kinds of messages that Mozart writes to the journal: one `MESSAGE_ID` each, explained by an entry of
//! `systemd/mozart.catalog`. An id, once released, keeps its meaning for ever; a new kind gets a new one.

/// One kind of event, as `journalctl --user MESSAGE_ID=…` finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind {
    /// Its name in words joined by hyphens, such as `run-completed`.
    pub name: &'static str,
    /// The 128-bit id as 32 lower-case hex digits, as the journal wants it.
    pub id: &'static str,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $constant:ident = $name:literal $id:literal;)*) => {
        $($(#[$doc])* pub const $constant: Kind = Kind { name: $name, id: $id };)*

        /// Every kind, in the catalog's order.
        pub const ALL: &[Kind] = &[$($constant),*];
    };
}

kinds! {
    /// The ledger is read, requests are served.
    CONDUCTOR_STARTED = "conductor-started" "456ee87ae3b549ce896a9bf7cf98765f";
    /// The conductor goes away; sessions run on.
    CONDUCTOR_STOPPING = "conductor-stopping" "891e1bdcd9b14142b7270c69e46f3f14";
    /// A run is in the ledger.
    RUN_SUBMITTED = "run-submitted" "07497fcac16043658aab07e38b98afec";
    /// A run's first sheet is about to start.
    RUN_STARTED = "run-started" "d998559e03d748fcb0ad8159f6894c9e";
    /// Something outside holds every sheet of a run.
    RUN_WAITING = "run-waiting" "544e038f088c4ee6abbf63e801577cd9";
    /// A person paused a run, or its embedded conductor was stopped.
    RUN_PAUSED = "run-paused" "a876d509ce474d9ebc6900508469777e";
    /// A person resumed a run.
    RUN_RESUMED = "run-resumed" "ee84ee67ad244e33a46869e4842c4173";
    /// A person gave a run another plan.
    RUN_MODIFIED = "run-modified" "a19aeddb50dc459ea61255d438f31d0d";
    /// Every sheet of a run is completed or skipped.
    RUN_COMPLETED = "run-completed" "c0bd9628aa844969852cbecef50debb3";
    /// A run ended with a failed sheet.
    RUN_FAILED = "run-failed" "f2a6fe3b212a4f0a808771d49e7153c7";
    /// A person cancelled a run.
    RUN_CANCELLED = "run-cancelled" "44229b5a274a4ac9aab510bfd51db618";
    /// A sheet passed all its rules.
    SHEET_COMPLETED = "sheet-completed" "19774d922f7e4517821d74ef683c2f4e";
    /// A sheet failed for good in its generation.
    SHEET_FAILED = "sheet-failed" "91ce4be5a7fc439bb689aec53e3c6268";
    /// A sheet's attempt failed and another follows.
    SHEET_RETRYING = "sheet-retrying" "fe6f030cc91147ac9a9d09af987292fe";
    /// A sheet is not run and counts as done.
    SHEET_SKIPPED = "sheet-skipped" "7855f48474d94775bd2b4f9a2f80df37";
    /// A session started.
    ATTEMPT_STARTED = "attempt-started" "9da73e9cec5d45dd911a3c74e46210cc";
    /// A session is over.
    ATTEMPT_ENDED = "attempt-ended" "10b8700bcbcf4dbdb1f2b6a699e2211b";
    /// A session that ran without a conductor was found again.
    ATTEMPT_ADOPTED = "attempt-adopted" "57944eb82abd447dab941f626b7e828b";
    /// A rule failed on a session's output.
    VALIDATION_FAILED = "validation-failed" "50e989a8dd804aa89448a73a1e25ccbc";
    /// A limit holds every session it concerns.
    GATE_CLOSED = "gate-closed" "85530f10559e4e0f8f83311ff74eba45";
    /// A limit has ended.
    GATE_OPENED = "gate-opened" "369a166abe924596954cac528cac15f1";
    /// The ledger cannot be written; nothing starts.
    STORAGE_BLOCKED = "storage-blocked" "9410ff43b109481a8a8dac883de7e68e";
    /// The ledger can be written again.
    STORAGE_BACK = "storage-back" "d82147050f2741aead54aa073559751c";
    /// A damaged ledger was renamed and a new one begun.
    LEDGER_SET_ASIDE = "ledger-set-aside" "541f3f2d29414859b282e43e103f4dab";
    /// Only a person can decide how it goes on.
    QUESTION_ASKED = "question-asked" "04ac6feecb7749dbbe9cb546ce3947a9";
    /// A person decided.
    QUESTION_ANSWERED = "question-answered" "d72893e7838d4919a1842eef87afe57f";
    /// A budget is used up.
    BUDGET_REACHED = "budget-reached" "f4625815334b4f299664b175621bd99b";
    /// A large part of a budget is used.
    BUDGET_NEARLY_REACHED = "budget-nearly-reached" "6498d310843d4c92b1d5b20db83dfcd0";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The catalog's entries in order, each as the name in the comment above it and its id.
    fn catalog() -> Vec<(String, String)> {
        let text = include_str!("../../systemd/mozart.catalog");
        let lines: Vec<&str> = text.lines().collect();
        lines
            .windows(2)
            .filter_map(|pair| {
                Some((
                    pair[0].strip_prefix("# ")?.to_owned(),
                    pair[1].strip_prefix("-- ")?.to_owned(),
                ))
            })
            .collect()
    }

    #[test]
    fn the_catalog_explains_every_kind_and_no_other() {
        let kinds: Vec<_> = ALL
            .iter()
            .map(|kind| (kind.name.to_owned(), kind.id.to_owned()))
            .collect();
        assert_eq!(catalog(), kinds);
    }

    #[test]
    fn every_id_is_of_its_own_and_well_formed() {
        let ids: BTreeSet<_> = ALL.iter().map(|kind| kind.id).collect();
        assert_eq!(ids.len(), ALL.len());
        for id in ids {
            assert_eq!(id.len(), 32, "{id}");
            assert!(id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
        }
    }

    #[test]
    fn every_catalog_entry_has_a_subject_and_a_text() {
        let text = include_str!("../../systemd/mozart.catalog");
        for entry in text.split("\n-- ").skip(1) {
            let (header, body) = entry.split_once("\n\n").expect("a blank line ends the header");
            assert!(header.contains("\nSubject: "), "{header}");
            assert!(header.contains("\nDefined-By: Mozart"), "{header}");
            let body: String = body.lines().filter(|line| !line.starts_with('#')).collect();
            assert!(body.len() > 20, "{header}");
        }
    }
}
