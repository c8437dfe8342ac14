//! Users of the machine, and their sessions.

use std::ffi::OsStr;
use std::path::Path;

use tokio::process::Command;

use super::{LIMIT, Machine, real};
use crate::rig::{Out, finished};
use crate::watch::line_with;

/// A user of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person {
    pub name: &'static str,
    pub uid: u32,
}

pub const ALICE: Person = Person {
    name: "alice",
    uid: 4242,
};
pub const BOB: Person = Person {
    name: "bob",
    uid: 4343,
};
/// Whom every machine has: no home, no manager, no rights.
pub const NOBODY: Person = Person {
    name: "nobody",
    uid: 65534,
};

impl Machine {
    /// Makes a user whose manager runs, and who has the bare image.
    pub(super) async fn add(&self, person: Person, content: &Path) {
        let script = r#"
            useradd --create-home --uid "$2" "$1"
            home=$(getent passwd "$1" | cut -d: -f6)
            mkdir -p "$home/.local" "$home/.cache"
            cp -a --sparse=always "$3/d" "$home/.local/share"
            cp -a "$3/k/." "$home/.cache/"
            cp --sparse=always "$3/bare.ext4" "$home/"
            # The image is a file of whoever made the store: here it is the user's own.
            sed -i "s|$3/bare.ext4|$home/bare.ext4|" "$home"/.local/share/banger/images/*/*.json
            chown -R "$1:" "$home"
            loginctl enable-linger "$1"
            systemctl start "user@$2.service""#;
        let mut sh = self.root("bash");
        sh.args(["-euc", script, "add-user", person.name, &person.uid.to_string()])
            .arg(real(content));
        finished(&mut sh, LIMIT).await.ok();
    }

    /// Opens a session at the first seat, which its terminal makes the active one: what polkit
    /// calls an active local user.
    pub(super) async fn sit_down(&mut self, person: Person) {
        let script = r#"
            printf '%s\n' 'auth required pam_permit.so' 'account required pam_permit.so' \
                'session required pam_systemd.so' > /etc/pam.d/test-seat
            vt=$(cat /sys/class/tty/tty0/active 2>/dev/null || true)
            exec systemd-run --quiet --pipe --wait --uid="$1" -p PAMName=test-seat \
                -E XDG_SEAT=seat0 ${vt:+-E XDG_VTNR="${vt#tty}"} -E XDG_SESSION_TYPE=tty \
                -E XDG_SESSION_CLASS=user sh -c 'echo logged in; exec sleep infinity'"#;
        let mut command = self.root("bash");
        command.args(["-euc", script, "sit-down", person.name]);
        let mut session = command.spawn().expect("nsenter can be started");
        let stdout = session.stdout.take().expect("standard output is a pipe");
        line_with(stdout, "logged in", LIMIT).await;
        self.sessions.push(session);
    }

    /// A program in the machine, as somebody with his session bus, if he has one.
    pub fn person(&self, person: Person, program: impl AsRef<OsStr>) -> Command {
        let uid = person.uid.to_string();
        let mut command = self.root("setpriv");
        command.args(["--reuid", &uid, "--regid", &uid, "--init-groups", "env"]);
        if person != NOBODY {
            command.args(["-C", &format!("/home/{}", person.name)]);
            command.arg(format!("HOME=/home/{}", person.name));
            command.arg(format!("XDG_RUNTIME_DIR=/run/user/{uid}"));
            command.arg(format!("DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus"));
        }
        command.arg(program);
        command
    }

    /// Runs a program as somebody.
    pub async fn run_as(&self, person: Person, words: &[&str]) -> Out {
        finished(self.person(person, words[0]).args(&words[1..]), LIMIT).await
    }

    /// Runs a script as somebody.
    pub async fn person_sh(&self, person: Person, script: &str) -> Out {
        finished(self.person(person, "sh").args(["-euc", script]), LIMIT).await
    }

    /// Runs a program as somebody in his own service manager: for polkit that is a process of
    /// his sessions, if he has one.
    pub async fn run_in_session(&self, person: Person, words: &[&str]) -> Out {
        let mut command = self.person(person, "systemd-run");
        command.args(["--user", "--quiet", "--pipe", "--wait", "--collect", "--"]);
        finished(command.args(words), LIMIT).await
    }
}
