//! Memory for the messages that a drain takes before the application asks for them.
//!
//! ```text
//!   SYMVIRT_SPOOL_LIMIT  most bytes that one process maps (1G; K, M, G, or "unlimited")
//!   SYMVIRT_SPOOL_DIR    a folder: mapped from unlinked files there, instead of from memory
//! ```
//!
//! It is mapped in segments: small messages share one, a large one has its own. A segment is
//! unmapped when the last of its messages is received; what is mapped counts. A drain that was
//! weighed ([`Writer::reserve`]) stays below the limit. One that was not cannot be refused any
//! more: it was found to fit by what all ranks knew of it, and may exceed the limit by what the
//! transports held in their own buffers.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use memmap2::{MmapMut, MmapOptions, MmapRaw};

/// Unless the user says otherwise.
const DEFAULT_LIMIT: u64 = 1 << 30;
/// What small messages share.
const SEGMENT: usize = 1 << 20;
/// From here on a message is large.
const LARGE: usize = SEGMENT / 4;
/// Messages begin at multiples of it.
const ALIGN: usize = 64;

static USED: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

struct Settings {
    limit: u64,
    folder: Option<PathBuf>,
}

/// Why messages do not fit.
#[derive(Debug)]
pub enum SpoolError {
    /// Beyond the limit.
    Full { needed: u64, used: u64, limit: u64 },
    /// The system has no more.
    Refused {
        needed: u64,
        folder: Option<PathBuf>,
        source: io::Error,
    },
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpoolError::Full {
                needed,
                used,
                limit,
            } => write!(
                f,
                "messages that wait for their receives need {needed} bytes of the spool, which \
                 holds {used} of {limit} (SYMVIRT_SPOOL_LIMIT): raise the limit, or switch when \
                 fewer messages wait"
            ),
            SpoolError::Refused {
                needed,
                folder: None,
                source,
            } => write!(
                f,
                "map {needed} bytes for messages that wait for their receives: {source}; \
                 SYMVIRT_SPOOL_DIR can name a folder with room for them"
            ),
            SpoolError::Refused {
                needed,
                folder: Some(folder),
                source,
            } => write!(
                f,
                "put {needed} bytes of messages that wait for their receives into {} \
                 (SYMVIRT_SPOOL_DIR): {source}; make room there, or name another folder",
                folder.display()
            ),
        }
    }
}

impl std::error::Error for SpoolError {}

fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let limit = std::env::var("SYMVIRT_SPOOL_LIMIT").ok();
        let limit = limit.map_or(DEFAULT_LIMIT, |text| {
            parse_size(&text).unwrap_or_else(|| {
                crate::log::warning!(
                    "SYMVIRT_SPOOL_LIMIT={text} is no size (like 512M); it is {DEFAULT_LIMIT}"
                );
                DEFAULT_LIMIT
            })
        });
        let folder = std::env::var_os("SYMVIRT_SPOOL_DIR").map(PathBuf::from);
        Settings { limit, folder }
    })
}

/// Reads the settings, on a thread of the application: helpers race with its `setenv`.
pub fn read_settings() {
    settings();
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    if text == "unlimited" {
        return Some(u64::MAX);
    }
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        b'G' | b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Bytes mapped at present.
pub fn used() -> u64 {
    USED.load(Ordering::Relaxed)
}

/// The most bytes that were ever mapped.
pub fn peak() -> u64 {
    PEAK.load(Ordering::Relaxed)
}

/// What can still be mapped.
pub fn room() -> u64 {
    let Settings { limit, folder } = settings();
    let left = limit.saturating_sub(used());
    match folder {
        None => left,
        Some(folder) => left.min(free_space(folder)),
    }
}

fn free_space(folder: &Path) -> u64 {
    nix::sys::statvfs::statvfs(folder).map_or(0, |fs| fs.blocks_available() * fs.fragment_size())
}

/// One mapping.
struct Segment(MmapRaw);

impl Segment {
    fn map(length: usize, folder: Option<&Path>) -> io::Result<Segment> {
        let map = match folder {
            None => MmapRaw::from(MmapMut::map_anon(length)?),
            Some(folder) => {
                let file = tempfile::tempfile_in(folder)?;
                // Its blocks are allocated now: a full file system must not show as SIGBUS later.
                nix::fcntl::posix_fallocate(&file, 0, length.try_into().unwrap_or(i64::MAX))?;
                MmapOptions::new().len(length).map_raw(&file)?
            }
        };
        let used = USED.fetch_add(length as u64, Ordering::Relaxed) + length as u64;
        PEAK.fetch_max(used, Ordering::Relaxed);
        Ok(Segment(map))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        USED.fetch_sub(self.0.len() as u64, Ordering::Relaxed);
    }
}

/// A message's bytes.
pub struct Block {
    /// None: the message is empty.
    segment: Option<Arc<Segment>>,
    start: usize,
    length: usize,
}

impl Block {
    /// Where the bytes are to be written; nobody else knows the block.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        match &self.segment {
            Some(segment) => segment.0.as_mut_ptr().wrapping_add(self.start),
            None => std::ptr::dangling_mut(),
        }
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Some(segment) = &self.segment else {
            return &[];
        };
        // SAFETY: `open` keeps blocks inside their segment, which lives as long as they do, and
        // apart from each other; pages of a mapping are zero before they are written.
        unsafe {
            let start = segment.0.as_ptr().add(self.start);
            std::slice::from_raw_parts(start, self.length)
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} spooled bytes", self.length)
    }
}

/// A segment that small messages are put into.
struct Open {
    segment: Arc<Segment>,
    end: usize,
}

impl Open {
    fn take(&mut self, length: usize) -> Option<Block> {
        let start = self.end;
        if start + length > self.segment.0.len() {
            return None;
        }
        self.end = start + length.next_multiple_of(ALIGN);
        Some(Block {
            segment: Some(self.segment.clone()),
            start,
            length,
        })
    }
}

/// What one drain puts into the spool.
#[derive(Default)]
pub struct Writer {
    open: Option<Open>,
    /// By length.
    reserved: HashMap<usize, Vec<Block>>,
}

impl Writer {
    /// Makes room for messages of these lengths, or for none of them.
    ///
    /// # Errors
    /// They do not fit below the limit, or the system refuses the memory; nothing is mapped.
    pub fn reserve(&mut self, lengths: &[usize]) -> Result<(), SpoolError> {
        let Settings { limit, folder } = settings();
        self.reserve_below(*limit, folder.as_deref(), lengths)
    }

    fn reserve_below(
        &mut self,
        limit: u64,
        folder: Option<&Path>,
        lengths: &[usize],
    ) -> Result<(), SpoolError> {
        let small = lengths.iter().filter(|length| **length < LARGE);
        let shared: usize = small.map(|length| length.next_multiple_of(ALIGN)).sum();
        let large = lengths.iter().filter(|length| **length >= LARGE);
        let needed = (shared + large.sum::<usize>()) as u64;
        let used = used();
        if needed > limit.saturating_sub(used) {
            return Err(SpoolError::Full {
                needed,
                used,
                limit,
            });
        }
        let refused = |source| SpoolError::Refused {
            needed,
            folder: folder.map(Path::to_owned),
            source,
        };
        let mut open = None;
        if shared > 0 {
            let segment = Arc::new(Segment::map(shared, folder).map_err(refused)?);
            open = Some(Open { segment, end: 0 });
        }
        let mut blocks = Vec::new();
        for &length in lengths {
            let shared = match (&mut open, length) {
                (_, 0) => Some(EMPTY),
                (Some(open), 1..LARGE) => open.take(length),
                _ => None,
            };
            let block = match shared {
                Some(block) => block,
                None => alone(length, folder).map_err(refused)?,
            };
            blocks.push(block);
        }
        for block in blocks {
            self.reserved.entry(block.length).or_default().push(block);
        }
        Ok(())
    }

    /// Room for a message: reserved, or found now, whatever the limit is.
    pub fn block(&mut self, length: usize) -> Block {
        if let Some(block) = self.reserved.get_mut(&length).and_then(Vec::pop) {
            return block;
        }
        let Settings { limit, folder } = settings();
        let block = self.find(length, folder.as_deref()).or_else(|error| {
            crate::log::warning!("spool a message in memory: {error}");
            self.find(length, None)
        });
        if used() > *limit {
            warn_of_excess(*limit);
        }
        block.unwrap_or_else(|_| {
            let layout = std::alloc::Layout::array::<u8>(length);
            std::alloc::handle_alloc_error(layout.unwrap_or(std::alloc::Layout::new::<u8>()))
        })
    }

    fn find(&mut self, length: usize, folder: Option<&Path>) -> io::Result<Block> {
        match length {
            0 => return Ok(EMPTY),
            LARGE.. => return alone(length, folder),
            _ => {}
        }
        if let Some(block) = self.open.as_mut().and_then(|open| open.take(length)) {
            return Ok(block);
        }
        let segment = Arc::new(Segment::map(SEGMENT, folder)?);
        let open = self.open.insert(Open { segment, end: 0 });
        open.take(length)
            .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }
}

const EMPTY: Block = Block {
    segment: None,
    start: 0,
    length: 0,
};

fn alone(length: usize, folder: Option<&Path>) -> io::Result<Block> {
    let segment = Some(Arc::new(Segment::map(length, folder)?));
    Ok(Block {
        segment,
        start: 0,
        length,
    })
}

fn warn_of_excess(limit: u64) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        crate::log::warning!(
            "the spool holds {} bytes, more than its limit of {limit} (SYMVIRT_SPOOL_LIMIT): \
             more was on its way than anybody knew when the switch was decided",
            used()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("4096"), Some(4096));
        assert_eq!(parse_size(" 512M"), Some(512 << 20));
        assert_eq!(parse_size("2g"), Some(2 << 30));
        assert_eq!(parse_size("unlimited"), Some(u64::MAX));
        for nonsense in ["", "M", "-1", "1.5G", "99999999999G", "12T"] {
            assert_eq!(parse_size(nonsense), None, "{nonsense}");
        }
    }

    fn write(block: &mut Block, byte: u8) {
        let (start, length) = (block.as_mut_ptr(), block.len());
        // SAFETY: the block's own bytes.
        unsafe { start.write_bytes(byte, length) };
    }

    /// One test: what is mapped is counted for the whole process.
    #[test]
    fn blocks_are_apart_counted_and_given_back() {
        let folder = tempfile::tempdir().expect("a folder");
        for place in [None, Some(folder.path())] {
            let lengths = [100, 0, 64, LARGE, 3 * LARGE, 1, 100];
            let mut writer = Writer::default();
            writer
                .reserve_below(u64::MAX, place, &lengths)
                .expect("there is room");
            let needed = used();
            assert_eq!(needed, (128 + 64 + 64 + 128 + 4 * LARGE) as u64);
            let mut blocks: Vec<Block> = lengths.iter().map(|&n| writer.block(n)).collect();
            // Not reserved: found.
            blocks.push(writer.block(77));
            for (byte, block) in blocks.iter_mut().enumerate() {
                write(block, byte as u8);
            }
            for (byte, (block, length)) in blocks
                .iter()
                .zip([&lengths[..], &[77]].concat())
                .enumerate()
            {
                assert_eq!(**block, vec![byte as u8; length]);
            }
            assert_eq!(used(), needed + SEGMENT as u64);
            assert!(peak() >= used());
            drop(writer);
            blocks.remove(3);
            assert_eq!(used(), needed + (SEGMENT - LARGE) as u64);
            drop(blocks);
            assert_eq!(used(), 0);
        }

        let mut writer = Writer::default();
        let error = writer.reserve_below(1 << 10, None, &[1000, 1000]);
        let said = error.expect_err("beyond the limit").to_string();
        for word in ["2048 bytes", "0 of 1024", "SYMVIRT_SPOOL_LIMIT"] {
            assert!(said.contains(word), "{said}");
        }
        let nowhere = folder.path().join("nowhere");
        let error = writer.reserve_below(u64::MAX, Some(&nowhere), &[1000]);
        let said = error.expect_err("no such folder").to_string();
        for word in ["1024 bytes", "nowhere", "SYMVIRT_SPOOL_DIR"] {
            assert!(said.contains(word), "{said}");
        }
        assert_eq!(used(), 0);
    }
}
