//! Pages as headless Chromium shows them.

use std::{fs, path::Path, process::Command};

/// The page at `page`, which must need nothing beside itself.
///
/// # Panics
/// It cannot be read, or refers to something elsewhere.
#[must_use]
pub fn self_contained(page: &Path) -> String {
    let html = fs::read_to_string(page).unwrap();
    for foreign in ["<script", "http:", "https:", "src=", "url(", "@import"] {
        assert!(!html.contains(foreign), "the page is not self-contained: {foreign}");
    }
    html
}

/// The document after the browser has laid it out `width` pixels wide; `profile` is the browser's own
/// directory.
///
/// # Panics
/// The browser is not there or fails.
#[must_use]
pub fn rendered(page: &Path, profile: &Path, width: u32) -> String {
    let got = Command::new("timeout")
        .args(["-k", "5", "120", "chromium", "--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--disable-dev-shm-usage", "--disable-quic", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--window-size={width},2000"))
        .arg("--dump-dom")
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    assert_ne!(
        got.status.code(),
        Some(127),
        "chromium is not installed; `ci/install-packages` installs it"
    );
    assert!(got.status.success(), "chromium: {}", String::from_utf8_lossy(&got.stderr));
    String::from_utf8_lossy(&got.stdout).into_owned()
}
