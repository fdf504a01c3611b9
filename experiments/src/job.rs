//! An MPI job in the guests, started by its own launcher under `symvirt-guest exec`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::lab::LabError;
use crate::lab::guest::Guest;

/// An MPI that the guests have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mpi {
    /// Started by `mpirun`, PRRTE's.
    OpenMpi,
    /// Started by Hydra's `mpiexec`.
    Mpich,
}

impl Mpi {
    /// Where a program of `tests/apps` lies, within `/opt/symvirt`.
    pub fn app(self, program: &str) -> String {
        match self {
            Mpi::OpenMpi => format!("apps/{program}"),
            Mpi::Mpich => format!("apps/mpich/{program}"),
        }
    }

    /// The launcher with its options, for one rank in each guest.
    fn launcher(self, guests: &[Guest]) -> String {
        let names: Vec<String> = guests.iter().map(|guest| guest.id.name()).collect();
        let (count, names) = (names.len(), names.join(","));
        match self {
            Mpi::OpenMpi => format!(
                "mpirun -n {count} --host {names} --map-by node \
                 --prtemca oob_tcp_if_include eth0 -x UCX_UD_ETH_DGID_CHECK"
            ),
            Mpi::Mpich => format!(
                "mpiexec.hydra -n {count} -ppn 1 -hosts {names} -launcher ssh -iface eth0 \
                 -genvlist UCX_UD_ETH_DGID_CHECK"
            ),
        }
    }
}

/// A job under way. It is not ended when this is dropped: it ends with its guests, or by
/// [`Job::kill`].
#[derive(Debug)]
pub struct Job {
    launcher: Guest,
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether its launcher says that all went well.
    pub success: bool,
    /// Its exit status in words.
    pub status: String,
    /// Everything it wrote.
    pub output: Vec<String>,
}

impl Job {
    /// Starts `program` with one rank in each of `guests`, launched from the first.
    ///
    /// # Errors
    /// If ssh cannot be started.
    pub fn start(guests: &[Guest], mpi: Mpi, program: &str) -> Result<Self, LabError> {
        let launched = format!("/opt/symvirt/bin/symvirt-guest exec -- {program}");
        Self::launch(guests, mpi, &launched)
    }

    /// As [`Job::start`], a program of `tests/apps`; `words` are its name and arguments.
    ///
    /// # Errors
    /// As [`Job::start`].
    pub fn start_app(guests: &[Guest], mpi: Mpi, words: &str) -> Result<Self, LabError> {
        Self::start(guests, mpi, &format!("/opt/symvirt/{}", mpi.app(words)))
    }

    /// The same with Open MPI and without the library, over TCP only.
    ///
    /// # Errors
    /// As [`Job::start`].
    pub fn start_plainly(guests: &[Guest], program: &str) -> Result<Self, LabError> {
        let launched = format!(
            "-x UCX_TLS=tcp,self,sm -x UCX_NET_DEVICES=eth0 --mca pml ucx --mca pml_ucx_tls any \
             --mca pml_ucx_devices any {program}"
        );
        Self::launch(guests, Mpi::OpenMpi, &launched)
    }

    /// `launched`: options of the launcher, and the program.
    fn launch(guests: &[Guest], mpi: Mpi, launched: &str) -> Result<Self, LabError> {
        let launcher = guests.first().cloned().ok_or_else(|| LabError::File {
            what: "launch",
            path: launched.into(),
            source: std::io::Error::other("no guest"),
        })?;
        // Soft-RoCE delivers datagrams with a GRH that UCX's check does not expect.
        let script = format!(
            "cd /tmp && export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
             UCX_UD_ETH_DGID_CHECK=n && exec {} {launched} 2>&1",
            mpi.launcher(guests)
        );
        let mut command = launcher.ssh(&script);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().map_err(|source| LabError::File {
            what: "start",
            path: "ip netns exec … ssh".into(),
            source,
        })?;
        let output: Arc<Mutex<Vec<String>>> = Arc::default();
        let (pipe, lines) = (child.stdout.take(), Arc::clone(&output));
        std::thread::spawn(move || {
            let pipe = pipe.map(BufReader::new).into_iter();
            for line in pipe.flat_map(BufRead::lines).map_while(Result::ok) {
                lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
        });
        Ok(Self {
            launcher,
            child,
            output,
        })
    }

    /// What it has written so far.
    pub fn output(&self) -> Vec<String> {
        let lines = self.output.lock();
        lines.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end; `None` if it has not ended within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<Outcome> {
        let deadline = Instant::now() + limit;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(Outcome {
                    success: status.success(),
                    status: status.to_string(),
                    output: self.output(),
                });
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks a program of `tests/apps` to end its rounds now, and well.
    ///
    /// # Errors
    /// If the guest does not answer.
    pub fn finish(&self, program: &str) -> Result<(), LabError> {
        // Rank 0 runs in the launcher's guest. A program that has ended by itself is no error.
        self.launcher
            .run(&format!("pkill -USR1 -x {program}; true"))?;
        Ok(())
    }

    /// Ends it as a user would, from the launcher's guest.
    ///
    /// # Errors
    /// If the guest does not answer.
    pub fn kill(mut self) -> Result<(), LabError> {
        self.launcher.run("pkill -x 'mpirun|mpiexec.hydra'; true")?;
        if self.wait(Duration::from_secs(20)).is_none() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
        Ok(())
    }
}
