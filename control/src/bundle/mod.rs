//! `weir support-bundle`: what a support engineer asks for, in one gzipped tar of mode 0600.
//!
//! Secrets of the configuration are removed from everything, and no packet is read. What cannot be had is noted in
//! `MANIFEST.json` and never ends the whole. Runs in a process of its own beside the appliance, which it asks as anybody may.

mod redact;
mod sources;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde::Serialize;

use crate::doctor::{self, DoctorOptions};
use crate::socket::{Request, Response, ask};
use redact::Redactor;

/// What to collect and where to write it.
#[derive(Clone, Debug)]
pub struct BundleOptions {
    /// Base configuration file.
    pub config: PathBuf,
    /// Where the appliance listens, if it runs.
    pub socket: PathBuf,
    /// The file to write; it must not exist.
    pub output: PathBuf,
}

/// One part, as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// File in the bundle; where there is an `error`, there is no file.
    pub file: String,
    /// Bytes, before compression.
    pub bytes: usize,
    /// Why it is missing.
    pub error: Option<String>,
}

/// Collects everything and writes the file. Returns what is in it and what is missing.
///
/// # Errors
/// The file cannot be written (it exists, the disk is full); what there is of it is removed.
pub fn write(options: &BundleOptions) -> io::Result<Vec<Part>> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&options.output)?;
    let written = Bundle::new(file).and_then(|bundle| bundle.fill(options));
    if written.is_err() {
        // Half a bundle would be taken for a whole one.
        let _removed = std::fs::remove_file(&options.output);
    }
    written
}

/// Now, for the name of a file: `20260131-235959`, UTC.
#[must_use]
pub fn date() -> String {
    Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string()
}

struct Bundle {
    tar: tar::Builder<GzEncoder<File>>,
    directory: String,
    made: Timestamp,
    redactor: Redactor,
    parts: Vec<Part>,
}

impl Bundle {
    fn new(file: File) -> io::Result<Self> {
        Ok(Self {
            tar: tar::Builder::new(GzEncoder::new(file, Compression::default())),
            directory: "weir-support".to_owned(),
            made: Timestamp::now(),
            redactor: Redactor::default(),
            parts: Vec::new(),
        })
    }

    fn fill(mut self, options: &BundleOptions) -> io::Result<Vec<Part>> {
        self.configuration(&options.config)?;
        self.appliance(&options.socket)?;
        self.metrics(options)?;
        let findings = doctor::examine(&DoctorOptions {
            config: options.config.clone(),
            socket: options.socket.clone(),
            root: "/".into(),
        });
        self.add("doctor.txt", Ok(findings.to_text(false)))?;
        self.add("doctor.json", json(&findings))?;
        for (name, path) in sources::FILES {
            self.add(name, sources::file(Path::new(path)))?;
        }
        for (name, line) in sources::COMMANDS {
            self.add(name, sources::command(line))?;
        }
        self.interfaces(&options.config)?;
        self.finish()
    }

    /// The files as they are on disk, valid or not, without secrets; and what `weir check` says of them.
    fn configuration(&mut self, path: &Path) -> io::Result<()> {
        let texts = config::Texts::read(path);
        let files: Vec<(PathBuf, String)> = crate::socket::files(&texts);
        // All are learned first: a secret of one may stand in another.
        files.iter().for_each(|(_, text)| self.redactor.learn(text));
        if files.is_empty() {
            self.add("config/weir.toml", sources::file(path))?;
        }
        for (path, text) in files {
            let is_drop_in = path
                .parent()
                .and_then(Path::file_name)
                .is_some_and(|name| name == "contracts.d");
            let name = path
                .file_name()
                .map_or("unnamed".into(), |name| name.to_string_lossy().into_owned());
            let directory = if is_drop_in { "config/contracts.d" } else { "config" };
            self.add(&format!("{directory}/{name}"), Ok(text))?;
        }
        let check = match texts.load() {
            Ok(loaded) => format!("valid\n{}", loaded.warnings.render(false)),
            Err(report) => format!("not valid\n{}", report.render(false)),
        };
        self.add("config/check.txt", Ok(check))
    }

    fn appliance(&mut self, socket: &Path) -> io::Result<()> {
        let version = format!("weir {}\nmade {}\n", env!("CARGO_PKG_VERSION"), self.made);
        self.add("version.txt", Ok(version))?;
        let status = match ask(socket, &Request::Status) {
            Ok(Response::Status(status)) => Ok(status),
            Ok(_) => Err("an answer of another kind: another version runs".to_owned()),
            Err(error) => Err(format!("{}: {error}", socket.display())),
        };
        self.add(
            "status.txt",
            status.as_ref().map(|status| status.to_text()).map_err(Clone::clone),
        )?;
        self.add("status.json", status.and_then(|status| json(&status)))?;
        let history = match ask(socket, &Request::History) {
            Ok(Response::History(history)) => json(&history),
            Ok(_) => Err("an answer of another kind: another version runs".to_owned()),
            Err(error) => Err(format!("{}: {error}", socket.display())),
        };
        self.add("history.json", history)
    }

    /// What `/metrics` says, from the Unix socket of the API: beside the control socket, or where `[api] socket` has it.
    fn metrics(&mut self, options: &BundleOptions) -> io::Result<()> {
        let table = std::fs::read_to_string(&options.config)
            .ok()
            .and_then(|text| text.parse::<toml::Table>().ok());
        let named = table
            .as_ref()
            .and_then(|table| table.get("api")?.get("socket")?.as_str());
        let socket = named.map_or_else(|| options.socket.with_file_name("api.sock"), PathBuf::from);
        let metrics = sources::http(&socket, "/metrics").map_err(|error| format!("{}: {error}", socket.display()));
        self.add("metrics.txt", metrics)
    }

    fn interfaces(&mut self, path: &Path) -> io::Result<()> {
        let Ok(loaded) = config::load(path) else {
            return self.add(
                "interfaces",
                Err("the configuration is not valid: which they are cannot be said".into()),
            );
        };
        for port in &loaded.config.ports {
            for (name, letter) in sources::ETHTOOL {
                let file = format!("interfaces/{}-{name}.txt", port.interface);
                self.add(&file, sources::command(&["ethtool", letter, &port.interface]))?;
            }
        }
        Ok(())
    }

    /// Adds a part without its secrets, or notes why it is missing.
    fn add(&mut self, name: &str, text: Result<String, String>) -> io::Result<()> {
        let text = match text {
            Ok(text) if name.ends_with(".json") || name == "metrics.txt" => self.redactor.clean_known(&text),
            Ok(text) => self.redactor.clean(&text),
            Err(error) => {
                self.parts.push(Part {
                    file: name.to_owned(),
                    bytes: 0,
                    error: Some(self.redactor.clean(&error)),
                });
                return Ok(());
            }
        };
        self.parts.push(Part {
            file: name.to_owned(),
            bytes: text.len(),
            error: None,
        });
        self.append(name, text.as_bytes())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.made.as_second().max(0) as u64);
        self.tar
            .append_data(&mut header, format!("{}/{name}", self.directory), bytes)
    }

    fn finish(mut self) -> io::Result<Vec<Part>> {
        self.append("README.txt", README.as_bytes())?;
        let manifest = json(&self.parts).map_err(io::Error::other)?;
        self.append("MANIFEST.json", manifest.as_bytes())?;
        let mut file = self.tar.into_inner()?.finish()?;
        file.flush()?;
        file.sync_all()?;
        Ok(self.parts)
    }
}

fn json(value: &impl Serialize) -> Result<String, String> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| error.to_string())
}

const README: &str = "\
What weir, its configuration and its machine were like when `weir support-bundle` was run.

MANIFEST.json   every part; where `error` is set, why it is missing
version.txt     version of weir, and when this was made
config/         the configuration on disk, and what `weir check` says of it
status.*        counters and state of the running appliance
metrics.txt     what Prometheus would have read
history.json    which versions were applied, when and by whom
doctor.*        findings about machine, interfaces and configuration
machine/        kernel, processors, interrupts, links
interfaces/     what ethtool says of the ports
log/            the service's log and the kernel's

No packet is in it. Values of keys such as `token`, `password` and `secret` are removed wherever they
turn up, as are passwords in URLs. Names and addresses of services, rates, host names in the log and
users in the history are in it: look through it before you send it.
";
