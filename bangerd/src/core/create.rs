//! Creating a VM.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use banger_bus::{CreateOptions, Error, ErrorKind};
use banger_model::{EngineChoice, Event, ImageName, KernelName, NetworkMode, VmId, VmName, VmSpec, VmState};
use banger_store::{NewIntent, Operation, VmRecord};

use super::capability::{self, Kind, Site, blocking};
use super::plan::Desired;
use super::progress::JobContext;
use super::registry::Core;
use super::sources::{ImageFiles, KernelFiles};
use super::steps::Run;
use super::vm::{Vm, now_us};
use super::{defaults, keys, names};
use crate::fail_point::fail_point;

/// The image of VMs for which nobody chose one.
pub(crate) const DEFAULT_IMAGE: &str = "debian-bookworm";
/// What a disk has beside its image's file system where nobody chose its size, in bytes.
const DISK_ROOM: u64 = 1 << 30;
/// How often a name is made up that somebody else takes first.
const NAME_TRIES: usize = 8;

/// What the owner said about a new VM; what he did not say has defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreateRequest {
    /// Made up when there is none.
    pub name: Option<VmName>,
    pub image: ImageName,
    pub kernel: Option<KernelName>,
    pub vcpus: Option<u32>,
    pub memory_mib: Option<u64>,
    pub disk_bytes: Option<u64>,
    pub engine: EngineChoice,
    pub network: NetworkMode,
    pub env: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

impl CreateRequest {
    /// Reads the options of the bus. `name` may be empty.
    ///
    /// # Errors
    /// `InvalidArgument` with the word that was refused.
    pub(crate) fn new(
        name: &str,
        options: &CreateOptions,
        config: &banger_model::Config,
    ) -> Result<Self, Error> {
        let image = match &options.image {
            Some(image) => word(image)?,
            None => match &config.default_image_name {
                Some(image) => image.clone(),
                None => word(DEFAULT_IMAGE)?,
            },
        };
        let pairs =
            |map: &Option<HashMap<String, String>>| map.clone().unwrap_or_default().into_iter().collect();
        Ok(Self {
            name: if name.is_empty() { None } else { Some(word(name)?) },
            image,
            kernel: options.kernel.as_deref().map(word).transpose()?,
            vcpus: options.vcpus,
            memory_mib: options.memory_mib,
            disk_bytes: options.disk_bytes,
            engine: match &options.engine {
                Some(engine) => word(engine)?,
                None => config.engine.unwrap_or_default(),
            },
            network: options
                .network
                .as_deref()
                .map(word)
                .transpose()?
                .unwrap_or_default(),
            env: pairs(&options.env),
            labels: pairs(&options.labels),
        })
    }
}

impl Core {
    /// Creates a VM and, with `start`, starts it and waits until its guest is ready. When it
    /// is cancelled, or fails before its VMM runs, nothing is left; a guest that does not come
    /// up stays as a stopped VM, so that its console can be read.
    ///
    /// # Errors
    /// What was refused, missing or failed.
    pub(crate) async fn create(
        self: &Arc<Self>,
        request: CreateRequest,
        start: bool,
        boot_limit: Option<Duration>,
        ctx: &JobContext,
    ) -> Result<Arc<Vm>, Error> {
        ctx.stage("Preparing");
        if start {
            self.warm_up(request.engine);
        }
        fail_point!("create.begin");
        let (image, kernel) = self.resolve(&request).await?;
        fail_point!("create.resolved");
        let vm = self.add(&request, &image, &kernel, ctx).await?;
        // Taken before anybody else can know of it.
        let turn = vm.turn("create", ctx.cancel(), false).await?;
        self.insert(&vm);
        self.publish().vm_added(&vm);
        ctx.about(vm.id());
        let run = Run {
            boot_limit,
            ..Run::new(&vm, ctx)
        };
        let made = self.make(&run).await;
        let done = match made {
            Ok(()) if start => run.boot().await,
            other => other,
        };
        let Err(e) = done else {
            drop(turn);
            return Ok(vm);
        };
        let launched = vm.record().started_us != 0;
        if launched && e.kind != ErrorKind::Cancelled {
            drop(turn);
            return Err(e);
        }
        // What was made so far is unmade, and nobody can stop that.
        if let Err(undone) = Run::new(&vm, &JobContext::silent()).reach(Desired::Absent).await {
            tracing::warn!(vm = %vm.name(), error = %undone, "A VM could not be unmade; the next start of the daemon tries again");
        }
        Err(e)
    }

    /// The image that the VM is made of, and the kernel that it is going to boot.
    async fn resolve(&self, request: &CreateRequest) -> Result<(ImageFiles, KernelFiles), Error> {
        let sources = self.sources().clone();
        let (image, kernel) = (request.image.clone(), request.kernel.clone());
        blocking(move || {
            let image = sources.image(&image)?;
            let kernel = match kernel.as_ref().or(image.kernel.as_ref()) {
                Some(kernel) => sources.kernel(kernel)?,
                None => sources.default_kernel()?,
            };
            Ok((image, kernel))
        })
        .await
    }

    /// Writes the VM down, together with the intent to make it.
    async fn add(
        self: &Arc<Self>,
        request: &CreateRequest,
        image: &ImageFiles,
        kernel: &KernelFiles,
        ctx: &JobContext,
    ) -> Result<Arc<Vm>, Error> {
        let mut tries = 0;
        loop {
            let record = self.record(request, image, kernel)?;
            defaults::check(&record.spec, self.host())?;
            let site = Site {
                core: self,
                vm: &record,
                ctx,
            };
            for kind in Kind::MAKE.iter().copied().flatten() {
                kind.capability().plan(&site)?;
            }
            ctx.check()?;
            let intent = NewIntent {
                vm: record.id,
                operation: Operation::Create,
                created_us: record.created_us,
            };
            let row = record.clone();
            tries += 1;
            match self
                .database()
                .call(move |store| store.add(&row, &intent))
                .done()
                .await
            {
                Ok(()) => return Ok(Vm::new(self, record, true)),
                Err(e) if e.kind == ErrorKind::VmExists && request.name.is_none() && tries < NAME_TRIES => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Makes the lasting parts, and then the VM's creation is over.
    async fn make(&self, run: &Run<'_>) -> Result<(), Error> {
        fail_point!("create.row");
        run.ctx.stage("Making the disk");
        run.reach(Desired::Stopped).await?;
        let host_key = run.parts.take().host_key.unwrap_or_default();
        run.vm
            .change(|record| {
                record.host_key = host_key;
                record.state = VmState::Stopped;
                record.stop_reason = Some(banger_model::StopReason::Never);
            })
            .done()
            .await?;
        let id = run.vm.id();
        self.database()
            .call(move |store| store.finish(id, Operation::Create))
            .done()
            .await?;
        run.vm.set_finished();
        run.vm.tell(Event::VmCreated);
        fail_point!("create.made");
        Ok(())
    }

    fn record(
        &self,
        request: &CreateRequest,
        image: &ImageFiles,
        kernel: &KernelFiles,
    ) -> Result<VmRecord, Error> {
        let mut random = [0; 40];
        keys::random(&mut random)?;
        let (id, rest) = random.split_at(16);
        let (machine_id, seed) = rest.split_at(16);
        let id = VmId::from_bytes(id.try_into().unwrap_or_default());
        // A machine id is a random UUID; some programs insist on its version and variant.
        let mut machine_id: [u8; 16] = machine_id.try_into().unwrap_or_default();
        machine_id[6] = machine_id[6] & 0x0f | 0x40;
        machine_id[8] = machine_id[8] & 0x3f | 0x80;
        let name = match &request.name {
            Some(name) => name.clone(),
            None => {
                let seed = u64::from_ne_bytes(seed.try_into().unwrap_or_default());
                word(&names::generate(seed, |name| self.is_name_taken(name)))?
            }
        };
        let defaults = self.defaults();
        Ok(VmRecord {
            id,
            spec: VmSpec {
                name,
                image: image.name.clone(),
                kernel: request.kernel.clone(),
                vcpus: request.vcpus.unwrap_or(defaults.vcpus.value),
                memory_mib: request.memory_mib.unwrap_or(defaults.memory_mib.value),
                disk_bytes: request
                    .disk_bytes
                    .unwrap_or_else(|| disk_for(image.rootfs_bytes, defaults.disk_bytes.value)),
                engine: request.engine,
                network: request.network,
                env: over(&image.config.env, &request.env),
                labels: request.labels.clone(),
                process: image.config.process.clone(),
                ports: BTreeMap::new(),
            },
            kernel: kernel.name.clone(),
            machine_id: machine_id.iter().map(|b| format!("{b:02x}")).collect(),
            mac: capability::mac_text(capability::mac_of(id)),
            host_key: String::new(),
            state: VmState::Creating,
            stop_reason: None,
            state_detail: String::new(),
            engine: String::new(),
            accelerator: String::new(),
            ssh_port: 0,
            vmm: None,
            unit: String::new(),
            init: String::new(),
            created_us: now_us(),
            started_us: 0,
            ready_us: 0,
            slot: None,
            workspace: None,
        })
    }
}

/// The default disk, or a larger one where the image would leave a guest no room in it.
fn disk_for(image_bytes: u64, default_bytes: u64) -> u64 {
    default_bytes.max(image_bytes.saturating_add(DISK_ROOM))
}

/// The image's environment, and the owner's over it.
fn over(image: &BTreeMap<String, String>, owner: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut env = image.clone();
    env.extend(owner.iter().map(|(name, value)| (name.clone(), value.clone())));
    env
}

fn word<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Error> {
    text.parse()
        .map_err(|e: T::Err| Error::new(ErrorKind::InvalidArgument, e.to_string()))
}

#[cfg(test)]
mod tests {
    use banger_model::Config;

    use super::*;

    #[test]
    fn a_large_image_gets_a_disk_that_holds_it() {
        assert_eq!(disk_for(512 << 20, 8 << 30), 8 << 30);
        assert_eq!(disk_for(20 << 30, 8 << 30), 21 << 30);
    }

    #[test]
    fn options_are_read_and_refused_by_their_word() {
        let config = Config::parse("default_image_name = 'mine'\nengine = 'qemu'").unwrap();
        let plain = CreateRequest::new("", &CreateOptions::default(), &config).unwrap();
        assert_eq!((plain.name, plain.image.as_str()), (None, "mine"));
        assert_eq!(plain.engine, EngineChoice::Qemu);
        let built_in = CreateRequest::new("a", &CreateOptions::default(), &Config::default()).unwrap();
        assert_eq!(built_in.image.as_str(), DEFAULT_IMAGE);
        for (name, options, named) in [
            ("A b", CreateOptions::default(), "A b"),
            (
                "a",
                CreateOptions {
                    engine: Some("xen".into()),
                    ..Default::default()
                },
                "xen",
            ),
            (
                "a",
                CreateOptions {
                    network: Some("vpn".into()),
                    ..Default::default()
                },
                "vpn",
            ),
            (
                "a",
                CreateOptions {
                    image: Some("../x".into()),
                    ..Default::default()
                },
                "../x",
            ),
            (
                "a",
                CreateOptions {
                    kernel: Some(String::new()),
                    ..Default::default()
                },
                "\"\"",
            ),
        ] {
            let error = CreateRequest::new(name, &options, &config).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument);
            assert!(error.message.contains(named), "{error}");
        }
    }
}
