//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number of bytes. Written as digits with an optional binary suffix, `K`, `M`, `G` or `T`
/// (also `KiB`, `MiB`, …, in either case): `512M`, `8G`, `1073741824`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(u64);

/// Text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Not a size: {0:?} (write digits and a unit, as 512M or 8G)")]
pub struct ParseSizeError(String);

const UNITS: [(&str, u32); 5] = [("T", 40), ("G", 30), ("M", 20), ("K", 10), ("", 0)];

impl Size {
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Saturates instead of wrapping: a size beyond 16 EiB fails every limit anyway.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1 << 20))
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Whole MiB, rounded down.
    pub const fn mib(self) -> u64 {
        self.0 >> 20
    }
}

impl fmt::Display for Size {
    /// The largest unit that loses nothing: `8G`, `1536M`, `1000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = UNITS
            .into_iter()
            .find(|&(_, shift)| self.0 != 0 && self.0 & ((1 << shift) - 1) == 0)
            .unwrap_or(("", 0));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseSizeError(text.to_owned());
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, suffix) = text.split_at(end);
        let suffix = suffix.trim_start().to_ascii_uppercase();
        let letter = suffix
            .strip_suffix("IB")
            .or(suffix.strip_suffix('B'))
            .unwrap_or(&suffix);
        let (_, shift) = UNITS
            .into_iter()
            .find(|&(unit, _)| unit == letter)
            .ok_or_else(refused)?;
        let number: u64 = digits.parse().map_err(|_| refused())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, shown) in [
            ("8G", 8 << 30, "8G"),
            ("512MiB", 512 << 20, "512M"),
            ("1536m", 1536 << 20, "1536M"),
            ("1000", 1000, "1000"),
            ("2 tib", 2 << 40, "2T"),
            ("0", 0, "0"),
            ("7b", 7, "7"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!(
                (size.bytes(), size.to_string()),
                (bytes, shown.to_owned()),
                "{text:?}"
            );
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "G",
            "-1G",
            "1.5G",
            "8X",
            "18446744073709551616",
            "99999999T",
            "8 G B",
            "8iB8",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }
}
