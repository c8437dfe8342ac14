//! Live names for the shell's completion. They come from a daemon that runs already, within a
//! moment, or not at all.

use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use crate::client::{Client, Everything};

/// Longer than this nobody waits for a key.
const PATIENCE: Duration = Duration::from_millis(500);

pub(crate) fn vms() -> ArgValueCompleter {
    names(|all| {
        let vms = all.vms.into_iter();
        vms.map(|vm| (vm.name, format!("{}, {}", vm.state, vm.image)))
            .collect()
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
        let current = current.to_string_lossy();
        select(everything().unwrap_or_default())
            .into_iter()
            .filter(|(name, _)| name.starts_with(&*current))
            .map(|(name, help)| CompletionCandidate::new(name).help(Some(help.into())))
            .collect()
    })
}

fn everything() -> Option<Everything> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    runtime.block_on(async {
        let ask = async { Client::connect_running().await.ok()??.everything().await.ok() };
        tokio::time::timeout(PATIENCE, ask).await.ok()?
    })
}
