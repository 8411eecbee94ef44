//! A channel's presence hash, read page by page: however many are present, Redis gives no answer of any size
//! and is not kept from others for long. Who comes or goes meanwhile may be among them or not.

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use redis::{Cmd, Value};

use super::super::{Members, PresenceStats};
use super::entries::{entry, fields};
use super::present::Present;
use super::record::Rejected;
use super::scripts::bytes;
use crate::limits::{REDIS_MEMBERS_MAX, REDIS_MEMBERS_PAGE};
use crate::protocol::{ClientId, ErrorCode};
use crate::pubsub::OwnedClientInfo;

/// Where the next page begins, as Redis calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor(Box<[u8]>);

impl Default for Cursor {
    fn default() -> Self {
        Self(b"0".as_slice().into())
    }
}

impl Cursor {
    /// The command for the page that begins here.
    pub(super) fn command(&self, key: String) -> Cmd {
        let mut command = redis::cmd("HSCAN");
        command.arg(key).arg(&self.0[..]);
        command.arg("COUNT").arg(REDIS_MEMBERS_PAGE);
        command
    }
}

/// A page, as Redis has answered it.
pub(super) struct Page<'a> {
    entries: &'a Value,
    /// Where the next one begins; none behind the last.
    pub(super) next: Option<Cursor>,
}

impl<'a> Page<'a> {
    /// Takes the answer to [`Cursor::command`] apart.
    ///
    /// # Errors
    /// [`Rejected`] when it is none.
    pub(super) fn of(answer: &'a Value) -> Result<Self, Rejected> {
        let Value::Array(parts) = answer else {
            return Err(Rejected::Content);
        };
        let [cursor, entries] = &parts[..] else {
            return Err(Rejected::Content);
        };
        let cursor = bytes(cursor).ok_or(Rejected::Content)?;
        let next = (cursor != b"0").then(|| Cursor(cursor.into()));
        Ok(Self { entries, next })
    }

    /// Fields and values.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        fields(self.entries)
    }
}

/// The members found so far.
#[derive(Default)]
pub(super) struct Scan {
    cursor: Cursor,
    /// By their ids: Redis may give one twice.
    found: HashMap<ClientId, OwnedClientInfo, RandomState>,
    /// Entries seen, whoever's.
    seen: usize,
}

/// What a page has brought.
pub(super) enum Scanned {
    /// There are more.
    More(Scan),
    /// These are all.
    All(Members),
    /// There are too many, or it was no page.
    Failed(ErrorCode),
}

impl Scan {
    /// The command for the next page.
    pub(super) fn command(&self, key: String) -> Cmd {
        self.cursor.command(key)
    }

    /// Takes a page in; also hands out how many entries were refused.
    pub(super) fn take(
        mut self,
        channel: &str,
        answer: &Value,
        present: &Present,
    ) -> (Scanned, u64) {
        let Ok(page) = Page::of(answer) else {
            return (Scanned::Failed(ErrorCode::Internal), 1);
        };
        let mut rejected = 0;
        for (_, value) in page.entries() {
            self.seen += 1;
            match entry(value) {
                Ok((node, generation, info)) if present.counts(node, generation) => {
                    self.found.insert(info.client, info);
                }
                Ok(_) => {}
                Err(_) => rejected += 1,
            }
        }
        let scanned = match page.next {
            _ if self.seen > REDIS_MEMBERS_MAX => Scanned::Failed(ErrorCode::LimitExceeded),
            Some(cursor) => Scanned::More(Self { cursor, ..self }),
            None => {
                let own = present.own(channel).cloned();
                Scanned::All(own.chain(self.found.into_values()).collect())
            }
        };
        (scanned, rejected)
    }
}

pub(super) fn stats(members: &Members) -> PresenceStats {
    let users: HashSet<&str, RandomState> = members.iter().map(|info| &*info.user).collect();
    PresenceStats {
        clients: members.len() as u64,
        users: users.len() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::super::entries::written;
    use super::*;
    use crate::protocol::ClientInfo;

    fn member(n: u128) -> [Value; 2] {
        let client = ClientId::from_random(n);
        let info = ClientInfo {
            client,
            user: "",
            conn_info: b"",
            chan_info: b"",
        };
        let text = |bytes: Vec<u8>| Value::BulkString(bytes);
        [
            text(client.to_string().into_bytes()),
            text(written("other", 1, info)),
        ]
    }

    fn answer(cursor: &str, members: impl Iterator<Item = u128>) -> Value {
        let entries = Value::Array(members.flat_map(member).collect());
        Value::Array(vec![Value::BulkString(cursor.into()), entries])
    }

    #[test]
    fn pages_are_one_list_without_doubles_and_what_is_no_page_is_refused() {
        let present = Present::default();
        let (first, rejected) = Scan::default().take("c", &answer("17", 0..10), &present);
        let Scanned::More(scan) = first else {
            panic!("there are more")
        };
        assert_eq!((&*scan.cursor.0, rejected), (&b"17"[..], 0));
        let (last, _) = scan.take("c", &answer("0", 5..20), &present);
        let Scanned::All(members) = last else {
            panic!("these are all")
        };
        assert_eq!(members.len(), 20);
        for garbage in [Value::Nil, Value::Int(1), Value::Array(vec![Value::Nil])] {
            let (refused, rejected) = Scan::default().take("c", &garbage, &present);
            assert!(matches!(refused, Scanned::Failed(ErrorCode::Internal)));
            assert_eq!(rejected, 1);
        }
    }

    #[test]
    fn more_than_can_be_answered_is_said_and_not_gathered() {
        let present = Present::default();
        let mut scan = Scan::default();
        for page in 0.. {
            let page = page * REDIS_MEMBERS_PAGE as u128;
            let members = page..page + REDIS_MEMBERS_PAGE as u128;
            match scan.take("c", &answer("1", members), &present).0 {
                Scanned::More(next) => scan = next,
                Scanned::All(_) => panic!("the cursor says that there are more"),
                Scanned::Failed(code) => {
                    assert_eq!(code, ErrorCode::LimitExceeded);
                    assert!(page as usize <= REDIS_MEMBERS_MAX);
                    return;
                }
            }
        }
    }
}
