//! The web page of a running gateway. Needs root and curl; what a browser does with it needs chromium.

use pktgen::lab::links;
use serde_json::Value;
use weir_tests::browser::Browser;
use weir_tests::gateway::http::{self, ADDRESS, TOKEN, get};
use weir_tests::gateway::{Config, Gateway, Layout, command, contract, text};

/// Two services: `web` gets more than its contract, `quiet` nothing.
fn config() -> Config {
    let web = contract("web", "\"10.0.0.0/30\"", "best-effort", "egress", "5 Mbit/s", "100 kB");
    let quiet = contract("quiet", "\"10.0.1.0/24\"", "gold", "ingress", "1 Mbit/s", "100 kB");
    Config {
        contracts: web + &quiet,
        ..Config::default()
    }
}

/// Status, head and body of a path over TCP.
fn fetch(gateway: &Gateway, arguments: &[&str], path: &str) -> (u32, String, String) {
    let url = format!("http://{ADDRESS}{path}");
    let output = command(
        &gateway.gw,
        &[&["curl", "-sS", "-i", "-m", "10"], arguments, &[&url]].concat(),
    );
    assert!(output.status.success(), "{url}: {}", text(&output));
    let all = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = all.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), head.to_lowercase(), body.to_owned())
}

/// Names of files in quotes.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split(['"', '\'']);
    quoted.filter(|name| [".js", ".css", ".svg"].iter().any(|end| name.ends_with(end)))
}

#[test]
fn the_page_is_complete_and_open_and_shuts_the_rest_out() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&http::with_tcp(&gateway, config()));
    let mut paths = vec!["/".to_owned()];
    let mut seen = 0;
    while let Some(path) = paths.get(seen).cloned() {
        seen += 1;
        // Without the token: the files are the same on every box.
        let (status, head, body) = fetch(&gateway, &[], &path);
        assert_eq!(status, 200, "{path}: {head}");
        for line in [
            "content-security-policy: default-src 'self'",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "cache-control: no-cache",
        ] {
            assert!(head.contains(line), "{path} lacks {line}: {head}");
        }
        assert!(!head.contains("unsafe-"), "{path}: {head}");
        let addresses = body.replace("http://www.w3.org/2000/svg", "");
        assert!(!addresses.contains("://"), "{path} has an address");
        assert!(!body.contains(TOKEN));
        let tag = head
            .lines()
            .find_map(|line| line.strip_prefix("etag: "))
            .expect("a tag");
        let (status, _, body_again) = fetch(&gateway, &["-H", &format!("If-None-Match: {tag}")], &path);
        assert_eq!((status, body_again.as_str()), (304, ""), "{path}");
        for name in names(&body) {
            let path = format!("/web/{}", name.trim_start_matches("./").trim_start_matches("web/"));
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    assert!(seen >= 10, "{paths:?}");
    let page = fetch(&gateway, &[], "/").2;
    assert!(
        page.contains("<script type=\"module\" src=\"web/main.js\"></script>"),
        "{page}"
    );
    for inline in ["<style", " style=", " onclick=", "<script>"] {
        assert!(!page.contains(inline), "{inline}");
    }
    // What the page shows is behind the token all the same, and nothing else came to be open.
    for (path, expected) in [
        ("/api/v1/status", 401),
        ("/web/", 401),
        ("/web/../metrics", 401),
        ("/metrics", 401),
    ] {
        assert_eq!(fetch(&gateway, &["--path-as-is"], path).0, expected, "{path}");
    }
    let bearer = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(fetch(&gateway, &["-H", &bearer], "/web/nothing").0, 404);
    assert_eq!(fetch(&gateway, &["-X", "POST", "-H", &bearer], "/").0, 405);
    weir.stop();
}

/// The contracts as `/api/v1` gives them.
fn contracts(gateway: &Gateway, query: &str) -> Value {
    let (status, body) = get(gateway, &[], &format!("/api/v1/contracts?{query}"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

fn open_with_token(browser: &mut Browser) {
    browser.open(&format!("http://{ADDRESS}/"));
    browser.wait_for("document.querySelector('#token-form') && !document.querySelector('#token-form').hidden");
    let show = |token: &str| {
        format!(
            "document.querySelector('#token').value = '{token}'; document.querySelector('#token-form button').click()"
        )
    };
    browser.evaluate(&show("not the token at all"));
    browser.wait_for("document.querySelector('#token-why').textContent.includes('not its token')");
    browser.evaluate(&show(TOKEN));
    browser.wait_for(
        "!document.querySelector('#main').hidden && document.querySelector('#state').textContent === '● live'",
    );
    assert_eq!(browser.evaluate("sessionStorage.length + 10 * localStorage.length"), 1);
    // The refusals before were meant.
    browser.complaints.retain(|complaint| !complaint.contains("401"));
}

/// The words of a contract's cell.
fn cell(name: &str) -> String {
    format!("document.querySelector('#map [data-name=\"{name}\"]').getAttribute('aria-label')")
}

#[test]
fn a_browser_shows_what_the_api_says() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let Some(mut browser) = Browser::start(&gateway.gw) else {
        return;
    };
    let weir = gateway.start(&http::with_tcp(&gateway, config()));
    gateway.warm();
    browser.set_screen(1280, 900, "light");
    open_with_token(&mut browser);
    let running = gateway.traffic(4000, 5);
    browser.wait_for("document.querySelectorAll('#chart .line.excess[d*=L]').length === 1");
    browser.wait_for(&format!(
        "{}.includes('excess, carried')",
        cell("web/best-effort/egress")
    ));
    let _score = running.finish();

    // Nothing moves any more, so page and API must agree to the packet.
    let web = contracts(&gateway, "service=web")["contracts"][0].clone();
    let packets = web["offered"]["packets"].as_u64().unwrap();
    assert!(packets > 20_000 - 4_000, "{web}");
    for term in ["offered", "conforming", "nonconforming"] {
        let packets = web[term]["packets"].as_u64().unwrap();
        browser.wait_for(&format!(
            "document.querySelector('#contract-facts').textContent.includes(({packets}).toLocaleString('en') + ' packets')"
        ));
    }
    assert!(
        browser
            .evaluate(&cell("quiet/gold/ingress"))
            .to_string()
            .contains("no traffic")
    );
    let first = browser.evaluate("document.querySelector('#map tbody th').textContent");
    assert_eq!(first, "web", "the worst comes first");
    let marks = browser.evaluate("document.querySelectorAll('#chart .mark.started').length");
    assert_eq!(marks, 1);
    assert!(
        browser
            .evaluate("document.querySelector('#ports').innerText")
            .to_string()
            .contains("uplink")
    );

    browser.evaluate(&format!(
        "document.querySelector('#map [data-name=\"{}\"]').click()",
        "quiet/gold/ingress"
    ));
    assert_eq!(
        browser.evaluate("document.querySelector('#contract-head').textContent"),
        "quiet/gold/ingress"
    );
    let light = browser.evaluate("getComputedStyle(document.body).backgroundColor");
    let picture = browser.screenshot();
    assert!(
        picture.starts_with("iVBORw0KGgo") && picture.len() > 20_000,
        "{}",
        picture.len()
    );

    for (width, scheme) in [(390, "dark"), (360, "dark")] {
        browser.set_screen(width, 844, scheme);
        browser.wait_for("document.documentElement.scrollWidth <= innerWidth");
        assert_ne!(
            browser.evaluate("getComputedStyle(document.body).backgroundColor"),
            light
        );
        assert!(browser.screenshot().len() > 10_000);
    }

    browser.evaluate("document.querySelector('#redact').click()");
    let shown = browser.evaluate("document.title + document.body.innerText").to_string();
    assert!(shown.contains("service-1"), "{shown}");
    for name in ["quiet", "web", "uplink", "atn", "best-effort", "gold"] {
        assert!(!shown.contains(name), "{name} in {shown}");
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
    weir.stop();
}

#[test]
fn a_browser_says_when_the_appliance_is_gone_and_goes_on_when_it_is_back() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let Some(mut browser) = Browser::start(&gateway.gw) else {
        return;
    };
    gateway.gw.try_run(|| links::set_up("lo")).expect("loopback goes up");
    let config = Config {
        control: "[api]\nlisten = \"127.0.0.1:9469\"\n",
        ..config()
    };
    let weir = gateway.start(&config);
    gateway.warm();
    let _score = gateway.traffic(4000, 1).finish();
    browser.set_screen(1280, 900, "dark");
    browser.open(&format!("http://{ADDRESS}/"));
    browser.wait_for("document.querySelector('#state').textContent === '● live'");
    browser.wait_for("document.querySelector('#contract-facts').textContent.includes('4,0')");
    browser.wait_for("document.querySelector('#chart .line.offered').getAttribute('d') !== ''");
    weir.stop();
    browser.wait_for("document.body.classList.contains('stale')");
    let banner = browser
        .evaluate("document.querySelector('#banner').innerText")
        .to_string();
    assert!(
        banner.contains("does not answer") && banner.contains("s ago"),
        "{banner}"
    );
    assert_eq!(
        browser.evaluate("getComputedStyle(document.querySelector('main')).opacity"),
        "0.5"
    );

    let weir = gateway.start(&config);
    browser.wait_for("!document.body.classList.contains('stale') && document.querySelector('#banner').hidden");
    browser.wait_for("document.querySelectorAll('#events .started').length === 2");
    // The counters began anew: the lines have a gap there, and nothing below zero.
    browser.wait_for("document.querySelector('#chart .line.offered').getAttribute('d').split('M').length > 2");
    let heights = browser.evaluate(
        "[...document.querySelectorAll('#chart .line')].flatMap((line) =>
            (line.getAttribute('d').match(/[ML][^MLh]+/g) ?? []).map((point) => Number(point.split(' ')[1])))",
    );
    let heights = heights.as_array().expect("points");
    let inside = |height: &Value| height.as_f64().is_some_and(|height| (0.0..=216.0).contains(&height));
    assert!(heights.len() > 10 && heights.iter().all(inside), "{heights:?}");
    weir.stop();
}

/// Kind and place of the alarms of a status.
fn alarms(status: &Value) -> Vec<(String, String)> {
    let word = |alarm: &Value, key: &str| alarm[key].as_str().expect("a word").to_owned();
    let alarms = status["alarms"].as_array().expect("alarms");
    alarms
        .iter()
        .map(|alarm| (word(alarm, "name"), word(alarm, "where")))
        .collect()
}

#[test]
fn a_browser_shows_conforming_loss_as_an_alarm() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let Some(mut browser) = Browser::start(&gateway.gw) else {
        return;
    };
    gateway.gw.try_run(|| links::set_up("lo")).expect("loopback goes up");
    // The contract promises more than the port carries.
    let weir = gateway.start(&Config {
        control: "[api]\nlisten = \"127.0.0.1:9469\"\n",
        wan_rate: "2 Mbit/s",
        ..config()
    });
    gateway.warm();
    browser.set_screen(1280, 900, "light");
    browser.open(&format!("http://{ADDRESS}/"));
    let _score = gateway.traffic(4000, 3).finish();
    let name = "web/best-effort/egress";
    browser.wait_for(&format!("{}.includes('conforming packets lost')", cell(name)));
    browser.wait_for(&format!(
        "document.querySelector('#alarms').textContent.includes('conforming dropped {name}')"
    ));
    browser.wait_for("document.querySelector('#alarm-count').textContent !== '0 alarms'");
    let (_, overview) = get(&gateway, &[], "/api/v1/status");
    let overview: Value = serde_json::from_str(&overview).expect("JSON");
    let expected = ("conforming_dropped".to_owned(), name.to_owned());
    assert!(alarms(&overview).contains(&expected), "{overview}");
    assert_eq!(
        alarms(&overview),
        alarms(&weir.status()),
        "no contract's alarm is missing"
    );
    for ledger in overview["ledger"].as_array().expect("a ledger") {
        for (reason, _) in ledger["dropped"].as_object().expect("reasons") {
            let row = format!("document.querySelector('#drops').textContent.includes('{reason}')");
            assert_eq!(browser.evaluate(&row), true, "{reason}");
        }
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
    weir.stop();
}

#[test]
fn many_contracts_come_by_the_thousand() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let Some(mut browser) = Browser::start(&gateway.gw) else {
        return;
    };
    gateway.gw.try_run(|| links::set_up("lo")).expect("loopback goes up");
    let many = (0..1500).map(|number| {
        let endpoints = format!("\"10.{}.{}.0/24\"", 1 + number / 256, number % 256);
        contract(
            &format!("s{number:04}"),
            &endpoints,
            "best-effort",
            "egress",
            "1 Mbit/s",
            "100 kB",
        )
    });
    let weir = gateway.start(&Config {
        control: "[api]\nlisten = \"127.0.0.1:9469\"\n",
        contracts: many.collect(),
        ..Config::default()
    });
    browser.set_screen(1280, 900, "light");
    browser.open(&format!("http://{ADDRESS}/"));
    let rows = |number: u32| format!("document.querySelectorAll('#map [data-name]').length === {number}");
    browser.wait_for(&rows(1000));
    let note = browser
        .evaluate("document.querySelector('#map-note').textContent")
        .to_string();
    assert!(
        note.contains("1 to 1,000 of 1,500") && note.contains("at most 1,000"),
        "{note}"
    );
    browser.evaluate("document.querySelector('#page-on').click()");
    browser.wait_for(&rows(500));
    browser.evaluate(
        "{ const box = document.querySelector('#filter'); box.value = 'S0007'; box.dispatchEvent(new Event('input')); }",
    );
    browser.wait_for(&rows(1));
    assert!(browser.evaluate(&cell("s0007/best-effort/egress")).is_string());
    assert_eq!(browser.complaints, Vec::<String>::new());

    assert_eq!(contracts(&gateway, "search=S14&limit=1")["total"], 100);
    assert_eq!(
        contracts(&gateway, "search=s0007%2Fbest&sort=trouble")["contracts"][0]["service"],
        "s0007"
    );
    let (status, body) = get(&gateway, &[], "/api/v1/contracts?sort=colour");
    assert!(status == 400 && body.contains("trouble"), "{status} {body}");
    weir.stop();
}
