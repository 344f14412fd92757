//! The loop of the screen: keys, answers, signals, drawing. Nothing is drawn unless something has changed.
//!
//! A thread of its own asks the appliance, so that a slow answer never holds a key up. The terminal is put back however the
//! loop ends: by a key, a signal, an error, or a panic (ratatui's hook does that one). A terminal that has gone away ends the
//! process from a second thread (`end_with_terminal`), because the loop itself may never hear of it.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::TopOptions;
use super::board::Board;
use super::draw::{Look, draw};
use super::selection::{TopStatus, TopWish};
use super::view::{View, Wanted};

/// Longest wait for a key before answers and signals are looked at: what a person does not notice.
const LOOK: Duration = Duration::from_millis(100);
/// How long an answer may take before the screen says so.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often, in ms, the terminal is looked at if the kernel does not say by itself that it has gone.
const GONE_LOOK_MS: u16 = 500;

/// Shows the screen until the operator or a signal ends it.
///
/// # Errors
/// The terminal cannot be used.
pub fn show(options: &TopOptions) -> io::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        // The second one ends a loop that waits for a stopped terminal (Ctrl-S) too.
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    end_with_terminal()?;
    let terminal = ratatui::try_init()?;
    let result = Screen::new(options, Asker::start(options.socket.clone())?).run(terminal, &stop);
    let restored = ratatui::try_restore();
    result.and(restored)
}

/// Ends the process, with status 1, when the terminal hangs up: its window was closed, its connection lost.
///
/// crossterm reads a terminal until it would block, and takes the end of the file and EIO for "nothing yet": of a terminal that
/// has hung up it reads for ever, inside `event::poll`, and no flag is looked at any more. There is nobody to say it to and
/// nothing to restore, so the process may end here.
fn end_with_terminal() -> io::Result<()> {
    std::thread::Builder::new().name("weir-top-tty".into()).spawn(|| {
        let (input, output) = (io::stdin(), io::stdout());
        let mut terminals = Vec::with_capacity(2);
        // No event is asked for: errors and hang-ups are always told.
        if input.is_terminal() {
            terminals.push(PollFd::new(input.as_fd(), PollFlags::empty()));
        }
        if output.is_terminal() {
            terminals.push(PollFd::new(output.as_fd(), PollFlags::empty()));
        }
        loop {
            match poll(&mut terminals, GONE_LOOK_MS) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => std::process::exit(1),
            }
        }
    })?;
    Ok(())
}

struct Screen {
    board: Board,
    view: View,
    look: Look,
    asker: Asker,
    interval: Duration,
    /// When to ask next.
    due: Instant,
    trouble: Option<String>,
}

impl Screen {
    fn new(options: &TopOptions, asker: Asker) -> Self {
        Self {
            board: Board::default(),
            view: View::new(options.sort, options.wish.clone()),
            look: Look {
                colour: std::env::var_os("NO_COLOR").is_none(),
                ascii: !speaks_utf8(),
            },
            asker,
            interval: options.interval,
            due: Instant::now(),
            trouble: None,
        }
    }

    fn run(mut self, mut terminal: DefaultTerminal, stop: &AtomicBool) -> io::Result<()> {
        let mut changed = true;
        while !stop.load(Ordering::Relaxed) {
            changed |= self.look_after_answers();
            if changed {
                let (board, view, trouble) = (&self.board, &mut self.view, self.trouble.as_deref());
                terminal.draw(|frame| draw(frame, board, view, trouble, self.look))?;
                changed = false;
            }
            let wait = self.due.saturating_duration_since(Instant::now()).min(LOOK);
            if !event::poll(wait.max(Duration::from_millis(10)))? {
                continue;
            }
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match self.view.key(key, &self.board) {
                    Wanted::Quit => return Ok(()),
                    Wanted::Ask => (self.due, changed) = (Instant::now(), true),
                    Wanted::Redraw => changed = true,
                },
                Event::Resize(..) => changed = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes an answer if one is there, and asks if it is time; says whether the screen has changed.
    fn look_after_answers(&mut self) -> bool {
        let mut changed = false;
        match self.asker.answer() {
            Some(Ok(top)) if !self.view.paused => {
                self.board.take(top);
                self.trouble = None;
                changed = true;
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => changed |= self.say(error),
            None => {
                if let Some(seconds) = self.asker.silent_for(PATIENCE) {
                    changed |= self.say(format!("no answer for {seconds} s"));
                }
            }
        }
        let now = Instant::now();
        if now >= self.due && !self.view.paused && self.asker.ask(&self.view.wish) {
            self.due = now + self.interval;
        }
        changed
    }

    fn say(&mut self, trouble: String) -> bool {
        let is_new = self.trouble.as_ref() != Some(&trouble);
        self.trouble = Some(trouble);
        is_new
    }
}

/// The thread that asks.
struct Asker {
    wishes: Sender<TopWish>,
    answers: Receiver<Result<TopStatus, String>>,
    /// Since when an answer is waited for.
    asked: Option<Instant>,
}

impl Asker {
    fn start(socket: PathBuf) -> io::Result<Self> {
        let (wishes, wanted) = bounded::<TopWish>(1);
        let (answer, answers) = bounded(1);
        std::thread::Builder::new().name("weir-top-ask".into()).spawn(move || {
            for wish in wanted {
                if answer.send(super::ask(&socket, wish)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self {
            wishes,
            answers,
            asked: None,
        })
    }

    /// Asks, unless an answer is still to come.
    fn ask(&mut self, wish: &TopWish) -> bool {
        if self.asked.is_some() || self.wishes.try_send(wish.clone()).is_err() {
            return false;
        }
        self.asked = Some(Instant::now());
        true
    }

    fn answer(&mut self) -> Option<Result<TopStatus, String>> {
        let answer = self.answers.try_recv().ok()?;
        self.asked = None;
        Some(answer)
    }

    /// Whole seconds that an answer is late, from `patience` on.
    fn silent_for(&self, patience: Duration) -> Option<u64> {
        let waited = self.asked?.elapsed();
        (waited >= patience).then_some(waited.as_secs())
    }
}

/// Whether the terminal is likely to know the blocks of a sparkline.
fn speaks_utf8() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
    locale.is_some_and(|locale| {
        let locale = locale.to_uppercase();
        locale.contains("UTF-8") || locale.contains("UTF8")
    })
}
