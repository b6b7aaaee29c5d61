//! The mark of confirmed writes: the number of the last batch that was fsynced and answered.
//!
//! A journal that is cut short or damaged near its end reads like one whose last batch was torn by a crash, and the
//! database drops the rest without a word. For Raft that is a vote given twice. The mark tells the two apart: it is
//! written after each fsync and before the answer, so it is never ahead of the disk. It is not fsynced itself: after a
//! power cut it may lag, which only makes the check weaker, never wrong.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// The open mark.
#[derive(Debug)]
pub(super) struct Mark(File);

impl Mark {
    /// Opens or creates the mark; returns the number it holds, 0 if it is new.
    pub(super) fn open(path: &Path) -> io::Result<(Self, u64)> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(17).read_to_end(&mut bytes)?;
        let number = match <[u8; 16]>::try_from(bytes.as_slice()) {
            Ok(record) => parse(record).ok_or(io::ErrorKind::InvalidData)?,
            Err(_) if bytes.is_empty() => 0,
            Err(_) => return Err(io::ErrorKind::InvalidData.into()),
        };
        let mut mark = Self(file);
        mark.write(number)?;
        mark.0.sync_all()?;
        Ok((mark, number))
    }

    /// Records that all batches up to `number` are durable.
    pub(super) fn write(&mut self, number: u64) -> io::Result<()> {
        self.0.seek(SeekFrom::Start(0))?;
        self.0.write_all(&u128::from(number).wrapping_add(u128::from(!number) << 64).to_le_bytes())
    }

    /// Makes the mark itself durable: done when the store closes.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// The number and its complement: a damaged mark must not pass for a low one.
fn parse(record: [u8; 16]) -> Option<u64> {
    let both = u128::from_le_bytes(record);
    let (number, complement) = (both as u64, (both >> 64) as u64);
    (number == !complement).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_round_trips_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        let (mut mark, number) = Mark::open(&path).unwrap();
        assert_eq!(number, 0);
        mark.write(7).unwrap();
        mark.write(u64::MAX).unwrap();
        mark.write(300).unwrap();
        drop(mark);
        assert_eq!(Mark::open(&path).unwrap().1, 300);

        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            assert_eq!(Mark::open(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
        }
        for len in 1..good.len() {
            std::fs::write(&path, &good[..len]).unwrap();
            assert!(Mark::open(&path).is_err(), "length {len}");
        }
    }
}
