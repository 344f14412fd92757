//! The control socket: how `weir status`, `weir apply` and the others reach a running appliance.
//!
//! A Unix stream socket for its owner, root and the group `weir` (mode 0660; 0600 where there is no such group). Who may ask
//! may also change: see [`group`]. A client sends one line of JSON, the appliance answers with one line of JSON and closes; only
//! a capture goes on after it (`capture/session.rs`). Requests are at most 4 KiB and must come within two seconds, answers must be taken
//! within thirty, so a slow or hostile client costs a thread for that long and nothing else.

use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use config::Texts;
use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Uid, User};
use serde::{Deserialize, Serialize};

use crate::capture;
use crate::change::messages::{Done, HistoryReport, Running, Wish};
use crate::explain::{Explanation, Question};
use crate::show::{Kind, Shown};
use crate::status::Status;
use crate::system::group;
use crate::top::selection::{TopStatus, TopWish};

/// Where the socket is unless `--socket` says otherwise.
pub const DEFAULT_PATH: &str = "/run/weir/control.sock";

/// What a client may ask. `by` is on whose behalf, as sudo knows it: taken from root only, others are who they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Counters and state.
    Status,
    /// The same with no more contracts than one reads, for people.
    Summary,
    /// Pages about one thing, or all of a kind.
    Show {
        /// What kind of thing.
        kind: Kind,
        /// Its name; all of them.
        #[serde(default)]
        name: Option<String>,
    },
    /// The same of the busiest contracts that match, for a screen.
    Top {
        /// Which.
        wish: TopWish,
    },
    /// Why a packet would get the verdict it would get now.
    Explain {
        /// Which packet.
        question: Question,
    },
    /// Read the configuration again and swap the table.
    Reload {
        /// On whose behalf.
        #[serde(default)]
        by: Option<String>,
    },
    /// What runs, with the traffic of the last minute.
    Running,
    /// Read the configuration and swap to it, perhaps on trial.
    Apply {
        /// In which way.
        wish: Wish,
        /// On whose behalf.
        #[serde(default)]
        by: Option<String>,
    },
    /// Keep what is on trial.
    Confirm {
        /// On whose behalf.
        #[serde(default)]
        by: Option<String>,
    },
    /// Go back.
    Rollback {
        /// To this version; to the one before.
        #[serde(default)]
        version: Option<u64>,
        /// What to remember of it.
        #[serde(default)]
        note: Option<String>,
        /// On whose behalf.
        #[serde(default)]
        by: Option<String>,
    },
    /// The versions there are.
    History,
    /// The texts of one, and of the one before it.
    Version {
        /// Its number.
        number: u64,
    },
    /// Packets as they are dropped, re-marked or sampled; they follow the answer (see [`crate::capture`]).
    Capture(capture::Options),
}

impl Request {
    fn by(&mut self) -> Option<String> {
        match self {
            Request::Reload { by }
            | Request::Apply { by, .. }
            | Request::Confirm { by }
            | Request::Rollback { by, .. } => by.take(),
            _ => None,
        }
    }
}

/// Files with their contents, the base file first.
pub type Files = Vec<(PathBuf, String)>;

/// The files of a configuration that is valid, and so is text.
#[must_use]
pub fn files(texts: &Texts) -> Files {
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    texts
        .files()
        .iter()
        .map(|(path, bytes)| (path.clone(), text(bytes)))
        .collect()
}

/// What it gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Show`].
    Shown(Box<Shown>),
    /// To [`Request::Top`].
    Top(Box<TopStatus>),
    /// To [`Request::Explain`].
    Explained(Box<Explanation>),
    /// The new table is live on every worker.
    Reloaded(Done),
    /// To [`Request::Running`].
    Running(Box<Running>),
    /// It is done: applied, confirmed, gone back.
    Changed(Done),
    /// To [`Request::History`].
    History(HistoryReport),
    /// To [`Request::Version`].
    Version {
        /// Its files.
        files: Files,
        /// Those of the version before it, if it is still kept.
        before: Option<Files>,
    },
    /// To [`Request::Capture`]: it has begun, and what it catches follows on this connection.
    Capturing(Capturing),
    /// The new configuration was refused; the table before it goes on.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// It could not be done, though nothing is wrong with the configuration; the table before goes on.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// The request itself was no good.
    Invalid {
        /// Why.
        reason: String,
    },
}

/// A capture that has begun. Only its thread has the session; to others it says that packets follow.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Capturing {
    #[serde(skip)]
    session: Option<Arc<capture::Session>>,
}

impl Capturing {
    /// Of this session.
    #[must_use]
    pub fn new(session: capture::Session) -> Self {
        Self {
            session: Some(Arc::new(session)),
        }
    }
}

/// A request on its way to the control thread.
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Who asks: a name, 1 to 64 characters.
    pub author: String,
    /// Where the answer goes.
    pub answer: Sender<Response>,
}

const REQUEST_MAX: usize = 4096;
/// Characters of an author's name: Linux takes 32 for a user.
const AUTHOR_MAX: usize = 64;
const PATIENCE: Duration = Duration::from_secs(2);
/// Time the control thread may take for an answer; compiling 100,000 contracts is the longest of them.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes handed to one write: a client that reads at all takes them within [`PATIENCE`].
const WRITE_PIECE: usize = 64 << 10;
/// Connections served at once. An operator's tools need a few; more would only be somebody's mistake.
const CONNECTIONS_MAX: usize = 16;

/// The listening socket; its file goes when it is dropped.
pub struct ControlSocket {
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl ControlSocket {
    /// Binds `path`, for the group `weir` too if there is one. Creates the directory if need be; a socket left over from a
    /// process that is gone is replaced, one that answers is not. Giving a file to a group one is not in needs CAP_CHOWN.
    ///
    /// # Errors
    /// The path cannot be bound, or another weir answers there.
    pub fn bind(path: &Path) -> io::Result<Self> {
        Ok(Self {
            listener: Some(bind(path)?),
            path: path.to_owned(),
        })
    }

    /// Listens, and passes every request on to `calls`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn listen(mut self, calls: Sender<Call>) -> io::Result<Self> {
        if let Some(listener) = self.listener.take() {
            std::thread::Builder::new()
                .name("weir-control".into())
                .spawn(move || accept(&listener, &calls))?;
        }
        Ok(self)
    }
}

/// Makes a socket at `path` for its owner and the group `weir`, and its directory if need be. A socket left over from a process
/// that is gone is replaced, one that answers is not.
///
/// # Errors
/// The path cannot be bound, or another weir answers there.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        group::make_directory(directory)?;
    }
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another weir answers at this socket",
        ));
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "not a socket, so left alone",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    group::share_socket(path)?;
    Ok(listener)
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Nothing to do about a failure here: the next start replaces the file.
        let _gone = fs::remove_file(&self.path);
    }
}

/// Asks the appliance at `path`.
///
/// # Errors
/// Nobody answers there, or not in the expected form.
pub fn ask(path: &Path, request: &Request) -> io::Result<Response> {
    begin(path, request).map(|(response, _)| response)
}

/// What the answer to [`Request::Status`] begins with; its fields follow.
const STATUS: &str = r#"{"answer":"status","#;

/// Asks for [`Request::Status`] and leaves the JSON as the appliance wrote it, without `answer` and without line breaks. The
/// status of 100,000 contracts takes seconds to be read and written again. `Err` of the inner result is another answer.
///
/// # Errors
/// Nobody answers there, or not in the expected form.
pub fn ask_status_text(path: &Path) -> io::Result<Result<String, Response>> {
    let (mut text, _) = ask_text(path, &Request::Status)?;
    if text.starts_with(STATUS) {
        text.replace_range(..STATUS.len(), "{");
        return Ok(Ok(text));
    }
    Ok(Err(serde_json::from_str(&text)?))
}

/// As [`ask`], with the connection, on which more may follow. A read of it waits as long as for an answer.
///
/// # Errors
/// As [`ask`].
pub(crate) fn begin(path: &Path, request: &Request) -> io::Result<(Response, BufReader<UnixStream>)> {
    let (text, stream) = ask_text(path, request)?;
    Ok((serde_json::from_str(&text)?, stream))
}

/// The line that the appliance answers with, without its end.
fn ask_text(path: &Path, request: &Request) -> io::Result<(String, BufReader<UnixStream>)> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER_PATIENCE + PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let sent = stream.write_all(&line);
    let mut stream = BufReader::with_capacity(WRITE_PIECE, stream);
    let mut answer = String::new();
    let read = sent.and_then(|()| stream.read_line(&mut answer));
    if answer.pop() == Some('\n') {
        return Ok((answer, stream));
    }
    match read.err() {
        Some(error) if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Err(error)
        }
        _ => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("it closed the connection: it serves {CONNECTIONS_MAX} at once, or is stopping; try again"),
        )),
    }
}

fn accept(listener: &UnixListener, calls: &Sender<Call>) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of file descriptors, most likely: waiting is all that can help.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        if open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            continue;
        }
        let (calls, place) = (calls.clone(), Place::take(&open));
        // Without a thread the connection is closed, and its place is free again.
        let _served = std::thread::Builder::new().name("weir-client".into()).spawn(move || {
            let _place = place;
            // A client that went away is its own affair.
            let _done = serve(&stream, &calls);
        });
    }
}

/// One of the connections served at once, until it is dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(stream: &UnixStream, calls: &Sender<Call>) -> io::Result<()> {
    let line = read_request(stream)?;
    let response = match serde_json::from_slice::<Request>(&line) {
        Ok(mut request) => {
            let by = request.by();
            call(request, author(stream, by), calls)
        }
        Err(_) if line.len() >= REQUEST_MAX => Response::Invalid {
            reason: format!("a request has at most {REQUEST_MAX} bytes, and this one is longer: shorten its texts"),
        },
        Err(error) => Response::Invalid {
            reason: format!("not a request: {error}"),
        },
    };
    write_answer(stream, &response)?;
    match response {
        Response::Capturing(Capturing { session: Some(session) }) => session.stream(stream),
        _ => Ok(()),
    }
}

/// Writes it as the client takes it, within [`ANSWER_PATIENCE`] in all: a status of 100,000 contracts is never there in one piece.
fn write_answer(stream: &UnixStream, response: &Response) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let deadline = Instant::now() + ANSWER_PATIENCE;
    let mut out = BufWriter::with_capacity(WRITE_PIECE, Until { stream, deadline });
    let written = serde_json::to_writer(&mut out, response).map_err(io::Error::from);
    let written = written.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    // What the client did not take is not offered again.
    let _left = out.into_parts();
    written
}

/// A stream that takes nothing after a deadline, however little the client takes at a time.
struct Until<'s> {
    stream: &'s UnixStream,
    deadline: Instant,
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if Instant::now() >= self.deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // A short write lets the deadline be seen now and then.
        self.stream.write(&bytes[..bytes.len().min(WRITE_PIECE)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads up to the end of the line, within [`PATIENCE`] in all, however the bytes trickle in.
fn read_request(mut stream: &UnixStream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    let mut chunk = [0; 512];
    while !line.contains(&b'\n') && line.len() < REQUEST_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match stream.read(&mut chunk)? {
            0 => break,
            read => line.extend_from_slice(&chunk[..read]),
        }
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(line)
}

/// Who is at the other end: the user of its process, or whom sudo made root.
fn author(stream: &UnixStream, by: Option<String>) -> String {
    let Ok(peer) = getsockopt(stream, PeerCredentials) else {
        return "unknown".to_owned();
    };
    let fits = |name: &String| (1..=AUTHOR_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if let Some(by) = by.filter(fits).filter(|_| peer.uid() == 0) {
        return by;
    }
    let user = User::from_uid(Uid::from_raw(peer.uid())).ok().flatten();
    user.map(|user| user.name)
        .filter(fits)
        .unwrap_or_else(|| format!("uid {}", peer.uid()))
}

fn call(request: Request, author: String, calls: &Sender<Call>) -> Response {
    let (answer, answered) = bounded(1);
    let call = Call {
        request,
        author,
        answer,
    };
    // When nobody takes it, the other end of `answered` goes with it, and that is seen below.
    drop(calls.send(call));
    let reason = match answered.recv_timeout(ANSWER_PATIENCE) {
        Ok(response) => return response,
        Err(RecvTimeoutError::Disconnected) => "weir is stopping".to_owned(),
        Err(RecvTimeoutError::Timeout) => format!(
            "no answer within {} s: weir is busy, and may still do it; see `weir status` before you ask again",
            ANSWER_PATIENCE.as_secs()
        ),
    };
    Response::Failed { reason }
}
