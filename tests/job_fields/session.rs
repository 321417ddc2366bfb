//! Fields that say what sessions there are, what each runs and what it is told.

use std::os::unix::fs::PermissionsExt as _;

use super::Person;
use crate::support::{output, said, sheet_states};

// field: name
#[test]
fn the_run_and_its_checkpoint_bear_the_name() {
    let person = Person::new();
    let file = person.job(1, "true", "", &[("name: job", "name: nightly review")]);
    person.completes(&file);
    let status = person.alone.status("nightly review");
    assert_eq!(
        (&status["id"], &status["state"]),
        (&"nightly review".into(), &"completed".into())
    );
    assert_eq!(
        person.checkpoint("workspace/nightly review.json")["job_id"],
        "nightly review"
    );
}

// field: description
#[test]
fn the_description_is_shown_with_the_plan() {
    let person = Person::new();
    let file = person.job(1, "true", "description: Read it all\n", &[]);
    assert_eq!(person.plan(&file)["description"], "Read it all");
    for arguments in [&["run", "--dry-run"][..], &["validate", "-v"]] {
        let shown = output(person.alone.ctl(arguments).arg(&file));
        assert!(said(&shown).contains("Read it all"), "{}", said(&shown));
    }
}

// field: workspace
#[test]
fn the_workspace_is_made_beside_the_job_file_and_told_to_sessions() {
    let person = Person::new();
    let file = person.desk.write(
        "jobs/job.yaml",
        "name: job\nworkspace: ./gone/../here\nbackend: {type: command, command: [sh, -c, 'read w; echo done > \"$w/out\"']}\n\
         sheet: {size: 1, total_items: 1}\nprompt: {template: \"{{ workspace }}\\n\"}\n\
         validations: [{type: file_exists, path: out}]\n",
    );
    person.completes(&file);
    assert_eq!(person.read("jobs/here/out"), "done\n");
    assert!(!person.desk.path("jobs/gone").exists());
}

// field: backend.type
// field: backend.command
#[test]
fn a_command_is_run_word_by_word() {
    let person = Person::new();
    let file = person.desk.write(
        "job.yaml",
        "name: job\nbackend:\n  type: command\n  command: [sh, -c, 'printf \"%s|\" \"$@\" > words', sh, a b, $HOME, '{sheet_num}', 7]\n\
         sheet: {size: 1, total_items: 1}\nprompt: {template: x}\n",
    );
    assert_eq!(person.plan(&file)["backend"], "command");
    person.completes(&file);
    assert_eq!(person.read("words"), "a b|$HOME|{sheet_num}|7|");
}

/// Something that is not the CLI: it notes how it was called and fails.
const NOT_THE_CLI: &str = "#!/bin/sh\nprintf '%s ' \"$@\" >> \"$(dirname \"$0\")/called\"\nexit 1\n";

// field: backend.type
// field: backend.cli_path
#[test]
fn the_named_program_is_what_runs() {
    let person = Person::new();
    let job = |cli_path: &str| {
        person.desk.write(
            "job.yaml",
            &format!(
                "name: job\nbackend: {{type: claude_cli, cli_path: {cli_path}, env: {{HOME: {}}}}}\n\
                 sheet: {{size: 1, total_items: 1}}\nprompt: {{template: x}}\n\
                 retry: {{max_retries: 0, transient_retries: 0}}\n",
                person.desk.path("").display()
            ),
        )
    };
    let missing = person.run(&job("./bin/another-claude"));
    assert_eq!(missing.status.code(), Some(1), "{}", said(&missing));
    assert!(
        ["E505", "bin/another-claude", "hint: install it"]
            .iter()
            .all(|words| said(&missing).contains(words)),
        "{}",
        said(&missing)
    );

    let program = person.desk.write("bin/another-claude", NOT_THE_CLI);
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    person.fails(&job("./bin/another-claude"));
    let called = person.read("bin/called");
    assert!(
        called.contains("--session-id") && called.contains("stream-json"),
        "{called}"
    );
}

// field: backend.working_directory
#[test]
fn sessions_work_where_the_job_says() {
    for (field, name) in [
        ("", ""),
        (", working_directory: .", ""),
        (", working_directory: ./sub/../deep", "deep"),
    ] {
        let person = Person::new();
        let directory = person.desk.path(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        let script = format!("pwd -P > {}", person.desk.path("where").display());
        let file = person.job(1, &script, "", &[(", working_directory: .", field)]);
        person.completes(&file);
        let expected = directory.canonicalize().expect("a directory");
        assert_eq!(person.read("where").trim_end(), expected.to_string_lossy(), "{field:?}");
    }
}

// field: backend.timeout_seconds
// field: backend.timeout_overrides
#[test]
fn a_session_has_the_time_that_its_sheet_has() {
    let person = Person::new();
    let file = person.job(
        2,
        "sleep 1",
        "retry: {max_retries: 0, transient_retries: 0}\n",
        &[(
            ", working_directory: .",
            ", working_directory: ., timeout_seconds: 0.4, timeout_overrides: {1: 30}",
        )],
    );
    let failed = person.fails(&file);
    assert_eq!((&failed["sheet_num"], &failed["code"]), (&2.into(), &"E001".into()));
    assert_eq!(sheet_states(&person.alone.status("job")), ["completed", "failed"]);
}

// field: backend.sheet_overrides
#[test]
fn a_sheet_has_the_time_and_the_model_of_its_own() {
    let person = Person::new();
    // What the CLI is asked with; the session of one sheet ends too late but for the time of its own.
    let program = person.desk.write(
        "claude",
        "#!/bin/sh\nn=$(head -n 1)\nprintf '%s ' \"$@\" > \"$(dirname \"$0\")/called-$n\"\nsleep 1\nexit 1\n",
    );
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    let overrides = "{1: {timeout_seconds: 30}, 3: {cli_model: opus, timeout_seconds: 30}}";
    let file = person.desk.write(
        "job.yaml",
        &format!(
            "name: job\nbackend: {{type: claude_cli, cli_path: ./claude, env: {{HOME: {}}}, cli_model: haiku,\n  \
             timeout_seconds: 0.4, timeout_overrides: {{1: 0.4}}, sheet_overrides: {overrides}}}\n\
             sheet: {{size: 1, total_items: 3}}\nprompt: {{template: \"{{{{ sheet_num }}}}\\n\"}}\n\
             parallel: {{enabled: true, fail_fast: false}}\nretry: {{max_retries: 0, transient_retries: 0}}\n",
            person.desk.path("").display()
        ),
    );
    let planned = person.plan(&file);
    let planned = planned["sheets"].as_array().expect("sheets").iter();
    let planned: Vec<_> = planned
        .map(|sheet| (sheet["timeout_seconds"].as_f64(), sheet["model"].as_str()))
        .collect();
    let expected = [(30.0, "haiku"), (0.4, "haiku"), (30.0, "opus")].map(|(time, model)| (Some(time), Some(model)));
    assert_eq!(planned, expected);

    person.fails(&file);
    let models: Vec<_> = (1..=3)
        .map(|sheet| {
            let called = person.read(&format!("called-{sheet}"));
            let mut words = called.split(' ').skip_while(|word| *word != "--model");
            words.nth(1).map(str::to_owned)
        })
        .collect();
    assert_eq!(models, ["haiku", "haiku", "opus"].map(|model| Some(model.to_owned())));
    let status = person.alone.status("job");
    let in_time = |sheet: usize| status["sheets"][sheet]["code"] != "E001";
    assert_eq!([0, 1, 2].map(in_time), [true, false, true], "{status}");
}

// field: backend.env
// field: backend.pass_env
#[test]
fn sessions_get_the_variables_that_the_job_names_and_no_others() {
    let person = Person::new();
    let file = person.job(
        1,
        "env > environment",
        "",
        &[(
            ", working_directory: .",
            ", working_directory: ., env: {FIXED: 'as written $HOME'}, pass_env: [EDITOR]",
        )],
    );
    let done = output(
        person
            .alone
            .ctl(["run"])
            .arg(&file)
            .env("EDITOR", "ed")
            .env("PAGER", "more"),
    );
    assert!(done.status.success(), "{}", said(&done));
    let environment = person.desk.lines("environment");
    assert!(
        environment.contains(&"FIXED=as written $HOME".to_owned()),
        "{environment:?}"
    );
    assert!(environment.contains(&"EDITOR=ed".to_owned()), "{environment:?}");
    assert!(
        !environment.iter().any(|line| line.starts_with("PAGER=")),
        "{environment:?}"
    );
}

// field: backend.max_output_capture_bytes
#[test]
fn so_much_of_a_failed_sessions_output_is_kept() {
    let tail = |field: &str| {
        let person = Person::new();
        let file = person.job(
            1,
            "seq 1000 9999; exit 1",
            "retry: {max_retries: 0}\n",
            &[(", working_directory: .", field)],
        );
        person.fails(&file);
        let checkpoint = person.checkpoint("workspace/job.json");
        checkpoint["sheets"]["1"]["stdout_tail"]
            .as_str()
            .expect("a tail")
            .to_owned()
    };
    assert_eq!(
        tail(", working_directory: ., max_output_capture_bytes: 10"),
        "9998\n9999\n"
    );
    assert_eq!(tail("").len(), 10_240);
}

// field: batch
// field: sheet
// field: sheet.size
// field: sheet.total_items
// field: sheet.start_item
// field: prompt.template
#[test]
fn each_sheet_is_told_its_items_in_either_word() {
    for section in ["sheet", "batch"] {
        let person = Person::new();
        let all =
            "{{ sheet_num }}/{{ total_sheets }} {{ batch_num }}/{{ total_batches }} {{ start_item }}-{{ end_item }}";
        let file = person.job(
            3,
            "echo \"$n\" >> told",
            "",
            &[
                (
                    "sheet: {size: 1, total_items: 3}",
                    &format!("{section}: {{size: 10, total_items: 27, start_item: 6}}"),
                ),
                ("{{ sheet_num }}", all),
            ],
        );
        person.completes(&file);
        assert_eq!(
            person.desk.lines("told"),
            ["1/3 1/3 6-15", "2/3 2/3 16-25", "3/3 3/3 26-27"],
            "{section}"
        );
    }
}

// field: sheet.descriptions
#[test]
fn a_sheets_label_is_told_with_it() {
    let person = Person::new();
    let file = person.job(
        2,
        "true",
        "",
        &[("total_items: 2", "total_items: 2, descriptions: {2: The index}")],
    );
    let done = person.completes(&file);
    assert!(said(&done).contains("The index"), "{}", said(&done));
    let status = person.alone.status("job");
    assert_eq!(status["sheets"][0]["description"], serde_json::Value::Null);
    assert_eq!(status["sheets"][1]["description"], "The index");
}

// field: prompt.template_file
#[test]
fn a_template_file_is_read_beside_the_job_file() {
    let person = Person::new();
    person
        .desk
        .write("templates/review.j2", "{{ sheet_num }}\nfrom {% include 'part.j2' %}");
    person.desk.write("templates/part.j2", "a part of {{ total_sheets }}\n");
    let file = person.prompted(
        "{template_file: templates/review.j2, append: {requirements: false}}",
        "",
    );
    person.completes(&file);
    assert_eq!(person.read("prompt-1"), "1\nfrom a part of 1\n");
}

// field: prompt.stakes
// field: prompt.thinking_method
// field: prompt.variables
#[test]
fn a_template_has_stakes_method_and_variables() {
    let person = Person::new();
    let file = person.prompted(
        "{template: \"{{ sheet_num }}\\n{{ stakes }} {{ thinking_method }} {{ audience }} {{ by_sheet[sheet_num] }}\", \
         stakes: A reward!, thinking_method: Step by step., variables: {audience: engineers, by_sheet: {1: one}}}",
        "",
    );
    person.completes(&file);
    assert_eq!(person.read("prompt-1"), "1\nA reward! Step by step. engineers one");
}

// field: prompt.engine
#[test]
fn the_engine_decides_how_values_are_written() {
    let person = Person::new();
    let prompt = |engine: &str| {
        let file = person.prompted(&format!("{{template: '{{{{ true }}}}', engine: {engine}}}"), "");
        person.plan(&file)["sheets"][0]["prompt"].clone()
    };
    assert_eq!((prompt("jinja"), prompt("tera")), ("True".into(), "true".into()));
}

// field: prompt.append
// field: prompt.append.requirements
// field: prompt.append.lessons
#[test]
fn requirements_and_lessons_are_appended_unless_switched_off() {
    let told = |append: &str| {
        let person = Person::new();
        // The rule fails once, so that there is something to learn.
        let file = person.prompted(
            &format!("{{template: \"{{{{ sheet_num }}}}\\n\"{append}}}"),
            "retry: {max_retries: 1, base_delay_seconds: 0.05, jitter: false}\n\
             validations: [{type: command_succeeds, command: 'test -e again || { touch again; exit 1; }', description: Twice is enough}]\n",
        );
        person.completes(&file);
        person.read("prompt-1").matches("Twice is enough").count()
    };
    let everything = told("");
    let no_requirements = told(", append: {requirements: false}");
    let no_lessons = told(", append: {lessons: false}");
    assert_eq!(no_lessons, 1);
    assert!(no_requirements > 0, "the retry is told what failed");
    assert_eq!(everything, no_requirements + no_lessons);
    assert_eq!(told(", append: {requirements: false, lessons: false}"), 0);
}

// field: batch
#[test]
fn both_words_of_every_variable_mean_the_same() {
    let person = Person::new();
    let file = person.job(
        1,
        "true",
        "validations: [{type: command_succeeds, command: 'test {batch_num}/{total_batches} = {sheet_num}/{total_sheets}'}]\n",
        &[("pause_between_sheets_seconds", "pause_between_batches_seconds")],
    );
    person.completes(&file);
}

// field: prompt.prompt_extensions
// field: sheet.prompt_extensions
#[test]
fn extensions_end_what_is_sent() {
    let person = Person::new();
    person.desk.write("house.md", "Keep to the house style.\n");
    let file = person.job(
        2,
        "cat > rest-$n",
        "",
        &[
            ("prompt: {", "prompt: {prompt_extensions: [house.md, Be brief.], "),
            (
                "total_items: 2",
                "total_items: 2, prompt_extensions: {2: [The last one.]}",
            ),
        ],
    );
    person.completes(&file);
    assert_eq!(person.read("rest-1"), "\nKeep to the house style.\n\nBe brief.\n");
    assert_eq!(
        person.read("rest-2"),
        "\nKeep to the house style.\n\nBe brief.\n\nThe last one.\n"
    );
}

// field: cross_sheet
// field: cross_sheet.auto_capture_stdout
// field: cross_sheet.max_output_chars
// field: cross_sheet.lookback_sheets
/// The ends of what the two sheets before said, and of the one that it waits for.
#[test]
fn templates_are_told_what_the_sheets_before_said() {
    let person = Person::new();
    let file = person.job(
        4,
        "cat > rest-$n; printf 'much, and at the end: answer %s' $n",
        "cross_sheet: {auto_capture_stdout: true, max_output_chars: 8, lookback_sheets: 2}\n",
        &[
            (
                "{{ sheet_num }}\\n",
                "{{ sheet_num }}\\n{% for n, text in previous_outputs.items() %}{{ n }}={{ text }};{% endfor %}",
            ),
            ("total_items: 4", "total_items: 4, dependencies: {4: [1]}"),
        ],
    );
    person.completes(&file);
    assert_eq!(person.read("rest-1"), "");
    assert_eq!(person.read("rest-2"), "1=answer 1;");
    assert_eq!(person.read("rest-3"), "1=answer 1;2=answer 2;");
    assert_eq!(person.read("rest-4"), "1=answer 1;2=answer 2;3=answer 3;");
}

// field: cross_sheet.capture_files
/// A retry is told what the first attempt was told, whatever that one did to the files.
#[test]
fn templates_are_told_what_files_say_and_a_retry_the_same() {
    let person = Person::new();
    person.desk.write("workspace/1.md", "from the start");
    let script = "cat > told-$n-$(ls told-$n-* 2>/dev/null | wc -l); echo changed by $n > workspace/1.md; \
                  echo more > workspace/more.md; [ -e again-$n ] && touch workspace/done-$n; touch again-$n";
    let file = person.job(
        2,
        script,
        "cross_sheet: {capture_files: ['*.md', 'done-{{ sheet_num - 1 }}'], max_output_chars: 9}\n\
         retry: {base_delay_seconds: 0.05, jitter: false}\n\
         validations: [{type: file_exists, path: 'done-{sheet_num}', retry_count: 0}]\n",
        &[(
            "{{ sheet_num }}\\n",
            "{{ sheet_num }}\\n{% for path, text in previous_files.items() %}{{ path | replace(workspace, '') }}={{ text }};{% endfor %}",
        )],
    );
    person.completes(&file);
    let first = "/1.md=from the \n... [truncated];";
    assert_eq!(
        (person.read("told-1-0"), person.read("told-1-1")),
        (first.to_owned(), first.to_owned())
    );
    let second = "/1.md=changed b\n... [truncated];/done-1=;/more.md=more\n;";
    assert_eq!(
        (person.read("told-2-0"), person.read("told-2-1")),
        (second.to_owned(), second.to_owned())
    );
}
