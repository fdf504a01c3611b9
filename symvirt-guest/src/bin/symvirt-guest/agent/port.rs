//! The byte stream to the host: a virtio-serial port, or a unix socket in its place.
//!
//! Two threads, because a virtio-serial port says "the host has closed its end" by a hang-up
//! that ends again, which readiness queues with edge triggers and once-closed flags cannot
//! express. While the host's end is closed nothing is read or written; closing the guest's end
//! instead would make the host see the agent come and go.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc as blocking;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

/// Name of the port, as the host gives it to QEMU.
pub const PORT_NAME: &str = "org.symvirt.guest.0";
/// Between two looks at a port that does not exist, or whose host end is closed.
const RETRY: Duration = Duration::from_millis(100);
/// Longest wait in one poll, so that the threads notice a stop.
const POLL_MS: u16 = 500;

/// What the stream does.
#[derive(Debug)]
pub enum Happening {
    /// The host's end is open; bytes written for an earlier opening are dropped.
    Opened(u64),
    /// The host's end is closed, or the port is gone.
    Closed,
    /// Bytes from the host.
    Bytes(Vec<u8>),
}

/// Bytes for the host, and the opening they are for.
pub type Chunk = (u64, Vec<u8>);

/// Where the port is.
#[derive(Clone, Debug)]
pub enum Location {
    /// Found by its name in sysfs.
    Named,
    /// A device node, or a unix socket to connect to.
    At(PathBuf),
}

impl Location {
    fn find(&self) -> Option<PathBuf> {
        match self {
            Location::At(path) => path.exists().then(|| path.clone()),
            Location::Named => {
                let link = Path::new("/dev/virtio-ports").join(PORT_NAME);
                if link.exists() {
                    return Some(link);
                }
                // Without udev nobody makes the link.
                let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
                let port = ports.filter_map(Result::ok).find(|port| {
                    let name = fs::read_to_string(port.path().join("name"));
                    name.is_ok_and(|name| name.trim() == PORT_NAME)
                })?;
                Some(Path::new("/dev").join(port.file_name()))
            }
        }
    }

    fn open(&self) -> io::Result<Option<File>> {
        let Some(path) = self.find() else {
            return Ok(None);
        };
        if fs::metadata(&path)?.file_type().is_socket() {
            let stream = UnixStream::connect(&path)?;
            stream.set_nonblocking(true)?;
            return Ok(Some(File::from(OwnedFd::from(stream))));
        }
        let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(nonblocking);
        options.open(&path).map(Some)
    }
}

/// Starts the threads; they end when the other ends of their channels are gone.
pub fn start(
    location: Location,
) -> io::Result<(mpsc::Receiver<Happening>, blocking::SyncSender<Chunk>)> {
    let (happenings, seen) = mpsc::channel(16);
    let (chunks, to_write) = blocking::sync_channel(64);
    thread::Builder::new()
        .name("host-port".to_owned())
        .spawn(move || keep_open(&location, &happenings, to_write))?;
    Ok((seen, chunks))
}

fn keep_open(
    location: &Location,
    happenings: &mpsc::Sender<Happening>,
    mut to_write: blocking::Receiver<Chunk>,
) {
    let opening = AtomicU64::new(0);
    let mut complained = false;
    while !happenings.is_closed() {
        match location.open() {
            Ok(Some(file)) => {
                complained = false;
                info!(?location, "host port is open");
                converse(&file, happenings, &mut to_write, &opening);
                if happenings.blocking_send(Happening::Closed).is_err() {
                    return;
                }
            }
            Ok(None) if !complained => {
                complained = true;
                info!(?location, "no host port yet");
            }
            Err(error) if !complained => {
                complained = true;
                warn!(?location, %error, "open host port");
            }
            Ok(None) | Err(_) => {}
        }
        thread::sleep(RETRY);
    }
}

/// Reads here and writes in another thread until the port is gone.
fn converse(
    file: &File,
    happenings: &mpsc::Sender<Happening>,
    to_write: &mut blocking::Receiver<Chunk>,
    opening: &AtomicU64,
) {
    let gone = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| write_all(file, to_write, opening, &gone));
        if let Err(error) = read_all(file, happenings, opening) {
            debug!(%error, "host port is gone");
        }
        gone.store(true, Ordering::Release);
    });
}

fn events(file: &File, wanted: PollFlags) -> io::Result<PollFlags> {
    let mut fds = [PollFd::new(file.as_fd(), wanted)];
    match poll(&mut fds, PollTimeout::from(POLL_MS)) {
        Ok(_) | Err(Errno::EINTR) => Ok(fds[0].revents().unwrap_or(PollFlags::empty())),
        Err(error) => Err(error.into()),
    }
}

fn read_all(
    mut file: &File,
    happenings: &mpsc::Sender<Happening>,
    opening: &AtomicU64,
) -> io::Result<()> {
    let is_socket = file.metadata()?.file_type().is_socket();
    let mut open = false;
    let mut buffer = vec![0; 64 << 10];
    while !happenings.is_closed() {
        let seen = events(file, PollFlags::POLLIN)?;
        let hung_up = seen.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
        if !open && !hung_up {
            open = true;
            let number = opening.fetch_add(1, Ordering::AcqRel) + 1;
            if happenings.blocking_send(Happening::Opened(number)).is_err() {
                return Ok(());
            }
        }
        let mut closed = hung_up && !seen.contains(PollFlags::POLLIN);
        if seen.contains(PollFlags::POLLIN) {
            match file.read(&mut buffer) {
                Ok(0) => closed = true,
                Ok(read) => {
                    let bytes = buffer[..read].to_vec();
                    if happenings.blocking_send(Happening::Bytes(bytes)).is_err() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if closed {
            if is_socket {
                return Ok(());
            }
            if std::mem::take(&mut open) {
                opening.fetch_add(1, Ordering::AcqRel);
                if happenings.blocking_send(Happening::Closed).is_err() {
                    return Ok(());
                }
            }
            thread::sleep(RETRY);
        }
    }
    Ok(())
}

fn write_all(
    mut file: &File,
    to_write: &mut blocking::Receiver<Chunk>,
    opening: &AtomicU64,
    gone: &AtomicBool,
) {
    while !gone.load(Ordering::Acquire) {
        let (number, bytes) = match to_write.recv_timeout(RETRY) {
            Ok(chunk) => chunk,
            Err(blocking::RecvTimeoutError::Timeout) => continue,
            Err(blocking::RecvTimeoutError::Disconnected) => return,
        };
        let mut rest = &bytes[..];
        while !rest.is_empty()
            && !gone.load(Ordering::Acquire)
            && number == opening.load(Ordering::Acquire)
        {
            match file.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let hung_up = PollFlags::POLLHUP | PollFlags::POLLERR;
                    // A hang-up makes poll return at once; the reader notices it.
                    if events(file, PollFlags::POLLOUT).is_ok_and(|seen| seen.intersects(hung_up)) {
                        thread::sleep(RETRY);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    debug!(%error, "write to host port");
                    break;
                }
            }
        }
    }
}
