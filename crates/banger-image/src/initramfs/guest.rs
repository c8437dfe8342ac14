//! The archive with the guest program as `/init`, the same for every VM.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::cpio::Writer;
use super::{Error, elf};

/// Mount points of the early guest: nothing else makes them.
const DIRECTORIES: [&str; 5] = ["dev", "proc", "sys", "run", "newroot"];

/// Writes the archive with `binary`, a static program, as `/init`.
///
/// # Errors
/// When `binary` cannot be read or could not run alone, and when `out` fails.
pub fn build_guest_archive(binary: &Path, out: &mut dyn Write) -> Result<(), Error> {
    let program = fs::read(binary).map_err(|source| Error::Read {
        path: binary.to_owned(),
        source,
    })?;
    elf::check_static_program(&program).map_err(|reason| Error::BadProgram {
        path: binary.to_owned(),
        reason,
    })?;
    write_archive(&program, out).map_err(Error::Write)
}

fn write_archive(program: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let mut archive = Writer::new(out);
    for directory in DIRECTORIES {
        archive.directory(directory, 0o755)?;
    }
    archive.file("init", 0o755, program)?;
    archive.finish()?.flush()
}

#[cfg(test)]
mod tests {
    use super::super::cpio::tests::read;
    use super::*;

    #[test]
    fn the_program_is_init() {
        let mut out = Vec::new();
        write_archive(b"program", &mut out).unwrap();
        let members = read(&out);
        assert_eq!(
            members.last().unwrap(),
            &("init".to_owned(), 0o100_755, b"program".to_vec())
        );
        assert_eq!(members.len(), DIRECTORIES.len() + 1);
    }

    #[test]
    fn a_dynamic_program_is_named() {
        let this = std::env::current_exe().unwrap();
        let error = build_guest_archive(&this, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, Error::BadProgram { path, .. } if path == this));
    }
}
