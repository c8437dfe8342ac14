//! The introspection XML in `dbus/` is what the daemon serves. `BANGER_UPDATE_SNAPSHOTS=1`
//! writes it anew.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use banger_bus::{CreateOptions, ManagerProxy, SERVICE, path};
use zbus::fdo::IntrospectableProxy;
use zbus::{Connection, OwnedObjectPath};

use super::fake::{FakeImage, FakeKernel, FakeVm, client, hub, vm, vm_path};

const PROLOGUE: &str = r#"<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
"#;

#[tokio::test]
async fn the_files_are_what_is_served() {
    let (bus, mut jobs) = hub();
    bus.vm_added(&vm_path(), Arc::new(FakeVm(Mutex::new(vm("a")))));
    let (image, kernel) = (path::image("image"), path::kernel("kernel"));
    bus.image_added(&image, Arc::new(FakeImage));
    bus.kernel_added(&kernel, Arc::new(FakeKernel));
    let connection = client(&bus).await;
    let manager = ManagerProxy::new(&connection).await.unwrap();
    let job = manager
        .create_vm("a".to_owned(), CreateOptions::default())
        .await
        .unwrap();
    let _running = jobs.recv().await.unwrap();
    let root = OwnedObjectPath::try_from(path::MANAGER).unwrap();
    for (path, interface) in [
        (&root, "org.banger.Manager"),
        (&vm_path(), "org.banger.VM"),
        (&image, "org.banger.Image"),
        (&kernel, "org.banger.Kernel"),
        (&job, "org.banger.Job"),
        (&job, "org.banger.Process"),
    ] {
        let served = introspect(&connection, path, interface).await;
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../dbus/{interface}.xml"));
        if std::env::var_os("BANGER_UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&file, &served).unwrap();
        }
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            written == served,
            "{interface} differs from {}: run this test with BANGER_UPDATE_SNAPSHOTS=1",
            file.display()
        );
    }
}

/// One interface of an object as a document of its own.
async fn introspect(connection: &Connection, path: &OwnedObjectPath, interface: &str) -> String {
    let proxy = IntrospectableProxy::builder(connection)
        .destination(SERVICE)
        .path(path)
        .build()
        .await
        .unwrap();
    let xml = proxy.introspect().await.unwrap();
    let begin = xml.find(&format!("<interface name=\"{interface}\">")).unwrap();
    let end = begin + xml[begin..].find("</interface>").unwrap();
    let body: String = xml[begin..end].trim_end().to_owned();
    format!("{PROLOGUE}<node>\n  {body}\n  </interface>\n</node>\n")
}
