//! `weir man` and `weir completions`: pages and scripts from the one definition of the command line.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::fail;
use crate::Cli;

/// Columns of a help text: what a terminal of today and a page of a manual both hold.
const COLUMNS: usize = 100;

/// What every command ends its help with, unless it has an end of its own.
const EXIT_STATUS: &str = "Exit status: 0 done, 1 failed, 2 usage or invalid configuration.";

/// The command line, with what all commands share.
pub(crate) fn definition() -> clap::Command {
    complete_help(Cli::command())
}

fn complete_help(command: clap::Command) -> clap::Command {
    let command = command
        .max_term_width(COLUMNS)
        .mut_subcommands(complete_help)
        .disable_help_subcommand(true);
    let says_it = [command.get_long_about(), command.get_after_help()]
        .into_iter()
        .flatten()
        .any(|text| text.to_string().contains("Exit status"));
    if says_it {
        command
    } else {
        command.after_help(EXIT_STATUS)
    }
}

/// Writes `weir.1`, `weir-run.1` and so on into `directory`, which is made if need be.
pub(crate) fn man(directory: &Path) -> ExitCode {
    let written = std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(definition(), directory));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(
            &format!("cannot write manual pages to {}: {error}", directory.display()),
            None,
            1,
        ),
    }
}

/// Prints the script that teaches a shell weir's commands and options.
pub(crate) fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition(), "weir", &mut script);
    // Whoever reads us may have gone (`| head`): nothing to say to them then.
    match std::io::stdout().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use clap::FromArgMatches;

    use super::*;

    fn every_command(command: &clap::Command, visit: &mut impl FnMut(&clap::Command)) {
        visit(command);
        command.get_subcommands().for_each(|sub| every_command(sub, visit));
    }

    #[test]
    fn every_help_fits_and_says_defaults_and_exit_status() {
        let mut command = definition();
        command.build();
        command.clone().debug_assert();
        let mut seen = 0;
        every_command(&command, &mut |command| {
            seen += 1;
            let (name, mut command) = (command.get_name().to_owned(), command.clone());
            let help = command.render_long_help().to_string();
            for line in help.lines() {
                assert!(line.chars().count() <= COLUMNS, "{name}: {line}");
            }
            assert!(help.contains("Exit status: 0 "), "{name}: {help}");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(argument.get_help().is_some(), "{name} {}: no help", argument.get_id());
                for default in argument.get_default_values() {
                    let takes_value = argument.get_action().takes_values();
                    let shown = format!("[default: {}", default.to_string_lossy().trim_matches('"'));
                    let quoted = format!("[default: \"{}", default.to_string_lossy());
                    // A long line may be broken between the words.
                    let flat = help.split_whitespace().collect::<Vec<_>>().join(" ");
                    assert!(
                        !takes_value || flat.contains(&shown) || flat.contains(&quoted),
                        "{name} {}: default not said\n{help}",
                        argument.get_id()
                    );
                }
            }
        });
        assert!(seen > 10, "only {seen} commands");
    }

    /// Commands, options, values and noise in any order: understood or a usage error, never a panic. What values mean is fuzzed
    /// (`tests/fuzz`); the options themselves can only be tried here.
    #[test]
    fn no_arguments_break_the_command_line() {
        let mut command = definition();
        command.build();
        let mut words: Vec<OsString> = [
            "",
            "-",
            "--",
            "--=",
            "-1",
            "0",
            "18446744073709551616",
            "nan",
            "1e400",
            "5m",
            "0.1 %",
            "EF",
        ]
        .into_iter()
        .chain([
            "10.1.2.3:443",
            "[::1]",
            "egress",
            "sampled=1/0",
            "\u{202e}",
            "=",
            "a=b,c",
            "/dev/null",
        ])
        .map(OsString::from)
        .collect();
        words.push(OsString::from_vec(vec![0xff, 0xfe, b'=']));
        words.push("9".repeat(5_000).into());
        let values = words.len();
        every_command(&command, &mut |command| {
            words.push(command.get_name().into());
            for argument in command.get_arguments() {
                words.extend(argument.get_long().map(|long| format!("--{long}").into()));
                words.extend(argument.get_short().map(|short| format!("-{short}").into()));
            }
        });
        let (mut state, mut understood) = (0x636c_6170_u64, 0);
        let mut below = |end: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % end
        };
        let names: Vec<OsString> = command.get_subcommands().map(|sub| sub.get_name().into()).collect();
        for _ in 0..3_000 {
            let mut arguments: Vec<OsString> = vec!["weir".into(), names[below(names.len())].clone()];
            for _ in 0..below(6) {
                // A value as often as a word of the command line.
                let from = if below(2) == 0 { values } else { words.len() };
                arguments.push(words[below(from)].clone());
            }
            if let Ok(matches) = command.try_get_matches_from_mut(&arguments) {
                assert!(Cli::from_arg_matches(&matches).is_ok(), "{arguments:?}");
                understood += 1;
            }
        }
        assert!(understood > 100, "{understood} of 3,000 were understood");
    }

    #[test]
    fn a_page_for_every_command_and_a_script_for_every_shell() {
        let directory = std::env::temp_dir().join(format!("weir-man-{}", std::process::id()));
        assert_eq!(man(&directory), ExitCode::SUCCESS);
        let mut command = definition();
        command.build();
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let page = directory.join(format!("weir-{}.1", sub.get_name()));
            let text = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
            assert!(
                text.contains(".TH") && text.contains("Exit status"),
                "{}",
                page.display()
            );
        }
        assert!(directory.join("weir.1").exists());
        std::fs::remove_dir_all(&directory).expect("it was just made");
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut definition(), "weir", &mut script);
            let script = String::from_utf8(script).expect("text");
            assert!(script.contains("rollback") && script.contains("socket"), "{shell}");
        }
    }
}
