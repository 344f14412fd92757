//! `weir support-bundle`.

use std::path::PathBuf;
use std::process::ExitCode;

use control::bundle::{BundleOptions, write};
use control::socket;

use super::{fail, print_text};

#[derive(clap::Args)]
pub(crate) struct SupportBundle {
    /// File to write (mode 0600); it must not exist [default: weir-support-DATE.tar.gz]
    #[arg(short, long, value_name = "FILE.tar.gz")]
    output: Option<PathBuf>,
    /// Base configuration file.
    #[arg(long, value_name = "FILE", default_value = crate::DEFAULT_CONFIG)]
    config: PathBuf,
    /// Where the appliance listens, if it runs.
    #[arg(long, value_name = "PATH", default_value = socket::DEFAULT_PATH)]
    socket: PathBuf,
}

pub(crate) fn bundle(bundle: SupportBundle) -> ExitCode {
    let by_date = || format!("weir-support-{}.tar.gz", control::bundle::date()).into();
    let options = BundleOptions {
        config: bundle.config,
        socket: bundle.socket,
        output: bundle.output.unwrap_or_else(by_date),
    };
    let path = options.output.display();
    match write(&options) {
        Ok(parts) => {
            for part in &parts {
                if let Some(error) = &part.error {
                    eprintln!("weir: without {}: {error}", part.file);
                }
            }
            let there = parts.iter().filter(|part| part.error.is_none()).count();
            eprintln!(
                "weir: {there} parts, {} missing; look through it before you send it",
                parts.len() - there
            );
            print_text(&format!("{path}\n"))
        }
        Err(error) => fail(&format!("cannot write {path}: {error}"), None, 1),
    }
}
