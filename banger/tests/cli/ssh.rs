//! `vm ssh`: the system's `ssh`, told everything beforehand.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::host::{Host, Ran};

#[test]
fn ssh_gets_the_pinned_key_and_nothing_of_the_user_s_configuration() {
    let host = Host::new();
    let ssh = host.path("ssh");
    fs::write(&ssh, "#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 9\n").unwrap();
    fs::set_permissions(&ssh, Permissions::from_mode(0o755)).unwrap();
    let output = host
        .command(&["vm", "ssh", "a", "--", "uptime", "-p"])
        .env("PATH", host.path(""))
        .env("XDG_STATE_HOME", "/var/state dir")
        .output()
        .unwrap();
    let ran = Ran::of(output);
    assert_eq!(ran.status, Some(9), "{ran:?}");
    let words: Vec<&str> = ran.out.lines().collect();
    assert_eq!(
        words[..8],
        [
            "-F",
            "none",
            "-i",
            "/var/state dir/banger/ssh/id_ed25519",
            "-p",
            "2222",
            "-l",
            "root"
        ]
    );
    assert_eq!(words[words.len() - 4..], ["--", "127.0.0.1", "uptime", "-p"]);
    for option in [
        "UserKnownHostsFile=\"/var/state dir/banger/known_hosts\"",
        "HostKeyAlias=banger-00000000000000000000000000000161",
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
    ] {
        assert!(words.contains(&option), "{option}: {words:?}");
    }
}

#[test]
fn a_vm_that_does_not_run_is_told() {
    let host = Host::new();
    let ran = host.run(&["vm", "ssh", "b"]);
    assert_eq!(ran.status, Some(125));
    assert_eq!(
        ran.err,
        "banger: error: The VM b does not run: it is stopped\nhint: Start it with `banger vm start b`\n"
    );
}

#[test]
fn a_configured_key_is_used_and_a_bad_configuration_named() {
    let host = Host::new();
    fs::create_dir_all(host.path(".config/banger")).unwrap();
    let config = host.path(".config/banger/config.toml");
    fs::write(&config, "ssh_key_path = \"~/.ssh/mine\"\n").unwrap();
    let ssh = host.path("ssh");
    fs::write(&ssh, "#!/bin/sh\necho $4\n").unwrap();
    fs::set_permissions(&ssh, Permissions::from_mode(0o755)).unwrap();
    let run = || {
        Ran::of(
            host.command(&["vm", "ssh", "a"])
                .env("PATH", host.path(""))
                .output()
                .unwrap(),
        )
    };
    assert_eq!(run().out, format!("{}\n", host.path(".ssh/mine").display()));
    fs::write(&config, "\nssh_key = 1\n").unwrap();
    let ran = run();
    assert!(
        ran.status == Some(125) && ran.err.contains("config.toml") && ran.err.contains("line 2"),
        "{ran:?}"
    );
}

#[test]
#[allow(clippy::print_stdout, reason = "who reads the results should know")]
fn what_ssh_config_writes_is_what_ssh_reads() {
    let host = Host::new();
    let mut command = host.command(&["ssh-config"]);
    let ran = Ran::of(command.env("XDG_STATE_HOME", "/var/state dir").output().unwrap());
    assert_eq!(ran.status, Some(0), "{ran:?}");
    // The VM b does not run: it is known by its domain alone.
    assert!(
        ran.out.contains("Host a.vm\n") && !ran.out.contains("Host b.vm"),
        "{ran:?}"
    );
    let file = host.path("config");
    fs::write(&file, &ran.out).unwrap();
    let read = std::process::Command::new("ssh")
        .args(["-G", "-F"])
        .arg(&file)
        .arg("a.vm")
        .output();
    let Ok(read) = read else {
        println!("skipped: no ssh");
        return;
    };
    let read = Ran::of(read);
    for line in [
        "hostname 127.0.0.1",
        "port 2222",
        "user root",
        "identityfile /var/state dir/banger/ssh/id_ed25519",
        "userknownhostsfile \"/var/state dir/banger/known_hosts\"",
        "hostkeyalias banger-00000000000000000000000000000161",
        "identitiesonly yes",
    ] {
        let quoted = line.replace('"', "");
        assert!(
            read.out.lines().any(|said| said == line || said == quoted),
            "{line}: {read:?}"
        );
    }
}
