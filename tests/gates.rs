//! What sessions tell before they are over, and what follows from it at once.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::{Alone, Desk, output, said};

#[test]
fn the_answer_to_a_probe_lets_the_next_sessions_in_while_it_is_still_at_work() {
    let (alone, desk) = (Alone::new(), Desk::new());
    alone.settings("launcher: supervised\n");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let refused = r#"{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":RESET,"rateLimitType":"five_hour"}}"#;
    let error = r#"{"type":"result","subtype":"success","is_error":true,"api_error_status":429,"result":"You have hit your limit","num_turns":1}"#;
    let answer =
        r#"{"type":"assistant","message":{"id":"m","model":"claude-opus-5-5","content":[{"type":"text","text":"x"}]}}"#;
    let done = r#"{"type":"result","subtype":"success","is_error":false,"result":"ok","num_turns":1}"#;
    // Refused until the reset; after it no session ends before another has begun beside it.
    let script = format!(
        "#!/bin/sh\n[ \"$1\" != --version ] || {{ echo 2.1.329; exit; }}\n\
         if [ $(date +%s) -lt {reset} ]; then touch refused-$$; echo '{refused}'; echo '{error}'; exit 1; fi\n\
         touch begun-$$; echo '{answer}'\n\
         for i in $(seq 300); do [ $(ls | grep -c begun) -lt 2 ] || {{ echo '{done}'; exit 0; }}; sleep 0.1; done\n\
         touch alone; exit 1\n",
        reset = now + 4,
        refused = refused.replace("RESET", &(now + 4).to_string()),
    );
    let program = desk.write("claude", &script);
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = desk.write(
        "job.yaml",
        "name: job\nbackend: {cli_path: ./claude, working_directory: .}\nsheet: {size: 1, total_items: 2}\n\
         prompt: {template: hello}\nparallel: {enabled: true, max_concurrent: 2}\n\
         retry: {max_retries: 0, transient_retries: 0}\n",
    );
    let run = output(alone.ctl(["run"]).arg(&file));
    assert!(run.status.success(), "{}", said(&run));
    let count = |name: &str| {
        let entries = std::fs::read_dir(desk.path("")).unwrap().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(name))
            .count()
    };
    assert!((1..=2).contains(&count("refused")), "{}", said(&run));
    assert_eq!((count("begun"), count("alone")), (2, 0), "{}", said(&run));
}
