//! VMs.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use async_trait::async_trait;
use banger_bus::api::{Caller, JobPath, VmApi};
use banger_bus::{
    DeleteOptions, Error, ErrorKind, ExecOptions, LogOptions, Result, StartOptions, StopOptions, VmInfo, path,
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
        let plan = if what == "start" && name == "b" {
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
        self.info.clone()
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
