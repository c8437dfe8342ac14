//! `banger vm …`.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod exec;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod pause;
pub(crate) mod prune;
pub(crate) mod restart;
pub(crate) mod resume;
pub(crate) mod run;
pub(crate) mod show;
mod spec;
pub(crate) mod ssh;
pub(crate) mod start;
pub(crate) mod stop;

use clap::Args;

use crate::completion;

/// The VMs that a command is about.
#[derive(Debug, Args)]
pub(crate) struct Names {
    /// Names, ids, or unambiguous prefixes of VMs
    #[arg(value_name = "NAME", required = true, add = completion::vms())]
    names: Vec<String>,
}

/// The one VM that a command is about.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// A VM's name, id, or unambiguous prefix
    #[arg(value_name = "NAME", add = completion::vms())]
    name: String,
}
