//! What a person types while a verb waits for other things too.

use std::io;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Lines of standard input. They are read by a thread that ends with the process: nothing else ends a read.
pub(crate) struct Typed(UnboundedReceiver<String>);

impl Typed {
    /// Reads from now on.
    pub(crate) fn start() -> Self {
        let (typed, lines) = unbounded_channel();
        std::thread::spawn(move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                if typed.send(line).is_err() {
                    break;
                }
            }
        });
        Self(lines)
    }

    /// The next line; none once standard input is closed. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Option<String> {
        self.0.recv().await
    }

    /// Drops what was typed so far: it was no answer to what is asked now.
    pub(crate) fn forget(&mut self) {
        while self.0.try_recv().is_ok() {}
    }
}
