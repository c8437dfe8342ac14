//! `banger vm …`.

pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod exec;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod pause;
pub(crate) mod port;
pub(crate) mod ports;
pub(crate) mod prune;
pub(crate) mod rename;
pub(crate) mod restart;
pub(crate) mod resume;
pub(crate) mod run;
pub(crate) mod set;
pub(crate) mod show;
mod spec;
pub(crate) mod ssh;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod workspace;

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use banger_bus::VmInfo;

    /// A VM of which nothing is known but its name.
    pub(crate) fn info(name: &str) -> VmInfo {
        VmInfo {
            id: String::new(),
            name: name.to_owned(),
            state: "running".to_owned(),
            stop_reason: String::new(),
            state_detail: String::new(),
            image: String::new(),
            kernel: String::new(),
            engine: String::new(),
            accelerator: String::new(),
            vcpus: 1,
            memory_mib: 256,
            disk_bytes: 0,
            network: "public".to_owned(),
            labels: BTreeMap::new(),
            address: String::new(),
            ssh_port: 0,
            host_key: String::new(),
            pid: 0,
            unit: String::new(),
            directory: String::new(),
            init: String::new(),
            workspace: String::new(),
            workspace_path: String::new(),
            workspace_commit: String::new(),
            workspace_mode: String::new(),
            published_ports: Vec::new(),
            created_us: 0,
            started_us: 0,
            ready_us: 0,
        }
    }
}
