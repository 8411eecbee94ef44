//! Append-only shared memory of encoded frames: one writer, any number of readers on any thread.
//!
//! A publication is encoded once into a [`LogWriter`]; what every recipient gets is a
//! [`LogSlice`]: a pointer into the same memory and a length. Slices that were written one after
//! the other into one chunk can be joined again, so that everything a connection is behind by
//! leaves in a single send, from where it lies.
//!
//! Invariants
//! - A chunk's bytes below `written` never change again; bytes at or above it belong to the one
//!   writer. A slice ends at or below the `written` of the moment it was made.
//! - A chunk's memory never moves and lives as long as its writer or any slice of it.
//! - A chunk has at most one writer: `LogWriter` is not `Clone`, and the chunk that it fills is
//!   handed out only inside slices, which read.
#![allow(
    unsafe_code,
    reason = "a buffer that one thread extends while others read what is already written"
)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

/// Capacity of the first chunk of a quiet log, in bytes: an idle channel must stay cheap.
const CHUNK_LEN_MIN: usize = 512;
/// Capacity that the chunks of a busy log grow to, in bytes. A frame longer than this gets a
/// chunk of its own size.
const CHUNK_LEN_MAX: usize = 256 * 1024;

/// Fixed memory behind the slices of a stretch of the log.
struct Chunk {
    bytes: NonNull<u8>,
    capacity: usize,
}

// SAFETY: the memory is plain bytes. Writes go only to the part that no slice covers, by the one
// `LogWriter` that holds the chunk; a slice reaches another thread by some synchronising hand-over
// (mailbox, channel, lock), which orders the write of its bytes before their reads.
unsafe impl Send for Chunk {}
// SAFETY: as above; shared access is read-only.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn layout(capacity: usize) -> Layout {
        Layout::array::<u8>(capacity).expect("a chunk is far smaller than the address space")
    }

    fn new(capacity: usize) -> Self {
        debug_assert!(capacity > 0);
        let layout = Self::layout(capacity);
        // SAFETY: the layout has a non-zero size.
        let pointer = unsafe { alloc(layout) };
        let Some(bytes) = NonNull::new(pointer) else {
            handle_alloc_error(layout)
        };
        Self { bytes, capacity }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this same layout, freed once.
        unsafe { dealloc(self.bytes.as_ptr(), Self::layout(self.capacity)) }
    }
}

/// The one writer of a log.
///
/// Chunks start small and double while the log is busy, so a channel with one message a minute
/// holds half a kilobyte and a busy one writes hundreds of frames into contiguous memory.
pub struct LogWriter {
    chunk: Option<Arc<Chunk>>,
    written: usize,
    chunk_len_max: usize,
}

impl Default for LogWriter {
    fn default() -> Self {
        Self {
            chunk: None,
            written: 0,
            chunk_len_max: CHUNK_LEN_MAX,
        }
    }
}

impl LogWriter {
    /// A log without memory; the first append takes some.
    pub fn new() -> Self {
        Self::default()
    }

    /// Chunks taken from now on have at most `len` bytes, but for a longer frame, and never less
    /// than those of a quiet log. For a log of which little is kept: a slice keeps its whole chunk.
    pub fn limit_chunks(&mut self, len: usize) {
        self.chunk_len_max = len.clamp(CHUNK_LEN_MIN, CHUNK_LEN_MAX);
    }

    /// Appends `parts` one after the other and returns the slice that covers them.
    ///
    /// The slice is contiguous with the previous append's whenever the chunk has room
    /// (see [`LogSlice::try_join`]). Appending nothing returns an empty slice.
    pub fn append(&mut self, parts: &[&[u8]]) -> LogSlice {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        let chunk = self.chunk_with_room(len);
        let start = self.written;
        let mut at = start;
        for part in parts {
            // SAFETY: `chunk_with_room` has made sure that `len` bytes from `written` on are inside
            // the chunk; they are above every slice made so far, so nobody reads them yet, and we
            // hold the only writer. `part` cannot overlap memory that no safe slice covers.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    part.as_ptr(),
                    chunk.bytes.as_ptr().add(at),
                    part.len(),
                );
            }
            at += part.len();
        }
        self.written = at;
        LogSlice {
            chunk,
            start,
            end: at,
        }
    }

    /// Gives the memory back; slices that are still held keep theirs. For a log gone quiet.
    pub fn release(&mut self) {
        self.chunk = None;
        self.written = 0;
    }

    fn chunk_with_room(&mut self, len: usize) -> Arc<Chunk> {
        if let Some(chunk) = &self.chunk
            && chunk.capacity - self.written >= len
        {
            return Arc::clone(chunk);
        }
        let grown = self
            .chunk
            .as_ref()
            .map_or(CHUNK_LEN_MIN, |full| full.capacity * 2)
            .clamp(CHUNK_LEN_MIN, self.chunk_len_max);
        let chunk = Arc::new(Chunk::new(grown.max(len)));
        self.chunk = Some(Arc::clone(&chunk));
        self.written = 0;
        chunk
    }
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter")
            .field("written", &self.written)
            .field("capacity", &self.chunk.as_ref().map_or(0, |c| c.capacity))
            .finish()
    }
}

/// A readable stretch of a log, cheap to clone; keeps its memory in place while it lives.
#[derive(Clone)]
pub struct LogSlice {
    chunk: Arc<Chunk>,
    start: usize,
    end: usize,
}

impl LogSlice {
    /// The encoded bytes.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: `start..end` lies below what was written when the slice was made, so the bytes
        // are initialised and never change again; the chunk lives as long as `self`.
        unsafe {
            std::slice::from_raw_parts(
                self.chunk.bytes.as_ptr().add(self.start),
                self.end - self.start,
            )
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Extends this slice by `next` where `next` begins just where this one ends, in the same
    /// chunk; says whether it did.
    pub fn try_join(&mut self, next: &LogSlice) -> bool {
        let joins = Arc::ptr_eq(&self.chunk, &next.chunk) && self.end == next.start;
        if joins {
            self.end = next.end;
        }
        joins
    }

    /// Drops the first `count` bytes, for a send that took only a part.
    ///
    /// # Panics
    /// When `count` is more than is left: the caller's cursor would be wrong.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "advance beyond the end of a slice");
        self.start += count;
    }

    /// The part from byte `from` to byte `to` of this slice, sharing its memory.
    ///
    /// # Panics
    /// When the range is not inside the slice.
    pub fn slice(&self, from: usize, to: usize) -> LogSlice {
        assert!(from <= to && to <= self.len(), "range outside a slice");
        LogSlice {
            chunk: Arc::clone(&self.chunk),
            start: self.start + from,
            end: self.start + to,
        }
    }
}

impl fmt::Debug for LogSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSlice")
            .field("start", &self.start)
            .field("end", &self.end)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_frames_are_contiguous_and_join_into_one_send() {
        let mut log = LogWriter::new();
        let mut all = log.append(&[b"\x81\x01", b"a"]);
        let next = log.append(&[b"\x81\x01", b"b"]);
        assert!(all.try_join(&next));
        assert_eq!(all.as_bytes(), b"\x81\x01a\x81\x01b");
        all.advance(4);
        assert_eq!(all.as_bytes(), b"\x01b");
        assert_eq!(all.slice(1, 2).as_bytes(), b"b");
    }

    #[test]
    fn slices_of_different_chunks_never_join_and_outlive_the_writer() {
        let mut log = LogWriter::new();
        let big = vec![7u8; CHUNK_LEN_MIN];
        let mut first = log.append(&[&big]);
        let second = log.append(&[b"x"]);
        assert!(!first.try_join(&second));
        drop(log);
        assert_eq!(first.as_bytes(), &big[..]);
        assert_eq!(second.as_bytes(), b"x");
    }

    #[test]
    fn a_frame_longer_than_any_chunk_gets_a_chunk_of_its_size() {
        let mut log = LogWriter::new();
        let huge = vec![1u8; CHUNK_LEN_MAX + 1];
        assert_eq!(log.append(&[&huge]).len(), huge.len());
    }

    #[test]
    fn a_limit_of_chunks_bounds_what_a_slice_keeps_in_memory() {
        let mut log = LogWriter::new();
        log.limit_chunks(1_024);
        for _ in 0..100 {
            let slice = log.append(&[&[1; 100]]);
            assert!(slice.chunk.capacity <= 1_024);
        }
        assert_eq!(log.append(&[&[1; 2_000]]).len(), 2_000);
        log.limit_chunks(0);
        let after = log.append(&[&[1; 100]]);
        assert_eq!(after.chunk.capacity, CHUNK_LEN_MIN);
    }

    #[test]
    fn readers_on_other_threads_see_what_was_written_before_the_hand_over() {
        let (sender, receiver) = std::sync::mpsc::channel::<LogSlice>();
        let reader = std::thread::spawn(move || {
            let mut frames = 0u32;
            for slice in receiver {
                let bytes = slice.as_bytes();
                assert_eq!(bytes, frames.to_le_bytes().repeat(3));
                frames += 1;
            }
            frames
        });
        let mut log = LogWriter::new();
        let count: u32 = if cfg!(miri) { 200 } else { 20_000 };
        for n in 0..count {
            let n = n.to_le_bytes();
            sender
                .send(log.append(&[&n, &n, &n]))
                .expect("the reader lives");
        }
        drop(sender);
        assert_eq!(reader.join().expect("the reader ends well"), count);
    }
}
