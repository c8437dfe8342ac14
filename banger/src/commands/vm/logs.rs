//! `banger vm logs`.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::OwnedFd;

use banger_bus::LogOptions;
use clap::Args;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::Name;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::output::{self, Sanitizer};

/// Show a VM's serial console
#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    name: Name,
    /// Go on with what comes
    #[arg(long, short)]
    follow: bool,
    /// Only the last lines
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<u32>,
    /// Only since the last start
    #[arg(long)]
    boot: bool,
}

impl Logs {
    pub(crate) async fn run(self) -> Result<()> {
        let client = Client::connect().await?;
        let vm = client.vm(&self.name.name).await?;
        let options = LogOptions {
            follow: Some(self.follow),
            lines: self.lines,
            boot: Some(self.boot),
        };
        let log = OwnedFd::from(vm.proxy.open_log(options).await?);
        // A thread copies, so that the connection is still served: the daemon stops following
        // when we seem to be gone.
        let copy = tokio::task::spawn_blocking(move || copy(log));
        copy.await
            .map_err(|e| Error::io("Cannot read the log", io::Error::other(e)))?
    }
}

/// A terminal gets text and colours only: the guest must not command it. Files and pipes get
/// every byte.
fn copy(log: OwnedFd) -> Result<()> {
    let refused = |e: io::Error| Error::io("Cannot read the log", e);
    let flags = fcntl_getfl(&log).map_err(|e| refused(e.into()))?;
    fcntl_setfl(&log, flags - OFlags::NONBLOCK).map_err(|e| refused(e.into()))?;
    let mut log = File::from(log);
    let mut sanitizer = io::stdout().is_terminal().then(|| Sanitizer::new(true));
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = match log.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(refused(e)),
        };
        match &mut sanitizer {
            Some(sanitizer) => output::data(&sanitizer.feed(&buffer[..n]))?,
            None => output::data(&buffer[..n])?,
        }
    }
}
