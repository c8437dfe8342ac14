//! `banger vm ports`.

use std::net::{IpAddr, SocketAddr};

use banger_bus::{ListeningPort, VmInfo};
use clap::Args;
use futures_util::future::join_all;
use serde::Serialize;

use super::Names;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::exit;
use crate::output::{self, Style, Table};

/// List what listens in VMs
///
/// ENDPOINT is where it is reached: a port of 127.0.0.1 where one is published (`banger vm port
/// add`), in system mode the VM's address, else the address in the guest. All else is the guest's
/// own word.
#[derive(Debug, Args)]
pub(crate) struct Ports {
    #[command(flatten)]
    names: Names,
    /// Write JSON: an object for each VM
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    name: String,
    ports: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    proto: String,
    /// Where it listens in the guest.
    address: String,
    port: u16,
    /// Where it is reached, a link for `http` and `https`.
    endpoint: String,
    pid: u32,
    process: String,
    command: String,
    /// `http`, `https` or nothing.
    scheme: String,
}

impl Ports {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let names = &self.names.names;
        let results = join_all(names.iter().map(|name| listed(&client, name))).await;
        let several = names.len() > 1;
        let mut status = 0;
        let mut all = Vec::new();
        for (name, result) in names.iter().zip(results) {
            match result {
                Ok(listed) => all.push(listed),
                Err(error) => {
                    status = status.max(exit::ordinary(&error));
                    exit::tell(several.then_some(name), &error);
                }
            }
        }
        if self.json {
            output::json(&all)?;
        } else if !all.is_empty() {
            let text = table(&all, several).fitted(Style::stdout(), output::columns());
            output::data(text.as_bytes())?;
        }
        if status == 0 {
            Ok(())
        } else {
            Err(Error::Reported(status))
        }
    }
}

async fn listed(client: &Client, name: &str) -> Result<Listed> {
    let vm = client.vm(name).await?;
    let (info, ports) = tokio::join!(client.vm_info(&vm), vm.proxy.list_ports());
    let info = info?;
    Ok(Listed {
        ports: rows(ports?, &info),
        name: info.name,
    })
}

/// The rows, each once: a program that listens for both families shows one.
fn rows(ports: Vec<ListeningPort>, info: &VmInfo) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (proto, address, port, pid, process, command, scheme) in ports {
        let scope = scope(&address);
        let twin = rows.iter().any(|row| {
            scope.is_some()
                && self::scope(&row.address) == scope
                && (&row.proto, row.port, row.pid) == (&proto, port, pid)
        });
        if twin {
            continue;
        }
        rows.push(Row {
            endpoint: endpoint(&proto, &address, port, &scheme, info),
            proto,
            address,
            port,
            pid,
            process,
            command,
            scheme,
        });
    }
    rows.sort_by(|a, b| (a.port, &a.proto, &a.address).cmp(&(b.port, &b.proto, &b.address)));
    rows
}

/// What both families have: everything, or the loopback only.
fn scope(address: &str) -> Option<&'static str> {
    let address: IpAddr = address.parse().ok()?;
    match address.to_canonical() {
        address if address.is_unspecified() => Some("all"),
        address if address.is_loopback() => Some("loopback"),
        _ => None,
    }
}

fn endpoint(proto: &str, address: &str, port: u16, scheme: &str, info: &VmInfo) -> String {
    let published = info.published_ports.iter().find(|(_, guest)| *guest == port);
    let own = info.address.parse::<IpAddr>().ok().filter(|ip| !ip.is_loopback());
    let place = match (published, own) {
        (Some((host, _)), _) if proto == "tcp" => format!("127.0.0.1:{host}"),
        (_, Some(own)) if scope(address) != Some("loopback") => SocketAddr::new(own, port).to_string(),
        _ => match address.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, port).to_string(),
            Err(_) => format!("{address}:{port}"),
        },
    };
    match scheme {
        "http" | "https" => format!("{scheme}://{place}/"),
        _ => place,
    }
}

fn table(all: &[Listed], several: bool) -> Table {
    let header: &[&str] = if several {
        &["VM", "PROTO", "ENDPOINT", "PROCESS", "COMMAND"]
    } else {
        &["PROTO", "ENDPOINT", "PROCESS", "COMMAND"]
    };
    let mut table = Table::new(header);
    for listed in all {
        for row in &listed.ports {
            let process = match row.pid {
                0 => row.process.clone(),
                pid => format!("{} ({pid})", row.process),
            };
            let cells = [&listed.name, &row.proto, &row.endpoint, &process, &row.command];
            table.row(cells.into_iter().skip(usize::from(!several)));
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(address: &str, published: &[(u16, u16)]) -> VmInfo {
        VmInfo {
            address: address.to_owned(),
            published_ports: published.to_vec(),
            ..crate::commands::vm::tests::info("a")
        }
    }

    fn port(proto: &str, address: &str, port: u16, scheme: &str) -> ListeningPort {
        (
            proto.to_owned(),
            address.to_owned(),
            port,
            7,
            "p".to_owned(),
            "p -x".to_owned(),
            scheme.to_owned(),
        )
    }

    #[test]
    fn an_endpoint_is_where_it_is_reached() {
        let of = |info: &VmInfo, given: ListeningPort| rows(vec![given], info)[0].endpoint.clone();
        let user = info("127.0.0.1", &[(3000, 80)]);
        assert_eq!(
            of(&user, port("tcp", "0.0.0.0", 80, "http")),
            "http://127.0.0.1:3000/"
        );
        assert_eq!(of(&user, port("udp", "0.0.0.0", 80, "")), "0.0.0.0:80");
        assert_eq!(of(&user, port("tcp", "::1", 81, "https")), "https://[::1]:81/");
        let system = info("10.119.0.16", &[]);
        assert_eq!(
            of(&system, port("tcp", "::", 80, "http")),
            "http://10.119.0.16:80/"
        );
        assert_eq!(of(&system, port("tcp", "127.0.0.1", 80, "")), "127.0.0.1:80");
        assert_eq!(of(&system, port("tcp", "odd", 80, "gopher")), "10.119.0.16:80");
    }

    #[test]
    fn both_families_are_one_row() {
        let given = vec![
            port("tcp", "::", 80, ""),
            port("tcp", "0.0.0.0", 80, ""),
            port("udp", "0.0.0.0", 80, ""),
            port("tcp", "127.0.0.1", 80, ""),
            port("tcp", "::1", 80, ""),
            port("tcp", "192.0.2.1", 80, ""),
        ];
        assert_eq!(rows(given, &info("127.0.0.1", &[])).len(), 4);
    }
}
