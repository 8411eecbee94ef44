//! Whatever stands in a configuration, it is loaded or refused in one line.

use std::path::Path;

use flux_gateway::config::read;

/// The first byte chooses the format, the rest is the text.
pub(crate) fn check(bytes: &[u8]) {
    let Some((first, text)) = bytes.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let path = Path::new(["a.json", "a.toml", "a.yaml"][usize::from(first % 3)]);
    match read(path, text) {
        Ok(loaded) => assert!(!loaded.to_string().is_empty()),
        Err(error) => {
            let error = error.to_string();
            assert!(!error.is_empty() && !error.contains('\n'), "{error}");
        }
    }
}
