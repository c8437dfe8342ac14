//! `banger system status`.

use std::path::Path;
use std::time::Duration;

use banger_bus::HelperProxy;
use banger_bus::helper::HelperError;
use banger_model::slot::NETWORK_UNIT;
use clap::Args;
use serde::Serialize;
use zbus::Connection;

use super::manifest::Manifest;
use super::units::{self, Unit};
use super::{host, restart};
use crate::error::{Error, Result};
use crate::exit;
use crate::output::{self, Style, Table, Tone};

/// Say whether system mode is on and what of it works
///
/// The exit status is 0 when everything works, 1 when something does not, and 3 when system mode
/// is not installed.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// How long the helper may take to start and answer.
const LIMIT: Duration = Duration::from_secs(15);

#[derive(Debug, Default, Serialize)]
struct Document {
    installed: bool,
    /// `install` when `banger system install` wrote the files, `package` when they were there.
    files_of: &'static str,
    /// Empty when it is not known.
    prefix: String,
    /// Whether the last installation came to its end.
    complete: bool,
    /// The version of this program.
    version: &'static str,
    /// The version that was installed.
    installed_version: String,
    /// Empty when it does not answer; why is in `problem`.
    helper_version: String,
    problem: String,
    units: Vec<Unit>,
    vms: usize,
    checks: Vec<Check>,
}

/// One line of the helper's own report.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    ok: bool,
    message: String,
}

impl Status {
    pub(crate) async fn run(self) -> Result<()> {
        let document = document().await?;
        if self.json {
            output::json(&document)?;
        } else if document.installed {
            output::data(table(&document).render(Style::stdout()).as_bytes())?;
        } else {
            output::line("System mode is not installed: turn it on as root with `banger system install`")?;
        }
        match document.exit_status() {
            0 => Ok(()),
            status => Err(Error::Reported(status)),
        }
    }
}

/// The same at the end of an installation.
pub(super) async fn after_install() -> Result<()> {
    Status { json: false }.run().await
}

impl Document {
    fn exit_status(&self) -> u8 {
        let well = self.complete && self.problem.is_empty() && self.checks.iter().all(|check| check.ok);
        match (self.installed, well) {
            (false, _) => exit::NOT_RUNNING,
            (true, true) => 0,
            (true, false) => exit::FAILED,
        }
    }
}

async fn document() -> Result<Document> {
    let manifest = Manifest::load(Path::new("/"))?;
    let mut document = Document {
        installed: restart::is_installed().await?,
        version: env!("CARGO_PKG_VERSION"),
        ..Document::default()
    };
    if !document.installed {
        return Ok(document);
    }
    document.files_of = "package";
    // A package's own scripts turn it on as well.
    document.complete = true;
    if let Some(manifest) = manifest {
        document.files_of = if manifest.packaged { "package" } else { "install" };
        document.prefix = manifest.prefix.display().to_string();
        document.complete = manifest.complete;
        document.installed_version = manifest.version;
    }
    if !host::has_systemd() {
        "systemd does not run here".clone_into(&mut document.problem);
        return Ok(document);
    }
    document.units = units::units().await?;
    document.vms = units::active(units::VM_SCOPES).await?.len();
    let network = document.units.iter().find(|unit| unit.name == NETWORK_UNIT);
    if network.is_none_or(|unit| unit.active != "active") {
        // To ask the helper would start both.
        document.problem =
            format!("Not asked: {NETWORK_UNIT} is not active; `banger system install` enables it");
        return Ok(document);
    }
    match tokio::time::timeout(LIMIT, ask_helper()).await {
        Ok(Ok((version, checks))) => {
            document.helper_version = version;
            document.checks = checks;
        }
        Ok(Err(error)) => document.problem = error.to_string(),
        Err(_) => "The helper does not answer".clone_into(&mut document.problem),
    }
    Ok(document)
}

/// The helper's version and its own report. The bus starts it.
async fn ask_helper() -> Result<(String, Vec<Check>)> {
    let bus = Connection::system().await?;
    let helper = HelperProxy::new(&bus).await?;
    let version = helper.version().await?;
    let checks = match helper.status().await {
        Ok(checks) => checks,
        // It works, and has nothing to say to this user.
        Err(HelperError::AccessDenied(_) | HelperError::AuthorizationRequired(_)) => Vec::new(),
        Err(error) => return Err(Error::Bus(error.into())),
    };
    let checks = checks
        .into_iter()
        .map(|(name, ok, message)| Check { name, ok, message });
    Ok((version, checks.collect()))
}

fn table(document: &Document) -> Table {
    let mut table = Table::default();
    let tone = |ok: bool| Some(if ok { Tone::Good } else { Tone::Bad });
    let state = if document.complete {
        "installed"
    } else {
        "not completely installed (run `banger system install` again)"
    };
    table.row(["system mode", state]).tone(1, tone(document.complete));
    let of = match document.files_of {
        "install" => format!("below {}", document.prefix),
        _ => "a package's".to_owned(),
    };
    table.row(["files", &of]);
    let versions = [
        ("installed version", &document.installed_version),
        ("helper version", &document.helper_version),
    ];
    for (name, version) in versions.into_iter().filter(|(_, version)| !version.is_empty()) {
        table.row([name, version.as_str()]);
    }
    for unit in &document.units {
        // The helper runs only while somebody needs it.
        let ok = unit.active == "active" || (unit.name == units::HELPER_UNIT && unit.active == "inactive");
        let text = format!("{} ({})", unit.active, unit.sub);
        table.row([unit.name.as_str(), &text]).tone(1, tone(ok));
    }
    table.row(["running VMs", &document.vms.to_string()]);
    if !document.problem.is_empty() {
        table.row(["helper", &document.problem]).tone(1, Some(Tone::Bad));
    }
    for check in &document.checks {
        table.row([&check.name, &check.message]).tone(1, tone(check.ok));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_tells_on_off_and_broken_apart() {
        let check = |ok| Check {
            name: "network".to_owned(),
            ok,
            message: "It is so".to_owned(),
        };
        let document = |installed, complete, checks, problem: &str| Document {
            installed,
            complete,
            checks,
            problem: problem.to_owned(),
            ..Document::default()
        };
        assert_eq!(document(false, false, vec![], "").exit_status(), 3);
        assert_eq!(document(true, true, vec![check(true)], "").exit_status(), 0);
        assert_eq!(
            document(true, true, vec![check(true), check(false)], "").exit_status(),
            1
        );
        assert_eq!(document(true, true, vec![], "No answer").exit_status(), 1);
        assert_eq!(document(true, false, vec![], "").exit_status(), 1);
        let shown = table(&document(true, true, vec![check(false)], "")).render(Style::none());
        assert!(shown.contains("network       It is so"), "{shown}");
    }
}
