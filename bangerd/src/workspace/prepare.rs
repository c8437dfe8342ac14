//! A repository into a guest: all of it the first time, what changed later.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use banger_bus::{Error, ErrorKind, JobOutcome, Result};
use banger_files::{Packed, Root};
use banger_model::Workspace;
use banger_model::agent::{self, Look, Which};
use banger_model::workspace::DEFAULT_PATH;
use banger_workspace::{Kind, Manifest, Part, Payload, Plan, Stat};

use super::Request;
use super::error::{blocking, on_bus};
use super::head;
use crate::core::Vm;
use crate::core::progress::JobContext;
use crate::guest::Agent;
use crate::guest::files::{self, Put};

/// How often files are sent again that changed while they were read.
const ROUNDS: usize = 5;
/// Names in one sentence.
const MAX_NAMED: usize = 10;

/// Puts the repository into the guest, or what has changed in it since.
///
/// # Errors
/// `BadRepository`, `WouldOverwrite`, `NoSpace` and others.
pub(crate) async fn prepare(
    vm: &Arc<Vm>,
    agent: Arc<Agent>,
    mut request: Request,
    ctx: &JobContext,
) -> Result<JobOutcome> {
    let _turn = vm.workspace_turn()?;
    ctx.stage("Reading the repository");
    let known = vm.workspace();
    if let Some(known) = &known {
        request.go_on_from(known);
    }
    let known_path = known.as_ref().map(|known| known.guest_path.clone());
    let guest_path = request
        .guest_path
        .or(known_path)
        .unwrap_or_else(|| DEFAULT_PATH.to_owned());
    let (path, options) = (PathBuf::from(&request.path), request.options.clone());
    let plan = blocking(ctx, move |cancel| Plan::new(&path, &options, cancel)).await?;
    let plan = Arc::new(plan);
    let workspace = Workspace {
        host_path: text(&plan.root)?,
        guest_path,
        mode: plan.mode.to_string(),
        commit: plan.commit.clone(),
        include_untracked: request.options.include_untracked,
        mise: known.as_ref().is_some_and(|known| known.mise),
    };
    let sync = Sync {
        vm,
        agent,
        ctx,
        force: request.force,
        record: vm.workspace_record(),
    };
    let previous = sync.previous(known.as_ref(), &workspace).await?;
    let bytes = sync.run(&plan, previous, workspace).await?;
    Ok(JobOutcome {
        names: plan.notes.clone(),
        bytes: Some(bytes),
        ..JobOutcome::done()
    })
}

struct Sync<'a> {
    vm: &'a Arc<Vm>,
    agent: Arc<Agent>,
    ctx: &'a JobContext,
    force: bool,
    /// Where it is written down what the guest has.
    record: PathBuf,
}

impl Sync<'_> {
    /// What the guest has of the same workspace; `None` where it has nothing, and its place is
    /// free.
    async fn previous(&self, known: Option<&Workspace>, workspace: &Workspace) -> Result<Option<Manifest>> {
        let same = known.is_some_and(|known| {
            known.host_path == workspace.host_path
                && known.guest_path == workspace.guest_path
                && known.mode == workspace.mode
        });
        let request = agent::Request::Look {
            path: workspace.guest_path.clone(),
            follow: true,
        };
        let there: Look = files::ask(&self.agent, &request).await?;
        if same && there.found.is_some() {
            let record = self.record.clone();
            let manifest = blocking(self.ctx, move |_| {
                // Without a record nothing is known of what is there.
                Ok(fs::read(record)
                    .ok()
                    .and_then(|bytes| Manifest::from_bytes(&bytes).ok()))
            });
            if let Some(manifest) = manifest.await? {
                return Ok(Some(manifest));
            }
        }
        if there.found.is_some() {
            let began = fs::read_to_string(self.begun()).is_ok_and(|path| path == workspace.guest_path);
            if !began && !self.force {
                let text = format!("There is something at {} in the guest", workspace.guest_path);
                return Err(Error::new(ErrorKind::WouldOverwrite, text)
                    .hint("`--force` replaces it; `--guest-path` names another place."));
            }
            self.empty(&workspace.guest_path).await?;
        }
        fs::write(self.begun(), &workspace.guest_path).map_err(|e| cannot_note(&self.begun(), &e))?;
        Ok(None)
    }

    /// A first sync that breaks off leaves this, and a part of a workspace that is ours to remove.
    fn begun(&self) -> PathBuf {
        self.record.with_extension("begun")
    }

    /// Replaces what is there by an empty directory: what is of another type is replaced whole.
    async fn empty(&self, guest_path: &str) -> Result<()> {
        let (parent, name) = guest_path.rsplit_once('/').unwrap_or(("", guest_path));
        let put = Put {
            root: if parent.is_empty() { "/" } else { parent }.to_owned(),
            make_root: true,
            replace: true,
            owner: Some((0, 0)),
            remove: Vec::new(),
        };
        let name = PathBuf::from(name);
        files::put(&self.agent, put, self.ctx, move |packer| {
            packer.symlink(&name, Path::new("."), 0)?;
            let meta = banger_files::Meta {
                mode: 0o755,
                mtime_ns: 0,
            };
            packer.directory(&name, meta)
        })
        .await
        .map(drop)
    }

    /// Sends what is to be sent, and notes it. Gives the bytes of the files.
    async fn run(
        &self,
        plan: &Arc<Plan>,
        previous: Option<Manifest>,
        mut workspace: Workspace,
    ) -> Result<u64> {
        let is_first = previous.is_none();
        let payload = blocking(self.ctx, {
            let plan = plan.clone();
            move |cancel| plan.payload(previous.as_ref(), cancel)
        });
        let payload = payload.await?;
        if !self.force {
            self.ctx.stage("Comparing with the guest");
            self.check(&payload, &workspace.guest_path).await?;
        }
        let mut manifest = payload.manifest.clone();
        let mut bytes = 0;
        if !payload.is_empty() {
            self.ctx.stage("Copying");
            let (root, remove) = (workspace.guest_path.clone(), payload.remove.clone());
            let (sent, packed) = self.send(&root, remove, payload.parts.clone()).await?;
            bytes = sent;
            self.settle(&plan.root, &root, packed, &mut manifest).await?;
        }
        // The pack and the index are in a directory that goes with it.
        drop(payload);
        if is_first {
            let request = agent::Request::Which {
                program: "mise".to_owned(),
            };
            let found: Which = files::ask(&self.agent, &request).await?;
            workspace.mise = found.path.is_some();
        }
        let record = self.record.clone();
        let written = blocking(self.ctx, move |_| Ok(write(&record, &manifest.to_bytes()))).await?;
        written.map_err(|e| cannot_note(&self.record, &e))?;
        self.vm.note_workspace(workspace).await?;
        // It says nothing beside a record.
        let _ = fs::remove_file(self.begun());
        Ok(bytes)
    }

    /// Whether something of the guest's own would be lost.
    async fn check(&self, payload: &Payload, guest_path: &str) -> Result<()> {
        let expected = &payload.expected;
        if let Some(wanted) = &expected.head
            && !head::is_at(&self.agent, self.ctx, guest_path, wanted).await?
        {
            let text = format!("There are commits of the guest's own in {guest_path}, or another branch");
            return Err(Error::new(ErrorKind::WouldOverwrite, text).hint(format!(
                "Bring them out with `banger vm workspace export {}`, then use `--force`.",
                self.vm.name()
            )));
        }
        if expected.files.is_empty() {
            return Ok(());
        }
        let paths: Vec<_> = expected.files.iter().map(|(path, _)| path.clone()).collect();
        let found = files::stat(&self.agent, guest_path, &paths).await?;
        let found: Vec<_> = found.into_iter().map(|stat| stat.and_then(known)).collect();
        let conflicts = payload.conflicts(&found);
        if conflicts.is_empty() {
            return Ok(());
        }
        let text = format!(
            "{} file(s) were changed in the guest and on the host: {}",
            conflicts.len(),
            named(&conflicts)
        );
        Err(Error::new(ErrorKind::WouldOverwrite, text)
            .hint("`--force` takes the host's version; `banger vm workspace export` brings the guest's out."))
    }

    async fn send(&self, root: &str, remove: Vec<PathBuf>, parts: Vec<Part>) -> Result<(u64, Packed)> {
        let put = Put {
            root: root.to_owned(),
            make_root: true,
            replace: true,
            owner: Some((0, 0)),
            remove,
        };
        let sent = files::put(&self.agent, put, self.ctx, move |packer| {
            for part in parts {
                let root = Root::open(&part.root).map_err(|source| banger_files::Error::File {
                    what: "open",
                    path: part.root.clone(),
                    source,
                })?;
                for path in &part.paths {
                    packer.entry(&root, path, path)?;
                }
            }
            Ok(())
        });
        let (answer, packed) = sent.await?;
        if let Some(path) = packed.unreadable.first() {
            return Err(Error::new(
                ErrorKind::BadRepository,
                format!("Cannot read {}: permission denied", path.display()),
            )
            .hint("Make it readable, or stop tracking it."));
        }
        Ok((answer.bytes, packed))
    }

    /// Sends those again that changed while they were read, until they hold still, and corrects
    /// what the guest has of them.
    async fn settle(&self, host: &Path, root: &str, packed: Packed, manifest: &mut Manifest) -> Result<()> {
        for path in &packed.vanished {
            manifest.record(path, None);
        }
        let mut changed = packed.changed;
        for _ in 0..ROUNDS {
            if changed.is_empty() {
                return Ok(());
            }
            let mut stats = Vec::new();
            for path in &changed {
                stats.push(Stat::of(&host.join(path)).map_err(on_bus)?);
            }
            let part = Part {
                root: host.to_owned(),
                paths: changed.clone(),
            };
            let (_, packed) = self.send(root, Vec::new(), vec![part]).await?;
            for (path, stat) in changed.iter().zip(stats) {
                manifest.record(path, stat.filter(|_| !packed.vanished.contains(path)));
            }
            changed = packed.changed;
        }
        let text = format!("Files change faster than they can be copied: {}", named(&changed));
        Err(Error::new(ErrorKind::BadRepository, text).hint("Wait for what writes them, and try again."))
    }
}

/// What the guest says of a file, as far as it can be compared.
fn known(stat: agent::Stat) -> Option<Stat> {
    let kind = match stat.kind {
        agent::Kind::File => Kind::File,
        agent::Kind::Symlink => Kind::Symlink,
        agent::Kind::Directory => Kind::Directory,
        agent::Kind::Other => return None,
    };
    let is_directory = kind == Kind::Directory;
    Some(Stat {
        kind,
        mode: stat.mode & 0o777,
        size: if is_directory { 0 } else { stat.size },
        mtime_ns: if is_directory { 0 } else { stat.mtime_ns },
    })
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

fn cannot_note(path: &Path, error: &std::io::Error) -> Error {
    crate::core::error::io("write", path, error)
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::new(
            ErrorKind::BadRepository,
            format!("The path {path:?} is no text, which it has to be on the bus"),
        )
        .hint("Rename the directory.")
    })
}

fn named(paths: &[PathBuf]) -> String {
    let names = paths.iter().take(MAX_NAMED).map(|path| format!("{path:?}"));
    let mut text = names.collect::<Vec<_>>().join(", ");
    if paths.len() > MAX_NAMED {
        text.push_str(&format!(" and {} more", paths.len() - MAX_NAMED));
    }
    text
}
