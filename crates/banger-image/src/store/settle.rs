//! Objects that have their name before they are on the disk.
//!
//! To wait for the disk costs a pull as much as its download saved. So an object may get its
//! name at once, with a mark that says in which boot of the machine it was made; the mark goes
//! when the disk has everything. After a power loss the mark is of another boot, and the object
//! is none. The mark is older than anything else of the object, and every file system that
//! keeps a journal or transactions brings names back in the order in which they were made.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};

use rustix::fs::{AtFlags, syncfs, unlinkat};

use super::LOCK;

/// In a mark: everything was on the disk before the object had its name.
const SYNCED: &str = "synced";

/// What the mark of an object says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Synced,
    /// It is whole as long as the machine is up.
    ThisBoot,
    /// The machine went down before everything was on the disk.
    Lost,
}

/// Reads an object's mark.
pub(super) fn state(dir: &Path) -> io::Result<State> {
    match fs::read_to_string(dir.join(LOCK)) {
        Ok(mark) if mark == SYNCED => Ok(State::Synced),
        // What is empty or cut was not even written itself.
        Ok(mark) if Some(mark.as_str()) == boot() => Ok(State::ThisBoot),
        Ok(_) => Ok(State::Lost),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::Synced),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(State::Lost),
        Err(error) => Err(error),
    }
}

/// Marks an object that will be synced before it gets its name.
pub(super) fn mark_synced(lock: &File) -> io::Result<()> {
    mark(lock, SYNCED)
}

/// Marks an object as of this boot. Not where the boots of the machine cannot be told apart.
pub(super) fn mark_boot(lock: &File) -> io::Result<bool> {
    match boot() {
        Some(boot) => mark(lock, boot).map(|()| true),
        None => Ok(false),
    }
}

fn mark(lock: &File, text: &str) -> io::Result<()> {
    lock.set_len(0)?;
    lock.write_all_at(text.as_bytes(), 0)
}

/// Syncs the file system of an object in a thread of its own, and takes its mark away. `dir` is
/// the object wherever it is then; `lock` keeps others from doing the same.
pub(super) fn later(dir: File, lock: File) -> Option<JoinHandle<()>> {
    let settle = move || {
        if let Err(error) = now(&dir) {
            // The next sweep tries again.
            tracing::warn!(%error, "Cannot write an object out");
        }
        drop(lock);
    };
    // Without a thread it is for the next sweep.
    thread::Builder::new()
        .name("settle".to_owned())
        .spawn(settle)
        .ok()
}

/// The same, waited for.
pub(super) fn now(dir: &File) -> io::Result<()> {
    syncfs(dir)?;
    match unlinkat(dir, LOCK, AtFlags::empty()) {
        Err(error) if error != rustix::io::Errno::NOENT => Err(error.into()),
        _ => Ok(()),
    }
}

/// Which boot of the machine this is (random(4), `boot_id`).
fn boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned()).filter(|id| id.len() == 36)
    };
    BOOT.get_or_init(read).as_deref()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Build, read_metadata, sweep, write_metadata};
    use super::*;
    use crate::Error;

    fn soon(store: &Path, name: &str) -> Option<JoinHandle<()>> {
        let build = Build::begin(store).unwrap();
        write_metadata(build.dir(), "x.json", &7).unwrap();
        build.publish_soon(&store.join(name), "Thing", true).unwrap()
    }

    #[test]
    fn what_is_published_soon_is_there_at_once_and_loses_its_mark() {
        let store = tempfile::tempdir().unwrap();
        let dir = store.path().join("a");
        let thread = soon(store.path(), "a");
        assert_eq!(read_metadata::<u32>(&dir, "x.json").unwrap(), Some(7));
        // A sweep does not touch what another thread sees to, nor does it wait for it.
        assert_eq!(sweep(store.path()).unwrap(), 0);
        thread.expect("a thread").join().unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        // What replaces it is waited for.
        assert!(soon(store.path(), "a").is_none());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        assert_eq!(fs::read_dir(store.path()).unwrap().count(), 1);
    }

    /// An object as it looks when this program ended before the disk had it.
    fn interrupted(store: &Path, mark: &[u8]) -> PathBuf {
        let build = Build::begin(store).unwrap();
        write_metadata(build.dir(), "x.json", &7).unwrap();
        let dir = store.join("a");
        build.publish(&dir, "Thing", true).unwrap();
        fs::write(dir.join(LOCK), mark).unwrap();
        dir
    }

    #[test]
    fn a_power_loss_leaves_nothing_half_made() {
        let store = tempfile::tempdir().unwrap();
        for lost in [
            &b""[..],
            b"synce",
            b"12345678-1234-1234-1234-123456789abc",
            b"\0\0\0\0",
            b"\xff",
        ] {
            let dir = interrupted(store.path(), lost);
            assert!(matches!(
                read_metadata::<u32>(&dir, "x.json"),
                Err(Error::Damaged { reason, .. }) if reason.contains("went down")
            ));
            assert_eq!(sweep(store.path()).unwrap(), 1);
            assert_eq!(fs::read_dir(store.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn what_a_dead_program_published_soon_is_finished() {
        let store = tempfile::tempdir().unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        for mark in [boot.trim(), "synced"] {
            let dir = interrupted(store.path(), mark.as_bytes());
            assert_eq!(read_metadata::<u32>(&dir, "x.json").unwrap(), Some(7));
            assert_eq!(sweep(store.path()).unwrap(), 0);
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        }
    }

    /// The mark of what has the name now is not taken away for what had it before.
    #[test]
    fn a_mark_belongs_to_its_directory() {
        let store = tempfile::tempdir().unwrap();
        let build = Build::begin(store.path()).unwrap();
        let old = File::open(build.dir()).unwrap();
        let dir = store.path().join("a");
        fs::rename(build.dir(), store.path().join("old")).unwrap();
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(LOCK), "x").unwrap();
        now(&old).unwrap();
        assert!(dir.join(LOCK).exists());
        assert!(!store.path().join("old").join(LOCK).exists());
    }

    /// What to wait for the disk costs: `BANGER_SYNC=DIRECTORY cargo test … -- --nocapture`.
    #[test]
    fn measured_by_hand() {
        let Ok(place) = std::env::var("BANGER_SYNC") else {
            println!("skipped: BANGER_SYNC is not set");
            return;
        };
        let store = tempfile::tempdir_in(place).unwrap();
        for (name, soon) in [("a", false), ("b", true), ("c", false), ("d", true)] {
            let build = Build::begin(store.path()).unwrap();
            let mut seed = std::time::SystemTime::now().elapsed().unwrap().as_nanos() as u64 | 1;
            let mut piece = vec![0; 1 << 20];
            let file = File::create(build.dir().join("file")).unwrap();
            for at in 0..300 {
                for word in piece.chunks_mut(8) {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    word.copy_from_slice(&seed.to_le_bytes());
                }
                file.write_all_at(&piece, at << 20).unwrap();
            }
            let start = std::time::Instant::now();
            write_metadata(build.dir(), "x.json", &7).unwrap();
            let metadata = start.elapsed();
            let target = store.path().join(name);
            let thread = if soon {
                build.publish_soon(&target, "Thing", false).unwrap()
            } else {
                build.publish(&target, "Thing", false).unwrap();
                None
            };
            println!("soon {soon}: metadata {metadata:?}, all {:?}", start.elapsed());
            if let Some(thread) = thread {
                thread.join().unwrap();
                println!("   on the disk after {:?}", start.elapsed());
            }
        }
    }
}
