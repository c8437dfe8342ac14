//! `banger vm list`.

use banger_bus::VmInfo;
use banger_model::{StopReason, VmState};
use clap::Args;

use crate::client::Client;
use crate::error::Result;
use crate::output::{self, Style, Table, Tone};
use crate::parse::{self, Filter};

/// List VMs: those that run, or all
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Also those that do not run
    #[arg(long, short)]
    all: bool,
    /// Only the names
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// Only those with a label; may be repeated, all must fit
    #[arg(long, short, value_name = "label=KEY[=VALUE]", value_parser = parse::filter)]
    filter: Vec<Filter>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

impl List {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let mut vms = client.everything().await?.vms;
        vms.retain(|vm| self.wants(vm));
        if self.json {
            return output::json(&vms);
        }
        if self.quiet {
            return vms.iter().try_for_each(|vm| output::line(&vm.name));
        }
        output::data(table(&vms).render(Style::stdout()).as_bytes())
    }

    fn wants(&self, vm: &VmInfo) -> bool {
        (self.all || is_shown(&vm.state)) && self.filter.iter().all(|filter| filter.matches(&vm.labels))
    }
}

/// What goes on is shown; what only lies there is asked for. A state that a newer daemon knows
/// is shown too.
fn is_shown(state: &str) -> bool {
    state.parse() != Ok(VmState::Stopped)
}

fn table(vms: &[VmInfo]) -> Table {
    let mut table = Table::new(&["NAME", "STATE", "IMAGE", "ADDRESS", "WORKSPACE", "AGE"]);
    for vm in vms {
        table
            .row([
                vm.name.as_str(),
                &state(vm),
                &vm.image,
                &vm.address,
                &below_home(&vm.workspace),
                &output::age(vm.created_us),
            ])
            .tone(1, tone(vm));
    }
    table
}

/// A path of the host as people write it.
fn below_home(path: &str) -> String {
    let home = std::env::var("HOME").unwrap_or_default();
    match path.strip_prefix(&home) {
        Some(below) if !home.is_empty() && below.starts_with('/') => format!("~{below}"),
        _ => path.to_owned(),
    }
}

/// The state, and why it is so where nobody wanted it.
pub(super) fn state(vm: &VmInfo) -> String {
    let expected = [StopReason::Never, StopReason::Requested];
    let reason = vm.stop_reason.as_str();
    if reason.is_empty() || expected.iter().any(|word| word.as_str() == reason) {
        vm.state.clone()
    } else {
        format!("{} ({reason})", vm.state)
    }
}

pub(super) fn tone(vm: &VmInfo) -> Option<Tone> {
    match vm.state.parse() {
        Ok(VmState::Running) => Some(Tone::Good),
        Ok(VmState::Stopped) if state(vm) == vm.state => Some(Tone::Faint),
        Ok(VmState::Stopped) => Some(Tone::Bad),
        _ => Some(Tone::Warn),
    }
}
