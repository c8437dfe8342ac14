//! Archives that are cut or damaged, and headers that say what cannot be.

use super::support::layer::{Head, Layer, pax_records};
use super::{
    Case,
    End::{Error, Tree},
    case, raw,
};

pub(crate) fn headers() -> Vec<Case> {
    let new = Layer::new;
    let file = || Head::new(b'0', "f");
    let whole = || new().file("a", "12345").end();
    let mut bad_sum = whole();
    bad_sum[150] ^= 1;
    let mut between = new().file("a", "1").0;
    between.resize(between.len() + 512, 0);
    let between = [between, new().file("b", "2").end()].concat();
    let huge = Head::new(b'x', "x").patch(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    vec![
        raw(
            "cut in a header",
            whole()[..100].to_vec(),
            Error("ArchiveTruncated"),
        ),
        raw("cut in content", whole()[..514].to_vec(), Error("Truncated")),
        raw(
            "cut behind content",
            whole()[..1000].to_vec(),
            Tree(&["a = 12345"]),
        ),
        raw(
            "cut between entries",
            whole()[..1024].to_vec(),
            Tree(&["a = 12345"]),
        ),
        raw(
            "cut before an entry that is described",
            new().pax(&[("path", b"a")]).0,
            Error("ArchiveTruncated"),
        ),
        raw(
            "cut in a description",
            new().pax(&[("path", b"a")]).0[..520].to_vec(),
            Error("ArchiveTruncated"),
        ),
        raw("a wrong checksum", bad_sum, Error("Damaged")),
        raw("zeros between entries", between, Error("Damaged")),
        raw(
            "garbage behind the end",
            [whole(), vec![0xff; 5000]].concat(),
            Tree(&["a = 12345"]),
        ),
        raw("no archive", vec![b'x'; 4096], Error("Damaged")),
        case(
            "a size that is none",
            vec![new().raw(&file().patch(124, "zzz").bytes(), "")],
            Error("Damaged"),
        ),
        case(
            "a size below zero",
            vec![new().raw(&file().patch(124, [0xff; 12]).bytes(), "")],
            Error("Damaged"),
        ),
        case(
            "a size of 2^62",
            vec![new().raw(&file().patch(124, b"\x80\0\0\0\x40\0\0\0\0\0\0\0").bytes(), "")],
            Error("TooLarge"),
        ),
        case(
            "two sizes",
            vec![new().pax(&[("size", b"3")]).raw(&file().size(5).bytes(), "abc")],
            Tree(&["f = abc"]),
        ),
        case(
            "a size that hides an entry",
            vec![
                new()
                    .pax(&[("size", b"512")])
                    .raw(&file().bytes(), Head::new(b'0', "hidden").bytes())
                    .file("f", ""),
            ],
            Tree(&["f = "]),
        ),
        case(
            "a description of 2^63 bytes",
            vec![new().raw(&huge.bytes(), "")],
            Error("Unsupported"),
        ),
        case(
            "a description of 2 MiB",
            vec![new().described(b'x', &pax_records(&[("comment", &vec![b'c'; 2 << 20])]))],
            Error("Unsupported"),
        ),
        case(
            "descriptions without end",
            vec![(0..20).fold(new(), |layer, _| layer.described(b'g', b""))],
            Error("Unsupported"),
        ),
        case(
            "two descriptions",
            vec![new().pax(&[("uid", b"1")]).pax(&[("uid", b"2")]).file("f", "")],
            Error("Unsupported"),
        ),
        case(
            "two names",
            vec![new().pax(&[("path", b"a")]).described(b'L', b"b\0").file("f", "")],
            Error("Unsupported"),
        ),
        case(
            "a global name",
            vec![
                new()
                    .described(b'g', &pax_records(&[("path", b"a")]))
                    .file("f", ""),
            ],
            Error("Unsupported"),
        ),
        case(
            "a malformed record",
            vec![new().described(b'x', b"9999 path=a\n").file("f", "")],
            Error("Unsupported"),
        ),
        case(
            "the owner 2^32-1",
            vec![new().pax(&[("uid", b"4294967295")]).file("f", "")],
            Error("Unsupported"),
        ),
        case(
            "the group 2^32",
            vec![new().pax(&[("gid", b"4294967296")]).file("f", "")],
            Error("Unsupported"),
        ),
        case(
            "a directory with content",
            vec![new().entry(&Head::new(b'5', "d").size(5), "12345")],
            Error("Unsupported"),
        ),
        case(
            "a hard link with a size",
            vec![
                new()
                    .file("f", "x")
                    .raw(&Head::new(b'1', "h").link("f").size(512).bytes(), "")
                    .file("g", "y"),
            ],
            Tree(&["f = x", "g = y", "h == f"]),
        ),
        case(
            "a file with the name of a directory",
            vec![new().file("f/", "x")],
            Error("Unsupported"),
        ),
        case(
            "a directory as of old",
            vec![new().raw(&Head::new(0, "d/").bytes(), "")],
            Tree(&["d/"]),
        ),
        case(
            "an unknown type",
            vec![new().entry(&Head::new(b'Q', "f"), "")],
            Error("Unsupported"),
        ),
        case(
            "a device that Linux has not",
            vec![new().entry(
                &Head {
                    device: (5000, 1),
                    ..Head::new(b'3', "c")
                },
                "",
            )],
            Error("Unsupported"),
        ),
        case(
            "attributes of 5000 bytes",
            vec![new().pax(&[("SCHILY.xattr.user.a", &[b'a'; 5000])]).file("f", "")],
            Error("Attributes"),
        ),
        case(
            "attributes of others",
            vec![
                new()
                    .pax(&[
                        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                        ("SCHILY.xattr.security.selinux", b"s"),
                    ])
                    .dir("d"),
            ],
            Tree(&["d/"]),
        ),
    ]
}
