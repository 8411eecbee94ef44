//! A payload from the one before and a delta: what a client does. The gateway only tests with it.

use super::{DIGITS, checksum};

/// A delta that makes nothing of its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not the format.
    #[error("not a delta")]
    Syntax,
    /// A stretch that the source does not have.
    #[error("a delta of another source")]
    Source,
    /// The result is not as long as the delta says, or has another checksum.
    #[error("a delta that does not make what it says")]
    Target,
}

/// Makes the target. Takes memory for what is made of `source` and `delta`, never for a length that
/// is only claimed.
///
/// # Errors
/// When `delta` is not one, or not one of this source.
pub fn apply(source: &[u8], delta: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut at = delta;
    let target_len = number(&mut at)?;
    expect(&mut at, b'\n')?;
    let mut target = Vec::new();
    loop {
        let count = number(&mut at)?;
        let (command, rest) = at.split_first().ok_or(Malformed::Syntax)?;
        at = rest;
        match command {
            b'@' => {
                let from = number(&mut at)? as usize;
                expect(&mut at, b',')?;
                let stretch = source
                    .get(from..)
                    .and_then(|rest| rest.get(..count as usize));
                target.extend_from_slice(stretch.ok_or(Malformed::Source)?);
            }
            b':' => {
                let (bytes, rest) = at
                    .split_at_checked(count as usize)
                    .ok_or(Malformed::Syntax)?;
                target.extend_from_slice(bytes);
                at = rest;
            }
            b';' if at.is_empty() => {
                let is_whole = target.len() == target_len as usize && checksum(&target) == count;
                return is_whole.then_some(target).ok_or(Malformed::Target);
            }
            _ => return Err(Malformed::Syntax),
        }
        if target.len() > target_len as usize {
            return Err(Malformed::Target);
        }
    }
}

fn number(at: &mut &[u8]) -> Result<u32, Malformed> {
    let mut number: u32 = 0;
    let mut digits = 0;
    for byte in *at {
        let Some(digit) = DIGITS.iter().position(|digit| digit == byte) else {
            break;
        };
        let shifted = number.checked_mul(64).ok_or(Malformed::Syntax)?;
        number = shifted + digit as u32;
        digits += 1;
    }
    *at = &at[digits..];
    match digits {
        0 => Err(Malformed::Syntax),
        _ => Ok(number),
    }
}

fn expect(at: &mut &[u8], byte: u8) -> Result<(), Malformed> {
    let rest = at.strip_prefix(&[byte]).ok_or(Malformed::Syntax)?;
    *at = rest;
    Ok(())
}
