//! One process as /proc shows it. What vanishes while it is read is left out.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Facts {
    /// Program name.
    pub program: String,
    /// The MPI library.
    pub mpi: Option<PathBuf>,
    /// The UCP library.
    pub ucp: Option<PathBuf>,
    /// Whether libsymvirt.so is in the process.
    pub preloaded: bool,
    /// Open MPI's components, for example `pml_ob1` or `btl_tcp`; empty where they are built in.
    pub components: BTreeSet<String>,
    /// Libraries that reach an HCA by themselves.
    pub fabrics: BTreeSet<String>,
    /// Open `/dev/infiniband/uverbs*`.
    pub verbs_descriptors: usize,
    /// Settings that decide how MPI sends.
    pub settings: Vec<(String, String)>,
}

/// Beginnings of the names of settings worth knowing.
const SETTINGS: [&str; 8] = [
    "OMPI_MCA_pml",
    "OMPI_MCA_btl",
    "OMPI_MCA_mtl",
    "OMPI_MCA_osc",
    "OMPI_MCA_opal_common_ucx",
    "UCX_",
    "MPIR_CVAR_",
    "SYMVIRT_",
];

/// Libraries beside UCX that open HCAs.
const FABRICS: [&str; 4] = ["libfabric", "libpsm2", "libpsm_infinipath", "libmxm"];

impl Facts {
    /// Of a process; `None` if it is gone, has ended and is not yet waited for (it has no memory
    /// then), or may not be looked at.
    pub fn of(proc: &Path, pid: u32) -> Option<Facts> {
        let directory = proc.join(pid.to_string());
        let maps = fs::read(directory.join("maps")).ok()?;
        if maps.is_empty() {
            return None;
        }
        let program = fs::read_to_string(directory.join("comm")).ok()?;
        let mut facts = Facts {
            program: program.trim_end().to_owned(),
            verbs_descriptors: verbs_descriptors(&directory),
            ..Facts::default()
        };
        for file in files_of(&String::from_utf8_lossy(&maps)) {
            facts.note(&file);
        }
        facts.settings = settings(&fs::read(directory.join("environ")).unwrap_or_default());
        Some(facts)
    }

    /// Whether MPI is in the process.
    pub fn is_mpi(&self) -> bool {
        self.mpi.is_some()
    }

    /// Whether Open MPI has chosen its way of sending, and that is seen.
    pub fn has_chosen(&self) -> bool {
        let mut components = self.components.iter();
        components.any(|component| component.starts_with("pml_"))
    }

    fn note(&mut self, file: &Path) {
        let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if let Some(component) = name.strip_prefix("mca_") {
            let component = component.split('.').next().unwrap_or(component);
            self.components.insert(component.to_owned());
        } else if name.starts_with("libmpi.so") || name.starts_with("libmpich.so") {
            self.mpi = Some(file.to_owned());
        } else if name.starts_with("libmpi-") && name.contains(".so") {
            // As the wheels on PyPI name it.
            self.mpi.get_or_insert_with(|| file.to_owned());
        } else if name.starts_with("libucp") {
            self.ucp = Some(file.to_owned());
        } else if name.starts_with("libsymvirt.so") {
            self.preloaded = true;
        } else if let Some(fabric) = FABRICS.iter().find(|fabric| name.starts_with(*fabric)) {
            self.fabrics.insert((*fabric).to_owned());
        }
    }

    /// The value of a setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        let found = self.settings.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Files that are mapped, each once: address, access, offset, device, inode, path (proc(5)).
fn files_of(maps: &str) -> BTreeSet<PathBuf> {
    let paths = maps.lines().filter_map(|line| {
        let path = line.splitn(6, char::is_whitespace).nth(5)?.trim_start();
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    paths.collect()
}

fn settings(environ: &[u8]) -> Vec<(String, String)> {
    let mut settings: Vec<(String, String)> = environ
        .split(|byte| *byte == 0)
        .filter_map(|entry| {
            let text = String::from_utf8_lossy(entry);
            let (name, value) = text.split_once('=')?;
            let wanted = SETTINGS.iter().any(|start| name.starts_with(start));
            wanted.then(|| (name.to_owned(), value.to_owned()))
        })
        .collect();
    settings.sort();
    settings
}

fn verbs_descriptors(directory: &Path) -> usize {
    let entries = fs::read_dir(directory.join("fd")).into_iter().flatten();
    entries
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.starts_with("/dev/infiniband"))
        .filter(|target| target.to_string_lossy().contains("uverbs"))
        .count()
}

/// A process and all below it.
pub fn family(proc: &Path, top: u32) -> Vec<u32> {
    let names = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids
        .filter_map(|pid| Some((pid, parent(proc, pid)?)))
        .collect();
    let mut family = vec![top];
    let mut at = 0;
    while let Some(&here) = family.get(at) {
        let children = parents.iter().filter(|(_, parent)| *parent == here);
        family.extend(children.map(|(pid, _)| *pid));
        at += 1;
    }
    family
}

/// Behind the program's name, which stands in parentheses and may contain anything (proc(5)).
fn parent(proc: &Path, pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    let fields = &stat[stat.rfind(')')? + 1..];
    fields.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_process_is_read_as_the_kernel_shows_it() {
        let proc = tempfile::tempdir().expect("tempdir");
        let directory = proc.path().join("77");
        fs::create_dir_all(directory.join("fd")).expect("mkdir");
        let lines = [
            "5581-5582 r-xp 00000000 08:01 12 /usr/bin/my app",
            "7f01-7f02 r-xp 00001000 08:01 13 /usr/lib/libmpi.so.40.30.4",
            "7f03-7f04 r-xp 00001000 08:01 13 /usr/lib/openmpi3/mca_pml_ob1.so",
            "7f05-7f06 r--p 00001000 08:01 13 /usr/lib/openmpi3/mca_pml_ob1.so",
            "7f07-7f08 r--p 00001000 08:01 13 /usr/lib/libfabric.so.1.17",
            "7f09-7f0a r--p 00001000 08:01 13 /opt/libsymvirt.so",
            "7f0b-7f0c rw-p 00000000 00:00 0 [heap]",
        ];
        fs::write(directory.join("maps"), lines.join("\n")).expect("write");
        fs::write(directory.join("comm"), "my app\n").expect("write");
        let environ = "HOME=/root\0OMPI_MCA_pml=ob1\0UCX_TLS=a=b\0";
        fs::write(directory.join("environ"), environ).expect("write");
        for (fd, target) in [("3", "/dev/infiniband/uverbs0"), ("4", "/dev/null")] {
            symlink(target, directory.join("fd").join(fd)).expect("symlink");
        }
        let facts = Facts::of(proc.path(), 77).expect("is there");
        assert_eq!(facts.program, "my app");
        assert_eq!(facts.mpi, Some("/usr/lib/libmpi.so.40.30.4".into()));
        assert_eq!((facts.ucp, facts.preloaded), (None, true));
        assert_eq!(facts.components, BTreeSet::from(["pml_ob1".to_owned()]));
        assert_eq!(facts.fabrics, BTreeSet::from(["libfabric".to_owned()]));
        assert_eq!(facts.verbs_descriptors, 1);
        let pairs = [("OMPI_MCA_pml", "ob1"), ("UCX_TLS", "a=b")];
        assert_eq!(
            facts.settings,
            pairs.map(|(n, v)| (n.to_owned(), v.to_owned()))
        );
        assert_eq!(Facts::of(proc.path(), 78), None);
        fs::write(directory.join("maps"), "").expect("write");
        assert_eq!(Facts::of(proc.path(), 77), None, "it has ended");
    }

    #[test]
    fn a_family_is_found_whatever_its_programs_are_called() {
        let proc = tempfile::tempdir().expect("tempdir");
        let stats = [
            "7 (sh) S 1 7",
            "8 (a) b) R 7 7",
            "9 (c) S 8 7",
            "10 (d) S 1 1",
        ];
        for stat in stats {
            let pid = stat.split(' ').next().expect("a number");
            fs::create_dir(proc.path().join(pid)).expect("mkdir");
            fs::write(proc.path().join(pid).join("stat"), stat).expect("write");
        }
        assert_eq!(family(proc.path(), 7), [7, 8, 9]);
    }
}
