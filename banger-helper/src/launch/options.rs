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
        if emulated && engine == LaunchEngine::Firecracker {
            return Err(invalid("Firecracker emulates nothing: it needs KVM"));
        }
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
#[path = "../../tests/unit/launch_options.rs"]
mod tests;
