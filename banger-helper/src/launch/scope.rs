//! The transient scope of a VMM, by PID 1.

use std::os::fd::AsFd;
use std::time::Duration;

use banger_bus::ErrorKind;
use banger_bus::helper::HelperError;
use banger_model::{Slot, VmName};
use banger_sys::pidfd::Pidfd;
use banger_vmm::{TASKS_MAX, memory_max};
use futures_util::StreamExt;
use zbus::Variant;
use zbus::names::OwnedUniqueName;
use zbus::wire::Fd;

use crate::journal::chain;
use crate::systemd::{Systemd, SystemdError};

/// How long a scope's start may take: systemd moves one process.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The time that a guest gets when somebody stops its scope: a little more than the owner's
/// daemon gives it.
const STOP_USEC: u64 = 40_000_000;
/// systemd's own default: VMs of one user share as equals, users share by their slices.
const CPU_WEIGHT: u64 = 100;

/// What a scope is to hold.
pub(crate) struct ScopeSpec<'a> {
    pub(crate) slot: Slot,
    /// The owner's uid.
    pub(crate) owner: u32,
    /// Asked first when somebody stops the scope by systemd.
    pub(crate) controller: &'a OwnedUniqueName,
    pub(crate) name: &'a VmName,
    pub(crate) memory_mib: u64,
    pub(crate) emulated: bool,
    /// Whether it opens its tap by name; otherwise it gets it open.
    pub(crate) opens_tap: bool,
    pub(crate) process: &'a Pidfd,
}

/// Why there is no scope.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScopeError {
    #[error("{0} is there already: the slot's VMM runs, or somebody else has made it")]
    Exists(String),
    #[error("systemd does not start {unit}")]
    Refused {
        unit: String,
        #[source]
        source: zbus::Error,
    },
    #[error("systemd's job for {unit} ended as {result}")]
    Job { unit: String, result: String },
    #[error("systemd did not start {unit} within {} seconds", START_LIMIT.as_secs())]
    Silent { unit: String },
    #[error(transparent)]
    Systemd(#[from] SystemdError),
}

/// Puts the process into its new scope.
pub(crate) async fn start(systemd: &Systemd, scope: &ScopeSpec<'_>) -> Result<(), ScopeError> {
    systemd.subscribe().await?;
    let unit = scope.slot.unit();
    match tokio::time::timeout(START_LIMIT, start_unit(systemd, scope, &unit)).await {
        Ok(Ok(result)) if result == "done" => Ok(()),
        Ok(Ok(result)) => Err(ScopeError::Job { unit, result }),
        Ok(Err(source)) if is_error(&source, "UnitExists") => Err(ScopeError::Exists(unit)),
        Ok(Err(source)) => Err(ScopeError::Refused { unit, source }),
        Err(_) => Err(ScopeError::Silent { unit }),
    }
}

/// Returns the result of the start job.
async fn start_unit(systemd: &Systemd, scope: &ScopeSpec<'_>, unit: &str) -> zbus::Result<String> {
    let manager = systemd.manager();
    // Listen first: the job may be over before the answer is read.
    let mut removed = manager.receive_job_removed_with_args(&[(2, unit)]).await?;
    let start = async |by_pidfd| {
        let properties = properties(scope, by_pidfd);
        manager.start_transient_unit(unit, "fail", &properties, &[]).await
    };
    let job = match start(true).await {
        // Before 255 systemd does not know PIDFDs.
        Err(e) if is_answer(&e) && !is_error(&e, "UnitExists") => start(false).await?,
        other => other?,
    };
    while let Some(signal) = removed.next().await {
        let signal = signal.args()?;
        if *signal.job() == *job {
            return Ok(signal.result().to_string());
        }
    }
    Err(zbus::Error::Failure("the bus is gone".to_owned()))
}

/// Not among them: `OOMPolicy=`, which scopes have from 253 on, and which says nothing about a
/// scope with one process; `IPAddressDeny=`, as the VMM can make no socket of the Internet's
/// families.
fn properties<'a>(scope: &'a ScopeSpec<'_>, by_pidfd: bool) -> Vec<(&'static str, Variant<'a>)> {
    let process = if by_pidfd {
        ("PIDFDs", Variant::from(vec![Fd::from(scope.process.as_fd())]))
    } else {
        ("PIDs", Variant::from(vec![scope.process.pid()]))
    };
    let devices: Vec<(&str, &str)> = [("/dev/kvm", !scope.emulated), ("/dev/net/tun", scope.opens_tap)]
        .into_iter()
        .filter_map(|(device, needed)| needed.then_some((device, "rw")))
        .collect();
    vec![
        process,
        ("Description", Variant::from(format!("banger VM {}", scope.name))),
        ("Slice", Variant::from(format!("banger-{}.slice", scope.owner))),
        ("CollectMode", Variant::from("inactive-or-failed")),
        (
            "MemoryMax",
            Variant::from(memory_max(scope.memory_mib, scope.emulated)),
        ),
        ("TasksMax", Variant::from(TASKS_MAX)),
        ("CPUWeight", Variant::from(CPU_WEIGHT)),
        ("TimeoutStopUSec", Variant::from(STOP_USEC)),
        ("Controller", Variant::from(scope.controller.as_str())),
        ("DevicePolicy", Variant::from("closed")),
        ("DeviceAllow", Variant::from(devices)),
    ]
}

impl From<ScopeError> for HelperError {
    fn from(error: ScopeError) -> Self {
        let kind = match error {
            ScopeError::Exists(_) => ErrorKind::WrongState,
            _ => ErrorKind::EngineFailed,
        };
        Self::new(kind, chain(&error))
    }
}

/// Whether an error is systemd's own, and not one of the way to it.
fn is_answer(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(..) | zbus::Error::FDO(_))
}

fn is_error(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(full, ..)
        if full.strip_prefix("org.freedesktop.systemd1.") == Some(name))
}
