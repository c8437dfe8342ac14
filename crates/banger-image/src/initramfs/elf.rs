//! As much of ELF as the archives need: the `.modinfo` of a module, and whether a program is
//! static. Every offset is checked; the files may be anybody's.

/// The 64-bit little-endian header.
struct Elf<'a> {
    bytes: &'a [u8],
}

/// The names in the `depends=` entry of a module's `.modinfo`.
pub(super) fn module_depends(bytes: &[u8]) -> Result<Vec<String>, &'static str> {
    let info = Elf::new(bytes)?
        .section(b".modinfo")
        .ok_or("it has no .modinfo section")?;
    let depends = info
        .split(|&byte| byte == 0)
        .find_map(|entry| entry.strip_prefix(b"depends="))
        .unwrap_or_default();
    Ok(depends
        .split(|&byte| byte == b',')
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect())
}

/// Refuses what the kernel could not start as `/init` without a dynamic linker.
pub(super) fn check_static_program(bytes: &[u8]) -> Result<(), &'static str> {
    const EXECUTABLE: u16 = 2;
    const SHARED: u16 = 3;
    const X86_64: u16 = 62;
    const INTERPRETER: u32 = 3;
    let elf = Elf::new(bytes)?;
    if !matches!(elf.u16(16), Some(EXECUTABLE | SHARED)) || elf.u16(18) != Some(X86_64) {
        return Err("it is not an executable for x86-64");
    }
    let (start, size, count) = (elf.offset(32), elf.u16(54), elf.u16(56));
    let (Some(start), Some(size), Some(count)) = (start, size, count) else {
        return Err("it is cut short");
    };
    for index in 0..usize::from(count) {
        let header = start.checked_add(index * usize::from(size));
        if header.and_then(|at| elf.u32(at)) == Some(INTERPRETER) {
            return Err("it needs a dynamic linker");
        }
    }
    Ok(())
}

impl<'a> Elf<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, &'static str> {
        // Class 2 is 64-bit, data 1 is little-endian.
        if bytes.get(..6) != Some(b"\x7fELF\x02\x01") {
            return Err("it is not a 64-bit ELF file");
        }
        Ok(Self { bytes })
    }

    fn section(&self, wanted: &[u8]) -> Option<&'a [u8]> {
        let start = self.offset(40)?;
        let size = usize::from(self.u16(58)?);
        let count = usize::from(self.u16(60)?);
        let header = |index: usize| start.checked_add(index.checked_mul(size)?);
        let names = self.content(header(usize::from(self.u16(62)?))?)?;
        (0..count).find_map(|index| {
            let at = header(index)?;
            let name = names.get(self.u32(at)? as usize..)?;
            let matches = name.strip_prefix(wanted)?.first() == Some(&0);
            if matches { self.content(at) } else { None }
        })
    }

    /// The bytes of the section whose header is at `at`.
    fn content(&self, at: usize) -> Option<&'a [u8]> {
        let start = self.offset(at.checked_add(24)?)?;
        let size = self.offset(at.checked_add(32)?)?;
        self.bytes.get(start..start.checked_add(size)?)
    }

    fn u16(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes.get(at..at.checked_add(2)?)?;
        Some(u16::from_le_bytes(bytes.try_into().ok()?))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    fn offset(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes.get(at..at.checked_add(8)?)?;
        usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A module with nothing but a `.modinfo` that says what it depends on.
    pub(in super::super) fn module(depends: &str) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let info = format!("license=GPL\0depends={depends}\0name=x\0");
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let (names_at, info_at) = (64, 64 + names.len());
        file.extend_from_slice(names);
        file.extend_from_slice(info.as_bytes());
        let headers_at = file.len() as u64;
        for (name, at, size) in [(0, 0, 0), (1, info_at, info.len()), (10, names_at, names.len())] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&u32::to_le_bytes(name));
            header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            file.extend_from_slice(&header);
        }
        file[40..48].copy_from_slice(&headers_at.to_le_bytes());
        file[58..60].copy_from_slice(&64_u16.to_le_bytes());
        file[60..62].copy_from_slice(&3_u16.to_le_bytes());
        file[62..64].copy_from_slice(&2_u16.to_le_bytes());
        file
    }

    #[test]
    fn dependencies_are_read() {
        assert_eq!(module_depends(&module("a,b-c")).unwrap(), ["a", "b-c"]);
        assert!(module_depends(&module("")).unwrap().is_empty());
        assert!(module_depends(b"\x7fELF\x02\x01").is_err());
        assert!(module_depends(b"#!/bin/sh").is_err());
    }

    #[test]
    fn no_cut_or_changed_byte_panics() {
        let whole = module("virtio,virtio_ring");
        for length in 0..whole.len() {
            let _ = module_depends(&whole[..length]);
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] = 0xff;
            let _ = module_depends(&changed);
            let _ = check_static_program(&changed);
        }
    }

    #[test]
    fn a_dynamic_program_is_refused() {
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(check_static_program(&this), Err("it needs a dynamic linker"));
    }
}
