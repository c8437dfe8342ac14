//! Bundles. The input is the archive: it is compressed here, because hardly any other bytes are
//! what zstd can read ([`crate::compressed`] has those).

use std::fs::File;

use banger_image::bundle::{BundleError, Limits, Manifest, read};
use rustix::fs::MemfdFlags;

use crate::archive::{self, Part};

const LIMITS: Limits = Limits {
    size: 64 << 20,
    data: 8 << 20,
    ratio: 200,
};

/// # Panics
/// When something does not hold.
pub fn run(data: &[u8]) {
    let bundle = zstd::encode_all(data, 1).expect("it can be compressed");
    match unpack(&bundle) {
        Ok((manifest, target)) => {
            let len = target.metadata().expect("it has a length").len();
            match &manifest {
                Manifest::Image(image) => assert_eq!(len, image.size),
                Manifest::Kernel(kernel) => {
                    let parts = kernel.vmlinux + kernel.config.unwrap_or(0) + kernel.modules.unwrap_or(0);
                    assert_eq!(len, parts);
                }
            }
            let cut = unpack(&bundle[..bundle.len() - 1]);
            assert!(cut.is_err(), "A bundle without its end");
        }
        Err(error) => {
            assert!(!matches!(error, BundleError::Write(_)), "{error:?}");
            assert!(error.to_string().len() < 8192, "{error}");
        }
    }
}

fn unpack(bundle: &[u8]) -> Result<(Manifest, File), BundleError> {
    let target =
        File::from(rustix::fs::memfd_create("bundle", MemfdFlags::empty()).expect("a file in memory"));
    read(bundle, &target, &LIMITS, |_| Ok(())).map(|manifest| (manifest, target))
}

pub fn seeds() -> Vec<Vec<u8>> {
    let image = |size: u64| {
        let text = format!(
            r#"{{"kind":"image","version":1,"name":"a:1","kernel":"k","size":{size},"content":9,"created":5,"origin":"here","config":{{"env":{{"A":"b"}}}}}}"#
        );
        Part::new(b'0', "manifest.json", text.as_bytes())
    };
    let kernel = |rest: &str| {
        let text = format!(
            r#"{{"kind":"kernel","version":1,"name":"k","release":"6.1","vmlinux":700,{rest}"created":0,"origin":""}}"#
        );
        Part::new(b'0', "manifest.json", text.as_bytes())
    };
    let mut map = b"3\n0\n5\n100000\n7\n2000000\n0\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"abcdefghijkl");
    let sparse = Part::records(&[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"rootfs.ext4"),
        ("GNU.sparse.realsize", b"2000000"),
    ]);
    let modules = archive::build(&[Part::new(b'0', "lib/modules/6.1/a.ko", b"ELF"), Part::End]);
    [
        vec![image(4096), Part::new(b'0', "rootfs.ext4", &[1; 4096])],
        vec![
            image(2_000_000),
            sparse,
            Part::new(b'0', "GNUSparseFile.0/rootfs.ext4", &map),
        ],
        vec![kernel(""), Part::new(b'0', "vmlinux", &[2; 700])],
        vec![
            kernel(&format!(r#""config":3,"modules":{},"#, modules.len())),
            Part::new(b'0', "vmlinux", &[2; 700]),
            Part::new(b'0', "config", b"A=y"),
            Part::new(b'0', "modules.tar", &modules),
        ],
    ]
    .map(|parts| archive::build(&[&parts[..], &[Part::End]].concat()))
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_bundles() {
        for seed in seeds() {
            run(&seed);
            let bundle = zstd::encode_all(&seed[..], 1).unwrap();
            unpack(&bundle).unwrap();
        }
    }
}
