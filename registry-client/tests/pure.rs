//! Promise: the pure parts mention no socket, runtime, clock or randomness.

#[test]
fn pure_parts_mention_no_io() {
    let sources = [
        ("record", include_str!("../src/record.rs")),
        ("lease", include_str!("../src/lease.rs")),
        ("membership", include_str!("../src/membership.rs")),
        ("ring", include_str!("../src/ring.rs")),
        ("placement", include_str!("../src/placement.rs")),
    ];
    for (name, source) in sources {
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        for banned in [
            "tokio",
            "redis::",
            "TcpStream",
            "UdpSocket",
            "Instant::now",
            "SystemTime",
            "fastrand",
            "rand::",
            "std::thread",
            "std::fs",
            "println",
        ] {
            assert!(!code.contains(banned), "{name}.rs mentions {banned}");
        }
    }
}

#[test]
fn no_wall_clock_of_this_machine_is_read() {
    // Deadlines and shown times are Redis TIME, intervals are monotonic: a node whose clock jumps by an hour
    // must not notice. (The memory transport plays the server and has its clock.)
    let sources = [
        ("redis", include_str!("../src/redis/mod.rs")),
        ("client", include_str!("../src/redis/client.rs")),
        ("registry", include_str!("../src/registry.rs")),
        ("task", include_str!("../src/task.rs")),
    ];
    for (name, source) in sources {
        assert!(
            !source.contains("SystemTime"),
            "{name}.rs reads a wall clock"
        );
    }
}
