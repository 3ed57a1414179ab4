//! A page, looked at in a browser.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// What a page looked like on one kind of screen.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    /// The screen's width, in pixels.
    pub width: u32,
    /// `light` or `dark`.
    pub scheme: String,
    /// A picture of the page.
    pub picture: PathBuf,
    /// All that can be read.
    pub text: String,
    /// The boxes out of which something stands, so that one has to scroll sideways.
    pub sideways: Vec<String>,
    /// The boxes that cut off what stands out of them.
    pub cut: Vec<String>,
}

/// Looks at the page on a desk and on a phone, by day and by night; pictures go to `target/page/`. `None`, aloud, where `make
/// test` found no browser for this machine.
#[track_caller]
#[allow(clippy::print_stderr, reason = "what is not checked must not pass in silence")]
pub fn look_at(url: &str) -> Option<Vec<Seen>> {
    let Some(tools) = std::env::var_os("AUDITLAKE_TEST_TOOLS").map(PathBuf::from) else {
        panic!(
            "AUDITLAKE_TEST_TOOLS names no directory with a browser: run `make test`, which installs one and sets it"
        );
    };
    let place = tools.join("browser");
    assert!(place.join("installed").exists(), "there is no {}: run `make test`, which installs it", place.display());
    if !place.join("chromium").exists() {
        eprintln!("NOT CHECKED: {url} in a browser; there is none for this machine");
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("node");
    command.arg(root.join("tests/browser/look.mjs")).arg(place).arg(url).arg(root.join("target/page"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}
