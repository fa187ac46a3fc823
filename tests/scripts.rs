//! Scripts that nothing else runs.

use std::process::Command;

/// CI's one retry is not for hiding.
#[test]
fn a_test_that_needed_a_retry_is_named_with_its_first_failure() {
    let folder = tempfile::tempdir().unwrap();
    let flaky = |cases: &str| {
        let file = folder.path().join("junit.xml");
        let text = format!("<testsuites><testsuite name='suite'>{cases}</testsuite></testsuites>");
        std::fs::write(&file, text).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/flaky.py");
        let output = Command::new("python3").arg(script).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let steady = "<testcase classname='suite' name='steady'/>";
    assert_eq!(flaky(steady), "");
    let failed = "<testcase classname='suite' name='red'><failure>no</failure></testcase>";
    assert_eq!(flaky(failed), "", "nextest itself names these");
    let once = "<testcase classname='suite' name='shaky'>
                  <flakyFailure>panicked at tests/x.rs:1:\n  3 is not 4\nstack backtrace:\n  0: main</flakyFailure>
                  <flakyFailure>another reason</flakyFailure>
                </testcase>";
    let said = flaky(&format!("{steady}{once}"));
    assert!(said.contains("1 flaky") && said.contains("suite shaky") && said.contains("3 is not 4"), "{said}");
    assert!(!said.contains("backtrace") && !said.contains("another reason"), "{said}");
}
