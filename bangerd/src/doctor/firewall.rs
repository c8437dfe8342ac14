//! Firewalls beside banger's rules. Who is no administrator cannot read their rules: they are
//! named by what banger's network says of them, and by what they show to everybody.

use std::fs;
use std::path::Path;

use super::report::Report;
use super::units::Unit;

/// How the network's status begins where another firewall closes what it keeps open.
const CLOSED: &str = "Guests have no Internet";
/// What the network does to see a firewall that has come since it started.
const AGAIN: &str = "then sudo systemctl reload banger-network";

/// The chain of which both Docker and ufw set the policy.
const IPTABLES: &str = "ip filter FORWARD";

/// A firewall that people know, and how it lets guests out.
struct Firewall {
    name: &'static str,
    /// Whether it is in force here.
    is_there: fn() -> bool,
    /// Whether a chain of this name is its own.
    owns: fn(&str) -> bool,
    way_out: &'static str,
}

const FIREWALLS: [Firewall; 3] = [
    Firewall {
        name: "firewalld",
        is_there: || Path::new("/run/firewalld").exists() || Path::new("/run/firewalld.pid").exists(),
        owns: |chain| chain.contains("firewalld"),
        way_out: "give banger0 a zone and a policy with firewall-cmd, as docs/networking.md has them",
    },
    Firewall {
        name: "Docker",
        is_there: || Path::new("/sys/class/net/docker0").exists(),
        owns: |chain| chain == IPTABLES,
        way_out: "sudo iptables -I DOCKER-USER -i banger0 -j ACCEPT && sudo iptables -I DOCKER-USER -o banger0 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
    },
    Firewall {
        name: "ufw",
        is_there: || {
            let text = fs::read_to_string("/etc/ufw/ufw.conf").unwrap_or_default();
            text.lines().any(|line| line.trim() == "ENABLED=yes")
        },
        owns: |chain| chain == IPTABLES,
        way_out: "sudo ufw route allow in on banger0",
    },
];

/// What the network saw in the host's rules when it started or was told to look.
pub(super) fn named_by_the_network(report: &mut Report, network: &Unit) {
    if !network.status.starts_with(CLOSED) {
        return report.ok(
            "system-firewall",
            "The network has seen no firewall that keeps guests in",
        );
    }
    let chain = chain_of(&network.status).unwrap_or_default();
    report.failure("system-firewall", network.status.clone(), &way_out(chain));
}

/// Which firewall a lost packet is likely to be lost in, and what to do about it.
pub(super) fn way_out_of_loss() -> String {
    way_out("")
}

/// `chain` as nft(8) names it, or nothing where it is not known.
fn way_out(chain: &str) -> String {
    let is_known = |firewall: &&Firewall| chain.is_empty() || (firewall.owns)(chain);
    let there = FIREWALLS
        .iter()
        .filter(is_known)
        .find(|firewall| (firewall.is_there)());
    let known = there.or_else(|| FIREWALLS.iter().find(|firewall| (firewall.owns)(chain)));
    match known {
        Some(firewall) => format!("{}: {}, {AGAIN}", firewall.name, firewall.way_out),
        None if chain.is_empty() => format!(
            "Find the rule that drops packets of banger0: sudo nft list ruleset. It has to accept what comes from banger0, and the answers; {AGAIN}, whose status names a chain that closes"
        ),
        None => format!(
            "Have the chain {chain} accept what comes from banger0, and the answers: docs/networking.md; {AGAIN}"
        ),
    }
}

/// The chain that the network's status names.
fn chain_of(status: &str) -> Option<&str> {
    let (_, rest) = status.split_once(" (")?;
    rest.split_once(").").map(|(chain, _)| chain)
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    fn says(status: &str) -> Report {
        let mut report = Report::default();
        let network = Unit {
            status: status.to_owned(),
            ..Unit::default()
        };
        named_by_the_network(&mut report, &network);
        report
    }

    #[test]
    fn the_chain_that_the_network_names_has_a_way_out() {
        let status = |chain: &str| {
            format!(
                "Guests have no Internet: another firewall refuses what it does not know ({chain}). \
                 It has to accept what comes from banger0, and the answers: see docs/networking.md"
            )
        };
        assert_eq!(chain_of(&status("inet mine forward")), Some("inet mine forward"));
        let report = says(&status("ip filter FORWARD"));
        assert_eq!(report.worst(), Status::Failure);
        assert!(
            ["DOCKER-USER", "ufw route"]
                .iter()
                .any(|way| report.text().contains(way))
        );
        let report = says(&status("inet firewalld filter_FORWARD"));
        assert!(report.text().contains("firewall-cmd"), "{}", report.text());
        assert_eq!(says("The guests' network is there").worst(), Status::Ok);
    }
}
