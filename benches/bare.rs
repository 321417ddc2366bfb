//! What a sheet costs the machine without Mozart: the same command as a bare transient unit with the same
//! `ExecStopPost`, one after the other over one open bus connection. `bare MOZARTD DIRECTORY COUNT COMMAND…`

use std::error::Error;
use std::path::Path;

use futures_util::StreamExt;
use zbus::wire::Variant;
use zbus::{Connection, MatchRule, MessageStream, message};

type Command = Vec<(String, Vec<String>, bool)>;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mozartd, directory, count, command @ ..] = arguments.as_slice() else {
        return Err("usage: bare MOZARTD DIRECTORY COUNT COMMAND…".into());
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(mozartd, Path::new(directory), count.parse()?, command))
}

async fn run(mozartd: &str, directory: &Path, count: u32, command: &[String]) -> Result<(), Box<dyn Error>> {
    let bus = Connection::session().await?;
    let manager = (
        Some("org.freedesktop.systemd1"),
        "/org/freedesktop/systemd1",
        Some("org.freedesktop.systemd1.Manager"),
    );
    bus.call_method(manager.0, manager.1, manager.2, "Subscribe", &())
        .await?;
    let rule = MatchRule::builder()
        .msg_type(message::Type::Signal)
        .interface("org.freedesktop.systemd1.Manager")
        .member("UnitRemoved")
        .build()?;
    let mut removed = MessageStream::for_match_rule(rule, &bus, None).await?;
    for number in 1..=count {
        let unit = format!("bare-{number}.service");
        let file = |name: &str| Variant::from(directory.join(format!("{number}.{name}")).display().to_string());
        std::fs::write(directory.join(format!("{number}.prompt")), "nothing\n")?;
        // systemd expands `$` in arguments.
        let arguments = command.iter().map(|argument| argument.replace('$', "$$")).collect();
        let start: Command = vec![(command[0].clone(), arguments, false)];
        let record: Command = vec![(
            mozartd.to_owned(),
            vec!["mozart".to_owned(), "--mozart-exit-record".to_owned()],
            true,
        )];
        let properties = vec![
            ("Type", Variant::from("exec")),
            ("Slice", Variant::from("background-mozart.slice")),
            ("CollectMode", Variant::from("inactive-or-failed")),
            ("StandardInputFile", file("prompt")),
            ("StandardOutputFileToAppend", file("stdout")),
            ("StandardErrorFileToAppend", file("stderr")),
            ("ExecStart", Variant::new(start)),
            ("ExecStopPost", Variant::new(record)),
            ("CPUAccounting", Variant::from(true)),
            ("MemoryAccounting", Variant::from(true)),
        ];
        let auxiliary: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let body = (unit.as_str(), "fail", properties, auxiliary);
        bus.call_method(manager.0, manager.1, manager.2, "StartTransientUnit", &body)
            .await?;
        while let Some(message) = removed.next().await {
            let message = message?;
            let body = message.body();
            let (name, _): (&str, zbus::wire::ObjectPath<'_>) = body.deserialize()?;
            if name == unit {
                break;
            }
        }
    }
    Ok(())
}
