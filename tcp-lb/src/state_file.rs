//! The last known good nodes on disk, for a balancer that starts while the registry is away.

use std::io;
use std::path::Path;

use flux_registry::NodeRecord;

/// Reads the nodes kept in `path`; none if there is no such file.
///
/// # Errors
/// When the file cannot be read or is no list. Single records that do not fit are left out.
pub fn read(path: &Path) -> io::Result<Vec<NodeRecord>> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let list: Vec<serde_json::Value> = serde_json::from_slice(&text)?;
    let parse = |value: serde_json::Value| {
        let id = value.get("id")?.as_str()?.to_owned();
        NodeRecord::parse(&id, value.to_string().as_bytes()).ok()
    };
    Ok(list
        .into_iter()
        .take(flux_registry::limits::NODES_MAX)
        .filter_map(parse)
        .collect())
}

/// Replaces `path` by these nodes, whole or not at all.
///
/// # Errors
/// When it cannot be written; the old file stands then.
pub fn write<'a>(path: &Path, nodes: impl Iterator<Item = &'a NodeRecord>) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(&nodes.collect::<Vec<_>>())?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, text)?;
    std::fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_survive_a_restart_and_bad_ones_are_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("nodes.json");
        assert!(read(&path).expect("no file is no node").is_empty());
        let mut good = NodeRecord::new("a", ([127, 0, 0, 1], 9).into());
        good.nonce = "n".to_owned();
        let bad = NodeRecord {
            id: "b c".to_owned(),
            ..good.clone()
        };
        write(&path, [&good, &bad].into_iter()).expect("written");
        assert_eq!(read(&path).expect("read"), [good]);
        std::fs::write(&path, "{").expect("written");
        assert!(read(&path).is_err());
    }
}
