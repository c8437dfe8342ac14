//! `banger-helper network`: makes the network of system mode and keeps it. A program of its own,
//! in the host's namespace, that nobody can talk to: it hears the kernel and PID 1's signals.

mod confine;
mod notify;

use std::os::fd::AsFd;
use std::process::ExitCode;

use banger_model::Event;
use banger_net::{Changed, NetError, Network, Step, Undone, Watch, Woken};
use banger_sys::guest::SignalFd;
use rustix::process::Signal;

use crate::journal::{self, Priority};

/// What [`serve`] ends with when it could not make the network, which [`down`] then takes back.
const NOT_MADE: u8 = 3;
/// How often a change is answered before it is an error.
const ATTEMPTS: usize = 5;

/// Why the network is no longer kept.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("Cannot keep the network")]
    Net(#[from] NetError),
    #[error("Cannot receive signals")]
    Signals(#[source] std::io::Error),
    #[error("The namespace was removed: starting again makes another")]
    Lost,
}

/// Makes the network and keeps it until it is told to end; it stays until [`down`].
pub fn serve() -> ExitCode {
    let (mut network, mut watch, signals) = match make() {
        Ok(made) => made,
        Err(error) => {
            complain(&error);
            return ExitCode::from(NOT_MADE);
        }
    };
    notify::send("READY=1");
    point_at_obstacles();
    match keep(&mut network, &mut watch, signals) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            // What cannot be kept is closed. systemd starts this again.
            if let Err(error) = network.close() {
                complain(&error);
            }
            ExitCode::FAILURE
        }
    }
}

/// Takes the network back. After a crash of [`serve`] it leaves everything: guests may be
/// running, and the next [`serve`] goes on with what is there.
pub fn down() -> ExitCode {
    // systemd.exec(5): for ExecStopPost=. Without them somebody asks by hand.
    let variable = |name| std::env::var(name).ok();
    let ended_well = variable("SERVICE_RESULT").is_none_or(|result| result == "success");
    let was_made = variable("EXIT_STATUS").is_none_or(|status| status != NOT_MADE.to_string());
    if !ended_well && was_made {
        return ExitCode::SUCCESS;
    }
    match banger_net::undo() {
        Ok(Undone::Everything) => ExitCode::SUCCESS,
        Ok(Undone::AllButTheNamespace) => {
            let text = "VMs are running: their namespace stays, cut off, until the network starts again";
            journal::say(Priority::Notice, text, &[]);
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn make() -> Result<(Network, Watch, SignalFd), KeepError> {
    // Before there is a second thread: the mask is inherited.
    let handled = [Signal::TERM, Signal::INT, Signal::HUP].map(Signal::as_raw);
    let signals = SignalFd::new(&handled).map_err(KeepError::Signals)?;
    let mut network = Network::open()?;
    network.on_every_thread(|| confine::confine().map_err(NetError::Confine))?;
    let watch = Watch::new(&network)?;
    tell(Event::NetworkMade, &network.ensure()?);
    Ok((network, watch, signals))
}

fn keep(network: &mut Network, watch: &mut Watch, mut signals: SignalFd) -> Result<(), KeepError> {
    loop {
        match watch.wait(signals.as_fd())? {
            Woken::Changed(changed) => tell(Event::NetworkRepaired, &mend(network, changed)?),
            Woken::Lost => return Err(KeepError::Lost),
            Woken::Other => match signals.take().map_err(KeepError::Signals)? {
                Some(signal) if signal == Signal::HUP.as_raw() => {
                    notify::reloading();
                    tell(Event::NetworkRepaired, &mend(network, Changed::EVERYTHING)?);
                    point_at_obstacles();
                    notify::send("READY=1");
                }
                Some(_) => {
                    notify::send("STOPPING=1");
                    return Ok(());
                }
                None => {}
            },
        }
    }
}

/// What somebody else changes at the same time may fail, and is then looked at again.
fn mend(network: &mut Network, changed: Changed) -> Result<Vec<Step>, NetError> {
    for _ in 1..ATTEMPTS {
        if let Ok(steps) = network.mend(changed) {
            return Ok(steps);
        }
    }
    network.mend(changed)
}

fn tell(event: Event, changed: &[Step]) {
    if !changed.is_empty() {
        let steps: Vec<_> = changed.iter().map(|step| step.name()).collect();
        let text = format!("Made as it should be: {}", steps.join(", "));
        journal::tell(event, Priority::Info, &text, &[]);
        notify::send(&format!("STATUS={text}"));
    }
}

/// Says which other firewall keeps the guests from the Internet.
fn point_at_obstacles() {
    match banger_net::obstacles() {
        Ok(obstacles) => {
            if obstacles.is_empty() {
                notify::send("STATUS=The guests' network is there");
            }
            for obstacle in obstacles {
                let text = format!(
                    "Guests have no Internet: another firewall refuses what it does not know ({obstacle}). \
                     It has to accept what comes from banger0, and the answers: see docs/networking.md"
                );
                journal::say(Priority::Warning, &text, &[]);
                notify::send(&format!("STATUS={text}"));
            }
        }
        Err(error) => complain(&error),
    }
}

fn complain(error: &dyn std::error::Error) {
    journal::say(Priority::Error, &journal::chain(error), &[]);
}
