//! Whiteouts of what must not go.

use super::support::layer::Layer;
use super::{
    Case,
    End::{Error, Tree},
    case,
};

pub(crate) fn whiteouts() -> Vec<Case> {
    let new = Layer::new;
    let lower = || new().file("d/f", "f").file("g", "g");
    vec![
        case(
            "a whiteout of nothing",
            vec![lower(), new().file("d/.wh.", "")],
            Error("BadWhiteout"),
        ),
        case(
            "a whiteout of .",
            vec![lower(), new().file("d/.wh..", "")],
            Error("BadWhiteout"),
        ),
        case(
            "a whiteout of ..",
            vec![lower(), new().file("d/.wh...", "")],
            Error("BadWhiteout"),
        ),
        case(
            "an entry below a whiteout",
            vec![lower(), new().file(".wh.d/x", "")],
            Error("BadPath"),
        ),
        case(
            "a whiteout below a whiteout",
            vec![lower(), new().file(".wh.d/.wh.f", "")],
            Error("BadPath"),
        ),
        case(
            "a directory as a whiteout",
            vec![lower(), new().dir("d/.wh.f/")],
            Tree(&["d/", "g = g"]),
        ),
        case(
            "a link as an opaque whiteout",
            vec![lower(), new().symlink("d/.wh..wh..opq", "/")],
            Tree(&["d/", "g = g"]),
        ),
        case(
            "a hard link to a whiteout",
            vec![lower(), new().hard("x", "d/.wh.f")],
            Error("BadLink"),
        ),
        case(
            "a whiteout of a whiteout",
            vec![
                lower(),
                new().file(".wh..wh.g", "").file("d/.wh..wh..wh..opq", ""),
            ],
            Tree(&["d/", "d/f = f", "g = g"]),
        ),
        case(
            "a whiteout below a file",
            vec![lower(), new().file("g/.wh.x", "").file("g/.wh..wh..opq", "")],
            Tree(&["d/", "d/f = f", "g = g"]),
        ),
        case(
            "a whiteout through a link to the root",
            vec![lower().symlink("d/up", "../../.."), new().file("d/up/.wh.g", "")],
            Tree(&["d/", "d/f = f", "d/up -> ../../.."]),
        ),
        case(
            "a whiteout of a parent",
            vec![lower(), new().file("d/../.wh.g", "")],
            Error("BadPath"),
        ),
    ]
}
