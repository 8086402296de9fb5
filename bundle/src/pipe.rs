//! The bounded channel between the threads of [`crate::Bundle::unpack`].
//!
//! A fixed number of buffers goes round, so memory does not depend on the bundle's size.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crate::error::Error;

/// Size of a buffer.
pub(crate) const CHUNK: usize = 512 << 10;
/// Number of buffers in the round.
const BUFFERS: usize = 6;

/// What passes through.
enum Message {
    /// The next bytes of the current blob.
    Data(Vec<u8>),
    /// The current blob is complete and its digest is right.
    End,
    /// It is not, or reading failed; nothing follows.
    Failed(Error),
}

/// The other end is gone: it has failed and says why itself.
#[derive(Debug)]
pub(crate) struct Gone;

/// The sending end.
pub(crate) struct Feeder {
    messages: SyncSender<Message>,
    empty: Receiver<Vec<u8>>,
}

/// The receiving end: reads one blob after the other.
pub(crate) struct Feed {
    messages: Receiver<Message>,
    empty: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    used: usize,
    ended: bool,
    failure: Option<Error>,
}

/// A new channel.
pub(crate) fn pipe() -> (Feeder, Feed) {
    let (messages, received) = sync_channel(BUFFERS);
    let (returned, empty) = channel();
    for _ in 0..BUFFERS {
        // Both ends are alive.
        let _ = returned.send(Vec::new());
    }
    let feed = Feed { messages: received, empty: returned, chunk: Vec::new(), used: 0, ended: true, failure: None };
    (Feeder { messages, empty }, feed)
}

impl Feeder {
    /// A buffer of any size and content; waits until one comes back.
    pub(crate) fn buffer(&self) -> Result<Vec<u8>, Gone> {
        self.empty.recv().map_err(|_| Gone)
    }

    pub(crate) fn data(&self, buffer: Vec<u8>) -> Result<(), Gone> {
        self.messages.send(Message::Data(buffer)).map_err(|_| Gone)
    }

    pub(crate) fn end(&self) -> Result<(), Gone> {
        self.messages.send(Message::End).map_err(|_| Gone)
    }

    pub(crate) fn failed(&self, error: Error) {
        // If nobody listens any more, the listener has an error of its own.
        let _ = self.messages.send(Message::Failed(error));
    }
}

impl Feed {
    /// Starts the next blob.
    pub(crate) fn next_blob(&mut self) {
        self.ended = false;
    }

    /// Reads what is left of the blob: it is proven when this returns `Ok`.
    pub(crate) fn drain(&mut self) -> Result<u64, Error> {
        let mut left = 0;
        loop {
            match self.fill_buf().map(<[u8]>::len) {
                Ok(0) => return Ok(left),
                Ok(length) => {
                    left += length as u64;
                    self.consume(length);
                }
                Err(_) => return Err(self.failure()),
            }
        }
    }

    /// The reason of a failed read.
    pub(crate) fn failure(&mut self) -> Error {
        self.failure.take().unwrap_or_else(|| Error::Read(io::Error::other("the thread that reads the bundle is gone")))
    }

    /// The same, if a read did fail.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.used == self.chunk.len() && !self.ended {
            let old = std::mem::take(&mut self.chunk);
            self.used = 0;
            if old.capacity() > 0 {
                let _ = self.empty.send(old);
            }
            match self.messages.recv() {
                Ok(Message::Data(chunk)) => self.chunk = chunk,
                Ok(Message::End) => self.ended = true,
                Ok(Message::Failed(error)) => {
                    let shown = error.to_string();
                    self.failure = Some(error);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, shown));
                }
                Err(_) => return Err(io::Error::other("the thread that reads the bundle is gone")),
            }
        }
        Ok(&self.chunk[self.used..])
    }

    fn consume(&mut self, amount: usize) {
        self.used += amount;
    }
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}
