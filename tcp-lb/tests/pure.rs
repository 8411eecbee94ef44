//! The pure parts mention no socket, runtime, clock or randomness.

use std::path::Path;

#[test]
fn pure_parts_mention_no_socket_runtime_clock_or_randomness() {
    let forbidden = [
        "std::io",
        "TcpStream",
        "socket2",
        "tokio",
        "::now()",
        "SystemTime",
        "fastrand",
        "flux_runtime",
        "std::thread",
    ];
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in [
        "head.rs",
        "health.rs",
        "balance/mod.rs",
        "balance/node.rs",
        "balance/routes.rs",
        "balance/table.rs",
    ] {
        let text = std::fs::read_to_string(source.join(file)).expect("a source file");
        let code = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .expect("the part before its tests");
        for word in forbidden {
            assert!(!code.contains(word), "{file} mentions {word}");
        }
    }
}
