//! The screen of `weir top`, character by character, for answers whose rates are known by hand.
//!
//! `WEIR_BLESS=1` writes the screens anew; look at them before you commit them.

use std::path::PathBuf;

use control::top::board::Board;
use control::top::draw::{Look, draw};
use control::top::selection::{TopStatus, TopWish};
use control::top::table::{Column, Sort};
use control::top::view::{Open, View, Wanted};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};
use serde_json::{Value, json};

const SIZES: [(u16, u16); 4] = [(80, 24), (100, 30), (40, 10), (20, 5)];

fn count(packets: u64, bytes: u64) -> Value {
    json!({ "packets": packets, "bytes": bytes })
}

/// `seconds` after the start, with traffic that is steady from then on: in bytes a second, ads 250,000 of which 125,000
/// conform, voice 10,000 all conforming, bulk 1,000,000 all excess, of which 400,000 are dropped.
fn answer(seconds: u64) -> TopStatus {
    let contract = |service: &str, class: &str, direction: &str, rate: u64, conforming: u64, excess: u64, lost: u64| {
        let dropped = if lost > 0 {
            json!({ "ring_full": count(lost / 1000 * seconds, lost * seconds) })
        } else {
            json!({})
        };
        json!({
            "service": service, "class": class, "region": "atn", "direction": direction, "segment": null,
            "active": service != "later", "rate_bps": rate, "tokens": { "committed": 12_000, "second": null },
            "offered": count((conforming + excess) / 1000 * seconds, (conforming + excess) * seconds),
            "conforming": count(conforming / 1000 * seconds, conforming * seconds),
            "nonconforming": count(excess / 1000 * seconds, excess * seconds),
            "remarked": count(0, 0), "dropped": dropped
        })
    };
    let ledger = |port: &str, received: u64, forwarded: u64| {
        json!({
            "port": port, "queue": 0, "received": count(received * seconds, received * 1014 * seconds),
            "forwarded": count(forwarded * seconds, forwarded * 1014 * seconds), "kernel": count(0, 0), "dropped": {},
            "held": count(0, 0), "unaccounted": 0, "ce_marked": count(0, 0), "other": count(0, 0)
        })
    };
    let port = |port: &str, side: &str, rate: Option<u64>| {
        json!({
            "port": port, "interface": port, "side": side, "xdp": "native", "mode": "copy", "driver": "veth",
            "rate_bps": rate, "queues": []
        })
    };
    let status = json!({
        "version": "1.2.3", "region": "atn", "generation": 7, "uptime_seconds": 7200 + seconds, "last_reload_error": null,
        "applied": null, "trial": null, "history_error": null,
        "disk": { "differs": true, "valid": true, "summary": "1 contract changed and not applied" },
        "over_grant_bytes": 0, "under_grant_bytes": 0,
        "workers": [
            { "worker": 0, "cpu": 2, "state": "run", "generation": 7, "turns": 1, "free_frames": 1, "frames": 1 },
            { "worker": 1, "cpu": 3, "state": "run", "generation": 7, "turns": 1, "free_frames": 1, "frames": 1 }
        ],
        "ports": [port("lan", "site", None), port("uplink", "wan", Some(10_000_000))],
        "contracts": [
            contract("ads", "gold", "egress", 1_000_000, 125_000, 125_000, 0),
            contract("voice", "gold", "ingress", 80_000, 10_000, 0, 0),
            contract("bulk-transfers-of-the-night", "best-effort", "egress", 8_000, 0, 1_000_000, 400_000),
            contract("later", "gold", "egress", 2_000_000_000, 0, 0, 0)
        ],
        "uncontracted": [{
            "class": "best-effort", "direction": "egress", "offered": count(seconds, 1_000 * seconds),
            "conforming": count(0, 0), "nonconforming": count(seconds, 1_000 * seconds), "remarked": count(0, 0), "dropped": {}
        }],
        "other": [],
        "ledger": [ledger("lan", 1_251, 851), ledger("uplink", 10, 10)],
        "contracts_in_all": 4, "contracts_matching": 4,
        "classes": ["gold", "best-effort"], "wires": [["lan", "uplink"]], "layer": "l3"
    });
    serde_json::from_value(status).unwrap()
}

fn board(answers: u64) -> Board {
    let mut board = Board::default();
    (0..answers).for_each(|second| board.take(answer(second * 2)));
    board
}

fn screen(board: &Board, view: &mut View, trouble: Option<&str>, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let look = Look {
        colour: true,
        ascii: false,
    };
    terminal.draw(|frame| draw(frame, board, view, trouble, look)).unwrap();
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(usize::from(width).max(1));
    let lines = lines.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>());
    lines.map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn check(name: &str, shown: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/screens/{name}.txt"));
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&path, shown).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == shown,
        "{}:\n{expected}\nbut here is:\n{shown}",
        path.display()
    );
}

#[test]
fn screens_of_four_sizes() {
    for size in SIZES {
        let shown = screen(&board(4), &mut View::default(), None, size);
        check(&format!("table-{}x{}", size.0, size.1), &shown);
    }
}

#[test]
fn what_was_not_sent_is_said_whatever_else_is_shown() {
    let mut board = Board::default();
    let mut top = answer(2);
    // Four contracts came, and a row of what no contract covers: five rows, and one contract is missing.
    (top.contracts_in_all, top.contracts_matching) = (5, 5);
    board.take(top);
    let shown = screen(&board, &mut View::default(), None, (100, 30));
    assert!(shown.contains("5 contracts, the busiest 4 shown"), "{shown}");
}

#[test]
fn help_detail_and_trouble() {
    let board = board(4);
    let mut view = View::default();
    press(&mut view, &board, "?");
    check("help-80x24", &screen(&board, &mut view, None, (80, 24)));
    press(&mut view, &board, "?");
    assert_eq!(view.key(KeyEvent::from(KeyCode::Enter), &board), Wanted::Redraw);
    check("detail-80x24", &screen(&board, &mut view, None, (80, 24)));
    let trouble = Some("Connection refused (os error 111)");
    check(
        "trouble-80x24",
        &screen(&board, &mut View::default(), trouble, (80, 24)),
    );
    check(
        "nothing-80x24",
        &screen(&Board::default(), &mut View::default(), trouble, (80, 24)),
    );
}

#[test]
fn alarms_come_before_everything_else() {
    let mut alarmed = answer(2);
    let alarm = json!({
        "name": "worker_stalled", "what": "it made no turn for a second", "where": "worker 1", "figures": {}, "remedy": ""
    });
    alarmed.status.alarms.push(serde_json::from_value(alarm).unwrap());
    let mut board = Board::default();
    board.take(alarmed);
    for size in SIZES.into_iter().filter(|(_, height)| *height > 5) {
        let shown = screen(&board, &mut View::default(), None, size);
        let second = shown.lines().nth(1).unwrap();
        assert!(second.starts_with("ALARM worker 1: it made no turn"), "{shown}");
    }
}

#[test]
fn no_size_makes_it_panic() {
    let board = board(3);
    for width in 0..=130 {
        for height in [0, 1, 2, 3, 5, 11, 40] {
            for open in [Open::Table, Open::Help, Open::Detail(board.rows[0].name.clone())] {
                let mut view = View {
                    open,
                    ..View::default()
                };
                let trouble = (width % 2 == 0).then_some("no answer for 3 s");
                let _shown = screen(&board, &mut view, trouble, (width, height));
                let _empty = screen(&Board::default(), &mut view, trouble, (width, height));
            }
        }
    }
}

#[test]
fn rates_are_those_of_the_interval() {
    let board = board(2);
    assert_eq!(board.interval, Some(2.0));
    let ads = &board.rows[0];
    let rates = ads.rates.unwrap();
    assert_eq!(
        (rates.offered_bps, rates.conforming_bps, rates.excess_bps),
        (2e6, 1e6, 1e6)
    );
    assert_eq!(board.rows[2].rates.unwrap().dropped_bps, 3_200_000.0);
    let totals = board.totals().unwrap();
    assert_eq!(totals.offered_bps, (250_000.0 + 10_000.0 + 1_000_000.0 + 1_000.0) * 8.0);
    // 14 bytes of each frame are no IP packet; what uplink sends came in at lan.
    assert_eq!(board.ports[0].received_bps, Some(1_251.0 * 1_000.0 * 8.0));
    assert_eq!(board.ports[1].sent_bps, Some(851.0 * 1_000.0 * 8.0));
}

#[test]
fn a_restart_is_not_a_negative_rate() {
    let mut board = board(5);
    let mut restarted = answer(1);
    restarted.status.uptime_seconds = 0.5;
    board.take(restarted);
    assert!(board.rows.iter().all(|row| row.rates.is_none() && row.past.is_empty()));
    assert!(board.totals().is_none() && board.interval.is_none());
    let mut next = answer(2);
    next.status.uptime_seconds = 1.5;
    board.take(next);
    assert_eq!(board.rows[0].rates.unwrap().offered_bps, 2e6);
}

#[test]
fn a_contract_that_comes_back_has_its_rate_over_the_time_between() {
    let mut board = Board::default();
    board.take(answer(0));
    let mut without = answer(2);
    without.status.traffic.contracts.remove(0);
    board.take(without);
    assert_eq!(board.rows.len(), 4);
    board.take(answer(4));
    assert_eq!(board.rows[0].rates.unwrap().offered_bps, 2e6);
}

#[test]
fn every_column_sorts_both_ways() {
    let board = board(3);
    let first = |sort: Sort| {
        let view = View::new(sort, TopWish::default());
        view.rows(&board)[0].name.service.clone()
    };
    let expected = [
        (Column::Service, "ads", ""),
        (Column::Class, "bulk-transfers-of-the-night", "ads"),
        (Column::Dir, "ads", "voice"),
        (Column::Entitled, "later", ""),
        (Column::Offered, "bulk-transfers-of-the-night", "later"),
        (Column::Conforming, "ads", "bulk-transfers-of-the-night"),
        (Column::Excess, "bulk-transfers-of-the-night", "voice"),
        (Column::Dropped, "bulk-transfers-of-the-night", "ads"),
    ];
    for (column, usual, turned) in expected {
        let sort = Sort::by(column);
        assert_eq!(first(sort), usual, "{column:?}");
        let sort = Sort {
            descending: !sort.descending,
            ..sort
        };
        assert_eq!(first(sort), turned, "{column:?} turned round");
    }
}

fn press(view: &mut View, board: &Board, keys: &str) -> Wanted {
    let mut wanted = Wanted::Redraw;
    for key in keys.chars() {
        let code = if key == '\n' {
            KeyCode::Enter
        } else {
            KeyCode::Char(key)
        };
        wanted = view.key(KeyEvent::from(code), board);
    }
    wanted
}

#[test]
fn keys_filter_sort_and_quit() {
    let board = board(3);
    let mut view = View::default();
    assert_eq!(press(&mut view, &board, "/VOI"), Wanted::Ask);
    assert_eq!((view.wish.text.as_str(), view.typing), ("VOI", true));
    assert_eq!(view.rows(&board).len(), 1, "the filter does not mind the case");
    assert_eq!(press(&mut view, &board, "\nq"), Wanted::Quit);
    press(&mut view, &board, "xd");
    assert_eq!(view.rows(&board).len(), 4, "egress, with what no contract covers");
    press(&mut view, &board, "dc");
    assert_eq!(view.filter_text(), "ingress, class gold");
    press(&mut view, &board, "cc");
    assert_eq!(view.filter_text(), "ingress");
    press(&mut view, &board, "x4r");
    assert_eq!(
        view.sort,
        Sort {
            column: Column::Entitled,
            descending: false
        }
    );
    press(&mut view, &board, "p");
    assert!(view.paused);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(view.key(control_c, &board), Wanted::Quit);
    let escape = KeyEvent::from(KeyCode::Esc);
    press(&mut view, &board, "?");
    assert_eq!((view.key(escape, &board), &view.open), (Wanted::Redraw, &Open::Table));
    assert_eq!(view.key(escape, &board), Wanted::Quit);
}

#[test]
fn the_cursor_stays_with_its_row() {
    let board = board(3);
    let mut view = View::default();
    press(&mut view, &board, "jj");
    let name = view.cursor.clone().unwrap();
    assert_eq!(name.service, "ads", "second by what is offered");
    press(&mut view, &board, "1");
    assert_eq!(view.cursor_at(&view.rows(&board)), Some(0));
    press(&mut view, &board, "kkk");
    assert_eq!(view.cursor.as_ref().unwrap().service, "ads");
    press(&mut view, &board, "G");
    assert_eq!(view.cursor_at(&view.rows(&board)), Some(4));
}

#[test]
fn without_colour_nothing_is_coloured() {
    let board = board(3);
    let mut terminal = Terminal::new(TestBackend::new(100, 30)).unwrap();
    for colour in [true, false] {
        let look = Look { colour, ascii: true };
        terminal
            .draw(|frame| draw(frame, &board, &mut View::default(), Some("gone"), look))
            .unwrap();
        let cells = terminal.backend().buffer().content();
        assert_eq!(cells.iter().any(|cell| cell.fg != Color::Reset), colour);
        assert!(
            cells.iter().all(|cell| cell.bg == Color::Reset),
            "light or dark is the terminal's affair"
        );
        assert!(cells.iter().any(|cell| cell.modifier.contains(Modifier::BOLD)));
        assert!(
            cells.iter().all(|cell| cell.symbol().is_ascii()),
            "ASCII where nothing else is known"
        );
    }
}
