//! Who the daemon talks to on the system bus.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use banger_bus::ErrorKind;
use banger_bus::helper::{
    FileRole, HelperApi, HelperCaller, HelperError, HelperResult, LaunchOptions, LogReadOptions, SlotGrant,
    SlotInfo, WireHandle,
};
use banger_model::guest::{GuestMessage, HostMessage};
use banger_model::{Slot, SlotHandle};
use banger_sys::pidfd::Pidfd;
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use zbus::object_server::SignalEmitter;
use zbus::{ObjectPath, OwnedObjectPath, OwnedVariant};

/// What a console says.
pub(crate) const CONSOLE: &str = "[    0.000000] Linux version 6.1\n";

/// A helper that launches nothing but a `sleep`.
#[derive(Clone)]
pub(crate) struct FakeHelper {
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    slots: BTreeMap<u16, Held>,
    calls: Vec<String>,
    handles: u64,
    /// What it answers to this method.
    refusal: Option<(&'static str, HelperError)>,
    /// Whether its guests say that they are up.
    silent: bool,
}

struct Held {
    handle: WireHandle,
    network: u8,
    vmm: Option<Arc<Vmm>>,
}

/// What stands for a VMM.
pub(crate) struct Vmm {
    pub(crate) process: Pidfd,
    pub(crate) options: LaunchOptions,
    pub(crate) roles: Vec<FileRole>,
    ended: AtomicBool,
}

impl FakeHelper {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::default(),
            changes: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Has a method refused from now on.
    pub(crate) fn refuse(&self, method: &'static str, error: HelperError) {
        self.lock().refusal = Some((method, error));
    }

    pub(crate) fn allow(&self) {
        self.lock().refusal = None;
    }

    pub(crate) fn silence_guests(&self) {
        self.lock().silent = true;
    }

    /// What it was asked since the last time.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().calls)
    }

    /// Waits until it was asked for something and its answer was made.
    pub(crate) async fn asked(&self, call: &str) {
        self.until(|state| state.calls.iter().any(|one| one == call))
            .await;
    }

    /// Waits until no slot is held.
    pub(crate) async fn empty(&self) {
        self.until(|state| state.slots.is_empty()).await;
    }

    pub(crate) fn slots(&self) -> usize {
        self.lock().slots.len()
    }

    /// The VMM of the first slot that is held.
    pub(crate) fn vmm(&self) -> Option<Arc<Vmm>> {
        self.lock().slots.values().find_map(|held| held.vmm.clone())
    }

    /// A slot that some daemon took and forgot.
    pub(crate) fn leave_slot(&self) {
        self.lock().take(0);
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        let mut changes = self.changes.subscribe();
        let waiting = changes.wait_for(|_| reached(&self.lock()));
        let waited = tokio::time::timeout(crate::rig::LIMIT, waiting).await;
        waited.expect("it happens in time").unwrap();
    }

    fn note(&self, call: &'static str) -> HelperResult<MutexGuard<'_, State>> {
        let refused = {
            let mut state = self.lock();
            state.calls.push(call.to_owned());
            match &state.refusal {
                Some((method, error)) if *method == call => Some(error.clone()),
                _ => None,
            }
        };
        self.changes.send_modify(|count| *count += 1);
        match refused {
            Some(error) => Err(error),
            None => Ok(self.lock()),
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn running(&self, unit: &str) -> Option<Arc<Vmm>> {
        let state = self.lock();
        let held = state.slots.iter().find(|(slot, _)| unit_of(**slot) == unit)?;
        held.1.vmm.clone().filter(|vmm| vmm.is_running())
    }
}

fn unit_of(slot: u16) -> String {
    Slot::new(slot).unwrap().unit()
}

impl State {
    fn take(&mut self, network: u8) -> SlotGrant {
        let slot = (0..).find(|slot| !self.slots.contains_key(slot)).unwrap();
        self.handles += 1;
        let handle = SlotHandle::from_halves(7, self.handles);
        let grant = SlotGrant::new(Slot::new(slot).unwrap(), handle);
        let held = Held {
            handle: grant.handle,
            network,
            vmm: None,
        };
        self.slots.insert(slot, held);
        grant
    }

    fn find(&mut self, handle: WireHandle) -> HelperResult<(u16, &mut Held)> {
        let found = self.slots.iter_mut().find(|(_, held)| held.handle == handle);
        found
            .map(|(slot, held)| (*slot, held))
            .ok_or_else(HelperError::no_such_slot)
    }
}

impl Vmm {
    fn is_running(&self) -> bool {
        !self.ended.load(Ordering::SeqCst) && self.process.is_alive()
    }

    pub(crate) fn end(&self) {
        // It may have ended by itself.
        let _ = self.process.send_signal(Signal::KILL);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for held in self.slots.values() {
            if let Some(vmm) = &held.vmm {
                vmm.end();
            }
        }
    }
}

#[async_trait]
impl HelperApi for FakeHelper {
    fn version(&self) -> String {
        "0".to_owned()
    }

    async fn acquire_slot(&self, caller: HelperCaller, network: u8) -> HelperResult<SlotGrant> {
        let call = if caller.interactive {
            "AcquireSlot asking"
        } else {
            "AcquireSlot"
        };
        let grant = self.note(call)?.take(network);
        self.changed();
        Ok(grant)
    }

    async fn release_slot(&self, _: HelperCaller, handle: WireHandle) -> HelperResult<()> {
        {
            let mut state = self.note("ReleaseSlot")?;
            let slot = state.find(handle)?.0;
            if let Some(vmm) = state.slots.remove(&slot).and_then(|held| held.vmm) {
                vmm.end();
            }
        }
        self.changed();
        Ok(())
    }

    async fn launch(
        &self,
        _: HelperCaller,
        handle: WireHandle,
        options: LaunchOptions,
        mut files: HashMap<u8, OwnedFd>,
    ) -> HelperResult<OwnedFd> {
        let silent = {
            let mut state = self.note("Launch")?;
            state.find(handle)?;
            state.silent
        };
        let mut take = |role: FileRole| files.remove(&role.number()).unwrap();
        take(FileRole::Kernel);
        let (control, monitor) = (take(FileRole::Control), take(FileRole::Monitor));
        let mut roles: Vec<FileRole> = files.keys().filter_map(|n| FileRole::of_number(*n)).collect();
        roles.sort_unstable();
        let mut child = Command::new("sleep")
            .arg("1000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let vmm = Arc::new(Vmm {
            process: Pidfd::open(child.id()).unwrap(),
            options,
            roles,
            ended: AtomicBool::new(false),
        });
        let guest = vmm.clone();
        tokio::spawn(async move {
            let acting = async {
                tokio::join!(
                    act_monitor(listener(monitor), &guest),
                    act_guest(listener(control), &guest, silent)
                );
            };
            tokio::select! {
                () = acting => {}
                _ = guest.process.exited() => {}
            }
            guest.ended.store(true, Ordering::SeqCst);
            // The files that it held are closed with it.
            let _ = child.try_wait();
        });
        let pidfd = vmm.process.as_fd().try_clone_to_owned().unwrap();
        self.lock().find(handle)?.1.vmm = Some(vmm);
        self.changed();
        Ok(pidfd)
    }

    async fn stop(&self, _: HelperCaller, _: WireHandle) -> HelperResult<()> {
        self.note("Stop").map(drop)
    }

    async fn kill(&self, _: HelperCaller, handle: WireHandle) -> HelperResult<()> {
        let mut state = self.note("Kill")?;
        if let Some(vmm) = &state.find(handle)?.1.vmm {
            vmm.end();
        }
        Ok(())
    }

    async fn list(&self, _: HelperCaller) -> HelperResult<Vec<SlotInfo>> {
        let state = self.note("List")?;
        let infos = state.slots.iter().map(|(slot, held)| SlotInfo {
            handle: held.handle,
            slot: *slot,
            network: held.network,
            running: held.vmm.as_ref().is_some_and(|vmm| vmm.is_running()),
        });
        Ok(infos.collect())
    }

    async fn open_log(
        &self,
        _: HelperCaller,
        handle: WireHandle,
        _: LogReadOptions,
        output: OwnedFd,
    ) -> HelperResult<()> {
        self.note("OpenLog")?.find(handle)?;
        std::io::Write::write_all(&mut File::from(output), CONSOLE.as_bytes()).unwrap();
        Ok(())
    }

    async fn route_names(&self, _: HelperCaller, _: u16) -> HelperResult<()> {
        // What names do is not looked at here.
        Ok(())
    }

    async fn status(&self, _: HelperCaller) -> HelperResult<Vec<(String, bool, String)>> {
        self.note("Status").map(drop)?;
        Ok(vec![("filter".to_owned(), true, "It is loaded".to_owned())])
    }

    async fn repair(&self, _: HelperCaller) -> HelperResult<Vec<String>> {
        Err(HelperError::new(ErrorKind::Failed, "Not here"))
    }

    async fn list_all(&self, _: HelperCaller) -> HelperResult<Vec<(u16, u32, bool)>> {
        Err(HelperError::new(ErrorKind::Failed, "Not here"))
    }

    async fn evict(&self, _: HelperCaller, _: u16) -> HelperResult<()> {
        Err(HelperError::new(ErrorKind::Failed, "Not here"))
    }
}

fn listener(fd: OwnedFd) -> UnixListener {
    let listener = StdListener::from(fd);
    listener.set_nonblocking(true).unwrap();
    UnixListener::from_std(listener).unwrap()
}

/// Answers to everything that it is done, and quits when it is told to.
async fn act_monitor(listener: UnixListener, vmm: &Vmm) {
    while let Ok((stream, _)) = listener.accept().await {
        let (reader, mut writer) = stream.into_split();
        let version =
            r#"{"QMP":{"version":{"qemu":{"major":8,"minor":2,"micro":0},"package":""},"capabilities":[]}}"#;
        let _ = writer.write_all(format!("{version}\r\n").as_bytes()).await;
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let asked: serde_json::Value = serde_json::from_str(&line).unwrap();
            if asked["execute"] == "quit" {
                vmm.end();
            }
            let answer = serde_json::json!({"return": {}, "id": asked["id"]});
            if writer
                .write_all(format!("{answer}\r\n").as_bytes())
                .await
                .is_err()
            {
                break;
            }
        }
    }
}

/// A guest that is up at once, says so whenever it is asked, and ends when it is told to.
async fn act_guest(listener: UnixListener, vmm: &Vmm, silent: bool) {
    while let Ok((stream, _)) = listener.accept().await {
        talk(stream, vmm, silent).await;
    }
}

async fn talk(stream: UnixStream, vmm: &Vmm, silent: bool) {
    let (reader, mut writer) = stream.into_split();
    let ready = GuestMessage::Ready {
        boot_id: "b".to_owned(),
        version: "0".to_owned(),
        init: "/sbin/init".to_owned(),
        uptime_ms: 1,
    };
    let ready = serde_json::to_string(&ready).unwrap() + "\n";
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line).unwrap() {
            HostMessage::Poweroff => vmm.end(),
            HostMessage::Status if silent => {}
            HostMessage::Status if writer.write_all(ready.as_bytes()).await.is_err() => return,
            HostMessage::Status | HostMessage::SetTime { .. } => {}
        }
    }
}

/// The part of systemd's manager that is asked about scopes.
pub(crate) struct FakeSystemd(pub(crate) FakeHelper);

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl FakeSystemd {
    fn subscribe(&self) {}

    fn get_unit(&self, name: &str) -> zbus::fdo::Result<OwnedObjectPath> {
        match self.0.running(name) {
            Some(_) => Ok(scope_path().into()),
            None => Err(no_such_unit(name)),
        }
    }

    fn get_unit_processes(&self, name: &str) -> zbus::fdo::Result<Vec<(String, u32, String)>> {
        match self.0.running(name) {
            Some(vmm) => Ok(vec![("/".to_owned(), vmm.process.pid(), "sleep".to_owned())]),
            None => Err(no_such_unit(name)),
        }
    }
}

/// All scopes are one here.
pub(crate) fn scope_path() -> ObjectPath<'static> {
    ObjectPath::from_static_str_unchecked("/org/freedesktop/systemd1/unit/scope")
}

fn no_such_unit(name: &str) -> zbus::fdo::Error {
    zbus::fdo::Error::Failed(format!("Unit {name} not loaded."))
}

/// A scope, which somebody can stop.
pub(crate) struct FakeScope;

#[zbus::interface(name = "org.freedesktop.systemd1.Scope")]
impl FakeScope {
    #[zbus(signal)]
    pub(crate) async fn request_stop(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;
}

/// A polkit that lets everybody, or nobody.
pub(crate) struct FakePolkit(pub(crate) Arc<AtomicBool>);

type Subject = (String, HashMap<String, OwnedVariant>);

#[allow(clippy::needless_pass_by_value, reason = "as they come")]
#[zbus::interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl FakePolkit {
    #[zbus(out_args("result"))]
    fn check_authorization(
        &self,
        subject: Subject,
        action: &str,
        _details: HashMap<String, String>,
        flags: u32,
        _cancellation: &str,
    ) -> ((bool, bool, HashMap<String, String>),) {
        assert_eq!((subject.0.as_str(), flags), ("system-bus-name", 0));
        assert_eq!(action, "org.banger.helper.acquire-slot");
        let allowed = self.0.load(Ordering::SeqCst);
        ((allowed, !allowed, HashMap::new()),)
    }
}
