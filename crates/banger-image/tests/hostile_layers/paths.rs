//! Names and links that lead out of the tree, or nowhere.

use super::support::layer::Layer;
use super::{
    Case,
    End::{Error, Tree},
    case,
};
use banger_image::ext4::limits;

pub(crate) fn ways_out(canary: &str) -> Vec<Case> {
    let new = Layer::new;
    vec![
        case(
            "dots in a name",
            vec![new().file("../../etc/passwd", "x")],
            Error("BadPath"),
        ),
        case(
            "dots behind a directory",
            vec![new().dir("a").file("a/../../b", "x")],
            Error("BadPath"),
        ),
        case(
            "dots that stay inside",
            vec![new().dir("a").file("a/../b", "x")],
            Error("BadPath"),
        ),
        case("dots alone", vec![new().dir("..")], Error("BadPath")),
        case(
            "an absolute name of the host",
            vec![new().file("/canary/file", "x")],
            Tree(&["canary/", "canary/file = x"]),
        ),
        case(
            "the canary's own path, and its whiteout",
            vec![
                new().file(canary, "changed").symlink("l", canary),
                new().file("l", "changed").file(".wh..wh..opq", ""),
            ],
            Tree(&["l = changed"]),
        ),
        case(
            "a link to / as a parent",
            vec![new().symlink("foo", "/").file("foo/etc/x", "x")],
            Tree(&["etc/", "etc/x = x", "foo -> /"]),
        ),
        case(
            "a link far above as a parent",
            vec![new().symlink("foo", "../../../../../..").file("foo/x", "x")],
            Tree(&["foo -> ../../../../../..", "x = x"]),
        ),
        case(
            "a link of a lower layer as a parent",
            vec![new().symlink("d", "/tmp"), new().dir("d/e").file("d/e/x", "x")],
            Tree(&["d -> /tmp", "tmp/", "tmp/e/", "tmp/e/x = x"]),
        ),
        case(
            "a link over a directory, then below it",
            vec![new().dir("d").symlink("d", "/proc/self/root").file("d/x", "x")],
            Tree(&[
                "d -> /proc/self/root",
                "proc/",
                "proc/self/",
                "proc/self/root/",
                "proc/self/root/x = x",
            ]),
        ),
        case(
            "the name of a link with a slash and a dot",
            vec![new().symlink("d", "/etc").file("d/.", "x")],
            Tree(&["d = x"]),
        ),
        case(
            "a hard link to the host",
            vec![new().hard("h", "/etc/passwd")],
            Error("BadLink"),
        ),
        case(
            "a hard link upwards",
            vec![new().hard("h", "../../etc/passwd")],
            Error("BadPath"),
        ),
        case(
            "a hard link below a link to the host",
            vec![new().symlink("l", "/etc").hard("h", "l/passwd")],
            Error("BadLink"),
        ),
        case(
            "a hard link to a directory",
            vec![new().dir("d").hard("h", "d")],
            Error("BadLink"),
        ),
        case(
            "a hard link to the root",
            vec![new().hard("h", "/")],
            Error("BadLink"),
        ),
        case(
            "a hard link to nothing",
            vec![new().hard("h", "")],
            Error("BadLink"),
        ),
        case(
            "a hard link in the place of what it links to",
            vec![new().file("d/f", "x").hard("d", "d/f")],
            Error("BadLink"),
        ),
        case(
            "a file over a hard link of a lower layer's file",
            vec![new().file("a", "1"), new().hard("b", "a").file("b", "2")],
            Tree(&["a = 1", "b = 2"]),
        ),
    ]
}

pub(crate) fn loops() -> Vec<Case> {
    let new = Layer::new;
    let chain = |len: usize| {
        let mut layer = new().dir("end");
        for i in 0..len {
            let target = if i + 1 == len {
                "end".to_owned()
            } else {
                format!("l{}", i + 1)
            };
            layer = layer.symlink(format!("l{i}"), target);
        }
        layer.file("l0/x", "x")
    };
    let deep = "a/".repeat(limits::MAX_DEPTH - 1) + "b";
    vec![
        case(
            "a link to itself",
            vec![new().symlink("l", "l").file("l/x", "x")],
            Error("LinkLoop"),
        ),
        case(
            "two links to each other",
            vec![new().symlink("a", "b").symlink("b", "a").file("a/x", "")],
            Error("LinkLoop"),
        ),
        case(
            "a link that grows",
            vec![new().symlink("a", "a/a/a").file("a/x", "")],
            Error("LinkLoop"),
        ),
        case("41 links in a row", vec![chain(41)], Error("LinkLoop")),
        case(
            "a whiteout behind a loop",
            vec![new().symlink("l", "l").file("l/.wh.x", "")],
            Error("LinkLoop"),
        ),
        case(
            "a hard link behind a loop",
            vec![new().symlink("l", "l").hard("h", "l/x")],
            Error("LinkLoop"),
        ),
        case(
            "many names on the way",
            vec![new().symlink("l", "a/../".repeat(700)).dir("a").file("l/x", "")],
            Error("BadPath"),
        ),
        case(
            "129 directories",
            vec![new().dir("d/".repeat(129))],
            Error("BadPath"),
        ),
        case(
            "deeper through a link",
            vec![new().dir(&deep).symlink("l", &deep).file("l/c/x", "")],
            Error("BadPath"),
        ),
        case(
            "a path of 4097 bytes",
            vec![new().dir("/".repeat(4096) + "a")],
            Error("BadPath"),
        ),
        case(
            "a name of 256 bytes",
            vec![new().dir("n".repeat(256))],
            Error("BadPath"),
        ),
        case(
            "a NUL in a name",
            vec![new().pax(&[("path", b"a\0b")]).file("x", "")],
            Error("BadPath"),
        ),
        case(
            "a link without a target",
            vec![new().symlink("l", "")],
            Error("BadPath"),
        ),
        case(
            "a target of 4096 bytes",
            vec![new().symlink("l", "t".repeat(4096))],
            Error("BadPath"),
        ),
        case(
            "a file as a parent",
            vec![new().file("f", ""), new().file("f/x", "")],
            Error("NotADirectory"),
        ),
        case("no name", vec![new().file("", "x")], Error("Damaged")),
        case(
            "a file in the place of the root",
            vec![new().file("./", "")],
            Error("Unsupported"),
        ),
        case(
            "a link in the place of the root",
            vec![new().symlink("/", "x")],
            Error("IsADirectory"),
        ),
        case(
            "no lost+found",
            vec![new().file(".wh.lost+found", "").file(".wh..wh..opq", "")],
            Tree(&[]),
        ),
        case(
            "a file lost+found",
            vec![new().file("lost+found", "")],
            Error("IsADirectory"),
        ),
    ]
}
