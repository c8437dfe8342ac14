use super::*;
use banger_sys::landlock::FileAccess;
use banger_sys::launch::SystemCalls;

fn request(lines: Option<u32>, follow: Option<bool>) -> LogRequest {
    LogRequest {
        slot: Slot::new(7).unwrap(),
        invocation: "0123456789abcdef0123456789abcdef".to_owned(),
        options: LogReadOptions { lines, follow },
    }
}

#[test]
fn the_arguments_are_made_of_integers() {
    let fixed = "_SYSTEMD_UNIT=banger-vm-7.scope _UID=1879015431 \
        _SYSTEMD_INVOCATION_ID=0123456789abcdef0123456789abcdef";
    let all = arguments(&request(None, None)).join(" ");
    assert_eq!(
        all,
        format!("--quiet --no-pager --output=cat --lines=all {fixed}")
    );
    let some = arguments(&request(Some(u32::MAX), Some(true))).join(" ");
    assert_eq!(
        some,
        format!("--quiet --no-pager --output=cat --lines=1000000 --follow {fixed}")
    );
    let none = arguments(&request(Some(0), Some(false)));
    assert!(none.contains(&"--lines=0".to_owned()) && !none.contains(&"--follow".to_owned()));
}

#[test]
fn it_reads_the_journal_and_writes_nothing() {
    let spec = spec(&request(None, None));
    for rule in &spec.confinement.files {
        let reads = [FileAccess::Read, FileAccess::ReadExecute].contains(&rule.access);
        assert!(reads, "{rule:?}");
    }
    assert_eq!(spec.system_calls, Some(SystemCalls { unix_sockets: false }));
    assert_eq!(spec.environment.len(), 1);
}

#[test]
fn open_logs_are_counted_by_user() {
    let logs = Logs::default();
    let mut alices: Vec<Place> = (0..MAX_LOGS).map(|_| logs.enter(1).unwrap()).collect();
    assert!(logs.enter(1).is_err());
    let bobs: Vec<Place> = (0..MAX_LOGS).map(|_| logs.enter(2).unwrap()).collect();
    alices.pop();
    assert!(logs.enter(1).is_ok());
    drop((alices, bobs));
    assert!(logs.0.lock().unwrap().is_empty());
}
