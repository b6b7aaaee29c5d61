//! The marks of confirmed writes: the number of the last batch that was fsynced and answered, inside and outside of the
//! store.
//!
//! A journal that is cut short or damaged near its end reads like one whose last batch was torn by a crash, and the
//! database drops the rest without a word. For Raft that is a vote given twice. The mark inside the store tells the
//! two apart. It says nothing where the whole store is an older copy of itself, so a second mark stands outside of it,
//! beside what says whose the store is, and does not go back when the store alone does.
//!
//! Order is what makes them right. A batch is fsynced, then the marks are overwritten in place, then the batch is
//! answered. So a mark is never ahead of an honest disk, however the process or the machine ends: a store below a mark
//! has lost writes, without false alarms. Marks cost a batch no fsync. A process that is killed loses nothing of them;
//! a power cut may set them back by what the kernel had not written yet (half a minute by default), which makes the
//! check weaker and never wrong. Each start raises both marks to what the store holds and fsyncs them, as does each
//! good end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use countersign_core::id::StoreId;

/// Bytes of a mark: the store's own id, the number, and the number's complement.
const LEN: usize = 32;

/// An open mark.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    store: StoreId,
}

impl Mark {
    /// Makes a mark that says that nothing is confirmed, durably and in one step; what was there is replaced.
    pub(super) fn create(path: &Path, store: StoreId) -> io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&record(store, 0))?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_parent(path)
    }

    /// Opens the mark of this store and returns the number that it holds. One of another store is invalid data.
    pub(super) fn open(path: &Path, store: StoreId) -> io::Result<(Self, u64)> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let (found, number) = read(&mut file)?;
        if found != store {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is the record of another store"));
        }
        Ok((Self { file, store }, number))
    }

    /// The number that the mark at `path` holds, whatever store it is of; none if there is no mark.
    pub(super) fn number(path: &Path) -> io::Result<Option<u64>> {
        match File::open(path) {
            Ok(mut file) => Ok(Some(read(&mut file)?.1)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Records that all batches up to `number` are durable.
    pub(super) fn write(&self, number: u64) -> io::Result<()> {
        self.file.write_all_at(&record(self.store, number), 0)
    }

    /// Makes the mark itself durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Both marks of one store.
#[derive(Debug)]
pub(super) struct Marks {
    pub(super) inside: Mark,
    pub(super) outside: Mark,
}

impl Marks {
    /// Records in both that all batches up to `number` are durable.
    pub(super) fn write(&self, number: u64) -> io::Result<()> {
        self.inside.write(number)?;
        self.outside.write(number)
    }

    /// Makes both durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.inside.sync()?;
        self.outside.sync()
    }
}

/// Makes what was renamed or created under `path` durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

fn record(store: StoreId, number: u64) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    let parts = [&store.0[..], &number.to_le_bytes(), &(!number).to_le_bytes()];
    for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    bytes
}

fn read(file: &mut File) -> io::Result<(StoreId, u64)> {
    let mut bytes = Vec::new();
    file.take(LEN as u64 + 1).read_to_end(&mut bytes)?;
    let parsed = <[u8; LEN]>::try_from(bytes.as_slice()).ok().and_then(parse);
    parsed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the record of confirmed writes is damaged"))
}

/// The number must fit its complement: a damaged mark must not pass for a low one.
fn parse(record: [u8; LEN]) -> Option<(StoreId, u64)> {
    let (store, rest) = record.split_first_chunk::<16>()?;
    let (number, complement) = rest.split_first_chunk::<8>()?;
    let number = u64::from_le_bytes(*number);
    (number == !u64::from_le_bytes(complement.try_into().ok()?)).then_some((StoreId(*store), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId([5; 16]);

    #[test]
    fn a_mark_round_trips_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        assert_eq!(Mark::open(&path, STORE).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(Mark::number(&path).unwrap(), None);
        Mark::create(&path, STORE).unwrap();
        let (mark, number) = Mark::open(&path, STORE).unwrap();
        assert_eq!(number, 0);
        mark.write(7).unwrap();
        mark.write(u64::MAX).unwrap();
        mark.write(300).unwrap();
        drop(mark);
        assert_eq!(Mark::open(&path, STORE).unwrap().1, 300);
        assert_eq!(Mark::number(&path).unwrap(), Some(300));

        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            assert_eq!(Mark::open(&path, STORE).unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
        }
        for len in (0..good.len()).chain([good.len() + 1]) {
            let mut bad = good.clone();
            bad.resize(len, 0);
            fs::write(&path, &bad).unwrap();
            assert_eq!(Mark::open(&path, STORE).unwrap_err().kind(), io::ErrorKind::InvalidData, "length {len}");
        }
    }
}
