//! Everything of a machine that system mode could change, as text to be compared.

use std::collections::BTreeMap;

use super::Machine;

/// What is looked at, each with the script that prints it. What changes by itself is left out.
const LOOKS: [(&str, &str); 9] = [
    ("nftables", "nft list ruleset"),
    ("links", "ip -j link"),
    ("addresses", "ip -j addr"),
    (
        "routes",
        "ip -j route show table all; ip -j -6 route show table all",
    ),
    ("rules", "ip -j rule; ip -j -6 rule"),
    (
        "kernel settings",
        r"sysctl -a -r '^net\.' 2>/dev/null | grep -v -e nf_conntrack_count -e '\.stable_secret'",
    ),
    (
        "units",
        "systemctl list-unit-files --no-legend --no-pager
         systemctl list-units --all --plain --no-legend --no-pager 'banger*' 'run-netns*'",
    ),
    (
        "users and groups",
        "getent passwd; getent group; ls -A /run/netns 2>/dev/null || true",
    ),
    (
        "files",
        r"find /etc /usr /opt /var/lib /run /root -xdev \( -path /run/udev -o -path /run/user -o -path /run/log -o -path /run/mount \
            -o -path /run/systemd -o -path /var/lib/systemd -o -path /root/.cargo -o -path /root/.rustup \
            -o -path /root/.cache -o -path /var/lib/polkit-1 -o -path /var/lib/apt \) -prune -o -printf '%p %y %m %u %g\n' | sort",
    ),
];

/// A machine's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State(BTreeMap<&'static str, String>);

impl Machine {
    /// Looks at everything.
    pub async fn state(&self) -> State {
        let mut state = BTreeMap::new();
        for (name, script) in LOOKS {
            state.insert(name, self.sh(script).await.ok().text());
        }
        State(state)
    }
}

impl State {
    /// The lines that differ, `-` before what was and `+` before what is; empty when nothing does.
    pub fn difference(&self, now: &Self) -> String {
        let mut text = String::new();
        for (name, before) in &self.0 {
            let after = now.0.get(name).map_or("", String::as_str);
            let lines = |text: &str, other: &str, sign: &str| -> String {
                let other: std::collections::BTreeSet<_> = other.lines().collect();
                text.lines()
                    .filter(|line| !other.contains(line))
                    .map(|line| format!("{sign} {name}: {line}\n"))
                    .collect()
            };
            text += &lines(before, after, "-");
            text += &lines(after, before, "+");
        }
        text
    }
}
