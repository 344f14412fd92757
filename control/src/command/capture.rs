//! `weir capture`.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use control::capture::Options;
use control::capture::client::{Client, ClientError};
use control::socket::{self, Response};

use super::{INVALID, fail, unexpected};

#[derive(clap::Args)]
pub(crate) struct Capture {
    /// File to write (pcapng, mode 0600); - for standard output.
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    write: PathBuf,
    /// Which packets: dropped, remarked, sampled=1/N, all; several with commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "dropped")]
    what: Vec<What>,
    /// Only packets of contracts of this service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only packets of this class.
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
    #[allow(rustdoc::broken_intra_doc_links, reason = "brackets of a grammar")]
    /// Only packets of this contract: "SERVICE [CLASS [DIRECTION [SEGMENT]]]".
    #[arg(long, value_name = "NAMES")]
    contract: Option<String>,
    /// Only this direction.
    #[arg(long, value_parser = ["egress", "ingress"])]
    direction: Option<String>,
    /// Only packets from or to this port.
    #[arg(long, value_name = "NAME")]
    port: Option<String>,
    /// End after N packets (each is written before and after).
    #[arg(long, short = 'c', value_name = "N")]
    count: Option<u64>,
    /// End after N seconds.
    #[arg(long, value_name = "N", value_parser = milliseconds)]
    seconds: Option<u64>,
    /// Most packets a second of each worker, and at once; what is above is counted as missed.
    #[arg(long, value_name = "PPS", default_value_t = 1000)]
    rate: u32,
    /// Bytes of each packet: 128 are headers and little else.
    #[arg(long, short = 's', value_name = "BYTES", default_value_t = 128)]
    snaplen: u32,
    /// Where the appliance listens.
    #[arg(long, value_name = "PATH", default_value = socket::DEFAULT_PATH)]
    socket: PathBuf,
}

#[derive(Clone, Copy)]
enum What {
    Dropped,
    Remarked,
    Every(u32),
}

impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "dropped" => Ok(What::Dropped),
            "remarked" => Ok(What::Remarked),
            "all" => Ok(What::Every(1)),
            _ => {
                let every = text.strip_prefix("sampled=1/").and_then(|every| every.parse().ok());
                every
                    .filter(|&every| every > 0)
                    .map(What::Every)
                    .ok_or_else(|| "one of dropped, remarked, sampled=1/N (such as sampled=1/1000), all".to_owned())
            }
        }
    }
}

/// Seconds as they are written, in milliseconds.
fn milliseconds(text: &str) -> Result<u64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.001..=1e9).contains(&seconds) {
        Ok((seconds * 1000.0) as u64)
    } else {
        Err("between 0.001 and 1000000000".to_owned())
    }
}

pub(crate) fn capture(capture: Capture) -> ExitCode {
    let to_stdout = capture.write == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        let remedy = "redirect it (`> FILE`), pipe it (`| tshark -r -`), or name a file after -w";
        return fail(&"packets are no text for a terminal", Some(remedy), INVALID);
    }
    // Of several the one that takes most: `all` holds every sample.
    let every = capture.what.iter().filter_map(|what| match what {
        What::Every(every) => Some(*every),
        _ => None,
    });
    let every = every.min();
    let is_all = every == Some(1);
    let options = Options {
        // All is also what rings drop later, which got its verdict before.
        dropped: is_all || capture.what.iter().any(|what| matches!(what, What::Dropped)),
        remarked: capture.what.iter().any(|what| matches!(what, What::Remarked)),
        every: every.unwrap_or(0),
        service: capture.service,
        class: capture.class,
        contract: capture.contract,
        direction: capture.direction,
        port: capture.port,
        count: capture.count,
        milliseconds: capture.seconds,
        rate: capture.rate,
        snaplen: capture.snaplen,
    };
    // Before the appliance is asked: a path that cannot be written needs no capture.
    let unwritable = |error| fail(&format!("cannot write {}: {error}", capture.write.display()), None, 1);
    let file = match (!to_stdout).then(|| open(&capture.write)).transpose() {
        Ok(file) => file,
        Err(error) => return unwritable(error),
    };
    match Client::begin(&capture.socket, &options) {
        Ok(Ok(client)) => match output(file) {
            Ok(out) => copy(client, out, &options, &capture.write),
            Err(error) => unwritable(error),
        },
        Ok(Err(Response::Invalid { reason })) => fail(&reason, None, INVALID),
        Ok(Err(other)) => unexpected(&other),
        Err(error) => {
            let remedy = "is `weir run` running, with this --socket, and may you open it (root)?";
            fail(
                &format!("no answer at {}: {error}", capture.socket.display()),
                Some(remedy),
                1,
            )
        }
    }
}

/// Packets are private: for their owner alone, if the file is new.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// What packets are written to. A file is emptied only now that some will come: an earlier capture is not lost to a mistake
/// in the options, or to an appliance that does not run.
fn output(file: Option<File>) -> io::Result<Box<dyn Write>> {
    let Some(file) = file else {
        return Ok(Box::new(io::stdout()));
    };
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    Ok(Box::new(file))
}

fn copy(client: Client, mut out: Box<dyn Write>, options: &Options, path: &Path) -> ExitCode {
    let stop = match pktgen::console::stop_flag() {
        Ok(stop) => stop,
        Err(error) => return fail(&error, None, 1),
    };
    eprintln!("weir: capturing {}; Ctrl-C ends it", options.words());
    match client.copy(&mut out, &stop) {
        Ok(summary) => {
            eprintln!(
                "weir: {} packets captured ({} in the file, before and after); {} missed, {} of them by the rate of {}",
                summary.records, summary.packets, summary.missed, summary.missed_by_rate, options.rate
            );
            if summary.ended == "stopping" {
                eprintln!("weir: ended because the appliance stopped");
            }
            ExitCode::SUCCESS
        }
        // Whoever read us has seen enough.
        Err(ClientError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(ClientError::Output(error)) => fail(&format!("cannot write {}: {error}", path.display()), None, 1),
        Err(error @ ClientError::Appliance(_)) => fail(&error, Some("what came before is in the file"), 1),
    }
}
