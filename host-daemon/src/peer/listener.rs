//! The TLS listener, as axum wants it. Handshakes run in tasks of their own, so that a client
//! that never finishes one does not keep others out.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::identity::Identity;
use super::tls::Tls;
use crate::config::HostName;

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Accepted connections that wait for the server; more are left in the kernel's queue.
const BACKLOG: usize = 16;

/// Accepts connections whose client certificate the authority has signed.
pub struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, Identity)>,
    address: SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
}

impl TlsListener {
    /// Listens on `address`.
    ///
    /// # Errors
    /// Those of bind(2).
    pub async fn bind(address: SocketAddr, tls: &Tls, peers: Vec<HostName>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(BACKLOG);
        let accepting = tokio::spawn(accept_all(listener, tls.clone(), peers, sender));
        Ok(Self {
            ready,
            address,
            accepting,
        })
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept_all(
    listener: TcpListener,
    tls: Tls,
    peers: Vec<HostName>,
    ready: mpsc::Sender<(TlsStream<TcpStream>, Identity)>,
) {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: waiting is all that helps.
                warn!(%error, "accept of a TLS connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let acceptor = TlsAcceptor::from(tls.server());
        let (peers, ready) = (peers.clone(), ready.clone());
        tokio::spawn(async move {
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%from, %error, "set TCP_NODELAY");
            }
            match timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let chain = stream.get_ref().1.peer_certificates();
                    let identity = Identity::of(chain.and_then(|chain| chain.first()), &peers);
                    if ready.send((stream, identity)).await.is_err() {
                        debug!(%from, "connection accepted while the server ends");
                    }
                }
                Ok(Err(error)) => warn!(%from, %error, "TLS handshake refused"),
                Err(_) => warn!(%from, "TLS handshake not finished in time"),
            }
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = Identity;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The accepting task lives as long as `self`; were it gone, nothing would come.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(Identity::Unknown)
    }
}

impl TlsListener {
    /// The address in use, with the port that the kernel chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Identity {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        stream.remote_addr().clone()
    }
}
