//! Maps of sparse files.

use super::support::layer::{Head, Layer};
use super::{
    Case,
    End::{Error, Tree},
    case, raw,
};

pub(crate) fn sparse() -> Vec<Case> {
    let new = Layer::new;
    let pax = |records: &[(&str, &[u8])], content: &[u8]| new().pax(records).file("f", content);
    let v01 = |size: &str, count: &str, map: &str, content: &[u8]| {
        pax(
            &[
                ("GNU.sparse.size", size.as_bytes()),
                ("GNU.sparse.numblocks", count.as_bytes()),
                ("GNU.sparse.map", map.as_bytes()),
            ],
            content,
        )
    };
    let v10 = |map: &str, content: &[u8]| {
        let mut all = map.as_bytes().to_vec();
        all.resize(all.len().next_multiple_of(512), 0);
        all.extend_from_slice(content);
        let records: [(&str, &[u8]); 4] = [
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.realsize", b"10"),
        ];
        pax(&records, &all)
    };
    let old = |real: &str, parts: &[(&str, &str)]| {
        let mut head = Head::new(b'S', "f").gnu().patch(483, real);
        for (i, (offset, len)) in parts.iter().enumerate() {
            head = head.patch(386 + 24 * i, offset).patch(398 + 24 * i, len);
        }
        head
    };
    let pebibyte = (1u64 << 50).to_string();
    vec![
        case(
            "a sparse file of 1 PiB",
            vec![v01(&pebibyte, "1", "0,1", b"x")],
            Error("TooLarge"),
        ),
        case(
            "an old sparse file of 1 PiB",
            vec![
                new().raw(
                    &old("\u{80}", &[])
                        .patch(483, b"\x80\0\0\0\0\x04\0\0\0\0\0\0")
                        .bytes(),
                    "",
                ),
            ],
            Error("TooLarge"),
        ),
        case(
            "small holes",
            vec![v01("10", "2", "2,1,5,2", b"abc")],
            Tree(&[r"f = \x00\x00a\x00\x00bc\x00\x00\x00"]),
        ),
        case(
            "a map in the content",
            vec![v10("2\n0\n1\n9\n1\n", b"ab")],
            Tree(&[r"real = a\x00\x00\x00\x00\x00\x00\x00\x00b"]),
        ),
        case(
            "parts over each other",
            vec![v01("10", "2", "0,5,3,5", b"0123456789")],
            Error("Damaged"),
        ),
        case(
            "parts in no order",
            vec![v01("10", "2", "5,5,0,5", b"0123456789")],
            Error("Damaged"),
        ),
        case(
            "a part beyond the end",
            vec![v01("10", "1", "8,5", b"01234")],
            Error("Damaged"),
        ),
        case(
            "a part at 2^63-1",
            vec![v01("10", "1", "9223372036854775807,5", b"01234")],
            Error("Damaged"),
        ),
        case(
            "less content than parts",
            vec![v01("10", "1", "0,5", b"012")],
            Error("Damaged"),
        ),
        case(
            "more content than parts",
            vec![v01("10", "1", "0,2", b"0123")],
            Error("Damaged"),
        ),
        case(
            "a wrong number of parts",
            vec![v01("10", "3", "0,4", b"0123")],
            Error("Damaged"),
        ),
        case(
            "half a part",
            vec![v01("10", "1", "0,4,5", b"0123")],
            Error("Unsupported"),
        ),
        case(
            "a million parts in a map",
            vec![v10("1000000\n0\n1\n", b"")],
            Error("TooManySegments"),
        ),
        case(
            "a map without an end",
            vec![v10(&"1".repeat(512), b"")],
            Error("Damaged"),
        ),
        case(
            "an old map with too much",
            vec![
                new().raw(
                    &old("00000000012", &[("00000000000", "00000000005")])
                        .size(3)
                        .bytes(),
                    "abc",
                ),
            ],
            Error("Damaged"),
        ),
        raw(
            "an old map that goes on and is cut",
            new()
                .raw(
                    &old("00000000012", &[("00000000000", "00000000000")])
                        .patch(482, [1])
                        .bytes(),
                    "",
                )
                .0,
            Error("ArchiveTruncated"),
        ),
        case(
            "a sparse directory",
            vec![new().pax(&[("GNU.sparse.size", b"5")]).dir("d")],
            Error("Unsupported"),
        ),
        case(
            "an unknown version",
            vec![
                new()
                    .pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.size", b"5")])
                    .file("f", ""),
            ],
            Error("Damaged"),
        ),
    ]
}
