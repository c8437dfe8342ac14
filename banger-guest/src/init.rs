//! PID 1 from the first instruction of user space to the start of the image's own init.

mod disk;
mod failure;
mod handover;
mod modules;
mod mounts;
mod netlink;
mod network;
mod supervise;
mod uevent;

use std::path::Path;
use std::process::{Command, ExitCode};

pub(crate) use supervise::supervise;
pub(crate) use uevent::Events;

use crate::{console, identity, paths};
use failure::{Failure, InStage};

/// Boots the guest. Comes back never: into the image's init, or into [`supervise`], or by
/// switching the machine off.
pub(crate) fn boot() -> ExitCode {
    let Err(failure) = try_boot();
    failure::power_off(&failure)
}

fn try_boot() -> Result<std::convert::Infallible, Failure> {
    mounts::mount_early().stage("early mounts")?;
    let document = Path::new("/").join(banger_model::guest::IDENTITY_PATH);
    let identity = identity::read(&document).stage("identity")?;
    // Opened before anything can appear, so that nothing is missed.
    let mut events = Events::open().stage("kernel events")?;
    let modules = Path::new("/").join(banger_model::guest::MODULES_DIR);
    modules::load(&modules).stage("kernel modules")?;
    let later = modules::open_later(&modules);

    let disk = disk::find(&identity.root_serial, &mut events).stage("root disk")?;
    disk.mount(Path::new(mounts::NEW_ROOT))
        .stage("root file system")?;
    if let Some(wanted) = &identity.network
        && let Err(error) = network::configure(wanted, &mut events)
    {
        console::warn("The network is not configured", &error);
    }

    mounts::keep_program().stage("agent's directory")?;
    mounts::switch_root().stage("new root")?;
    identity::apply(&identity);

    let image_init = handover::find(Path::new("/"));
    let name = image_init
        .as_ref()
        .map_or("banger-guest", |init| init.path.as_str());
    std::fs::write(paths::INIT, name).stage("agent's directory")?;
    let agent = start_agent();
    // The agent is on its way; what nobody waits for comes now.
    later.load();
    // A quiet boot says nothing else, and a log without one line looks like a fault.
    let kernel = rustix::system::uname();
    let release = kernel.release().to_string_lossy();
    console::say(format_args!(
        "{} starts {name} on Linux {release}",
        identity.hostname
    ));
    match image_init {
        Some(init) => {
            if let Err(error) = agent {
                console::warn("The agent does not start", &error);
            }
            handover::execute(&init).stage("image's init")
        }
        // The supervisor starts the agent again where it could not be started here.
        None => supervise::execute(agent.map(|child| child.id()).ok()).stage("supervisor"),
    }
}

/// Starts the agent in a session of its own, so that it is ready before the image's init is.
fn start_agent() -> std::io::Result<std::process::Child> {
    let mut command = Command::new(paths::PROGRAM);
    command.arg("agent").env_clear();
    banger_sys::guest::set_up_child(&mut command, banger_sys::guest::ChildSetup::default());
    command.spawn()
}
