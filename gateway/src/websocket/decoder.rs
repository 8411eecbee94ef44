//! Bytes of one connection -> events (RFC 6455 §5, §6.2).
//!
//! Invariants:
//! - Between frames and outside a fragmented message a connection holds no heap memory and 24 bytes of state.
//! - A frame that lies whole in the receive buffer and is a whole message is unmasked there and delivered as a slice
//!   of it: nothing is copied or allocated.
//! - Memory grows with bytes that have come, never with a length that was claimed.
//! - The events are the same however the bytes are cut; a broken rule is reported at the first byte that shows it.
//! - After a close frame or an error every further byte is ignored.

use super::Limits;
use super::close::{CloseCode, CloseReason, parse_payload};
use super::header::{CLIENT_HEADER_BYTES_MAX, CONTROL_PAYLOAD_BYTES_MAX, ClientHeader, Opcode};
use super::mask::{rotate, unmask};
use super::message::Message;

/// What a client sent. Slices point into the receive buffer or into the decoder and end with the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping, to be answered with a pong of the same payload.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// The client closes: its code (`None`: the frame was empty) and reason. The last event of a connection.
    Close(Option<CloseCode>, &'a str),
}

/// The receiving side of one connection.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Only while a frame or a message is incomplete.
    partial: Option<Box<Partial>>,
    /// The first bytes of a header whose rest has not come.
    header: [u8; CLIENT_HEADER_BYTES_MAX],
    header_len: u8,
    closed: bool,
}

// A million idle connections pay for every byte here.
const _: () = assert!(size_of::<Decoder>() <= 24);

#[derive(Debug, Default)]
struct Partial {
    message: Option<Message>,
    frame: Option<PartialFrame>,
    /// The payload of an incomplete control frame.
    control: Vec<u8>,
}

#[derive(Debug)]
struct PartialFrame {
    fin: bool,
    /// `None`: a frame of the open message.
    control: Option<Opcode>,
    key: [u8; 4],
    /// Bytes of the payload that have not come.
    remaining: usize,
}

impl Decoder {
    /// A connection whose handshake has just ended.
    pub const fn new() -> Decoder {
        Decoder {
            partial: None,
            header: [0; CLIENT_HEADER_BYTES_MAX],
            header_len: 0,
            closed: false,
        }
    }

    /// Takes the next bytes of the connection; `bytes` is unmasked in place and of no use afterwards. Events are
    /// delivered in order, also those that precede an error.
    ///
    /// # Errors
    /// The first rule that the client breaks: send a close frame with its code and end the connection. From then on,
    /// as after [`Event::Close`], everything is ignored.
    pub fn feed(
        &mut self,
        bytes: &mut [u8],
        limits: &Limits,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), CloseReason> {
        let outcome = self.advance(bytes, limits, on_event);
        if self.closed || outcome.is_err() {
            self.close();
        }
        outcome
    }

    /// Ignores everything from now on and frees what is held.
    pub fn close(&mut self) {
        *self = Decoder {
            closed: true,
            ..Decoder::new()
        };
    }

    /// True after a close frame, an error or [`close`](Decoder::close).
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// True when no frame or message is begun and not ended.
    pub fn is_idle(&self) -> bool {
        self.partial.is_none() && self.header_len == 0
    }

    /// Heap memory held for an incomplete frame or message, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.partial.as_deref().map_or(0, |partial| {
            let message = partial.message.as_ref().map_or(0, Message::heap_bytes);
            size_of::<Partial>() + partial.control.capacity() + message
        })
    }

    fn advance(
        &mut self,
        mut bytes: &mut [u8],
        limits: &Limits,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), CloseReason> {
        while !bytes.is_empty() && !self.closed {
            if self
                .partial
                .as_ref()
                .is_some_and(|partial| partial.frame.is_some())
            {
                bytes = self.resume_frame(bytes, on_event)?;
                continue;
            }
            let Some((header, rest)) = self.next_header(bytes, limits)? else {
                return Ok(());
            };
            if rest.len() < header.payload_len {
                return self.begin_frame(&header, rest);
            }
            let (payload, rest) = rest.split_at_mut(header.payload_len);
            unmask(payload, header.key);
            self.whole_frame(&header, payload, on_event)?;
            bytes = rest;
        }
        Ok(())
    }

    /// The next frame's header and the bytes behind it; `None` when the header is incomplete and has been kept.
    #[inline]
    fn next_header<'a>(
        &mut self,
        bytes: &'a mut [u8],
        limits: &Limits,
    ) -> Result<Option<(ClientHeader, &'a mut [u8])>, CloseReason> {
        let open = self
            .partial
            .as_ref()
            .and_then(|partial| partial.message.as_ref())
            .map(Message::open);
        if self.header_len == 0 {
            if let Some(header) = ClientHeader::parse(bytes, open, limits)? {
                return Ok(Some((header, &mut bytes[header.len..])));
            }
            // An incomplete header is shorter than the longest one.
            self.header[..bytes.len()].copy_from_slice(bytes);
            self.header_len = bytes.len() as u8;
            return Ok(None);
        }
        // A header that came in pieces: at most 14 bytes, one at a time, since only its bytes tell where it ends.
        let mut taken = 0;
        while let Some(&byte) = bytes.get(taken) {
            self.header[usize::from(self.header_len)] = byte;
            self.header_len += 1;
            taken += 1;
            let so_far = &self.header[..usize::from(self.header_len)];
            if let Some(header) = ClientHeader::parse(so_far, open, limits)? {
                self.header_len = 0;
                return Ok(Some((header, &mut bytes[taken..])));
            }
        }
        Ok(None)
    }

    /// A frame whose payload is whole and unmasked.
    #[inline]
    fn whole_frame(
        &mut self,
        header: &ClientHeader,
        payload: &[u8],
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), CloseReason> {
        match (header.opcode, header.fin) {
            (Opcode::Text, true) => {
                let text =
                    simdutf8::basic::from_utf8(payload).map_err(|_| CloseReason::InvalidUtf8)?;
                on_event(Event::Text(text));
            }
            (Opcode::Binary, true) => on_event(Event::Binary(payload)),
            (Opcode::Text | Opcode::Binary | Opcode::Continuation, fin) => {
                let message = self.message_of(header.opcode);
                message.push(payload)?;
                if fin {
                    self.finish_message(on_event)?;
                }
            }
            (control, _) => self.control_frame(control, payload, on_event)?,
        }
        Ok(())
    }

    /// A frame of which only the beginning has come.
    fn begin_frame(
        &mut self,
        header: &ClientHeader,
        payload: &mut [u8],
    ) -> Result<(), CloseReason> {
        unmask(payload, header.key);
        let control = header.opcode.is_control().then_some(header.opcode);
        if control.is_some() {
            let partial = self.partial.get_or_insert_default();
            debug_assert!(header.payload_len <= CONTROL_PAYLOAD_BYTES_MAX);
            partial.control.extend_from_slice(payload);
        } else {
            self.message_of(header.opcode).push(payload)?;
        }
        self.partial.get_or_insert_default().frame = Some(PartialFrame {
            fin: header.fin,
            control,
            key: rotate(header.key, payload.len()),
            remaining: header.payload_len - payload.len(),
        });
        Ok(())
    }

    /// More of a frame whose beginning came earlier; gives back what lies behind the frame.
    fn resume_frame<'a>(
        &mut self,
        bytes: &'a mut [u8],
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<&'a mut [u8], CloseReason> {
        let partial = self.partial.get_or_insert_default();
        let Some(frame) = partial.frame.as_mut() else {
            return Ok(bytes);
        };
        let (payload, rest) = bytes.split_at_mut(frame.remaining.min(bytes.len()));
        unmask(payload, frame.key);
        frame.key = rotate(frame.key, payload.len());
        frame.remaining -= payload.len();
        let (complete, fin, control) = (frame.remaining == 0, frame.fin, frame.control);
        match (&mut partial.message, control) {
            (_, Some(_)) => partial.control.extend_from_slice(payload),
            (Some(message), None) => message.push(payload)?,
            (None, None) => {}
        }
        if complete {
            partial.frame = None;
            match control {
                Some(opcode) => {
                    let payload = std::mem::take(&mut partial.control);
                    self.control_frame(opcode, &payload, on_event)?;
                    self.release();
                }
                None if fin => self.finish_message(on_event)?,
                None => {}
            }
        }
        Ok(rest)
    }

    fn control_frame(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), CloseReason> {
        match opcode {
            Opcode::Ping => on_event(Event::Ping(payload)),
            Opcode::Pong => on_event(Event::Pong(payload)),
            _ => {
                let (code, reason) = parse_payload(payload)?;
                self.closed = true;
                on_event(Event::Close(code, reason));
            }
        }
        Ok(())
    }

    /// The message that a frame with this opcode begins or continues.
    fn message_of(&mut self, opcode: Opcode) -> &mut Message {
        let message = &mut self.partial.get_or_insert_default().message;
        if let (Some(message), Opcode::Continuation) = (message.as_mut(), opcode) {
            message.continued();
        }
        message.get_or_insert_with(|| {
            if opcode == Opcode::Text {
                Message::text()
            } else {
                Message::binary()
            }
        })
    }

    fn finish_message(&mut self, on_event: &mut impl FnMut(Event<'_>)) -> Result<(), CloseReason> {
        if let Some(message) = self
            .partial
            .as_mut()
            .and_then(|partial| partial.message.take())
        {
            on_event(message.finish()?);
        }
        self.release();
        Ok(())
    }

    /// Frees the memory when nothing is incomplete any more.
    fn release(&mut self) {
        if self
            .partial
            .as_ref()
            .is_some_and(|partial| partial.message.is_none() && partial.frame.is_none())
        {
            self.partial = None;
        }
    }
}
