//! What `joind --version` tells: the version, and the commit where the build names one in JOIN_COMMIT.

use std::env;

fn main() {
    println!("cargo:rerun-if-env-changed=JOIN_COMMIT");
    let version = env!("CARGO_PKG_VERSION");
    let version = match env::var("JOIN_COMMIT") {
        Ok(commit) if !commit.is_empty() => format!("{version} ({commit})"),
        _ => version.to_owned(),
    };
    // Not JOIND_…: what runs below cargo sees it, too, and those are settings.
    println!("cargo:rustc-env=VERSION_AND_COMMIT={version}");
}
