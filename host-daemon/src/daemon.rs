//! `symvirtd`: this host, its peers, its operations, behind two listeners.
//!
//! ```text
//!   STATE_DIR/symvirtd.sock  0660   users of this host, by file permission; `socket` elsewhere
//!   listen                   TLS    peers, and users elsewhere, by client certificate
//! ```
//!
//! QEMUs are not its children in any sense that matters: it may end and begin again while they
//! run.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::net::{UnixListener, UnixStream};
use tracing::info;

use crate::api;
use crate::api::model::{API_VERSION, GangInfo, HostInfo};
use crate::config::{HostConfig, HostName, VmName};
use crate::guest::{Connector, Gangs, Stream};
use crate::host::LocalHost;
use crate::operation::effects::{HostError, SystemClock};
use crate::operation::journal::JournalError;
use crate::operation::{Engine, Target};
use crate::peer::{Identity, Peer, Tls, TlsError, TlsListener};
use crate::retry;

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Its directory or socket.
    #[error("{action} {path}", path = path.display())]
    State {
        /// For example `create`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another daemon serves this directory.
    #[error("another symvirtd answers at {}", .0.display())]
    Running(PathBuf),
    /// Its certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its journals.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Its VMs.
    #[error("take up the VMs of this host")]
    Vms(#[source] HostError),
    /// The listener of the network.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A listener ended.
    #[error("serve the API")]
    Serve(#[source] io::Error),
}

/// A host's daemon.
pub struct Daemon {
    config: Arc<HostConfig>,
    /// This host.
    pub host: Arc<LocalHost>,
    gangs: Arc<Gangs>,
    /// Its operations.
    pub engine: Arc<Engine>,
    peers: Vec<HostName>,
}

/// Opens guest channels: here by socket, elsewhere by way of that host's daemon.
struct Channels {
    here: HostName,
    host: std::sync::OnceLock<std::sync::Weak<LocalHost>>,
    peers: BTreeMap<HostName, Arc<Peer>>,
}

impl Connector for Channels {
    fn connect(&self, host: HostName, vm: VmName) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            if host != self.here {
                let peer = self.peers.get(&host).ok_or(io::ErrorKind::NotFound)?;
                return peer.guest(&vm).await;
            }
            let local = self.host.get().and_then(std::sync::Weak::upgrade);
            let socket = local.and_then(|local| local.channel_socket(&vm));
            let socket = socket.ok_or(io::ErrorKind::NotFound)?;
            Ok(Box::new(UnixStream::connect(socket).await?) as Box<dyn Stream>)
        })
    }
}

/// Runs the daemon of `config` until `shutdown` resolves.
///
/// # Errors
/// [`DaemonError`].
pub async fn run(
    config: HostConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), DaemonError> {
    private_directory(&config.state_dir)?;
    let listener = local_listener(&config.socket()).await?;
    let config = Arc::new(config);
    let tls = config.tls.as_ref().map(Tls::load).transpose()?;
    let peers: BTreeMap<_, _> = match &tls {
        Some(tls) => config
            .peers
            .iter()
            .map(|peer| (peer.name.clone(), Arc::new(Peer::new(peer, tls.clone()))))
            .collect(),
        None => BTreeMap::new(),
    };
    let channels = Arc::new(Channels {
        here: config.host.clone(),
        host: std::sync::OnceLock::new(),
        peers: peers.clone(),
    });
    let gangs = Arc::new(Gangs::new(channels.clone()));
    let host = LocalHost::new(config.clone(), gangs.clone());
    let host = Arc::new(host.map_err(|source| DaemonError::State {
        action: "read reservations and retries in",
        path: config.state_dir.clone(),
        source,
    })?);
    if channels.host.set(Arc::downgrade(&host)).is_err() {
        unreachable!("invariant: set once, here");
    }
    host.take_up().await.map_err(DaemonError::Vms)?;
    let names = peers.keys().cloned().collect();
    let engine = Engine::open(
        config.clone(),
        host.clone(),
        gangs.clone(),
        peers,
        Arc::new(SystemClock),
        host.wishes.clone(),
    )
    .await?;
    let daemon = Arc::new(Daemon {
        config: config.clone(),
        host: host.clone(),
        gangs,
        engine,
        peers: names,
    });

    let retrying = tokio::spawn(retry::run(
        host.wishes.clone(),
        Arc::new(retry::Here {
            host: host.clone(),
            gangs: daemon.gangs.clone(),
            engine: daemon.engine.clone(),
        }),
    ));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        shutdown.await;
        stop.send_replace(true);
    });
    let network_served = serve_network(&config, tls.as_ref(), daemon.clone(), stopped.clone());
    let router = api::on_socket(daemon);
    let router = router.into_make_service_with_connect_info::<api::audit::Caller>();
    let local_served = async {
        info!(host = %config.host, socket = %config.socket().display(), "serving");
        tokio::select! {
            served = axum::serve(listener, router).into_future() => {
                served.map_err(DaemonError::Serve)
            }
            () = until(stopped.clone()) => Ok(()),
        }
    };
    let served = tokio::try_join!(local_served, network_served).map(|_| ());
    retrying.abort();
    host.let_go().await;
    if let Err(error) = fs::remove_file(config.socket()) {
        tracing::debug!(%error, "remove the socket");
    }
    served
}

async fn serve_network(
    config: &HostConfig,
    tls: Option<&Tls>,
    daemon: Arc<Daemon>,
    stopped: tokio::sync::watch::Receiver<bool>,
) -> Result<(), DaemonError> {
    let (Some(address), Some(tls)) = (config.listen, tls) else {
        return Ok(());
    };
    let names = config.peers.iter().map(|peer| peer.name.clone()).collect();
    let listener = TlsListener::bind(address, tls, names)
        .await
        .map_err(|source| DaemonError::Listen { address, source })?;
    info!(host = %config.host, address = %listener.address(), "listening for peers and users");
    let service = api::on_network(daemon).into_make_service_with_connect_info::<Identity>();
    tokio::select! {
        () = tls.keep_fresh() => Ok(()),
        served = axum::serve(listener, service).into_future() => served.map_err(DaemonError::Serve),
        () = until(stopped) => Ok(()),
    }
}

async fn until(mut stopped: tokio::sync::watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        tracing::debug!("the task that waits for the end has ended");
    }
}

fn private_directory(path: &Path) -> Result<(), DaemonError> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|source| DaemonError::State {
        action: "create",
        path: path.to_owned(),
        source,
    })
}

async fn local_listener(path: &Path) -> Result<UnixListener, DaemonError> {
    let failed = |action| {
        move |source| DaemonError::State {
            action,
            path: path.to_owned(),
            source,
        }
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed("make the folder of"))?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(DaemonError::Running(path.to_owned()));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove the old")(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed("listen on"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed("protect"))?;
    Ok(listener)
}

impl Daemon {
    /// This host.
    pub fn info(&self) -> HostInfo {
        HostInfo {
            host: self.config.host.clone(),
            api_version: API_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            memory_free: self.host.free_memory(),
            vcpus_free: self.host.free_vcpus(),
            hcas_free: self.host.free_hcas(),
            peers: self.peers.clone(),
            gangs: self.host.gang_names(),
            reserved: self.host.reserved(),
        }
    }

    /// The gangs with VMs on this host.
    pub fn gang_infos(&self) -> Vec<GangInfo> {
        let names = self.host.gang_names();
        let of = |name| {
            let view = self.gangs.get(&name).map(|gang| gang.view());
            let (ranks, epoch, interconnect) = match view {
                Some(view) => (view.ranks, view.epoch, view.interconnect),
                None => (Vec::new(), 0, Target::Native),
            };
            GangInfo {
                vms: self
                    .host
                    .specs(&name)
                    .into_iter()
                    .map(|spec| spec.name)
                    .collect(),
                ranks,
                epoch,
                interconnect,
                busy: self.engine.busy(&name),
                retry: self.host.wishes.of(&name),
                name,
            }
        };
        names.into_iter().map(of).collect()
    }
}
