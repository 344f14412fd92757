//! The other end of a capture: from the control socket to a file.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Options;
use super::session::Summary;
use crate::socket::{self, Request, Response};

/// A capture that the appliance has begun.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

/// Why a capture ended too early.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The appliance cannot be asked, or its answer is cut off.
    #[error("the appliance: {0}")]
    Appliance(io::Error),
    /// What was captured cannot be written.
    #[error("cannot write: {0}")]
    Output(io::Error),
}

/// Time between two looks at whether to stop.
const LOOK: Duration = Duration::from_millis(100);
/// Largest piece that is believed: more is no piece of ours.
const PIECE_MAX: u32 = 1 << 26;

impl Client {
    /// Asks the appliance at `path` to begin.
    ///
    /// # Errors
    /// Nobody answers; `Ok(Err(..))`: the appliance says no.
    pub fn begin(path: &Path, options: &Options) -> io::Result<Result<Self, Response>> {
        Ok(match socket::begin(path, &Request::Capture(options.clone()))? {
            (Response::Capturing(_), stream) => Ok(Self { stream }),
            (other, _) => Err(other),
        })
    }

    /// Writes what comes to `out` until the capture ends, or `stop` is raised, which ends it.
    ///
    /// # Errors
    /// See [`ClientError`]. What was written until then is valid pcapng, but for the statistics at its end.
    pub fn copy(mut self, out: &mut impl Write, stop: &AtomicBool) -> Result<Summary, ClientError> {
        let socket = self.stream.get_ref();
        socket.set_read_timeout(Some(LOOK)).map_err(ClientError::Appliance)?;
        let mut piece = Vec::new();
        loop {
            let mut len = [0; 4];
            self.fill(&mut len, stop).map_err(ClientError::Appliance)?;
            let len = u32::from_be_bytes(len);
            if len == 0 {
                break;
            }
            if len > PIECE_MAX {
                return Err(ClientError::Appliance(ErrorKind::InvalidData.into()));
            }
            piece.resize(len as usize, 0);
            self.fill(&mut piece, stop).map_err(ClientError::Appliance)?;
            // Whole blocks at once, and at once: what is in the file can be read while the capture goes on.
            let written = out.write_all(&piece).and_then(|()| out.flush());
            written.map_err(ClientError::Output)?;
        }
        let mut summary = String::new();
        self.stream.read_line(&mut summary).map_err(ClientError::Appliance)?;
        serde_json::from_str(&summary).map_err(|error| ClientError::Appliance(error.into()))
    }

    /// Reads all of `bytes`; when `stop` is raised meanwhile, tells the appliance and reads on.
    fn fill(&mut self, bytes: &mut [u8], stop: &AtomicBool) -> io::Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.stream.read(&mut bytes[filled..]) {
                Ok(0) => {
                    return Err(io::Error::new(
                        ErrorKind::UnexpectedEof,
                        "it ended in the middle of the capture",
                    ));
                }
                Ok(read) => filled += read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
            if stop.load(Ordering::Relaxed) {
                // Again each time: it changes nothing more.
                let _closed = self.stream.get_ref().shutdown(Shutdown::Write);
            }
        }
        Ok(())
    }
}
