//! `symvirt-guest exec`: runs a command so that its MPI processes can be moved.
//!
//! Works around the launcher (`exec -- mpirun -n 4 app`) and under it (`mpirun -n 4 symvirt-guest
//! exec -- app`; the way for jobs over several guests, because launchers do not carry LD_PRELOAD to
//! other machines). Needs no agent: without one the job just runs.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

const LIBRARY: &str = "libsymvirt.so";

/// What MPI is to be told. Open MPI: everything through UCX (any transport and device), nothing
/// that opens an HCA beside it.
const MPI: [(&str, &str); 7] = [
    ("OMPI_MCA_pml", "ucx"),
    ("OMPI_MCA_osc", "ucx"),
    ("OMPI_MCA_btl", "^uct,openib,ofi"),
    // 4.x
    ("OMPI_MCA_pml_ucx_tls", "any"),
    ("OMPI_MCA_pml_ucx_devices", "any"),
    // 5.x
    ("OMPI_MCA_opal_common_ucx_tls", "any"),
    ("OMPI_MCA_opal_common_ucx_devices", "any"),
];

/// Run a command so that its MPI processes can be moved to another interconnect.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<OsString>,
}

/// Replaces this process by the command; returns only if that fails.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut command = std::process::Command::new(&args.command[0]);
    command.args(&args.command[1..]);
    let environment = Environment::prepare(|name| std::env::var_os(name))?;
    environment.say();
    command.envs(environment.set);
    let error = command.exec();
    Err(error).with_context(|| format!("run {}", args.command[0].to_string_lossy()))
}

/// The changes to a job's environment.
#[derive(Debug, PartialEq)]
pub struct Environment {
    /// The library that is preloaded.
    pub library: PathBuf,
    /// Variables to set.
    pub set: Vec<(&'static str, OsString)>,
    /// What the user has set otherwise, which is kept: (variable, theirs, ours).
    pub kept: Vec<(&'static str, String, &'static str)>,
}

impl Environment {
    /// Finds the library and decides, given the present environment.
    pub fn prepare(present: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Self> {
        let library = find_library(present("SYMVIRT_LIB"))?;
        Ok(Self::with_library(&library, present))
    }

    fn with_library(library: &Path, present: impl Fn(&str) -> Option<OsString>) -> Self {
        let mut environment = Environment {
            library: library.to_owned(),
            set: Vec::new(),
            kept: Vec::new(),
        };
        let preload = preload(library, present("LD_PRELOAD").as_deref());
        environment.set.push(("LD_PRELOAD", preload));
        for (name, ours) in MPI {
            match present(name) {
                None => environment.set.push((name, ours.into())),
                Some(theirs) if theirs == ours => {}
                Some(theirs) => {
                    environment
                        .kept
                        .push((name, theirs.to_string_lossy().into_owned(), ours));
                }
            }
        }
        environment
    }

    /// Tells the user what was kept.
    pub fn say(&self) {
        for (name, theirs, ours) in &self.kept {
            eprintln!(
                "symvirt-guest: {name}={theirs} is kept as you set it; \
                 the job can be moved for sure only with {name}={ours}"
            );
        }
    }
}

/// Ours first; whatever else is preloaded stays, once.
fn preload(library: &Path, present: Option<&OsStr>) -> OsString {
    let mut preload = library.as_os_str().to_owned();
    let present = present.unwrap_or_default().to_string_lossy().into_owned();
    let others = present.split([':', ' ']).filter(|other| !other.is_empty());
    for other in others.filter(|other| Path::new(other).file_name() != library.file_name()) {
        preload.push(":");
        preload.push(other);
    }
    preload
}

fn find_library(named: Option<OsString>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        let library = PathBuf::from(named);
        anyhow::ensure!(
            library.is_file(),
            "SYMVIRT_LIB={}: no such file",
            library.display()
        );
        return std::path::absolute(&library).context("resolve SYMVIRT_LIB");
    }
    let program = std::env::current_exe().context("find this program's own path")?;
    let beside = program.parent().context("find this program's directory")?;
    let candidates = [
        beside.join(LIBRARY),
        beside.join("../lib").join(LIBRARY),
        beside.join("../lib/symvirt").join(LIBRARY),
        Path::new("/usr/lib/symvirt").join(LIBRARY),
    ];
    let found = candidates.iter().find(|candidate| candidate.is_file());
    let found = found.with_context(|| {
        let places: Vec<String> = candidates.iter().map(|c| c.display().to_string()).collect();
        format!(
            "{LIBRARY} is at none of {}; SYMVIRT_LIB can name it",
            places.join(", ")
        )
    })?;
    found
        .canonicalize()
        .with_context(|| format!("resolve {}", found.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(present: &[(&str, &str)]) -> Environment {
        let library = Path::new("/usr/lib/symvirt/libsymvirt.so");
        Environment::with_library(library, |name| {
            let found = present.iter().find(|(present, _)| *present == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn value<'a>(environment: &'a Environment, name: &str) -> Option<&'a OsStr> {
        environment
            .set
            .iter()
            .find(|(set, _)| *set == name)
            .map(|(_, value)| value.as_os_str())
    }

    #[test]
    fn mpi_is_sent_through_ucx_and_nothing_beside_it() {
        let environment = with(&[]);
        assert_eq!(value(&environment, "OMPI_MCA_pml"), Some(OsStr::new("ucx")));
        assert_eq!(
            value(&environment, "OMPI_MCA_btl"),
            Some(OsStr::new("^uct,openib,ofi"))
        );
        assert_eq!(environment.kept, []);
    }

    #[test]
    fn what_the_user_has_set_is_kept_and_named() {
        let environment = with(&[("OMPI_MCA_pml", "ob1"), ("OMPI_MCA_osc", "ucx")]);
        assert_eq!(
            environment.kept,
            [("OMPI_MCA_pml", "ob1".to_owned(), "ucx")]
        );
        assert_eq!(value(&environment, "OMPI_MCA_pml"), None);
    }

    #[test]
    fn other_preloads_stay_behind_ours_and_ours_is_there_once() {
        let environment = with(&[("LD_PRELOAD", "/a/libx.so:/old/libsymvirt.so /b/liby.so")]);
        assert_eq!(
            value(&environment, "LD_PRELOAD"),
            Some(OsStr::new(
                "/usr/lib/symvirt/libsymvirt.so:/a/libx.so:/b/liby.so"
            ))
        );
    }
}
