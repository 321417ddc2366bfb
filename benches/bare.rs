//! What sheets cost the machine without Mozart: the same command as bare transient units with the same `ExecStopPost`,
//! over one open bus connection, so many at a time. `bare HELPER DIRECTORY COUNT WIDTH COMMAND…`

use std::error::Error;
use std::path::Path;

use futures_util::StreamExt;
use zbus::wire::Variant;
use zbus::{Connection, MatchRule, MessageStream, message};

type Command = Vec<(String, Vec<String>, bool)>;

const MANAGER: &str = "org.freedesktop.systemd1.Manager";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [helper, directory, count, width, command @ ..] = arguments.as_slice() else {
        return Err("usage: bare HELPER DIRECTORY COUNT WIDTH COMMAND…".into());
    };
    let directory = Path::new(directory);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(helper, directory, count.parse()?, width.parse()?, command))
}

async fn run(helper: &str, directory: &Path, count: u32, width: u32, command: &[String]) -> Result<(), Box<dyn Error>> {
    let bus = Connection::session().await?;
    call(&bus, "Subscribe", &()).await?;
    let rule = MatchRule::builder()
        .msg_type(message::Type::Signal)
        .interface(MANAGER)
        .member("UnitRemoved")
        .build()?;
    let mut removed = MessageStream::for_match_rule(rule, &bus, None).await?;
    let mut started = 0;
    while started < count.min(width) {
        started += 1;
        start(&bus, helper, directory, started, command).await?;
    }
    let mut over = 0;
    while over < count
        && let Some(message) = removed.next().await
    {
        let message = message?;
        let body = message.body();
        let (name, _): (&str, zbus::wire::ObjectPath<'_>) = body.deserialize()?;
        if !name.starts_with("bare-") {
            continue;
        }
        over += 1;
        if started < count {
            started += 1;
            start(&bus, helper, directory, started, command).await?;
        }
    }
    Ok(())
}

async fn start(
    bus: &Connection,
    helper: &str,
    directory: &Path,
    number: u32,
    command: &[String],
) -> Result<(), Box<dyn Error>> {
    let file = |name: &str| directory.join(format!("{number}.{name}"));
    std::fs::write(file("launch"), "nothing\n")?;
    let path = |name: &str| Variant::from(file(name).display().to_string());
    // systemd expands `$` in arguments.
    let arguments = command.iter().map(|argument| argument.replace('$', "$$")).collect();
    let start: Command = vec![(command[0].clone(), arguments, false)];
    let record = ["mozart", "--mozart-exit-record"].map(str::to_owned).to_vec();
    let record: Command = vec![(helper.to_owned(), record, true)];
    let properties = vec![
        ("Type", Variant::from("exec")),
        ("Slice", Variant::from("background-mozart.slice")),
        ("CollectMode", Variant::from("inactive-or-failed")),
        ("StandardInputFile", path("launch")),
        ("StandardOutputFileToAppend", path("stdout")),
        ("StandardErrorFileToAppend", path("stderr")),
        ("ExecStart", Variant::new(start)),
        ("ExecStopPost", Variant::new(record)),
        ("CPUAccounting", Variant::from(true)),
        ("MemoryAccounting", Variant::from(true)),
    ];
    let auxiliary: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
    let unit = format!("bare-{number}.service");
    call(
        bus,
        "StartTransientUnit",
        &(unit.as_str(), "fail", properties, auxiliary),
    )
    .await
}

async fn call<B>(bus: &Connection, method: &str, body: &B) -> Result<(), Box<dyn Error>>
where
    B: serde::Serialize + zbus::wire::DynamicType,
{
    let (name, path) = (Some("org.freedesktop.systemd1"), "/org/freedesktop/systemd1");
    bus.call_method(name, path, Some(MANAGER), method, body).await?;
    Ok(())
}
