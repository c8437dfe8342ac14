//! `banger doctor`.

use std::process::Stdio;

use clap::Args;
use serde::Deserialize;
use tokio::process::Command;

use crate::client::daemon_program;
use crate::error::{Error, Result};
use crate::exit;
use crate::output::{self, Style, Table, Tone};

/// Say what works on this machine, what does not, and what to do about it
///
/// It changes nothing and needs no running daemon. It sends a few packets: to the Debian mirror, to
/// the network of system mode, and from a VM where one runs.
///
/// With --fix it puts right what is safe and your own: the modes of banger's directories and files,
/// what a daemon that was killed left, a user service that failed, the known_hosts of banger. For
/// everything else it says the command.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Fail on warnings too
    #[arg(long)]
    strict: bool,
    /// Put right what is safe and your own
    #[arg(long)]
    fix: bool,
}

/// What `bangerd doctor --json` writes.
#[derive(Debug, Deserialize)]
struct Document {
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
struct Check {
    name: String,
    /// `ok`, `info`, `warning` or `failure`.
    status: String,
    message: String,
    /// How it is known, or more of it.
    #[serde(default)]
    detail: String,
    /// What to do, where there is something.
    #[serde(default)]
    hint: String,
    /// Whether `--fix` would do it.
    #[serde(default)]
    fixable: bool,
    /// What `--fix` did.
    #[serde(default)]
    fixed: String,
}

impl Doctor {
    pub(crate) async fn run(self) -> Result<()> {
        let program = daemon_program()?;
        let output = Command::new(&program)
            .args(["doctor", "--json"])
            .args(self.fix.then_some("--fix"))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .await
            .map_err(|e| Error::io(format!("Cannot start {program:?}"), e))?;
        let unusable = || Error::ChildFailed {
            program: format!("`{} doctor`", program.display()),
            status: output.status.to_string(),
        };
        let checks = serde_json::from_slice::<Document>(&output.stdout)
            .map_err(|_| unusable())?
            .checks;
        if self.json {
            output::data(&output.stdout)?;
        } else {
            output::data(table(&checks).render(Style::stdout()).as_bytes())?;
            output::line(&summary(&checks))?;
        }
        if self.is_failed(&checks) {
            Err(Error::Reported(exit::FAILED))
        } else {
            Ok(())
        }
    }

    fn is_failed(&self, checks: &[Check]) -> bool {
        checks
            .iter()
            .any(|check| check.status == "failure" || (self.strict && check.status == "warning"))
    }
}

fn table(checks: &[Check]) -> Table {
    let mut table = Table::default();
    for check in checks {
        let tone = match check.status.as_str() {
            "ok" => Tone::Good,
            "warning" => Tone::Warn,
            "failure" => Tone::Bad,
            _ => Tone::Faint,
        };
        table
            .row([&check.status, &check.name, &check.message])
            .tone(0, Some(tone));
        if !check.detail.is_empty() {
            table.row(["", "", &format!("  {}", check.detail)]);
        }
        if !check.hint.is_empty() {
            table.row(["", "", &format!("→ {}", check.hint)]);
        }
        if check.fixable {
            table.row(["", "", "→ `banger doctor --fix` does it"]);
        }
        if !check.fixed.is_empty() {
            table.row(["", "", &format!("✓ {}", check.fixed)]);
        }
    }
    table
}

fn summary(checks: &[Check]) -> String {
    let count = |status: &str| checks.iter().filter(|check| check.status == status).count();
    let fixed = checks.iter().filter(|check| !check.fixed.is_empty()).count();
    let mut text = match (count("failure"), count("warning")) {
        (0, 0) => "Everything is well".to_owned(),
        (failures, warnings) => format!("{failures} failure(s), {warnings} warning(s)"),
    };
    if fixed > 0 {
        text.push_str(&format!(", {fixed} put right"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strict_minds_warnings() {
        let text = r#"{"version":1,"checks":[
            {"name":"kvm","status":"warning","message":"No KVM","hint":"Use a host with it","more":1},
            {"name":"tools","status":"ok","message":"All there"}]}"#;
        let checks = serde_json::from_str::<Document>(text).unwrap().checks;
        let doctor = |strict| Doctor {
            json: false,
            strict,
            fix: false,
        };
        assert!(!doctor(false).is_failed(&checks) && doctor(true).is_failed(&checks));
        assert_eq!(
            table(&checks).render(Style::none()),
            "warning   kvm     No KVM\n                  → Use a host with it\nok        tools   All there\n"
        );
        assert_eq!(summary(&checks), "0 failure(s), 1 warning(s)");
        let text = r#"{"checks":[{"name":"a","status":"ok","message":"A","fixed":"Done"},
            {"name":"b","status":"failure","message":"B","fixable":true}]}"#;
        let checks = serde_json::from_str::<Document>(text).unwrap().checks;
        assert_eq!(
            table(&checks).render(Style::none()),
            "ok        a   A\n              ✓ Done\nfailure   b   B\n              → `banger doctor --fix` does it\n"
        );
        assert_eq!(summary(&checks), "1 failure(s), 0 warning(s), 1 put right");
    }
}
