//! The image's own `/etc/passwd` and `/etc/group`, read directly: a static program must not ask
//! the image's C library.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use banger_sys::guest::Credentials;

/// What is read of each of the two files, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// The largest number of a user or a group that an image may name: docker's limit, and below the
/// one that means "unchanged".
const MAX_ID: u32 = i32::MAX.unsigned_abs();
const SHELL: &str = "/bin/sh";
/// Shells of users who may not log in. A process of theirs needs no login.
const NO_SHELLS: [&str; 2] = ["nologin", "false"];

/// One line of passwd(5), or who stands for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// Empty for a number that has no line.
    pub(crate) name: String,
    pub(crate) credentials: Credentials,
    pub(crate) home: PathBuf,
    pub(crate) shell: PathBuf,
}

/// Why a process has no user.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserError {
    #[error("There is no user {0:?} in this image")]
    NoUser(String),
    #[error("There is no group {0:?} in this image")]
    NoGroup(String),
    #[error("Not the number of a user or a group: {0} (at most {MAX_ID})")]
    Number(String),
}

/// Who may log in by this name. `root` is known even where the image has no users at all.
pub(crate) fn find(name: &str) -> Option<User> {
    find_in(name, &read("/etc/passwd"), &read("/etc/group"))
}

/// As whom a process runs: `user` or `user:group`, each a name or a number, by docker's rules. A
/// number needs no line. Without a group the user has those that list him; with one he has that.
///
/// # Errors
/// When the image does not know a name.
pub(crate) fn resolve(spec: &str) -> Result<User, UserError> {
    resolve_in(spec, &read("/etc/passwd"), &read("/etc/group"))
}

fn find_in(name: &str, passwd: &str, group: &str) -> Option<User> {
    if name.is_empty() {
        return None;
    }
    let entry = entries(passwd).find(|entry| entry.name == name);
    let entry = match entry {
        None if name == "root" => Entry {
            name,
            uid: 0,
            gid: 0,
            home: "/root",
            shell: "",
        },
        entry => entry?,
    };
    Some(entry.user(group))
}

fn resolve_in(spec: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (name, own_group) = match spec.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (spec, None),
    };
    let mut user = match number(name)? {
        Some(uid) => match entries(passwd).find(|entry| entry.uid == uid) {
            Some(entry) => entry.user(group),
            // As docker has it: root's group, and no home.
            None => User {
                name: String::new(),
                credentials: Credentials {
                    uid,
                    gid: 0,
                    groups: vec![0],
                },
                home: PathBuf::from("/"),
                shell: PathBuf::from(SHELL),
            },
        },
        None => find_in(name, passwd, group).ok_or_else(|| UserError::NoUser(name.to_owned()))?,
    };
    if let Some(own) = own_group {
        let gid = match number(own)? {
            Some(gid) => gid,
            None => groups(group)
                .find(|(name, ..)| *name == own)
                .map(|(_, gid, _)| gid)
                .ok_or_else(|| UserError::NoGroup(own.to_owned()))?,
        };
        user.credentials.gid = gid;
        user.credentials.groups = vec![gid];
    }
    let closed = user
        .shell
        .file_name()
        .is_some_and(|name| NO_SHELLS.iter().any(|no| name == *no));
    if closed {
        user.shell = PathBuf::from(SHELL);
    }
    Ok(user)
}

/// A number, if the word is one: docker takes it for nothing else then.
fn number(word: &str) -> Result<Option<u32>, UserError> {
    if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match word.parse() {
        Ok(id) if id <= MAX_ID => Ok(Some(id)),
        _ => Err(UserError::Number(word.to_owned())),
    }
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
    shell: &'a str,
}

impl Entry<'_> {
    fn user(&self, group: &str) -> User {
        let or = |text: &str, other: &str| PathBuf::from(if text.is_empty() { other } else { text });
        User {
            name: self.name.to_owned(),
            credentials: Credentials {
                uid: self.uid,
                gid: self.gid,
                groups: groups_of(self.name, self.gid, group),
            },
            home: or(self.home, "/"),
            shell: or(self.shell, SHELL),
        }
    }
}

/// The lines of passwd(5) that are whole.
fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1)?;
        let shell = fields.next().unwrap_or_default();
        Some(Entry {
            name,
            uid,
            gid,
            home,
            shell,
        })
    })
}

/// The lines of group(5): name, number and members.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id = fields.nth(1)?.parse().ok()?;
        Some((name, id, fields.next().unwrap_or_default()))
    })
}

/// The user's own group and those that list it.
fn groups_of(name: &str, own: u32, group: &str) -> Vec<u32> {
    let mut found = vec![own];
    for (_, id, members) in groups(group) {
        if members.split(',').any(|member| member == name) && !found.contains(&id) {
            found.push(id);
        }
    }
    found
}

/// One of the two files; an image may have none.
fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    // What was read before an error counts.
    let _ = File::open(Path::new(path)).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
                          broken:x:many\n\
                          web:x:33:33:web:/srv/web:/usr/sbin/nologin\n\
                          1000:x:7:7::/seven:/bin/sh\n\
                          dev:x:1000:1001:,,,:/home/dev:\n";
    const GROUP: &str = "root:x:0:\nsudo:x:27:dev,other\nnodev:x:30:devel\nweb:x:33\ndev:x:1001:dev\n";

    #[test]
    fn a_user_has_its_groups() {
        let user = find_in("dev", PASSWD, GROUP).unwrap();
        assert_eq!(user.credentials.uid, 1000);
        assert_eq!(user.credentials.groups, [1001, 27]);
        assert_eq!(user.shell, Path::new("/bin/sh"));
        assert_eq!(
            find_in("root", PASSWD, GROUP).unwrap().shell,
            Path::new("/bin/bash")
        );
    }

    #[test]
    fn nobody_else_is_found() {
        for name in ["", "broken", "other", "dev:x", "DEV"] {
            assert_eq!(find_in(name, PASSWD, GROUP), None, "{name:?}");
        }
    }

    #[test]
    fn root_needs_no_file() {
        let root = find_in("root", "", "").unwrap();
        assert_eq!((root.credentials.uid, root.home), (0, PathBuf::from("/root")));
        assert_eq!(find_in("dev", "", ""), None);
    }

    #[test]
    fn processes_have_users_by_dockers_rules() {
        for (spec, uid, gid, groups, home) in [
            ("root", 0, 0, &[0][..], "/root"),
            ("0", 0, 0, &[0], "/root"),
            ("dev", 1000, 1001, &[1001, 27], "/home/dev"),
            // A number is a number, also where a user is called so.
            ("1000", 1000, 1001, &[1001, 27], "/home/dev"),
            ("dev:web", 1000, 33, &[33], "/home/dev"),
            ("dev:5", 1000, 5, &[5], "/home/dev"),
            ("root:1001", 0, 1001, &[1001], "/root"),
            ("4711", 4711, 0, &[0], "/"),
            ("4711:42", 4711, 42, &[42], "/"),
        ] {
            let user = resolve_in(spec, PASSWD, GROUP).unwrap();
            let found = &user.credentials;
            assert_eq!(
                (found.uid, found.gid, &found.groups[..]),
                (uid, gid, groups),
                "{spec}"
            );
            assert_eq!(user.home, Path::new(home), "{spec}");
        }
        // An image without users has numbers, and root.
        let nobody = resolve_in("65532:65532", "", "").unwrap();
        assert_eq!((nobody.name.as_str(), nobody.credentials.gid), ("", 65532));
        assert_eq!(resolve_in("root", "", "").unwrap().credentials.uid, 0);
    }

    #[test]
    fn a_user_who_may_not_log_in_has_a_shell_for_his_processes() {
        assert_eq!(
            find_in("web", PASSWD, GROUP).unwrap().shell,
            Path::new("/usr/sbin/nologin")
        );
        assert_eq!(
            resolve_in("web", PASSWD, GROUP).unwrap().shell,
            Path::new("/bin/sh")
        );
    }

    #[test]
    fn what_an_image_does_not_have_is_named() {
        let no_user = |name: &str| UserError::NoUser(name.to_owned());
        let no_group = |name: &str| UserError::NoGroup(name.to_owned());
        let no_number = |word: &str| UserError::Number(word.to_owned());
        for (spec, error) in [
            ("app", no_user("app")),
            ("", no_user("")),
            (":dev", no_user("")),
            ("-1", no_user("-1")),
            ("broken", no_user("broken")),
            ("dev:app", no_group("app")),
            ("dev:", no_group("")),
            ("dev:dev:dev", no_group("dev:dev")),
            ("2147483648", no_number("2147483648")),
            ("4294967295", no_number("4294967295")),
            ("dev:4294967295", no_number("4294967295")),
            ("99999999999999999999", no_number("99999999999999999999")),
        ] {
            assert_eq!(resolve_in(spec, PASSWD, GROUP), Err(error), "{spec:?}");
        }
    }
}
