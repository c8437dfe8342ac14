//! Who may be logged in as: the image's own `/etc/passwd` and `/etc/group`, read directly. A
//! static program must not ask the image's C library.

use std::fs;
use std::path::{Path, PathBuf};

use banger_sys::guest::Credentials;

/// One line of passwd(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) credentials: Credentials,
    pub(crate) home: PathBuf,
    pub(crate) shell: PathBuf,
}

/// The user of this name. `root` is known even where the image has no users at all.
pub(crate) fn find(name: &str) -> Option<User> {
    let read = |path| fs::read(path).unwrap_or_default();
    let passwd = read(Path::new("/etc/passwd"));
    let group = read(Path::new("/etc/group"));
    find_in(
        name,
        &String::from_utf8_lossy(&passwd),
        &String::from_utf8_lossy(&group),
    )
}

fn find_in(name: &str, passwd: &str, group: &str) -> Option<User> {
    let entry = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) || name.is_empty() {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1)?;
        let shell = fields.next().unwrap_or_default();
        Some((uid, gid, home, shell))
    });
    let (uid, gid, home, shell) = match entry {
        Some(entry) => entry,
        None if name == "root" => (0, 0, "/root", ""),
        None => return None,
    };
    Some(User {
        name: name.to_owned(),
        credentials: Credentials {
            uid,
            gid,
            groups: groups_of(name, gid, group),
        },
        home: PathBuf::from(if home.is_empty() { "/" } else { home }),
        shell: PathBuf::from(if shell.is_empty() { "/bin/sh" } else { shell }),
    })
}

/// The user's own group and those that list it.
fn groups_of(name: &str, own: u32, group: &str) -> Vec<u32> {
    let mut groups = vec![own];
    for line in group.lines() {
        let mut fields = line.split(':').skip(2);
        let id = fields.next().and_then(|id| id.parse().ok());
        let member = fields
            .next()
            .is_some_and(|members| members.split(',').any(|member| member == name));
        if let Some(id) = id
            && member
            && !groups.contains(&id)
        {
            groups.push(id);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
                          broken:x:many\n\
                          dev:x:1000:1001:,,,:/home/dev:\n";
    const GROUP: &str = "root:x:0:\nsudo:x:27:dev,other\nnodev:x:30:devel\ndev:x:1001:dev\n";

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
}
