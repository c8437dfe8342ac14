//! Whether the host knows VMs by name.

use std::fs;

use banger_dns::DOMAIN;

use super::known::Guest;
use super::network::resolves_to;
use super::report::{Report, Status};

const NAME: &str = "resolver";
const HAND: &str = "docs/dns-routing.md says how systemd-resolved, dnsmasq or NetworkManager ask for names below vm; `banger ssh-config` needs none of it.";
/// systemd-resolved's own server.
const STUB: &str = "127.0.0.53";

pub(super) async fn check(report: &mut Report, guests: &[Guest], system_mode: bool) {
    if !system_mode {
        return report.info(
            NAME,
            "VMs of user mode have no addresses and no names: ssh knows them by `banger ssh-config`",
        );
    }
    let running = guests.iter().find(|guest| guest.is_of_system_mode());
    let Some((guest, agent)) = running.and_then(|guest| Some((guest, guest.agent?))) else {
        return without_vm(report);
    };
    let name = format!("{}.{DOMAIN}", guest.name);
    match resolves_to(&name, agent.ip()).await {
        Ok(true) => report.ok(NAME, format!("{name} is {}", agent.ip())),
        Ok(false) => report.warning(NAME, format!("{name} is not {}", agent.ip()), HAND),
        Err(why) => {
            report.warning(NAME, format!("{name} does not resolve: {why}"), HAND);
            report.detail("One user's VMs have names at a time: `banger system status` says whose.");
        }
    }
}

/// Names are there as long as VMs run: all that can be told is whether they would be asked for.
fn without_vm(report: &mut Report) {
    let text = |file: &str| fs::read_to_string(file).unwrap_or_default();
    if asks_resolved(&text("/etc/nsswitch.conf"), &text("/etc/resolv.conf")) {
        report.ok(
            NAME,
            "The host asks systemd-resolved, which knows VMs by name while they run",
        );
    } else {
        report.add(
            NAME,
            Status::Info,
            "The host does not ask systemd-resolved: VMs have no names of their own",
            HAND,
        );
    }
}

fn asks_resolved(switch: &str, resolv: &str) -> bool {
    let hosts = switch.lines().find_map(|line| line.trim().strip_prefix("hosts:"));
    let by_module = hosts.is_some_and(|hosts| hosts.split_whitespace().any(|word| word == "resolve"));
    let by_server = resolv
        .lines()
        .any(|line| line.split_whitespace().eq(["nameserver", STUB]));
    by_module || by_server
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolved_is_asked_by_its_module_or_its_server() {
        assert!(asks_resolved("hosts: files resolve [!UNAVAIL=return] dns", ""));
        assert!(asks_resolved(
            "hosts: files dns",
            "search x\nnameserver 127.0.0.53\n"
        ));
        assert!(!asks_resolved(
            "# hosts: resolve\nhosts: files dns",
            "nameserver 9.9.9.9"
        ));
    }
}
