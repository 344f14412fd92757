//! Packets of a capture, ready to send, pass after pass: all in memory, or read ahead by a thread of its own.
//!
//! ```text
//!   CaptureReader ─► Preparer ─► Chunk ─┬─► in memory, as often as wanted
//!                                       └─► a bounded channel, when the capture is larger than the limit
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use crate::capture::{CaptureError, CaptureReader, Captured};

use super::ReplayError;
use super::prepare::{Entry, Preparer};
use super::timing::CaptureTime;

/// Some packets of a pass, in order.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) entries: Vec<Entry>,
    pub(super) bytes: Vec<u8>,
}

impl Chunk {
    /// Bytes of memory.
    fn size(&self) -> u64 {
        (self.bytes.len() + self.entries.len() * size_of::<Entry>()) as u64
    }

    fn is_full(&self) -> bool {
        self.size() >= CHUNK_BYTES
    }
}

/// What a source gives next.
pub(super) enum Feed {
    Chunk(Arc<Chunk>),
    /// All of a pass was given. With an error, what comes after it in the capture is missing.
    EndOfPass(Option<CaptureError>),
    /// Nothing yet: ask again.
    Wait,
}

/// The packets of a capture, over and over.
pub(super) enum Source {
    Memory { chunks: Vec<Arc<Chunk>>, next: usize },
    Stream(Receiver<Feed>),
}

impl Source {
    /// Reads the capture into memory, up to `memory_bytes_max`; one that is larger will be read while it is sent.
    /// The error is what ended the reading early.
    ///
    /// # Errors
    /// The capture cannot be read at all, or not twice and is larger than the memory.
    pub(super) fn open(
        path: &Path,
        preparer: Preparer,
        memory_bytes_max: u64,
    ) -> Result<(Self, Option<CaptureError>), ReplayError> {
        let mut pass = Pass::open(path)?;
        let (mut chunks, mut total) = (Vec::new(), 0);
        loop {
            let mut chunk = Chunk::default();
            let end = pass.fill(&mut chunk, &preparer);
            total += chunk.size();
            if total > memory_bytes_max {
                break;
            }
            if !chunk.entries.is_empty() {
                chunks.push(Arc::new(chunk));
            }
            match end {
                Ok(true) => {}
                Ok(false) => return Ok((Self::Memory { chunks, next: 0 }, None)),
                Err(error) => return Ok((Self::Memory { chunks, next: 0 }, Some(error))),
            }
        }
        drop(chunks);
        Ok((Self::stream(path, preparer)?, None))
    }

    fn stream(path: &Path, preparer: Preparer) -> Result<Self, ReplayError> {
        let failed = |cause| ReplayError::Memory {
            path: path.to_owned(),
            cause,
        };
        // Not opened for this: a pipe would wait for another writer.
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(failed(std::io::Error::other(
                "it is no file, so it cannot be read twice; copy it to one, or allow more memory",
            )));
        }
        let (sender, receiver) = mpsc::sync_channel(CHUNKS_AHEAD);
        let path = PathBuf::from(path);
        thread::Builder::new()
            .name("replay-reader".to_owned())
            .spawn(move || read_ahead(&path, &preparer, &sender))
            .map_err(failed)?;
        Ok(Self::Stream(receiver))
    }

    pub(super) fn is_in_memory(&self) -> bool {
        matches!(self, Self::Memory { .. })
    }

    /// The next part. Waits a millisecond for it at most, and only if the capture is not in memory.
    pub(super) fn next(&mut self) -> Feed {
        match self {
            Self::Memory { chunks, next } => match chunks.get(*next) {
                Some(chunk) => {
                    *next += 1;
                    Feed::Chunk(Arc::clone(chunk))
                }
                None => {
                    *next = 0;
                    Feed::EndOfPass(None)
                }
            },
            Self::Stream(receiver) => match receiver.recv_timeout(STOP_NOTICED) {
                Ok(feed) => feed,
                Err(RecvTimeoutError::Timeout) => Feed::Wait,
                // The thread ends only when it cannot send, so this cannot come; an empty pass ends the run.
                Err(RecvTimeoutError::Disconnected) => Feed::EndOfPass(None),
            },
        }
    }
}

/// Reads pass after pass until nobody listens.
fn read_ahead(path: &Path, preparer: &Preparer, sender: &SyncSender<Feed>) {
    loop {
        let result = Pass::open(path).and_then(|mut pass| {
            loop {
                let mut chunk = Chunk::default();
                let more = pass.fill(&mut chunk, preparer);
                if sender.send(Feed::Chunk(Arc::new(chunk))).is_err() {
                    return Ok(());
                }
                if !more? {
                    return Ok(());
                }
            }
        });
        if sender.send(Feed::EndOfPass(result.err())).is_err() {
            return;
        }
    }
}

/// One reading of the capture.
struct Pass {
    reader: CaptureReader,
    time: CaptureTime,
    captured: Captured,
}

impl Pass {
    fn open(path: &Path) -> Result<Self, CaptureError> {
        Ok(Self {
            reader: CaptureReader::open(path)?,
            time: CaptureTime::default(),
            captured: Captured::default(),
        })
    }

    /// Reads until the chunk is full. False at the end of the capture. What comes before an error is in the chunk.
    fn fill(&mut self, chunk: &mut Chunk, preparer: &Preparer) -> Result<bool, CaptureError> {
        while !chunk.is_full() {
            if !self.reader.next(&mut self.captured)? {
                return Ok(false);
            }
            let (position, backwards) = self.time.next(self.captured.at);
            let entry = preparer.prepare(&mut self.captured, position, backwards, &mut chunk.bytes);
            chunk.entries.push(entry);
        }
        Ok(true)
    }
}

/// A millisecond of packets at 10 Gbit/s: small beside any limit of memory, and large beside what a channel costs.
const CHUNK_BYTES: u64 = 1 << 20;
/// 16 MiB, which bridge a slow disk for 13 ms at 10 Gbit/s.
const CHUNKS_AHEAD: usize = 16;
const STOP_NOTICED: Duration = Duration::from_millis(1);
