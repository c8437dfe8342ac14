//! Live names for the shell's completion. They come from a daemon that runs already, within a
//! moment, or not at all.

use std::ffi::OsStr;
use std::time::Duration;

use banger_bus::VmInfo;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter};

use crate::client::{Client, Everything};
use crate::output::plain;

/// Longer than this nobody waits for a key.
const PATIENCE: Duration = Duration::from_millis(500);

pub(crate) fn vms() -> ArgValueCompleter {
    names(|all| {
        let vms = all.vms.into_iter();
        vms.map(|vm| (vm.name, format!("{}, {}", vm.state, vm.image)))
            .collect()
    })
}

/// A VM's files begin with its name and a colon; other words are paths of the host.
pub(crate) fn vm_paths() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let everything = running(async |client: Client| client.everything().await.ok());
        let vms = everything.unwrap_or_default().vms.into_iter();
        let vms = vms.map(|vm| (format!("{}:", vm.name), vm.state)).collect();
        let mut all = candidates(vms, current);
        all.extend(PathCompleter::any().complete(current));
        all
    })
}

/// Ports of the host that lead to some VM.
pub(crate) fn published_ports() -> ArgValueCompleter {
    names(|all| {
        let of = |vm: VmInfo| {
            let ports = vm.published_ports.into_iter();
            ports
                .map(|(host, guest)| (host.to_string(), format!("{}, port {guest}", vm.name)))
                .collect::<Vec<_>>()
        };
        all.vms.into_iter().flat_map(of).collect()
    })
}

pub(crate) fn images() -> ArgValueCompleter {
    names(|all| {
        all.images
            .into_iter()
            .map(|image| (image.name, image.origin))
            .collect()
    })
}

/// What the catalogue offers.
pub(crate) fn available_images() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let ask = async |client: Client| {
            let manager = client.manager().await.ok()?;
            manager.list_available("images".to_owned()).await.ok()
        };
        candidates(running(ask).unwrap_or_default(), current)
    })
}

pub(crate) fn kernels() -> ArgValueCompleter {
    names(|all| {
        all.kernels
            .into_iter()
            .map(|kernel| (kernel.name, kernel.version))
            .collect()
    })
}

fn names(select: fn(Everything) -> Vec<(String, String)>) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| {
        let everything = running(async |client: Client| client.everything().await.ok());
        candidates(select(everything.unwrap_or_default()), current)
    })
}

/// Names with their explanations, which may come from strangers.
fn candidates(names: Vec<(String, String)>, current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    names
        .into_iter()
        .filter(|(name, _)| name.starts_with(&*current))
        .map(|(name, help)| CompletionCandidate::new(name).help(Some(plain(&help).into())))
        .collect()
}

fn running<T>(ask: impl AsyncFnOnce(Client) -> Option<T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    runtime.block_on(async {
        let ask = async { ask(Client::connect_running().await.ok()??).await };
        tokio::time::timeout(PATIENCE, ask).await.ok()?
    })
}
