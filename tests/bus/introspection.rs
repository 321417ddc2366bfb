//! The documented interfaces in `dbus/` are what is served. `MOZART_WRITE=1 cargo test` writes them anew.

use std::path::Path;

use zbus::fdo::IntrospectableProxy;

use mozart::model::RunState;

use super::script::{Table, World, run_view};

const HEADER: &str = r#"<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
"#;

const MANAGER: &str = "
  The conductor: takes jobs, lists runs, and is stopped here. Served at /org/mozart/Mozart1 of the name
  org.mozart.Mozart1, beside an ObjectManager over live and recent jobs; on the private socket the same without a name.

  Every call ends in options. A call that changes something rejects options that it does not know (InvalidArgument), and
  is refused (Refused) when a session of Mozart's own makes it, or when it cannot be told who makes it. Keys and
  properties that end in USec or _usec are microseconds, moments since the epoch. A word of an enumeration that a
  reader does not know is to be shown as it is. No answer is larger than 1 MB.

  Signals are hints: who missed one asks ListQuestions, ListGates or ListRuns.

  Errors, each org.mozart.Mozart1.Error. and: NoSuchJob, NoSuchRun, NoSuchSheet, NoSuchQuestion, InvalidJob,
  InvalidArgument, Busy, WrongState, Unconfirmed, QueueFull, NotSupported, Storage, Refused, Stopping. Their first string
  is a sentence for a person.
";

const JOB: &str = "
  One job, live or recent. Served at /org/mozart/Mozart1/job/NAME, the job's name escaped as sd_bus_path_encode(3) does;
  the manager's GetJob gives the path, and makes the object of a job that is neither live nor recent.

  The properties are those of the job's newest run; the calls take an older one by the option `run` (u). Properties
  change at most four times a second, and State before Finished is sent. Signals are hints: Revision counts every
  change of the run, so that a reader who missed one knows to read again.
";

/// The interface's own part of what the object says of itself, and nothing of zbus's interfaces.
fn documented(xml: &str, interface: &str, about: &str) -> String {
    let lines: Vec<_> = xml.lines().collect();
    let opening = format!("<interface name=\"{interface}\">");
    let start = lines
        .iter()
        .position(|line| line.trim() == opening)
        .expect("the interface is served");
    let length = lines[start..]
        .iter()
        .position(|line| line.trim() == "</interface>")
        .unwrap();
    let body: String = lines[start..=start + length]
        .iter()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    format!("{HEADER}<!--{about}-->\n<node>\n{body}</node>\n")
}

#[tokio::test]
async fn the_documented_interfaces_are_the_served_ones() {
    let mut world = World::new(Table {
        runs: vec![run_view("a", 1, RunState::Running)],
        ..Table::default()
    });
    let client = world.client().await;
    let served_at = [
        ("/org/mozart/Mozart1", "org.mozart.Mozart1.Manager", MANAGER),
        ("/org/mozart/Mozart1/job/a", "org.mozart.Mozart1.Job", JOB),
    ];
    for (path, interface, about) in served_at {
        let object = IntrospectableProxy::builder(client.connection());
        let object = object
            .destination("org.mozart.Mozart1")
            .path(path)
            .build()
            .await
            .unwrap();
        let served = documented(&object.introspect().await.unwrap(), interface, about);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("dbus/{interface}.xml"));
        if std::env::var_os("MOZART_WRITE").is_some() {
            std::fs::write(&file, &served).unwrap();
        }
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            written == served,
            "{} differs from what is served: run with MOZART_WRITE=1",
            file.display()
        );
    }
}

#[test]
fn the_activation_file_names_the_bus_and_the_unit() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dbus/org.mozart.Mozart1.service");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(
        text.lines()
            .any(|line| line == format!("Name={}", mozart::bus::names::BUS_NAME))
    );
    assert!(text.lines().any(|line| line == "SystemdService=mozart.service"));
}
