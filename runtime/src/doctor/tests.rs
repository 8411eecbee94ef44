use super::*;

#[test]
fn this_machine_can_run_shards_and_the_table_says_so() {
    let report = examine();
    assert_eq!(report.fatal(), None, "{report}");
    assert!(report.connections_max > 0);
    let table = report.to_string();
    for name in ["io_uring", "memlock", "nofile", "cpus", "multishot receive"] {
        assert!(table.contains(name), "{table}");
    }
    assert!(table.contains("is the limit that binds"), "{table}");
}

#[test]
fn a_failure_is_one_line_with_its_remedy() {
    let report = Report {
        checks: vec![
            Check::ok("first", "fine", "nothing to do"),
            Check::fail("second", "broken", "cannot start", "mend it"),
        ],
        connections_max: 0,
        binding: "nofile",
    };
    assert_eq!(
        report.fatal().as_deref(),
        Some("second: broken (cannot start); mend it")
    );
    let table = report.to_string();
    assert!(
        table.contains("FAIL") && table.contains("remedy: mend it"),
        "{table}"
    );
}
