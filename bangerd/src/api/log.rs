//! A VM's console as a descriptor that is read until its end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use banger_bus::api::Caller;
use banger_bus::helper::LogReadOptions;
use banger_bus::{Error, ErrorKind, LogOptions, Result};
use banger_model::VmState;
use banger_model::limits::MAX_CONSOLE_BYTES;
use banger_sys::file::sealed_memfd;
use banger_sys::inotify::FileWatch;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::Sender;
use tokio::process::Command;

use super::services::Services;
use crate::core::{Console, Vm};

/// What is read of a file at once; two files hold what is kept of a console.
const MAX_READ: u64 = 4 * MAX_CONSOLE_BYTES;

/// Opens it. With `follow` the descriptor ends when the VM has stopped or the caller has left.
pub(super) async fn open(
    services: &Arc<Services>,
    vm: &Arc<Vm>,
    caller: Caller,
    options: LogOptions,
) -> Result<OwnedFd> {
    let follow = options.follow.unwrap_or(false);
    match vm.console() {
        Console::Journal { unit, started_us } => {
            let state = vm.state();
            let mut command = journal(&unit, started_us, &options, state);
            let follow = is_followed(&options, state);
            let (reader, writer) = io::pipe().map_err(no_pipe)?;
            let child = command.stdout(writer).spawn().map_err(|error| {
                Error::new(ErrorKind::MissingTool, format!("Cannot run journalctl: {error}"))
            })?;
            // The command holds the other end of the pipe.
            drop(command);
            let (services, vm) = (services.clone(), vm.clone());
            tokio::spawn(async move {
                let mut child = child;
                tokio::select! {
                    _ = child.wait() => {}
                    () = caller.gone() => {}
                    () = services.stopped(&vm), if follow => {}
                }
                // It ends with its handle where it has not yet.
            });
            Ok(reader.into())
        }
        Console::Slot(handle) => {
            let (reader, writer) = io::pipe().map_err(no_pipe)?;
            let options = LogReadOptions {
                lines: options.lines,
                follow: Some(is_followed(&options, vm.state())),
            };
            // It ends with the scope, or when the reader has left.
            vm.helper().open_log(handle, options, writer.into()).await?;
            Ok(reader.into())
        }
        Console::Files {
            old,
            old_is_of_this_boot,
            new,
        } => {
            let old = (old_is_of_this_boot || !options.boot.unwrap_or(false)).then_some(old);
            let lines = options.lines;
            if follow {
                return follow_files(services, vm, caller, old, new, lines);
            }
            let read = tokio::task::spawn_blocking(move || {
                let (text, _) = begin(old.as_deref(), &new, lines)?;
                let fd = sealed_memfd("banger-console", &[&text])?;
                rustix::fs::seek(&fd, rustix::fs::SeekFrom::Start(0))?;
                Ok::<_, io::Error>(fd)
            });
            let text = read.await.map_err(io::Error::other).and_then(|text| text);
            text.map_err(|error| Error::new(ErrorKind::Failed, format!("Cannot read the console: {error}")))
        }
    }
}

/// A VM that has stopped has said all: its end would only cut the reading short.
fn is_followed(options: &LogOptions, state: VmState) -> bool {
    options.follow.unwrap_or(false) && state.is_live()
}

fn journal(unit: &str, started_us: u64, options: &LogOptions, state: VmState) -> Command {
    let mut command = Command::new("journalctl");
    command
        .args([
            "--user",
            "--quiet",
            "--no-pager",
            "--output=cat",
            "--all",
            "--unit",
            unit,
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    if options.boot.unwrap_or(false) && started_us != 0 {
        command.arg(format!("--since=@{}", started_us / 1_000_000));
    }
    match options.lines {
        Some(lines) => command.arg(format!("--lines={lines}")),
        None => command.arg("--lines=all"),
    };
    if is_followed(options, state) {
        command.arg("--follow");
    }
    command
}

fn follow_files(
    services: &Arc<Services>,
    vm: &Arc<Vm>,
    caller: Caller,
    old: Option<PathBuf>,
    new: PathBuf,
    lines: Option<u32>,
) -> Result<OwnedFd> {
    let (reader, writer) = io::pipe().map_err(no_pipe)?;
    let writer = Sender::from_owned_fd(writer.into()).map_err(no_pipe)?;
    let (services, vm) = (services.clone(), vm.clone());
    tokio::spawn(async move {
        let followed = tokio::select! {
            followed = follow(&services, &vm, writer, old, new, lines) => followed,
            () = caller.gone() => Ok(()),
        };
        if let Err(error) = followed
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            tracing::warn!(vm = %vm.name(), %error, "Cannot follow a console");
        }
    });
    Ok(reader.into())
}

async fn follow(
    services: &Services,
    vm: &Vm,
    mut writer: Sender,
    old: Option<PathBuf>,
    new: PathBuf,
    lines: Option<u32>,
) -> io::Result<()> {
    let mut watch = watch(&new)?;
    let (text, mut file) = begin(old.as_deref(), &new, lines)?;
    writer.write_all(&text).await?;
    loop {
        // First the question, then the reading: what was written before the end is not missed.
        let ended = !vm.state().is_live();
        if let Some(file) = &mut file {
            writer.write_all(&read_on(file)?).await?;
        }
        if ended {
            return Ok(());
        }
        let events = async {
            match &mut watch {
                Some(watch) => watch.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            events = events => {
                if events?.gone {
                    // What came before the file was moved aside.
                    if let Some(file) = &mut file {
                        writer.write_all(&read_on(file)?).await?;
                    }
                    watch = self::watch(&new)?;
                    file = open_file(&new)?;
                }
            }
            () = services.stopped(vm) => {}
        }
    }
}

fn watch(path: &Path) -> io::Result<Option<FileWatch>> {
    match FileWatch::new(path) {
        Ok(watch) => Ok(Some(watch)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The text so far, and the newer file where it goes on.
fn begin(old: Option<&Path>, new: &Path, lines: Option<u32>) -> io::Result<(Vec<u8>, Option<File>)> {
    let mut text = Vec::new();
    if let Some(mut old) = old.map(open_file).transpose()?.flatten() {
        text = read_on(&mut old)?;
    }
    let mut file = open_file(new)?;
    if let Some(file) = &mut file {
        text.extend(read_on(file)?);
    }
    if let Some(lines) = lines {
        text.drain(..last_lines(&text, lines));
    }
    Ok((text, file))
}

fn open_file(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What has come since the last time. A file that was cut off is read from its new beginning.
fn read_on(file: &mut File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    if file.metadata()?.len() < file.stream_position()? {
        file.seek(SeekFrom::Start(0))?;
    }
    file.take(MAX_READ).read_to_end(&mut text)?;
    Ok(text)
}

/// Where the last lines begin.
fn last_lines(text: &[u8], lines: u32) -> usize {
    if lines == 0 {
        return text.len();
    }
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let breaks = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    breaks.map(|(at, _)| at + 1).nth(lines as usize - 1).unwrap_or(0)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn no_pipe(error: io::Error) -> Error {
    Error::new(ErrorKind::LimitExceeded, format!("Cannot make a pipe: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_journal_of_a_stopped_vm_is_read_to_its_end() {
        let options = LogOptions {
            follow: Some(true),
            ..LogOptions::default()
        };
        for (state, follow) in [(VmState::Running, true), (VmState::Stopped, false)] {
            assert_eq!(is_followed(&options, state), follow);
            let command = journal("a.scope", 0, &options, state);
            let said = command.as_std().get_args().any(|argument| argument == "--follow");
            assert_eq!(said, follow);
        }
    }

    #[test]
    fn the_last_lines_are_whole_lines() {
        for (text, lines, last) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\n", 0, ""),
            ("", 3, ""),
            ("\n\n\n", 1, "\n"),
        ] {
            assert_eq!(
                &text[last_lines(text.as_bytes(), lines)..],
                last,
                "{text:?} {lines}"
            );
        }
    }

    #[test]
    fn reading_goes_on_and_begins_again_after_a_cut() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        std::fs::write(&old, "1\n").unwrap();
        std::fs::write(&new, "2\n").unwrap();
        let (text, file) = begin(Some(&old), &new, None).unwrap();
        assert_eq!(text, b"1\n2\n");
        let mut file = file.unwrap();
        let mut writer = File::options().append(true).open(&new).unwrap();
        writer.write_all(b"3\n").unwrap();
        assert_eq!(read_on(&mut file).unwrap(), b"3\n");
        writer.set_len(0).unwrap();
        writer.write_all(b"4\n").unwrap();
        assert_eq!(read_on(&mut file).unwrap(), b"4\n");
        assert!(
            begin(None, &dir.path().join("none"), Some(3))
                .unwrap()
                .1
                .is_none()
        );
    }
}
