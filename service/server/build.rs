//! What `joind --version` tells: the version, and the commit where the build names one in JOIN_COMMIT.

use std::env;

fn main() {
    println!("cargo:rerun-if-env-changed=JOIN_COMMIT");
    let version = env!("CARGO_PKG_VERSION");
    let version = match env::var("JOIN_COMMIT") {
        Ok(commit) if !commit.is_empty() => format!("{version} ({commit})"),
        _ => version.to_owned(),
    };
    println!("cargo:rustc-env=JOIND_VERSION={version}");
}
