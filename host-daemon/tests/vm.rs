//! VMs of one host, with real QEMUs and real taps.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its fixtures too"
)]

mod namespace;
mod vms;

use std::path::Path;
use std::time::Duration;

use namespace::inside_namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{CertificateParams, DnType, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;
use symvirt_host::config::{HcaConfig, MacAddress, PeerConfig, Role, TlsFiles, VmSpec};
use symvirt_host::pki;
use symvirt_host::vm::credentials::{self, End};
use symvirt_host::vm::hca::{self, HcaError};
use symvirt_host::vm::{Instance, Origin, VmError, template};
use symvirt_qmp::Client;
use symvirt_qmp::commands::{self, RunState};
use symvirt_qmp::hotplug::{UnplugError, Unplugged};
use symvirt_qmp::migration::{Endpoint, Incoming, MigrateError, Outgoing, Settings};
use vms::{Host, LIMIT, bootable, console, taps};

const OFTEN: Duration = Duration::from_millis(20);
const NEVER: Duration = Duration::from_millis(300);

macro_rules! in_namespace {
    ($name:literal) => {
        if !inside_namespace($name) {
            return;
        }
    };
}

fn pid(instance: &Instance) -> Pid {
    Pid::from_raw(instance.record().process.as_ref().unwrap().pid)
}

async fn status(client: &Client) -> RunState {
    client
        .execute(commands::query_status {})
        .await
        .unwrap()
        .status
}

#[tokio::test]
async fn without_a_kernel_the_first_disk_boots() {
    in_namespace!("without_a_kernel_the_first_disk_boots");
    let host = Host::new();
    let mut spec = host.spec();
    let disk = host.folder.path().join("bootable");
    std::fs::write(&disk, bootable()).unwrap();
    let second = spec.disks[0].clone();
    spec.kernel = None;
    spec.disks[0].path = disk;
    spec.disks.push(second);
    let (started, client) = host.vms.start(&spec, Origin::Boot).await.unwrap();
    console(&started, |text| text.contains("B..")).await;
    drop(client);
}

#[tokio::test]
async fn a_vm_runs_is_found_after_a_restart_and_leaves_nothing() {
    in_namespace!("a_vm_runs_is_found_after_a_restart_and_leaves_nothing");
    let host = Host::new();
    let (started, client) = host.vms.start(&host.spec(), Origin::Boot).await.unwrap();
    console(&started, |text| text.contains("B..")).await;
    assert_eq!(taps().len(), 1);
    drop(client);

    let vms = host.restarted();
    let listing = vms.list().unwrap();
    assert!(listing.unreadable.is_empty());
    let [found] = listing.instances.as_slice() else {
        panic!("{listing:?}")
    };
    assert_eq!(*found, started);
    assert!(found.is_alive().unwrap());
    let client = found.connect().await.unwrap();
    assert_eq!(status(&client).await, RunState::running);

    assert!(matches!(
        vms.clear(found).await,
        Err(VmError::Running { .. })
    ));
    found.stop(Some(&client), LIMIT).await.unwrap();
    assert!(!found.is_alive().unwrap());
    vms.clear(found).await.unwrap();
    assert_eq!(host.leftovers(), [""; 0]);
    vms.clear(found).await.unwrap();
}

#[tokio::test]
async fn a_qemu_whose_start_was_not_recorded_any_more_is_found() {
    in_namespace!("a_qemu_whose_start_was_not_recorded_any_more_is_found");
    let host = Host::new();
    let (started, client) = host.vms.start(&host.spec(), Origin::Boot).await.unwrap();
    // As the record stood between the start of the process and its being written down.
    let path = started.files.directory().join("record.json");
    let mut record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["process"] = serde_json::Value::Null;
    std::fs::write(&path, record.to_string()).unwrap();

    let found = host.restarted().list().unwrap().instances.remove(0);
    assert_eq!(found.record().process, started.record().process);
    found.stop(Some(&client), LIMIT).await.unwrap();

    // The pid file of a killed QEMU stays, and its id may be used again: by us, for example.
    std::fs::write(found.files.pid_file(), std::process::id().to_string()).unwrap();
    let found = host.restarted().list().unwrap().instances.remove(0);
    assert!(
        !found.is_alive().unwrap(),
        "another process was taken for the VM"
    );
    host.vms.clear(&found).await.unwrap();
}

#[tokio::test]
async fn a_vm_that_cannot_start_says_why_and_leaves_nothing() {
    in_namespace!("a_vm_that_cannot_start_says_why_and_leaves_nothing");
    let host = Host::new();
    let spec = VmSpec {
        machine: "pc-q35-99.9".into(),
        ..host.spec()
    };
    let error = host.vms.start(&spec, Origin::Boot).await.unwrap_err();
    let VmError::Ended { log, .. } = &error else {
        panic!("{error}")
    };
    assert!(log.contains("pc-q35-99.9"), "{log}");
    assert_eq!(host.leftovers(), [""; 0]);

    let spec = VmSpec {
        template: Some(host.folder.path().join("none")),
        ..host.spec()
    };
    let error = host.vms.start(&spec, Origin::Template).await.unwrap_err();
    assert!(matches!(error, VmError::Template { .. }), "{error}");
    assert_eq!(host.leftovers(), [""; 0]);
}

#[tokio::test]
async fn a_vm_without_its_bridge_is_not_started() {
    in_namespace!("a_vm_without_its_bridge_is_not_started");
    let host = Host::new();
    assert!(
        std::process::Command::new("ip")
            .args(["link", "del", "br0"])
            .status()
            .unwrap()
            .success()
    );
    let error = host
        .vms
        .start(&host.spec(), Origin::Boot)
        .await
        .unwrap_err();
    assert!(matches!(error, VmError::Tap { .. }), "{error}");
    assert_eq!(host.leftovers(), [""; 0]);
}

#[tokio::test]
async fn a_qemu_that_does_not_answer_is_killed() {
    in_namespace!("a_qemu_that_does_not_answer_is_killed");
    let host = Host::new();
    let (vm, _client) = host.vms.start(&host.spec(), Origin::Boot).await.unwrap();
    kill(pid(&vm), Signal::SIGSTOP).unwrap();
    vm.stop(None, NEVER).await.unwrap();
    host.vms.clear(&vm).await.unwrap();
    assert_eq!(host.leftovers(), [""; 0]);
}

#[tokio::test]
async fn a_template_is_restored_instead_of_booting() {
    in_namespace!("a_template_is_restored_instead_of_booting");
    let host = Host::new();
    let file = host.folder.path().join("template");
    let (vm, client) = host.vms.start(&host.spec(), Origin::Boot).await.unwrap();
    console(&vm, |text| text.contains("B..")).await;
    template::save(&client, &file).await.unwrap();
    assert_ne!(status(&client).await, RunState::running);
    vm.stop(Some(&client), LIMIT).await.unwrap();
    host.vms.clear(&vm).await.unwrap();

    let spec = VmSpec {
        template: Some(file),
        ..host.spec()
    };
    for _ in 0..2 {
        let (vm, client) = host.vms.start(&spec, Origin::Template).await.unwrap();
        assert_eq!(status(&client).await, RunState::running);
        let text = console(&vm, |text| text.len() > 5).await;
        assert!(!text.contains('B'), "it booted: {text}");
        vm.stop(Some(&client), LIMIT).await.unwrap();
        host.vms.clear(&vm).await.unwrap();
    }
    assert_eq!(host.leftovers(), [""; 0]);
}

#[tokio::test]
async fn source_and_destination_coexist_and_the_vm_crosses() {
    in_namespace!("source_and_destination_coexist_and_the_vm_crosses");
    let host = Host::new();
    let (source, from) = host.vms.start(&host.spec(), Origin::Boot).await.unwrap();
    console(&source, |text| text.contains("B..")).await;
    let (target, to) = host
        .vms
        .start(&host.spec(), Origin::Incoming)
        .await
        .unwrap();
    assert_eq!(taps().len(), 2);

    let settings = Settings::live();
    let endpoint = Endpoint::Unix(host.folder.path().join("stream"));
    let mut incoming = Incoming::listen(&to, &endpoint, &settings).await.unwrap();
    let outgoing = Outgoing::start(&from, &endpoint, &settings, OFTEN)
        .await
        .unwrap();
    outgoing.finish(LIMIT).await.unwrap();
    incoming.finish(LIMIT).await.unwrap();
    assert_eq!(
        status(&to).await,
        RunState::paused,
        "it must not run before it is told"
    );
    to.execute(commands::cont {}).await.unwrap();
    let text = console(&target, |text| text.len() > 5).await;
    assert!(!text.contains('B'), "it booted: {text}");

    source.stop(Some(&from), LIMIT).await.unwrap();
    host.vms.clear(&source).await.unwrap();
    assert_eq!(taps().len(), 1, "the destination keeps its tap");
    target.stop(Some(&to), LIMIT).await.unwrap();
    host.vms.clear(&target).await.unwrap();
    assert_eq!(host.leftovers(), [""; 0]);
}

/// Sends a VM to a QEMU of host a that waits for one of host b's, with the certificate of `sender`.
async fn sent_by(sender: TlsFiles, pki: &Path) -> Result<(), MigrateError> {
    let host = Host::new();
    let (source, from) = host.vms.start(&host.spec(), Origin::Boot).await.unwrap();
    let waiting = host.vms.start(&host.spec(), Origin::Incoming).await;
    let (target, to) = waiting.unwrap();
    let address = "127.0.0.1:7420".parse().unwrap();
    let name = "b".parse().unwrap();
    let peers = [PeerConfig { name, address }];
    let (mut there, mut here) = (Settings::live(), Settings::live());
    let (end, a) = (End::Server(&peers), tls_files(pki, "a"));
    credentials::install(&to, target.files.directory(), &a, end, &mut there)
        .await
        .unwrap();
    let name = "a".parse().unwrap();
    let end = End::Client(&name);
    credentials::install(&from, source.files.directory(), &sender, end, &mut here)
        .await
        .unwrap();
    let endpoint = Endpoint::Unix(host.folder.path().join("stream"));
    let _incoming = Incoming::listen(&to, &endpoint, &there).await.unwrap();
    let outgoing = Outgoing::start(&from, &endpoint, &here, OFTEN)
        .await
        .unwrap();
    let sent = outgoing.finish(LIMIT).await.map(drop);
    for (vm, client) in [(&source, &from), (&target, &to)] {
        vm.stop(Some(client), LIMIT).await.unwrap();
        host.vms.clear(vm).await.unwrap();
    }
    sent
}

fn tls_files(pki: &Path, name: &str) -> TlsFiles {
    let file = |end: &str| pki.join(format!("{name}.{end}"));
    TlsFiles {
        ca: pki.join("ca.pem"),
        cert: file("pem"),
        key: file("key"),
    }
}

fn authority() -> tempfile::TempDir {
    let pki = tempfile::tempdir().unwrap();
    let host = |name: &str| (name.parse().unwrap(), [127, 0, 0, 1].into());
    pki::init(pki.path(), &[host("a"), host("b")]).unwrap();
    pki
}

#[tokio::test]
async fn a_vm_is_taken_from_a_peer() {
    in_namespace!("a_vm_is_taken_from_a_peer");
    let pki = authority();
    let sent = sent_by(tls_files(pki.path(), "b"), pki.path()).await;
    sent.unwrap();
}

#[tokio::test]
async fn no_vm_is_taken_from_a_user_who_is_called_like_a_peer() {
    in_namespace!("no_vm_is_taken_from_a_user_who_is_called_like_a_peer");
    let pki = authority();
    user_for_every_use(pki.path(), "b", Role::Viewer);
    let user = TlsFiles {
        cert: pki.path().join("user.pem"),
        key: pki.path().join("user.key"),
        ..tls_files(pki.path(), "b")
    };
    sent_by(user, pki.path()).await.unwrap_err();
}

/// As an authority of a site's own may make it, where ours allows less.
fn user_for_every_use(pki: &Path, name: &str, role: Role) {
    let read = |file: &str| std::fs::read_to_string(pki.join(file)).unwrap();
    let authority = KeyPair::from_pem(&read("ca.key")).unwrap();
    let authority = Issuer::from_ca_cert_pem(&read("ca.pem"), authority).unwrap();
    let mut params = CertificateParams::default();
    let subject = &mut params.distinguished_name;
    subject.push(DnType::CommonName, name);
    subject.push(DnType::OrganizationalUnitName, role.unit());
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    std::fs::write(pki.join("user.pem"), certificate.pem()).unwrap();
    std::fs::write(pki.join("user.key"), key.serialize_pem()).unwrap();
}

fn stand_in(bridge: &str) -> HcaConfig {
    serde_json::from_value(json!({
        "name": "hca0", "kind": "qemu-devices", "bridge": bridge,
        "objects": [
            {"qom-type": "memory-backend-ram", "id": "hm", "size": 1_048_576, "share": true}],
        "netdevs": [
            {"type": "tap", "id": "ni", "ifname": "{tap}", "script": "no", "downscript": "no"}],
        "devices": [
            {"driver": "ivshmem-plain", "id": "hcablk", "bus": "{bus}", "addr": "0.1",
                "memdev": "hm"},
            {"driver": "e1000e", "id": "hca", "bus": "{bus}", "addr": "0.0",
                "multifunction": true, "netdev": "ni", "mac": "{mac}"}],
    }))
    .unwrap()
}

fn mac(spec: &VmSpec) -> MacAddress {
    spec.hca.as_ref().unwrap().mac
}

#[tokio::test]
async fn an_hca_comes_forbids_migration_and_goes_with_everything_it_brought() {
    in_namespace!("an_hca_comes_forbids_migration_and_goes_with_everything_it_brought");
    let host = Host::new();
    let (spec, hca) = (host.spec(), stand_in("br0"));
    let (mut vm, client) = host.vms.start(&spec, Origin::Boot).await.unwrap();
    assert_eq!(
        hca::detach(&mut vm, &client, LIMIT).await.unwrap(),
        Unplugged::WasAbsent
    );
    hca::attach(&mut vm, &client, &hca, mac(&spec))
        .await
        .unwrap();
    hca::attach(&mut vm, &client, &hca, mac(&spec))
        .await
        .unwrap();
    assert_eq!(taps().len(), 2);

    let nowhere = Endpoint::Unix(host.folder.path().join("nowhere"));
    let refused = Outgoing::start(&client, &nowhere, &Settings::live(), OFTEN).await;
    assert!(
        matches!(refused, Err(MigrateError::Blocked { .. })),
        "{refused:?}"
    );

    // This guest does not let go; a reset does it for it, and a restarted daemon completes.
    let error = hca::detach(&mut vm, &client, NEVER).await.unwrap_err();
    let HcaError::Unplug {
        source: UnplugError::StillAttached { .. },
        ..
    } = &error
    else {
        panic!("{error}")
    };
    let mut vm = host.restarted().list().unwrap().instances.remove(0);
    assert!(vm.record().hca.is_some());
    let (gone, reset) = tokio::join!(
        hca::detach(&mut vm, &client, LIMIT),
        client.execute(commands::system_reset {})
    );
    reset.unwrap();
    assert!(matches!(gone.unwrap(), Unplugged::After(_)));
    assert_eq!(taps().len(), 1);
    assert!(
        host.restarted().list().unwrap().instances[0]
            .record()
            .hca
            .is_none()
    );

    hca::attach(&mut vm, &client, &hca, mac(&spec))
        .await
        .unwrap();
    vm.stop(Some(&client), LIMIT).await.unwrap();
    host.vms.clear(&vm).await.unwrap();
    assert_eq!(host.leftovers(), [""; 0]);
}

#[tokio::test]
async fn an_hca_that_cannot_be_plugged_leaves_the_vm_as_it_was() {
    in_namespace!("an_hca_that_cannot_be_plugged_leaves_the_vm_as_it_was");
    let host = Host::new();
    let spec = host.spec();
    let (mut vm, client) = host.vms.start(&spec, Origin::Boot).await.unwrap();
    let without_bridge = hca::attach(&mut vm, &client, &stand_in("br9"), mac(&spec)).await;
    assert!(
        matches!(without_bridge, Err(HcaError::Tap { .. })),
        "{without_bridge:?}"
    );
    let vfio = json!({"name": "hca1", "kind": "vfio", "pci": "ffff:ff:1f.7"});
    let vfio: HcaConfig = serde_json::from_value(vfio).unwrap();
    let absent = hca::attach(&mut vm, &client, &vfio, mac(&spec)).await;
    assert!(matches!(absent, Err(HcaError::Plug { .. })), "{absent:?}");
    assert!(vm.record().hca.is_none());
    assert_eq!(taps().len(), 1);
    hca::attach(&mut vm, &client, &stand_in("br0"), mac(&spec))
        .await
        .unwrap();
    let other = hca::attach(&mut vm, &client, &vfio, mac(&spec)).await;
    assert!(matches!(other, Err(HcaError::Present { .. })), "{other:?}");
    vm.stop(Some(&client), LIMIT).await.unwrap();
    host.vms.clear(&vm).await.unwrap();
}
