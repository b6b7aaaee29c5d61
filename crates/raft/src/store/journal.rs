//! Reads fjall's journals before fjall does, for what fjall does not look at.
//!
//! A batch in a journal is a start (how many items, which sequence number), the items, and an end (a checksum of the
//! items alone). Two kinds of damage pass fjall's own recovery:
//!
//! - A flipped bit in a sequence number. Items are ordered by it, so an old vote can come to outrank a newer one. Here
//!   sequence numbers must grow from batch to batch.
//! - A power cut in the middle of a batch of many pages can leave a hole in it. fjall takes that for damage and refuses
//!   the store permanently, although the store confirmed the batch to no caller. Here such a batch is cut off, but only
//!   if nothing follows it. The mark says whether it had been confirmed after all.
//!
//! Everything else is left to fjall. The format is that of fjall 3 and named in its version file; another one must be
//! read by another version of this file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// Closes the end of a batch.
const TRAILER: [u8; 4] = *b"FJL\x03";

/// Damage that no crash leaves behind.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    #[error("`{}` cannot be read", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` holds batch {got} after batch {last}", path.display())]
    Disorder { path: PathBuf, got: u64, last: u64 },
    #[error("`{}` is damaged at byte {at}, before batches that are whole", path.display())]
    Damaged { path: PathBuf, at: u64 },
}

/// Checks the journals of the database in `tables` and cuts off a torn last batch.
pub(super) fn check(tables: &Path) -> Result<(), JournalError> {
    let journals = list(tables).map_err(|source| JournalError::Io { path: tables.to_owned(), source })?;
    let mut last = None;
    for (place, path) in journals.iter().enumerate() {
        let io = |source| JournalError::Io { path: path.clone(), source };
        let found = Journal::open(path).map_err(io)?.scan(path, &mut last)?;
        match found {
            Some(at) if place + 1 < journals.len() => return Err(JournalError::Damaged { path: path.clone(), at }),
            Some(at) => {
                tracing::warn!(journal = %path.display(), at, "a torn write is cut off");
                let file = OpenOptions::new().write(true).open(path).map_err(io)?;
                file.set_len(at).and_then(|()| file.sync_all()).map_err(io)?;
            }
            None => {}
        }
    }
    Ok(())
}

/// The journals, oldest first. Names that are not theirs are left for fjall to refuse.
fn list(tables: &Path) -> io::Result<Vec<PathBuf>> {
    let mut journals = Vec::new();
    for entry in std::fs::read_dir(tables)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|extension| extension == "jnl")) {
            journals.push((number, path));
        }
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

/// One batch, as far as it is looked at here.
struct Batch {
    sequence: u64,
    whole: bool,
}

struct Journal<R> {
    bytes: R,
    at: u64,
}

impl Journal<BufReader<File>> {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { bytes: BufReader::with_capacity(64 * 1024, File::open(path)?), at: 0 })
    }
}

impl<R: Read> Journal<R> {
    /// Reads all batches; returns where a batch begins that has an end but not its checksum and that nothing follows.
    fn scan(&mut self, path: &Path, last: &mut Option<u64>) -> Result<Option<u64>, JournalError> {
        let mut torn = None;
        loop {
            let at = self.at;
            let batch = self.batch().map_err(|source| JournalError::Io { path: path.to_owned(), source })?;
            match (batch, torn) {
                // Where it cannot be read any further fjall cuts it off as well.
                (None, _) => return Ok(torn),
                (Some(Batch { whole: true, .. }), Some(at)) => {
                    return Err(JournalError::Damaged { path: path.to_owned(), at });
                }
                (Some(Batch { whole: true, sequence }), None) => {
                    if let Some(last) = last.filter(|last| sequence <= *last) {
                        return Err(JournalError::Disorder { path: path.to_owned(), got: sequence, last });
                    }
                    *last = Some(sequence);
                }
                (Some(Batch { whole: false, .. }), torn_before) => torn = torn_before.or(Some(at)),
            }
        }
    }

    /// The next batch, or none if what follows has not the shape of one.
    fn batch(&mut self) -> io::Result<Option<Batch>> {
        match self.parse() {
            Ok(batch) => Ok(batch),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn parse(&mut self) -> io::Result<Option<Batch>> {
        let mut hash = Xxh3::new();
        let mut unhashed = Xxh3::new();
        if self.take::<1>(&mut unhashed)? != [START] {
            return Ok(None);
        }
        let items = u32::from_le_bytes(self.take(&mut unhashed)?);
        let sequence = u64::from_le_bytes(self.take(&mut unhashed)?);
        for _ in 0..items {
            match self.take::<1>(&mut hash)? {
                [ITEM] => {
                    // Type, compression, table; lengths of the key, of the value, and of the value as stored.
                    self.take::<10>(&mut hash)?;
                    let key_len = u16::from_le_bytes(self.take(&mut hash)?);
                    self.take::<4>(&mut hash)?;
                    let value_len = u32::from_le_bytes(self.take(&mut hash)?);
                    self.skip(u64::from(key_len) + u64::from(value_len), &mut hash)?;
                }
                [CLEAR] => drop(self.take::<8>(&mut hash)?),
                _ => return Ok(None),
            }
        }
        if self.take::<1>(&mut unhashed)? != [END] {
            return Ok(None);
        }
        let checksum = u64::from_le_bytes(self.take(&mut unhashed)?);
        if self.take(&mut unhashed)? != TRAILER {
            return Ok(None);
        }
        Ok(Some(Batch { sequence, whole: checksum == hash.digest() }))
    }

    fn take<const N: usize>(&mut self, hash: &mut Xxh3) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.bytes.read_exact(&mut bytes)?;
        hash.update(&bytes);
        self.at += N as u64;
        Ok(bytes)
    }

    fn skip(&mut self, len: u64, hash: &mut Xxh3) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let mut left = len;
        while left > 0 {
            let step = buffer.len().min(usize::try_from(left).unwrap_or(buffer.len()));
            let Some(chunk) = buffer.get_mut(..step) else { break };
            self.bytes.read_exact(chunk)?;
            hash.update(chunk);
            left -= step as u64;
        }
        self.at += len;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fjall::{Database, KeyspaceCreateOptions, PersistMode};

    use super::*;

    /// A journal as fjall writes it: one batch per value. Returns where each ends.
    fn journal(values: &[Vec<u8>]) -> (tempfile::TempDir, PathBuf, Vec<u8>, Vec<usize>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.jnl");
        let mut ends = Vec::new();
        {
            let db = Database::builder(dir.path()).open().unwrap();
            let table = db.keyspace("t", KeyspaceCreateOptions::default).unwrap();
            for (number, value) in values.iter().enumerate() {
                let mut batch = db.batch().durability(Some(PersistMode::SyncData));
                batch.insert(&table, number.to_be_bytes(), value.as_slice());
                batch.remove(&table, b"another".as_slice());
                batch.commit().unwrap();
                let written = std::fs::read(&path).unwrap();
                ends.push(written.iter().rposition(|b| *b != 0).unwrap() + 1);
            }
        }
        let bytes = std::fs::read(&path).unwrap()[..ends[ends.len() - 1]].to_vec();
        (dir, path, bytes, ends)
    }

    fn values() -> Vec<Vec<u8>> {
        // Beyond a page, and not to be compressed.
        let mut state = 1_u32;
        let random = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        let long = random.take(9000).collect();
        vec![vec![1; 10], long, vec![], vec![3; 300]]
    }

    #[test]
    fn what_fjall_writes_is_read_to_its_end() {
        let (dir, _, bytes, ends) = journal(&values());
        check(dir.path()).unwrap();
        let mut last = None;
        let mut journal = Journal { bytes: bytes.as_slice(), at: 0 };
        assert_eq!(journal.scan(Path::new(""), &mut last).unwrap(), None);
        assert!(last.is_some());
        assert_eq!(journal.at, bytes.len() as u64);
        let mut journal = Journal { bytes: bytes.as_slice(), at: 0 };
        for end in ends {
            assert!(journal.batch().unwrap().unwrap().whole);
            assert_eq!(journal.at, end as u64);
        }
    }

    #[test]
    fn a_sequence_number_that_does_not_grow_is_refused() {
        let (dir, path, bytes, ends) = journal(&values());
        // The start of the third batch: tag, count, sequence number.
        let at = ends[1] + 5;
        for (flip, refused) in [(0x01, true), (0x02, true), (0x80, true)] {
            let mut bytes = bytes.clone();
            // A number far ahead shows at the batch after it.
            bytes[at + if flip == 0x80 { 6 } else { 0 }] ^= flip;
            std::fs::write(&path, &bytes).unwrap();
            let error = check(dir.path());
            assert_eq!(matches!(error, Err(JournalError::Disorder { .. })), refused, "{flip} {error:?}");
        }
    }

    #[test]
    fn a_hole_in_the_last_batch_is_cut_off_and_one_before_it_is_refused() {
        let (dir, path, bytes, ends) = journal(&values());
        assert!(ends[1] - ends[0] > 9000);
        for (hole, torn) in [(ends[2] + 100, true), (ends[0] + 4096, false)] {
            let mut holed = bytes.clone();
            holed[hole..hole + 50].fill(0);
            std::fs::write(&path, &holed).unwrap();
            match check(dir.path()) {
                Ok(()) => {
                    assert!(torn);
                    assert_eq!(std::fs::read(&path).unwrap(), bytes[..ends[2]]);
                    let db = Database::builder(dir.path()).open().unwrap();
                    let table = db.keyspace("t", KeyspaceCreateOptions::default).unwrap();
                    assert_eq!(table.len().unwrap(), 3);
                }
                Err(error) => assert!(!torn && matches!(error, JournalError::Damaged { .. }), "{error}"),
            }
        }
    }

    #[test]
    fn what_a_crash_leaves_is_left_to_fjall() {
        let (dir, path, bytes, ends) = journal(&values());
        for cut in [ends[2] + 1, ends[2] + 20, bytes.len() - 1, ends[2]] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            check(dir.path()).unwrap();
            assert_eq!(std::fs::read(&path).unwrap().len(), cut);
        }
    }
}
