//! What makes one file system differ from another with the same content.

use std::io;

use serde::{Deserialize, Serialize};

/// The identity and the time of a file system. The same entries with the same seed give the
/// same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// In the order of RFC 9562.
    pub uuid: [u8; 16],
    /// What the hashes of directories start with.
    pub hash_seed: [u8; 16],
    /// Seconds since 1970 of the superblock, `lost+found`, and directories that no entry
    /// describes.
    pub time: i64,
}

impl Seed {
    /// One that no other file system has, of now.
    ///
    /// # Errors
    /// The kernel has no random bytes.
    pub fn random() -> io::Result<Self> {
        let mut random = [0; 32];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self::new(&random, 4, crate::store::now().cast_signed()))
    }

    /// The one of a digest, for instance of an image's configuration: the UUID is of
    /// RFC 9562's version 8.
    #[must_use]
    pub fn from_digest(digest: &[u8; 32], time: i64) -> Self {
        Self::new(digest, 8, time)
    }

    fn new(bytes: &[u8; 32], version: u8, time: i64) -> Self {
        let [mut uuid, hash_seed] = [0, 16].map(|at| {
            let mut half = [0; 16];
            half.copy_from_slice(&bytes[at..at + 16]);
            half
        });
        uuid[6] = uuid[6] & 0x0f | version << 4;
        // The variant of the RFC.
        uuid[8] = uuid[8] & 0x3f | 0x80;
        Self {
            uuid,
            hash_seed,
            time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_gives_one_uuid() {
        let seed = Seed::from_digest(&[0xff; 32], 7);
        assert_eq!(seed, Seed::from_digest(&[0xff; 32], 7));
        assert_eq!((seed.uuid[6], seed.uuid[8], seed.time), (0x8f, 0xbf, 7));
        assert_eq!(seed.hash_seed, [0xff; 16]);
    }

    #[test]
    fn random_ones_differ() {
        let (a, b) = (Seed::random().unwrap(), Seed::random().unwrap());
        assert_ne!(a.uuid, b.uuid);
        assert_eq!((a.uuid[6] >> 4, a.uuid[8] >> 6), (4, 2));
    }
}
