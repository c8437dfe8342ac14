//! System mode: whether its helper is there, answers, and lets this owner.

use banger_model::config::ModeChoice;

use super::report::{Report, Status};
use crate::helper::{Failure, Helper, SystemBus};

/// `mode` is what the configuration says.
pub(super) async fn check(report: &mut Report, mode: ModeChoice) {
    let helper = Helper::new(SystemBus::usual());
    let wanted = mode == ModeChoice::System;
    let standing = helper.standing().await;
    match &standing {
        Err(Failure::NotInstalled) => {
            let status = if wanted { Status::Failure } else { Status::Info };
            let message = "Not installed: VMs are launched by this daemon (user mode)";
            return report.add("helper", status, message, Failure::NotInstalled.way_out());
        }
        Err(failure @ Failure::NotAuthorized(_)) => {
            let status = if wanted { Status::Failure } else { Status::Warning };
            report.add("helper", status, failure.to_string(), failure.way_out());
        }
        Err(failure) => {
            report.failure("helper", failure.to_string(), failure.way_out());
        }
        Ok(()) if mode == ModeChoice::User => {
            report.info(
                "helper",
                "Installed, and not used: the configuration says mode = \"user\"",
            );
        }
        Ok(()) => report.ok("helper", "Launches VMs as uids of their own (system mode)"),
    }
    // It is asked for its own checks even where it refuses VMs: who may not start one may look.
    match helper.status().await {
        Ok(checks) => {
            for (name, well, detail) in checks {
                let name = format!("system-{}", words(&name));
                if well {
                    report.ok(&name, detail);
                } else {
                    report.failure(&name, detail, "sudo banger system restart");
                }
            }
        }
        // Said already.
        Err(Failure::NotAuthorized(_)) if standing.is_err() => {}
        Err(failure) => report.warning("system-checks", failure.to_string(), failure.way_out()),
    }
}

/// A check's name as those of this report are.
fn words(name: &str) -> String {
    name.to_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_one_form() {
        assert_eq!(words("bridge public"), "bridge-public");
        assert_eq!(words("Link to the host"), "link-to-the-host");
    }
}
