//! What a send carries. The ring owns it while the kernel reads it and gives it back with the
//! completion.

use smallvec::SmallVec;

use super::buffers::RecvBuffer;
use crate::log::LogSlice;

/// One contiguous part of a [`Payload`].
#[derive(Debug)]
pub enum Piece {
    /// Bytes of this connection alone.
    Owned(Vec<u8>),
    /// A range of a shared log: encoded once, sent to many from where it lies.
    Shared(LogSlice),
    /// A received buffer on its way to another socket.
    Received(RecvBuffer),
    /// Bytes of the program itself.
    Static(&'static [u8]),
}

impl Piece {
    /// The whole piece.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Piece::Owned(bytes) => bytes,
            Piece::Shared(slice) => slice.as_bytes(),
            Piece::Received(buffer) => buffer,
            Piece::Static(bytes) => bytes,
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// True when there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Self {
        Piece::Owned(bytes)
    }
}

impl From<LogSlice> for Piece {
    fn from(slice: LogSlice) -> Self {
        Piece::Shared(slice)
    }
}

impl From<RecvBuffer> for Piece {
    fn from(buffer: RecvBuffer) -> Self {
        Piece::Received(buffer)
    }
}

impl From<&'static [u8]> for Piece {
    fn from(bytes: &'static [u8]) -> Self {
        Piece::Static(bytes)
    }
}

/// The bytes of one send: one piece goes out as `IORING_OP_SEND`, several as one
/// `IORING_OP_SENDMSG`.
///
/// Invariants: no piece is empty; `offset` is less than the length of the first piece (and 0 when
/// there is none).
#[derive(Debug, Default)]
pub struct Payload {
    pieces: SmallVec<[Piece; 1]>,
    /// Bytes of the first piece that were sent already.
    offset: usize,
}

impl Payload {
    /// A payload without bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece at the end. Empty pieces are dropped.
    pub fn push(&mut self, piece: impl Into<Piece>) {
        let piece = piece.into();
        if !piece.is_empty() {
            self.pieces.push(piece);
        }
    }

    /// Bytes still to be sent.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Piece::len).sum::<usize>() - self.offset
    }

    /// True when everything was sent (or there was nothing).
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Pieces that still have bytes to send.
    pub fn piece_count(&self) -> usize {
        self.pieces.len()
    }

    /// Drops the first `count` bytes, as a partial send took them. More than [`Self::len`] empties
    /// the payload.
    pub fn advance(&mut self, count: usize) {
        let mut left = self.offset.saturating_add(count);
        let mut done = 0;
        for piece in &self.pieces {
            let len = piece.len();
            if left < len {
                break;
            }
            left -= len;
            done += 1;
        }
        if done == self.pieces.len() {
            left = 0;
        }
        if done > 0 {
            self.pieces.drain(..done);
        }
        self.offset = left;
    }

    /// The unsent bytes of each piece, in order.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().enumerate().map(|(index, piece)| {
            let bytes = piece.as_bytes();
            if index == 0 {
                bytes.get(self.offset..).unwrap_or_default()
            } else {
                bytes
            }
        })
    }

    /// Takes the pieces out, for example to use a `Vec` again. What was sent of the first one is
    /// still in it.
    pub fn into_pieces(self) -> impl Iterator<Item = Piece> {
        self.pieces.into_iter()
    }

    /// The `Vec` of the first owned piece, emptied, to be used again without an allocation.
    pub fn into_spare_vec(self) -> Option<Vec<u8>> {
        self.into_pieces().find_map(|piece| match piece {
            Piece::Owned(mut bytes) => {
                bytes.clear();
                Some(bytes)
            }
            _ => None,
        })
    }
}

impl<T: Into<Piece>> From<T> for Payload {
    fn from(piece: T) -> Self {
        let mut payload = Payload::new();
        payload.push(piece);
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(payload: &Payload) -> Vec<u8> {
        payload.chunks().flatten().copied().collect()
    }

    #[test]
    fn advance_crosses_pieces() {
        let mut payload = Payload::from(b"hello ".to_vec());
        payload.push(&b""[..]);
        payload.push(&b"wide "[..]);
        payload.push(b"world".to_vec());
        assert_eq!((payload.piece_count(), payload.len()), (3, 16));
        payload.advance(0);
        payload.advance(2);
        assert_eq!(text(&payload), b"llo wide world");
        payload.advance(4);
        assert_eq!(
            (payload.piece_count(), text(&payload)),
            (2, b"wide world".to_vec())
        );
        payload.advance(7);
        assert_eq!(
            (payload.piece_count(), text(&payload)),
            (1, b"rld".to_vec())
        );
        payload.advance(3);
        assert!(payload.is_empty());
        assert_eq!(payload.len(), 0);
        payload.advance(10);
        assert!(payload.is_empty());
    }

    #[test]
    fn every_split_of_a_payload_sends_the_same_bytes() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..500 {
            let mut payload = Payload::new();
            let mut whole = Vec::new();
            for _ in 0..random.usize(..5) {
                let piece: Vec<u8> = (0..random.usize(..9)).map(|_| random.u8(..)).collect();
                whole.extend_from_slice(&piece);
                payload.push(piece);
            }
            let mut sent = Vec::new();
            while !payload.is_empty() {
                assert_eq!(payload.len(), whole.len() - sent.len());
                let count = random.usize(1..=payload.len());
                sent.extend(text(&payload).into_iter().take(count));
                payload.advance(count);
            }
            assert_eq!(sent, whole);
        }
    }

    #[test]
    fn a_vec_can_be_used_again() {
        let payload = Payload::from(Vec::from(&b"abc"[..]));
        let spare = payload.into_spare_vec().expect("an owned piece");
        assert!(spare.is_empty() && spare.capacity() >= 3);
        assert!(Payload::from(&b"x"[..]).into_spare_vec().is_none());
    }
}
