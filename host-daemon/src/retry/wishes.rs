//! The wishes of this host, on disk: a daemon that starts goes on with those of the one before.
//!
//! ```text
//!   STATE_DIR/retries/a-00007.json
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Wish;
use crate::config::GangName;
use crate::kept;
use crate::operation::OperationId;

/// What is shown of a wish.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RetryInfo {
    /// What is wanted, and since which operation.
    #[serde(flatten)]
    pub wish: Wish,
    /// How often the job was tried to be moved.
    pub attempts: u64,
    /// The last attempt that was without effect.
    #[serde(default)]
    pub attempt: Option<OperationId>,
    /// What is waited for.
    pub waiting: String,
}

/// What is on disk of a wish.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    wish: Wish,
    #[serde(default)]
    attempt: Option<OperationId>,
}

/// The wishes: one for a gang, its latest.
#[derive(Debug)]
pub struct Wishes {
    directory: PathBuf,
    known: Mutex<BTreeMap<GangName, RetryInfo>>,
    /// Counts changes.
    changed: watch::Sender<u64>,
}

impl Wishes {
    /// Those in a directory, which need not exist.
    ///
    /// # Errors
    /// It cannot be read. A file that is no wish is told of and left alone.
    pub fn load(directory: PathBuf) -> io::Result<Self> {
        let kept = kept::read_all(&directory, "retry", |_| Some(()))?;
        let wishes = kept.into_iter().map(|((), kept): ((), Kept)| kept);
        let known = wishes.map(|kept| (kept.wish.gang.clone(), info(kept)));
        let known = known.collect();
        Ok(Self {
            directory,
            known: Mutex::new(known),
            changed: watch::Sender::new(0),
        })
    }

    /// Takes a wish, in place of an earlier one of its gang. Can be repeated.
    ///
    /// # Errors
    /// It cannot be written, and is not taken.
    pub fn put(&self, wish: Wish) -> io::Result<()> {
        let earlier = self.lock().get(&wish.gang).cloned();
        match earlier {
            Some(earlier) if earlier.wish == wish => return Ok(()),
            Some(earlier) if earlier.wish.operation != wish.operation => {
                self.remove(&earlier.wish.operation)?;
            }
            _ => {}
        }
        std::fs::create_dir_all(&self.directory)?;
        let attempt = None;
        let kept = Kept { wish, attempt };
        kept::replace(&self.path(&kept.wish.operation), &kept)?;
        self.lock().insert(kept.wish.gang.clone(), info(kept));
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Gives up the wish that the operation left; whether there was one.
    ///
    /// # Errors
    /// Its file cannot be removed: it stands.
    pub fn remove(&self, operation: &OperationId) -> io::Result<bool> {
        kept::remove(&self.path(operation))?;
        let mut known = self.lock();
        let before = known.len();
        known.retain(|_, info| info.wish.operation != *operation);
        let removed = known.len() < before;
        drop(known);
        self.changed.send_modify(|count| *count += 1);
        Ok(removed)
    }

    /// Notes what is waited for, and counts an attempt.
    pub fn tell(&self, wish: &Wish, waiting: &str, attempted: bool) {
        if let Some(info) = self.lock().get_mut(&wish.gang)
            && info.wish == *wish
        {
            waiting.clone_into(&mut info.waiting);
            info.attempts += u64::from(attempted);
        }
    }

    /// Notes the attempt that has come to nothing, and returns the one before it.
    pub fn attempted(&self, wish: &Wish, attempt: &OperationId) -> Option<OperationId> {
        let mut known = self.lock();
        let info = known.get_mut(&wish.gang).filter(|it| it.wish == *wish)?;
        let earlier = info.attempt.replace(attempt.clone());
        let kept = Kept {
            wish: wish.clone(),
            attempt: info.attempt.clone(),
        };
        // The next daemon shows one attempt more.
        if let Err(error) = kept::replace(&self.path(&wish.operation), &kept) {
            tracing::warn!(gang = %wish.gang, %error, "an attempt is not noted on disk");
        }
        earlier
    }

    /// All of them.
    pub fn list(&self) -> Vec<RetryInfo> {
        self.lock().values().cloned().collect()
    }

    /// The wish of a gang.
    pub fn of(&self, gang: &GangName) -> Option<RetryInfo> {
        self.lock().get(gang).cloned()
    }

    /// Wakes up whenever the wishes change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GangName, RetryInfo>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, operation: &OperationId) -> PathBuf {
        path(&self.directory, operation)
    }
}

fn path(directory: &Path, operation: &OperationId) -> PathBuf {
    directory.join(format!("{operation}.json"))
}

fn info(Kept { wish, attempt }: Kept) -> RetryInfo {
    RetryInfo {
        wish,
        attempts: 0,
        attempt,
        waiting: "about to look".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(operation: &str) -> Wish {
        Wish {
            operation: operation.parse().unwrap(),
            gang: "job".parse().unwrap(),
            hcas: [("vm1".parse().unwrap(), "hca0".parse().unwrap())].into(),
            reason: "no carrier".into(),
        }
    }

    #[test]
    fn a_wish_is_there_after_a_restart_until_it_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("retries");
        let first = Wishes::load(place.clone()).unwrap();
        first.put(wish("a-7")).unwrap();
        first.put(wish("a-7")).unwrap();
        let attempt = "b-1".parse().unwrap();
        assert_eq!(first.attempted(&wish("a-7"), &attempt), None);
        std::fs::write(place.join("a-8.json"), "{ cut sho").unwrap();
        let second = Wishes::load(place.clone()).unwrap();
        assert_eq!(second.list().len(), 1);
        let next = "b-2".parse().unwrap();
        assert_eq!(second.attempted(&wish("a-7"), &next), Some(attempt));
        assert!(second.remove(&"a-7".parse().unwrap()).unwrap());
        assert!(!second.remove(&"a-7".parse().unwrap()).unwrap());
        assert!(Wishes::load(place).unwrap().list().is_empty());
    }

    #[test]
    fn a_gang_has_the_wish_of_its_latest_operation() {
        let folder = tempfile::tempdir().unwrap();
        let wishes = Wishes::load(folder.path().to_owned()).unwrap();
        wishes.put(wish("a-7")).unwrap();
        wishes.put(wish("a-9")).unwrap();
        let again = Wishes::load(folder.path().to_owned()).unwrap();
        let of = |wishes: &Wishes| wishes.of(&"job".parse().unwrap()).unwrap().wish;
        assert_eq!(of(&wishes), wish("a-9"));
        assert_eq!(of(&again), wish("a-9"));
        assert_eq!(again.list().len(), 1);
    }
}
