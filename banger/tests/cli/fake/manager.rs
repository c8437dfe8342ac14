//! The manager: names say what happens.

use std::io::Write;
use std::os::fd::OwnedFd;

use async_trait::async_trait;
use banger_bus::api::{Caller, JobPath, ManagerApi};
use banger_bus::{
    CreateOptions, Error, ErrorKind, ImportKernelOptions, JobOutcome, JobPart, PruneOptions, PullOptions,
    RegisterOptions, Result, WorkspaceOptions, path,
};
use zbus::OwnedObjectPath;

use super::Fake;
use super::image::DIGEST;
use super::job::Plan;
use super::vm::vm_id;

#[async_trait]
impl ManagerApi for Fake {
    fn version(&self) -> String {
        "0.0.1".to_owned()
    }

    fn commit(&self) -> String {
        "abc".to_owned()
    }

    fn mode(&self) -> String {
        "user".to_owned()
    }

    async fn create_vm(&self, caller: Caller, name: String, options: CreateOptions) -> Result<JobPath> {
        self.called(format!(
            "create {name} start={:?} vcpus={:?}",
            options.start, options.vcpus
        ));
        let plan = match name.as_str() {
            "taken" => {
                return Err(Error::new(ErrorKind::VmExists, "There is a VM \"taken\" already")
                    .hint("Choose another name"));
            }
            "slow" => Plan::UntilCancelled,
            "stuck" => Plan::Never,
            "boot-fails" => Plan::Fail(
                Error::new(
                    ErrorKind::BootFailed,
                    "The guest of \"boot-fails\" never became ready",
                ),
                Some(path::vm("boot-fails")),
            ),
            "no-space" => Plan::Fail(Error::new(ErrorKind::NoSpace, "No space").hint("Make some"), None),
            _ => Plan::Done(path::vm("a")),
        };
        self.job(&caller, "create", plan).await
    }

    async fn look_up_vm(&self, name: String) -> Result<OwnedObjectPath> {
        match name.as_str() {
            "a" | "b" | "boot-fails" => Ok(path::vm(&name)),
            id if id == vm_id("a") => Ok(path::vm("a")),
            id if id == vm_id("b") => Ok(path::vm("b")),
            id if id == vm_id("boot-fails") => Ok(path::vm("boot-fails")),
            _ => Err(
                Error::new(ErrorKind::NoSuchVm, format!("No VM is called {name:?}"))
                    .hint("`banger vm list -a` shows all"),
            ),
        }
    }

    async fn pull_image(&self, caller: Caller, name: String, options: PullOptions) -> Result<JobPath> {
        self.called(format!("pull {name} force={:?}", options.force));
        let done = |name: &str| JobOutcome {
            object: Some(path::image(name)),
            ..JobOutcome::done()
        };
        let plan = match name.as_str() {
            "alpine" => Plan::Run(two_layers(), done("alpine:3.20")),
            "watched" => Plan::Steps(two_layers(), done("alpine:3.20")),
            "many" => Plan::Steps(many_layers(), done("alpine:3.20")),
            "options" => {
                self.called(format!("{options:?}"));
                Plan::Done(path::image(&name))
            }
            "private" => Plan::Fail(
                Error::new(
                    ErrorKind::LoginRequired,
                    "The registry \"r.example\" wants a login",
                )
                .hint("Log in with `docker login r.example`\nOr give another reference"),
                None,
            ),
            _ => Plan::Done(path::image(&name)),
        };
        self.job(&caller, "pull-image", plan).await
    }

    async fn register_image(
        &self,
        caller: Caller,
        name: String,
        rootfs: String,
        options: RegisterOptions,
    ) -> Result<JobPath> {
        self.called(format!("register {name} {rootfs} {:?}", options.kernel_file));
        self.job(&caller, "register", Plan::Done(path::image(&name)))
            .await
    }

    async fn look_up_image(&self, name: String) -> Result<OwnedObjectPath> {
        match name.as_str() {
            "docker.io/library/alpine:3.20" => Ok(path::image("alpine:3.20")),
            "debian-bookworm" | "alpine:3.20" => Ok(path::image(&name)),
            _ => Err(Error::new(
                ErrorKind::NoSuchImage,
                format!("No image is called {name:?}"),
            )),
        }
    }

    async fn prune_images(&self, caller: Caller, options: PruneOptions) -> Result<JobPath> {
        let (all, dry_run) = (options.all == Some(true), options.dry_run == Some(true));
        self.called(format!("prune all={all} dry_run={dry_run}"));
        let mut names = vec![DIGEST.to_owned()];
        if all {
            names.push("alpine:3.20".to_owned());
        }
        let outcome = JobOutcome {
            names,
            bytes: Some(3 << 20),
            ..JobOutcome::done()
        };
        self.job(&caller, "prune-images", Plan::Run(Vec::new(), outcome))
            .await
    }

    async fn pull_kernel(&self, caller: Caller, name: String, _: PullOptions) -> Result<JobPath> {
        self.job(&caller, "pull-kernel", Plan::Done(path::kernel(&name)))
            .await
    }

    async fn import_kernel(
        &self,
        caller: Caller,
        name: String,
        file: String,
        _: ImportKernelOptions,
    ) -> Result<JobPath> {
        self.called(format!("import {name} {file}"));
        self.job(&caller, "import-kernel", Plan::Done(path::kernel(&name)))
            .await
    }

    async fn list_workspace(
        &self,
        caller: Caller,
        directory: String,
        options: WorkspaceOptions,
        output: OwnedFd,
    ) -> Result<JobPath> {
        self.called(format!("list mode={:?}", options.mode));
        if directory.ends_with("bare") {
            return Err(Error::new(ErrorKind::BadRepository, "It is a bare repository"));
        }
        let listed = std::fs::File::from(output).write_all(b"Makefile\0a\x1b[2J\0");
        let outcome = match listed {
            Ok(()) => JobOutcome {
                names: vec!["2 files are not tracked".to_owned()],
                ..JobOutcome::done()
            },
            Err(e) => JobOutcome::failed(Error::new(ErrorKind::Failed, e.to_string())),
        };
        self.job(&caller, "list-workspace", Plan::Run(Vec::new(), outcome))
            .await
    }

    async fn look_up_kernel(&self, name: String) -> Result<OwnedObjectPath> {
        Ok(path::kernel(&name))
    }

    async fn list_available(&self, kind: String) -> Result<Vec<(String, String)>> {
        Ok(vec![("debian-minimal".to_owned(), format!("One of the {kind}"))])
    }

    async fn defaults(&self) -> Result<Vec<(String, String, String)>> {
        let row = |key: &str, value: &str| (key.to_owned(), value.to_owned(), "built in".to_owned());
        Ok(vec![
            row("vcpu", "4"),
            row("memory", "8G"),
            row("disk_size", "8G"),
        ])
    }
}

const MIB: u64 = 1 << 20;

fn part(name: &str, state: &str, done: u64, total: u64) -> JobPart {
    (name.to_owned(), state.to_owned(), done, total)
}

/// One that is fetched, and one that was here.
fn two_layers() -> Vec<Vec<JobPart>> {
    let step = |a: (&str, u64), b: (&str, u64)| {
        vec![
            part("aaaaaaaaaaaa", a.0, a.1, 4 * MIB),
            part("bbbbbbbbbbbb", b.0, b.1, MIB),
        ]
    };
    vec![
        step(("waiting", 0), ("waiting", 0)),
        step(("fetching", MIB), ("cached", 0)),
        step(("fetching", 3 * MIB), ("unpacking", 0)),
        step(("fetched", 0), ("done", MIB)),
        step(("done", 4 * MIB), ("done", MIB)),
    ]
}

/// A hundred; four are worked on, then all are done.
fn many_layers() -> Vec<Vec<JobPart>> {
    let step = |active: std::ops::Range<u64>| {
        let layers = (0..100).map(|i| {
            let state = match i {
                i if active.contains(&i) => "fetching",
                i if i < active.start => "done",
                _ => "waiting",
            };
            part(&format!("{i:012}"), state, i, 1000)
        });
        layers.collect()
    };
    vec![step(10..14), step(50..54), step(100..100)]
}
