//! What a command does while its daemon is away: whoever restarts it, it is there again soon.

use std::future::Future;

use tokio::time::{Duration, Instant};

use super::CliError;
use crate::http::HttpError;

/// How long a daemon that has ended may take to be there again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks for it.
const PAUSE: Duration = Duration::from_millis(200);

/// Whether the daemon was there, and ended before it had answered.
pub(super) fn was_cut(error: &CliError) -> bool {
    matches!(error, CliError::Http(HttpError::Connection { .. }))
}

/// Whether it is the failure of a daemon that may be there again.
pub(super) fn may_return(error: &CliError) -> bool {
    was_cut(error) || matches!(error, CliError::Daemon { .. })
}

/// Asks once more, until the next daemon answers.
pub(super) async fn again<T, F>(ask: impl Fn() -> F) -> Result<T, CliError>
where
    F: Future<Output = Result<T, CliError>>,
{
    eprintln!("symvirtd has ended the connection; waiting for it to be there again");
    let deadline = Instant::now() + PATIENCE;
    loop {
        tokio::time::sleep(PAUSE).await;
        match ask().await {
            Err(error) if may_return(&error) && Instant::now() < deadline => {}
            answer => return answer,
        }
    }
}
