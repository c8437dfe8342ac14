//! VMs.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;

use async_trait::async_trait;
use banger_bus::api::{Caller, JobPath, VmApi};
use banger_bus::{
    CopyOptions, DeleteOptions, Error, ErrorKind, ExecOptions, JobOutcome, ListeningPort, LogOptions, Result,
    SetOptions, StartOptions, StopOptions, VmInfo, WorkspaceExportOptions, WorkspaceOptions, path,
};

use super::Fake;
use super::job::Plan;

pub(super) struct FakeVm {
    pub(super) fake: Fake,
    pub(super) info: VmInfo,
}

impl FakeVm {
    async fn does(&self, caller: Caller, what: &str) -> Result<JobPath> {
        let name = &self.info.name;
        self.fake.called(format!("{what} {name}"));
        let idle = self.fake.workspace.lock().unwrap().is_empty();
        let plan = if what == "start" && name == "b" && idle {
            Plan::Fail(
                Error::new(ErrorKind::WrongState, "The VM \"b\" cannot be started"),
                None,
            )
        } else {
            Plan::Done(path::vm(name))
        };
        self.fake.job(&caller, what, plan).await
    }
}

#[async_trait]
impl VmApi for FakeVm {
    fn info(&self) -> VmInfo {
        let mut info = self.info.clone();
        let workspace = self.fake.workspace.lock().unwrap();
        if info.name == "b" && !workspace.is_empty() {
            info.workspace.clone_from(&workspace);
            "/root/repo".clone_into(&mut info.workspace_path);
            "abc".clone_into(&mut info.workspace_commit);
            "shallow_overlay".clone_into(&mut info.workspace_mode);
        }
        info
    }

    async fn start(&self, caller: Caller, _: StartOptions) -> Result<JobPath> {
        self.does(caller, "start").await
    }

    async fn stop(&self, caller: Caller, _: StopOptions) -> Result<JobPath> {
        self.does(caller, "stop").await
    }

    async fn restart(&self, caller: Caller, _: StopOptions) -> Result<JobPath> {
        self.does(caller, "restart").await
    }

    async fn kill(&self, caller: Caller) -> Result<JobPath> {
        self.does(caller, "kill").await
    }

    async fn delete(&self, caller: Caller, options: DeleteOptions) -> Result<JobPath> {
        self.does(caller, &format!("delete force={:?}", options.force))
            .await
    }

    async fn pause(&self) -> Result<()> {
        self.fake.called("pause");
        Ok(())
    }

    async fn resume(&self) -> Result<()> {
        Ok(())
    }

    async fn exec(
        &self,
        caller: Caller,
        argv: Vec<String>,
        options: ExecOptions,
        stdio: [OwnedFd; 3],
    ) -> Result<JobPath> {
        if options.user.is_some() || options.entrypoint.is_some() {
            let ExecOptions {
                user,
                working_directory,
                entrypoint,
                shell,
                ..
            } = &options;
            self.fake.called(format!(
                "exec {argv:?} {user:?} {working_directory:?} entrypoint={entrypoint:?} shell={shell:?}"
            ));
        }
        let plan = if options.entrypoint == Some(true) {
            let program = ["sh", "-c", "exit $#", "entrypoint"].map(str::to_owned);
            Plan::Process([&program[..], &argv].concat(), options, stdio)
        } else if argv == ["hang"] {
            self.fake.called("hang");
            Plan::Never
        } else {
            Plan::Process(argv, options, stdio)
        };
        self.fake.job(&caller, "exec", plan).await
    }

    async fn open_log(&self, _: Caller, options: LogOptions) -> Result<OwnedFd> {
        self.fake
            .called(format!("log {:?} {:?}", options.lines, options.boot));
        let (reader, mut writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut writer, b"one\x1b[2J\ntwo\n").unwrap();
        Ok(reader.into())
    }

    async fn prepare_workspace(
        &self,
        caller: Caller,
        directory: String,
        options: WorkspaceOptions,
    ) -> Result<JobPath> {
        self.fake.called(format!(
            "prepare {} branch={:?} untracked={:?} force={:?}",
            self.info.name, options.branch, options.include_untracked, options.force
        ));
        let plan = if directory.ends_with("changed") {
            Plan::Fail(
                Error::new(ErrorKind::WouldOverwrite, "Changed in the guest: README").hint("Use --force"),
                None,
            )
        } else {
            Plan::Run(Vec::new(), outcome(&["1 file is not tracked\x1b[2J"], Some(7)))
        };
        self.fake.job(&caller, "prepare-workspace", plan).await
    }

    async fn check_workspace(&self) -> Result<(bool, String)> {
        Ok((true, "def".to_owned()))
    }

    async fn export_workspace(&self, caller: Caller, options: WorkspaceExportOptions) -> Result<JobPath> {
        self.fake.called(format!("export {options:?}"));
        let plan = Plan::Run(Vec::new(), outcome(&["refs/banger/a/main"], None));
        self.fake.job(&caller, "export-workspace", plan).await
    }

    async fn copy_in(
        &self,
        caller: Caller,
        source: String,
        target: String,
        options: CopyOptions,
    ) -> Result<JobPath> {
        self.fake
            .called(format!("copy-in {source} {target} {:?}", options.follow));
        let plan = Plan::Run(Vec::new(), outcome(&[], Some(1536)));
        self.fake.job(&caller, "copy-in", plan).await
    }

    async fn copy_out(
        &self,
        caller: Caller,
        source: String,
        target: String,
        _: CopyOptions,
    ) -> Result<JobPath> {
        self.fake.called(format!("copy-out {source} {target}"));
        let plan = Plan::Run(Vec::new(), outcome(&["A FIFO\x1b[2J was left out"], Some(0)));
        self.fake.job(&caller, "copy-out", plan).await
    }

    async fn list_ports(&self) -> Result<Vec<ListeningPort>> {
        if self.info.state != "running" {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!("The VM {} does not run", self.info.name),
            ));
        }
        let row = |address: &str, port, command: &str, scheme: &str| {
            let words = ["tcp", address, "httpd", command, scheme].map(str::to_owned);
            let [proto, address, process, command, scheme] = words;
            (proto, address, port, 12, process, command, scheme)
        };
        Ok(vec![
            row("0.0.0.0", 80, "httpd\x1b]0;evil\x07 -f", "http"),
            row("::", 80, "httpd", "http"),
            row("127.0.0.1", 81, "httpd", ""),
        ])
    }

    async fn stats(&self) -> Result<HashMap<String, u64>> {
        if self.info.state != "running" {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!("The VM {} does not run", self.info.name),
            ));
        }
        // Half a processor, by the number of samples.
        let n = u64::try_from(self.fake.calls().len()).unwrap();
        self.fake.called("stats");
        let figures = [
            ("CpuUSec", 500 * n),
            ("TimeUSec", 1000 * n),
            ("MemoryBytes", 256 << 20),
            ("GuestMemoryBytes", 512 << 20),
            ("GuestAvailableBytes", 448 << 20),
            ("ReadBytes", 12_345_678),
            ("WrittenBytes", 1000),
            ("DiskUsedBytes", 3 << 30),
        ];
        Ok(figures.map(|(key, value)| (key.to_owned(), value)).into())
    }

    async fn publish_port(&self, guest: u16, host: u16) -> Result<u16> {
        self.fake.called(format!("publish {host}:{guest}"));
        if host == 22 {
            return Err(Error::new(
                ErrorKind::Failed,
                "The port 22 of 127.0.0.1 is somebody's",
            ));
        }
        Ok(if host == 0 { 40_000 } else { host })
    }

    async fn unpublish_port(&self, host: u16) -> Result<()> {
        self.fake.called(format!("unpublish {host}"));
        Ok(())
    }

    async fn set(&self, options: SetOptions) -> Result<Vec<String>> {
        self.fake.called(format!("set {options:?}"));
        let later = options.vcpus.map(|_| "vcpu".to_owned());
        Ok(later.into_iter().collect())
    }

    async fn rename(&self, name: String) -> Result<()> {
        self.fake.called(format!("rename {} {name}", self.info.name));
        Ok(())
    }
}

fn outcome(names: &[&str], bytes: Option<u64>) -> JobOutcome {
    JobOutcome {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        bytes,
        ..JobOutcome::done()
    }
}

/// One for each name.
pub(super) fn vm_id(name: &str) -> String {
    format!("{:032x}", name.len() * 256 + usize::from(name.as_bytes()[0]))
}

pub(super) fn vm_info(name: &str, state: &str, reason: &str) -> VmInfo {
    let live = state == "running";
    VmInfo {
        id: vm_id(name),
        name: name.to_owned(),
        state: state.to_owned(),
        stop_reason: reason.to_owned(),
        state_detail: String::new(),
        image: "debian-bookworm".to_owned(),
        kernel: "6.1".to_owned(),
        engine: "qemu".to_owned(),
        accelerator: "tcg".to_owned(),
        vcpus: 2,
        memory_mib: 512,
        disk_bytes: 8 << 30,
        network: "public".to_owned(),
        labels: BTreeMap::from([("team".to_owned(), name.to_owned())]),
        address: if live {
            "127.0.0.1".to_owned()
        } else {
            String::new()
        },
        ssh_port: if live { 2222 } else { 0 },
        host_key: "ssh-ed25519 AAAA".to_owned(),
        pid: if live { 4242 } else { 0 },
        unit: String::new(),
        directory: format!("/vms/{name}"),
        init: String::new(),
        workspace: String::new(),
        workspace_path: String::new(),
        workspace_commit: String::new(),
        workspace_mode: String::new(),
        published_ports: Vec::new(),
        created_us: 1_767_225_599_000_000,
        started_us: 0,
        ready_us: 0,
    }
}
