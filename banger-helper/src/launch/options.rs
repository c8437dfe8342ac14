//! What a caller may choose of a machine.

use banger_bus::ErrorKind;
use banger_bus::helper::{HelperError, HelperResult, LaunchEngine, LaunchOptions};
use banger_model::limits::{MAX_MEMORY_MIB, MAX_VCPUS, MIN_MEMORY_MIB};
use banger_model::{Slot, VmName};
use banger_vmm::Accelerator;

/// Checked options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) engine: LaunchEngine,
    pub(crate) accelerator: Accelerator,
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u64,
    /// The VM's.
    pub(crate) id: [u8; 16],
    pub(crate) name: VmName,
}

impl Options {
    /// # Errors
    /// `InvalidArgument` for what is missing or beyond its bounds.
    pub(crate) fn check(options: LaunchOptions, slot: Slot) -> HelperResult<Self> {
        let engine = given("Engine", options.engine)?;
        let engine = LaunchEngine::of_number(engine)
            .ok_or_else(|| invalid(&format!("No such engine: {engine} (0 QEMU, 1 Firecracker)")))?;
        let emulated = given("Emulated", options.emulated)?;
        let vcpus = given("Vcpus", options.vcpus)?;
        if !(1..=MAX_VCPUS).contains(&vcpus) {
            return Err(invalid(&format!("Vcpus is {vcpus} (1 to {MAX_VCPUS})")));
        }
        let memory_mib = given("MemoryMib", options.memory_mib)?;
        if !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&memory_mib) {
            return Err(invalid(&format!(
                "MemoryMib is {memory_mib} ({MIN_MEMORY_MIB} to {MAX_MEMORY_MIB})"
            )));
        }
        let (high, low) = given("Id", options.id)?;
        let id = (u128::from(high) << 64) | u128::from(low);
        Ok(Self {
            engine,
            accelerator: if emulated {
                Accelerator::Tcg
            } else {
                Accelerator::Kvm
            },
            vcpus,
            memory_mib,
            id: id.to_be_bytes(),
            name: name(options.name, slot)?,
        })
    }
}

fn given<T>(key: &str, value: Option<T>) -> HelperResult<T> {
    value.ok_or_else(|| invalid(&format!("{key} is missing")))
}

fn name(name: Option<String>, slot: Slot) -> HelperResult<VmName> {
    let text = name.unwrap_or_else(|| format!("slot-{slot}"));
    // What it was is not repeated: it may be anything.
    text.parse().map_err(|_| invalid("Name is not a VM's name"))
}

fn invalid(text: &str) -> HelperError {
    HelperError::new(ErrorKind::InvalidArgument, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> LaunchOptions {
        LaunchOptions {
            engine: Some(0),
            emulated: Some(true),
            vcpus: Some(2),
            memory_mib: Some(512),
            id: Some((1, 2)),
            name: Some("web".into()),
        }
    }

    fn check(options: LaunchOptions) -> HelperResult<Options> {
        Options::check(options, Slot::new(7).unwrap())
    }

    #[test]
    fn good_options_are_taken() {
        let options = check(good()).unwrap();
        assert_eq!(options.engine, LaunchEngine::Qemu);
        assert_eq!(options.accelerator, Accelerator::Tcg);
        assert_eq!(options.id, [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        let nameless = LaunchOptions {
            name: None,
            emulated: Some(false),
            ..good()
        };
        let options = check(nameless).unwrap();
        assert_eq!(options.name.as_str(), "slot-7");
        assert_eq!(options.accelerator, Accelerator::Kvm);
    }

    #[test]
    fn bounds_hold_on_both_sides() {
        for vcpus in [1, MAX_VCPUS] {
            let vcpus = Some(vcpus);
            assert!(check(LaunchOptions { vcpus, ..good() }).is_ok());
        }
        for memory_mib in [MIN_MEMORY_MIB, MAX_MEMORY_MIB] {
            let memory_mib = Some(memory_mib);
            assert!(check(LaunchOptions { memory_mib, ..good() }).is_ok());
        }
        let mut bad = vec![LaunchOptions::default()];
        for engine in [None, Some(2), Some(u8::MAX)] {
            bad.push(LaunchOptions { engine, ..good() });
        }
        for vcpus in [None, Some(0), Some(MAX_VCPUS + 1), Some(u32::MAX)] {
            bad.push(LaunchOptions { vcpus, ..good() });
        }
        for memory_mib in [
            None,
            Some(MIN_MEMORY_MIB - 1),
            Some(MAX_MEMORY_MIB + 1),
            Some(u64::MAX),
        ] {
            bad.push(LaunchOptions { memory_mib, ..good() });
        }
        let (emulated, id) = (None, None);
        bad.push(LaunchOptions { emulated, ..good() });
        bad.push(LaunchOptions { id, ..good() });
        for name in ["", "a b", "a\nb", "../x", "\u{1b}[2J", &"x".repeat(64)] {
            let name = Some(name.to_owned());
            bad.push(LaunchOptions { name, ..good() });
        }
        for options in bad {
            let HelperError::Refused(refusal) = check(options.clone()).unwrap_err() else {
                panic!("{options:?}");
            };
            assert_eq!(refusal.kind, ErrorKind::InvalidArgument, "{options:?}");
            assert!(!refusal.message.contains('\u{1b}'), "{refusal}");
        }
    }
}
