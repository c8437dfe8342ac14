//! The lines of banger's in the owner's configuration, which may hold any bytes.

/// What was not there before, and goes with the block when nothing else has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Nothing,
    File,
    /// The file, and its directory.
    Directory,
}

/// Where the block is.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    start: usize,
    end: usize,
    made: Made,
}

const BEGIN: &str = "# >>> banger: VMs as NAME.vm. `banger ssh-config --uninstall` takes this block out >>>";
const END: &str = "# <<< banger <<<";
const MADE_FILE: &str = "# There was no such file before.";
const MADE_DIRECTORY: &str = "# There was no such directory before.";

/// The configuration with the block before everything else, as an `Include` counts for all hosts
/// only there; `None` when it is so already.
///
/// # Errors
/// When what is there of a block is not banger's work: a sentence.
pub(super) fn with(config: &[u8], include: &str, made: Made) -> Result<Option<Vec<u8>>, String> {
    let (rest, made) = match without(config)? {
        Some((rest, made)) => (rest, made),
        None => (config.to_vec(), made),
    };
    let mut bytes = block(include, made).into_bytes();
    bytes.extend(rest);
    Ok((bytes != config).then_some(bytes))
}

/// The configuration without the block, and what it had made; `None` when there is none.
///
/// # Errors
/// As [`with`].
pub(super) fn without(config: &[u8]) -> Result<Option<(Vec<u8>, Made)>, String> {
    Ok(find(config)?.map(|found| {
        let rest = [&config[..found.start], &config[found.end..]].concat();
        (rest, found.made)
    }))
}

fn block(include: &str, made: Made) -> String {
    let made = match made {
        Made::Nothing => String::new(),
        Made::File => format!("{MADE_FILE}\n"),
        Made::Directory => format!("{MADE_DIRECTORY}\n"),
    };
    format!("{BEGIN}\n{made}Include {include}\n{END}\n")
}

fn find(config: &[u8]) -> Result<Option<Found>, String> {
    let mut found: Option<Found> = None;
    // Where the block that is being read begins: its line and its byte.
    let mut open: Option<(usize, usize)> = None;
    let mut made = Made::Nothing;
    let mut at = 0;
    for (number, line) in (1..).zip(config.split_inclusive(|&byte| byte == b'\n')) {
        let end = at + line.len();
        // An editor may have changed the line breaks.
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\n', '\r']);
        match (open, text) {
            (Some(_), BEGIN) => return Err(format!("line {number} begins a second block of banger's")),
            (None, BEGIN) if found.is_some() => {
                return Err(format!("line {number} begins a second block of banger's"));
            }
            (None, BEGIN) => open = Some((number, at)),
            (Some((_, start)), END) => {
                found = Some(Found { start, end, made });
                open = None;
            }
            (Some(_), MADE_FILE) => made = Made::File,
            (Some(_), MADE_DIRECTORY) => made = Made::Directory,
            (Some(_), other) if !other.starts_with("Include ") => {
                return Err(format!("line {number} is in banger's block and not of banger"));
            }
            _ => {}
        }
        at = end;
    }
    match open {
        Some((number, _)) => Err(format!("line {number} begins banger's block, which has no end")),
        None => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INCLUDE: &str = "\"/state/banger/ssh_config\"";

    #[test]
    fn what_was_there_comes_back_to_the_byte() {
        for own in [
            &b""[..],
            b"\n",
            b"Host a\n  Port 1\n",
            b"# mine\r\nHost *\r\n\tUser x",
            b"\xff\xfe\0no text\r",
            b"Include other\n# <<< banger <<<\n",
        ] {
            for made in [Made::Nothing, Made::File, Made::Directory] {
                let installed = with(own, INCLUDE, made).unwrap().unwrap();
                assert!(installed.ends_with(own));
                assert_eq!(with(&installed, INCLUDE, Made::Nothing), Ok(None), "idempotent");
                assert_eq!(without(&installed).unwrap(), Some((own.to_vec(), made)));
            }
            assert_eq!(without(own), Ok(None));
        }
    }

    #[test]
    fn a_block_that_was_moved_or_is_stale_is_put_right() {
        let old = block("\"/old\"", Made::File);
        let moved = format!("Host a\n  Port 1\n{}Host b\n", old.replace('\n', "\r\n"));
        let right = with(moved.as_bytes(), INCLUDE, Made::Nothing).unwrap().unwrap();
        let expected = format!("{}Host a\n  Port 1\nHost b\n", block(INCLUDE, Made::File));
        assert_eq!(String::from_utf8(right).unwrap(), expected);
    }

    #[test]
    fn what_is_not_banger_s_work_is_not_touched() {
        let whole = block(INCLUDE, Made::Nothing);
        for (config, said) in [
            (format!("{BEGIN}\nInclude x\nHost a\n"), "line 3"),
            (format!("a\n{BEGIN}\nInclude x\n"), "no end"),
            (format!("{whole}{whole}"), "second"),
            (format!("{BEGIN}\n{whole}"), "second"),
        ] {
            let problem = without(config.as_bytes()).unwrap_err();
            assert!(problem.contains(said), "{problem}");
            assert!(with(config.as_bytes(), INCLUDE, Made::Nothing).is_err());
        }
    }
}
