//! `ssh-config --install` and `--uninstall`: the owner's own file.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::host::{Host, Ran};

/// What a careful user has: CRLF, no newline at its end.
const OWN: &[u8] = b"# mine\r\nHost *\n\tUser somebody\n    ProxyJump bastion\n    ForwardAgent yes";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn what_was_there_stays_and_comes_back_to_the_byte() {
    let host = Host::new();
    let (ssh, config) = (host.path(".ssh"), host.path(".ssh/config"));
    fs::create_dir(&ssh).unwrap();
    fs::write(&config, OWN).unwrap();
    fs::set_permissions(&config, Permissions::from_mode(0o640)).unwrap();
    fs::create_dir_all(host.path(".local/state/banger")).unwrap();
    let ran = host.run(&["ssh-config", "--install"]);
    assert_eq!(
        (ran.status, ran.out.as_str()),
        (
            Some(0),
            "~/.ssh/config: includes banger's file now; ssh NAME.vm works\n"
        ),
        "{ran:?}"
    );
    let installed = fs::read(&config).unwrap();
    assert!(installed.ends_with(OWN) && installed.len() > OWN.len());
    assert_eq!((mode(&config), names(&ssh)), (0o640, vec!["config".to_owned()]));
    let again = host.run(&["ssh-config", "--install"]);
    assert!(again.out.contains("already"), "{again:?}");
    assert_eq!(fs::read(&config).unwrap(), installed);
    let included = host.path(".local/state/banger/ssh_config");
    assert_eq!(mode(&included), 0o600);
    is_read_by_ssh(&config);

    let ran = host.run(&["ssh-config", "--uninstall"]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert_eq!(fs::read(&config).unwrap(), OWN);
    assert_eq!((mode(&config), names(&ssh)), (0o640, vec!["config".to_owned()]));
    assert!(
        host.run(&["ssh-config", "--uninstall"])
            .out
            .contains("nothing of banger's")
    );
}

/// What a `Host *` below it says does not reach guests.
#[allow(clippy::print_stdout, reason = "who reads the results should know")]
fn is_read_by_ssh(config: &Path) {
    // ssh reads no file that others may write, and a group may read.
    let ssh = std::process::Command::new("ssh")
        .arg("-F")
        .arg(config)
        .args(["-G", "a.vm"])
        .output();
    let Ok(output) = ssh else {
        println!("skipped: no ssh");
        return;
    };
    let read = Ran::of(output);
    for line in ["hostname 127.0.0.1", "port 2222", "user root", "forwardagent no"] {
        assert!(read.out.lines().any(|said| said == line), "{line}: {read:?}");
    }
    assert!(!read.out.contains("bastion"), "{read:?}");
}

#[test]
fn who_had_none_has_none_afterwards() {
    let host = Host::new();
    fs::create_dir_all(host.path(".local/state/banger")).unwrap();
    host.run(&["ssh-config", "--install"]);
    assert_eq!(
        (mode(&host.path(".ssh")), mode(&host.path(".ssh/config"))),
        (0o700, 0o600)
    );
    host.run(&["ssh-config", "--uninstall"]);
    assert!(!host.path(".ssh").exists());
    // What came meanwhile stays.
    fs::create_dir(host.path(".ssh")).unwrap();
    host.run(&["ssh-config", "--install"]);
    fs::write(host.path(".ssh/known_hosts"), "").unwrap();
    host.run(&["ssh-config", "--uninstall"]);
    assert_eq!(names(&host.path(".ssh")), ["known_hosts"]);
    // Lines of the owner's own too.
    host.run(&["ssh-config", "--install"]);
    let mut text = fs::read_to_string(host.path(".ssh/config")).unwrap();
    text.push_str("Host new\n");
    fs::write(host.path(".ssh/config"), text).unwrap();
    host.run(&["ssh-config", "--uninstall"]);
    assert_eq!(
        fs::read_to_string(host.path(".ssh/config")).unwrap(),
        "Host new\n"
    );
}

#[test]
fn a_link_is_followed_and_stays_one() {
    let host = Host::new();
    fs::create_dir_all(host.path(".local/state/banger")).unwrap();
    fs::create_dir(host.path(".ssh")).unwrap();
    fs::create_dir(host.path("dotfiles")).unwrap();
    let (config, target) = (host.path(".ssh/config"), host.path("dotfiles/ssh"));
    fs::write(&target, OWN).unwrap();
    symlink("../dotfiles/ssh", &config).unwrap();
    host.run(&["ssh-config", "--install"]);
    assert!(fs::read(&target).unwrap().ends_with(OWN));
    assert!(fs::symlink_metadata(&config).unwrap().is_symlink());
    host.run(&["ssh-config", "--uninstall"]);
    assert_eq!(fs::read(&target).unwrap(), OWN);
    assert_eq!(names(&host.path("dotfiles")), ["ssh"]);
}

#[test]
fn what_cannot_be_put_back_is_refused() {
    let host = Host::new();
    fs::create_dir_all(host.path(".local/state/banger")).unwrap();
    fs::create_dir(host.path(".ssh")).unwrap();
    let config = host.path(".ssh/config");
    let refused = |said: &str| {
        let ran = host.run(&["ssh-config", "--install"]);
        assert_eq!(ran.status, Some(1), "{ran:?}");
        assert!(ran.err.contains(said), "{said}: {ran:?}");
    };
    symlink("nowhere", &config).unwrap();
    refused("a symbolic link to a file that is not there");
    fs::remove_file(&config).unwrap();
    fs::create_dir(&config).unwrap();
    refused("no regular file");
    fs::remove_dir(&config).unwrap();
    fs::write(&config, "x").unwrap();
    fs::hard_link(&config, host.path("twin")).unwrap();
    refused("hard link");
    fs::remove_file(host.path("twin")).unwrap();
    fs::write(&config, vec![b'#'; (1 << 20) + 1]).unwrap();
    refused("larger than 1 MiB");
    fs::write(&config, OWN).unwrap();
    host.run(&["ssh-config", "--install"]);
    let installed = fs::read_to_string(&config).unwrap();
    fs::write(&config, installed.replace("# <<<", "Host evil\n# <<<")).unwrap();
    refused("line 3 is in banger's block and not of banger");
    assert_eq!(host.run(&["ssh-config", "--uninstall"]).status, Some(1));
}
