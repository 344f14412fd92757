//! Where figures are served over HTTP, and to whom.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

use super::{absolute_path, sub_table};
use crate::diagnostic::{Log, Problem};
use crate::schema::keys;
use crate::table::{Table, Value};
use crate::types::Api;

/// Bytes of a Unix socket's path: `sun_path` of sockaddr_un has 108, and the last is a zero (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

pub(super) fn api(base: &Table<'_>, log: &mut Log) -> Api {
    let Some(table) = sub_table(base, "api", "[api]", keys::API, log) else {
        return Api::default();
    };
    let socket_help = "write a path from the root on: socket = \"/run/weir/api.sock\"";
    let token_help = "write a path from the root on: token_file = \"/etc/weir/api.token\"";
    let socket = table.get("socket").and_then(|value| {
        let path = absolute_path(value, socket_help, log)?;
        if path.as_os_str().as_bytes().len() > SOCKET_PATH_MAX {
            let problem = Problem::new(value.at, "`socket` is too long for a Unix socket").label("too long");
            log.error(problem.help(format!("a socket's path has at most {SOCKET_PATH_MAX} bytes")));
        }
        Some(path)
    });
    let listen_value = table.get("listen");
    let listen = listen_value.and_then(|value| address(value, log));
    let token_value = table.get("token_file");
    let token_file = token_value.and_then(|value| absolute_path(value, token_help, log));
    match (listen_value, token_value) {
        (Some(value), None) if listen.is_some_and(|address| !address.ip().is_loopback()) => {
            let problem = Problem::new(value.at, "`listen` is open to the network, and there is no token");
            log.error(problem.label("not a loopback address").help(
                "add token_file = \"/etc/weir/api.token\", or listen on 127.0.0.1 or [::1] and let a proxy do the rest",
            ));
        }
        (None, Some(value)) => {
            let problem = Problem::new(value.at, "`token_file` is for TCP, and there is no `listen`");
            log.error(
                problem
                    .label("has no effect")
                    .help("add listen = \"127.0.0.1:9469\", or remove it: the Unix socket goes by file permissions"),
            );
        }
        _ => {}
    }
    Api {
        socket,
        listen,
        token_file,
    }
}

fn address(value: Value<'_>, log: &mut Log) -> Option<SocketAddr> {
    let text = value.string(log)?;
    let parsed = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    if parsed.is_none() {
        let problem = Problem::new(value.at, "`listen` is not an address with a port").label("not an address");
        log.error(problem.help("write an IP address and a port from 1 to 65535: \"127.0.0.1:9469\" or \"[::1]:9469\""));
    }
    parsed
}
