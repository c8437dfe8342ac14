//! Where the serial console goes: the journal, under the VM's own scope, where there is a
//! user manager; else a file that is held below a bound by moving its content aside.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use async_trait::async_trait;
use banger_bus::Error;
use banger_model::limits::MAX_CONSOLE_BYTES;
use banger_model::{VmId, VmState};
use banger_sys::inotify::{FileEvents, FileWatch};
use banger_vmm::ConsoleSink;

use super::{Capability, Parts, Site, VmPaths, console_copy, remove_file};
use crate::core::console::Console;
use crate::core::error;
use crate::core::registry::Core;

/// The two files together stay at [`MAX_CONSOLE_BYTES`] and what comes while one is moved.
const HALF: u64 = MAX_CONSOLE_BYTES / 2;
/// How much of the VMM's own words is looked at when it has ended, in bytes.
const TAIL: u64 = 2048;

pub(super) struct ConsoleOutput;

#[async_trait]
impl Capability for ConsoleOutput {
    async fn prepare(&self, site: &Site<'_>, parts: &Parts) -> Result<(), Error> {
        let paths = site.core.paths(site.vm.id);
        let console = match site.core.journal_stream(site.vm) {
            Some(stream) => {
                // Their presence says where the last run's console is.
                remove_file(&paths.console())?;
                remove_file(&paths.old_console())?;
                ConsoleSink::Stream(stream)
            }
            None => ConsoleSink::File(begin_file(&paths)?),
        };
        let log = paths.vmm_log();
        let stderr: OwnedFd = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&log)
            .and_then(|file| file.set_len(0).map(|()| file))
            .map_err(|e| error::io("open", &log, &e))?
            .into();
        parts.fill(|parts| {
            parts.console = Some(console);
            parts.stderr = Some(stderr);
        });
        Ok(())
    }

    /// Without its slot the owner may not read the system's journal.
    async fn cleanup(&self, core: &Core, id: VmId) -> Result<(), Error> {
        let Some(vm) = core.get(id) else {
            return Ok(());
        };
        match vm.console() {
            Console::Slot(handle) if vm.state() != VmState::Deleting => {
                let paths = core.paths(id);
                console_copy::keep(core.helper(), handle, &paths.console()).await
            }
            _ => Ok(()),
        }
    }
}

/// A new file for this boot; the boot before is kept beside it.
fn begin_file(paths: &VmPaths) -> Result<OwnedFd, Error> {
    let console = paths.console();
    match std::fs::rename(&console, paths.old_console()) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(error::io("rename", &console, &e)),
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&console)
        .map(OwnedFd::from)
        .map_err(|e| error::io("open", &console, &e))
}

/// Keeps what a VM writes into files below its bound, for ever: the console where it does not
/// go to the journal, and the VMM's own words, of which a guest can provoke many.
pub(crate) async fn watch(core: &Core, id: VmId) {
    let paths = core.paths(id);
    let (console, log) = (paths.console(), paths.vmm_log());
    let (old_console, old_log) = (paths.old_console(), paths.old_vmm_log());
    tokio::join!(bound(&console, &old_console), bound(&log, &old_log));
    std::future::pending::<()>().await;
}

async fn bound(file: &Path, old: &Path) {
    if let Err(e) = watch_file(file, old).await {
        tracing::warn!(file = %file.display(), error = %e, "A file is no longer held below its bound");
    }
}

async fn watch_file(console: &Path, old: &Path) -> io::Result<()> {
    let mut watch = match FileWatch::new(console) {
        Ok(watch) => ClosedAside(Some(watch)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    loop {
        // First look: the file may have grown before it was watched.
        let size = match std::fs::metadata(console) {
            Ok(file) => file.size(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        if size >= HALF {
            let (console, old) = (console.to_owned(), old.to_owned());
            let moved = tokio::task::spawn_blocking(move || move_aside(&console, &old)).await;
            match moved.map_err(io::Error::other)? {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                moved => moved?,
            }
        }
        if watch.next().await?.gone {
            return Ok(());
        }
    }
}

/// A watch whose close holds up nobody: the kernel waits for other CPUs to be done with it,
/// some milliseconds.
struct ClosedAside(Option<FileWatch>);

impl ClosedAside {
    async fn next(&mut self) -> io::Result<FileEvents> {
        match &mut self.0 {
            Some(watch) => watch.next().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for ClosedAside {
    fn drop(&mut self) {
        let watch = self.0.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(watch));
        }
    }
}

/// Copies the newest [`HALF`] bytes aside and empties the file: its writer has it open for
/// appending and goes on at its start. What it writes in between is lost, as with logrotate's
/// copytruncate; a guest that floods its console loses lines anyway.
fn move_aside(console: &Path, old: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(console)?;
    let size = file.metadata()?.size();
    let start = size.saturating_sub(HALF);
    file.seek(SeekFrom::Start(start))?;
    let mut aside = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(old)?;
    io::copy(&mut (&file).take(HALF), &mut aside)?;
    file.set_len(0)
}

/// The end of a file as text; empty when it cannot be read.
pub(crate) fn tail(path: &Path) -> String {
    last_bytes(path, TAIL)
}

fn last_bytes(path: &Path, limit: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let size = file.metadata()?.size();
        let length = size.min(limit);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        file.read_exact_at(&mut bytes, size - length)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn a_flood_stays_below_the_bound() {
        let home = tempfile::tempdir().unwrap();
        let (console, old) = (home.path().join("console.log"), home.path().join("console.log.1"));
        let mut writer = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&console)
            .unwrap();
        let watching = tokio::spawn({
            let (console, old) = (console.clone(), old.clone());
            async move { watch_file(&console, &old).await }
        });
        let mut changes = FileWatch::new(&console).unwrap();
        let half = [b'x'; HALF as usize];
        for round in 0..4 {
            writer.write_all(&half).unwrap();
            while writer.metadata().unwrap().len() >= HALF {
                changes.next().await.unwrap();
            }
            assert_eq!(old.metadata().unwrap().len(), HALF, "round {round}");
        }
        writer.write_all(b"the end\n").unwrap();
        assert_eq!(last_bytes(&console, 100), "the end");
        std::fs::remove_file(&console).unwrap();
        watching.await.unwrap().unwrap();
    }

    #[test]
    fn the_newest_bytes_are_kept() {
        let home = tempfile::tempdir().unwrap();
        let (console, old) = (home.path().join("a"), home.path().join("b"));
        let text: Vec<u8> = (0..=255)
            .cycle()
            .take(usize::try_from(HALF).unwrap() + 100)
            .collect();
        std::fs::write(&console, &text).unwrap();
        move_aside(&console, &old).unwrap();
        assert_eq!(std::fs::read(&old).unwrap(), text[100..]);
        assert_eq!(std::fs::read(&console).unwrap(), b"");
        assert_eq!(last_bytes(&old, 0), "");
        std::fs::write(&console, "one\ntwo\n").unwrap();
        assert_eq!(last_bytes(&console, 4), "two");
        assert_eq!(last_bytes(&home.path().join("none"), 4), "");
    }
}
