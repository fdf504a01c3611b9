//! `symvirt vm`, `gang` and `host`.

use std::path::PathBuf;

use serde::Serialize;

use super::{CliError, Daemon, Exit, print_json, say};
use crate::api::model::{AgentInfo, GangInfo, HostInfo, VmInfo};
use crate::config::{VmName, VmSpec};

pub(super) async fn start(
    daemon: &Daemon,
    specs: &[PathBuf],
    json: bool,
) -> Result<Exit, CliError> {
    // All files are read before the first VM is started.
    let specs: Vec<_> = specs
        .iter()
        .map(|path| VmSpec::load(path))
        .collect::<Result<_, _>>()?;
    let mut started = Vec::new();
    for spec in &specs {
        let vm: VmInfo = daemon.post("/v1/vms", spec).await?;
        if !json {
            let hca = vm
                .hca
                .as_ref()
                .map(|hca| format!(", HCA {hca}"))
                .unwrap_or_default();
            say(format_args!(
                "{} {}{hca}, sockets and console in {}",
                vm.name,
                vm.state,
                vm.directory.display()
            ));
        }
        started.push(vm);
    }
    show(json, &started, |_| {});
    Ok(Exit::Done)
}

pub(super) async fn stop(daemon: &Daemon, names: &[VmName], json: bool) -> Result<Exit, CliError> {
    for name in names {
        daemon.delete::<()>(&format!("/v1/vms/{name}")).await?;
        if !json {
            say(format_args!("{name} ended"));
        }
    }
    show(json, &names, |_| {});
    Ok(Exit::Done)
}

pub(super) async fn resume(daemon: &Daemon, name: &VmName, json: bool) -> Result<Exit, CliError> {
    daemon
        .post::<_, ()>(&format!("/v1/vms/{name}/resume"), &())
        .await?;
    show(json, name, |name| say(format_args!("{name} runs")));
    Ok(Exit::Done)
}

pub(super) async fn list(daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let vms: Vec<VmInfo> = daemon.get("/v1/vms").await?;
    show(json, &vms, |vms| {
        say(format_args!(
            "{:<16} {:<16} {:<12} {:>8} {:>8} {:<10} AGENT",
            "VM", "GANG", "STATE", "PID", "MEMORY", "HCA"
        ));
        for vm in vms {
            let pid = vm.pid.map_or("-".into(), |pid| pid.to_string());
            let hca = vm.hca.as_ref().map_or("-", |hca| hca.as_str());
            let agent = match &vm.agent {
                AgentInfo::Silent => "silent".to_owned(),
                AgentInfo::Present { guest, version } => format!("{version} on {guest}"),
                AgentInfo::Incompatible { reason } => format!("incompatible: {reason}"),
            };
            say(format_args!(
                "{:<16} {:<16} {:<12} {pid:>8} {:>8} {hca:<10} {agent}",
                vm.name.as_str(),
                vm.gang.as_str(),
                vm.state,
                vm.memory.to_string()
            ));
        }
    });
    Ok(Exit::Done)
}

pub(super) async fn gangs(daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let gangs: Vec<GangInfo> = daemon.get("/v1/gangs").await?;
    show(json, &gangs, |gangs| {
        say(format_args!(
            "{:<16} {:>5} {:>6} {:<12} {:<10} VMS",
            "GANG", "RANKS", "EPOCH", "TRANSPORT", "BUSY"
        ));
        for gang in gangs {
            let busy = gang
                .busy
                .as_ref()
                .map_or("-", |operation| operation.as_str());
            let vms: Vec<_> = gang.vms.iter().map(VmName::as_str).collect();
            say(format_args!(
                "{:<16} {:>5} {:>6} {:<12} {busy:<10} {}",
                gang.name.as_str(),
                gang.ranks.len(),
                gang.epoch,
                gang.interconnect.to_string(),
                vms.join(" ")
            ));
        }
    });
    Ok(Exit::Done)
}

pub(super) async fn host(daemon: &Daemon, json: bool) -> Result<Exit, CliError> {
    let host: HostInfo = daemon.get("/v1/host").await?;
    show(json, &host, |host| {
        let names = |names: Vec<&str>| {
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(" ")
            }
        };
        say(format_args!("host         {}", host.host));
        say(format_args!("version      {}", host.version));
        say(format_args!("free memory  {}", host.memory_free));
        if let Some(free) = host.vcpus_free {
            say(format_args!("free vCPUs   {free}"));
        }
        say(format_args!(
            "free HCAs    {}",
            names(host.hcas_free.iter().map(|h| h.as_str()).collect())
        ));
        say(format_args!(
            "peers        {}",
            names(host.peers.iter().map(|h| h.as_str()).collect())
        ));
        for reserved in &host.reserved {
            let vms = reserved.vms.iter().map(VmName::as_str).collect();
            say(format_args!(
                "reserved     for {}: {}",
                reserved.operation,
                names(vms)
            ));
        }
    });
    Ok(Exit::Done)
}

/// Prints `value` as JSON, or by `print` for people.
pub(super) fn show<T: Serialize>(json: bool, value: &T, print: impl FnOnce(&T)) {
    if json {
        print_json(&serde_json::json!(value));
    } else {
        print(value);
    }
}
