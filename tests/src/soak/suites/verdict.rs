//! The suite's rules: what a program has to say and how it has to end.

use super::testlist::Promise;

/// What a run showed, as far as it is judged.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Standard output.
    pub said: &'a str,
    /// Exit code of the job; none if the time limit or a signal ended it.
    pub code: Option<i32>,
    /// The time limit ended it.
    pub timed_out: bool,
}

/// Whether the promise was kept.
///
/// # Errors
/// Why not, in a few words.
pub fn judge(promise: Promise, shown: Shown<'_>) -> Result<(), String> {
    let Shown { said, code, .. } = shown;
    if shown.timed_out {
        return Err("it did not end".to_owned());
    }
    let succeeded = code == Some(0);
    let lines = || said.lines().map(str::trim);
    let found_none = lines().any(is_no_errors);
    let surprise = lines().find(|line| {
        let expected = is_no_errors(line) || matches!(*line, "" | "Test Passed");
        !expected
    });
    let must_speak = promise != Promise::Fails;
    let must_succeed = promise == Promise::NoErrors;
    match surprise {
        Some(line) if must_succeed => Err(format!("it said {line:?}, exit code {code:?}")),
        _ if must_speak && !found_none => Err(format!("no \"No Errors\", exit code {code:?}")),
        _ if must_succeed != succeeded => Err(format!("exit code {code:?}")),
        _ => Ok(()),
    }
}

fn is_no_errors(line: &str) -> bool {
    matches!(line, "No Errors" | "No errors")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(promise: Promise, said: &str, code: i32) -> bool {
        let shown = Shown {
            said,
            code: Some(code),
            timed_out: false,
        };
        judge(promise, shown).is_ok()
    }

    #[test]
    fn a_program_passes_that_says_no_errors_and_nothing_else() {
        assert!(judged(Promise::NoErrors, " No Errors\n", 0));
        for (said, code) in [(" No Errors\n", 1), ("", 0), ("No Errors\nbut\n", 0)] {
            assert!(!judged(Promise::NoErrors, said, code), "{said:?} {code}");
        }
    }

    #[test]
    fn a_program_that_is_to_fail_fails() {
        assert!(judged(Promise::Fails, "aborted", 3));
        assert!(!judged(Promise::Fails, "", 0));
        assert!(judged(Promise::NoErrorsButFails, "No Errors", 3));
        assert!(!judged(Promise::NoErrorsButFails, "", 3));
    }

    #[test]
    fn a_program_that_does_not_end_never_passes() {
        let shown = Shown {
            said: "No Errors",
            code: None,
            timed_out: true,
        };
        assert!(judge(Promise::Fails, shown).is_err());
    }
}
