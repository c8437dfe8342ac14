//! Fuzz targets: each takes bytes as a stranger may send them, and panics when something does
//! not hold that the rest of the program relies on.
//!
//! A target is a module with `run`, the check, and `seeds`, small inputs that get far into the
//! parser. `scripts/fuzz` builds each with libFuzzer; the tests here run them on their seeds.

pub mod archive;
pub mod bundle;
pub mod catalogue;
pub mod compressed;
pub mod credentials;
pub mod layer;
pub mod manifest;
pub mod metadata;
pub mod names;
pub mod reference;

#[cfg(feature = "libfuzzer")]
pub use libfuzzer::write_seeds;

#[cfg(feature = "libfuzzer")]
mod libfuzzer {
    use std::path::Path;

    /// Called by a fuzzer before it starts: with `BANGER_FUZZ_SEEDS=DIR` it only writes its
    /// seeds there.
    ///
    /// # Panics
    /// When it cannot write them.
    pub fn write_seeds(seeds: fn() -> Vec<Vec<u8>>) {
        let Some(dir) = std::env::var_os("BANGER_FUZZ_SEEDS") else {
            return;
        };
        for (number, seed) in seeds().iter().enumerate() {
            let path = Path::new(&dir).join(format!("seed-{number:03}"));
            std::fs::write(&path, seed).expect("the seeds' directory can be written");
        }
        std::process::exit(0);
    }
}

/// Makes a program of a target, with the mutations of the module that is named second.
#[cfg(feature = "libfuzzer")]
#[macro_export]
macro_rules! fuzz {
    ($target:ident, $mutator:ident) => {
        $crate::fuzz!($target);
        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            // A mutation that makes it smaller gets less room than there is.
            let size = size.min(max_size);
            let mut bytes =
                |data: &mut [u8], size: usize| libfuzzer_sys::fuzzer_mutate(data, size, data.len());
            $crate::$mutator::mutate(&mut data[..max_size], size, seed, &mut bytes)
        });
        libfuzzer_sys::fuzz_crossover!(|left: &[u8], right: &[u8], out: &mut [u8], seed: u32| {
            $crate::$mutator::cross(left, right, out, seed)
        });
    };
    ($target:ident) => {
        libfuzzer_sys::fuzz_target!(
            init: $crate::write_seeds($crate::$target::seeds),
            |data: &[u8]| $crate::$target::run(data)
        );
    };
}
