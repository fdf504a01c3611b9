//! hpcc as Debian ships it: its input, and its own verdict on its results.

use std::fmt;

use crate::lab::LabError;
use crate::lab::guest::Guest;

/// The program.
pub(super) const PROGRAM: &str = "/usr/bin/hpcc";
/// Succeeds once hpcc's last benchmark, HPL, has begun.
pub(super) const BEGINS: &str = "grep -q 'End of LatencyBandwidth' /tmp/hpccoutf.txt";
const INPUT: &str = include_str!("../../guest/hpccinf.txt");

/// Puts the input where the job will start.
pub(super) fn prepare(launcher: &Guest) -> Result<(), LabError> {
    launcher.run("rm -f /tmp/hpccoutf.txt")?;
    launcher.write("/tmp/hpccinf.txt", INPUT)
}

/// What hpcc says of HPL's results.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    passed: usize,
    failed: usize,
    success: bool,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        self.passed > 0 && self.failed == 0 && self.success
    }

    /// Of the residuals alone; the summary is hpcc's last word.
    pub fn checks(&self) -> String {
        format!("{} PASSED, {} FAILED", self.passed, self.failed)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, summary Success={}",
            self.checks(),
            u8::from(self.success)
        )
    }
}

/// Reads hpcc's report.
pub(super) fn verdict(launcher: &Guest) -> Result<Verdict, LabError> {
    Ok(read(&launcher.run("cat /tmp/hpccoutf.txt")?))
}

fn read(report: &str) -> Verdict {
    // HPL's residual lines begin with its formula; PTRANS says PASSED too, in other lines.
    let residuals = || report.lines().filter(|line| line.starts_with("||Ax-b||"));
    Verdict {
        passed: residuals().filter(|line| line.ends_with("PASSED")).count(),
        failed: residuals().filter(|line| !line.ends_with("PASSED")).count(),
        success: report.lines().any(|line| line.trim() == "Success=1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "WALL   500   500  80  80   1   2     0.28 PASSED    0.003  0.00\n\
        ||Ax-b||_oo/(eps*(||A||_oo*||x||_oo+||b||_oo)*N)=        0.0072510 ...... PASSED\n\
        Success=1\n";

    #[test]
    fn only_residuals_of_hpl_count() {
        let verdict = read(GOOD);
        assert_eq!((verdict.passed, verdict.failed), (1, 0));
        assert!(verdict.is_good());
    }

    #[test]
    fn a_wrong_residual_or_a_missing_report_is_not_good() {
        assert!(!read(&GOOD.replace("...... PASSED", "...... FAILED")).is_good());
        assert!(!read(&GOOD.replace("Success=1", "Success=0")).is_good());
        assert!(!read("").is_good());
    }
}
