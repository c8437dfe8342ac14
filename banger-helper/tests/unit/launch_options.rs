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
    let engine = Some(LaunchEngine::Firecracker.number());
    bad.push(LaunchOptions { engine, ..good() });
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
