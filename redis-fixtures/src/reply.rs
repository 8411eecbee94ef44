//! Asks a server one thing, over a connection of its own (RESP2).

use std::io::{BufRead, BufReader, Error, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A number.
    Int(i64),
    /// Status or bulk text.
    Text(String),
    /// An error.
    Error(String),
    /// Several.
    List(Vec<Reply>),
}

impl Reply {
    /// The text, or an empty one for other replies.
    pub fn text(&self) -> &str {
        match self {
            Reply::Text(text) | Reply::Error(text) => text,
            _ => "",
        }
    }

    /// The elements, or none for other replies.
    pub fn list(&self) -> &[Reply] {
        match self {
            Reply::List(list) => list,
            _ => &[],
        }
    }

    /// The number, also where it is written as text.
    pub fn int(&self) -> Option<i64> {
        match self {
            Reply::Int(number) => Some(*number),
            other => other.text().parse().ok(),
        }
    }
}

/// Sends `commands` one after the other and gives the reply to the last.
pub(crate) fn ask(port: u16, commands: &[&[&str]]) -> std::io::Result<Reply> {
    let mut request = Vec::new();
    for command in commands {
        write!(request, "*{}\r\n", command.len())?;
        for part in *command {
            write!(request, "${}\r\n{part}\r\n", part.len())?;
        }
    }
    last_reply(port, &request, commands.len())
}

/// Sends one line in the form for people ("inline command") and gives the reply.
pub(crate) fn ask_line(port: u16, line: &str) -> std::io::Result<Reply> {
    last_reply(port, format!("{line}\r\n").as_bytes(), 1)
}

fn last_reply(port: u16, request: &[u8], replies: usize) -> std::io::Result<Reply> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request)?;
    let mut from = BufReader::new(stream);
    let mut last = Reply::Nil;
    for _ in 0..replies {
        last = read(&mut from)?;
    }
    Ok(last)
}

fn read(from: &mut impl BufRead) -> std::io::Result<Reply> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.trim_end();
    let garbled = || Error::new(ErrorKind::InvalidData, format!("not a reply: {line}"));
    let (kind, rest) = line.split_at_checked(1).ok_or_else(garbled)?;
    let number = || rest.parse::<i64>().map_err(|_| garbled());
    Ok(match kind {
        "+" => Reply::Text(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Int(number()?),
        "$" | "*" if number()? < 0 => Reply::Nil,
        "$" => {
            let mut bytes = vec![0; number()? as usize + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(bytes.len() - 2);
            Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
        }
        "*" => Reply::List(
            (0..number()?)
                .map(|_| read(from))
                .collect::<Result<_, _>>()?,
        ),
        _ => return Err(garbled()),
    })
}
