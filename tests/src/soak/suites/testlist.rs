//! The lists by which MPICH's suite says what is to be run: a program in a line, its ranks, and
//! options as `name=value`.

use std::time::Duration;

/// What a line without a limit is given by the suite.
const USUAL_LIMIT: Duration = Duration::from_secs(180);
/// Memory that a program may ask for, in GB.
const MOST_MEMORY: f64 = 2.0;

/// What a program does when all is well.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Promise {
    /// It says that it found no errors, and ends with success.
    NoErrors,
    /// It says so, and does not end with success.
    NoErrorsButFails,
    /// It does not end with success.
    Fails,
}

/// One line.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Test {
    /// Of the list, below the suite's folder.
    pub folder: String,
    /// Program.
    pub program: String,
    /// Ranks.
    pub ranks: u32,
    /// For the program.
    pub arguments: Vec<String>,
    /// For the launcher.
    pub launcher: Vec<String>,
    /// Names and values, for the ranks.
    pub environment: Vec<(String, String)>,
    /// How long it may take.
    pub limit: Duration,
    /// What it does when all is well.
    pub promise: Promise,
}

impl Test {
    /// With its folder, ranks and arguments.
    pub fn name(&self) -> String {
        let mut words = vec![
            format!("{}/{}", self.folder, self.program),
            self.ranks.to_string(),
        ];
        words.extend(self.arguments.clone());
        words.extend(
            self.environment
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        words.join(" ")
    }
}

/// The tests of a list. Not those that the suite expects to fail, that ask for more memory than
/// machines have, or, if the MPI `is_strict`, that need what only MPICH has.
pub fn parse(folder: &str, text: &str, is_strict: bool) -> Vec<Test> {
    text.lines()
        .filter_map(|line| test(folder, line, is_strict))
        .collect()
}

fn test(folder: &str, line: &str, is_strict: bool) -> Option<Test> {
    let mut words = line.split('#').next()?.split_whitespace().peekable();
    // Not what is to be made before the tests ("!folder:target").
    let program = words.next().filter(|word| !word.starts_with('!'))?;
    let ranks = words.peek().and_then(|word| word.parse().ok());
    let mut test = Test {
        folder: folder.to_owned(),
        program: program.to_owned(),
        ranks: ranks.unwrap_or(2),
        arguments: Vec::new(),
        launcher: Vec::new(),
        environment: Vec::new(),
        limit: USUAL_LIMIT,
        promise: Promise::NoErrors,
    };
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        match name {
            "arg" => test.arguments.push(value.to_owned()),
            "mpiexecarg" => test.launcher.push(value.to_owned()),
            "env" => {
                let (name, value) = value.split_once('=')?;
                test.environment.push((name.to_owned(), value.to_owned()));
            }
            "timeLimit" => test.limit = Duration::from_secs(value.parse().ok()?),
            "resultTest" => {
                test.promise = match value {
                    "TestStatusNoErrors" => Promise::NoErrorsButFails,
                    _ => Promise::Fails,
                }
            }
            "xfail" => return None,
            "strict" if is_strict && value.eq_ignore_ascii_case("false") => return None,
            "mem" if value.parse().is_ok_and(|asked: f64| asked > MOST_MEMORY) => return None,
            _ => {}
        }
    }
    Some(test)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_program_its_ranks_and_options() {
        let text = "# a comment\n\
                    put 4 arg=-count=3 env=A=b=c timeLimit=20  # more\n\
                    abort 2 resultTest=TestErrFatal\n\
                    alone\n";
        let tests = parse("rma", text, false);
        assert_eq!(tests.len(), 3);
        let put = &tests[0];
        assert_eq!(put.name(), "rma/put 4 -count=3 A=b=c");
        assert_eq!(put.limit, Duration::from_secs(20));
        assert_eq!(tests[1].promise, Promise::Fails);
        assert_eq!((tests[2].ranks, tests[2].limit), (2, USUAL_LIMIT));
    }

    #[test]
    fn what_cannot_pass_is_not_listed() {
        let text = "a 2 xfail=ticket0\nb 2 mem=6.5\nc 1 strict=false\n!d:all\n";
        let left = |is_strict| {
            let tests = parse("x", text, is_strict).into_iter();
            tests.map(|test| test.program).collect::<Vec<_>>()
        };
        assert_eq!(left(false), ["c"]);
        assert!(left(true).is_empty());
    }
}
