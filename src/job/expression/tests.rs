use super::*;

/// Three sheets: completed at the second attempt, failed without an exit status, not started.
struct World;

impl Scope for World {
    fn variable(&self, name: &str) -> Option<Item> {
        match name {
            "sheets" => Some(Item::Sheets),
            "job" => Some(Item::Job),
            _ => None,
        }
    }

    fn names(&self) -> Vec<&str> {
        vec!["sheets", "job"]
    }

    fn sheets(&self) -> u32 {
        3
    }

    fn of_sheet(&self, sheet: u32, field: &str) -> Option<Value> {
        let text = |text: &str| Value::Text(text.to_owned());
        match (field, sheet) {
            ("status", 1) => Some(text("completed")),
            ("status", 2) => Some(text("failed")),
            ("status", _) => Some(text("pending")),
            ("attempt_count", sheet) => Some(Value::Int([2, 1, 0][sheet as usize - 1])),
            ("exit_code", 1) => Some(Value::Int(0)),
            ("validation_passed", 1) => Some(Value::Bool(true)),
            (field, _) if SHEET_FIELDS.contains(&field) => Some(Value::Null),
            _ => None,
        }
    }

    fn of_job(&self, field: &str) -> Option<Value> {
        (field == "total_sheets").then_some(Value::Int(3))
    }
}

fn holds(text: &str) -> Result<bool, String> {
    Expression::parse(text)?.holds(&World)
}

/// What Python's `eval` gives for the same state.
#[test]
fn expressions_are_true_or_not_as_in_python() {
    let table = [
        ("sheets[1].status == 'completed'", true),
        (
            "sheets[1].status.value == 'completed' and sheets[1].attempt_count > 1",
            true,
        ),
        ("sheets[2].status == 'completed' or sheets[3].status == 'pending'", true),
        ("sheets[1].validation_passed and sheets[1].exit_code == 0", true),
        ("sheets[2].exit_code is None", true),
        ("sheets[2].exit_code is not None", false),
        ("not sheets[2].validation_passed", true),
        ("sheets.get(1) and sheets.get(1).attempt_count >= 2", true),
        ("sheets.get(9) is None", true),
        ("sheets.get(9, 5) == 5", true),
        ("3 in sheets and 4 not in sheets", true),
        ("any(s.status == 'failed' for s in sheets.values())", true),
        ("all(sheets[n].status == 'failed' for n in sheets)", false),
        ("all(s.attempt_count > 0 for n, s in sheets.items() if n < 3)", true),
        ("any([sheets[n].exit_code == 0 for n in [1, 2]])", true),
        ("len([s for s in sheets.values() if s.status == 'failed']) == 1", true),
        ("len(sheets) == job.total_sheets == 3", true),
        ("len('ärger') == 5", true),
        ("max(s.attempt_count for s in sheets.values()) == 2", true),
        ("min(3, 2, 5) == 2 and max([1, 7]) == 7", true),
        ("int('3') + 1 == 4 and str(3) == '3' and bool(1)", true),
        ("int(2.9) == 2 and -7 // 2 == -4 and -7 % 3 == 2 and 7 / 2 == 3.5", true),
        ("2 + 3 * 4 - 1 == 13 and (2 + 3) * 4 == 20 and 1 - -1 == 2", true),
        ("(sheets[2].exit_code or 5) == 5", true),
        ("1 if sheets[1].exit_code else 0", false),
        ("'fail' in sheets[2].status and sheets[2].status.startswith('fa')", true),
        ("sheets[1].status.upper() in ['COMPLETED', 'SKIPPED']", true),
        ("True", true),
        ("[]", false),
        // Not asked: what stands before decides.
        ("sheets[1].exit_code == 0 or sheets[99].exit_code == 0", true),
        ("any(n == 1 or sheets[n].exit_code > 0 for n in sheets)", true),
    ];
    for (text, expected) in table {
        assert_eq!(holds(text), Ok(expected), "{text}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_told() {
    let table = [
        ("sheets[9].status == 'x'", "there is no sheet 9"),
        ("sheets[2].exit_code > 0", "None and 0 cannot be compared"),
        (
            "sheets[1].stauts == 'x'",
            "`stauts` is no field of a sheet; did you mean `status`?",
        ),
        ("job.sheets", "`sheets` is no field of `job`"),
        ("sheet[1]", "`sheet` is not a variable; did you mean `sheets`?"),
        ("sheets.status", "`sheets` has no fields"),
        ("sheets + 1", "`sheets` + 1 cannot be calculated"),
        ("1 // 0", "1 // 0 cannot be calculated"),
        (
            "9223372036854775807 + 1",
            "9223372036854775807 + 1 cannot be calculated",
        ),
        ("int('x')", "'x' is no whole number"),
        ("max([])", "`max` of nothing"),
        ("len(1, 2)", "`len` takes one value, and here are 2"),
        ("len(3)", "3 is no list"),
        ("'x'.get(1)", "'x' has no `get()`"),
        ("any(a for a, b in [1])", "1 is no list"),
    ];
    for (text, expected) in table {
        assert_eq!(holds(text), Err(expected.to_owned()), "{text}");
    }
}

#[test]
fn what_cannot_be_parsed_is_told() {
    let table = [
        (
            "__import__('os')",
            "`__import__` is no function; there are len, bool, int, str, any, all, max, min",
        ),
        ("lenn(sheets)", "`lenn` is no function; did you mean `len`?"),
        (
            "sheets.clear()",
            "`clear` is no method; there are get, keys, values, items, startswith, endswith, lower, upper, strip",
        ),
        ("sheets[1", "a `[` is not closed"),
        ("sheets[1].", "it ends too early"),
        ("sheets[1].(", "`(` is not expected there"),
        ("a if b", "an `if` needs an `else`: `a if condition else b`"),
        ("any(x for in y)", "`for` needs an `in`: `x for x in list`"),
        ("any(x for 3 in y)", "`for` needs a name behind it"),
        ("a = 3", "`=` is written `==`"),
    ];
    for (text, expected) in table {
        assert_eq!(Expression::parse(text).unwrap_err(), expected, "{text}");
    }
    for deep in [
        "(".repeat(4000),
        "[".repeat(4000),
        "not ".repeat(2000),
        "-".repeat(4000),
        format!("a{}", ".b".repeat(4000)),
        format!("a{}", "[0]".repeat(2000)),
        "a.get(".repeat(1000),
        format!("{}1", "1 if 1 else ".repeat(600)),
    ] {
        assert_eq!(
            Expression::parse(&deep).unwrap_err(),
            "it is nested too deeply",
            "{deep:.20}"
        );
    }
    // Long chains are no depth.
    let wide = format!("{}1", "1+".repeat(4000));
    assert_eq!(holds(&wide), Ok(true));
    assert_eq!(
        Expression::parse(&"x".repeat(9000)).unwrap_err(),
        "it is longer than 8192 bytes"
    );
}

#[test]
fn what_takes_long_is_broken_off() {
    let list = format!("[{}]", "1,".repeat(100));
    assert_eq!(holds(&format!("any(a > 1 for a in {list})")), Ok(false));
    let nested = format!("any(any(any(a > 1 for a in {list}) for b in {list}) for c in {list})");
    assert_eq!(holds(&nested), Err("it takes more than 200000 steps".to_owned()));
}

/// What shows before anything has run.
#[test]
fn a_skip_rule_is_checked_before_the_run() {
    let check = |text: &str| Expression::parse(text).unwrap().check_skip(3);
    for good in [
        "sheets[3].status == 'x'",
        "any(s.status == 'x' for s in sheets.values())",
        "sheets.get(9) is None",
        "batches[1].status == 'x'",
        "job.total_sheets > 2",
    ] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    let table = [
        ("sheet[1].status == 'x'", "`sheet` is no name; did you mean `sheets`?"),
        ("sheets[4].status == 'x'", "there is no sheet 4: this job has 3"),
        ("batches[4].status == 'x'", "there is no sheet 4: this job has 3"),
        ("sheets[0].status == 'x'", "there is no sheet 0: this job has 3"),
        (
            "sheets[1].stauts == 'x'",
            "`stauts` is no field of a sheet; did you mean `status`?",
        ),
        (
            "sheets.get(1).exitcode",
            "`exitcode` is no field of a sheet; did you mean `exit_code`?",
        ),
        (
            "job.totl_sheets > 1",
            "`totl_sheets` is no field of `job`; did you mean `total_sheets`?",
        ),
        ("sheets.status", "`sheets.status` is nothing; write `sheets[n].status`"),
        ("any(x for s in sheets)", "`x` is no name"),
        ("workspace == 'x'", "`workspace` is no name"),
    ];
    for (text, expected) in table {
        assert_eq!(check(text), Err(expected.to_owned()), "{text}");
    }
}
