//! What a template takes in lies below its own directory or the job file's.

use super::*;
use crate::job::files::Disk;

/// The problems of a job in a directory whose template takes in that file.
fn taken_in(directory: &Path, name: &str) -> Vec<String> {
    std::fs::write(directory.join("t/main.j2"), format!("{{% include '{name}' %}}\n")).unwrap();
    let text = "name: n\nworkspace: ./w\nsheet: {size: 1, total_items: 1}\nbackend: {type: command, command: [cat]}\n\
                prompt: {template_file: t/main.j2}\nvalidations: [{type: command_succeeds, command: make}]\n";
    let input = JobInput::of(text.as_bytes(), directory);
    let problems = load(&input, &Disk).problems;
    problems
        .into_iter()
        .map(|problem| format!("{}: {}", problem.check_id, problem.message))
        .collect()
}

#[test]
fn includes_stay_in_their_directory() {
    let outer = tempfile::tempdir().unwrap();
    let job = outer.path().join("job");
    let file = |path: &str| {
        let path = outer.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "text").unwrap();
    };
    for path in ["secret.txt", "job/t/beside.txt", "job/t/deep/er.txt", "job/above.txt"] {
        file(path);
    }
    let link = |to: &str, at: &str| std::os::unix::fs::symlink(outer.path().join(to), job.join(at)).unwrap();
    link("secret.txt", "t/leads-out.txt");
    link("", "t/all");
    link("job/t/beside.txt", "t/leads-in.txt");
    for inside in [
        "beside.txt",
        "deep/er.txt",
        "deep/../beside.txt",
        "above.txt",
        "leads-in.txt",
    ] {
        assert_eq!(taken_in(&job, inside), Vec::<String>::new(), "{inside}");
    }
    let absolute = outer.path().join("secret.txt").display().to_string();
    for outside in [
        "../above.txt",
        "../../secret.txt",
        absolute.as_str(),
        "leads-out.txt",
        "all/secret.txt",
    ] {
        let problems = taken_in(&job, outside);
        let told = problems.iter().any(|problem| {
            problem.starts_with("V003") && problem.contains(&format!("is not below {}", job.join("t").display()))
        });
        assert!(told, "{outside}: {problems:?}");
    }
}
