//! The HTTP side of a running gateway: metrics, health, the read-only API. Needs root; curl, promtool and prometheus.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pktgen::lab::links;
use serde_json::{Value, json};
use weir_tests::gateway::http::{self, ADDRESS, get};
use weir_tests::gateway::{Config, Gateway, Layout, Weir, command, contract_of, text};

fn get_json(gateway: &Gateway, path: &str) -> Value {
    let (status, body) = get(gateway, &[], path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Whether `answer` has the form that the OpenAPI document gives for this path and status.
fn check_form(document: &Value, path: &str, status: u32, answer: &Value) {
    let response = &document["paths"][path]["get"]["responses"][status.to_string()];
    let schema = &response["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "{path} has no form for {status}");
    // References lead into `components` of the document, so these have to be in reach.
    let whole = json!({ "allOf": [schema], "components": document["components"] });
    let validator = jsonschema::validator_for(&whole).unwrap_or_else(|error| panic!("{path}: {error}"));
    let errors: Vec<String> = validator.iter_errors(answer).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{path}: {errors:?}: {answer}");
}

#[test]
fn every_path_answers_as_documented() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&Config::web("5 Mbit/s"));
    gateway.warm();
    let running = gateway.traffic(4000, 2);
    let document: Value = serde_json::from_slice(&fs::read(repository("docs/openapi.json")).unwrap()).unwrap();
    let printed = weir_tests::weir_binary();
    let printed = Command::new(printed).args(["schema", "--api"]).output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&printed.stdout).unwrap(), document);

    let paths: Vec<&str> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert!(paths.len() >= 9, "{paths:?}");
    for path in paths.iter().filter(|path| **path != "/metrics") {
        check_form(&document, path, 200, &get_json(&gateway, path));
        let (status, body) = get(&gateway, &["-X", "DELETE"], path);
        assert_eq!(status, 405, "{path}: {body}");
        check_form(&document, path, 405, &serde_json::from_str(&body).unwrap());
    }
    for (path, part) in [
        ("/api/v1/contracts?colour=red", "unknown field"),
        ("/api/v1/contracts?limit=0", "from 1 to 1000"),
        ("/api/v1/contracts?offset=-1", "invalid digit"),
        ("/api/v1/events?after=x", "invalid digit"),
    ] {
        let (status, body) = get(&gateway, &[], path);
        assert!(status == 400 && body.contains(part), "{path}: {status} {body}");
        let path = path.split('?').next().unwrap();
        check_form(&document, path, 400, &serde_json::from_str(&body).unwrap());
    }
    let (status, body) = get(&gateway, &[], "/api/v2");
    assert!(status == 404 && body.contains("weir schema --api"), "{status} {body}");

    gateway.check_nothing_lost(&running.finish(), &weir);
    filters_and_pages(&gateway, &weir);
    changes_are_told(&gateway, &weir);
    assert_eq!(get_json(&gateway, "/readyz")["ok"], true);
    weir.stop();
    assert!(
        !gateway.directory.path().join("api.sock").exists(),
        "the socket goes with weir"
    );
}

fn filters_and_pages(gateway: &Gateway, weir: &Weir) {
    let found = get_json(gateway, "/api/v1/contracts?service=web&direction=egress");
    let mut same = contract_of(&weir.status(), "web").clone();
    // What is in the bucket goes on changing.
    let mut shown = found["contracts"][0].clone();
    for contract in [&mut same, &mut shown] {
        contract.as_object_mut().unwrap().remove("tokens");
    }
    assert_eq!((found["total"].as_u64(), &shown), (Some(1), &same));
    assert!(shown["nonconforming"]["packets"].as_u64().unwrap() > 0, "{shown}");
    for nothing in ["service=mail", "direction=ingress", "segment=far", "offset=1"] {
        let found = get_json(gateway, &format!("/api/v1/contracts?{nothing}"));
        assert_eq!(found["contracts"], json!([]), "{nothing}");
    }
}

/// A refusal, a trial and its end are seen in status, metrics and events.
fn changes_are_told(gateway: &Gateway, weir: &Weir) {
    gateway.write(&Config::web("none"));
    assert!(!weir.ask(&["reload"]).status.success());
    assert!(get_json(gateway, "/api/v1/status")["last_reload_error"].is_string());
    let (_, metrics) = get(gateway, &[], "/metrics");
    assert!(
        metrics.contains("\nweir_config_last_reload_successful 0.0\n"),
        "{metrics}"
    );

    gateway.write(&Config::web("6 Mbit/s"));
    let applied = weir.ask(&["apply", "--confirm", "60s"]);
    assert!(applied.status.success(), "{}", text(&applied));
    assert!(get_json(gateway, "/api/v1/status")["trial"].is_object());
    assert!(weir.ask(&["rollback"]).status.success());
    let events = get_json(gateway, "/api/v1/events");
    let events = events["events"].as_array().unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        ["started", "refused", "swapped", "trial_began", "swapped", "trial_ended"]
    );
    let after = get_json(gateway, &format!("/api/v1/events?after={}", kinds.len() - 1));
    assert_eq!(after["events"].as_array().unwrap().len(), 1);
    assert_eq!(
        get_json(gateway, "/api/v1/history")["versions"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        get_json(gateway, "/api/v1/workers")["generation"],
        weir.status()["generation"]
    );
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

fn prometheus(gateway: &Gateway) -> Ends {
    let directory = gateway.directory.path();
    let file = directory.join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n\
         - job_name: weir\n  authorization: {{credentials_file: {}}}\n  static_configs: [{{targets: ['{ADDRESS}']}}]\n",
        repository("packaging/prometheus/weir-rules.yml").display(),
        directory.join("api.token").display()
    );
    fs::write(&file, text).unwrap();
    let log = fs::File::create(directory.join("prometheus.log")).unwrap();
    let mut line = Command::new("prometheus");
    line.arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", directory.join("tsdb").display()))
        .arg("--web.listen-address=127.0.0.1:9090")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Ends(gateway.gw.spawn(&mut line).expect("prometheus starts"))
}

/// The value of an instant query, if it has exactly one.
fn query(gateway: &Gateway, query: &str) -> Option<f64> {
    let line = [
        "curl",
        "-sS",
        "-m",
        "5",
        "-G",
        "http://127.0.0.1:9090/api/v1/query",
        "--data-urlencode",
    ];
    let output = command(&gateway.gw, &[&line[..], &[&format!("query={query}")]].concat());
    let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
    let [one] = &answer["data"]["result"].as_array()?[..] else {
        return None;
    };
    one["value"][1].as_str()?.parse().ok()
}

fn query_until(gateway: &Gateway, text: &str, wanted: f64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let found = query(gateway, text);
        if found == Some(wanted) {
            return;
        }
        let log = || fs::read_to_string(gateway.directory.path().join("prometheus.log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "{text}: {found:?}, not {wanted}\n{}", log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn prometheus_sees_what_status_says() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let weir = gateway.start(&http::with_tcp(&gateway, Config::web("5 Mbit/s")));
    gateway.warm();
    let _prometheus = prometheus(&gateway);
    let running = gateway.traffic(4000, 3);
    gateway.check_nothing_lost(&running.finish(), &weir);
    let status = weir.status_when(|status| status["ledger"][0]["held"]["packets"] == 0);
    let web = contract_of(&status, "web");
    assert!(web["nonconforming"]["packets"].as_u64().unwrap() > 100, "{web}");
    query_until(&gateway, "up{job=\"weir\"}", 1.0);
    for term in ["offered", "conforming", "nonconforming", "remarked"] {
        for unit in ["packets", "bytes"] {
            let text = format!("weir_contract_{term}_{unit}_total{{service=\"web\",direction=\"egress\"}}");
            query_until(&gateway, &text, web[term][unit].as_f64().unwrap());
        }
    }
    for ledger in status["ledger"].as_array().unwrap() {
        let port = ledger["port"].as_str().unwrap();
        for term in ["received", "forwarded"] {
            let found = query(&gateway, &format!("weir_queue_{term}_packets_total{{port=\"{port}\"}}"));
            // A packet of the hosts' own (neighbour discovery) may have come since.
            let (found, said) = (found.unwrap(), ledger[term]["packets"].as_f64().unwrap());
            assert!(
                (0.0..=20.0).contains(&(found - said)),
                "{port} {term}: {found} and {said}"
            );
        }
    }
    query_until(&gateway, "weir_ready", 1.0);
    query_until(&gateway, "count(ALERTS{alertstate=\"firing\"}) or vector(0)", 0.0);
    query_until(&gateway, "weir_port_up{port=\"uplink\"}", 1.0);
    links_are_watched(&gateway);
}

fn links_are_watched(gateway: &Gateway) {
    gateway
        .wan
        .try_run(|| links::set_down("eth0"))
        .expect("a link goes down");
    query_until(gateway, "weir_port_up{port=\"uplink\"}", 0.0);
    let events = get_json(gateway, "/api/v1/events");
    let last = events["events"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["kind"], "link_down", "{events}");
}

/// Names of the families that a scrape describes, with what their samples add.
fn names(metrics: &str) -> BTreeSet<String> {
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .filter_map(|rest| Some(rest.split_once(' ')?.0.to_owned()))
        .collect()
}

/// The names of metrics in a text of queries.
fn names_used(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("weir_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn tools_accept_metrics_rules_and_dashboard() {
    let Some(gateway) = Gateway::build(Layout::default()) else {
        return;
    };
    let _weir = gateway.start(&Config::web("5 Mbit/s"));
    gateway.warm();
    let (status, metrics) = get(&gateway, &[], "/metrics");
    assert_eq!(status, 200);
    let file = gateway.directory.path().join("metrics");
    fs::write(&file, &metrics).unwrap();
    let checked = command(
        &gateway.gw,
        &["sh", "-c", &format!("promtool check metrics < {}", file.display())],
    );
    assert!(checked.status.success(), "{}", text(&checked));

    let (_, openmetrics) = get(
        &gateway,
        &["-H", "Accept: application/openmetrics-text; version=1.0.0"],
        "/metrics",
    );
    assert!(openmetrics.ends_with("# EOF\n"), "{openmetrics}");
    assert!(openmetrics.contains("# UNIT weir_contract_offered_bytes bytes\n"));

    let served = names(&metrics);
    assert!(served.len() > 50, "{served:?}");
    let dashboard: Value =
        serde_json::from_slice(&fs::read(repository("packaging/grafana/weir.json")).unwrap()).unwrap();
    let queries: Vec<&str> = strings(&dashboard, "expr");
    assert!(queries.len() > 20, "{queries:?}");
    let used = names_used(&queries.join(" "));
    assert!(used.is_subset(&served), "{:?}", used.difference(&served));
    let rules = fs::read_to_string(repository("packaging/prometheus/weir-rules.yml")).unwrap();
    let expressions: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr:"))
        .collect();
    let used = names_used(&expressions.join(" "));
    assert!(
        used.len() > 10 && used.is_subset(&served),
        "{:?}",
        used.difference(&served)
    );
    let variables = names_used(&strings(&dashboard, "definition").join(" "));
    assert!(variables.is_subset(&served), "{:?}", variables.difference(&served));
}

/// The values of a key, wherever it is.
fn strings<'v>(value: &'v Value, key: &str) -> Vec<&'v str> {
    match value {
        Value::Array(elements) => elements.iter().flat_map(|element| strings(element, key)).collect(),
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| match value.as_str() {
                Some(text) if name == key => vec![text],
                _ => strings(value, key),
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn promtool(arguments: &[&str]) -> Output {
    Command::new("promtool")
        .args(arguments)
        .current_dir(repository("packaging/prometheus"))
        .output()
        .expect("promtool starts")
}

#[test]
fn rules_alert_when_they_should_and_lead_to_the_runbook() {
    for arguments in [
        ["check", "rules", "weir-rules.yml"],
        ["test", "rules", "weir-rules.test.yml"],
    ] {
        let output = promtool(&arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    }
    let read = |path: &str| fs::read_to_string(repository(path)).unwrap();
    let (rules, tests, runbook) = (
        read("packaging/prometheus/weir-rules.yml"),
        read("packaging/prometheus/weir-rules.test.yml"),
        read("docs/runbook.md"),
    );
    let sections: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert_eq!(sections, alerts, "one section for each alert, in their order");
    for alert in alerts {
        let anchor = format!("runbook: docs/runbook.md#{}\n", alert.to_lowercase());
        assert_eq!(rules.matches(&anchor).count(), 1, "{alert}");
        assert!(tests.contains(&anchor), "no test sees {alert} fire");
    }
}
