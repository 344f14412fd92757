//! The commands and the configurations of the documents, run. Needs root, and the programs that the pages name.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pktgen::lab;
use weir_tests::documents::{Block, blocks, missing_line, pages, repository};
use weir_tests::weir_binary;

/// Pages take turns: each has a gateway, two hosts and clients, and the machine has few cores.
static TURN: Mutex<()> = Mutex::new(());

/// What every page finds: a machine with empty /run, /tmp, /var/lib and its own copy of /etc, and no network.
const MACHINE: &str = "\
mount --make-rprivate /
mkdir -p $scratch/lower $scratch/tmp
mount -t tmpfs tmpfs $scratch/lower
mkdir $scratch/lower/upper $scratch/lower/work $scratch/lower/bin
cp $weir $scratch/lower/bin/weir
export PATH=$scratch/lower/bin:$PATH LC_ALL=C.UTF-8
mount -t overlay overlay -o lowerdir=/etc,upperdir=$scratch/lower/upper,workdir=$scratch/lower/work /etc
rm -rf /etc/weir
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mount --make-shared /run
ip link set lo up
ln -s $packaging $scratch/tmp/packaging
cd $scratch/tmp
";

/// Runs the blocks of a page, each with its own file of output, and says what is not as the page says.
fn run(page: &str) -> Result<(), String> {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let path = repository().join("docs").join(page);
    let text = read(&path);
    let mut chain: Vec<Block> = Vec::new();
    if let Some((_, rest)) = text.split_once("<!-- runs after ") {
        let before = path.with_file_name(rest.split_once(" -->").expect("the end of the comment").0);
        chain.extend(blocks(&read(&before)).into_iter().filter(|block| block.is("setup")));
    }
    let first = chain.len();
    chain.extend(blocks(&text));
    let scratch = tempfile::Builder::new().prefix("weir-docs-").tempdir().unwrap();
    let mut script = MACHINE.to_owned();
    let at = |number: usize| scratch.path().join(number.to_string());
    let runs = |block: &Block| block.is("run");
    for (number, block) in chain.iter().enumerate().filter(|(_, block)| runs(block)) {
        let text = &block.text;
        // The status of the last command is looked at by itself; everything before it must succeed.
        let (early, last) = match block.status() {
            0 => (text.as_str(), String::new()),
            wanted => {
                let (early, last) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
                (
                    early,
                    format!("status=0; {last} || status=$?; [ $status = {wanted} ]\n"),
                )
            }
        };
        let out = at(number);
        let _infallible = write!(script, "exec > {} 2>&1\n{early}\n{last}", out.display());
    }
    script += "exec > /dev/null 2>&1\n";
    let mut command = Command::new("timeout");
    command.args([
        "--kill-after=5",
        "60",
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    command.args(["bash", "-euc", &script]);
    command.env("scratch", scratch.path()).env("weir", weir_binary());
    command.env("packaging", repository().join("packaging"));
    let output = command
        .current_dir(scratch.path())
        .output()
        .expect("timeout(1), unshare(1)");
    let ran: Vec<usize> = (0..chain.len()).filter(|number| at(*number).exists()).collect();
    let printed = |number: usize| fs::read_to_string(at(number)).unwrap_or_default();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = ran
            .last()
            .map(|&number| (chain[number].line, chain[number].text.clone(), printed(number)));
        return Err(format!("{page}: {}: in {last:#?}\n{said}", output.status));
    }
    if let Some(copy) = std::env::var_os("WEIR_DOCS_PRINTED") {
        let all = (0..chain.len()).map(|number| format!("--- line {}\n{}", chain[number].line, printed(number)));
        fs::write(copy, all.collect::<String>()).unwrap();
    }
    for number in first + 1..chain.len() {
        let (before, block) = (number - 1, &chain[number]);
        if block.is("output") && runs(&chain[before]) {
            // What runs in the background may print a moment later.
            std::thread::sleep(Duration::from_millis(1));
            if let Some(line) = missing_line(&block.text, &printed(before)) {
                return Err(format!(
                    "{page}:{}: not printed: {line}\nbut:\n{}",
                    block.line,
                    printed(before)
                ));
            }
        }
    }
    Ok(())
}

fn check(page: &str) {
    if let Err(missing) = lab::privileged() {
        // Not by eprintln, which the test harness hides when a test passes.
        let _written = writeln!(
            std::io::stderr(),
            "SKIPPED (needs root): the commands of {page}: {missing}"
        );
        return;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    run(page).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_tutorial_runs() {
    check("tutorial/first-gateway.md");
}

#[test]
fn writing_contracts_runs() {
    check("how-to/contracts.md");
}

#[test]
fn changing_and_going_back_runs() {
    check("how-to/change.md");
}

#[test]
fn monitoring_runs() {
    check("how-to/monitoring.md");
}

#[test]
fn capturing_runs() {
    check("how-to/capture.md");
}

#[test]
fn putting_it_on_a_box_runs() {
    check("how-to/real-box.md");
}

#[test]
fn no_page_with_commands_is_forgotten() {
    let here = include_str!("docs_commands.rs");
    let docs = repository().join("docs");
    for path in pages() {
        let text = fs::read_to_string(&path).unwrap();
        if blocks(&text).iter().any(|block| block.is("sh") && block.is("run")) {
            let name = path.strip_prefix(&docs).unwrap().display();
            assert!(here.contains(&format!("check(\"{name}\")")), "{name}");
        }
    }
}

#[test]
fn blocks_that_are_not_run_say_why() {
    let mut seen = 0;
    for path in pages() {
        let text = fs::read_to_string(&path).unwrap();
        if !["tutorial", "how-to"]
            .iter()
            .any(|directory| path.parent().unwrap().ends_with(directory))
        {
            continue;
        }
        let lines: Vec<&str> = text.lines().collect();
        let mut last_run = 0;
        for block in blocks(&text).into_iter().filter(|block| block.is("sh")) {
            let before = lines[last_run..block.line].join(" ");
            let says_why = before.contains("ot run by the tests");
            assert!(block.is("run") || says_why, "{}:{}", path.display(), block.line);
            last_run = if block.is("run") { block.line } else { last_run };
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} blocks");
}

/// A configuration around a part of one: what the part lacks is put beside it.
fn complete(part: &str, directory: &Path) -> PathBuf {
    let has = |header: &str| part.lines().any(|line| line.trim() == header);
    let mut base = String::new();
    let mut top = part.lines().take_while(|line| !line.starts_with('['));
    if !top.any(|line| line.starts_with("region")) {
        base += "region = \"atn\"\n";
    }
    let is_drop_in = has("[[contract]]") || has("[[service]]") || has("[[segment]]");
    if !is_drop_in {
        base += part;
    }
    if !has("[[port]]") {
        base += "\n[[port]]\nname = \"lan\"\ninterface = \"eth1\"\nside = \"site\"\n";
        base += "\n[[port]]\nname = \"uplink\"\ninterface = \"eth2\"\nside = \"wan\"\n";
    }
    if !has("[[wire]]") {
        base += "\n[[wire]]\nports = [\"lan\", \"uplink\"]\n";
    }
    if is_drop_in || !has("[[class]]") {
        base += "\n[[class]]\nname = \"gold\"\npriority = 1\ndscp = [\"EF\"]\nnonconforming_dscp = 3\n";
        base += "\n[[class]]\nname = \"best-effort\"\npriority = 7\ndefault = true\n";
    }
    if is_drop_in {
        fs::create_dir_all(directory.join("contracts.d")).unwrap();
        let service = "\n[[service]]\nname = \"ads\"\nendpoints = [\"10.1.0.0/16\"]\n";
        let service = if has("[[service]]") { "" } else { service };
        fs::write(directory.join("contracts.d/part.toml"), format!("{part}{service}")).unwrap();
    }
    let path = directory.join("weir.toml");
    fs::write(&path, base).unwrap();
    path
}

#[test]
fn every_configuration_is_valid() {
    let mut seen = 0;
    for path in pages() {
        let text = fs::read_to_string(&path).unwrap();
        for block in blocks(&text).into_iter().filter(|block| block.is("toml")) {
            let scratch = tempfile::tempdir().unwrap();
            let file = complete(&block.text, scratch.path());
            let output = Command::new(weir_binary())
                .args(["check", "--config"])
                .arg(&file)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}:{}: {said}", path.display(), block.line);
            seen += 1;
        }
    }
    assert!(seen > 8, "{seen} configurations");
}

#[test]
fn expected_output_is_compared_loosely_but_compared() {
    let printed = "a 12 Mbit/s\n  b   x 3.5 kB y\nc\n";
    assert_eq!(missing_line("a 7 Mbit/s\nb 1 kB\nc", printed), None);
    assert_eq!(
        missing_line("a 7 kbit/s\nb x 2 MB", printed),
        None,
        "units have multiples"
    );
    assert_eq!(missing_line("a 7 kB", printed), Some("a 7 kB"));
    assert_eq!(missing_line("c\na 1 Mbit/s", printed), Some("a 1 Mbit/s"), "in order");
    assert_eq!(missing_line("a b", printed), Some("a b"));
}
