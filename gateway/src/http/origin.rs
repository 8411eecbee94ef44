//! The `Origin` field against `client.allowed_origins`, with Centrifugo's rules: a request without an origin does not
//! come from a browser's page and is allowed; with an empty list every other is refused; otherwise one pattern has to
//! match the whole origin.
//!
//! A pattern is a glob: `*` any characters (also none, also dots), `?` one, `[abc]` `[a-z]` `[!a]` one of a set,
//! `{a,b}` either, `\` takes the next character as it is. Upper and lower case are the same.

use thiserror::Error;

/// Most plain globs that the `{a,b}` of one pattern may stand for.
const ALTERNATIVES_MAX: usize = 256;

/// The allow-list.
#[derive(Clone, Debug, Default)]
pub struct AllowedOrigins {
    globs: Vec<Plain>,
}

/// An entry of the allow-list that is not a glob.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("pattern `{pattern}`: {problem}")]
pub struct OriginPatternError {
    pattern: String,
    problem: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    One,
    Any,
    Set {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

type Plain = Vec<Token>;

/// A pattern as in the allow-list, for any text, upper and lower case told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<Plain>);

impl Glob {
    /// Compiles the pattern.
    ///
    /// # Errors
    /// As [`AllowedOrigins::new`].
    pub fn new(pattern: &str) -> Result<Glob, OriginPatternError> {
        compile(pattern)
            .map(Glob)
            .map_err(|problem| OriginPatternError {
                pattern: pattern.to_owned(),
                problem,
            })
    }

    /// Whether the pattern matches all of `text`.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        self.0.iter().any(|plain| matches(plain, &text))
    }
}

/// Open braces: what stood before them, and the alternatives that are complete.
#[derive(Default)]
struct Braces {
    before: Vec<Plain>,
    alternatives: Vec<Plain>,
}

impl AllowedOrigins {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// An unclosed or empty set, an unclosed or nested alternative, too many alternatives, a `\` at the end.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<AllowedOrigins, OriginPatternError> {
        let mut globs = Vec::new();
        for pattern in patterns {
            let pattern = pattern.as_ref();
            let compiled =
                compile(&pattern.to_lowercase()).map_err(|problem| OriginPatternError {
                    pattern: pattern.to_owned(),
                    problem,
                })?;
            globs.extend(compiled);
        }
        Ok(AllowedOrigins { globs })
    }

    /// Whether a request with this `Origin` (`None` or empty: without) may be upgraded.
    pub fn allows(&self, origin: Option<&str>) -> bool {
        match origin {
            None | Some("") => true,
            Some(origin) => {
                let origin: Vec<char> = origin.to_lowercase().chars().collect();
                self.globs.iter().any(|glob| matches(glob, &origin))
            }
        }
    }
}

/// One pattern as the plain globs that it stands for.
fn compile(pattern: &str) -> Result<Vec<Plain>, &'static str> {
    let mut globs: Vec<Plain> = vec![Vec::new()];
    let mut braces: Option<Braces> = None;
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        let token = match char {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => Token::Literal(chars.next().ok_or("ends with a backslash")?),
            '[' => set(&mut chars)?,
            '{' => {
                if braces.is_some() {
                    return Err("alternatives inside alternatives");
                }
                braces = Some(Braces {
                    before: std::mem::take(&mut globs),
                    ..Braces::default()
                });
                globs.push(Vec::new());
                continue;
            }
            ',' if braces.is_some() => {
                if let Some(Braces { alternatives, .. }) = &mut braces {
                    alternatives.append(&mut globs);
                }
                globs.push(Vec::new());
                continue;
            }
            '}' if braces.is_some() => {
                let mut closed = braces.take().unwrap_or_default();
                closed.alternatives.append(&mut globs);
                if closed.before.len() * closed.alternatives.len() > ALTERNATIVES_MAX {
                    return Err("stands for more than 256 patterns");
                }
                for before in &closed.before {
                    for alternative in &closed.alternatives {
                        globs.push(before.iter().chain(alternative).cloned().collect());
                    }
                }
                continue;
            }
            char => Token::Literal(char),
        };
        for glob in &mut globs {
            // Two stars in a row mean what one means.
            if token != Token::Any || glob.last() != Some(&Token::Any) {
                glob.push(token.clone());
            }
        }
    }
    if braces.is_some() {
        return Err("`{` without `}`");
    }
    Ok(globs)
}

fn set(chars: &mut std::str::Chars<'_>) -> Result<Token, &'static str> {
    const UNCLOSED: &str = "`[` without `]`";
    let mut ranges = Vec::new();
    let mut negated = false;
    let mut next = chars.next();
    if next == Some('!') {
        negated = true;
        next = chars.next();
    }
    loop {
        let low = match next.ok_or(UNCLOSED)? {
            ']' => break,
            '\\' => chars.next().ok_or(UNCLOSED)?,
            char => char,
        };
        next = chars.next();
        let mut high = low;
        if next == Some('-') {
            high = match chars.next().ok_or(UNCLOSED)? {
                ']' => return Err("a range without its end"),
                '\\' => chars.next().ok_or(UNCLOSED)?,
                char => char,
            };
            next = chars.next();
        }
        if low > high {
            return Err("a range whose end is before its start");
        }
        ranges.push((low, high));
    }
    if ranges.is_empty() {
        Err("an empty set")
    } else {
        Ok(Token::Set { negated, ranges })
    }
}

/// Whether the glob matches all of `text`. Time is bounded by the product of their lengths: after a mismatch only the
/// last star is tried again.
fn matches(glob: &[Token], text: &[char]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        let fits = match glob.get(token) {
            Some(Token::Any) => {
                star = Some((token, at));
                token += 1;
                continue;
            }
            Some(Token::One) => true,
            Some(Token::Literal(char)) => *char == text[at],
            Some(Token::Set { negated, ranges }) => {
                ranges
                    .iter()
                    .any(|(low, high)| (*low..=*high).contains(&text[at]))
                    != *negated
            }
            None => false,
        };
        if fits {
            (token, at) = (token + 1, at + 1);
        } else if let Some((star_token, star_at)) = star {
            star = Some((star_token, star_at + 1));
            (token, at) = (star_token + 1, star_at + 1);
        } else {
            return false;
        }
    }
    glob[token..].iter().all(|token| *token == Token::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_list_only_requests_without_an_origin_are_allowed() {
        let none = AllowedOrigins::default();
        assert!(none.allows(None));
        assert!(none.allows(Some("")));
        for origin in ["null", "http://127.0.0.1:8001", "https://example.com"] {
            assert!(!none.allows(Some(origin)), "{origin}");
        }
    }

    #[test]
    fn patterns_match_whole_origins() {
        // (pattern, origin, allowed)
        let cases = [
            ("*", "https://anything.example", true),
            ("*", "null", true),
            ("https://example.com", "https://example.com", true),
            ("https://example.com", "https://example.com.evil.net", false),
            ("https://example.com", "http://example.com", false),
            ("https://Example.com", "https://eXample.COM", true),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            (
                "https://*.example.com",
                "https://evil.net/.example.com:1",
                false,
            ),
            ("http://localhost:*", "http://localhost:3000", true),
            ("http://localhost:300?", "http://localhost:3001", true),
            ("http://localhost:300?", "http://localhost:300", false),
            ("http{,s}://example.com", "https://example.com", true),
            ("http{,s}://example.com", "http://example.com", true),
            (
                "https://{a,b}.example.{com,net}",
                "https://b.example.net",
                true,
            ),
            (
                "https://{a,b}.example.{com,net}",
                "https://c.example.net",
                false,
            ),
            ("https://[a-c].x", "https://b.x", true),
            ("https://[!a-c].x", "https://b.x", false),
            ("https://[!a-c].x", "https://d.x", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            (
                "*a*a*a*a*b",
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                false,
            ),
            ("**x**", "x", true),
        ];
        for (pattern, origin, allowed) in cases {
            let origins = AllowedOrigins::new(&[pattern]).expect(pattern);
            assert_eq!(origins.allows(Some(origin)), allowed, "{pattern} {origin}");
        }
    }

    #[test]
    fn a_bad_pattern_is_named() {
        for pattern in [
            "[",
            "[]",
            "[a",
            "[a-]",
            "[z-a]",
            "{a",
            "{a{b}}",
            "a\\",
            "{a,b,c,d}{a,b,c,d}{a,b,c,d}{a,b,c,d}{a,b}",
        ] {
            let error = AllowedOrigins::new(&[pattern]).expect_err(pattern);
            assert!(error.to_string().contains(pattern), "{error}");
        }
    }
}
