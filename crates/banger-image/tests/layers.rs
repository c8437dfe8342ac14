//! Layers as the OCI image specification has them: a table of rules, and the same layers
//! unpacked by umoci.

mod support;

use support::layer::{Head, Layer};
use support::listing::{Listing, short};
use support::random::Random;
use support::{listed, umoci};

/// Each runs umoci once.
const RANDOM_STACKS: u64 = 40;

struct Rule {
    name: &'static str,
    layers: Vec<Layer>,
    tree: &'static [&'static str],
    /// umoci leaves a directory that a whiteout emptied with the time of that, and not with
    /// the one that its entry says.
    umoci_forgets_times: bool,
}

fn rule(name: &'static str, layers: Vec<Layer>, tree: &'static [&'static str]) -> Rule {
    Rule {
        name,
        layers,
        tree,
        umoci_forgets_times: false,
    }
}

fn forgetful(rule: Rule) -> Rule {
    Rule {
        umoci_forgets_times: true,
        ..rule
    }
}

fn base() -> Layer {
    Layer::new()
        .dir("d")
        .file("d/f", "old")
        .file("d/g", "g")
        .dir("d/s")
        .file("d/s/x", "x")
        .symlink("l", "d")
}

fn whiteouts() -> Vec<Rule> {
    let on = |layer: Layer| vec![base(), layer];
    vec![
        rule(
            "a file is hidden",
            on(Layer::new().file("d/.wh.f", "")),
            &["d/", "d/g = g", "d/s/", "d/s/x = x", "l -> d"],
        ),
        rule(
            "a directory is hidden with all below it",
            on(Layer::new().file(".wh.d", "")),
            &["l -> d"],
        ),
        rule(
            "a link is hidden and not what it points to",
            on(Layer::new().file(".wh.l", "")),
            &["d/", "d/f = old", "d/g = g", "d/s/", "d/s/x = x"],
        ),
        rule(
            "what is not there is hidden",
            on(Layer::new()
                .file(".wh.none", "")
                .file("none/.wh.x", "")
                .file("d/.wh.f", "")
                .file("d/.wh.f", "")),
            &["d/", "d/g = g", "d/s/", "d/s/x = x", "l -> d"],
        ),
        rule(
            "hidden first, then made again",
            on(Layer::new().file("d/.wh.f", "").file("d/f", "new")),
            &["d/", "d/f = new", "d/g = g", "d/s/", "d/s/x = x", "l -> d"],
        ),
        rule(
            "made first, then hidden: only the lower one is",
            on(Layer::new().file("d/f", "new").file("d/.wh.f", "")),
            &["d/", "d/f = new", "d/g = g", "d/s/", "d/s/x = x", "l -> d"],
        ),
        rule(
            "a directory hidden and made again",
            on(Layer::new().file(".wh.d", "").dir("d").file("d/new", "n")),
            &["d/", "d/new = n", "l -> d"],
        ),
        forgetful(rule(
            "a directory made again and hidden",
            on(Layer::new().dir("d").file("d/new", "n").file(".wh.d", "")),
            &["d/", "d/new = n", "l -> d"],
        )),
        rule(
            "opaque before what the layer has",
            on(Layer::new()
                .dir("d")
                .file("d/.wh..wh..opq", "")
                .file("d/new", "n")),
            &["d/", "d/new = n", "l -> d"],
        ),
        forgetful(rule(
            "opaque after what the layer has",
            on(Layer::new()
                .dir("d")
                .file("d/new", "n")
                .dir("d/s")
                .file("d/s/y", "y")
                .file("d/.wh..wh..opq", "")),
            &["d/", "d/new = n", "d/s/", "d/s/y = y", "l -> d"],
        )),
        rule(
            "opaque between, and twice",
            on(Layer::new()
                .file("d/a", "a")
                .file("d/.wh..wh..opq", "")
                .file("d/b", "b")
                .file("d/.wh..wh..opq", "")),
            &["d/", "d/a = a", "d/b = b", "l -> d"],
        ),
        rule(
            "opaque in the root",
            on(Layer::new().file("new", "n").file(".wh..wh..opq", "")),
            &["new = n"],
        ),
        rule(
            "opaque where nothing is",
            on(Layer::new().file("none/.wh..wh..opq", "").file(".wh.d", "")),
            &["l -> d"],
        ),
        rule(
            "a whiteout through a link",
            on(Layer::new().file("l/.wh.f", "").file("l/s/.wh..wh..opq", "")),
            &["d/", "d/g = g", "d/s/", "l -> d"],
        ),
        rule(
            "a later layer hides what an upper one made",
            vec![
                base(),
                Layer::new().file("d/f", "new"),
                Layer::new().file("d/.wh.f", ""),
            ],
            &["d/", "d/g = g", "d/s/", "d/s/x = x", "l -> d"],
        ),
        rule(
            "a hard link outlives the hidden name",
            on(Layer::new().hard("h", "d/f").file("d/.wh.f", "")),
            &["d/", "d/g = g", "d/s/", "d/s/x = x", "h = old", "l -> d"],
        ),
        rule(
            "a whiteout's type and content mean nothing",
            on(Layer::new()
                .file("d/.wh.f", "content that is longer than nothing")
                .dir("d/.wh.g")
                .symlink("d/s/.wh..wh..opq", "/etc/passwd")),
            &["d/", "d/s/", "l -> d"],
        ),
        rule(
            "a name that only starts like one",
            vec![Layer::new().file(".w", "1").file(".whx", "2").file("a.wh.b", "3")],
            &[".w = 1", ".whx = 2", "a.wh.b = 3"],
        ),
    ]
}

fn replacing() -> Vec<Rule> {
    let on = |layer: Layer| vec![base(), layer];
    vec![
        rule(
            "a file replaces a directory",
            on(Layer::new().file("d", "file")),
            &["d = file", "l -> d"],
        ),
        rule(
            "a directory replaces a link",
            on(Layer::new().dir("l").file("l/x", "x")),
            &["d/", "d/f = old", "d/g = g", "d/s/", "d/s/x = x", "l/", "l/x = x"],
        ),
        rule(
            "a directory replaces a file",
            on(Layer::new().dir("d/f").file("d/f/x", "x")),
            &[
                "d/",
                "d/f/",
                "d/f/x = x",
                "d/g = g",
                "d/s/",
                "d/s/x = x",
                "l -> d",
            ],
        ),
        rule(
            "a link replaces a directory",
            on(Layer::new().symlink("d", "/none")),
            &["d -> /none", "l -> d"],
        ),
        rule(
            "a FIFO replaces a file",
            on(Layer::new().fifo("d/f")),
            &["d/", "d/f p", "d/g = g", "d/s/", "d/s/x = x", "l -> d"],
        ),
        rule(
            "a hard link replaces a directory",
            on(Layer::new().hard("d/s", "d/f")),
            &["d/", "d/f = old", "d/g = g", "d/s == d/f", "l -> d"],
        ),
        rule(
            "the other name of a replaced file stays",
            vec![
                Layer::new().file("a", "1").hard("b", "a"),
                Layer::new().file("a", "2"),
            ],
            &["a = 2", "b = 1"],
        ),
        rule(
            "the last of several wins",
            vec![
                Layer::new()
                    .file("a", "1")
                    .symlink("a", "x")
                    .file("a", "2")
                    .dir("a")
                    .file("a/b", "3"),
            ],
            &["a/", "a/b = 3"],
        ),
    ]
}

fn paths() -> Vec<Rule> {
    let on = |layer: Layer| vec![base(), layer];
    vec![
        rule(
            "absolute names and those with dots",
            vec![
                Layer::new()
                    .dir("./")
                    .dir("/abs")
                    .file("./abs/./a", "a")
                    .file("//abs//b", "b"),
            ],
            &["abs/", "abs/a = a", "abs/b = b"],
        ),
        rule(
            "missing directories are made",
            vec![Layer::new().file("a/b/c", "c")],
            &["a/", "a/b/", "a/b/c = c"],
        ),
        rule(
            "an entry below a link goes where the link points to",
            on(Layer::new().file("l/new", "n").file("l/f", "new")),
            &[
                "d/",
                "d/f = new",
                "d/g = g",
                "d/new = n",
                "d/s/",
                "d/s/x = x",
                "l -> d",
            ],
        ),
        rule(
            "absolute links stay inside",
            vec![
                Layer::new()
                    .dir("etc")
                    .symlink("a", "/etc")
                    .symlink("b", "../../../etc")
                    .file("a/x", "x")
                    .file("b/y", "y"),
            ],
            &["a -> /etc", "b -> ../../../etc", "etc/", "etc/x = x", "etc/y = y"],
        ),
        rule(
            "what a link points to is made when it is missing",
            vec![Layer::new().symlink("a", "/var/lib/x").file("a/y", "y")],
            &[
                "a -> /var/lib/x",
                "var/",
                "var/lib/",
                "var/lib/x/",
                "var/lib/x/y = y",
            ],
        ),
        rule(
            "links over links",
            vec![
                Layer::new()
                    .dir("z/y")
                    .symlink("a", "b")
                    .symlink("b", "z/c")
                    .symlink("z/c", "../z/./y")
                    .file("a/x", "x"),
            ],
            &["a -> b", "b -> z/c", "z/", "z/c -> ../z/./y", "z/y/", "z/y/x = x"],
        ),
        rule(
            "a hard link to a link is the link",
            vec![Layer::new().symlink("a", "x").hard("b", "a")],
            &["a -> x", "b -> x"],
        ),
        rule(
            "a hard link's target may be below a link, and of a lower layer",
            on(Layer::new().hard("h", "/l/f").hard("l/i", "./d/g")),
            &[
                "d/",
                "d/f = old",
                "d/g = g",
                "d/i == d/g",
                "d/s/",
                "d/s/x = x",
                "h == d/f",
                "l -> d",
            ],
        ),
        rule(
            "an empty layer, and one without its end",
            vec![Layer(Vec::new()), Layer::new().file("a", "a")],
            &["a = a"],
        ),
    ]
}

#[test]
fn every_rule_is_kept() {
    let rules = [whiteouts(), replacing(), paths()].into_iter().flatten();
    for rule in rules {
        let layers: Vec<Vec<u8>> = rule.layers.iter().cloned().map(finished).collect();
        let ours = listed(&layers);
        assert_eq!(short(&ours), rule.tree, "{}", rule.name);
        let Some(theirs) = umoci::unpack(&layers) else {
            continue;
        };
        compare(rule.name, &ours, &theirs, rule.umoci_forgets_times);
    }
}

#[test]
fn long_names_of_both_kinds_are_read() {
    let [p, g, k, q] = [("p", 150), ("g", 160), ("k", 120), ("q", 130)].map(|(c, len)| c.repeat(len));
    let layer = Layer::new()
        .file(format!("{p}/x"), "pax")
        .described(b'L', format!("{g}\0").as_bytes())
        .raw(&Head::new(b'0', "short").gnu().size(3).bytes(), "gnu")
        .described(b'K', format!("{k}\0").as_bytes())
        .raw(&Head::new(b'2', "k").gnu().bytes(), "")
        .symlink("q", &q)
        .raw(&Head::new(b'0', "name").patch(345, "prefix/of/posix").bytes(), "");
    let layers = [layer.end()];
    let ours = listed(&layers);
    let tree = [
        format!("{g} = gnu"),
        format!("k -> {k}"),
        format!("{p}/"),
        format!("{p}/x = pax"),
        "prefix/".to_owned(),
        "prefix/of/".to_owned(),
        "prefix/of/posix/".to_owned(),
        "prefix/of/posix/name = ".to_owned(),
        format!("q -> {q}"),
    ];
    assert_eq!(short(&ours), tree);
    if let Some(theirs) = umoci::unpack(&layers) {
        compare("long names", &ours, &theirs, false);
    }
}

/// A directory in two layers, and files with everything that a file can have.
fn described() -> Vec<Vec<u8>> {
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, mode, id) in [
        (1u16, 6u16, u32::MAX),
        (2, 4, 1000),
        (4, 4, u32::MAX),
        (16, 4, u32::MAX),
        (32, 0, u32::MAX),
    ] {
        acl.extend_from_slice(&[tag.to_le_bytes(), mode.to_le_bytes()].concat());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    let head = |kind, name: &str, mode, (uid, gid)| Head {
        mode,
        uid,
        gid,
        ..Head::new(kind, name)
    };
    let lower = Layer::new()
        .entry(&head(b'5', "./", 0o711, (1, 2)), "")
        .pax(&[
            ("SCHILY.xattr.user.old", b"gone"),
            ("mtime", b"1500000000.123456789"),
        ])
        .entry(&head(b'5', "d/", 0o2775, (70_000, 4_000_000_000)), "")
        .entry(&head(b'5', "kept/", 0o700, (5, 6)), "")
        .pax(&[("mtime", b"-5.25"), ("uid", b"4294967294")])
        .entry(&head(b'0', "kept/old", 0o4755, (0, 0)), "")
        .file("kept/gone", "x")
        .entry(
            &Head {
                device: (1, 3),
                ..head(b'3', "null", 0o666, (0, 0))
            },
            "",
        )
        .entry(
            &Head {
                device: (259, 70_000),
                ..head(b'4', "disk", 0o660, (0, 6))
            },
            "",
        );
    let upper = Layer::new()
        .pax(&[("SCHILY.xattr.user.new", b"a\nb=\0")])
        .entry(&head(b'5', "d/", 0o1777, (0, 0)), "")
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.trusted.x", b"no"),
        ])
        .entry(&head(b'0', "d/tool", 0o755, (0, 0)), "")
        .pax(&[
            ("SCHILY.xattr.system.posix_acl_access", &acl),
            ("SCHILY.xattr.user.large", &[b'v'; 2000]),
        ])
        .entry(&head(b'0', "d/acl", 0o640, (0, 0)), "")
        .file("kept/new", "n")
        .file("kept/.wh.gone", "")
        .file("implied/x", "x");
    vec![lower.end(), upper.end()]
}

#[test]
fn metadata_is_what_the_last_entry_says() {
    let layers = described();
    let ours = listed(&layers);
    let node = |path: &str| &ours[path.as_bytes()];
    assert_eq!((node("").mode, node("").owner), (0o711, (1, 2)));
    assert_eq!((node("d").mode, node("d").owner), (0o1777, (0, 0)));
    let names: Vec<&[u8]> = node("d").xattrs.keys().map(Vec::as_slice).collect();
    assert_eq!(names, [b"user.new"]);
    // Not touched by what comes and goes below it.
    assert_eq!(
        (node("kept").mode, node("kept").mtime),
        (0o700, Some((1_700_000_000, 0)))
    );
    assert_eq!(node("kept/old").owner.0, u32::MAX - 1);
    assert_eq!(node("kept/old").mtime, Some((-6, 750_000_000)));
    assert_eq!(
        (node("null").device, node("disk").device),
        ((1, 3), (259, 70_000))
    );
    assert_eq!(node("d/tool").xattrs.len(), 1);
    assert_eq!((node("implied").mode, node("implied").mtime), (0o755, None));
    if let Some(theirs) = umoci::unpack(&layers) {
        compare("metadata", &ours, &theirs, false);
    }
}

#[test]
fn a_hidden_directory_that_stays_is_an_implied_one() {
    let secret = Head {
        mode: 0o700,
        uid: 7,
        ..Head::new(b'5', "d/")
    };
    let lower = Layer::new().entry(&secret, "").file("d/old", "o").end();
    for upper in [
        Layer::new().file(".wh.d", "").file("d/new", "n").end(),
        Layer::new().file("d/new", "n").file(".wh.d", "").end(),
    ] {
        let ours = listed(&[lower.clone(), upper]);
        assert_eq!(short(&ours), ["d/", "d/new = n"]);
        let d = &ours[&b"d"[..]];
        assert_eq!((d.mode, d.owner.0, d.mtime), (0o755, 0, None));
    }
}

/// Stacks of layers from seeds: valid ones, in which whiteouts come at any place.
#[test]
fn random_stacks_are_what_umoci_makes_of_them() {
    for seed in 0..RANDOM_STACKS {
        let layers = Random::new(seed).stack();
        let ours = listed(&layers);
        let Some(theirs) = umoci::unpack(&layers) else {
            return;
        };
        compare(&format!("seed {seed}"), &ours, &theirs, true);
    }
}

/// An empty layer stays so.
fn finished(layer: Layer) -> Vec<u8> {
    if layer.0.is_empty() { layer.0 } else { layer.end() }
}

fn compare(name: &str, ours: &Listing, theirs: &Result<Listing, String>, without_times: bool) {
    let theirs = theirs
        .as_ref()
        .unwrap_or_else(|error| panic!("{name}: umoci: {error}"));
    let show = |path: &Vec<u8>| path.escape_ascii().to_string();
    if let Some(path) = theirs.keys().find(|path| !ours.contains_key(*path)) {
        panic!("{name}: {} is not in ours", show(path));
    }
    for (path, node) in ours {
        let Some(other) = theirs.get(path) else {
            panic!("{name}: {} is in ours alone", show(path));
        };
        let mut other = other.clone();
        // What no entry describes has the time of the unpacking there, and so has the root.
        if node.mtime.is_none() || path.is_empty() || without_times && node.kind == 'd' {
            other.mtime = node.mtime;
        }
        assert_eq!(*node, other, "{name}: {} (ours, theirs)", show(path));
    }
}
