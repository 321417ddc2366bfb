//! The user manager's own socket, as a transport for zbus.
//!
//! Without a bus between there are no unique names, so the manager writes its well-known name as the sender of every
//! message. zbus refuses such messages; the name is replaced on the way in by one of the same length that it accepts.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;

/// A header field SENDER (7) of type `s` with the manager's name: 24 bytes and a final zero.
const SENDER: &[u8] = b"\x07\x01s\x00\x18\x00\x00\x00org.freedesktop.systemd1\x00";
/// A unique name of that length.
const UNIQUE: &[u8] = b":1.org.freedesktop.syste";

/// The fixed part of a message's header; behind it come the header fields (D-Bus specification, "Message Format").
const FIXED: usize = 16;
/// No header of the manager's is longer: a path, some names and a signature.
const MOST_FIELDS: usize = 1024;
/// The specification's largest message.
const LARGEST: usize = 128 * 1024 * 1024;

/// A connection to the manager.
#[derive(Debug)]
pub struct PrivateSocket(UnixStream);

impl PrivateSocket {
    /// Connects to the socket at `path`: `systemd/private` in the runtime directory.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).await.map(Self)
    }
}

impl Socket for PrivateSocket {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        let (read, write) = self.0.into_split();
        let reader = Reader {
            socket: read,
            received: Vec::new(),
            ready: VecDeque::new(),
        };
        Split::new(reader, Writer(write))
    }
}

/// What the manager says.
#[derive(Debug)]
pub struct Reader {
    socket: OwnedReadHalf,
    /// The beginning of a message.
    received: Vec<u8>,
    /// Whole messages, and lines of the handshake before them.
    ready: VecDeque<u8>,
}

#[async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        while self.ready.is_empty() {
            if self.socket.read_buf(&mut self.received).await? == 0 {
                return Ok((0, Vec::new()));
            }
            while let Some(length) = complete(&self.received)? {
                rename(&mut self.received[..length]);
                self.ready.extend(self.received.drain(..length));
            }
        }
        let length = buffer.len().min(self.ready.len());
        for (to, from) in buffer.iter_mut().zip(self.ready.drain(..length)) {
            *to = from;
        }
        Ok((length, Vec::new()))
    }
}

/// Length of what `received` begins with, if that is there as a whole: a message, or a line of the handshake.
fn complete(received: &[u8]) -> io::Result<Option<usize>> {
    let number = |at: usize| {
        let bytes = received.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_ne_bytes(bytes)).ok()
    };
    // No line of a server's handshake begins with a small letter; the manager sends in the byte order of the machine.
    if !matches!(received.first(), Some(b'l' | b'B')) {
        return Ok(received.iter().position(|byte| *byte == b'\n').map(|at| at + 1));
    }
    let (Some(body), Some(fields)) = (number(4), number(12)) else {
        return Ok(None);
    };
    let length = FIXED.saturating_add(fields).next_multiple_of(8).saturating_add(body);
    if length > LARGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
    }
    Ok((received.len() >= length).then_some(length))
}

fn rename(message: &mut [u8]) {
    // Only there can a header field be; a reply's body may be large.
    let fields = message.len().min(FIXED + MOST_FIELDS);
    let message = &mut message[..fields];
    if let Some(at) = message.windows(SENDER.len()).position(|window| window == SENDER) {
        let name = at + 8;
        message[name..name + UNIQUE.len()].copy_from_slice(UNIQUE);
    }
}

/// What the manager is told.
#[derive(Debug)]
pub struct Writer(OwnedWriteHalf);

#[async_trait]
impl WriteHalf for Writer {
    async fn sendmsg(&mut self, buffer: &[u8], _fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.0.write(buffer).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with one header field and a body.
    fn message(field: &[u8], body: &[u8]) -> Vec<u8> {
        let mut message = vec![b'l', 2, 0, 1];
        message.extend(u32::try_from(body.len()).unwrap().to_ne_bytes());
        message.extend(1_u32.to_ne_bytes());
        message.extend(u32::try_from(field.len()).unwrap().to_ne_bytes());
        message.extend(field);
        message.resize(message.len().next_multiple_of(8), 0);
        message.extend(body);
        message
    }

    #[test]
    fn the_sender_is_renamed_in_its_place() {
        assert_eq!(SENDER.len(), 8 + UNIQUE.len() + 1);
        let mut renamed = message(SENDER, b"body");
        rename(&mut renamed);
        let at = FIXED + 8;
        assert_eq!(&renamed[at..at + UNIQUE.len()], UNIQUE);
        assert_eq!(renamed.len(), message(SENDER, b"body").len());
        let mut other = message(b"\x05\x01u\x00\x01\x00\x00\x00", b"org.freedesktop.systemd1");
        let before = other.clone();
        rename(&mut other);
        assert_eq!(other, before);
    }

    #[test]
    fn messages_and_lines_are_taken_whole() {
        let one = message(SENDER, b"12345");
        for length in 0..one.len() {
            assert_eq!(complete(&one[..length]).unwrap(), None, "{length}");
        }
        assert_eq!(complete(&[one.clone(), one.clone()].concat()).unwrap(), Some(one.len()));
        assert_eq!(complete(b"OK 0123").unwrap(), None);
        assert_eq!(complete(b"OK 0123\r\nl").unwrap(), Some(9));
        assert!(complete(b"l\x02\x00\x01\xff\xff\xff\xff\x01\x00\x00\x00\x00\x00\x00\x00").is_err());
    }
}
